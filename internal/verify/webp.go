package verify

import (
	"encoding/binary"
	"strings"
)

// A WebP is checked by RFC 9649, section 2, and by libwebp's demuxer, which Chromium and
// Pillow use: a file must be right for both. There is one exception. All decoders show a
// file in which a flag of VP8X does not match the chunk that it announces, for the
// profile, transparency, Exif and XMP. So that is right here.

// webpMaxSize is the largest size in the file's header (section 2.4).
const webpMaxSize = 1<<32 - 10

// Flags of VP8X (section 2.7).
const (
	webpAnimation = 0x02
	webpReserved  = 0xc1
)

// Masks of what stays of the fields of a chunk when metadata is stripped. Reserved bits
// are cleared, and the flag of XMP, which is removed.
const (
	vp8xMask  = "\x3a\x00\x00\x00\xff\xff\xff\xff\xff\xff"
	animMask  = "\xff\xff\xff\xff\xff\xff"
	frameMask = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x03"
	alphaMask = "\x3f"
)

// webpFiller is the type of chunk that takes the place of what is removed. RIFF has it
// for this. Decoders ignore it like any unknown chunk (section 2.7.1.6).
const webpFiller = "JUNK"

// webpExif is the smallest size of an Exif chunk that can have an orientation.
const webpExif = 8 + 2 + 12

func isWebP(head []byte) bool {
	return beginsWith(head, "RIFF") && (len(head) <= 8 || beginsWith(head[8:], "WEBP"))
}

// A webpReader reads a WebP chunk by chunk (section 2.3).
type webpReader struct {
	r             *reader
	opts          Options
	end           int64 // of the file
	width, height int64 // of the canvas; 0 until they are known
	frames        int64
	animated      bool // VP8X says so
	// Whether these chunks have come.
	image, anim, profile, exif bool
}

// checkWebP reads a WebP, of which at least the first byte is known to be right.
func checkWebP(r *reader, opts Options) (Meta, error) {
	w := &webpReader{r: r, opts: opts}
	err := w.header()
	if err == nil {
		err = w.chunks()
	}
	if err == nil {
		err = w.trailing()
	}
	return Meta{"image/webp", int(w.width), int(w.height)}, err
}

// header reads the header of the file (section 2.4).
func (w *webpReader) header() error {
	var b [12]byte
	if n, err := w.r.full(b[:]); err != nil {
		return w.r.truncated(err, "WebP: %d of 12 header bytes are missing", 12-n)
	}
	size := int64(binary.LittleEndian.Uint32(b[4:]))
	if size%2 != 0 || size < 12 || size > webpMaxSize {
		return wrong(4, "WebP: RIFF: size %d, want an even number from 12 to %d", size, int64(webpMaxSize))
	}
	w.end = 8 + size
	return nil
}

// chunks reads all chunks.
func (w *webpReader) chunks() error {
	c, err := w.next(w.end)
	if err != nil {
		return err
	}
	switch c.name {
	case "VP8X":
		err = w.features(c)
	case "VP8 ", "VP8L": // sections 2.5 and 2.6
		w.image = true
		c, err = w.picture(c, w.end, 0, 0)
	default:
		err = c.misplaced("the first chunk must be VP8, VP8L or VP8X, not %q", c.name)
	}
	for err == nil && c.end() < w.end {
		if c, err = w.next(w.end); err == nil {
			c, err = w.chunk(c)
		}
	}
	switch {
	case err != nil:
		return err
	case w.animated && w.frames == 0:
		return wrong(w.end, "WebP: VP8X says that it is an animation, but there is no ANMF")
	case !w.animated && !w.image:
		return wrong(w.end, "WebP: there is no image: neither VP8 nor VP8L")
	}
	return nil
}

// chunk reads a chunk that is not the first (section 2.7). It returns the last chunk
// that it has read.
func (w *webpReader) chunk(c webpChunk) (webpChunk, error) {
	switch c.name {
	case "VP8 ", "VP8L", "ALPH":
		switch {
		case w.animated:
			return c, c.misplaced("%s must be inside ANMF: VP8X says that it is an animation", c.title())
		case w.image:
			return c, c.misplaced("%s comes after the image", c.title())
		}
		w.image = true
		return w.picture(c, w.end, w.width, w.height)
	case "VP8X":
		return c, c.misplaced("VP8X must be the first chunk and the only VP8X")
	case "ANIM", "ANMF":
		switch {
		case !w.animated:
			return c, c.misplaced("here is %s, but VP8X does not say that it is an animation", c.name)
		case c.name == "ANIM":
			return c, w.animation(c)
		case !w.anim:
			return c, c.misplaced("ANIM must come before ANMF")
		}
		return c, w.frame(c)
	case "ICCP":
		if !w.profile {
			w.profile = true
			return c, w.whole(c)
		}
	case "EXIF":
		if !w.exif {
			w.exif = true
			return c, w.metadata(c)
		}
	}
	// Of several profiles or Exif blocks the first counts (sections 2.7.1.4 and 2.7.1.5).
	return c, w.fill(c)
}

// features reads VP8X (section 2.7).
func (w *webpReader) features(c webpChunk) error {
	if c.size != 10 {
		return c.missized("want 10")
	}
	var b [10]byte
	if err := w.fields(b[:], vp8xMask); err != nil {
		return err
	}
	w.animated = b[0]&webpAnimation != 0
	w.width, w.height = 1+uint24(b[4:]), 1+uint24(b[7:])
	at := c.payload() + 4 // of the width
	switch {
	case b[0]&webpReserved != 0:
		return wrong(c.payload(), "WebP: VP8X: flags %08b, reserved bits are set", b[0])
	case w.width*w.height > 1<<32-1:
		return wrong(at, "WebP: VP8X: %d x %d is %d pixels, at most 4294967295 are possible", w.width, w.height, w.width*w.height)
	}
	if err := w.r.described(); err != nil {
		return err
	}
	return w.opts.checkPixels(at, w.width, w.height)
}

// animation reads ANIM (section 2.7.1.1). Decoders take the first, and ignore what
// follows its fields.
func (w *webpReader) animation(c webpChunk) error {
	if c.size < 6 {
		return c.missized("want 6")
	}
	if w.anim {
		return w.fill(c)
	}
	w.anim = true
	var b [6]byte
	if err := w.fields(b[:], animMask); err != nil {
		return err
	}
	return w.blank(c)
}

// frame reads ANMF and the chunks in it (section 2.7.1.1).
func (w *webpReader) frame(c webpChunk) error {
	if c.size < 16+8 {
		return c.missized("want at least 24")
	}
	var b [16]byte
	if err := w.fields(b[:], frameMask); err != nil {
		return err
	}
	x, y, width, height := 2*uint24(b[0:]), 2*uint24(b[3:]), 1+uint24(b[6:]), 1+uint24(b[9:])
	if x+width > w.width || y+height > w.height {
		return wrong(c.payload(), "WebP: ANMF: %d x %d pixels at %d, %d are not inside the canvas of %d x %d", width, height, x, y, w.width, w.height)
	}
	w.frames++
	if err := w.opts.checkFrames(c.start, w.width, w.height, w.frames); err != nil {
		return err
	}
	end := c.end()
	part, err := w.next(end)
	if err == nil {
		part, err = w.picture(part, end, width, height)
	}
	for err == nil && part.end() < end {
		if part, err = w.next(end); err != nil {
			break
		}
		switch part.name {
		case "VP8 ", "VP8L", "VP8X", "ALPH", "ANIM", "ANMF", "ICCP":
			return part.misplaced("%s comes after the image of the frame", part.title())
		}
		err = w.fill(part)
	}
	return err
}

// picture reads an image, which begins with c and ends before end. It must have a width
// and a height, unless they are 0. picture returns the last chunk that it has read.
func (w *webpReader) picture(c webpChunk, end, width, height int64) (webpChunk, error) {
	if c.name == "ALPH" {
		if err := w.alpha(c, width, height); err != nil {
			return c, err
		}
		if c.end() == end {
			return c, wrong(end, "WebP: ALPH without VP8")
		}
		var err error
		if c, err = w.next(end); err != nil {
			return c, err
		}
		if c.name != "VP8 " {
			return c, c.misplaced("VP8 must come after ALPH, not %q", c.name)
		}
	}
	switch c.name {
	case "VP8 ":
		return c, w.lossy(c, width, height)
	case "VP8L":
		return c, w.lossless(c, width, height)
	}
	return c, c.misplaced("ANMF must begin with ALPH, VP8 or VP8L, not %q", c.name)
}

// alpha reads ALPH (section 2.7.1.2).
func (w *webpReader) alpha(c webpChunk, width, height int64) error {
	if c.size < 2 {
		return c.missized("want at least 2")
	}
	var b [1]byte
	if err := w.fields(b[:], alphaMask); err != nil {
		return err
	}
	compression, processing, reserved := b[0]&3, b[0]>>4&3, b[0]>>6
	switch {
	case compression > 1:
		return wrong(c.payload(), "WebP: ALPH: compression method %d, want 0 or 1", compression)
	case processing > 1:
		return wrong(c.payload(), "WebP: ALPH: pre-processing %d, want 0 or 1", processing)
	case reserved > 1: // libwebp takes 1
		return wrong(c.payload(), "WebP: ALPH: reserved bits %d, want 0", reserved)
	case compression == 1:
		if w.opts.VerifyPixels { // as in VP8L, without a header
			if err := w.entropy(c, width, height); err != nil {
				return err
			}
		}
		return w.whole(c)
	}
	if c.size-1 < width*height {
		return c.missized("want %d for %d x %d pixels without compression", 1+width*height, width, height)
	}
	if err := w.r.skip(width * height); err != nil {
		return w.cut(err)
	}
	return w.blank(c)
}

// sized judges the size of an image, whose fields are at an offset.
func (w *webpReader) sized(c webpChunk, at, width, height, wantWidth, wantHeight int64) error {
	if wantWidth > 0 { // VP8X or ANMF has said it
		if width != wantWidth || height != wantHeight {
			return wrong(at, "WebP: %s: %d x %d pixels, want %d x %d", c.title(), width, height, wantWidth, wantHeight)
		}
		return nil
	}
	w.width, w.height = width, height
	if err := w.r.described(); err != nil {
		return err
	}
	return w.opts.checkPixels(at, width, height)
}

// trailing returns nil if the stream ends here. Otherwise it counts the rest, as for a
// PNG. Decoders ignore it (section 2.4), but no program is known to write it.
func (w *webpReader) trailing() error {
	n, zeros, err := w.r.rest()
	if n == 0 && err == errEnd {
		return nil
	} else if n == 0 {
		return err
	}
	count, kind, private := "", "", ", maybe private"
	if err != errEnd {
		count = "at least "
	}
	if zeros {
		kind, private = "zero ", ""
	}
	return invalid(w.end, "the picture is whole, but more follows its end%s; open it and save it as a new file: WebP: RIFF: %s%d %sbytes too many",
		private, count, n, kind)
}

// metadata reads Exif. Decoders of WebP do not apply its orientation, but other programs
// do. If metadata is stripped, that is all that stays of it.
func (w *webpReader) metadata(c webpChunk) error {
	if !w.opts.StripMetadata || c.size < webpExif {
		return w.fill(c)
	}
	w.r.drop()
	var e prefixedExif
	for left := c.size; left > 0; {
		b, err := w.r.next(left)
		if err != nil {
			return w.cut(err)
		}
		e.write(b)
		left -= int64(len(b))
	}
	if err := w.r.skip(c.size & 1); err != nil {
		return w.cut(err)
	}
	block := e.exif.orientation().block()
	block = block[:min(c.size, int64(len(block)))]
	err := w.r.emit(c.header(c.name))
	if err == nil {
		err = w.r.emit(block)
	}
	for left := c.size + c.size&1 - int64(len(block)); err == nil && left > 0; {
		part := zeros[:min(left, int64(len(zeros)))]
		err = w.r.emit(part)
		left -= int64(len(part))
	}
	w.r.keep()
	return err
}

var zeros [16 << 10]byte

// A prefixedExif finds the orientation in an Exif block. Many programs write the
// beginning of JPEG's APP1 segment before the block. Decoders skip that.
type prefixedExif struct {
	exif exif
	head [6]byte
	n    int // bytes of head that are there
}

func (e *prefixedExif) write(b []byte) {
	if e.n < len(e.head) {
		n := copy(e.head[e.n:], b)
		e.n += n
		if b = b[n:]; e.n == len(e.head) && string(e.head[:]) != "Exif\x00\x00" {
			e.exif.write(e.head[:])
		}
	}
	e.exif.write(b)
}

// A webpChunk is a chunk, of which the header was read (section 2.3).
type webpChunk struct {
	name  string
	start int64 // offset of the name
	size  int64 // of the payload
}

// payload returns the offset of the payload.
func (c webpChunk) payload() int64 { return c.start + 8 }

// end returns the offset of the next chunk. Payloads are padded to an even size.
func (c webpChunk) end() int64 { return c.payload() + c.size + c.size&1 }

// title returns the name of a known chunk.
func (c webpChunk) title() string { return strings.TrimRight(c.name, " ") }

// header returns the header of a chunk of the same size.
func (c webpChunk) header(name string) []byte {
	return binary.LittleEndian.AppendUint32([]byte(name), uint32(c.size))
}

// misplaced returns an error at the chunk's name.
func (c webpChunk) misplaced(format string, args ...any) error {
	return wrong(c.start, "WebP: "+format, args...)
}

// missized returns an error at the chunk's size.
func (c webpChunk) missized(format string, args ...any) error {
	return wrong(c.start+4, "WebP: %s: size %d, "+format, append([]any{c.title(), c.size}, args...)...)
}

// next reads the header of the next chunk, of those that end at an offset. If metadata
// is stripped, the header is held.
func (w *webpReader) next(end int64) (webpChunk, error) {
	c := webpChunk{start: w.r.offset()}
	left := end - c.payload()
	if left < 0 {
		return c, wrong(c.start, "WebP: %d bytes after the last chunk, too few for another", left+8)
	}
	if w.opts.StripMetadata {
		w.r.hold()
	}
	var b [8]byte
	if _, err := w.r.full(b[:]); err != nil {
		return c, w.cut(err)
	}
	c.name = string(b[:4])
	c.size = int64(binary.LittleEndian.Uint32(b[4:]))
	if c.size+c.size&1 > left {
		return c, wrong(c.start+4, "WebP: chunk %q: size %d, at most %d is possible with its padding", c.name, c.size, left)
	}
	return c, nil
}

// fields reads the fields at the beginning of a chunk. If metadata is stripped, they are
// masked.
func (w *webpReader) fields(b []byte, mask string) error {
	if w.opts.StripMetadata {
		w.r.keep() // the header
		w.r.drop()
	}
	if _, err := w.r.full(b); err != nil {
		return w.cut(err)
	}
	if !w.opts.StripMetadata {
		return nil
	}
	masked := []byte(mask)
	for i := range masked {
		masked[i] &= b[i]
	}
	err := w.r.emit(masked)
	w.r.keep()
	return err
}

// whole reads the rest of a chunk that is needed to show the image.
func (w *webpReader) whole(c webpChunk) error {
	if w.opts.StripMetadata {
		w.r.keep()
	}
	if err := w.r.skip(c.payload() + c.size - w.r.offset()); err != nil {
		return w.cut(err)
	}
	return w.blank(c)
}

// fill reads the rest of a chunk that is not needed. If metadata is stripped, the chunk
// becomes one without content. Its size stays: that of the file was in the header.
func (w *webpReader) fill(c webpChunk) error {
	if w.opts.StripMetadata {
		w.r.drop()
		if err := w.r.emit(c.header(webpFiller)); err != nil {
			return err
		}
		w.r.keep()
	}
	return w.blank(c)
}

// blank reads the rest of a chunk and its padding. If metadata is stripped, it becomes
// zeros.
func (w *webpReader) blank(c webpChunk) error {
	for left := c.end() - w.r.offset(); left > 0; {
		b, err := w.r.next(left)
		if err != nil {
			return w.cut(err)
		}
		if w.opts.StripMetadata {
			clear(b)
		}
		left -= int64(len(b))
	}
	return nil
}

// cut returns err, unless that is the end of the stream: then it says how much is
// missing.
func (w *webpReader) cut(err error) error {
	return w.r.truncated(err, "WebP: RIFF: size %d, but %d bytes are missing", w.end-8, w.end-w.r.offset())
}

func uint24(b []byte) int64 { return int64(b[0]) | int64(b[1])<<8 | int64(b[2])<<16 }
