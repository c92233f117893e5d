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
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// An openCounter counts how often a file is opened. A cached image opens none.
type openCounter struct {
	afero.Fs
	opens atomic.Int64
}

func (f *openCounter) Open(name string) (afero.File, error) {
	f.opens.Add(1)
	return f.Fs.Open(name)
}

// newCached returns a Store on a directory whose small images are cached, and a
// function that returns how many files were opened since its last call.
func newCached(t *testing.T) (dir string, s *imagestore.Store, opened func() int64) {
	if runtime.GOOS != "linux" {
		t.Skip("images are cached on Linux only")
	}
	dir = t.TempDir()
	fsys := &openCounter{Fs: afero.NewBasePathFs(afero.NewOsFs(), dir)}
	return dir, imagestore.New(fsys, nil), func() int64 { return fsys.opens.Swap(0) }
}

// age makes a file old enough to be cached.
func age(t *testing.T, name string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
}

// tick waits until the clock of file times has moved on. Its steps may be
// milliseconds.
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

// TestCacheNeverStale changes a cached image in many ways. No reader may get the
// old one again.
func TestCacheNeverStale(t *testing.T) {
	t.Parallel()
	first, second := testimage.PNG(t, 20, 1), testimage.PNG(t, 20, 2) // of one size
	for _, test := range []struct {
		name   string
		change func(t *testing.T, s *imagestore.Store, dir, file string)
		want   []byte // nil if there is no image afterwards
		etag   bool   // the ETag stays the same
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
			t.Parallel()
			dir, s, opened := newCached(t)
			url := serve(t, s, nil).URL + "/images/a"
			put(t, s, "a", first)
			file := filepath.Join(dir, "a", "image")
			age(t, file)
			old, _ := get(t, s, "a")
			opened()
			if again, b := get(t, s, "a"); again != old || !bytes.Equal(b, first) || opened() != 0 {
				t.Fatalf("got %+v or an opened file, want the cached image %+v", again, old)
			}
			tick(t)
			test.change(t, s, dir, file)
			got := testhttp.Request(t, "GET", url, nil)
			conditional := testhttp.Request(t, "GET", url, nil, "If-None-Match", old.ETag)
			head := testhttp.Request(t, "HEAD", url, nil, "If-None-Match", old.ETag)
			if test.want == nil {
				for _, got := range []testhttp.Answer{got, conditional, head} {
					if got.StatusCode != http.StatusNotFound {
						t.Errorf("%s: got %s, want 404", got.Request.Method, got.Status)
					}
				}
				return
			}
			if test.etag { // conditions cannot see this change
				conditional, head = got, got
			}
			for _, got := range []testhttp.Answer{got, conditional} {
				if got.StatusCode != http.StatusOK || !bytes.Equal(got.Bytes, test.want) || (got.Header.Get("ETag") == old.ETag) != test.etag {
					t.Errorf("got %s, ETag %s, %d bytes, want the changed image, ETag %s kept: %v", got.Status, got.Header.Get("ETag"), len(got.Bytes), old.ETag, test.etag)
				}
			}
			if head.ContentLength != int64(len(test.want)) {
				t.Errorf("HEAD: got %d bytes, want %d", head.ContentLength, len(test.want))
			}
		})
	}
}

// TestCacheStat counts how often Stat, and a GET that is answered with 304, open a
// small image.
func TestCacheStat(t *testing.T) {
	t.Parallel()
	dir, s, opened := newCached(t)
	put(t, s, "a", testimage.PNG(t, 20, 1))
	age(t, filepath.Join(dir, "a", "image"))
	opened()
	info, err := s.Stat(t.Context(), "a")
	if err != nil || opened() != 1 {
		t.Fatalf("the first Stat: got %v, want the file opened once", err)
	}
	if _, err := s.Stat(t.Context(), "a"); err != nil || opened() != 0 {
		t.Errorf("the second Stat: got %v, want it from the cache", err)
	}
	if got := testhttp.Request(t, "GET", serve(t, s, nil).URL+"/images/a", nil, "If-None-Match", info.ETag); got.StatusCode != http.StatusNotModified || opened() != 0 {
		t.Errorf("GET: got %s, want 304 from the cache", got.Status)
	}
}

// TestCacheYoungFiles reads a file so young that it could change again without a
// new mtime.
func TestCacheYoungFiles(t *testing.T) {
	t.Parallel()
	_, s, opened := newCached(t)
	put(t, s, "a", testimage.PNG(t, 20, 1))
	get(t, s, "a")
	opened()
	if get(t, s, "a"); opened() != 1 {
		t.Error("got an image from the cache that was put just now, want it from the file")
	}
}

// TestCacheLimits checks that a large image, and one that is not on a local disk,
// are never cached.
func TestCacheLimits(t *testing.T) {
	t.Parallel()
	dir, s, opened := newCached(t)
	put(t, s, "large", testimage.PNG(t, 300, 1))
	age(t, filepath.Join(dir, "large", "image"))
	for range 2 {
		opened()
		if _, b := get(t, s, "large"); opened() != 1 || !bytes.Equal(b, testimage.PNG(t, 300, 1)) {
			t.Error("got a large image from the cache, or another image, want it from the file")
		}
	}
	fsys := &openCounter{Fs: afero.NewMemMapFs()}
	s = imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 20, 1))
	old := time.Now().Add(-time.Hour)
	if err := fsys.Chtimes("a/image", old, old); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		fsys.opens.Store(0)
		if get(t, s, "a"); fsys.opens.Load() != 1 {
			t.Error("got an image of a MemMapFs from the cache, want it from the MemMapFs")
		}
	}
}

// TestCacheRace replaces one image again and again while others read it. A reader
// must get the version that was in place when it began, or a later one.
func TestCacheRace(t *testing.T) {
	t.Parallel()
	dir, s, _ := newCached(t)
	const size = 1000
	version := func(n int64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%10d", n), size/10) }
	file := filepath.Join(dir, "a", "image")
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
					t.Errorf("got %d bytes of version %d, %v, want version %d or later", len(b), n, errors.Join(err, scanErr), least)
					return
				}
			}
		})
	}
	for n := range int64(400) {
		if err := replace(n); err != nil {
			t.Error(err)
			break
		}
		inPlace.Store(n)
	}
	stop()
	readers.Wait()
}

// TestCacheAndVerify damages the file of a cached image.
func TestCacheAndVerify(t *testing.T) {
	t.Parallel()
	dir, s, opened := newCached(t)
	put(t, s, "a", testimage.PNG(t, 20, 1))
	file := filepath.Join(dir, "a", "image")
	age(t, file)
	get(t, s, "a")
	opened()
	if get(t, s, "a"); opened() != 0 {
		t.Fatal("got the image from its file, want it from the cache")
	}
	if err := s.Verify(t.Context(), "a"); err != nil || opened() != 1 {
		t.Errorf("got %v from Verify, or it did not read the file", err)
	}
	b := testimage.PNG(t, 20, 1)
	b[len(b)/2] ^= 1
	if err := os.WriteFile(file, b, 0o666); err != nil {
		t.Fatal(err)
	}
	age(t, file)
	if err := s.Verify(t.Context(), "a"); !errors.Is(err, imagestore.ErrInvalidImage) {
		t.Errorf("damaged image: got %v, want %v", err, imagestore.ErrInvalidImage)
	}
}
