package imagestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"path"
	"strings"
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
		return nil, d.fsError(err)
	}
	return u, nil
}

// create opens the staging file. Its name is random because MemMapFs ignores
// O_EXCL.
func (u *dirUpload) create() (err error) {
	u.name = path.Join(stagingDir, rand.Text())
	u.f, err = u.d.createFile(u.name)
	if fserr.IsNotExist(err) {
		if err := u.d.makeStagingDir(); err != nil {
			return err
		}
		if u.f, err = u.d.createFile(u.name); fserr.IsNotExist(err) {
			err = fmt.Errorf("%s is not a directory: %w", stagingDir, err)
		}
	}
	return err
}

// makeStagingDir also makes the root, unless OpenDir has found it before.
func (d *dirDriver) makeStagingDir() (err error) {
	if d.root == nil {
		return d.fs.MkdirAll(stagingDir, 0o777)
	}
	if err = d.checkRoot(d.root); err == nil {
		_, err = d.mkdir(stagingDir)
	}
	return err
}

// isStaged reports whether the name of a file is one that create makes, 26
// characters of [rand.Text].
func isStaged(name string) bool {
	return len(name) == 26 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// Write implements [Upload].
func (u *dirUpload) Write(p []byte) (int, error) {
	n, err := u.f.Write(p)
	u.size += int64(n)
	return n, u.d.fsError(err)
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
	v, err := u.finish(id, old)
	if err != nil {
		return PutResult{}, u.d.fsError(err)
	}
	root, err := u.d.openRoot()
	if err != nil {
		return PutResult{}, u.d.fsError(err)
	}
	if err := u.rename(ctx, id, !exists); err != nil {
		closeRoot(root)
		return PutResult{}, u.d.fsError(err)
	}
	result := PutResult{newInfo(id, u.size, v, meta), exists}
	if err := u.d.syncChange(id, root); err != nil {
		return result, &detailedError{kind: ErrNotDurable, detail: "the image is in place, but a power cut may undo that", cause: u.d.fsError(err)}
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

// finish gives the file a version, makes both durable and closes it. old is the
// version that it replaces. The lock of the id is held.
func (u *dirUpload) finish(id string, old time.Time) (v time.Time, err error) {
	if v, err = u.setVersion(id, old); err != nil {
		return v, err
	}
	if !u.d.noSync {
		if err := u.f.Sync(); err != nil {
			return v, err
		}
	}
	f := u.f
	u.f = nil
	if err := f.Close(); err != nil {
		return v, err
	}
	fi, err := u.d.fs.Stat(u.name)
	if err != nil {
		return v, err
	}
	if fi.Size() != u.size {
		return v, fmt.Errorf("the filesystem kept %d of %d bytes", fi.Size(), u.size)
	}
	if !version(fi).Equal(v) { // MemMapFs sets the time when a file is closed
		return v, u.d.fs.Chtimes(u.name, v, v)
	}
	return v, nil
}

// setVersion gives the file a modification time that no version of its image had
// before. It returns the time as the filesystem keeps it.
func (u *dirUpload) setVersion(id string, old time.Time) (v time.Time, err error) {
	now := time.Now()
	after := latest(now, old, u.d.deleted.get(id))
	next := nextVersion(now, after)
	// Two seconds are the coarsest step that a filesystem is known to have.
	for _, step := range [...]time.Duration{0, 2 * time.Second} {
		t := next.Add(step)
		if err := u.d.fs.Chtimes(u.name, t, t); err != nil && !fserr.IsUnsupported(err) {
			return v, err
		}
		fi, err := u.d.fs.Stat(u.name)
		if err != nil {
			return v, err
		}
		if v = version(fi); later(v, after) && !v.Equal(old) {
			return v, nil
		}
	}
	return v, fmt.Errorf("the filesystem gives a new version the time %v, which is no later than the old one's", v)
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
