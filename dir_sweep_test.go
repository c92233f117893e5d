package imagestore_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

func TestSweep(t *testing.T) {
	t.Parallel()
	for _, f := range filesystems {
		if strings.HasPrefix(f.name, "CopyOnWrite") {
			continue // the times of its directories cannot be set
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			fsys := f.new(t)
			s := imagestore.New(fsys, nil)
			if n, err := s.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
				t.Errorf("empty store: got %d, %v, want 0, nil", n, err)
			}
			put(t, s, "image", testimage.PNG(t, 3, 1))
			now := time.Now()
			for name, age := range map[string]time.Duration{
				".staging/old":        3 * time.Hour,
				".staging/new":        0,
				"foreign/notes.txt":   3 * time.Hour,
				"image/notes.txt":     3 * time.Hour,
				"file":                3 * time.Hour,
				"_not.an-id$/old.png": 3 * time.Hour,
			} {
				must(t, fsys.MkdirAll(filepath.Dir(name), 0o777))
				must(t, afero.WriteFile(fsys, name, []byte("x"), 0o666))
				must(t, fsys.Chtimes(name, now.Add(-age), now.Add(-age)))
			}
			for name, age := range map[string]time.Duration{"empty-old": 3 * time.Hour, "empty-new": 0, "$": 3 * time.Hour} {
				must(t, fsys.Mkdir(name, 0o777))
				must(t, fsys.Chtimes(name, now.Add(-age), now.Add(-age)))
			}
			before := files(t, fsys)
			n, err := s.Sweep(t.Context(), 2*time.Hour)
			must(t, err)
			after := files(t, fsys)
			want := slices.DeleteFunc(slices.Clone(before), func(name string) bool { return name == "empty-old" || name == ".staging/old" })
			if n != 2 || !slices.Equal(after, want) {
				t.Errorf("got %d removed and %v left, want 2 and %v", n, after, want)
			}
		})
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
			// Sweep removes the directories, which are made old below, but no staged file.
			if _, err := sweeper.Sweep(t.Context(), time.Hour); err != nil {
				t.Error(err)
				return
			}
			for i := range 3 {
				old := time.Now().Add(-2 * time.Hour)
				fsys.Chtimes(fmt.Sprint("i", i), old, old)
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
