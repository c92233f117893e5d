package imagestore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/crashfs"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/spf13/afero"
)

// changes are the ways to change the image "a".
var changes = []struct {
	name   string
	old    bool // there is an image before
	change func(t *testing.T, s *imagestore.Store, b []byte, etag string) error
	gone   bool // there is none after
}{
	{"put new", false, func(t *testing.T, s *imagestore.Store, b []byte, _ string) error {
		_, err := s.Put(t.Context(), "a", bytes.NewReader(b))
		return err
	}, false},
	{"put new, IfAbsent", false, func(t *testing.T, s *imagestore.Store, b []byte, _ string) error {
		_, err := s.Put(t.Context(), "a", bytes.NewReader(b), imagestore.IfAbsent())
		return err
	}, false},
	{"replace", true, func(t *testing.T, s *imagestore.Store, b []byte, _ string) error {
		_, err := s.Put(t.Context(), "a", bytes.NewReader(b))
		return err
	}, false},
	{"replace, IfMatch", true, func(t *testing.T, s *imagestore.Store, b []byte, etag string) error {
		_, err := s.Put(t.Context(), "a", bytes.NewReader(b), imagestore.IfMatch(etag))
		return err
	}, false},
	{"delete", true, func(t *testing.T, s *imagestore.Store, _ []byte, _ string) error { return s.Delete(t.Context(), "a") }, true},
	{"delete, IfMatch", true, func(t *testing.T, s *imagestore.Store, _ []byte, etag string) error {
		return s.Delete(t.Context(), "a", imagestore.IfMatch(etag))
	}, true},
}

// TestEveryOperationFails makes each operation of each change fail in turn, with
// several errors. A replacement is of another format.
func TestEveryOperationFails(t *testing.T) {
	t.Parallel()
	old, replaced := testimage.PNG(t, 20, 1), testimage.GIF(t, 300, 2)
	for _, c := range changes {
		for _, fault := range []errorfs.Fault{
			{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: syscall.EPERM}, {Err: syscall.EROFS}, {Err: syscall.ENOSPC, Short: true},
		} {
			t.Run(fmt.Sprintf("%s, %v", c.name, fault), func(t *testing.T) {
				t.Parallel()
				n := 1
				for ; ; n++ {
					base := onDisk(t)
					fsys := errorfs.New(base)
					s := imagestore.New(fsys, allFormats)
					etag := ""
					if c.old {
						etag = put(t, s, "a", old).ETag
					}
					fsys.ResetTrace()
					fsys.FailAt(n, fault)
					err := c.change(t, s, replaced, etag)
					if !fsys.Fired() {
						if err != nil {
							t.Errorf("%s, no fault: got %v, want nil", c.name, err)
						}
						break
					}
					failed := fsys.Trace()[n-1]
					fail := func(format string, args ...any) {
						t.Helper()
						t.Errorf("%s, %v at operation %d, %v: %s", c.name, fault, n, failed, fmt.Sprintf(format, args...))
					}
					// An empty directory that stays is no failure of a deletion.
					tidying := c.gone && failed.Path == "a" && !slices.ContainsFunc(fsys.Trace()[:n-1], func(op errorfs.Op) bool { return op.String() == "remove a" })
					if tidying && err != nil || !tidying && !errors.Is(err, fault.Err) {
						fail("got error %v", err)
					}
					// The file must be the old image or the new one.
					img, readErr := afero.ReadFile(base, "a/image")
					was := errors.Is(readErr, fs.ErrNotExist) && !c.old || c.old && bytes.Equal(img, old)
					is := errors.Is(readErr, fs.ErrNotExist) && c.gone || !c.gone && bytes.Equal(img, replaced)
					if !was && !is {
						fail("got a file of %d bytes, %v, want the old or the new image", len(img), readErr)
					}
					if is && !tidying && !errors.Is(err, imagestore.ErrNotDurable) {
						fail("got %v after the change was made, want ErrNotDurable", err)
					}
					if left, err := afero.ReadDir(base, ".staging"); err == nil && len(left) > 0 {
						fail("got %s in the staging directory, want it empty", left[0].Name())
					}
					if open := fsys.OpenFiles(); len(open) > 0 {
						fail("got open files %v, want none", open)
					}
					if twice := fsys.DoubleCloses(); len(twice) > 0 {
						fail("got double closes of %v, want none", twice)
					}
					if _, err := s.Put(t.Context(), "a", bytes.NewReader(old)); err != nil {
						fail("next Put: got %v, want nil", err)
					}
					if _, b := get(t, s, "a"); !bytes.Equal(b, old) {
						fail("next Put: got another image, want the one that was put")
					}
				}
				if n < 4 {
					t.Errorf("%s: got %d operations, want 3 or more", c.name, n-1)
				}
			})
		}
	}
}

// TestTrace pins the operations of each change, so that none is added or lost
// unnoticed. A replacement is of another format. Operations on the root are compared separately, because they run
// while the image's directory is synced.
func TestTrace(t *testing.T) {
	t.Parallel()
	look := []string{"lstat a/image", "open a/image", "file.stat a/image", "file.read a/image", "file.seek a/image", "file.close a/image"}
	stage := []string{"openfile .staging/*", "file.write .staging/*", "lstat a/image"}
	finish := []string{"chtimes .staging/*", "stat .staging/*", "file.sync .staging/*", "file.close .staging/*", "stat .staging/*"}
	create := []string{"mkdir a", "rename .staging/* a/image"}
	syncs := []string{"open a", "file.sync a", "file.close a"}
	deletion := []string{"lstat a/image", "remove a/image", "lstat a/image", "lstat a", "open a", "file.readdirnames a", "file.close a", "remove a", "open a"}
	want := map[string][]string{
		"put new":           slices.Concat(stage, finish, create, syncs),
		"put new, IfAbsent": slices.Concat(look[:1], stage, finish, create, syncs),
		"replace":           slices.Concat(stage, finish, create[1:], syncs),
		"replace, IfMatch":  slices.Concat(look, stage, finish, create[1:], syncs),
		"delete":            deletion,
		"delete, IfMatch":   deletion,
	}
	wantOfRoot := []string{"open .", "file.sync .", "file.close ."}
	for _, c := range changes {
		fsys := errorfs.New(onDisk(t))
		s := imagestore.New(fsys, allFormats)
		put(t, s, "other", testimage.PNG(t, 1, 1)) // makes the staging directory
		etag := ""
		if c.old {
			etag = put(t, s, "a", testimage.PNG(t, 1, 1)).ETag
		}
		fsys.ResetTrace()
		if err := c.change(t, s, testimage.GIF(t, 1, 2), etag); err != nil {
			t.Error(err)
		}
		var got, ofRoot []string
		for _, op := range fsys.Trace() {
			words := strings.Fields(op.String())
			if words[1] == "." {
				ofRoot = append(ofRoot, op.String())
				continue
			}
			if strings.HasPrefix(words[1], ".staging/") {
				words[1] = ".staging/*"
			}
			got = append(got, strings.Join(words, " "))
		}
		if !slices.Equal(got, want[c.name]) || !slices.Equal(ofRoot, wantOfRoot) {
			t.Errorf("%s: got\n\t%s\nand of the root %q, want\n\t%s\nand %q", c.name, strings.Join(got, "\n\t"), ofRoot, strings.Join(want[c.name], "\n\t"), wantOfRoot)
		}
	}
}

// TestSyncsAtOnce makes the Sync of each of the two directories wait until that of
// the other has begun. One after the other, they would wait for ever.
func TestSyncsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		fsys := errorfs.New(afero.NewMemMapFs())
		begun := map[string]chan struct{}{".": make(chan struct{}), "a": make(chan struct{})}
		fsys.FailIf(func(op errorfs.Op) error {
			if op.Name == "file.sync" && begun[op.Path] != nil {
				close(begun[op.Path])
				for _, other := range begun {
					<-other
				}
			}
			return nil
		})
		put(t, imagestore.New(fsys, nil), "a", testimage.PNG(t, 1, 1))
	})
}

// TestEveryDirectoryOperationFails chooses operations by name, because the order of
// those on the two directories varies.
func TestEveryDirectoryOperationFails(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{".", "a"} {
		for _, name := range []string{"open", "file.sync", "file.close"} {
			fsys := errorfs.New(onDisk(t))
			s := imagestore.New(fsys, nil)
			fsys.FailIf(func(op errorfs.Op) error {
				if op.Name == name && op.Path == dir {
					return syscall.EIO
				}
				return nil
			})
			_, err := s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1)))
			before := name == "open" && dir == "." // the change was not made yet
			if !errors.Is(err, syscall.EIO) || errors.Is(err, imagestore.ErrNotDurable) == before {
				t.Errorf("%s %s fails: got %v, want EIO, and ErrNotDurable: %v", name, dir, err, !before)
			}
			if open := fsys.OpenFiles(); len(open) > 0 {
				t.Errorf("%s %s fails: got open files %v, want none", name, dir, open)
			}
		}
	}
}

// TestPowerCut cuts the power after every operation of a series of changes.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	if bad := powerCut(t, func(c *crashfs.Fs) afero.Fs { return c }); bad != "" {
		t.Error(bad)
	}
}

// TestPowerCutNotices checks that TestPowerCut can fail. It runs the test with
// typical mistakes of a commit.
func TestPowerCutNotices(t *testing.T) {
	t.Parallel()
	noSync := func(when func(path string) bool) func(*crashfs.Fs) afero.Fs {
		return func(c *crashfs.Fs) afero.Fs {
			fsys := errorfs.New(c)
			fsys.Drop(func(op errorfs.Op) bool { return op.Name == "file.sync" && when(op.Path) })
			return fsys
		}
	}
	for name, mistake := range map[string]func(*crashfs.Fs) afero.Fs{
		"no Sync of the file":              noSync(func(path string) bool { return strings.HasPrefix(path, ".staging/") }),
		"no Sync of the image's directory": noSync(func(path string) bool { return !strings.HasPrefix(path, ".") }),
		"no Sync of the root":              noSync(func(path string) bool { return path == "." }),
		"no Sync after Delete": func(c *crashfs.Fs) afero.Fs {
			fsys := errorfs.New(c)
			var deleting atomic.Bool
			fsys.FailIf(func(op errorfs.Op) error {
				switch op.Name {
				case "remove":
					deleting.Store(true)
				case "openfile":
					deleting.Store(false)
				}
				return nil
			})
			fsys.Drop(func(op errorfs.Op) bool { return op.Name == "file.sync" && deleting.Load() })
			return fsys
		},
		"Sync after Rename": func(c *crashfs.Fs) afero.Fs {
			return lateSync{noSync(func(p string) bool { return strings.HasPrefix(p, ".staging/") })(c)}
		},
		"writing in place": func(c *crashfs.Fs) afero.Fs { return inPlace{c} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if powerCut(t, mistake) == "" {
				t.Error("got no failure, want one")
			}
		})
	}
}

// lateSync syncs a file after it has its final name.
type lateSync struct{ afero.Fs }

func (l lateSync) Rename(from, to string) error {
	if err := l.Fs.Rename(from, to); err != nil {
		return err
	}
	f, err := l.Fs.Open(to)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// inPlace writes to the final name and does not rename.
type inPlace struct{ afero.Fs }

func (p inPlace) Rename(from, to string) error {
	b, err := afero.ReadFile(p.Fs, from)
	if err != nil {
		return err
	}
	f, err := p.Fs.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return p.Fs.Remove(from)
}

// powerCut runs a series of changes with power cuts. It returns the first
// difference between the surviving images and the acknowledged ones.
func powerCut(t *testing.T, wrap func(*crashfs.Fs) afero.Fs) (bad string) {
	t.Helper()
	disk := crashfs.New()
	s := imagestore.New(wrap(disk), allFormats)
	acked := make(map[string]string) // the images that must survive
	var id, next string              // the change under way; "" deletes
	seed := uint64(0)
	var mu sync.Mutex
	disk.After(func(op string) {
		mu.Lock()
		defer mu.Unlock()
		if bad != "" {
			return
		}
		for i := range 13 {
			var r *rand.Rand
			if i > 0 {
				seed++
				r = rand.New(rand.NewPCG(seed, 1))
			}
			survivor := disk.Crash(r)
			if text := compare(t, survivor, acked, id, next); text != "" {
				bad = fmt.Sprintf("cut after %q: %s", op, text)
				return
			}
		}
	})
	small, large := string(testimage.PNG(t, 2, 1)), string(testimage.GIF(t, 300, 2))
	for _, change := range []struct{ id, b string }{
		{"a", small}, {"a", large}, {"b", large}, {"a", ""}, {"a", small}, {"b", small}, {"b", ""}, {"c", small}, {"a", large}, {"c", ""},
	} {
		id, next = change.id, change.b
		var err error
		if next == "" {
			err = s.Delete(t.Context(), id)
		} else {
			_, err = s.Put(t.Context(), id, strings.NewReader(next))
		}
		if err != nil {
			t.Fatal(err)
		}
		if next == "" {
			delete(acked, id)
		} else {
			acked[id] = next
		}
	}
	return bad
}

// compare reads the surviving images with a new Store and returns the difference.
func compare(t *testing.T, survivor afero.Fs, acked map[string]string, id, next string) string {
	t.Helper()
	s := imagestore.New(survivor, nil)
	got := make(map[string]string)
	for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		if err != nil {
			return err.Error()
		}
		_, b := get(t, s, info.ID)
		got[info.ID] = string(b)
	}
	after := maps.Clone(acked)
	if after[id] = next; next == "" {
		delete(after, id)
	}
	if !maps.Equal(got, acked) && !maps.Equal(got, after) {
		var sizes []string
		for id, b := range got {
			sizes = append(sizes, fmt.Sprintf("%s of %d bytes", id, len(b)))
		}
		return fmt.Sprintf("got %v, want the images before or after the change", sizes)
	}
	if _, err := s.Put(t.Context(), id, strings.NewReader(string(testimage.PNG(t, 1, 1)))); err != nil {
		return fmt.Sprintf("next Put: got %v, want nil", err)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		return fmt.Sprintf("next Delete: got %v, want nil", err)
	}
	return ""
}
