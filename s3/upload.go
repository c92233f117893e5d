package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/fserr"
)

// maxTries bounds the PUTs of one Commit while others change the image.
const maxTries = 100

// An upload is a temporary file of the operating system until Commit.
type upload struct {
	d    *Driver
	f    *os.File
	name string // of the file until it is removed, else ""
	size int64
	done bool // the file is closed and removed
}

// Create begins an upload in a temporary file of the operating system. The
// service gets nothing before Commit.
func (d *Driver) Create(context.Context) (imagestore.Upload, error) {
	f, err := os.CreateTemp("", "imagestore-")
	if err != nil {
		return nil, fileError(err)
	}
	u := &upload{d: d, f: f, name: f.Name()}
	// Where an open file can be removed, a crash leaves nothing behind.
	// Elsewhere Abort removes it.
	if os.Remove(u.name) == nil {
		u.name = ""
	}
	return u, nil
}

// Write appends to the temporary file.
func (u *upload) Write(p []byte) (int, error) {
	n, err := u.f.Write(p)
	u.size += int64(n)
	return n, fileError(err)
}

// Abort removes the temporary file.
func (u *upload) Abort() error {
	if u.done {
		return nil
	}
	u.done = true
	err := u.f.Close()
	if u.name != "" {
		err = errors.Join(err, os.Remove(u.name))
	}
	return err
}

// fileError gives an error of the temporary file its reason.
func fileError(err error) error {
	switch {
	case fserr.IsNoSpace(err):
		return fmt.Errorf("%w: %w", imagestore.ErrNoSpace, err)
	case fserr.IsTooManyFiles(err):
		return unavailable(err)
	}
	return err
}

// Commit sends one PUT. The service decides cond together with the PUT. If the
// image changes between HEAD and PUT, both are sent again.
func (u *upload) Commit(ctx context.Context, id string, meta imagestore.Meta, cond imagestore.Condition) (imagestore.PutResult, error) {
	switch size, err := u.f.Seek(0, io.SeekEnd); {
	case err != nil:
		return imagestore.PutResult{}, err
	case size != u.size:
		return imagestore.PutResult{}, fmt.Errorf("the temporary file has %d of %d bytes", size, u.size)
	}
	p, exact := exactPlan(cond)
	for range maxTries {
		var err error
		if !exact {
			if p, err = u.d.look(ctx, id, cond); err != nil {
				return imagestore.PutResult{}, err
			}
		}
		// Each try has an offset of its own: net/http may still read for the last one.
		info, err := u.d.put(ctx, id, meta, io.NewSectionReader(u.f, 0, u.size), p)
		switch {
		case err == nil:
			_ = u.Abort() // the image is in place, whatever becomes of the file
			return imagestore.PutResult{Info: info, Replaced: p.replaces}, nil
		case !errors.Is(err, imagestore.ErrPreconditionFailed), exact && !isConflict(err):
			return imagestore.PutResult{}, err
		}
	}
	return imagestore.PutResult{}, fmt.Errorf("%w: the image changed during each of %d tries", imagestore.ErrPreconditionFailed, maxTries)
}

// exactPlan returns the plan for a condition that the service can decide as it
// is, without a HEAD before: IfAbsent, or IfMatch with one strong ETag.
func exactPlan(cond imagestore.Condition) (p plan, exact bool) {
	if cond == imagestore.IfAbsent() {
		return plan{ifNoneMatch: "*"}, true
	}
	tag := cond.Header().Get("If-Match")
	opaque := strings.TrimSuffix(strings.TrimPrefix(tag, `"`), `"`)
	if tag == `"`+opaque+`"` && !strings.Contains(opaque, `"`) && cond == imagestore.IfMatch(tag) {
		return plan{ifMatch: tag, replaces: true}, true
	}
	return plan{}, false
}

// look asks for the stored version and plans a PUT that succeeds only on it. An
// upload without condition replaces any version: it asks only to tell whether
// there was one.
func (d *Driver) look(ctx context.Context, id string, cond imagestore.Condition) (plan, error) {
	info, err := d.Stat(ctx, id)
	found := err == nil
	if err != nil && !errors.Is(err, imagestore.ErrNotFound) {
		return plan{}, err
	}
	if err := cond.Check(info.ETag); err != nil {
		return plan{}, err
	}
	switch {
	case cond.IsZero():
		return plan{replaces: found}, nil
	case found:
		return plan{ifMatch: info.ETag, replaces: true}, nil
	}
	return plan{ifNoneMatch: "*"}, nil
}
