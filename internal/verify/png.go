package verify

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// The rules for a PNG are those of the W3C's PNG Specification, Third Edition
// (https://www.w3.org/TR/png-3/), which comments cite by section.
//
// The structural check reads the signature (5.2), the header (11.2.1), and the order
// (5.6), length, type and CRC (5.3 to 5.5) of every chunk. Nothing may follow IEND. It
// costs little more than the CRC. With VerifyPixels, the image is inflated too. The IDAT
// chunks must hold one zlib stream (10). It must hold exactly the rows that IHDR promises
// (7 and 8), each with a known filter type (9).
//
// The window that the zlib stream declares is not checked, on purpose. Encoders exist
// that declare too small a one (CINFO 0 to 3 in RFC 1950). Go's decoder and Firefox
// show such a picture, whose pixels are all there. libpng refuses it, unless the
// program sets PNG_MAXIMUM_INFLATE_WINDOW.
//
// Ancillary chunks are not looked into, with few exceptions: tRNS must be where
// decoders need it, and as long as they need it. The orientation in eXIf is heeded.
// A pixel that names a missing palette entry is not noticed; decoders paint it black. An
// animated PNG passes: its further frames are ancillary chunks, which are counted.

const pngSignature = "\x89PNG\r\n\x1a\n" // section 5.2

func isPNG(head []byte) bool { return beginsWith(head, pngSignature) }

// checkPNG reads a PNG, of which at least the first byte is known to be right.
func checkPNG(r *reader, opts Options) (Meta, error) {
	var signature [len(pngSignature)]byte
	if n, err := r.full(signature[:]); err != nil {
		return Meta{}, r.truncated(err, "%d of 8 signature bytes are missing", 8-n)
	}
	p := &pngReader{r: r, opts: opts}
	h, err := p.header()
	if err == nil {
		err = p.beforeData(h)
	}
	meta := Meta{Type: "image/png"}
	meta.Width, meta.Height = p.exif.orientation().displayed(h.width, h.height)
	if err == nil {
		err = r.described()
	}
	if err == nil && (opts.VerifyPixels || opts.StripMetadata) {
		err = p.pixels(h, "IDAT") // stripping is to find what follows them
	}
	for err == nil && p.is("IDAT") {
		err = p.next()
	}
	if err == nil {
		err = p.afterData(h)
	}
	return meta, err
}

// header reads IHDR (section 11.2.1). Its CRC is checked first: damage should be
// called damage, not an illegal bit depth.
func (p *pngReader) header() (h pngHeader, err error) {
	if err := p.next(); err != nil {
		return h, err
	}
	switch {
	case p.is("CgBI"):
		return h, invalid(p.start+4, "this is Apple's variant of PNG for iOS apps; convert it to a plain PNG: the first chunk must be IHDR, not CgBI")
	case !p.is("IHDR"):
		return h, p.misplaced("the first chunk must be IHDR, not %s", string(p.name[:]))
	case p.left != 13:
		return h, wrong(p.start, "IHDR: length %d, want 13", p.left)
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
		return h, invalid(p.start+8+int64(at), "saved wrongly in the header; save it with another program: IHDR: %s", detail)
	}
	p.most = 2*float64(h.height)*(float64(h.width)*float64(h.bits())/8+8) + 4096
	return h, p.opts.checkPixels(p.start+8, h.width, h.height)
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
			p.inData = true
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
		case "eXIf":
			if err = p.orientation(); err == nil {
				err = p.r.described()
			}
		case "acTL":
			err = p.animation(h)
		case "fcTL":
			err = p.frame(h)
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
func (p *pngReader) afterData(h pngHeader) error {
	for !p.is("IEND") {
		var err error
		switch string(p.name[:]) {
		case "IDAT":
			err = p.misplaced("the IDAT chunks must be consecutive")
		case "IHDR", "PLTE", "tRNS":
			err = p.misplaced("%s must come before IDAT", string(p.name[:]))
		case "eXIf":
			if p.opts.StripMetadata {
				err = p.orientation()
			}
		case "fcTL":
			err = p.frame(h)
		case "fdAT":
			if p.opts.StripMetadata && p.frames > 0 {
				if err = p.frameData(); err == nil {
					continue // at the chunk after it
				}
			}
		default:
			err = p.unknown()
		}
		if err == nil {
			err = p.next()
		}
		if err != nil {
			return err
		}
	}
	if err := p.lastFrame(); err != nil {
		return err
	}
	if p.left != 0 {
		return wrong(p.start, "IEND: length %d, want 0", p.left)
	}
	if err := p.finish(); err != nil {
		return err
	}
	return p.trailing()
}

// trailing returns nil if the stream ends here. Otherwise it counts the rest.
// Editors that save a smaller picture over a larger one may leave the end of that
// in the file (CVE-2023-21036, CVE-2023-28303). Other programs add zeros.
func (p *pngReader) trailing() error {
	end := p.r.offset()
	n, zeros, err := p.r.rest()
	if n == 0 && err == errEnd {
		return nil
	} else if n == 0 {
		return err
	}
	count, follow := "", "bytes follow"
	if err != errEnd {
		count = "at least "
	}
	if n == 1 {
		follow = "byte follows"
	}
	if zeros {
		return invalid(end, "the picture is whole, but %s%d zero %s its end; send it without, or save it with another program: IEND must be the last chunk",
			count, n, follow)
	}
	return invalid(end, "the picture is whole, but %s%d %s its end, maybe a private part of an older version of the file (aCropalypse); "+
		"open it and save it as a new file: IEND must be the last chunk", count, n, follow)
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
		return wrong(p.start, "PLTE: length %d, want 3 bytes for each of 1 to 256 entries", p.left)
	case h.colour == indexed && entries > 1<<h.depth:
		return wrong(p.start, "PLTE: %d entries, at most %d for bit depth %d", entries, 1<<h.depth, h.depth)
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
		return wrong(p.start, "tRNS: length %d, at most 256 for colour type 3", p.left)
	case p.left != want && h.colour != indexed:
		return wrong(p.start, "tRNS: length %d, want %d for colour type %d", p.left, want, h.colour)
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
	return wrong(p.start+4, format, args...)
}

// noPixels lists the chunks of the specification that do not hold, or animate, pixels.
// Others may be such a chunk whose type is damaged.
var noPixels = []string{
	"cHRM", "cICP", "cLLI", "gAMA", "iCCP", "mDCV", "sBIT", "sRGB", // 11.3.2
	"iTXt", "tEXt", "zTXt", // 11.3.3
	"bKGD", "eXIf", "hIST", "pHYs", "sPLT", "tIME", // 11.3.4 and later
}

// damage says what a wrong CRC means. The rest of the file is not known yet.
func (p *pngReader) damage() string {
	const again = "; send it again, from a good copy"
	switch name := string(p.name[:]); {
	case name == "IHDR":
		return "damaged in the header" + again
	case name == "PLTE" || name == "tRNS":
		return "damaged in the colours" + again
	case name == "IDAT":
		return "damaged in the pixels" + again
	case name == "IEND":
		return "damaged at the end" + again
	case slices.Contains(noPixels, name):
		return "damaged in a part that holds no pixels; if it still opens, save it as a new file to mend it"
	}
	return "damaged in an unknown part; send it again, or save it as a new file if it still opens"
}

// A pngReader reads a PNG chunk by chunk (section 5.3).
type pngReader struct {
	r     *reader
	opts  Options
	start int64 // offset of the chunk's length
	name  [4]byte
	left  int64 // data bytes to come
	crc   uint32
	open  bool    // the CRC is still to come
	most  float64 // more bytes than IDAT can need: twice those of the pixels

	inData bool   // the first IDAT has begun
	kept   uint32 // the ancillary chunks that were kept, as bits of their index
	exif   exif   // of the first eXIf
	exifs  int

	animated bool      // whether acTL was read
	frames   int64     // as acTL says, 0 if it is no animation
	controls int64     // fcTL chunks
	sequence uint32    // of the next fcTL or fdAT
	fdat     pngHeader // of the frame that the next fdAT begins, of no width if there is none
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
	if p.opts.StripMetadata {
		p.r.hold() // its type says what becomes of it
	}
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
			return damaged(p.start+4+int64(i), "chunk type %q, want four letters", string(p.name[:]))
		}
	}
	if p.left > 1<<31-1 {
		return damaged(p.start, "%s: length %d, at most 2147483647 is possible", string(p.name[:]), p.left)
	}
	if p.opts.StripMetadata {
		if p.shown() {
			p.r.keep()
		} else {
			p.r.drop()
		}
	}
	return nil
}

// data returns some of the chunk's data. There must be some left.
func (p *pngReader) data() ([]byte, error) {
	b, err := p.r.next(p.left)
	if err != nil {
		return nil, p.cut(err)
	}
	p.left -= int64(len(b))
	p.crc = crc32.Update(p.crc, crc32.IEEETable, b)
	return b, nil
}

// cut returns err, unless that is the end of the stream within the chunk's data: then
// it says what is missing, if the length is plausible. libpng has similar limits.
func (p *pngReader) cut(err error) error {
	came := p.r.offset() - p.start - 8
	most := 8e6
	if p.is("IDAT") || p.is("fdAT") {
		most = p.most
	}
	if length := came + p.left; err == errEnd && float64(length) > most {
		return damaged(p.r.offset(), "%s: length %d is implausible, only %d bytes follow", string(p.name[:]), length, came)
	}
	return p.r.truncated(err, "%d data bytes of %s are missing", p.left, string(p.name[:]))
}

// finish reads the rest of the chunk and checks its CRC (section 5.5).
func (p *pngReader) finish() error {
	if p.r.describe && p.left > 0 { // the CRC does not matter
		p.open = false
		if err := p.r.skip(p.left + 4); err != nil {
			return p.cut(err)
		}
		return nil
	}
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
		return invalid(at, "%s: %s: stored CRC %08x, computed %08x", p.damage(), string(p.name[:]), sum, p.crc)
	}
	return nil
}
