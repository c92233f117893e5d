package verify

import "encoding/binary"

// An orientation says how a decoded image is displayed, as Exif's tag 0x0112 does (CIPA
// DC-008, section 4.6.4.A): 1 is as it is, and 5 to 8 swap width and height.
type orientation byte

const upright orientation = 1

// swaps reports whether the width is displayed as the height.
func (o orientation) swaps() bool { return o >= 5 }

// displayed returns the width and the height as displayed.
func (o orientation) displayed(width, height int64) (w, h int) {
	if o.swaps() {
		width, height = height, width
	}
	return int(width), int(height)
}

// An exif finds the orientation in an Exif block, a TIFF file that is written to it
// from its beginning, in any number of pieces. It needs no more than a few bytes,
// because the first directory follows what points to it. A malformed block has none.
type exif struct {
	offset  int64 // of the next byte
	need    int64 // offset of the next item
	item    [12]byte
	n       int // bytes of the item that are there
	state   exifState
	order   binary.ByteOrder
	entries int // of the directory that are still to come
	found   orientation
}

type exifState uint8

const (
	inHeader exifState = iota
	inCount
	inEntry
	exifDone
)

// orientation returns what was found, or upright.
func (e *exif) orientation() orientation { return max(e.found, upright) }

// size returns the size of the items of a state.
func (s exifState) size() int { return [...]int{inHeader: 8, inCount: 2, inEntry: 12, exifDone: 0}[s] }

// write reads the next bytes of the block.
func (e *exif) write(b []byte) {
	for len(b) > 0 && e.state != exifDone {
		if skip := e.need - e.offset; e.n == 0 && skip > 0 {
			skip = min(skip, int64(len(b)))
			b, e.offset = b[skip:], e.offset+skip
			continue
		}
		n := copy(e.item[e.n:e.state.size()], b)
		b, e.n, e.offset = b[n:], e.n+n, e.offset+int64(n)
		if e.n == e.state.size() {
			e.n, e.need = 0, e.offset
			e.read()
		}
	}
	e.offset += int64(len(b))
}

// read reads the item that is complete.
func (e *exif) read() {
	switch e.state {
	case inHeader:
		switch string(e.item[:4]) {
		case "II*\x00":
			e.order = binary.LittleEndian
		case "MM\x00*":
			e.order = binary.BigEndian
		default:
			e.state = exifDone
			return
		}
		e.need = int64(e.order.Uint32(e.item[4:]))
		e.state = inCount
		if e.need < 8 {
			e.state = exifDone
		}
	case inCount:
		e.entries = int(e.order.Uint16(e.item[:]))
		e.state = inEntry
		if e.entries == 0 {
			e.state = exifDone
		}
	case inEntry:
		// The value of a SHORT is at the beginning of its four bytes.
		tag, kind, count := e.order.Uint16(e.item[0:]), e.order.Uint16(e.item[2:]), e.order.Uint32(e.item[4:])
		if value := e.order.Uint16(e.item[8:]); tag == 0x0112 && kind == 3 && count == 1 && 1 <= value && value <= 8 {
			e.found = orientation(value)
		}
		if e.entries--; e.entries == 0 || e.found != 0 {
			e.state = exifDone
		}
	}
}

// block returns an Exif block that has the orientation and nothing else.
func (o orientation) block() []byte {
	return []byte{'I', 'I', '*', 0, 8, 0, 0, 0, // the directory is at 8
		1, 0, // and has one entry
		0x12, 0x01, 3, 0, 1, 0, 0, 0, byte(o), 0, 0, 0,
		0, 0, 0, 0} // there is no other directory
}
