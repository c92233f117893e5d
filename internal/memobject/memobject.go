// Package memobject is an object store in memory, for tests.
package memobject

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// An Fs is an [imagestore.ObjectFs]. What it inherits from the afero.Fs, which
// stays nil, a Store must not call.
type Fs struct {
	afero.Fs
	// Before is called with every operation, and its error returned. It may be nil.
	Before func(op, name string) error

	mu      sync.Mutex
	objects map[string]object
	etags   int
}

type object struct {
	name     string
	data     []byte
	etag     string
	modified time.Time
}

func (o object) Name() string       { return o.name }
func (o object) Size() int64        { return int64(len(o.data)) }
func (o object) Mode() os.FileMode  { return 0o666 }
func (o object) ModTime() time.Time { return o.modified }
func (o object) IsDir() bool        { return false }
func (o object) Sys() any           { return nil }
func (o object) ETag() string       { return o.etag }

// New returns an empty one.
func New() *Fs { return &Fs{objects: make(map[string]object)} }

func (f *Fs) begin(op, name string) (unlock func(), err error) {
	if f.Before != nil {
		err = f.Before(op, name)
	}
	f.mu.Lock()
	return f.mu.Unlock, err
}

func (f *Fs) get(op, name string) (object, error) {
	unlock, err := f.begin(op, name)
	defer unlock()
	o, ok := f.objects[name]
	if !ok {
		err = cmp.Or(err, error(&os.PathError{Op: op, Path: name, Err: os.ErrNotExist}))
	}
	return o, err
}

// PutObject implements [imagestore.ObjectFs].
func (f *Fs) PutObject(ctx context.Context, name string, body io.ReadSeeker, cond imagestore.Precondition) (os.FileInfo, error) {
	data, err := io.ReadAll(body)
	if err := cmp.Or(err, ctx.Err()); err != nil {
		return nil, err
	}
	unlock, err := f.begin("put", name)
	defer unlock()
	if err != nil {
		return nil, err
	}
	old, ok := f.objects[name]
	header, value := cond.Header()
	if header == "If-None-Match" && ok || header == "If-Match" && old.etag != value {
		return nil, imagestore.ErrPrecondition
	}
	f.etags++
	o := object{name, data, `"` + strconv.Itoa(f.etags) + `"`, time.Now()}
	f.objects[name] = o
	return o, nil
}

// ListObjects implements [imagestore.ObjectFs].
func (f *Fs) ListObjects(ctx context.Context, after string) iter.Seq2[os.FileInfo, error] {
	return func(yield func(os.FileInfo, error) bool) {
		unlock, err := f.begin("list", after)
		all := slices.SortedFunc(maps.Values(f.objects), func(a, b object) int { return strings.Compare(a.name, b.name) })
		unlock()
		if err := cmp.Or(err, ctx.Err()); err != nil {
			yield(nil, err)
			return
		}
		for _, o := range all {
			if o.name > after && !yield(o, nil) {
				return
			}
		}
	}
}

// Stat implements [afero.Fs].
func (f *Fs) Stat(name string) (os.FileInfo, error) { return f.get("stat", name) }

// Remove implements [afero.Fs]. It does not say whether there was anything.
func (f *Fs) Remove(name string) error {
	unlock, err := f.begin("remove", name)
	defer unlock()
	if err == nil {
		delete(f.objects, name)
	}
	return err
}

// Open implements [afero.Fs].
func (f *Fs) Open(name string) (afero.File, error) {
	o, err := f.get("open", name)
	if err != nil {
		return nil, err
	}
	return &file{Reader: bytes.NewReader(o.data), o: o}, nil
}

// OpenFile implements [afero.Fs], for reading.
func (f *Fs) OpenFile(name string, flag int, _ os.FileMode) (afero.File, error) {
	if flag != os.O_RDONLY {
		return nil, errors.ErrUnsupported
	}
	return f.Open(name)
}

// Mkdir implements [afero.Fs]: there are no directories to be made.
func (f *Fs) Mkdir(string, os.FileMode) error { return nil }

type file struct {
	afero.File
	*bytes.Reader
	o object
}

func (f *file) Read(p []byte) (int, error)              { return f.Reader.Read(p) }
func (f *file) ReadAt(p []byte, off int64) (int, error) { return f.Reader.ReadAt(p, off) }
func (f *file) Seek(off int64, whence int) (int64, error) {
	return f.Reader.Seek(off, whence)
}
func (f *file) Stat() (os.FileInfo, error) { return f.o, nil }
func (f *file) Close() error               { return nil }
