package verify

import (
	"encoding/binary"
	"hash/crc32"
)

// When metadata is stripped, a PNG keeps the chunks that are needed to show it. IDAT and
// fdAT must hold their pixels and no more, so VerifyPixels is implied. The content of iCCP is
// not looked into.

// pngShown lists the ancillary chunks that decoders may need to show the image, and the
// lengths that they have (section 11.3). They must come before IDAT. All others are
// stripped.
var pngShown = []struct {
	name        string
	least, most int64
}{
	{"acTL", 8, 8},
	{"bKGD", 1, 6},
	{"cHRM", 32, 32},
	{"cICP", 4, 4},
	{"cLLI", 8, 8},
	{"gAMA", 4, 4},
	{"hIST", 2, 512},
	{"iCCP", 0, 1<<31 - 1},
	{"mDCV", 24, 24},
	{"pHYs", 9, 9},
	{"sBIT", 1, 4},
	{"sRGB", 1, 1},
}

// shown reports whether the chunk, whose length and type were read, is needed to show the
// image. Decoders ignore a second one, and one of a wrong length.
func (p *pngReader) shown() bool {
	switch string(p.name[:]) {
	case "IHDR", "PLTE", "tRNS", "IDAT", "IEND":
		return true
	case "fcTL", "fdAT":
		return p.frames > 0
	}
	for i, c := range pngShown {
		if p.is(c.name) && !p.inData && c.least <= p.left && p.left <= c.most && p.kept>>i&1 == 0 {
			p.kept |= 1 << i
			return true
		}
	}
	return false
}

// orientation reads an eXIf chunk (section 11.3.4.5). Browsers heed the orientation in the
// first one if that is before IDAT. Other programs look after IDAT, too. When metadata
// is stripped, the chunk that replaces it has the orientation alone.
func (p *pngReader) orientation() error {
	p.exifs++
	if p.exifs > 1 {
		return nil // it is dropped, because there may be one only
	}
	for p.left > 0 {
		b, err := p.data()
		if err != nil {
			return err
		}
		p.exif.write(b)
	}
	turned := p.exif.orientation()
	if err := p.finish(); err != nil || !p.opts.StripMetadata || turned == upright {
		return err
	}
	block := turned.block()
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(block)))
	chunk = append(append(chunk, "eXIf"...), block...)
	return p.r.emit(binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:])))
}

// animation reads an acTL chunk (section 11.3.6.1). Decoders ignore one of a wrong length.
func (p *pngReader) animation(h pngHeader) error {
	if p.animated && p.opts.StripMetadata {
		return p.unstrippable("second acTL chunk") // decoders disagree on what it means
	}
	if p.left != 8 || p.animated {
		return nil
	}
	p.animated = true
	var b [8]byte
	if err := p.content(b[:]); err != nil {
		return err
	}
	p.frames = int64(binary.BigEndian.Uint32(b[:]))
	return p.opts.checkFrames(p.start+8, h.width, h.height, p.frames)
}

// content fills b with data of the chunk, which must have as much.
func (p *pngReader) content(b []byte) error {
	for n := 0; n < len(b); {
		part, err := p.r.next(int64(len(b) - n))
		if err != nil {
			return p.cut(err)
		}
		p.left -= int64(len(part))
		p.crc = crc32.Update(p.crc, crc32.IEEETable, part)
		n += copy(b[n:], part)
	}
	return nil
}

// frame counts an fcTL chunk (section 11.3.6.2). When metadata is stripped, all of the
// animation must be as decoders want it, so that nothing hides in what they ignore.
func (p *pngReader) frame(h pngHeader) error {
	if p.frames == 0 {
		return nil // decoders ignore it without acTL
	}
	p.controls++
	if err := p.opts.checkFrames(p.start, h.width, h.height, p.controls); err != nil || !p.opts.StripMetadata {
		return err
	}
	if p.left != 26 {
		return p.unstrippable("fcTL: length %d, want 26", p.left)
	}
	if p.fdat.width > 0 {
		return p.unstrippable("fcTL: no fdAT since the one before")
	}
	if err := p.sequenced(); err != nil {
		return err
	}
	var b [16]byte
	if err := p.content(b[:]); err != nil {
		return err
	}
	width, height := int64(binary.BigEndian.Uint32(b[0:])), int64(binary.BigEndian.Uint32(b[4:]))
	x, y := int64(binary.BigEndian.Uint32(b[8:])), int64(binary.BigEndian.Uint32(b[12:]))
	if width == 0 || height == 0 || x+width > h.width || y+height > h.height {
		return p.unstrippable("fcTL: %d x %d at %d, %d is not inside of %d x %d", width, height, x, y, h.width, h.height)
	}
	if p.inData {
		p.fdat = h
		p.fdat.width, p.fdat.height = width, height
	} else if width != h.width || height != h.height || p.controls > 1 {
		return p.unstrippable("fcTL before IDAT: %d x %d, want one of %d x %d", width, height, h.width, h.height)
	}
	return nil
}

// frameData reads the fdAT chunks of a frame (section 11.3.6.3), and the length and type of
// the chunk after them.
func (p *pngReader) frameData() error {
	if p.fdat.width == 0 {
		return p.unstrippable("fdAT: no fcTL since the one before")
	}
	if err := p.sequenced(); err != nil {
		return err
	}
	h := p.fdat
	p.fdat = pngHeader{}
	return p.pixels(h, "fdAT")
}

// sequenced reads the sequence number of an fcTL or fdAT chunk.
func (p *pngReader) sequenced() error {
	if p.left < 4 {
		return p.unstrippable("%s: length %d, want at least 4", string(p.name[:]), p.left)
	}
	var b [4]byte
	if err := p.content(b[:]); err != nil {
		return err
	}
	if n := binary.BigEndian.Uint32(b[:]); n != p.sequence {
		return p.unstrippable("%s: sequence number %d, want %d", string(p.name[:]), n, p.sequence)
	}
	p.sequence++
	return nil
}

// lastFrame judges an animation at IEND.
func (p *pngReader) lastFrame() error {
	if !p.opts.StripMetadata || p.frames == 0 {
		return nil
	}
	if p.controls != p.frames || p.fdat.width > 0 {
		return p.unstrippable("acTL: %d frames, of which %d begin", p.frames, p.controls)
	}
	return nil
}

// unstrippable returns an error at the chunk.
func (p *pngReader) unstrippable(format string, args ...any) error {
	return invalid(p.start, "its metadata cannot be removed; save it with another program: "+format, args...)
}
