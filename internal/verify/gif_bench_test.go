package verify_test

import (
	"bytes"
	"image"
	"image/color/palette"
	"image/gif"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

// BenchmarkGIF validates and strips images of several contents. For comparison, it also
// decodes them. MB/s counts bytes of the file.
func BenchmarkGIF(b *testing.B) {
	for _, content := range []struct {
		name string
		at   func(x, y int, rnd *rand.Rand) byte
	}{
		{"flat", func(x, y int, rnd *rand.Rand) byte { return byte((x >> 3) * (y >> 3)) }},
		{"photo", func(x, y int, rnd *rand.Rand) byte {
			return byte(128 + 60*math.Sin(float64(x)/37) + 60*math.Cos(float64(y)/53) + rnd.NormFloat64()*2)
		}},
		{"noise", func(x, y int, rnd *rand.Rand) byte { return byte(rnd.Uint32()) }},
	} {
		const side = 1000
		rnd := rand.New(rand.NewPCG(3, 4))
		m := image.NewPaletted(image.Rect(0, 0, side, side), palette.Plan9)
		for i := range m.Pix {
			m.Pix[i] = content.at(i%side, i/side, rnd)
		}
		var out bytes.Buffer
		if err := gif.Encode(&out, m, nil); err != nil {
			b.Fatal(err)
		}
		file := out.Bytes()
		each := func(how string, f func() error) {
			b.Run(content.name+"/"+how, func(b *testing.B) {
				b.SetBytes(int64(len(file)))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(side*side*b.N)/1e6/b.Elapsed().Seconds(), "Mpx/s")
			})
		}
		through := func(opts verify.Options) func() error {
			return func() error {
				_, err := verify.Copy(io.Discard, bytes.NewReader(file), opts)
				return err
			}
		}
		each("structural", through(structural))
		each("pixels", through(pixels))
		each("strip", through(verify.Options{StripMetadata: true}))
		each("decode", func() error {
			_, err := gif.DecodeAll(bytes.NewReader(file))
			return err
		})
	}
}
