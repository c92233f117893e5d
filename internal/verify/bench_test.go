package verify_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

// BenchmarkStructural validates the structure of images of several sizes. For
// comparison, it also copies them and computes a CRC.
func BenchmarkStructural(b *testing.B) {
	for _, size := range []int{8 << 10, 1 << 20, 64 << 20} {
		chunks := [][]byte{ihdr(1<<13, 1<<13, 8, 0, 0)}
		for left := size; left > 0; left -= 32 << 10 {
			chunks = append(chunks, chunk("IDAT", make([]byte, min(left, 32<<10))))
		}
		stream := file(append(chunks, iend())...)
		in := bytes.NewReader(stream)
		run := func(name string, f func() error) {
			b.Run(fmt.Sprintf("%dKiB/%s", size>>10, name), func(b *testing.B) {
				b.SetBytes(int64(len(stream)))
				b.ReportAllocs()
				for b.Loop() {
					in.Reset(stream)
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		run("verify", func() error {
			_, err := verify.Copy(io.Discard, in, structural)
			return err
		})
		buf := make([]byte, bufferSize)
		run("crc", func() error {
			_, err := io.CopyBuffer(onlyWriter{crc32.NewIEEE()}, onlyReader{in}, buf)
			return err
		})
	}
}

type onlyReader struct{ io.Reader }

type onlyWriter struct{ io.Writer }

// BenchmarkPixels validates images of several sizes and contents. For comparison, it
// also decodes them. MB/s counts bytes of the file.
func BenchmarkPixels(b *testing.B) {
	for _, content := range []struct {
		name string
		at   func(x, y int, rnd *rand.Rand) color.NRGBA
	}{
		{"flat", func(x, y int, rnd *rand.Rand) color.NRGBA {
			tile := uint8((x >> 3) * (y >> 3) * 37)
			return color.NRGBA{tile, 200, tile / 2, 255}
		}},
		{"photo", func(x, y int, rnd *rand.Rand) color.NRGBA {
			v := 128 + 60*math.Sin(float64(x)/37) + 60*math.Cos(float64(y)/53)
			n := func() float64 { return rnd.NormFloat64() * 2 }
			return color.NRGBA{uint8(v + n()), uint8(v*0.8 + n()), uint8(v*0.6 + n()), 255}
		}},
		{"noise", func(x, y int, rnd *rand.Rand) color.NRGBA {
			v := rnd.Uint32()
			return color.NRGBA{uint8(v), uint8(v >> 8), uint8(v >> 16), 255}
		}},
	} {
		for _, size := range []int{8 << 10, 64 << 10, 1 << 20} {
			file, side := picture(b, size, content.at)
			name := fmt.Sprintf("%s/%dKiB", content.name, size>>10)
			each := func(how string, f func() error) {
				b.Run(name+"/"+how, func(b *testing.B) {
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
			through := func(opts verify.Options) error {
				_, err := verify.Copy(io.Discard, bytes.NewReader(file), opts)
				return err
			}
			each("structural", func() error { return through(structural) })
			each("pixels", func() error { return through(pixels) })
			each("decode", func() error {
				_, err := png.Decode(bytes.NewReader(file))
				return err
			})
			each("inflate", func() error { return inflateOnly(file) })
		}
	}
}

// inflateOnly decompresses the pixels and does no more.
func inflateOnly(file []byte) error {
	names, data, _ := parse(file)
	var readers []io.Reader
	for i, name := range names {
		if name == "IDAT" {
			readers = append(readers, bytes.NewReader(data[i]))
		}
	}
	z, err := zlib.NewReader(io.MultiReader(readers...))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, z)
	return err
}

// picture returns a square PNG of about size bytes.
func picture(b *testing.B, size int, at func(x, y int, rnd *rand.Rand) color.NRGBA) (file []byte, side int) {
	for side = 16; ; side += side / 4 {
		rnd := rand.New(rand.NewPCG(3, 4))
		m := image.NewNRGBA(image.Rect(0, 0, side, side))
		for y := range side {
			for x := range side {
				m.SetNRGBA(x, y, at(x, y, rnd))
			}
		}
		var out bytes.Buffer
		if err := png.Encode(&out, m); err != nil {
			b.Fatal(err)
		}
		if out.Len() >= size*3/4 {
			return out.Bytes(), side
		}
	}
}
