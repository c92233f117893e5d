package verify_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

const (
	soi = "\xff\xd8"
	eoi = "\xff\xd9"
)

// A segment is a segment of a JPEG.
type segment struct {
	marker byte
	data   []byte
	coded  []byte // after SOS
}

// seg returns a segment.
func seg(marker byte, data string) segment { return segment{marker, []byte(data), nil} }

// bytes returns the segment with its marker and length.
func (s segment) bytes() []byte {
	b := binary.BigEndian.AppendUint16([]byte{0xff, s.marker}, uint16(len(s.data)+2))
	return slices.Concat(b, s.data, s.coded)
}

// segments splits a valid JPEG between SOI and EOI.
func segments(b []byte) (list []segment) {
	for b = b[2:]; b[1] != 0xd9; {
		n := 2 + int(binary.BigEndian.Uint16(b[2:]))
		s := segment{marker: b[1], data: b[4:n]}
		b = b[n:]
		if s.marker == 0xda {
			n = 0
			for b[n] != 0xff || b[n+1] == 0 || b[n+1]&0xf8 == 0xd0 {
				n++
			}
			s.coded, b = b[:n], b[n:]
		}
		list = append(list, s)
	}
	return list
}

// jpegFile returns a file of segments.
func jpegFile(list ...segment) []byte {
	b := []byte(soi)
	for _, s := range list {
		b = append(b, s.bytes()...)
	}
	return append(b, eoi...)
}

func tinyJPEG(t testing.TB, name string) []byte {
	b, err := base64.StdEncoding.DecodeString(tinyJPEGs[name])
	if err != nil || len(b) == 0 {
		t.Fatal(name, err)
	}
	return b
}

// edit returns the file with the first segment of a marker changed.
func edit(b []byte, marker byte, f func(s *segment)) []byte {
	list := segments(b)
	for i := range list {
		if list[i].marker == marker {
			list[i].data, list[i].coded = bytes.Clone(list[i].data), bytes.Clone(list[i].coded)
			f(&list[i])
			break
		}
	}
	return jpegFile(list...)
}

// insert returns the file with segments before the first one of a marker.
func insert(b []byte, before byte, more ...segment) []byte {
	list := segments(b)
	i := slices.IndexFunc(list, func(s segment) bool { return s.marker == before })
	return jpegFile(slices.Insert(list, i, more...)...)
}

// remove returns the file without the segments of a marker.
func remove(b []byte, marker byte) []byte {
	return jpegFile(slices.DeleteFunc(segments(b), func(s segment) bool { return s.marker == marker })...)
}

// exifOf returns the data of an APP1 with that orientation and more.
func exifOf(orientation byte, more string) string {
	return "Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00" + string(orientation) + "\x00\x00\x00\x00\x00\x00" + more
}

// samePixels fails the test unless two files decode to the same pixels, or image/jpeg
// does not know their kind.
func samePixels(t testing.TB, a, b []byte) {
	t.Helper()
	m, err := jpeg.Decode(bytes.NewReader(a))
	if err != nil {
		return
	}
	n, err := jpeg.Decode(bytes.NewReader(b))
	if err != nil || m.Bounds() != n.Bounds() || m.ColorModel() != n.ColorModel() {
		t.Errorf("got %v and another image, want the same", err)
		return
	}
	flat := func(m image.Image) []byte {
		out := image.NewNRGBA64(m.Bounds())
		draw.Draw(out, out.Rect, m, m.Bounds().Min, draw.Src)
		return out.Pix
	}
	if !bytes.Equal(flat(m), flat(n)) {
		t.Error("got other pixels, want the same")
	}
}

// TestJPEGKinds takes every kind of JPEG that browsers show.
func TestJPEGKinds(t *testing.T) {
	for name := range tinyJPEGs {
		b := tinyJPEG(t, name)
		for _, opts := range []verify.Options{structural, pixels, stripping, {StripMetadata: true, VerifyPixels: true}} {
			for how, r := range map[string]io.Reader{
				"whole": bytes.NewReader(b), "one byte": iotest.OneByteReader(bytes.NewReader(b)), "with EOF": iotest.DataErrReader(bytes.NewReader(b)),
			} {
				var out bytes.Buffer
				meta, err := verify.Copy(&out, r, opts)
				want(t, err, nil, 0, "")
				if meta != (verify.Meta{Type: "image/jpeg", Width: 20, Height: 12}) {
					t.Errorf("%s, %s: got %v, want a JPEG of 20 x 12", name, how, meta)
				}
				if !bytes.Equal(out.Bytes(), b) { // they have no metadata
					t.Errorf("%s, %s, %+v: got another file, want the same", name, how, opts)
				}
			}
		}
	}
}

// goJPEGs returns the JPEGs of the tests of Go's own decoders.
func goJPEGs(t testing.TB) map[string][]byte {
	images := map[string][]byte{}
	names, _ := filepath.Glob(filepath.Join(goTestdata(), "../../testdata/*.jpeg"))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		images[filepath.Base(name)] = b
	}
	return images
}

func TestJPEGGoImages(t *testing.T) {
	images := goJPEGs(t)
	if len(images) == 0 {
		t.Skip("this Go installation has no src/image/testdata")
	}
	for name, b := range images {
		config, err := jpeg.DecodeConfig(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		meta, err := verify.Copy(io.Discard, bytes.NewReader(b), pixels)
		if err != nil || meta.Width != config.Width || meta.Height != config.Height {
			t.Errorf("%s: got %v, %v, want %d x %d", name, meta, err, config.Width, config.Height)
		}
		samePixels(t, b, stripped(t, b))
	}
}

// unusualJPEGs returns valid files by what is unusual about them.
func unusualJPEGs(t testing.TB) map[string][]byte {
	base, restart := tinyJPEG(t, "baseline"), tinyJPEG(t, "restart")
	return map[string][]byte{
		"fill bytes":            bytes.ReplaceAll(bytes.ReplaceAll(base, []byte("\xff\xdb"), []byte("\xff\xff\xff\xdb")), []byte("\xff\xd9"), []byte("\xff\xff\xd9")),
		"fill bytes before RST": bytes.ReplaceAll(restart, []byte("\xff\xd1"), []byte("\xff\xff\xd1")),
		"data after EOI":        append(bytes.Clone(base), "\xff\xd8\xff\xe1 another picture"...),
		"zeros after EOI":       append(bytes.Clone(base), make([]byte, 5)...),
		"extended":              bytes.Replace(base, []byte("\xff\xc0"), []byte("\xff\xc1"), 1),
		"DNL":                   jpegFile(append(segments(base), seg(0xdc, "\x00\x0c"))...),
		"DAC":                   insert(base, 0xc0, seg(0xcc, "\x00\x10\x13\x05")),
		"DRI 0":                 insert(base, 0xda, seg(0xdd, "\x00\x00")),
		"long DRI":              insert(base, 0xda, seg(0xdd, "\xff\xff")),
		"last RST":              edit(base, 0xda, func(s *segment) { s.coded = append(s.coded, "\xff\xd0"...) }),
		"empty segments":        insert(base, 0xda, seg(0xdb, ""), seg(0xc4, ""), seg(0xe0, ""), seg(0xe1, ""), seg(0xe2, ""), seg(0xee, ""), seg(0xfe, "")),
		"segments between scans": func() []byte {
			list := segments(tinyJPEG(t, "scans"))
			return jpegFile(slices.Insert(list, len(list)-1, seg(0xfe, "hello"), seg(0xe1, exifOf(6, "")))...)
		}(),
		"table of 16 bits": edit(base, 0xdb, func(s *segment) {
			wide := []byte{s.data[0] | 0x10}
			for _, c := range s.data[1:65] {
				wide = append(wide, c>>7, c)
			}
			s.data = append(wide, s.data[65:]...)
		}),
		"odd spectral selection": edit(base, 0xda, func(s *segment) { copy(s.data[len(s.data)-3:], "\x00\x00\x01") }),
		"one id":                 edit(edit(base, 0xc0, func(s *segment) { s.data[6], s.data[9], s.data[12] = 7, 7, 7 }), 0xda, func(s *segment) { s.data[1], s.data[3], s.data[5] = 7, 7, 7 }),
		"padding":                edit(base, 0xda, func(s *segment) { s.coded = append(s.coded, make([]byte, 8)...) }),
	}
}

func TestJPEGUnusual(t *testing.T) {
	for name, b := range unusualJPEGs(t) {
		for _, opts := range []verify.Options{structural, pixels} {
			var out bytes.Buffer
			meta, err := verify.Copy(&out, bytes.NewReader(b), opts)
			if err != nil || !bytes.Equal(out.Bytes(), b) || meta.Width != 20 || meta.Height != 12 {
				t.Errorf("%s: got %v, %v and %d of %d bytes, want no error", name, meta, err, out.Len(), len(b))
			}
		}
		samePixels(t, b, stripped(t, b))
	}

	// The frames of Motion JPEG have no Huffman tables. Decoders use those of annex K.3.
	m := image.NewGray(image.Rect(0, 0, 30, 20))
	for i := range m.Pix {
		m.Pix[i] = byte(i * i)
	}
	b := remove(encodeJPEG(t, m, 90), 0xc4)
	want(t, checkBytes(t, b, structural), nil, 0, "")
	want(t, checkBytes(t, b, pixels), nil, 0, "")
}

// A wrongJPEG is a file that breaks a rule.
type wrongJPEG struct {
	name   string
	b      []byte
	kind   error
	offset int64 // not judged if it is negative
	part   string
	pixels bool // the rule is about pixels
}

func wrongJPEGs(t testing.TB) []wrongJPEG {
	base, progressive, restart, scans := tinyJPEG(t, "baseline"), tinyJPEG(t, "progressive"), tinyJPEG(t, "restart"), tinyJPEG(t, "scans")
	at := func(b []byte, marker string) int64 { return int64(bytes.Index(b, []byte(marker))) }
	sof, dqt, dht, sos := at(base, "\xff\xc0"), at(base, "\xff\xdb"), at(base, "\xff\xc4"), at(base, "\xff\xda")
	set := func(i int64, c ...byte) []byte {
		b := bytes.Clone(base)
		copy(b[i:], c)
		return b
	}
	cut := func(i int64, s string) []byte { return slices.Concat(base[:i], []byte(s), base[i:]) }
	var list []wrongJPEG
	add := func(name string, b []byte, kind error, offset int64, part string) {
		list = append(list, wrongJPEG{name, b, kind, offset, "JPEG: " + part, false})
	}

	// Markers (B.1.1).
	add("second SOI", cut(2, soi), invalid, 2, "second SOI marker")
	add("RST before the scan", cut(2, "\xff\xd3"), invalid, 2, "RST3 outside of a scan")
	add("TEM", cut(2, "\xff\x01"), invalid, 2, "unknown marker FF01")
	add("FF 00", cut(2, "\xff\x00"), invalid, 2, "unknown marker FF00")
	add("JPG", cut(2, "\xff\xc8\x00\x02"), invalid, 2, "unknown marker FFC8")
	add("DHP", cut(2, "\xff\xde\x00\x02"), invalid, 2, "unknown marker FFDE")
	add("EXP", cut(2, "\xff\xdf\x00\x02"), invalid, 2, "unknown marker FFDF")
	add("JPG0", cut(2, "\xff\xf0\x00\x02"), invalid, 2, "unknown marker FFF0")
	add("RES", cut(2, "\xff\xbf\x00\x02"), invalid, 2, "unknown marker FFBF")
	add("JPEG-LS", cut(2, "\xff\xf7\x00\x02"), unsupported, 2, "marker FFF7")
	add("garbage", cut(dqt, "\x00"), invalid, dqt, "byte 00, want FF and a marker")
	add("length 1", cut(2, "\xff\xe5\x00\x01"), invalid, 4, "APP5: length 1, want at least 2")
	add("EOI first", cut(2, eoi), invalid, 2, "no SOF before EOI")
	add("no scan", slices.Concat(base[:sos], []byte(eoi)), invalid, sos, "no image data: there is no SOS before EOI")
	add("SOS first", slices.Concat(base[:2], base[sos:]), invalid, 2, "SOS before SOF")

	// SOF (B.2.2).
	for n, name := range map[byte]string{3: "lossless", 5: "hierarchical", 6: "hierarchical", 7: "hierarchical", 11: "lossless", 13: "hierarchical", 14: "hierarchical", 15: "hierarchical"} {
		list = append(list, wrongJPEG{name, set(sof+1, 0xc0+n), unsupported, sof, "it is a " + name + " JPEG, which browsers do not show", false})
	}
	add("12 bits", set(sof+4, 12), unsupported, sof, "SOF0")
	add("9 bits", set(sof+4, 9), invalid, sof+4, "SOF0: precision 9, want 8")
	add("no height", set(sof+5, 0, 0), unsupported, sof, "SOF0")
	add("no width", set(sof+7, 0, 0), invalid, sof+7, "SOF0: width 0")
	add("65501 lines", set(sof+5, 0xff, 0xdd), unsupported, sof+5, "more than 65500")
	add("65501 samples", set(sof+7, 0xff, 0xdd), unsupported, sof+5, "more than 65500")
	add("0 components", set(sof+9, 0), invalid, sof+9, "SOF0: no components")
	add("2 components", set(sof+9, 2), unsupported, sof, "SOF0")
	add("5 components", set(sof+9, 5), unsupported, sof, "SOF0")
	add("4 components", set(sof+9, 4), invalid, sof+2, "SOF0: length 17, want 20 for 4 components")
	add("long SOF", edit(base, 0xc0, func(s *segment) { s.data = append(s.data, 0) }), invalid, sof+2, "SOF0: length 18, want 17 for 3 components")
	add("short SOF", edit(base, 0xc0, func(s *segment) { s.data = s.data[:5] }), invalid, sof+2, "SOF0: length 7 is too short")
	add("empty SOF", edit(base, 0xc0, func(s *segment) { s.data = nil }), invalid, sof+2, "SOF0: length 2 is too short")
	add("sampling factor h 5", set(sof+11, 0x52), invalid, sof+11, "SOF0: sampling factors 5 x 2, want 1 to 4")
	add("sampling factor h 0", set(sof+11, 0x02), invalid, sof+11, "SOF0: sampling factors 0 x 2, want 1 to 4")
	add("sampling factor v 0", set(sof+11, 0x20), invalid, sof+11, "SOF0: sampling factors 2 x 0, want 1 to 4")
	add("sampling factor v 5", set(sof+11, 0x25), invalid, sof+11, "SOF0: sampling factors 2 x 5, want 1 to 4")
	add("quantization table 4", set(sof+12, 4), invalid, sof+12, "SOF0: quantization table 4, want 0 to 3")
	add("second SOF", cut(sof, string(base[sof:sof+19])), invalid, sof+19, "second SOF")
	add("SOF after the scan", jpegFile(append(segments(base), segment{0xc1, base[sof+4 : sof+19], nil})...), invalid, int64(len(base))-2, "second SOF: SOF1")

	// DQT (B.2.4.1).
	add("DQT precision", set(dqt+4, 0x20), invalid, dqt+4, "DQT: precision 2, want 0 or 1")
	add("DQT table", set(dqt+4, 0x04), invalid, dqt+4, "DQT: table 4, want 0 to 3")
	add("DQT element", set(dqt+4+9, 0), invalid, dqt+4+9, "DQT: table 0: element 8 is 0")
	add("DQT element of 16 bits", insert(base, 0xdb, seg(0xdb, "\x13"+strings.Repeat("\x00\x01", 2)+strings.Repeat("\x00", 124))), invalid, dqt+4+1+4+1, "DQT: table 3: element 2 is 0")
	add("DQT length", insert(base, 0xdb, seg(0xdb, strings.Repeat("\x01", 64))), invalid, dqt+2, "DQT: length 66 is too short")
	add("no DQT", remove(base, 0xdb), invalid, -1, "SOS: component 1 needs quantization table 0, which is not defined")

	// DHT (B.2.4.2).
	add("DHT class", set(dht+4, 0x20), invalid, dht+4, "DHT: class 2, want 0 or 1")
	add("DHT table", set(dht+4, 0x14), invalid, dht+4, "DHT: table 4, want 0 to 3")
	add("DHT codes", set(dht+5, 1, 3), invalid, dht+6, "DHT: table 0: too many codes of up to 2 bits")
	add("DHT 257 codes", insert(base, 0xda, seg(0xc4, "\x13"+"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\x02"+strings.Repeat("\x01", 257))), invalid, sos+20, "DHT: table 3: too many codes of up to 16 bits")
	add("DHT category", insert(base, 0xda, seg(0xc4, "\x03"+"\x01"+strings.Repeat("\x00", 15)+"\x10")), invalid, sos+21, "DHT: DC table 3: category 16, at most 15")
	add("DHT too short for its counts", insert(base, 0xda, seg(0xc4, "\x03"+strings.Repeat("\x00", 15))), invalid, sos+2, "DHT: length 18 is too short")
	add("DHT too short for its values", insert(base, 0xda, seg(0xc4, "\x03\x01"+strings.Repeat("\x00", 15))), invalid, sos+2, "DHT: length 19 is too short")
	add("no DC table", set(sos+6, 0x20), invalid, sos+6, "SOS: component 1 needs DC table 2, which is not defined")
	add("no AC table", set(sos+6, 0x02), invalid, sos+6, "SOS: component 1 needs AC table 2, which is not defined")
	add("no DHT in a progressive image", remove(progressive, 0xc4), invalid, -1, "SOS: component 1 needs DC table 0, which is not defined")

	// DAC, DRI, DNL (B.2.4.3, B.2.4.4, B.2.5).
	add("DAC class", cut(sof, "\xff\xcc\x00\x04\x20\x00"), invalid, sof+4, "DAC: class 2, table 0")
	add("DAC table", cut(sof, "\xff\xcc\x00\x04\x04\x00"), invalid, sof+4, "DAC: class 0, table 4")
	add("DAC DC", cut(sof, "\xff\xcc\x00\x04\x00\x12"), invalid, sof+5, "DAC: class 0, value 18 is out of range")
	add("DAC AC 0", cut(sof, "\xff\xcc\x00\x04\x10\x00"), invalid, sof+5, "DAC: class 1, value 0 is out of range")
	add("DAC AC 64", cut(sof, "\xff\xcc\x00\x04\x10\x40"), invalid, sof+5, "DAC: class 1, value 64 is out of range")
	add("DAC length", cut(sof, "\xff\xcc\x00\x03\x10"), invalid, sof+2, "DAC: length 3 is too short")
	add("DRI length", cut(sof, "\xff\xdd\x00\x05\x00\x00\x00"), invalid, sof+2, "DRI: length 5, want 4")
	add("DNL length", jpegFile(append(segments(base), seg(0xdc, "\x00\x0c\x00"))...), invalid, int64(len(base)), "DNL: length 5, want 4")
	add("DNL early", cut(sos, "\xff\xdc\x00\x04\x00\x0c"), invalid, sos, "DNL must follow the first scan")
	add("DNL late", jpegFile(append(segments(scans), seg(0xdc, "\x00\x0c"))...), invalid, int64(len(scans))-2, "DNL must follow the first scan")
	add("DNL other", jpegFile(append(segments(base), seg(0xdc, "\x00\x0d"))...), invalid, int64(len(base))+2, "DNL: 13 lines, but SOF has 12")

	// SOS (B.2.3).
	add("SOS of 0", set(sos+4, 0), invalid, sos+4, "SOS: 0 components, want 1 to 3")
	add("SOS of 4", set(sos+4, 4), invalid, sos+4, "SOS: 4 components, want 1 to 3")
	add("SOS length", set(sos+4, 2), invalid, sos+2, "SOS: length 12, want 10 for 2 components")
	add("SOS component", set(sos+5, 9), invalid, sos+5, "SOS: component 9 is not in the frame, or twice")
	add("SOS component twice", set(sos+7, 1), invalid, sos+7, "SOS: component 1 is not in the frame, or twice")
	add("SOS DC table", set(sos+6, 0x40), invalid, sos+6, "SOS: tables 4 and 0, want 0 to 3")
	add("SOS AC table", set(sos+6, 0x04), invalid, sos+6, "SOS: tables 0 and 4, want 0 to 3")
	add("large MCU", set(sof+11, 0x33), invalid, sos+5, "SOS: 11 blocks in an MCU, at most 10")
	list2 := segments(scans)
	add("component missing", jpegFile(list2[:slices.IndexFunc(list2, func(s segment) bool { return s.marker == 0xda })+1]...), invalid, -1, "no scan has component 2")
	add("component twice", jpegFile(append(list2, list2[len(list2)-1])...), invalid, int64(len(scans))-2, "SOS: second scan of component 2")

	// Progression (G.1.1.1).
	first := at(progressive, "\xff\xda")
	prog := func(c ...byte) []byte {
		return edit(progressive, 0xda, func(s *segment) { copy(s.data[len(s.data)-3:], c) })
	}
	add("coefficients 0 to 1", prog(0, 1), invalid, first+11, "SOS: coefficients 0 to 1")
	add("coefficients 2 to 1", prog(2, 1), invalid, first+11, "SOS: coefficients 2 to 1")
	add("coefficients to 64", prog(2, 64), invalid, first+11, "SOS: coefficients 2 to 64")
	add("AC of 3 components", prog(1, 2), invalid, first+11, "SOS: AC coefficients of 3 components, want 1")
	add("point transform", prog(0, 0, 0x20), invalid, first+13, "SOS: point transform 0 after 2")
	add("point transform 14", prog(0, 0, 0x0e), invalid, first+13, "SOS: point transform 14 after 0")
	add("refines nothing", prog(0, 0, 0x10), invalid, first+13, "SOS: refines coefficient 0 of component 1, which is not there yet")
	plist := segments(progressive)
	si := slices.IndexFunc(plist, func(s segment) bool { return s.marker == 0xda })
	again := jpegFile(slices.Insert(slices.Clone(plist), si+1, plist[si])...)
	add("DC twice", again, invalid, -1, "SOS: point transform 0 of coefficient 0 of component 1, which has 1")
	pj := slices.IndexFunc(plist[si+1:], func(s segment) bool { return s.marker == 0xda }) + si + 1
	add("AC before DC", jpegFile(append(slices.Clone(plist[:si]), plist[si+1:pj+1]...)...), invalid, -1, "SOS: AC coefficients of component 1 before its DC coefficients")
	whole := plist[si]
	whole.data = append(bytes.Clone(whole.data[:len(whole.data)-1]), 0)
	add("DC again after all of it", jpegFile(append(slices.Clone(plist), whole)...), invalid, -1, "SOS: point transform 0 of coefficient 0 of component 1, which has 0")
	add("refined twice", jpegFile(append(slices.Clone(plist), plist[len(plist)-1])...), invalid, -1, "SOS: point transform 1 of coefficient 1 of component 1, which has 0")

	// Coded data (B.1.1.5, B.2.1, F.1.2.3).
	coded := func(b []byte, f func(c []byte) []byte) []byte {
		return edit(b, 0xda, func(s *segment) { s.coded = f(s.coded) })
	}
	replace := func(old, new string) []byte {
		return coded(restart, func(c []byte) []byte { return bytes.Replace(c, []byte(old), []byte(new), 1) })
	}
	add("FF FF 00", coded(base, func(c []byte) []byte { return append(c, "\xff\xff\x00"...) }), invalid, int64(len(base))-2+1, "scan 1: FF FF 00 is neither data nor a marker")
	add("RST order", replace("\xff\xd1", "\xff\xd2"), invalid, at(restart, "\xff\xd1"), "scan 1: RST2 after restart interval 2 of 6, want RST1")
	add("RST missing", replace("\xff\xd1", ""), invalid, -1, "scan 1: RST2 after restart interval 2 of 6, want RST1")
	add("RST too many", coded(base, func(c []byte) []byte { return slices.Concat(c[:9], []byte("\xff\xd0"), c[9:]) }), invalid, -1, "scan 1: a restart marker after interval 1 of 1")
	add("two last RST", coded(base, func(c []byte) []byte { return append(c, "\xff\xd0\xff\xd1"...) }), invalid, int64(len(base))-2, "scan 1: a restart marker after interval 1 of 1")
	add("last RST", coded(base, func(c []byte) []byte { return append(c, "\xff\xd1"...) }), invalid, int64(len(base))-2, "scan 1: RST1 after restart interval 1 of 1, want RST0")
	add("RST too few", edit(restart, 0xdd, func(s *segment) { s.data[1] = 0 }), invalid, -1, "scan 1: a restart marker after interval 1 of 1")
	i := bytes.Index(restart, []byte("\xff\xd4"))
	add("interval missing", slices.Concat(restart[:i], []byte(eoi)), invalid, int64(i), "scan 1: marker FFD9 after restart interval 5 of 6, want RST4")
	add("no data", coded(base, func([]byte) []byte { return nil }), invalid, sos+14, "scan 1: no data in restart interval 1 of 1")
	add("no data after RST", slices.Concat(restart[:i+2], []byte(eoi)), invalid, int64(i)+2, "scan 1: no data in restart interval 6 of 6")
	add("COM in the data", coded(base, func(c []byte) []byte { return slices.Concat(c[:9], seg(0xfe, "x").bytes(), c[9:]) }), invalid, sos+14+9+5, "byte ")

	// Pixels.
	wrongPixels := func(name string, b []byte, part string) {
		list = append(list, wrongJPEG{name, b, invalid, -1, part, true})
	}
	wrongPixels("early end", coded(base, func(c []byte) []byte { return c[:len(c)-1] }), "JPEG: scan 1, MCU 2 of 2: the data ends too early")
	wrongPixels("17 bytes more", coded(base, func(c []byte) []byte { return append(c, make([]byte, 17)...) }), "JPEG: scan 1: 17 bytes after MCU 2 of 2")
	wrongPixels("18 bytes more", coded(base, func(c []byte) []byte { return append(c, strings.Repeat("\xff\x00", 9)...) }), "JPEG: scan 1: 18 bytes after MCU 2 of 2")
	wrongPixels("17 bytes more before RST", replace("\xff\xd1", strings.Repeat("x", 17)+"\xff\xd1"), "JPEG: scan 1: 17 bytes after MCU 2 of 6")

	// One block, by tables with the codes 0 and 10.
	block := func(frame byte, dc, ac, bits string) []byte {
		table := func(class, values string) string {
			return class + "\x01\x01" + strings.Repeat("\x00", 14) + values
		}
		coded := []byte{0}
		for i, c := range bits + strings.Repeat("1", (8-len(bits)%8)%8) {
			if i > 0 && i%8 == 0 {
				coded = append(coded, 0)
			}
			coded[i/8] |= byte(c-'0') << (7 - i%8)
		}
		return jpegFile(seg(0xdb, "\x00"+strings.Repeat("\x01", 64)), seg(0xc0+frame, "\x08\x00\x01\x00\x01\x01\x01\x11\x00"),
			seg(0xc4, table("\x00", dc)+table("\x10", ac)), segment{0xda, []byte("\x01\x01\x00\x00\x3f\x00"), coded})
	}
	eob := "0"
	add("good block", block(0, "\x00\x01", "\x00\x01", "0"+eob), nil, 0, "")
	add("63 coefficients", block(0, "\x00\x01", "\x01\x00", "0"+strings.Repeat("01", 63)), nil, 0, "")
	add("ZRL at the end", block(0, "\x00\x01", "\xf0\x01", "0"+strings.Repeat("101", 15)+"000"), nil, 0, "")
	wrongPixels("DC code", block(0, "\x00\x01", "\x00\x01", "110"), "MCU 1 of 1: no Huffman code of a DC coefficient")
	wrongPixels("AC code", block(0, "\x00\x01", "\x00\x01", "011"), "MCU 1 of 1: no Huffman code of an AC coefficient")
	wrongPixels("64 coefficients", block(0, "\x00\x01", "\x01\x11", "0"+strings.Repeat("01", 62)+"101"), "MCU 1 of 1: more coefficients than a block has")
	wrongPixels("ZRL too far", block(0, "\x00\x01", "\xf0\x01", "0"+strings.Repeat("101", 16)+"000"), "MCU 1 of 1: more coefficients than a block has")
	wrongPixels("EOB1", block(0, "\x00\x01", "\x10\x01", "00"), "MCU 1 of 1: an end of several blocks")
	return list
}

// TestJPEGWrong breaks one rule after the other. The error must come before anything
// more is read than the wrong bytes.
func TestJPEGWrong(t *testing.T) {
	for _, w := range wrongJPEGs(t) {
		t.Run(w.name, func(t *testing.T) {
			for _, opts := range []verify.Options{structural, pixels, stripping} {
				deep := opts.VerifyPixels || opts.StripMetadata
				if w.pixels && !deep {
					want(t, checkBytes(t, w.b, opts), nil, 0, "")
					continue
				}
				offset, part := w.offset, w.part
				if deep && w.kind == invalid && !w.pixels && strings.Contains(fmt.Sprint(checkBytes(t, w.b, opts)), "damaged in the pixels") {
					offset, part = -1, "" // the codes are wrong before the marker is
				}
				err := checkBytes(t, w.b, opts)
				want(t, err, w.kind, offset, part)
				want(t, check(t, iotest.OneByteReader(bytes.NewReader(w.b)), opts), w.kind, offset, part)
				if w.kind == nil {
					continue
				}
				var e *verify.Error
				if errors.As(err, &e) {
					// The first 12 bytes tell formats apart. The lengths of most segments
					// depend on a number that comes a few bytes later.
					n := min(max(int(e.Offset)+20, 12), len(w.b))
					never := readerFunc(func([]byte) (int, error) {
						t.Errorf("%+v: got a Read after byte %d for %v, want none", opts, n, e)
						return 0, io.EOF
					})
					check(t, io.MultiReader(bytes.NewReader(w.b[:n]), never), opts)
				}
			}
		})
	}
}

// TestJPEGTruncations cuts at every byte. Only what follows EOI may be missing.
func TestJPEGTruncations(t *testing.T) {
	files := unusualJPEGs(t)
	for name := range tinyJPEGs {
		files[name] = tinyJPEG(t, name)
	}
	files["Exif"] = insert(tinyJPEG(t, "baseline"), 0xdb, seg(0xe1, exifOf(6, "and more")))
	files["ICC"] = insert(tinyJPEG(t, "baseline"), 0xdb, seg(0xe2, "ICC_PROFILE\x00\x01\x01"+profile(130)))
	for name, b := range files {
		end := bytes.Index(b, []byte(eoi)) + 2 // no segment has these bytes
		for _, opts := range []verify.Options{structural, pixels, stripping} {
			for n := range b {
				err := checkBytes(t, b[:n], opts)
				if n == 0 {
					want(t, err, unsupported, 0, "empty")
				} else if n >= end {
					want(t, err, nil, 0, "")
				} else {
					want(t, err, invalid, -1, "")
				}
				if n > 0 && n < end && !opts.VerifyPixels {
					want(t, err, invalid, int64(n), "cut short; send all of it")
				}
				if t.Failed() {
					t.Fatalf("%s cut at byte %d of %d", name, n, len(b))
				}
			}
		}
	}
	b := tinyJPEG(t, "baseline")
	want(t, checkBytes(t, b[:20], structural), invalid, 20, "send all of it: JPEG: no EOI marker")
	want(t, checkBytes(t, b[:len(b)-2], pixels), invalid, int64(len(b)-2), "or save it as a new file if it opens and looks whole: JPEG: no EOI marker")
}

// profile returns an ICC profile of n bytes.
func profile(n int) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(n))) + strings.Repeat("p", n-4)
}

// TestJPEGFacts checks that a JPEG is described as Chromium 156 shows it.
func TestJPEGFacts(t *testing.T) {
	base := tinyJPEG(t, "baseline")
	with := func(data ...string) []byte {
		var list []segment
		for _, d := range data {
			list = append(list, seg(0xe1, d))
		}
		return insert(base, 0xdb, list...)
	}
	xmp := "http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta/>"
	for name, test := range map[string]struct {
		b      []byte
		turned bool
	}{
		"none":              {base, false},
		"4":                 {with(exifOf(4, "")), false},
		"5":                 {with(exifOf(5, "")), true},
		"8":                 {with(exifOf(8, "")), true},
		"9":                 {with(exifOf(9, "")), false},
		"before JFIF":       {insert(base, 0xe0, seg(0xe1, exifOf(6, ""))), true},
		"after SOF":         {insert(base, 0xda, seg(0xe1, exifOf(6, ""))), true},
		"first wins":        {with(exifOf(6, ""), exifOf(1, "")), true},
		"1 first":           {with(exifOf(1, ""), exifOf(6, "")), false},
		"broken first":      {with("Exif\x00\x00?", exifOf(6, "")), false},
		"empty first":       {with("Exif\x00\x00", exifOf(6, "")), true},
		"short first":       {with("Exi", exifOf(6, "")), true},
		"XMP first":         {with(xmp, exifOf(6, "")), true},
		"other second zero": {with(strings.Replace(exifOf(6, ""), "\x00\x00", "\x00X", 1)), true},
		"in APP2":           {insert(base, 0xdb, seg(0xe2, exifOf(6, ""))), false},
		"after EOI":         {append(bytes.Clone(base), insert(base, 0xdb, seg(0xe1, exifOf(6, "")))...), false},
		"between scans": {func() []byte {
			list := segments(tinyJPEG(t, "scans"))
			return jpegFile(slices.Insert(list, len(list)-1, seg(0xe1, exifOf(6, "")))...)
		}(), false},
	} {
		meta := verify.Meta{Type: "image/jpeg", Width: 20, Height: 12}
		if test.turned {
			meta.Width, meta.Height = 12, 20
		}
		for how, opts := range map[string]verify.Options{"copy": structural, "pixels": pixels, "strip": stripping} {
			if got, err := verify.Copy(io.Discard, bytes.NewReader(test.b), opts); err != nil || got != meta {
				t.Errorf("%s, %s: got %v, %v, want %v", name, how, got, err, meta)
			}
		}
		stripped(t, test.b)

		// All is known at SOS, behind 200 KiB of other segments.
		large := insert(test.b, 0xc0, slices.Repeat([]segment{seg(0xe7, strings.Repeat("\xff\xc0", 30_000))}, 4)...)
		large = large[:bytes.Index(large, []byte("\xff\xda\x00"))+4]
		if got, err := verify.Describe(bytes.NewReader(large)); err != nil || got != meta {
			t.Errorf("%s, described: got %v, %v, want %v", name, got, err, meta)
		}
	}

	// What is broken later, or too large, does not matter.
	list := segments(base)
	if got, err := verify.Describe(bytes.NewReader(jpegFile(append(list[:len(list)-1], seg(0xda, "?"))...))); err != nil || got.Width != 20 {
		t.Errorf("got %v, %v, want no error", got, err)
	}
	want(t, checkBytes(t, base, verify.Options{MaxPixels: 239}), tooMany, 163, "20 x 12")
	want(t, checkBytes(t, base, verify.Options{MaxPixels: 240}), nil, 0, "")
}

func TestJPEGStrip(t *testing.T) {
	base := remove(tinyJPEG(t, "baseline"), 0xe0)
	jfif := "JFIF\x00\x01\x02\x01\x00\x48\x00\x48"
	adobe := "Adobe\x00\x65\x00\x00\x00\x00\x01"
	icc := "ICC_PROFILE\x00\x01\x01" + profile(200)
	big := strings.Repeat("secret", 10_000)
	minimal := "Exif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00"
	secrets := []segment{
		seg(0xe0, "JFXX\x00\x10secret"), seg(0xe0, "AVI1secret"), seg(0xe0, "JFIF\x00secret"),
		seg(0xe1, "http://ns.adobe.com/xap/1.0/\x00secret"), seg(0xe1, exifOf(1, "secret")), seg(0xe1, exifOf(6, big)),
		seg(0xe2, "MPF\x00secret"), seg(0xe2, "FPXR\x00secret"), seg(0xe2, "ICC_PROFILE\x00"), seg(0xe3, "secret"), seg(0xe4, big), seg(0xe5, big),
		seg(0xeb, "secret"), seg(0xec, "Ducky secret"), seg(0xed, "Photoshop 3.0\x008BIM secret"), seg(0xee, "Adobesecret"), seg(0xee, "secret secret"),
		seg(0xef, "secret"), seg(0xfe, "secret"),
	}
	for name, test := range map[string]struct{ in, out []byte }{
		"nothing":            {base, base},
		"secrets":            {append(insert(base, 0xdb, secrets...), "secret"...), base},
		"secrets before SOS": {insert(base, 0xda, secrets...), base},
		"JFIF":               {insert(base, 0xdb, seg(0xe0, jfif+"\x02\x01secret")), insert(base, 0xdb, seg(0xe0, jfif+"\x00\x00"))},
		"Adobe":              {insert(base, 0xdb, seg(0xee, adobe+"secret")), insert(base, 0xdb, seg(0xee, adobe))},
		"ICC":                {insert(base, 0xdb, seg(0xe2, icc)), insert(base, 0xdb, seg(0xe2, icc))},
		"long ICC":           {insert(base, 0xdb, seg(0xe2, icc+"secret")), insert(base, 0xdb, seg(0xe2, icc))},
		"short ICC":          {insert(base, 0xdb, seg(0xe2, icc[:100])), insert(base, 0xdb, seg(0xe2, icc[:100]))},
		"empty ICC":          {insert(base, 0xdb, seg(0xe2, icc[:14]+profile(127))), insert(base, 0xdb, seg(0xe2, icc[:14]))},
		"ICC in chunks": {
			insert(base, 0xdb, seg(0xe2, "ICC_PROFILE\x00\x01\x03"+icc[14:100]), seg(0xe2, "ICC_PROFILE\x00\x02\x03"+icc[100:]+"secret"), seg(0xe2, "ICC_PROFILE\x00\x03\x03secret")),
			insert(base, 0xdb, seg(0xe2, "ICC_PROFILE\x00\x01\x03"+icc[14:100]), seg(0xe2, "ICC_PROFILE\x00\x02\x03"+icc[100:]), seg(0xe2, "ICC_PROFILE\x00\x03\x03")),
		},
		"orientation": {
			insert(base, 0xdb, seg(0xe0, jfif+"\x00\x00"), seg(0xe1, exifOf(6, big)), seg(0xe1, exifOf(3, "secret"))),
			insert(base, 0xdb, seg(0xe0, jfif+"\x00\x00"), seg(0xe1, minimal)),
		},
		"fill bytes":   {bytes.Replace(base, []byte("\xff\xc0"), []byte(strings.Repeat("\xff", 100_000)+"\xc0"), 1), base},
		"two pictures": {append(bytes.Clone(base), insert(base, 0xdb, secrets...)...), base},
	} {
		out := stripped(t, test.in)
		if !bytes.Equal(out, test.out) {
			t.Errorf("%s: got %q, want %q", name, out, test.out)
		}
		if bytes.Contains(out, []byte("secret")) {
			t.Errorf("%s: got a secret, want none", name)
		}
		if !strings.Contains(name, "Adobe") { // which means RGB to image/jpeg
			samePixels(t, test.in, out)
		}
		var slow bytes.Buffer
		if _, err := verify.Copy(&slow, iotest.OneByteReader(bytes.NewReader(test.in)), stripping); err != nil || !bytes.Equal(slow.Bytes(), out) {
			t.Errorf("%s: got %v and another file from a slow reader, want the same", name, err)
		}
	}

	// What cannot be understood is not kept.
	for name, test := range map[string]struct {
		chunks []string
		wrong  int // the first wrong one
	}{
		"chunk twice":     {[]string{"\x01\x01", "\x01\x01"}, 1},
		"second is first": {[]string{"\x02\x02", "\x01\x02"}, 0},
		"chunk 0":         {[]string{"\x00\x01"}, 0},
		"other number":    {[]string{"\x01\x02", "\x02\x03"}, 1},
		"after the last":  {[]string{"\x01\x01", "\x02\x01"}, 1},
	} {
		var list []segment
		for _, c := range test.chunks {
			list = append(list, seg(0xe2, "ICC_PROFILE\x00"+c+profile(200)))
		}
		b := insert(base, 0xdb, list...)
		t.Run(name, func(t *testing.T) {
			want(t, checkBytes(t, b, structural), nil, 0, "")
			want(t, checkBytes(t, b, stripping), invalid, int64(2+test.wrong*218), "its metadata cannot be removed; save it with another program: JPEG: APP2: chunk")
		})
	}
}

// TestJPEGStripPadding puts bytes after the codes of restart intervals and of a scan. They
// must be dropped, wherever the reader's buffer ends.
func TestJPEGStripPadding(t *testing.T) {
	restart, large := tinyJPEG(t, "restart"), encodeJPEG(t, photo(600), 90)
	if len(large) < bufferSize {
		t.Fatalf("got %d bytes, want more", len(large))
	}
	for name, test := range map[string]struct {
		b    []byte
		from int // bytes before the place where the buffer ends
	}{
		"restart": {restart, len(restart)},
		"large":   {large, 60},
	} {
		for _, padding := range []string{"secret", "\x00", "s", "\xff\x00secret\xff\x00", strings.Repeat("\xff\x00", 8), "\xff\xff"} {
			before := func(marker string, b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(marker), []byte(padding+marker))
			}
			padded := before(eoi, test.b)
			for i := range 8 {
				padded = before("\xff"+string([]byte{0xd0 + byte(i)}), padded)
			}
			for n := range test.from {
				// A segment that is dropped moves the end of the file to the end of a buffer.
				size := bufferSize - len(padded)%bufferSize + n
				segments := bytes.Repeat(seg(0xfe, strings.Repeat("c", size/2-4)).bytes(), 2)
				b := slices.Concat(padded[:2], segments, padded[2:])
				if out, _, err := strip(b); err != nil || !bytes.Equal(out, test.b) {
					t.Fatalf("%s, %q, %d: got %v and %d bytes, want the %d without padding", name, padding, n, err, len(out), len(test.b))
				}
			}
		}
	}
}

// TestJPEGNothingWritten checks that a bad image reaches dst only up to the buffer before
// the wrong byte, also if metadata before was dropped.
func TestJPEGNothingWritten(t *testing.T) {
	base := tinyJPEG(t, "baseline")
	for _, size := range []int{100, 60_000} {
		b := insert(base, 0xdb, seg(0xe4, strings.Repeat("x", size)))
		b[len(b)-1] = 0
		var w writer
		_, err := verify.Copy(&w, bytes.NewReader(b), structural)
		want(t, err, invalid, -1, "")
		if w.Len() > 0 {
			t.Errorf("got %d bytes written, want none", w.Len())
		}
	}
	m := encodeJPEG(t, photo(500), 90)
	for n := 0; n < len(m); n += 5000 {
		var w writer
		_, err := verify.Copy(&w, bytes.NewReader(m[:n]), stripping)
		if err == nil || w.Len() > n/bufferSize*bufferSize || !bytes.HasPrefix(m, w.Bytes()) {
			t.Errorf("cut at %d: got %v and %d bytes written, want an error and %d", n, err, w.Len(), n/bufferSize*bufferSize)
		}
	}
}

// TestJPEGFlips flips every bit of a file and counts what is found. A JPEG has no
// checksums: most wrong bits make another valid picture.
func TestJPEGFlips(t *testing.T) {
	for name, least := range map[string][2][2]int{ // structural, pixels; headers, data
		"baseline":    {{38, 15}, {43, 45}},
		"restart":     {{40, 20}, {44, 35}},
		"progressive": {{30, 65}, {33, 70}},
	} {
		b := tinyJPEG(t, name)
		scan := bytes.Index(b, []byte("\xff\xda"))
		var tried [2]int    // headers, data
		var found [2][2]int // structural, pixels; headers, data
		for i := 0; i < 8*len(b); i += stride {
			part := 0
			if i/8 >= scan {
				part = 1
			}
			tried[part]++
			b[i/8] ^= 1 << (i % 8)
			for k, opts := range []verify.Options{structural, pixels} {
				if checkBytes(t, b, opts) != nil {
					found[k][part]++
				}
			}
			b[i/8] ^= 1 << (i % 8)
		}
		for k, how := range []string{"structural", "pixels"} {
			headers, data := 100*found[k][0]/tried[0], 100*found[k][1]/tried[1]
			t.Logf("%s, %s: found %d %% of wrong bits in the headers, %d %% in the data", name, how, headers, data)
			if headers < least[k][0] || data < least[k][1] {
				t.Errorf("%s, %s: got %d %% and %d %%, want at least %v", name, how, headers, data, least[k])
			}
		}
	}
}

// An endless reader returns the head once, and the body for ever.
type endless struct {
	head, body []byte
	pos        int
}

func (r *endless) Read(b []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(b, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	n := copy(b, r.body[r.pos:])
	r.pos = (r.pos + n) % len(r.body)
	return n, nil
}

// TestJPEGMemory reads endless files up to a limit. What is allocated does not grow.
func TestJPEGMemory(t *testing.T) {
	// Every block is one code for DC and one for the end of block, of 4 bits together.
	table := func(class string) string { return class + "\x00\x01" + strings.Repeat("\x00", 14) + "\x00" }
	head := func(frame byte, scan string) []byte {
		b := jpegFile(seg(0xdb, "\x00"+strings.Repeat("\x01", 64)), seg(0xc0+frame, "\x08\xff\xdc\xff\xdc\x01\x01\x11\x00"), seg(0xc4, table("\x00")+table("\x10")), seg(0xda, scan))
		return b[:len(b)-2]
	}
	zeros := make([]byte, 1000)
	odd := errors.New("odd")
	for name, test := range map[string]struct {
		r    *endless
		opts verify.Options
	}{
		"structural": {&endless{head: head(0, "\x01\x01\x00\x00\x3f\x00"), body: append(zeros, 0xff, 0)}, structural},
		"pixels":     {&endless{head: head(0, "\x01\x01\x00\x00\x3f\x00"), body: zeros}, pixels},
		"segments":   {&endless{head: []byte(soi), body: seg(0xe4, strings.Repeat("x", 5000)).bytes()}, stripping},
		"tables":     {&endless{head: []byte(soi), body: seg(0xc4, table("\x00")+table("\x10")).bytes()}, stripping},
		"Exif":       {&endless{head: []byte(soi), body: seg(0xe1, exifOf(6, strings.Repeat("x", 60_000))).bytes()}, stripping},
		"fill":       {&endless{head: []byte(soi), body: []byte("\xff\xff\xff")}, stripping},
		"trailer":    {&endless{head: tinyJPEG(t, "baseline"), body: zeros}, stripping},
	} {
		var used [2]uint64
		for i, size := range []int64{1 << 20, 1<<20 + 8<<20/stride} {
			r := *test.r
			in := io.MultiReader(io.LimitReader(&r, size), iotest.ErrReader(odd))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := verify.Copy(io.Discard, in, test.opts)
			runtime.ReadMemStats(&after)
			if err != odd {
				t.Errorf("%s: got %v after %d bytes, want %v", name, err, size, odd)
			}
			used[i] = after.TotalAlloc - before.TotalAlloc
		}
		if used[1] > used[0]+256<<10 {
			t.Errorf("%s: got %d bytes allocated for 1 MiB and %d for more, want no more", name, used[0], used[1])
		}
	}
}

// lenientJPEG has reasons why image/jpeg decodes what Copy refuses, by a part of the
// refusal. These are the rules that image/jpeg does not enforce.
var lenientJPEG = []struct{ part, why string }{
	{"want FF and a marker", "image/jpeg skips bytes between segments"},
	{"unknown marker FF00", "image/jpeg skips bytes between segments"},
	{"outside of a scan", "image/jpeg ignores restart markers there"},
	{"DQT: table", "image/jpeg takes a quantization of 0"},
	{"DHT: table", "image/jpeg takes codes that do not fit"},
	{"DHT: DC table", "image/jpeg takes categories of 16 bits, and all in unused tables"},
	{"more than 65500", "image/jpeg takes up to 65535"},
	{"it is a JPEG that has its height behind", "image/jpeg takes an image without lines"},
	{"width 0", "image/jpeg takes an image without columns"},
	{"second scan of component", "image/jpeg decodes a component again"},
	{"no scan has component", "image/jpeg leaves a component gray"},
	{"needs quantization table", "image/jpeg has undefined tables of zeros"},
	{"point transform", "image/jpeg does not follow the progression"},
	{"which is not there yet", "image/jpeg does not follow the progression"},
	{"before its DC coefficients", "image/jpeg does not follow the progression"},
	{"which is not defined", "image/jpeg needs a table only when there is a block"},
	{"a restart marker after interval", "image/jpeg skips restart markers after a scan"},
	{"restart interval", "image/jpeg skips bytes before a restart marker, and those after a scan"},
	{"FF FF 00", "image/jpeg skips bytes before a restart marker, and those after a scan"},
	{"bytes after MCU", "image/jpeg skips bytes before a restart marker, and those after a scan"},
	{"more coefficients than a block has", "image/jpeg ends the block"},
	{"an end of several blocks", "image/jpeg takes these in a sequential image"},
	{"an end of more blocks than are left", "image/jpeg goes on in the next scan"},
}

// FuzzJPEG compares with image/jpeg. Copy must accept every file that image/jpeg decodes,
// with the exceptions of lenientJPEG. What is stripped must have the same pixels.
func FuzzJPEG(f *testing.F) {
	for _, b := range goJPEGs(f) {
		if len(b) < 8<<10 {
			f.Add(b)
		}
	}
	for name := range tinyJPEGs {
		f.Add(tinyJPEG(f, name))
	}
	for _, b := range unusualJPEGs(f) {
		f.Add(b)
	}
	for _, w := range wrongJPEGs(f) {
		f.Add(w.b)
	}
	base := tinyJPEG(f, "baseline")
	f.Add(insert(base, 0xdb, seg(0xe1, exifOf(6, "")), seg(0xe2, "ICC_PROFILE\x00\x01\x01"+profile(130))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !bytes.HasPrefix(b, []byte("\xff\xd8\xff")) {
			return
		}
		if c, err := jpeg.DecodeConfig(bytes.NewReader(b)); err == nil && c.Width*c.Height > 1<<20 {
			return
		}
		againstImageJPEG(t, b)
	})
}

func againstImageJPEG(t *testing.T, b []byte) {
	m, err := jpeg.Decode(bytes.NewReader(b))
	s, p := checkBytes(t, b, structural), checkBytes(t, b, pixels)
	if s != nil && p == nil {
		t.Errorf("structural: got %v, want no error as for pixels", s)
	}
	if err == nil {
		for _, e := range []error{s, p} {
			if e != nil && !slices.ContainsFunc(lenientJPEG, func(l struct{ part, why string }) bool { return strings.Contains(e.Error(), l.part) }) {
				t.Errorf("got %v, image/jpeg decodes it", e)
			}
		}
	}
	for _, opts := range []verify.Options{structural, pixels, stripping} {
		var out, slow bytes.Buffer
		meta, err := verify.Copy(&out, bytes.NewReader(b), opts)
		other, slowErr := verify.Copy(&slow, iotest.OneByteReader(bytes.NewReader(b)), opts)
		if fmt.Sprint(err) != fmt.Sprint(slowErr) || meta != other || !bytes.Equal(out.Bytes(), slow.Bytes()) {
			t.Errorf("one byte: got %v, %v and %d bytes, want %v, %v and %d as in one piece", other, slowErr, slow.Len(), meta, err, out.Len())
		}
		if err == nil && !opts.StripMetadata && !bytes.Equal(out.Bytes(), b) {
			t.Error("got another copy, want the bytes of the file")
		}
		if e := (*verify.Error)(nil); errors.As(err, &e) && (e.Offset < 0 || e.Offset > int64(len(b))) {
			t.Errorf("got offset %d, want at most %d", e.Offset, len(b))
		}
	}
	if s != nil {
		return
	}
	if e := checkBytes(t, b, stripping); e != nil {
		if p == nil || fmt.Sprint(e) != fmt.Sprint(p) {
			want(t, e, invalid, -1, "its metadata cannot be removed")
		}
		return
	} else if p != nil {
		t.Errorf("strip: got no error, want %v as for pixels", p)
	}
	out := stripped(t, b)
	if _, err := jpeg.Decode(bytes.NewReader(out)); m != nil && err != nil {
		t.Errorf("stripped: got %v from image/jpeg, want no error", err)
	}
	// For image/jpeg, the last APP0 decides whether the colours are those of JFIF.
	if !bytes.Contains(b, []byte("JFIF")) && !bytes.Contains(b, []byte("\xff\xe0")) {
		samePixels(t, b, out)
	}
}
