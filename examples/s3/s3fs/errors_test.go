package s3fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
)

// operations are all that ask the engine for something.
var operations = map[string]func(context.Context, *s3fs.Fs) error{
	"Stat": func(_ context.Context, f *s3fs.Fs) error {
		_, err := f.Stat("file")
		return err
	},
	"Open": func(_ context.Context, f *s3fs.Fs) error {
		file, err := f.Open("file")
		if err == nil {
			file.Close()
		}
		return err
	},
	"PutObject": func(ctx context.Context, f *s3fs.Fs) error {
		_, err := f.PutObject(ctx, "file", bytes.NewReader(text('a', 1000)), imagestore.Precondition{})
		return err
	},
	"conditional PutObject": func(ctx context.Context, f *s3fs.Fs) error {
		_, err := f.PutObject(ctx, "file", bytes.NewReader(text('a', 1000)), imagestore.IfMatch(`"0"`))
		return err
	},
	"Remove": func(_ context.Context, f *s3fs.Fs) error { return f.Remove("file") },
	"ListObjects": func(ctx context.Context, f *s3fs.Fs) error {
		for _, err := range f.ListObjects(ctx, "") {
			return err
		}
		return nil
	},
	"Check": func(ctx context.Context, f *s3fs.Fs) error { return f.Check(ctx) },
}

func TestEngineAway(t *testing.T) {
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
		"no address":      {fails(&net.DNSError{Err: "no such host", Name: "engine"}), &dns},
		"500":             {answer(500, "InternalError"), &api},
		"503":             {answer(503, "SlowDown"), &api},
		"504":             {answer(504, ""), &api},
		"429":             {answer(429, "TooManyRequests"), &api},
		"timed out there": {answer(400, "RequestTimeout"), &api},
	} {
		for opName, op := range operations {
			if name == "timed out there" && opName != "PutObject" {
				continue // only of what has a body, and HEAD could not say so
			}
			if name == "answer cut" && opName != "ListObjects" {
				continue // the others want no body, or later
			}
			t.Run(name+"/"+opName, func(t *testing.T) {
				e := newEngine(t)
				e.SetPatience(200 * time.Millisecond)
				if name != "silent" {
					e.SetPatience(time.Minute)
				}
				e.wire.interfere(test.fault)
				wantNoLeak(t, e.wire, func() {
					err := op(t.Context(), e.Fs)
					wantError(t, opName, err, imagestore.ErrUnavailable)
					wantOtherError(t, opName, err, fs.ErrNotExist, imagestore.ErrPrecondition, context.Canceled, context.DeadlineExceeded)
					switch cause := test.cause.(type) {
					case nil:
					case error:
						wantError(t, opName, err, cause)
					default:
						if !errors.As(err, cause) {
							t.Errorf("the cause is missing: %v", err)
						}
					}
				})
			})
		}
	}
}

// toListener is a fault: the engine is somebody who treats connections like
// that, or nobody if serve is nil.
func toListener(t *testing.T, serve func(net.Conn)) fault {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if serve == nil {
		ln.Close()
	} else {
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					serve(c)
				}()
			}
		}()
	}
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		host := r.URL.Host
		r = r.Clone(r.Context())
		r.Host = host // which is signed
		r.URL = &url.URL{Scheme: "http", Host: ln.Addr().String(), Path: r.URL.Path, RawQuery: r.URL.RawQuery}
		return next.RoundTrip(r)
	}
}

// halfAnswer answers a request with the first half of a list.
func halfAnswer(c net.Conn) {
	c.Read(make([]byte, 64<<10))
	io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 1000\r\n\r\n<ListBucketResult><IsTrunc")
}

func TestRefused(t *testing.T) {
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t, func(o *s3.Options) {
				o.Credentials = credentials.NewStaticCredentialsProvider("nobody", "knows", "")
			})
			wantNoLeak(t, e.wire, func() {
				wantOtherError(t, name, op(t.Context(), e.Fs), fs.ErrNotExist, imagestore.ErrUnavailable, imagestore.ErrPrecondition)
			})
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		e := newEngine(t, func(o *s3.Options) {
			o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{}, errors.New("there are none")
			})
		})
		_, err := e.Stat("file")
		wantOtherError(t, "Stat", err, fs.ErrNotExist, imagestore.ErrUnavailable)
	})
}

func TestMissingBucket(t *testing.T) {
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			e := newEngine(t)
			fsys := s3fs.New(e.client, "missing-"+e.bucket, "")
			wantNoLeak(t, e.wire, func() {
				for range 2 {
					wantOtherError(t, name, op(t.Context(), fsys), fs.ErrNotExist, imagestore.ErrUnavailable, imagestore.ErrPrecondition)
				}
			})
		})
	}
}

// TestBucketRemoved has the bucket go while it is in use: an answer that says
// so has Stat look again.
func TestBucketRemoved(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		return answer(404, "NoSuchBucket")(r, next)
	})
	_, err := e.Open("file")
	wantOtherError(t, "Open", err, fs.ErrNotExist)
	_, err = e.Stat("file")
	wantOtherError(t, "Stat", err, fs.ErrNotExist)
}

// TestBucketUnknown has nobody able to say whether the bucket is there.
func TestBucketUnknown(t *testing.T) {
	for status, want := range map[int]error{503: imagestore.ErrUnavailable, 403: nil} {
		e := newEngine(t)
		e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if kind(r) == "HEAD bucket" {
				return answer(status, "")(r, next)
			}
			return next.RoundTrip(r)
		})
		_, err := e.Stat("file")
		wantOtherError(t, "Stat", err, fs.ErrNotExist)
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
		"PreconditionFailed":         {412, imagestore.ErrPrecondition},
		"ConditionalRequestConflict": {409, imagestore.ErrPrecondition},
		"NoSuchKey":                  {404, imagestore.ErrPrecondition}, // there is nothing that If-Match could match
		"XMinioStorageFull":          {507, imagestore.ErrNoSpace},
		"NotImplemented":             {501, imagestore.ErrUnsupported},
	} {
		e := newEngine(t)
		e.wire.interfere(answer(test.status, code))
		_, err := e.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.IfMatch(`"0"`))
		wantError(t, code, err, test.want)
		wantOtherError(t, code, err, imagestore.ErrUnavailable, fs.ErrNotExist)
	}
	e := newEngine(t)
	e.wire.interfere(answer(409, "BucketNotEmpty"))
	_, err := e.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.IfAbsent())
	wantOtherError(t, "another conflict", err, imagestore.ErrPrecondition)
	e.wire.interfere(answer(412, "PreconditionFailed"))
	_, err = e.PutObject(t.Context(), "file", bytes.NewReader(nil), imagestore.Precondition{})
	wantOtherError(t, "412 where there was no condition", err, imagestore.ErrPrecondition)
	e.wire.interfere(answer(404, "")) // a proxy's, say
	_, err = e.Open("file")
	wantOtherError(t, "Open with a 404 of somebody else", err, fs.ErrNotExist)
}

func TestCancelled(t *testing.T) {
	for _, name := range []string{"PutObject", "conditional PutObject", "ListObjects", "Check"} {
		t.Run(name+"/before", func(t *testing.T) {
			e := newEngine(t)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if r.Method == http.MethodPut || r.Method == http.MethodDelete {
					t.Errorf("%s is sent", r.Method)
				}
				return next.RoundTrip(r)
			})
			wantNoLeak(t, e.wire, func() {
				err := operations[name](ctx, e.Fs)
				wantError(t, name, err, context.Canceled)
				wantOtherError(t, name, err, imagestore.ErrUnavailable)
			})
		})
	}
	for _, name := range []string{"ListObjects", "Check"} {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut} {
			if (name == "ListObjects") != (method == http.MethodGet) {
				continue
			}
			t.Run(name+"/during its "+method, func(t *testing.T) {
				e := newEngine(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
					if r.Method == method {
						cancel()
					}
					return next.RoundTrip(r)
				})
				wantNoLeak(t, e.wire, func() {
					err := operations[name](ctx, e.Fs)
					wantError(t, name, err, context.Canceled)
					wantOtherError(t, name, err, imagestore.ErrUnavailable)
				})
				e.wire.interfere(nil)
				wantNothing(t, e) // Check tidies up all the same
			})
		}
	}
}

// TestCancelledUpload has the caller go away while the body is on its way and
// when the engine has all of it: what has begun is done.
func TestCancelledUpload(t *testing.T) {
	halfway := func(cancel func()) fault {
		return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Body = &watchedBody{r.Body, 500_000, cancel}
			return next.RoundTrip(r)
		}
	}
	answered := func(cancel func()) fault {
		return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			cancel()
			return resp, err
		}
	}
	for when, fault := range map[string]func(cancel func()) fault{"halfway": halfway, "at the end": answered} {
		for _, conditional := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/conditional=%t", when, conditional), func(t *testing.T) {
				e := newEngine(t)
				old := put(t, e, "file", text('a', 1000))
				var cond imagestore.Precondition
				if conditional {
					cond = imagestore.IfMatch(etag(old))
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				e.wire.interfere(fault(cancel))
				want := text('b', 1<<20)
				wantNoLeak(t, e.wire, func() {
					if _, err := e.PutObject(ctx, "file", bytes.NewReader(want), cond); err != nil {
						t.Error(err)
					}
				})
				if ctx.Err() == nil {
					t.Error("nobody has gone away: nothing was tested")
				}
				e.wire.interfere(nil)
				wantContent(t, e, "file", want)
			})
		}
	}
}

// A watchedBody calls then, perhaps more than once, when n bytes have been read.
type watchedBody struct {
	io.ReadCloser
	n    int
	then func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.n -= n; b.n <= 0 {
		b.then()
	}
	return n, err
}

// TestUnknownOutcome loses the answers to changes that are made.
func TestUnknownOutcome(t *testing.T) {
	e := newEngine(t)
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && (r.Method == http.MethodPut || r.Method == http.MethodDelete) {
			resp.Body.Close()
			return nil, &net.OpError{Op: "read", Err: syscall.ECONNRESET}
		}
		return resp, err
	})
	want := text('a', 1000)
	for _, cond := range []imagestore.Precondition{imagestore.IfAbsent(), {}} {
		_, err := e.PutObject(t.Context(), "file", bytes.NewReader(want), cond)
		wantError(t, "PutObject", err, imagestore.ErrUnavailable, syscall.ECONNRESET)
		wantOtherError(t, "PutObject", err, imagestore.ErrPrecondition)
		e.wire.wantSent(t, "PutObject", "PUT")
		wantContent(t, e, "file", want)
		e.wire.sent()
	}
	wantError(t, "Remove", e.Remove("file"), imagestore.ErrUnavailable)
	e.wire.wantSent(t, "Remove", "DELETE")
}

// TestReadsAreRepeated has the engine fail twice.
func TestReadsAreRepeated(t *testing.T) {
	for _, name := range []string{"Open", "Stat", "ListObjects"} {
		e := newEngine(t)
		put(t, e, "file", text('a', 10))
		left := 2
		e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if left--; left >= 0 {
				return answer(503, "SlowDown")(r, next)
			}
			return next.RoundTrip(r)
		})
		if err := operations[name](t.Context(), e.Fs); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A lossy proxy passes on only so many bytes of each connection.
type lossy struct {
	up, down int64
	stall    bool // keep still afterwards rather than hang up
}

func (l lossy) fault(t *testing.T) fault {
	t.Helper()
	target, err := url.Parse(os.Getenv("S3_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	done := t.Context().Done()
	return toListener(t, func(c net.Conn) {
		engine, err := net.Dial("tcp", target.Host)
		if err != nil {
			return
		}
		defer engine.Close()
		var once sync.Once
		over := make(chan struct{})
		pass := func(to, from net.Conn, limit int64) {
			n, _ := io.CopyN(to, from, limit)
			if l.stall && n == limit {
				<-done
			}
			once.Do(func() { close(over) })
		}
		go pass(engine, c, l.up)
		go pass(c, engine, l.down)
		<-over
	})
}

const plenty = 1 << 40

func TestDownloadCut(t *testing.T) {
	e := newEngine(t)
	want := text('a', 1<<20)
	put(t, e, "file", want)
	e.wire.interfere(lossy{up: plenty, down: 700_000}.fault(t))
	wantNoLeak(t, e.wire, func() {
		f, err := e.Open("file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		first, err := io.ReadAll(f)
		wantError(t, "Read", err, imagestore.ErrUnavailable)
		rest, err := io.ReadAll(f) // from where it was cut
		if err != nil || !bytes.Equal(append(first, rest...), want) {
			t.Errorf("the parts have %d and %d bytes, %v", len(first), len(rest), err)
		}
		n, err := f.ReadAt(make([]byte, len(want)), 0)
		if n == len(want) {
			t.Error("ReadAt gives more than came through")
		}
		wantError(t, "ReadAt", err, imagestore.ErrUnavailable)
	})
}

func TestDownloadStalled(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 1<<20))
	e.wire.interfere(lossy{up: plenty, down: 700_000, stall: true}.fault(t))
	e.SetPatience(200 * time.Millisecond)
	f := open(t, e, "file")
	b, err := io.ReadAll(f)
	wantError(t, "Read", err, imagestore.ErrUnavailable)
	if !bytes.Equal(b, text('a', 1<<20)[:len(b)]) {
		t.Error("Read gives other bytes")
	}
}

// TestSlowReader takes longer than the engine may between two calls of Read.
func TestSlowReader(t *testing.T) {
	e := newEngine(t)
	want := text('a', 1<<20)
	put(t, e, "file", want)
	const patience = 100 * time.Millisecond
	e.SetPatience(patience)
	f := open(t, e, "file")
	<-time.After(2 * patience)
	first := make([]byte, 1000)
	if _, err := io.ReadFull(f, first); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * patience)
	if rest, err := io.ReadAll(f); err != nil || !bytes.Equal(append(first, rest...), want) {
		t.Errorf("the rest has %d bytes, %v", len(rest), err)
	}
	e.wire.wantSent(t, "all that", "PUT", "GET")
}

// TestSlowUpload takes longer as a whole than the engine may keep still.
func TestSlowUpload(t *testing.T) {
	e := newEngine(t)
	const patience = 500 * time.Millisecond
	e.SetPatience(patience)
	want := text('a', 256<<10)
	if _, err := e.PutObject(t.Context(), "file", slowReader{bytes.NewReader(want), patience / 5}, imagestore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	wantContent(t, e, "file", want)
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
		for _, cond := range []imagestore.Precondition{{}, imagestore.IfAbsent()} {
			e := newEngine(t)
			e.wire.interfere(lossy{up: 8 << 20, down: plenty, stall: stall}.fault(t))
			if stall {
				e.SetPatience(500 * time.Millisecond)
			}
			_, err := e.PutObject(t.Context(), "file", bytes.NewReader(text('a', 16<<20)), cond)
			wantError(t, "PutObject", err, imagestore.ErrUnavailable)
			e.wire.wantSent(t, "PutObject", "PUT")
			e.wire.interfere(nil)
			wantNothing(t, e)
		}
	}
}

// TestRefusalIsHeard has the engine refuse uploads that are larger than what it
// takes in before it hangs up.
func TestRefusalIsHeard(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	for _, size := range []int{300_000, 8 << 20} {
		for range 10 {
			body := &countedReader{ReadSeeker: bytes.NewReader(text('b', size))}
			_, err := e.PutObject(t.Context(), "file", body, imagestore.IfAbsent())
			wantError(t, "PutObject", err, imagestore.ErrPrecondition)
			if body.read != int64(size) { // once for its checksum
				t.Fatalf("%d bytes were read of %d: the body was sent", body.read, size)
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

func TestWrongBytes(t *testing.T) {
	e := newEngine(t)
	want := text('a', 100_000)
	put(t, e, "file", want)
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Body = &wrongBody{ReadCloser: resp.Body}
		}
		return resp, err
	})
	b, err := io.ReadAll(open(t, e, "file"))
	wantOtherError(t, "Read of wrong bytes", err, imagestore.ErrUnavailable)
	if len(b) >= len(want) {
		t.Error("all bytes are given out although they are wrong")
	}
}

// A wrongBody has one bit turned over.
type wrongBody struct {
	io.ReadCloser
	done bool
}

func (b *wrongBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && !b.done {
		p[0] ^= 1
		b.done = true
	}
	return n, err
}

// TestNoChecksum reads an object that somebody has put without one.
func TestNoChecksum(t *testing.T) {
	e := newEngine(t, func(o *s3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.Logger = logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
			t.Errorf("the SDK logs: "+format, args...)
		})
	})
	want := text('a', 1000)
	put(t, e, "file", want)
	wantContent(t, e, "file", want)
	e.wire.interfere(cutOnce(500, io.EOF, nil))
	b, err := io.ReadAll(open(t, e, "file"))
	wantError(t, "Read of a body that ends too early", err, imagestore.ErrUnavailable, io.ErrUnexpectedEOF)
	if !bytes.Equal(b, want[:len(b)]) {
		t.Error("Read gives other bytes")
	}
}

// TestTLS pins what is different there: the checksum follows the body, which is
// then read only once.
func TestTLS(t *testing.T) {
	newEngine(t) // which may skip
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
	e := newEngine(t, func(o *s3.Options) {
		o.BaseEndpoint = &server.URL
		o.HTTPClient = smithyhttp.ClientDoFunc(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				trailer = r.Header.Get("X-Amz-Trailer")
			}
			return server.Client().Do(r)
		})
	})
	want := text('a', 1<<20)
	body := &countedReader{ReadSeeker: bytes.NewReader(want)}
	if _, err := e.PutObject(t.Context(), "file", body, imagestore.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	if trailer != "x-amz-checksum-crc32" || body.read != int64(len(want)) {
		t.Errorf("the trailer is %q, and %d bytes were read of %d", trailer, body.read, len(want))
	}
	wantContent(t, e, "file", want)
}
