package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/ba692904/imagestore"
)

// needsMount skips a test that mounts a filesystem, unless it is enabled.
func needsMount(t *testing.T) {
	t.Helper()
	if os.Getenv("IMAGESTORE_MOUNT") != "1" {
		t.Skip("mounts a filesystem: set IMAGESTORE_MOUNT=1, as root, to run it")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a filesystem")
	}
}

// TestFull fills a filesystem with bytes or with files, so that there is no room for
// an image's directory or for an upload.
func TestFull(t *testing.T) {
	t.Parallel()
	needsMount(t)
	for _, size := range []string{"size=2m", "nr_inodes=40", "nr_inodes=41"} {
		t.Run(size, func(t *testing.T) {
			mnt := t.TempDir()
			if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, size); errors.Is(err, syscall.EPERM) {
				t.Skip("this root may not mount a filesystem")
			} else if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // after the server has ended
				if err := syscall.Unmount(mnt, syscall.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			full(t, mnt)
		})
	}
}

func full(t *testing.T, mnt string) {
	dir := filepath.Join(mnt, "images")
	s := start(t, "-dir", dir)
	c := connect(t, s)
	stored := make(map[string][]byte)
	// check checks that exactly the stored images are there.
	check := func() {
		t.Helper()
		for id, b := range stored {
			if got, info, err := fetch(t.Context(), c, id); err != nil || got != sha256.Sum256(b) {
				t.Errorf("%q: got %+v, %v, want what was stored", id, info, err)
			}
		}
		n := 0
		for info, err := range c.List(t.Context(), imagestore.ListOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; stored[info.ID] == nil {
				t.Errorf("got %q in the list, want nothing that was refused", info.ID)
			}
		}
		if n != len(stored) {
			t.Errorf("got %d images, want %d", n, len(stored))
		}
		noneStaged(t, dir)
	}
	refused := func(id string, n uint64) {
		t.Helper()
		status, text := do(t, http.MethodPut, s.url+"/images/"+id, bytes.NewReader(picture(n)))
		if status != http.StatusInsufficientStorage || !strings.Contains(text, `"code":"no_space"`) {
			t.Errorf("%q: got %d %s, want 507 no_space", id, status, text)
		}
		if _, err := c.Put(t.Context(), id, bytes.NewReader(picture(n))); !errors.Is(err, imagestore.ErrNoSpace) {
			t.Errorf("%q: got %v, want %v", id, err, imagestore.ErrNoSpace)
		}
	}

	n := uint64(0)
	for ; ; n++ {
		id, b := fmt.Sprintf("i%d", n), picture(n)
		_, err := c.Put(t.Context(), id, bytes.NewReader(b))
		if errors.Is(err, imagestore.ErrNoSpace) {
			break
		}
		if err != nil || n == 1000 {
			t.Fatalf("after %d images: %v", n, err)
		}
		stored[id] = b
	}
	t.Logf("%d images fit", n)
	if n < 3 {
		t.Fatalf("got room for %d images, want at least 3", n)
	}
	check()
	if _, err := os.Stat(filepath.Join(dir, fmt.Sprintf("i%d", n))); !os.IsNotExist(err) {
		t.Errorf("directory of a refused image: got %v, want no such file", err)
	}

	// Other files fill the rest, which is too small for an image.
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(mnt, fmt.Sprint("other", i)), make([]byte, 4<<10), 0o666); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	refused("new", n)
	refused("i0", n)
	check()
	for _, id := range []string{"i0", "i1"} {
		if err := c.Delete(t.Context(), id); err != nil {
			t.Errorf("delete %q on a full disk: got %v, want nil", id, err)
		}
		if _, err := os.Stat(filepath.Join(dir, id)); !os.IsNotExist(err) {
			t.Errorf("directory of %q: got %v, want no such file", id, err)
		}
		delete(stored, id)
	}
	check()
	// Now there is room for two images. One of them replaces an image.
	small := []byte(pixel(t))
	for _, id := range []string{"new", "i2"} {
		if _, err := c.Put(t.Context(), id, bytes.NewReader(small)); err != nil {
			t.Errorf("put %q with room: got %v, want nil", id, err)
		}
		stored[id] = small
	}
	check()
}

// TestPowerCut shuts down a real filesystem below a busy server, as a power cut
// would. Data that was not synced is lost.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	needsMount(t)
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			mkfs, err := exec.LookPath("mkfs." + kind)
			if err != nil {
				t.Skipf("mkfs.%s is not installed", kind)
			}
			tmp := t.TempDir()
			disk, mnt := filepath.Join(tmp, "disk"), filepath.Join(tmp, "mnt")
			command := func(name string, args ...string) (string, error) {
				out, err := exec.Command(name, args...).CombinedOutput()
				return string(out), err
			}
			if err := errors.Join(os.WriteFile(disk, nil, 0o666), os.Truncate(disk, 320<<20), os.Mkdir(mnt, 0o777)); err != nil {
				t.Fatal(err)
			}
			if out, err := command(mkfs, "-q", disk); err != nil {
				t.Fatalf("mkfs.%s: %v: %s", kind, err, out)
			}
			if out, err := command("mount", "-o", "loop", disk, mnt); err != nil {
				t.Skipf("an %s in a file cannot be mounted here: %v: %s", kind, err, out)
			}
			t.Cleanup(func() { // after the server has ended
				if out, err := command("umount", mnt); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			})
			outage{
				begin: func(*server) error { return shutDown(mnt) },
				end: func(s *server) {
					if err := s.Process.Kill(); err != nil {
						t.Error(err)
					}
					if err := s.Wait(); err == nil || s.ProcessState.Exited() {
						t.Errorf("got %v and errors %q, want an end by the signal", err, s.stderr.String())
					}
					for _, args := range [][]string{{"umount", mnt}, {"mount", "-o", "loop", disk, mnt}} {
						if out, err := command(args[0], args[1:]...); err != nil {
							t.Fatalf("%q: %v: %s", args, err, out)
						}
					}
				},
				lies: kind == "xfs", // after a shutdown, fsync of a directory still succeeds
			}.test(t, filepath.Join(mnt, "images"), 8)
		})
	}
}

// shutDown stops a filesystem from writing anything, even its journal.
func shutDown(mnt string) error {
	const (
		fsIocShutdown = 0x8004587d // ext4 uses the number of XFS
		noLogFlush    = 2
	)
	d, err := os.Open(mnt)
	if err != nil {
		return err
	}
	defer d.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.Fd(), fsIocShutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("shutting %s down: %w", mnt, errno)
	}
	return nil
}
