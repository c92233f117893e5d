package verify_test

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"image/gif"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

// gifScreen returns a header and a logical screen descriptor, with a global colour table of
// 1<<bits entries if bits is positive.
func gifScreen(width, height uint16, bits int) []byte {
	b := binary.LittleEndian.AppendUint16([]byte("GIF89a"), width)
	b = binary.LittleEndian.AppendUint16(b, height)
	if bits == 0 {
		return append(b, 0, 0, 0)
	}
	return append(append(b, 0x80|byte(bits-1), 0, 0), gifTable(bits)...)
}

func gifTable(bits int) []byte {
	var b []byte
	for i := range 1 << bits {
		b = append(b, byte(i), byte(3*i), byte(200-i))
	}
	return b
}

// gifFrame returns an image descriptor with flags, followed by parts.
func gifFrame(left, top, width, height uint16, flags byte, parts ...[]byte) []byte {
	b := []byte{0x2c}
	for _, v := range []uint16{left, top, width, height} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return slices.Concat(append(b, flags), slices.Concat(parts...))
}

// subBlocks splits data into sub-blocks of at most size bytes, and terminates them.
func subBlocks(data []byte, size int) []byte {
	var b []byte
	for part := range slices.Chunk(data, size) {
		b = append(append(b, byte(len(part))), part...)
	}
	return append(b, 0)
}

// gifCodes returns image data with the codes, whose widths grow as appendix F says.
func gifCodes(size int, codes ...int) []byte {
	return slices.Concat([]byte{byte(size)}, subBlocks(packCodes(size, codes...), 255))
}

func packCodes(size int, codes ...int) []byte {
	var b []byte
	var bits uint32
	n, width, next := 0, size+1, 1<<size+1
	for _, c := range codes {
		bits |= uint32(c) << n
		for n += width; n >= 8; n -= 8 {
			b = append(b, byte(bits))
			bits >>= 8
		}
		if c == 1<<size {
			width, next = size+1, 1<<size+1
		} else if next < 4096 {
			if next++; next == 1<<width && width < 12 {
				width++
			}
		}
	}
	if n > 0 {
		b = append(b, byte(bits))
	}
	return b
}

// gifPixels returns the image data of pixels.
func gifPixels(size int, pixels []byte) []byte {
	return slices.Concat([]byte{byte(size)}, subBlocks(compressGIF(size, pixels), 255))
}

func compressGIF(size int, pixels []byte) []byte {
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, size)
	w.Write(pixels)
	w.Close()
	return b.Bytes()
}

// randomPixels returns n values of a number of bits.
func randomPixels(n, bits int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(n), uint64(bits)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.IntN(1 << bits))
	}
	return b
}

func gifControl(flags byte, delay uint16, transparent byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte{0x21, 0xf9, 4, flags}, delay)
	return append(b, transparent, 0)
}

func gifExtension(label byte, blocks ...string) []byte {
	b := []byte{0x21, label}
	for _, s := range blocks {
		b = append(append(b, byte(len(s))), s...)
	}
	return append(b, 0)
}

var (
	gifLoop    = gifExtension(0xff, "NETSCAPE2.0", "\x01\x05\x00")
	gifComment = gifExtension(0xfe, "made by me", "at home")
	gifICC     = gifExtension(0xff, "ICCRGBG1012", "a profile", "in two blocks")
	gifXMP     = gifExtension(0xff, "XMP DataXMP", "<x:xmpmeta/>")
	gifText    = gifExtension(0x01, "\x00\x00\x00\x00\x05\x00\x03\x00\x01\x01\x00\x01", "a text")
	gifOther   = gifExtension(0x77, "who knows")
	gifTrailer = []byte{0x3b}
)

func gif87(b []byte) []byte { return append([]byte("GIF87a"), b[6:]...) }

// gifs has valid images.
var gifs = func() map[string][]byte {
	dot := gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 1, 5))
	five := func(left, top uint16) []byte {
		return gifFrame(left, top, 5, 3, 0, gifPixels(2, randomPixels(15, 2)))
	}
	end := packCodes(2, 4, 1, 5) // which fill a byte and a bit
	files := map[string][]byte{
		"1x1":             slices.Concat(gifScreen(1, 1, 2), dot, gifTrailer),
		"87a":             gif87(slices.Concat(gifScreen(1, 1, 2), dot, gifTrailer)),
		"interlaced":      slices.Concat(gifScreen(5, 9, 8), gifFrame(0, 0, 5, 9, 0x40, gifPixels(8, randomPixels(45, 8))), gifTrailer),
		"local table":     slices.Concat(gifScreen(5, 3, 0), gifFrame(0, 0, 5, 3, 0x81, gifTable(2), gifPixels(2, randomPixels(15, 2))), gifTrailer),
		"both tables":     slices.Concat(gifScreen(5, 3, 1), gifFrame(0, 0, 5, 3, 0x87, gifTable(8), gifPixels(8, randomPixels(15, 8))), gifTrailer),
		"no table":        slices.Concat(gifScreen(1, 1, 0), dot, gifTrailer),
		"transparent":     slices.Concat(gifScreen(5, 3, 2), gifControl(1, 0, 2), five(0, 0), gifTrailer),
		"animated":        slices.Concat(gifScreen(5, 3, 2), gifLoop, gifControl(4, 7, 0), five(0, 0), gifControl(9, 8, 1), five(0, 0), gifControl(12, 9, 0), gifFrame(1, 1, 1, 1, 0, gifCodes(2, 4, 3, 5)), gifTrailer),
		"all extensions":  slices.Concat(gifScreen(5, 3, 2), gifComment, gifLoop, gifICC, gifXMP, gifOther, gifControl(1, 3, 2), gifComment, five(0, 0), gifControl(0, 2, 0), gifText, gifOther, gifControl(8, 1, 0), five(0, 0), gifComment, gifTrailer),
		"empty frame":     slices.Concat(gifScreen(1, 1, 2), dot, gifFrame(0, 0, 0, 1, 0, gifCodes(2, 4, 5)), gifFrame(0, 0, 1, 0, 0, gifCodes(2)), gifTrailer),
		"only empty":      slices.Concat(gifScreen(1, 1, 2), gifFrame(1, 1, 0, 0, 0, gifCodes(2, 5)), gifTrailer),
		"no end code":     slices.Concat(gifScreen(4, 1, 2), gifFrame(0, 0, 4, 1, 0, gifCodes(2, 4, 1, 2, 3, 1)), gifTrailer),
		"no clear code":   slices.Concat(gifScreen(3, 1, 2), gifFrame(0, 0, 3, 1, 0, gifCodes(2, 1, 2, 3, 5)), gifTrailer),
		"clear codes":     slices.Concat(gifScreen(3, 1, 2), gifFrame(0, 0, 3, 1, 0, gifCodes(2, 4, 4, 1, 4, 2, 4, 4, 3, 4, 4, 5)), gifTrailer),
		"own code":        slices.Concat(gifScreen(7, 1, 2), gifFrame(0, 0, 7, 1, 0, gifCodes(2, 4, 1, 6, 7, 1, 5)), gifTrailer),
		"code size 1":     slices.Concat(gifScreen(3, 1, 1), gifFrame(0, 0, 3, 1, 0, gifCodes(1, 2, 1, 0, 1, 3)), gifTrailer),
		"index too large": slices.Concat(gifScreen(1, 1, 1), gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 3, 5)), gifTrailer),
		"bits after end":  slices.Concat(gifScreen(1, 1, 2), gifFrame(0, 0, 1, 1, 0, []byte{2, 2, end[0], end[1] | 0xfe, 0}), gifTrailer),
		"byte after end":  slices.Concat(gifScreen(1, 1, 2), gifFrame(0, 0, 1, 1, 0, []byte{2, 2, end[0], end[1], 1, 'x', 0}), gifTrailer),
		"block after end": slices.Concat(gifScreen(1, 1, 2), gifFrame(0, 0, 1, 1, 0, []byte{2, 5, end[0], end[1], 'x', 'y', 'z', 0}), gifTrailer),
		"more after end":  slices.Concat(gifScreen(1, 1, 2), gifFrame(0, 0, 1, 1, 0, []byte{2, 3, end[0], end[1], 'x', 2, 'y', 'z', 1, '!', 0}), gifTrailer),
		"zeros after end": slices.Concat(gifScreen(1, 1, 2), dot, gifTrailer, make([]byte, 9)),
		"screen 0 x 0":    slices.Concat(gifScreen(0, 0, 2), five(0, 0), gifTrailer),
		"outside":         slices.Concat(gifScreen(4, 9, 2), five(2, 1), five(6, 7), gifTrailer),
		"far outside":     slices.Concat(gifScreen(1, 1, 2), five(20, 10), gifTrailer),
		"application 10":  slices.Concat(gifScreen(1, 1, 2), gifExtension(0xff, "NETSCAPE2.", "\x01\x00\x00"), dot, gifTrailer),
		"application 0":   slices.Concat(gifScreen(1, 1, 2), gifExtension(0xff), dot, gifTrailer),
		"loops":           slices.Concat(gifScreen(1, 1, 2), gifExtension(0xff, "ANIMEXTS1.0", "\x01\x02\x00", "\x02\x00\x00\x00\x00"), gifExtension(0xff, "NETSCAPE2.0", "\x02\x00\x00\x00\x00", "\x01\x03\x00"), gifExtension(0xff, "NETSCAPE2.0"), gifExtension(0xff, "NETSCAPE2.0", "\x02ab", "cd"), dot, gifTrailer),
		"large code":      slices.Concat(gifScreen(100, 99, 8), gifFrame(0, 0, 100, 99, 0, gifPixels(8, randomPixels(9900, 8))), gifTrailer),
	}
	for size := 2; size <= 8; size++ {
		name := fmt.Sprintf("depth %d", size)
		files[name] = slices.Concat(gifScreen(40, 30, size), gifFrame(0, 0, 40, 30, 0, gifPixels(size, randomPixels(1200, size))), gifTrailer)
	}
	return files
}()

// gifSizes has the sizes of those gifs whose logical screen does not say it.
var gifSizes = map[string][2]int{
	"screen 0 x 0": {5, 3},
	"outside":      {7, 9},
	"far outside":  {25, 13},
}

func TestGIF(t *testing.T) {
	for name, b := range gifs {
		t.Run(name, func(t *testing.T) {
			size, ok := gifSizes[name]
			if !ok {
				size = [2]int{int(b[6]), int(b[8])}
			}
			meta := verify.Meta{Type: "image/gif", Width: size[0], Height: size[1]}
			for _, opts := range []verify.Options{structural, pixels} {
				for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
					var out bytes.Buffer
					got, err := verify.Copy(&out, r, opts)
					want(t, err, nil, 0, "")
					if got != meta {
						t.Errorf("got %v, want %v", got, meta)
					}
					if !bytes.Equal(out.Bytes(), b) {
						t.Errorf("got another copy, want the bytes of the file")
					}
				}
			}
			if got, err := verify.Describe(bytes.NewReader(b)); err != nil || got != meta {
				t.Errorf("Describe: got %v, %v, want %v", got, err, meta)
			}
			againstImageGIF(t, b)
		})
	}
}

// TestGIFSubBlocks splits image data into sub-blocks at every byte, and into small ones.
func TestGIFSubBlocks(t *testing.T) {
	data := compressGIF(3, randomPixels(300, 3))
	try := func(blocks []byte) {
		t.Helper()
		b := slices.Concat(gifScreen(30, 10, 3), gifFrame(0, 0, 30, 10, 0, []byte{3}, blocks), gifTrailer)
		for _, opts := range []verify.Options{structural, pixels, stripping} {
			want(t, checkBytes(t, b, opts), nil, 0, "")
		}
		want(t, checkBytes(t, slices.Concat(b[:len(b)-2], []byte{1, 1}, b[len(b)-2:]), pixels), nil, 0, "")
		againstImageGIF(t, b)
	}
	for size := 1; size <= 17; size++ {
		try(subBlocks(data, size))
	}
	for i := 1; i < len(data); i++ {
		first := subBlocks(data[:i], 255)
		try(append(first[:len(first)-1], subBlocks(data[i:], 255)...))
	}
}

// TestGIFFullTable has more codes than the table holds, and clear codes at all distances.
func TestGIFFullTable(t *testing.T) {
	for _, size := range []int{2, 5, 8} {
		for _, codes := range []int{4090 - 1<<size, 4094 - 1<<size, 4095 - 1<<size, 4096 - 1<<size, 6000, 20_000} {
			list := []int{1 << size}
			for i := range codes {
				list = append(list, i*7%(1<<size))
			}
			list = append(list, 4000, 4001, 1<<size, 1, 1<<size+2, 1<<size+1)
			if codes < 4003 {
				list = slices.Delete(list, codes+1, codes+3)
			}
			// image/gif says how many pixels there are.
			n, err := io.Copy(io.Discard, lzw.NewReader(bytes.NewReader(packCodes(size, list...)), lzw.LSB, size))
			if err != nil {
				t.Fatal(err)
			}
			for d := range int64(3) {
				b := slices.Concat(gifScreen(uint16(n), 1, 8), gifFrame(0, 0, uint16(n+d-1), 1, 0, gifCodes(size, list...)), gifTrailer)
				if err := checkBytes(t, b, pixels); (err == nil) != (d == 1) {
					t.Errorf("size %d, %d codes: got %v for %d of %d pixels", size, codes, err, n+d-1, n)
				}
			}
		}
	}
}

// gifWrong has images that break a rule.
var gifWrong = []struct {
	name   string
	b      []byte
	pixels bool // VerifyPixels must find it
	offset int
	need   int // bytes after the wrong one that are read before it is judged
	part   string
}{
	{"version", []byte("GIF88a123456"), false, 3, 8, `GIF: version "88a", want 87a or 89a`},
	{"no image", slices.Concat(gifScreen(1, 1, 1), gifComment, gifTrailer), false, 41, 0, "no image comes before the trailer"},
	{"nothing to show", slices.Concat(gifScreen(0, 2, 1), gifFrame(0, 0, 0, 1, 0, gifCodes(2, 5)), gifTrailer), false, 19, 9, "the first image are 0 x 2, want"},
	{"nothing to show, either", slices.Concat(gifScreen(2, 0, 1), gifFrame(0, 0, 1, 0, 0, gifCodes(2, 5)), gifTrailer), false, 19, 9, "the first image are 2 x 0, want"},
	{"block", slices.Concat(gifScreen(1, 1, 1), []byte{0}), false, 19, 0, "a block begins with 0x00, want 0x21"},
	{"block after an image", slices.Concat(gifs["1x1"][:len(gifs["1x1"])-1], []byte{0, 0x3b}), false, len(gifs["1x1"]) - 1, 0, "a block begins with 0x00, want 0x21"},
	{"control size 3", slices.Concat(gifScreen(1, 1, 1), gifExtension(0xf9, "abc")), false, 21, 0, "graphic control extension: size 3, want 4"},
	{"control size 5", slices.Concat(gifScreen(1, 1, 1), gifExtension(0xf9, "abcde")), false, 21, 0, "graphic control extension: size 5, want 4"},
	{"control without size", slices.Concat(gifScreen(1, 1, 1), gifExtension(0xf9)), false, 21, 0, "graphic control extension: size 0, want 4"},
	{"control with more", slices.Concat(gifScreen(1, 1, 1), gifExtension(0xf9, "abcd", "e")), false, 26, 0, "graphic control extension: block terminator 1, want 0"},
	{"text size", slices.Concat(gifScreen(1, 1, 1), gifExtension(0x01, "abc")), false, 21, 0, "plain text extension: size 3, want 12"},
	{"code size 0", slices.Concat(gifScreen(1, 1, 1), gifFrame(0, 0, 1, 1, 0, []byte{0})), false, 29, 0, "LZW minimum code size 0, want 1 to 8"},
	{"code size 9", slices.Concat(gifScreen(1, 1, 1), gifFrame(0, 0, 1, 1, 0, []byte{9})), false, 29, 0, "LZW minimum code size 9, want 1 to 8"},
	{"bytes after the trailer", append(bytes.Clone(gifs["1x1"]), "\x00secret"...), false, len(gifs["1x1"]), 1, "the picture is whole, but 7 bytes follow its end, maybe private; open it and save it as a new file: GIF: only zeros"},
	{"byte after the trailer", append(bytes.Clone(gifs["1x1"]), 1), false, len(gifs["1x1"]), 0, "but 1 byte follows its end"},

	{"too many pixels", slices.Concat(gifScreen(1, 1, 1), gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 1, 1, 5)), gifTrailer), true, 32, 0, "frame 1: more pixels than the size of the image says"},
	{"too many pixels in a code", slices.Concat(gifScreen(2, 1, 1), gifFrame(0, 0, 2, 1, 0, gifCodes(2, 4, 1, 6, 5)), gifTrailer), true, 32, 0, "frame 1: more pixels"},
	{"pixels in an empty frame", slices.Concat(gifScreen(2, 1, 1), gifFrame(0, 0, 0, 1, 0, gifCodes(2, 4, 1, 5)), gifTrailer), true, 31, 0, "frame 1: more pixels"},
	{"too few pixels", slices.Concat(gifScreen(2, 2, 1), gifFrame(0, 0, 2, 2, 0, gifCodes(2, 4, 1, 5)), gifTrailer), true, 32, 0, "frame 1: 3 pixels are missing"},
	{"too few pixels, more bytes", slices.Concat(gifScreen(2, 2, 1), gifFrame(0, 0, 2, 2, 0, []byte{2, 9, 0x4c, 1, 'm', 'o', 'r', 'e', 1, 2, 3, 0}), gifTrailer), true, 32, 0, "frame 1: 3 pixels are missing"},
	{"too few pixels, no end code", slices.Concat(gifScreen(2, 1, 1), gifFrame(0, 0, 2, 1, 0, gifCodes(2, 4, 1)), gifTrailer), true, 32, 0, "frame 1: 1 pixels are missing"},
	{"no pixels", slices.Concat(gifScreen(2, 1, 1), gifFrame(0, 0, 2, 1, 0, gifCodes(2)), gifTrailer), true, 30, 0, "frame 1: 2 pixels are missing"},
	{"too few in the second frame", slices.Concat(gifScreen(1, 1, 1), gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 1, 5)), gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 5)), gifTrailer), true, 46, 0, "frame 2: 1 pixels are missing"},
	{"first code undefined", slices.Concat(gifScreen(2, 1, 1), gifFrame(0, 0, 2, 1, 0, gifCodes(2, 4, 6, 5)), gifTrailer), true, 31, 0, "frame 1: LZW code 6, at most 5 is possible"},
	{"later code undefined", slices.Concat(gifScreen(9, 1, 1), gifFrame(0, 0, 9, 1, 0, gifCodes(2, 4, 1, 7, 5)), gifTrailer), true, 32, 0, "frame 1: LZW code 7, at most 6 is possible"},
	{"code undefined after a clear code", slices.Concat(gifScreen(9, 1, 1), gifFrame(0, 0, 9, 1, 0, gifCodes(2, 4, 1, 6, 4, 6)), gifTrailer), true, 32, 0, "frame 1: LZW code 6, at most 5 is possible"},
}

func TestGIFWrong(t *testing.T) {
	never := readerFunc(func([]byte) (int, error) {
		t.Error("got a Read after the wrong byte, want none")
		return 0, io.EOF
	})
	for _, test := range gifWrong {
		t.Run(test.name, func(t *testing.T) {
			opts := []verify.Options{structural, pixels, stripping}
			if test.pixels {
				want(t, checkBytes(t, test.b, structural), nil, 0, "")
				opts = opts[1:]
			}
			if strings.Contains(test.name, "after the trailer") {
				opts = opts[:2] // it is stripped
				want(t, checkBytes(t, test.b, stripping), nil, 0, "")
			}
			for _, opts := range opts {
				want(t, checkBytes(t, test.b, opts), invalid, int64(test.offset), test.part)
				want(t, check(t, iotest.OneByteReader(bytes.NewReader(test.b)), opts), invalid, int64(test.offset), test.part)
				if !strings.Contains(test.name, "after the trailer") { // Copy counts these
					b := test.b[:test.offset+1+test.need]
					want(t, check(t, io.MultiReader(bytes.NewReader(b), never), opts), invalid, int64(test.offset), test.part)
				}
			}
		})
	}
	b := append(bytes.Clone(gifs["1x1"]), 0, 0, 'x')
	err := check(t, io.MultiReader(bytes.NewReader(b), iotest.ErrReader(errors.New("odd"))), structural)
	want(t, err, invalid, int64(len(b)-3), "but at least 3 bytes follow its end")
}

// TestGIFTruncated cuts at every byte. Only a file that ends in padding is valid again.
func TestGIFTruncated(t *testing.T) {
	odd := errors.New("odd")
	for name, b := range gifs {
		for n := range len(b) {
			if len(b) > 1000 && n%97 != 0 {
				continue
			}
			again := name == "zeros after end" && n >= len(b)-9
			for _, opts := range []verify.Options{structural, pixels, stripping} {
				err := checkBytes(t, b[:n], opts)
				switch {
				case again:
					want(t, err, nil, 0, "")
				case n == 0:
					want(t, err, unsupported, 0, "empty")
				default:
					want(t, err, invalid, int64(n), "cut short; send all of it: GIF: ")
				}
				if t.Failed() {
					t.Fatalf("%s: cut at %d of %d bytes with %+v", name, n, len(b), opts)
				}
				for _, r := range []io.Reader{
					io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(odd)),
					iotest.DataErrReader(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(odd))),
				} {
					if _, err := verify.Copy(io.Discard, r, opts); err != odd {
						t.Fatalf("%s: error after %d of %d bytes: got %v, want %v", name, n, len(b), err, odd)
					}
				}
			}
		}
	}
	for part, b := range map[string][]byte{
		"3 of 6 bytes of the header are missing":                    []byte("GIF"),
		"2 of 7 bytes of the logical screen descriptor are missing": gifs["1x1"][:11],
		"5 of 12 bytes of the global colour table are missing":      gifs["1x1"][:20],
		"no trailer": gifs["1x1"][:25],
		"9 of 9 bytes of an image descriptor are missing":    gifs["1x1"][:26],
		"10 of 12 bytes of a local colour table are missing": gifs["local table"][:25],
		"no image data":                           gifs["1x1"][:35],
		"no block terminator":                     gifs["1x1"][:len(gifs["1x1"])-2],
		"1 bytes of a data sub-block are missing": gifs["1x1"][:len(gifs["1x1"])-3],
	} {
		for _, opts := range []verify.Options{structural, pixels, stripping} {
			want(t, checkBytes(t, b, opts), invalid, int64(len(b)), "cut short; send all of it: GIF: "+part)
		}
	}
}

// TestGIFBitFlips flips every bit. A GIF has no checksums, so most flips in colours,
// sizes and codes give another valid image.
func TestGIFBitFlips(t *testing.T) {
	for _, test := range []struct {
		name  string
		opts  verify.Options
		least int // per cent
	}{
		{"structural", structural, 15},
		{"pixels", pixels, 35},
	} {
		found, all := 0, 0
		for _, b := range gifs {
			if len(b) > 500 {
				continue
			}
			for i := range 8 * len(b) {
				flipped := bytes.Clone(b)
				flipped[i/8] ^= 1 << (i % 8)
				all++
				if checkBytes(t, flipped, test.opts) != nil {
					found++
				}
			}
		}
		rate := 100 * found / all
		t.Logf("%s: %d of %d flipped bits found, %d %%", test.name, found, all, rate)
		if rate < test.least {
			t.Errorf("%s: got %d %% of flipped bits found, want at least %d", test.name, rate, test.least)
		}
	}
}

func TestGIFLimits(t *testing.T) {
	dot := gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 1, 5))
	big := gifFrame(3, 2, 10, 10, 0, []byte{2})
	for _, test := range []struct {
		name              string
		b                 []byte
		pixels, animation int64
		kind              error
		offset            int64
	}{
		{"screen, allowed", slices.Concat(gifScreen(10, 7, 1), dot, gifTrailer), 70, 0, nil, 0},
		{"screen", gifScreen(10, 7, 0)[:13], 69, 0, tooMany, 6},
		{"largest screen", slices.Concat(gifScreen(65535, 65535, 0), dot, gifTrailer), 65535 * 65535, 0, nil, 0},
		{"canvas, allowed", slices.Concat(gifScreen(1, 1, 1), gifFrame(3, 2, 1, 1, 0, gifCodes(2, 4, 1, 5)), gifTrailer), 12, 0, nil, 0},
		{"canvas", slices.Concat(gifScreen(1, 1, 1), big[:10]), 155, 0, tooMany, 19},
		{"later frame", slices.Concat(gifScreen(1, 1, 1), dot, big[:10]), 99, 0, tooMany, 34},
		{"two frames, allowed", slices.Concat(gifScreen(10, 7, 1), dot, dot, gifTrailer), 0, 140, nil, 0},
		{"two frames", slices.Concat(gifScreen(10, 7, 1), dot, dot[:10]), 0, 139, tooMany, 34},
		{"one frame", slices.Concat(gifScreen(10, 7, 1), dot, gifTrailer), 0, 1, nil, 0},
		{"three frames", slices.Concat(gifScreen(10, 7, 1), dot, dot, dot[:10]), 0, 140, tooMany, 49},
	} {
		t.Run(test.name, func(t *testing.T) {
			want(t, checkBytes(t, test.b, verify.Options{MaxPixels: test.pixels, MaxAnimationPixels: test.animation}), test.kind, test.offset, "")
			// Limits do not matter to Describe.
			if _, err := verify.Describe(bytes.NewReader(gifs["1x1"])); err != nil {
				t.Errorf("Describe: got %v, want no error", err)
			}
		})
	}
}

// TestGIFDescribe checks that Describe ends at the first image descriptor.
func TestGIFDescribe(t *testing.T) {
	b := slices.Concat(gifScreen(4, 9, 2), gifComment, gifXMP, gifFrame(2, 1, 5, 3, 0))
	never := readerFunc(func([]byte) (int, error) {
		t.Error("got a Read after the descriptor, want none")
		return 0, io.EOF
	})
	got, err := verify.Describe(io.MultiReader(bytes.NewReader(b), never))
	if meta := (verify.Meta{Type: "image/gif", Width: 7, Height: 9}); err != nil || got != meta {
		t.Errorf("got %v, %v, want %v", got, err, meta)
	}
	if got, err := verify.Describe(bytes.NewReader(b[:len(b)-1])); err != nil || got != (verify.Meta{Type: "image/gif"}) {
		t.Errorf("half a descriptor: got %v, %v, want the type alone", got, err)
	}
}

// TestGIFStrip says what is left of images.
func TestGIFStrip(t *testing.T) {
	five := gifFrame(0, 0, 5, 3, 0, gifPixels(2, randomPixels(15, 2)))
	dot := gifFrame(0, 0, 1, 1, 0, gifCodes(2, 4, 1, 5))
	end := packCodes(2, 4, 1, 5)
	screen := gifScreen(1, 1, 2)
	for name, left := range map[string][]byte{
		"1x1":      gifs["1x1"],
		"animated": gifs["animated"],
		// A graphic control extension stays before the image that decoders apply it to.
		"all extensions":  slices.Concat(gifScreen(5, 3, 2), gifLoop, gifICC, gifControl(1, 3, 2), five, gifControl(0, 2, 0), gifControl(8, 1, 0), five, gifTrailer),
		"bits after end":  gifs["1x1"],
		"byte after end":  gifs["1x1"],
		"block after end": slices.Concat(screen, gifFrame(0, 0, 1, 1, 0, []byte{2, 5, end[0], end[1], 0, 0, 0, 0}), gifTrailer),
		"more after end":  slices.Concat(screen, gifFrame(0, 0, 1, 1, 0, []byte{2, 3, end[0], end[1], 0, 0}), gifTrailer),
		"zeros after end": gifs["1x1"],
		"application 10":  gifs["1x1"],
		"application 0":   gifs["1x1"],
		"loops":           slices.Concat(screen, gifExtension(0xff, "ANIMEXTS1.0", "\x01\x02\x00"), dot, gifTrailer),
		"no end code":     gifs["no end code"],
		"large code":      gifs["large code"],
	} {
		for _, r := range []io.Reader{bytes.NewReader(gifs[name]), iotest.OneByteReader(bytes.NewReader(gifs[name])), iotest.HalfReader(bytes.NewReader(gifs[name]))} {
			var out bytes.Buffer
			if _, err := verify.Copy(&out, r, stripping); err != nil {
				t.Errorf("%s: got %v, want no error", name, err)
			}
			if !bytes.Equal(out.Bytes(), left) {
				t.Errorf("%s: got\n%q, want\n%q", name, out.Bytes(), left)
			}
		}
	}
	for _, b := range [][]byte{gifComment, gifXMP, gifText, gifOther, gifExtension(0xff), gifExtension(0xff, "short", "text"), gifExtension(0xfe),
		gifExtension(0xff, "NETSCAPE2.0"), gifExtension(0xff, "NETSCAPE2.0", "\x02ab"), gifExtension(0xff, "NETSCAPE2.0", "\x01abc")} {
		for _, control := range [][]byte{nil, gifControl(1, 2, 3)} {
			in, out := slices.Concat(screen, b, control, dot, b, gifTrailer), slices.Concat(screen, control, dot, gifTrailer)
			if left, _, err := strip(in); err != nil || !bytes.Equal(left, out) {
				t.Errorf("%q: got %q, %v, want %q", b, left, err, out)
			}
		}
	}
	secret := strings.Repeat("secret", 50_000)
	b := slices.Concat(screen, gifExtension(0xfe), []byte{0x21, 0xfe}, subBlocks([]byte(secret), 255), []byte{0x21, 0xff}, subBlocks([]byte(secret), 200),
		dot[:len(dot)-1], subBlocks([]byte(secret), 255), gifTrailer, []byte(secret))
	var out bytes.Buffer
	if _, err := verify.Copy(&out, bytes.NewReader(b), stripping); err != nil || !bytes.Equal(out.Bytes(), gifs["1x1"]) {
		t.Errorf("got %d bytes, %v, want the %d bytes of the image alone", out.Len(), err, len(gifs["1x1"]))
	}
}

// TestGIFMemory reads endless images and limits what is allocated.
func TestGIFMemory(t *testing.T) {
	frame := slices.Concat(gifControl(0, 1, 0), gifComment, gifFrame(0, 0, 40, 30, 0, gifPixels(8, randomPixels(1200, 8))))
	for name, parts := range map[string][2][]byte{
		"frames":     {gifScreen(40, 30, 8), frame},
		"extensions": {gifScreen(40, 30, 8), slices.Concat(gifXMP, gifLoop, gifOther)},
		"one frame":  {slices.Concat(gifScreen(40, 30, 8), gifFrame(0, 0, 65535, 65535, 0, []byte{8})), {4, 0, 3, 0, 0x10}}, // clear codes
		"sub-blocks": {slices.Concat(gifScreen(40, 30, 8), []byte{0x21, 0xfe}), subBlocks(make([]byte, 256), 255)[:256]},
		"padding":    {gifs["1x1"], make([]byte, 1000)},
		"loop":       {slices.Concat(gifScreen(40, 30, 8), gifLoop[:len(gifLoop)-1]), {1, 2}},
	} {
		for _, opts := range []verify.Options{structural, pixels, stripping} {
			const size = 8 << 20 / stride
			r := io.LimitReader(io.MultiReader(bytes.NewReader(parts[0]), &repeated{b: parts[1]}), size)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := check(t, r, opts)
			runtime.ReadMemStats(&after)
			if name == "one frame" && (opts.VerifyPixels || opts.StripMetadata) {
				want(t, err, invalid, -1, "frame 1: ")
			} else if name == "padding" {
				want(t, err, nil, 0, "")
			} else {
				want(t, err, invalid, size, "cut short")
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
				t.Errorf("%s: got %d bytes allocated for %d, want at most 256 KiB", name, n, size)
			}
		}
	}
}

// TestGIFAllocs checks that the table of codes is used again.
func TestGIFAllocs(t *testing.T) {
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		want(t, checkBytes(t, gifs["animated"], pixels), nil, 0, "")
	}
	runtime.ReadMemStats(&after)
	// Under the race detector, a pool drops a quarter of what it gets.
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 6<<10 {
		t.Errorf("got %d bytes allocated for an image, want at most 6 KiB", n)
	}
}

// A repeated reads b again and again.
type repeated struct {
	b []byte
	n int
}

func (r *repeated) Read(b []byte) (n int, err error) {
	for n < len(b) {
		m := copy(b[n:], r.b[r.n:])
		n, r.n = n+m, (r.n+m)%len(r.b)
	}
	return n, nil
}

// differentGIF returns why image/gif decodes completely what Copy refuses.
func differentGIF(b []byte) string {
	if c, err := gif.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height == 0 {
		return "a canvas without pixels; image/gif takes it"
	}
	// image/gif reads extensions so.
	p := 13
	if b[10]&0x80 != 0 {
		p += 3 << (1 + b[10]&7)
	}
	blocks := func() {
		for b[p] != 0 {
			p += 1 + int(b[p])
		}
		p++
	}
	for b[p] != 0x3b {
		switch {
		case b[p] == 0x2c:
			if p += 10; b[p-1]&0x80 != 0 {
				p += 3 << (1 + b[p-1]&7)
			}
			p++
		case b[p+1] == 0x01 && b[p+2] != 12:
			return "a plain text extension whose first block has no 12 bytes; image/gif reads 12"
		case b[p+1] == 0xff && b[p+2] == 0:
			return "an application extension without a name; image/gif reads on after its terminator"
		default:
			p += 2
		}
		blocks()
	}
	return ""
}

// sloppyGIF lists why image/gif does not decode what Copy accepts.
var sloppyGIF = []string{
	"gif: frame bounds larger than image bounds",        // browsers enlarge the canvas or cut the frame
	"gif: no color table",                               // section 18 leaves the colours to the decoder
	"gif: invalid pixel value",                          // browsers paint it black
	"gif: unknown extension",                            // decoders should skip it
	"gif: pixel size in decode out of range: 1",         // browsers show it
	"gif: too much image data",                          // more than one byte after the end code
	"gif: reading extension: unexpected EOF",            // an application extension without a name
	"gif: unknown block type",                           // the same
	"gif: reading frames: unexpected EOF",               // the same
	"gif: invalid graphic control extension block size", // the same
	"gif: missing image data",                           // the same
	"gif: reading image data",                           // the same
	"gif: can't read image descriptor",                  // the same
	"gif: reading color table",                          // the same
	"gif: not enough image data",                        // the same
}

// againstImageGIF compares with image/gif and checks what is left of a stripped image.
func againstImageGIF(t *testing.T, b []byte) {
	t.Helper()
	r := bytes.NewReader(b)
	decoded, err := gif.DecodeAll(r)
	complete := err == nil && len(bytes.Trim(b[len(b)-r.Len():], "\x00")) == 0
	s, p := checkBytes(t, b, structural), checkBytes(t, b, pixels)
	left, meta, m := strip(b)
	if s != nil && p == nil || (p == nil) != (m == nil) && s == nil {
		t.Fatalf("got %v for the structure, %v for pixels, %v for stripping", s, p, m)
	}
	if complete && p != nil {
		if why := differentGIF(b); why == "" {
			t.Fatalf("got %v, want no error as from image/gif", p)
		}
		return
	}
	if err != nil && p == nil && !slices.ContainsFunc(sloppyGIF, func(s string) bool { return strings.HasPrefix(err.Error(), s) }) {
		t.Fatalf("got no error, want one as from image/gif: %v", err)
	}
	for i, opts := range []verify.Options{structural, pixels, stripping} {
		if err := check(t, iotest.OneByteReader(bytes.NewReader(b)), opts); fmt.Sprint(err) != fmt.Sprint([]error{s, p, m}[i]) {
			t.Fatalf("byte by byte: got %v, want %v as in one piece", err, []error{s, p, m}[i])
		}
	}
	if m != nil {
		return
	}
	got, metaErr := verify.Describe(bytes.NewReader(b))
	if metaErr != nil || got != meta {
		t.Fatalf("Describe: got %v, %v, want %v", got, metaErr, meta)
	}
	for _, opts := range []verify.Options{structural, pixels} {
		if got, err := verify.Copy(io.Discard, bytes.NewReader(left), opts); err != nil || got != meta {
			t.Fatalf("stripped: got %v, %v, want %v", got, err, meta)
		}
	}
	again, _, err := strip(left)
	if err != nil || !bytes.Equal(again, left) {
		t.Fatalf("stripped twice: got %q, %v, want %q", again, err, left)
	}
	var slow bytes.Buffer
	if _, err := verify.Copy(&slow, iotest.OneByteReader(bytes.NewReader(b)), stripping); err != nil || !bytes.Equal(slow.Bytes(), left) {
		t.Fatalf("stripped byte by byte: got %q, %v, want %q", slow.Bytes(), err, left)
	}
	if complete {
		if got, err := gif.DecodeAll(bytes.NewReader(left)); err != nil || !reflect.DeepEqual(got, decoded) {
			t.Fatalf("stripped: got %v, want the same frames from image/gif", err)
		}
	}
}

// completeGIF gives each image in b the pixels that it needs. It makes them of its data.
func completeGIF(b []byte) []byte {
	if len(b) < 13 {
		return b
	}
	p := 13
	if b[10]&0x80 != 0 {
		p += 3 << (1 + b[10]&7)
	}
	out := slices.Clone(b[:min(p, len(b))])
	for p < len(b) {
		start, data := p, 0
		switch {
		case b[p] == 0x21:
			p += 2
		case b[p] == 0x2c && p+11 < len(b):
			if p += 10; b[p-1]&0x80 != 0 {
				p += 3 << (1 + b[p-1]&7)
			}
			p++
			data = p
		default:
			return append(out, b[p:]...)
		}
		var content []byte
		for p < len(b) && b[p] != 0 {
			content = append(content, b[p+1:min(len(b), p+1+int(b[p]))]...)
			p += 1 + int(b[p])
		}
		p++
		if p > len(b) {
			return append(out, b[start:]...)
		}
		n := 0
		if data > 0 {
			n = int(binary.LittleEndian.Uint16(b[start+5:])) * int(binary.LittleEndian.Uint16(b[start+7:]))
		}
		if size := int(b[data-min(data, 1)]); data > 0 && 2 <= size && size <= 8 && n < 1<<12 {
			out = append(out, b[start:data]...)
			pix := make([]byte, n)
			for i := range pix {
				if len(content) > 0 {
					pix[i] = content[i%len(content)] & (1<<size - 1)
				}
			}
			out = append(out, subBlocks(compressGIF(size, pix), 255)...)
			continue
		}
		out = append(out, b[start:p]...)
	}
	return out
}

// FuzzGIF compares with image/gif. Copy must accept what image/gif decodes to the last
// byte, but for differentGIF. What is stripped must decode to the same frames.
func FuzzGIF(f *testing.F) {
	for _, b := range gifs {
		f.Add(b, false)
		f.Add(b, true)
	}
	for _, test := range gifWrong {
		f.Add(test.b, false)
	}
	f.Fuzz(func(t *testing.T, b []byte, complete bool) {
		if complete && len(b) < 4<<10 {
			b = completeGIF(b)
		}
		if !bytes.HasPrefix(b, []byte("GIF8")) || len(b) > 16<<10 {
			return
		}
		c, err := gif.DecodeConfig(bytes.NewReader(b))
		if frames := bytes.Count(b, []byte{0x2c}); err == nil && c.Width*c.Height*frames > 1<<18 {
			return // it would take too long
		}
		againstImageGIF(t, b)
	})
}
