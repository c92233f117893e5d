package s3_test

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fault answers in place of the service, or calls next and spoils the answer.
type fault = func(r *http.Request, next http.RoundTripper) (*http.Response, error)

// A wire records requests and answers, and lets tests interfere.
type wire struct {
	transport *http.Transport

	mu       sync.Mutex
	requests []string
	open     int   // answers whose body is not closed
	fault    fault // may be nil
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests = append(w.requests, kind(r))
	f := w.fault
	w.mu.Unlock()
	if f == nil {
		f = func(r *http.Request, next http.RoundTripper) (*http.Response, error) { return next.RoundTrip(r) }
	}
	resp, err := f(r, w.transport)
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
	case key == "":
		return r.Method + " bucket"
	}
	return r.Method
}

// interfere sets the fault.
func (w *wire) interfere(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// sent returns the requests since the last call.
func (w *wire) sent() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	requests := w.requests
	w.requests = nil
	return requests
}

// wantSent checks the requests since the last call of it or of sent.
func (w *wire) wantSent(t *testing.T, what string, want ...string) {
	t.Helper()
	if got := w.sent(); !slices.Equal(got, want) {
		t.Errorf("%s: got requests %q, want %q", what, got, want)
	}
}

// wantNoLeak checks that run closes all bodies and leaves no goroutine behind,
// except those of idle connections.
func wantNoLeak(t *testing.T, w *wire, run func()) {
	t.Helper()
	w.transport.CloseIdleConnections()
	before := runtime.NumGoroutine()
	run()
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	if open != 0 {
		t.Errorf("got %d bodies that are not closed, want 0", open)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		w.transport.CloseIdleConnections()
		if time.Now().After(deadline) {
			stacks := make([]byte, 64<<10)
			t.Errorf("got %d goroutines, want %d as before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}

// answer answers with a status and an S3 error code, or without a body if code
// is empty.
func answer(status int, code string) fault {
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

// only lets f interfere with requests of one kind.
func only(of string, f fault) fault {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if kind(r) == of {
			return f(r, next)
		}
		return next.RoundTrip(r)
	}
}

// withoutHeader removes a header field from all answers.
func withoutHeader(name string) fault {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Header.Del(name)
		}
		return resp, err
	}
}

// cutOnce ends the first body of an answer to GET after n bytes, and calls then.
func cutOnce(n int64, then func()) fault {
	done := false
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && r.Method == http.MethodGet && !done {
			done = true
			resp.Body = &cutBody{resp.Body, n, then}
		}
		return resp, err
	}
}

type cutBody struct {
	io.ReadCloser
	left int64
	then func()
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		if b.then != nil {
			b.then()
			b.then = nil
		}
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// toListener sends requests to a listener that serves connections with serve, or
// to a closed port if serve is nil.
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

// A lossy proxy passes on so many bytes of each connection.
type lossy struct {
	up, down int64
	stall    bool // sends nothing more instead of hanging up
}

const plenty = 1 << 40

func (l lossy) fault(t *testing.T) fault {
	t.Helper()
	target, err := url.Parse(os.Getenv("S3_ENDPOINT"))
	if err != nil {
		t.Fatal(err)
	}
	done := t.Context().Done()
	return toListener(t, func(c net.Conn) {
		service, err := net.Dial("tcp", target.Host)
		if err != nil {
			return
		}
		defer service.Close()
		var once sync.Once
		over := make(chan struct{})
		pass := func(to, from net.Conn, limit int64) {
			n, _ := io.CopyN(to, from, limit)
			if l.stall && n == limit {
				<-done
			}
			once.Do(func() { close(over) })
		}
		go pass(service, c, l.up)
		go pass(c, service, l.down)
		<-over
	})
}
