package imagestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// mount mounts a filesystem below a new directory, unless that is not enabled.
func mount(t *testing.T, source, fstype string, flags uintptr) (mnt string) {
	t.Helper()
	if os.Getenv("IMAGESTORE_MOUNT") != "1" {
		t.Skip("mounts a filesystem: set IMAGESTORE_MOUNT=1, as root, to run it")
	}
	mnt = t.TempDir()
	if err := syscall.Mount(source, mnt, fstype, flags, ""); errors.Is(err, syscall.EPERM) {
		t.Skip("this user may not mount a filesystem")
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(mnt, syscall.MNT_DETACH) }) // unless the test has
	return mnt
}

// TestReadOnlyMount opens a directory on a filesystem that is read-only. Images can
// be read, and a change is refused as such.
func TestReadOnlyMount(t *testing.T) {
	t.Parallel()
	mnt := mount(t, "tmpfs", "tmpfs", 0)
	b := testimage.PNG(t, 3, 1)
	s, err := imagestore.OpenDir(mnt, nil)
	must(t, err)
	info := put(t, s, "a", b)
	for _, staging := range []bool{true, false} {
		if !staging {
			must(t, syscall.Mount("", mnt, "", syscall.MS_REMOUNT, ""))
			must(t, os.Remove(filepath.Join(mnt, ".staging")))
		}
		must(t, syscall.Mount("", mnt, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		s, err := imagestore.OpenDir(mnt, nil)
		must(t, err)
		if got, gotB := get(t, s, "a"); got != info || !bytes.Equal(gotB, b) {
			t.Errorf("got %+v, want %+v", got, info)
		}
		_, err = s.Get(t.Context(), "none")
		wantError(t, err, imagestore.ErrNotFound, "get", "none")
		_, err = s.Put(t.Context(), "a", bytes.NewReader(b))
		wantError(t, err, imagestore.ErrReadOnly, "put", "a")
		wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
		if _, err := s.Sweep(t.Context(), 0); err != nil {
			t.Errorf("got %v from Sweep, want nil", err)
		}
		if _, err := imagestore.OpenDir(filepath.Join(mnt, "missing"), nil); !errors.Is(err, syscall.EROFS) {
			t.Errorf("missing directory: got %v from OpenDir, want %v", err, syscall.EROFS)
		}
	}
}

// TestUnmounted unmounts the filesystem of a store and mounts it again.
func TestUnmounted(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	mnt := mount(t, disk, "", syscall.MS_BIND)
	s, err := imagestore.OpenDir(mnt, nil)
	must(t, err)
	b := testimage.PNG(t, 3, 1)
	put(t, s, "a", b)
	put(t, s, "b", b)
	must(t, syscall.Unmount(mnt, 0))
	wantGone(t, s, mnt)
	must(t, syscall.Mount(disk, mnt, "", syscall.MS_BIND, ""))
	if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
		t.Error("got another image, want what was put")
	}
	put(t, s, "c", b)
}

// TestNoPermission opens a directory that the user may not write to.
func TestNoPermission(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	must(t, errors.Join(os.Chmod(filepath.Dir(root), 0o755), os.Chmod(root, 0o555)))
	err := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so that the thread ends
		if os.Geteuid() == 0 { // which may write everywhere
			if _, _, errno := syscall.RawSyscall(syscall.SYS_SETFSUID, 65534, 0, 0); errno != 0 {
				err <- errno
				return
			}
		}
		_, openErr := imagestore.OpenDir(root, nil)
		err <- openErr
	}()
	if err := <-err; !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "give this user the permission to write to it") {
		t.Errorf("got %v, want %v and what to do", err, syscall.EACCES)
	}
	if left := files(t, afero.NewBasePathFs(afero.NewOsFs(), root)); len(left) > 0 {
		t.Errorf("got files %v, want none", left)
	}
}

// TestExtremeTimesOnTmpfs has images with times that an int64 of nanoseconds cannot
// hold, and os.Chtimes cannot set.
func TestExtremeTimesOnTmpfs(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/dev/shm", "")
	if err != nil {
		t.Skipf("needs a tmpfs: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	testExtremeTimes(t, afero.NewBasePathFs(afero.NewOsFs(), dir), func(name string, at time.Time) {
		name = filepath.Join(dir, name)
		date := fmt.Sprintf("@%d.%09d", at.Unix(), at.Nanosecond())
		if at.Unix() < 0 && at.Nanosecond() > 0 { // touch takes a decimal fraction
			date = fmt.Sprintf("@%d.%09d", at.Unix()+1, 1e9-at.Nanosecond())
		}
		if out, err := exec.Command("touch", "-d", date, name).CombinedOutput(); err != nil {
			t.Errorf("touch -d %s: got %v, want nil\n%s", date, err, out)
		}
		if fi, err := os.Stat(name); err != nil || !fi.ModTime().Equal(at) {
			t.Errorf("touch -d %s: got %v, %v, want that time", date, fi.ModTime(), err)
		}
	})
}
