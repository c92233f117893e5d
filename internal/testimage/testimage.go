// Package testimage makes the images that tests put.
package testimage

import (
	"bytes"
	"image"
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
