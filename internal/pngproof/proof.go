// Package pngproof proves that a stream of bytes is one whole, well-formed PNG
// while the bytes stream past, in constant memory.
//
// The yardstick is the W3C's PNG Specification, Third Edition
// (https://www.w3.org/TR/png-3/), whose sections this package cites. There are
// two proofs:
//
//   - The structural proof checks what frames the image: the signature, the
//     header, the order, length and CRC of every chunk, and that nothing follows
//     the end. It finds what goes wrong on the way (damage, truncation, files that
//     were mixed up or joined) and costs hardly more than the CRC.
//   - The deep proof also inflates the image, and so finds what an encoder got
//     wrong. It costs most of what decoding the image costs.
//
// Neither looks into ancillary chunks, except that tRNS must be where decoders
// need it and of the length they need. Neither notices a pixel that names a
// missing palette entry; decoders paint it black. An animated PNG passes: the
// frames that follow its first are ancillary chunks.
//
//	proof := pngproof.NewReader(upload, pngproof.Config{MaxPixels: 1 << 26})
//	defer proof.Close()
//	if _, err := io.Copy(file, proof); err != nil {
//		return err // the file must go: it is not, or not wholly, a PNG
//	}
package pngproof

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
)

// Config says what to prove. The zero value asks for the structural proof of an
// image of any size.
type Config struct {
	// MaxPixels is the largest width times height to let pass. There is no limit
	// if it is not positive.
	MaxPixels int64

	// Deep asks for the deep proof: that the IDAT chunks hold one zlib stream, and
	// this exactly the rows that IHDR promises (sections 7 to 10). Of a stream that
	// holds more, it inflates at most 32 KiB, the window of deflate, too much.
	Deep bool
}

// Reader hands on the bytes of another reader, unchanged, for as long as they can
// be those of a PNG (section 5). It is not safe for concurrent use.
type Reader struct {
	r   io.Reader
	c   Config
	err error // once set, the answer to every Read

	off  int64   // offset of the next byte to look at
	part part    // what this byte belongs to
	buf  [8]byte // the part, if it is gathered before it is judged
	have int     // number of its bytes in buf

	// The chunk being read.
	start int64 // offset of its length
	name  [4]byte
	left  int64 // bytes of its data still to come
	crc   uint32

	ihdr [13]byte
	head header // ihdr, once it has been judged

	sawIHDR, sawPLTE, sawTRNS bool
	sawIDAT, inIDAT, pastIDAT bool

	deep *inflater // from the first IDAT on until Close
}

// A part is one of the fields that a stream consists of (sections 5.2 and 5.3).
type part int

const (
	signature part = iota
	chunkHead      // length and type
	chunkData
	chunkCRC
	nothing // what should follow IEND
)

// size is the length of the parts that are gathered.
var size = [...]int{signature: 8, chunkHead: 8, chunkCRC: 4}

// NewReader returns a Reader of what r has to say. Close it after use.
func NewReader(r io.Reader, c Config) *Reader {
	return &Reader{r: r, c: c}
}

// Read reads once from the underlying reader and checks what that returned.
//
// The Read that comes upon something wrong returns an [*Error] and none of its
// bytes. io.EOF means that the stream was a whole PNG. Any other error is the
// underlying reader's own, unchanged. After an error, every Read returns it again.
//
// The signature (section 5.2) and the IHDR chunk are judged when they are complete,
// everything else as soon as it can be. A stream that ends inside a right signature
// is a truncated PNG; one without any bytes is none.
func (p *Reader) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.r.Read(b)
	wrong := p.check(b[:n])
	if wrong == nil && err == io.EOF {
		wrong = p.end()
	}
	if wrong != nil {
		n, err = 0, wrong
	}
	p.err = err
	return n, err
}

// Close releases what a deep proof holds, which includes a coroutine: call it on
// every path. Later Reads fail with [fs.ErrClosed] unless the proof has come to an
// end. To a structural proof, Close does nothing. It never fails, and leaves the
// underlying reader open.
func (p *Reader) Close() error {
	if p.deep != nil {
		p.deep.release()
		p.deep = nil
	}
	if p.c.Deep && p.err == nil {
		p.err = fs.ErrClosed
	}
	return nil
}

func (p *Reader) check(b []byte) (wrong error) {
	for len(b) > 0 && wrong == nil {
		var n int
		switch p.part {
		case chunkData:
			n = int(min(p.left, int64(len(b))))
			wrong = p.data(b[:n])
		case nothing:
			return p.broken(p.off, "bytes after the end: IEND must be the last chunk")
		default:
			n = copy(p.buf[p.have:size[p.part]], b)
			p.have += n
			p.off += int64(n)
			if p.have == size[p.part] {
				p.have = 0
				wrong = p.gathered()
			}
		}
		b = b[n:]
	}
	return wrong
}

func (p *Reader) gathered() error {
	switch p.part {
	case signature:
		p.part = chunkHead
		return p.notPNG(p.buf[:8])
	case chunkHead:
		return p.chunk()
	default:
		return p.chunkEnd()
	}
}

// chunk judges the length and the type of a chunk (sections 5.3 and 5.4).
//
// A lower case third letter passes, although this edition has none. The case is
// reserved for a meaning to come; until then decoders skip the chunk as they skip
// any unknown one, and refuse it only if it is critical.
func (p *Reader) chunk() error {
	p.start = p.off - 8
	p.left = int64(binary.BigEndian.Uint32(p.buf[:4]))
	p.name = [4]byte(p.buf[4:8])
	p.crc = crc32.ChecksumIEEE(p.name[:])
	for i, c := range p.name {
		if c|0x20 < 'a' || 'z' < c|0x20 {
			return p.broken(p.start+4+int64(i), "a chunk type is four letters, not %q", p.name[:])
		}
	}
	if p.left > 1<<31-1 {
		return p.broken(p.start, "a length of %d for chunk %s, at most 2147483647 is possible", p.left, p.name[:])
	}

	p.inIDAT = string(p.name[:]) == "IDAT"
	if p.sawIDAT && !p.inIDAT && !p.pastIDAT {
		p.pastIDAT = true
		if p.deep != nil {
			if detail := p.deep.end(); detail != "" {
				return p.broken(p.start, "%s", detail)
			}
		}
	}
	if err := p.inOrder(); err != nil {
		return err
	}
	if p.part = chunkData; p.left == 0 {
		p.part = chunkCRC
	}
	return nil
}

// inOrder judges whether a chunk of this type may come now and be of this
// length (sections 5.6 and 11).
func (p *Reader) inOrder() error {
	name := p.start + 4
	if !p.sawIHDR {
		p.sawIHDR = true
		switch {
		case string(p.name[:]) == "CgBI":
			return p.broken(name, "a CgBI chunk comes first: this is Apple's variant of PNG for iOS apps, which is not PNG")
		case string(p.name[:]) != "IHDR":
			return p.broken(name, "the first chunk must be IHDR, not %s", p.name[:])
		case p.left != 13:
			return p.broken(p.start, "the length of IHDR must be 13, not %d", p.left)
		}
		return nil
	}

	switch string(p.name[:]) {
	case "IHDR":
		return p.broken(name, "a second IHDR chunk")

	case "PLTE":
		entries := p.left / 3
		switch {
		case p.sawPLTE:
			return p.broken(name, "a second PLTE chunk")
		case p.sawIDAT || p.sawTRNS:
			return p.broken(name, "PLTE must come before tRNS and IDAT")
		case p.head.colour == gray || p.head.colour == grayAlpha:
			return p.broken(name, "PLTE is forbidden for colour type %d", p.head.colour)
		case p.left%3 != 0 || entries < 1 || entries > 256:
			return p.broken(p.start, "PLTE must be 3 to 768 bytes long, 3 for each entry, not %d", p.left)
		case p.head.colour == indexed && entries > 1<<p.head.depth:
			return p.broken(p.start, "PLTE has %d entries, bit depth %d can tell only %d apart", entries, p.head.depth, 1<<p.head.depth)
		}
		p.sawPLTE = true

	case "tRNS":
		want := [...]int64{gray: 2, rgb: 6, indexed: 256, rgba: 0}[p.head.colour]
		switch {
		case p.sawTRNS:
			return p.broken(name, "a second tRNS chunk")
		case p.sawIDAT || p.head.colour == indexed && !p.sawPLTE:
			return p.broken(name, "tRNS must come after PLTE and before IDAT")
		case want == 0:
			return p.broken(name, "tRNS is forbidden for colour type %d", p.head.colour)
		case p.left > want || p.head.colour != indexed && p.left != want:
			return p.broken(p.start, "tRNS is %d bytes long, %d are right for colour type %d", p.left, want, p.head.colour)
		}
		p.sawTRNS = true

	case "IDAT":
		switch {
		case p.pastIDAT:
			return p.broken(name, "the IDAT chunks must be consecutive")
		case p.head.colour == indexed && !p.sawPLTE:
			return p.broken(name, "PLTE is missing: colour type 3 needs it before IDAT")
		}
		if p.c.Deep && !p.sawIDAT {
			p.deep = newInflater(p.head)
		}
		p.sawIDAT = true

	case "IEND":
		switch {
		case !p.sawIDAT:
			return p.broken(name, "IEND without an IDAT chunk before it")
		case p.left != 0:
			return p.broken(p.start, "the length of IEND must be 0, not %d", p.left)
		}

	default:
		if critical := p.name[0]&0x20 == 0; critical {
			return p.broken(name, "an unknown critical chunk %s, without which the image cannot be understood", p.name[:])
		}
	}
	return nil
}

func (p *Reader) data(b []byte) error {
	if p.inIDAT && p.deep != nil {
		if at, detail := p.deep.feed(b); detail != "" {
			return p.broken(p.off+int64(at), "%s", detail)
		}
	}
	if p.head == (header{}) { // so this is IHDR
		copy(p.ihdr[13-p.left:], b)
	}
	p.crc = crc32.Update(p.crc, crc32.IEEETable, b)
	p.off += int64(len(b))
	if p.left -= int64(len(b)); p.left == 0 {
		p.part = chunkCRC
	}
	return nil
}

// chunkEnd judges the CRC of a chunk (section 5.5) and then, of the first, what
// it says: damage is to be called damage, not an illegal bit depth.
func (p *Reader) chunkEnd() error {
	if sum := binary.BigEndian.Uint32(p.buf[:4]); sum != p.crc {
		return p.broken(p.off-4, "the CRC of chunk %s is %08x, its bytes amount to %08x", p.name[:], sum, p.crc)
	}
	p.part = chunkHead
	switch string(p.name[:]) {
	case "IHDR":
		var at int
		var detail string
		if p.head, at, detail = parseHeader(p.ihdr); detail != "" {
			return p.broken(p.start+8+int64(at), "%s", detail)
		}
		// Both are below 1<<31, so the product does not overflow.
		if pixels := p.head.width * p.head.height; p.c.MaxPixels > 0 && pixels > p.c.MaxPixels {
			return p.fail(ErrTooManyPixels, p.start+8, "%d x %d is %d pixels, %d are allowed",
				p.head.width, p.head.height, pixels, p.c.MaxPixels)
		}
	case "IEND":
		p.part = nothing
	}
	return nil
}

// end judges whether the stream may end here.
func (p *Reader) end() error {
	switch {
	case p.part == nothing:
		return nil
	case p.off == 0:
		return p.fail(ErrNotPNG, 0, "no bytes at all")
	case p.part == signature:
		if err := p.notPNG(p.buf[:p.have]); err != nil {
			return err
		}
		return p.broken(p.off, "truncated: the signature has 8 bytes, only %d came", p.have)
	case p.part == chunkData:
		return p.broken(p.off, "truncated: %d more bytes of the data of chunk %s were to come", p.left, p.name[:])
	case p.part == chunkCRC:
		return p.broken(p.off, "truncated: %d of the 4 bytes of the CRC of chunk %s were to come", 4-p.have, p.name[:])
	case p.have > 0:
		return p.broken(p.off, "truncated: %d of the 8 bytes that begin a chunk were to come", 8-p.have)
	default:
		return p.broken(p.off, "truncated: there is no IEND chunk")
	}
}

func (p *Reader) broken(at int64, format string, args ...any) error {
	return p.fail(ErrBroken, at, format, args...)
}

func (p *Reader) fail(kind error, at int64, format string, args ...any) error {
	return &Error{kind, at, fmt.Sprintf(format, args...)}
}
