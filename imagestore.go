package imagestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ba692904/imagestore/internal/verify"
	"github.com/spf13/afero"
)

// The limits of a Store whose Options set none.
const (
	DefaultMaxBytes           = 64 << 20 // 64 MiB
	DefaultMaxPixels          = 1 << 27  // 134 million, which a decoder holds in half a gigabyte
	DefaultMaxAnimationPixels = 1 << 30  // 518 frames of 1920 × 1080
)

// Options configure a Store. The zero value is fit for most.
type Options struct {
	// Formats are the formats accepted. An empty list is PNG alone. The bytes of an
	// upload decide which format it has.
	Formats []Format
	// MaxBytes is the largest image accepted, in bytes. 0 is DefaultMaxBytes.
	MaxBytes int64
	// MaxPixels is the largest width × height accepted. 0 is DefaultMaxPixels.
	MaxPixels int64
	// MaxAnimationPixels is the largest width × height × number of frames accepted of
	// an animation. 0 is DefaultMaxAnimationPixels.
	MaxAnimationPixels int64
	// StripMetadata stores every image without what is not needed to show it: the
	// place, the camera, texts, thumbnails. The pixels, the colour profile, animation
	// and orientation stay as they are. An image that cannot be stripped is refused.
	// docs/formats.md says what is kept of each format.
	StripMetadata bool
	// VerifyPixels decompresses every upload too, without keeping the pixels. This
	// finds pixel data that is damaged, too short or too long. Only PNG has checksums,
	// which find the damage of transfers and disks without it. Decompressing takes two
	// thirds of the time of decoding a PNG. docs/formats.md says what is decompressed of
	// each format.
	VerifyPixels bool
	// NoSync leaves it to the operating system when changes reach the disk.
	// Readers still see whole images. A power cut may lose or tear what was
	// put in the last minutes, and bring back what was deleted.
	NoSync bool
}

// A Store keeps images by id. It checks ids, conditions and limits and
// validates uploads; a [Driver] keeps the bytes. Its methods are safe for
// concurrent use. Their errors match the reasons of this package.
type Store struct {
	driver Driver
	opts   Options
	types  []string // the media types of opts.Formats
}

// New returns a Store that keeps its images in the root of fsys. Use
// [afero.NewBasePathFs] for another directory, or [OpenDir] for one of the
// operating system. Nil options are the defaults.
//
// New does no I/O. The first Put creates the root if it is missing; making the
// root itself durable is up to the caller. fsys must be safe for concurrent
// use. Several Stores, also of several processes, may share a real directory.
// An [afero.MemMapFs] must belong to one Store.
func New(fsys afero.Fs, opts *Options) *Store {
	return NewWithDriver(newDirDriver(fsys, opts != nil && opts.NoSync), opts)
}

// OpenDir returns a Store that keeps its images in a directory of the operating
// system. It creates the directory durably if it is missing. It stages a file to
// find out whether uploads can be stored. A full disk is no error, because images
// can still be read, and deleted to make room. Neither is a read-only filesystem.
// Nil options are the defaults.
//
// The Store never creates the directory again. Its methods fail with [ErrUnavailable]
// while the directory is gone, such as after an unmount.
func OpenDir(dir string, opts *Options) (*Store, error) {
	d, err := openDir(dir, opts != nil && opts.NoSync)
	if err != nil {
		return nil, fmt.Errorf("imagestore: open directory: %w", err)
	}
	return NewWithDriver(d, opts), nil
}

// NewWithDriver returns a Store that keeps its images with d. Nil options are
// the defaults; NoSync is for the driver of [New] alone. NewWithDriver panics if
// Formats has a value that is not a Format of this package.
func NewWithDriver(d Driver, opts *Options) *Store {
	s := &Store{driver: d}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.MaxBytes <= 0 {
		s.opts.MaxBytes = DefaultMaxBytes
	}
	s.opts.MaxBytes = min(s.opts.MaxBytes, math.MaxInt64/2) // so that adding to it cannot overflow
	if s.opts.MaxPixels <= 0 {
		s.opts.MaxPixels = DefaultMaxPixels
	}
	if s.opts.MaxAnimationPixels <= 0 {
		s.opts.MaxAnimationPixels = DefaultMaxAnimationPixels
	}
	if len(s.opts.Formats) == 0 {
		s.opts.Formats = []Format{PNG}
	}
	s.opts.Formats = slices.Compact(slices.Sorted(slices.Values(s.opts.Formats)))
	for _, f := range s.opts.Formats {
		if !slices.Contains(Formats(), f) {
			panic(fmt.Sprintf("imagestore: Options.Formats has %q, which is not a Format of this package", f))
		}
		s.types = append(s.types, string(f))
	}
	return s
}

// Options returns the options of the Store, with the defaults filled in.
func (s *Store) Options() Options {
	opts := s.opts
	opts.Formats = slices.Clone(opts.Formats)
	return opts
}

// Put stores the image that r holds under id. An image that was there is
// replaced in one step; if Put fails, it is still there. When Put has returned
// nil, the image survives a power cut.
//
// The bytes are validated while they are read. Nothing is written for an image
// that fails within its first 64 KiB. Conditions are checked before r is read, and
// again in one step with the change. Errors: [ErrInvalidID], [ErrBadRequest],
// [ErrUnsupportedType], [ErrInvalidImage], [ErrTooLarge],
// [ErrPreconditionFailed], [ErrReadOnly], [ErrNoSpace], [ErrUnavailable],
// [ErrNotImplemented], ctx's, r's and the storage's. After [ErrNotDurable] the new
// image is what readers see, and the result describes it.
func (s *Store) Put(ctx context.Context, id string, r io.Reader, conds ...Condition) (result PutResult, err error) {
	defer wrap("put", id, &err)
	cond, err := s.admit(ctx, id, conds)
	if err != nil {
		return PutResult{}, err
	}
	up := &upload{ctx: ctx, driver: s.driver}
	defer up.abort()
	limited := &limitedReader{ctx: ctx, r: r, left: s.opts.MaxBytes, limit: s.opts.MaxBytes}
	meta, err := verify.Copy(up, limited, verify.Options{
		Types:              s.types,
		MaxPixels:          s.opts.MaxPixels,
		MaxAnimationPixels: s.opts.MaxAnimationPixels,
		VerifyPixels:       s.opts.VerifyPixels,
		StripMetadata:      s.opts.StripMetadata,
	})
	if err != nil {
		return PutResult{}, verifyError(err)
	}
	return up.Commit(ctx, id, Meta(meta), cond)
}

// admit refuses a Put before any of its bytes are read. The commit decides; this
// spares the upload.
func (s *Store) admit(ctx context.Context, id string, conds []Condition) (Condition, error) {
	if err := CheckID(id); err != nil {
		return Condition{}, err
	}
	cond, err := AllOf(conds...)
	if err != nil || cond.IsZero() {
		return cond, err
	}
	info, err := s.driver.Stat(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Condition{}, err
	}
	return cond, cond.Check(info.ETag)
}

// An upload is a driver's, created by the first Write: a bad image that fails
// before that leaves no trace.
type upload struct {
	Upload
	ctx    context.Context
	driver Driver
}

func (u *upload) Write(p []byte) (int, error) {
	if u.Upload == nil {
		up, err := u.driver.Create(u.ctx)
		if err != nil {
			return 0, err
		}
		u.Upload = up
	}
	return u.Upload.Write(p)
}

// abort ignores errors: what it cannot remove, Sweep does.
func (u *upload) abort() {
	if u.Upload != nil {
		_ = u.Abort()
	}
}

// Get opens the image for reading. The caller closes it. ctx only matters while
// Get runs. Errors: [ErrInvalidID], [ErrNotFound], [ErrUnavailable], ctx's and
// the storage's.
func (s *Store) Get(ctx context.Context, id string) (img *Image, err error) {
	defer wrap("get", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return nil, err
	}
	return s.driver.Open(ctx, id)
}

// Stat describes the image. Errors are those of Get.
func (s *Store) Stat(ctx context.Context, id string) (info Info, err error) {
	defer wrap("stat", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return Info{}, err
	}
	return s.driver.Stat(ctx, id)
}

// Delete removes the image. When it has returned nil, a power cut does not
// bring the image back. Errors: [ErrInvalidID], [ErrBadRequest], [ErrNotFound],
// [ErrPreconditionFailed], [ErrReadOnly], [ErrUnavailable], ctx's and the
// storage's; [ErrNotImplemented] for a condition on some object stores. After
// [ErrNotDurable] the image is gone, and a power cut may bring it back.
func (s *Store) Delete(ctx context.Context, id string, conds ...Condition) (err error) {
	defer wrap("delete", id, &err)
	if err := CheckID(id); err != nil {
		return err
	}
	cond, err := AllOf(conds...)
	if err != nil {
		return err
	}
	err = s.driver.Delete(ctx, id, cond)
	if errors.Is(err, ErrNotImplemented) && !cond.IsZero() {
		return &detailedError{kind: ErrNotImplemented, detail: "another process may put a new version at the same moment; delete without a condition", cause: err}
	}
	return err
}

// List iterates over the images in the order of the bytes of their ids, in
// constant memory. Images that come or go meanwhile may be seen or missed; all
// others are seen exactly once.
//
// An error about one image, such as an unreadable one, comes with an Info that has
// the ID alone, and the iteration goes on. Any other error comes with the zero
// Info and ends it: [ErrBadRequest], [ErrUnavailable], ctx's and the storage's.
func (s *Store) List(ctx context.Context, opts ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		if err := cmp.Or(checkListOptions(opts), ctx.Err()); err != nil {
			wrap("list", "", &err)
			yield(Info{}, err)
			return
		}
		for info, err := range s.driver.List(ctx, opts) {
			wrap("list", info.ID, &err)
			if !yield(info, err) || err != nil && info.ID == "" {
				return
			}
		}
	}
}

func checkListOptions(opts ListOptions) error {
	if opts.Limit < 0 {
		return &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("the limit is %d, not a positive number", opts.Limit)}
	}
	for _, part := range []struct{ name, value string }{{"prefix", opts.Prefix}, {"after", opts.After}} {
		if i := strings.IndexFunc(part.value, func(c rune) bool { return !isIDChar(c) }); i >= 0 {
			return &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("%s is %.150q: it may only have the characters of ids, A-Z a-z 0-9 - _ . ~", part.name, part.value)}
		}
	}
	return nil
}

// Verify reads the image from the storage and validates it again, as Put did. It
// returns nil if the image is whole, and an error that matches
// [ErrInvalidImage] or [ErrUnsupportedType] if it is not. Other errors are those
// of Get. The limits on size do not apply, nor does Options.Formats.
func (s *Store) Verify(ctx context.Context, id string) (err error) {
	defer wrap("verify", id, &err)
	if err := cmp.Or(CheckID(id), ctx.Err()); err != nil {
		return err
	}
	open := s.driver.Open
	if d, ok := s.driver.(DirectOpener); ok {
		open = d.OpenDirect
	}
	img, err := open(ctx, id)
	if err != nil {
		return err
	}
	defer img.Close()
	r := &limitedReader{ctx: ctx, r: img, left: math.MaxInt64 - 1}
	_, err = verify.Copy(io.Discard, r, verify.Options{VerifyPixels: s.opts.VerifyPixels})
	return verifyError(err)
}

// Sweep removes uploads that crashes have interrupted and that are older than
// olderThan. It returns their number. One that cannot be removed is an error, and the
// others are removed all the same. It may run while this and other processes use the
// store, if olderThan is longer than an upload may stall. An upload that is swept fails
// and harms nothing. Where the storage keeps nothing of an interrupted upload, Sweep
// does nothing.
func (s *Store) Sweep(ctx context.Context, olderThan time.Duration) (removed int, err error) {
	defer wrap("sweep", "", &err)
	sweeper, ok := s.driver.(Sweeper)
	if !ok {
		return 0, nil
	}
	return sweeper.Sweep(ctx, olderThan)
}

// verifyError returns the error of verify.Copy with its reason.
func verifyError(err error) error {
	e, ok := errors.AsType[*verify.Error](err)
	if !ok {
		return err
	}
	switch e.Kind {
	case verify.ErrUnsupportedType:
		return &detailedError{kind: ErrUnsupportedType, detail: e.Detail}
	case verify.ErrTooManyPixels:
		return &detailedError{kind: ErrTooLarge, detail: e.Detail}
	}
	return &detailedError{kind: ErrInvalidImage, detail: fmt.Sprintf("%s (at byte %d)", e.Detail, e.Offset)}
}

// A limitedReader fails, rather than ends, beyond its limit, and when ctx is
// done.
type limitedReader struct {
	ctx         context.Context
	r           io.Reader
	left, limit int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > l.left {
		p = p[:l.left+1] // one byte more shows that there is too much
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		l.left = 0 // fails again at the next Read
		return 0, tooManyBytes(l.limit)
	}
	return n, err
}

func tooManyBytes(limit int64) error {
	return &detailedError{kind: ErrTooLarge, detail: fmt.Sprintf("at most %d bytes are allowed", limit)}
}
