package verify

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The markers (T.81, table B.1). Each follows a byte FF.
const (
	mSOF0  = 0xc0 // to SOF15, without DHT, JPG and DAC
	mDHT   = 0xc4
	mJPG   = 0xc8
	mDAC   = 0xcc
	mSOF15 = 0xcf
	mRST0  = 0xd0
	mRST7  = 0xd7
	mSOI   = 0xd8
	mEOI   = 0xd9
	mSOS   = 0xda
	mDQT   = 0xdb
	mDNL   = 0xdc
	mDRI   = 0xdd
	mAPP0  = 0xe0
	mAPP1  = 0xe1
	mAPP2  = 0xe2
	mAPP14 = 0xee
	mAPP15 = 0xef
	mJPGLS = 0xf7
	mCOM   = 0xfe
)

// isJPEG looks at SOI and at the FF of the next marker.
func isJPEG(head []byte) bool { return beginsWith(head, "\xff\xd8\xff") }

// checkJPEG reads a JPEG. The rules are those of ITU-T T.81, annex B, and of JFIF
// (T.871). Comments cite the sections of T.81. There are two depths:
//
//   - By default, it checks the markers, their order and lengths, the tables, and the
//     parameters of the frame and of each scan. It follows the coded data to the next
//     marker, and counts the restart markers. Each component must be coded.
//   - With Options.VerifyPixels, it also decodes the Huffman codes, which must fill
//     exactly the frame. It keeps no coefficient. Hence, it cannot decode the scans
//     of a progressive image that refine AC coefficients (G.1.2.3): the meaning of their
//     bits depends on all coefficients before. Arithmetic coding is not decoded either.
//     Such scans are checked by structure only.
//
// A JPEG has no checksums. Damage that yields other valid codes is not noticed: some
// blocks of the picture have other colours then. A progressive image may end after any scan,
// as soon as each component has its DC coefficients.
//
// What decoders ignore passes: up to 16 bytes after the codes, and any padding bits. Without
// VerifyPixels, more bytes after the codes are not noticed.
//
// When metadata is stripped, VerifyPixels is implied, to find the bytes after the codes. They
// are dropped. In the scans that it cannot decode, they are not found and stay. So do tables
// that no scan uses. The content of an ICC profile is not looked into.
//
// The frame types are those that browsers show: baseline, extended sequential and
// progressive, Huffman or arithmetic coded, of 8 bits. What follows EOI is accepted. It
// may be further pictures (CIPA DC-007), or a video.
func checkJPEG(r *reader, opts Options) (Meta, error) {
	j := &jpegReader{r: r, strip: opts.StripMetadata}
	if opts.VerifyPixels || opts.StripMetadata {
		j.pixels = jpegDecoders.Get().(*jpegDecoder)
		j.pixels.j = j
		defer func() {
			j.pixels.release()
			jpegDecoders.Put(j.pixels)
		}()
	}
	err := j.image(opts)
	meta := Meta{Type: "image/jpeg"}
	meta.Width, meta.Height = j.exif.orientation().displayed(j.frame.width, j.frame.height)
	return meta, err
}

// A jpegReader reads a JPEG segment by segment (B.1.1.4).
type jpegReader struct {
	r      *reader
	strip  bool
	pixels *jpegDecoder // nil unless pixels are to be verified

	marker byte
	start  int64 // offset of the marker
	left   int64 // bytes of its segment to come

	frame   jpegFrame
	restart int64    // the restart interval, 0 if there is none
	quant   uint8    // the quantization tables that are defined, a bit for each
	dc, ac  uint8    // the Huffman tables that are defined
	scans   int      // that have begun
	exif    exif     // the first Exif block
	hasExif bool     // whether there was one
	icc     jpegICC  // used if metadata is stripped
	head    [18]byte // of a segment
	out     [4]byte  // a marker and a length to write
}

// image reads all of the stream.
func (j *jpegReader) image(opts Options) error {
	var soi [2]byte
	if n, err := j.r.full(soi[:]); err != nil {
		return j.r.truncated(err, "JPEG: %d of 2 bytes of the SOI marker are missing", 2-n)
	}
	for {
		if j.strip {
			j.r.drop() // unless the segment says otherwise
		}
		if err := j.next(); err != nil {
			return err
		}
		if j.marker == mEOI {
			break
		}
		if err := j.segment(opts); err != nil {
			return err
		}
	}
	if err := j.complete(); err != nil {
		return err
	}
	if j.strip {
		if err := j.r.emit([]byte{0xff, mEOI}); err != nil {
			return err
		}
	}
	for {
		if _, err := j.r.next(math.MaxInt64); err == errEnd {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// next reads a marker and the length of its segment. Fill bytes may come before the
// marker (B.1.1.2).
func (j *jpegReader) next() error {
	var b [2]byte
	j.start = j.r.offset()
	j.marker, j.left = 0, 0
	for n := 0; ; n++ {
		if _, err := j.r.full(b[:1]); err != nil {
			return j.cut(err, "no EOI marker")
		}
		if n == 0 && b[0] != 0xff {
			return j.wrong(j.start, "byte %02x, want FF and a marker", b[0])
		}
		if b[0] != 0xff {
			break
		}
	}
	j.marker = b[0]
	j.start = j.r.offset() - 2
	if err := j.known(); err != nil || j.marker == mEOI {
		return err
	}
	if n, err := j.r.full(b[:]); err != nil {
		return j.r.truncated(err, "JPEG: %d of 2 bytes of the length of %v are missing", 2-n, j)
	}
	length := int64(binary.BigEndian.Uint16(b[:]))
	if length < 2 {
		return j.damaged(j.start+2, "%v: length %d, want at least 2", j, length)
	}
	j.left = length - 2
	return nil
}

// known returns an error if the marker may not be here. JPG and JPGn are reserved for
// extensions, DHP and EXP for hierarchical images, TEM is never in a file, and there
// are restart markers in scans only (B.1.1.3).
func (j *jpegReader) known() error {
	switch m := j.marker; {
	case m == mSOI:
		return j.wrong(j.start, "second SOI marker")
	case mRST0 <= m && m <= mRST7:
		return j.damaged(j.start, "RST%d outside of a scan", m-mRST0)
	case m == mJPGLS && j.frame.n == 0:
		return j.variant("a JPEG-LS")
	case m < mSOF0 || m == mJPG || m == 0xde || m == 0xdf || m >= 0xf0 && m < mCOM:
		return j.damaged(j.start, "unknown marker FF%02X", m)
	}
	return nil
}

// segment reads all of the segment of a marker, and the scan that follows a SOS.
func (j *jpegReader) segment(opts Options) error {
	m := j.marker
	if app := mAPP0 <= m && m <= mAPP15; app || m == mCOM {
		return j.application()
	}
	if m == mSOS {
		if j.frame.n == 0 {
			return j.wrong(j.start, "SOS before SOF")
		}
		// Decoders have read the orientation by now.
		if err := j.r.described(); err != nil {
			return err
		}
	}
	if err := j.keep(); err != nil {
		return err
	}
	switch m {
	case mDQT:
		return j.quantization()
	case mDHT:
		return j.huffman()
	case mDAC:
		return j.conditioning()
	case mDRI:
		return j.restartInterval()
	case mDNL:
		return j.lines()
	case mSOS:
		return j.scan()
	}
	return j.frameHeader(opts)
}

// complete judges an image at its end.
func (j *jpegReader) complete() error {
	if j.frame.n == 0 {
		return j.wrong(j.start, "no SOF before EOI")
	}
	if j.scans == 0 {
		return j.wrong(j.start, "no image data: there is no SOS before EOI")
	}
	for i := range j.frame.components() {
		if c := &j.frame.component[i]; c.point[0] == uncoded {
			return invalid(j.start, "not all of the picture is there; send it again, from a good copy: JPEG: no scan has component %d", c.id)
		}
	}
	return nil
}

// read reads the next bytes of the segment. There must be so many.
func (j *jpegReader) read(b []byte) error {
	n, err := j.r.full(b)
	j.left -= int64(n)
	return j.segmentCut(err)
}

// byte reads the next byte of the segment, or returns an error if there is none.
func (j *jpegReader) byte() (byte, error) {
	if j.left == 0 {
		return 0, j.short()
	}
	err := j.read(j.head[:1])
	return j.head[0], err
}

// each reads the next n bytes of the segment, which there must be. It calls f for each,
// with its number and offset, before it reads on.
func (j *jpegReader) each(n int64, f func(i int, at int64, c byte) error) error {
	for i := 0; n > 0; {
		at := j.r.offset()
		b, err := j.r.next(n)
		if err != nil {
			return j.segmentCut(err)
		}
		n -= int64(len(b))
		j.left -= int64(len(b))
		for k, c := range b {
			if err := f(i, at+int64(k), c); err != nil {
				return err
			}
			i++
		}
	}
	return nil
}

// short returns an error for a segment that is too short for what it says it holds.
func (j *jpegReader) short() error {
	return j.wrong(j.start+2, "%v: length %d is too short for its content", j, j.r.offset()-j.start-2+j.left)
}

// skip reads the rest of the segment.
func (j *jpegReader) skip() error {
	begin := j.r.offset()
	err := j.r.skip(j.left)
	j.left -= j.r.offset() - begin
	return j.segmentCut(err)
}

// segmentCut returns err, or a better one if the stream ends in a segment.
func (j *jpegReader) segmentCut(err error) error {
	if err != errEnd {
		return err
	}
	return j.r.truncated(err, "JPEG: %d bytes of %v are missing", j.left, j)
}

// cut returns err, or a better one if the stream ends where only EOI may be missing.
func (j *jpegReader) cut(err error, format string, args ...any) error {
	if err != errEnd {
		return err
	}
	if j.scans == 0 {
		return j.r.truncated(err, "JPEG: "+format, args...)
	}
	return invalid(j.r.offset(), "cut short; send all of it, or save it as a new file if it opens and looks whole: JPEG: "+format, args...)
}

func (j *jpegReader) wrong(offset int64, format string, args ...any) error {
	return wrong(offset, "JPEG: "+format, args...)
}

func (j *jpegReader) damaged(offset int64, format string, args ...any) error {
	return damaged(offset, "JPEG: "+format, args...)
}

// variant returns an error for a JPEG that browsers do not show.
func (j *jpegReader) variant(name string) error {
	return &Error{ErrUnsupportedType, j.start, fmt.Sprintf("it is %s, which browsers do not show; save it as an ordinary JPEG: JPEG: %v", name, j)}
}

// String returns the name of the marker.
func (j *jpegReader) String() string {
	switch m := j.marker; m {
	case mDHT:
		return "DHT"
	case mDAC:
		return "DAC"
	case mSOS:
		return "SOS"
	case mDQT:
		return "DQT"
	case mDNL:
		return "DNL"
	case mDRI:
		return "DRI"
	case mCOM:
		return "COM"
	default:
		switch {
		case mSOF0 <= m && m <= mSOF15:
			return fmt.Sprintf("SOF%d", m-mSOF0)
		case mAPP0 <= m && m <= mAPP15:
			return fmt.Sprintf("APP%d", m-mAPP0)
		}
		return fmt.Sprintf("marker FF%02X", m)
	}
}

// tables reads a segment of tables. Each begins with a byte that has two numbers. f
// reads the rest of a table. at is the offset of the byte.
func (j *jpegReader) tables(f func(at int64, high, low byte) error) error {
	for j.left > 0 {
		at := j.r.offset()
		b, err := j.byte()
		if err != nil {
			return err
		}
		if err := f(at, b>>4, b&15); err != nil {
			return err
		}
	}
	return nil
}

// quantization reads DQT (B.2.4.1).
func (j *jpegReader) quantization() error {
	return j.tables(func(at int64, precision, table byte) error {
		switch {
		case precision > 1:
			return j.damaged(at, "DQT: precision %d, want 0 or 1", precision)
		case table > 3:
			return j.damaged(at, "DQT: table %d, want 0 to 3", table)
		case j.left < 64<<precision:
			return j.short()
		}
		// An element is one or two bytes, and not 0.
		high := byte(0)
		err := j.each(64<<precision, func(i int, at int64, c byte) error {
			if precision == 1 && i%2 == 0 {
				high = c
			} else if c|high == 0 {
				return j.damaged(at, "DQT: table %d: element %d is 0", table, i>>precision)
			}
			return nil
		})
		if err != nil {
			return err
		}
		j.quant |= 1 << table
		return nil
	})
}

// huffman reads DHT (B.2.4.2). The codes must fit in 16 bits (annex C), and those of DC
// coefficients must be for categories that 8 bits can need.
func (j *jpegReader) huffman() error {
	return j.tables(func(at int64, class, table byte) error {
		switch {
		case class > 1:
			return j.damaged(at, "DHT: class %d, want 0 or 1", class)
		case table > 3:
			return j.damaged(at, "DHT: table %d, want 0 to 3", table)
		}
		var counts [16]byte
		total, free := int64(0), 1
		if j.left < 16 {
			return j.short()
		}
		err := j.each(16, func(i int, at int64, c byte) error {
			counts[i] = c
			total += int64(c)
			if free = 2*free - int(c); free < 0 || total > 256 {
				return j.damaged(at, "DHT: table %d: too many codes of up to %d bits", table, i+1)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if j.left < total {
			return j.short()
		}
		var values [256]byte
		err = j.each(total, func(i int, at int64, c byte) error {
			if values[i] = c; class == 0 && c > 15 {
				return j.damaged(at, "DHT: DC table %d: category %d, at most 15", table, c)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if class == 0 {
			j.dc |= 1 << table
		} else {
			j.ac |= 1 << table
		}
		if j.pixels != nil {
			j.pixels.define(class, table, &counts, &values)
		}
		return nil
	})
}

// conditioning reads DAC (B.2.4.3).
func (j *jpegReader) conditioning() error {
	return j.tables(func(at int64, class, table byte) error {
		if class > 1 || table > 3 {
			return j.damaged(at, "DAC: class %d, table %d, want at most 1 and 3", class, table)
		}
		at = j.r.offset()
		value, err := j.byte()
		if err != nil {
			return err
		}
		if class == 0 && value&15 > value>>4 || class == 1 && (value < 1 || value > 63) {
			return j.damaged(at, "DAC: class %d, value %d is out of range", class, value)
		}
		return nil
	})
}

// restartInterval reads DRI (B.2.4.4).
func (j *jpegReader) restartInterval() error {
	if j.left != 2 {
		return j.wrong(j.start+2, "DRI: length %d, want 4", j.left+2)
	}
	if err := j.read(j.head[:2]); err != nil {
		return err
	}
	j.restart = int64(binary.BigEndian.Uint16(j.head[:]))
	return nil
}

// lines reads DNL (B.2.5). Decoders ignore it, so it must repeat the height of the frame.
func (j *jpegReader) lines() error {
	if j.scans != 1 {
		return j.wrong(j.start, "DNL must follow the first scan")
	}
	if j.left != 2 {
		return j.wrong(j.start+2, "DNL: length %d, want 4", j.left+2)
	}
	if err := j.read(j.head[:2]); err != nil {
		return err
	}
	if n := int64(binary.BigEndian.Uint16(j.head[:])); n != j.frame.height {
		return j.wrong(j.start+4, "DNL: %d lines, but SOF has %d", n, j.frame.height)
	}
	return nil
}
