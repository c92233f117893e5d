package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// The conformance suite tests the methods of a Client. These tests are about
// failures of networks and servers.

func newStore(*testing.T) http.Handler {
	return imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
}

// dial returns a Client of a server for h.
func dial(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	c, err := client.New(testhttp.Serve(t, h).URL, testhttp.Client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestBaseURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "127.0.0.1:8080", "ftp://x", "http://", "/images", "http://x/?a=b", "http://x/#f", "http://x?", "http://[::1", "http://x y"} {
		if _, err := client.New(url, nil); err == nil {
			t.Errorf("%q: got no error, want one", url)
		}
	}
	srv := httptest.NewServer(http.StripPrefix("/api/v1", newStore(t)))
	defer srv.Close()
	for _, base := range []string{"/api/v1", "/api/v1/"} {
		c, err := client.New(srv.URL+base, testhttp.Client)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1))); err != nil {
			t.Errorf("base URL %q: got %v, want nil", base, err)
		}
	}
}

func TestDeclaredLength(t *testing.T) {
	t.Parallel()
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
	b := testimage.PNG(t, 20, 1)
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
			t.Errorf("%T: got %v, want nil", test.r, err)
		}
		if want := received; test.known && declared != want || !test.known && declared != -1 {
			t.Errorf("%T: got declared length %d of %d bytes, want it known: %v", test.r, declared, received, test.known)
		}
	}
}

// TestReaderIsGivenBack has an answer that comes during the upload. The transport
// may go on reading, but Put must not return before it has stopped.
func TestReaderIsGivenBack(t *testing.T) {
	t.Parallel()
	stopped := make(chan struct{})
	hc := &http.Client{Transport: testhttp.RoundTripper(func(r *http.Request) (*http.Response, error) {
		go func() {
			defer close(stopped)
			for buf := make([]byte, 100); ; {
				if _, err := r.Body.Read(buf); err != nil {
					return
				}
			}
		}()
		resp := &http.Response{StatusCode: 415, Header: http.Header{"Imagestore-Error": {"unsupported_type"}}, Body: http.NoBody, Request: r}
		return resp, nil
	})}
	c, err := client.New("http://store.example", hc)
	if err != nil {
		t.Fatal(err)
	}
	r := &endless{}
	if _, err := c.Put(t.Context(), "a", r); !errors.Is(err, imagestore.ErrUnsupportedType) {
		t.Errorf("got %v, want %v", err, imagestore.ErrUnsupportedType)
	}
	returned := r.reads // the race detector reports a later read
	<-stopped
	if r.reads != returned {
		t.Error("got a Read after Put returned, want none")
	}
}

// endless is a reader that is not safe for concurrent use.
type endless struct{ reads int }

func (e *endless) Read(p []byte) (int, error) {
	e.reads++
	return len(p), nil
}

// TestReaderFails checks that Put returns the error of its reader, not that of the
// transport.
func TestReaderFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("reader failed")
	hc := &http.Client{Transport: testhttp.RoundTripper(func(r *http.Request) (*http.Response, error) {
		io.Copy(io.Discard, r.Body)
		return nil, errors.New("transport failed")
	})}
	c, err := client.New("http://store.example", hc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "a", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// A watcher is a transport that counts open bodies and records the headers of
// requests.
type watcher struct {
	open    atomic.Int64
	headers []http.Header
}

func (w *watcher) RoundTrip(r *http.Request) (*http.Response, error) {
	w.headers = append(w.headers, r.Header.Clone())
	resp, err := testhttp.Client.Transport.RoundTrip(r)
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
	t.Parallel()
	store := newStore(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/images/strange":
			fmt.Fprint(w, "not an image")
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
	small, large := testimage.PNG(t, 10, 1), testimage.PNG(t, 1100, 1)
	for _, b := range [][]byte{small, large} {
		if _, err := c.Put(ctx, "a", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := w.headers[0].Get("Expect"), w.headers[1].Get("Expect"); first != "" || second != "100-continue" {
		t.Errorf("uploads of %d and %d bytes: got Expect %q and %q, want none and 100-continue", len(small), len(large), first, second)
	}
	c.Put(ctx, "a", bytes.NewReader(small), imagestore.IfAbsent())
	c.Put(ctx, "strange", bytes.NewReader(small))
	c.Get(ctx, "none")
	c.Get(ctx, "strange")
	c.Stat(ctx, "a")
	c.Stat(ctx, "none")
	c.Delete(ctx, "none")
	for range c.List(ctx, imagestore.ListOptions{}) {
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
				t.Errorf("%s: Read at %d: got %v, want success: %v", id, at, err, id == "a")
			}
		}
		img.Close()
	}
	c.Delete(ctx, "a")
	if n := w.open.Load(); n != 0 {
		t.Errorf("got %d open bodies, want none", n)
	}
	for _, h := range w.headers {
		if h.Get("Accept-Encoding") == "gzip" {
			t.Errorf("got Accept-Encoding gzip in %v, want none", h)
		}
	}
}

// TestUnreadableImages lists images that cannot be read. The list must go on.
func TestUnreadableImages(t *testing.T) {
	t.Parallel()
	c := dial(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"images":[{"id":"a","error":"internal","size":7,"etag":"x"},{"id":"b","error":"unavailable"},{"id":"c","error":"a new code"},{"id":"d","size":7,"etag":"\"x\""}]}`)
	})
	want := map[string]error{"a": imagestore.ErrInternal, "b": imagestore.ErrUnavailable, "c": imagestore.ErrInternal, "d": nil}
	n := 0
	for info, err := range c.List(t.Context(), imagestore.ListOptions{}) {
		n++
		e, ok := errors.AsType[*imagestore.Error](err)
		if !errors.Is(err, want[info.ID]) || err != nil && (!ok || e.Op != "list" || e.ID != info.ID || info != (imagestore.Info{ID: info.ID})) {
			t.Errorf("got %+v, %v, want the error %v of %q", info, err, want[info.ID], info.ID)
		}
	}
	if n != len(want) {
		t.Errorf("got %d results, want %d", n, len(want))
	}
}

func TestReplacedWhileReading(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	c := dial(t, store.ServeHTTP)
	b := testimage.PNG(t, 50, 1)
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
	if _, err := io.ReadAll(img); !errors.Is(err, imagestore.ErrPreconditionFailed) {
		t.Errorf("read of a replaced image: got %v, want %v", err, imagestore.ErrPreconditionFailed)
	}
	for _, bad := range []struct {
		offset int64
		whence int
	}{{-1, io.SeekStart}, {-1000000, io.SeekEnd}, {0, 7}} {
		if _, err := img.Seek(bad.offset, bad.whence); err == nil {
			t.Errorf("Seek(%d, %d): got no error, want one", bad.offset, bad.whence)
		}
	}
}

// TestCutShort breaks the connection in the middle of an image.
func TestCutShort(t *testing.T) {
	t.Parallel()
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
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 50, 1))); err != nil {
		t.Fatal(err)
	}
	img, err := c.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if _, err := io.ReadAll(img); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("half an image: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestContextEndsDownload(t *testing.T) {
	t.Parallel()
	store := newStore(t)
	c := dial(t, store.ServeHTTP)
	if _, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3000, 1))); err != nil {
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
		t.Errorf("read after cancel: got %v, want %v", err, context.Canceled)
	}
}
