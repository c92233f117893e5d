package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync"
)

// lossless reads VP8L (RFC 9649, section 3.4).
func (w *webpReader) lossless(c webpChunk, width, height int64) error {
	const header = 5
	if c.size < header {
		return c.missized("want at least %d", header)
	}
	if w.opts.StripMetadata {
		w.r.keep()
	}
	var b [header]byte
	if _, err := w.r.full(b[:]); err != nil {
		return w.cut(err)
	}
	fields := int64(binary.LittleEndian.Uint32(b[1:]))
	gotWidth, gotHeight, version := 1+fields&0x3fff, 1+fields>>14&0x3fff, fields>>29
	switch {
	case b[0] != 0x2f:
		return wrong(c.payload(), "WebP: VP8L: signature %#02x, want 0x2f", b[0])
	case version != 0:
		return wrong(c.payload()+4, "WebP: VP8L: version %d, want 0", version)
	}
	if err := w.sized(c, c.payload()+1, gotWidth, gotHeight, width, height); err != nil {
		return err
	}
	if w.opts.VerifyPixels {
		if err := w.entropy(c, gotWidth, gotHeight); err != nil {
			return err
		}
	}
	return w.whole(c)
}

// entropy reads the bits of the image of VP8L or ALPH that follow here.
func (w *webpReader) entropy(c webpChunk, width, height int64) error {
	d := vp8lDecoders.Get().(*vp8lDecoder)
	defer func() {
		d.release()
		vp8lDecoders.Put(d)
	}()
	d.r, d.left = w.r, c.payload()+c.size-w.r.offset()
	switch err := d.image(int(width), int(height)); {
	case d.err != nil:
		return w.cut(d.err)
	case d.short: // then err may be about zeros that are not in the file
		return wrong(c.payload()+c.size, "WebP: %s: the image data ends too early", c.title())
	case err != nil && err != errTooMuch:
		return wrong(w.r.offset()-int64(len(d.buf)), "WebP: %s: %v", c.title(), err)
	}
	return nil
}

var (
	errShort   = errors.New("end of data")
	errTooMuch = errors.New("too many prefix codes")
)

// What a vp8lDecoder keeps at most. libwebp's encoder makes at most 2600 entries. An image
// that needs more is shown, but is not looked into.
const (
	vp8lEntries = 1 << 14 // of the entropy image
	vp8lMemory  = 1 << 20 // bytes of prefix codes
)

// A vp8lDecoder reads the bits of an image (section 3). It needs few pixels: which bits
// come depends on the prefix codes, on the entropy image, which says what code is for
// what block, and on how many pixels there are. The colours do not matter.
type vp8lDecoder struct {
	vp8lBits
	used    int // bytes of prefix codes
	lengths [256 + 24 + 1<<11]uint8
	cache   [1 << 11]uint32 // of colours, for the entropy image
}

var vp8lDecoders = sync.Pool{New: func() any { return new(vp8lDecoder) }}

func (d *vp8lDecoder) release() { d.vp8lBits, d.used = vp8lBits{}, 0 }

// Types of transforms (section 4).
const (
	predictor      = 0
	crossColour    = 1
	colourIndexing = 3
)

// image reads an image (section 7.2).
func (d *vp8lDecoder) image(width, height int) error {
	seen := 0
	for d.flag() {
		kind := d.take(2)
		if seen>>kind&1 != 0 {
			return fmt.Errorf("transform %d comes twice", kind)
		}
		seen |= 1 << kind
		var err error
		switch kind {
		case predictor, crossColour:
			n := d.take(3) + 2
			err = d.stream(blocks(width, n), blocks(height, n), nil)
		case colourIndexing:
			colours := int(d.take(8)) + 1
			err = d.stream(colours, 1, nil)
			switch {
			case colours <= 2:
				width = blocks(width, 3)
			case colours <= 4:
				width = blocks(width, 2)
			case colours <= 16:
				width = blocks(width, 1)
			}
		}
		if err != nil {
			return err
		}
	}
	return d.main(width, height)
}

// blocks returns how many blocks of 1 << bits pixels cover a width or height.
func blocks(size int, bits uint32) int { return (size + 1<<bits - 1) >> bits }

// stream reads an image that serves another. Its pixels are stored in pixels, unless that
// is nil.
func (d *vp8lDecoder) stream(width, height int, pixels []uint32) error {
	cacheBits, err := d.colourCache()
	if err != nil {
		return err
	}
	kept := d.used
	g, err := d.group(cacheBits)
	if err != nil {
		return err
	}
	err = d.pixels(width, height, []*vp8lGroup{g}, nil, 0, cacheBits, pixels)
	d.used = kept
	return err
}

// main reads the image itself, with its entropy image (section 6.2.2).
func (d *vp8lDecoder) main(width, height int) error {
	cacheBits, err := d.colourCache()
	if err != nil {
		return err
	}
	var entropy []uint32
	var precision uint32
	slots := []int16{0} // of groups that are used, by number in the file; -1 for others
	if d.flag() {
		precision = d.take(3) + 2
		w, h := blocks(width, precision), blocks(height, precision)
		if w*h > vp8lEntries {
			return errTooMuch
		}
		entropy = make([]uint32, w*h)
		if err := d.stream(w, h, entropy); err != nil {
			return err
		}
		slots = slots[:0]
		for i, pixel := range entropy {
			n := int(pixel >> 8 & 0xffff)
			for len(slots) <= n {
				slots = append(slots, -1)
			}
			slots[n] = 0
			entropy[i] = uint32(n)
		}
	}
	var groups []*vp8lGroup
	for n, slot := range slots {
		kept := d.used
		g, err := d.group(cacheBits)
		if err != nil {
			return err
		}
		if slot < 0 {
			d.used = kept
			continue
		}
		slots[n] = int16(len(groups))
		groups = append(groups, g)
	}
	for i, n := range entropy {
		entropy[i] = uint32(slots[n])
	}
	return d.pixels(width, height, groups, entropy, precision, cacheBits, nil)
}

// colourCache reads the size of the colour cache (section 5.2.3).
func (d *vp8lDecoder) colourCache() (cacheBits uint32, err error) {
	if d.flag() {
		if cacheBits = d.take(4); cacheBits < 1 || cacheBits > 11 {
			return 0, fmt.Errorf("a colour cache of %d bits, want 1 to 11", cacheBits)
		}
	}
	return cacheBits, nil
}

// A vp8lGroup has the prefix codes of some blocks: for green, lengths and the cache, for
// red, blue, alpha, and for distances (section 6.2).
type vp8lGroup struct {
	codes [5]vp8lCode
	free  bool // a pixel, or a copy, takes no bits
}

// group reads a group.
func (d *vp8lDecoder) group(cacheBits uint32) (*vp8lGroup, error) {
	alphabets := [5]int{256 + 24, 256, 256, 256, 40}
	if cacheBits > 0 {
		alphabets[0] += 1 << cacheBits
	}
	g := new(vp8lGroup)
	if d.used += 5 * 80; d.used > vp8lMemory {
		return nil, errTooMuch
	}
	for i, n := range alphabets {
		if err := d.code(&g.codes[i], n); err != nil {
			return nil, err
		}
	}
	c := &g.codes
	literal := c[1].symbols == nil && c[2].symbols == nil && c[3].symbols == nil
	// The first four lengths and distances have no extra bits (section 5.2.2).
	copied := c[0].only < 256+4 && c[4].symbols == nil && c[4].only < 4
	g.free = c[0].symbols == nil && (c[0].only < 256 && literal || c[0].only >= 256 && copied || c[0].only >= 256+24)
	return g, nil
}

// vp8lOrder is the order of the lengths of codes for lengths (section 6.2.1).
var vp8lOrder = [19]uint8{17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// code reads a prefix code (section 6.2.1).
func (d *vp8lDecoder) code(c *vp8lCode, alphabet int) error {
	lengths := d.lengths[:alphabet]
	clear(lengths)
	if d.flag() { // a simple code
		two := d.flag()
		size := uint32(1)
		if d.flag() {
			size = 8
		}
		one := d.take(size)
		symbols := []uint32{one}
		if two {
			symbols = append(symbols, d.take(8))
		}
		for _, s := range symbols {
			if int(s) >= alphabet || lengths[s] != 0 { // decoders disagree about these
				return fmt.Errorf("a simple prefix code has the symbols %d of %d", symbols, alphabet)
			}
			lengths[s] = 1
		}
	} else {
		var first [19]uint8
		for _, s := range vp8lOrder[:4+d.take(4)] {
			first[s] = uint8(d.take(3))
		}
		var code vp8lCode
		if err := d.build(&code, first[:]); err != nil {
			return err
		}
		if err := d.codeLengths(&code, lengths); err != nil {
			return err
		}
	}
	if d.short {
		return errShort
	}
	return d.build(c, lengths)
}

// codeLengths reads the lengths of the codes of an alphabet.
func (d *vp8lDecoder) codeLengths(code *vp8lCode, lengths []uint8) error {
	most := len(lengths)
	if d.flag() {
		if most = 2 + int(d.take(2+2*d.take(3))); most > len(lengths) {
			return fmt.Errorf("a prefix code has %d symbols, at most %d are possible", most, len(lengths))
		}
	}
	previous := uint8(8)
	for i := 0; i < len(lengths) && most > 0; most-- {
		n := d.symbol(code)
		if d.short {
			return errShort
		}
		if n < 16 {
			lengths[i] = uint8(n)
			i++
			if n > 0 {
				previous = uint8(n)
			}
			continue
		}
		length, repeat := previous, 0
		switch n {
		case 16:
			repeat = 3 + int(d.take(2))
		case 17:
			length, repeat = 0, 3+int(d.take(3))
		case 18:
			length, repeat = 0, 11+int(d.take(7))
		}
		if repeat > len(lengths)-i {
			return fmt.Errorf("a prefix code has lengths for %d symbols, at most %d are possible", i+repeat, len(lengths))
		}
		for range repeat {
			lengths[i] = length
			i++
		}
	}
	return nil
}

// vp8lCode is a canonical prefix code.
type vp8lCode struct {
	only    uint16     // if symbols is nil, the only symbol, which has no bits
	counts  [16]uint16 // of codes by length
	symbols []uint16   // by their codes
	table   []uint16   // of codes of up to vp8lTable bits: symbol << 4 | length
}

const vp8lTable = 7

// build makes a code of the lengths. They must use up all codes.
func (d *vp8lDecoder) build(c *vp8lCode, lengths []uint8) error {
	n := 0
	for s, length := range lengths {
		if length > 0 {
			c.only = uint16(s)
			c.counts[length]++
			n++
		}
	}
	if n == 1 {
		c.counts = [16]uint16{}
		return nil
	}
	free := 1
	var next, first [17]int // index of a symbol, and its code, by length
	for length := 1; length < 16; length++ {
		free = 2*free - int(c.counts[length])
		next[length+1] = next[length] + int(c.counts[length])
		first[length+1] = (first[length] + int(c.counts[length])) << 1
		if free < 0 {
			break
		}
	}
	if n == 0 || free != 0 {
		return errors.New("a prefix code is not complete")
	}
	if d.used += 2*n + 2<<vp8lTable; d.used > vp8lMemory {
		return errTooMuch
	}
	c.symbols = make([]uint16, n)
	c.table = make([]uint16, 1<<vp8lTable)
	for s, length := range lengths {
		if length == 0 {
			continue
		}
		c.symbols[next[length]] = uint16(s)
		next[length]++
		code := first[length]
		first[length]++
		if length <= vp8lTable {
			reversed := int(bits.Reverse16(uint16(code)) >> (16 - length))
			for i := reversed; i < len(c.table); i += 1 << length {
				c.table[i] = uint16(s)<<4 | uint16(length)
			}
		}
	}
	return nil
}

// symbol reads a symbol.
func (d *vp8lBits) symbol(c *vp8lCode) int {
	if c.symbols == nil {
		return int(c.only)
	}
	if d.count < 15 {
		d.fill()
	}
	if e := c.table[d.value&(1<<vp8lTable-1)]; e != 0 {
		d.drop(uint(e & 15))
		return int(e >> 4)
	}
	code, first, index := 0, 0, 0
	for length := 1; length < 16; length++ {
		code |= int(d.value >> (length - 1) & 1)
		n := int(c.counts[length])
		if code-first < n {
			d.drop(uint(length))
			return int(c.symbols[index+code-first])
		}
		index += n
		first = (first + n) << 1
		code <<= 1
	}
	return 0 // not reached: the code is complete
}

// pixels reads the pixels of an image (section 5.2). They are stored, unless pixels is nil.
func (d *vp8lDecoder) pixels(width, height int, groups []*vp8lGroup, entropy []uint32, precision, cacheBits uint32, pixels []uint32) error {
	total := width * height
	if pixels != nil {
		clear(d.cache[:])
	}
	columns := blocks(width, precision)
	mask := 1<<precision - 1
	g, stale := groups[0], entropy != nil // g may be another block's
	x, y := 0, 0
	insert := func(colour uint32) {
		if cacheBits > 0 {
			d.cache[colour*0x1e35a7bd>>(32-cacheBits)] = colour
		}
	}
	for n := 0; n < total; {
		if stale {
			g = groups[entropy[y>>precision*columns+x>>precision]]
		}
		before := n
		green := d.symbol(&g.codes[0])
		switch {
		case green < 256:
			red, blue, alpha := d.symbol(&g.codes[1]), d.symbol(&g.codes[2]), d.symbol(&g.codes[3])
			if pixels != nil {
				pixels[n] = uint32(alpha<<24 | red<<16 | green<<8 | blue)
				insert(pixels[n])
			}
			n++
		case green < 256+24:
			length := d.value16(green - 256)
			distance := d.distance(d.value16(d.symbol(&g.codes[4])), width)
			if distance > n {
				return fmt.Errorf("pixel %d is copied from %d pixels before", n, distance)
			}
			if length > total-n {
				return fmt.Errorf("%d pixels are copied to the last %d", length, total-n)
			}
			if pixels != nil {
				for range length {
					pixels[n] = pixels[n-distance]
					insert(pixels[n])
					n++
				}
			} else {
				n += length
			}
		default:
			if pixels != nil {
				pixels[n] = d.cache[green-256-24]
			}
			n++
		}
		if d.short {
			return errShort
		}
		if g.free && pixels == nil {
			// The same comes again, to the end of the image or of the block's row.
			step, room := n-before, total-n
			if entropy != nil {
				room = max(0, min(width, x|mask+1)-x-step)
			}
			n += room / step * step
		}
		if x += n - before; x >= width {
			y += x / width
			x %= width
		}
		stale = entropy != nil && (x&mask == 0 || n-before > 1)
	}
	return nil
}

// value16 reads the rest of a length or distance code (section 5.2.2).
func (d *vp8lBits) value16(prefix int) int {
	if prefix < 4 {
		return prefix + 1
	}
	extra := uint32(prefix-2) >> 1
	return (2+prefix&1)<<extra + int(d.take(extra)) + 1
}

// vp8lNear has the pixels that the distance codes 1 to 120 mean (section 5.2.2), as rows
// above in the upper and 8 less the columns to the right in the lower four bits.
var vp8lNear = [120]uint8{
	0x18, 0x07, 0x17, 0x19, 0x28, 0x06, 0x27, 0x29, 0x16, 0x1a,
	0x26, 0x2a, 0x38, 0x05, 0x37, 0x39, 0x15, 0x1b, 0x36, 0x3a,
	0x25, 0x2b, 0x48, 0x04, 0x47, 0x49, 0x14, 0x1c, 0x35, 0x3b,
	0x46, 0x4a, 0x24, 0x2c, 0x58, 0x45, 0x4b, 0x34, 0x3c, 0x03,
	0x57, 0x59, 0x13, 0x1d, 0x56, 0x5a, 0x23, 0x2d, 0x44, 0x4c,
	0x55, 0x5b, 0x33, 0x3d, 0x68, 0x02, 0x67, 0x69, 0x12, 0x1e,
	0x66, 0x6a, 0x22, 0x2e, 0x54, 0x5c, 0x43, 0x4d, 0x65, 0x6b,
	0x32, 0x3e, 0x78, 0x01, 0x77, 0x79, 0x53, 0x5d, 0x11, 0x1f,
	0x64, 0x6c, 0x42, 0x4e, 0x76, 0x7a, 0x21, 0x2f, 0x75, 0x7b,
	0x31, 0x3f, 0x63, 0x6d, 0x52, 0x5e, 0x00, 0x74, 0x7c, 0x41,
	0x4f, 0x10, 0x20, 0x62, 0x6e, 0x30, 0x73, 0x7d, 0x51, 0x5f,
	0x40, 0x72, 0x7e, 0x61, 0x6f, 0x50, 0x71, 0x7f, 0x60, 0x70,
}

// distance returns the number of pixels that a distance code means.
func (*vp8lBits) distance(code, width int) int {
	if code > len(vp8lNear) {
		return code - len(vp8lNear)
	}
	near := int(vp8lNear[code-1])
	return max(1, near>>4*width+8-near&15)
}

// vp8lBits reads bits, the least significant first (section 3.3).
type vp8lBits struct {
	r     *reader
	left  int64  // bytes that are not in buf
	buf   []byte // read, but not in value
	value uint64
	count uint  // bits in value
	short bool  // there were too few
	err   error // why
}

// fill reads until value has at least 56 bits, or there are no more.
func (d *vp8lBits) fill() {
	for d.count <= 56 {
		if len(d.buf) >= 8 {
			d.value |= binary.LittleEndian.Uint64(d.buf) << d.count
			n := (64 - d.count) / 8
			d.buf = d.buf[n:]
			d.count += 8 * n
			d.value &= 1<<d.count - 1 // shifting by 64 leaves 0, and 0 - 1 all bits
			return
		}
		if len(d.buf) == 0 {
			if d.left == 0 || d.err != nil {
				return
			}
			d.buf, d.err = d.r.next(d.left)
			d.left -= int64(len(d.buf))
			continue
		}
		d.value |= uint64(d.buf[0]) << d.count
		d.buf = d.buf[1:]
		d.count += 8
	}
}

// drop consumes n bits.
func (d *vp8lBits) drop(n uint) {
	if n > d.count {
		d.short, d.value, d.count = true, 0, 64 // what follows is zero
		return
	}
	d.value >>= n
	d.count -= n
}

// take returns the next n bits, at most 24.
func (d *vp8lBits) take(n uint32) uint32 {
	if d.count < uint(n) {
		d.fill()
	}
	v := uint32(d.value & (1<<n - 1))
	d.drop(uint(n))
	return v
}

func (d *vp8lBits) flag() bool { return d.take(1) != 0 }
