package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"math/rand/v2"

	"github.com/ba692904/imagestore"
)

// noise returns a PNG of exactly size bytes. Its pixels are random, so that no
// filesystem can compress it.
func noise(size int) []byte {
	const width = 256
	// A row has one byte more than its pixels, and chunk headers take some space. A
	// chunk of padding fills what is left over. It also keeps a large image from
	// having more pixels than imaged accepts.
	height := min((size-size/512-256)/(width+1), imagestore.DefaultMaxPixels/width)
	img := image.NewGray(image.Rect(0, 0, width, height))
	random := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range img.Pix {
		img.Pix[i] = byte(random.Uint32())
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.NoCompression}
	if err := encoder.Encode(&b, img); err != nil {
		panic(err) // writing to memory does not fail
	}
	const end = 12 // the length of the IEND chunk, and of any empty chunk
	pad := size - b.Len() - end
	if pad < 0 {
		panic(fmt.Sprintf("noise cannot make a PNG of %d bytes", size))
	}
	chunk := binary.BigEndian.AppendUint32(nil, uint32(pad))
	chunk = append(chunk, "noSe"...)
	chunk = append(chunk, make([]byte, pad)...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
	at := b.Len() - end
	return bytes.Join([][]byte{b.Bytes()[:at], chunk, b.Bytes()[at:]}, nil)
}

func sizeName(size int) string {
	if size >= 1<<20 {
		return fmt.Sprintf("%d MiB", size>>20)
	}
	return fmt.Sprintf("%d KiB", size>>10)
}
