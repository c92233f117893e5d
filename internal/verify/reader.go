package verify

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
)

// errEnd is the end of src. It is not io.EOF because dst may fail with that.
var errEnd = errors.New("end of stream")

// A reader buffers src, knows its offset, and writes to dst what was consumed, unless
// it was dropped. Its buffer grows to BufferSize with the stream, so that a client that
// sends little costs little.
type reader struct {
	src      io.Reader
	dst      io.Writer
	err      error // the error that came with the last bytes
	base     int64 // offset of the buffer's first byte
	out      int   // buf[:out] is to be written
	mark     int   // buf[mark:pos] is consumed, and kept or not as state says
	pos, end int   // buf[pos:end] is not consumed yet
	state    editing
	back     int // how many bytes unread may take back, beyond those of the last next
	describe bool
	seeker   io.Seeker // src, if it can seek and what is skipped need not be read
	size     int64     // of src, once seeker has told it
	budget   int       // how much of src a Describe may still read
	buf      []byte    // its capacity is larger by room
	pooled   *[]byte   // buf, unless that is first
	grown    int       // how often buf has grown
	first    [BufferSize>>(2*len(pools)) + room]byte
}

const (
	// room is for what is emitted, so that it does not cause a Write. The first one may
	// come that many bytes early.
	room = 64
	// describeMost is how much a Describe reads, in bytes, of what it cannot skip.
	describeMost = 1 << 20
	// describeBuffer is how much a Describe reads at once. More is wasted if it skips
	// then.
	describeBuffer = 4 << 10
)

// An editing says what becomes of the bytes that are consumed.
type editing uint8

const (
	keeping  editing = iota // they are written
	dropping                // they are not
	holding                 // keep or drop will say
)

var (
	readers = sync.Pool{New: func() any { return new(reader) }}
	pools   [3]sync.Pool // of buffers that have grown once, twice, three times
)

func newReader(dst io.Writer, src io.Reader) *reader {
	r := readers.Get().(*reader)
	r.src, r.dst, r.buf = src, dst, r.first[:len(r.first)-room]
	return r
}

func (r *reader) release() {
	r.releaseBuffer()
	r.src, r.dst, r.err, r.buf, r.pooled = nil, nil, nil, nil, nil
	r.base, r.out, r.mark, r.pos, r.end, r.grown = 0, 0, 0, 0, 0, 0
	r.state, r.back, r.describe, r.seeker, r.size = keeping, 0, false, nil, 0
	readers.Put(r)
}

func (r *reader) releaseBuffer() {
	if r.grown > 0 {
		pools[r.grown-1].Put(r.pooled)
	}
}

// grow makes the buffer four times as large.
func (r *reader) grow() {
	size := 4 * len(r.buf)
	larger, ok := pools[r.grown].Get().(*[]byte)
	if !ok {
		b := make([]byte, size+room)
		larger = &b
	}
	copy(*larger, r.buf[:r.end])
	r.releaseBuffer()
	r.pooled, r.buf = larger, (*larger)[:size]
	r.grown++
}

// offset returns the position of the next byte to consume.
func (r *reader) offset() int64 { return r.base + int64(r.pos) }

// fill reads once from src. It flushes the buffer if that is full and cannot grow, so
// all of it must be consumed by then.
func (r *reader) fill() error {
	if r.err != nil {
		return r.err
	}
	most := BufferSize
	if r.describe {
		if r.budget <= 0 {
			return errTooFar
		}
		most = describeBuffer
	}
	switch {
	case len(r.buf) < most && r.end > len(r.buf)/4*3: // short Reads cost more than the copy
		r.grow()
	case r.end >= len(r.buf):
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
		r.budget -= n
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

// flush writes what was consumed and is kept. What is held stays in the buffer.
func (r *reader) flush() error {
	r.settle(r.pos - r.back)
	var err error
	if r.out > 0 {
		var n int
		n, err = r.dst.Write(r.buf[:r.out])
		if err == nil && n != r.out {
			err = io.ErrShortWrite
		}
	}
	r.base += int64(r.mark)
	r.pos -= r.mark
	r.end = copy(r.buf, r.buf[r.mark:r.end])
	r.out, r.mark = 0, 0
	return err
}

// settle applies the state to the bytes that were consumed, up to buf[end].
func (r *reader) settle(end int) {
	if r.state == holding || end < r.mark {
		return
	}
	if r.state == keeping {
		if r.out != r.mark {
			copy(r.buf[r.out:], r.buf[r.mark:end])
		}
		r.out += end - r.mark
	}
	r.mark = end
}

// hold leaves it to the next keep or drop what becomes of the bytes consumed from here
// on. They must be few: they stay in the buffer.
func (r *reader) hold() {
	r.settle(r.pos)
	r.state = holding
}

// keep keeps the bytes that are held, and those consumed from here on.
func (r *reader) keep() {
	if r.state != holding {
		r.settle(r.pos)
	}
	r.state = keeping
}

// drop drops the bytes that are held, and those consumed from here on.
func (r *reader) drop() {
	if r.state != holding {
		r.settle(r.pos)
	}
	r.state = dropping
}

// emit writes b at this place, which is not in the stream. Nothing may be held.
func (r *reader) emit(b []byte) error {
	r.settle(r.pos)
	if missing := len(b) - (r.mark - r.out); missing > 0 {
		if missing > cap(r.buf)-r.end {
			if err := r.flush(); err != nil {
				return err
			}
			missing = len(b)
		}
		if missing > cap(r.buf)-r.end {
			n, err := r.dst.Write(b)
			if err == nil && n != len(b) {
				err = io.ErrShortWrite
			}
			return err
		}
		// Bytes in the buffer move up to make room.
		copy(r.buf[r.mark+missing:cap(r.buf)], r.buf[r.mark:r.end])
		r.base -= int64(missing)
		r.mark, r.pos, r.end = r.mark+missing, r.pos+missing, r.end+missing
	}
	r.out += copy(r.buf[r.out:cap(r.buf)], b)
	return nil
}

// peek returns the next n bytes and consumes none. It returns fewer if the stream ends
// before, or with an error.
func (r *reader) peek(n int) (b []byte, err error) {
	for r.end-r.pos < n {
		if err = r.fill(); err == errEnd {
			err = nil
			break
		} else if err != nil {
			break
		}
	}
	return r.buf[r.pos:min(r.end, r.pos+n)], err
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

// unread takes back the last n bytes that were consumed: at most those that the last
// next has returned, and back.
func (r *reader) unread(n int) { r.pos -= n }

// skip consumes n bytes. A Describe does not read them if src can seek.
func (r *reader) skip(n int64) error {
	if r.seeker != nil && n > int64(r.end-r.pos) {
		return r.seek(r.offset() + n)
	}
	for n > 0 {
		b, err := r.next(n)
		if err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// seek goes to an offset, or to the end of the stream, whichever comes first: files exist
// that fail, or panic, where they are read beyond their end.
func (r *reader) seek(to int64) (err error) {
	if r.size == 0 {
		if r.size, err = r.seeker.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	r.base, r.out, r.mark, r.pos, r.end = min(to, r.size), 0, 0, 0, 0
	if _, err = r.seeker.Seek(r.base, io.SeekStart); err == nil && to > r.size {
		err = errEnd
	}
	return err
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
		r.out, r.mark, r.pos, r.end = 0, 0, 0, 0
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
