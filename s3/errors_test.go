package s3_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
)

// operations are all that send requests. PUT and DELETE are the requests alone,
// without the HEAD that Commit and Delete may send before.
var operations = map[string]func(context.Context, *s3.Driver) error{
	"Stat": func(ctx context.Context, d *s3.Driver) error {
		_, err := d.Stat(ctx, "file")
		return err
	},
	"Open": func(ctx context.Context, d *s3.Driver) error {
		img, err := d.Open(ctx, "file")
		if err == nil {
			img.Close()
		}
		return err
	},
	"PUT": func(ctx context.Context, d *s3.Driver) error {
		_, err := d.PutObject(ctx, "file", bytes.NewReader(text('a', 1000)), imagestore.Condition{})
		return err
	},
	"conditional PUT": func(ctx context.Context, d *s3.Driver) error {
		_, err := d.PutObject(ctx, "file", bytes.NewReader(text('a', 1000)), imagestore.IfMatch(`"0"`))
		return err
	},
	"DELETE": func(ctx context.Context, d *s3.Driver) error { return d.Remove(ctx, "file") },
	"Commit": func(ctx context.Context, d *s3.Driver) error {
		_, err := commit(ctx, d, "file", text('a', 1000), imagestore.Condition{})
		return err
	},
	"Delete": func(ctx context.Context, d *s3.Driver) error { return d.Delete(ctx, "file", imagestore.Condition{}) },
	"List": func(ctx context.Context, d *s3.Driver) error {
		for _, err := range d.List(ctx, imagestore.ListOptions{}) {
			return err
		}
		return nil
	},
	"Check": func(ctx context.Context, d *s3.Driver) error { return d.Check(ctx) },
}

func TestServiceAway(t *testing.T) {
	fails := func(err error) fault {
		return func(*http.Request, http.RoundTripper) (*http.Response, error) { return nil, err }
	}
	var dns *net.DNSError
	var api smithy.APIError
	for name, test := range map[string]struct {
		fault fault
		cause any // for errors.As, or an error for errors.Is
	}{
		"refused":         {toListener(t, nil), syscall.ECONNREFUSED},
		"hung up":         {toListener(t, func(c net.Conn) { c.Close() }), nil},
		"hung up halfway": {toListener(t, func(c net.Conn) { c.Read(make([]byte, 64<<10)); io.WriteString(c, "HTTP/1.1 200") }), nil},
		"answer cut":      {toListener(t, halfAnswer), nil},
		"silent":          {toListener(t, func(c net.Conn) { io.Copy(io.Discard, c) }), nil},
		"no address":      {fails(&net.DNSError{Err: "no such host", Name: "service"}), &dns},
		"500":             {answer(500, "InternalError"), &api},
		"503":             {answer(503, "SlowDown"), &api},
		"504":             {answer(504, ""), &api},
		"429":             {answer(429, "TooManyRequests"), &api},
		"timed out there": {answer(400, "RequestTimeout"), &api},
	} {
		for opName, op := range operations {
			if name == "timed out there" && opName != "PUT" {
				continue // only requests with a body; a HEAD could not say so
			}
			if name == "answer cut" && opName != "List" {
				continue // the others read no body, or later
			}
			t.Run(name+"/"+opName, func(t *testing.T) {
				svc := newService(t)
				svc.SetPatience(200 * time.Millisecond)
				if name != "silent" {
					svc.SetPatience(time.Minute)
				}
				svc.wire.interfere(test.fault)
				wantNoLeak(t, svc.wire, func() {
					err := op(t.Context(), svc.Driver)
					wantError(t, opName, err, imagestore.ErrUnavailable)
					wantOtherError(t, opName, err, imagestore.ErrNotFound, imagestore.ErrPreconditionFailed, context.Canceled, context.DeadlineExceeded)
					switch cause := test.cause.(type) {
					case nil:
					case error:
						wantError(t, opName, err, cause)
					default:
						if !errors.As(err, cause) {
							t.Errorf("got error %v, want its cause too", err)
						}
					}
				})
			})
		}
	}
}

func TestRefused(t *testing.T) {
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			svc := newService(t, func(o *awss3.Options) {
				o.Credentials = credentials.NewStaticCredentialsProvider("nobody", "knows", "")
			})
			wantNoLeak(t, svc.wire, func() {
				wantOtherError(t, name, op(t.Context(), svc.Driver), imagestore.ErrNotFound, imagestore.ErrUnavailable, imagestore.ErrPreconditionFailed)
			})
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		svc := newService(t, func(o *awss3.Options) {
			o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, errors.New("there are none")
			})
		})
		_, err := svc.Stat(t.Context(), "file")
		wantOtherError(t, "Stat", err, imagestore.ErrNotFound, imagestore.ErrUnavailable)
	})
	for status, code := range map[int]string{403: "AccessDenied", 404: ""} { // the latter of a proxy, say
		svc := newService(t)
		svc.wire.interfere(answer(status, code))
		_, err := svc.Open(t.Context(), "file")
		wantOtherError(t, "Open", err, imagestore.ErrNotFound, imagestore.ErrUnavailable)
		svc.wire.interfere(only("HEAD", answer(403, "AccessDenied")))
		_, err = svc.Stat(t.Context(), "file")
		wantOtherError(t, "Stat", err, imagestore.ErrNotFound, imagestore.ErrUnavailable)
	}
}

func TestMissingBucket(t *testing.T) {
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			svc := newService(t)
			d := s3.New(svc.client, "missing-"+svc.bucket, "")
			wantNoLeak(t, svc.wire, func() {
				for range 2 {
					wantOtherError(t, name, op(t.Context(), d), imagestore.ErrNotFound, imagestore.ErrUnavailable, imagestore.ErrPreconditionFailed)
				}
			})
		})
	}
}

// TestBucketRemoved removes the bucket while it is in use. After an answer that
// says so, Stat asks for the bucket again.
func TestBucketRemoved(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	svc.wire.interfere(answer(404, "NoSuchBucket"))
	_, err := svc.Open(t.Context(), "file")
	wantOtherError(t, "Open", err, imagestore.ErrNotFound)
	_, err = svc.Stat(t.Context(), "file")
	wantOtherError(t, "Stat", err, imagestore.ErrNotFound)
}

// TestBucketUnknown has a service that cannot say whether the bucket exists.
func TestBucketUnknown(t *testing.T) {
	for status, want := range map[int]error{503: imagestore.ErrUnavailable, 403: nil} {
		svc := newService(t)
		svc.wire.interfere(only("HEAD bucket", answer(status, "")))
		_, err := svc.Stat(t.Context(), "file")
		wantOtherError(t, "Stat", err, imagestore.ErrNotFound)
		if want != nil {
			wantError(t, "Stat", err, want)
		}
	}
}

func TestOtherAnswers(t *testing.T) {
	for code, test := range map[string]struct {
		status int
		want   error
	}{
		"PreconditionFailed":         {412, imagestore.ErrPreconditionFailed},
		"ConditionalRequestConflict": {409, imagestore.ErrPreconditionFailed},
		"NoSuchKey":                  {404, imagestore.ErrPreconditionFailed}, // If-Match matches no object
		"XMinioStorageFull":          {507, imagestore.ErrNoSpace},
		"NotImplemented":             {501, imagestore.ErrNotImplemented},
	} {
		svc := newService(t)
		svc.wire.interfere(answer(test.status, code))
		_, err := svc.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.IfMatch(`"0"`))
		wantError(t, code, err, test.want)
		wantOtherError(t, code, err, imagestore.ErrUnavailable, imagestore.ErrNotFound)
	}
	svc := newService(t)
	svc.wire.interfere(answer(409, "BucketNotEmpty"))
	_, err := svc.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.IfAbsent())
	wantOtherError(t, "another conflict", err, imagestore.ErrPreconditionFailed)
	svc.wire.interfere(answer(412, "PreconditionFailed"))
	_, err = svc.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.Condition{})
	wantOtherError(t, "412 without a condition", err, imagestore.ErrPreconditionFailed)
}

// TestReadsAreRepeated has the service fail twice.
func TestReadsAreRepeated(t *testing.T) {
	for _, name := range []string{"Open", "Stat", "List"} {
		svc := newService(t)
		put(t, svc, "file", text('a', 10))
		left := 2
		svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if left--; left >= 0 {
				return answer(503, "SlowDown")(r, next)
			}
			return next.RoundTrip(r)
		})
		if err := operations[name](t.Context(), svc.Driver); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestUnknownOutcome loses the answers to changes that are made.
func TestUnknownOutcome(t *testing.T) {
	svc := newService(t)
	svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && (r.Method == http.MethodPut || r.Method == http.MethodDelete) {
			resp.Body.Close()
			return nil, &net.OpError{Op: "read", Err: syscall.ECONNRESET}
		}
		return resp, err
	})
	want := text('a', 1000)
	for _, test := range []struct {
		cond imagestore.Condition
		sent []string
	}{{imagestore.IfAbsent(), []string{"PUT"}}, {imagestore.Condition{}, []string{"HEAD", "PUT"}}} {
		_, err := commit(t.Context(), svc, "file", want, test.cond)
		wantError(t, "Commit", err, imagestore.ErrUnavailable, syscall.ECONNRESET)
		wantOtherError(t, "Commit", err, imagestore.ErrPreconditionFailed)
		svc.wire.wantSent(t, "Commit", test.sent...)
		wantContent(t, svc, "file", want)
		svc.wire.sent()
	}
	wantError(t, "Delete", svc.Delete(t.Context(), "file", imagestore.Condition{}), imagestore.ErrUnavailable)
	svc.wire.wantSent(t, "Delete", "HEAD", "DELETE")
	wantKeys(t, svc)
}
