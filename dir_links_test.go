//go:build unix

package imagestore_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestSweepLinks has links and special files in place of the staging directory or in
// it. A sweep must not follow them, hang on them or remove them.
func TestSweepLinks(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, rand.Text()), []byte("mine"), 0o666))
	for name, place := range map[string]func(path string) error{
		"link to a directory": func(path string) error { return os.Symlink(outside, path) },
		"link to nothing":     func(path string) error { return os.Symlink("none", path) },
		"link to itself":      func(path string) error { return os.Symlink(".staging", path) },
		"FIFO":                func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"file":                func(path string) error { return os.WriteFile(path, nil, 0o666) },
	} {
		root := t.TempDir()
		must(t, place(filepath.Join(root, ".staging")))
		s := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), root), nil)
		n, err := s.Sweep(t.Context(), -time.Hour)
		if n != 0 || err == nil || !strings.Contains(err.Error(), ".staging is not a directory") {
			t.Errorf(".staging is a %s: got %d, %v from Sweep, want an error that says so", name, n, err)
		}
		_, err = s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3, 1)))
		_, openErr := imagestore.OpenDir(root, nil)
		if name == "link to a directory" { // uploads pass through it
			must(t, err)
			must(t, openErr)
		} else if err == nil || openErr == nil {
			t.Errorf(".staging is a %s: got %v from Put and %v from OpenDir, want errors", name, err, openErr)
		}
	}

	root := t.TempDir()
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	staged := func() string { return filepath.Join(root, ".staging", rand.Text()) }
	must(t, errors.Join(os.Symlink(outside, staged()), os.Symlink("none", staged()), syscall.Mkfifo(staged(), 0o666), os.Mkdir(staged(), 0o777)))
	must(t, os.WriteFile(staged(), nil, 0o666))
	if n, err := s.Sweep(t.Context(), -time.Hour); n != 1 || err != nil {
		t.Errorf("got %d, %v from Sweep, want 1 for the file", n, err)
	}
	if left, err := os.ReadDir(filepath.Join(root, ".staging")); len(left) != 4 {
		t.Errorf("got %v, %v in .staging, want what is no file", left, err)
	}
	if left, err := os.ReadDir(outside); len(left) != 1 {
		t.Errorf("got %v, %v outside, want the file that was there", left, err)
	}
}

// TestLinkedDirectory has a link in place of an image's directory. It must be used
// like a directory, and stay.
func TestLinkedDirectory(t *testing.T) {
	t.Parallel()
	root, target := t.TempDir(), t.TempDir()
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	must(t, os.Symlink(target, filepath.Join(root, "a")))
	for range 2 {
		b := testimage.PNG(t, 3, 1)
		info := put(t, s, "a", b)
		if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
			t.Errorf("got %+v, want %+v", got, info)
		}
		if got := list(t, s, imagestore.ListOptions{}); !slices.Equal(got, []string{"a"}) {
			t.Errorf("got a list of %q, want a", got)
		}
		if got, err := os.ReadFile(filepath.Join(target, "image")); !bytes.Equal(got, b) {
			t.Errorf("got %d bytes, %v in the target, want the image", len(got), err)
		}
		must(t, s.Delete(t.Context(), "a"))
		if fi, err := os.Lstat(filepath.Join(root, "a")); err != nil || fi.Mode()&os.ModeSymlink == 0 {
			t.Errorf("after Delete: got %v, %v, want the link", fi, err)
		}
	}
}

// TestOtherDisk has an image's directory on another filesystem. An upload cannot be
// renamed to there, and the error must say so.
func TestOtherDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	target, err := os.MkdirTemp("/dev/shm", "")
	if err != nil {
		t.Skipf("needs a second filesystem: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(target) })
	if device(t, root) == device(t, target) {
		t.Skip("needs a second filesystem: /dev/shm is on the one of the temporary files")
	}
	s, err := imagestore.OpenDir(root, nil)
	must(t, err)
	b := testimage.PNG(t, 3, 1)
	must(t, errors.Join(os.WriteFile(filepath.Join(target, "image"), b, 0o666), os.Symlink(target, filepath.Join(root, "a"))))
	url := serve(t, s, nil).URL + "/images/a"
	if got := testhttp.Request(t, "GET", url, nil); got.StatusCode != 200 || !bytes.Equal(got.Bytes, b) {
		t.Errorf("GET: got %s, want the image", got.Status)
	}
	for range 2 { // with and without an old image
		_, err = s.Put(t.Context(), "a", bytes.NewReader(b))
		wantError(t, err, imagestore.ErrNotImplemented, "put", "a")
		wantError(t, err, syscall.EXDEV, "put", "a")
		got := testhttp.Request(t, "PUT", url, bytes.NewReader(b))
		if got.StatusCode != 501 || got.Code() != "not_implemented" || !strings.Contains(string(got.Bytes), "on another filesystem") || strings.Contains(string(got.Bytes), root) {
			t.Errorf("PUT: got %s %q, want 501 and the reason", got.Status, got.Bytes)
		}
		if left, err := os.ReadDir(filepath.Join(root, ".staging")); len(left) > 0 {
			t.Errorf("got %v, %v in .staging, want nothing", left, err)
		}
		_ = s.Delete(t.Context(), "a")
	}
	if got := testhttp.Request(t, "GET", url, nil); got.StatusCode != 404 {
		t.Errorf("GET after DELETE: got %s, want 404", got.Status)
	}
}

func device(t *testing.T, name string) uint64 {
	t.Helper()
	fi, err := os.Stat(name)
	must(t, err)
	return uint64(fi.Sys().(*syscall.Stat_t).Dev)
}
