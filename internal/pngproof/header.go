package pngproof

import (
	"encoding/binary"
	"fmt"
)

// The colour types (section 6.1).
const (
	gray      = 0
	rgb       = 2
	indexed   = 3
	grayAlpha = 4
	rgba      = 6
)

// colours tells, by colour type, how many samples a pixel has and how many bits a
// sample may have: depths is the sum of the possible numbers, all powers of two
// (table 12 in section 11.2.1).
var colours = [...]struct{ samples, depths int }{
	gray:      {1, 1 | 2 | 4 | 8 | 16},
	rgb:       {3, 8 | 16},
	indexed:   {1, 1 | 2 | 4 | 8},
	grayAlpha: {2, 8 | 16},
	rgba:      {4, 8 | 16},
}

// A header is what IHDR says.
type header struct {
	width, height int64
	depth, colour byte
	interlaced    bool
}

// parseHeader judges IHDR (section 11.2.1). If it is wrong, detail says how and at
// says where.
func parseHeader(b [13]byte) (h header, at int, detail string) {
	h = header{
		width:      int64(binary.BigEndian.Uint32(b[0:])),
		height:     int64(binary.BigEndian.Uint32(b[4:])),
		depth:      b[8],
		colour:     b[9],
		interlaced: b[12] == 1,
	}
	switch {
	case h.width < 1 || h.width > 1<<31-1:
		return h, 0, fmt.Sprintf("a width of %d, 1 to 2147483647 is possible", h.width)
	case h.height < 1 || h.height > 1<<31-1:
		return h, 4, fmt.Sprintf("a height of %d, 1 to 2147483647 is possible", h.height)
	case int(h.colour) >= len(colours) || colours[h.colour].samples == 0:
		return h, 9, fmt.Sprintf("colour type %d, there are only 0, 2, 3, 4 and 6", h.colour)
	case h.depth&(h.depth-1) != 0 || int(h.depth)&colours[h.colour].depths == 0:
		return h, 8, fmt.Sprintf("bit depth %d, which colour type %d does not allow", h.depth, h.colour)
	case b[10] != 0:
		return h, 10, fmt.Sprintf("compression method %d, there is only 0", b[10])
	case b[11] != 0:
		return h, 11, fmt.Sprintf("filter method %d, there is only 0", b[11])
	case b[12] > 1:
		return h, 12, fmt.Sprintf("interlace method %d, there are only 0 and 1", b[12])
	}
	return h, 0, ""
}

// A reduction is an image that consists of every dx-th pixel of every dy-th row of
// another, from x, y on.
type reduction struct{ x, y, dx, dy int64 }

var (
	whole = []reduction{{0, 0, 1, 1}}
	adam7 = []reduction{ // section 8
		{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
	}
)

// rows walks the inflated image data: rows, each behind its filter type
// (section 9), of one reduced image after the other.
//
// It counts row by row because the total, of up to 1<<65 bytes, fits in no integer.
type rows struct {
	head   header
	passes []reduction // this one and those to come
	height int64       // of this pass
	row    int64       // the number of rows begun
	size   int64       // of each, with the filter type
	left   int64       // of this row
}

func newRows(h header) rows {
	if h.interlaced {
		return rows{head: h, passes: adam7}
	}
	return rows{head: h, passes: whole}
}

// next begins a row, if there is one more.
func (r *rows) next() bool {
	for r.row == r.height {
		if len(r.passes) == 0 {
			return false
		}
		d := r.passes[0]
		r.passes = r.passes[1:]
		width := (r.head.width - d.x + d.dx - 1) / d.dx
		r.row, r.height = 0, (r.head.height-d.y+d.dy-1)/d.dy
		if width == 0 {
			r.height = 0 // rows without pixels have no filter type either
		}
		bits := int64(colours[r.head.colour].samples) * int64(r.head.depth)
		r.size = 1 + (width*bits+7)/8
	}
	r.row++
	r.left = r.size
	return true
}

// take walks over b and returns what is wrong with it, if anything.
func (r *rows) take(b []byte) (detail string) {
	for len(b) > 0 {
		if r.left == 0 {
			if !r.next() {
				return fmt.Sprintf("more image data than %d x %d pixels need", r.head.width, r.head.height)
			}
			if b[0] > 4 {
				return fmt.Sprintf("filter type %d in %v, 0 to 4 are allowed", b[0], r)
			}
		}
		n := min(r.left, int64(len(b)))
		r.left -= n
		b = b[n:]
	}
	return ""
}

// complete reports whether there is nothing more to come.
func (r rows) complete() bool { return r.left == 0 && !r.next() }

func (r *rows) String() string {
	s := fmt.Sprintf("row %d of %d", r.row, r.height)
	if r.head.interlaced {
		s += fmt.Sprintf(" of pass %d", len(adam7)-len(r.passes))
	}
	return s
}
