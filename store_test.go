package imagestore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/faultfs"
	"github.com/spf13/afero"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{
		"TestPost", "68faf55b66e7685d4e5a7ab", "a", "_", "0", "a.b", "a-_.~9", "A~", "_.x", strings.Repeat("z", 128),
		"CONSOLE", "nula", "com", "com10", "COMX", "lpt", "a.con", "con_", "x~y", "image~1234567", "abcdefghi~1", "a~1b", "IMAGES~12", imagestore.NewID(),
	} {
		if err := imagestore.CheckID(id); err != nil {
			t.Errorf("%q is refused: %v", id, err)
		}
	}
	for _, id := range []string{
		"", ".", "..", "...", ".staging", "a/b", "/", `a\b`, "a:b", "a b", " a", "a%2Fb", "a\x00", "a\n", "é", "a\xff", "-a", "~a", ".a", "a.", "a..",
		"con", "CON", "Prn.png", "aux.x.y", "NUL", "nul.png", "com0", "COM1", "lpt9", "LPT5.png", "STAGIN~1", "a~1", "IMAGE~12.png",
		strings.Repeat("z", 129), "a?b", "a#b", "a*b", "a;b", "a+b", "a@b",
	} {
		if err := imagestore.CheckID(id); !errors.Is(err, imagestore.ErrInvalidID) || !strings.Contains(err.Error(), "an id is 1 to 128 characters") {
			t.Errorf("%q is not refused as it should be: %v", id, err)
		}
	}
}

func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := imagestore.NewID()
		if err := imagestore.CheckID(id); err != nil || seen[id] {
			t.Fatalf("NewID returns %q: %v, seen %v", id, err, seen[id])
		}
		seen[id] = true
	}
}

// TestLayout pins what other programs may rely on.
func TestLayout(t *testing.T) {
	dir := t.TempDir()
	s := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil)
	b := noise(t, 300, 1)
	put(t, s, "TestPost", b)
	if got, err := os.ReadFile(dir + "/TestPost/image.png"); err != nil || !bytes.Equal(got, b) {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
	// An image that somebody put there by hand, and the rest, which is none.
	must(t, os.Mkdir(dir+"/by-hand", 0o777))
	must(t, os.WriteFile(dir+"/by-hand/image.png", []byte("anything"), 0o666))
	must(t, os.WriteFile(dir+"/file", nil, 0o666))
	must(t, os.Mkdir(dir+"/no image", 0o777))
	must(t, os.MkdirAll(dir+"/dir/image.png", 0o777))
	must(t, os.WriteFile(dir+"/.staging/image.png", b, 0o666))
	if _, got := get(t, s, "by-hand"); string(got) != "anything" {
		t.Errorf("the image put there by hand is %q", got)
	}
	for _, id := range []string{"file", "dir"} {
		_, err := s.Get(t.Context(), id)
		wantError(t, err, imagestore.ErrNotFound, "get", id)
		_, err = s.Stat(t.Context(), id)
		wantError(t, err, imagestore.ErrNotFound, "stat", id)
		wantError(t, s.Delete(t.Context(), id), imagestore.ErrNotFound, "delete", id)
	}
	var ids []string
	for info, err := range s.All(t.Context()) {
		must(t, err)
		ids = append(ids, info.ID)
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"TestPost", "by-hand"}) {
		t.Errorf("All yields %v", ids)
	}
	// What is not the store's stays when an image goes.
	must(t, os.WriteFile(dir+"/by-hand/notes.txt", nil, 0o666))
	must(t, s.Delete(t.Context(), "by-hand"))
	must(t, s.Delete(t.Context(), "TestPost"))
	if got := files(t, afero.NewBasePathFs(afero.NewOsFs(), dir)); !slices.Contains(got, "by-hand/notes.txt") || slices.Contains(got, "by-hand/image.png") || slices.Contains(got, "TestPost") {
		t.Errorf("after Delete there is %v", got)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	fsys := onDisk(t)
	b := noise(t, 3, 1)
	info := put(t, imagestore.New(fsys, nil), "a", b)
	s := imagestore.New(afero.NewReadOnlyFs(fsys), nil)
	if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
		t.Error("reading does not work")
	}
	for _, id := range []string{"a", "b"} {
		_, err := s.Put(t.Context(), id, bytes.NewReader(b))
		wantError(t, err, imagestore.ErrReadOnly, "put", id)
		wantError(t, err, syscall.EPERM, "put", id)
	}
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
}

// TestCopyOnWrite has images in the base, which replacing must cover and
// deleting cannot remove.
func TestCopyOnWrite(t *testing.T) {
	for name, layer := range map[string]func(testing.TB) afero.Fs{
		"disk":   onDisk,
		"memory": func(testing.TB) afero.Fs { return afero.NewMemMapFs() },
	} {
		t.Run(name, func(t *testing.T) {
			base := onDisk(t)
			old, replaced := noise(t, 3, 1), noise(t, 3, 2)
			baseStore := imagestore.New(base, nil)
			info := put(t, baseStore, "a", old)
			s := imagestore.New(afero.NewCopyOnWriteFs(base, layer(t)), nil)
			wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
			if name == "disk" { // where the directory must be made in the layer
				fsys := faultfs.New(afero.NewCopyOnWriteFs(base, layer(t)))
				fsys.FailIf(func(op faultfs.Op) error {
					if op.Name == "openfile" && strings.HasPrefix(op.Path, "a/") {
						return syscall.EIO
					}
					return nil
				})
				_, err := imagestore.New(fsys, nil).Put(t.Context(), "a", bytes.NewReader(replaced))
				wantError(t, err, syscall.EIO, "put", "a")
			}
			put(t, s, "a", replaced, imagestore.IfMatch(info.ETag))
			put(t, s, "b", replaced)
			if _, b := get(t, s, "a"); !bytes.Equal(b, replaced) {
				t.Error("the image of the base is still there")
			}
			if got, b := get(t, baseStore, "a"); got != info || !bytes.Equal(b, old) {
				t.Error("the base has changed")
			}
			var ids []string
			for info, err := range s.All(t.Context()) {
				must(t, err)
				ids = append(ids, info.ID)
			}
			slices.Sort(ids)
			if !slices.Equal(ids, []string{"a", "b"}) {
				t.Errorf("All yields %v", ids)
			}
			must(t, s.Delete(t.Context(), "b"))
			// The image of the base comes to light again: not what was asked for.
			wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
		})
	}
}

// TestNothingWrittenForBadImages counts what an upload that is refused within
// its first 64 KiB does to the filesystem.
func TestNothingWrittenForBadImages(t *testing.T) {
	fsys := faultfs.New(onDisk(t))
	s := imagestore.New(fsys, &imagestore.Options{MaxPixels: 1000})
	good := noise(t, 10, 1)
	huge := bytes.Clone(good)
	copy(huge[16:], "\x7f\xff\xff\xff\x7f\xff\xff\xff")
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(huge)); !errors.Is(err, imagestore.ErrTooLarge) {
		t.Errorf("an image of 2147483647 x 2147483647 pixels: %v", err)
	}
	for _, b := range [][]byte{nil, []byte("GIF89a"), good[:len(good)-1], append(bytes.Clone(good), 1), noise(t, 33, 1), huge} {
		if _, err := s.Put(t.Context(), "a", bytes.NewReader(b)); err == nil {
			t.Error("a bad image is stored")
		}
	}
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(good), imagestore.IfMatch("*")); err == nil {
		t.Error("a precondition is not heeded")
	}
	for _, op := range fsys.Trace() {
		if op.Name != "stat" {
			t.Errorf("the filesystem sees %v", op)
		}
	}
}

// coarseFs keeps modification times to the second or worse, as FAT and many
// network filesystems do.
type coarseFs struct {
	afero.Fs
	step time.Duration
}

func (c coarseFs) Chtimes(name string, atime, mtime time.Time) error {
	return c.Fs.Chtimes(name, atime.Truncate(c.step), mtime.Truncate(c.step))
}

func TestCoarseTimes(t *testing.T) {
	for _, step := range []time.Duration{100, time.Millisecond, time.Second, 2 * time.Second} {
		s := imagestore.New(coarseFs{onDisk(t), step}, nil)
		b := noise(t, 3, 1)
		seen := make(map[string]bool)
		for i := range 20 {
			if i > 0 && i%3 == 0 {
				must(t, s.Delete(t.Context(), "a"))
			}
			info := put(t, s, "a", b)
			if seen[info.ETag] {
				t.Fatalf("steps of %v: two versions have the ETag %s", step, info.ETag)
			}
			seen[info.ETag] = true
			if got, _ := get(t, s, "a"); got != info {
				t.Fatalf("steps of %v: Get says %+v, Put said %+v", step, got, info)
			}
		}
	}
}

// TestLaterThanTheFuture replaces an image from a clock that ran ahead.
func TestLaterThanTheFuture(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	b := noise(t, 3, 1)
	put(t, s, "a", b)
	future := time.Now().Add(1000 * time.Hour)
	must(t, fsys.Chtimes("a/image.png", future, future))
	old, _ := get(t, s, "a")
	info := put(t, s, "a", b, imagestore.IfMatch(old.ETag))
	if info.ETag == old.ETag || info.ModTime.Before(old.ModTime) {
		t.Errorf("after %+v comes %+v", old, info)
	}
}

// lyingFs loses the second half of what is written.
type lyingFs struct{ afero.Fs }

type lyingFile struct{ afero.File }

func (l lyingFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	f, err := l.Fs.OpenFile(name, flag, perm)
	return lyingFile{f}, err
}

func (l lyingFile) Write(p []byte) (int, error) {
	if _, err := l.File.Write(p[:len(p)/2]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestLyingFilesystem(t *testing.T) {
	s := imagestore.New(lyingFs{onDisk(t)}, nil)
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 30, 1))); err == nil {
		t.Error("half an image is stored")
	}
	_, err := s.Get(t.Context(), "a")
	wantError(t, err, imagestore.ErrNotFound, "get", "a")
}

// TestManyImages has more images than are read from a directory at a time.
func TestManyImages(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	want := 2500
	for i := range want {
		must(t, fsys.Mkdir(fmt.Sprint("i", i), 0o777))
		must(t, afero.WriteFile(fsys, fmt.Sprintf("i%d/image.png", i), []byte("x"), 0o666))
	}
	seen := make(map[string]bool)
	for info, err := range s.All(t.Context()) {
		must(t, err)
		if seen[info.ID] {
			t.Errorf("%s comes twice", info.ID)
		}
		seen[info.ID] = true
	}
	if len(seen) != want {
		t.Errorf("All yields %d of %d images", len(seen), want)
	}
	c := newClient(t, serve(t, s, nil).URL)
	last := ""
	n := 0
	for info, err := range c.All(t.Context()) {
		must(t, err)
		if info.ID <= last {
			t.Errorf("%s comes after %s", info.ID, last)
		}
		last = info.ID
		n++
	}
	if n != want {
		t.Errorf("a Client's All yields %d of %d images", n, want)
	}
}

// TestNoSync looks at what the option gives up, and at what it does not.
func TestNoSync(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		fsys := faultfs.New(onDisk(t))
		s := imagestore.New(fsys, &imagestore.Options{NoSync: noSync})
		put(t, s, "a", noise(t, 3, 1))
		must(t, s.Delete(t.Context(), "a"))
		syncs := 0
		for _, op := range fsys.Trace() {
			if op.Name == "file.sync" {
				syncs++
			}
		}
		if (syncs == 0) != noSync {
			t.Errorf("with NoSync %v there are %d Syncs", noSync, syncs)
		}
	}
}

// TestDirectorySyncUnsupported has filesystems that cannot sync directories,
// which is tolerated, and some that fail to, which is not.
func TestDirectorySyncUnsupported(t *testing.T) {
	for _, test := range []struct {
		err error
		ok  bool
	}{
		{errors.ErrUnsupported, true}, {syscall.ENOTSUP, true}, {syscall.EINVAL, true}, {syscall.ENOSYS, true},
		{syscall.EIO, false}, {syscall.ENOSPC, false}, {syscall.EBADF, false},
	} {
		for _, dirs := range []string{". a", ".", "a"} { // those that fail
			fsys := faultfs.New(onDisk(t))
			s := imagestore.New(fsys, nil)
			put(t, s, "b", noise(t, 3, 1))
			fsys.FailIf(func(op faultfs.Op) error {
				if op.Name == "file.sync" && slices.Contains(strings.Fields(dirs), op.Path) {
					return test.err
				}
				return nil
			})
			b := noise(t, 3, 2)
			_, err := s.Put(t.Context(), "a", bytes.NewReader(b))
			if test.ok != (err == nil) || !test.ok && !errors.Is(err, test.err) {
				t.Errorf("when the Sync of %s fails with %v, Put returns %v", dirs, test.err, err)
			}
			if !test.ok && !strings.Contains(err.Error(), "in place") {
				t.Errorf("the error does not say that the image is in place: %v", err)
			}
			if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
				t.Error("readers do not see the new image")
			}
			ok := test.ok || dirs == "a" // which is not asked to delete b
			if err := s.Delete(t.Context(), "b"); ok != (err == nil) {
				t.Errorf("when the Sync of %s fails with %v, Delete returns %v", dirs, test.err, err)
			}
		}
	}
}

// TestConcurrentDelete has another process take an image's directory away
// between the steps of a Put.
func TestConcurrentDelete(t *testing.T) {
	base := onDisk(t)
	fsys := faultfs.New(base)
	s := imagestore.New(fsys, nil)
	taken := 0
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "rename" && taken < 3 {
			taken++
			return base.Remove("a")
		}
		return nil
	})
	b := noise(t, 3, 1)
	put(t, s, "a", b)
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) || taken != 3 {
		t.Error("the image did not make it")
	}
	// And an image that another process puts while this one deletes it.
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "remove" && op.Path == "a" {
			return afero.WriteFile(base, "a/image.png", b, 0o666)
		}
		return nil
	})
	must(t, s.Delete(t.Context(), "a"))
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
		t.Error("the other process's image is gone")
	}
	// And one that another process deletes first.
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "remove" && op.Path == "a/image.png" {
			return base.RemoveAll("a")
		}
		return nil
	})
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "delete", "a")
}

// TestConcurrentPut has another process put an image of its own when Delete has
// just removed the one before.
func TestConcurrentPut(t *testing.T) {
	for _, test := range []struct {
		name        string
		age         time.Duration // of the other image, compared with the clock
		conditional bool          // Delete is for one version only
		deleted     bool          // by the other process, before Delete comes to it
		stays       bool
	}{
		// As if it had been there before: a union filesystem has it in a lower
		// layer, or the other process was about to put it.
		{"older", time.Second, false, false, false},
		{"older, and not the version that was meant", time.Second, true, false, true},
		{"older, and deleted again", time.Second, false, true, false},
		{"newer", -time.Second, false, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			base := onDisk(t)
			fsys := faultfs.New(base)
			s := imagestore.New(fsys, nil)
			b := noise(t, 3, 1)
			info := put(t, s, "a", b)
			removes := 0
			fsys.FailIf(func(op faultfs.Op) error {
				if op.Name == "remove" && op.Path == "a/image.png" {
					if removes++; removes == 2 && test.deleted {
						must(t, base.Remove("a/image.png"))
					}
				}
				if op.Name == "stat" && op.Path == "a/image.png" && removes == 1 {
					at := time.Now().Add(-test.age)
					must(t, afero.WriteFile(base, "a/image.png", b, 0o666))
					must(t, base.Chtimes("a/image.png", at, at))
				}
				return nil
			})
			var conds []imagestore.Precondition
			if test.conditional {
				conds = append(conds, imagestore.IfMatch(info.ETag))
			}
			must(t, s.Delete(t.Context(), "a", conds...)) // it did delete one
			if _, err := base.Stat("a/image.png"); (err == nil) != test.stays {
				t.Errorf("the other image: %v", err)
			}
		})
	}
}

// TestConcurrentNotEmpty has another process put an image when Delete is about
// to remove the directory, and delete it right after.
func TestConcurrentNotEmpty(t *testing.T) {
	for _, rmdir := range []bool{false, true} {
		base := onDisk(t)
		fsys := faultfs.New(base)
		s := imagestore.New(fsys, nil)
		b := noise(t, 3, 1)
		put(t, s, "a", b)
		refused := false
		fsys.FailIf(func(op faultfs.Op) error {
			if op.Name == "remove" && op.Path == "a" {
				refused = true
				return afero.WriteFile(base, "a/image.png", b, 0o666)
			}
			if op.Name == "open" && op.Path == "a" && refused {
				refused = false
				must(t, base.Remove("a/image.png"))
				if rmdir {
					must(t, base.Remove("a"))
				}
			}
			return nil
		})
		must(t, s.Delete(t.Context(), "a"))
	}
	// And have it remove the directory before Delete comes to it.
	base := onDisk(t)
	fsys := faultfs.New(base)
	s := imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 3, 1))
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "open" && op.Path == "a" {
			base.Remove("a")
		}
		return nil
	})
	must(t, s.Delete(t.Context(), "a"))
}

// TestFailedRename must not leave a directory behind for every id that was
// tried, nor go on for ever when the staged file has gone.
func TestFailedRename(t *testing.T) {
	for _, swept := range []bool{false, true} {
		base := onDisk(t)
		fsys := faultfs.New(base)
		s := imagestore.New(fsys, nil)
		fsys.FailIf(func(op faultfs.Op) error {
			switch {
			case op.Name == "rename" && swept:
				return base.Remove(op.Path)
			case op.Name == "rename":
				return syscall.EIO
			}
			return nil
		})
		if _, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 3, 1))); err == nil {
			t.Error("Put succeeds")
		}
		if left := files(t, base); !slices.Equal(left, []string{".staging"}) {
			t.Errorf("what is left is %v", left)
		}
		if n := len(fsys.Trace()); n > 25 {
			t.Errorf("it took %d operations", n)
		}
	}
}

// vagueFs does not say why Mkdir fails, as SFTP does not.
type vagueFs struct{ afero.Fs }

func (v vagueFs) Mkdir(name string, perm os.FileMode) error {
	if v.Fs.Mkdir(name, perm) != nil {
		return errors.New("failure")
	}
	return nil
}

// TestVagueMkdir puts an image where there is a directory already.
func TestVagueMkdir(t *testing.T) {
	fsys := onDisk(t)
	must(t, fsys.Mkdir("a", 0o777))
	s := imagestore.New(vagueFs{fsys}, nil)
	b := noise(t, 3, 1)
	put(t, s, "a", b)
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
		t.Error("the image is not there")
	}
	must(t, afero.WriteFile(fsys, "file", nil, 0o666))
	if _, err := s.Put(t.Context(), "file", bytes.NewReader(b)); err == nil {
		t.Error("an image is put into a file")
	}
}

// TestBadEntry has one entry that cannot be read among images that can.
func TestBadEntry(t *testing.T) {
	base := onDisk(t)
	fsys := faultfs.New(base)
	s := imagestore.New(fsys, nil)
	for _, id := range []string{"a", "b", "c"} {
		put(t, s, id, noise(t, 3, 1))
	}
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Path == "b/image.png" {
			return syscall.EIO
		}
		return nil
	})
	var good, bad []string
	for info, err := range s.All(t.Context()) {
		if err != nil {
			wantError(t, err, syscall.EIO, "list", "b")
			bad = append(bad, info.ID)
		} else {
			good = append(good, info.ID)
		}
	}
	slices.Sort(good)
	if !slices.Equal(good, []string{"a", "c"}) || !slices.Equal(bad, []string{"b"}) {
		t.Errorf("All yields %v and errors about %v", good, bad)
	}
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Path == "." {
			return syscall.EIO
		}
		return nil
	})
	for info, err := range s.All(t.Context()) {
		if info.ID != "" {
			t.Errorf("without its root the store has %+v", info)
		}
		wantError(t, err, syscall.EIO, "list", "")
	}
}

func TestErrorText(t *testing.T) {
	s := imagestore.New(onDisk(t), nil)
	_, err := s.Get(t.Context(), "none")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the cause is lost: %v", err)
	}
	if !strings.HasPrefix(err.Error(), `imagestore: get "none": no such image: `) {
		t.Errorf("the error reads %v", err)
	}
	_, err = s.Put(t.Context(), "a", io.MultiReader())
	if want := `imagestore: put "a": not a PNG: `; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error reads %q, not %q and so on", err, want)
	}
}

func TestErrorForCode(t *testing.T) {
	for _, err := range []error{
		imagestore.ErrInvalidID, imagestore.ErrBadRequest, imagestore.ErrNotFound, imagestore.ErrPrecondition, imagestore.ErrTooLarge, imagestore.ErrNotPNG,
		imagestore.ErrBroken, imagestore.ErrReadOnly, imagestore.ErrNoSpace, imagestore.ErrBusy, imagestore.ErrInternal,
	} {
		found := false
		for _, code := range []string{"invalid_id", "bad_request", "not_found", "precondition_failed", "too_large", "not_png", "broken_png", "read_only", "no_space", "busy", "internal"} {
			found = found || imagestore.ErrorForCode(code) == err
		}
		if !found {
			t.Errorf("%v has none of the codes that are promised", err)
		}
	}
	if err := imagestore.ErrorForCode("nonsense"); err != nil {
		t.Errorf("the code nonsense means %v", err)
	}
}

func TestSweep(t *testing.T) {
	for _, f := range filesystems {
		if strings.HasPrefix(f.name, "CopyOnWrite") {
			continue // they keep the times of directories to themselves
		}
		t.Run(f.name, func(t *testing.T) {
			fsys := f.new(t)
			s := imagestore.New(fsys, nil)
			if n, err := s.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
				t.Errorf("in an empty store Sweep removes %d, %v", n, err)
			}
			put(t, s, "image", noise(t, 3, 1))
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
				t.Errorf("Sweep removes %d and leaves %v, not %v", n, after, want)
			}
		})
	}
}

// TestSweepMeanwhile sweeps all the time while images come and go in another
// process, which is what a second Store is as good as.
func TestSweepMeanwhile(t *testing.T) {
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
			// Directories are taken away however young they are; staged files not.
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
	b := noise(t, 3, 1)
	for range 300 {
		for i := range 3 {
			id := fmt.Sprint("i", i)
			put(t, s, id, b)
			if _, got := get(t, s, id); !bytes.Equal(got, b) {
				t.Error("an image is swept away")
			}
			must(t, s.Delete(t.Context(), id))
		}
	}
	close(done)
	sweeping.Wait()
}

// TestWaitingEnds has changes wait for another one of the same image, until
// their contexts end.
func TestWaitingEnds(t *testing.T) {
	fsys := faultfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	b := noise(t, 3, 1)
	info := put(t, s, "a", b)
	inRename, goOn := make(chan struct{}), make(chan struct{})
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "rename" && op.To == "a/image.png" {
			close(inRename)
			<-goOn
		}
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() { put(t, s, "a", noise(t, 3, 2)) })
	<-inRename
	for name, change := range map[string]func(ctx context.Context) error{
		"put":    func(ctx context.Context) error { _, err := s.Put(ctx, "a", bytes.NewReader(b)); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, "a") },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		wantError(t, change(ctx), context.DeadlineExceeded, name, "a")
		cancel()
	}
	// Readers and other images do not wait.
	if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
		t.Error("a reader does not see the old image")
	}
	wantError(t, s.Delete(t.Context(), "b"), imagestore.ErrNotFound, "delete", "b")
	close(goOn)
	first.Wait()
}

// TestCanceledLate has a context end when the upload is complete and only the
// rename is missing.
func TestCanceledLate(t *testing.T) {
	fsys := faultfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", noise(t, 3, 1))
	ctx, cancel := context.WithCancel(t.Context())
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "file.sync" {
			cancel()
		}
		return nil
	})
	_, err := s.Put(ctx, "a", bytes.NewReader(noise(t, 3, 2)))
	wantError(t, err, context.Canceled, "put", "a")
	if got, _ := get(t, s, "a"); got != info {
		t.Error("the image was replaced all the same")
	}
}

// TestDeep has an image whose checksums are right over pixels that are not.
func TestDeep(t *testing.T) {
	b := noise(t, 30, 1)
	i := bytes.Index(b, []byte("IDAT"))
	n := int(binary.BigEndian.Uint32(b[i-4:]))
	bad := bytes.Clone(b)
	bad[i+4+n-1] ^= 1 // of zlib's own checksum
	binary.BigEndian.PutUint32(bad[i+4+n:], crc32.ChecksumIEEE(bad[i:i+4+n]))

	fsys := onDisk(t)
	shallow, deep := imagestore.New(fsys, nil), imagestore.New(fsys, &imagestore.Options{Deep: true})
	put(t, deep, "good", b)
	put(t, shallow, "bad", bad)
	_, err := deep.Put(t.Context(), "bad2", bytes.NewReader(bad))
	wantError(t, err, imagestore.ErrBroken, "put", "bad2")
	for _, s := range []*imagestore.Store{shallow, deep} {
		must(t, s.Verify(t.Context(), "good"))
	}
	must(t, shallow.Verify(t.Context(), "bad"))
	wantError(t, deep.Verify(t.Context(), "bad"), imagestore.ErrBroken, "verify", "bad")
	wantError(t, deep.Verify(t.Context(), "none"), imagestore.ErrNotFound, "verify", "none")
	wantError(t, deep.Verify(t.Context(), ".."), imagestore.ErrInvalidID, "verify", "..")

	// Uploads that break off leave nothing running.
	before := runtime.NumGoroutine()
	for range 20 {
		half := io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(io.ErrClosedPipe))
		_, err := deep.Put(t.Context(), "half", half)
		wantError(t, err, io.ErrClosedPipe, "put", "half")
		must(t, afero.WriteFile(fsys, "good/image.png", b[:len(b)/2], 0o666))
		wantError(t, deep.Verify(t.Context(), "good"), imagestore.ErrBroken, "verify", "good")
	}
	if after := runtime.NumGoroutine(); after >= before+20 {
		t.Errorf("there were %d goroutines, now there are %d", before, after)
	}
}
