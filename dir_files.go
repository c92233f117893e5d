package imagestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

const (
	imageFile = "image"
	// dirBatch is how many names of a directory are read at a time.
	dirBatch = 1024
)

// A dirFiles has the operations on files and directories that a store needs, on any
// [afero.Fs].
type dirFiles struct {
	fs afero.Fs
	// root is the root as OpenDir has found it, and nil for other stores.
	root os.FileInfo
}

func imagePath(id string) string { return id + "/" + imageFile }

// lstat does not follow a symbolic link, where the filesystem knows them.
func (d dirFiles) lstat(name string) (os.FileInfo, error) {
	if l, ok := d.fs.(afero.Lstater); ok {
		fi, _, err := l.LstatIfPossible(name)
		return fi, err
	}
	return d.fs.Stat(name)
}

// stat describes the file of an image. Only a regular file is an image.
func (d dirFiles) stat(ctx context.Context, id string) (fi os.FileInfo, err error) {
	err = whileInUse(ctx, func() error {
		fi, err = d.lstat(imagePath(id))
		return err
	})
	if err != nil {
		return nil, notFound(err)
	}
	if !fi.Mode().IsRegular() {
		return nil, ErrNotFound
	}
	return fi, nil
}

// open opens the file of an image. It looks first, because opening a FIFO would
// block, and a symbolic link in the place of the file is not followed. The image's
// directory may be a link: an operator can keep an image on another disk.
func (d dirFiles) open(ctx context.Context, id string) (f afero.File, fi os.FileInfo, err error) {
	if _, ok := d.fs.(afero.Lstater); ok {
		if _, err := d.stat(ctx, id); err != nil {
			return nil, nil, err
		}
	}
	err = whileInUse(ctx, func() error {
		f, err = d.fs.Open(imagePath(id))
		return err
	})
	if err != nil {
		return nil, nil, notFound(err)
	}
	fi, err = f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// unwrap returns the file below afero's wrappers, which hide what an *os.File
// can do.
func unwrap(f afero.File) afero.File {
	for {
		b, ok := f.(*afero.BasePathFile)
		if !ok {
			return f
		}
		f = b.File
	}
}

func (d dirFiles) createFile(name string) (afero.File, error) {
	return d.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// mkdir makes a directory unless it exists, and reports whether it did.
func (d dirFiles) mkdir(name string) (made bool, err error) {
	err = d.fs.Mkdir(name, 0o777)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err == nil, nil
	}
	if fi, statErr := d.fs.Stat(name); statErr == nil && fi.IsDir() {
		return false, nil // SFTP does not say why Mkdir failed
	}
	return false, err
}

// copyUp makes a union filesystem copy a directory of its base into the layer that
// it writes to. It creates a file there, because only that has this effect.
func (d dirFiles) copyUp(dir string) error {
	name := path.Join(dir, rand.Text())
	f, err := d.createFile(name)
	if err != nil {
		return err
	}
	return cmp.Or(f.Close(), d.fs.Remove(name))
}

func (d dirFiles) isEmpty(dir string) (bool, error) {
	f, err := d.fs.Open(dir)
	if err != nil {
		return false, err
	}
	names, err := f.Readdirnames(1)
	if err == io.EOF {
		err = nil
	}
	return len(names) == 0, cmp.Or(err, f.Close())
}

// removeDir removes the directory of a deleted image if it is empty. A link to a
// directory is not the store's, and stays. Errors are ignored: an empty directory is
// not visible, and the next Put uses it.
func (d dirFiles) removeDir(id string) {
	if fi, err := d.lstat(id); err != nil || !fi.IsDir() {
		return
	}
	_ = whileInUse(context.Background(), func() error {
		// isEmpty comes first because MemMapFs removes a directory that is not empty.
		empty, err := d.isEmpty(id)
		if err == nil && empty {
			err = d.fs.Remove(id)
		}
		return err
	})
}

// ids iterates over the names in the root that can be ids, in no order.
func (d dirFiles) ids(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range d.names(ctx, ".") {
			if (err != nil || CheckID(name) == nil) && !yield(name, err) {
				return
			}
		}
	}
}

// names iterates over the names in a directory, in no order. An error ends it.
func (d dirFiles) names(ctx context.Context, dir string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		f, err := d.fs.Open(dir)
		if fserr.IsNotExist(err) {
			return // nothing was ever put
		}
		if err != nil {
			yield("", err)
			return
		}
		defer f.Close()
		batch := -1
		if _, ok := unwrap(f).(*os.File); ok {
			// Batches are safe here only: MemMapFs skips names, or panics, when
			// others are removed between two batches.
			batch = dirBatch
		}
		for err == nil {
			var names []string
			names, err = f.Readdirnames(batch)
			if err == nil && batch < 0 {
				err = io.EOF
			}
			for _, name := range names {
				if ctx.Err() != nil {
					yield("", ctx.Err())
					return
				}
				if !yield(name, nil) {
					return
				}
			}
		}
		if err != io.EOF {
			yield("", err)
		}
	}
}

// inUseTimeout bounds the wait for a file that is open elsewhere, on systems that
// refuse to change one. inUseStep is the time between two tries.
const (
	inUseTimeout = 2 * time.Second
	inUseStep    = 10 * time.Millisecond
)

// whileInUse calls operation again while it fails because the file is open
// elsewhere, for inUseTimeout at most.
func whileInUse(ctx context.Context, operation func() error) error {
	for waited := time.Duration(0); ; waited += inUseStep {
		err := operation()
		if !fserr.IsInUse(err) {
			return err
		}
		if waited >= inUseTimeout {
			return &detailedError{kind: ErrUnavailable, detail: "the image is open elsewhere, and this storage cannot change an open file; try again", cause: err}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(inUseStep):
		}
	}
}

func notFound(err error) error {
	if fserr.IsNotExist(err) {
		return &detailedError{kind: ErrNotFound, cause: err}
	}
	return err
}

// fsError gives an error of the filesystem its reason, where callers care. Every
// error of the driver passes through it.
func (d dirFiles) fsError(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*detailedError](err); ok && e.kind != ErrNotFound {
		return err // it has its reason
	}
	switch {
	case fserr.IsNotExist(err):
		return cmp.Or(d.checkRoot(d.root), err)
	case fserr.IsNoSpace(err):
		return &detailedError{kind: ErrNoSpace, cause: err}
	case fserr.IsReadOnly(err):
		return &detailedError{kind: ErrReadOnly, cause: err}
	case fserr.IsTooManyFiles(err):
		return &detailedError{kind: ErrUnavailable, detail: "too many open files; try again", cause: err}
	case fserr.IsUnreachable(err):
		return &detailedError{kind: ErrUnavailable, detail: "the filesystem does not answer; try again", cause: err}
	case fserr.IsCrossDevice(err):
		return &detailedError{kind: ErrNotImplemented, detail: "the image's directory is on another filesystem than " + stagingDir + ", so an upload cannot be moved there in one step", cause: err}
	}
	return err
}

// identify describes the root, for checkRoot. It returns nil if the root is
// missing, or if the filesystem cannot tell one directory from another.
func (d dirFiles) identify() os.FileInfo {
	fi, err := d.fs.Stat(".")
	// Windows looks at the first SameFile which directory it is.
	if err != nil || !os.SameFile(fi, fi) {
		return nil
	}
	return fi
}

// checkRoot returns an error if the root was moved away, or its disk unmounted. was
// describes the root as it was found before. The root may be replaced by another one
// that has a staging directory.
func (d dirFiles) checkRoot(was os.FileInfo) error {
	if was == nil {
		return nil
	}
	fi, err := d.fs.Stat(".")
	if err == nil && !os.SameFile(was, fi) {
		_, err = d.fs.Stat(stagingDir)
	}
	if fserr.IsNotExist(err) {
		return &detailedError{kind: ErrUnavailable, detail: "the store's directory is gone", cause: err}
	}
	return d.fsError(err)
}
