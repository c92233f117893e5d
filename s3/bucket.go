package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/ba692904/imagestore"
)

// patience is less than the handler's own timeout, so that clients learn why.
const patience = 20 * time.Second

// A bucket sends requests about the objects of one bucket.
type bucket struct {
	client       *s3.Client
	name, prefix string
	patience     time.Duration // how long the service may send and take nothing
	seen         atomic.Bool   // an answer has shown that the bucket exists
}

// key returns the key of an image's object.
func (b *bucket) key(id string) *string { return aws.String(b.prefix + id) }

// wrap says which object a non-nil error is about.
func (b *bucket) wrap(id string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("s3://%s/%s%s: %w", b.name, b.prefix, id, err)
}

// missing finds out what a HEAD request's 404 means. The answer has no body that
// would tell a missing object from a missing bucket.
func (b *bucket) missing(w *watch, err error) error {
	if !b.seen.Load() {
		_, bucketErr := b.client.HeadBucket(w, &s3.HeadBucketInput{Bucket: &b.name})
		if isMissing(bucketErr) {
			return &types.NoSuchBucket{Message: &b.name}
		}
		if bucketErr = b.answered(w, bucketErr); bucketErr != nil {
			return bucketErr
		}
	}
	return fmt.Errorf("%w: %w", imagestore.ErrNotFound, err)
}

func (b *bucket) listPage(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	w := b.watch(ctx)
	defer w.end()
	out, err := b.client.ListObjectsV2(w, in)
	return out, b.answered(w, err)
}

// answered gives the error of a request its kind. It also learns from the error,
// or from nil, whether the bucket exists.
func (b *bucket) answered(w *watch, err error) error {
	if err == nil {
		b.seen.Store(true)
		return nil
	}
	if cause := context.Cause(w); cause != nil {
		if errors.Is(cause, errStill) {
			return unavailable(cause)
		}
		return w.caller.Err()
	}
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok {
		return err // never sent, for lack of credentials, for example
	}
	status, code := response.HTTPStatusCode(), errorCode(err)
	switch {
	case code == "NoSuchBucket":
		b.seen.Store(false)
		return err
	case code == "NoSuchKey":
		b.seen.Store(true)
		return fmt.Errorf("%w: %w", imagestore.ErrNotFound, err)
	case status == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %w", imagestore.ErrNoSpace, err)
	case status == http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", imagestore.ErrNotImplemented, err)
	case status >= 500, status < 300, // no answer, which is 0, or one that broke off
		status == http.StatusTooManyRequests, status == http.StatusRequestTimeout,
		code == "RequestTimeout": // which is 400
		return unavailable(err)
	}
	return err
}

// remove sends a DELETE. Once begun it goes on after ctx is done, so that its
// outcome is known. A missing object is no error.
func (b *bucket) remove(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return b.wrap(id, err)
	}
	w := b.watch(context.WithoutCancel(ctx))
	defer w.end()
	_, err := b.client.DeleteObject(w, &s3.DeleteObjectInput{Bucket: &b.name, Key: b.key(id)}, once)
	return b.wrap(id, b.answered(w, err))
}

// once sends a request only once.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// An http11 tells net/http that requests are HTTP/1.1, which the SDK leaves out.
// Without it net/http sends Expect: 100-continue but does not wait.
type http11 struct{ s3.HTTPClient }

func (c http11) Do(r *http.Request) (*http.Response, error) {
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	return c.HTTPClient.Do(r)
}
