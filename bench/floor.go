package main

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ba692904/imagestore/internal/verify"
	"github.com/spf13/afero"
)

// A floor stores images in the same files as a Store, as durably, with bare system
// calls. It validates nothing, checks no id or condition, locks nothing and has no
// versions. afero's OsFs adds nothing to the calls.
type floor struct {
	fs     afero.Fs
	root   string
	sync   bool
	noDirs bool // syncs the file alone
	// verified adds the work that validation and versions need at least: it
	// validates the bytes, looks at the image to be replaced, sets a time and
	// looks at the staged file.
	verified bool
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func (f floor) file(id string) string { return filepath.Join(f.root, id, "image") }

func (f floor) init() error { return f.fs.MkdirAll(filepath.Join(f.root, ".staging"), 0o777) }

func (f floor) put(id string, r io.Reader) error {
	staged := filepath.Join(f.root, ".staging", rand.Text())
	if err := f.stage(staged, id, r); err != nil {
		return err
	}
	if f.verified {
		if _, err := f.fs.Stat(staged); err != nil {
			return err
		}
	}
	err := f.fs.Rename(staged, f.file(id))
	if errors.Is(err, fs.ErrNotExist) { // mkdir comes second because images are replaced too
		if err = f.fs.Mkdir(filepath.Join(f.root, id), 0o777); err == nil {
			err = f.fs.Rename(staged, f.file(id))
		}
	}
	return cmp.Or(err, f.syncDir(id), f.syncDir("."))
}

func (f floor) stage(staged, id string, r io.Reader) (err error) {
	w, err := f.fs.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, w.Close()) }()
	if f.verified {
		if _, err := verify.Copy(w, r, verify.Options{}); err != nil {
			return err
		}
		_, _ = f.fs.Stat(f.file(id))
		now := time.Now()
		if err := f.fs.Chtimes(staged, now, now); err != nil {
			return err
		}
	} else if err := copyWhole(w, r); err != nil {
		return err
	}
	if f.sync {
		return w.Sync()
	}
	return nil
}

// copyWhole copies in full buffers, as verify.Copy does.
func copyWhole(w io.Writer, r io.Reader) error {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := io.ReadFull(r, buf[:])
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
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
	_, _, err := f.fs.(afero.Lstater).LstatIfPossible(f.file(id))
	return err
}

// list walks over the root in order, with an Lstat of each image, and returns how
// many images there are.
func (f floor) list() (n int, err error) {
	d, err := f.fs.Open(f.root)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return 0, err
	}
	slices.Sort(names)
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
