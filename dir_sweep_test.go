package imagestore_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// TestSweep checks that a sweep removes old files of the store's own making only.
func TestSweep(t *testing.T) {
	t.Parallel()
	for _, f := range filesystems {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			fsys := f.new(t)
			s := imagestore.New(fsys, nil)
			if n, err := s.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
				t.Errorf("empty store: got %d, %v, want 0, nil", n, err)
			}
			put(t, s, "image", testimage.PNG(t, 3, 1))
			old, young := ".staging/"+rand.Text(), ".staging/"+rand.Text()
			now := time.Now()
			for name, age := range map[string]time.Duration{
				old:       3 * time.Hour,
				young:     0,
				old + "A": 3 * time.Hour,
				strings.TrimSuffix(old, old[len(old)-1:]):   3 * time.Hour,
				".staging/" + strings.Repeat("a", 26):       3 * time.Hour,
				".staging/" + strings.Repeat("A", 25) + "1": 3 * time.Hour,
				".staging/notes.txt":                        3 * time.Hour,
				".staging/dir/" + path.Base(old):            3 * time.Hour,
				"foreign/" + path.Base(old):                 3 * time.Hour,
				"image/" + path.Base(old):                   3 * time.Hour,
				path.Base(old):                              3 * time.Hour,
			} {
				must(t, fsys.MkdirAll(path.Dir(name), 0o777))
				must(t, afero.WriteFile(fsys, name, []byte("x"), 0o666))
				must(t, fsys.Chtimes(name, now.Add(-age), now.Add(-age)))
			}
			for _, name := range []string{"Downloads", ".staging/" + rand.Text()} {
				must(t, fsys.Mkdir(name, 0o777))
				if !strings.HasPrefix(f.name, "CopyOnWrite") { // which cannot set the times of directories
					must(t, fsys.Chtimes(name, now.Add(-3*time.Hour), now.Add(-3*time.Hour)))
				}
			}
			before := files(t, fsys)
			n, err := s.Sweep(t.Context(), 2*time.Hour)
			must(t, err)
			after := files(t, fsys)
			want := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return name == old })
			if n != 1 || !slices.Equal(after, want) {
				t.Errorf("got %d removed and %v left, want 1 and %v", n, after, want)
			}
		})
	}
}

// TestSweepGoesOn sweeps where some files cannot be removed.
func TestSweepGoesOn(t *testing.T) {
	t.Parallel()
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	var names []string
	must(t, base.Mkdir(".staging", 0o777))
	for range 6 {
		names = append(names, ".staging/"+rand.Text())
		must(t, afero.WriteFile(base, names[len(names)-1], nil, 0o666))
	}
	fsys.FailIf(func(op errorfs.Op) error {
		switch {
		case op.Name == "remove" && slices.Contains(names[:2], op.Path):
			return syscall.EPERM
		case op.Name == "lstat" && op.Path == names[2]:
			return syscall.EPERM
		case op.Name == "remove" && op.Path == names[3]:
			return syscall.EBUSY // still in use
		}
		return nil
	})
	n, err := s.Sweep(t.Context(), -time.Hour)
	wantError(t, err, imagestore.ErrReadOnly, "sweep", "")
	if n != 2 || err == nil || !strings.Contains(err.Error(), "cannot be removed: 3, ") {
		t.Errorf("got %d removed and %v, want 2 and an error about 3 files", n, err)
	}
	if left := files(t, base); len(left) != 1+4 {
		t.Errorf("got files %v, want the 4 that cannot be removed", left)
	}
}

// TestSweepMeanwhile sweeps while another Store puts and deletes images in the same
// directory, as another process would.
func TestSweepMeanwhile(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s, sweeper := imagestore.New(fsys, &imagestore.Options{NoSync: true}), imagestore.New(fsys, nil)
	done := make(chan struct{})
	var sweeping sync.WaitGroup
	sweeping.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if _, err := sweeper.Sweep(t.Context(), time.Hour); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer sweeping.Wait()
	defer close(done)
	b := testimage.PNG(t, 3, 1)
	for range 60 {
		for i := range 3 {
			id := fmt.Sprint("i", i)
			put(t, s, id, b)
			if _, got := get(t, s, id); !bytes.Equal(got, b) {
				t.Error("got another image, want the one that was put")
			}
			must(t, s.Delete(t.Context(), id))
		}
	}
}
