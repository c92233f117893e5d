// Package difftest compares the verdicts of package verify with those of decoders that
// are not in the standard library.
package difftest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/webp"

	"github.com/ba692904/imagestore/internal/verify"
)

var (
	structural = verify.Options{Types: []string{"image/webp"}}
	pixels     = verify.Options{Types: structural.Types, VerifyPixels: true}
	stripped   = verify.Options{Types: structural.Types, StripMetadata: true}
)

func check(b []byte, opts verify.Options) error {
	_, err := verify.Copy(io.Discard, bytes.NewReader(b), opts)
	return err
}

// A chunk is a chunk of a WebP: the name, and the payload without padding.
type chunk struct {
	name string
	data []byte
}

// parse returns the chunks of a file up to the image of a still picture, without frames.
// That is as far as golang.org/x/image/webp reads. ok says whether there is an image.
func parse(b []byte) (chunks []chunk, ok bool) {
	if len(b) < 12 || string(b[:4]) != "RIFF" || string(b[8:12]) != "WEBP" {
		return nil, false
	}
	for b = b[12:]; len(b) >= 8; {
		n := int(binary.LittleEndian.Uint32(b[4:]))
		if n > len(b)-8 {
			break
		}
		c := chunk{string(b[:4]), b[8 : 8+n]}
		if chunks = append(chunks, c); c.name == "VP8 " || c.name == "VP8L" {
			return chunks, true
		}
		b = b[min(len(b), 8+n+n%2):]
	}
	return chunks, false
}

// file returns the file of chunks.
func file(chunks []chunk) []byte {
	b := []byte("RIFF\x00\x00\x00\x00WEBP")
	for _, c := range chunks {
		b = binary.LittleEndian.AppendUint32(append(b, c.name...), uint32(len(c.data)))
		b = append(b, c.data...)
		b = append(b, make([]byte, len(c.data)%2)...)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

// lenient returns why golang.org/x/image/webp decodes what verify refuses. libwebp
// refuses these too.
func lenient(chunks []chunk) string {
	image := chunks[len(chunks)-1]
	for i, c := range chunks {
		if i == 0 && c.name != "VP8X" && c.name != "VP8 " && c.name != "VP8L" {
			return "an unknown chunk is first; x/image ignores those anywhere"
		}
		switch c.name {
		case "VP8X":
			if c.data[0]&0xc1 != 0 {
				return "reserved flags; x/image ignores them"
			}
			if c.data[0]&2 != 0 {
				return "an animation that has an image outside of its frames; x/image knows no animations"
			}
		case "ANIM", "ANMF":
			return "chunks of an animation in a still image; x/image knows no animations"
		case "ALPH":
			if chunks[i+1].name != "VP8 " {
				return "a chunk between ALPH and VP8; x/image ignores it"
			}
			if c.data[0]>>4&3 > 1 || c.data[0]>>6 > 1 {
				return "unknown processing of transparency; x/image ignores it"
			}
		}
	}
	if image.name == "VP8 " {
		b := image.data
		switch tag := int(b[0]) | int(b[1])<<8 | int(b[2])<<16; {
		case tag>>1&7 > 3:
			return "an unknown version of VP8; x/image ignores it"
		case tag>>4&1 == 0:
			return "a hidden frame; x/image ignores that"
		case binary.LittleEndian.Uint16(b[6:])&0x3fff == 0 || binary.LittleEndian.Uint16(b[8:])&0x3fff == 0:
			return "no pixels; x/image takes those"
		case tag>>5 == len(b)-10:
			return "no partition of coefficients; x/image needs none if all are skipped"
		}
	}
	return ""
}

// severe returns why golang.org/x/image/webp refuses an image of which verify has checked
// all bits.
func severe(chunks []chunk, pixels int) string {
	image := chunks[len(chunks)-1]
	transparent, coded := false, 0 // bytes of prefix codes at most
	for i, c := range chunks {
		transparent = transparent || i > 0 && c.name == "ALPH"
		if c.name == "ALPH" || c.name == "VP8L" {
			coded += len(c.data)
		}
	}
	switch x := chunks[0]; {
	case x.name == "VP8X" && (x.data[0]&0x10 != 0) != transparent && image.name == "VP8 ":
		return "the flag for transparency does not match; x/image wants that"
	case coded > 1<<13 || coded > 0 && pixels > 1<<17:
		return "maybe more prefix codes than verify looks into"
	case image.name == "VP8 " && len(image.data) > 1<<20:
		return "maybe several partitions, and more of them than verify looks into"
	}
	return ""
}

// against compares the verdicts on a file. t fails if they differ without a reason.
func against(t *testing.T, b []byte) {
	s, p := check(b, structural), check(b, pixels)
	if s != nil && p == nil {
		t.Errorf("structure: got %v, want no error as for pixels", s)
	}
	if s == nil {
		againstStripped(t, b)
	}
	chunks, ok := parse(b)
	if !ok {
		return
	}
	// DecodeConfig is cheap. Decode allocates the pixels that it announces, or those of
	// the canvas.
	c, err := webp.DecodeConfig(bytes.NewReader(b))
	if err == nil && c.Width*c.Height > 1<<22 {
		return
	}
	whole := file(chunks) // without what x/image does not read
	_, err = webp.Decode(bytes.NewReader(whole))
	verdict := check(whole, pixels)
	if err == nil && verdict != nil {
		why := lenient(chunks)
		switch detail := verdict.Error(); {
		case strings.Contains(detail, "of coefficients is empty"):
			why = "the last partition is empty; x/image needs none if all are skipped"
		case strings.Contains(detail, "partition begins with ff"):
			why = "a value outside of its range; what x/image makes of it is not what libwebp does"
		case strings.Contains(detail, "a prefix code is not complete"):
			why = "an incomplete prefix code; x/image takes it unless the missing codes come, libwebp does not"
		case strings.Contains(detail, "a simple prefix code has"):
			why = "a prefix code of equal symbols; x/image reads a bit for each, libwebp none"
		}
		if why == "" {
			t.Errorf("got %v, x/image decodes it", verdict)
		}
	}
	if err != nil && verdict == nil && severe(chunks, c.Width*c.Height) == "" {
		t.Errorf("got no error, x/image got %v", err)
	}
}

// againstStripped checks that a file that passes has the same pixels without metadata.
func againstStripped(t *testing.T, b []byte) {
	var out bytes.Buffer
	if _, err := verify.Copy(&out, bytes.NewReader(b), stripped); err != nil {
		t.Errorf("stripped: got %v, want no error", err)
		return
	}
	if c, err := webp.DecodeConfig(bytes.NewReader(b)); err != nil || c.Width*c.Height > 1<<22 {
		return
	}
	want, err := webp.Decode(bytes.NewReader(b))
	got, gotErr := webp.Decode(bytes.NewReader(out.Bytes()))
	if fmt.Sprint(err) != fmt.Sprint(gotErr) || !samePixels(got, want) {
		t.Errorf("stripped: got other pixels or error %v, want the same and %v", gotErr, err)
	}
}

func samePixels(a, b image.Image) bool { return reflect.DeepEqual(a, b) }

// seeds returns small files: those of this repository, and those of the tests of x/image.
func seeds(t testing.TB) map[string][]byte {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/image").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, pattern := range []string{"../testdata/webp/*.webp", filepath.Join(strings.TrimSpace(string(out)), "testdata", "*.webp")} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) < 5 {
			t.Fatalf("%s: got %d files, error %v, want at least 5", pattern, len(names), err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[filepath.Base(name)] = b
		}
	}
	return files
}

// FuzzWebP compares with golang.org/x/image/webp. What that decodes completely must be
// taken. What is taken with VerifyPixels must decode. lenient and severe have the
// exceptions.
func FuzzWebP(f *testing.F) {
	for _, b := range seeds(f) {
		if len(b) < 16<<10 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { against(t, b) })
}

// TestWebP compares all seeds, with metadata and without. They are pictures that all
// decoders show, so no exception applies.
func TestWebP(t *testing.T) {
	for name, b := range seeds(t) {
		if err := check(b, pixels); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
		against(t, b)

		secret := []byte("a secret of some length, which is in none of the files")
		chunks, ok := parse(b)
		if !ok {
			continue // an animation
		}
		more := append(slices.Clone(chunks), chunk{"EXIF", secret}, chunk{"XMP ", secret}, chunk{"abcd", secret})
		if chunks[0].name == "VP8X" {
			more = slices.Insert(more, 1, chunk{"abcd", secret})
		}
		b = file(more)
		against(t, b)
		var out bytes.Buffer
		if _, err := verify.Copy(&out, bytes.NewReader(b), stripped); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
		if bytes.Contains(out.Bytes(), secret[:8]) {
			t.Errorf("%s: got the secret, want it removed", name)
		}
	}
}
