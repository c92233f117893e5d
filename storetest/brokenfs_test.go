package storetest_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// noReplace is a filesystem whose Rename refuses to replace, as with SFTP.
type noReplace struct{ afero.Fs }

func (f noReplace) Rename(from, to string) error {
	if _, err := f.Stat(to); err == nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: os.ErrExist}
	}
	return f.Fs.Rename(from, to)
}

// copies is a filesystem whose Rename copies into the existing file, as filesystems
// on object stores do.
type copies struct{ afero.Fs }

func (f copies) Rename(from, to string) error {
	fi, err := f.Stat(from)
	if err != nil {
		return err
	}
	src, err := f.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := f.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	for err == nil {
		runtime.Gosched() // gives readers a chance to see a part
		_, err = io.CopyN(dst, src, 32<<10)
	}
	if err != io.EOF {
		dst.Close()
		return err
	}
	// Closed before Remove, because Windows removes no open file.
	if err := errors.Join(dst.Close(), src.Close()); err != nil {
		return err
	}
	if err := f.Chtimes(to, fi.ModTime(), fi.ModTime()); err != nil {
		return err
	}
	return f.Remove(from)
}

// steps is a filesystem that rounds times down to steps. If ignore is set, Chtimes
// does nothing.
type steps struct {
	afero.Fs
	step   time.Duration
	ignore bool
}

func (f steps) Chtimes(name string, atime, mtime time.Time) error {
	if f.ignore {
		return nil
	}
	return f.Fs.Chtimes(name, atime, mtime)
}

func (f steps) Stat(name string) (os.FileInfo, error) {
	fi, err := f.Fs.Stat(name)
	if err != nil {
		return nil, err
	}
	return steppedInfo{fi, f.step}, nil
}

func (f steps) Open(name string) (afero.File, error) {
	file, err := f.Fs.Open(name)
	if err != nil {
		return nil, err
	}
	return steppedFile{file, f.step}, nil
}

type steppedFile struct {
	afero.File
	step time.Duration
}

func (f steppedFile) Stat() (os.FileInfo, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return steppedInfo{fi, f.step}, nil
}

type steppedInfo struct {
	os.FileInfo
	step time.Duration
}

func (i steppedInfo) ModTime() time.Time { return i.FileInfo.ModTime().Truncate(i.step) }

// wrapped is a filesystem that wraps new files.
type wrapped struct {
	afero.Fs
	wrap func(afero.File) afero.File
}

func (f wrapped) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	file, err := f.Fs.OpenFile(name, flag, perm)
	if err != nil || flag&os.O_CREATE == 0 {
		return file, err
	}
	return f.wrap(file), nil
}

// forgetful is a file that loses its last byte when it is closed.
type forgetful struct{ afero.File }

func (f forgetful) Close() error {
	if fi, err := f.File.Stat(); err == nil && fi.Size() > 0 {
		_ = f.Truncate(fi.Size() - 1)
	}
	return f.File.Close()
}

// keeps is a filesystem whose Remove reports success and does nothing.
type keeps struct{ afero.Fs }

func (f keeps) Remove(string) error { return nil }

// silent is a filesystem that hides errors, except that a file is in use. A Store
// tries again after that.
type silent struct{ afero.Fs }

func (f silent) Rename(from, to string) error { return hide(f.Fs.Rename(from, to)) }
func (f silent) Remove(name string) error     { return hide(f.Fs.Remove(name)) }
func (f silent) Mkdir(name string, perm os.FileMode) error {
	return hide(f.Fs.Mkdir(name, perm))
}

func hide(err error) error {
	if fserr.IsInUse(err) {
		return err
	}
	return nil
}

// badSync is a file that cannot be synced.
type badSync struct{ afero.File }

func (f badSync) Sync() error { return os.ErrInvalid }

// follows is a filesystem whose LstatIfPossible follows symbolic links.
type follows struct{ afero.Fs }

func (f follows) SymlinkIfPossible(oldname, newname string) error {
	return f.Fs.(afero.Linker).SymlinkIfPossible(oldname, newname)
}

func (f follows) LstatIfPossible(name string) (os.FileInfo, bool, error) {
	fi, err := f.Stat(name)
	return fi, true, err
}
