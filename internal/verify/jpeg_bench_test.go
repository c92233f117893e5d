package verify_test

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

// photo returns a noisy picture of side x side pixels.
func photo(side int) image.Image {
	rnd := rand.New(rand.NewPCG(3, 4))
	m := image.NewRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			v := 128 + 60*math.Sin(float64(x)/37) + 60*math.Cos(float64(y)/53)
			for i, scale := range []float64{1, 0.8, 0.6, 0} {
				m.Pix[m.PixOffset(x, y)+i] = uint8(v*scale + 6*rnd.NormFloat64())
			}
		}
	}
	return m
}

func encodeJPEG(t testing.TB, m image.Image, quality int) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: quality}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// BenchmarkJPEG validates photographs of several sizes. For comparison, it also copies
// them, searches them for bytes FF, and decodes them. MB/s counts bytes of the file.
func BenchmarkJPEG(b *testing.B) {
	for _, side := range []int{100, 1500, 4000} {
		file := encodeJPEG(b, photo(side), 90)
		in := bytes.NewReader(file)
		buf := make([]byte, bufferSize)
		through := func(opts verify.Options) func() error {
			return func() error {
				_, err := verify.Copy(io.Discard, in, opts)
				return err
			}
		}
		for _, run := range []struct {
			name string
			f    func() error
		}{
			{"structural", through(structural)},
			{"strip", through(verify.Options{StripMetadata: true})},
			{"pixels", through(pixels)},
			{"copy", func() error {
				_, err := io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{in}, buf)
				return err
			}},
			{"search", func() error {
				_, err := io.CopyBuffer(onlyWriter{searcher{}}, onlyReader{in}, buf)
				return err
			}},
			{"decode", func() error {
				_, err := jpeg.Decode(in)
				return err
			}},
		} {
			b.Run(fmt.Sprintf("%dKiB/%s", len(file)>>10, run.name), func(b *testing.B) {
				b.SetBytes(int64(len(file)))
				b.ReportAllocs()
				for b.Loop() {
					in.Reset(file)
					if err := run.f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(side*side*b.N)/1e6/b.Elapsed().Seconds(), "Mpx/s")
			})
		}
	}
}

// A searcher looks at every byte FF.
type searcher struct{}

func (searcher) Write(b []byte) (int, error) {
	for p := b; ; {
		i := bytes.IndexByte(p, 0xff)
		if i < 0 {
			return len(b), nil
		}
		p = p[i+1:]
	}
}
