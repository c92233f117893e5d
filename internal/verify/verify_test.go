package verify_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

var (
	unsupported = verify.ErrUnsupportedType
	invalid     = verify.ErrInvalid
	tooMany     = verify.ErrTooManyPixels
)

// want fails the test unless err has this kind, part in its detail, and this offset,
// if that is not negative.
func want(t *testing.T, err, kind error, offset int64, part string) {
	t.Helper()
	if kind == nil {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	var e *verify.Error
	switch {
	case !errors.As(err, &e) || !errors.Is(err, kind):
		t.Errorf("got %v, want %v", err, kind)
	case !strings.Contains(e.Detail, part):
		t.Errorf("got detail %q, want %q in it", e.Detail, part)
	case offset >= 0 && e.Offset != offset:
		t.Errorf("got %v, want offset %d", e, offset)
	case strings.HasSuffix(e.Detail, ".") || e.Detail == "":
		t.Errorf("got detail %q, want one without a trailing dot", e.Detail)
	case err.Error() != fmt.Sprintf("%v: %s (at byte %d)", e.Kind, e.Detail, e.Offset):
		t.Errorf("got text %q for %#v, want kind, detail and offset", err, e)
	}
}

func TestGoImages(t *testing.T) {
	images := goImages(t)
	if len(images) == 0 {
		t.Skip("this Go installation has no src/image/png/testdata")
	}
	// The kinds of error of bad files: by structure, by pixels.
	wrong := map[string][2]error{
		"invalid-crc32.png":   {invalid, invalid},
		"invalid-noend.png":   {invalid, invalid},
		"invalid-palette.png": {}, // a pixel names no palette entry
		"invalid-trunc.png":   {invalid, invalid},
		"invalid-zlib.png":    {nil, invalid},
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
				want(t, checkBytes(t, b, structural), kind[0], -1, "")
				want(t, checkBytes(t, b, pixels), kind[1], -1, "")
			} else {
				againstImagePNG(t, b) // newer than this list
			}
		})
	}
	for name := range wrong {
		if images[name] == nil {
			t.Errorf("got no %s, want it", name)
		}
	}
}

func TestEveryKindAndSize(t *testing.T) {
	for colour, depth := range kinds {
		for interlace := range byte(2) {
			for w := 0; w < 10; w += min(stride, 2) {
				for h := range 10 {
					b := whole(w+1, h+1, depth, colour, interlace)
					if err := checkBytes(t, b, pixels); err != nil {
						t.Errorf("%d x %d of colour type %d, depth %d, interlace %d: got %v, want nil", w+1, h+1, colour, depth, interlace, err)
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
		t.Fatalf("got %d legal combinations, want 15", len(legal))
	}
	data := idat(make([]byte, 10))
	for depth := range 256 {
		for colour := range 256 {
			b := file(ihdr(1, 1, byte(depth), byte(colour), 0), data, iend())
			if colour == 3 {
				b = file(ihdr(1, 1, byte(depth), byte(colour), 0), plte(1), data, iend())
			}
			if err := checkBytes(t, b, structural); (err == nil) != legal[[2]byte{byte(depth), byte(colour)}] {
				t.Errorf("depth %d, colour type %d: got %v, want success: %v", depth, colour, err, legal[[2]byte{byte(depth), byte(colour)}])
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
		{"zero width", ihdr(0, 1, 8, 0, 0), 0, invalid, 16},
		{"zero height", ihdr(1, 0, 8, 0, 0), 0, invalid, 20},
		{"width 1<<31", ihdr(1<<31, 1, 8, 0, 0), 0, invalid, 16},
		{"height 1<<32-1", ihdr(1, 1<<32-1, 8, 0, 0), 0, invalid, 20},
		{"largest", ihdr(big, big, 16, 6, 1), 0, nil, 0},
		{"largest, allowed", ihdr(big, big, 16, 6, 1), int64(big) * int64(big), nil, 0},
		{"largest, one too many", ihdr(big, big, 16, 6, 1), int64(big)*int64(big) - 1, tooMany, 16},
		{"just allowed", ihdr(10, 7, 8, 0, 0), 70, nil, 0},
		{"just too many", ihdr(10, 7, 8, 0, 0), 69, tooMany, 16},
		{"negative limit", ihdr(10, 7, 8, 0, 0), -1, nil, 0},
		{"depth", ihdr(1, 1, 3, 0, 0), 0, invalid, 24},
		{"colour type", ihdr(1, 1, 8, 1, 0), 0, invalid, 25},
		{"interlace 2", ihdr(1, 1, 8, 0, 2), 0, invalid, 28},
		{"compression 1", chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 1, 0, 0}), 0, invalid, 26},
		{"filter 1", chunk("IHDR", []byte{0, 0, 0, 1, 0, 0, 0, 1, 8, 0, 0, 1, 0}), 0, invalid, 27},
		{"12 bytes", chunk("IHDR", make([]byte, 12)), 0, invalid, 8},
		{"14 bytes", chunk("IHDR", make([]byte, 14)), 0, invalid, 8},
		{"CgBI", chunk("CgBI", make([]byte, 4)), 0, invalid, 12},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := file(test.ihdr, data, iend())
			meta, err := verify.Copy(io.Discard, bytes.NewReader(b), verify.Options{MaxPixels: test.max})
			want(t, err, test.kind, test.offset, "")
			if test.kind != nil && meta != (verify.Meta{}) {
				t.Errorf("got %v with an error, want the zero Meta", meta)
			}
			if test.kind != nil {
				// The error must come before the bytes after IHDR.
				want(t, checkBytes(t, b[:8+len(test.ihdr)], verify.Options{MaxPixels: test.max}), test.kind, test.offset, "")
			}
		})
	}
	want(t, checkBytes(t, file(chunk("CgBI", make([]byte, 4))), structural), invalid, 12, "Apple")
}

func TestUnsupportedType(t *testing.T) {
	for _, test := range []struct {
		in     string
		kind   error
		offset int64
		part   string
	}{
		{"", unsupported, 0, "the upload is empty; perhaps no file was chosen, or a file was read before and must be rewound"},
		{"\x89PN", invalid, 3, "cut short; send all of it: 5 of 8 signature bytes"},
		{magic[:7], invalid, 7, "cut short; send all of it: 1 of 8 signature bytes"},
		{magic, invalid, 8, "cut short; send all of it: no IEND"},
		{"\xff\xd8\xff\xe0\x00\x10JFIF", unsupported, 0, "a JPEG; only PNG is taken; open it and save it as PNG"},
		{"\xff\xd8\xff", unsupported, 0, "JPEG"},
		{"GIF89a\x01\x00\x01\x00", unsupported, 0, "GIF"},
		{"RIFF\x24\x00\x00\x00WEBPVP8 ", unsupported, 0, "a WebP; only PNG"},
		{"RIFF\x24\x00\x00\x00WAVEfmt ", unsupported, 0, "sound or a video (RIFF); only PNG"},
		{"RIFF", unsupported, 0, "RIFF"},
		{"\x00\x00\x00\x1cftypavif", unsupported, 0, "an AVIF; only PNG"},
		{"\x00\x00\x00\x1cftypavis", unsupported, 0, "an AVIF; only PNG"},
		{"\x00\x00\x00\x24ftypheic", unsupported, 0, "a HEIC; only PNG"},
		{"\x00\x00\x00\x24ftypheix", unsupported, 0, "a HEIC; only PNG"},
		{"\x00\x00\x00\x24ftypmif1", unsupported, 0, "a HEIC, an AVIF or a like image; only PNG"},
		{"\x00\x00\x00\x24ftypmp42", unsupported, 0, "a video; only PNG"},
		{"\x00\x00\x00\x24ftyp", unsupported, 0, "a HEIC, an AVIF or a video; only PNG"},
		{"version https://git-lfs.github.com/spec/v1\n", unsupported, 0, "Git LFS"},
		{strings.Repeat("\x00", 100), unsupported, 0, "zeros; send a good copy"},
		{"\x00\x00\x00\x00\x00\x00\x00", unsupported, 0, "begins with"},
		{"<!DOCTYPE html>", unsupported, 0, "HTML"},
		{"<HTML>", unsupported, 0, "HTML"},
		{"<svg xmlns=", unsupported, 0, "SVG"},
		{"iVBORw0KGgoAAAANSUhEUg", unsupported, 0, "a PNG in base64; send the decoded bytes"},
		{"\x89PNG\n\x1a\n\x00\x00\x00\rIHDR", unsupported, 4, "text mode (CR LF became LF); send the original again, in binary mode"},
		{"\x89PNG\r\r\n\x1a\r\n", unsupported, 5, "text mode"},
		{"\x89PNG\r\n\x1a\r\n", unsupported, 7, "of no known format; only PNG is taken: it begins with"},
		{"\xc2\x89PNG\r\n\x1a\n", unsupported, 0, "UTF-8"},
		{"\xef\xbf\xbdPNG\r\n\x1a\n", unsupported, 0, "UTF-8"},
		{"\x89PNG\n\n\x1a\n", unsupported, 4, "CR became LF"},
		{"\x89PNG\r\r\x1a\r", unsupported, 5, "LF became CR)"},
		{"\tPNG\r\n\x1a\n", unsupported, 0, "7-bit"},
		{"data:image/png;base64,", unsupported, 0, "data: URL"},
		{"--boundary\r\n", unsupported, 0, "multipart"},
		{"BM6\x00\x0c\x00\x00\x00", unsupported, 0, "BMP"},
		{"II*\x00\x08\x00\x00\x00", unsupported, 0, "TIFF"},
		{"MM\x00*\x00\x00\x00\x08", unsupported, 0, "TIFF"},
		{"\x00\x00\x01\x00\x01\x00\x10\x10", unsupported, 0, "ICO"},
		{"8BPS\x00\x01\x00\x00", unsupported, 0, "Photoshop"},
		{"\xff\x0a\xfa\x1f", unsupported, 0, "JPEG XL"},
		{"\x00\x00\x00\x0cJXL \r\n\x87\n", unsupported, 0, "JPEG XL"},
		{"\x8aMNG\r\n\x1a\n", unsupported, 0, "MNG"},
		{"\x8bJNG\r\n\x1a\n", unsupported, 0, "JNG"},
		{"<?xml version", unsupported, 0, "XML"},
		{"{\"id\":1}", unsupported, 0, "JSON"},
		{"%PDF-1.7", unsupported, 0, "PDF"},
		{"PK\x03\x04", unsupported, 0, "ZIP"},
		{"\x1f\x8b\x08", unsupported, 0, "gzip"},
		{"\x89PNG what?", unsupported, 4, "begins with"},
		{"hello", unsupported, 0, "begins with"},
		{"h", unsupported, 0, "begins with"},
	} {
		t.Run(fmt.Sprintf("%.8q", test.in), func(t *testing.T) {
			want(t, checkBytes(t, []byte(test.in), onlyPNG), test.kind, test.offset, test.part)
			want(t, check(t, iotest.OneByteReader(strings.NewReader(test.in)), onlyPNG), test.kind, test.offset, test.part)
		})
	}
}

// small holds images with every part that the structural check knows.
var small = map[string][]byte{
	"gray 1x1": whole(1, 1, 8, 0, 0),
	"palette": file(ihdr(3, 2, 2, 3, 0), plte(4), chunk("tRNS", []byte{0, 128}),
		idat([]byte{0, 0x1b, 1, 0xe4}), iend()),
	"interlaced": whole(3, 3, 8, 6, 1),
	"text": file(ihdr(1, 1, 8, 2, 0), plte(1), chunk("tRNS", make([]byte, 6)), chunk("tEXt", []byte("Title\x00A dot")),
		idat([]byte{4, 1, 2, 3}), chunk("tIME", make([]byte, 7)), iend()),
}

// TestDamage flips every bit and cuts at every byte of a few files. A CRC finds any
// one wrong bit, and a wrong length misplaces the CRC.
func TestDamage(t *testing.T) {
	for name, b := range small {
		t.Run(name, func(t *testing.T) {
			want(t, checkBytes(t, b, pixels), nil, 0, "")
			if _, err := png.Decode(bytes.NewReader(b)); err != nil {
				t.Error(err)
			}
			for n := range b {
				kind := invalid
				if n == 0 {
					kind = unsupported
				}
				want(t, checkBytes(t, b[:n], structural), kind, int64(n), "")
			}
			for i := range 8 * len(b) {
				flipped := bytes.Clone(b)
				flipped[i/8] ^= 1 << (i % 8)
				kind := invalid
				if i/8 < 8 {
					kind = unsupported
				}
				if err := checkBytes(t, flipped, structural); !errors.Is(err, kind) {
					t.Errorf("bit %d of byte %d flipped: got %v, want %v", i%8, i/8, err, kind)
				}
			}
			for c := range 256 {
				want(t, checkBytes(t, append(bytes.Clone(b), byte(c)), structural), invalid, int64(len(b)), "IEND must be the last chunk")
			}
			want(t, checkBytes(t, slices.Concat(b, b), structural), invalid, int64(len(b)), "IEND must be the last chunk")
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
		{"reserved bit of a critical chunk", chunks{i0, chunk("IDaT", nil), d, e}, invalid, "critical chunk IDaT"},

		{"no IHDR", chunks{d, e}, invalid, "IHDR, not IDAT"},
		{"text first", chunks{text, i0, d, e}, invalid, "IHDR, not tEXt"},
		{"two IHDR", chunks{i0, i0, d, e}, invalid, "second IHDR"},
		{"late IHDR", chunks{i0, d, i0, e}, invalid, "IHDR must come before IDAT"},
		{"no IDAT", chunks{i0, e}, invalid, "no IDAT before IEND"},
		{"no IEND", chunks{i0, d}, invalid, "no IEND"},
		{"two IEND", chunks{i0, d, e, e}, invalid, "12 bytes follow its end"},
		{"IEND with data", chunks{i0, d, chunk("IEND", []byte{0})}, invalid, "IEND: length 1, want 0"},
		{"IDAT after IEND", chunks{i0, e, d}, invalid, "no IDAT before IEND"},
		{"IDAT not consecutive", chunks{i0, chunk("IDAT", z[:5]), text, chunk("IDAT", z[5:]), e}, invalid, ""},
		{"empty IDAT not consecutive", chunks{i0, d, text, none, e}, invalid, "consecutive"},
		{"unknown critical", chunks{i0, chunk("ABCD", nil), d, e}, invalid, "critical chunk ABCD"},
		{"unknown critical after IDAT", chunks{i0, d, chunk("ABCD", nil), e}, invalid, "critical chunk ABCD"},
		{"digit in type", chunks{i0, chunk("tEX1", nil), d, e}, invalid, "four letters"},
		{"bracket in type", chunks{i0, chunk("tEX[", nil), d, e}, invalid, "four letters"},
		{"at sign in type", chunks{i0, chunk("`EXt", nil), d, e}, invalid, "four letters"},
		{"high letter in type", chunks{i0, chunk("\xc1EXt", nil), d, e}, invalid, "four letters"},
		{"length 1<<31", chunks{i0, long("tEXt")}, invalid, "at most 2147483647"},
		{"IDAT length 1<<31", chunks{i0, long("IDAT")}, invalid, "at most 2147483647"},

		{"PLTE", chunks{i3, plte(256), d, e}, ok, ""},
		{"PLTE of one", chunks{i3, plte(1), d, e}, ok, ""},
		{"PLTE of 257", chunks{i3, plte(257), d, e}, invalid, "PLTE: length"},
		{"PLTE of none", chunks{i3, plte(0), d, e}, invalid, "PLTE: length"},
		{"PLTE of a third", chunks{i3, chunk("PLTE", make([]byte, 4)), d, e}, invalid, "PLTE: length"},
		{"PLTE for one bit", chunks{i3bit, plte(2), d, e}, ok, ""},
		{"PLTE too big for one bit", chunks{i3bit, plte(3), d, e}, invalid, "PLTE: 3 entries, at most 2"},
		{"PLTE missing", chunks{i3, d, e}, invalid, "palette is missing"},
		{"PLTE late", chunks{i3, d, plte(1), e}, invalid, "palette is missing"},
		{"PLTE late for RGB", chunks{i2, d2, plte(1), e}, invalid, "PLTE must come before IDAT"},
		{"PLTE twice", chunks{i3, plte(1), plte(1), d, e}, invalid, "second PLTE"},
		{"PLTE for RGB", chunks{i2, plte(256), d2, e}, ok, ""},
		{"PLTE for 16 bit RGB", chunks{i2x16, plte(256), d6, e}, ok, ""},
		{"PLTE of 257 for 16 bit RGB", chunks{i2x16, plte(257), d6, e}, invalid, "PLTE: length"},
		{"PLTE for RGBA", chunks{i6, plte(1), d4, e}, ok, ""},
		{"PLTE for gray", chunks{i0, plte(1), d, e}, invalid, "forbidden"},
		{"PLTE for gray with alpha", chunks{i4, plte(1), d3, e}, invalid, "forbidden"},

		{"tRNS for gray", chunks{i0, trns(2), d, e}, ok, ""},
		{"tRNS for RGB", chunks{i2, trns(6), d2, e}, ok, ""},
		{"tRNS for RGB after PLTE", chunks{i2, plte(1), trns(6), d2, e}, ok, ""},
		{"tRNS for RGB before PLTE", chunks{i2, trns(6), plte(1), d2, e}, invalid, "PLTE must come before tRNS"},
		{"tRNS for palette", chunks{i3, plte(2), trns(1), d, e}, ok, ""},
		{"tRNS empty", chunks{i3, plte(2), trns(0), d, e}, ok, ""},
		{"tRNS longer than the palette", chunks{i3, plte(2), trns(256), d, e}, ok, ""},
		{"tRNS of 257", chunks{i3, plte(2), trns(257), d, e}, invalid, "tRNS: length 257"},
		{"tRNS before PLTE", chunks{i3, trns(1), plte(2), d, e}, invalid, "tRNS must come after"},
		{"tRNS after IDAT", chunks{i0, d, trns(2), e}, invalid, "tRNS must come before IDAT"},
		{"tRNS twice", chunks{i0, trns(2), trns(2), d, e}, invalid, "second tRNS"},
		{"tRNS of 1 for gray", chunks{i0, trns(1), d, e}, invalid, "tRNS: length 1"},
		{"tRNS of 6 for gray", chunks{i0, trns(6), d, e}, invalid, "tRNS: length 6"},
		{"tRNS of 2 for RGB", chunks{i2, trns(2), d2, e}, invalid, "tRNS: length 2"},
		{"tRNS of 7 for RGB", chunks{i2, trns(7), d2, e}, invalid, "tRNS: length 7"},
		{"tRNS for gray with alpha", chunks{i4, trns(2), d3, e}, invalid, "forbidden"},
		{"tRNS for RGBA", chunks{i6, trns(6), d4, e}, invalid, "forbidden"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := file(test.chunks...)
			want(t, checkBytes(t, b, structural), test.kind, -1, test.part)
			if err := checkBytes(t, b, pixels); (err == nil) != (test.kind == nil) {
				t.Errorf("pixels: got %v, want %v", err, test.kind)
			}
			againstImagePNG(t, b)
		})
	}
	// The offset is that of the type of a misplaced chunk, or of a wrong length.
	want(t, checkBytes(t, file(i0, d, i0, e), structural), invalid, int64(8+len(i0)+len(d)+4), "")
	want(t, checkBytes(t, file(i0, trns(1), d, e), structural), invalid, int64(8+len(i0)), "")
	want(t, checkBytes(t, file(i0, chunk("tEX1", nil), d, e), structural), invalid, int64(8+len(i0)+7), "")
	good := file(i0, d, e)
	for n, part := range map[int]string{
		1:  "1 of 4 CRC bytes of IEND are missing",
		4:  "4 of 4 CRC bytes of IEND are missing",
		5:  "1 of 8 bytes of a chunk's length and type are missing",
		12: "no IEND",
		13: "1 of 4 CRC bytes of IDAT are missing",
		16: "4 of 4 CRC bytes of IDAT are missing",
		18: "2 data bytes of IDAT are missing",
	} {
		want(t, checkBytes(t, good[:len(good)-n], structural), invalid, int64(len(good)-n), part)
	}
	bad := file(i0, d, e)
	bad[8+len(i0)-1]++
	want(t, checkBytes(t, bad, structural), invalid, int64(8+len(i0)-4), "damaged in the header; send it again, from a good copy: IHDR: stored CRC 3a7e9b56, computed 3a7e9b55")
}

func TestPixels(t *testing.T) {
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
		{"two rows", deflate(raw[:6]), invalid, "row 3 of 3: too little image data"},
		{"part of a row", deflate(raw[:8]), invalid, "row 3 of 3: too little image data"},
		{"no rows", deflate(nil), invalid, "too little"},
		{"one byte too many", deflate(append(raw, 0)), invalid, "damaged or saved wrongly; send it again, or save it with another program: IDAT: more image data than 2 x 3"},
		{"a row too many", deflate(append(raw, raw[:3]...)), invalid, "more image data"},
		{"filter type 5", deflate(with(raw, 3, 5)), invalid, "IDAT: row 2 of 3: filter type 5"},
		{"filter type 255", deflate(with(raw, 6, 255)), invalid, "row 3 of 3: filter type 255"},
		{"pixel 255", deflate(with(raw, 4, 255)), nil, ""},
		{"bad Adler-32", with(z, len(z)-1, z[len(z)-1]+1), invalid, "checksum"},
		{"half an Adler-32", z[:len(z)-2], invalid, "ends early"},
		{"no Adler-32", z[:len(z)-4], invalid, "ends early"},
		{"half", z[:len(z)/2], invalid, "ends early"},
		{"one byte", z[:1], invalid, "ends early"},
		{"nothing", nil, invalid, "ends early"},
		{"bad header", with(z, 0, 0x77), invalid, "header"},
		{"window of 64 KiB", with(with(z, 0, 0x88), 1, 0x1c), invalid, "header"},
		{"not deflate", append(z[:2:2], 7, 7, 7), invalid, "corrupt"},
		{"a byte after the stream", append(bytes.Clone(z), 0), invalid, "the pixels are complete, but other bytes follow them, maybe private"},
		{"two streams", append(bytes.Clone(z), z...), invalid, "after the end of the zlib stream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := len(test.data) / 2
			for cut, b := range map[string][]byte{
				"one IDAT":  file(h, chunk("IDAT", test.data), e),
				"two IDATs": file(h, chunk("IDAT", test.data[:n]), chunk("IDAT", nil), chunk("IDAT", test.data[n:]), e),
				"and text":  file(h, chunk("IDAT", test.data), chunk("tEXt", nil), e),
			} {
				want(t, checkBytes(t, b, structural), nil, 0, "")
				err := checkBytes(t, b, pixels)
				if want(t, err, test.kind, -1, test.part); t.Failed() {
					t.Fatal(cut)
				}
				againstImagePNG(t, b)
			}
		})
	}

	data := int64(8 + len(h) + 8)
	want(t, checkBytes(t, file(h, chunk("IDAT", append(bytes.Clone(z), 0)), e), pixels), invalid, data+int64(len(z)), "")
	want(t, checkBytes(t, file(h, chunk("IDAT", z), chunk("IDAT", []byte{0}), e), pixels), invalid, data+int64(len(z))+12, "")
	want(t, checkBytes(t, file(h, chunk("IDAT", z[:4]), e), pixels), invalid, data+4+4, "")
	want(t, checkBytes(t, file(h, chunk("IDAT", with(z, 0, 0)), e), pixels), invalid, data+1, "")

	// The error is in the second of the passes of a 3 x 3 image.
	h = ihdr(3, 3, 8, 0, 1)
	raw = []byte{0, 1, 5, 1, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1}
	want(t, checkBytes(t, file(h, idat(raw), e), pixels), invalid, -1, "pass 4 of 7, row 1 of 1: filter type 5")
}

// TestDamageTexts checks what is said about a wrong CRC. The pixels may be called
// whole only if the chunk's type cannot be a damaged one.
func TestDamageTexts(t *testing.T) {
	const noPixels = "damaged in a part that holds no pixels; if it still opens, save it as a new file to mend it: "
	const unknown = "damaged in an unknown part; send it again, or save it as a new file if it still opens: "
	h, d, e := ihdr(1, 1, 8, 2, 0), idat(make([]byte, 4)), iend()
	for name, part := range map[string]string{
		"IDAT": "damaged in the pixels; send it again, from a good copy: IDAT",
		"IEND": "damaged at the end; send it again, from a good copy: IEND",
		"PLTE": "damaged in the colours; send it again, from a good copy: PLTE",
		"tRNS": "damaged in the colours; send it again, from a good copy: tRNS",
		"zTXt": noPixels + "zTXt", "tEXt": noPixels, "iTXt": noPixels, "iCCP": noPixels, "eXIf": noPixels, "pHYs": noPixels,
		"fdAT": unknown + "fdAT", "fcTL": unknown, "iDAT": unknown, "pLTE": unknown, "vpAg": unknown,
	} {
		b := file(h, d, e)
		if name != "IDAT" && name != "IEND" {
			b = file(h, chunk(name, make([]byte, 6)), d, e)
		}
		at := bytes.Index(b, []byte(name))
		at += 4 + int(binary.BigEndian.Uint32(b[at-4:])) // the CRC
		b[at] ^= 1
		want(t, checkBytes(t, b, structural), invalid, int64(at), part)
	}
}

// TestImplausibleLength checks that a damaged length is not reported as bytes that
// are missing.
func TestImplausibleLength(t *testing.T) {
	h, d := ihdr(100, 100, 8, 0, 0), idat(make([]byte, 10100))
	start := func(name string, length uint32) []byte {
		return append(binary.BigEndian.AppendUint32(nil, length), name+"data"...)
	}
	const implausible = "damaged; send it again, from a good copy: "
	for _, test := range []struct {
		b    []byte
		part string
	}{
		{file(h, start("zTXt", 0x20202020)), implausible + "zTXt: length 538976288 is implausible, only 4 bytes follow"},
		{file(h, d, start("tEXt", 8_000_001)), implausible},
		{file(h, d, start("tEXt", 8_000_000)), "cut short; send all of it: 7999996 data bytes of tEXt are missing"},
		{file(h, start("IDAT", 0x20202020)), implausible + "IDAT: length 538976288 is implausible, only 4 bytes follow"},
		{file(h, start("IDAT", 30_000)), implausible},
		{file(h, start("IDAT", 10_200)), "cut short; send all of it: 10196 data bytes of IDAT are missing"},
		{file(ihdr(1, 1, 8, 0, 0), start("IDAT", 1000)), "cut short; send all of it: 996 data bytes of IDAT are missing"},
		{file(h, d, start("fdAT", 30_000)), implausible},
		{file(ihdr(1<<31-1, 1<<31-1, 16, 6, 0), start("IDAT", 1<<31-1)), "cut short; send all of it: 2147483643 data bytes of IDAT are missing"},
		{file(ihdr(20_000, 20_000, 8, 6, 0), start("IDAT", 538976288)), "cut short"},
	} {
		want(t, checkBytes(t, test.b, structural), invalid, int64(len(test.b)), test.part)
		odd := errors.New("odd")
		if _, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(test.b), iotest.ErrReader(odd)), structural); err != odd {
			t.Errorf("got %v, want %v", err, odd)
		}
		if bytes.Contains(test.b, []byte("IDATdata")) {
			continue // the data is no zlib stream
		}
		want(t, checkBytes(t, test.b, pixels), invalid, int64(len(test.b)), test.part)
	}
	// No encoder stores pixels in more than twice their bytes.
	for colour, depth := range kinds {
		for interlace := range byte(2) {
			for side := range 10 {
				b := whole(side+1, side+1, depth, colour, interlace)
				b = b[:len(b)-12-4-1]
				want(t, checkBytes(t, b, structural), invalid, int64(len(b)), "cut short; send all of it: 1 data bytes of IDAT are missing")
			}
		}
	}
}

// TestTrailing checks what is said about bytes after the end, and that they are
// counted without being written.
func TestTrailing(t *testing.T) {
	good := small["text"]
	const (
		private = "maybe a private part of an older version of the file (aCropalypse); open it and save it as a new file: IEND must be the last chunk"
		zeros   = "send it without, or save it with another program: IEND must be the last chunk"
	)
	for _, test := range []struct {
		rest []byte
		part string
	}{
		{[]byte("\n"), "the picture is whole, but 1 byte follows its end, " + private},
		{[]byte("\x82"), "but 1 byte follows its end, " + private},
		{noise(20), fmt.Sprintf("but %d bytes follow its end, ", len(noise(20))) + private},
		{append(make([]byte, 100_000), 1), "but 100001 bytes follow its end, " + private},
		{append([]byte{1}, make([]byte, 200_000)...), "but 200001 bytes follow its end, " + private},
		{[]byte{0}, "the picture is whole, but 1 zero byte follows its end; " + zeros},
		{make([]byte, 200_000), "the picture is whole, but 200000 zero bytes follow its end; " + zeros},
	} {
		b := slices.Concat(good, test.rest)
		for name, r := range map[string]io.Reader{
			"whole":    bytes.NewReader(b),
			"one byte": iotest.OneByteReader(bytes.NewReader(b)),
			"with EOF": iotest.DataErrReader(bytes.NewReader(b)),
		} {
			var w writer
			_, err := verify.Copy(&w, r, structural)
			want(t, err, invalid, int64(len(good)), test.part)
			if len(w.sizes) != 0 {
				t.Errorf("%s: got Writes of %d bytes, want none", name, w.sizes)
			}
		}

		// An error ends the count and hides nothing.
		_, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(b), iotest.ErrReader(errors.New("odd"))), structural)
		want(t, err, invalid, int64(len(good)), strings.Replace(test.part, "but ", "but at least ", 1))
	}
	stuck := io.MultiReader(bytes.NewReader(good), strings.NewReader("x"), readerFunc(func([]byte) (int, error) { return 0, nil }))
	want(t, check(t, stuck, structural), invalid, int64(len(good)), "but at least 1 byte follows")

	// The rest is large, the memory is not.
	const size = 256 << 20
	zero := readerFunc(func(b []byte) (int, error) { return len(b), nil })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := check(t, io.MultiReader(bytes.NewReader(good), strings.NewReader("x"), io.LimitReader(zero, size)), structural)
	runtime.ReadMemStats(&after)
	want(t, err, invalid, int64(len(good)), fmt.Sprintf("but %d bytes follow", size+1))
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("got %d bytes allocated for a rest of %d, want at most 1 MiB", n, size)
	}
}

// TestSmallWindow checks that a zlib stream may declare a smaller window than it
// needs, as some encoders do.
func TestSmallWindow(t *testing.T) {
	raw := make([]byte, 0, 2*601)
	for range 2 {
		rnd := rand.NewChaCha8([32]byte{})
		row := make([]byte, 601)
		rnd.Read(row)
		row[0] = 0
		raw = append(raw, row...)
	}
	z := deflate(raw)
	if len(z) > len(raw)*2/3 {
		t.Fatalf("got %d bytes of %d, want the second row as a copy of the first", len(z), len(raw))
	}
	for info := range byte(9) {
		z[0] = info<<4 | 8
		z[1] &^= 31 // FCHECK makes the two bytes a multiple of 31
		z[1] += byte(31-(int(z[0])<<8|int(z[1]))%31) % 31
		b := file(ihdr(600, 2, 8, 0, 0), chunk("IDAT", z), iend())
		want(t, checkBytes(t, b, structural), nil, 0, "")
		if info == 8 {
			want(t, checkBytes(t, b, pixels), invalid, -1, "zlib: invalid header")
		} else {
			want(t, checkBytes(t, b, pixels), nil, 0, "")
			againstImagePNG(t, b)
		}
	}
}

// TestBomb checks an image of four pixels that inflates to 1 GiB.
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
	want(t, check(t, in, pixels), invalid, -1, "more image data")
	if in.n > 32<<10 {
		t.Errorf("got an error after %d bytes, want at most 32 KiB", in.n)
	}
}

// generate returns a file that is generated while it is read. rows writes the image
// data. The generator ends with the test.
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

// An idatWriter makes an IDAT chunk of each Write.
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

// A writer records the sizes and the bytes of Writes.
type writer struct {
	bytes.Buffer
	sizes []int
}

func (w *writer) Write(b []byte) (int, error) {
	w.sizes = append(w.sizes, len(b))
	return w.Buffer.Write(b)
}

const bufferSize = 64 << 10

// noise returns a valid gray image of side x side pixels. Its data is stored rather
// than compressed, so the file is a little larger than side * side bytes.
func noise(side int) []byte {
	raw := make([]byte, (1+side)*side)
	rand.NewChaCha8([32]byte{}).Read(raw)
	for i := range side {
		raw[i*(1+side)] = 0
	}
	return file(ihdr(uint32(side), uint32(side), 8, 0, 0), idat(raw), iend())
}

func TestCopy(t *testing.T) {
	// One whole buffer.
	exact := file(ihdr(1, 1, 8, 0, 0), idat([]byte{0, 0}), iend())
	exact = file(ihdr(1, 1, 8, 0, 0), idat([]byte{0, 0}), chunk("teST", make([]byte, bufferSize-len(exact)-12)), iend())
	if len(exact) != bufferSize {
		t.Fatalf("got %d bytes, want %d", len(exact), bufferSize)
	}
	for _, b := range [][]byte{small["text"], exact, noise(200), noise(700)} {
		for _, opts := range []verify.Options{structural, pixels} {
			for name, r := range map[string]io.Reader{
				"whole":    bytes.NewReader(b),
				"one byte": iotest.OneByteReader(bytes.NewReader(b)),
				"with EOF": iotest.DataErrReader(bytes.NewReader(b)),
				"random":   &randomReader{bytes.NewReader(b), rand.New(rand.NewPCG(1, 2))},
			} {
				var w writer
				meta, err := verify.Copy(&w, r, opts)
				want(t, err, nil, 0, "")
				side := int(binary.BigEndian.Uint32(b[16:]))
				if meta != (verify.Meta{Type: "image/png", Width: side, Height: side}) {
					t.Errorf("%s: got %v, want a PNG of %d x %d", name, meta, side, side)
				}
				if !bytes.Equal(w.Bytes(), b) {
					t.Errorf("%s: got another copy, want the %d bytes of the file", name, len(b))
				}
				for i, n := range w.sizes {
					if i < len(w.sizes)-1 && n != bufferSize || n == 0 || n > bufferSize {
						t.Errorf("%s: got Writes of %d bytes, want whole buffers", name, w.sizes)
						break
					}
				}
			}
		}
	}
}

// TestFewReads checks that Copy offers Read all of the free buffer, which grows three
// times.
func TestFewReads(t *testing.T) {
	var chunks [][]byte
	for range 10_000 {
		chunks = append(chunks, chunk("teST", nil))
	}
	b := file(append(append([][]byte{ihdr(1, 1, 8, 0, 0)}, chunks...), idat([]byte{0, 0}), iend())...)
	in := &countingReader{r: bytes.NewReader(b)}
	want(t, check(t, in, structural), nil, 0, "")
	if calls := (len(b)+bufferSize-1)/bufferSize + 1 + 3; in.calls != calls {
		t.Errorf("got %d Reads of %d bytes, want %d", in.calls, len(b), calls)
	}
}

// TestSmallBuffer checks that Copy needs no more memory than a few times what the
// client has sent.
func TestSmallBuffer(t *testing.T) {
	b := noise(700)
	n := 0
	err := check(t, readerFunc(func(p []byte) (int, error) {
		if size, most := n+len(p), max(1<<10, 6*n); n < bufferSize && size > most {
			t.Fatalf("after %d bytes: got a buffer of %d, want at most %d", n, size, most)
		}
		if n == len(b) {
			return 0, io.EOF
		}
		p[0] = b[n]
		n++
		return 1, nil
	}), structural)
	want(t, err, nil, 0, "")
}

// TestNothingWritten checks that a bad image reaches dst only up to the buffer before
// the first wrong byte.
func TestNothingWritten(t *testing.T) {
	big := noise(700)
	odd := errors.New("odd")
	for _, n := range []int{1, 8, 100, bufferSize - 1, bufferSize, bufferSize + 1, 2*bufferSize - 1, 2 * bufferSize, len(big) - 1} {
		cut := big[:n]
		for _, opts := range []verify.Options{structural, pixels} {
			var w writer
			_, err := verify.Copy(&w, bytes.NewReader(cut), opts)
			want(t, err, invalid, int64(n), "cut short; send all of it: ")
			if got, want := w.Len(), n/bufferSize*bufferSize; got != want {
				t.Errorf("cut at %d bytes: got %d bytes written, want %d", n, got, want)
			}

			w = writer{}
			if _, err := verify.Copy(&w, io.MultiReader(bytes.NewReader(cut), iotest.ErrReader(odd)), opts); err != odd {
				t.Errorf("got %v, want %v", err, odd)
			}
			if got, want := w.Len(), n/bufferSize*bufferSize; got != want {
				t.Errorf("error after %d bytes: got %d bytes written, want %d", n, got, want)
			}
		}
	}

	// Each file is wrong near its end: in the first buffer, or in a later one.
	for _, side := range []int{200, 700} {
		good := noise(side)
		_, data, _ := parse(good)
		trailing := file(ihdr(uint32(side), uint32(side), 8, 0, 0), chunk("IDAT", append(bytes.Clone(data[1]), 0)), iend())
		crc := bytes.Clone(good)
		crc[len(crc)-20] ^= 1 // the last byte of IDAT's data is before the 4 of its CRC and the 12 of IEND
		for _, test := range []struct {
			b      []byte
			opts   verify.Options
			offset int
		}{
			{append(bytes.Clone(good), 'x'), structural, len(good)},
			{crc, structural, len(good) - 16},
			{trailing, pixels, len(good) - 16},
		} {
			var w writer
			_, err := verify.Copy(&w, bytes.NewReader(test.b), test.opts)
			want(t, err, invalid, int64(test.offset), "")
			if got, want := w.Len(), test.offset/bufferSize*bufferSize; got != want {
				t.Errorf("got %d bytes written before an error at byte %d, want %d", got, test.offset, want)
			}
		}
	}
}

// TestReadsOn checks that an error in bytes that only describe a refused stream does
// not replace the refusal.
func TestReadsOn(t *testing.T) {
	for in, part := range map[string]string{
		"RIFF1234":             "RIFF",
		"\x00\x00\x00\x1cftyp": "an AVIF",
	} {
		r := io.MultiReader(strings.NewReader(in), iotest.ErrReader(errors.New("odd")))
		want(t, check(t, r, onlyPNG), unsupported, 0, part)
	}
}

// TestSlowReader checks that Copy reports a wrong byte before the next Read.
func TestSlowReader(t *testing.T) {
	for name, test := range map[string]struct {
		b    []byte
		opts verify.Options
	}{
		"signature": {[]byte("BM6\x00\x0c\x00\x00\x00"), structural},
		"CRC":       {append(file(ihdr(1, 1, 8, 0, 0))[:29], 1, 2, 3, 4), structural},
		"type":      {file(ihdr(1, 1, 8, 0, 0), []byte{0, 0, 0, 9, 'A', 'B', 'C', 'D'}), structural},
		"zlib":      {file(ihdr(1, 1, 8, 0, 0), []byte{0, 0, 0, 9, 'I', 'D', 'A', 'T', 'x', 0}), pixels},
	} {
		never := readerFunc(func([]byte) (int, error) {
			t.Errorf("%s: got a Read after the wrong byte, want none", name)
			return 0, io.EOF
		})
		for _, r := range []io.Reader{bytes.NewReader(test.b), iotest.OneByteReader(bytes.NewReader(test.b))} {
			if err := check(t, io.MultiReader(r, never), test.opts); err == nil {
				t.Errorf("%s: got no error, want one", name)
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestErrors checks that errors of src and dst come back unchanged.
func TestErrors(t *testing.T) {
	good := small["text"]
	odd := errors.New("odd")
	for n := range len(good) + 1 {
		for name, r := range map[string]io.Reader{
			"after": io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(odd)),
			"with":  iotest.DataErrReader(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(odd))),
		} {
			for _, opts := range []verify.Options{structural, pixels} {
				var w writer
				if meta, err := verify.Copy(&w, r, opts); err != odd || meta != (verify.Meta{}) || len(w.sizes) > 0 {
					t.Fatalf("error %s %d bytes: got %v, %v and Writes of %d bytes, want %v", name, n, meta, err, w.sizes, odd)
				}
			}
		}
	}

	// Wrong bytes count before an error that comes with them.
	bad := append(bytes.Clone(good), 'x')
	r := iotest.DataErrReader(io.MultiReader(bytes.NewReader(bad), iotest.ErrReader(odd)))
	want(t, check(t, r, structural), invalid, int64(len(good)), "the picture is whole, but at least 1 byte follows its end")

	calls := 0
	once := readerFunc(func(b []byte) (int, error) {
		if calls++; calls > 1 {
			t.Error("got a Read after an error, want none")
		}
		return copy(b, good), odd
	})
	if _, err := verify.Copy(io.Discard, once, structural); err != odd {
		t.Errorf("got %v, want %v", err, odd)
	}

	// A wrapped io.EOF is an error, not the end.
	wrapped := fmt.Errorf("connection: %w", io.EOF)
	if _, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(good), iotest.ErrReader(wrapped)), structural); err != wrapped {
		t.Errorf("got %v, want %v", err, wrapped)
	}
	stuck := readerFunc(func([]byte) (int, error) { return 0, nil })
	if _, err := verify.Copy(io.Discard, stuck, structural); err != io.ErrNoProgress {
		t.Errorf("got %v, want %v", err, io.ErrNoProgress)
	}

	for _, b := range [][]byte{good, noise(700)} {
		for _, opts := range []verify.Options{structural, pixels} {
			for _, fail := range []error{odd, io.EOF, nil} {
				in := &countingReader{r: bytes.NewReader(b)}
				meta, err := verify.Copy(writerFunc(func(b []byte) (int, error) { return len(b) - 1, fail }), in, opts)
				if fail == nil {
					fail = io.ErrShortWrite
				}
				if err != fail || meta != (verify.Meta{}) {
					t.Errorf("got %v, %v, want %v", meta, err, fail)
				}
				if in.n > bufferSize {
					t.Errorf("got %d bytes read after a failed Write, want none", in.n-bufferSize)
				}
			}
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestReuse checks that a pooled buffer works after a failed check.
func TestReuse(t *testing.T) {
	b := noise(300)
	for range 100 {
		if checkBytes(t, b[:len(b)/2], pixels) == nil {
			t.Fatal("half an image: got no error, want one")
		}
		want(t, checkBytes(t, b, pixels), nil, 0, "")
		want(t, checkBytes(t, small["interlaced"], pixels), nil, 0, "")
	}
}

// TestAllocs checks that the number of allocations does not grow with the image, and
// that buffers are used again.
func TestAllocs(t *testing.T) {
	many := [][]byte{ihdr(1, 1, 8, 2, 0), plte(3), chunk("tRNS", make([]byte, 6))}
	for i := range 3000 {
		many = append(many, chunk("teST", make([]byte, i%7)))
	}
	for i := range 3000 {
		many = append(many, chunk("IDAT", make([]byte, i%1000)))
	}
	for _, test := range []struct {
		name  string
		b     []byte
		opts  verify.Options
		most  float64
		bytes uint64
	}{
		// Usually 1 and 3; more after the pools were emptied. Under the race
		// detector, a pool drops a quarter of the buffers on purpose.
		{"structural", file(append(many, iend())...), structural, 4, 48 << 10},
		{"pixels", noise(1000), pixels, 12, 60 << 10},
	} {
		const runs = 100 / stride
		in := bytes.NewReader(test.b)
		once := func() {
			in.Reset(test.b)
			want(t, check(t, in, test.opts), nil, 0, "")
		}
		if n := testing.AllocsPerRun(runs, once); n > test.most {
			t.Errorf("%s: got %v allocations, want at most %v", test.name, n, test.most)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			once()
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > test.bytes {
			t.Errorf("%s: got %d bytes allocated for an image, want at most %d", test.name, n, test.bytes)
		}
	}
}

// TestMemory validates the first 64 MiB of an image of 1 GiB and limits the heap.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("inflates 64 MiB")
	}
	const side = 16 << 10
	r := generate(t, ihdr(side, side, 8, 6, 0), func(w io.Writer) error {
		row := make([]byte, 1+4*side)
		rnd := rand.NewChaCha8([32]byte{})
		for i := range side / 16 {
			rnd.Read(row[1 : 1+i%64]) // makes the compressor use Huffman codes
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
	var first, most uint64
	i := 0
	_, err := verify.Copy(io.Discard, readerFunc(func(b []byte) (int, error) {
		if i++; i == 50 {
			first = heap()
		} else if i > 50 && i%50 == 0 {
			most = max(most, heap())
		}
		return r.Read(b)
	}), pixels)
	want(t, err, invalid, -1, "row 1025 of 16384: too little image data")
	if most == 0 || most > first+256<<10 {
		t.Errorf("got a heap of %d bytes after %d, want at most 256 KiB more", most, first)
	}
}
