package verify

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

// colours lists the samples of a pixel by colour type. depths is the sum of the
// possible bits a sample, all powers of two (table 12 in section 11.2.1).
var colours = [...]struct{ samples, depths int }{
	gray:      {1, 1 | 2 | 4 | 8 | 16},
	rgb:       {3, 8 | 16},
	indexed:   {1, 1 | 2 | 4 | 8},
	grayAlpha: {2, 8 | 16},
	rgba:      {4, 8 | 16},
}

// A pngHeader is the content of IHDR.
type pngHeader struct {
	width, height int64
	depth, colour byte
	interlaced    bool
}

// bits returns the bits of a pixel.
func (h pngHeader) bits() int64 { return int64(colours[h.colour].samples) * int64(h.depth) }

// parseHeader judges IHDR (section 11.2.1). Of a wrong one, detail says what is
// wrong, at which byte of b.
func parseHeader(b [13]byte) (h pngHeader, at int, detail string) {
	h = pngHeader{
		width:      int64(binary.BigEndian.Uint32(b[0:])),
		height:     int64(binary.BigEndian.Uint32(b[4:])),
		depth:      b[8],
		colour:     b[9],
		interlaced: b[12] == 1,
	}
	switch {
	case h.width < 1 || h.width > 1<<31-1:
		return h, 0, fmt.Sprintf("width %d, want 1 to 2147483647", h.width)
	case h.height < 1 || h.height > 1<<31-1:
		return h, 4, fmt.Sprintf("height %d, want 1 to 2147483647", h.height)
	case int(h.colour) >= len(colours) || colours[h.colour].samples == 0:
		return h, 9, fmt.Sprintf("colour type %d, want 0, 2, 3, 4 or 6", h.colour)
	case h.depth&(h.depth-1) != 0 || int(h.depth)&colours[h.colour].depths == 0:
		return h, 8, fmt.Sprintf("bit depth %d is not allowed for colour type %d", h.depth, h.colour)
	case b[10] != 0:
		return h, 10, fmt.Sprintf("compression method %d, want 0", b[10])
	case b[11] != 0:
		return h, 11, fmt.Sprintf("filter method %d, want 0", b[11])
	case b[12] > 1:
		return h, 12, fmt.Sprintf("interlace method %d, want 0 or 1", b[12])
	}
	return h, 0, ""
}
