package verify

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
)

// A jpegFrame is the content of SOF (B.2.2).
type jpegFrame struct {
	process       byte  // the n of SOFn
	width, height int64 // as coded
	n             int   // components, 0 before SOF
	hMax, vMax    int64 // the largest sampling factors
	component     [4]jpegComponent
}

// A jpegComponent is a component of the frame.
type jpegComponent struct {
	id   byte
	h, v int64 // sampling factors
	tq   byte  // quantization table
	// point has the point transform of each coefficient (G.1.1.1.2): how many low bits
	// are still to come. It is uncoded before a scan has it. A sequential image uses
	// the first only.
	point [64]int8
}

const uncoded = -1

func (f *jpegFrame) progressive() bool           { return f.process == 2 || f.process == 10 }
func (f *jpegFrame) arithmetic() bool            { return f.process > 8 }
func (f *jpegFrame) components() []jpegComponent { return f.component[:f.n] }

// jpegMaxSide is the largest width or height that libjpeg, and browsers with it, show.
const jpegMaxSide = 65500

// frameHeader reads SOFn (B.2.2).
func (j *jpegReader) frameHeader(opts Options) error {
	f := &j.frame
	if f.n > 0 {
		return j.wrong(j.start, "second SOF: %v", j)
	}
	switch f.process = j.marker - mSOF0; f.process {
	case 0, 1, 2, 9, 10:
	case 3, 11:
		return j.variant("a lossless JPEG")
	default:
		return j.variant("a hierarchical JPEG")
	}
	precision, err := j.byte()
	if err != nil {
		return err
	}
	switch precision {
	case 8:
	case 12, 16:
		return j.variant("a JPEG of more than 8 bits a sample")
	default:
		return j.damaged(j.start+4, "%v: precision %d, want 8", j, precision)
	}
	if j.left < 5 {
		return j.short()
	}
	if err := j.read(j.head[:5]); err != nil {
		return err
	}
	f.height = int64(binary.BigEndian.Uint16(j.head[0:]))
	f.width = int64(binary.BigEndian.Uint16(j.head[2:]))
	n := int64(j.head[4])
	switch {
	case f.height == 0:
		return j.variant("a JPEG that has its height behind the picture")
	case f.width == 0:
		return j.damaged(j.start+7, "%v: width 0", j)
	case max(f.width, f.height) > jpegMaxSide:
		return &Error{ErrUnsupportedType, j.start + 5, "it is larger than browsers show; scale it down: JPEG: more than 65500 samples a line, or lines"}
	case n == 0:
		return j.damaged(j.start+9, "%v: no components", j)
	case n == 2 || n > 4:
		return j.variant("a JPEG of neither 1, 3 nor 4 colours")
	case j.left != 3*n:
		return j.wrong(j.start+2, "%v: length %d, want %d for %d components", j, 8+j.left, 8+3*n, n)
	}
	if err := opts.checkPixels(j.start+5, f.width, f.height); err != nil {
		return err
	}
	for i := range n {
		at := j.r.offset()
		if err := j.read(j.head[:3]); err != nil {
			return err
		}
		c := &f.component[i]
		c.id, c.h, c.v, c.tq = j.head[0], int64(j.head[1]>>4), int64(j.head[1]&15), j.head[2]
		for k := range c.point {
			c.point[k] = uncoded
		}
		switch {
		case c.h < 1 || c.h > 4 || c.v < 1 || c.v > 4:
			return j.damaged(at+1, "%v: sampling factors %d x %d, want 1 to 4", j, c.h, c.v)
		case c.tq > 3:
			return j.damaged(at+2, "%v: quantization table %d, want 0 to 3", j, c.tq)
		}
		f.hMax, f.vMax = max(f.hMax, c.h), max(f.vMax, c.v)
	}
	f.n = int(n)
	return nil
}

// A jpegScan is the content of SOS (B.2.3).
type jpegScan struct {
	n           int // components
	component   [4]jpegScanComponent
	first, last byte // coefficients, in zig-zag order
	high, low   byte // point transforms
	mcus        int64
}

type jpegScanComponent struct {
	*jpegComponent
	td, ta byte // Huffman tables
	blocks int  // in an MCU
}

// refines reports whether the scan has the next bit of coefficients.
func (s *jpegScan) refines() bool { return s.high > 0 }

// scan reads SOS, and the coded data behind it (B.2.3).
func (j *jpegReader) scan() error {
	var s jpegScan
	if err := j.scanHeader(&s); err != nil {
		return err
	}
	if j.scans == 0 && !j.frame.progressive() && !j.frame.arithmetic() {
		j.defaultTables()
	}
	j.scans++
	if err := j.scanTables(&s); err != nil {
		return err
	}
	j.measure(&s)
	return j.entropy(&s)
}

// defaultTables defines the Huffman tables that are missing as those of annex K.3.
// Decoders do that because the frames of Motion JPEG have none.
func (j *jpegReader) defaultTables() {
	if j.pixels != nil {
		for i := range byte(2) {
			if j.dc&(1<<i) == 0 {
				j.pixels.defineDefault(0, i)
			}
			if j.ac&(1<<i) == 0 {
				j.pixels.defineDefault(1, i)
			}
		}
	}
	j.dc |= 3
	j.ac |= 3
}

// find returns the first component of the frame that has the id and is not in the scan.
// Some encoders give all components one id, against B.2.2. Decoders take them in order.
func (j *jpegReader) find(s *jpegScan, id byte) *jpegComponent {
	for i := range j.frame.components() {
		f := &j.frame.component[i]
		taken := slices.ContainsFunc(s.component[:s.n], func(c jpegScanComponent) bool { return c.jpegComponent == f })
		if f.id == id && !taken {
			return f
		}
	}
	return nil
}

// scanHeader reads SOS (B.2.3).
func (j *jpegReader) scanHeader(s *jpegScan) error {
	n, err := j.byte()
	if err != nil {
		return err
	}
	if n < 1 || int(n) > j.frame.n {
		return j.damaged(j.start+4, "SOS: %d components, want 1 to %d", n, j.frame.n)
	}
	if j.left != 2*int64(n)+3 {
		return j.wrong(j.start+2, "SOS: length %d, want %d for %d components", 3+j.left, 6+2*int64(n), n)
	}
	blocks := int64(0)
	for s.n < int(n) {
		at := j.r.offset()
		if err := j.read(j.head[:2]); err != nil {
			return err
		}
		c := &s.component[s.n]
		if c.jpegComponent = j.find(s, j.head[0]); c.jpegComponent == nil {
			return j.damaged(at, "SOS: component %d is not in the frame, or twice in the scan", j.head[0])
		}
		if c.td, c.ta = j.head[1]>>4, j.head[1]&15; c.td > 3 || c.ta > 3 {
			return j.damaged(at+1, "SOS: tables %d and %d, want 0 to 3", c.td, c.ta)
		}
		c.blocks = int(c.h * c.v)
		blocks += c.h * c.v
		s.n++
	}
	if s.n == 1 {
		s.component[0].blocks = 1
	} else if blocks > 10 {
		return j.damaged(j.start+5, "SOS: %d blocks in an MCU, at most 10", blocks)
	}
	at := j.r.offset()
	if err := j.read(j.head[:3]); err != nil {
		return err
	}
	s.first, s.last, s.high, s.low = j.head[0], j.head[1], j.head[2]>>4, j.head[2]&15
	if j.frame.progressive() {
		return j.progression(s, at)
	}
	// Cameras exist that write other values than these. Decoders ignore them.
	s.first, s.last, s.high, s.low = 0, 63, 0, 0
	for _, c := range s.component[:s.n] {
		if c.point[0] != uncoded {
			return j.wrong(j.start, "SOS: second scan of component %d", c.id)
		}
		c.point[0] = 0
	}
	return nil
}

// progression judges which bits of which coefficients a scan has (G.1.1.1). at is their
// offset.
func (j *jpegReader) progression(s *jpegScan, at int64) error {
	switch {
	case s.last > 63 || s.first > s.last || s.first == 0 && s.last > 0:
		return j.damaged(at, "SOS: coefficients %d to %d", s.first, s.last)
	case s.first > 0 && s.n > 1:
		return j.damaged(at, "SOS: AC coefficients of %d components, want 1", s.n)
	case s.low > 13 || s.refines() && s.high != s.low+1:
		return j.damaged(at+2, "SOS: point transform %d after %d", s.low, s.high)
	}
	for _, c := range s.component[:s.n] {
		if s.first > 0 && c.point[0] == uncoded {
			return j.wrong(at, "SOS: AC coefficients of component %d before its DC coefficients", c.id)
		}
		for k := s.first; k <= s.last; k++ {
			switch p := c.point[k]; {
			case p == uncoded && s.refines():
				return j.wrong(at+2, "SOS: refines coefficient %d of component %d, which is not there yet", k, c.id)
			case p != uncoded && int8(s.high) != p || p == 0:
				return j.wrong(at+2, "SOS: point transform %d of coefficient %d of component %d, which has %d", s.high, k, c.id, p)
			}
			c.point[k] = int8(s.low)
		}
	}
	return nil
}

// scanTables returns an error unless the tables are defined that a scan needs.
func (j *jpegReader) scanTables(s *jpegScan) error {
	for i, c := range s.component[:s.n] {
		at := j.start + 6 + 2*int64(i)
		switch {
		case j.quant&(1<<c.tq) == 0:
			return j.wrong(j.start, "SOS: component %d needs quantization table %d, which is not defined", c.id, c.tq)
		case j.frame.arithmetic():
		case s.first == 0 && !s.refines() && j.dc&(1<<c.td) == 0:
			return j.wrong(at, "SOS: component %d needs DC table %d, which is not defined", c.id, c.td)
		case s.last > 0 && j.ac&(1<<c.ta) == 0:
			return j.wrong(at, "SOS: component %d needs AC table %d, which is not defined", c.id, c.ta)
		}
	}
	return nil
}

// measure sets the number of MCUs (A.2).
func (j *jpegReader) measure(s *jpegScan) {
	f := &j.frame
	divide := func(a, b int64) int64 { return (a + b - 1) / b }
	if s.n > 1 {
		s.mcus = divide(f.width, 8*f.hMax) * divide(f.height, 8*f.vMax)
		return
	}
	c := s.component[0]
	s.mcus = divide(divide(f.width*c.h, f.hMax), 8) * divide(divide(f.height*c.v, f.vMax), 8)
}

// decodes reports whether VerifyPixels can decode the scan.
func (j *jpegReader) decodes(s *jpegScan) bool {
	return !j.frame.arithmetic() && (s.last == 0 || !s.refines())
}

// jpegPadding is how many bytes may follow the codes of a restart interval. Decoders
// that read some bytes ahead do not notice these, and encoders pad to whole words.
const jpegPadding = 16

// entropy reads the coded data of a scan, which restart markers divide into intervals
// of as many MCUs as DRI says (B.2.1). Some encoders also write a restart marker after
// the last interval. Decoders ignore it.
func (j *jpegReader) entropy(s *jpegScan) error {
	interval := s.mcus
	if j.restart > 0 {
		interval = min(interval, j.restart)
	}
	intervals := (s.mcus + interval - 1) / interval
	for n := int64(1); ; n++ {
		begin := j.r.offset()
		decoded := j.pixels != nil && n <= intervals && j.decodes(s)
		if decoded {
			if err := j.pixels.interval(s, n, min(interval, s.mcus-(n-1)*interval)); err != nil {
				return err
			}
			if j.strip {
				j.r.drop() // what follows the codes
			}
		}
		end := j.r.offset()
		if n > intervals { // do not wait for all of the data that should not be there
			if b, err := j.r.peek(1); err != nil {
				return err
			} else if len(b) > 0 && b[0] != 0xff {
				return j.tooMany(begin-2, n-1, intervals)
			}
		}
		size, err := j.coded()
		if err != nil {
			return err
		}
		if decoded && size > jpegPadding {
			return invalid(end, "the pixels are complete, but other bytes follow them, maybe private; open it and save it with another program: "+
				"JPEG: scan %d: %d bytes after MCU %d of %d", j.scans, size, min(n*interval, s.mcus), s.mcus)
		}
		data := decoded || size > 0
		at := j.r.offset()
		restart := mRST0 <= j.marker && j.marker <= mRST7
		switch {
		case n > intervals && (data || restart):
			return j.tooMany(begin-2, n-1, intervals)
		case n <= intervals && !data && !j.frame.arithmetic():
			return j.damaged(at, "scan %d: no data in restart interval %d of %d", j.scans, n, intervals)
		case n < intervals && !restart:
			return j.damaged(at, "scan %d: marker FF%02X after restart interval %d of %d, want RST%d", j.scans, j.marker, n, intervals, (n-1)%8)
		case !restart:
			return nil
		case int64(j.marker-mRST0) != (n-1)%8:
			return j.damaged(at, "scan %d: RST%d after restart interval %d of %d, want RST%d", j.scans, j.marker-mRST0, n, intervals, (n-1)%8)
		}
		if j.strip {
			j.r.keep()
		}
		if err := j.r.skip(2); err != nil {
			return err
		}
	}
}

func (j *jpegReader) tooMany(offset, n, intervals int64) error {
	return j.damaged(offset, "scan %d: a restart marker after interval %d of %d", j.scans, n, intervals)
}

// coded consumes coded data up to the next marker, which it sets (B.1.1.5). It returns
// the number of bytes, without fill bytes.
func (j *jpegReader) coded() (size int64, err error) {
	for {
		b, err := j.r.next(math.MaxInt64)
		if err != nil {
			return size, j.scanCut(err)
		}
		// A byte FF is followed by 00 (F.1.2.3), unless it begins a marker.
		i := 0
		for {
			n := bytes.IndexByte(b[i:], 0xff)
			if n < 0 {
				size += int64(len(b))
				break
			}
			if i += n; i+1 < len(b) && b[i+1] == 0 {
				i += 2
				continue
			}
			size += int64(i)
			j.r.unread(len(b) - i)
			stuffed, err := j.atFF()
			if err != nil || !stuffed {
				return size, err
			}
			size += 2
			break
		}
	}
}

// stuffed consumes FF 00, which is data. It sets marker to the byte after FF.
func (j *jpegReader) stuffed() (bool, error) {
	b, err := j.r.peek(2)
	if err == nil && len(b) < 2 {
		j.r.skip(int64(len(b)))
		err = errEnd
	}
	if err != nil {
		return false, err
	}
	j.marker = b[1]
	if j.marker != 0 {
		return false, nil
	}
	return true, j.r.skip(2)
}

// atFF looks at what a byte FF begins. It consumes FF 00, which is data, and fill bytes.
// It does not consume a marker, which it sets.
func (j *jpegReader) atFF() (stuffed bool, err error) {
	for fill := false; ; fill = true {
		stuffed, err := j.stuffed()
		switch {
		case err != nil:
			return false, j.scanCut(err)
		case stuffed && fill:
			return false, j.damaged(j.r.offset()-2, "scan %d: FF FF 00 is neither data nor a marker", j.scans)
		case j.marker != 0xff:
			return stuffed, nil
		}
		if err := j.r.skip(1); err != nil {
			return false, err
		}
	}
}

// scanCut returns err, or a better one if the stream ends in coded data.
func (j *jpegReader) scanCut(err error) error {
	return j.cut(err, "no EOI marker: the end is in the data of scan %d", j.scans)
}
