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
	"github.com/ba692904/imagestore/internal/faultfs"
	"github.com/spf13/afero"
)

// changes are the ways to change an image, each on a store that holds the
// image "a" or, where that is nil, nothing.
var changes = []struct {
	name   string
	old    bool
	change func(t *testing.T, s *imagestore.Store, b []byte, etag string) error
	gone   bool // afterwards
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

// TestEveryOperationFails has the first, the second, … operation of each kind
// of change fail, in each way that operations fail.
func TestEveryOperationFails(t *testing.T) {
	old, replaced := noise(t, 20, 1), noise(t, 300, 2)
	for _, c := range changes {
		for _, fault := range []faultfs.Fault{
			{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: syscall.EPERM}, {Err: syscall.EROFS}, {Err: syscall.ENOSPC, Short: true},
		} {
			n := 1
			for ; ; n++ {
				base := onDisk(t)
				fsys := faultfs.New(base)
				s := imagestore.New(fsys, nil)
				etag := ""
				if c.old {
					etag = put(t, s, "a", old).ETag
				}
				fsys.ResetTrace()
				fsys.FailAt(n, fault)
				err := c.change(t, s, replaced, etag)
				if !fsys.Fired() {
					if err != nil {
						t.Errorf("%s: with nothing failing: %v", c.name, err)
					}
					break
				}
				failed := fsys.Trace()[n-1]
				fail := func(format string, args ...any) {
					t.Helper()
					t.Errorf("%s, %v at operation %d, %v: %s", c.name, fault, n, failed, fmt.Sprintf(format, args...))
				}
				if !errors.Is(err, fault.Err) {
					fail("the error is %v", err)
				}
				// What is there now, to somebody with a working disk?
				img, getErr := afero.ReadFile(base, "a/image.png")
				was := errors.Is(getErr, fs.ErrNotExist) && !c.old || c.old && bytes.Equal(img, old)
				is := errors.Is(getErr, fs.ErrNotExist) && c.gone || !c.gone && bytes.Equal(img, replaced)
				if !was && !is {
					fail("there are now %d bytes, %v", len(img), getErr)
				}
				if said := strings.Contains(err.Error(), "in place") || strings.Contains(err.Error(), "gone"); is && !said && failed.Name != "stat" {
					fail("the change was made, and the error does not say so: %v", err)
				}
				if left, err := afero.ReadDir(base, ".staging"); err == nil && len(left) > 0 {
					fail("%s is left in the staging directory", left[0].Name())
				}
				if open := fsys.OpenFiles(); len(open) > 0 {
					fail("%v are left open", open)
				}
				if twice := fsys.DoubleCloses(); len(twice) > 0 {
					fail("%v are closed twice", twice)
				}
				if _, err := s.Put(t.Context(), "a", bytes.NewReader(old)); err != nil {
					fail("the next Put fails: %v", err)
				}
				if _, b := get(t, s, "a"); !bytes.Equal(b, old) {
					fail("the next Put does not take effect")
				}
			}
			if n < 4 {
				t.Errorf("%s: there are only %d operations to fail", c.name, n-1)
			}
		}
	}
}

// TestTrace pins what each kind of change does to the filesystem, so that
// nothing is added or lost unnoticed. What it does to the root is apart: that
// goes on while the image's directory is synced.
func TestTrace(t *testing.T) {
	stage := []string{"openfile .staging/*", "file.write .staging/*", "stat a/image.png"}
	seal := []string{"chtimes .staging/*", "stat .staging/*", "file.sync .staging/*", "file.close .staging/*", "stat .staging/*"}
	create := []string{"mkdir a", "rename .staging/* a/image.png"}
	syncs := []string{"open a", "file.sync a", "file.close a"}
	deletion := []string{"stat a/image.png", "remove a/image.png", "stat a/image.png", "open a", "file.readdirnames a", "file.close a", "remove a", "open a"}
	want := map[string][]string{
		"put new":           slices.Concat(stage, seal, create, syncs),
		"put new, IfAbsent": slices.Concat([]string{"stat a/image.png"}, stage, seal, create, syncs),
		"replace":           slices.Concat(stage, seal, create[1:], syncs),
		"replace, IfMatch":  slices.Concat([]string{"stat a/image.png"}, stage, seal, create[1:], syncs),
		"delete":            deletion,
		"delete, IfMatch":   deletion,
	}
	wantOfRoot := []string{"open .", "file.sync .", "file.close ."}
	for _, c := range changes {
		fsys := faultfs.New(onDisk(t))
		s := imagestore.New(fsys, nil)
		put(t, s, "other", noise(t, 1, 1)) // makes the staging directory
		etag := ""
		if c.old {
			etag = put(t, s, "a", noise(t, 1, 1)).ETag
		}
		fsys.ResetTrace()
		if err := c.change(t, s, noise(t, 1, 2), etag); err != nil {
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
			t.Errorf("%s does\n\t%s\nand to the root %q, and not\n\t%s", c.name, strings.Join(got, "\n\t"), ofRoot, strings.Join(want[c.name], "\n\t"))
		}
	}
}

// TestSyncsAtOnce has the Sync of each of the two directories wait for that of
// the other to begin: one after the other, they would wait for ever.
func TestSyncsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := faultfs.New(afero.NewMemMapFs())
		begun := map[string]chan struct{}{".": make(chan struct{}), "a": make(chan struct{})}
		fsys.FailIf(func(op faultfs.Op) error {
			if op.Name == "file.sync" && begun[op.Path] != nil {
				close(begun[op.Path])
				for _, other := range begun {
					<-other
				}
			}
			return nil
		})
		put(t, imagestore.New(fsys, nil), "a", noise(t, 1, 1))
	})
}

// TestEveryDirectoryOperationFails fails by name what TestEveryOperationFails
// meets in one order or the other.
func TestEveryDirectoryOperationFails(t *testing.T) {
	for _, dir := range []string{".", "a"} {
		for _, name := range []string{"open", "file.sync", "file.close"} {
			fsys := faultfs.New(onDisk(t))
			s := imagestore.New(fsys, nil)
			fsys.FailIf(func(op faultfs.Op) error {
				if op.Name == name && op.Path == dir {
					return syscall.EIO
				}
				return nil
			})
			_, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 1, 1)))
			if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "in place") {
				t.Errorf("when %s %s fails, Put returns %v", name, dir, err)
			}
			if open := fsys.OpenFiles(); len(open) > 0 {
				t.Errorf("when %s %s fails, %v are left open", name, dir, open)
			}
		}
	}
}

// TestSyncPanics has a filesystem panic. Whoever called the Store must be able
// to recover, as net/http does, wherever that happens.
func TestSyncPanics(t *testing.T) {
	for _, dir := range []string{".", "a"} {
		fsys := faultfs.New(onDisk(t))
		s := imagestore.New(fsys, nil)
		fsys.FailIf(func(op faultfs.Op) error {
			if op.Name == "file.sync" && op.Path == dir {
				panic("of " + dir)
			}
			return nil
		})
		got := func() (got any) {
			defer func() { got = recover() }()
			put(t, s, "a", noise(t, 1, 1))
			return nil
		}()
		if got != "of "+dir {
			t.Errorf("a panic while %s is synced comes as %v", dir, got)
		}
		fsys.FailIf(nil)
		put(t, s, "a", noise(t, 1, 2)) // the id is not locked for ever
	}
}

// TestPowerCut cuts the power after every operation of a series of changes.
func TestPowerCut(t *testing.T) {
	if bad := powerCut(t, func(c *crashfs.Fs) afero.Fs { return c }); bad != "" {
		t.Error(bad)
	}
}

// TestPowerCutNotices proves that TestPowerCut can fail: it makes the mistakes
// that a commit path can make and demands that they are noticed.
func TestPowerCutNotices(t *testing.T) {
	noSync := func(when func(path string) bool) func(*crashfs.Fs) afero.Fs {
		return func(c *crashfs.Fs) afero.Fs {
			fsys := faultfs.New(c)
			fsys.Drop(func(op faultfs.Op) bool { return op.Name == "file.sync" && when(op.Path) })
			return fsys
		}
	}
	for name, mistake := range map[string]func(*crashfs.Fs) afero.Fs{
		"no Sync of the file":              noSync(func(path string) bool { return strings.HasPrefix(path, ".staging/") }),
		"no Sync of the image's directory": noSync(func(path string) bool { return !strings.HasPrefix(path, ".") }),
		"no Sync of the root":              noSync(func(path string) bool { return path == "." }),
		"no Sync after Delete": func(c *crashfs.Fs) afero.Fs {
			fsys := faultfs.New(c)
			var deleting atomic.Bool
			fsys.FailIf(func(op faultfs.Op) error {
				switch op.Name {
				case "remove":
					deleting.Store(true)
				case "openfile":
					deleting.Store(false)
				}
				return nil
			})
			fsys.Drop(func(op faultfs.Op) bool { return op.Name == "file.sync" && deleting.Load() })
			return fsys
		},
		"Sync after Rename": func(c *crashfs.Fs) afero.Fs {
			return lateSync{noSync(func(p string) bool { return strings.HasPrefix(p, ".staging/") })(c)}
		},
		"writing in place": func(c *crashfs.Fs) afero.Fs { return inPlace{c} },
	} {
		if powerCut(t, mistake) == "" {
			t.Errorf("nobody notices: %s", name)
		}
	}
}

// lateSync syncs a file only when it has its final name.
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

// inPlace writes to the final name instead of renaming.
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

// powerCut runs a series of changes and returns the first way in which what a
// power cut leaves is not what was acknowledged.
func powerCut(t *testing.T, wrap func(*crashfs.Fs) afero.Fs) (bad string) {
	t.Helper()
	disk := crashfs.New()
	s := imagestore.New(wrap(disk), nil)
	acked := make(map[string]string) // what the store has promised to keep
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
	small, large := string(noise(t, 2, 1)), string(noise(t, 300, 2))
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

// compare looks at what is left through a new Store.
func compare(t *testing.T, survivor afero.Fs, acked map[string]string, id, next string) string {
	t.Helper()
	s := imagestore.New(survivor, nil)
	got := make(map[string]string)
	for info, err := range s.All(t.Context()) {
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
		return fmt.Sprintf("there is %v", sizes)
	}
	if _, err := s.Put(t.Context(), id, strings.NewReader(string(noise(t, 1, 1)))); err != nil {
		return fmt.Sprintf("Put does not work any more: %v", err)
	}
	if err := s.Delete(t.Context(), id); err != nil {
		return fmt.Sprintf("Delete does not work any more: %v", err)
	}
	return ""
}
