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

// noise returns a PNG of exactly size bytes, which no filesystem compresses.
func noise(size int) []byte {
	const width = 256
	// Each row has a byte of its own, and there is something to leave for chunk
	// headers; what that leaves over becomes a chunk of padding. So does what
	// would be more pixels than imaged takes.
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
	const end = 12 // the length of the IEND chunk, and of a chunk without content
	pad := size - b.Len() - end
	if pad < 0 {
		panic(fmt.Sprintf("no PNG of noise has %d bytes", size))
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
