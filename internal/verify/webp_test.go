package verify_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

// webpFiles returns the files in testdata/webp by name.
func webpFiles(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	names, err := filepath.Glob("testdata/webp/*.webp")
	if err != nil || len(names) == 0 {
		t.Fatalf("got files %q, error %v, want some", names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimSuffix(filepath.Base(name), ".webp")] = b
	}
	return files
}

// A webpPart is a chunk.
type webpPart struct {
	name string
	data []byte
}

// webpParts returns the chunks of a file, or of a part of it.
func webpParts(b []byte) (parts []webpPart) {
	if strings.HasPrefix(string(b), "RIFF") {
		b = b[12:]
	}
	for len(b) >= 8 {
		n := int(binary.LittleEndian.Uint32(b[4:]))
		parts = append(parts, webpPart{string(b[:4]), b[8 : 8+n]})
		b = b[8+n+n%2:]
	}
	return parts
}

// webpFile returns the file of some chunks.
func webpFile(parts ...webpPart) []byte {
	b := webpJoin(parts...)
	return slices.Concat([]byte("RIFF"), binary.LittleEndian.AppendUint32(nil, uint32(4+len(b))), []byte("WEBP"), b)
}

func webpJoin(parts ...webpPart) (b []byte) {
	for _, p := range parts {
		b = binary.LittleEndian.AppendUint32(append(b, p.name...), uint32(len(p.data)))
		b = append(b, p.data...)
		b = append(b, make([]byte, len(p.data)%2)...)
	}
	return b
}

// webpImage returns the first chunk of a name in a test file.
func webpImage(t testing.TB, file, name string) webpPart {
	parts := webpParts(webpFiles(t)[file])
	return parts[slices.IndexFunc(parts, func(p webpPart) bool { return p.name == name })]
}

// Flags of VP8X.
const (
	hasICC   = 0x20
	hasAlpha = 0x10
	hasExif  = 0x08
	hasXMP   = 0x04
	hasAnim  = 0x02
)

func vp8x(flags byte, width, height int) webpPart {
	return webpPart{"VP8X", append([]byte{flags, 0, 0, 0}, bytes24(width-1, height-1)...)}
}

func bytes24(values ...int) (b []byte) {
	for _, v := range values {
		b = append(b, byte(v), byte(v>>8), byte(v>>16))
	}
	return b
}

func anmf(x, y, width, height int, flags byte, parts ...webpPart) webpPart {
	return webpPart{"ANMF", slices.Concat(bytes24(x/2, y/2, width-1, height-1, 100), []byte{flags}, webpJoin(parts...))}
}

// exifBlock returns an Exif block with an orientation and a secret.
func exifBlock(o byte) []byte {
	return slices.Concat([]byte("MM\x00*\x00\x00\x00\x08\x00\x02"+
		"\x01\x0e\x00\x02\x00\x00\x00\x07\x00\x00\x00\x26"+
		"\x01\x12\x00\x03\x00\x00\x00\x01\x00"), []byte{o}, []byte("\x00\x00\x00\x00\x00\x00secret\x00"))
}

// minimalExif returns what is left of an Exif block of n bytes.
func minimalExif(o byte, n int) []byte {
	b := append([]byte("II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00"), o)
	return append(b, make([]byte, n-len(b))...)
}

func TestWebPFiles(t *testing.T) {
	metas := map[string]verify.Meta{"animation": {Type: "image/webp", Width: 16, Height: 16}}
	for name, b := range webpFiles(t) {
		want := verify.Meta{Type: "image/webp", Width: 33, Height: 20}
		if m, ok := metas[name]; ok {
			want = m
		}
		for _, opts := range []verify.Options{structural, pixels} {
			var out bytes.Buffer
			meta, err := verify.Copy(&out, bytes.NewReader(b), opts)
			if err != nil || meta != want || !bytes.Equal(out.Bytes(), b) {
				t.Errorf("%s: got %v, %v, the same bytes: %v, want %v and the same bytes", name, meta, err, bytes.Equal(out.Bytes(), b), want)
			}
		}
		// The size is in the first 30 bytes.
		for _, n := range []int{30, len(b)} {
			if meta, err := verify.Describe(bytes.NewReader(b[:n])); err != nil || meta != want {
				t.Errorf("%s: Describe of %d bytes: got %v, %v, want %v", name, n, meta, err, want)
			}
		}
	}
}

// TestWebPTruncation cuts each file at every byte, and lets bytes follow it. No part is
// a file: the size is in the header.
func TestWebPTruncation(t *testing.T) {
	for name, b := range webpFiles(t) {
		for n := range b {
			for _, opts := range []verify.Options{structural, pixels, stripping} {
				kind, part := invalid, "cut short"
				if n == 0 {
					kind, part = unsupported, "empty"
				}
				err := checkBytes(t, b[:n], opts)
				want(t, err, kind, int64(n), part)
				if t.Failed() {
					t.Fatalf("%s cut to %d bytes", name, n)
				}
			}
		}
		for n := 1; n < 4; n++ {
			want(t, checkBytes(t, append(bytes.Clone(b), make([]byte, n)...), structural), invalid, int64(len(b)), fmt.Sprintf("%d zero bytes too many", n))
			want(t, checkBytes(t, append(bytes.Clone(b), "GPS"[:n]...), structural), invalid, int64(len(b)), fmt.Sprintf("private; open it and save it as a new file: WebP: RIFF: %d bytes", n))
		}
	}
}

// TestWebPFlips flips every bit of some files. A WebP has no checksums. So most of what is
// wrong in its pixels cannot be found: the bits mean another picture.
func TestWebPFlips(t *testing.T) {
	least := map[string][2]float64{ // percent found, by structure and by pixels
		"lossy":     {9, 14},
		"lossless":  {5, 36},
		"alpha":     {14, 32},
		"animation": {39, 41},
	}
	for name := range least {
		b := webpFiles(t)[name]
		var found [2]int
		for i := 0; i < 8*len(b); i += stride {
			b[i/8] ^= 1 << (i % 8)
			for j, opts := range []verify.Options{structural, pixels} {
				err := checkBytes(t, b, opts)
				if err != nil {
					found[j]++
				} else if i < 12*8 || 16*8 <= i && i < 20*8 {
					t.Errorf("%s: bit %d of byte %d flipped: got no error, want one in the headers", name, i%8, i/8)
				}
			}
			b[i/8] ^= 1 << (i % 8)
		}
		for j := range found {
			percent := 100 * float64(found[j]) / float64((8*len(b)+stride-1)/stride)
			t.Logf("%s: %.1f %% found, pixels: %v", name, percent, j == 1)
			if percent < least[name][j]-(stride-1) { // the rate of a sample varies
				t.Errorf("%s: got %.1f %% of flipped bits found, want at least %g", name, percent, least[name][j])
			}
		}
	}
}

func TestWebPRules(t *testing.T) {
	var (
		lossy    = webpImage(t, "lossy", "VP8 ")
		lossless = webpImage(t, "lossless", "VP8L")
		packed   = webpImage(t, "alpha", "ALPH")
		raw      = webpImage(t, "rawalpha", "ALPH")
		x        = vp8x(0, 33, 20)
		xa       = vp8x(hasAlpha, 33, 20)
		xm       = vp8x(hasAnim, 33, 20)
		anim     = webpPart{"ANIM", make([]byte, 6)}
		f        = anmf(0, 0, 33, 20, 0, lossy)
		icc      = webpPart{"ICCP", []byte("profile")}
		exif     = webpPart{"EXIF", exifBlock(6)}
		xmp      = webpPart{"XMP ", []byte("<x/>")}
		other    = webpPart{"abcd", []byte{1, 2, 3}}
		ok       error
	)
	cut := func(p webpPart, n int) webpPart { return webpPart{p.name, p.data[:n]} }
	long := func(p webpPart, more ...byte) webpPart { return webpPart{p.name, slices.Concat(p.data, more)} }
	set := func(p webpPart, at int, b ...byte) webpPart {
		data := bytes.Clone(p.data)
		copy(data[at:], b)
		return webpPart{p.name, data}
	}
	type parts = []webpPart
	for _, test := range []struct {
		name  string
		parts parts
		kind  error
		// The offset is in the part of this index, unless kind is nil.
		part, offset int
		detail       string
	}{
		// Simple files (sections 2.5 and 2.6).
		{"lossy", parts{lossy}, ok, 0, 0, ""},
		{"lossless", parts{lossless}, ok, 0, 0, ""},
		{"unknown chunk after a simple image", parts{lossy, other, other}, ok, 0, 0, ""},
		{"metadata without VP8X", parts{lossy, exif, xmp, icc}, ok, 0, 0, ""},
		{"unknown chunk first", parts{other, lossy}, invalid, 0, 0, `must be VP8, VP8L or VP8X, not "abcd"`},
		{"transparency without VP8X", parts{raw, lossy}, invalid, 0, 0, `not "ALPH"`},
		{"two simple images", parts{lossy, lossy}, invalid, 1, 0, "VP8 comes after the image"},
		{"VP8X after the image", parts{lossy, x}, invalid, 1, 0, "VP8X must be the first"},
		{"animation after a simple image", parts{lossy, anim, f}, invalid, 1, 0, "here is ANIM"},

		// Extended files (section 2.7).
		{"VP8X", parts{x, lossy}, ok, 0, 0, ""},
		{"VP8X, lossless", parts{x, lossless}, ok, 0, 0, ""},
		{"metadata", parts{vp8x(hasICC|hasExif|hasXMP, 33, 20), icc, lossy, exif, xmp, other}, ok, 0, 0, ""},
		{"metadata without flags", parts{x, icc, lossy, exif, xmp}, ok, 0, 0, ""},
		{"flags without chunks", parts{vp8x(hasICC|hasAlpha|hasExif|hasXMP, 33, 20), lossy}, ok, 0, 0, ""},
		{"metadata in another order", parts{x, other, xmp, exif, lossy, icc}, ok, 0, 0, ""},
		{"metadata twice", parts{x, icc, icc, lossy, exif, exif, xmp, xmp}, ok, 0, 0, ""},
		{"reserved bytes", parts{set(x, 1, 1, 2, 3), lossy}, ok, 0, 0, ""},
		{"reserved flag 1", parts{vp8x(0x01, 33, 20), lossy}, invalid, 0, 8, "reserved bits are set"},
		{"reserved flag 40", parts{vp8x(0x40, 33, 20), lossy}, invalid, 0, 8, "reserved bits are set"},
		{"reserved flag 80", parts{vp8x(0x80, 33, 20), lossy}, invalid, 0, 8, "reserved bits are set"},
		{"VP8X too short", parts{cut(x, 8), lossy}, invalid, 0, 4, "VP8X: size 8, want 10"},
		{"VP8X too long", parts{long(x, 0, 0), lossy}, invalid, 0, 4, "VP8X: size 12, want 10"},
		{"VP8X twice", parts{x, x, lossy}, invalid, 1, 0, "VP8X must be the first"},
		{"no image", parts{x, exif}, invalid, 2, 0, "no image"},
		{"two images", parts{x, lossy, lossless}, invalid, 2, 0, "VP8L comes after the image"},
		{"wider canvas", parts{vp8x(0, 34, 20), lossy}, invalid, 1, 14, "VP8: 33 x 20 pixels, want 34 x 20"},
		{"lower canvas", parts{vp8x(0, 33, 19), lossless}, invalid, 1, 9, "VP8L: 33 x 20 pixels, want 33 x 19"},
		{"largest canvas", parts{vp8x(hasAnim, 1<<16+1, 1<<16-1), anim, f}, ok, 0, 0, ""},
		{"canvas too large", parts{vp8x(hasAnim, 1<<16, 1<<16), anim, f}, invalid, 0, 12, "at most 4294967295"},
		{"largest width", parts{vp8x(hasAnim, 1<<24, 255), anim, f}, ok, 0, 0, ""},

		// Transparency (section 2.7.1.2).
		{"compressed transparency", parts{xa, packed, lossy}, ok, 0, 0, ""},
		{"raw transparency", parts{xa, raw, lossy}, ok, 0, 0, ""},
		{"raw transparency without flag", parts{x, raw, lossy}, ok, 0, 0, ""},
		{"raw transparency too long", parts{xa, long(raw, 1, 2), lossy}, ok, 0, 0, ""},
		{"raw transparency too short", parts{xa, cut(raw, 33*20), lossy}, invalid, 1, 4, "ALPH: size 660, want 661 for 33 x 20"},
		{"transparency empty", parts{xa, cut(raw, 1), lossy}, invalid, 1, 4, "ALPH: size 1, want at least 2"},
		{"transparency compressed by 2", parts{xa, set(raw, 0, 2), lossy}, invalid, 1, 8, "compression method 2"},
		{"transparency filtered by 3", parts{xa, set(raw, 0, 3<<2), lossy}, ok, 0, 0, ""},
		{"transparency processed by 2", parts{xa, set(raw, 0, 2<<4), lossy}, invalid, 1, 8, "pre-processing 2"},
		{"transparency reserved 1", parts{xa, set(raw, 0, 1<<6), lossy}, ok, 0, 0, ""},
		{"transparency reserved 2", parts{xa, set(raw, 0, 2<<6), lossy}, invalid, 1, 8, "reserved bits 2"},
		{"transparency after the image", parts{xa, lossy, raw}, invalid, 2, 0, "ALPH comes after the image"},
		{"transparency twice", parts{xa, raw, raw, lossy}, invalid, 2, 0, `VP8 must come after ALPH, not "ALPH"`},
		{"transparency of VP8L", parts{xa, raw, lossless}, invalid, 2, 0, `VP8 must come after ALPH, not "VP8L"`},
		{"unknown chunk after transparency", parts{xa, raw, other, lossy}, invalid, 2, 0, `not "abcd"`},
		{"transparency alone", parts{xa, raw}, invalid, 2, 0, "ALPH without VP8"},

		// Animations (section 2.7.1.1).
		{"animation", parts{xm, anim, f, anmf(2, 4, 31, 16, 3, webpPart{"VP8 ", vp8Frame(31, 16, 0, nil, nil)})}, ok, 0, 0, ""},
		{"one frame", parts{xm, anim, f}, ok, 0, 0, ""},
		{"frames of all kinds", parts{xm, anim, anmf(0, 0, 33, 20, 0, lossless), anmf(0, 0, 33, 20, 0, raw, lossy), anmf(0, 0, 33, 20, 0, packed, lossy)}, ok, 0, 0, ""},
		{"chunks between frames", parts{xm, icc, other, anim, other, f, xmp, f, exif}, ok, 0, 0, ""},
		{"reserved bits of a frame", parts{xm, anim, anmf(0, 0, 33, 20, 0xff, lossy)}, ok, 0, 0, ""},
		{"unknown chunks in a frame", parts{xm, anim, anmf(0, 0, 33, 20, 0, lossy, other, exif, xmp)}, ok, 0, 0, ""},
		{"ANIM too long", parts{xm, long(anim, 1), f}, ok, 0, 0, ""},
		{"ANIM twice", parts{xm, anim, anim, f, anim}, ok, 0, 0, ""},
		{"ANIM too short", parts{xm, cut(anim, 4), f}, invalid, 1, 4, "ANIM: size 4, want 6"},
		{"no ANIM", parts{xm, f}, invalid, 1, 0, "ANIM must come before ANMF"},
		{"no frame", parts{xm, anim}, invalid, 2, 0, "there is no ANMF"},
		{"animation without flag", parts{x, anim, f}, invalid, 1, 0, "here is ANIM, but VP8X does not say"},
		{"frame without flag", parts{x, lossy, f}, invalid, 2, 0, "here is ANMF, but VP8X does not say"},
		{"still image in an animation", parts{xm, lossy}, invalid, 1, 0, "VP8 must be inside ANMF"},
		{"still image after frames", parts{xm, anim, f, lossless}, invalid, 3, 0, "VP8L must be inside ANMF"},
		{"transparency after frames", parts{xm, anim, f, raw, lossy}, invalid, 3, 0, "ALPH must be inside ANMF"},
		{"frame too short", parts{xm, anim, cut(f, 22)}, invalid, 2, 4, "ANMF: size 22, want at least 24"},
		{"frame too wide", parts{vp8x(hasAnim, 32, 20), anim, f}, invalid, 2, 8, "33 x 20 pixels at 0, 0 are not inside the canvas of 32 x 20"},
		{"frame too high", parts{vp8x(hasAnim, 33, 19), anim, f}, invalid, 2, 8, "not inside"},
		{"frame too far right", parts{xm, anim, anmf(2, 0, 33, 20, 0, lossy)}, invalid, 2, 8, "33 x 20 pixels at 2, 0"},
		{"frame too low", parts{xm, anim, anmf(0, 2, 33, 20, 0, lossy)}, invalid, 2, 8, "33 x 20 pixels at 0, 2"},
		{"frame of another size", parts{xm, anim, anmf(0, 0, 31, 20, 0, lossy)}, invalid, 2, 8 + 16 + 14, "VP8: 33 x 20 pixels, want 31 x 20"},
		{"frame of other data", parts{xm, anim, anmf(0, 0, 33, 20, 0, other)}, invalid, 2, 8 + 16, `ANMF must begin with ALPH, VP8 or VP8L, not "abcd"`},
		{"frame of two images", parts{xm, anim, anmf(0, 0, 33, 20, 0, lossy, lossless)}, invalid, 2, 8 + 16 + len(webpJoin(lossy)), "VP8L comes after the image of the frame"},
		{"frame with a profile", parts{xm, anim, anmf(0, 0, 33, 20, 0, lossy, icc)}, invalid, 2, 8 + 16 + len(webpJoin(lossy)), "ICCP comes after"},
		{"frame in a frame", parts{xm, anim, anmf(0, 0, 33, 20, 0, lossy, f)}, invalid, 2, 8 + 16 + len(webpJoin(lossy)), "ANMF comes after"},
		{"frame with transparency alone", parts{xm, anim, anmf(0, 0, 33, 20, 0, raw)}, invalid, 3, 0, "ALPH without VP8"},
		{"frame with too few bytes for a chunk", parts{xm, anim, long(f, 0, 0, 0, 0)}, invalid, 2, 8 + len(f.data), "4 bytes after the last chunk"},
		{"frame with a chunk that is too long", parts{xm, anim, cut(f, len(f.data)-2)}, invalid, 2, 8 + 16 + 4, `chunk "VP8 ": size`},

		// VP8 (RFC 6386, section 9.1).
		{"VP8 too short", parts{cut(lossy, 9)}, invalid, 0, 4, "VP8: size 9, want at least 10"},
		{"VP8, not a key frame", parts{set(lossy, 0, lossy.data[0]|1)}, invalid, 0, 8, "not a key frame"},
		{"VP8, version 3", parts{set(lossy, 0, lossy.data[0]|3<<1)}, ok, 0, 0, ""},
		{"VP8, version 4", parts{set(lossy, 0, lossy.data[0]|4<<1)}, invalid, 0, 8, "version 4, want 0 to 3"},
		{"VP8, hidden", parts{set(lossy, 0, lossy.data[0]&^0x10)}, invalid, 0, 8, "not to be shown"},
		{"VP8, start code", parts{set(lossy, 4, 2)}, invalid, 0, 8 + 3, "start code 9d022a"},
		{"VP8, no width", parts{set(lossy, 6, 0, 0)}, invalid, 0, 8 + 6, "0 x 20 pixels"},
		{"VP8, no height", parts{set(lossy, 8, 0, 0)}, invalid, 0, 8 + 6, "33 x 0 pixels"},
		{"VP8, scaled", parts{set(lossy, 7, 0x40), other}, ok, 0, 0, ""},
		{"VP8, first partition too long", parts{cut(lossy, vp8First(lossy)+10)}, invalid, 0, 8, "the first partition has"},

		// VP8L (section 3.4).
		{"VP8L too short", parts{cut(lossless, 4)}, invalid, 0, 4, "VP8L: size 4, want at least 5"},
		{"VP8L, signature", parts{set(lossless, 0, 0x2e)}, invalid, 0, 8, "signature 0x2e"},
		{"VP8L, version", parts{set(lossless, 4, lossless.data[4]|0x20)}, invalid, 0, 12, "version 1"},
		{"VP8L, transparent", parts{set(lossless, 4, lossless.data[4]|0x10)}, ok, 0, 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := webpFile(test.parts...)
			offset := 12 + len(webpJoin(test.parts[:test.part]...)) + test.offset
			for _, opts := range []verify.Options{structural, stripping, pixels} {
				want(t, checkBytes(t, b, opts), test.kind, int64(offset), test.detail)
			}
		})
	}
}

// vp8First returns the size of the first partition of a VP8 chunk.
func vp8First(p webpPart) int {
	return (int(p.data[0]) | int(p.data[1])<<8 | int(p.data[2])<<16) >> 5
}

func TestWebPHeader(t *testing.T) {
	lossy := webpImage(t, "lossy", "VP8 ")
	b := webpFile(lossy)
	for _, test := range []struct {
		name   string
		size   int64
		more   string
		offset int64
		detail string
	}{
		{"odd", int64(len(b)) - 8 + 1, "\x00", 4, "want an even number"},
		{"none", 0, "", 4, "size 0, want"},
		{"too small for a chunk", 10, "", 4, "size 10, want"},
		{"too large", 1<<32 - 8, "", 4, "want an even number from 12 to 4294967286"},
		{"largest", 1<<32 - 10, "", int64(len(b)), "cut short"},
		{"smaller than its chunk", int64(len(b)) - 8 - 2, "", 16, `chunk "VP8 ": size`},
		{"a chunk header too small", int64(len(b)) - 8 + 2, "\x00\x00", int64(len(b)), "2 bytes after the last chunk"},
		{"an endless chunk", int64(len(b)) - 8 + 8, "abcd\xff\xff\xff\xff", int64(len(b)) + 4, `chunk "abcd": size 4294967295, at most 0`},
		{"a chunk without padding", int64(len(b)) - 8 + 10, "abcd\x03\x00\x00\x00\x00\x00", int64(len(b)) + 4, `chunk "abcd": size 3, at most 2`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := append(bytes.Clone(b), test.more...)
			binary.LittleEndian.PutUint32(b[4:], uint32(test.size))
			want(t, checkBytes(t, b, structural), invalid, test.offset, test.detail)
		})
	}
	want(t, checkBytes(t, []byte("RIFF\x10\x00\x00\x00WEBQVP8 "), structural), unsupported, -1, "RIFF")
}

func TestWebPLimits(t *testing.T) {
	lossy, lossless := webpImage(t, "lossy", "VP8 "), webpImage(t, "lossless", "VP8L")
	anim := webpPart{"ANIM", make([]byte, 6)}
	frame := anmf(0, 0, 33, 20, 0, lossy)
	animation := []webpPart{vp8x(hasAnim, 40, 30), anim, frame, frame, frame}
	for _, test := range []struct {
		name   string
		parts  []webpPart
		opts   verify.Options
		kind   error
		offset int64
	}{
		{"lossy, just allowed", []webpPart{lossy}, verify.Options{MaxPixels: 660}, nil, 0},
		{"lossy", []webpPart{lossy}, verify.Options{MaxPixels: 659}, tooMany, 20 + 6},
		{"lossless", []webpPart{lossless}, verify.Options{MaxPixels: 659}, tooMany, 20 + 1},
		{"extended", []webpPart{vp8x(0, 33, 20), lossy}, verify.Options{MaxPixels: 659}, tooMany, 20 + 4},
		{"frames, just allowed", animation, verify.Options{MaxPixels: 1200, MaxAnimationPixels: 3600}, nil, 0},
		{"frames", animation, verify.Options{MaxPixels: 1200, MaxAnimationPixels: 3599}, tooMany, int64(12 + len(webpJoin(animation[:4]...)))},
		{"one frame", animation[:3], verify.Options{MaxAnimationPixels: 1}, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			want(t, checkBytes(t, webpFile(test.parts...), test.opts), test.kind, test.offset, "")
		})
	}
}

// strip returns the file without metadata. It fails the test unless the file without
// metadata is a valid file of the same size and description, and loses no more.
func webpStrip(t testing.TB, b []byte) []byte {
	t.Helper()
	once := func(b []byte, opts verify.Options) ([]byte, verify.Meta) {
		var out bytes.Buffer
		meta, err := verify.Copy(&out, bytes.NewReader(b), opts)
		if err != nil {
			t.Fatalf("%+v: got %v, want no error", opts, err)
		}
		return out.Bytes(), meta
	}
	_, before := once(b, structural)
	out, meta := once(b, stripping)
	_, after := once(out, structural)
	if before != meta || after != meta || len(out) != len(b) {
		t.Errorf("got %v and %d bytes, want %v and %d bytes", after, len(out), before, len(b))
	}
	if again, _ := once(out, stripping); !bytes.Equal(again, out) {
		t.Errorf("stripped twice: got %q, want %q as once", again, out)
	}
	return out
}

func TestWebPStrip(t *testing.T) {
	var (
		lossy = webpImage(t, "lossy", "VP8 ")
		raw   = webpImage(t, "rawalpha", "ALPH")
		x     = vp8x(0, 33, 20)
		icc   = webpPart{"ICCP", []byte("profile")}
		exif  = func(b ...byte) webpPart { return webpPart{"EXIF", b} }
		block = exifBlock(6)
		n     = len(block)
		xmp   = webpPart{"XMP ", []byte("<x/>")}
		other = webpPart{"abcd", []byte("secret!")}
		junk  = func(n int) webpPart { return webpPart{"JUNK", make([]byte, n)} }
		le    = func(o byte, n int) []byte { // as minimalExif, with 9 for what is left
			return append(minimalExif(o, 22), bytes.Repeat([]byte{9}, n-22)...)
		}
		anim = webpPart{"ANIM", []byte{1, 2, 3, 4, 5, 6}}
		all  = byte(hasICC | hasAlpha | hasExif | hasXMP)
	)
	type parts = []webpPart
	for _, test := range []struct {
		name     string
		in, want parts
	}{
		{"nothing", parts{lossy}, parts{lossy}},
		{"unknown chunks", parts{lossy, other, other}, parts{lossy, junk(7), junk(7)}},
		{"metadata", parts{vp8x(all, 33, 20), icc, lossy, exif(block...), xmp, other},
			parts{vp8x(all&^hasXMP, 33, 20), icc, lossy, exif(minimalExif(6, n)...), junk(4), junk(7)}},
		{"metadata without VP8X", parts{lossy, exif(block...), xmp, icc}, parts{lossy, exif(minimalExif(6, n)...), junk(4), icc}},
		{"metadata before the image", parts{x, exif(block...), xmp, lossy}, parts{x, exif(minimalExif(6, n)...), junk(4), lossy}},
		{"metadata twice", parts{x, icc, icc, lossy, exif(block...), exif(block...)}, parts{x, icc, junk(7), lossy, exif(minimalExif(6, n)...), junk(n)}},
		{"upright", parts{x, lossy, exif(exifBlock(1)...)}, parts{x, lossy, exif(minimalExif(1, n)...)}},
		{"no orientation", parts{x, lossy, exif(make([]byte, 99)...)}, parts{x, lossy, exif(minimalExif(1, 99)...)}},
		{"prefix", parts{x, lossy, exif(append([]byte("Exif\x00\x00"), exifBlock(8)...)...)}, parts{x, lossy, exif(minimalExif(8, n+6)...)}},
		{"smallest", parts{x, lossy, exif(le(3, 22)...)}, parts{x, lossy, exif(minimalExif(3, 22)...)}},
		{"small", parts{x, lossy, exif(le(3, 25)...)}, parts{x, lossy, exif(minimalExif(3, 25)...)}},
		{"odd", parts{x, lossy, exif(le(3, 27)...)}, parts{x, lossy, exif(minimalExif(3, 27)...)}},
		{"too small", parts{x, lossy, exif(le(3, 22)[:21]...)}, parts{x, lossy, junk(21)}},
		{"empty", parts{x, lossy, exif(), {"XMP ", nil}, {"abcd", nil}}, parts{x, lossy, junk(0), junk(0), junk(0)}},
		{"reserved bytes", parts{{"VP8X", append([]byte{0, 1, 2, 3}, x.data[4:]...)}, lossy}, parts{x, lossy}},
		{"transparency", parts{x, {"ALPH", append(append([]byte{0x5c}, raw.data[1:]...), 1, 2, 3)}, lossy},
			parts{x, {"ALPH", append(append([]byte{0x1c}, raw.data[1:]...), 0, 0, 0)}, lossy}},
		{"compressed transparency", parts{x, webpImage(t, "alpha", "ALPH"), lossy}, parts{x, webpImage(t, "alpha", "ALPH"), lossy}},
		{"animation", parts{vp8x(hasAnim|hasXMP, 33, 20), {"ANIM", append(anim.data, 7, 8)}, anim, anmf(0, 0, 33, 20, 0xff, raw, lossy, other, exif(block...), xmp), xmp, anmf(0, 0, 33, 20, 0, lossy)},
			parts{vp8x(hasAnim, 33, 20), {"ANIM", append(anim.data[:6:6], 0, 0)}, junk(6), anmf(0, 0, 33, 20, 3, raw, lossy, junk(7), junk(n), junk(4)), junk(4), anmf(0, 0, 33, 20, 0, lossy)}},
		{"long", parts{x, lossy, exif(append(block, bytes.Repeat([]byte("secret"), 1<<15)...)...), xmp}, parts{x, lossy, exif(minimalExif(6, n+6<<15)...), junk(4)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, want := webpFile(test.in...), webpFile(test.want...)
			if got := webpStrip(t, in); !bytes.Equal(got, want) {
				t.Errorf("got %.200q, want %.200q", got, want)
			}
			// The padding is not metadata, but may hold anything.
			lossyEnd := 12 + len(webpJoin(test.in...))
			if last := test.in[len(test.in)-1]; len(last.data)%2 == 1 {
				in[lossyEnd-1] = 'G'
				if got := webpStrip(t, in); !bytes.Equal(got, want) {
					t.Errorf("with padding: got %.200q, want %.200q", got, want)
				}
			}
			var out bytes.Buffer
			_, err := verify.Copy(&out, iotest.OneByteReader(bytes.NewReader(in)), stripping)
			if err != nil || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("byte by byte: got %v, %.200q, want %.200q", err, out.Bytes(), want)
			}
		})
	}
	for name, b := range webpFiles(t) {
		if got := webpStrip(t, b); bytes.Contains(got, []byte("secret")) || bytes.Contains(got, []byte("xmpmeta")) {
			t.Errorf("%s: got %q, want no metadata", name, got)
		} else if name != "metadata" && !bytes.Equal(got, b) {
			t.Errorf("%s: got %q, want %q as it was", name, got, b)
		}
	}
}

// A boolEncoder encodes the bits of a partition (RFC 6386, section 7.3).
type boolEncoder struct {
	low   big.Int // of the range, with 8 + shift bits
	shift int
	width uint32 // of the range
}

func (e *boolEncoder) bit(probability uint8, bit bool) {
	split := 1 + (e.width-1)*uint32(probability)>>8
	if bit {
		e.low.Add(&e.low, big.NewInt(int64(split)))
		e.width -= split
	} else {
		e.width = split
	}
	for e.width < 128 {
		e.width *= 2
		e.low.Lsh(&e.low, 1)
		e.shift++
	}
}

func (e *boolEncoder) literal(n int, v int) {
	for n--; n >= 0; n-- {
		e.bit(128, v>>n&1 != 0)
	}
}

// bytes returns the bytes of the partition. There is none too many.
func (e *boolEncoder) bytes() []byte {
	n := (8 + e.shift + 7) / 8
	return new(big.Int).Lsh(&e.low, uint(8*n-8-e.shift)).FillBytes(make([]byte, n))
}

// vp8Frame returns a frame of gray, with 1 << log2 partitions of coefficients, of which
// all but the last have the sizes. If tokens is nil, all macroblocks are skipped.
func vp8Frame(width, height, log2 int, sizes []int, tokens []byte) []byte {
	e := &boolEncoder{width: 255}
	e.literal(1+1+1, 0)   // no segments
	e.literal(1+6+3+1, 0) // no loop filter
	e.literal(2, log2)
	e.literal(7+5+1, 0) // quantizers
	for _, p := range verify.VP8Update() {
		e.bit(p, false)
	}
	e.literal(1, 1) // with flags to skip
	e.literal(8, 128)
	for range (width + 15) / 16 * ((height + 15) / 16) {
		e.bit(128, tokens == nil)
		e.bit(145, true) // one mode for all of Y: DC
		e.bit(156, false)
		e.bit(163, false)
		e.bit(142, false) // DC for U and V
	}
	if tokens == nil {
		tokens = []byte{0}
	}
	return vp8Frame2(width, height, e.bytes(), bytes24(sizes...), tokens)
}

// vp8Frame2 returns a frame of given partitions.
func vp8Frame2(width, height int, first []byte, more ...[]byte) []byte {
	b := bytes24(len(first)<<5 | 0x10)
	b = append(b, 0x9d, 1, 0x2a, byte(width), byte(width>>8), byte(height), byte(height>>8))
	return append(append(b, first...), slices.Concat(more...)...)
}

func TestWebPPixels(t *testing.T) {
	frame := func(data []byte) []byte { return webpFile(webpPart{"VP8 ", data}) }
	random := make([]byte, 1000)
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	skipped := vp8Frame(100, 50, 0, nil, nil)
	first := vp8First(webpPart{"VP8 ", skipped})
	for _, test := range []struct {
		name   string
		data   []byte
		kind   error
		offset int // in data; -1 is its end
		detail string
	}{
		{"skipped", skipped, nil, 0, ""},
		{"any bits are coefficients", vp8Frame(33, 20, 0, nil, random), nil, 0, ""},
		{"few bits", vp8Frame(400, 300, 0, nil, random[:100]), invalid, -1, "partition 1 of 1 of coefficients ends too early, in row"},
		{"modes cut", vp8Frame2(100, 50, skipped[10:10+first-1], []byte{0}), invalid, 10 + first - 1, "the first partition of"},
		{"header cut", vp8Frame2(100, 50, skipped[10:20], []byte{0}), invalid, 20, "the first partition of 10 bytes ends too early"},
		{"no modes", vp8Frame2(100, 50, nil, []byte{0}), invalid, 10, "the first partition of 0 bytes ends too early"},
		{"modes longer", vp8Frame2(100, 50, append(skipped[10:10+first:10+first], random...), []byte{0}), nil, 0, ""},
		{"modes begin with ff", vp8Frame2(100, 50, append([]byte{0xff}, random...), []byte{0}), invalid, 10, "the first partition begins with ff"},
		{"coefficients begin with ff", vp8Frame(33, 20, 0, nil, append([]byte{0xff}, random...)), invalid, -1002, "partition 1 of 1 of coefficients begins with ff"},
		{"coefficients begin with fe", vp8Frame(33, 20, 0, nil, append([]byte{0xfe}, random...)), nil, 0, ""},
		{"two partitions", vp8Frame(33, 20, 1, []int{500}, random), nil, 0, ""},
		{"two partitions, the first short", vp8Frame(400, 300, 1, []int{10}, random), invalid, -991, "partition 1 of 2 of coefficients ends too early, in row 1 of 19"},
		{"two partitions, the second short", vp8Frame(400, 300, 1, []int{990}, random), invalid, -1, "partition 2 of 2 of coefficients ends too early, in row 2 of 19"},
		{"two partitions, the second begins with ff", vp8Frame(33, 20, 1, []int{999}, append(random[:999:999], 0xff)), invalid, -2, "partition 2 of 2 of coefficients begins with ff"},
		{"two large partitions are not looked into", vp8Frame(400, 300, 1, []int{1}, make([]byte, 1<<20+1)), nil, 0, ""},
		{"two large partitions", vp8Frame(400, 300, 1, []int{1}, make([]byte, 1<<20)), invalid, -1 << 20, "partition 1 of 2 of coefficients ends too early"},
		{"two partitions, the last empty", vp8Frame(33, 20, 1, []int{6}, random[:6]), invalid, -1, "partition 2 of 2 of coefficients is empty"},
		{"two partitions, too long", vp8Frame(33, 20, 1, []int{7}, random[:6]), invalid, -10, "partition 1 of 2 of coefficients has 7 bytes, 1 too many"},
		{"eight partitions", vp8Frame(33, 20, 3, []int{300, 400, 0, 1, 1, 1, 0}, random), nil, 0, ""},
		{"eight partitions, too long", vp8Frame(33, 20, 3, []int{1, 1, 1, 1, 1, 1, 1}, random[:6]), invalid, -10, "partition 7 of 8 of coefficients has 1 bytes, 1 too many"},
		{"eight partitions, no sizes", vp8Frame(33, 20, 3, nil, random[:20]), invalid, -21, "the sizes of the 8 partitions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := frame(test.data)
			want(t, checkBytes(t, b, structural), nil, 0, "")
			offset := int64(20 + test.offset)
			if test.offset < 0 {
				offset += int64(len(test.data)) + 1
			}
			want(t, checkBytes(t, b, pixels), test.kind, offset, test.detail)
		})
	}
}

// TestWebPLargestFrame has Copy read the modes of half a million macroblocks, of which it
// keeps 115 KiB.
func TestWebPLargestFrame(t *testing.T) {
	const width, height = 16383, 7200
	b := webpFile(webpPart{"VP8 ", vp8Frame2(width, height, make([]byte, 1<<18), make([]byte, 100))})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	want(t, checkBytes(t, b, pixels), invalid, -1, "partition 1 of 1 of coefficients ends too early, in row 1 of 450")
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 { // it grew on the way
		t.Errorf("got %d bytes allocated, want at most a few times 115 KiB", got)
	}
}

// vp8lBits packs the digits of a string, bits in the order of the stream (RFC 9649,
// section 3.3). Other characters are for the reader.
func vp8lBits(parts ...string) (b []byte) {
	n := 0
	for _, c := range strings.Join(parts, "") {
		if c != '0' && c != '1' {
			continue
		}
		if n%8 == 0 {
			b = append(b, 0)
		}
		b[n/8] |= byte(c-'0') << (n % 8)
		n++
	}
	return b
}

// number returns the bits of a number.
func number(n, bits int) (s string) {
	for i := range bits {
		s += string(rune('0' + n>>i&1))
	}
	return s
}

func TestWebPLossless(t *testing.T) {
	const (
		no    = "0 "    // transform, cache, entropy image
		code  = "1000 " // of one symbol, 0
		codes = code + code + code + code + code
		sub   = no + codes // an image of zeros for a transform
	)
	one := func(symbol int) string { return "101" + number(symbol, 8) }
	two := func(a, b int) string { return "111" + number(a, 8) + number(b, 8) }
	// lengths is a code of code lengths 1, the bit 0, and 18, the bit 1, which repeats 0.
	lengths := "0" + number(0, 4) + number(0, 3) + number(1, 3) + number(0, 3) + number(1, 3)
	repeat := func(n int) string { return "1" + number(n-11, 7) }
	// copies has two codes for green: 0 is the colour 0, and 1 a length.
	copies := func(length int) string {
		return lengths + "0" + "0" + repeat(138) + repeat(117+length) + "0" + repeat(23-length)
	}
	pair := lengths + "0" + repeat(138) + repeat(119) + "0" + repeat(22) // a code of length 2 alone
	// all is a code of the colours 0 to 255, all of 8 bits. entropy is an image in which 512
	// blocks have a group each.
	all := "0" + number(8, 4) + number(0, 3) + number(1, 3) + strings.Repeat("000", 9) + number(1, 3) + "0" + strings.Repeat("0", 256) + repeat(24)
	entropy := no + all + two(0, 1) + code + code + code
	for i := range 512 {
		entropy += number(int(bits.Reverse8(uint8(i))), 8) + number(i>>8, 1)
	}
	for _, test := range []struct {
		name          string
		width, height int
		bits          []string
		kind          error
		detail        string
	}{
		{"smallest", 4, 4, []string{no, no, no, codes}, nil, ""},
		{"cut", 4, 4, []string{no, no, no, code, code, code, code, "101"}, invalid, "the image data ends too early"},
		{"cut in the pixels", 4, 4, []string{no, no, no, two(0, 1), code, code, code, code, "01010"}, invalid, "the image data ends too early"},
		{"two colours", 4, 4, []string{no, no, no, two(0, 1), code, code, code, code, "0101010101010101"}, nil, ""},

		{"all transforms", 4, 4, []string{"1 00", number(0, 3), sub, "1 10", number(0, 3), sub, "1 01", "1 11", number(1, 8), sub, no, no, no, codes}, nil, ""},
		{"a transform twice", 4, 4, []string{"1 01", "1 01", no, no, no, codes}, invalid, "transform 2 comes twice"},
		// Colour indexing packs 4 pixels into one here, so that 4 bits are enough.
		{"packed pixels", 4, 4, []string{"1 11", number(1, 8), sub, no, no, no, two(0, 1), code, code, code, code, "0101"}, nil, ""},
		{"packed by eight", 64, 1, []string{"1 11", number(1, 8), sub, no, no, no, two(0, 1), code, code, code, code, "0101 0101"}, nil, ""},
		{"packed by four", 32, 1, []string{"1 11", number(3, 8), sub, no, no, no, two(0, 1), one(1), one(1), one(1), code, "0101 0101"}, nil, ""},
		{"packed by four, cut", 68, 1, []string{"1 11", number(3, 8), sub, no, no, no, two(0, 1), code, code, code, code, "0101"}, invalid, "ends too early"},
		{"packed by two, cut", 68, 1, []string{"1 11", number(15, 8), sub, no, no, no, two(0, 1), code, code, code, code, "0101"}, invalid, "ends too early"},

		{"cache of 11 bits", 4, 4, []string{no, "1", number(11, 4), no, codes}, nil, ""},
		{"cache of 0 bits", 4, 4, []string{no, "1", number(0, 4), no, codes}, invalid, "a colour cache of 0 bits"},
		{"cache of 12 bits", 4, 4, []string{no, "1", number(12, 4), no, codes}, invalid, "a colour cache of 12 bits"},
		{"cache of a transform", 4, 4, []string{"1 00", number(0, 3), "1", number(12, 4)}, invalid, "a colour cache of 12 bits"},

		{"entropy image", 4, 4, []string{no, no, "1", number(0, 3), sub, codes}, nil, ""},
		{"unused groups", 4, 4, []string{no, no, "1", number(0, 3), no, one(2), code, code, code, code, codes, codes, codes}, nil, ""},
		{"unused groups cut", 4, 4, []string{no, no, "1", number(0, 3), no, one(2), code, code, code, code, codes, codes}, invalid, "ends too early"},
		{"an unused group is wrong", 4, 4, []string{no, no, "1", number(0, 3), no, one(1), code, code, code, code, two(3, 3), code, code, code, code, codes}, invalid, "a simple prefix code has the symbols [3 3]"},
		// The first block is of group 0, with no bits, and the second of group 1.
		{"two groups", 8, 1, []string{no, no, "1", number(0, 3), no, two(0, 1), code, code, code, code, "01",
			codes, two(0, 1), code, code, code, code, "0101"}, nil, ""},
		{"two groups, cut", 96, 1, []string{no, no, "1", number(4, 3), no, two(0, 1), code, code, code, code, "01",
			codes, two(0, 1), code, code, code, code}, invalid, "ends too early"},
		{"group 256", 4, 4, []string{no, no, "1", number(0, 3), no, code, "1 0 0 1", code, code, code, strings.Repeat(codes, 257)}, nil, ""},
		{"group 256 cut", 4, 4, []string{no, no, "1", number(0, 3), no, code, "1 0 0 1", code, code, code, strings.Repeat(codes, 256)}, invalid, "ends too early"},
		{"too large an entropy image", 4*128 + 1, 4 * 128, []string{no, no, "1", number(0, 3)}, nil, ""},
		{"large entropy image", 4 * 128, 4 * 128, []string{no, no, "1", number(0, 3)}, invalid, "ends too early"},
		{"many groups, cut", 4 * 512, 1, []string{no, no, "1", number(0, 3), entropy, strings.Repeat(codes, 512-1), "1"}, invalid, "ends too early"},
		{"too many codes, cut", 4 * 512, 1, []string{no, no, "1", number(0, 3), entropy, strings.Repeat(all+two(0, 1)+two(0, 1)+two(0, 1)+two(0, 1), 512-1), "1"}, nil, ""},

		{"two equal symbols", 4, 4, []string{no, no, no, two(7, 7)}, invalid, "a simple prefix code has the symbols [7 7] of 280"},
		{"symbol of another alphabet", 4, 4, []string{no, no, no, code, code, code, code, one(40)}, invalid, "a simple prefix code has the symbols [40] of 40"},
		{"no code of code lengths", 4, 4, []string{no, no, no, "0", number(0, 4), number(0, 12)}, invalid, "not complete"},
		{"no symbols", 4, 4, []string{no, no, no, "0", number(0, 4), number(0, 3), number(0, 3), number(1, 3), number(0, 3), "0"}, invalid, "not complete"},
		{"one symbol", 4, 4, []string{no, no, no, lengths, "1", number(0, 3), number(0, 2), "0", "1", number(0, 7), code, code, code, code}, nil, ""},
		{"incomplete", 4, 4, []string{no, no, no, "0", number(0, 4), number(0, 3), number(1, 3), number(2, 3), number(0, 3)}, invalid, "not complete"},
		{"over-subscribed", 4, 4, []string{no, no, no, "0", number(0, 4), number(1, 3), number(1, 3), number(1, 3), number(0, 3)}, invalid, "not complete"},
		{"too many symbols", 4, 4, []string{no, no, no, lengths, "1", number(7, 3), number(300, 16)}, invalid, "a prefix code has 302 symbols, at most 280"},
		{"too many repeats", 4, 4, []string{no, no, no, lengths, "0", "0", repeat(138), repeat(138), repeat(138)}, invalid, "a prefix code has lengths for 415 symbols, at most 280"},

		{"copy", 4, 4, []string{no, no, no, copies(0), code, code, code, code, "0000 1111 1111 1111"}, nil, ""},
		{"copy from before the image", 4, 4, []string{no, no, no, copies(0), code, code, code, code, "0001"}, invalid, "pixel 3 is copied from 4 pixels before"},
		{"copy from the left", 4, 4, []string{no, no, no, copies(0), code, code, code, "1001", "0111 1111 1111 1111"}, nil, ""},
		{"copy from nowhere", 4, 4, []string{no, no, no, copies(0), code, code, code, "1001", "1"}, invalid, "pixel 0 is copied from 1 pixels before"},
		{"long copy", 4, 4, []string{no, no, no, copies(7), code, code, code, "1001", "0", "1", number(2, 2)}, nil, ""},
		{"too long a copy", 4, 4, []string{no, no, no, copies(7), code, code, code, "1001", "0", "1", number(3, 2)}, invalid, "16 pixels are copied to the last 15"},
		// Two pixels are copied without any bits, but one is left.
		{"copies of no bits", 10, 1, []string{no, no, "1", number(0, 3), no, two(0, 1), code, code, code, code, "011", codes, pair, code, code, code, one(1)}, nil, ""},
		{"too many copies of no bits", 9, 1, []string{no, no, "1", number(0, 3), no, two(0, 1), code, code, code, code, "011", codes, pair, code, code, code, one(1)}, invalid, "2 pixels are copied to the last 1"},
		// Prefix 14 begins with 129, which is a distance of 9.
		{"copy from far", 4, 4, []string{no, no, no, copies(0), code, code, code, one(14), "0", "1", number(0, 6)}, invalid, "pixel 1 is copied from 9 pixels before"},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := binary.LittleEndian.AppendUint32([]byte{0x2f}, uint32(test.width-1|(test.height-1)<<14))
			data := vp8lBits(test.bits...)
			b := webpFile(webpPart{"VP8L", append(header, data...)})
			want(t, checkBytes(t, b, structural), nil, 0, "")
			want(t, checkBytes(t, b, pixels), test.kind, -1, test.detail)
			if test.kind == nil && len(data) > 1 && !strings.HasPrefix(test.name, "too") {
				// There is no byte too many.
				want(t, checkBytes(t, webpFile(webpPart{"VP8L", append(header, data[:len(data)-1]...)}), pixels), invalid, -1, "ends too early")
			}
			b = webpFile(vp8x(hasAlpha, test.width, test.height), webpPart{"ALPH", append([]byte{1}, data...)},
				webpPart{"VP8 ", vp8Frame(test.width, test.height, 0, nil, nil)})
			want(t, checkBytes(t, b, structural), nil, 0, "")
			want(t, checkBytes(t, b, pixels), test.kind, -1, test.detail)
		})
	}
}

// TestWebPNoBits reads large frames of few bytes, whose pixels take no bits. It would take
// minutes to count them one by one.
func TestWebPNoBits(t *testing.T) {
	const size = 1 << 14
	header := binary.LittleEndian.AppendUint32([]byte{0x2f}, size-1|(size-1)<<14)
	codes := strings.Repeat("1000 ", 5)
	for name, bits := range map[string]string{
		"one group":  "0 0 0" + codes,
		"two groups": "0 0 1 111 0" + "111" + number(0, 8) + number(1, 8) + codes[5:] + strings.Repeat("01", 32*32/2) + codes + codes,
		"transforms": "1 00 000 0" + codes + "1 10 000 0" + codes + "0 0 0" + codes,
	} {
		frame := anmf(0, 0, size, size, 0, webpPart{"VP8L", append(header, vp8lBits(bits)...)})
		parts := []webpPart{vp8x(hasAnim, size, size), {"ANIM", make([]byte, 6)}}
		for range 20 {
			parts = append(parts, frame)
		}
		if err := checkBytes(t, webpFile(parts...), pixels); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
	}
}

// TestWebPErrors has the source fail at every byte. Its error must come back.
func TestWebPErrors(t *testing.T) {
	failure := errors.New("failure")
	for name, b := range webpFiles(t) {
		for _, opts := range []verify.Options{structural, pixels, stripping} {
			for n := range len(b) + 1 {
				_, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(failure)), opts)
				if err != failure {
					t.Fatalf("%s after %d bytes: got %v, want %v", name, n, err, failure)
				}
			}
		}
	}
}

// FuzzWebP checks that a file that passes can be stripping, and is described as it is.
func FuzzWebP(f *testing.F) {
	for _, b := range webpFiles(f) {
		f.Add(b)
	}
	lossy := webpImage(f, "lossy", "VP8 ")
	anim := webpPart{"ANIM", make([]byte, 6)}
	exif := webpPart{"EXIF", exifBlock(6)}
	f.Add(webpFile(lossy, exif, webpPart{"abcd", []byte{1}}))
	f.Add(webpFile(vp8x(hasAnim|hasExif, 33, 20), anim, anmf(0, 0, 33, 20, 0, lossy, exif), exif, exif))
	f.Add(webpFile(webpPart{"VP8 ", vp8Frame(33, 20, 1, []int{5}, make([]byte, 100))}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if string(b[:min(4, len(b))]) != "RIFF" {
			return
		}
		meta, err := verify.Copy(io.Discard, bytes.NewReader(b), structural)
		deep := checkBytes(t, b, pixels)
		if err != nil {
			if deep == nil {
				t.Errorf("structure: got %v, want no error as for pixels", err)
			}
			if stripErr := checkBytes(t, b, stripping); stripErr == nil {
				t.Errorf("stripped: got no error, want %v", err)
			}
			return
		}
		if got, err := verify.Describe(bytes.NewReader(b)); err != nil || got != meta {
			t.Errorf("Describe: got %v, %v, want %v", got, err, meta)
		}
		out := webpStrip(t, b)
		if again := checkBytes(t, out, pixels); (again == nil) != (deep == nil) {
			t.Errorf("pixels of the stripped file: got %v, want %v", again, deep)
		}
	})
}

// BenchmarkWebP validates a file of 64 MiB of image data that is not looked into, and one
// of coefficients.
func BenchmarkWebP(b *testing.B) {
	lossless := webpImage(b, "lossless", "VP8L")
	random := make([]byte, 8<<20)
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	run := func(name string, file []byte, opts verify.Options) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := verify.Copy(io.Discard, bytes.NewReader(file), opts); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	large := webpFile(webpPart{"VP8L", append(lossless.data, make([]byte, 64<<20)...)})
	run("structural", large, structural)
	run("stripped", large, stripping)
	run("metadata", webpFile(lossless, webpPart{"EXIF", make([]byte, 64<<20)}), stripping)
	// These coefficients are the most likely ones, and then there are no more.
	run("modes", webpFile(webpPart{"VP8 ", vp8Frame2(4096, 4096, make([]byte, 1<<18), random)}), pixels)
	for _, name := range []string{"lossy", "lossless"} {
		run(name, webpFiles(b)[name], pixels)
	}
}
