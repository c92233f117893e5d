package s3_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
)

// A service is a Driver with a prefix of its own in the bucket of a real object
// store, and the wire to it.
type service struct {
	*s3.Driver
	wire           *wire
	client         *awss3.Client
	janitor        *awss3.Client // has a wire of its own
	bucket, prefix string
}

func newService(t *testing.T, opts ...func(*awss3.Options)) *service {
	t.Helper()
	endpoint := os.Getenv("S3_ENDPOINT")
	if endpoint == "" {
		t.Skip("S3_ENDPOINT is not set; run ./cluster.sh go test ./...")
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	svc := &service{
		wire:   &wire{transport: transport},
		bucket: cmp.Or(os.Getenv("S3_BUCKET"), "test"),
		prefix: "test-" + rand.Text() + "/",
	}
	base := func(o *awss3.Options) {
		o.BaseEndpoint = aws.String(endpoint)
		o.UsePathStyle = true
		o.HTTPClient = &http.Client{Transport: svc.wire}
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	}
	svc.client = awss3.NewFromConfig(cfg, append([]func(*awss3.Options){base}, opts...)...)
	svc.Driver = s3.New(svc.client, svc.bucket, svc.prefix)
	svc.janitor = awss3.NewFromConfig(cfg, base, func(o *awss3.Options) { o.HTTPClient = &http.Client{Transport: transport} })
	t.Cleanup(func() {
		var all types.Delete
		for _, key := range svc.keys(t) {
			all.Objects = append(all.Objects, types.ObjectIdentifier{Key: aws.String(svc.prefix + key)})
		}
		for part := range slices.Chunk(all.Objects, 1000) { // S3's limit
			if _, err := svc.janitor.DeleteObjects(context.Background(), &awss3.DeleteObjectsInput{Bucket: &svc.bucket, Delete: &types.Delete{Objects: part}}); err != nil {
				t.Fatal(err)
			}
		}
	})
	return svc
}

// keys returns the keys of all objects, without the prefix.
func (svc *service) keys(t *testing.T) (keys []string) {
	t.Helper()
	pages := awss3.NewListObjectsV2Paginator(svc.janitor, &awss3.ListObjectsV2Input{
		Bucket: &svc.bucket, Prefix: &svc.prefix, EncodingType: types.EncodingTypeUrl,
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Contents {
			key, err := url.QueryUnescape(aws.ToString(o.Key))
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, strings.TrimPrefix(key, svc.prefix))
		}
	}
	return keys
}

// putRaw puts an object as another program would.
func (svc *service) putRaw(t *testing.T, key string, b []byte) {
	t.Helper()
	in := &awss3.PutObjectInput{Bucket: &svc.bucket, Key: aws.String(svc.prefix + key), Body: bytes.NewReader(b)}
	if _, err := svc.janitor.PutObject(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// removeRaw removes an object as another program would.
func (svc *service) removeRaw(t *testing.T, key string) {
	t.Helper()
	in := &awss3.DeleteObjectInput{Bucket: &svc.bucket, Key: aws.String(svc.prefix + key)}
	if _, err := svc.janitor.DeleteObject(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// put sends one PUT.
func put(t *testing.T, svc *service, id string, b []byte) imagestore.Info {
	t.Helper()
	info, err := svc.PutObject(t.Context(), id, bytes.NewReader(b), imagestore.Condition{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// commit uploads b as a Store does.
func commit(ctx context.Context, d imagestore.Driver, id string, b []byte, cond imagestore.Condition) (imagestore.PutResult, error) {
	u, err := d.Create(ctx)
	if err != nil {
		return imagestore.PutResult{}, err
	}
	defer u.Abort()
	if _, err := u.Write(b); err != nil {
		return imagestore.PutResult{}, err
	}
	return u.Commit(ctx, id, imagestore.Meta{Type: "image/png"}, cond)
}

func open(t *testing.T, d imagestore.Driver, id string) *imagestore.Image {
	t.Helper()
	img, err := d.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img
}

func list(t *testing.T, d imagestore.Driver, opts imagestore.ListOptions) (ids []string) {
	t.Helper()
	for info, err := range d.List(t.Context(), opts) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, info.ID)
	}
	return ids
}

func wantContent(t *testing.T, d imagestore.Driver, id string, want []byte) {
	t.Helper()
	img, err := d.Open(t.Context(), id)
	if err != nil {
		t.Error(err)
		return
	}
	defer img.Close()
	if got, err := io.ReadAll(img); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, %v; want other %d", id, len(got), err, len(want))
	}
}

func wantKeys(t *testing.T, svc *service, want ...string) {
	t.Helper()
	if got := svc.keys(t); !slices.Equal(got, want) {
		t.Errorf("got keys %q, want %q", got, want)
	}
}

func wantError(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s: got error %v, want %q", what, err, w)
		}
	}
}

func wantOtherError(t *testing.T, what string, err error, not ...error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: got no error", what)
	}
	for _, n := range not {
		if errors.Is(err, n) {
			t.Errorf("%s: got error %v, want one that is not %q", what, err, n)
		}
	}
}

// md5Tag returns the ETag that services give to an object that is no multipart upload.
func md5Tag(b []byte) string { return fmt.Sprintf(`"%x"`, md5.Sum(b)) }

// text returns n bytes that differ from those of another seed.
func text(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed ^ byte(i) ^ byte(i>>8)
	}
	return b
}
