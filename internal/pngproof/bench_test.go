package pngproof_test

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

	"github.com/ba692904/imagestore/internal/pngproof"
)

// BenchmarkStructural reads 64 MiB through the structural proof, 1 MiB at a time, and, to
// compare, through nothing but a CRC.
func BenchmarkStructural(b *testing.B) {
	for _, size := range []int{32 << 20, 8 << 10} {
		chunks := [][]byte{ihdr(1<<13, 1<<13, 8, 0, 0)}
		data := chunk("IDAT", make([]byte, size))
		for range 64 << 20 / size {
			chunks = append(chunks, data)
		}
		stream := file(append(chunks, iend())...)
		name := fmt.Sprintf("IDAT=%dKiB", size>>10)

		b.Run(name+"/proof", func(b *testing.B) {
			benchmarkReads(b, stream, func(r io.Reader) io.Reader { return pngproof.NewReader(r, structural) })
		})
		b.Run(name+"/crc", func(b *testing.B) {
			benchmarkReads(b, stream, func(r io.Reader) io.Reader { return io.TeeReader(r, crc32.NewIEEE()) })
		})
	}
}

func benchmarkReads(b *testing.B, stream []byte, through func(io.Reader) io.Reader) {
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		r := through(onlyReader{bytes.NewReader(stream)})
		if n, err := io.CopyBuffer(onlyWriter{io.Discard}, r, buf); err != nil || n != int64(len(stream)) {
			b.Fatal(n, err)
		}
	}
}

type onlyWriter struct{ io.Writer }

// BenchmarkDeep proves images of several sizes and contents and, to compare, decodes
// them. MB/s are those of the file.
func BenchmarkDeep(b *testing.B) {
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
			buf := make([]byte, 256<<10)
			through := func(c pngproof.Config) error {
				p := pngproof.NewReader(bytes.NewReader(file), c)
				defer p.Close()
				_, err := io.CopyBuffer(onlyWriter{io.Discard}, p, buf)
				return err
			}
			each("structural", func() error { return through(structural) })
			each("deep", func() error { return through(deep) })
			each("decode", func() error {
				_, err := png.Decode(bytes.NewReader(file))
				return err
			})
			each("inflate", func() error { return inflateOnly(file) })
		}
	}
}

// inflateOnly is the least a deep proof could do.
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

// picture encodes a square image whose file is about size bytes long.
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
