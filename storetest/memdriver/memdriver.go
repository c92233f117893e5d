// Package memdriver is an object store in memory, for tests.
package memdriver

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ba692904/imagestore"
)

// A Driver keeps images in memory and works as an object store does: ETags are
// its own, a conditional Commit is one step, and lists leave Type empty.
type Driver struct {
	// Before is called at the beginning of each operation with its name, such
	// as "stat" or "commit", and the id, "" for "create" and "list". The
	// operation fails with the error it returns. It may be nil.
	Before func(op, id string) error
	// ConditionalDelete makes Delete honor conditions. Without it, Delete
	// refuses a condition that holds with ErrNotImplemented.
	ConditionalDelete bool

	mu     sync.Mutex
	images map[string]version
	count  int // versions made so far
}

type version struct {
	imagestore.Info
	data []byte
}

var _ imagestore.Driver = (*Driver)(nil)

// New returns a Driver without images.
func New() *Driver { return &Driver{images: make(map[string]version)} }

func (d *Driver) begin(ctx context.Context, op, id string) error {
	if d.Before != nil {
		if err := d.Before(op, id); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (d *Driver) get(ctx context.Context, op, id string) (version, error) {
	if err := d.begin(ctx, op, id); err != nil {
		return version{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.images[id]
	if !ok {
		return version{}, imagestore.ErrNotFound
	}
	return v, nil
}

// Stat implements [imagestore.Driver].
func (d *Driver) Stat(ctx context.Context, id string) (imagestore.Info, error) {
	v, err := d.get(ctx, "stat", id)
	return v.Info, err
}

// Open implements [imagestore.Driver].
func (d *Driver) Open(ctx context.Context, id string) (*imagestore.Image, error) {
	v, err := d.get(ctx, "open", id)
	if err != nil {
		return nil, err
	}
	return &imagestore.Image{Info: v.Info, ReadSeekCloser: &reader{Reader: bytes.NewReader(v.data)}}, nil
}

// Delete implements [imagestore.Driver].
func (d *Driver) Delete(ctx context.Context, id string, cond imagestore.Condition) error {
	if err := d.begin(ctx, "delete", id); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.images[id]
	if !ok {
		return imagestore.ErrNotFound
	}
	if err := cond.Check(v.ETag); err != nil {
		return err
	}
	if !cond.IsZero() && !d.ConditionalDelete {
		return imagestore.ErrNotImplemented
	}
	delete(d.images, id)
	return nil
}

// List implements [imagestore.Driver]. It lists what is stored when it begins.
func (d *Driver) List(ctx context.Context, opts imagestore.ListOptions) iter.Seq2[imagestore.Info, error] {
	return func(yield func(imagestore.Info, error) bool) {
		if err := d.begin(ctx, "list", ""); err != nil {
			yield(imagestore.Info{}, err)
			return
		}
		d.mu.Lock()
		all := slices.SortedFunc(maps.Values(d.images), func(a, b version) int { return cmp.Compare(a.ID, b.ID) })
		d.mu.Unlock()
		listed := 0
		for _, v := range all {
			if v.ID <= opts.After || !strings.HasPrefix(v.ID, opts.Prefix) {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(imagestore.Info{}, err)
				return
			}
			v.Type, v.Width, v.Height = "", 0, 0
			if !yield(v.Info, nil) {
				return
			}
			if listed++; listed == opts.Limit {
				return
			}
		}
	}
}

// Create implements [imagestore.Driver].
func (d *Driver) Create(ctx context.Context) (imagestore.Upload, error) {
	if err := d.begin(ctx, "create", ""); err != nil {
		return nil, err
	}
	return &upload{d: d}, nil
}

type upload struct {
	d    *Driver
	buf  bytes.Buffer
	done bool
}

var errDone = errors.New("the upload was committed or aborted before")

func (u *upload) Write(p []byte) (int, error) {
	if u.done {
		return 0, errDone
	}
	return u.buf.Write(p)
}

// Commit implements [imagestore.Upload].
func (u *upload) Commit(ctx context.Context, id string, meta imagestore.Meta, cond imagestore.Condition) (imagestore.PutResult, error) {
	if u.done {
		return imagestore.PutResult{}, errDone
	}
	if err := u.d.begin(ctx, "commit", id); err != nil {
		return imagestore.PutResult{}, err
	}
	u.d.mu.Lock()
	defer u.d.mu.Unlock()
	old, replaced := u.d.images[id]
	if err := cond.Check(old.ETag); err != nil {
		return imagestore.PutResult{}, err
	}
	u.done = true
	u.d.count++
	info := imagestore.Info{
		ID:      id,
		Type:    meta.Type,
		Size:    int64(u.buf.Len()),
		Width:   meta.Width,
		Height:  meta.Height,
		ModTime: time.Now().UTC().Round(0), // without the monotonic clock, so that == compares
		ETag:    `"` + strconv.Itoa(u.d.count) + `"`,
	}
	u.d.images[id] = version{info, u.buf.Bytes()}
	return imagestore.PutResult{Info: info, Replaced: replaced}, nil
}

// Abort implements [imagestore.Upload].
func (u *upload) Abort() error {
	u.done = true
	return nil
}

type reader struct {
	*bytes.Reader
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, io.ErrClosedPipe
	}
	return r.Reader.Read(p)
}

func (r *reader) Close() error {
	r.closed = true
	return nil
}
