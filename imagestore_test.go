package imagestore_test

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/memdriver"
	"github.com/spf13/afero"
)

var (
	_ storetest.Images = (*imagestore.Store)(nil)
	_ storetest.Images = (*client.Client)(nil)
)

// TestConformance runs the suite on Stores over every filesystem and over a
// driver like an object store, and on Clients of them.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, fsys := range filesystems {
		t.Run(fsys.name, func(t *testing.T) {
			t.Parallel()
			newFs := func(t *testing.T) afero.Fs { return fsys.new(t) }
			t.Run("Fs", func(t *testing.T) { storetest.TestFs(t, newFs) })
			t.Run("Client", func(t *testing.T) {
				storetest.TestStore(t, func(t *testing.T) storetest.Images {
					return newClient(t, serve(t, imagestore.New(newFs(t), nil), nil).URL)
				})
			})
		})
	}
	t.Run("directory driver", func(t *testing.T) {
		t.Parallel()
		storetest.TestDriver(t, func(t *testing.T) imagestore.Driver { return imagestore.DriverOf(imagestore.New(onDisk(t), nil)) })
	})
	newDriver := func(*testing.T) imagestore.Driver { return memdriver.New() }
	t.Run("memdriver", func(t *testing.T) {
		t.Parallel()
		t.Run("Driver", func(t *testing.T) { storetest.TestDriver(t, newDriver) })
		t.Run("Client", func(t *testing.T) {
			storetest.TestStore(t, func(t *testing.T) storetest.Images {
				return newClient(t, serve(t, imagestore.NewWithDriver(newDriver(t), nil), nil).URL)
			})
		})
	})
	t.Run("memdriver with conditional Delete", func(t *testing.T) {
		t.Parallel()
		storetest.TestDriver(t, func(*testing.T) imagestore.Driver {
			d := memdriver.New()
			d.ConditionalDelete = true
			return d
		})
	})
}

// TestOpenImage checks that an image can be replaced and deleted while it is open.
// The suite does not require this, because Windows refuses it.
func TestOpenImage(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not change an open file")
	}
	stores := map[string]*imagestore.Store{"memdriver": imagestore.NewWithDriver(memdriver.New(), nil)}
	for _, fsys := range filesystems {
		stores[fsys.name] = imagestore.New(fsys.new(t), nil)
	}
	old := testimage.PNG(t, 500, 1)
	for name, s := range stores {
		for _, s := range []storetest.Images{s, newClient(t, serve(t, s, nil).URL)} {
			for op, change := range map[string]func() error{
				"Put":    func() error { _, err := s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3, 2))); return err },
				"Delete": func() error { return s.Delete(t.Context(), "a") },
			} {
				put(t, s, "a", old)
				img, err := s.Get(t.Context(), "a")
				must(t, err)
				if err := change(); err != nil {
					t.Errorf("%s: %s of an open image with a %T: got %v, want nil", name, op, s, err)
				}
				if b, err := io.ReadAll(img); err != nil || !bytes.Equal(b, old) {
					t.Errorf("%s: open image after %s with a %T: got %d bytes, %v, want %d", name, op, s, len(b), err, len(old))
				}
				must(t, img.Close())
			}
		}
	}
}

// TestListedInfo checks that a list has the same Info as Put, except what a driver would
// have to open the image for. The suite checks less, because object stores may list
// other times.
func TestListedInfo(t *testing.T) {
	t.Parallel()
	stores := map[string]func() *imagestore.Store{
		"memdriver": func() *imagestore.Store { return imagestore.NewWithDriver(memdriver.New(), nil) },
	}
	for _, fsys := range filesystems {
		stores[fsys.name] = func() *imagestore.Store { return imagestore.New(fsys.new(t), nil) }
	}
	for name, newStore := range stores {
		s := newStore()
		for _, s := range []storetest.Images{s, newClient(t, serve(t, s, nil).URL)} {
			want := put(t, s, "a", testimage.PNG(t, 3, 1))
			for got, err := range s.List(t.Context(), imagestore.ListOptions{}) {
				want.Type, want.Width, want.Height = "", 0, 0
				if err != nil || got != want {
					t.Errorf("%s: got %+v, %v from List of a %T, want %+v", name, got, err, s, want)
				}
			}
		}
	}
}
