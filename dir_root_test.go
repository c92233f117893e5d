package imagestore_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// wantGone checks that every operation reports that the store's directory is gone,
// and that none makes it again. The store had the images a and b.
func wantGone(t *testing.T, s *imagestore.Store, root string) {
	t.Helper()
	before, _ := os.ReadDir(root)
	png := testimage.PNG(t, 3, 2)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, imagestore.ErrUnavailable) || errors.Is(err, imagestore.ErrNotFound) || !strings.Contains(err.Error(), "the store's directory is gone") {
			t.Errorf("%s: got %v, want %v", what, err, imagestore.ErrUnavailable)
		}
	}
	srv := serve(t, s, nil)
	for name, s := range map[string]storetest.Images{"Store": s, "Client": newClient(t, srv.URL)} {
		for _, id := range []string{"a", "none"} {
			_, err := s.Get(t.Context(), id)
			check(name+" Get", err)
			_, err = s.Put(t.Context(), id, bytes.NewReader(png))
			check(name+" Put", err)
			_, err = s.Put(t.Context(), id, bytes.NewReader(png), imagestore.IfAbsent())
			check(name+" Put, IfAbsent", err)
			check(name+" Delete", s.Delete(t.Context(), id))
			if name == "Store" { // a HEAD has no detail
				_, err = s.Stat(t.Context(), id)
				check(name+" Stat", err)
			}
		}
		n := 0
		for _, err := range s.List(t.Context(), imagestore.ListOptions{}) {
			n++
			check(name+" List", err)
		}
		if n != 1 {
			t.Errorf("%s: got %d items from List, want the error alone", name, n)
		}
	}
	check("Verify", s.Verify(t.Context(), "a"))
	_, err := s.Sweep(t.Context(), 0)
	check("Sweep", err)
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		got := testhttp.Request(t, method, srv.URL+"/images/a", bytes.NewReader(png))
		if got.StatusCode != 503 || got.Code() != "unavailable" || got.Header.Get("Retry-After") == "" || strings.Contains(string(got.Bytes), filepath.Dir(root)) {
			t.Errorf("%s: got %s %q, want 503 with Retry-After and without a path", method, got.Status, got.Bytes)
		}
	}
	if after, _ := os.ReadDir(root); len(after) != len(before) {
		t.Errorf("got %v in the directory, want %v as before", after, before)
	}
}

// TestRootGone moves the directory of a store away. Every operation must say so until
// it is back.
func TestRootGone(t *testing.T) {
	t.Parallel()
	for name, place := range map[string]func(root string) error{ // something else there
		"nothing":            func(string) error { return nil },
		"an empty directory": func(root string) error { return os.Mkdir(root, 0o777) }, // such as a mount point
		"a file":             func(root string) error { return os.WriteFile(root, nil, 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := filepath.Join(t.TempDir(), "images")
			s, err := imagestore.OpenDir(root, nil)
			must(t, err)
			b := testimage.PNG(t, 3, 1)
			put(t, s, "a", b)
			put(t, s, "b", b)
			age(t, filepath.Join(root, "a", "image"))
			get(t, s, "a") // which may cache it
			must(t, os.Rename(root, root+".away"))
			must(t, place(root))
			wantGone(t, s, root)
			must(t, os.RemoveAll(root))
			must(t, os.Rename(root+".away", root))
			if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
				t.Error("directory that is back: got another image, want what was put")
			}
			put(t, s, "c", b)
			must(t, s.Delete(t.Context(), "b"))
		})
	}
}

// TestRootReplaced replaces the directory of a store by another store's.
func TestRootReplaced(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	root, other := filepath.Join(parent, "images"), filepath.Join(parent, "other")
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	otherStore, err := imagestore.OpenDir(other, nil)
	must(t, err)
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	info := put(t, otherStore, "b", b)
	must(t, os.Rename(root, root+".old"))
	must(t, os.Rename(other, root))
	_, err = s.Get(t.Context(), "a")
	wantError(t, err, imagestore.ErrNotFound, "get", "a")
	if got, _ := get(t, s, "b"); got != info {
		t.Errorf("got %+v, want %+v", got, info)
	}
	put(t, s, "c", b)
	must(t, s.Delete(t.Context(), "c"))
	if got := list(t, s, imagestore.ListOptions{}); len(got) != 1 || got[0] != "b" {
		t.Errorf("got a list of %q, want b", got)
	}
}

// TestStagingGone removes the staging directory of a store whose directory stays.
func TestStagingGone(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	must(t, os.Remove(filepath.Join(root, ".staging")))
	_, err = s.Get(t.Context(), "a")
	wantError(t, err, imagestore.ErrNotFound, "get", "a")
	put(t, s, "a", testimage.PNG(t, 3, 1))
}

// TestRootGoesMeanwhile moves the directory away during an upload and during a list.
func TestRootGoesMeanwhile(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "images")
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	b := testimage.PNG(t, 300, 1)
	put(t, s, "a", b)
	put(t, s, "b", b)
	away := func() { must(t, os.Rename(root, root+".away")) }
	back := func() { must(t, os.Rename(root+".away", root)) }

	_, err = s.Put(t.Context(), "c", io.MultiReader(bytes.NewReader(b[:70_000]), onRead(away), bytes.NewReader(b[70_000:])))
	wantError(t, err, imagestore.ErrUnavailable, "put", "c")
	if _, err := os.Lstat(root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for the directory, want %v", err, os.ErrNotExist)
	}
	back()

	for name, s := range map[string]*imagestore.Store{
		"OpenDir": s,
		// A check of all images reads a directory like this.
		"New": imagestore.New(afero.NewReadOnlyFs(afero.NewBasePathFs(afero.NewOsFs(), root)), nil),
	} {
		var last error
		n := 0
		for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
			if n++; info.ID == "a" {
				away()
			}
			last = err
		}
		if wantError(t, last, imagestore.ErrUnavailable, "list", ""); n != 2 {
			t.Errorf("%s: got %d items, want a and an error", name, n)
		}
		back()
	}
}

// onRead is an empty reader that calls f.
type onRead func()

func (f onRead) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

// TestNewMakesRoot checks that a Store of New makes its root, also again.
func TestNewMakesRoot(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "images")
	s := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), root), nil)
	for range 2 {
		_, err := s.Get(t.Context(), "a")
		wantError(t, err, imagestore.ErrNotFound, "get", "a")
		if got := list(t, s, imagestore.ListOptions{}); len(got) > 0 {
			t.Errorf("got a list of %q, want none", got)
		}
		put(t, s, "a", testimage.PNG(t, 3, 1))
		must(t, os.RemoveAll(root))
	}
}

// TestOpenDir checks what OpenDir leaves in a directory, and what it refuses.
func TestOpenDir(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "some", "images")
	_, err := imagestore.OpenDir(root, nil)
	must(t, err)
	if got := files(t, afero.NewBasePathFs(afero.NewOsFs(), root)); len(got) != 1 || got[0] != ".staging" {
		t.Errorf("got files %q, want .staging alone", got)
	}
	must(t, os.Remove(filepath.Join(root, ".staging")))
	must(t, os.WriteFile(filepath.Join(root, ".staging"), nil, 0o666))
	if _, err := imagestore.OpenDir(root, nil); err == nil || !strings.Contains(err.Error(), ".staging is not a directory") {
		t.Errorf(".staging is a file: got %v, want an error that says so", err)
	}
	if _, err := imagestore.OpenDir(filepath.Join(root, ".staging"), nil); err == nil {
		t.Error("the directory is a file: got nil, want an error")
	}
}
