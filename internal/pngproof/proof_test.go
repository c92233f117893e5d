package pngproof_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/pngproof"
)

var (
	notPNG  = pngproof.ErrNotPNG
	broken  = pngproof.ErrBroken
	tooMany = pngproof.ErrTooManyPixels
)

// want fails the test unless err is of that kind, says something with part in
// it, and names that offset, if it is not negative.
func want(t *testing.T, err, kind error, offset int64, part string) {
	t.Helper()
	if kind == nil {
		if err != nil {
			t.Errorf("refused: %v", err)
		}
		return
	}
	var e *pngproof.Error
	switch {
	case !errors.As(err, &e) || !errors.Is(err, kind):
		t.Errorf("got %v, want %v", err, kind)
	case !strings.Contains(e.Detail, part):
		t.Errorf("%q does not speak of %q", e.Detail, part)
	case offset >= 0 && e.Offset != offset:
		t.Errorf("%v: want offset %d", e, offset)
	case strings.HasSuffix(e.Detail, ".") || e.Detail == "":
		t.Errorf("detail %q", e.Detail)
	case err.Error() != fmt.Sprintf("%v: %s (at byte %d)", e.Kind, e.Detail, e.Offset):
		t.Errorf("text %q of %#v", err, e)
	}
}

func TestGoImages(t *testing.T) {
	images := goImages(t)
	if len(images) == 0 {
		t.Skip("this Go installation has no src/image/png/testdata")
	}
	// What is wrong with the files that are wrong: for both proofs, for the deep one.
	wrong := map[string][2]error{
		"invalid-crc32.png":   {broken, broken},
		"invalid-noend.png":   {broken, broken},
		"invalid-palette.png": {}, // a pixel names no palette entry
		"invalid-trunc.png":   {broken, broken},
		"invalid-zlib.png":    {nil, broken},
	}
	right := strings.Fields(`
		benchGray benchNRGBA-gradient benchNRGBA-opaque benchPaletted benchRGB-interlace
		benchRGB gray-gradient.interlaced gray-gradient
		basn0g01-30 basn0g01 basn0g02-29 basn0g02 basn0g04-31 basn0g04 basn0g08 basn0g16
		basn2c08 basn2c16 basn3p01 basn3p02 basn3p04-31i basn3p04 basn3p08-trns basn3p08
		basn4a08 basn4a16 basn6a08 basn6a16 ftbbn0g01 ftbbn0g02 ftbbn0g04 ftbbn2c16
		ftbbn3p08 ftbgn2c16 ftbgn3p08 ftbrn2c08 ftbwn0g16 ftbwn3p08 ftbyn3p08 ftp0n0g08
		ftp0n2c08 ftp0n3p08 ftp1n3p08`)
	for _, name := range right {
		wrong[name+".png"] = [2]error{}
	}
	for name, b := range images {
		t.Run(name, func(t *testing.T) {
			if kind, ok := wrong[name]; ok {
				want(t, proveBytes(t, b, structural), kind[0], -1, "")
				want(t, proveBytes(t, b, deep), kind[1], -1, "")
			} else {
				againstImagePNG(t, b) // a file that is newer than this list
			}
		})
	}
	for name := range wrong {
		if images[name] == nil {
			t.Errorf("%s is no longer there", name)
		}
	}
}

func TestEveryKindAndSize(t *testing.T) {
	for colour, depth := range kinds {
		for interlace := range byte(2) {
			for w := range 10 {
				for h := range 10 {
					b := whole(w+1, h+1, depth, colour, interlace)
					if err := proveBytes(t, b, deep); err != nil {
						t.Errorf("%d x %d of colour type %d, depth %d, interlace %d: %v", w+1, h+1, colour, depth, interlace, err)
					}
				}
			}
		}
	}
}

func TestHeader(t *testing.T) {
	legal := map[[2]byte]bool{}
	for colour, depth := range kinds {
		legal[[2]byte{depth, colour}] = true
	}
	if len(legal) != 15 {
		t.Fatalf("%d legal combinations, want 15", len(legal))
	}
	data := idat(make([]byte, 10))
	for depth := range 256 {
		for colour := range 256 {
			b := file(ihdr(1, 1, byte(depth), byte(colour), 0), data, iend())
			if colour == 3 {
				b = file(ihdr(1, 1, byte(depth), byte(colour), 0), plte(1), data, iend())
			}
			if err := proveBytes(t, b, structural); (err == nil) != legal[[2]byte{byte(depth), byte(colour)}] {
				t.Errorf("depth %d, colour type %d: %v", depth, colour, err)
			}
		}
	}

	big := uint32(1<<31 - 1)
	for _, test := range []struct {
		name   string
		ihdr   []byte
		max    int64
		kind   error
		offset int64
	}{
		{"zero width", ihdr(0, 1, 8, 0, 0), 0, broken, 16},
		{"zero height", ihdr(1, 0, 8, 0, 0), 0, broken, 20},
		{"width 1<<31", ihdr(1<<31, 1, 8, 0, 0), 0, broken, 16},
		{"height 1<<32-1", ihdr(1, 1<<32-1, 8, 0, 0), 0, broken, 20},
		{"largest", ihdr(big, big, 16, 6, 1), 0, nil, 0},
		{"largest, allowed", ihdr(big, big, 16, 6, 1), int64(big) * int64(big), nil, 0},
		{"largest, one too many", ihdr(big, big, 16, 6, 1), int64(big)*int64(big) - 1, tooMany, 16},
		{"just allowed", ihdr(10, 7, 8, 0, 0), 70, nil, 0},
		{"just too many", ihdr(10, 7, 8, 0, 0), 69, tooMany, 16},
		{"negative limit", ihdr(10, 7, 8, 0, 0), -1, nil, 0},
		{"depth", ihdr(1, 1, 3, 0, 0), 0, broken, 24},
		{"colour type", ihdr(1, 1, 8, 1, 0), 0, broken, 25},
		{"interlace 2", ihdr(1, 1, 8, 0, 2), 0, broken, 28},
		{"compression 1", chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 1, 0, 0}), 0, broken, 26},
		{"filter 1", chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 1, 0}), 0, broken, 27},
		{"12 bytes", chunk("IHDR", make([]byte, 12)), 0, broken, 8},
		{"14 bytes", chunk("IHDR", make([]byte, 14)), 0, broken, 8},
		{"CgBI", chunk("CgBI", make([]byte, 4)), 0, broken, 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := file(test.ihdr, data, iend())
			want(t, proveBytes(t, b, pngproof.Config{MaxPixels: test.max}), test.kind, test.offset, "")
			if test.kind != nil {
				// It must not take more than IHDR to find out.
				want(t, proveBytes(t, b[:8+len(test.ihdr)], pngproof.Config{MaxPixels: test.max}), test.kind, test.offset, "")
			}
		})
	}
	want(t, proveBytes(t, file(chunk("CgBI", make([]byte, 4))), structural), broken, 12, "Apple")
}

func TestNotPNG(t *testing.T) {
	for _, test := range []struct {
		in     string
		kind   error
		offset int64
		part   string
	}{
		{"", notPNG, 0, "no bytes"},
		{"\x89PN", broken, 3, "truncated"},
		{magic[:7], broken, 7, "truncated"},
		{magic, broken, 8, "truncated"},
		{"\xff\xd8\xff\xe0\x00\x10JFIF", notPNG, 0, "JPEG"},
		{"\xff\xd8\xff", notPNG, 0, "JPEG"},
		{"GIF89a\x01\x00\x01\x00", notPNG, 0, "GIF"},
		{"RIFF\x24\x00\x00\x00WEBPVP8 ", notPNG, 0, "WebP"},
		{"\x00\x00\x00\x1cftypavif", notPNG, 0, "AVIF"},
		{"<!DOCTYPE html>", notPNG, 0, "HTML"},
		{"<HTML>", notPNG, 0, "HTML"},
		{"<svg xmlns=", notPNG, 0, "SVG"},
		{"iVBORw0KGgoAAAANSUhEUg", notPNG, 0, "base64"},
		{"\x89PNG\n\x1a\n\x00\x00\x00\rIHDR", notPNG, 4, "text mode"},
		{"\x89PNG\r\r\n\x1a\r\n", notPNG, 5, "text mode"},
		{"\x89PNG\r\n\x1a\r\n", notPNG, 7, "begins with"},
		{"\xc2\x89PNG\r\n\x1a\n", notPNG, 0, "UTF-8"},
		{"\xef\xbf\xbdPNG\r\n\x1a\n", notPNG, 0, "UTF-8"},
		{"\x89PNG what?", notPNG, 4, "begins with"},
		{"hello", notPNG, 0, "begins with"},
		{"h", notPNG, 0, "begins with"},
	} {
		t.Run(fmt.Sprintf("%.8q", test.in), func(t *testing.T) {
			want(t, proveBytes(t, []byte(test.in), structural), test.kind, test.offset, test.part)
			want(t, prove(t, iotest.OneByteReader(strings.NewReader(test.in)), structural), test.kind, test.offset, test.part)
		})
	}
}

// small is a few images that have every part the structural proof knows.
var small = map[string][]byte{
	"gray 1x1": whole(1, 1, 8, 0, 0),
	"palette": file(ihdr(3, 2, 2, 3, 0), plte(4), chunk("tRNS", []byte{0, 128}),
		idat([]byte{0, 0x1b, 1, 0xe4}), iend()),
	"interlaced": whole(3, 3, 8, 6, 1),
	"text": file(ihdr(1, 1, 8, 2, 0), plte(1), chunk("tRNS", make([]byte, 6)), chunk("tEXt", []byte("Title\x00A dot")),
		idat([]byte{4, 1, 2, 3}), chunk("tIME", make([]byte, 7)), iend()),
}

// TestDamage turns over every bit and cuts at every byte of a few files. A CRC finds any one
// wrong bit of what it covers and a wrong length puts it in the wrong place, so
// that no flip is let through.
func TestDamage(t *testing.T) {
	for name, b := range small {
		t.Run(name, func(t *testing.T) {
			want(t, proveBytes(t, b, deep), nil, 0, "")
			if _, err := png.Decode(bytes.NewReader(b)); err != nil {
				t.Error(err)
			}
			for n := range b {
				kind := broken
				if n == 0 {
					kind = notPNG
				}
				want(t, proveBytes(t, b[:n], structural), kind, int64(n), "")
			}
			for i := range 8 * len(b) {
				flipped := bytes.Clone(b)
				flipped[i/8] ^= 1 << (i % 8)
				kind := broken
				if i/8 < 8 {
					kind = notPNG
				}
				if err := proveBytes(t, flipped, structural); !errors.Is(err, kind) {
					t.Errorf("bit %d of byte %d turned over: %v", i%8, i/8, err)
				}
			}
			for c := range 256 {
				want(t, proveBytes(t, append(bytes.Clone(b), byte(c)), structural), broken, int64(len(b)), "after the end")
			}
			want(t, proveBytes(t, slices.Concat(b, b), structural), broken, int64(len(b)), "after the end")
		})
	}
}

func TestOrder(t *testing.T) {
	var (
		i0    = ihdr(1, 1, 8, 0, 0)
		i2    = ihdr(1, 1, 8, 2, 0)
		i3    = ihdr(1, 1, 8, 3, 0)
		i3bit = ihdr(1, 1, 1, 3, 0)
		i4    = ihdr(1, 1, 8, 4, 0)
		i6    = ihdr(1, 1, 8, 6, 0)
		i2x16 = ihdr(1, 1, 16, 2, 0)
		d     = idat([]byte{0, 0})
		d2    = idat([]byte{0, 0, 0, 0})
		d6    = idat(make([]byte, 7))
		d3    = idat([]byte{0, 0, 0})
		d4    = idat([]byte{0, 0, 0, 0, 0})
		e     = iend()
		text  = chunk("tEXt", []byte("a\x00b"))
		trns  = func(n int) []byte { return chunk("tRNS", make([]byte, n)) }
		z     = deflate([]byte{0, 0})
		none  = chunk("IDAT", nil)
		ok    error
	)
	long := func(name string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, 1<<31), name...)
	}
	type chunks = [][]byte
	for _, test := range []struct {
		name   string
		chunks chunks
		kind   error
		part   string
	}{
		{"plain", chunks{i0, d, e}, ok, ""},
		{"text everywhere", chunks{i0, text, d, text, text, e}, ok, ""},
		{"split and empty IDATs", chunks{i0, none, chunk("IDAT", z[:1]), none, none, chunk("IDAT", z[1:5]), none, chunk("IDAT", z[5:]), none, e}, ok, ""},
		{"animation", chunks{i0, chunk("acTL", make([]byte, 8)), chunk("fcTL", make([]byte, 26)), d,
			chunk("fcTL", make([]byte, 26)), chunk("fdAT", make([]byte, 20)), chunk("fdAT", make([]byte, 9)), e}, ok, ""},
		{"private chunk", chunks{i0, chunk("abCd", nil), d, e}, ok, ""},
		{"reserved bit", chunks{i0, chunk("tExt", nil), d, e}, ok, ""},
		{"reserved bit of a critical chunk", chunks{i0, chunk("IDaT", nil), d, e}, broken, "critical chunk IDaT"},

		{"no IHDR", chunks{d, e}, broken, "IHDR, not IDAT"},
		{"text first", chunks{text, i0, d, e}, broken, "IHDR, not tEXt"},
		{"two IHDR", chunks{i0, i0, d, e}, broken, "second IHDR"},
		{"late IHDR", chunks{i0, d, i0, e}, broken, "second IHDR"},
		{"no IDAT", chunks{i0, e}, broken, "without an IDAT"},
		{"no IEND", chunks{i0, d}, broken, "no IEND"},
		{"two IEND", chunks{i0, d, e, e}, broken, "after the end"},
		{"IEND with data", chunks{i0, d, chunk("IEND", []byte{0})}, broken, "length of IEND"},
		{"IDAT after IEND", chunks{i0, e, d}, broken, "without an IDAT"},
		{"IDAT not consecutive", chunks{i0, chunk("IDAT", z[:5]), text, chunk("IDAT", z[5:]), e}, broken, ""},
		{"empty IDAT not consecutive", chunks{i0, d, text, none, e}, broken, "consecutive"},
		{"unknown critical", chunks{i0, chunk("ABCD", nil), d, e}, broken, "critical chunk ABCD"},
		{"digit in type", chunks{i0, chunk("tEX1", nil), d, e}, broken, "four letters"},
		{"bracket in type", chunks{i0, chunk("tEX[", nil), d, e}, broken, "four letters"},
		{"at sign in type", chunks{i0, chunk("`EXt", nil), d, e}, broken, "four letters"},
		{"high letter in type", chunks{i0, chunk("\xc1EXt", nil), d, e}, broken, "four letters"},
		{"length 1<<31", chunks{i0, long("tEXt")}, broken, "at most 2147483647"},
		{"IDAT length 1<<31", chunks{i0, long("IDAT")}, broken, "at most 2147483647"},

		{"PLTE", chunks{i3, plte(256), d, e}, ok, ""},
		{"PLTE of one", chunks{i3, plte(1), d, e}, ok, ""},
		{"PLTE of 257", chunks{i3, plte(257), d, e}, broken, "PLTE must be"},
		{"PLTE of none", chunks{i3, plte(0), d, e}, broken, "PLTE must be"},
		{"PLTE of a third", chunks{i3, chunk("PLTE", make([]byte, 4)), d, e}, broken, "PLTE must be"},
		{"PLTE for one bit", chunks{i3bit, plte(2), d, e}, ok, ""},
		{"PLTE too big for one bit", chunks{i3bit, plte(3), d, e}, broken, "PLTE has 3 entries"},
		{"PLTE missing", chunks{i3, d, e}, broken, "PLTE is missing"},
		{"PLTE late", chunks{i3, d, plte(1), e}, broken, "PLTE is missing"},
		{"PLTE late for RGB", chunks{i2, d2, plte(1), e}, broken, "before tRNS and IDAT"},
		{"PLTE twice", chunks{i3, plte(1), plte(1), d, e}, broken, "second PLTE"},
		{"PLTE for RGB", chunks{i2, plte(256), d2, e}, ok, ""},
		{"PLTE for 16 bit RGB", chunks{i2x16, plte(256), d6, e}, ok, ""},
		{"PLTE of 257 for 16 bit RGB", chunks{i2x16, plte(257), d6, e}, broken, "PLTE must be"},
		{"PLTE for RGBA", chunks{i6, plte(1), d4, e}, ok, ""},
		{"PLTE for gray", chunks{i0, plte(1), d, e}, broken, "forbidden"},
		{"PLTE for gray with alpha", chunks{i4, plte(1), d3, e}, broken, "forbidden"},

		{"tRNS for gray", chunks{i0, trns(2), d, e}, ok, ""},
		{"tRNS for RGB", chunks{i2, trns(6), d2, e}, ok, ""},
		{"tRNS for RGB after PLTE", chunks{i2, plte(1), trns(6), d2, e}, ok, ""},
		{"tRNS for RGB before PLTE", chunks{i2, trns(6), plte(1), d2, e}, broken, "PLTE must come before"},
		{"tRNS for palette", chunks{i3, plte(2), trns(1), d, e}, ok, ""},
		{"tRNS empty", chunks{i3, plte(2), trns(0), d, e}, ok, ""},
		{"tRNS longer than the palette", chunks{i3, plte(2), trns(256), d, e}, ok, ""},
		{"tRNS of 257", chunks{i3, plte(2), trns(257), d, e}, broken, "tRNS is 257"},
		{"tRNS before PLTE", chunks{i3, trns(1), plte(2), d, e}, broken, "tRNS must come after"},
		{"tRNS after IDAT", chunks{i0, d, trns(2), e}, broken, "before IDAT"},
		{"tRNS twice", chunks{i0, trns(2), trns(2), d, e}, broken, "second tRNS"},
		{"tRNS of 1 for gray", chunks{i0, trns(1), d, e}, broken, "tRNS is 1"},
		{"tRNS of 6 for gray", chunks{i0, trns(6), d, e}, broken, "tRNS is 6"},
		{"tRNS of 2 for RGB", chunks{i2, trns(2), d2, e}, broken, "tRNS is 2"},
		{"tRNS of 7 for RGB", chunks{i2, trns(7), d2, e}, broken, "tRNS is 7"},
		{"tRNS for gray with alpha", chunks{i4, trns(2), d3, e}, broken, "forbidden"},
		{"tRNS for RGBA", chunks{i6, trns(6), d4, e}, broken, "forbidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := file(test.chunks...)
			want(t, proveBytes(t, b, structural), test.kind, -1, test.part)
			if err := proveBytes(t, b, deep); (err == nil) != (test.kind == nil) {
				t.Errorf("deep: %v", err)
			}
			againstImagePNG(t, b)
		})
	}
	// Where it goes wrong: the type, when the chunk should not be there; its length.
	want(t, proveBytes(t, file(i0, d, i0, e), structural), broken, int64(8+len(i0)+len(d)+4), "")
	want(t, proveBytes(t, file(i0, trns(1), d, e), structural), broken, int64(8+len(i0)), "")
	want(t, proveBytes(t, file(i0, chunk("tEX1", nil), d, e), structural), broken, int64(8+len(i0)+7), "")
	good := file(i0, d, e)
	for n, part := range map[int]string{
		1:  "1 of the 4 bytes of the CRC of chunk IEND",
		4:  "4 of the 4 bytes of the CRC of chunk IEND",
		5:  "1 of the 8 bytes that begin a chunk",
		12: "no IEND",
		13: "1 of the 4 bytes of the CRC of chunk IDAT",
		16: "4 of the 4 bytes of the CRC of chunk IDAT",
		18: "2 more bytes of the data of chunk IDAT",
	} {
		want(t, proveBytes(t, good[:len(good)-n], structural), broken, int64(len(good)-n), part)
	}
	bad := file(i0, d, e)
	bad[8+len(i0)-1]++
	want(t, proveBytes(t, bad, structural), broken, int64(8+len(i0)-4), "CRC of chunk IHDR")
}

func TestDeep(t *testing.T) {
	h, e := ihdr(2, 3, 8, 0, 0), iend()
	raw := []byte{0, 1, 2, 4, 1, 2, 0, 1, 2}
	z := deflate(raw)
	with := func(b []byte, at int, v byte) []byte {
		b = bytes.Clone(b)
		b[at] = v
		return b
	}
	for _, test := range []struct {
		name string
		data []byte
		kind error
		part string
	}{
		{"right", z, nil, ""},
		{"two rows", deflate(raw[:6]), broken, "too little image data: it ends in row 2 of 3"},
		{"part of a row", deflate(raw[:8]), broken, "ends in row 3 of 3"},
		{"no rows", deflate(nil), broken, "too little"},
		{"one byte too many", deflate(append(raw, 0)), broken, "more image data than 2 x 3"},
		{"a row too many", deflate(append(raw, raw[:3]...)), broken, "more image data"},
		{"filter type 5", deflate(with(raw, 3, 5)), broken, "filter type 5 in row 2 of 3"},
		{"filter type 255", deflate(with(raw, 6, 255)), broken, "filter type 255 in row 3 of 3"},
		{"pixel 255", deflate(with(raw, 4, 255)), nil, ""},
		{"bad Adler-32", with(z, len(z)-1, z[len(z)-1]+1), broken, "checksum"},
		{"half an Adler-32", z[:len(z)-2], broken, "ends early"},
		{"no Adler-32", z[:len(z)-4], broken, "ends early"},
		{"half", z[:len(z)/2], broken, "ends early"},
		{"one byte", z[:1], broken, "ends early"},
		{"nothing", nil, broken, "ends early"},
		{"bad header", with(z, 0, 0x77), broken, "header"},
		{"window of 64 KiB", with(with(z, 0, 0x88), 1, 0x1c), broken, "header"},
		{"not deflate", append(z[:2:2], 7, 7, 7), broken, "corrupt"},
		{"a byte after the stream", append(bytes.Clone(z), 0), broken, "after the end of the zlib stream"},
		{"two streams", append(bytes.Clone(z), z...), broken, "after the end of the zlib stream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := len(test.data) / 2
			for cut, b := range map[string][]byte{
				"one IDAT":  file(h, chunk("IDAT", test.data), e),
				"two IDATs": file(h, chunk("IDAT", test.data[:n]), chunk("IDAT", nil), chunk("IDAT", test.data[n:]), e),
				"and text":  file(h, chunk("IDAT", test.data), chunk("tEXt", nil), e),
			} {
				want(t, proveBytes(t, b, structural), nil, 0, "")
				err := proveBytes(t, b, deep)
				if want(t, err, test.kind, -1, test.part); t.Failed() {
					t.Fatal(cut)
				}
				againstImagePNG(t, b)
			}
		})
	}

	data := int64(8 + len(h) + 8)
	want(t, proveBytes(t, file(h, chunk("IDAT", append(bytes.Clone(z), 0)), e), deep), broken, data+int64(len(z)), "")
	want(t, proveBytes(t, file(h, chunk("IDAT", z), chunk("IDAT", []byte{0}), e), deep), broken, data+int64(len(z))+12, "")
	want(t, proveBytes(t, file(h, chunk("IDAT", z[:4]), e), deep), broken, data+4+4, "")
	want(t, proveBytes(t, file(h, chunk("IDAT", with(z, 0, 0)), e), deep), broken, data+1, "")

	// In the second of the passes that exist, of a 3 x 3 image.
	h = ihdr(3, 3, 8, 0, 1)
	raw = []byte{0, 1, 5, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1}
	want(t, proveBytes(t, file(h, idat(raw), e), deep), broken, -1, "filter type 5 in row 1 of 1 of pass 4")
}

// TestBomb has an image of four pixels inflate to 1 GiB.
func TestBomb(t *testing.T) {
	r := generate(t, ihdr(2, 2, 8, 0, 0), func(w io.Writer) error {
		for range 1 << 10 {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return nil
	})
	in := &countingReader{r: r}
	want(t, prove(t, in, deep), broken, -1, "more image data")
	if in.n > 32<<10 {
		t.Errorf("it took %d bytes to find out", in.n)
	}
}

// generate returns a file while it is made. Its image data is what rows writes, until
// the test ends.
func generate(t *testing.T, ihdr []byte, rows func(io.Writer) error) io.Reader {
	r, w := io.Pipe()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { r.Close() })
	wg.Go(func() {
		w.Write(file(ihdr))
		z, err := zlib.NewWriterLevel(idatWriter{w}, zlib.BestSpeed)
		if err == nil {
			err = rows(z)
		}
		if err == nil {
			z.Close()
			w.Write(iend())
		}
		w.CloseWithError(err)
	})
	return r
}

// idatWriter makes an IDAT chunk of each Write.
type idatWriter struct{ w io.Writer }

func (w idatWriter) Write(b []byte) (int, error) {
	if _, err := w.w.Write(chunk("IDAT", b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

type countingReader struct {
	r     io.Reader
	n     int64
	calls int
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.n += int64(n)
	r.calls++
	return n, err
}

// TestRead holds Read to what it promises about the underlying reader.
func TestRead(t *testing.T) {
	good := small["text"]
	odd := errors.New("odd")

	for n := range good {
		for name, r := range map[string]io.Reader{
			"after": io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(odd)),
			"with":  iotest.DataErrReader(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(odd))),
		} {
			p := pngproof.NewReader(r, deep)
			b, err := io.ReadAll(p)
			if err != odd || len(b) != n {
				t.Fatalf("an error %s %d bytes came out as %v after %d bytes", name, n, err, len(b))
			}
			if n, err := p.Read(make([]byte, 9)); n != 0 || err != odd {
				t.Fatalf("then: %d, %v", n, err)
			}
			p.Close()
		}
	}

	many := [][]byte{ihdr(1, 1, 8, 0, 0)}
	for range 5000 {
		many = append(many, chunk("teST", nil))
	}
	in := &countingReader{r: bytes.NewReader(file(append(many, idat([]byte{0, 0}), iend())...))}
	p := pngproof.NewReader(in, structural)
	for calls := 1; ; calls++ {
		n, err := p.Read(make([]byte, 8<<10))
		if in.calls != calls {
			t.Fatalf("%d calls became %d", calls, in.calls)
		}
		if err == io.EOF {
			break
		}
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if n, err := p.Read(make([]byte, 9)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d, %v", n, err)
	}

	// A wrong byte takes all of its Read with it, and the error stays.
	bad := append(bytes.Clone(good), 'x')
	p = pngproof.NewReader(bytes.NewReader(bad), structural)
	n, err := p.Read(make([]byte, len(bad)))
	want(t, err, broken, int64(len(good)), "after the end")
	if again, err2 := p.Read(make([]byte, 9)); n != 0 || again != 0 || err2 != err {
		t.Errorf("%d and %d bytes, the error %v became %v", n, again, err, err2)
	}
}

func TestClose(t *testing.T) {
	b := whole(300, 300, 8, 6, 0)
	before := runtime.NumGoroutine()
	for range 100 {
		p := pngproof.NewReader(bytes.NewReader(b), deep)
		if _, err := io.CopyN(io.Discard, p, int64(len(b)/2)); err != nil {
			t.Fatal(err)
		}
		if runtime.NumGoroutine() <= before {
			t.Fatal("there is no coroutine to stop")
		}
		for range 2 {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := p.Read(make([]byte, 9)); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		// The resources of an abandoned proof must be as good as new.
		want(t, proveBytes(t, b, deep), nil, 0, "")
	}
	if now := runtime.NumGoroutine(); now > before {
		t.Errorf("%d goroutines, %d before", now, before)
	}

	p := pngproof.NewReader(bytes.NewReader(b), structural)
	io.CopyN(io.Discard, p, 100)
	p.Close()
	if _, err := io.Copy(io.Discard, p); err != nil {
		t.Errorf("Close did something to a structural proof: %v", err)
	}
}

// TestAllocs pins that a Read allocates nothing, whatever it meets; only to begin
// a deep proof takes allocations.
func TestAllocs(t *testing.T) {
	chunks := [][]byte{ihdr(1, 1, 8, 2, 0), plte(3), chunk("tRNS", make([]byte, 6))}
	for i := range 3000 {
		chunks = append(chunks, chunk("teST", make([]byte, i%7)))
	}
	for i := range 3000 {
		chunks = append(chunks, chunk("IDAT", make([]byte, i%1000)))
	}
	b := file(append(chunks, iend())...)
	for _, size := range []int{1, 100, 4 << 10} {
		buf := make([]byte, size)
		p := pngproof.NewReader(bytes.NewReader(b), structural)
		if n := testing.AllocsPerRun(min(len(b)/size-1, 100_000), func() {
			if _, err := p.Read(buf); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations per Read of %d bytes", n, size)
		}
	}

	// Noise is stored rather than compressed, so that package zlib needs no tables.
	rnd := rand.NewChaCha8([32]byte{})
	raw := make([]byte, 1001*1000)
	rnd.Read(raw)
	for i := range 1000 {
		raw[i*1001] = 0
	}
	b = file(ihdr(1000, 1000, 8, 0, 0), idat(raw), iend())
	buf := make([]byte, 1<<10)
	whole := func() {
		p := pngproof.NewReader(bytes.NewReader(b), deep)
		defer p.Close()
		if _, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{p}, buf); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(20, whole); n > 40 { // 13, and more when the pool has just been emptied
		t.Errorf("%v allocations in 1000 Reads", n)
	}
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		whole()
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 30<<10 { // an inflater weighs 50 KiB
		t.Errorf("%d bytes allocated for a proof, are inflaters not used again?", n)
	}
}

// TestMemory proves the first 64 MiB of an image of 1 GiB and watches the heap.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates much")
	}
	const side = 16 << 10
	r := generate(t, ihdr(side, side, 8, 6, 0), func(w io.Writer) error {
		row := make([]byte, 1+4*side)
		rnd := rand.NewChaCha8([32]byte{})
		for i := range side / 16 {
			rnd.Read(row[1 : 1+i%64]) // so that it takes Huffman codes
			if _, err := w.Write(row); err != nil {
				return err
			}
		}
		return nil
	})
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	p := pngproof.NewReader(r, deep)
	defer p.Close()
	buf := make([]byte, 4<<10)
	var first, most uint64
	var err error
	for i := 0; err == nil; i++ {
		if _, err = p.Read(buf); i == 50 {
			first = heap()
		} else if i > 50 && i%50 == 0 {
			most = max(most, heap())
		}
	}
	want(t, err, broken, -1, "too little image data: it ends in row 1024 of 16384")
	if most == 0 || most > first+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", first, most)
	}
}
