package imagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/ba692904/imagestore/internal/keylock"
	"github.com/spf13/afero"
)

const (
	imageType  = "image/png"
	stagingDir = ".staging"
)

// A dirDriver keeps each image as one ordinary file, {id}/image.png, on an
// [afero.Fs]. A version of an image is the modification time of its file, in
// nanoseconds since 1970.
type dirDriver struct {
	dirFiles
	noSync bool
	locks  keylock.Map // by id, for changes
	cache  cache
	// deleted is the latest version that was deleted. A version put afterwards
	// must be later, also where times are coarse or the clock was set back.
	deleted atomic.Int64
}

var (
	_ Driver       = (*dirDriver)(nil)
	_ Sweeper      = (*dirDriver)(nil)
	_ DirectOpener = (*dirDriver)(nil)
)

func newDirDriver(fsys afero.Fs, noSync bool) *dirDriver {
	return &dirDriver{dirFiles: dirFiles{fsys}, noSync: noSync}
}

func version(fi os.FileInfo) int64 { return fi.ModTime().UnixNano() }

func newInfo(id string, size, version int64) Info {
	return Info{
		ID:      id,
		Type:    imageType,
		Size:    size,
		ModTime: time.Unix(0, version).UTC(),
		ETag:    `"` + strconv.FormatInt(version, 36) + "-" + strconv.FormatInt(size, 36) + `"`,
	}
}

func infoOf(id string, fi os.FileInfo) Info { return newInfo(id, fi.Size(), version(fi)) }

// Stat implements [Driver]. It opens the image, because a network filesystem may
// answer a bare stat from its attribute cache. A small image is cached for that, so
// the next Stat does not open it.
func (d *dirDriver) Stat(ctx context.Context, id string) (Info, error) {
	img, err := d.Open(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return img.Info, img.Close()
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
	info := infoOf(id, fi)
	file, ok := unwrap(f).(*os.File)
	if !ok {
		return &Image{info, f}, nil
	}
	if !cacheable(file, fi) {
		return &Image{info, file}, nil
	}
	defer file.Close()
	c, err := readCached(info, file, fi)
	if err != nil {
		return nil, err
	}
	d.cache.add(c)
	return c.open(), nil
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
	return &Image{infoOf(id, fi), f}, nil
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
	return d.open(ctx, id)
}

// statAndCheck checks cond for a change. Without an image, exists is false and
// the version 0.
func (d *dirDriver) statAndCheck(ctx context.Context, id string, cond Condition) (exists bool, v int64, err error) {
	fi, err := d.stat(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, 0, cond.Check("")
	}
	if err != nil {
		return false, 0, err
	}
	return true, version(fi), cond.Check(infoOf(id, fi).ETag)
}

// Delete implements [Driver]. It removes the image's directory too, unless that
// has other files.
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
	storeMax(&d.deleted, v)
	if err := d.remove(ctx, id, v, !cond.IsZero()); err != nil {
		return err
	}
	if err := cmp.Or(d.removeDir(id), d.syncChange(id)); err != nil {
		return goneNotDurable(err)
	}
	return nil
}

func goneNotDurable(err error) error {
	return &detailedError{kind: ErrNotDurable, detail: "the image is gone, but a power cut may bring it back", cause: fsError(err)}
}

// remove removes the image of version v. An older version that takes its place is
// removed too, unless only this one is meant: another process was about to put
// it, or a union filesystem has it in a lower layer.
func (d *dirDriver) remove(ctx context.Context, id string, v int64, only bool) error {
	for removed := false; ; {
		done, left, err := d.removeFile(ctx, id, v)
		removed = removed || done
		switch {
		case err != nil:
			return err
		case left != nil && version(left) == v:
			return &detailedError{kind: ErrReadOnly, detail: "the image is in a part of the storage that is read-only"}
		case left != nil && version(left) < v && !only:
			if err := ctx.Err(); err != nil {
				return err
			}
			v = version(left)
		case !removed:
			return ErrNotFound // another process was faster
		default:
			return nil
		}
	}
}

// removeFile removes the file of an image. It reports whether it did, and returns
// the file that is there afterwards, or nil.
func (d *dirDriver) removeFile(ctx context.Context, id string, v int64) (done bool, left os.FileInfo, err error) {
	err = whileInUse(ctx, func() error {
		err := d.fs.Remove(imagePath(id))
		if err != nil && !fserr.IsNotExist(err) {
			return fsError(err)
		}
		done = done || err == nil
		left, err = d.lstat(imagePath(id))
		switch {
		case fserr.IsNotExist(err) || err == nil && !left.Mode().IsRegular():
			left = nil
			return nil
		case err != nil && done:
			return goneNotDurable(err)
		case err == nil && done && version(left) == v:
			return errStays
		}
		return err
	})
	if errors.Is(err, errStays) {
		err = nil
	}
	return done, left, err
}

// errStays is for a file that is still there after its removal. Windows may keep
// it until the last process closes it.
var errStays = fmt.Errorf("the file is still there: %w", syscall.EBUSY)

// syncChange makes durable what has changed under an id. It syncs the root even
// if the image's directory is not new: another process may have made that and
// not have synced yet.
func (d *dirDriver) syncChange(id string) error {
	if d.noSync {
		return nil
	}
	return syncDirs(d.fs, id, ".")
}

// storeMax makes a at least v.
func storeMax(a *atomic.Int64, v int64) {
	for old := a.Load(); old < v && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}
