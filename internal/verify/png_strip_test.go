package verify_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image/png"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

// tiff returns an Exif block with an orientation, and a secret if there is one.
func tiff(orientation byte, secret string) []byte {
	b := []byte{'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0, 0, 0, 0, 0}
	return append(b, secret...)
}

func exifChunk(orientation byte, secret string) []byte {
	return chunk("eXIf", tiff(orientation, secret))
}

func actl(frames uint32) []byte {
	return chunk("acTL", append(binary.BigEndian.AppendUint32(nil, frames), 0, 0, 0, 0))
}

// fctl returns an fcTL chunk with a sequence number and a rectangle.
func fctl(sequence uint32, rect ...uint32) []byte {
	var b []byte
	for _, v := range append([]uint32{sequence}, rect...) {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return chunk("fcTL", append(b, 0, 1, 0, 10, 0, 0))
}

func fdat(sequence uint32, data []byte) []byte {
	return chunk("fdAT", append(binary.BigEndian.AppendUint32(nil, sequence), data...))
}

var (
	header42 = ihdr(4, 2, 8, 0, 0)
	data42   = idat(make([]byte, 10))
	raw42    = deflate(make([]byte, 10))
	raw21    = deflate(make([]byte, 3))
)

// TestStripPNG says what is left of images.
func TestStripPNG(t *testing.T) {
	secret := strings.Repeat("secret", 20_000)
	shown := [][]byte{chunk("cHRM", make([]byte, 32)), chunk("gAMA", make([]byte, 4)), chunk("iCCP", []byte("ICC Profile\x00\x00xyz")),
		chunk("sBIT", make([]byte, 1)), chunk("sRGB", make([]byte, 1)), chunk("cICP", make([]byte, 4)), chunk("mDCV", make([]byte, 24)),
		chunk("cLLI", make([]byte, 8)), chunk("bKGD", make([]byte, 2)), chunk("hIST", make([]byte, 6)), chunk("pHYs", make([]byte, 9)), chunk("tRNS", make([]byte, 2))}
	animation := [][]byte{actl(2), fctl(0, 4, 2, 0, 0), data42, fctl(1, 2, 1, 2, 1), fdat(2, raw21[:4]), fdat(3, raw21[4:])}
	texts := slices.Concat(chunk("tEXt", []byte(secret)), chunk("zTXt", nil), chunk("iTXt", nil), chunk("tIME", make([]byte, 7)), chunk("sPLT", nil),
		chunk("caBX", nil), chunk("iDOT", make([]byte, 28)), chunk("prVt", []byte(secret)), chunk("dSIG", nil))
	for name, test := range map[string]struct{ in, out [][]byte }{
		"nothing to strip": {[][]byte{data42}, [][]byte{data42}},
		"colours":          {append(shown, data42), append(shown, data42)},
		"private":          {[][]byte{texts, data42, texts}, [][]byte{data42}},
		"between":          {[][]byte{texts, shown[1], texts, data42, texts}, [][]byte{shown[1], data42}},
		"twice":            {[][]byte{shown[1], chunk("gAMA", []byte("abcd")), data42}, [][]byte{shown[1], data42}},
		"wrong length":     {[][]byte{chunk("gAMA", []byte(secret)), chunk("pHYs", []byte(secret)), data42}, [][]byte{data42}},
		"too late":         {[][]byte{data42, shown[0], shown[1], shown[2], actl(2)}, [][]byte{data42}},

		"upright":                 {[][]byte{exifChunk(1, secret), data42}, [][]byte{data42}},
		"turned":                  {[][]byte{exifChunk(6, secret), data42}, [][]byte{exifChunk(6, ""), data42}},
		"turned after IDAT":       {[][]byte{data42, exifChunk(3, secret)}, [][]byte{data42, exifChunk(3, "")}},
		"upright, then turned":    {[][]byte{exifChunk(1, secret), exifChunk(6, secret), data42, exifChunk(3, secret)}, [][]byte{data42}},
		"turned, then upright":    {[][]byte{exifChunk(8, secret), exifChunk(1, secret), data42, exifChunk(3, secret)}, [][]byte{exifChunk(8, ""), data42}},
		"malformed, then turned":  {[][]byte{chunk("eXIf", []byte("Exif")), exifChunk(6, ""), data42}, [][]byte{data42}},
		"turned, in a large eXIf": {[][]byte{chunk("eXIf", slices.Concat([]byte("MM\x00*\x00\x01\x00\x00"), make([]byte, 1<<16-8), []byte("\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"))), data42}, [][]byte{exifChunk(6, ""), data42}},

		"animated":               {animation, animation},
		"animated, with texts":   {append([][]byte{texts, animation[0], texts}, append(slices.Clone(animation[1:]), texts)...), animation},
		"animated, without IDAT": {[][]byte{actl(1), data42, fctl(0, 1, 1, 0, 0), fdat(1, deflate(make([]byte, 2)))}, [][]byte{actl(1), data42, fctl(0, 1, 1, 0, 0), fdat(1, deflate(make([]byte, 2)))}},
		"no acTL":                {animation[1:], [][]byte{data42}},
		"no frames":              {append([][]byte{actl(0)}, animation[1:]...), [][]byte{actl(0), data42}},
		"acTL of 9 bytes":        {append([][]byte{chunk("acTL", []byte("\x00\x00\x00\x020000!"))}, animation[1:]...), [][]byte{data42}},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := file(slices.Concat([][]byte{header42}, test.in, [][]byte{iend()})...), file(slices.Concat([][]byte{header42}, test.out, [][]byte{iend()})...)
			for _, r := range []io.Reader{bytes.NewReader(in), iotest.OneByteReader(bytes.NewReader(in)), iotest.HalfReader(bytes.NewReader(in))} {
				var got bytes.Buffer
				_, err := verify.Copy(&got, r, stripping)
				want(t, err, nil, 0, "")
				if !bytes.Equal(got.Bytes(), out) {
					t.Errorf("got\n%q, want\n%q", got.Bytes(), out)
				}
			}
			againstImagePNG(t, in)
			checkStripPNG(t, in)
		})
	}
	for name, b := range goImages(t) {
		checkStripPNG(t, b)
		if t.Failed() {
			t.Fatal(name)
		}
	}
}

// TestStripPNGRefused has images in whose pixels something may hide.
func TestStripPNGRefused(t *testing.T) {
	more := append(bytes.Clone(raw21), "secret"...)
	at := len(file(header42, actl(2), data42))
	for name, test := range map[string]struct {
		chunks []byte
		offset int
		part   string
	}{
		"bytes after IDAT's stream": {slices.Concat(chunk("IDAT", append(bytes.Clone(raw42), 'x')), iend()), 33 + 8 + len(raw42), "IDAT: bytes after the end of the zlib stream"},
		"chunk after IDAT's stream": {slices.Concat(data42, chunk("IDAT", []byte("x")), iend()), 33 + len(data42) + 8, "IDAT: bytes after the end of the zlib stream"},
		"too many rows":             {slices.Concat(idat(make([]byte, 11)), iend()), -1, "IDAT: more image data than 4 x 2 pixels need"},
		"bytes after IEND":          {slices.Concat(data42, iend(), []byte("x")), 33 + len(data42) + 12, "maybe a private part"},

		"bytes after fdAT's stream":        {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), fdat(1, more), iend()), at + 38 + 12 + len(raw21), "fdAT: bytes after the end of the zlib stream"},
		"too many rows in a frame":         {slices.Concat(actl(1), data42, fctl(0, 1, 1, 0, 0), fdat(1, raw21), iend()), -1, "fdAT: more image data than 1 x 1 pixels need"},
		"too few rows in a frame":          {slices.Concat(actl(1), data42, fctl(0, 4, 2, 0, 0), fdat(1, raw21), iend()), -1, "fdAT: row 1 of 2"},
		"acTL with more frames":            {slices.Concat(actl(2), data42, fctl(0, 2, 1, 0, 0), fdat(1, raw21), iend()), at + 38 + 16 + len(raw21), "acTL: 2 frames, of which 1 begin"},
		"acTL with fewer frames":           {slices.Concat(actl(1), fctl(0, 4, 2, 0, 0), data42, fctl(1, 2, 1, 0, 0), fdat(2, raw21), iend()), at + 2*38 + 16 + len(raw21), "acTL: 1 frames, of which 2 begin"},
		"acTL after one without frames":    {slices.Concat(actl(0), actl(1), data42, fctl(0, 2, 1, 0, 0), fdat(1, raw21), iend()), 33 + 20, "second acTL chunk"},
		"second acTL":                      {slices.Concat(actl(1), actl(1), data42, iend()), 33 + 20, "second acTL chunk"},
		"no fdAT at the end":               {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), iend()), at + 38, "acTL: 1 frames, of which 1 begin"},
		"no fdAT":                          {slices.Concat(actl(2), data42, fctl(0, 2, 1, 0, 0), fctl(1, 2, 1, 0, 0), iend()), at + 38, "fcTL: no fdAT since"},
		"no fcTL":                          {slices.Concat(actl(1), data42, fdat(0, raw21), iend()), at, "fdAT: no fcTL since"},
		"second fdAT":                      {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), fdat(1, raw21), chunk("tEXt", nil), fdat(2, raw21), iend()), at + 38 + 16 + len(raw21) + 12, "fdAT: no fcTL since"},
		"fcTL of 27 bytes":                 {slices.Concat(actl(1), data42, chunk("fcTL", make([]byte, 27)), iend()), at, "fcTL: length 27, want 26"},
		"fcTL of 25 bytes":                 {slices.Concat(actl(1), data42, chunk("fcTL", make([]byte, 25)), iend()), at, "fcTL: length 25, want 26"},
		"fdAT of 3 bytes":                  {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), chunk("fdAT", make([]byte, 3)), iend()), at + 38, "fdAT: length 3, want at least 4"},
		"fcTL's number":                    {slices.Concat(actl(1), data42, fctl(1, 2, 1, 0, 0), fdat(2, raw21), iend()), at, "fcTL: sequence number 1, want 0"},
		"fdAT's number":                    {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), fdat(2, raw21), iend()), at + 38, "fdAT: sequence number 2, want 1"},
		"second fdAT's number":             {slices.Concat(actl(1), data42, fctl(0, 2, 1, 0, 0), fdat(1, raw21[:3]), fdat(1, raw21[3:]), iend()), at + 38 + 19, "fdAT: sequence number 1, want 2"},
		"frame without pixels":             {slices.Concat(actl(1), data42, fctl(0, 0, 1, 0, 0), fdat(1, raw21), iend()), at, "fcTL: 0 x 1 at 0, 0 is not inside of 4 x 2"},
		"frame too wide":                   {slices.Concat(actl(1), data42, fctl(0, 2, 1, 3, 0), fdat(1, raw21), iend()), at, "fcTL: 2 x 1 at 3, 0 is not inside of 4 x 2"},
		"frame too high":                   {slices.Concat(actl(1), data42, fctl(0, 2, 2, 0, 1<<32-1), fdat(1, raw21), iend()), at, "fcTL: 2 x 2 at 0, 4294967295 is not inside of 4 x 2"},
		"first frame too small":            {slices.Concat(actl(1), fctl(0, 2, 1, 0, 0), data42, iend()), at - len(data42), "fcTL before IDAT: 2 x 1, want one of 4 x 2"},
		"two frames before the first IDAT": {slices.Concat(actl(2), fctl(0, 4, 2, 0, 0), fctl(1, 4, 2, 0, 0), data42, iend()), at - len(data42) + 38, "fcTL before IDAT: 4 x 2, want one"},
	} {
		t.Run(name, func(t *testing.T) {
			b := file(header42, test.chunks)
			want(t, checkBytes(t, b, stripping), invalid, int64(test.offset), test.part)
			want(t, check(t, iotest.OneByteReader(bytes.NewReader(b)), stripping), invalid, int64(test.offset), test.part)
			if !strings.Contains(name, "IEND") {
				want(t, checkBytes(t, b, structural), nil, 0, "")
			}
		})
	}
}

// TestStripPNGTruncated cuts an image that is stripped at every byte, and damages it.
func TestStripPNGTruncated(t *testing.T) {
	b := file(header42, chunk("tEXt", []byte("secret")), exifChunk(6, "secret"), actl(2), fctl(0, 4, 2, 0, 0), chunk("tIME", make([]byte, 7)), data42,
		fctl(1, 2, 1, 0, 0), fdat(2, raw21[:3]), fdat(3, raw21[3:]), chunk("tEXt", nil), exifChunk(6, "secret"), iend())
	want(t, checkBytes(t, b, stripping), nil, 0, "")
	odd := errors.New("odd")
	for n := range len(b) {
		if n > 0 {
			want(t, checkBytes(t, b[:n], stripping), invalid, int64(n), "cut short; send all of it: ")
		}
		if _, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(odd)), stripping); err != odd {
			t.Errorf("error after %d bytes: got %v, want %v", n, err, odd)
		}
		for i := range 8 {
			flipped := bytes.Clone(b)
			flipped[n] ^= 1 << i
			if checkBytes(t, flipped, stripping) == nil {
				t.Errorf("bit %d of byte %d flipped: got no error, want one", i, n)
			}
		}
	}
}

// TestPNGFrames limits the frames of an animation.
func TestPNGFrames(t *testing.T) {
	two := slices.Concat(fctl(0, 4, 2, 0, 0), data42, fctl(1, 2, 1, 0, 0))
	for name, test := range map[string]struct {
		chunks []byte
		limit  int64
		kind   error
		offset int
	}{
		"acTL, allowed":     {slices.Concat(actl(2), two, iend()), 16, nil, 0},
		"acTL":              {actl(2)[:16], 15, tooMany, 33 + 8},
		"acTL, largest":     {actl(1<<32 - 1)[:16], 1 << 34, tooMany, 33 + 8},
		"fcTL":              {slices.Concat(actl(1), two[:len(two)-30]), 15, tooMany, 33 + 20 + 38 + len(data42)},
		"fcTL, allowed":     {slices.Concat(actl(1), two, iend()), 16, nil, 0},
		"fcTL without acTL": {slices.Concat(two, actl(9), iend()), 1, nil, 0},
		"one frame":         {slices.Concat(actl(1), fctl(0, 4, 2, 0, 0), data42, iend()), 1, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, checkBytes(t, file(header42, test.chunks), verify.Options{MaxAnimationPixels: test.limit}), test.kind, int64(test.offset), "")
		})
	}
}

// TestPNGOrientation checks that Meta is as browsers show the image.
func TestPNGOrientation(t *testing.T) {
	for name, test := range map[string]struct {
		before, after []byte
		turned        bool
	}{
		"none":                     {nil, nil, false},
		"turned":                   {exifChunk(6, ""), nil, true},
		"upside down":              {exifChunk(3, ""), nil, false},
		"after another":            {slices.Concat(chunk("gAMA", make([]byte, 4)), exifChunk(5, "x")), nil, true},
		"after IDAT":               {nil, exifChunk(6, ""), false},
		"before and after":         {exifChunk(1, ""), exifChunk(6, ""), false},
		"first upright":            {slices.Concat(exifChunk(1, ""), exifChunk(6, "")), nil, false},
		"second upright":           {slices.Concat(exifChunk(6, ""), exifChunk(1, "")), nil, true},
		"first malformed":          {slices.Concat(chunk("eXIf", []byte("Exif\x00\x00")), exifChunk(6, "")), nil, false},
		"without a next IFD":       {chunk("eXIf", tiff(8, "")[:22]), nil, true},
		"cut in the entry":         {chunk("eXIf", tiff(8, "")[:20]), nil, false},
		"no orientation of Exif's": {exifChunk(9, ""), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			meta := verify.Meta{Type: "image/png", Width: 4, Height: 2}
			if test.turned {
				meta.Width, meta.Height = 2, 4
			}
			b := file(header42, test.before, data42, test.after, iend())
			for _, opts := range []verify.Options{structural, pixels, stripping} {
				var out bytes.Buffer
				got, err := verify.Copy(&out, bytes.NewReader(b), opts)
				if err != nil || got != meta {
					t.Errorf("got %v, %v, want %v", got, err, meta)
				}
				if got, err := verify.Describe(&out); err != nil || got != meta {
					t.Errorf("Describe of the copy: got %v, %v, want %v", got, err, meta)
				}
			}
			// Describe reads no further than the first eXIf or the type of the first IDAT.
			never := readerFunc(func([]byte) (int, error) {
				t.Error("got a Read after IDAT's type, want none")
				return 0, io.EOF
			})
			head := b[:33+len(test.before)+8]
			if i := bytes.Index(head, []byte("eXIf")); i >= 0 {
				head = head[:i+8+int(binary.BigEndian.Uint32(head[i-4:]))]
			}
			if got, err := verify.Describe(io.MultiReader(bytes.NewReader(head), never)); err != nil || got != meta {
				t.Errorf("Describe: got %v, %v, want %v", got, err, meta)
			}
		})
	}
}

// checkStripPNG checks that what is left of b is the same picture, with nothing to strip.
func checkStripPNG(t *testing.T, b []byte) {
	t.Helper()
	left, meta, err := strip(b)
	if p := checkBytes(t, b, pixels); p != nil && err == nil {
		t.Errorf("got no error, want one as for pixels: %v", p)
	} else if err != nil && p == nil && !strings.Contains(err.Error(), "cannot be removed") && !strings.Contains(err.Error(), "fdAT: ") {
		t.Errorf("got %v, want no error as for pixels", err)
	}
	if err != nil {
		return
	}
	for _, opts := range []verify.Options{structural, pixels} {
		if got, err := verify.Copy(io.Discard, bytes.NewReader(left), opts); err != nil || got != meta {
			t.Errorf("stripped: got %v, %v, want %v", got, err, meta)
		}
	}
	if again, got, err := strip(left); err != nil || got != meta || !bytes.Equal(again, left) {
		t.Errorf("stripped twice: got %q, %v, %v, want %q", again, got, err, left)
	}
	before, beforeErr := png.Decode(bytes.NewReader(b))
	after, afterErr := png.Decode(bytes.NewReader(left))
	if fmt.Sprint(beforeErr) != fmt.Sprint(afterErr) || !reflect.DeepEqual(before, after) {
		t.Errorf("stripped: got %v, want the same pixels from image/png, which got %v", afterErr, beforeErr)
	}
	names, _, _ := parse(left)
	for _, name := range names {
		if strings.HasSuffix(name, "Xt") || name == "tIME" {
			t.Errorf("stripped: got a %s chunk, want none", name)
		}
	}
}

// FuzzStripPNG checks what is left of any image.
func FuzzStripPNG(f *testing.F) {
	addSeeds(f)
	f.Add(file(header42, exifChunk(6, "secret"), actl(2), fctl(0, 4, 2, 0, 0), data42, fctl(1, 2, 1, 0, 0), fdat(2, raw21), iend()), byte(repaired))
	f.Fuzz(func(t *testing.T, b []byte, mode byte) {
		b = prepare(b, mode)
		if !bytes.HasPrefix(b, []byte(magic)) {
			return
		}
		if c, err := png.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height > 1<<20 {
			return
		}
		checkStripPNG(t, b)
		left, _, err := strip(b)
		var slow bytes.Buffer
		_, slowErr := verify.Copy(&slow, iotest.OneByteReader(bytes.NewReader(b)), stripping)
		if fmt.Sprint(slowErr) != fmt.Sprint(err) || err == nil && !bytes.Equal(slow.Bytes(), left) {
			t.Errorf("byte by byte: got %v, want %v as in one piece", slowErr, err)
		}
	})
}
