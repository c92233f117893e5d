// Package testimage makes the images that tests put.
package testimage

import (
	"bytes"
	"image"
	"image/color/palette"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"testing"
)

// PNG returns a grayscale PNG of side × side pixels. Its pixels are random and
// stored uncompressed, so images of one side have one size. Every seed gives
// another image.
func PNG(tb testing.TB, side int, seed uint64) []byte {
	tb.Helper()
	img := image.NewGray(image.Rect(0, 0, side, side))
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// GIF returns a GIF of side × side random pixels. Every seed gives another image.
func GIF(tb testing.TB, side int, seed uint64) []byte {
	tb.Helper()
	img := image.NewPaletted(image.Rect(0, 0, side, side), palette.WebSafe)
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.IntN(len(img.Palette)))
	}
	var b bytes.Buffer
	if err := gif.Encode(&b, img, nil); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// JPEG returns a JPEG of width × height random pixels. Every seed gives another image.
func JPEG(tb testing.TB, width, height int, seed uint64) []byte {
	tb.Helper()
	img := image.NewGray(image.Rect(0, 0, width, height))
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}
