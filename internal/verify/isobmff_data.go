package verify

import (
	"cmp"
	"fmt"
	"slices"
)

// A part is a range of the file that holds data of an image.
type part struct {
	span
	owner *owner
}

// plan lists the parts of what is shown, as far as that is known.
func (f *isobmff) plan() error {
	if !f.stale {
		return nil
	}
	f.stale = false
	f.parts, f.pos = nil, 0
	var private []part
	if f.items != nil {
		f.parts, private = f.items.parts(0)
	}
	if f.isSequence() {
		for _, t := range f.movie.tracks {
			if !t.shown {
				continue
			}
			if err := f.samples(t); err != nil {
				return err
			}
		}
	}
	sortParts(f.parts)
	// An item may be the first sample of a track, or the same as another item. It is
	// then read once. What overlaps otherwise is not looked into.
	kept := f.parts[:0]
	longest := 0 // index of the one that ends last
	for _, p := range f.parts {
		if n := len(kept); n > 0 && p.from < kept[longest].to {
			if p.span == kept[n-1].span && p.owner.kind == kept[n-1].owner.kind {
				p.owner.trusted = p.owner.trusted || !p.owner.each
				continue
			}
			p.owner.trusted, kept[longest].owner.trusted = true, true
		}
		kept = append(kept, p)
		if p.to > kept[longest].to {
			longest = len(kept) - 1
		}
	}
	f.parts = kept
	for _, p := range f.parts {
		// What came before it was known could not be looked into.
		if !p.owner.planned && p.from < f.r.offset() {
			p.owner.trusted = true
		}
	}
	for _, p := range f.parts {
		p.owner.planned = true
	}
	if !f.opts.StripMetadata {
		return nil
	}
	for _, p := range f.parts {
		if p.owner.trusted && p.owner.data != nil {
			return invalid(p.owner.at, unstrippable+"%s: the data of %s are not in order, or overlap those of another", f.name(), p.owner.name())
		}
	}
	_, err := f.separate(f.parts, private)
	return err
}

func sortParts(parts []part) {
	slices.SortStableFunc(parts, func(a, b part) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
}

// separate returns where the parts of what is shown are, in order and without overlaps.
// It returns an error if what is private overlaps them.
func (f *isobmff) separate(shown, private []part) (used []span, err error) {
	sortParts(shown)
	for _, p := range shown {
		if n := len(used); n > 0 && p.from <= used[n-1].to {
			used[n-1].to = max(used[n-1].to, p.to)
		} else {
			used = append(used, p.span)
		}
	}
	for _, p := range private {
		if i := after(used, p.from); i < len(used) && used[i].from < p.to {
			return nil, invalid(p.owner.at, unstrippable+"%s: the data of %s overlap those of an image", f.name(), p.owner.name())
		}
	}
	return used, nil
}

// after returns the index of the first of some spans that ends after an offset.
func after(spans []span, offset int64) int {
	i, _ := slices.BinarySearchFunc(spans, offset, func(s span, offset int64) int {
		if s.to <= offset {
			return -1
		}
		return 1
	})
	return i
}

// data reads some bytes of an mdat box, at an offset in the file.
func (f *isobmff) data(b []byte, at int64) error {
	for len(b) > 0 {
		for f.pos < len(f.parts) && f.parts[f.pos].to <= at {
			f.pos++
		}
		n := int64(len(b))
		if f.pos == len(f.parts) || f.parts[f.pos].from > at {
			// No image has these bytes.
			if f.pos < len(f.parts) {
				n = min(n, f.parts[f.pos].from-at)
			}
			if f.opts.StripMetadata {
				clear(b[:n])
			}
		} else {
			p := f.parts[f.pos]
			n = min(n, p.to-at)
			if o := p.owner; !o.trusted {
				if o.each {
					o.left = p.to - at
				}
				if err := f.feed(o, b[:n], at); err != nil {
					return err
				}
			}
		}
		b, at = b[n:], at+n
	}
	return nil
}

// feed reads the next bytes of an item's or a track's data.
func (f *isobmff) feed(o *owner, b []byte, at int64) error {
	if o.data == nil {
		return nil
	}
	i, detail := o.data.write(b, o.left)
	if detail == "" {
		if o.left -= int64(len(b)); o.left > 0 {
			return nil
		}
		i, detail = len(b), o.data.end(!o.each)
	}
	if detail == "" {
		return nil
	}
	return damaged(at+int64(i), "%s: the data of %s: %s", f.name(), o.name(), detail)
}

// coded checks how the coded data of an image nest.
type coded interface {
	// write reads the next bytes, of which left come, including these. It returns the
	// index of what is wrong, and what that is.
	write(b []byte, left int64) (i int, detail string)
	// end is told that no more bytes come. It forgets them all. It is also told whether
	// they are all that is needed for an image.
	end(whole bool) (detail string)
}

// configure returns what checks data with a configuration.
func (f *isobmff) configure(b box) (coded, error) {
	switch {
	case b.name == "av1C" && (len(b.data) < 4 || b.data[0] != 0x81): // AV1 in ISO base media files, 2.3
		return nil, wrong(b.offset(0), "%s: av1C: want marker and version 81 hex, and 3 bytes", f.name())
	case b.name == "av1C":
		return &obus{strip: f.opts.StripMetadata}, nil
	case len(b.data) < 23 || b.data[0] != 1: // ISO/IEC 14496-15, 8.3.3.1
		return nil, wrong(b.offset(0), "%s: hvcC: want version 1 and 22 bytes", f.name())
	case b.data[21]&3 == 2:
		return nil, wrong(b.offset(21), "%s: hvcC: lengthSizeMinusOne 2, want 0, 1 or 3", f.name())
	}
	return &nals{lengthSize: int(b.data[21]&3) + 1, strip: f.opts.StripMetadata}, nil
}

// stripConfig blanks messages in av1C or hvcC.
func (f *isobmff) stripConfig(b box) error {
	fail := invalid(b.at, unstrippable+"%s: %s is malformed", f.name(), b.name)
	if b.name == "av1C" {
		if len(b.data) < 4 {
			return fail
		}
		o := &obus{strip: true}
		if _, detail := o.write(b.data[4:], int64(len(b.data)-4)); detail != "" || o.state != obuHeader {
			return fail
		}
		return nil
	}
	d := &fields{b: b, pos: 22}
	for arrays := d.uint(1); arrays > 0; arrays-- {
		kind := byte(d.uint(1)) & 63
		for n := d.uint(2); n > 0; n-- {
			size := int(d.uint(2))
			if d.failed || size > len(b.data)-d.pos {
				return fail
			}
			if size > 2 {
				c := nalCleaner{kind: kind, size: int64(size - 2)}
				c.clean(b.data[d.pos+2 : d.pos+size])
			}
			d.pos += size
		}
	}
	clear(b.data[d.pos:])
	if d.failed {
		return fail
	}
	return nil
}

// An obus checks open bitstream units (AV1 specification, 5.3). Their size may be left
// out in the last one.
type obus struct {
	left            int64 // payload bytes to come
	size            int64
	shift           int
	state           obuState
	kind            byte
	extension       bool
	sized           bool
	sequence, frame bool
	strip           bool     // padding and metadata that are not shown are blanked
	began           bool     // a byte of the payload came
	width, height   int64    // what the first sequence header must say, unless they are 0
	header          [32]byte // the beginning of that
	n               int
	blank           bool // the payload is blanked
}

type obuState uint8

const (
	obuHeader obuState = iota
	obuExtension
	obuSize
	obuPayload
)

// The types of OBUs that matter here (6.2.2).
const (
	obuSequenceHeader    = 1
	obuTemporalDelimiter = 2 // it has no payload
	obuFrameHeader       = 3
	obuMetadata          = 5
	obuFrame             = 6
	obuPadding           = 15
)

func (o *obus) write(b []byte, left int64) (int, string) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch o.state {
		case obuHeader:
			o.kind, o.extension, o.sized = c>>3&15, c&4 != 0, c&2 != 0
			o.size, o.shift, o.left, o.began, o.blank = 0, 0, 0, false, false
			switch {
			case c&0x80 != 0:
				return i, "the forbidden bit of an OBU is set"
			case o.kind == 0 || 9 <= o.kind && o.kind <= 14:
				return i, "an OBU has a reserved type"
			}
			o.sequence = o.sequence || o.kind == obuSequenceHeader
			o.frame = o.frame || o.kind == obuFrameHeader || o.kind == obuFrame
			switch {
			case o.extension:
				o.state = obuExtension
			case o.sized:
				o.state = obuSize
			default:
				o.state, o.left = obuPayload, left-int64(i)-1
			}
		case obuExtension:
			o.state = obuSize
			if !o.sized {
				o.state, o.left = obuPayload, left-int64(i)-1
			}
		case obuSize: // leb128 (4.10.5)
			o.size |= int64(c&0x7f) << o.shift
			o.shift += 7
			if c&0x80 != 0 {
				if o.shift == 35 {
					return i, "the size of an OBU is too large"
				}
				continue
			}
			if o.left = o.size; o.left > left-int64(i)-1 {
				return i, "an OBU is longer than what is left"
			}
			o.state = obuPayload
		case obuPayload:
			n := min(o.left, int64(len(b)-i))
			if o.strip {
				o.clean(b[i : i+int(n)])
			}
			if o.kind == obuSequenceHeader {
				o.n += copy(o.header[o.n:], b[i:i+int(n)])
				if n == o.left && o.width > 0 {
					if w, h := sequenceSize(o.header[:o.n]); w > 0 && (w != o.width || h != o.height) {
						return i, fmt.Sprintf("the sequence header says %d x %d, want %d x %d", w, h, o.width, o.height)
					}
					o.width = 0
				}
			}
			o.left -= n
			i += int(n) - 1
		}
		if o.state == obuPayload && o.left == 0 {
			o.state = obuHeader
		}
	}
	return 0, ""
}

// sequenceSize returns the largest size of a frame, by a sequence header (5.5). It returns
// 0 if that is too long, or cut short.
func sequenceSize(header []byte) (width, height int64) {
	b := av1Bits{b: header}
	b.read(4)           // profile, still_picture
	if b.read(1) == 1 { // reduced_still_picture_header
		b.read(5)
	} else {
		delay := int64(0)
		if b.read(1) == 1 { // timing_info
			b.read(32)
			b.read(32)
			if b.read(1) == 1 {
				zeros := 0
				for zeros < 32 && b.read(1) == 0 && b.pos < 8*len(header) {
					zeros++
				}
				b.read(zeros)
			}
			if b.read(1) == 1 { // decoder_model_info
				delay = b.read(5) + 1
				b.read(32)
				b.read(10)
			}
		}
		initial := b.read(1)
		for points := b.read(5) + 1; points > 0; points-- {
			b.read(12)
			if b.read(5) > 7 {
				b.read(1)
			}
			if delay > 0 && b.read(1) == 1 {
				b.read(int(delay))
				b.read(int(delay))
				b.read(1)
			}
			if initial == 1 && b.read(1) == 1 {
				b.read(4)
			}
		}
	}
	w, h := int(b.read(4))+1, int(b.read(4))+1
	width, height = b.read(w)+1, b.read(h)+1
	if b.pos > 8*len(header) {
		return 0, 0
	}
	return width, height
}

// An av1Bits reads bits. What is missing reads as zero.
type av1Bits struct {
	b   []byte
	pos int
}

func (b *av1Bits) read(n int) (v int64) {
	for range n {
		v <<= 1
		if b.pos < 8*len(b.b) {
			v |= int64(b.b[b.pos/8] >> (7 - b.pos%8) & 1)
		}
		b.pos++
	}
	return v
}

// clean blanks the next bytes of a payload if nothing of it is shown. A reserved type of
// metadata and zeros remain, and the trailing bit, which decoders look for (5.3.4).
func (o *obus) clean(b []byte) {
	if !o.began {
		o.began = true
		// Kept are light levels, mastering colours and scalability (6.7.1).
		o.blank = o.kind == obuPadding || o.kind == obuTemporalDelimiter || o.kind == obuMetadata && (b[0] < 1 || 3 < b[0]) && o.left > 1
	}
	if o.blank {
		clear(b)
		if o.left == int64(len(b)) {
			b[len(b)-1] = 0x80
		}
	}
}

func (o *obus) end(whole bool) string {
	state, sequence, frame := o.state, o.sequence, o.frame
	*o = obus{strip: o.strip}
	switch {
	case state != obuHeader:
		return "an OBU is cut short"
	case whole && !sequence:
		return "there is no sequence header"
	case !frame:
		return "there is no frame"
	}
	return ""
}

// A nals checks NAL units, each after its length (ISO/IEC 14496-15, 4.3.3).
type nals struct {
	lengthSize int
	n          int   // bytes of the length and the header that came
	left       int64 // bytes of the NAL unit to come
	length     int64
	kind       byte
	coded      bool // a coded slice came
	strip      bool // messages that are not shown are blanked
	cleaner    nalCleaner
}

// A nalCleaner blanks what is not shown of the payload of a NAL unit. It needs the type
// and the size, without the header.
type nalCleaner struct {
	kind  byte
	size  int64
	done  int64
	zeros int // that came one after the other
	state seiState
	left  int   // bytes of a message
	from  int64 // where the filler begins
}

type seiState uint8

const (
	seiType seiState = iota
	seiSize
	seiPayload
	seiFiller
)

// clean blanks the next bytes. Types 39 and 40 have messages, supplemental enhancement
// information. Of the others from 35 on, only the one byte of a delimiter means something
// (H.265, table 7-1).
func (n *nalCleaner) clean(b []byte) {
	if n.kind < 35 || n.kind == 35 && n.size == 1 {
		return
	}
	for i := range b {
		c := &b[i]
		at := n.done
		n.done++
		emulation := n.zeros >= 2 && *c == 3 // H.265, 7.3.1.1
		switch {
		case n.kind != 39 && n.kind != 40:
			*c = 0xff
			if n.done == n.size {
				*c = 0x80
			}
			continue
		case n.state == seiFiller:
		case emulation:
		case n.state == seiType && shownSEI[*c]:
			n.state = seiSize
		case n.state == seiType && n.zeros >= 2:
			*c = 3 // so that what follows is no emulation prevention
			emulation = true
		case n.state == seiType:
			n.state, n.from = seiFiller, at
		case n.state == seiSize:
			n.state, n.left = seiPayload, int(*c)
		default:
			n.left--
		}
		if n.state == seiFiller {
			fillSEI(b[i:], n.size-n.from, at-n.from)
			n.done = at + int64(len(b)-i)
			return
		}
		if n.state == seiPayload && n.left == 0 {
			n.state = seiType
		}
		if n.zeros++; *c != 0 || emulation {
			n.zeros = 0
		}
	}
}

// shownSEI has the types of messages that say how to show an image (H.265, D.2.1):
// parameter sets, mastering colours, light levels, transfer, ambient light, and alpha.
var shownSEI = [256]bool{129: true, 137: true, 144: true, 147: true, 148: true, 165: true}

func (u *nals) write(b []byte, left int64) (int, string) {
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case u.n < u.lengthSize:
			u.length = u.length<<8 | int64(c)
			if u.n++; u.n < u.lengthSize {
				continue
			}
			if u.left = u.length; u.left > left-int64(i)-1 {
				return i, "a NAL unit is longer than what is left"
			} else if u.left < 2 {
				return i, "a NAL unit is shorter than its header"
			}
		case u.n == u.lengthSize: // H.265, 7.3.1.2
			if c&0x80 != 0 {
				return i, "the forbidden bit of a NAL unit is set"
			}
			u.kind = c >> 1
			u.cleaner = nalCleaner{kind: u.kind, size: u.length - 2}
			u.coded = u.coded || u.kind < 32
			u.n++
			u.left--
		case u.n == u.lengthSize+1:
			if c&7 == 0 {
				return i, "a NAL unit has no temporal identifier"
			}
			u.n++
			u.left--
		default:
			n := min(u.left, int64(len(b)-i))
			if u.strip {
				u.cleaner.clean(b[i : i+int(n)])
			}
			u.left -= n
			i += int(n) - 1
		}
		if u.n == u.lengthSize+2 && u.left == 0 {
			u.n, u.length = 0, 0
		}
	}
	return 0, ""
}

func (u *nals) end(bool) string {
	n, coded := u.n, u.coded
	*u = nals{lengthSize: u.lengthSize, strip: u.strip}
	switch {
	case n != 0:
		return "a NAL unit is cut short"
	case !coded:
		return "there is no coded slice"
	}
	return ""
}

// fillSEI fills b, which begins at an offset of the messages in a NAL unit of some size,
// with a message of type 3, filler payload (H.265, 7.3.5 and D.2.4): its type, its size,
// bytes that are 255, and the trailing bit. A size of 255 or more takes more bytes, so
// that some need an empty message before.
func fillSEI(b []byte, size, offset int64) {
	if size < 3 {
		return
	}
	empty := (size-3)%256 == 255
	at, body := int64(0), size
	if empty {
		at, body = 2, size-2
	}
	long, last := (body-3)/256, byte((body-3)%256)
	for i := range b {
		switch j := offset + int64(i); {
		case j == size-1:
			b[i] = 0x80
		case empty && j == 1:
			b[i] = 0
		case j == 0 || j == at:
			b[i] = 3
		case j == at+1+long:
			b[i] = last
		default:
			b[i] = 0xff
		}
	}
}

// A collector collects the data of a grid, which come after what it is judged by.
type collector struct {
	b     [12]byte
	n     int
	strip bool // what follows is blanked
	judge func(b []byte) string
}

func (c *collector) write(b []byte, _ int64) (int, string) {
	for i, v := range b {
		if c.n < 8 || c.n < 12 && c.b[1]&1 != 0 {
			c.b[c.n] = v
			c.n++
		} else if c.strip {
			b[i] = 0
		}
	}
	return 0, ""
}

func (c *collector) end(bool) string { return c.judge(c.b[:c.n]) }
