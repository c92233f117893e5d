package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
)

// A padded makes images of a format as large as wanted, of a small one.
type padded struct {
	format string
	file   string // in the test data of internal/verify
	pad    func(image []byte, n int) []byte
}

// formats are the formats other than PNG. Each is padded with what its decoders skip.
var formats = []padded{
	{"jpeg", "shown/baseline.jpg", padJPEG},
	{"gif", "shown/plain.gif", padGIF},
	{"webp", "webp/alpha.webp", padWebP},
	{"avif", "shown/plain.avif", padBoxes},
	{"heic", "isobmff/thumbnail.heic", padBoxes},
}

// image returns an image that is about n bytes larger than the file.
func (p padded) image(n int) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join("..", "internal", "verify", "testdata", filepath.FromSlash(p.file)))
	if err != nil {
		return nil, err
	}
	return p.pad(b, n), nil
}

// padJPEG puts segments of an application after the marker at the beginning.
func padJPEG(b []byte, n int) []byte {
	segment := append([]byte{0xff, 0xef, 0xff, 0xff}, make([]byte, 0xffff-2)...)
	return slices.Concat(b[:2], bytes.Repeat(segment, n/len(segment)), b[2:])
}

// padGIF puts a comment before the trailer.
func padGIF(b []byte, n int) []byte {
	block := bytes.Repeat([]byte{255}, 256)
	end := len(b) - 1
	return slices.Concat(b[:end], []byte{0x21, 0xfe}, bytes.Repeat(block, n/len(block)), []byte{0}, b[end:])
}

// padWebP puts an unknown chunk at the end.
func padWebP(b []byte, n int) []byte {
	n &^= 1
	b = binary.LittleEndian.AppendUint32(append(slices.Clone(b), "noSe"...), uint32(n))
	b = append(b, make([]byte, n)...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-8))
	return b
}

// padBoxes puts a box of free space at the end of an AVIF or a HEIC.
func padBoxes(b []byte, n int) []byte {
	b = append(binary.BigEndian.AppendUint32(slices.Clone(b), uint32(n)), "free"...)
	return append(b, make([]byte, n-8)...)
}
