package imagestore_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// TestAllocations limits the allocations of a Get and a Put. They decide the garbage
// collector's share of a busy server's time. If an operation makes
// fewer, lower its limit. The race detector adds up to three to a Put.
//
// GET and HEAD are requests to a handler. They ask for no digest, so they must not
// allocate for one.
func TestAllocations(t *testing.T) {
	dir, s, _ := newCached(t)
	small, large := testimage.PNG(t, 80, 1), testimage.PNG(t, 1024, 1) // 8 KiB and 1 MiB
	for id, b := range map[string][]byte{"small": small, "large": large} {
		put(t, s, id, b)
		age(t, filepath.Join(dir, id, "image"))
	}
	unsynced := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()), &imagestore.Options{NoSync: true})
	buf := make([]byte, len(large))
	read := func(id string) func() {
		return func() {
			img, err := s.Get(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(img, buf[:img.Size]); err != nil {
				t.Fatal(err)
			}
			img.Close()
		}
	}
	write := func(b []byte) func() {
		var r bytes.Reader
		return func() {
			r.Reset(b)
			if _, err := unsynced.Put(t.Context(), "a", &r); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := imagestore.NewHandler(s, nil)
	serve := func(method, id string) func() {
		w := &discarder{header: make(http.Header)}
		r := httptest.NewRequest(method, "/images/"+id, nil)
		return func() {
			clear(w.header)
			h.ServeHTTP(w, r)
		}
	}
	for _, test := range []struct {
		name string
		most float64
		run  func()
	}{
		{"Get of 8 KiB, cached", 6, read("small")},
		{"Get of 1 MiB", 11, read("large")},
		{"GET of 8 KiB, cached", 12, serve("GET", "small")},
		{"HEAD", 13, serve("HEAD", "small")},
		{"Put of 8 KiB", 45, write(small)},
		{"Put of 1 MiB", 45, write(large)},
	} {
		if got := testing.AllocsPerRun(100, test.run); got > test.most {
			t.Errorf("%s: got %v allocations, want at most %v", test.name, got, test.most)
		}
	}
}

// A discarder is a client that keeps nothing.
type discarder struct{ header http.Header }

func (d *discarder) Header() http.Header         { return d.header }
func (d *discarder) WriteHeader(int)             {}
func (d *discarder) Write(p []byte) (int, error) { return len(p), nil }
