package imagestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestUnavailable lets each operation of the filesystem fail in turn because there is
// no file descriptor, or no server of a network filesystem. The operation of the store
// must be unavailable, or succeed.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 3, 1)
	for name, do := range map[string]func(s *imagestore.Store) error{
		"get": func(s *imagestore.Store) error {
			img, err := s.Get(t.Context(), "a")
			if err == nil {
				_, err = io.Copy(io.Discard, img)
				img.Close()
			}
			return err
		},
		"stat":   func(s *imagestore.Store) error { _, err := s.Stat(t.Context(), "a"); return err },
		"delete": func(s *imagestore.Store) error { return s.Delete(t.Context(), "a") },
		"new":    func(s *imagestore.Store) error { _, err := s.Put(t.Context(), "b", bytes.NewReader(b)); return err },
		"put":    func(s *imagestore.Store) error { _, err := s.Put(t.Context(), "a", bytes.NewReader(b)); return err },
		"list": func(s *imagestore.Store) (first error) {
			for _, err := range s.List(t.Context(), imagestore.ListOptions{}) {
				if first == nil {
					first = err
				}
			}
			return first
		},
		"sweep": func(s *imagestore.Store) error { _, err := s.Sweep(t.Context(), 0); return err },
	} {
		for _, cause := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ESTALE} {
			t.Run(fmt.Sprintf("%s, %v", name, cause), func(t *testing.T) {
				t.Parallel()
				failures := 0
				for n := 1; ; n++ {
					fsys := errorfs.New(onDisk(t))
					s := imagestore.New(fsys, nil)
					put(t, s, "a", b)
					fsys.ResetTrace()
					fsys.FailAt(n, errorfs.Fault{Err: cause})
					err := do(s)
					if !fsys.Fired() {
						must(t, err)
						break
					}
					if err == nil {
						continue
					}
					failures++
					op := fsys.Trace()[n-1]
					if !errors.Is(err, imagestore.ErrUnavailable) && op.Name != "file.read" || !errors.Is(err, cause) {
						t.Errorf("%v: got %v, want %v because of %v", op, err, imagestore.ErrUnavailable, cause)
					}
				}
				if failures == 0 {
					t.Error("got no failure, want at least one")
				}
			})
		}
	}
}

// TestNoDescriptorsOverHTTP lets every open fail. Each request must be answered with
// 503, and nothing may change.
func TestNoDescriptorsOverHTTP(t *testing.T) {
	t.Parallel()
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	srv := serve(t, s, nil)
	before := files(t, base)
	fsys.FailIf(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Name, "open") {
			return syscall.EMFILE
		}
		return nil
	})
	wantNoDescriptors(t, testhttp.Client, srv.URL, b)
	if after := files(t, base); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("got files %v, want %v as before", after, before)
	}
}

// wantNoDescriptors sends requests to a server that has no descriptors left.
func wantNoDescriptors(t *testing.T, c *http.Client, url string, b []byte) {
	t.Helper()
	for _, r := range []struct {
		method, path string
		header       []string
	}{
		{"GET", "/images/a", nil},
		{"HEAD", "/images/a", nil},
		{"GET", "/images/a", []string{"Range", "bytes=0-9"}},
		{"GET", "/images", nil},
		{"GET", "/images", []string{"Accept", "application/x-ndjson"}},
		{"PUT", "/images/a", nil},
		{"PUT", "/images/new", []string{"If-None-Match", "*"}},
		{"POST", "/images", nil},
		{"DELETE", "/images/a", nil},
	} {
		var body io.Reader
		if r.method == "PUT" || r.method == "POST" {
			body = bytes.NewReader(b)
		}
		got, err := testhttp.Do(t.Context(), c, r.method, url+r.path, body, r.header...)
		if err != nil {
			t.Errorf("%s %s %v: got %v, want an answer", r.method, r.path, r.header, err)
			continue
		}
		const want = "too many open files; try again"
		if got.StatusCode != 503 || got.Code() != "unavailable" || got.Header.Get("Retry-After") == "" || r.method != "HEAD" && !strings.Contains(string(got.Bytes), want) {
			t.Errorf("%s %s %v: got %s %q, want 503 with Retry-After and %q", r.method, r.path, r.header, got.Status, got.Bytes, want)
		}
	}
}

// TestLastDescriptor gives a change the descriptor of the root for the image's
// directory, when there is no other.
func TestLastDescriptor(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	fsys.FailIf(func(op errorfs.Op) error {
		if op.String() == "open a" && len(fsys.OpenFiles()) > 0 {
			return syscall.EMFILE
		}
		return nil
	})
	put(t, s, "a", testimage.PNG(t, 3, 1))
	must(t, s.Delete(t.Context(), "a"))
	if open := fsys.OpenFiles(); len(open) > 0 {
		t.Errorf("got open files %v, want none", open)
	}
}
