//go:build unix

package imagestore_test

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestSpecialFiles has a special file in place of an image. A reader must not hang
// on it or follow it, lists must not have it, and an upload must replace it.
func TestSpecialFiles(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside.png")
	secret := testimage.PNG(t, 5, 1)
	must(t, os.WriteFile(outside, secret, 0o666))
	for name, place := range map[string]func(t *testing.T, path string) error{
		"FIFO":                func(_ *testing.T, path string) error { return syscall.Mkfifo(path, 0o666) },
		"link to a file":      func(_ *testing.T, path string) error { return os.Symlink(outside, path) },
		"link to a device":    func(_ *testing.T, path string) error { return os.Symlink("/dev/zero", path) },
		"link to nothing":     func(_ *testing.T, path string) error { return os.Symlink("none", path) },
		"link to itself":      func(_ *testing.T, path string) error { return os.Symlink("image", path) },
		"link to a FIFO":      func(_ *testing.T, path string) error { return linkToFIFO(path) },
		"a socket":            listenUnix,
		"directory":           func(_ *testing.T, path string) error { return os.Mkdir(path, 0o777) },
		"link to a directory": func(_ *testing.T, path string) error { return os.Symlink(filepath.Dir(outside), path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "") // short enough for the name of a socket
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			must(t, os.Mkdir(dir+"/a", 0o777))
			must(t, place(t, dir+"/a/image"))
			s := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil)
			_, err = s.Get(t.Context(), "a")
			wantError(t, err, imagestore.ErrNotFound, "get", "a")
			_, err = s.Stat(t.Context(), "a")
			wantError(t, err, imagestore.ErrNotFound, "stat", "a")
			wantError(t, s.Verify(t.Context(), "a"), imagestore.ErrNotFound, "verify", "a")
			wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "delete", "a")
			for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
				t.Errorf("got %+v, %v from List, want nothing", info, err)
			}
			url := serve(t, s, nil).URL + "/images/a"
			for _, method := range []string{"GET", "HEAD", "DELETE"} {
				if got := testhttp.Request(t, method, url, nil); got.StatusCode != http.StatusNotFound {
					t.Errorf("%s: got %s, want 404", method, got.Status)
				}
			}
			if name == "directory" {
				return // a rename does not replace it
			}
			b := testimage.PNG(t, 6, 2)
			put(t, s, "a", b)
			if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
				t.Error("got another image, want the upload")
			}
			if got, err := os.ReadFile(outside); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("the file outside of the store: got a change or %v, want no change", err)
			}
		})
	}
}

func linkToFIFO(path string) error {
	if err := syscall.Mkfifo(path+".fifo", 0o666); err != nil {
		return err
	}
	return os.Symlink(filepath.Base(path)+".fifo", path)
}

func listenUnix(t *testing.T, path string) error {
	l, err := net.Listen("unix", path)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}
