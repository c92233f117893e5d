package verify_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"image/png"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

// Modes of turning the fuzzer's input into a file. Unchanged input rarely has right
// CRCs.
const (
	asIs     = iota
	repaired // CRCs are made right
	deflated // CRCs are made right, and the data of IDAT chunks is compressed
	modes
)

func prepare(b []byte, mode byte) []byte {
	if mode%modes == asIs || len(b) < 8 {
		return b
	}
	out := slices.Clone(b[:8])
	names, data, rest := parse(b)
	for i, name := range names {
		if name == "IDAT" && mode%modes == deflated {
			if i > 0 && names[i-1] == "IDAT" {
				continue
			}
			var raw []byte
			for j := i; j < len(names) && names[j] == "IDAT"; j++ {
				raw = append(raw, data[j]...)
			}
			out = append(out, idat(raw)...)
			continue
		}
		out = append(out, chunk(name, data[i])...)
	}
	return append(out, b[len(b)-rest:]...)
}

func addSeeds(f *testing.F) {
	for _, b := range goImages(f) {
		if len(b) < 8<<10 {
			f.Add(b, byte(asIs))
			f.Add(b, byte(repaired))
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for colour, depth := range kinds {
		for interlace := range byte(2) {
			f.Add(whole(5, 3, depth, colour, interlace), byte(repaired))
			chunks := [][]byte{ihdr(7, 4, depth, colour, interlace)}
			if colour == 3 {
				chunks = append(chunks, plte(2), chunk("tRNS", []byte{9}))
			}
			f.Add(file(append(chunks, chunk("IDAT", scanlines(7, 4, depth, colour, interlace, rnd)), iend())...), byte(deflated))
		}
	}
	h, data := ihdr(1, 1, 8, 0, 0), deflate([]byte{0, 0})
	dictionary := binary.BigEndian.AppendUint32([]byte{0x78, 0x20}, 1) // 1 is the checksum of an empty dictionary
	dictionary[1] += byte(31 - binary.BigEndian.Uint16(dictionary)%31)
	for _, b := range [][]byte{
		file(h, chunk("tRNS", []byte{0, 1}), chunk("IDAT", nil), chunk("IDAT", data[:3]), chunk("IDAT", data[3:]), chunk("IDAT", nil), iend()),
		file(h, chunk("IDAT", slices.Concat(data, data)), iend()),
		file(h, chunk("IDAT", slices.Concat(data, make([]byte, 5000))), iend()),
		file(h, chunk("IDAT", data), chunk("IDAT", data), iend()),
		file(h, chunk("IDAT", data), chunk("tEXt", nil), chunk("IDAT", data), iend()),
		file(h, chunk("IDAT", slices.Concat(dictionary, data[2:])), iend()),
		file(chunk("tEXt", nil), h, chunk("IDAT", data), iend()),
		file(h, chunk("text", nil), chunk("IDAT", data), iend()),
		file(h, chunk("t xT", nil), chunk("IDAT", data), iend()),
		file(h, chunk("ABCD", nil), chunk("IDAT", data), iend()),
	} {
		f.Add(b, byte(asIs))
		f.Add(b, byte(repaired))
	}
}

// lenient returns why image/png decodes a file that Copy refuses for its structure or
// for its pixels. These are the rules that image/png does not enforce.
func lenient(b []byte) (structure, stream string) {
	names, data, _ := parse(b)
	var idats []byte
	first, last := slices.Index(names, "IDAT"), 0
	for i, name := range names {
		switch {
		case i == 0 && name != "IHDR":
			return "IHDR is not first; image/png ignores ancillary chunks anywhere", ""
		case bytes.ContainsFunc([]byte(name), func(c rune) bool { return (c < 'A' || 'Z' < c) && (c < 'a' || 'z' < c) }):
			return "a chunk type that is not letters; image/png takes any", ""
		case name == "IDAT":
			last = i
			idats = append(idats, data[i]...)
		case name[0]&0x20 == 0 && !slices.Contains([]string{"IHDR", "PLTE", "IEND"}, name):
			return "an unknown critical chunk; image/png ignores those like any other", ""
		}
	}
	if slices.ContainsFunc(names[first:last], func(name string) bool { return name != "IDAT" }) {
		return "IDAT chunks that are not consecutive; image/png ignores those after the end of the zlib stream", ""
	}
	r := bytes.NewReader(idats)
	if z, err := zlib.NewReader(r); err == nil {
		if _, err := io.Copy(io.Discard, z); err == nil && r.Len() > 0 {
			return "", "bytes after the zlib stream in IDAT; image/png ignores further IDAT chunks and what is in its buffer of 4 KiB"
		}
	}
	return "", ""
}

// FuzzAgainstImagePNG compares with image/png. The structural check must accept every
// file that image/png decodes to the last byte. With VerifyPixels, Copy must accept
// those files and no other. lenient has the exceptions.
func FuzzAgainstImagePNG(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte, mode byte) {
		b = prepare(b, mode)
		// Decode fails wherever DecodeConfig does, before it allocates the pixels.
		if c, err := png.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height > 1<<20 {
			return
		}
		againstImagePNG(t, b)
	})
}

func againstImagePNG(t *testing.T, b []byte) {
	r := bytes.NewReader(b)
	_, err := png.Decode(r)
	decodes := err == nil && r.Len() == 0
	s, d := checkBytes(t, b, onlyPNG), checkBytes(t, b, verify.Options{Types: onlyPNG.Types, VerifyPixels: true})

	if s != nil && d == nil {
		t.Errorf("structure: got %v, want no error as for pixels", s)
	}
	if !decodes {
		if d == nil {
			t.Errorf("pixels: got no error, image/png got %v with %d bytes left", err, r.Len())
		}
		return
	}
	structure, stream := lenient(b)
	if (s != nil) != (structure != "") {
		t.Errorf("structure: got %v, image/png decodes it; exception: %q", s, structure)
	}
	if (d != nil) != (structure != "" || stream != "") {
		t.Errorf("pixels: got %v, image/png decodes it; exception: %q%q", d, structure, stream)
	}
}

// FuzzChunking splits the stream into Reads of many kinds. The verdict must not change.
func FuzzChunking(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte, mode byte) {
		b = prepare(b, mode)
		for _, opts := range []verify.Options{structural, pixels, {MaxPixels: 100, VerifyPixels: true}} {
			want := checkBytes(t, b, opts)
			for name, r := range map[string]io.Reader{
				"one byte":      iotest.OneByteReader(bytes.NewReader(b)),
				"half":          iotest.HalfReader(bytes.NewReader(b)),
				"data with EOF": iotest.DataErrReader(bytes.NewReader(b)),
				"one with EOF":  iotest.DataErrReader(iotest.OneByteReader(bytes.NewReader(b))),
				"random":        &randomReader{bytes.NewReader(b), rand.New(rand.NewPCG(uint64(len(b)), crc(b)))},
			} {
				var passed bytes.Buffer
				_, err := verify.Copy(&passed, r, opts)
				if fmt.Sprint(err) != fmt.Sprint(want) {
					t.Errorf("%s: got %v, want %v as in one piece", name, err, want)
				}
				if !bytes.HasPrefix(b, passed.Bytes()) || err == nil && passed.Len() != len(b) {
					t.Errorf("%s: got another copy, want the bytes of the file", name)
				}
				if e := (*verify.Error)(nil); errors.As(err, &e) && (e.Offset < 0 || e.Offset > int64(len(b))) {
					t.Errorf("%s: got offset %d, want at most %d", name, e.Offset, len(b))
				}
			}
		}
	})
}

func crc(b []byte) uint64 { return uint64(crc32.ChecksumIEEE(b)) }

// A randomReader returns a random number of bytes, sometimes none.
type randomReader struct {
	r   io.Reader
	rnd *rand.Rand
}

func (r *randomReader) Read(b []byte) (int, error) {
	return r.r.Read(b[:min(len(b), r.rnd.IntN(100))])
}
