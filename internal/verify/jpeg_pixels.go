package verify

import (
	"encoding/binary"
	"math"
	"sync"
)

// lookupBits is how many bits of a Huffman code are looked up at once.
const lookupBits = 10

// A huffmanTable decodes the codes of a DHT segment (annexes C and F.2.2.3).
type huffmanTable struct {
	counts [16]byte // of codes, by length
	values [256]byte
	// Set by build:
	built bool
	ends  [17]uint32 // the end of the codes of each length, as 16 bits, and 0x10000 for all
	bases [17]int32  // added to a code, gives the index of its value
	// single has, for the next bits, the symbol and the bits of its code, or 0 if that
	// is longer. several has what all symbols in the next bits do together.
	single  [1 << lookupBits]uint16
	several [1 << lookupBits]uint16
}

// An entry of several is the sum of bits, with those that follow a code, the sum of
// coefficients, and whether the last symbol ends the block.
const (
	stepBits  = 0x1f
	stepShift = 5
	stepMask  = 0x3f
	stepEnd   = 1 << 11
)

// Kinds of symbols of AC coefficients (F.1.2.2, G.1.2.2).
const (
	symbolEOB = 0x00
	symbolZRL = 0xf0
)

// build prepares the lookups of a DC or AC table.
func (t *huffmanTable) build(class byte) {
	t.built = true
	clear(t.single[:])
	code, index := uint32(0), int32(0)
	for i, count := range t.counts {
		length := i + 1
		t.bases[length] = index - int32(code)
		for range count {
			if length <= lookupBits {
				entry := uint16(t.values[index])<<8 | uint16(length)
				at := code << (lookupBits - length)
				for k := range uint32(1) << (lookupBits - length) {
					t.single[at+k] = entry
				}
			}
			code++
			index++
		}
		t.ends[length] = code << (16 - length)
		code <<= 1
	}
	for window := range t.several {
		t.several[window] = t.steps(class, uint32(window))
	}
}

// steps returns the entry of several for the next bits.
func (t *huffmanTable) steps(class byte, window uint32) uint16 {
	bits, step := 0, 0
	for bits < lookupBits {
		e := t.single[window<<bits&(1<<lookupBits-1)]
		length, symbol := int(e&0xff), byte(e>>8)
		if e == 0 || bits+length > lookupBits {
			break
		}
		run, size := int(symbol>>4), int(symbol&15)
		switch {
		case class == 0:
			return uint16(length + size)
		case symbol == symbolEOB:
			return uint16(bits+length) | uint16(step)<<stepShift | stepEnd
		case size == 0 && symbol != symbolZRL || step+run+1 > 63:
			return uint16(bits) | uint16(step)<<stepShift
		}
		bits += length + size
		step += run + 1
	}
	return uint16(bits) | uint16(step)<<stepShift
}

// long decodes the code that the 64 bits begin with. It returns 0 bits if it is none.
func (t *huffmanTable) long(acc uint64) (symbol byte, bits int) {
	next := uint32(acc >> 48)
	for length := 1; length <= 16; length++ {
		if next < t.ends[length] {
			return t.values[(int32(next>>(16-length))+t.bases[length])&0xff], length
		}
	}
	return 0, 0
}

// A jpegDecoder decodes the Huffman codes of scans, and forgets the coefficients.
type jpegDecoder struct {
	j      *jpegReader
	tables [2][4]huffmanTable // by class

	b    []byte // data that the reader has returned
	acc  uint64 // the next bits, from the highest on
	n    int    // how many; negative if the data ends too early
	end  bool   // there is a marker next
	err  error  // of the reader
	list [10]struct{ dc, ac *huffmanTable }
}

var jpegDecoders = sync.Pool{New: func() any { return new(jpegDecoder) }}

func (d *jpegDecoder) release() {
	d.j, d.b, d.err = nil, nil, nil
}

// define sets a table.
func (d *jpegDecoder) define(class, table byte, counts *[16]byte, values *[256]byte) {
	t := &d.tables[class][table]
	t.counts, t.values, t.built = *counts, *values, false
}

// defineDefault sets a table of annex K.3: 0 for luminance, 1 for chrominance.
func (d *jpegDecoder) defineDefault(class, table byte) {
	var counts [16]byte
	var values [256]byte
	k := defaultTables[class][table]
	copy(values[:], k[copy(counts[:], k):])
	d.define(class, table, &counts, &values)
}

// interval decodes restart interval n of a scan, which has that many MCUs.
func (d *jpegDecoder) interval(s *jpegScan, n, mcus int64) error {
	d.acc, d.n, d.end, d.b = 0, 0, false, nil
	d.j.r.back = mostUnused
	blocks := d.list[:0]
	for _, c := range s.component[:s.n] {
		b := d.list[0]
		b.dc, b.ac = nil, nil
		if s.first == 0 {
			b.dc = &d.tables[0][c.td]
			b.dc.prepare(0)
		}
		if s.last > 0 {
			b.ac = &d.tables[1][c.ta]
			b.ac.prepare(1)
		}
		for range c.blocks {
			blocks = append(blocks, b)
		}
	}
	var bad string
	left := mcus * int64(len(blocks))
	if s.refines() {
		left, bad = d.refine(left)
	} else {
		left, bad = d.decode(blocks, max(int(s.first), 1), int(s.last), left, d.j.frame.progressive())
	}
	if d.err != nil {
		return d.j.scanCut(d.err)
	}
	if bad != "" {
		mcu := (n-1)*d.j.restart + mcus - (left+int64(len(blocks))-1)/int64(len(blocks))
		return invalid(d.offset(), "damaged in the pixels; send it again, from a good copy: JPEG: scan %d, MCU %d of %d: %s",
			d.j.scans, mcu+1, s.mcus, bad)
	}
	d.unread()
	return nil
}

// mostUnused bounds the bytes of acc: 7 of data, each FF of which a byte 00 follows, and
// one more to look at.
const mostUnused = 16

// unread gives back what the codes did not need.
func (d *jpegDecoder) unread() {
	r := d.j.r
	r.unread(len(d.b))
	for range d.n / 8 {
		r.unread(1)
		if r.buf[r.pos] == 0 && r.buf[r.pos-1] == 0xff {
			r.unread(1)
		}
	}
	r.back, d.b = 0, nil
}

func (t *huffmanTable) prepare(class byte) {
	if !t.built {
		t.build(class)
	}
}

// offset returns about the position of the next bit.
func (d *jpegDecoder) offset() int64 {
	return d.j.r.offset() - int64(len(d.b)) - int64(max(d.n, 0)/8)
}

const tooEarly = "the data ends too early"

// decode decodes that many blocks. blocks has the tables of those of an MCU, in turn. If
// it fails, it returns how many are left and why.
func (d *jpegDecoder) decode(blocks []struct{ dc, ac *huffmanTable }, first, last int, left int64, progressive bool) (int64, string) {
	acc, n, b := d.acc, d.n, d.b
	run := 0 // of blocks that have ended (G.1.2.2)
	for turn := 0; left > 0; left-- {
		dc, ac := blocks[turn].dc, blocks[turn].ac
		if turn++; turn == len(blocks) {
			turn = 0
		}
		if dc != nil {
			if n < 32 {
				if acc, n, b = d.refill(acc, n, b); n <= 0 {
					return left, d.fail(acc, n, b, tooEarly)
				}
			}
			e := dc.several[acc>>(64-lookupBits)]
			bits := int(e)
			if bits == 0 {
				symbol, length := dc.long(acc)
				if length == 0 {
					return left, d.fail(acc, n, b, "no Huffman code of a DC coefficient")
				}
				bits = length + int(symbol)
			}
			acc <<= uint(bits) & 63
			n -= bits
		}
		if ac == nil {
			continue
		}
		if run > 0 {
			run--
			continue
		}
		for k := first; k <= last; {
			if n < 32 {
				if acc, n, b = d.refill(acc, n, b); n <= 0 {
					return left, d.fail(acc, n, b, tooEarly)
				}
			}
			e := ac.several[acc>>(64-lookupBits)]
			if next := k + int(e>>stepShift&stepMask); e != 0 && next <= last {
				acc <<= e & stepBits
				n -= int(e & stepBits)
				k = next
				if e&stepEnd != 0 {
					break
				}
				continue
			}
			symbol, length := ac.long(acc)
			if length == 0 {
				return left, d.fail(acc, n, b, "no Huffman code of an AC coefficient")
			}
			acc <<= uint(length)
			n -= length
			zeros, size := int(symbol>>4), int(symbol&15)
			if size == 0 && symbol != symbolZRL {
				if symbol == symbolEOB {
					break
				}
				if !progressive {
					return left, d.fail(acc, n, b, "an end of several blocks, which only progressive images have")
				}
				run = 1<<zeros + int(acc>>(64-zeros)) - 1
				acc <<= uint(zeros)
				n -= zeros
				break
			}
			if k += zeros + 1; k > last+1 {
				return left, d.fail(acc, n, b, "more coefficients than a block has")
			}
			acc <<= uint(size)
			n -= size
		}
	}
	d.acc, d.n, d.b = acc, n, b
	switch {
	case n < 0:
		return 1, d.fail(acc, n, b, tooEarly)
	case run > 0:
		return 1, d.fail(acc, n, b, "an end of more blocks than are left")
	}
	return 0, ""
}

// fail sets the state of d, and returns why.
func (d *jpegDecoder) fail(acc uint64, n int, b []byte, why string) string {
	d.acc, d.n, d.b = acc, n, b
	return why
}

// refine skips a bit a block (G.1.2.1).
func (d *jpegDecoder) refine(left int64) (int64, string) {
	for left > 0 {
		if d.n == 0 {
			if d.acc, d.n, d.b = d.refill(d.acc, d.n, d.b); d.n <= 0 {
				return left, tooEarly
			}
		}
		bits := min(left, int64(d.n))
		d.acc <<= uint(bits)
		d.n -= int(bits)
		left -= bits
	}
	return 0, ""
}

// refill returns at least 56 bits, unless a marker comes before.
func (d *jpegDecoder) refill(acc uint64, n int, b []byte) (uint64, int, []byte) {
	for n < 56 && !d.end {
		if len(b) >= 8 {
			// Bytes FF, and only those, have all bits set.
			w := binary.BigEndian.Uint64(b)
			if x := ^w; (x-0x0101010101010101)&^x&0x8080808080808080 == 0 {
				acc |= w >> uint(n)
				return acc, n | 56, b[(63-n)/8:]
			}
		} else if len(b) == 0 {
			if b, d.err = d.j.r.next(math.MaxInt64); d.err != nil {
				d.end = true
				return acc, n, nil
			}
		}
		c, used := b[0], 1
		if c == 0xff {
			if len(b) > 1 && b[1] == 0 {
				used = 2
			} else {
				d.j.r.unread(len(b))
				b = nil
				if stuffed, err := d.j.stuffed(); err != nil || !stuffed {
					d.end = true
					d.err = err
					return acc, n, nil
				}
				used = 0
			}
		}
		b = b[used:]
		acc |= uint64(c) << uint(56-n)
		n += 8
	}
	return acc, n, b
}

// defaultTables has the tables of annex K.3 by class: the counts, then the values.
var defaultTables = [2][2]string{
	{
		"\x00\x01\x05\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00" + "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b",
		"\x00\x03\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00" + "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b",
	},
	{
		"\x00\x02\x01\x03\x03\x02\x04\x03\x05\x05\x04\x04\x00\x00\x01\x7d" +
			"\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32" +
			"\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0\x24\x33\x62\x72\x82\x09\x0a\x16" +
			"\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45" +
			"\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69" +
			"\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89\x8a\x92\x93\x94" +
			"\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6" +
			"\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8" +
			"\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8" +
			"\xf9\xfa",
		"\x00\x02\x01\x02\x04\x04\x03\x04\x07\x05\x04\x04\x00\x01\x02\x77" +
			"\x00\x01\x02\x03\x11\x04\x05\x21\x31\x06\x12\x41\x51\x07\x61\x71\x13\x22\x32\x81" +
			"\x08\x14\x42\x91\xa1\xb1\xc1\x09\x23\x33\x52\xf0\x15\x62\x72\xd1\x0a\x16\x24\x34" +
			"\xe1\x25\xf1\x17\x18\x19\x1a\x26\x27\x28\x29\x2a\x35\x36\x37\x38\x39\x3a\x43\x44" +
			"\x45\x46\x47\x48\x49\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68" +
			"\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x92" +
			"\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4" +
			"\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6" +
			"\xd7\xd8\xd9\xda\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf2\xf3\xf4\xf5\xf6\xf7\xf8" +
			"\xf9\xfa",
	},
}
