package s3_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/ba692904/imagestore"
)

// TestSlowUpload takes longer as a whole than the service may send nothing.
func TestSlowUpload(t *testing.T) {
	svc := newService(t)
	const patience = 500 * time.Millisecond
	svc.SetPatience(patience)
	want := text('a', 256<<10)
	if _, err := svc.PutObject(t.Context(), "file", slowReader{bytes.NewReader(want), patience / 5}, imagestore.Condition{}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, svc, "file", want)
}

type slowReader struct {
	io.ReadSeeker
	pause time.Duration
}

func (r slowReader) Read(p []byte) (int, error) {
	<-time.After(r.pause)
	return r.ReadSeeker.Read(p[:min(len(p), 32<<10)])
}

func TestUploadCut(t *testing.T) {
	for _, stall := range []bool{false, true} {
		for _, cond := range []imagestore.Condition{{}, imagestore.IfAbsent()} {
			svc := newService(t)
			svc.wire.interfere(lossy{up: 8 << 20, down: plenty, stall: stall}.fault(t))
			if stall {
				svc.SetPatience(500 * time.Millisecond)
			}
			_, err := svc.PutObject(t.Context(), "file", bytes.NewReader(text('a', 16<<20)), cond)
			wantError(t, "PUT", err, imagestore.ErrUnavailable)
			svc.wire.wantSent(t, "PUT", "PUT")
			wantKeys(t, svc)
		}
	}
}

// TestBrokenContent has the temporary file fail while it is sent.
func TestBrokenContent(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 100))
	_, err := svc.PutObject(t.Context(), "file", &brokenContent{Reader: bytes.NewReader(text('b', 1<<20)), after: 500_000}, imagestore.Condition{})
	wantError(t, "PUT", err, errContent)
	wantOtherError(t, "PUT", err, imagestore.ErrUnavailable)
	wantContent(t, svc, "file", text('a', 100))
}

var errContent = errors.New("the content fails")

// A brokenContent fails when it is read for the second time: while it is sent,
// and not when its checksum is made.
type brokenContent struct {
	*bytes.Reader
	after int64
	reads int
}

func (b *brokenContent) Seek(offset int64, whence int) (int64, error) {
	if offset == 0 && whence == io.SeekStart {
		b.reads++
	}
	return b.Reader.Seek(offset, whence)
}

func (b *brokenContent) Read(p []byte) (int, error) {
	if at := b.Size() - int64(b.Len()); b.reads > 1 && at >= b.after {
		return 0, errContent
	}
	return b.Reader.Read(p)
}

// TestRefusalIsHeard has the service refuse uploads that are larger than what it
// reads before it hangs up.
func TestRefusalIsHeard(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	for _, size := range []int{300_000, 8 << 20} {
		for range 10 {
			content := &countedReader{ReadSeeker: bytes.NewReader(text('b', size))}
			_, err := svc.PutObject(t.Context(), "file", content, imagestore.IfAbsent())
			wantError(t, "PUT", err, imagestore.ErrPreconditionFailed)
			if content.read != int64(size) { // once, for its checksum
				t.Fatalf("got %d bytes read, want %d: the body was sent", content.read, size)
			}
		}
	}
}

type countedReader struct {
	io.ReadSeeker
	read int64
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.read += int64(n)
	return n, err
}

// TestTLS pins what is different there: the checksum follows the body, which is
// then read once.
func TestTLS(t *testing.T) {
	newService(t) // which may skip
	target, err := url.Parse(os.Getenv("S3_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host // which is signed
	}})
	defer server.Close()
	trailer := ""
	svc := newService(t, func(o *awss3.Options) {
		o.BaseEndpoint = &server.URL
		o.HTTPClient = smithyhttp.ClientDoFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				trailer = r.Header.Get("X-Amz-Trailer")
			}
			return server.Client().Do(r)
		})
	})
	want := text('a', 1<<20)
	content := &countedReader{ReadSeeker: bytes.NewReader(want)}
	if _, err := svc.PutObject(t.Context(), "file", content, imagestore.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	if trailer != "x-amz-checksum-crc32" || content.read != int64(len(want)) {
		t.Errorf("got trailer %q and %d bytes read, want x-amz-checksum-crc32 and %d", trailer, content.read, len(want))
	}
	wantContent(t, svc, "file", want)
}
