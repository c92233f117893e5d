package imagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/ba692904/imagestore/internal/keylock"
	"github.com/ba692904/imagestore/internal/verify"
	"github.com/spf13/afero"
)

const (
	// stagingDir has the uploads that are not committed.
	stagingDir = ".staging"
	// unknownType is the type of a file of another program that is no known image.
	unknownType = "application/octet-stream"
)

// A dirDriver keeps each image as one ordinary file, {id}/image, on an [afero.Fs]. The
// name is the same for all formats, so that a replacement is one rename. The type and
// the size in pixels are read from the file. A version of an image is the modification
// time of its file.
type dirDriver struct {
	dirFiles
	noSync  bool
	locks   keylock.Map // by id, for changes
	cache   cache
	deleted deletions
}

var (
	_ Driver       = (*dirDriver)(nil)
	_ Sweeper      = (*dirDriver)(nil)
	_ DirectOpener = (*dirDriver)(nil)
)

func newDirDriver(fsys afero.Fs, noSync bool) *dirDriver {
	return &dirDriver{dirFiles: dirFiles{fs: fsys}, noSync: noSync}
}

// Stat implements [Driver]. It opens the image, because a network filesystem may
// answer a bare stat from its attribute cache. A small image is cached for that, so
// the next Stat does not open it.
func (d *dirDriver) Stat(ctx context.Context, id string) (Info, error) {
	img, err := d.Open(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return img.Info, d.fsError(img.Close())
}

// Open implements [Driver].
func (d *dirDriver) Open(ctx context.Context, id string) (*Image, error) {
	if c := d.cached(id); c != nil {
		return c.open(), nil
	}
	f, fi, err := d.openLocked(ctx, id)
	if err != nil {
		return nil, err
	}
	file, ok := unwrap(f).(*os.File)
	if !ok {
		return d.newImage(id, fi, f)
	}
	if !cacheable(file, fi) {
		return d.newImage(id, fi, file)
	}
	defer file.Close()
	c, err := readCached(id, file, fi)
	if err != nil {
		return nil, d.fsError(err)
	}
	d.cache.add(c)
	return c.open(), nil
}

// newImage describes an open file. It closes the file if that fails.
func (d *dirDriver) newImage(id string, fi os.FileInfo, f io.ReadSeekCloser) (*Image, error) {
	meta, err := readMeta(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, d.fsError(err)
	}
	return &Image{infoOf(id, fi, meta), f}, nil
}

// readMeta reads what an image says of itself, from its beginning.
func readMeta(r io.Reader) (Meta, error) {
	meta, err := verify.Describe(r)
	if meta.Type == "" {
		meta.Type = unknownType
	}
	return Meta(meta), err
}

// cached returns the image from memory, or nil.
func (d *dirDriver) cached(id string) *cachedImage {
	c := d.cache.get(id)
	if c == nil {
		return nil
	}
	if fi, err := d.lstat(imagePath(id)); err == nil && c.isOf(fi) {
		return c
	}
	d.cache.drop(id)
	return nil
}

// OpenDirect implements [DirectOpener].
func (d *dirDriver) OpenDirect(ctx context.Context, id string) (*Image, error) {
	f, fi, err := d.openLocked(ctx, id)
	if err != nil {
		return nil, err
	}
	return d.newImage(id, fi, f)
}

// openLocked opens the file of an image. Windows does not replace an open file, so
// there readers give way to a change that waits for them.
func (d *dirDriver) openLocked(ctx context.Context, id string) (afero.File, os.FileInfo, error) {
	if runtime.GOOS == "windows" {
		unlock, err := d.locks.Lock(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		defer unlock()
	}
	f, fi, err := d.open(ctx, id)
	return f, fi, d.fsError(err)
}

// statAndCheck checks cond for a change. Without an image, exists is false and
// the version is the zero time.
func (d *dirDriver) statAndCheck(ctx context.Context, id string, cond Condition) (exists bool, v time.Time, err error) {
	fi, err := d.stat(ctx, id)
	err = d.fsError(err)
	if errors.Is(err, ErrNotFound) {
		return false, v, cond.Check("")
	}
	if err != nil {
		return false, v, err
	}
	return true, version(fi), cond.Check(infoOf(id, fi, Meta{}).ETag)
}

// Delete implements [Driver]. It removes the image's directory too, unless that
// has other files or is a link.
func (d *dirDriver) Delete(ctx context.Context, id string, cond Condition) error {
	unlock, err := d.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	exists, v, err := d.statAndCheck(ctx, id, cond)
	if !exists && (err == nil || errors.Is(err, ErrPreconditionFailed)) {
		err = ErrNotFound
	}
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return err
	}
	root, err := d.openRoot()
	if err != nil {
		return d.fsError(err)
	}
	if err := d.remove(ctx, id, v, !cond.IsZero()); err != nil {
		closeRoot(root)
		return err
	}
	d.removeDir(id)
	if err := d.syncChange(id, root); err != nil {
		return d.goneNotDurable(err)
	}
	return nil
}

func (d *dirDriver) goneNotDurable(err error) error {
	return &detailedError{kind: ErrNotDurable, detail: "the image is gone, but a power cut may bring it back", cause: d.fsError(err)}
}

// remove removes the image of version v. Another version may take its place: one
// that another process was about to put, or one in a lower layer of a union
// filesystem. That is removed too, unless only v is meant or the other was put later.
func (d *dirDriver) remove(ctx context.Context, id string, v time.Time, only bool) error {
	for removed := false; ; {
		d.deleted.add(id, v)
		done, left, err := d.removeFile(ctx, id, v)
		removed = removed || done
		switch {
		case err != nil:
			return err
		case left != nil && version(left).Equal(v):
			return &detailedError{kind: ErrReadOnly, detail: "the image is in a part of the storage that is read-only"}
		case left != nil && !putLater(version(left), v) && !only:
			if err := ctx.Err(); err != nil {
				return err
			}
			v = version(left)
		case !removed:
			return cmp.Or(d.checkRoot(d.root), ErrNotFound) // another process was faster
		default:
			return nil
		}
	}
}

// removeFile removes the file of an image. It reports whether it did, and returns
// the file that is there afterwards, or nil.
func (d *dirDriver) removeFile(ctx context.Context, id string, v time.Time) (done bool, left os.FileInfo, err error) {
	err = whileInUse(ctx, func() error {
		err := d.fs.Remove(imagePath(id))
		if err != nil && !fserr.IsNotExist(err) {
			return err
		}
		done = done || err == nil
		left, err = d.lstat(imagePath(id))
		switch {
		case fserr.IsNotExist(err) || err == nil && !left.Mode().IsRegular():
			left = nil
			return nil
		case err != nil && done:
			return d.goneNotDurable(err)
		case err == nil && done && version(left).Equal(v):
			return errStays
		}
		return err
	})
	if errors.Is(err, errStays) {
		err = nil
	}
	return done, left, d.fsError(err)
}

// errStays is for a file that is still there after its removal. Windows may keep
// it until the last process closes it.
var errStays = fmt.Errorf("the file is still there: %w", syscall.EBUSY)
