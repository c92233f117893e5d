package imagestore

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ba692904/imagestore/internal/pngproof"
	"github.com/spf13/afero"
)

const (
	imageFile  = "image.png"
	stagingDir = ".staging"

	// bufferSize is what of an upload is proven before anything is written, and
	// most of what it costs in memory; a form has a second buffer.
	bufferSize = 64 << 10
	// dirBatch is how many names of a directory are held at a time.
	dirBatch = 1024
)

// The limits of a Store whose Options do not say otherwise.
const (
	DefaultMaxBytes  = 64 << 20 // 64 MiB
	DefaultMaxPixels = 1 << 27  // 134 million, what a decoder holds in half a gigabyte
)

// Options change how a Store works. The zero value is what most want.
type Options struct {
	// MaxBytes is the largest image accepted, in bytes. 0 is DefaultMaxBytes.
	MaxBytes int64
	// MaxPixels is the largest width × height accepted. 0 is DefaultMaxPixels.
	MaxPixels int64
	// Deep has every upload inflated as well, without keeping any of it, so that
	// what an encoder got wrong is found too: pixel data that is damaged under a
	// right checksum, too short or too long. It is off because chunk checksums
	// already find all that goes wrong on the way and on the disk, and because
	// photographs then pass at some 60 MB a second and core, not 12 GB: what
	// inflating costs, two thirds of decoding (BenchmarkDeep in internal/pngproof).
	Deep bool
	// NoSync leaves it to the operating system when changes reach the disk.
	// Images stay whole for readers, but a power cut may lose or tear those
	// put in the last minutes and bring back those deleted.
	NoSync bool
}

// A Store keeps images on a filesystem, which may be an [ObjectFs]. All its
// methods may be called concurrently; what they return matches the errors of
// this package.
type Store struct {
	fs      afero.Fs
	objects ObjectFs // the same, if it is one
	opts    Options
	locks   locks
	cache   cache
	// deleted is the latest version deleted, in ns since 1970: one that is put
	// afterwards must be later, also where the filesystem's times are coarse or
	// the clock has been set back.
	deleted atomic.Int64
}

// Info describes one version of an image.
type Info struct {
	ID   string `json:"id"`
	Size int64  `json:"size"` // in bytes
	// ModTime is when the image was put, in UTC and to the second, which is
	// what HTTP's Last-Modified can tell.
	ModTime time.Time `json:"modified"`
	// ETag tells the versions of an image apart: a strong entity tag (RFC
	// 9110, section 8.8.3) with its quotes, fit for IfMatch.
	ETag string `json:"etag"`
}

// An Image is an open image: what it is and its bytes. It must be closed. It
// stays whole while it is open, even if the image is replaced or deleted, and
// is for one goroutine at a time.
type Image struct {
	Info
	io.ReadSeekCloser
}

// New returns a Store that keeps its images in the root of fsys, which
// [afero.NewBasePathFs] can make any directory. Nil options are the defaults.
// It does no I/O. The first Put makes the root if it is missing, but that the
// root is there is for the caller to make durable. fsys must allow to be used
// concurrently, even if the Store is not. Several Stores, also of several
// processes, may share a real directory; a [afero.MemMapFs] must belong to one
// Store.
func New(fsys afero.Fs, opts *Options) *Store {
	s := &Store{fs: fsys}
	s.objects, _ = fsys.(ObjectFs)
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.MaxBytes <= 0 {
		s.opts.MaxBytes = DefaultMaxBytes
	}
	s.opts.MaxBytes = min(s.opts.MaxBytes, math.MaxInt64/2) // there is always room to add to it
	if s.opts.MaxPixels <= 0 {
		s.opts.MaxPixels = DefaultMaxPixels
	}
	return s
}

// Put stores what r holds, a PNG, under id and returns what is now stored. An
// image that was there is replaced, at once for every reader; if Put fails, it
// is still there. When Put has returned nil, the image survives a power cut.
//
// The bytes are proven while they are read and nothing is written for an image
// that fails within its first 64 KiB. Errors: [ErrInvalidID], [ErrBadRequest],
// [ErrNotPNG], [ErrBroken], [ErrTooLarge], [ErrPrecondition], [ErrReadOnly],
// [ErrNoSpace], ctx's, r's and the filesystem's. One case is special: when
// everything but the last step, syncing a directory, went well, the error says
// so, the new image is what readers see, and a power cut may bring back the old.
func (s *Store) Put(ctx context.Context, id string, r io.Reader, conds ...Precondition) (info Info, err error) {
	defer wrap("put", id, &err)
	info, _, err = s.put(ctx, id, r, conds, false)
	return info, err
}

// put is the one way into the store, and the rename in it the one moment at
// which an image comes into being. On an ObjectFs, replaced is only right if
// there are conditions or the caller wants to know.
func (s *Store) put(ctx context.Context, id string, r io.Reader, conds []Precondition, wantReplaced bool) (info Info, replaced bool, err error) {
	if err := CheckID(id); err != nil {
		return Info{}, false, err
	}
	var early Info
	if len(conds) > 0 || wantReplaced && s.objects != nil { // not decided here, but worth knowing before the body is read
		if early, _, err = s.current(id, conds); err != nil {
			return Info{}, false, err
		}
	}

	up := &upload{s: s, fs: s.fs}
	defer up.discard()
	if err := up.receive(ctx, r); err != nil {
		return Info{}, false, err
	}
	if s.objects != nil {
		return s.putObject(ctx, id, up, early.ETag, conds)
	}

	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return Info{}, false, err
	}
	defer unlock()
	old, oldVersion, err := s.current(id, conds)
	if err != nil {
		return Info{}, false, err
	}
	// Under the lock, so that the version is later than the one it replaces.
	version, err := up.seal(max(oldVersion, s.deleted.Load()))
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.publish(up.name, id, old.ETag == "")
	}
	if err != nil {
		return Info{}, false, fsError(err)
	}
	up.published = true
	if err := s.syncChange(id); err != nil {
		return Info{}, false, fmt.Errorf("the image is in place, but may not outlast a power cut: %w", fsError(err))
	}
	return newInfo(id, up.size, version), old.ETag != "", nil
}

// An upload is a file in the staging directory, or a temporary one of the
// operating system if the store is on an ObjectFs.
type upload struct {
	s         *Store
	fs        afero.Fs // that it is on
	name      string
	f         afero.File // nil before the first byte is written and after seal
	size      int64
	published bool
}

// receive proves and stages what r holds. The file is created only when the
// first buffer has passed, so that most bad uploads never touch the disk.
func (u *upload) receive(ctx context.Context, r io.Reader) error {
	proof := u.s.prove(r)
	defer proof.Close()
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for {
		n, readErr := fill(ctx, proof, buf[:])
		if readErr != nil && readErr != io.EOF {
			return proofError(readErr)
		}
		if u.f == nil {
			if err := u.create(); err != nil {
				return fsError(err)
			}
		}
		if _, err := u.f.Write(buf[:n]); err != nil {
			return fsError(err)
		}
		u.size += int64(n)
		if readErr == io.EOF {
			return nil
		}
	}
}

// prove wraps a reader in everything that an image must pass. It is the one
// place that decides what may be stored.
func (s *Store) prove(r io.Reader) *pngproof.Reader {
	limited := &limitReader{r, s.opts.MaxBytes, tooManyBytes(s.opts.MaxBytes)}
	return pngproof.NewReader(limited, pngproof.Config{MaxPixels: s.opts.MaxPixels, Deep: s.opts.Deep})
}

// create opens a new file under a name that nobody else can have: MemMapFs
// does not keep the promise of O_EXCL.
func (u *upload) create() (err error) {
	if u.s.objects != nil {
		return u.createTemp()
	}
	u.name = path.Join(stagingDir, rand.Text())
	open := func() (afero.File, error) {
		return u.fs.OpenFile(u.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	}
	u.f, err = open()
	if isNotExist(err) {
		if err := u.fs.MkdirAll(stagingDir, 0o777); err != nil {
			return err
		}
		u.f, err = open()
	}
	return err
}

// seal gives the file a version later than after, makes both durable and
// closes it.
func (u *upload) seal(after int64) (version int64, err error) {
	if version, err = u.stamp(after); err != nil {
		return 0, err
	}
	if !u.s.opts.NoSync {
		if err := u.f.Sync(); err != nil {
			return 0, err
		}
	}
	f := u.f
	u.f = nil
	if err := f.Close(); err != nil {
		return 0, err
	}
	fi, err := u.fs.Stat(u.name)
	if err != nil {
		return 0, err
	}
	if fi.Size() != u.size {
		return 0, fmt.Errorf("the filesystem kept %d of %d bytes", fi.Size(), u.size)
	}
	if fi.ModTime().UnixNano() != version { // MemMapFs counts closing as a change
		t := time.Unix(0, version)
		return version, u.fs.Chtimes(u.name, t, t)
	}
	return version, nil
}

// stamp gives the file a modification time that no version of its image had
// before, and returns it as the filesystem keeps it.
func (u *upload) stamp(after int64) (version int64, err error) {
	// Two seconds are the coarsest step that a filesystem is known to have.
	for _, step := range [...]time.Duration{0, 2 * time.Second} {
		// The clock may stand still or have been set back.
		t := time.Unix(0, max(time.Now().UnixNano(), after+1)).Add(step)
		if err := u.fs.Chtimes(u.name, t, t); err != nil && !isUnsupported(err) {
			return 0, err
		}
		fi, err := u.fs.Stat(u.name)
		if err != nil {
			return 0, err
		}
		if version = fi.ModTime().UnixNano(); version > after {
			return version, nil
		}
	}
	return 0, fmt.Errorf("the filesystem keeps no modification time later than %v", time.Unix(0, after).UTC())
}

// raise makes a at least v.
func raise(a *atomic.Int64, v int64) {
	for old := a.Load(); old < v && !a.CompareAndSwap(old, v); old = a.Load() {
	}
}

// discard removes what was staged unless it has become an image.
func (u *upload) discard() {
	if u.f != nil {
		u.f.Close()
	}
	if u.name != "" && !u.published {
		u.fs.Remove(u.name)
	}
}

// publish moves a finished file to where readers find it.
func (s *Store) publish(staged, id string, mkdir bool) (err error) {
	made := false
	// A process that deletes the image may take the directory away between the
	// two steps, but hardly every time.
	for try := range 100 {
		if mkdir || try > 0 {
			now, err := s.mkdir(id)
			if err == nil && !now && try > 0 {
				err = s.materialize(id)
			}
			if err != nil && !isNotExist(err) {
				return err
			}
			made = made || now
		}
		if err = s.fs.Rename(staged, imagePath(id)); !isNotExist(err) {
			break
		}
		if _, statErr := s.fs.Stat(staged); statErr != nil {
			break // somebody has removed the file instead
		}
	}
	if err != nil && made {
		s.fs.Remove(id) // which only an empty directory is
	}
	return err
}

// mkdir makes a directory unless it is there, and says which.
func (s *Store) mkdir(name string) (made bool, err error) {
	err = s.fs.Mkdir(name, 0o777)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err == nil, nil
	}
	if fi, statErr := s.fs.Stat(name); statErr == nil && fi.IsDir() {
		return false, nil // SFTP only says that it failed
	}
	return false, err
}

// materialize has a union filesystem make a directory of its base in the layer
// that it writes to, which it does only for a file in it.
func (s *Store) materialize(dir string) error {
	name := path.Join(dir, rand.Text())
	f, err := s.fs.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return cmp.Or(f.Close(), s.fs.Remove(name))
}

// Get opens the image for reading. The caller closes it. ctx matters only while
// Get runs. Errors: [ErrInvalidID], [ErrNotFound], ctx's and the filesystem's.
func (s *Store) Get(ctx context.Context, id string) (img *Image, err error) {
	defer wrap("get", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return nil, err
	}
	if c := s.cache.peek(id); c != nil {
		if fi, err := s.fs.Stat(imagePath(id)); err == nil && c.is(fi) {
			return c.open(), nil
		}
		s.cache.drop(id)
	}
	f, fi, err := s.open(id)
	if err != nil {
		return nil, err
	}
	info := s.infoOf(id, fi)
	if file, ok := unwrap(f).(*os.File); ok && info.Size <= smallSize {
		defer f.Close()
		return s.load(info, file, fi)
	}
	return &Image{info, f}, nil
}

// open opens the file of an image.
func (s *Store) open(id string) (afero.File, os.FileInfo, error) {
	f, err := s.fs.Open(imagePath(id))
	if err != nil {
		return nil, nil, notFound(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

// Stat describes the image without opening it. Errors are those of Get.
func (s *Store) Stat(ctx context.Context, id string) (info Info, err error) {
	defer wrap("stat", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return Info{}, err
	}
	info, _, err = s.stat(id)
	return info, err
}

// Verify reads the image and proves it once more, as Put did. It returns nil if
// the image is whole, and an error that matches [ErrBroken] or [ErrNotPNG] if it
// is not; other errors are those of Get. The limits on size do not matter here.
func (s *Store) Verify(ctx context.Context, id string) (err error) {
	defer wrap("verify", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return err
	}
	f, _, err := s.open(id) // not Get, which may have it in memory
	if err != nil {
		return err
	}
	defer f.Close()
	proof := pngproof.NewReader(f, pngproof.Config{Deep: s.opts.Deep})
	defer proof.Close()
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for err == nil {
		_, err = fill(ctx, proof, buf[:])
	}
	if err == io.EOF {
		return nil
	}
	return proofError(err)
}

// Delete removes the image and its directory, unless somebody keeps other files
// in there. When it has returned nil, a power cut does not bring the image
// back; an error that says that the image is gone means that it may.
// Errors: [ErrInvalidID], [ErrBadRequest], [ErrNotFound], [ErrPrecondition],
// [ErrReadOnly], ctx's and the filesystem's.
func (s *Store) Delete(ctx context.Context, id string, conds ...Precondition) (err error) {
	defer wrap("delete", id, &err)
	if err := CheckID(id); err != nil {
		return err
	}
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	old, version, err := s.stat(id)
	if err == nil {
		err = cmp.Or(check(conds, old.ETag), ctx.Err())
	}
	if err != nil {
		return err
	}
	if s.objects != nil {
		return s.deleteObject(id, conds)
	}
	raise(&s.deleted, version)
	if err := s.remove(id, version, len(conds) > 0); err != nil {
		return fsError(err)
	}
	if err := s.syncDeleted(id); err != nil {
		return fmt.Errorf("the image is gone, but a power cut may bring it back: %w", fsError(err))
	}
	return nil
}

// remove removes the file of an image. Unless only this version is meant, it
// removes as well an older one that takes its place: another process may have
// been about to put it, or a union filesystem has it in a lower layer.
func (s *Store) remove(id string, version int64, only bool) error {
	for removed := false; ; {
		err := s.fs.Remove(imagePath(id))
		if err != nil && !isNotExist(err) {
			return err
		}
		removed = removed || err == nil
		_, left, statErr := s.stat(id)
		switch {
		case statErr != nil && !errors.Is(statErr, ErrNotFound):
			return statErr
		case statErr == nil && left == version:
			return &fault{kind: ErrReadOnly, detail: "the image lies in a part of the filesystem that is read-only"}
		case statErr == nil && left < version && !only:
			version = left
		case !removed:
			return notFound(err) // another process was faster
		default:
			return nil
		}
	}
}

// syncDeleted removes the directory of a deleted image if it is empty, and
// makes the deletion durable.
func (s *Store) syncDeleted(id string) error {
	// Asked first because MemMapFs removes a directory with all that is in it.
	empty, err := s.isEmpty(id)
	if err == nil && empty {
		err = s.fs.Remove(id)
	}
	if isNotExist(err) || errors.Is(err, fs.ErrExist) {
		err = nil // another process has removed it, or has put the image anew
	}
	return cmp.Or(err, s.syncChange(id))
}

func (s *Store) isEmpty(dir string) (bool, error) {
	d, err := s.fs.Open(dir)
	if err != nil {
		return false, err
	}
	names, err := d.Readdirnames(1)
	if err == io.EOF {
		err = nil
	}
	return len(names) == 0, cmp.Or(err, d.Close())
}

// All iterates over the images in no particular order and in constant memory.
// Images that come or go meanwhile may be seen or missed; all others are seen
// exactly once. An error about one image comes with an Info that has its ID, and
// the iteration goes on if the caller wants; any other error ends it.
func (s *Store) All(ctx context.Context) iter.Seq2[Info, error] {
	if s.objects != nil {
		return s.allObjects(ctx, "")
	}
	return func(yield func(Info, error) bool) {
		for id, err := range s.ids(ctx) {
			info := Info{ID: id}
			if err == nil {
				info, _, err = s.stat(id)
			}
			if errors.Is(err, ErrNotFound) {
				continue // a directory is not yet an image
			}
			if err != nil {
				info = Info{ID: id}
			}
			wrap("list", id, &err)
			if !yield(info, err) {
				return
			}
		}
	}
}

// page returns the first limit images after an id, in the order of ids, and
// whether there are more. It looks at all names and keeps at most 2 × limit.
func (s *Store) page(ctx context.Context, after string, limit int) (page []Info, more bool, err error) {
	if s.objects != nil {
		return s.pageObjects(ctx, after, limit)
	}
	defer wrap("list", "", &err)
	names := make([]string, 0, 2*limit+2)
	for rest := true; rest; after = names[len(names)-1] {
		names, rest = names[:0], false
		cut := func() {
			slices.Sort(names)
			if len(names) > limit+1 {
				names, rest = names[:limit+1], true
			}
		}
		for id, err := range s.ids(ctx) {
			if err != nil {
				return nil, false, err
			}
			if id <= after {
				continue
			}
			if len(names) == cap(names) {
				cut()
			}
			names = append(names, id)
		}
		cut()
		for _, id := range names {
			info, _, err := s.stat(id)
			if errors.Is(err, ErrNotFound) {
				continue // and if that makes the page short, there is another round
			}
			if err != nil {
				return nil, false, err
			}
			if len(page) == limit {
				return page, true, nil
			}
			page = append(page, info)
		}
		if len(names) == 0 {
			break
		}
	}
	return page, false, nil
}

// Sweep removes what crashes have left behind: staged files that nobody has
// written to for longer than olderThan, and directories as old that hold
// nothing. It returns how many it removed. It may run while this and other
// processes use the store, if olderThan is longer than an upload may stand
// still; an upload that is swept away fails and harms nothing.
func (s *Store) Sweep(ctx context.Context, olderThan time.Duration) (removed int, err error) {
	defer wrap("sweep", "", &err)
	if s.objects != nil {
		return 0, nil // nothing is ever staged there
	}
	before := time.Now().Add(-olderThan)
	remove := func(name string) error {
		fi, err := s.fs.Stat(name)
		if err == nil && fi.ModTime().Before(before) {
			if err = s.fs.Remove(name); err == nil {
				removed++
			}
		}
		if isNotExist(err) {
			err = nil // it went by itself
		}
		return fsError(err)
	}
	for name, err := range s.names(ctx, stagingDir) {
		if err == nil {
			err = remove(path.Join(stagingDir, name))
		}
		if err != nil {
			return removed, err
		}
	}
	for id, err := range s.ids(ctx) {
		if err != nil {
			return removed, err
		}
		if _, _, err := s.stat(id); !errors.Is(err, ErrNotFound) {
			continue
		}
		unlock, err := s.locks.lock(ctx, id)
		if err != nil {
			return removed, err
		}
		if empty, err2 := s.isEmpty(id); err2 == nil && empty {
			if err = remove(id); errors.Is(err, fs.ErrExist) {
				err = nil // another process has put an image
			}
		}
		unlock()
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// ids iterates over the names in the root that can be ids.
func (s *Store) ids(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range s.names(ctx, ".") {
			if (err != nil || CheckID(name) == nil) && !yield(name, err) {
				return
			}
		}
	}
}

// names iterates over the names in a directory. After an error it ends.
func (s *Store) names(ctx context.Context, dir string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		d, err := s.fs.Open(dir)
		if isNotExist(err) {
			return // nothing was ever put
		}
		if err != nil {
			yield("", err)
			return
		}
		defer d.Close()
		batch := -1
		if _, ok := unwrap(d).(*os.File); ok {
			// Elsewhere batches are not safe: MemMapFs counts from the start
			// again each time and skips or panics when names have gone.
			batch = dirBatch
		}
		for err == nil {
			var names []string
			names, err = d.Readdirnames(batch)
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

// stat describes the image that is stored now and returns its version.
func (s *Store) stat(id string) (Info, int64, error) {
	fi, err := s.fs.Stat(imagePath(id))
	if err != nil {
		return Info{}, 0, notFound(err)
	}
	if !fi.Mode().IsRegular() {
		return Info{}, 0, ErrNotFound
	}
	version := fi.ModTime().UnixNano()
	if c := s.cache.peek(id); c != nil && c.is(fi) {
		return c.Info, version, nil
	}
	return s.infoOf(id, fi), version, nil
}

// current is stat for a change that depends on what is stored. No image is as
// good as one here, and has the ETag "".
func (s *Store) current(id string, conds []Precondition) (Info, int64, error) {
	info, version, err := s.stat(id)
	if err == nil || errors.Is(err, ErrNotFound) {
		err = check(conds, info.ETag)
	}
	return info, version, err
}

// syncChange makes durable what has changed under an id. The root is synced even
// if the image's directory is not new: another process may have made it and not
// have come to that yet. Both Syncs run at the same time, so that a journal has
// one commit for them, and for those of other changes that wait for it.
func (s *Store) syncChange(id string) error {
	if s.opts.NoSync || runtime.GOOS == "windows" { // Windows cannot, and needs not
		return nil
	}
	var wg sync.WaitGroup
	var rootErr error
	var panicked any // by a filesystem; here, whoever called the Store can recover
	wg.Go(func() {
		defer func() { panicked = recover() }()
		rootErr = s.syncDir(".")
	})
	err := s.syncDir(id)
	wg.Wait()
	if panicked != nil {
		panic(panicked)
	}
	return cmp.Or(rootErr, err)
}

// syncDir makes the entries of a directory durable.
func (s *Store) syncDir(name string) error {
	d, err := s.fs.Open(name)
	if isNotExist(err) {
		return nil // deleted by another process, which syncs what that changed
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	if isUnsupported(err) {
		err = nil
	}
	return cmp.Or(err, d.Close())
}

func imagePath(id string) string { return id + "/" + imageFile }

func newInfo(id string, size, version int64) Info {
	return Info{
		ID:      id,
		Size:    size,
		ModTime: time.Unix(0, version).UTC().Truncate(time.Second),
		ETag:    `"` + strconv.FormatInt(version, 36) + "-" + strconv.FormatInt(size, 36) + `"`,
	}
}

// infoOf describes the image in a file.
func (s *Store) infoOf(id string, fi os.FileInfo) Info {
	if s.objects != nil {
		return objectInfo(id, fi)
	}
	return newInfo(id, fi.Size(), fi.ModTime().UnixNano())
}

func notFound(err error) error {
	if isNotExist(err) {
		return &fault{kind: ErrNotFound, cause: err}
	}
	return err
}

// proofError gives the verdict of the proof its kind.
func proofError(err error) error {
	e, ok := errors.AsType[*pngproof.Error](err)
	if !ok {
		return err
	}
	kind := ErrBroken
	switch e.Kind {
	case pngproof.ErrNotPNG:
		kind = ErrNotPNG
	case pngproof.ErrTooManyPixels:
		kind = ErrTooLarge
	}
	return &fault{kind: kind, detail: fmt.Sprintf("%s (at byte %d)", e.Detail, e.Offset)}
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// fill reads until buf is full or r has ended: a few large writes cost less
// than the many small ones that a part of a multipart body would cause.
func fill(ctx context.Context, r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		if err = ctx.Err(); err == nil {
			var m int
			m, err = r.Read(buf[n:])
			n += m
		}
	}
	return n, err
}

// A limitReader fails, rather than ends, when there is more than allowed.
type limitReader struct {
	r    io.Reader
	left int64
	err  error
}

func (l *limitReader) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		p = p[:l.left+1] // one byte too many tells that there are too many
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		l.left = 0 // again the next time
		return 0, l.err
	}
	return n, err
}

func tooManyBytes(limit int64) error {
	return &fault{kind: ErrTooLarge, detail: fmt.Sprintf("no more than %d bytes are allowed", limit)}
}

// locks holds a lock for every id in use.
type locks struct {
	mu sync.Mutex
	m  map[string]*idLock
}

type idLock struct {
	held  chan struct{} // has room for the one holder
	users int           // holder and waiters, guarded by locks.mu
}

// lock waits until nobody else holds the id, or ctx is done.
func (l *locks) lock(ctx context.Context, id string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.m[id]
	if k == nil {
		if l.m == nil {
			l.m = make(map[string]*idLock)
		}
		k = &idLock{held: make(chan struct{}, 1)}
		l.m[id] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.m, id)
		}
	}
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
