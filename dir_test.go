package imagestore_test

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// TestLayout pins the paths that other programs rely on.
func TestLayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil)
	b := testimage.PNG(t, 300, 1)
	put(t, s, "TestPost", b)
	if got, err := os.ReadFile(dir + "/TestPost/image"); err != nil || !bytes.Equal(got, b) {
		t.Errorf("got a file of %d bytes, %v, want %d", len(got), err, len(b))
	}
	// A file that was put there by hand is an image. The others are not.
	must(t, os.Mkdir(dir+"/by-hand", 0o777))
	must(t, os.WriteFile(dir+"/by-hand/image", []byte("anything"), 0o666))
	must(t, os.WriteFile(dir+"/file", nil, 0o666))
	must(t, os.Mkdir(dir+"/no image", 0o777))
	must(t, os.MkdirAll(dir+"/dir/image", 0o777))
	must(t, os.WriteFile(dir+"/.staging/image", b, 0o666))
	if _, got := get(t, s, "by-hand"); string(got) != "anything" {
		t.Errorf("file put there by hand: got %q, want %q", got, "anything")
	}
	for _, id := range []string{"file", "dir"} {
		_, err := s.Get(t.Context(), id)
		wantError(t, err, imagestore.ErrNotFound, "get", id)
		_, err = s.Stat(t.Context(), id)
		wantError(t, err, imagestore.ErrNotFound, "stat", id)
		wantError(t, s.Delete(t.Context(), id), imagestore.ErrNotFound, "delete", id)
	}
	var ids []string
	for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		must(t, err)
		ids = append(ids, info.ID)
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"TestPost", "by-hand"}) {
		t.Errorf("got ids %v, want TestPost, by-hand", ids)
	}
	// Delete keeps files that are not the store's.
	must(t, os.WriteFile(dir+"/by-hand/notes.txt", nil, 0o666))
	must(t, s.Delete(t.Context(), "by-hand"))
	must(t, s.Delete(t.Context(), "TestPost"))
	if got := files(t, afero.NewBasePathFs(afero.NewOsFs(), dir)); !slices.Contains(got, "by-hand/notes.txt") || slices.Contains(got, "by-hand/image") || slices.Contains(got, "TestPost") {
		t.Errorf("after Delete: got files %v, want by-hand/notes.txt kept and the images gone", got)
	}
}

func TestReadOnly(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	b := testimage.PNG(t, 3, 1)
	info := put(t, imagestore.New(fsys, nil), "a", b)
	s := imagestore.New(afero.NewReadOnlyFs(fsys), nil)
	if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
		t.Errorf("got %+v, %d bytes, want %+v, %d bytes", got, len(gotB), info, len(b))
	}
	for _, id := range []string{"a", "b"} {
		_, err := s.Put(t.Context(), id, bytes.NewReader(b))
		wantError(t, err, imagestore.ErrReadOnly, "put", id)
		wantError(t, err, syscall.EPERM, "put", id)
	}
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
}

// TestCopyOnWrite has an image in the base layer. Put must cover it, and Delete
// cannot remove it.
func TestCopyOnWrite(t *testing.T) {
	t.Parallel()
	for name, layer := range map[string]func(testing.TB) afero.Fs{
		"disk":   onDisk,
		"memory": func(testing.TB) afero.Fs { return afero.NewMemMapFs() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := onDisk(t)
			old, replaced := testimage.PNG(t, 3, 1), testimage.PNG(t, 3, 2)
			baseStore := imagestore.New(base, nil)
			info := put(t, baseStore, "a", old)
			s := imagestore.New(afero.NewCopyOnWriteFs(base, layer(t)), nil)
			wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
			if name == "disk" { // the upper layer needs the directory
				fsys := errorfs.New(afero.NewCopyOnWriteFs(base, layer(t)))
				fsys.FailIf(func(op errorfs.Op) error {
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
				t.Error("got the image of the base layer, want the new one")
			}
			if got, b := get(t, baseStore, "a"); got != info || !bytes.Equal(b, old) {
				t.Error("got another image in the base layer, want the old one")
			}
			var ids []string
			for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
				must(t, err)
				ids = append(ids, info.ID)
			}
			slices.Sort(ids)
			if !slices.Equal(ids, []string{"a", "b"}) {
				t.Errorf("got ids %v, want a, b", ids)
			}
			must(t, s.Delete(t.Context(), "b"))
			// The image of the base layer would be visible again, so Delete fails.
			wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
		})
	}
}

// TestNoSync checks that a Store syncs nothing with NoSync, and something without.
func TestNoSync(t *testing.T) {
	t.Parallel()
	for _, noSync := range []bool{false, true} {
		fsys := errorfs.New(onDisk(t))
		s := imagestore.New(fsys, &imagestore.Options{NoSync: noSync})
		put(t, s, "a", testimage.PNG(t, 3, 1))
		must(t, s.Delete(t.Context(), "a"))
		syncs := 0
		for _, op := range fsys.Trace() {
			if op.Name == "file.sync" {
				syncs++
			}
		}
		if (syncs == 0) != noSync {
			t.Errorf("NoSync %v: got %d syncs", noSync, syncs)
		}
	}
}

// TestDirectorySyncUnsupported checks that a filesystem may not support syncing
// directories, but that a failed sync is an error.
func TestDirectorySyncUnsupported(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err error
		ok  bool
	}{
		{errors.ErrUnsupported, true}, {syscall.ENOTSUP, true}, {syscall.EINVAL, true}, {syscall.ENOSYS, true},
		{syscall.EIO, false}, {syscall.ENOSPC, false}, {syscall.EBADF, false},
	} {
		for _, dirs := range []string{". a", ".", "a"} { // those that fail
			fsys := errorfs.New(onDisk(t))
			s := imagestore.New(fsys, nil)
			put(t, s, "b", testimage.PNG(t, 3, 1))
			fsys.FailIf(func(op errorfs.Op) error {
				if op.Name == "file.sync" && slices.Contains(strings.Fields(dirs), op.Path) {
					return test.err
				}
				return nil
			})
			b := testimage.PNG(t, 3, 2)
			_, err := s.Put(t.Context(), "a", bytes.NewReader(b))
			if test.ok != (err == nil) || !test.ok && !errors.Is(err, test.err) {
				t.Errorf("Sync of %s fails with %v: got %v from Put, want success: %v", dirs, test.err, err, test.ok)
			}
			if !test.ok && !errors.Is(err, imagestore.ErrNotDurable) {
				t.Errorf("got %v, want %v", err, imagestore.ErrNotDurable)
			}
			if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
				t.Error("got another image, want the new one")
			}
			ok := test.ok || dirs == "a" // deleting b does not sync a
			if err := s.Delete(t.Context(), "b"); ok != (err == nil) {
				t.Errorf("Sync of %s fails with %v: got %v from Delete, want success: %v", dirs, test.err, err, ok)
			}
		}
	}
}

// vagueFs hides the reason why Mkdir fails, as SFTP does.
type vagueFs struct{ afero.Fs }

func (v vagueFs) Mkdir(name string, perm os.FileMode) error {
	if v.Fs.Mkdir(name, perm) != nil {
		return errors.New("failure")
	}
	return nil
}

// TestVagueMkdir puts an image where there is a directory already.
func TestVagueMkdir(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	must(t, fsys.Mkdir("a", 0o777))
	s := imagestore.New(vagueFs{fsys}, nil)
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
		t.Error("got another image, want the one that was put")
	}
	must(t, afero.WriteFile(fsys, "file", nil, 0o666))
	if _, err := s.Put(t.Context(), "file", bytes.NewReader(b)); err == nil {
		t.Error("got no error from Put below a file, want one")
	}
}

// TestOldImage reads an image with a time from 1970, as some archives have.
func TestOldImage(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	must(t, fsys.Chtimes("a/image", time.Unix(0, 0), time.Unix(0, 0)))
	want, err := s.Stat(t.Context(), "a")
	must(t, err)
	if got, err := newClient(t, serve(t, s, nil).URL).Stat(t.Context(), "a"); err != nil || got != want {
		t.Errorf("Client: got %+v, %v, want %+v", got, err, want)
	}
}
