package verify

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// lossy reads VP8, a key frame (RFC 6386, section 9.1).
func (w *webpReader) lossy(c webpChunk, width, height int64) error {
	const header = 10
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
	tag := uint24(b[:])
	first := tag >> 5 // size of the first partition
	gotWidth, gotHeight := uint16s(b[6:])&0x3fff, uint16s(b[8:])&0x3fff
	switch version := tag >> 1 & 7; {
	case tag&1 != 0:
		return wrong(c.payload(), "WebP: VP8: this is not a key frame")
	case version > 3:
		return wrong(c.payload(), "WebP: VP8: version %d, want 0 to 3", version)
	case tag>>4&1 == 0:
		return wrong(c.payload(), "WebP: VP8: the frame is not to be shown")
	case string(b[3:6]) != "\x9d\x01\x2a":
		return wrong(c.payload()+3, "WebP: VP8: start code %x, want 9d012a", b[3:6])
	case gotWidth == 0 || gotHeight == 0:
		return wrong(c.payload()+6, "WebP: VP8: %d x %d pixels, want at least one", gotWidth, gotHeight)
	case first >= c.size-header: // another must follow
		return wrong(c.payload(), "WebP: VP8: the first partition has %d bytes, want less than the %d that follow", first, c.size-header)
	}
	if err := w.sized(c, c.payload()+6, gotWidth, gotHeight, width, height); err != nil {
		return err
	}
	if w.opts.VerifyPixels {
		if err := w.bits(c, first, gotWidth, gotHeight); err != nil {
			return err
		}
	}
	return w.whole(c)
}

func uint16s(b []byte) int64 { return int64(binary.LittleEndian.Uint16(b)) }

// vp8Buffered is how many bytes of coefficients are kept at most, if they are in several
// partitions. Encoders of pictures make one. The coefficients of an image that needs more
// are not looked into.
const vp8Buffered = 1 << 20

// bits reads the bits of a frame. It computes no pixels, so that it needs little memory.
// The first partition has the modes of all macroblocks, of which two bits each are kept.
// Then come the coefficients. If they are in several partitions, the rows of macroblocks
// take turns, so that all are kept.
func (w *webpReader) bits(c webpChunk, first, width, height int64) error {
	d := vp8Decoders.Get().(*vp8Decoder)
	defer func() {
		d.vp8Bits, d.parts = vp8Bits{}, [8]vp8Bits{}
		vp8Decoders.Put(d)
	}()
	d.columns, d.rows = int(width+15)/16, int(height+15)/16
	d.vp8Bits = newVP8Bits(w.r, first, nil)
	d.header()
	if !d.short {
		d.modes()
	}
	switch start := c.payload() + 10; {
	case d.err != nil:
		return w.cut(d.err)
	case d.wrong:
		return wrong(start, "WebP: VP8: the first partition begins with ff, which no encoder writes")
	case d.short:
		return wrong(start+first, "WebP: VP8: the first partition of %d bytes ends too early", first)
	}
	if err := w.r.skip(d.left); err != nil {
		return w.cut(err)
	}
	var sizes [8]int64
	if err := w.partitions(c, sizes[:d.partitions]); err != nil {
		return err
	}
	start := w.r.offset()
	left := c.payload() + c.size - start
	if d.partitions == 1 {
		d.parts[0] = newVP8Bits(w.r, left, nil)
	} else if left > vp8Buffered {
		return nil
	} else {
		var all []byte // grows, so that a client that sends little costs little
		for left := left; left > 0; {
			b, err := w.r.next(left)
			if err != nil {
				return w.cut(err)
			}
			all = append(all, b...)
			left -= int64(len(b))
		}
		for i, size := range sizes[:d.partitions] {
			d.parts[i] = newVP8Bits(w.r, 0, all[:size])
			all = all[size:]
		}
	}
	row := d.coefficients()
	i := row % d.partitions
	for _, size := range sizes[:i] {
		start += size
	}
	switch part := d.parts[i]; {
	case part.err != nil:
		return w.cut(part.err)
	case part.wrong:
		return wrong(start, "WebP: VP8: partition %d of %d of coefficients begins with ff, which no encoder writes", i+1, d.partitions)
	case part.short:
		return wrong(start+sizes[i], "WebP: VP8: partition %d of %d of coefficients ends too early, in row %d of %d of macroblocks", i+1, d.partitions, row+1, d.rows)
	}
	return nil
}

// partitions reads the sizes of the partitions of coefficients (section 9.5). The last one
// is what is left.
func (w *webpReader) partitions(c webpChunk, sizes []int64) error {
	var b [3 * 7]byte
	fields := b[:3*(len(sizes)-1)]
	at := w.r.offset()
	left := c.payload() + c.size - at - int64(len(fields))
	if left < 0 {
		return wrong(at, "WebP: VP8: the sizes of the %d partitions of coefficients are missing", len(sizes))
	}
	if _, err := w.r.full(fields); err != nil {
		return w.cut(err)
	}
	last := len(sizes) - 1
	for i := range last {
		sizes[i] = uint24(fields[3*i:])
		if left -= sizes[i]; left < 0 {
			return wrong(at+3*int64(i), "WebP: VP8: partition %d of %d of coefficients has %d bytes, %d too many", i+1, len(sizes), sizes[i], -left)
		}
	}
	if left == 0 { // libwebp does not take it
		return wrong(c.payload()+c.size, "WebP: VP8: partition %d of %d of coefficients is empty", last+1, len(sizes))
	}
	sizes[last] = left
	return nil
}

// A vp8Decoder reads the bits of a frame.
type vp8Decoder struct {
	vp8Bits
	columns, rows int        // of macroblocks
	partitions    int        // of coefficients
	parts         [8]vp8Bits // their bits

	segmented, skips bool     // the modes begin with a segment, and with a flag to skip
	segments         [3]uint8 // probabilities of the segments
	skip             uint8    // probability of not skipping
	probabilities    [4][8][3][11]uint8

	// What is kept of a macroblock's modes: skipped and split, in two bits. It grows to
	// 256 KiB for the largest frame.
	kept []byte

	// The largest frame has 1024 columns. The macroblocks above and to the left have, for
	// subblocks at the edge, these modes and these flags for coefficients that are not
	// zero. Their indexes are four of Y, two of U, two of V, and Y2.
	modesAbove [1024][4]uint8
	modesLeft  [4]uint8
	above      [1024][9]uint8
	beside     [9]uint8
}

var vp8Decoders = sync.Pool{New: func() any { return new(vp8Decoder) }}

// Bits that are kept of a macroblock.
const (
	mbSkipped = 1 // it has no coefficients
	mbSplit   = 2 // it has no Y2
)

// header reads the header of a key frame (sections 9.2 to 9.11 and 19.2).
func (d *vp8Decoder) header() {
	d.literal(2) // colour space and clamping
	d.segments = [3]uint8{255, 255, 255}
	d.segmented = false
	if d.flag() { // section 9.3
		d.segmented = d.flag()
		if d.flag() {
			d.flag()
			for range 4 {
				d.optional(8)
			}
			for range 4 {
				d.optional(7)
			}
		}
		if d.segmented {
			for i := range d.segments {
				if d.flag() {
					d.segments[i] = uint8(d.literal(8))
				}
			}
		}
	}
	d.literal(1 + 6 + 3) // the loop filter (section 9.6)
	if d.flag() {        // has adjustments
		if d.flag() { // that change
			for range 4 + 4 {
				d.optional(7)
			}
		}
	}
	d.partitions = 1 << d.literal(2) // section 9.5
	d.literal(7)                     // quantizers (section 9.6)
	for range 5 {
		d.optional(5)
	}
	d.flag() // whether the probabilities stay for the next frame
	d.probabilities = vp8Coefficients
	for i := range d.probabilities { // section 13.4
		for j := range d.probabilities[i] {
			for k := range d.probabilities[i][j] {
				for l := range d.probabilities[i][j][k] {
					if d.bit(vp8Update[i][j][k][l]) != 0 {
						d.probabilities[i][j][k][l] = uint8(d.literal(8))
					}
				}
			}
		}
	}
	if d.skips = d.flag(); d.skips { // section 9.11
		d.skip = uint8(d.literal(8))
	}
}

// The trees of the modes (sections 11.2 to 11.4). A positive number is the index of the
// next two, any other a mode with its sign changed.
var (
	vp8SubblockTree = [...]int8{-dcPredicted, 2, -tmPredicted, 4, -vePredicted, 6, 8, 12, -hePredicted, 10, -5, -6, -4, 14, -7, 16, -8, -9}
	vp8LumaTree     = [...]int8{-split, 2, 4, 6, -dcPredicted, -vePredicted, -hePredicted, -tmPredicted}
)

// Modes of subblocks (section 11.2). Those of whole macroblocks imply the mode of the same
// name for each subblock (section 11.3).
const (
	dcPredicted = 0
	tmPredicted = 1
	vePredicted = 2
	hePredicted = 3
	split       = 10 // each subblock has its own
)

// modes reads the modes of all macroblocks (section 19.3).
func (d *vp8Decoder) modes() {
	d.kept = d.kept[:0]
	clear(d.modesAbove[:d.columns])
	n := 0
	for range d.rows {
		d.modesLeft = [4]uint8{}
		for x := range d.columns {
			mb := d.mode(&d.modesAbove[x])
			if d.short {
				return
			}
			if n%4 == 0 {
				d.kept = append(d.kept, 0)
			}
			d.kept[n/4] |= mb << (n % 4 * 2)
			n++
		}
	}
}

// mode reads the modes of a macroblock and returns what is kept of them.
func (d *vp8Decoder) mode(above *[4]uint8) (mb byte) {
	if d.segmented {
		d.bit(d.segments[1+d.bit(d.segments[0])])
	}
	if d.skips && d.bit(d.skip) != 0 {
		mb = mbSkipped
	}
	luma := d.tree(vp8LumaTree[:], &[...]uint8{145, 156, 163, 128, 0, 0, 0, 0, 0})
	if luma == split {
		mb |= mbSplit
		for y := range d.modesLeft {
			for x := range above {
				mode := d.tree(vp8SubblockTree[:], &vp8SubblockModes[above[x]][d.modesLeft[y]])
				above[x], d.modesLeft[y] = mode, mode
			}
		}
	} else {
		*above = [4]uint8{luma, luma, luma, luma}
		d.modesLeft = *above
	}
	if d.bit(142) != 0 && d.bit(114) != 0 { // the mode of the colours
		d.bit(183)
	}
	return mb
}

// coefficients reads the coefficients of all macroblocks (section 13). It returns the row
// that it was in when the bits ended.
func (d *vp8Decoder) coefficients() (row int) {
	clear(d.above[:d.columns])
	n := 0
	for row = range d.rows {
		part := &d.parts[row%d.partitions]
		d.vp8Bits = *part
		d.beside = [9]uint8{}
		for x := range d.columns {
			mb := d.kept[n/4] >> (n % 4 * 2)
			d.macroblock(mb&mbSkipped != 0, mb&mbSplit != 0, &d.above[x])
			if d.short {
				break
			}
			n++
		}
		*part = d.vp8Bits
		if d.short {
			break
		}
	}
	return row
}

// macroblock reads the coefficients of a macroblock (section 13.3).
func (d *vp8Decoder) macroblock(skipped, split bool, above *[9]uint8) {
	const y2 = 8
	left := &d.beside
	if skipped {
		// Y2 stays as it was if the macroblock has none.
		saved := [2]uint8{above[y2], left[y2]}
		*above, *left = [9]uint8{}, [9]uint8{}
		if split {
			above[y2], left[y2] = saved[0], saved[1]
		}
		return
	}
	kind, first := 3, 0 // Y with its DC
	if !split {
		kind, first = 0, 1 // Y without
		nonzero := d.block(1, above[y2]+left[y2], 0)
		above[y2], left[y2] = nonzero, nonzero
	}
	for y := range 4 {
		for x := range 4 {
			nonzero := d.block(kind, above[x]+left[y], first)
			above[x], left[y] = nonzero, nonzero
		}
	}
	for plane := 4; plane < 8; plane += 2 {
		for y := plane; y < plane+2; y++ {
			for x := plane; x < plane+2; x++ {
				nonzero := d.block(2, above[x]+left[y], 0)
				above[x], left[y] = nonzero, nonzero
			}
		}
	}
}

// vp8Bands has the band of each coefficient (section 13.3), and one for what follows.
var vp8Bands = [17]uint8{0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0}

// vp8Extra has the probabilities of the extra bits of large coefficients (section 13.2).
var vp8Extra = [4][]uint8{
	{173, 148, 140},
	{176, 155, 140, 135},
	{180, 157, 141, 134, 130},
	{254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129},
}

// block reads the coefficients of a block (section 13.2), and returns 1 unless there are
// none.
func (d *vp8Decoder) block(kind int, context uint8, first int) uint8 {
	bands := &d.probabilities[kind]
	p := &bands[vp8Bands[first]][context]
	if d.bit(p[0]) == 0 {
		return 0
	}
	for n := first; ; {
		n++
		next := &bands[vp8Bands[n]]
		if d.bit(p[1]) == 0 {
			if n == 16 {
				return 1
			}
			p = &next[0] // no end may follow a zero
			continue
		}
		if d.bit(p[2]) == 0 {
			p = &next[1]
		} else {
			d.large(p)
			p = &next[2]
		}
		d.bit(128) // sign
		if n == 16 || d.bit(p[0]) == 0 {
			return 1
		}
	}
}

// large reads a coefficient of at least 2.
func (d *vp8Decoder) large(p *[11]uint8) {
	switch {
	case d.bit(p[3]) == 0:
		if d.bit(p[4]) != 0 {
			d.bit(p[5])
		}
	case d.bit(p[6]) == 0:
		if d.bit(p[7]) == 0 {
			d.bit(159)
		} else {
			d.bit(165)
			d.bit(145)
		}
	default:
		high := d.bit(p[8])
		for _, probability := range vp8Extra[2*high+d.bit(p[9+high])] {
			d.bit(probability)
		}
	}
}

// vp8Bits decodes the bits of a partition (section 7.3).
type vp8Bits struct {
	r     *reader
	left  int64  // bytes of the partition that are not in buf
	buf   []byte // read, but not in value
	value uint64
	count int    // bits in value, less the 8 that the next bit needs
	width uint32 // of the range, 128 to 255
	short bool   // there were too few bytes
	err   error  // why
	wrong bool   // value is not in the range
}

// newVP8Bits returns the bits of a partition: of buf, or of the next bytes of r.
func newVP8Bits(r *reader, left int64, buf []byte) vp8Bits {
	return vp8Bits{r: r, left: left, buf: buf, count: -8, width: 255}
}

// bit returns the next bit, which is 0 with a probability in 256ths.
func (d *vp8Bits) bit(probability uint8) uint8 {
	if d.count < 0 {
		d.load()
	}
	boundary := 1 + (d.width-1)*uint32(probability)>>8
	var bit uint8
	if at := uint64(boundary) << (d.count & 63); d.value >= at { // it is below 64; the mask saves a branch
		d.value -= at
		d.width -= boundary
		bit = 1
	} else {
		d.width = boundary
	}
	shift := bits.LeadingZeros8(uint8(d.width))
	d.width <<= shift & 7
	d.count -= shift
	return bit
}

// load adds at least one byte to value. After the end of the partition that is zero.
func (d *vp8Bits) load() {
	first := d.count == -8
	if len(d.buf) >= 8 && !first {
		d.value = d.value<<56 | binary.BigEndian.Uint64(d.buf)>>8
		d.count += 56
		d.buf = d.buf[7:]
		return
	}
	if len(d.buf) == 0 && d.left > 0 && d.err == nil {
		d.buf, d.err = d.r.next(d.left)
		d.left -= int64(len(d.buf))
	}
	d.value <<= 8
	d.count += 8
	if len(d.buf) == 0 {
		d.short = true
		return
	}
	d.value |= uint64(d.buf[0])
	if first && d.value >= uint64(d.width) {
		// Decoders return different bits.
		d.wrong, d.short = true, true
		return
	}
	d.buf = d.buf[1:]
}

func (d *vp8Bits) flag() bool { return d.bit(128) != 0 }

// literal returns the next n bits.
func (d *vp8Bits) literal(n int) (v uint32) {
	for range n {
		v = v<<1 | uint32(d.bit(128))
	}
	return v
}

// optional reads a flag, and n bits if it is set.
func (d *vp8Bits) optional(n int) {
	if d.flag() {
		d.literal(n)
	}
}

// tree returns a leaf of a tree (section 8.1).
func (d *vp8Bits) tree(tree []int8, probabilities *[9]uint8) uint8 {
	i := int8(0)
	for {
		if i = tree[i+int8(d.bit(probabilities[i>>1]))]; i <= 0 {
			return uint8(-i)
		}
	}
}
