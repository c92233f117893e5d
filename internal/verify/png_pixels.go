package verify

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"sync"
)

// pixels reads consecutive chunks of a name, IDAT or fdAT, and the length and type of the
// chunk after them. They must hold one zlib stream, and nothing else (section 10).
func (p *pngReader) pixels(h pngHeader, name string) error {
	f := inflaters.Get().(*inflater)
	f.p, f.name = p, name
	defer func() {
		f.p, f.in, f.pos, f.err = nil, nil, 0, nil
		inflaters.Put(f)
	}()

	bad := f.inflate(h)
	if bad == nil && f.more() {
		// The spec has decoders ignore such bytes (section 11.2.3), but calls them
		// undesirable: they may be anything that was in the encoder's memory.
		return invalid(f.offset(), "the pixels are complete, but other bytes follow them, maybe private; open it and save it with another program: "+
			"%s: bytes after the end of the zlib stream", name)
	}
	switch {
	case f.err == nil:
		return wrong(f.offset()-1, "%s: %v", name, bad)
	case f.err != errEnd:
		return f.err // why zlib got no more bytes
	case bad != nil:
		return wrong(p.start, "%s: %v", name, bad)
	}
	return nil
}

// An inflater inflates the data of consecutive chunks. zlib reads from it. With
// ReadByte, zlib does not read past the end of its stream.
type inflater struct {
	p    *pngReader
	name string // of the chunks
	in   []byte // data of the current chunk
	pos  int    // how much of in is consumed
	err  error  // why there is no more: errEnd after the last chunk

	z    io.ReadCloser // nil until it is first needed
	rows *bufio.Reader // reads z
}

// inflaters saves most images the 50 KiB that an inflater weighs.
var inflaters = sync.Pool{New: func() any {
	return &inflater{rows: bufio.NewReaderSize(nil, 8<<10)}
}}

// A reduction is an image of every dx-th pixel of every dy-th row of another, from
// x, y on.
type reduction struct{ x, y, dx, dy int64 }

var (
	whole = []reduction{{0, 0, 1, 1}}
	adam7 = []reduction{ // section 8
		{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
	}
)

// inflate reads the zlib stream, which must hold the rows of one reduced image after
// the other (section 7). It counts rows because the sum of their bytes, up to 1<<65,
// fits in no integer.
func (f *inflater) inflate(h pngHeader) error {
	if err := f.reset(); err != nil {
		return f.explain(err)
	}
	passes := whole
	if h.interlaced {
		passes = adam7
	}
	for i, d := range passes {
		width, height := (h.width-d.x+d.dx-1)/d.dx, (h.height-d.y+d.dy-1)/d.dy
		if width == 0 {
			continue // rows without pixels have no filter type either
		}
		size := (width*h.bits() + 7) / 8
		for y := range height {
			if err := f.row(size); err != nil {
				pass := ""
				if h.interlaced {
					pass = fmt.Sprintf("pass %d of %d, ", i+1, len(passes))
				}
				return fmt.Errorf("%srow %d of %d: %v", pass, y+1, height, err)
			}
		}
	}
	switch _, err := f.rows.ReadByte(); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("more image data than %d x %d pixels need", h.width, h.height)
	default:
		return f.explain(err)
	}
}

func (f *inflater) reset() (err error) {
	if f.z == nil {
		f.z, err = zlib.NewReader(f)
	} else {
		err = f.z.(zlib.Resetter).Reset(f, nil)
	}
	f.rows.Reset(f.z)
	return err
}

// row reads a filter type (section 9) and the row of that many bytes behind it.
func (f *inflater) row(size int64) error {
	filter, err := f.rows.ReadByte()
	if err == nil && filter > 4 {
		return fmt.Errorf("filter type %d, want 0 to 4", filter)
	}
	for err == nil && size > 0 {
		var n int
		n, err = f.rows.Discard(int(min(size, 1<<30)))
		size -= int64(n)
	}
	if err == io.EOF {
		return errors.New("too little image data")
	}
	return f.explain(err)
}

// explain returns an error of zlib, or a better one if zlib ran out of bytes.
func (f *inflater) explain(err error) error {
	if err != nil && f.err != nil {
		return errors.New("the zlib stream ends early")
	}
	return err
}

// offset returns the position of the next byte for zlib.
func (f *inflater) offset() int64 { return f.p.r.offset() - int64(len(f.in)-f.pos) }

// more reports whether there is a byte left, and reads on to find out.
func (f *inflater) more() bool {
	for f.pos == len(f.in) && f.err == nil {
		if f.p.left > 0 {
			f.pos = 0
			f.in, f.err = f.p.data()
		} else if f.err = f.p.next(); f.err == nil && !f.p.is(f.name) {
			f.err = errEnd
		} else if f.err == nil && f.name == "fdAT" {
			f.err = f.p.sequenced()
		}
	}
	return f.pos < len(f.in)
}

func (f *inflater) ReadByte() (byte, error) {
	if f.pos == len(f.in) && !f.more() {
		return 0, io.EOF
	}
	c := f.in[f.pos]
	f.pos++
	return c, nil
}

func (f *inflater) Read(b []byte) (int, error) {
	if !f.more() {
		return 0, io.EOF
	}
	n := copy(b, f.in[f.pos:])
	f.pos += n
	return n, nil
}
