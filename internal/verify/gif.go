package verify

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The rules for a GIF are those of the GIF89a Specification
// (https://www.w3.org/Graphics/GIF/spec-gif89a.txt), which comments cite by section. Where
// browsers show what it forbids, they win.
//
// The structural check reads the header, the blocks, the sizes of sub-blocks, and the
// trailer. With VerifyPixels, the codes of each image must also stand for exactly its
// pixels. A GIF has no checksums: a wrong colour, or a wrong code of the right length, is
// not noticed.
//
// When metadata is stripped, the following stay: colour tables, images, graphic control
// extensions, the number of loops, and the ICC profile. The codes are checked to find where
// they end, because decoders ignore what follows them. Without an end code, the last bits,
// too few for a code, stay.

// The first bytes of blocks (appendix A), and the labels of extensions.
const (
	gifExtension = 0x21
	gifImage     = 0x2c // section 20
	gifTrailer   = 0x3b // section 27

	gifPlainText      = 0x01 // section 25
	gifGraphicControl = 0xf9 // section 23
	gifApplication    = 0xff // section 26
)

func isGIF(head []byte) bool { return beginsWith(head, "GIF8") }

// checkGIF reads a GIF, of which at least the first byte is known to be right.
func checkGIF(r *reader, opts Options) (Meta, error) {
	g := gifReader{r: r, opts: opts}
	defer g.release()
	err := g.screen()
	for err == nil {
		if opts.StripMetadata {
			r.hold() // the block says what becomes of it
		}
		at := r.offset()
		var kind byte
		if kind, err = g.byte("no trailer"); err != nil {
			break
		}
		switch kind {
		case gifImage:
			r.keep()
			err = g.image(at)
		case gifExtension:
			err = g.extension()
		case gifTrailer:
			r.keep()
			return g.meta, g.end(at)
		default:
			err = wrong(at, "GIF: a block begins with %#02x, want 0x21 (extension), 0x2c (image) or 0x3b (trailer)", kind)
		}
	}
	return g.meta, err
}

// A gifReader reads a GIF block by block.
type gifReader struct {
	r             *reader
	opts          Options
	meta          Meta
	width, height int64 // of the canvas
	frames        int64
	pixels        *lzwCounter // nil until it is first needed
}

func (g *gifReader) release() {
	if g.pixels != nil {
		lzwCounters.Put(g.pixels)
	}
}

// byte reads one byte. What says what is missing if the stream ends before.
func (g *gifReader) byte(what string) (byte, error) {
	b, err := g.r.next(1)
	if err != nil {
		return 0, g.r.truncated(err, "GIF: %s", what)
	}
	return b[0], nil
}

// full fills b. What says of what bytes are missing if the stream ends before.
func (g *gifReader) full(b []byte, what string) error {
	n, err := g.r.full(b)
	if err != nil {
		return g.r.truncated(err, "GIF: %d of %d bytes of %s are missing", len(b)-n, len(b), what)
	}
	return nil
}

// screen reads the header, the logical screen descriptor and the global colour table
// (sections 17 to 19).
func (g *gifReader) screen() error {
	var version [6]byte
	if err := g.full(version[:], "the header"); err != nil {
		return err
	}
	if s := string(version[:]); s != "GIF87a" && s != "GIF89a" {
		return damaged(3, "GIF: version %q, want 87a or 89a", s[3:])
	}
	var b [7]byte
	if err := g.full(b[:], "the logical screen descriptor"); err != nil {
		return err
	}
	g.width, g.height = int64(binary.LittleEndian.Uint16(b[0:])), int64(binary.LittleEndian.Uint16(b[2:]))
	if err := g.opts.checkPixels(6, g.width, g.height); err != nil {
		return err
	}
	return g.colours(b[4], "the global colour table")
}

// colours skips the colour table that flags announce (sections 19 and 21).
func (g *gifReader) colours(flags byte, what string) error {
	if flags&0x80 == 0 {
		return nil // section 18 allows it: decoders use colours of their own
	}
	start, size := g.r.offset(), int64(3)<<(1+flags&7)
	if err := g.r.skip(size); err != nil {
		return g.r.truncated(err, "GIF: %d of %d bytes of %s are missing", size-(g.r.offset()-start), size, what)
	}
	return nil
}

// image reads an image descriptor, a local colour table and the image data (sections 20
// to 22). They begin at an offset.
func (g *gifReader) image(at int64) error {
	var b [9]byte
	if err := g.full(b[:], "an image descriptor"); err != nil {
		return err
	}
	width, height := int64(binary.LittleEndian.Uint16(b[4:])), int64(binary.LittleEndian.Uint16(b[6:]))
	if g.frames++; g.frames == 1 {
		// Every image must be on the logical screen. Browsers enlarge the canvas for the
		// first one that is not, and cut off what lies outside of the others.
		g.width = max(g.width, int64(binary.LittleEndian.Uint16(b[0:]))+width)
		g.height = max(g.height, int64(binary.LittleEndian.Uint16(b[2:]))+height)
		if g.width == 0 || g.height == 0 {
			return wrong(at, "GIF: the logical screen and the first image are %d x %d, want at least one pixel", g.width, g.height)
		}
		g.meta = Meta{"image/gif", int(g.width), int(g.height)}
		if err := g.r.described(); err != nil {
			return err
		}
		if err := g.opts.checkPixels(at, g.width, g.height); err != nil {
			return err
		}
	}
	if err := g.opts.checkPixels(at, width, height); err != nil {
		return err
	}
	if err := g.opts.checkFrames(at, g.width, g.height, g.frames); err != nil {
		return err
	}
	if err := g.colours(b[8], "a local colour table"); err != nil {
		return err
	}
	at = g.r.offset()
	size, err := g.byte("no image data")
	if err != nil {
		return err
	}
	if size < 1 || size > 8 {
		// Appendix F wants 2 for two colours, but browsers show what has 1.
		return wrong(at, "GIF: LZW minimum code size %d, want 1 to 8", size)
	}
	if g.opts.VerifyPixels || g.opts.StripMetadata {
		return g.data(size, width*height)
	}
	return g.subBlocks()
}

// subBlocks consumes data sub-blocks and the block terminator (sections 15 and 16).
func (g *gifReader) subBlocks() error {
	for {
		b, err := g.r.next(math.MaxInt64)
		if err != nil {
			return g.cut(err, 0)
		}
		i := 0
		for i < len(b) && b[i] != 0 {
			i += 1 + int(b[i])
		}
		if i < len(b) {
			g.r.unread(len(b) - i - 1)
			return nil
		}
		if err := g.subBlock(int64(i - len(b))); err != nil {
			return err
		}
	}
}

// subBlock consumes the last bytes of a data sub-block.
func (g *gifReader) subBlock(left int64) error {
	end := g.r.offset() + left
	if err := g.r.skip(left); err != nil {
		return g.cut(err, end-g.r.offset())
	}
	return nil
}

// cut returns err, unless that is the end of the stream within sub-blocks: then it says
// what is missing.
func (g *gifReader) cut(err error, left int64) error {
	if left > 0 {
		return g.r.truncated(err, "GIF: %d bytes of a data sub-block are missing", left)
	}
	return g.r.truncated(err, "GIF: no block terminator")
}

// dropSubBlocks consumes data sub-blocks, which it drops, and the block terminator, which
// it keeps.
func (g *gifReader) dropSubBlocks() error {
	for {
		g.r.hold()
		n, err := g.byte("no block terminator")
		if err != nil {
			return err
		}
		if n == 0 {
			g.r.keep()
			return nil
		}
		g.r.drop()
		if err := g.subBlock(int64(n)); err != nil {
			return err
		}
	}
}

// extension reads what follows the first byte of an extension. Decoders skip those that
// they do not know.
func (g *gifReader) extension() error {
	label, err := g.byte("no extension label")
	if err != nil {
		return err
	}
	switch label {
	case gifGraphicControl:
		return g.graphicControl()
	case gifApplication:
		return g.application()
	case gifPlainText: // no decoder shows the text
		at := g.r.offset()
		if n, err := g.byte("no size of the plain text extension"); err != nil {
			return err
		} else if n != 12 {
			return wrong(at, "GIF: plain text extension: size %d, want 12", n)
		}
		if g.opts.StripMetadata {
			g.r.drop()
		}
		if err := g.subBlock(12); err != nil {
			return err
		}
		return g.subBlocks()
	}
	if g.opts.StripMetadata {
		g.r.drop()
	}
	return g.subBlocks()
}

// graphicControl reads the rest of a graphic control extension (section 23). Chromium
// shows no image after one of another size.
func (g *gifReader) graphicControl() error {
	at := g.r.offset()
	n, err := g.byte("no size of the graphic control extension")
	if err != nil {
		return err
	}
	if n != 4 {
		return wrong(at, "GIF: graphic control extension: size %d, want 4", n)
	}
	if err := g.subBlock(4); err != nil {
		return err
	}
	at = g.r.offset()
	n, err = g.byte("no block terminator")
	if err != nil {
		return err
	}
	if n != 0 {
		return wrong(at, "GIF: graphic control extension: block terminator %d, want 0", n)
	}
	g.r.keep()
	return nil
}

// application reads the rest of an application extension (section 26). Those that say how
// to show the image are not stripped: the number of loops and the ICC profile.
func (g *gifReader) application() error {
	if !g.opts.StripMetadata {
		return g.subBlocks()
	}
	n, err := g.byte("no size of the application extension")
	if err != nil {
		return err
	}
	var name [11]byte
	if n != byte(len(name)) { // some programs write 10
		g.r.drop()
		if n == 0 {
			return nil
		}
		if err := g.subBlock(int64(n)); err != nil {
			return err
		}
		return g.subBlocks()
	}
	if err := g.full(name[:], "an application extension"); err != nil {
		return err
	}
	switch string(name[:]) {
	case "ICCRGBG1012":
		g.r.keep()
		return g.subBlocks()
	case "NETSCAPE2.0", "ANIMEXTS1.0":
		return g.loops()
	}
	g.r.drop()
	return g.subBlocks()
}

// loops reads the data of an extension of Netscape. Decoders look for the number of loops
// in the first sub-block. What else there is, is dropped.
func (g *gifReader) loops() error {
	const size = 3
	n, err := g.byte("no block terminator")
	if err != nil {
		return err
	}
	var b [size]byte
	if n == size {
		if err := g.full(b[:], "a data sub-block"); err != nil {
			return err
		}
		if b[0] == 1 {
			g.r.keep()
			return g.dropSubBlocks()
		}
		n = 0
	} else if n == 0 {
		g.r.drop()
		return nil
	}
	g.r.drop()
	if err := g.subBlock(int64(n)); err != nil {
		return err
	}
	return g.subBlocks()
}

// end judges the trailer, at an offset, and what follows it. Of real files, one in a hundred
// is padded to the size of a block, most often with zeros, which pass. Anything else may be
// private, because decoders do not look at it.
func (g *gifReader) end(at int64) error {
	if g.frames == 0 {
		return wrong(at, "GIF: no image comes before the trailer")
	}
	if g.opts.StripMetadata {
		g.r.drop()
	}
	end := g.r.offset()
	for {
		b, err := g.r.next(math.MaxInt64)
		if err == errEnd {
			return nil
		} else if err != nil {
			return err
		}
		if !g.opts.StripMetadata && len(bytes.TrimLeft(b, "\x00")) > 0 {
			return g.trailing(end)
		}
	}
}

// trailing returns an error because of what has followed the trailer from an offset on, and
// counts the rest.
func (g *gifReader) trailing(end int64) error {
	n := g.r.offset() - end
	more, _, err := g.r.rest()
	n += more
	count, follow := "", "bytes follow"
	if err != errEnd {
		count = "at least "
	}
	if n == 1 {
		follow = "byte follows"
	}
	return invalid(end, "the picture is whole, but %s%d %s its end, maybe private; open it and save it as a new file: "+
		"GIF: only zeros may follow the trailer", count, n, follow)
}
