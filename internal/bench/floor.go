package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/afero"
)

// A floor stores images as a Store does, with the same files and the same
// durability, and does nothing beside the bare system calls for that: it proves
// nothing, checks nothing, locks nothing and has no versions. (afero's OsFs
// only passes the calls on.)
type floor struct {
	fs     afero.Fs
	root   string
	sync   bool
	noDirs bool // syncs the file alone
	// proven does in addition what no store can do without that proves images
	// and tells their versions apart: it takes the checksum of all bytes, looks
	// at what is replaced, sets a time and looks at what has been kept.
	proven bool
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func (f floor) file(id string) string { return filepath.Join(f.root, id, "image.png") }

func (f floor) init() error { return f.fs.MkdirAll(filepath.Join(f.root, ".staging"), 0o777) }

func (f floor) put(id string, r io.Reader) error {
	staged := filepath.Join(f.root, ".staging", rand.Text())
	w, err := f.fs.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	var crc uint32
	for err == nil {
		var n int
		n, err = io.ReadFull(r, buf[:])
		if n > 0 {
			if f.proven {
				crc = crc32.Update(crc, crc32.IEEETable, buf[:n])
			}
			if _, err := w.Write(buf[:n]); err != nil {
				return errors.Join(err, w.Close())
			}
		}
	}
	if err != io.EOF && err != io.ErrUnexpectedEOF {
		return errors.Join(err, w.Close())
	}
	if f.proven {
		_, _ = f.fs.Stat(f.file(id))
		now := time.Now()
		if err := f.fs.Chtimes(staged, now, now); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if f.sync {
		if err := w.Sync(); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	if f.proven {
		if _, err := f.fs.Stat(staged); err != nil {
			return err
		}
	}
	err = f.fs.Rename(staged, f.file(id))
	if errors.Is(err, fs.ErrNotExist) { // tried first because images are replaced too
		if err = f.fs.Mkdir(filepath.Join(f.root, id), 0o777); err == nil {
			err = f.fs.Rename(staged, f.file(id))
		}
	}
	return cmp.Or(err, f.syncDir(id), f.syncDir("."))
}

func (f floor) get(id string, buf []byte) (int, error) {
	r, err := f.fs.Open(f.file(id))
	if err != nil {
		return 0, err
	}
	defer r.Close()
	fi, err := r.Stat()
	if err != nil {
		return 0, err
	}
	return io.ReadFull(r, buf[:fi.Size()])
}

func (f floor) delete(id string) error {
	return cmp.Or(f.fs.Remove(f.file(id)), f.fs.Remove(filepath.Join(f.root, id)), f.syncDir("."))
}

func (f floor) stat(id string) error {
	_, err := f.fs.Stat(f.file(id))
	return err
}

// all returns how many images there are, having looked at each.
func (f floor) all() (n int, err error) {
	d, err := f.fs.Open(f.root)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if f.stat(name) == nil {
			n++
		}
	}
	return n, nil
}

func (f floor) syncDir(name string) error {
	if !f.sync || f.noDirs {
		return nil
	}
	d, err := f.fs.Open(filepath.Join(f.root, name))
	if err != nil {
		return err
	}
	return cmp.Or(d.Sync(), d.Close())
}
