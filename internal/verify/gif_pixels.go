package verify

import (
	"encoding/binary"
	"sync"
)

// data reads the image data of a frame (section 22). It must hold the codes of exactly
// that many pixels (appendix F). When metadata is stripped, bytes after them become zeros
// or are dropped.
func (g *gifReader) data(size byte, pixels int64) error {
	if g.pixels == nil {
		g.pixels = lzwCounters.Get().(*lzwCounter)
	}
	z := g.pixels
	z.start(size, pixels)
	for {
		n, err := g.byte("no block terminator")
		if err != nil {
			return err
		}
		if n == 0 {
			// Encoders exist that write no end code.
			return g.enough(z, g.r.offset()-1)
		}
		for left := int64(n); left > 0; {
			b, err := g.r.next(left)
			if err != nil {
				return g.cut(err, left)
			}
			left -= int64(len(b))
			i := z.write(b)
			at := g.r.offset() - int64(len(b)-i) - 1 // of the last byte read
			switch z.state {
			case lzwWrong:
				return wrong(at, "GIF: frame %d: LZW code %d, at most %d is possible", g.frames, z.code, z.next)
			case lzwTooMany:
				return wrong(at, "GIF: frame %d: more pixels than the size of the image says", g.frames)
			case lzwEnded:
				if err := g.enough(z, at); err != nil {
					return err
				}
				return g.afterData(b, i, left)
			}
		}
	}
}

// enough returns an error at an offset if pixels are missing.
func (g *gifReader) enough(z *lzwCounter, at int64) error {
	if z.left == 0 {
		return nil
	}
	return wrong(at, "GIF: frame %d: %d pixels are missing", g.frames, z.left)
}

// afterData reads what follows the end code, which is before b[i]. Decoders ignore it.
func (g *gifReader) afterData(b []byte, i int, left int64) error {
	if !g.opts.StripMetadata {
		if err := g.subBlock(left); err != nil {
			return err
		}
		return g.subBlocks()
	}
	b[i-1] &= 0xff >> (g.pixels.n & 7)
	clear(b[i:])
	for left > 0 {
		b, err := g.r.next(left)
		if err != nil {
			return g.cut(err, left)
		}
		clear(b)
		left -= int64(len(b))
	}
	return g.dropSubBlocks()
}

const (
	lzwMaxWidth = 12 // bits of the longest code
	lzwCodes    = 1 << lzwMaxWidth
)

// An lzwCounter counts the pixels that a stream of LZW codes stands for. The number of
// pixels of each code suffices, and their colours do not matter: decoders paint those that
// are in no table black.
type lzwCounter struct {
	left  int64 // pixels that are missing
	bits  uint64
	n     uint   // bits of bits that are valid, which become the next codes
	size  uint   // bits of a pixel
	width uint   // bits of a code
	clear uint32 // the clear code, which the end code follows
	next  uint32 // the code that the next one defines, lzwCodes if all are defined
	last  uint16 // pixels of the last code
	code  uint32 // the wrong one
	state lzwState
	// pixels are the pixels of each code. The last item takes those of codes that are
	// beyond the table.
	pixels [lzwCodes + 1]uint16
}

type lzwState uint8

const (
	lzwRunning lzwState = iota
	lzwEnded            // by the end code
	lzwWrong            // by a code that is not defined
	lzwTooMany          // by pixels that are too many
)

var lzwCounters = sync.Pool{New: func() any { return new(lzwCounter) }}

// start begins a stream with a minimum code size and the number of pixels to expect.
func (z *lzwCounter) start(size byte, pixels int64) {
	z.left, z.bits, z.n, z.state = pixels, 0, 0, lzwRunning
	z.size, z.width = uint(size), uint(size)+1
	z.clear = 1 << size
	z.next = z.clear + 1
	for i := range z.pixels[:z.clear] {
		z.pixels[i] = 1
	}
}

// write reads the codes in b. When the state is another than before, i is the number of
// bytes read then. The last of them may have bits of no code.
func (z *lzwCounter) write(b []byte) (i int) {
	bits, n, width, next, last, left := z.bits, z.n, z.width, z.next, z.last, z.left
	clear, overflow := z.clear, uint32(1)<<width
codes:
	for {
		if len(b)-i >= 8 {
			// The topmost bits may be part of a byte, which is read again.
			bits |= binary.LittleEndian.Uint64(b[i:]) << n
			i += int(63-n) >> 3
			n |= 56
		} else {
			for n <= 56 && i < len(b) {
				bits |= uint64(b[i]) << n
				n += 8
				i++
			}
			if n < width {
				break
			}
		}
		for n >= width {
			code := uint32(bits) & (overflow - 1)
			bits >>= width
			n -= width
			// Each code but the first after a clear code defines one, which has a pixel more than
			// the code before it (appendix F). The first defines the end code, which is not used.
			z.pixels[next] = last + 1
			if code == clear {
				width, next, overflow = z.size+1, clear+1, clear<<1
				continue
			}
			if code == clear+1 || code > next {
				z.state = lzwWrong
				if code == clear+1 {
					z.state = lzwEnded
				}
				z.code = code
				break codes
			}
			last = z.pixels[code]
			left -= int64(last)
			if left < 0 {
				z.state = lzwTooMany
				break codes
			}
			if next < lzwCodes {
				next++
			}
			if next == overflow && width < lzwMaxWidth {
				width++
				overflow <<= 1
			}
		}
	}
	z.bits, z.n, z.width, z.next, z.last, z.left = bits, n, width, next, last, left
	return i - int(n>>3)
}
