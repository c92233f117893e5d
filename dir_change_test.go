package imagestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestNotDurable makes the last step of a change fail, on a Store and over HTTP. The
// change must be made, and the result must come with the error.
func TestNotDurable(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} { // ENOSPC alone would be ErrNoSpace
		fsys := errorfs.New(onDisk(t))
		s := imagestore.New(fsys, nil)
		put(t, s, "old", testimage.PNG(t, 3, 1))
		put(t, s, "old2", testimage.PNG(t, 3, 1))
		fsys.FailIf(func(op errorfs.Op) error {
			if op.Name == "file.sync" && !strings.HasPrefix(op.Path, ".staging") {
				return cause
			}
			return nil
		})
		b := testimage.PNG(t, 10, 2)
		result, err := s.Put(t.Context(), "a", bytes.NewReader(b))
		wantError(t, err, imagestore.ErrNotDurable, "put", "a")
		wantError(t, err, cause, "put", "a")
		if info, got := get(t, s, "a"); result.Info != info || result.Replaced || !bytes.Equal(got, b) {
			t.Errorf("got the result %+v, want %+v", result, info)
		}
		wantError(t, s.Delete(t.Context(), "old"), imagestore.ErrNotDurable, "delete", "old")
		_, err = s.Stat(t.Context(), "old")
		wantError(t, err, imagestore.ErrNotFound, "stat", "old")

		c := newClient(t, serve(t, s, nil).URL)
		_, err = c.Put(t.Context(), "a", bytes.NewReader(b))
		wantError(t, err, imagestore.ErrNotDurable, "put", "a")
		wantError(t, c.Delete(t.Context(), "old2"), imagestore.ErrNotDurable, "delete", "old2")
	}
}

// TestNotDurableDetail makes the look at a deleted image fail with an error that has a
// reason of its own. The answer must be about the deletion.
func TestNotDurableDetail(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	removed := false
	fsys.FailIf(func(op errorfs.Op) error {
		removed = removed || op.Name == "remove"
		if op.Name == "lstat" && removed {
			return syscall.EMFILE
		}
		return nil
	})
	got := testhttp.Request(t, "DELETE", serve(t, s, nil).URL+"/images/a", nil)
	if got.Code() != "not_durable" || !strings.Contains(string(got.Bytes), "the image is gone") {
		t.Errorf("got %s %q, want not_durable and that the image is gone", got.Status, got.Bytes)
	}
}

// TestCanceledRetries makes other processes undo each attempt of a change. The
// change must end when its context does.
func TestCanceledRetries(t *testing.T) {
	t.Parallel()
	const attempts = 3
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 3, 1)

	// The directory is deleted before every rename.
	ctx, cancel := context.WithCancel(t.Context())
	renames := 0
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name != "rename" {
			return nil
		}
		if renames++; renames == attempts {
			cancel()
		}
		return base.Remove("a")
	})
	_, err := s.Put(ctx, "a", bytes.NewReader(b))
	wantError(t, err, context.Canceled, "put", "a")
	if renames != attempts {
		t.Errorf("got %d renames, want %d", renames, attempts)
	}

	// The file stays open, and the storage refuses to rename over it.
	ctx, cancel = context.WithCancel(t.Context())
	tries := 0
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name != "rename" {
			return nil
		}
		if tries++; tries == attempts {
			cancel()
		}
		return syscall.EBUSY
	})
	_, err = s.Put(ctx, "a", bytes.NewReader(b))
	wantError(t, err, context.Canceled, "put", "a")

	// An older version appears after every removal.
	fsys.FailIf(nil)
	put(t, s, "a", b)
	ctx, cancel = context.WithCancel(t.Context())
	removed := 0
	fsys.FailIf(func(op errorfs.Op) error {
		switch {
		case op.Name == "remove":
			if removed++; removed == attempts {
				cancel()
			}
		case op.Name == "lstat" && removed > 0:
			at := time.Now().Add(-time.Duration(removed) * time.Hour)
			return errors.Join(afero.WriteFile(base, "a/image", b, 0o666), base.Chtimes("a/image", at, at))
		}
		return nil
	})
	wantError(t, s.Delete(ctx, "a"), context.Canceled, "delete", "a")
	if removed != attempts {
		t.Errorf("got %d removals, want %d", removed, attempts)
	}
}

// TestInUse uses a storage that does not change a file while it is open. A change
// must wait for the reader, but for a limited time.
func TestInUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		closed time.Duration // when the reader closes the file
		want   error
	}{
		{"closed in time", time.Second, nil},
		{"never closed", 1000 * time.Hour, imagestore.ErrUnavailable},
	} {
		for _, op := range []string{"rename", "remove"} {
			t.Run(op+", "+test.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fsys := errorfs.New(afero.NewMemMapFs())
					s := imagestore.New(fsys, nil)
					old, b := testimage.PNG(t, 3, 1), testimage.PNG(t, 3, 2)
					put(t, s, "a", old)
					start := time.Now()
					fsys.FailIf(func(o errorfs.Op) error {
						if o.Name == op && (o.To == "a/image" || o.Path == "a/image") && time.Since(start) < test.closed {
							return syscall.EBUSY
						}
						return nil
					})
					var err error
					if op == "rename" {
						_, err = s.Put(t.Context(), "a", bytes.NewReader(b))
					} else {
						err = s.Delete(t.Context(), "a")
					}
					if !errors.Is(err, test.want) {
						t.Errorf("got %v, want %v", err, test.want)
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("got an answer after %v, want at most 10s", took)
					}
					if test.want != nil {
						if _, got := get(t, s, "a"); !bytes.Equal(got, old) {
							t.Error("got another image, want the old one")
						}
					}
				})
			})
		}
	}
}

// TestDirectoryInUse has another process that keeps a directory or a file open.
func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		op    string
		drop  bool  // the operation does nothing and reports success
		never error // the error of the change if the other process never closes it
		left  string
	}{
		{"put, the directory cannot be opened", "open a", false, imagestore.ErrNotDurable, "a a/image"},
		{"delete, the directory cannot be removed", "remove a", false, nil, "a"},
		{"delete, the directory cannot be opened", "open a", false, imagestore.ErrNotDurable, "a"},
		{"delete, the file stays", "remove a/image", true, imagestore.ErrReadOnly, "a a/image"},
	} {
		for _, ends := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, ends %v", test.name, ends), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					base := afero.NewMemMapFs()
					fsys := errorfs.New(base)
					s := imagestore.New(fsys, nil)
					put(t, s, "a", testimage.PNG(t, 3, 1))
					start := time.Now()
					inUse := func(op errorfs.Op) bool {
						return op.String() == test.op && (!ends || time.Since(start) < time.Second)
					}
					if test.drop {
						fsys.Drop(inUse)
					} else {
						fsys.FailIf(func(op errorfs.Op) error {
							if inUse(op) {
								return syscall.EBUSY
							}
							return nil
						})
					}
					want, left := test.never, test.left
					if ends {
						want, left = nil, ""
					}
					var err error
					if strings.HasPrefix(test.name, "put") {
						left = test.left
						_, err = s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3, 2)))
					} else {
						err = s.Delete(t.Context(), "a")
					}
					if !errors.Is(err, want) {
						t.Errorf("got %v, want %v", err, want)
					}
					var there []string
					for _, name := range files(t, base) {
						if strings.HasPrefix(name, "a") {
							there = append(there, name)
						}
					}
					if got := strings.Join(there, " "); got != left {
						t.Errorf("got files %q, want %q", got, left)
					}
					if took := time.Since(start); took > 10*time.Second {
						t.Errorf("got an answer after %v, want at most 10s", took)
					}
				})
			})
		}
	}
}

// TestSyncPanics makes the Sync of one directory panic while that of the other
// still runs. The panic must reach the caller after both have ended, with its stack.
func TestSyncPanics(t *testing.T) {
	t.Parallel()
	for panics, other := range map[string]string{"a": ".", ".": "a"} {
		synctest.Test(t, func(t *testing.T) {
			fsys := errorfs.New(afero.NewMemMapFs())
			s := imagestore.New(fsys, nil)
			release := make(chan struct{})
			fsys.FailIf(func(op errorfs.Op) error {
				switch {
				case op.Name == "file.sync" && op.Path == panics:
					panicInSync()
				case op.Name == "file.sync" && op.Path == other:
					<-release
				}
				return nil
			})
			var recovered any
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer func() { recovered = recover() }()
				_, _ = s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 3, 1)))
			}()
			synctest.Wait()
			select {
			case <-done:
				t.Errorf("panic in the Sync of %s: Put returned before the Sync of %s", panics, other)
			default:
			}
			close(release)
			<-done
			err, ok := recovered.(error)
			if !ok || !strings.Contains(err.Error(), "the filesystem is broken") || !strings.Contains(err.Error(), "panicInSync") {
				t.Errorf("panic in the Sync of %s: got %v, want the panic and its stack", panics, recovered)
			}
			// The id must not stay locked.
			fsys.FailIf(nil)
			put(t, s, "a", testimage.PNG(t, 3, 2))
		})
	}
}

func panicInSync() { panic("the filesystem is broken") }

// TestModTimeIsExact compares Info.ModTime with the time of the file.
func TestModTimeIsExact(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", testimage.PNG(t, 3, 1))
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	must(t, fsys.Chtimes("a/image", at, at))
	fi, err := fsys.Stat("a/image")
	must(t, err)
	info, err = s.Stat(t.Context(), "a")
	must(t, err)
	if !info.ModTime.Equal(fi.ModTime()) || info.ModTime.Location() != time.UTC {
		t.Errorf("got %v, want %v", info.ModTime, fi.ModTime().UTC())
	}
}

// TestYoungSmallImage limits the memory that a Get of a small image allocates when
// the image is too young to be cached.
func TestYoungSmallImage(t *testing.T) {
	s := imagestore.New(onDisk(t), nil)
	put(t, s, "a", testimage.PNG(t, 245, 1)) // 61 KB
	const n = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		img, err := s.Get(t.Context(), "a")
		must(t, err)
		must(t, img.Close())
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 16<<10 {
		t.Errorf("got %d bytes a Get, want at most 16 KiB", each)
	}
}
