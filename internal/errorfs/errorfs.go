// Package errorfs wraps an [afero.Fs] to record its operations, and to make them
// fail or do nothing. A test can make each operation fail in turn:
//
//	fsys.FailAt(n, errorfs.Fault{Err: syscall.EIO}) // n = 1, 2, … until !fsys.Fired()
//
// A failed operation does not reach the wrapped filesystem, with two exceptions:
// Close, and a write whose Fault is Short.
package errorfs

import (
	"cmp"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/afero"
)

// An Op is one operation on a filesystem or on one of its files.
type Op struct {
	N    int    // counts from 1, again after ResetTrace
	Name string // the method in lower case, such as "rename"; of a file, such as "file.write"
	Path string // as the caller gave it; of a file, as it was opened
	To   string // the new path of a rename
}

// String returns the operation without its number, such as
// "rename .staging/x a/image".
func (o Op) String() string {
	return strings.TrimSuffix(o.Name+" "+o.Path+" "+o.To, " ")
}

// A Fault is how an operation fails.
type Fault struct {
	Err error // nil is EIO, or [io.ErrShortWrite] for a short write
	// Short makes a write pass on half of its bytes before it fails. Other
	// operations ignore it.
	Short bool
}

// Fs is a filesystem whose operations can be made to fail. As from a real one, the
// error is an [os.PathError] or [os.LinkError]. It is safe for concurrent use.
type Fs struct {
	base afero.Fs

	mu     sync.Mutex
	trace  []Op
	armed  int // operations until fault; 0 is never
	fault  Fault
	fired  bool
	failIf func(Op) error
	drop   func(Op) bool
	open   []*file
	double []string
}

// New returns a filesystem that passes everything on to base.
func New(base afero.Fs) *Fs { return &Fs{base: base} }

func (f *Fs) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// FailAt makes the nth operation from now fail, once. The next one is the
// first. n <= 0 makes none fail.
func (f *Fs) FailAt(n int, fault Fault) {
	f.locked(func() { f.armed, f.fault, f.fired = max(n, 0), fault, false })
}

// Fired reports whether the operation that FailAt chose last has failed.
func (f *Fs) Fired() (fired bool) {
	f.locked(func() { fired = f.fired })
	return fired
}

// FailIf makes every operation fail for which fn returns an error. fn is called
// without a lock, by all goroutines that use the filesystem. It may use the
// filesystem itself. Nil makes none fail.
func (f *Fs) FailIf(fn func(Op) error) { f.locked(func() { f.failIf = fn }) }

// Drop makes every operation for which fn returns true do nothing and succeed.
// A file whose Close is dropped stays open. Operations with a result (open, read,
// seek, stat) are never dropped, and fn does not see them. fn is called as that of
// FailIf is. Nil drops nothing.
func (f *Fs) Drop(fn func(Op) bool) { f.locked(func() { f.drop = fn }) }

// Trace returns all operations since New or ResetTrace, including those that
// failed or were dropped.
func (f *Fs) Trace() (ops []Op) {
	f.locked(func() { ops = slices.Clone(f.trace) })
	return ops
}

// ResetTrace empties the trace. FailAt, FailIf and Drop stay in effect.
func (f *Fs) ResetTrace() { f.locked(func() { f.trace = nil }) }

// OpenFiles returns the paths of the files that are open, in the order in which
// they were opened.
func (f *Fs) OpenFiles() (paths []string) {
	f.locked(func() {
		for _, h := range f.open {
			paths = append(paths, h.path)
		}
	})
	return paths
}

// DoubleCloses returns the path of a file for every Close of it after the first.
func (f *Fs) DoubleCloses() (paths []string) {
	f.locked(func() { paths = slices.Clone(f.double) })
	return paths
}

// begin records an operation. It returns the error with which the operation must
// fail, if any, and whether it is a write that must be short.
func (f *Fs) begin(name, path, to string) (op Op, short bool, err error) {
	f.mu.Lock()
	op = Op{len(f.trace) + 1, name, path, to}
	f.trace = append(f.trace, op)
	if f.armed == 1 {
		f.fired = true
		short = f.fault.Short && strings.HasPrefix(name, "file.write")
		if err = f.fault.Err; err == nil && short {
			err = io.ErrShortWrite
		}
		err = cmp.Or[error](err, syscall.EIO)
	}
	f.armed = max(f.armed-1, 0)
	failIf := f.failIf
	f.mu.Unlock()
	if failIf != nil {
		err = cmp.Or(err, failIf(op))
	}
	if err == nil {
		return op, false, nil
	}
	switch name = strings.TrimPrefix(name, "file."); name {
	case "rename":
		return op, false, &os.LinkError{Op: name, Old: path, New: to, Err: err}
	case "create", "openfile":
		name = "open"
	}
	return op, short, &os.PathError{Op: name, Path: path, Err: err}
}

func (f *Fs) drops(op Op) bool {
	var drop func(Op) bool
	f.locked(func() { drop = f.drop })
	return drop != nil && drop(op)
}

// change runs an operation that returns only an error.
func (f *Fs) change(name, path, to string, base func() error) error {
	op, _, err := f.begin(name, path, to)
	if err != nil || f.drops(op) {
		return err
	}
	return base()
}

// ask runs an operation that returns a result.
func ask[T any](f *Fs, name, path string, base func() (T, error)) (result T, err error) {
	if _, _, err := f.begin(name, path, ""); err != nil {
		return result, err
	}
	return base()
}

func (f *Fs) openWith(name, path string, base func() (afero.File, error)) (afero.File, error) {
	b, err := ask(f, name, path, base)
	if err != nil {
		return nil, err
	}
	h := &file{b, f, path, false}
	f.locked(func() { f.open = append(f.open, h) })
	return h, nil
}

// The methods of afero.Fs.

func (f *Fs) Name() string { return "errorfs" }
func (f *Fs) Create(p string) (afero.File, error) {
	return f.openWith("create", p, func() (afero.File, error) { return f.base.Create(p) })
}
func (f *Fs) Open(p string) (afero.File, error) {
	return f.openWith("open", p, func() (afero.File, error) { return f.base.Open(p) })
}
func (f *Fs) OpenFile(p string, flag int, perm os.FileMode) (afero.File, error) {
	return f.openWith("openfile", p, func() (afero.File, error) { return f.base.OpenFile(p, flag, perm) })
}
func (f *Fs) Stat(p string) (os.FileInfo, error) {
	return ask(f, "stat", p, func() (os.FileInfo, error) { return f.base.Stat(p) })
}

// LstatIfPossible implements [afero.Lstater]. It calls Stat if the wrapped
// filesystem has no Lstat.
func (f *Fs) LstatIfPossible(p string) (fi os.FileInfo, lstat bool, err error) {
	fi, err = ask(f, "lstat", p, func() (os.FileInfo, error) {
		l, ok := f.base.(afero.Lstater)
		if !ok {
			return f.base.Stat(p)
		}
		fi, is, err := l.LstatIfPossible(p)
		lstat = is
		return fi, err
	})
	return fi, lstat, err
}
func (f *Fs) Mkdir(p string, perm os.FileMode) error {
	return f.change("mkdir", p, "", func() error { return f.base.Mkdir(p, perm) })
}
func (f *Fs) MkdirAll(p string, perm os.FileMode) error {
	return f.change("mkdirall", p, "", func() error { return f.base.MkdirAll(p, perm) })
}
func (f *Fs) Remove(p string) error {
	return f.change("remove", p, "", func() error { return f.base.Remove(p) })
}
func (f *Fs) RemoveAll(p string) error {
	return f.change("removeall", p, "", func() error { return f.base.RemoveAll(p) })
}
func (f *Fs) Rename(from, to string) error {
	return f.change("rename", from, to, func() error { return f.base.Rename(from, to) })
}
func (f *Fs) Chmod(p string, mode os.FileMode) error {
	return f.change("chmod", p, "", func() error { return f.base.Chmod(p, mode) })
}
func (f *Fs) Chown(p string, uid, gid int) error {
	return f.change("chown", p, "", func() error { return f.base.Chown(p, uid, gid) })
}
func (f *Fs) Chtimes(p string, atime, mtime time.Time) error {
	return f.change("chtimes", p, "", func() error { return f.base.Chtimes(p, atime, mtime) })
}

type file struct {
	base   afero.File
	fs     *Fs
	path   string // kept here because File.Name differs among filesystems
	closed bool   // guarded by fs.mu
}

func (h *file) Name() string { return h.path }

// Close closes the wrapped file even if it must fail, as the kernel does. The
// caller of a failed Close must not try again.
func (h *file) Close() error {
	op, _, err := h.fs.begin("file.close", h.path, "")
	if err == nil && h.fs.drops(op) {
		return nil
	}
	var again bool
	h.fs.locked(func() {
		again, h.closed = h.closed, true
		if again {
			h.fs.double = append(h.fs.double, h.path)
		}
		h.fs.open = slices.DeleteFunc(h.fs.open, func(o *file) bool { return o == h })
	})
	if again {
		return &os.PathError{Op: "close", Path: h.path, Err: os.ErrClosed}
	}
	return cmp.Or(err, h.base.Close())
}

func (h *file) Write(p []byte) (int, error) { return h.write("file.write", p, h.base.Write) }

func (h *file) WriteString(s string) (int, error) { return h.Write([]byte(s)) }

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	return h.write("file.writeat", p, func(p []byte) (int, error) { return h.base.WriteAt(p, off) })
}

func (h *file) write(name string, p []byte, base func([]byte) (int, error)) (int, error) {
	op, short, err := h.fs.begin(name, h.path, "")
	switch {
	case short:
		n, baseErr := base(p[:len(p)/2])
		return n, cmp.Or(baseErr, err)
	case err != nil:
		return 0, err
	case h.fs.drops(op):
		return len(p), nil
	}
	return base(p)
}

func (h *file) Sync() error { return h.fs.change("file.sync", h.path, "", h.base.Sync) }
func (h *file) Truncate(size int64) error {
	return h.fs.change("file.truncate", h.path, "", func() error { return h.base.Truncate(size) })
}
func (h *file) Read(p []byte) (int, error) {
	return ask(h.fs, "file.read", h.path, func() (int, error) { return h.base.Read(p) })
}
func (h *file) ReadAt(p []byte, off int64) (int, error) {
	return ask(h.fs, "file.readat", h.path, func() (int, error) { return h.base.ReadAt(p, off) })
}
func (h *file) Seek(off int64, whence int) (int64, error) {
	return ask(h.fs, "file.seek", h.path, func() (int64, error) { return h.base.Seek(off, whence) })
}
func (h *file) Stat() (os.FileInfo, error) { return ask(h.fs, "file.stat", h.path, h.base.Stat) }
func (h *file) Readdir(n int) ([]os.FileInfo, error) {
	return ask(h.fs, "file.readdir", h.path, func() ([]os.FileInfo, error) { return h.base.Readdir(n) })
}
func (h *file) Readdirnames(n int) ([]string, error) {
	return ask(h.fs, "file.readdirnames", h.path, func() ([]string, error) { return h.base.Readdirnames(n) })
}
