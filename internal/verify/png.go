package verify

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const pngSignature = "\x89PNG\r\n\x1a\n" // section 5.2

// checkPNG reads a PNG, of which at least the first byte is known to be right.
func checkPNG(r *reader, opts Options) (Meta, error) {
	var signature [len(pngSignature)]byte
	if n, err := r.full(signature[:]); err != nil {
		return Meta{}, r.truncated(err, "%d of 8 signature bytes are missing", 8-n)
	}
	p := &pngReader{r: r}
	h, err := p.header(opts.MaxPixels)
	if err == nil {
		err = p.beforeData(h)
	}
	if err == nil && opts.VerifyPixels {
		err = p.pixels(h)
	}
	for err == nil && p.is("IDAT") {
		err = p.next()
	}
	if err == nil {
		err = p.afterData()
	}
	return Meta{"image/png", int(h.width), int(h.height)}, err
}

// header reads IHDR (section 11.2.1). Its CRC is checked first: damage should be
// called damage, not an illegal bit depth.
func (p *pngReader) header(maxPixels int64) (h pngHeader, err error) {
	if err := p.next(); err != nil {
		return h, err
	}
	switch {
	case p.is("CgBI"):
		return h, p.misplaced("this is Apple's variant of PNG for iOS apps, not a PNG: its first chunk is CgBI")
	case !p.is("IHDR"):
		return h, p.misplaced("the first chunk must be IHDR, not %s", string(p.name[:]))
	case p.left != 13:
		return h, invalid(p.start, "IHDR: length %d, want 13", p.left)
	}
	var b [13]byte
	for n := 0; p.left > 0; {
		part, err := p.data()
		if err != nil {
			return h, err
		}
		n += copy(b[n:], part)
	}
	if err := p.finish(); err != nil {
		return h, err
	}
	h, at, detail := parseHeader(b)
	if detail != "" {
		return h, invalid(p.start+8+int64(at), "IHDR: %s", detail)
	}
	// Both are below 1<<31, so the product does not overflow.
	if pixels := h.width * h.height; maxPixels > 0 && pixels > maxPixels {
		return h, &Error{ErrTooManyPixels, p.start + 8,
			fmt.Sprintf("%d x %d is %d pixels, at most %d are allowed", h.width, h.height, pixels, maxPixels)}
	}
	return h, nil
}

// beforeData reads the chunks between IHDR and the first IDAT (section 5.6), and the
// length and type of that.
func (p *pngReader) beforeData(h pngHeader) error {
	var plte, trns bool
	for {
		err := p.next()
		if err != nil {
			return err
		}
		switch string(p.name[:]) {
		case "IDAT":
			if h.colour == indexed && !plte {
				return p.misplaced("the palette is missing: colour type 3 needs PLTE before IDAT")
			}
			return nil
		case "PLTE":
			err = p.palette(h, plte, trns)
			plte = true
		case "tRNS":
			err = p.transparency(h, plte, trns)
			trns = true
		case "IHDR":
			err = p.misplaced("second IHDR chunk")
		case "IEND":
			err = p.misplaced("no image data: there is no IDAT before IEND")
		default:
			err = p.unknown()
		}
		if err != nil {
			return err
		}
	}
}

// afterData judges the first chunk after the IDATs and those that follow, to the end
// of the stream.
func (p *pngReader) afterData() error {
	for !p.is("IEND") {
		switch string(p.name[:]) {
		case "IDAT":
			return p.misplaced("the IDAT chunks must be consecutive")
		case "IHDR", "PLTE", "tRNS":
			return p.misplaced("%s must come before IDAT", string(p.name[:]))
		}
		if err := p.unknown(); err != nil {
			return err
		}
		if err := p.next(); err != nil {
			return err
		}
	}
	if p.left != 0 {
		return invalid(p.start, "IEND: length %d, want 0", p.left)
	}
	if err := p.finish(); err != nil {
		return err
	}
	end := p.r.offset()
	switch _, err := p.r.next(1); err {
	case errEnd:
		return nil
	case nil:
		return invalid(end, "bytes after the end: IEND must be the last chunk")
	default:
		return err
	}
}

// palette judges a PLTE chunk (section 11.2.2).
func (p *pngReader) palette(h pngHeader, plte, trns bool) error {
	entries := p.left / 3
	switch {
	case plte:
		return p.misplaced("second PLTE chunk")
	case trns:
		return p.misplaced("PLTE must come before tRNS")
	case h.colour == gray || h.colour == grayAlpha:
		return p.misplaced("PLTE is forbidden for colour type %d", h.colour)
	case p.left%3 != 0 || entries < 1 || entries > 256:
		return invalid(p.start, "PLTE: length %d, want 3 bytes for each of 1 to 256 entries", p.left)
	case h.colour == indexed && entries > 1<<h.depth:
		return invalid(p.start, "PLTE: %d entries, at most %d for bit depth %d", entries, 1<<h.depth, h.depth)
	}
	return nil
}

// transparency judges a tRNS chunk (section 11.3.1.1).
func (p *pngReader) transparency(h pngHeader, plte, trns bool) error {
	want := [...]int64{gray: 2, rgb: 6, indexed: 256, rgba: 0}[h.colour]
	switch {
	case trns:
		return p.misplaced("second tRNS chunk")
	case h.colour == indexed && !plte:
		return p.misplaced("tRNS must come after PLTE")
	case want == 0:
		return p.misplaced("tRNS is forbidden for colour type %d", h.colour)
	case p.left > want && h.colour == indexed:
		return invalid(p.start, "tRNS: length %d, at most 256 for colour type 3", p.left)
	case p.left != want && h.colour != indexed:
		return invalid(p.start, "tRNS: length %d, want %d for colour type %d", p.left, want, h.colour)
	}
	return nil
}

// unknown judges a chunk that is in none of the rules. A lower case third letter
// passes: it is reserved, and decoders skip the chunk (section 5.4).
func (p *pngReader) unknown() error {
	if critical := p.name[0]&0x20 == 0; critical {
		return p.misplaced("unknown critical chunk %s: decoders must refuse the image", string(p.name[:]))
	}
	return nil
}

// misplaced returns an error at the chunk's type.
func (p *pngReader) misplaced(format string, args ...any) error {
	return invalid(p.start+4, format, args...)
}

// A pngReader reads a PNG chunk by chunk (section 5.3).
type pngReader struct {
	r     *reader
	start int64 // offset of the chunk's length
	name  [4]byte
	left  int64 // data bytes to come
	crc   uint32
	open  bool // the CRC is still to come
}

func (p *pngReader) is(name string) bool { return string(p.name[:]) == name }

// next finishes the chunk and reads the length and type of the next (section 5.4).
func (p *pngReader) next() error {
	if p.open {
		if err := p.finish(); err != nil {
			return err
		}
	}
	p.start = p.r.offset()
	var b [8]byte
	if n, err := p.r.full(b[:]); n == 0 && err != nil {
		return p.r.truncated(err, "no IEND chunk")
	} else if err != nil {
		return p.r.truncated(err, "%d of 8 bytes of a chunk's length and type are missing", 8-n)
	}
	p.left = int64(binary.BigEndian.Uint32(b[:4]))
	p.name = [4]byte(b[4:])
	p.crc = crc32.ChecksumIEEE(p.name[:])
	p.open = true
	for i, c := range p.name {
		if c|0x20 < 'a' || 'z' < c|0x20 {
			return invalid(p.start+4+int64(i), "chunk type %q, want four letters", string(p.name[:]))
		}
	}
	if p.left > 1<<31-1 {
		return invalid(p.start, "%s: length %d, at most 2147483647 is possible", string(p.name[:]), p.left)
	}
	return nil
}

// data returns some of the chunk's data. There must be some left.
func (p *pngReader) data() ([]byte, error) {
	b, err := p.r.next(p.left)
	if err != nil {
		return nil, p.r.truncated(err, "%d data bytes of %s are missing", p.left, string(p.name[:]))
	}
	p.left -= int64(len(b))
	p.crc = crc32.Update(p.crc, crc32.IEEETable, b)
	return b, nil
}

// finish reads the rest of the chunk and checks its CRC (section 5.5).
func (p *pngReader) finish() error {
	for p.left > 0 {
		if _, err := p.data(); err != nil {
			return err
		}
	}
	at := p.r.offset()
	var b [4]byte
	if n, err := p.r.full(b[:]); err != nil {
		return p.r.truncated(err, "%d of 4 CRC bytes of %s are missing", 4-n, string(p.name[:]))
	}
	p.open = false
	if sum := binary.BigEndian.Uint32(b[:]); sum != p.crc {
		return invalid(at, "%s: stored CRC %08x, computed %08x", string(p.name[:]), sum, p.crc)
	}
	return nil
}
