// Package verify copies an image while it checks that the bytes are one whole,
// well-formed image. It needs constant memory, whatever the size of the image.
//
// Only PNG is known. The rules are those of the W3C's PNG Specification, Third
// Edition (https://www.w3.org/TR/png-3/). Comments cite its sections. There are
// two depths:
//
//   - By default, [Copy] checks the structure: the signature (5.2), the header
//     (11.2.1), the order (5.6), length, type and CRC (5.3 to 5.5) of every
//     chunk, and that nothing follows IEND. This finds what goes wrong on the
//     way: damage, truncation, files that were mixed up or joined. It costs
//     little more than the CRC.
//   - With [Options.VerifyPixels], Copy also inflates the image. The IDAT chunks
//     must hold one zlib stream (10), which must hold exactly the rows that IHDR
//     promises (7 and 8), each with a known filter type (9). This finds what an
//     encoder got wrong. It costs most of what decoding costs.
//
// The window that the zlib stream declares is not checked, on purpose. Encoders exist
// that declare too small a one (CINFO 0 to 3 in RFC 1950). Go's decoder and Firefox
// show such a picture, whose pixels are all there. libpng refuses it, unless the
// program sets PNG_MAXIMUM_INFLATE_WINDOW.
//
// Ancillary chunks are not looked into, with one exception: tRNS must be where
// decoders need it, and as long as they need it. A pixel that names a missing
// palette entry is not noticed; decoders paint it black. An animated PNG passes:
// its further frames are ancillary chunks.
//
//	meta, err := verify.Copy(file, upload, verify.Options{MaxPixels: 1 << 26})
//	if err != nil {
//		return err // remove the file: it is not, or not wholly, an image
//	}
package verify

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
)

// BufferSize is how much of an image is checked before anything is written.
const BufferSize = 64 << 10

// Options says what to check. The zero value checks the structure of an image of
// any size.
type Options struct {
	// MaxPixels is the largest width × height to accept. There is no limit if it
	// is not positive.
	MaxPixels int64

	// VerifyPixels inflates the image data. At most 32 KiB more than the header
	// promises are inflated, the window of deflate.
	VerifyPixels bool
}

// Meta is what the header of an image says.
type Meta struct {
	Type          string // media type, "image/png"
	Width, Height int
}

// The kinds of [Error].
var (
	ErrUnsupportedType = errors.New("unsupported type") // the first bytes are not those of a PNG
	ErrInvalid         = errors.New("invalid image")    // a later byte breaks a rule, or is missing
	ErrTooManyPixels   = errors.New("too many pixels")  // more than Options.MaxPixels
)

// Error says what is wrong with an image. [errors.Is] finds its Kind.
type Error struct {
	Kind error // ErrUnsupportedType, ErrInvalid or ErrTooManyPixels

	// Offset is the position of the first wrong byte in the stream: of a CRC that
	// does not match, of the length or type of a misplaced chunk, of the first
	// missing byte. For wrong pixels it is that of the last byte inflated.
	Offset int64

	// Detail says what is wrong and what helps, for the person who has the image.
	// Of a PNG, the words of the specification follow a colon. There is no
	// trailing dot.
	Detail string
}

// Error returns the kind, the detail and the offset.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s (at byte %d)", e.Kind, e.Detail, e.Offset)
}

// Unwrap returns the Kind.
func (e *Error) Unwrap() error { return e.Kind }

// Copy copies src to dst, unchanged, and returns what the image's header says.
// It returns nil only if src held one whole image and dst took all of it.
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

// check finds out what r holds and reads all of it.
func check(r *reader, opts Options) (Meta, error) {
	head, err := r.peek(len(pngSignature))
	switch {
	case err != nil:
		return Meta{}, err
	case len(head) > 0 && strings.HasPrefix(pngSignature, string(head)):
		return checkPNG(r, opts)
	}
	return Meta{}, unsupported(r, head)
}

// errEnd is the end of src. It is not io.EOF because dst may fail with that.
var errEnd = errors.New("end of stream")

// A reader buffers src, knows its offset, and writes to dst what was consumed. Its
// buffer grows to BufferSize with the stream, so that a client that sends little
// costs little.
type reader struct {
	src      io.Reader
	dst      io.Writer
	err      error // the error that came with the last bytes
	base     int64 // offset of the buffer's first byte
	pos, end int   // buf[pos:end] is not consumed yet
	buf      []byte
	pooled   *[]byte // buf, unless that is first
	grown    int     // how often buf has grown
	first    [BufferSize >> (2 * len(pools))]byte
}

var (
	readers = sync.Pool{New: func() any { return new(reader) }}
	pools   [3]sync.Pool // of buffers that have grown once, twice, three times
)

func newReader(dst io.Writer, src io.Reader) *reader {
	r := readers.Get().(*reader)
	r.src, r.dst, r.buf = src, dst, r.first[:]
	return r
}

func (r *reader) release() {
	r.releaseBuffer()
	r.src, r.dst, r.err, r.buf, r.pooled = nil, nil, nil, nil, nil
	r.base, r.pos, r.end, r.grown = 0, 0, 0, 0
	readers.Put(r)
}

func (r *reader) releaseBuffer() {
	if r.grown > 0 {
		pools[r.grown-1].Put(r.pooled)
	}
}

// grow makes the buffer four times as large.
func (r *reader) grow() {
	larger, ok := pools[r.grown].Get().(*[]byte)
	if !ok {
		b := make([]byte, 4*len(r.buf))
		larger = &b
	}
	copy(*larger, r.buf[:r.end])
	r.releaseBuffer()
	r.pooled, r.buf = larger, *larger
	r.grown++
}

// offset returns the position of the next byte to consume.
func (r *reader) offset() int64 { return r.base + int64(r.pos) }

// fill reads once from src. It writes the buffer to dst if that is full and cannot
// grow, so all of it must be consumed by then.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	switch {
	case len(r.buf) < BufferSize && r.end > len(r.buf)/4*3: // short Reads cost more than the copy
		r.grow()
	case r.end == len(r.buf):
		if err := r.flush(); err != nil {
			return err
		}
	}
	for range 100 { // as often as bufio
		n, err := r.src.Read(r.buf[r.end:])
		if err == io.EOF {
			err = errEnd
		}
		r.end += n
		r.err = err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

func (r *reader) flush() error {
	if r.end == 0 {
		return nil
	}
	n, err := r.dst.Write(r.buf[:r.end])
	if err == nil && n != r.end {
		err = io.ErrShortWrite
	}
	r.base += int64(r.end)
	r.pos, r.end = 0, 0
	return err
}

// peek returns the first n bytes of the stream, fewer if it is shorter, and
// consumes none. Nothing may be consumed yet.
func (r *reader) peek(n int) ([]byte, error) {
	for r.end < n {
		if err := r.fill(); err == errEnd {
			break
		} else if err != nil {
			return nil, err
		}
	}
	return r.buf[:min(r.end, n)], nil
}

// next consumes and returns at least one byte, and at most limit bytes. They are
// valid until the next call.
func (r *reader) next(limit int64) ([]byte, error) {
	if r.pos == r.end {
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
	b := r.buf[r.pos : r.pos+int(min(limit, int64(r.end-r.pos)))]
	r.pos += len(b)
	return b, nil
}

// full fills b and returns the number of bytes, which is less only with an error.
func (r *reader) full(b []byte) (n int, err error) {
	for n < len(b) {
		part, err := r.next(int64(len(b) - n))
		if err != nil {
			return n, err
		}
		n += copy(b[n:], part)
	}
	return n, nil
}

// rest consumes what is left of the stream and writes none of it. It returns the
// number of bytes, whether all are zero, and the error that came after them.
func (r *reader) rest() (n int64, zeros bool, err error) {
	zeros = true
	for {
		b, err := r.next(math.MaxInt64)
		if err != nil {
			return n, zeros, err
		}
		n += int64(len(b))
		zeros = zeros && len(bytes.TrimLeft(b, "\x00")) == 0
		r.pos, r.end = 0, 0
	}
}

// truncated returns err, unless that is the end of the stream: then it says what is
// missing.
func (r *reader) truncated(err error, format string, args ...any) error {
	if err != errEnd {
		return err
	}
	return invalid(r.offset(), "cut short; send all of it: "+format, args...)
}

func invalid(offset int64, format string, args ...any) error {
	return &Error{ErrInvalid, offset, fmt.Sprintf(format, args...)}
}
