package imagestore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestEveryError provokes each row of the error table. It checks the answer over
// HTTP and the error of a Client.
func TestEveryError(t *testing.T) {
	t.Parallel()
	good := testimage.PNG(t, 300, 1)
	store := func(t *testing.T, fsys afero.Fs) storetest.Images { return imagestore.New(fsys, nil) }
	readOnly := func(t *testing.T) afero.Fs {
		fsys := onDisk(t)
		put(t, store(t, fsys), "a", good)
		return afero.NewReadOnlyFs(fsys)
	}
	failing := func(ops string, err error) func(t *testing.T) afero.Fs {
		return func(t *testing.T) afero.Fs {
			fsys := errorfs.New(onDisk(t))
			fsys.FailIf(func(o errorfs.Op) error {
				if slices.Contains(strings.Fields(ops), o.Name) {
					return err
				}
				return nil
			})
			return fsys
		}
	}
	replace := func(t *testing.T, c storetest.Images) error {
		_, err := c.Put(t.Context(), "a", bytes.NewReader(good))
		return err
	}
	limits := &imagestore.Options{MaxBytes: 50_000, MaxPixels: 10_000}
	for _, test := range []struct {
		name   string
		fs     func(*testing.T) afero.Fs
		opts   *imagestore.Options
		method string
		path   string
		header []string
		body   []byte
		status int
		code   string
		text   string // part of the detail
		kind   error
		client func(t *testing.T, c storetest.Images) error // the same through a Client
	}{
		{name: "bad id", method: "GET", path: "/images/.staging", status: 400, code: "invalid_id", text: "an id is 1 to 128 characters"},
		{name: "bad escape", method: "GET", path: "/images/%2e%2e", status: 400, code: "invalid_id"},
		{name: "empty id", method: "GET", path: "/images/", status: 400, code: "invalid_id", text: "empty"},
		{name: "bad limit", method: "GET", path: "/images?limit=0", status: 400, code: "bad_request", text: "1 to 1000"},
		{name: "bad after", method: "GET", path: "/images?after=a/b", status: 400, code: "bad_request", text: "after"},
		{name: "bad prefix", method: "GET", path: "/images?prefix=%C3%A9", status: 400, code: "bad_request", text: "prefix"},
		{name: "bad query", method: "GET", path: "/images?limit=%zz", status: 400, code: "bad_request", text: "query"},
		{name: "bad If-Match", method: "PUT", path: "/images/a", header: []string{"If-Match", "abc"}, body: good, status: 400, code: "bad_request", text: "double quotes",
			kind: imagestore.ErrBadRequest, client: func(t *testing.T, c storetest.Images) error {
				return c.Delete(t.Context(), "a", imagestore.IfMatch("abc"))
			}, fs: func(t *testing.T) afero.Fs {
				fsys := onDisk(t)
				put(t, store(t, fsys), "a", good)
				return fsys
			}},
		{name: "If-Unmodified-Since", method: "PUT", path: "/images/a", header: []string{"If-Unmodified-Since", "Mon, 23 Nov 2026 00:00:00 GMT"}, body: good, status: 400, code: "bad_request", text: "If-Match"},
		{name: "Content-Range", method: "PUT", path: "/images/a", header: []string{"Content-Range", "bytes 0-9/10"}, body: good, status: 400, code: "bad_request", text: "in pieces"},
		{name: "no boundary", method: "POST", path: "/images/a", header: []string{"Content-Type", "multipart/form-data"}, body: good, status: 400, code: "bad_request", text: "boundary"},
		{name: "read-only", fs: readOnly, method: "PUT", path: "/images/a", body: good, status: 403, code: "read_only", kind: imagestore.ErrReadOnly, client: replace},
		{name: "delete read-only", fs: readOnly, method: "DELETE", path: "/images/a", status: 403, code: "read_only", kind: imagestore.ErrReadOnly,
			client: func(t *testing.T, c storetest.Images) error { return c.Delete(t.Context(), "a") }},
		{name: "no such image", method: "GET", path: "/images/none", status: 404, code: "not_found", kind: imagestore.ErrNotFound,
			client: func(t *testing.T, c storetest.Images) error { _, err := c.Stat(t.Context(), "none"); return err }},
		{name: "no such path", method: "GET", path: "/", status: 404, code: "unknown_path", text: "/images/{id}"},
		{name: "method", method: "PATCH", path: "/images/a", status: 405, code: "method_not_allowed", text: "DELETE, GET"},
		{name: "method on the list", method: "DELETE", path: "/images", status: 405, code: "method_not_allowed", text: "GET, HEAD"},
		{name: "precondition", method: "PUT", path: "/images/a", header: []string{"If-Match", `"x"`}, body: good, status: 412, code: "precondition_failed", text: "no image",
			kind: imagestore.ErrPreconditionFailed, client: func(t *testing.T, c storetest.Images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(good), imagestore.IfMatch(`"x"`))
				return err
			}},
		{name: "bytes, declared", opts: limits, method: "PUT", path: "/images/a", body: good, status: 413, code: "too_large", text: "50000 bytes", kind: imagestore.ErrTooLarge, client: replace},
		{name: "pixels", opts: limits, method: "PUT", path: "/images/a", body: testimage.PNG(t, 101, 1), status: 413, code: "too_large", text: "10000",
			kind: imagestore.ErrTooLarge, client: func(t *testing.T, c storetest.Images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 101, 1)))
				return err
			}},
		{name: "not a PNG", method: "PUT", path: "/images/a", body: []byte("GIF89a and so on"), status: 415, code: "unsupported_type", text: "GIF",
			kind: imagestore.ErrUnsupportedType, client: func(t *testing.T, c storetest.Images) error {
				_, err := c.Put(t.Context(), "a", strings.NewReader("GIF89a and so on"))
				return err
			}},
		{name: "wrong type", method: "PUT", path: "/images/a", header: []string{"Content-Type", "text/html"}, body: good, status: 415, code: "unsupported_type", text: "multipart/form-data"},
		{name: "broken PNG", method: "PUT", path: "/images/a", body: good[:len(good)-1], status: 422, code: "invalid_image", text: fmt.Sprintf("byte %d", len(good)-1),
			kind: imagestore.ErrInvalidImage, client: func(t *testing.T, c storetest.Images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(good[:len(good)-1]))
				return err
			}},
		{name: "disk full", fs: failing("file.write", syscall.ENOSPC), method: "PUT", path: "/images/a", body: good, status: 507, code: "no_space", kind: imagestore.ErrNoSpace, client: replace},
		{name: "over quota", fs: failing("file.sync", syscall.EDQUOT), method: "PUT", path: "/images/a", body: good, status: 507, code: "no_space", kind: imagestore.ErrNoSpace, client: replace},
		{name: "disk broken", fs: failing("rename", syscall.EIO), method: "PUT", path: "/images/a", body: good, status: 500, code: "internal", kind: imagestore.ErrInternal, client: replace},
		{name: "disk unreadable", fs: failing("open lstat", syscall.EIO), method: "GET", path: "/images/a", status: 500, code: "internal",
			kind: imagestore.ErrInternal, client: func(t *testing.T, c storetest.Images) error { _, err := c.Get(t.Context(), "a"); return err }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fsys := onDisk(t)
			if test.fs != nil {
				fsys = test.fs(t)
			}
			var log bytes.Buffer
			srv := serve(t, imagestore.New(fsys, test.opts), &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			got := testhttp.Request(t, test.method, srv.URL+test.path, bytes.NewReader(test.body), test.header...)
			checkProblem(t, got, test.status, test.code, test.text)
			if logged := log.Len() > 0; logged != (test.status >= 500) {
				t.Errorf("status %d: got log %q, want one for 5xx alone", test.status, log.String())
			}
			if test.code == "internal" && !strings.Contains(log.String(), "input/output error") {
				t.Errorf("got log %q, want the cause", log.String())
			}
			if test.method == "GET" {
				head := testhttp.Request(t, "HEAD", srv.URL+test.path, nil, test.header...)
				if head.StatusCode != test.status || head.Code() != test.code || len(head.Bytes) > 0 {
					t.Errorf("HEAD: got %s, code %q, %d bytes, want %d, code %q, no bytes", head.Status, head.Code(), len(head.Bytes), test.status, test.code)
				}
			}
			if test.client != nil {
				err := test.client(t, newClient(t, srv.URL))
				if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("Client: got %v, want %v with %q", err, test.kind, test.text)
				}
			}
		})
	}
}

func checkProblem(t *testing.T, got testhttp.Answer, status int, code, text string) {
	t.Helper()
	if got.StatusCode != status || got.Code() != code {
		t.Errorf("got %s, code %q, body %q, want %d, code %q", got.Status, got.Code(), got.Bytes, status, code)
	}
	if ct := got.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("got Content-Type %q, want application/problem+json", ct)
	}
	var p struct {
		Title, Detail, Code string
		Status              int
	}
	if err := json.Unmarshal(got.Bytes, &p); err != nil || p.Title != http.StatusText(status) || p.Status != status || p.Code != code || !strings.Contains(p.Detail, text) {
		t.Errorf("got body %s, %v, want a detail with %q", got.Bytes, err, text)
	}
	if strings.Contains(string(got.Bytes), os.TempDir()) || strings.Contains(string(got.Bytes), "/image: ") {
		t.Errorf("got body %s, want no path", got.Bytes)
	}
	if got.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("got no nosniff, want it")
	}
}

// TestReadErrorBreaksConnection makes the disk fail in the middle of a download.
func TestReadErrorBreaksConnection(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 600, 1)
	for _, test := range []struct {
		name  string
		fail  func(base afero.Fs) error // at the third read
		cause string
	}{
		{"read error", func(afero.Fs) error { return syscall.EIO }, "input/output error"},
		{"file cut short", func(base afero.Fs) error {
			f, err := base.OpenFile("a/image", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Truncate(100)
		}, "unexpected EOF"},
	} {
		for _, header := range []string{"", "bytes=5-", "bytes=0-9,50-300000"} {
			t.Run(test.name+" "+header, func(t *testing.T) {
				t.Parallel()
				base := onDisk(t)
				fsys := errorfs.New(base)
				s := imagestore.New(fsys, nil)
				put(t, s, "a", b)
				var log logBuffer
				srv := serve(t, s, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				n := 0
				fsys.FailIf(func(op errorfs.Op) error {
					if op.Name == "file.read" {
						if n++; n >= 3 {
							return test.fail(base)
						}
					}
					return nil
				})
				req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/images/a", nil)
				must(t, err)
				if header != "" {
					req.Header.Set("Range", header)
				}
				resp, err := testhttp.Client.Do(req)
				if err == nil { // the connection may also break before the header
					defer resp.Body.Close()
					if _, err := io.ReadAll(resp.Body); err == nil {
						t.Error("got a complete response, want it broken off")
					}
				}
				srv.Close() // waits for the handler
				if !strings.Contains(log.String(), test.cause) || strings.Count(log.String(), "level=ERROR") != 1 {
					t.Errorf("got log %q, want one error, %q", log.String(), test.cause)
				}
			})
		}
	}
}

// TestSeekError makes the disk fail before the answer has begun.
func TestSeekError(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	var log logBuffer
	srv := serve(t, s, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "file.seek" {
			return syscall.EIO
		}
		return nil
	})
	for _, header := range []string{"bytes=2-", "bytes=5-"} {
		checkProblem(t, testhttp.Request(t, "GET", srv.URL+"/images/a", nil, "Range", header), 500, "internal", "")
	}
	if !strings.Contains(log.String(), "input/output error") {
		t.Errorf("got log %q, want the cause", log.String())
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
