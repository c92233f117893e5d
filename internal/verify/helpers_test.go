package verify_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

const magic = "\x89PNG\r\n\x1a\n"

var (
	structural = verify.Options{}
	onlyPNG    = verify.Options{Types: []string{"image/png"}}
	pixels     = verify.Options{VerifyPixels: true}
	stripping  = verify.Options{StripMetadata: true}
)

// check returns the error of Copy for r.
func check(t testing.TB, r io.Reader, opts verify.Options) error {
	t.Helper()
	_, err := verify.Copy(io.Discard, r, opts)
	if e := (*verify.Error)(nil); err != nil && !errors.As(err, &e) {
		t.Fatalf("got error %v of type %T, want an *Error", err, err)
	}
	return err
}

func checkBytes(t testing.TB, b []byte, opts verify.Options) error {
	t.Helper()
	return check(t, bytes.NewReader(b), opts)
}

// chunk returns a chunk with a right length and CRC. The type may be illegal.
func chunk(name string, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	b = append(append(b, name...), data...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
}

func ihdr(w, h uint32, depth, colour, interlace byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, w)
	b = binary.BigEndian.AppendUint32(b, h)
	return chunk("IHDR", append(b, depth, colour, 0, 0, interlace))
}

func plte(entries int) []byte { return chunk("PLTE", bytes.Repeat([]byte{1, 2, 3}, entries)) }

func deflate(raw []byte) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	z.Write(raw)
	z.Close()
	return b.Bytes()
}

func idat(raw []byte) []byte { return chunk("IDAT", deflate(raw)) }

func iend() []byte { return chunk("IEND", nil) }

func file(chunks ...[]byte) []byte {
	return append([]byte(magic), slices.Concat(chunks...)...)
}

// pattern has the pass of each pixel (PNG specification, section 8).
var pattern = [8]string{
	"16462646", "77777777", "56565656", "77777777",
	"36463646", "77777777", "56565656", "77777777",
}

// samples has the number of samples of a pixel, by colour type.
var samples = map[byte]int{0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

// scanlines returns random image data for a header. It finds the rows by looking at
// every pixel.
func scanlines(w, h int, depth, colour, interlace byte, rnd *rand.Rand) []byte {
	var b []byte
	for pass := range 7 {
		for y := range h {
			n := 0
			for x := range w {
				if interlace == 0 && pass == 0 || interlace == 1 && pattern[y%8][x%8] == byte('1'+pass) {
					n++
				}
			}
			if n == 0 {
				continue
			}
			b = append(b, byte(rnd.IntN(5)))
			for range (n*samples[colour]*int(depth) + 7) / 8 {
				b = append(b, byte(rnd.Uint32()))
			}
		}
	}
	return b
}

// whole returns a valid image.
func whole(w, h int, depth, colour, interlace byte) []byte {
	rnd := rand.New(rand.NewPCG(uint64(w), uint64(h)))
	chunks := [][]byte{ihdr(uint32(w), uint32(h), depth, colour, interlace)}
	if colour == 3 {
		chunks = append(chunks, plte(1<<depth))
	}
	return file(append(chunks, idat(scanlines(w, h, depth, colour, interlace, rnd)), iend())...)
}

// kinds yields every legal colour type and bit depth.
func kinds(yield func(colour, depth byte) bool) {
	for colour, depths := range map[byte]string{0: "\x01\x02\x04\x08\x10", 2: "\x08\x10", 3: "\x01\x02\x04\x08", 4: "\x08\x10", 6: "\x08\x10"} {
		for _, depth := range []byte(depths) {
			if !yield(colour, depth) {
				return
			}
		}
	}
}

// parse returns the name and data of each chunk of a file, and the number of bytes
// after the last whole chunk.
func parse(b []byte) (names []string, data [][]byte, rest int) {
	b = b[min(8, len(b)):]
	for len(b) >= 12 {
		n := int(binary.BigEndian.Uint32(b))
		if n > len(b)-12 {
			break
		}
		names = append(names, string(b[4:8]))
		data = append(data, b[8:8+n])
		b = b[12+n:]
	}
	return names, data, len(b)
}

var goTestdata = sync.OnceValue(func() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return ""
	}
	return filepath.Join(strings.TrimSpace(string(out)), "src", "image", "png", "testdata")
})

// goImages returns the PNGs of the tests of Go's own decoder.
func goImages(t testing.TB) map[string][]byte {
	images := map[string][]byte{}
	for _, p := range []string{"*.png", "pngsuite/*.png"} {
		names, err := filepath.Glob(filepath.Join(goTestdata(), p))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			images[filepath.Base(name)] = b
		}
	}
	return images
}

// strip returns what is left of b.
func strip(b []byte) ([]byte, verify.Meta, error) {
	var out bytes.Buffer
	meta, err := verify.Copy(&out, bytes.NewReader(b), stripping)
	return out.Bytes(), meta, err
}

// stripped returns what is left of b, and checks what must be true of it.
func stripped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out, again bytes.Buffer
	meta, err := verify.Copy(&out, bytes.NewReader(b), stripping)
	if err != nil {
		t.Fatalf("strip: %v", err)
	}
	if other, err := verify.Copy(io.Discard, bytes.NewReader(out.Bytes()), structural); err != nil || other != meta {
		t.Errorf("stripped: got %v, %v, want %v", other, err, meta)
	}
	if _, err := verify.Copy(&again, bytes.NewReader(out.Bytes()), stripping); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("stripped twice: got %v and %d bytes, want the %d of the first time", err, again.Len(), out.Len())
	}
	return out.Bytes()
}
