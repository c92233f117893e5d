package verify_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

// A counted file counts the bytes that are read. It may not be read beyond its end.
type counted struct {
	*bytes.Reader
	t    *testing.T
	read int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.read += n
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	n, err := c.Reader.Seek(offset, whence)
	if n > c.Size() {
		c.t.Errorf("got a Seek to %d, want at most %d", n, c.Size())
	}
	return n, err
}

// TestDescribeCost bounds what is read of files that say much before what matters.
func TestDescribeCost(t *testing.T) {
	jpeg, png, gif := tinyJPEG(t, "baseline"), file(header42, data42, iend()), gifs["1x1"]
	at := bytes.Index(jpeg, []byte("\xff\xc0"))
	large := strings.Repeat("x", 60_000)
	cut := func(b []byte, i int, more ...[]byte) []byte {
		return slices.Concat(b[:i], slices.Concat(more...), b[i:])
	}
	repeat := func(b []byte, n int) []byte { return bytes.Repeat(b, n/len(b)) }
	for name, test := range map[string]struct {
		b     []byte
		meta  verify.Meta
		least int
		most  int
	}{
		"JPEG":                   {append(bytes.Clone(jpeg), large...), verify.Meta{Type: "image/jpeg", Width: 20, Height: 12}, 1, 1 << 10},
		"JPEG, large Exif":       {cut(jpeg, 2, seg(0xe1, exifOf(6, large)).bytes()), verify.Meta{Type: "image/jpeg", Width: 12, Height: 20}, 1, 8 << 10},
		"JPEG, large segments":   {cut(jpeg, at, repeat(seg(0xe5, large).bytes(), 6<<20)), verify.Meta{Type: "image/jpeg", Width: 20, Height: 12}, 1, 256 << 10},
		"JPEG, small segments":   {cut(jpeg, at, repeat(seg(0xe5, "").bytes(), 6<<20)), verify.Meta{Type: "image/jpeg"}, 1 << 20, 1<<20 + 8<<10},
		"JPEG, fill bytes":       {cut(jpeg, at, repeat([]byte{0xff}, 6<<20)), verify.Meta{Type: "image/jpeg"}, 1 << 20, 1<<20 + 8<<10},
		"JPEG, segments before":  {cut(jpeg, at, repeat(seg(0xe5, "").bytes(), 900<<10)), verify.Meta{Type: "image/jpeg", Width: 20, Height: 12}, 1, 1 << 20},
		"JPEG, cut in a segment": {jpeg[:at+6], verify.Meta{Type: "image/jpeg"}, 1, 1 << 10},
		"JPEG, cut when skipped": {append(bytes.Clone(jpeg[:at]), seg(0xe5, large).bytes()[:30_000]...), verify.Meta{Type: "image/jpeg"}, 1, 8 << 10},
		"PNG, large chunk":       {cut(png, 33, chunk("tEXt", []byte(strings.Repeat(large, 100)))), verify.Meta{Type: "image/png", Width: 4, Height: 2}, 1, 8 << 10},
		"PNG, orientation after": {cut(png, 33, chunk("tEXt", []byte(large)), exifChunk(6, "")), verify.Meta{Type: "image/png", Width: 2, Height: 4}, 1, 8 << 10},
		"PNG, small chunks":      {cut(png, 33, repeat(chunk("tEXt", nil), 6<<20)), verify.Meta{Type: "image/png"}, 1 << 20, 1<<20 + 8<<10},
		"PNG, cut when skipped":  {append(bytes.Clone(png[:33]), chunk("tEXt", []byte(large))[:30_000]...), verify.Meta{Type: "image/png"}, 1, 8 << 10},
		"GIF, comments":          {cut(gif, len(gifScreen(1, 1, 2)), repeat(gifComment, 6<<20)), verify.Meta{Type: "image/gif"}, 1 << 20, 1<<20 + 8<<10},
		"no image":               {[]byte(strings.Repeat(large, 100)), verify.Meta{}, 1, 2 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			c := &counted{Reader: bytes.NewReader(test.b), t: t}
			if got, err := verify.Describe(c); err != nil || got != test.meta {
				t.Errorf("got %v, %v, want %v", got, err, test.meta)
			}
			if c.read < test.least || c.read > test.most {
				t.Errorf("got %d bytes read, want %d to %d", c.read, test.least, test.most)
			}
			if got, err := verify.Describe(onlyReader{bytes.NewReader(test.b[:min(len(test.b), 1<<20)])}); err != nil || got.Type != test.meta.Type {
				t.Errorf("without Seek: got %v, %v, want %v", got, err, test.meta)
			}
		})
	}
}
