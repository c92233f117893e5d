package errorfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/afero"
)

var errTest = errors.New("test error")

// onEach runs a test on a real directory and in memory. Each has a directory d and
// a file d/x with the content "0123456789".
func onEach(t *testing.T, test func(t *testing.T, base afero.Fs, f *Fs)) {
	bases := map[string]func(t *testing.T) afero.Fs{
		"os":  func(t *testing.T) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()) },
		"mem": func(t *testing.T) afero.Fs { return afero.NewMemMapFs() },
	}
	for name, base := range bases {
		t.Run(name, func(t *testing.T) {
			b := base(t)
			must(t, b.Mkdir("d", 0o700))
			must(t, afero.WriteFile(b, "d/x", []byte("0123456789"), 0o600))
			test(t, b, New(b))
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, fsys afero.Fs, name string) string {
	t.Helper()
	data, err := afero.ReadFile(fsys, name)
	must(t, err)
	return string(data)
}

func render(ops []Op) (all []string) {
	for _, op := range ops {
		all = append(all, op.String())
	}
	return all
}

// operations has each operation once. h is d/x, open for reading and writing, and
// dir is d.
var operations = []struct {
	op     string
	do     func(f *Fs, h, dir afero.File) error
	undone func(base afero.Fs) bool // reports whether it changed nothing; nil if it never changes anything
	drops  bool
}{
	{"create d/y", func(f *Fs, _, _ afero.File) error { _, err := f.Create("d/y"); return err }, lacks("d/y"), false},
	{"openfile d/y", func(f *Fs, _, _ afero.File) error {
		_, err := f.OpenFile("d/y", os.O_CREATE|os.O_WRONLY, 0o600)
		return err
	}, lacks("d/y"), false},
	{"open d/x", func(f *Fs, _, _ afero.File) error { _, err := f.Open("d/x"); return err }, nil, false},
	{"stat d/x", func(f *Fs, _, _ afero.File) error { _, err := f.Stat("d/x"); return err }, nil, false},
	{"mkdir e", func(f *Fs, _, _ afero.File) error { return f.Mkdir("e", 0o700) }, lacks("e"), true},
	{"mkdirall e/e", func(f *Fs, _, _ afero.File) error { return f.MkdirAll("e/e", 0o700) }, lacks("e"), true},
	{"remove d/x", func(f *Fs, _, _ afero.File) error { return f.Remove("d/x") }, has("0123456789"), true},
	{"removeall d", func(f *Fs, _, _ afero.File) error { return f.RemoveAll("d") }, has("0123456789"), true},
	{"rename d/x y", func(f *Fs, _, _ afero.File) error { return f.Rename("d/x", "y") }, lacks("y"), true},
	{"chmod d/x", func(f *Fs, _, _ afero.File) error { return f.Chmod("d/x", 0o640) }, func(base afero.Fs) bool {
		fi, err := base.Stat("d/x")
		return err == nil && fi.Mode() == 0o600
	}, true},
	{"chown d/x", func(f *Fs, _, _ afero.File) error { return f.Chown("d/x", os.Getuid(), os.Getgid()) }, nil, true},
	{"chtimes d/x", func(f *Fs, _, _ afero.File) error { return f.Chtimes("d/x", time.Unix(1, 0), time.Unix(1, 0)) },
		func(base afero.Fs) bool {
			fi, err := base.Stat("d/x")
			return err == nil && fi.ModTime().Unix() > 1
		}, true},
	{"file.write d/x", func(_ *Fs, h, _ afero.File) error { return wrote(h.Write([]byte("abcd"))) }, has("0123456789"), true},
	{"file.write d/x", func(_ *Fs, h, _ afero.File) error { return wrote(h.WriteString("abcd")) }, has("0123456789"), true},
	{"file.writeat d/x", func(_ *Fs, h, _ afero.File) error { return wrote(h.WriteAt([]byte("abcd"), 2)) }, has("0123456789"), true},
	{"file.truncate d/x", func(_ *Fs, h, _ afero.File) error { return h.Truncate(1) }, has("0123456789"), true},
	{"file.sync d/x", func(_ *Fs, h, _ afero.File) error { return h.Sync() }, nil, true},
	{"file.read d/x", func(_ *Fs, h, _ afero.File) error { _, err := h.Read(make([]byte, 1)); return err }, nil, false},
	{"file.readat d/x", func(_ *Fs, h, _ afero.File) error { _, err := h.ReadAt(make([]byte, 1), 1); return err }, nil, false},
	{"file.seek d/x", func(_ *Fs, h, _ afero.File) error { _, err := h.Seek(1, io.SeekStart); return err }, nil, false},
	{"file.stat d/x", func(_ *Fs, h, _ afero.File) error { _, err := h.Stat(); return err }, nil, false},
	{"file.readdir d", func(_ *Fs, _, d afero.File) error { _, err := d.Readdir(-1); return err }, nil, false},
	{"file.readdirnames d", func(_ *Fs, _, d afero.File) error { _, err := d.Readdirnames(-1); return err }, nil, false},
	{"file.close d/x", func(_ *Fs, h, _ afero.File) error { return h.Close() }, nil, true},
}

func wrote(n int, err error) error {
	if err == nil && n != 4 {
		err = fmt.Errorf("wrote %d of 4 bytes", n)
	}
	return err
}

func lacks(name string) func(afero.Fs) bool {
	return func(base afero.Fs) bool { _, err := base.Stat(name); return errors.Is(err, os.ErrNotExist) }
}

func has(want string) func(afero.Fs) bool {
	return func(base afero.Fs) bool {
		data, err := afero.ReadFile(base, "d/x")
		return err == nil && string(data) == want
	}
}

// TestEachOperation checks that each operation passes, fails, is dropped and is
// recorded.
func TestEachOperation(t *testing.T) {
	ways := map[string]func(f *Fs, op string){
		"pass":    func(f *Fs, _ string) {},
		"fail at": func(f *Fs, _ string) { f.FailAt(1, Fault{Err: errTest}) },
		"fail if": func(f *Fs, name string) {
			f.FailIf(func(op Op) error {
				if op.String() != name || op.N != 1 {
					return fmt.Errorf("unexpected %d %s", op.N, op)
				}
				return errTest
			})
		},
		"drop": func(f *Fs, _ string) { f.Drop(func(Op) bool { return true }) },
	}
	for _, o := range operations {
		for way, arm := range ways {
			t.Run(o.op+"/"+way, func(t *testing.T) {
				onEach(t, func(t *testing.T, base afero.Fs, f *Fs) {
					h, err := f.OpenFile("d/x", os.O_RDWR, 0)
					must(t, err)
					dir, err := f.Open("d")
					must(t, err)
					if h.Name() != "d/x" || dir.Name() != "d" {
						t.Errorf("got names %q and %q, want d/x and d", h.Name(), dir.Name())
					}
					f.ResetTrace()
					arm(f, o.op)
					err = o.do(f, h, dir)
					if got := render(f.Trace()); !slices.Equal(got, []string{o.op}) {
						t.Errorf("got trace %q, want %q", got, o.op)
					}
					if f.Fired() != (way == "fail at") {
						t.Errorf("got Fired %v, want %v", f.Fired(), way == "fail at")
					}
					if strings.HasPrefix(way, "fail") {
						var pathErr *os.PathError
						var linkErr *os.LinkError
						if !errors.Is(err, errTest) || !errors.As(err, &pathErr) && !errors.As(err, &linkErr) {
							t.Errorf("got %#v, want a PathError or LinkError of %v", err, errTest)
						}
					} else if err != nil {
						t.Error(err)
					}
					undone := strings.HasPrefix(way, "fail") || way == "drop" && o.drops
					if o.undone != nil && o.undone(base) != undone {
						t.Errorf("got undone %v, want %v", !undone, undone)
					}
					f.FailIf(nil)
					f.Drop(nil)
					dir.Close()
					h.Close()
				})
			})
		}
	}
}

// TestErrorText checks that errors read like those of package os.
func TestErrorText(t *testing.T) {
	f := New(afero.NewMemMapFs())
	f.FailIf(func(Op) error { return syscall.ENOSPC })
	_, created := f.Create("x")
	_, opened := f.OpenFile("x", 0, 0)
	for _, err := range []error{created, opened} {
		if got, want := fmt.Sprint(err), "open x: "+syscall.ENOSPC.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := fmt.Sprint(f.Rename("x", "y")), "rename x y: "+syscall.ENOSPC.Error(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFailAt(t *testing.T) {
	f := New(afero.NewMemMapFs())
	f.FailAt(2, Fault{})
	must(t, f.Mkdir("a", 0o700))
	if f.Fired() {
		t.Error("got Fired after the first operation, want it after the second")
	}
	if err := f.Mkdir("b", 0o700); !errors.Is(err, syscall.EIO) || !f.Fired() {
		t.Errorf("got %v, Fired %v, want EIO, Fired", err, f.Fired())
	}
	must(t, f.Mkdir("b", 0o700))
	f.FailAt(1, Fault{})
	if f.Fired() {
		t.Error("got Fired right after FailAt, want not")
	}
	f.FailAt(0, Fault{})
	must(t, f.Mkdir("c", 0o700))
	if f.Fired() {
		t.Error("got Fired after FailAt(0), want not")
	}
}

func TestTrace(t *testing.T) {
	onEach(t, func(t *testing.T, _ afero.Fs, f *Fs) {
		must(t, f.MkdirAll(".staging", 0o700))
		h, err := f.OpenFile(".staging/x", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = h.WriteString("new")
		must(t, err)
		must(t, h.Sync())
		must(t, h.Close())
		must(t, f.Rename(".staging/x", "d/x"))
		f.Stat("nowhere")
		want := []string{"mkdirall .staging", "openfile .staging/x", "file.write .staging/x", "file.sync .staging/x",
			"file.close .staging/x", "rename .staging/x d/x", "stat nowhere"}
		ops := f.Trace()
		if got := render(ops); !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		for i, op := range ops {
			if op.N != i+1 {
				t.Errorf("%s: got number %d, want %d", op, op.N, i+1)
			}
		}
		if op := ops[5]; op.Path != ".staging/x" || op.To != "d/x" {
			t.Errorf("got %#v, want .staging/x and d/x", op)
		}
		ops[0].Name = "mine"
		if f.Trace()[0].Name != "mkdirall" {
			t.Error("got the trace itself, want a copy")
		}
	})
}

func TestShortWrite(t *testing.T) {
	for name, write := range map[string]func(afero.File) (int, error){
		"Write":       func(h afero.File) (int, error) { return h.Write([]byte("abcd")) },
		"WriteString": func(h afero.File) (int, error) { return h.WriteString("abcd") },
		"WriteAt":     func(h afero.File) (int, error) { return h.WriteAt([]byte("abcd"), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, base afero.Fs, f *Fs) {
				h, err := f.OpenFile("d/x", os.O_RDWR, 0)
				must(t, err)
				defer h.Close()
				f.FailAt(1, Fault{Short: true})
				if n, err := write(h); n != 2 || !errors.Is(err, io.ErrShortWrite) {
					t.Errorf("got %d, %v, want 2, %v", n, err, io.ErrShortWrite)
				}
				f.FailAt(1, Fault{Short: true, Err: syscall.ENOSPC})
				if n, err := write(h); n != 2 || !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("got %d, %v, want 2, ENOSPC", n, err)
				}
				f.FailAt(1, Fault{Short: true})
				if err := h.Sync(); !errors.Is(err, syscall.EIO) {
					t.Errorf("got %v from Sync, want EIO", err)
				}
				want := "abab456789"
				if name == "WriteAt" {
					want = "ab23456789"
				}
				if got := content(t, base, "d/x"); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

func TestClose(t *testing.T) {
	onEach(t, func(t *testing.T, _ afero.Fs, f *Fs) {
		a, err := f.Open("d/x")
		must(t, err)
		b, err := f.Open("d")
		must(t, err)
		c, err := f.Create("c")
		must(t, err)
		if _, err := f.Open("nowhere"); err == nil {
			t.Error("got no error for a missing file, want one")
		}
		if got := f.OpenFiles(); !slices.Equal(got, []string{"d/x", "d", "c"}) {
			t.Errorf("got open files %q, want d/x, d, c", got)
		}
		must(t, f.Rename("c", "e"))
		must(t, a.Close())
		if got := f.OpenFiles(); !slices.Equal(got, []string{"d", "c"}) {
			t.Errorf("got open files %q, want d, c", got)
		}
		if err := a.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v from the second Close, want %v", err, os.ErrClosed)
		}

		f.FailAt(1, Fault{Err: errTest})
		if err := c.Close(); !errors.Is(err, errTest) {
			t.Errorf("got %v, want %v", err, errTest)
		}
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("got no error from Write after a failed Close, want one")
		}
		f.Drop(func(Op) bool { return true })
		must(t, b.Close())
		f.Drop(nil)
		if got := f.OpenFiles(); !slices.Equal(got, []string{"d"}) {
			t.Errorf("got open files %q, want d", got)
		}
		if got := f.DoubleCloses(); !slices.Equal(got, []string{"d/x"}) {
			t.Errorf("got double closes %q, want d/x", got)
		}
		if err := c.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v from Close after a failed one, want %v", err, os.ErrClosed)
		}
		must(t, b.Close())
		if got := f.DoubleCloses(); !slices.Equal(got, []string{"d/x", "c"}) {
			t.Errorf("got double closes %q, want d/x, c", got)
		}
		if got := f.OpenFiles(); got != nil {
			t.Errorf("got open files %q, want none", got)
		}
	})
}

// TestFailureWins checks that an operation that FailIf and Drop both choose fails.
// Both functions use the filesystem themselves.
func TestFailureWins(t *testing.T) {
	onEach(t, func(t *testing.T, base afero.Fs, f *Fs) {
		f.Drop(func(op Op) bool {
			f.Trace()
			return op.Name != "stat"
		})
		f.FailIf(func(op Op) error {
			if op.Name == "rename" {
				f.Stat(op.Path)
				return errTest
			}
			return nil
		})
		if err := f.Rename("d/x", "y"); !errors.Is(err, errTest) {
			t.Errorf("got %v, want %v", err, errTest)
		}
		if got := render(f.Trace()); !slices.Equal(got, []string{"rename d/x y", "stat d/x"}) {
			t.Errorf("got trace %q, want the rename and the stat", got)
		}
	})
}

func TestConcurrent(t *testing.T) {
	f := New(afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()))
	f.FailAt(100, Fault{})
	f.FailIf(func(Op) error { return nil })
	f.Drop(func(Op) bool { return false })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				h, err := f.Create(fmt.Sprint(i))
				if err != nil {
					continue
				}
				h.WriteString("x")
				h.Close()
			}
			f.OpenFiles()
		})
	}
	wg.Wait()
	if got := f.OpenFiles(); got != nil || !f.Fired() {
		t.Errorf("got open files %q, Fired %v, want none, Fired", got, f.Fired())
	}
	// The Create that failed has no Write and no Close.
	if n := len(f.Trace()); n != 8*20*3 && n != 8*20*3-2 {
		t.Errorf("got %d operations, want %d, or 2 less", n, 8*20*3)
	}
}
