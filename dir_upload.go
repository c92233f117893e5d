package imagestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// maxRenames is how often a commit tries again when another process keeps
// deleting the image's directory.
const maxRenames = 100

// A dirUpload is a file in the staging directory, until Commit renames it.
type dirUpload struct {
	d    *dirDriver
	name string
	f    afero.File // nil once it is closed
	size int64
	done bool // committed or aborted
}

// Create implements [Driver].
func (d *dirDriver) Create(ctx context.Context) (Upload, error) {
	u := &dirUpload{d: d}
	if err := u.create(); err != nil {
		return nil, fsError(err)
	}
	return u, nil
}

// create opens the staging file. Its name is random because MemMapFs ignores
// O_EXCL.
func (u *dirUpload) create() (err error) {
	u.name = path.Join(stagingDir, rand.Text())
	u.f, err = u.d.createFile(u.name)
	if fserr.IsNotExist(err) {
		if err := u.d.fs.MkdirAll(stagingDir, 0o777); err != nil {
			return err
		}
		u.f, err = u.d.createFile(u.name)
	}
	return err
}

// Write implements [Upload].
func (u *dirUpload) Write(p []byte) (int, error) {
	n, err := u.f.Write(p)
	u.size += int64(n)
	return n, fsError(err)
}

// Commit implements [Upload]. The image becomes visible at the rename.
func (u *dirUpload) Commit(ctx context.Context, id string, meta Meta, cond Condition) (PutResult, error) {
	unlock, err := u.d.locks.Lock(ctx, id)
	if err != nil {
		return PutResult{}, err
	}
	defer unlock()
	exists, old, err := u.d.statAndCheck(ctx, id, cond)
	if err != nil {
		return PutResult{}, err
	}
	// The lock is held, so the version is later than the one that it replaces.
	v, err := u.finish(max(old, u.d.deleted.Load()))
	if err == nil {
		err = u.rename(ctx, id, !exists)
	}
	if err != nil {
		return PutResult{}, fsError(err)
	}
	result := PutResult{newInfo(id, u.size, v), exists}
	if err := u.d.syncChange(id); err != nil {
		return result, &detailedError{kind: ErrNotDurable, detail: "the image is in place, but a power cut may undo that", cause: fsError(err)}
	}
	return result, nil
}

// Abort implements [Upload].
func (u *dirUpload) Abort() (err error) {
	if u.done {
		return nil
	}
	u.done = true
	if u.f != nil {
		err = u.f.Close()
	}
	return cmp.Or(u.d.fs.Remove(u.name), err)
}

// finish gives the file a version later than after, makes both durable and
// closes it.
func (u *dirUpload) finish(after int64) (v int64, err error) {
	if v, err = u.setVersion(after); err != nil {
		return 0, err
	}
	if !u.d.noSync {
		if err := u.f.Sync(); err != nil {
			return 0, err
		}
	}
	f := u.f
	u.f = nil
	if err := f.Close(); err != nil {
		return 0, err
	}
	fi, err := u.d.fs.Stat(u.name)
	if err != nil {
		return 0, err
	}
	if fi.Size() != u.size {
		return 0, fmt.Errorf("the filesystem kept %d of %d bytes", fi.Size(), u.size)
	}
	if version(fi) != v { // MemMapFs sets the time when a file is closed
		t := time.Unix(0, v)
		return v, u.d.fs.Chtimes(u.name, t, t)
	}
	return v, nil
}

// setVersion gives the file a modification time that no version of its image had
// before. It returns the time as the filesystem keeps it.
func (u *dirUpload) setVersion(after int64) (v int64, err error) {
	// Two seconds are the coarsest step that a filesystem is known to have.
	for _, step := range [...]time.Duration{0, 2 * time.Second} {
		// The clock may stand still or have been set back.
		t := time.Unix(0, max(time.Now().UnixNano(), after+1)).Add(step)
		if err := u.d.fs.Chtimes(u.name, t, t); err != nil && !fserr.IsUnsupported(err) {
			return 0, err
		}
		fi, err := u.d.fs.Stat(u.name)
		if err != nil {
			return 0, err
		}
		if v = version(fi); v > after {
			return v, nil
		}
	}
	return 0, fmt.Errorf("the filesystem keeps no modification time later than %v", time.Unix(0, after).UTC())
}

// rename moves the finished file to where readers find it.
func (u *dirUpload) rename(ctx context.Context, id string, mkdir bool) (err error) {
	made := false
	// Another process that deletes the image may remove the directory between
	// the two steps.
	for try := range maxRenames {
		if err = ctx.Err(); err != nil {
			break
		}
		if mkdir || try > 0 {
			var now bool
			now, err = u.d.mkdir(id)
			made = made || now
			if err == nil && !now && try > 0 {
				err = u.d.copyUp(id)
			}
			if err != nil && !fserr.IsNotExist(err) {
				break
			}
		}
		err = whileInUse(ctx, func() error { return u.d.fs.Rename(u.name, imagePath(id)) })
		if !fserr.IsNotExist(err) {
			break
		}
		if _, statErr := u.d.fs.Stat(u.name); statErr != nil {
			break // the staged file was removed, by a Sweep for example
		}
	}
	u.done = err == nil
	if err != nil && made {
		u.d.fs.Remove(id) // an empty directory at most
	}
	return err
}
