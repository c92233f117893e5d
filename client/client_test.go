package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/spf13/afero"
)

// What a Client has in common with a Store is tested with the Store. Here is
// what can only happen over a network.

func encode(tb testing.TB, side int) []byte {
	tb.Helper()
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, image.NewGray(image.Rect(0, 0, side, side))); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func newStore(*testing.T) http.Handler {
	return imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), &imagestore.HandlerOptions{Logger: slog.New(slog.DiscardHandler)})
}

// dial returns a Client of a server for h.
func dial(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBaseURL(t *testing.T) {
	for _, url := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "/images", "http://x/?a=b", "http://x/#f", "http://x?", "http://[::1", "http://x y"} {
		if _, err := client.New(url, nil); err == nil {
			t.Errorf("%q is taken", url)
		}
	}
	srv := httptest.NewServer(http.StripPrefix("/api/v1", newStore(t)))
	defer srv.Close()
	for _, base := range []string{"/api/v1", "/api/v1/"} {
		c, err := client.New(srv.URL+base, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(t.Context(), "a", bytes.NewReader(encode(t, 1))); err != nil {
			t.Errorf("below %q: %v", base, err)
		}
	}
}

// TestNotAStore has something else answer, such as a proxy.
func TestNotAStore(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"404":           http.NotFound,
		"502":           func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no upstream", http.StatusBadGateway) },
		"200 of a page": func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") },
		"204":           func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		},
		"a strange code": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Imagestore-Error", "teapot")
			w.WriteHeader(418)
		},
		"problem of another": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(404)
			fmt.Fprint(w, `{"code":"not_found","detail":"no such tenant"}`)
		},
		"hang up": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, h)
			_, err1 := c.Put(t.Context(), "a", bytes.NewReader(encode(t, 1)))
			_, err2 := c.Get(t.Context(), "a")
			_, err3 := c.Stat(t.Context(), "a")
			err4 := c.Delete(t.Context(), "a")
			var err5 error
			for _, err5 = range c.All(t.Context()) {
				break
			}
			for i, err := range []error{err1, err2, err3, err4, err5} {
				if e, ok := errors.AsType[*imagestore.Error](err); !ok || errors.Is(err, imagestore.ErrNotFound) {
					t.Errorf("call %d returns %v (%T)", i, err, e)
				}
			}
		})
	}
}

func TestErrorBodyIsBounded(t *testing.T) {
	var sent atomic.Int64
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Imagestore-Error", "not_found")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(404)
		fmt.Fprint(w, `{"detail":"`)
		for sent.Load() < 1<<30 {
			n, err := w.Write(bytes.Repeat([]byte("x"), 64<<10))
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Errorf("the error is %.100v", err)
	}
	if n := sent.Load(); n >= 1<<30 {
		t.Errorf("%d bytes of an error were read", n)
	}
}

func TestDeclaredLength(t *testing.T) {
	store := newStore(t)
	var declared, received int64
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		declared = r.ContentLength
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		received = int64(len(b))
		r.Body = io.NopCloser(bytes.NewReader(b))
		store.ServeHTTP(w, r)
	})
	b := encode(t, 20)
	name := filepath.Join(t.TempDir(), "x.png")
	if err := os.WriteFile(name, append([]byte("junk"), b...), 0o666); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	go func() {
		pw.Write(b)
		pw.Close()
	}()
	for _, test := range []struct {
		r     io.Reader
		known bool
	}{
		{bytes.NewReader(b), true},
		{bytes.NewBuffer(b), true},
		{strings.NewReader(string(b)), true},
		{file, true},
		{io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))), true},
		{io.MultiReader(bytes.NewReader(b)), false},
		{pr, false},
	} {
		if _, err := c.Put(t.Context(), "a", test.r); err != nil {
			t.Errorf("%T: %v", test.r, err)
		}
		if want := received; test.known && declared != want || !test.known && declared != -1 {
			t.Errorf("%T: the declared length is %d, %d bytes came", test.r, declared, received)
		}
	}
}

// TestReaderIsGivenBack has an answer come while the upload is under way and
// the transport go on reading, as those of net/http may.
func TestReaderIsGivenBack(t *testing.T) {
	stopped := make(chan struct{})
	hc := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		go func() {
			defer close(stopped)
			for buf := make([]byte, 100); ; {
				if _, err := r.Body.Read(buf); err != nil {
					return
				}
			}
		}()
		resp := &http.Response{StatusCode: 415, Header: http.Header{"Imagestore-Error": {"not_png"}}, Body: http.NoBody, Request: r}
		return resp, nil
	})}
	c, err := client.New("http://store.example", hc)
	if err != nil {
		t.Fatal(err)
	}
	r := &endless{}
	if _, err := c.Put(t.Context(), "a", r); !errors.Is(err, imagestore.ErrNotPNG) {
		t.Errorf("the error is %v", err)
	}
	returned := r.reads // the race detector sees a read that comes later
	<-stopped
	if r.reads != returned {
		t.Error("the reader is still in use")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// endless is a reader that is not safe for concurrent use.
type endless struct{ reads int }

func (e *endless) Read(p []byte) (int, error) {
	e.reads++
	return len(p), nil
}

// TestReaderFails has the reader fail after the server has answered.
func TestReaderFails(t *testing.T) {
	broken := errors.New("the camera was unplugged")
	hc := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, r.Body)
		return nil, errors.New("the upload did not go well")
	})}
	c, err := client.New("http://store.example", hc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "a", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("the error is %v", err)
	}
}

// A watcher is a transport that sees which bodies are left open and what the
// requests say.
type watcher struct {
	open    atomic.Int64
	headers []http.Header
}

func (w *watcher) RoundTrip(r *http.Request) (*http.Response, error) {
	w.headers = append(w.headers, r.Header.Clone())
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		w.open.Add(1)
		resp.Body = &watchedBody{ReadCloser: resp.Body, w: w}
	}
	return resp, err
}

type watchedBody struct {
	io.ReadCloser
	w    *watcher
	once sync.Once
}

func (b *watchedBody) Close() error {
	b.once.Do(func() { b.w.open.Add(-1) })
	return b.ReadCloser.Close()
}

func TestBodiesAreClosed(t *testing.T) {
	store := newStore(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/images/strange":
			fmt.Fprint(w, "not what was asked for")
			return
		case "/images/wrong-range":
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 0-0/1")
				w.WriteHeader(206)
				return
			}
			r.URL.Path = "/images/a"
		}
		store.ServeHTTP(w, r)
	}))
	defer srv.Close()
	w := &watcher{}
	c, err := client.New(srv.URL, &http.Client{Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	small, large := encode(t, 10), encode(t, 1100)
	for _, b := range [][]byte{small, large} {
		if _, err := c.Put(ctx, "a", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := w.headers[0].Get("Expect"), w.headers[1].Get("Expect"); first != "" || second != "100-continue" {
		t.Errorf("uploads of %d and %d bytes have Expect %q and %q", len(small), len(large), first, second)
	}
	c.Put(ctx, "a", bytes.NewReader(small), imagestore.IfAbsent())
	c.Put(ctx, "strange", bytes.NewReader(small))
	c.Get(ctx, "none")
	c.Get(ctx, "strange")
	c.Stat(ctx, "a")
	c.Stat(ctx, "none")
	c.Delete(ctx, "none")
	for range c.All(ctx) {
		break
	}
	for _, id := range []string{"a", "wrong-range"} {
		img, err := c.Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range []int64{5, 1000, 7} {
			img.Seek(at, io.SeekStart)
			_, err := img.Read(make([]byte, 1))
			if (err == nil) != (id == "a") {
				t.Errorf("%s: Read at %d: %v", id, at, err)
			}
		}
		img.Close()
	}
	c.Delete(ctx, "a")
	if n := w.open.Load(); n != 0 {
		t.Errorf("%d bodies are left open", n)
	}
	for _, h := range w.headers {
		if h.Get("Accept-Encoding") == "gzip" {
			t.Errorf("a request asks for gzip: %v", h)
		}
	}
}

// TestLyingServer has a server make up ids, with which a client could be led to
// other files than its own.
func TestLyingServer(t *testing.T) {
	for name, body := range map[string]string{
		"a path":            `{"images":[{"id":"../../etc/passwd","etag":"\"x\""}]}`,
		"out of order":      `{"images":[{"id":"b"},{"id":"a"}]}`,
		"next out of order": `{"images":[{"id":"b"}],"next":"a"}`,
		"next of nothing":   `{"images":[],"next":"z"}`,
	} {
		c := dial(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) })
		var err error
		for _, err = range c.All(t.Context()) {
		}
		if err == nil {
			t.Errorf("%s is believed", name)
		}
	}
	for name, body := range map[string]string{"another id": `{"id":"../x","etag":"\"x\""}`, "no ETag": `{"id":"a"}`} {
		c := dial(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, body)
		})
		if info, err := c.Put(t.Context(), "a", bytes.NewReader(encode(t, 1))); err == nil {
			t.Errorf("%s is believed: %+v", name, info)
		}
	}
}

// TestForeignCode has something in front of the store refuse, and say why.
func TestForeignCode(t *testing.T) {
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Imagestore-Error", "foreign_host")
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(403)
		fmt.Fprint(w, `{"detail":"name it with -hosts"}`)
	})
	if _, err := c.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "name it with -hosts") {
		t.Errorf("the error is %v", err)
	}
}

func TestReplacedWhileReading(t *testing.T) {
	store := newStore(t)
	c := dial(t, store.ServeHTTP)
	b := encode(t, 50)
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	img, err := c.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if _, err := img.Seek(10, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(img); !errors.Is(err, imagestore.ErrPrecondition) {
		t.Errorf("reading on in another version: %v", err)
	}
	for _, bad := range []struct {
		offset int64
		whence int
	}{{-1, io.SeekStart}, {-1000000, io.SeekEnd}, {0, 7}} {
		if _, err := img.Seek(bad.offset, bad.whence); err == nil {
			t.Errorf("Seek(%d, %d) succeeds", bad.offset, bad.whence)
		}
	}
}

// TestCutShort has the connection break in the middle of an image.
func TestCutShort(t *testing.T) {
	store := newStore(t)
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			store.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		store.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	})
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(encode(t, 50))); err != nil {
		t.Fatal(err)
	}
	img, err := c.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := io.ReadAll(img); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an image ends with %v", err)
	}
}

func TestContextEndsDownload(t *testing.T) {
	store := newStore(t)
	c := dial(t, store.ServeHTTP)
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(encode(t, 3000))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	img, err := c.Get(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cancel()
	if _, err := io.ReadAll(img); !errors.Is(err, context.Canceled) {
		t.Errorf("reading after cancel ends with %v", err)
	}
}

// TestPagesThatDoNotEnd has a server that sends one page again and again.
func TestPagesThatDoNotEnd(t *testing.T) {
	c := dial(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"images":[{"id":"a"}],"next":"a"}`) })
	n := 0
	for _, err := range c.All(t.Context()) {
		if n++; n > 10 {
			t.Fatal("it goes on for ever")
		}
		if err != nil {
			return
		}
	}
	t.Error("it ends without an error")
}
