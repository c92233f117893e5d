package s3fs_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
	aferos3 "github.com/fclairamb/afero-s3"
	"github.com/spf13/afero"
)

// An engine is a prefix of its own in the bucket of a real object store, and
// the wire to it.
type engine struct {
	*s3fs.Fs
	wire           *wire
	client         *s3.Client
	bucket, prefix string
}

func newEngine(t *testing.T, opts ...func(*s3.Options)) *engine {
	t.Helper()
	endpoint := os.Getenv("S3_ENDPOINT")
	if endpoint == "" {
		t.Skip("S3_ENDPOINT is not set; run ./cluster.sh go test ./... in examples/s3")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true") // nothing is asked but the engine
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(transport.CloseIdleConnections)
	e := &engine{
		wire:   &wire{transport: transport},
		bucket: cmp.Or(os.Getenv("S3_BUCKET"), "test"),
		prefix: "test-" + rand.Text(),
	}
	base := func(o *s3.Options) {
		o.BaseEndpoint = aws.String(endpoint)
		o.UsePathStyle = true
		o.HTTPClient = &http.Client{Transport: e.wire}
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 0, nil })
		})
	}
	e.client = s3.NewFromConfig(cfg, append([]func(*s3.Options){base}, opts...)...)
	e.Fs = s3fs.New(e.client, e.bucket, e.prefix)

	janitor := s3.NewFromConfig(cfg, base, func(o *s3.Options) { o.HTTPClient = &http.Client{Transport: transport} })
	t.Cleanup(func() {
		pages := s3.NewListObjectsV2Paginator(janitor, &s3.ListObjectsV2Input{Bucket: &e.bucket, Prefix: aws.String(e.prefix + "/")})
		for pages.HasMorePages() {
			page, err := pages.NextPage(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			var all types.Delete
			for _, o := range page.Contents {
				all.Objects = append(all.Objects, types.ObjectIdentifier{Key: o.Key})
			}
			if len(all.Objects) == 0 {
				return
			}
			if _, err := janitor.DeleteObjects(context.Background(), &s3.DeleteObjectsInput{Bucket: &e.bucket, Delete: &all}); err != nil {
				t.Fatal(err)
			}
		}
	})
	return e
}

// upstream is afero-s3 on the same objects.
func (e *engine) upstream() afero.Fs {
	return prefixed{aferos3.NewFsFromClient(e.bucket, e.client), e.prefix + "/"}
}

// A prefixed is not an afero.BasePathFs, which would clean names.
type prefixed struct {
	*aferos3.Fs
	prefix string
}

func (p prefixed) Create(name string) (afero.File, error)    { return p.Fs.Create(p.prefix + name) }
func (p prefixed) Mkdir(name string, perm os.FileMode) error { return p.Fs.Mkdir(p.prefix+name, perm) }
func (p prefixed) Open(name string) (afero.File, error)      { return p.Fs.Open(p.prefix + name) }
func (p prefixed) Remove(name string) error                  { return p.Fs.Remove(p.prefix + name) }
func (p prefixed) RemoveAll(name string) error               { return p.Fs.RemoveAll(p.prefix + name) }
func (p prefixed) Stat(name string) (os.FileInfo, error)     { return p.Fs.Stat(p.prefix + name) }
func (p prefixed) Rename(from, to string) error              { return p.Fs.Rename(p.prefix+from, p.prefix+to) }
func (p prefixed) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	return p.Fs.OpenFile(p.prefix+name, flag, perm)
}

// A wire takes note of requests and answers and lets tests interfere.
type wire struct {
	transport *http.Transport

	mu       sync.Mutex
	requests []string
	open     int // bodies of answers that nobody has closed
	// fault answers in place of the engine, or calls next and spoils what comes
	// back. It may be nil.
	fault func(r *http.Request, next http.RoundTripper) (*http.Response, error)
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, kind(r))
	fault := w.fault
	w.mu.Unlock()
	if fault == nil {
		fault = func(r *http.Request, next http.RoundTripper) (*http.Response, error) { return next.RoundTrip(r) }
	}
	resp, err := fault(r, w.transport)
	if err == nil {
		w.mu.Lock()
		w.open++
		w.mu.Unlock()
		resp.Body = &countedBody{ReadCloser: resp.Body, w: w}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	once sync.Once
	w    *wire
}

func (b *countedBody) Close() error {
	b.once.Do(func() {
		b.w.mu.Lock()
		defer b.w.mu.Unlock()
		b.w.open--
	})
	return b.ReadCloser.Close()
}

// kind names a request.
func kind(r *http.Request) string {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Query().Has("list-type"):
		return "LIST"
	case r.Header.Get("X-Amz-Copy-Source") != "":
		return "COPY"
	case key == "":
		return r.Method + " bucket"
	}
	return r.Method
}

// interfere sets the fault.
func (w *wire) interfere(fault func(r *http.Request, next http.RoundTripper) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

// sent returns the requests since the last call.
func (w *wire) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// wantSent checks the requests since the last look at them.
func (w *wire) wantSent(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := w.sent(); !slices.Equal(got, want) {
		t.Errorf("%s sends %q, not %q", what, got, want)
	}
}

// wantNoLeak checks that all bodies are closed and that run leaves no
// goroutine behind but those of connections that are kept.
func wantNoLeak(t *testing.T, w *wire, run func()) {
	t.Helper()
	w.transport.CloseIdleConnections()
	before := runtime.NumGoroutine()
	run()
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	if open != 0 {
		t.Errorf("%d bodies have not been closed", open)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		w.transport.CloseIdleConnections()
		if time.Now().After(deadline) {
			stacks := make([]byte, 64<<10)
			t.Errorf("there are %d goroutines, not %d as before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}

// answer is a fault: the engine answers with a status and an S3 error code, or
// without a body if there is none.
func answer(status int, code string) func(*http.Request, http.RoundTripper) (*http.Response, error) {
	return func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
		body := "<Error><Code>" + code + "</Code><Message>for the test</Message></Error>"
		if r.Method == http.MethodHead || code == "" {
			body = ""
		}
		return &http.Response{
			StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Content-Type": {"application/xml"}},
			Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		}, nil
	}
}

func put(t *testing.T, fsys imagestore.ObjectFs, name string, b []byte) os.FileInfo {
	t.Helper()
	fi, err := fsys.PutObject(t.Context(), name, bytes.NewReader(b), imagestore.Precondition{})
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

func open(t *testing.T, fsys afero.Fs, name string) afero.File {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func wantContent(t *testing.T, fsys afero.Fs, name string, want []byte) {
	t.Helper()
	if got, err := afero.ReadFile(fsys, name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s has %d bytes, %v, not the %d that it should", name, len(got), err, len(want))
	}
}

func wantError(t *testing.T, what string, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("%s returns %v, which is not %q", what, err, w)
		}
	}
}

func wantOtherError(t *testing.T, what string, err error, not ...error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s succeeds", what)
	}
	for _, n := range not {
		if errors.Is(err, n) {
			t.Errorf("%s returns %v, which is %q", what, err, n)
		}
	}
}

func etag(fi os.FileInfo) string { return fi.(interface{ ETag() string }).ETag() }

// text returns n bytes that differ from those of another seed.
func text(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed ^ byte(i) ^ byte(i>>8)
	}
	return b
}
