package imagestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// An openCounter counts how often a file is opened: an image that comes from
// memory needs none.
type openCounter struct {
	afero.Fs
	opens atomic.Int64
}

func (f *openCounter) Open(name string) (afero.File, error) {
	f.opens.Add(1)
	return f.Fs.Open(name)
}

// newCached returns a Store on a directory whose small images are kept in
// memory, and a function that says how many files were opened since it was
// called last.
func newCached(t *testing.T) (dir string, s *imagestore.Store, opened func() int64) {
	if runtime.GOOS != "linux" {
		t.Skip("images are kept in memory on Linux only")
	}
	dir = t.TempDir()
	fsys := &openCounter{Fs: afero.NewBasePathFs(afero.NewOsFs(), dir)}
	return dir, imagestore.New(fsys, nil), func() int64 { return fsys.opens.Swap(0) }
}

// age makes a file so old that it may be kept.
func age(t *testing.T, name string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
}

// tick waits until the clock that times of files come from, which may have steps
// of milliseconds, has moved on.
func tick(t *testing.T) {
	t.Helper()
	probe := filepath.Join(t.TempDir(), "probe")
	var first time.Time
	for {
		if err := os.WriteFile(probe, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(probe)
		if err != nil {
			t.Fatal(err)
		}
		if first.IsZero() {
			first = fi.ModTime()
		}
		if fi.ModTime().After(first) {
			return
		}
	}
}

// TestCacheNeverStale changes an image in every way there is while it is kept
// in memory. Nobody may see the old one again.
func TestCacheNeverStale(t *testing.T) {
	first, second := noise(t, 20, 1), noise(t, 20, 2) // of one size
	for _, test := range []struct {
		name   string
		change func(t *testing.T, s *imagestore.Store, dir, file string)
		want   []byte // nil if there is none
		etag   bool   // is the old one
	}{
		{"put", func(t *testing.T, s *imagestore.Store, _, _ string) { put(t, s, "a", second) }, second, false},
		{"put by another store", func(t *testing.T, _ *imagestore.Store, dir, _ string) {
			put(t, imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil), "a", second)
		}, second, false},
		{"deleted", func(t *testing.T, s *imagestore.Store, _, _ string) {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}, nil, false},
		{"removed by hand", func(t *testing.T, _ *imagestore.Store, _, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, nil, false},
		{"moved over by hand, with the same time", func(t *testing.T, _ *imagestore.Store, dir, file string) {
			fi, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(dir, "other")
			if err := errors.Join(os.WriteFile(other, second, 0o666), os.Chtimes(other, fi.ModTime(), fi.ModTime()), os.Rename(other, file)); err != nil {
				t.Fatal(err)
			}
		}, second, true},
		{"removed, and another written with the same time, maybe in the same inode", func(t *testing.T, _ *imagestore.Store, _, file string) {
			fi, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Remove(file), os.WriteFile(file, second, 0o666), os.Chtimes(file, fi.ModTime(), fi.ModTime())); err != nil {
				t.Fatal(err)
			}
		}, second, true},
		{"written by hand, and the time set back", func(t *testing.T, _ *imagestore.Store, _, file string) {
			fi, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(file, second, 0o666), os.Chtimes(file, fi.ModTime(), fi.ModTime())); err != nil {
				t.Fatal(err)
			}
		}, second, true},
		{"written by hand", func(t *testing.T, _ *imagestore.Store, _, file string) {
			if err := os.WriteFile(file, second, 0o666); err != nil {
				t.Fatal(err)
			}
		}, second, false},
		{"made shorter by hand, with the same time", func(t *testing.T, _ *imagestore.Store, _, file string) {
			fi, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Truncate(file, 100), os.Chtimes(file, fi.ModTime(), fi.ModTime())); err != nil {
				t.Fatal(err)
			}
		}, first[:100], false},
		{"replaced by a directory", func(t *testing.T, _ *imagestore.Store, _, file string) {
			if err := errors.Join(os.Remove(file), os.Mkdir(file, 0o777)); err != nil {
				t.Fatal(err)
			}
		}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir, s, opened := newCached(t)
			url := serve(t, s, nil).URL + "/images/a"
			put(t, s, "a", first)
			file := filepath.Join(dir, "a", "image.png")
			age(t, file)
			old, _ := get(t, s, "a")
			opened()
			if again, b := get(t, s, "a"); again != old || !bytes.Equal(b, first) || opened() != 0 {
				t.Fatalf("the image is not kept in memory, or not well: %+v", again)
			}
			tick(t)
			test.change(t, s, dir, file)
			got := request(t, "GET", url, nil)
			conditional := request(t, "GET", url, nil, "If-None-Match", old.ETag)
			head := request(t, "HEAD", url, nil, "If-None-Match", old.ETag)
			if test.want == nil {
				for _, got := range []answer{got, conditional, head} {
					if got.StatusCode != http.StatusNotFound {
						t.Errorf("%s is answered with %s", got.Request.Method, got.Status)
					}
				}
				return
			}
			if test.etag { // and so nothing has changed, as far as conditions can tell
				conditional, head = got, got
			}
			for _, got := range []answer{got, conditional} {
				if got.StatusCode != http.StatusOK || !bytes.Equal(got.body, test.want) || (got.Header.Get("ETag") == old.ETag) != test.etag {
					t.Errorf("%s, ETag %s, %d bytes", got.Status, got.Header.Get("ETag"), len(got.body))
				}
			}
			if head.ContentLength != int64(len(test.want)) {
				t.Errorf("HEAD says %d bytes", head.ContentLength)
			}
		})
	}
}

// TestCacheYoungFiles reads a file that may be written once more within the
// tick of the clock that its time is from.
func TestCacheYoungFiles(t *testing.T) {
	_, s, opened := newCached(t)
	put(t, s, "a", noise(t, 20, 1))
	get(t, s, "a")
	opened()
	if get(t, s, "a"); opened() != 1 {
		t.Error("an image that has just been put is kept in memory")
	}
}

// TestCacheLimits has what is large or not on a disk of this machine read from
// there every time.
func TestCacheLimits(t *testing.T) {
	dir, s, opened := newCached(t)
	put(t, s, "large", noise(t, 300, 1))
	age(t, filepath.Join(dir, "large", "image.png"))
	for range 2 {
		opened()
		if _, b := get(t, s, "large"); opened() != 1 || !bytes.Equal(b, noise(t, 300, 1)) {
			t.Error("a large image is kept in memory, or is another one")
		}
	}
	fsys := &openCounter{Fs: afero.NewMemMapFs()}
	s = imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 20, 1))
	old := time.Now().Add(-time.Hour)
	if err := fsys.Chtimes("a/image.png", old, old); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		fsys.opens.Store(0)
		if get(t, s, "a"); fsys.opens.Load() != 1 {
			t.Error("an image of a MemMapFs is kept in memory once more")
		}
	}
}

// TestCacheRace replaces one image by hand, again and again, while many read
// it: whoever begins to read when a version is in place gets that or a later.
func TestCacheRace(t *testing.T) {
	dir, s, _ := newCached(t)
	const size = 1000
	version := func(n int64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%10d", n), size/10) }
	file := filepath.Join(dir, "a", "image.png")
	if err := os.Mkdir(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	replace := func(n int64) error {
		other := filepath.Join(dir, "other")
		at := old.Add(time.Duration(n) * time.Microsecond)
		return errors.Join(os.WriteFile(other, version(n), 0o666), os.Chtimes(other, at, at), os.Rename(other, file))
	}
	if err := replace(0); err != nil {
		t.Fatal(err)
	}
	var inPlace atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				least := inPlace.Load()
				img, err := s.Get(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(img)
				img.Close()
				var n int64
				if _, scanErr := fmt.Sscan(string(b[:min(10, len(b))]), &n); errors.Join(err, scanErr) != nil || n < least || !bytes.Equal(b, version(n)) {
					t.Errorf("version %d is in place, but a reader gets %d bytes of version %d, %v", least, len(b), n, errors.Join(err, scanErr))
					return
				}
			}
		})
	}
	for n := range int64(2000) {
		if err := replace(n); err != nil {
			t.Error(err)
			break
		}
		inPlace.Store(n)
	}
	stop()
	readers.Wait()
}

// TestCacheAndVerify damages a file whose image is kept in memory.
func TestCacheAndVerify(t *testing.T) {
	dir, s, opened := newCached(t)
	put(t, s, "a", noise(t, 20, 1))
	file := filepath.Join(dir, "a", "image.png")
	age(t, file)
	get(t, s, "a")
	opened()
	if get(t, s, "a"); opened() != 0 {
		t.Fatal("the image is not kept in memory")
	}
	if err := s.Verify(t.Context(), "a"); err != nil || opened() != 1 {
		t.Errorf("Verify has not read the file, or found %v", err)
	}
	b := noise(t, 20, 1)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o666); err != nil {
		t.Fatal(err)
	}
	age(t, file)
	if err := s.Verify(t.Context(), "a"); !errors.Is(err, imagestore.ErrBroken) {
		t.Errorf("Verify of a damaged image returns %v", err)
	}
}
