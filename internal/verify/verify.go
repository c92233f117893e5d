// Package verify copies an image while it checks that the bytes are one whole,
// well-formed image. It needs constant memory, whatever the size of the image.
//
// Each format has files of its own, which say what is checked and by which
// specification: png.go, jpeg.go, gif.go, webp.go and isobmff.go (AVIF and HEIC).
// There are two depths:
//
//   - By default, [Copy] checks the structure. This finds what goes wrong on the way:
//     truncation, files that were mixed up or joined, and damage where it breaks a
//     rule. Only PNG has checksums, so only there all damage is found.
//   - With [Options.VerifyPixels], Copy also decompresses the image data. It keeps no
//     pixels. This finds what an encoder got wrong, and more of the damage. It does
//     nothing more for AVIF and HEIC.
//
// With [Options.StripMetadata], the copy leaves out what is not needed to show the
// image. Otherwise it is the same, byte for byte.
//
//	meta, err := verify.Copy(file, upload, verify.Options{MaxPixels: 1 << 26})
//	if err != nil {
//		return err // remove the file: it is not, or not wholly, an image
//	}
package verify

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// BufferSize is how much of an image is checked before anything is written.
const BufferSize = 64 << 10

// Options says what to check. The zero value checks the structure of an image of
// any format and size.
type Options struct {
	// Types are the media types to accept. All that are known are accepted if it is
	// empty.
	Types []string

	// MaxPixels is the largest width × height to accept. There is no limit if it
	// is not positive.
	MaxPixels int64

	// MaxAnimationPixels is the largest width × height × number of frames to accept
	// of an animation. There is no limit if it is not positive.
	MaxAnimationPixels int64

	// VerifyPixels decompresses the image data as far as constant memory allows. The
	// file of each format says what is decompressed.
	VerifyPixels bool

	// StripMetadata leaves out what is not needed to show the image.
	StripMetadata bool
}

// accepts reports whether images of a media type are accepted.
func (o Options) accepts(mediaType string) bool {
	return len(o.Types) == 0 || slices.Contains(o.Types, mediaType)
}

// checkPixels returns an error at an offset if the image is too large.
func (o Options) checkPixels(offset, width, height int64) error {
	if o.MaxPixels <= 0 || width <= 0 || height <= o.MaxPixels/width {
		return nil
	}
	return &Error{ErrTooManyPixels, offset,
		fmt.Sprintf("%d x %d is %.0f pixels, at most %d are allowed; scale it down", width, height, float64(width)*float64(height), o.MaxPixels)}
}

// checkFrames returns an error at an offset if the animation is too large so far.
func (o Options) checkFrames(offset, width, height, frames int64) error {
	if o.MaxAnimationPixels <= 0 || frames < 2 || float64(width)*float64(height)*float64(frames) <= float64(o.MaxAnimationPixels) {
		return nil
	}
	return &Error{ErrTooManyPixels, offset,
		fmt.Sprintf("%d x %d in %d or more frames is %.0f pixels, at most %d are allowed; scale it down, or remove frames",
			width, height, frames, float64(width)*float64(height)*float64(frames), o.MaxAnimationPixels)}
}

// Meta is what an image says of itself.
type Meta struct {
	Type          string // media type, such as "image/png"
	Width, Height int    // as displayed, in pixels
}

// The kinds of [Error].
var (
	ErrUnsupportedType = errors.New("unsupported type") // the first bytes are of no accepted format
	ErrInvalid         = errors.New("invalid image")    // a later byte breaks a rule, or is missing
	ErrTooManyPixels   = errors.New("too many pixels")  // more than Options allow
)

// Error says what is wrong with an image. [errors.Is] finds its Kind.
type Error struct {
	Kind error // ErrUnsupportedType, ErrInvalid or ErrTooManyPixels

	// Offset is the position of the first wrong byte in the stream: of a CRC that
	// does not match, of the length or type of a misplaced chunk, of the first
	// missing byte. For wrong pixels it is that of the last byte inflated.
	Offset int64

	// Detail says what is wrong and what helps, for the person who has the image. The
	// words of the format's specification follow a colon. There is no trailing dot.
	Detail string
}

// Error returns the kind, the detail and the offset.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s (at byte %d)", e.Kind, e.Detail, e.Offset)
}

// Unwrap returns the Kind.
func (e *Error) Unwrap() error { return e.Kind }

// Copy copies src to dst and returns what the image says of itself. The copy is
// unchanged, unless metadata is stripped. The error is nil only if src held one whole
// image and dst took all of it.
//
// Copy writes 64 KiB at a time, the last time less, and only bytes that it has
// checked. An image that fails in its first 64 KiB causes no Write. What a later
// byte decides can fail after a Write: the CRC of a chunk, a chunk header across
// two buffers, pixels still in the window of deflate. Then dst holds the
// beginning of a bad image.
//
// Copy checks what a Read returns before it reads again. It returns an [*Error]
// if the bytes are wrong. Otherwise it returns any other error of src than
// io.EOF, or of dst, unchanged.
//
// Copy reads on in two cases, to say more about a stream that it refuses. It counts
// the bytes that follow a whole image. It looks into the first 12 bytes of some other
// formats. An error of src then ends the reading and is not returned. These bytes are
// not written.
func Copy(dst io.Writer, src io.Reader, opts Options) (Meta, error) {
	r := newReader(dst, src)
	defer r.release()
	meta, err := check(r, opts)
	if err == nil {
		err = r.flush()
	}
	if err != nil {
		return Meta{}, err
	}
	return meta, nil
}

// Describe returns what an image says of itself. src is at its beginning. Describe reads
// no further than it must, seeks over what it need not read if src can, and does not
// check the rest. Where the bytes are wrong, Meta has the type alone, or nothing. So it
// does after the first MiB that was read. The only errors are those of src.
func Describe(src io.Reader) (Meta, error) {
	r := newReader(io.Discard, src)
	defer r.release()
	r.describe, r.budget = true, describeMost
	r.seeker, _ = src.(io.Seeker)
	meta, err := check(r, Options{})
	if err == nil || err == errDescribed {
		return meta, nil
	}
	if _, ok := errors.AsType[*Error](err); ok || err == errTooFar {
		return Meta{Type: meta.Type}, nil
	}
	return Meta{}, err
}

// These end a Describe.
var (
	errDescribed = errors.New("described")
	errTooFar    = errors.New("not described within the bytes that may be read")
)

// described returns errDescribed if only a description is wanted. The checks of the
// formats call it, and return its error, when all of Meta is known.
func (r *reader) described() error {
	if r.describe {
		return errDescribed
	}
	return nil
}

// check finds out what r holds and reads all of it. With an error, Meta may have the
// type.
func check(r *reader, opts Options) (Meta, error) {
	var head []byte
	for n := 1; n <= headSize; n++ { // so that nothing is awaited that cannot matter
		var err error
		if head, err = r.peek(n); err != nil {
			return Meta{}, err
		}
		begins := func(f format) bool { return f.begins(head) && slices.ContainsFunc(f.types, opts.accepts) }
		i := slices.IndexFunc(formats, begins)
		if i < 0 {
			break
		}
		if n == headSize || len(head) < n {
			meta, err := formats[i].check(r, opts)
			if meta.Type == "" && len(formats[i].types) == 1 {
				meta.Type = formats[i].types[0]
			}
			return meta, err
		}
	}
	return Meta{}, unsupported(r, head, opts)
}

func invalid(offset int64, format string, args ...any) error {
	return &Error{ErrInvalid, offset, fmt.Sprintf(format, args...)}
}

// wrong returns an error in what is not known to be as its encoder wrote it.
func wrong(offset int64, format string, args ...any) error {
	return invalid(offset, "damaged or saved wrongly; send it again, or save it with another program: "+format, args...)
}

// damaged returns an error in what no encoder writes.
func damaged(offset int64, format string, args ...any) error {
	return invalid(offset, "damaged; send it again, from a good copy: "+format, args...)
}
