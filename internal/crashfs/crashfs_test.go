package crashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/afero"
)

// TestAsOS runs random scripts here and on a real directory. Every step and the
// resulting files must be the same.
func TestAsOS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the errors are Linux errors")
	}
	scripts := 300
	if testing.Short() {
		scripts = 50
	}
	for seed := range scripts {
		ours := script(New(), seed)
		real := script(afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()), seed)
		for i := range real {
			if ours[i] != real[i] {
				t.Fatalf("seed %d differs after\n  %s\ngot  %s\nwant %s",
					seed, strings.Join(real[max(0, i-25):i], "\n  "), ours[i], real[i])
			}
		}
		if len(ours) != len(real) {
			t.Fatalf("seed %d: got %d steps, want %d", seed, len(ours), len(real))
		}
	}
}

// script runs 150 random operations and returns their results.
func script(fsys afero.Fs, seed int) (log []string) {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	name := func() string {
		return pick("a", "b", "c", "a/x", "a/b", "a/b/x", "b/x", "b/a", "a/b/c", "c/x/y", "./a", "/b", "a/../b", "a//x", "b/")
	}
	var files [4]afero.File
	for step := range 150 {
		var what, result string
		note := func(err error) { result += " " + class(err) }
		if i := r.IntN(len(files)); r.IntN(2) == 0 && files[i] != nil {
			f := files[i]
			switch op := r.IntN(11); op {
			case 0, 1:
				data := strings.Repeat(string(rune('a'+step%26)), r.IntN(9))
				what = fmt.Sprintf("%d.write %q", i, data)
				n, err := f.WriteString(data)
				result = fmt.Sprint(n)
				note(err)
			case 2:
				data, off := make([]byte, 1+r.IntN(5)), r.Int64N(20)-1
				what = fmt.Sprintf("%d.writeat %d %d", i, len(data), off)
				n, err := f.WriteAt(data, off)
				result = fmt.Sprint(n)
				note(err)
			case 3:
				buf := make([]byte, r.IntN(9))
				what = fmt.Sprintf("%d.read %d", i, len(buf))
				n, err := f.Read(buf)
				result = fmt.Sprintf("%q", buf[:n])
				note(err)
			case 4:
				buf, off := make([]byte, 1+r.IntN(9)), r.Int64N(12)-1
				what = fmt.Sprintf("%d.readat %d %d", i, len(buf), off)
				n, err := f.ReadAt(buf, off)
				result = fmt.Sprintf("%q", buf[:n])
				note(err)
			case 5:
				off, whence := r.Int64N(12)-3, r.IntN(3)
				fi, err := f.Stat()
				if err == nil && fi.IsDir() {
					off, whence = 0, io.SeekStart // other seeks of directories differ among filesystems
				}
				what = fmt.Sprintf("%d.seek %d %d", i, off, whence)
				pos, err := f.Seek(off, whence)
				result = fmt.Sprint(pos)
				note(err)
			case 6:
				size := r.Int64N(12) - 1
				what = fmt.Sprintf("%d.truncate %d", i, size)
				note(f.Truncate(size))
			case 7:
				what = fmt.Sprintf("%d.stat", i)
				fi, err := f.Stat()
				result = describe(fi)
				note(err)
			case 8:
				what = fmt.Sprintf("%d.sync", i)
				note(f.Sync())
			case 9:
				what = fmt.Sprintf("%d.list", i)
				if _, err := f.Seek(0, io.SeekStart); err == nil { // package os does not define the error of a closed one
					result = list(f, r.IntN(4)-1)
					f.Seek(0, io.SeekStart) // the offset at the end differs among filesystems
				}
			case 10:
				what = fmt.Sprintf("%d.close", i)
				note(f.Close())
			}
		} else {
			switch op := r.IntN(16); op {
			case 0, 1, 2, 3:
				flag := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR}[r.IntN(3)]
				for _, more := range []int{os.O_CREATE, os.O_CREATE, os.O_CREATE | os.O_EXCL, os.O_TRUNC, os.O_APPEND} {
					if r.IntN(4) == 0 {
						flag |= more
					}
				}
				n := name()
				what = fmt.Sprintf("%d = open %s %#x", i, n, flag)
				f, err := fsys.OpenFile(n, flag, 0o600)
				note(err)
				if err == nil {
					if files[i] != nil {
						files[i].Close()
					}
					files[i] = f
				}
			case 4:
				n := name()
				what = "create " + n
				f, err := fsys.Create(n)
				note(err)
				if err == nil {
					fsys.Chmod(n, 0o600) // overrides the umask
					note(f.Close())
				}
			case 5, 6:
				n := name()
				what = "mkdir " + n
				note(fsys.Mkdir(n, 0o700))
			case 7:
				n := name()
				what = "mkdirall " + n
				note(fsys.MkdirAll(n, 0o700))
			case 8:
				n := name()
				what = "remove " + n
				note(fsys.Remove(n))
			case 9:
				n := name()
				what = "removeall " + n
				note(fsys.RemoveAll(n))
			case 10, 11, 12:
				from, to := name(), name()
				what = "rename " + from + " " + to
				note(fsys.Rename(from, to))
			case 13:
				n := name()
				what = "stat " + n
				fi, err := fsys.Stat(n)
				result = describe(fi)
				note(err)
			case 14:
				n, year := name(), 2000+r.IntN(9)
				what = fmt.Sprint("chtimes ", n, year)
				at := time.Date(year, 1, 2, 3, 4, 5, 6, time.UTC)
				note(fsys.Chtimes(n, at, at))
				note(fsys.Chtimes(n, at, time.Time{}))
			case 15:
				n, mode := name(), []os.FileMode{0o700, 0o755, 0o711}[r.IntN(3)]
				what = fmt.Sprint("chmod ", n, mode)
				note(fsys.Chmod(n, mode))
				note(fsys.Chown(n, -1, -1))
			}
		}
		log = append(log, what+":"+result)
	}
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
	return append(log, tree(fsys)...)
}

// class returns the part of an error that callers can test.
func class(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case err == io.EOF:
		return "EOF"
	case errors.Is(err, fs.ErrClosed):
		return "closed"
	case errors.As(err, &errno):
		return fmt.Sprintf("%T %s", err, errno)
	}
	return "other"
}

func describe(fi os.FileInfo) string {
	if fi == nil {
		return "-"
	}
	s, when := fi.Mode().String(), "now"
	if fi.ModTime().Year() < 2020 {
		when = fi.ModTime().UTC().Format(time.RFC3339Nano)
	}
	if !fi.IsDir() {
		s += fmt.Sprintf(" %d", fi.Size())
	}
	return s + " " + when
}

func list(dir afero.File, n int) string {
	var all []string
	for {
		infos, err := dir.Readdir(n)
		for _, fi := range infos {
			all = append(all, fi.Name())
		}
		if n > len(infos) && err == nil && len(infos) == 0 || len(infos) > n && n > 0 {
			return "bad batch"
		}
		if n <= 0 || err != nil {
			slices.Sort(all)
			return fmt.Sprint(all, class(err))
		}
	}
}

// tree lists all files and directories, with the content of files.
func tree(fsys afero.Fs) (all []string) {
	err := afero.Walk(fsys, ".", func(name string, fi os.FileInfo, err error) error {
		if err != nil || name == "." {
			return err
		}
		s := name + " " + describe(fi)
		if !fi.IsDir() {
			data, err := afero.ReadFile(fsys, name)
			if err != nil {
				return err
			}
			s += fmt.Sprintf(" %q", data)
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		all = append(all, err.Error())
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write creates or overwrites a file, and syncs it if sync is set.
func write(t *testing.T, fsys afero.Fs, name, data string, sync bool) {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	_, err = f.WriteString(data)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, fsys afero.Fs, names ...string) {
	t.Helper()
	for _, name := range names {
		d, err := fsys.Open(name)
		must(t, err)
		must(t, d.Sync())
		must(t, d.Close())
	}
}

// found returns the content of a file, or "-" if there is none.
func found(fsys afero.Fs, name string) string {
	data, err := afero.ReadFile(fsys, name)
	if err != nil {
		return "-"
	}
	return string(data)
}

// crashes checks the contents of some files after a crash. A strict crash must
// give strict. Random crashes must give each outcome in want, and no other.
func crashes(t *testing.T, f *Fs, names, strict string, want ...string) {
	t.Helper()
	outcome := func(c *Fs) string {
		var s []string
		for name := range strings.FieldsSeq(names) {
			s = append(s, found(c, name))
		}
		return strings.Join(s, " ")
	}
	if got := outcome(f.Crash(nil)); got != strict {
		t.Errorf("%s after a strict crash: got %q, want %q", names, got, strict)
	}
	seen := map[string]bool{}
	for seed := range uint64(400) {
		c := f.Crash(rand.New(rand.NewPCG(seed, 2)))
		seen[outcome(c)] = true
		if again := f.Crash(rand.New(rand.NewPCG(seed, 2))); !slices.Equal(tree(c), tree(again)) {
			t.Fatalf("got different outcomes of seed %d, want one", seed)
		}
		if again := c.Crash(nil); !slices.Equal(tree(c), tree(again)) {
			t.Fatalf("after a second crash: got\n%q, want\n%q", tree(again), tree(c))
		}
	}
	slices.Sort(want)
	var got []string
	for s := range seen {
		got = append(got, s)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s after random crashes: got\n%q, want\n%q", names, got, want)
	}
}

func TestCrash(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, f *Fs){
		"all synced": func(t *testing.T, f *Fs) {
			must(t, f.MkdirAll("a/b", 0o700))
			write(t, f, "a/b/x", "new", true)
			syncDir(t, f, "a/b", "a", ".")
			crashes(t, f, "a/b/x", "new", "new")
		},
		"file not synced": func(t *testing.T, f *Fs) {
			write(t, f, "x", "new", false)
			syncDir(t, f, ".")
			crashes(t, f, "x", "", "", "n", "ne", "new", "n\x00\x00", "ne\x00", "\x00\x00\x00")
		},
		"directory not synced": func(t *testing.T, f *Fs) {
			write(t, f, "x", "new", true)
			crashes(t, f, "x", "-", "-", "new")
		},
		"parent not synced": func(t *testing.T, f *Fs) {
			must(t, f.Mkdir("a", 0o700))
			write(t, f, "a/x", "new", true)
			syncDir(t, f, "a")
			crashes(t, f, "a/x", "-", "-", "new")
		},
		"a directory, not its entry": func(t *testing.T, f *Fs) {
			must(t, f.MkdirAll("a", 0o700))
			write(t, f, "a/x", "new", true)
			syncDir(t, f, ".")
			if fi, err := f.Crash(nil).Stat("a"); err != nil || !fi.IsDir() {
				t.Errorf("got %v, %v for a, want a directory", fi, err)
			}
			crashes(t, f, "a/x", "-", "-", "new")
		},
		"mkdirall": func(t *testing.T, f *Fs) {
			must(t, f.MkdirAll("a/b/c", 0o700))
			syncDir(t, f, "a/b", "a")
			if got := tree(f.Crash(nil)); got != nil {
				t.Errorf("got %q, want nothing", got)
			}
			syncDir(t, f, ".")
			if _, err := f.Crash(nil).Stat("a/b/c"); err != nil {
				t.Error(err)
			}
		},
		"synced file renamed": func(t *testing.T, f *Fs) {
			write(t, f, "x", "old", true)
			must(t, f.Mkdir("s", 0o700))
			write(t, f, "s/y", "new", true)
			syncDir(t, f, ".", "s")
			must(t, f.Rename("s/y", "x"))
			// The rename is two changes: the new entry and the removal of the old one.
			crashes(t, f, "x s/y", "old new", "old new", "new -", "new new", "old -")
			syncDir(t, f, ".")
			crashes(t, f, "x s/y", "new new", "new new", "new -")
			syncDir(t, f, "s")
			crashes(t, f, "x s/y", "new -", "new -")
		},
		"unsynced file renamed": func(t *testing.T, f *Fs) {
			write(t, f, "x", "old", true)
			syncDir(t, f, ".")
			write(t, f, "y", "new", false)
			must(t, f.Rename("y", "x"))
			crashes(t, f, "x", "old", "old", "", "n", "ne", "new", "n\x00\x00", "ne\x00", "\x00\x00\x00")
			syncDir(t, f, ".")
			crashes(t, f, "x", "", "", "n", "ne", "new", "n\x00\x00", "ne\x00", "\x00\x00\x00")
		},
		"several since the last sync": func(t *testing.T, f *Fs) {
			for _, data := range []string{"1", "2", "3"} {
				write(t, f, "y", data, true)
				must(t, f.Rename("y", "x"))
			}
			crashes(t, f, "x", "-", "-", "1", "2", "3")
		},
		"delete not synced": func(t *testing.T, f *Fs) {
			write(t, f, "x", "old", true)
			syncDir(t, f, ".")
			must(t, f.Remove("x"))
			crashes(t, f, "x", "old", "old", "-")
			syncDir(t, f, ".")
			crashes(t, f, "x", "-", "-")
		},
		"directory removed": func(t *testing.T, f *Fs) {
			must(t, f.Mkdir("a", 0o700))
			write(t, f, "a/x", "old", true)
			syncDir(t, f, "a", ".")
			write(t, f, "a/y", "new", true)
			must(t, f.RemoveAll("a"))
			crashes(t, f, "a/x a/y", "old -", "old -", "old new", "- new", "- -")
			syncDir(t, f, ".")
			crashes(t, f, "a/x", "-", "-")
		},
		"appended": func(t *testing.T, f *Fs) {
			write(t, f, "x", "old", true)
			syncDir(t, f, ".")
			h, err := f.OpenFile("x", os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = h.WriteString("+!")
			must(t, err)
			crashes(t, f, "x", "old", "old", "old+", "old+!", "old+\x00", "old\x00\x00")
			must(t, h.Sync())
			crashes(t, f, "x", "old+!", "old+!")
		},
		"overwritten": func(t *testing.T, f *Fs) {
			write(t, f, "x", "old", true)
			syncDir(t, f, ".")
			write(t, f, "x", "!", false)
			crashes(t, f, "x", "old", "old", "", "!", "\x00")
		},
		"synced through another name": func(t *testing.T, f *Fs) {
			write(t, f, "y", "new", false)
			h, err := f.Open("y")
			must(t, err)
			must(t, f.Rename("y", "x"))
			must(t, h.Sync())
			syncDir(t, f, ".")
			crashes(t, f, "x y", "new -", "new -")
		},
		"unlinked but open": func(t *testing.T, f *Fs) {
			h, err := f.Create("x")
			must(t, err)
			must(t, f.Remove("x"))
			_, err = h.WriteString("new")
			must(t, err)
			must(t, h.Sync())
			syncDir(t, f, ".")
			crashes(t, f, "x", "-", "-")
		},
		"directory renamed": func(t *testing.T, f *Fs) {
			must(t, f.MkdirAll("a", 0o700))
			must(t, f.MkdirAll("b", 0o700))
			write(t, f, "a/x", "old", true)
			syncDir(t, f, "a", "b", ".")
			must(t, f.Rename("a", "b/a"))
			crashes(t, f, "a/x b/a/x", "old -", "old -", "- old", "old old", "- -")
		},
		"directories inside each other": func(t *testing.T, f *Fs) {
			must(t, f.MkdirAll("a", 0o700))
			must(t, f.MkdirAll("b", 0o700))
			write(t, f, "b/x", "old", true)
			syncDir(t, f, "a", "b", ".")
			must(t, f.Rename("a", "b/a"))
			syncDir(t, f, "b")
			must(t, f.Rename("b/a", "a"))
			must(t, f.Rename("b", "a/b"))
			for seed := range uint64(100) {
				for _, name := range tree(f.Crash(rand.New(rand.NewPCG(seed, 2)))) {
					if strings.Contains(name, "a/b/a") || strings.Contains(name, "b/a/b") {
						t.Errorf("seed %d: %s", seed, name)
					}
				}
			}
			crashes(t, f, "b/x", "old", "old", "-")
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, New()) })
	}
}

// TestHardLink renames a file that has two names after a crash. As in POSIX,
// renaming one to the other does nothing.
func TestHardLink(t *testing.T) {
	f := New()
	must(t, f.Mkdir("s", 0o700))
	write(t, f, "s/y", "new", true)
	syncDir(t, f, ".", "s")
	must(t, f.Rename("s/y", "x"))
	syncDir(t, f, ".")
	c := f.Crash(nil)
	must(t, c.Rename("s/y", "x"))
	if got := found(c, "s/y"); got != "new" {
		t.Errorf("got %q in s/y, want %q", got, "new")
	}
	h, err := c.OpenFile("x", os.O_WRONLY, 0)
	must(t, err)
	_, err = h.WriteString("one")
	must(t, err)
	if got := found(c, "s/y"); got != "one" {
		t.Errorf("got %q in s/y, want %q", got, "one")
	}
}

func TestCrashTimes(t *testing.T) {
	f := New()
	first, second := time.Unix(1, 2), time.Unix(3, 4)
	write(t, f, "x", "data", true)
	must(t, f.Chtimes("x", first, first))
	h, err := f.Open("x")
	must(t, err)
	must(t, h.Sync())
	syncDir(t, f, ".")
	must(t, f.Chtimes("x", second, second))
	seen := map[time.Time]bool{}
	for seed := range uint64(100) {
		fi, err := f.Crash(rand.New(rand.NewPCG(seed, 3))).Stat("x")
		must(t, err)
		seen[fi.ModTime()] = true
	}
	if len(seen) != 2 || !seen[first] || !seen[second] {
		t.Errorf("got times %v, want %v and %v", seen, first, second)
	}
	if fi, err := f.Crash(nil).Stat("x"); err != nil || !fi.ModTime().Equal(first) {
		t.Errorf("got %v, %v, want the synced time %v", fi.ModTime(), err, first)
	}
}

// TestCrashIsACopy checks that neither filesystem sees changes of the other.
func TestCrashIsACopy(t *testing.T) {
	f := New()
	write(t, f, "x", "old", true)
	syncDir(t, f, ".")
	h, err := f.OpenFile("x", os.O_WRONLY, 0)
	must(t, err)
	c := f.Crash(nil)
	_, err = h.WriteString("new")
	must(t, err)
	must(t, h.Sync())
	write(t, f, "y", "", true)
	if got := tree(c); len(got) != 1 || found(c, "x") != "old" {
		t.Errorf("got %q after the crash, want the old x alone", got)
	}
	h, err = c.OpenFile("x", os.O_WRONLY, 0)
	must(t, err)
	_, err = h.WriteString("lost")
	must(t, err)
	if got := found(c.Crash(nil), "x"); got != "old" {
		t.Errorf("got %q after the second crash, want %q", got, "old")
	}
	must(t, c.Remove("x"))
	if got := found(f, "x"); got != "new" {
		t.Errorf("got %q in the original, want %q", got, "new")
	}
}

// TestListing removes a file while its directory is listed. It must not be listed.
func TestListing(t *testing.T) {
	f := New()
	for _, name := range []string{"a", "b", "c"} {
		write(t, f, name, "", false)
	}
	d, err := f.Open("/")
	must(t, err)
	if names, err := d.Readdirnames(1); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("got %q, %v, want a", names, err)
	}
	must(t, f.Remove("b"))
	if names, err := d.Readdirnames(1); err != nil || !slices.Equal(names, []string{"c"}) {
		t.Errorf("got %q, %v, want c", names, err)
	}
	if names, err := d.Readdirnames(1); err != io.EOF || len(names) > 0 {
		t.Errorf("got %q, %v, want EOF", names, err)
	}
}

func TestAfter(t *testing.T) {
	f := New()
	var got []string
	f.After(func(op string) {
		got = append(got, op)
		f.Crash(nil) // must not deadlock
	})
	must(t, f.MkdirAll("a/b", 0o700))
	write(t, f, "a/x", "x", true)
	must(t, f.Chtimes("a/x", time.Now(), time.Now()))
	must(t, f.Chmod("a/x", 0o600))
	must(t, f.Rename("a/x", "y"))
	syncDir(t, f, ".")
	f.Stat("y")
	found(f, "y")
	must(t, f.Remove("y"))
	if f.Remove("y") == nil {
		t.Error("second Remove: got no error, want one")
	}
	must(t, f.RemoveAll("a"))
	f.After(nil)
	write(t, f, "z", "", true)
	want := []string{"mkdir a", "mkdir a/b", "create a/x", "write a/x", "sync a/x", "close a/x", "chtimes a/x", "chmod a/x",
		"rename a/x y", "sync .", "close .", "close y", "remove y", "removeall a"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestConcurrent(t *testing.T) {
	f := New()
	f.After(func(string) { f.Crash(rand.New(rand.NewPCG(1, 2))) })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				name := fmt.Sprint(i, "/", j)
				f.MkdirAll(fmt.Sprint(i), 0o700)
				if h, err := f.Create(name); err == nil {
					h.WriteString("data")
					h.Sync()
					h.Close()
				}
				f.Rename(name, "0/x")
				found(f, "0/x")
				f.RemoveAll(fmt.Sprint(i))
			}
		})
	}
	wg.Wait()
}
