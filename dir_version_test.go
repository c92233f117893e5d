package imagestore_test

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// coarseFs rounds modification times down to step, as FAT and many network
// filesystems do.
type coarseFs struct {
	afero.Fs
	step time.Duration
}

func (c coarseFs) Chtimes(name string, atime, mtime time.Time) error {
	return c.Fs.Chtimes(name, atime.Truncate(c.step), mtime.Truncate(c.step))
}

func TestCoarseTimes(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{100, time.Millisecond, time.Second, 2 * time.Second} {
		s := imagestore.New(coarseFs{onDisk(t), step}, nil)
		b := testimage.PNG(t, 3, 1)
		seen := make(map[string]bool)
		for i := range 20 {
			if i > 0 && i%3 == 0 {
				must(t, s.Delete(t.Context(), "a"))
			}
			info := put(t, s, "a", b)
			if seen[info.ETag] {
				t.Fatalf("steps of %v: got ETag %s again, want a new one", step, info.ETag)
			}
			seen[info.ETag] = true
			if got, _ := get(t, s, "a"); got != info {
				t.Fatalf("steps of %v: got %+v from Get, want %+v as from Put", step, got, info)
			}
		}
	}
}

// TestLaterThanTheFuture replaces an image whose time is in the future.
func TestLaterThanTheFuture(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	future := time.Now().Add(1000 * time.Hour)
	must(t, fsys.Chtimes("a/image.png", future, future))
	old, _ := get(t, s, "a")
	info := put(t, s, "a", b, imagestore.IfMatch(old.ETag))
	if info.ETag == old.ETag || info.ModTime.Before(old.ModTime) {
		t.Errorf("got %+v after %+v, want a later version", info, old)
	}
}

// lyingFs loses the second half of every write and reports success.
type lyingFs struct{ afero.Fs }

func (l lyingFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	f, err := l.Fs.OpenFile(name, flag, perm)
	return lyingFile{f}, err
}

type lyingFile struct{ afero.File }

func (l lyingFile) Write(p []byte) (int, error) {
	if _, err := l.File.Write(p[:len(p)/2]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestLyingFilesystem(t *testing.T) {
	t.Parallel()
	s := imagestore.New(lyingFs{onDisk(t)}, nil)
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 30, 1))); err == nil {
		t.Error("got no error for half an image, want one")
	}
	_, err := s.Get(t.Context(), "a")
	wantError(t, err, imagestore.ErrNotFound, "get", "a")
}
