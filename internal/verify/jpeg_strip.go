package verify

import (
	"encoding/binary"
)

// keep keeps the marker and the segment that begins. Fill bytes are not kept.
func (j *jpegReader) keep() error { return j.keepOf(nil, j.left) }

// keepOf keeps the marker, makes the length that of n bytes, and keeps first. That was
// read, and counts. What is read next is kept.
func (j *jpegReader) keepOf(first []byte, n int64) error {
	if !j.strip {
		return nil
	}
	j.out = [...]byte{0xff, j.marker, byte((n + 2) >> 8), byte(n + 2)}
	if err := j.r.emit(j.out[:]); err != nil {
		return err
	}
	if err := j.r.emit(first); err != nil {
		return err
	}
	j.r.keep()
	return nil
}

// application reads an APP or a COM segment. If metadata is stripped, it keeps what
// decoders need for the colours, the size on paper and the orientation:
//
//   - JFIF's APP0, without the thumbnail (T.871, 10.1),
//   - Adobe's APP14, as long as it must be (T.872, 6.5.3),
//   - an ICC profile in APP2 (ICC.1, B.4),
//   - the orientation in the first Exif APP1, in a new Exif block.
func (j *jpegReader) application() error {
	head := j.head[:min(j.left, int64(len(j.head)))]
	if err := j.read(head); err != nil {
		return err
	}
	var err error
	switch {
	case j.marker == mAPP0 && len(head) >= 14 && string(head[:5]) == "JFIF\x00":
		head[12], head[13] = 0, 0 // width and height of the thumbnail
		err = j.keepOnly(head[:14])
	case j.marker == mAPP14 && len(head) >= 12 && string(head[:5]) == "Adobe":
		err = j.keepOnly(head[:12])
	case j.marker == mAPP2 && len(head) >= iccHeaderSize && string(head[:len(iccHeader)]) == iccHeader:
		err = j.profile(head)
	case j.marker == mAPP1 && j.scans == 0 && !j.hasExif && isExif(head) && (j.left > 0 || len(head) > len(exifHeader)):
		j.hasExif = true
		return j.orientation(head[len(exifHeader):])
	}
	if err != nil {
		return err
	}
	return j.skip()
}

// keepOnly keeps the marker, and first, and nothing else of the segment.
func (j *jpegReader) keepOnly(first []byte) error {
	err := j.keepOf(first, int64(len(first)))
	if j.strip {
		j.r.drop()
	}
	return err
}

const exifHeader = "Exif\x00\x00" // CIPA DC-008, section 4.7.2.A

// isExif reports whether a segment begins like Exif. Browsers ignore the second zero.
func isExif(head []byte) bool {
	return len(head) >= len(exifHeader) && string(head[:5]) == exifHeader[:5]
}

// orientation reads an Exif block, which begins with first. Browsers look at the first
// that has any content, and only before the first scan.
func (j *jpegReader) orientation(first []byte) error {
	j.exif.write(first)
	for j.left > 0 && j.exif.state != exifDone {
		b, err := j.r.next(j.left)
		if err != nil {
			return j.segmentCut(err)
		}
		j.left -= int64(len(b))
		j.exif.write(b)
	}
	if o := j.exif.orientation(); o != upright {
		if err := j.keepOnly(append([]byte(exifHeader), o.block()...)); err != nil {
			return err
		}
	}
	return j.skip()
}

const (
	iccHeader     = "ICC_PROFILE\x00"
	iccHeaderSize = len(iccHeader) + 2 // the number of the chunk, the number of chunks
	iccLeast      = 128                // bytes of a profile (ICC.1, 7.2)
)

// A jpegICC follows an ICC profile from chunk to chunk.
type jpegICC struct {
	chunk, chunks byte  // the last one, of how many
	left          int64 // bytes of the profile that are still to come
}

// profile reads a chunk of an ICC profile, which begins with head. The profile says
// how long it is. What follows it is not kept.
func (j *jpegReader) profile(head []byte) error {
	if !j.strip {
		return nil
	}
	first := head[iccHeaderSize:]
	chunk, chunks := head[iccHeaderSize-2], head[iccHeaderSize-1]
	switch {
	case chunk == 1 && j.icc.chunk == 0:
		j.icc.chunks = chunks
		if len(first) == 4 {
			j.icc.left = int64(binary.BigEndian.Uint32(first))
		}
		if j.icc.left < iccLeast {
			j.icc.left = 0 // no decoder takes it
		}
	case chunk != j.icc.chunk+1 || chunks != j.icc.chunks || chunk > chunks:
		return invalid(j.start, "its metadata cannot be removed; save it with another program: JPEG: APP2: chunk %d of %d of an ICC profile after %d of %d",
			chunk, chunks, j.icc.chunk, j.icc.chunks)
	}
	j.icc.chunk = chunk
	n := min(j.icc.left, int64(len(first))+j.left)
	j.icc.left -= n
	if n < int64(len(first)) {
		return j.keepOnly(head[:iccHeaderSize+int(n)])
	}
	if err := j.keepOf(head, int64(iccHeaderSize)+n); err != nil {
		return err
	}
	n -= int64(len(first))
	excess := j.left - n
	j.left = n
	err := j.skip()
	j.left += excess
	j.r.drop()
	return err
}
