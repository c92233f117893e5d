package verify_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore/internal/verify"
)

func u16(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
func u32(v int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }

// bmff returns a box.
func bmff(name string, parts ...[]byte) []byte {
	data := slices.Concat(parts...)
	return slices.Concat(u32(8+len(data)), []byte(name), data)
}

// full returns a FullBox.
func full(name string, version, flags int, parts ...[]byte) []byte {
	return bmff(name, append([][]byte{u32(version<<24 | flags)}, parts...)...)
}

func ftyp(brands string) []byte {
	return bmff("ftyp", []byte(brands[:4]), u32(0), []byte(strings.ReplaceAll(brands, " ", "")))
}

// A heifItem is an item of a heif.
type heifItem struct {
	id     int
	kind   string
	info   string   // what follows the type in infe
	data   [][]byte // extents
	method int      // 0: in mdat, 1: in idat
	props  []int    // indexes of properties from 1, negative if they are essential
}

// A heif describes a file.
type heif struct {
	brands   string
	items    []heifItem
	props    [][]byte
	refs     [][]byte
	primary  int
	inMeta   [][]byte // boxes at the end of meta
	moov     func(mdat int) []byte
	before   []byte   // bytes at the beginning of mdat
	after    []byte   // bytes at its end
	end      [][]byte // boxes at the end
	metaLast bool
	iloc     func(ilocs []byte) []byte // changes it
	boxes    func(parts [][]byte)      // changes those of meta
}

// bytes returns the file.
func (h heif) bytes() []byte {
	top := ftyp(h.brands)
	size := len(h.meta(0))
	moov := []byte(nil)
	if h.moov != nil {
		moov = h.moov(0)
	}
	mdat := slices.Clone(h.before)
	for _, it := range h.items {
		if it.method == 0 {
			mdat = append(mdat, slices.Concat(it.data...)...)
		}
	}
	mdat = bmff("mdat", mdat, h.after)
	at := len(top) + size + len(moov) + 8
	if h.metaLast {
		at = len(top) + 8
	}
	if h.moov != nil {
		moov = h.moov(at + len(h.before))
	}
	meta := h.meta(at + len(h.before))
	if h.metaLast {
		return slices.Concat(top, mdat, meta, moov, slices.Concat(h.end...))
	}
	return slices.Concat(top, meta, moov, mdat, slices.Concat(h.end...))
}

func (h heif) meta(at int) []byte {
	if h.items == nil {
		return nil
	}
	var infes, ilocs, idat, ipma []byte
	for _, it := range h.items {
		infes = append(infes, full("infe", 2, 0, u16(it.id), u16(0), []byte(it.kind), []byte(it.info), []byte{0})...)
		ilocs = slices.Concat(ilocs, u16(it.id), u16(it.method), u16(0), u16(len(it.data)))
		for _, d := range it.data {
			if it.method == 1 {
				ilocs = slices.Concat(ilocs, u32(len(idat)), u32(len(d)))
				idat = append(idat, d...)
			} else {
				ilocs = slices.Concat(ilocs, u32(at), u32(len(d)))
				at += len(d)
			}
		}
		ipma = slices.Concat(ipma, u16(it.id), []byte{byte(len(it.props))})
		for _, p := range it.props {
			if p < 0 {
				p = 0x80 - p
			}
			ipma = append(ipma, byte(p))
		}
	}
	if h.iloc != nil {
		ilocs = h.iloc(ilocs)
	}
	parts := [][]byte{
		full("hdlr", 0, 0, u32(0), []byte("pict"), make([]byte, 12), []byte("a name\x00")),
		full("pitm", 0, 0, u16(h.primary)),
		full("iinf", 0, 0, u16(len(h.items)), infes),
		full("iloc", 1, 0, []byte{0x44, 0}, u16(len(h.items)), ilocs),
		bmff("iprp", bmff("ipco", h.props...), full("ipma", 0, 0, u32(len(h.items)), ipma)),
	}
	if h.refs != nil {
		parts = append(parts, full("iref", 0, 0, h.refs...))
	}
	if idat != nil {
		parts = append(parts, bmff("idat", idat))
	}
	if h.boxes != nil {
		h.boxes(parts)
	}
	return full("meta", 0, 0, append(parts, h.inMeta...)...)
}

func heifRef(name string, from int, to ...int) []byte {
	b := slices.Concat(u16(from), u16(len(to)))
	for _, id := range to {
		b = append(b, u16(id)...)
	}
	return bmff(name, b)
}

func ispe(w, h int) []byte { return full("ispe", 0, 0, u32(w), u32(h)) }

// obu returns an AV1 open bitstream unit.
func obu(kind byte, data ...byte) []byte {
	return append([]byte{kind<<3 | 2, byte(len(data))}, data...)
}

// av1 returns what looks like a coded image of some size.
func av1(w, h int) []byte {
	// A reduced still picture header, of which both sizes have 16 bits.
	v := uint64(0b000_1_1_00000_1111_1111)<<32 | uint64(w-1)<<16 | uint64(h-1)
	return slices.Concat(obu(2), obu(1, binary.BigEndian.AppendUint64(nil, v<<14)[:]...), obu(6, 1, 2, 3, 4, 5))
}

// nal returns a NAL unit of HEVC, after its length.
func nal(kind byte, data ...byte) []byte {
	return slices.Concat(u32(2+len(data)), []byte{kind << 1, 1}, data)
}

var (
	av1C = bmff("av1C", []byte{0x81, 0, 0, 0})
	hvcC = bmff("hvcC", []byte{1, 1, 0x60, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 30, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 0})
)

// anAVIF has an image of 40 x 30, Exif and XMP.
func anAVIF() heif {
	return heif{
		brands: "avif mif1 miaf",
		items: []heifItem{
			{1, "av01", "name", [][]byte{av1(40, 30)}, 0, []int{1, -2}},
			{2, "Exif", "", [][]byte{[]byte("\x00\x00\x00\x00II*\x00private")}, 0, nil},
			{3, "mime", "name\x00application/rdf+xml\x00", [][]byte{[]byte("private "), []byte("data")}, 0, nil},
		},
		props:   [][]byte{ispe(40, 30), av1C, bmff("irot", []byte{1}), bmff("pixi", make([]byte, 8))},
		refs:    [][]byte{heifRef("cdsc", 2, 1), heifRef("cdsc", 3, 1)},
		primary: 1,
		end:     [][]byte{bmff("free", []byte("private"))},
	}
}

// aHEIC has a grid of two images, a thumbnail and a map of depths.
func aHEIC() heif {
	image := slices.Concat(nal(39, 5, 20, 'p', 'r', 'i', 'v', 'a', 't', 'e', 0x80), nal(19, 9, 9, 9))
	return heif{
		brands: "heic mif1",
		items: []heifItem{
			{1, "hvc1", "", [][]byte{image[:7], image[7:]}, 0, []int{-2, 1}},
			{2, "hvc1", "", [][]byte{image}, 0, []int{-2, 1}},
			{3, "grid", "", [][]byte{{0, 0, 0, 1, 0, 100, 0, 50}}, 1, []int{3, -4}},
			{4, "hvc1", "", [][]byte{append(nal(19, 'p', 'r', 'i', 'v', 'a', 't', 'e'), image...)}, 0, []int{-2, 1}},
			{5, "hvc1", "", [][]byte{image}, 0, []int{-2, 1, 5}},
			{6, "uri ", "", [][]byte{[]byte("private")}, 1, nil},
		},
		props: [][]byte{ispe(64, 64), hvcC, ispe(100, 50), bmff("irot", []byte{3}),
			full("auxC", 0, 0, []byte("urn:mpeg:hevc:2015:auxid:2\x00")), full("udes", 0, 0, []byte("private\x00"))},
		refs:    [][]byte{heifRef("dimg", 3, 1, 2), heifRef("thmb", 4, 3), heifRef("auxl", 5, 3)},
		primary: 3,
		inMeta:  [][]byte{bmff("xml ", []byte("private")), bmff("grpl", full("altr", 0, 0, u32(7), u32(1), u32(3)), full("note", 0, 0, []byte("private")))},
	}
}

// aSequence has frames of 40 x 30 in two chunks, and sound.
func aSequence() heif {
	frames := [][]byte{av1(40, 30), av1(40, 30), obu(6, 1, 2), obu(6, 3)}
	h := heif{brands: "avis avif msf1 mif1", before: slices.Concat(slices.Concat(frames...), []byte("private"))}
	h.moov = func(at int) []byte {
		at -= len(h.before)
		n := len(av1(40, 30))
		entry := bmff("av01", make([]byte, 6), u16(1), make([]byte, 16), u16(40), u16(30), make([]byte, 14), []byte("\x07private"), make([]byte, 24), make([]byte, 4), av1C)
		trak := func(id int, handler string, entry []byte, tables ...[]byte) []byte {
			return bmff("trak",
				full("tkhd", 0, 1, []byte("maketime"), u32(id), make([]byte, 60), u32(40<<16), u32(30<<16)),
				bmff("udta", []byte("private")),
				bmff("mdia", full("mdhd", 0, 0, []byte("maketime"), make([]byte, 12)),
					full("hdlr", 0, 0, u32(0), []byte(handler), make([]byte, 12), []byte("private\x00")),
					bmff("minf", bmff("stbl", append([][]byte{full("stsd", 0, 0, u32(1), entry)}, tables...)...))))
		}
		return bmff("moov", full("mvhd", 0, 0, []byte("maketime"), make([]byte, 92)),
			trak(1, "pict", entry,
				full("stsz", 0, 0, u32(0), u32(4), u32(n), u32(n), u32(4), u32(3)),
				full("stsc", 0, 0, u32(2), u32(1), u32(1), u32(1), u32(2), u32(3), u32(1)),
				full("stco", 0, 0, u32(2), u32(at), u32(at+n))),
			trak(2, "soun", bmff("mp4a", make([]byte, 28)),
				full("stsz", 0, 0, u32(7), u32(1)),
				full("stsc", 0, 0, u32(1), u32(1), u32(1), u32(1)),
				full("stco", 0, 0, u32(1), u32(at+2*n+7))),
			bmff("udta", []byte("private")))
	}
	return h
}

// heifFiles returns real and built files, and what they are.
func heifFiles(t testing.TB) map[string]heifFile {
	files := map[string]heifFile{
		"built.avif": {anAVIF().bytes(), verify.Meta{Type: "image/avif", Width: 40, Height: 30}},
		"built.heic": {aHEIC().bytes(), verify.Meta{Type: "image/heic", Width: 50, Height: 100}},
		"built.avis": {aSequence().bytes(), verify.Meta{Type: "image/avif", Width: 40, Height: 30}},
	}
	for name, meta := range map[string]verify.Meta{
		"alpha.avif":     {Type: "image/avif", Width: 16, Height: 24},
		"grid.avif":      {Type: "image/avif", Width: 128, Height: 64},
		"sequence.avif":  {Type: "image/avif", Width: 16, Height: 16},
		"thumbnail.heic": {Type: "image/heic", Width: 32, Height: 24},
	} {
		b, err := os.ReadFile(filepath.Join("testdata", "isobmff", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = heifFile{b, meta}
	}
	return files
}

type heifFile struct {
	b    []byte
	meta verify.Meta
}

// TestISOBMFF copies and describes whole files, in pieces of all sizes.
func TestISOBMFF(t *testing.T) {
	for name, f := range heifFiles(t) {
		for how, r := range map[string]io.Reader{
			"at once":   bytes.NewReader(f.b),
			"bytewise":  iotest.OneByteReader(bytes.NewReader(f.b)),
			"with EOF":  iotest.DataErrReader(bytes.NewReader(f.b)),
			"in halves": iotest.HalfReader(bytes.NewReader(f.b)),
		} {
			var out bytes.Buffer
			meta, err := verify.Copy(&out, r, pixels)
			if err != nil || meta != f.meta || !bytes.Equal(out.Bytes(), f.b) {
				t.Errorf("%s %s: got %v, %v and the same bytes: %v, want %v", name, how, meta, err, bytes.Equal(out.Bytes(), f.b), f.meta)
			}
		}
		// A description needs what comes before mdat, and no more.
		head := f.b[:bytes.Index(f.b, []byte("mdat"))+3]
		if meta, err := verify.Describe(bytes.NewReader(head)); err != nil || meta != f.meta {
			t.Errorf("%s: got the description %v, %v, want %v", name, meta, err, f.meta)
		}
	}
}

// TestISOBMFFDescribeSeeks describes files whose description follows much data.
func TestISOBMFFDescribeSeeks(t *testing.T) {
	h := anAVIF()
	h.metaLast, h.after = true, make([]byte, 8<<20)
	b := h.bytes()
	for name, b := range map[string][]byte{
		"mdat": b,
		"free": bytes.Replace(b, []byte("mdat"), []byte("free"), 1),
	} {
		c := &seekCounter{Reader: bytes.NewReader(b)}
		meta, err := verify.Describe(c)
		if want := (verify.Meta{Type: "image/avif", Width: 40, Height: 30}); err != nil || meta != want || c.n > 128<<10 {
			t.Errorf("%s: got %v, %v and %d bytes read, want %v and at most 128 KiB", name, meta, err, c.n, want)
		}
		if meta, err := verify.Describe(struct{ io.Reader }{c.Reader}); err != nil || meta.Type != "" {
			t.Errorf("%s at its end: got %v, %v, want nothing", name, meta, err)
		}
		// 8 MiB are too many to read.
		if meta, err := verify.Describe(struct{ io.Reader }{bytes.NewReader(b)}); err != nil || meta.Width != 0 {
			t.Errorf("%s that cannot seek: got %v, %v, want nothing", name, meta, err)
		}
	}
	// Nothing follows a box that goes to the end of the file.
	copy(b[bytes.Index(b, []byte("mdat"))-4:], u32(0))
	c := &seekCounter{Reader: bytes.NewReader(b)}
	if meta, err := verify.Describe(c); err != nil || meta.Width != 0 || c.n > 128<<10 {
		t.Errorf("got %v, %v and %d bytes read, want no size and at most 128 KiB", meta, err, c.n)
	}
}

// A seekCounter counts what is read.
type seekCounter struct {
	*bytes.Reader
	n int
}

func (c *seekCounter) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// TestISOBMFFTruncated cuts files everywhere.
func TestISOBMFFTruncated(t *testing.T) {
	for name, f := range heifFiles(t) {
		valid := map[int]bool{}
		if name == "built.avif" {
			valid[len(f.b)-len("private")-8] = true // without the free box at the end
		}
		for n := range f.b {
			err := checkBytes(t, f.b[:n], structural)
			switch {
			case valid[n]:
				want(t, err, nil, 0, "")
			case n == 0:
				want(t, err, unsupported, 0, "empty")
			default:
				want(t, err, invalid, int64(n), "cut short")
			}
		}
	}
}

// TestISOBMFFBits flips every bit. There are no checksums: what is found is what breaks
// the structure. The coded pixels of these small files are few.
func TestISOBMFFBits(t *testing.T) {
	least := map[string]int{"built.avif": 45, "built.heic": 46, "built.avis": 25, "alpha.avif": 32, "grid.avif": 46, "sequence.avif": 26, "thumbnail.heic": 29}
	for name, f := range heifFiles(t) {
		found, tried := 0, 0
		for i := 0; i < 8*len(f.b); i += stride {
			tried++
			f.b[i/8] ^= 1 << (i % 8)
			if checkBytes(t, f.b, structural) != nil {
				found++
			}
			f.b[i/8] ^= 1 << (i % 8)
		}
		rate := 100 * found / tried
		t.Logf("%s: %d %% of %d flipped bits are found", name, rate, tried)
		if rate < least[name] {
			t.Errorf("%s: got %d %%, want at least %d %%", name, rate, least[name])
		}
	}
}

// strippedISOBMFF returns what stripping makes of a file, and checks what must hold of it.
func strippedISOBMFF(t testing.TB, b []byte, meta verify.Meta) []byte {
	t.Helper()
	var out, again bytes.Buffer
	m, err := verify.Copy(&out, iotest.OneByteReader(bytes.NewReader(b)), stripping)
	if err != nil || m != meta {
		t.Fatalf("got %v, %v, want %v", m, err, meta)
	}
	if m, err := verify.Copy(io.Discard, bytes.NewReader(out.Bytes()), structural); err != nil || m != meta {
		t.Errorf("a copy of the stripped file: got %v, %v, want %v", m, err, meta)
	}
	if m, err := verify.Copy(&again, bytes.NewReader(out.Bytes()), stripping); err != nil || m != meta {
		t.Errorf("stripped again: got %v, %v, want %v", m, err, meta)
	}
	if !bytes.Equal(again.Bytes(), out.Bytes()) {
		t.Errorf("stripped again: got other bytes, want the same")
	}
	if out.Len() != len(b) {
		t.Errorf("got %d bytes, want as many as before, %d", out.Len(), len(b))
	}
	return out.Bytes()
}

// TestISOBMFFStrip looks for what is private in stripped files.
func TestISOBMFFStrip(t *testing.T) {
	for name, f := range heifFiles(t) {
		t.Run(name, func(t *testing.T) {
			out := strippedISOBMFF(t, f.b, f.meta)
			for _, secret := range []string{"private", "privat", "SECRET", "name", "maketime", "Exif", "mime", "rdf", "libavif", "x265", "adobe"} {
				if i := bytes.Index(out, []byte(secret)); i >= 0 {
					t.Errorf("got %q at byte %d, want it blanked", secret, i)
				}
			}
			for _, kept := range []string{"irot", "pixi", "av1C", "hvcC", "ispe", "colr", "auxC", "altr", "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha"} {
				if name == "built.heic" && kept == "auxC" || name == "thumbnail.heic" {
					continue // they are of what is blanked
				}
				if name == "built.avif" && (kept == "irot" || kept == "pixi") {
					continue // no item has them
				}
				if bytes.Contains(f.b, []byte(kept)) && !bytes.Contains(out, []byte(kept)) {
					t.Errorf("got no %s, want it kept", kept)
				}
			}
		})
	}
	// The coded data of what is shown are not touched.
	for _, image := range []struct {
		f    heif
		data []byte
	}{
		{anAVIF(), av1(40, 30)},
		{aHEIC(), nal(19, 9, 9, 9)},
		{aHEIC(), []byte{0, 0, 0, 1, 0, 100, 0, 50}},
		{aSequence(), slices.Concat(av1(40, 30), obu(6, 1, 2), obu(6, 3))},
	} {
		var out bytes.Buffer
		if _, err := verify.Copy(&out, bytes.NewReader(image.f.bytes()), stripping); err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(out.Bytes(), image.data) {
			t.Errorf("got no %x in %x, want it kept", image.data, out.Bytes())
		}
	}
}

// TestISOBMFFStripSizes blanks messages in coded data, of all sizes.
func TestISOBMFFStripSizes(t *testing.T) {
	private := func(n int) []byte { return bytes.Repeat([]byte("private"), n)[:n] }
	long := func(kind byte, data []byte) []byte {
		n := len(data)
		return slices.Concat([]byte{kind<<3 | 2, byte(n)&0x7f | 0x80, byte(n >> 7)}, data)
	}
	for n := range 1100 {
		if n > 10 && n%256 > 6 && n%256 < 250 && n%61 != 0 {
			continue
		}
		h := anAVIF()
		h.items[0].data = [][]byte{slices.Concat(av1(40, 30), long(5, append([]byte{4}, private(n)...)), long(15, private(n)), long(5, []byte{1, 2, 3, 4, 5}))}
		out := strippedISOBMFF(t, h.bytes(), verify.Meta{Type: "image/avif", Width: 40, Height: 30})
		if n > 3 && bytes.Contains(out, private(4)) || !bytes.Contains(out, long(5, []byte{1, 2, 3, 4, 5})) {
			t.Errorf("%d bytes in an OBU: got %q, want light levels alone", n, out)
		}
		h = aHEIC()
		array := func(kind byte, unit []byte) []byte { return slices.Concat([]byte{kind}, u16(1), u16(len(unit)), unit) }
		config := slices.Concat(hvcC[8:30], []byte{2}, array(33, []byte{66, 1, 1, 2}), array(39, append([]byte{78, 1, 5}, private(n)...)), private(9))
		h.props[1] = bmff("hvcC", config)
		h.items[0].data = [][]byte{slices.Concat(nal(39, append([]byte{5}, private(n)...)...), nal(39, 137, 1, 2), nal(19, 9, 9, 9))}
		out = strippedISOBMFF(t, h.bytes(), verify.Meta{Type: "image/heic", Width: 50, Height: 100})
		if n > 3 && bytes.Contains(out, private(4)) || !bytes.Contains(out, nal(39, 137, 1, 2)) || !bytes.Contains(out, array(33, []byte{66, 1, 1, 2})) {
			t.Errorf("%d bytes in a NAL unit: got %q, want mastering colours alone", n, out)
		}
		if n >= 2 {
			size := 0
			unit := out[bytes.Index(out, []byte{78, 1, 3})+2:][:n+1]
			if len(unit) > 3 && unit[1] == 0 && unit[2] == 3 {
				unit = unit[2:]
			}
			i := 1
			for ; unit[i] == 255; i++ {
				size += 255
			}
			size += int(unit[i])
			if unit[0] != 3 || len(unit) != i+1+size+1 || unit[len(unit)-1] != 0x80 {
				t.Errorf("%d bytes: got the message %x, want one of filler payload", n, unit)
			}
		}
	}
}

// TestISOBMFFStripHidden hides what is private in odd places.
func TestISOBMFFStripHidden(t *testing.T) {
	secret := []byte("private")
	avif := func(change func(h *heif)) []byte {
		h := anAVIF()
		change(&h)
		return h.bytes()
	}
	heic := func(change func(h *heif)) []byte {
		h := aHEIC()
		change(&h)
		return h.bytes()
	}
	property := func(essential int, parts ...[]byte) []byte {
		return avif(func(h *heif) {
			h.props[2] = bmff(string(parts[0]), parts[1:]...)
			h.items[0].props = []int{1, -2, 3 * essential}
		})
	}
	nals := func(units ...[]byte) []byte {
		return heic(func(h *heif) { h.items[0].data = [][]byte{append(slices.Concat(units...), nal(19, 9, 9, 9)...)} })
	}
	grown := func(box []byte) []byte {
		return slices.Concat(u32(len(box)+len(secret)), box[4:], secret)
	}
	for name, b := range map[string][]byte{
		"brands":             avif(func(h *heif) { h.brands = "avif mif1 priv ate_" }),
		"minor version":      bytes.Replace(anAVIF().bytes(), []byte("avif\x00\x00\x00\x00"), []byte("avifpriv"), 1),
		"second message":     nals(nal(39, slices.Concat([]byte{137, 3, 1, 2, 3, 5, 7}, secret, []byte{0x80})...)),
		"message after 0003": nals(nal(39, slices.Concat([]byte{137, 4, 1, 0, 0, 3, 0, 5, 7}, secret, []byte{0x80})...)),
		"message after 00":   nals(nal(39, slices.Concat([]byte{137, 3, 1, 0, 0, 5, 7}, secret, []byte{0x80})...)),
		"message after none": nals(nal(39, slices.Concat([]byte{137, 0, 5, 7}, secret, []byte{0x80})...)),
		"delimiter":          nals(nal(35, secret...)),
		"end of sequence":    nals(nal(36, secret...)),
		"filler data":        nals(nal(38, secret...)),
		"reserved NAL unit":  nals(nal(45, secret...)),
		"other NAL unit":     nals(nal(62, secret...)),
		"NAL unit of hvcC": heic(func(h *heif) {
			h.props[1] = bmff("hvcC", hvcC[8:30], []byte{1, 62}, u16(1), u16(2+len(secret)), []byte{62 << 1, 1}, secret)
		}),
		"temporal delimiter": avif(func(h *heif) { h.items[0].data = [][]byte{slices.Concat(av1(40, 30), obu(2, secret...))} }),
		"grid":               heic(func(h *heif) { h.items[2].data[0] = append(h.items[2].data[0], secret...) }),
		"grid in mdat":       heic(func(h *heif) { h.items[2].method = 0; h.items[2].data[0] = append(h.items[2].data[0], secret...) }),
		"large grid": heic(func(h *heif) {
			h.items[2].data[0] = append([]byte{0, 1, 0, 1, 0, 0, 0, 100, 0, 0, 0, 50}, secret...)
		}),
		"identity": heic(func(h *heif) { // it has no data, even if iloc says so
			h.items[2] = heifItem{3, "iden", "", [][]byte{secret}, 0, []int{1}}
			h.refs[0] = heifRef("dimg", 3, 1)
		}),
		"identity outside of idat": heic(func(h *heif) {
			h.items[2] = heifItem{3, "iden", "", [][]byte{secret}, 1, []int{1}}
			h.refs[0] = heifRef("dimg", 3, 1)
			h.iloc = func(b []byte) []byte {
				copy(b[bytes.Index(b, append(u32(0), u32(7)...)):], u32(1000))
				return b
			}
		}),
		"ispe":         avif(func(h *heif) { h.props[0] = grown(ispe(40, 30)) }),
		"irot":         property(-1, []byte("irot"), []byte{1}, secret),
		"nclx":         property(1, []byte("colr"), []byte("nclx"), make([]byte, 7), secret),
		"nclc":         property(1, []byte("colr"), []byte("nclc"), make([]byte, 6), secret),
		"unknown colr": property(1, []byte("colr"), []byte("abcd"), secret),
		"pixi":         property(1, []byte("pixi"), make([]byte, 4), []byte{3, 8, 8, 8}, secret),
		"auxC":         property(1, []byte("auxC"), make([]byte, 4), []byte("urn:a\x00"), make([]byte, 32), secret),
		"reference":    heic(func(h *heif) { h.refs[0] = grown(h.refs[0]) }),
		"iloc":         avif(func(h *heif) { h.iloc = func(b []byte) []byte { return append(b, secret...) } }),
		"pitm":         avif(func(h *heif) { h.boxes = func(parts [][]byte) { parts[1] = grown(parts[1]) } }),
		"ipma": avif(func(h *heif) {
			h.boxes = func(parts [][]byte) {
				i := bytes.Index(parts[4], []byte("ipma")) - 4
				parts[4] = bmff("iprp", parts[4][8:i], grown(parts[4][i:]))
			}
		}),
	} {
		meta, err := verify.Copy(io.Discard, bytes.NewReader(b), structural)
		if err != nil {
			t.Fatalf("%s: got %v, want a valid file", name, err)
		}
		if out := strippedISOBMFF(t, b, meta); bytes.Contains(out, []byte("priv")) || bytes.Contains(out, []byte("vate")) {
			t.Errorf("%s: got %q, want nothing private", name, out)
		}
	}
	// A message that is shown stays, also if another follows that is not.
	var out bytes.Buffer
	for filler, b := range map[string][]byte{
		"\x89\x03\x01\x02\x03\x03\x03\xff\xff\xff\x80":         nals(nal(39, 137, 3, 1, 2, 3, 5, 3, 'a', 'b', 'c', 0x80)),
		"\x89\x03\x01\x00\x00\x03\x03\x02\xff\xff\x80":         nals(nal(39, 137, 3, 1, 0, 0, 5, 3, 'a', 'b', 'c', 0x80)),
		"\x89\x04\x01\x00\x00\x03\x01\x93\x01\x02\x80":         nals(nal(39, 137, 4, 1, 0, 0, 3, 1, 147, 1, 2, 0x80)),
		"\x89\x04\x01\x00\x00\x03\x01\x03\x03\xff\xff\xff\x80": nals(nal(39, 137, 4, 1, 0, 0, 3, 1, 5, 3, 'a', 'b', 'c', 0x80)),
	} {
		out.Reset()
		if _, err := verify.Copy(&out, iotest.OneByteReader(bytes.NewReader(b)), stripping); err != nil || !bytes.Contains(out.Bytes(), []byte(filler)) {
			t.Errorf("got %v and %x, want %x in it", err, out.Bytes(), filler)
		}
	}
}

// TestISOBMFFStripFails strips what cannot be stripped surely.
func TestISOBMFFStripFails(t *testing.T) {
	last := anAVIF()
	last.metaLast = true
	b := last.bytes()
	want(t, checkBytes(t, b, structural), nil, 0, "")
	if meta, err := verify.Describe(bytes.NewReader(b)); err != nil || meta.Width != 40 {
		t.Errorf("got %v, %v, want a description", meta, err)
	}
	want(t, checkBytes(t, b, stripping), invalid, int64(len(ftyp(last.brands))), "its metadata cannot be removed; save it with another program: AVIF: meta and moov must come before mdat")

	sequence := aSequence()
	h := anAVIF()
	h.brands, h.moov, h.before = sequence.brands, sequence.moov, sequence.before
	h.metaLast = true
	want(t, checkBytes(t, h.bytes(), stripping), invalid, -1, "must come before mdat")

	overlap := anAVIF()
	overlap.iloc = func(b []byte) []byte {
		copy(b[8*2+8:], b[8:12]) // Exif is where the image is
		return b
	}
	b = overlap.bytes()
	want(t, checkBytes(t, b, structural), nil, 0, "")
	want(t, checkBytes(t, b, stripping), invalid, int64(bytes.Index(b, []byte("Exif"))-16), "its metadata cannot be removed; save it with another program: AVIF: the data of item 2 (Exif) overlap those of an image")

	// The same in idat.
	overlap = aHEIC()
	overlap.iloc = func(b []byte) []byte {
		copy(b[bytes.LastIndex(b, u32(8)):], u32(7)) // the offset of what is private
		return b
	}
	b = overlap.bytes()
	want(t, checkBytes(t, b, structural), nil, 0, "")
	want(t, checkBytes(t, b, stripping), invalid, -1, "its metadata cannot be removed; save it with another program: HEIC: the data of item 6 (uri ) overlap those of an image")

	config := aHEIC()
	config.props[1] = bmff("hvcC", hvcC[8:30], []byte{1, 39, 0, 1, 0, 9})
	want(t, checkBytes(t, config.bytes(), structural), nil, 0, "")
	want(t, checkBytes(t, config.bytes(), stripping), invalid, -1, "its metadata cannot be removed; save it with another program: HEIC: hvcC is malformed")
	// Boxes that a copy does not look into.
	b = bytes.Replace(sequence.bytes(), []byte("udta"), []byte("edts"), 1)
	want(t, checkBytes(t, b, structural), nil, 0, "")
	want(t, checkBytes(t, b, stripping), invalid, int64(bytes.Index(b, []byte("edts"))-4), "its metadata cannot be removed; save it with another program: AVIF: edts is malformed")

	obus := anAVIF()
	obus.props[1] = bmff("av1C", []byte{0x81, 0, 0, 0, 5<<3 | 2, 9})
	want(t, checkBytes(t, obus.bytes(), stripping), invalid, -1, "AVIF: av1C is malformed")
}

// TestISOBMFFRules breaks every rule. The offset is that of a box's type, plus a number.
func TestISOBMFFRules(t *testing.T) {
	replace := func(b []byte, old, new string) []byte {
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("got no %q to replace", old)
		}
		return bytes.Replace(b, []byte(old), []byte(new), 1)
	}
	avif := func(change func(h *heif)) []byte {
		h := anAVIF()
		change(&h)
		return h.bytes()
	}
	heic := func(change func(h *heif)) []byte {
		h := aHEIC()
		change(&h)
		return h.bytes()
	}
	sequence := func(old, new string) []byte { return replace(aSequence().bytes(), old, new) }
	data := func(b ...[]byte) []byte {
		return avif(func(h *heif) { h.items[0].data = [][]byte{slices.Concat(b...)} })
	}
	nals := func(b ...[]byte) []byte {
		return heic(func(h *heif) { h.items[1].data = [][]byte{slices.Concat(b...)} })
	}
	good := anAVIF().bytes()
	image := av1(40, 30)
	hdlr := full("hdlr", 0, 0, u32(0), []byte("pict"), make([]byte, 13))
	meta := func(parts ...[]byte) []byte { return append(ftyp("avif"), full("meta", 0, 0, parts...)...) }
	alpha := heifFiles(t)["alpha.avif"].b
	iloc := bytes.Index(alpha, []byte("iloc"))
	stco := func(b string) string { return "stco\x00\x00\x00\x00" + b }
	for _, test := range []struct {
		name   string
		b      []byte
		kind   error
		at     string // the error is at this
		offset int    // plus this
		part   string
	}{
		// Boxes
		{"no boxes but ftyp", ftyp("avif"), invalid, "", -1, "AVIF: there is neither a meta nor a moov box"},
		{"ftyp of 12 bytes", bmff("ftyp", u32(0)), invalid, "ftyp", -4, "HEIF: ftyp: size 12, want 16 to 4096"},
		{"ftyp that is odd", bmff("ftyp", []byte("avif\x00\x00\x00\x00a")), invalid, "ftyp", -4, "HEIF: ftyp: size 17"},
		{"ftyp too large", append(u32(4100), "ftyp"...), invalid, "ftyp", -4, "HEIF: ftyp: size 4100"},
		{"second ftyp", append(ftyp("avif"), good...), invalid, "", 20 + 4, "AVIF: second ftyp box"},
		{"box type", append(slices.Clone(good), bmff("\x01abc")...), invalid, "\x01abc", 0, `AVIF: box type "\x01abc", want four letters`},
		{"box of 7 bytes", append(slices.Clone(good), "\x00\x00\x00\x07abcd"...), invalid, "abcd", -4, "AVIF: abcd: size 7, want at least 8"},
		{"large box of 15 bytes", append(slices.Clone(good), "\x00\x00\x00\x01abcd\x00\x00\x00\x00\x00\x00\x00\x0f"...), invalid, "abcd", -4, "AVIF: abcd: size 15, want at least 16"},
		{"large box", append(slices.Clone(good), "\x00\x00\x00\x01abcd\x00\x00\x00\x00\x00\x00\x00\x11x"...), nil, "", 0, ""},
		{"very large box", append(slices.Clone(good), "\x00\x00\x00\x01abcd\xff\x00\x00\x00\x00\x00\x00\x11x"...), invalid, "abcd", 4, "AVIF: abcd: largesize 18374686479671623697 is implausible"},
		{"box to the end", append(slices.Clone(good), "\x00\x00\x00\x00abcd"+strings.Repeat("x", 100)...), nil, "", 0, ""},
		{"garbage", append(slices.Clone(good), 1, 2, 3), invalid, "", -1, "5 of 8 bytes of a box's size and type are missing"},
		{"mini", append(ftyp("avif"), bmff("mini")...), unsupported, "mini", 0, "MinimizedImageBox"},
		{"fragments", append(ftyp("avis"), bmff("moof")...), unsupported, "moof", 0, "a fragmented video"},
		{"large meta", append(ftyp("avif"), append(u32(256<<10+1), "meta"...)...), invalid, "meta", -4, "its description is too large; save it with another program: AVIF: meta: size 262145"},
		{"endlessBox meta", slices.Concat(ftyp("avif"), []byte("\x00\x00\x00\x00meta"), make([]byte, 1<<20)), invalid, "meta", -4, "at most 262144 bytes are read"},
		{"second meta", slices.Concat(good, bmff("meta")), invalid, "", len(good) + 4, "AVIF: second meta box"},
		{"many mdats", slices.Concat(good, bytes.Repeat(bmff("mdat"), 1024)), invalid, "", -1, "too many pieces"},
		// Brands
		{"mp4", ftyp("isom mp42"), unsupported, "isom", 0, "it looks like a video; only "},
		{"mov", ftyp("qt__"), unsupported, "qt", 0, "a video"},
		{"jp2", ftyp("jp2_"), unsupported, "jp2", 0, ""},
		{"av1 without its brand", avif(func(h *heif) { h.brands = "mif1" }), invalid, "mif1", 0, "AVIF: ftyp: the brand avif is missing"},
		// Items
		{"handler", replace(good, "pict", "mdir"), unsupported, "mdir", 0, "a file without a picture"},
		{"no handler", replace(good, "hdlr", "abcd"), invalid, "meta", -4, "AVIF: meta has no hdlr box"},
		{"no pitm", replace(good, "pitm", "abcd"), invalid, "meta", -4, "AVIF: meta has no pitm box"},
		{"pitm 9", avif(func(h *heif) { h.primary = 9 }), invalid, "pitm", 8, "AVIF: pitm: the primary item 9 is not in iinf"},
		{"primary is Exif", avif(func(h *heif) { h.primary = 2 }), invalid, "Exif", -16, "AVIF: item 2 (Exif) is not an image"},
		{"second iloc", avif(func(h *heif) { h.inMeta = [][]byte{bmff("iloc")} }), invalid, "", -1, "AVIF: second iloc box in meta"},
		{"iinf count", replace(good, "iinf\x00\x00\x00\x00\x00\x03", "iinf\x00\x00\x00\x00\x00\x04"), invalid, "iinf", 8, "AVIF: iinf: entry_count 4, but 3 entries follow"},
		{"other box in iinf", replace(good, "infe", "abcd"), invalid, "abcd", 0, `AVIF: iinf: a "abcd" box, want infe`},
		{"item twice", avif(func(h *heif) { h.items[1].id = 1 }), invalid, "", -1, "AVIF: iinf: second item 1"},
		{"encrypted", replace(good, "\x00\x01\x00\x00av01", "\x00\x01\x00\x01av01"), invalid, "av01", -16, "AVIF: item 1 (av01) is encrypted"},
		{"box does not nest", replace(good, "\x00\x00\x00\x0epitm", "\x00\x00\x10\x0epitm"), invalid, "pitm", -4, `AVIF: the box "pitm" has size 4110, want 8 to`},
		{"bytes after boxes", avif(func(h *heif) { h.inMeta = [][]byte{{1, 2, 3}} }), invalid, "", -1, "AVIF: 3 bytes at the end of a box are too few for another"},
		{"large box in meta", avif(func(h *heif) { h.inMeta = [][]byte{[]byte("\x00\x00\x00\x01abcd\x00\x00\x00\x00\x00\x00\x00\x10")} }), nil, "", 0, ""},
		{"short meta", append(ftyp("avif"), bmff("meta", make([]byte, 3))...), invalid, "meta", -4, "AVIF: the box meta is too short, it has 11 bytes"},
		{"short hdlr", meta(full("hdlr", 0, 0, u32(0), []byte("pict"), make([]byte, 7))), invalid, "hdlr", -4, "the box hdlr is too short"},
		{"short pitm", meta(hdlr, full("pitm", 0, 0, []byte{1})), invalid, "pitm", -4, "the box pitm is too short"},
		{"short iinf", meta(hdlr, full("iinf", 0, 0, []byte{1})), invalid, "iinf", -4, "the box iinf is too short"},
		{"short infe", meta(hdlr, full("iinf", 0, 0, u16(1), full("infe", 2, 0, u16(1), u16(0), []byte("av0")))), invalid, "infe", -4, "the box infe is too short"},
		{"short ipma", meta(hdlr, bmff("iprp", full("ipma", 0, 0, u32(1)))), invalid, "ipma", -4, "the box ipma is too short"},
		{"short reference", meta(hdlr, full("iref", 0, 0, bmff("dimg", u16(1), u16(1)))), invalid, "dimg", -4, "the box dimg is too short"},
		{"extent at the end of numbers", meta(hdlr, full("iloc", 1, 0, []byte{0x88, 0}, u16(1), u16(1), u16(0), u16(0), u16(1), bytes.Repeat([]byte{255}, 16))), invalid, "iloc", 4 + 4 + 4 + 8, "is implausible"},
		{"reserved bits of iloc", append(bytes.Clone(alpha[:iloc+9]), append([]byte{alpha[iloc+9] | 4}, alpha[iloc+10:]...)...), nil, "", 0, ""},
		// Other codecs
		{"jpeg", replace(good, "av01", "jpeg"), unsupported, "jpeg", -16, "an HEIF image coded with JPEG"},
		{"avc1", replace(good, "av01", "avc1"), unsupported, "avc1", -16, "an HEIF image coded with AVC"},
		{"unci", replace(good, "av01", "unci"), unsupported, "unci", -16, "uncompressed"},
		{"vvc1", replace(good, "av01", "vvc1"), unsupported, "vvc1", -16, "VVC"},
		{"tmap", avif(func(h *heif) { h.items[0].kind = "tmap" }), unsupported, "tmap", -16, "tmap"},
		// Where the data are
		{"iloc version", replace(good, "iloc\x01", "iloc\x03"), invalid, "iloc", 4, "AVIF: iloc: version 3"},
		{"iloc sizes", replace(good, "iloc\x01\x00\x00\x00\x44", "iloc\x01\x00\x00\x00\x54"), invalid, "iloc", 4, "AVIF: iloc: version 1 and sizes 5400"},
		{"iloc count", replace(good, "iloc\x01\x00\x00\x00\x44\x00\x00\x03", "iloc\x01\x00\x00\x00\x44\x00\x00\x04"), invalid, "iloc", -4, "the box iloc is too short"},
		{"item twice in iloc", avif(func(h *heif) { h.iloc = func(b []byte) []byte { b[17] = 1; return b } }), invalid, "iloc", 28, "AVIF: iloc: item 1 is there twice"},
		{"not in iloc", avif(func(h *heif) { h.iloc = func(b []byte) []byte { b[1] = 9; return b } }), invalid, "av01", -16, "AVIF: item 1 (av01) has no data: it is not in iloc"},
		{"no extents", avif(func(h *heif) { h.items[0].data = nil }), invalid, "av01", -16, "it is not in iloc"},
		{"other file", avif(func(h *heif) { h.iloc = func(b []byte) []byte { b[5] = 1; return b } }), invalid, "av01", -16, "are in another file"},
		{"in an item", avif(func(h *heif) { h.iloc = func(b []byte) []byte { b[3] = 2; return b } }), invalid, "av01", -16, "construction method 2"},
		{"empty extent", avif(func(h *heif) { h.items[0].data = [][]byte{av1(40, 30), {}} }), invalid, "av01", -16, "has an empty extent"},
		{"outside of idat", avif(func(h *heif) { h.iloc = func(b []byte) []byte { b[3] = 1; return b } }), invalid, "av01", -16, "are not within idat"},
		{"beyond the end", avif(func(h *heif) { h.metaLast = true; h.iloc = func(b []byte) []byte { b[13] = 1; return b } }), invalid, "", -1, "cut short; send all of it: AVIF:"},
		{"in another box", avif(func(h *heif) { h.iloc = func(b []byte) []byte { copy(b[8:], u32(40)); return b } }), invalid, "av01", -16, "are not within one mdat box"},
		{"mdat is not there", replace(good, "mdat", "free"), invalid, "av01", -16, "are not within one mdat box"},
		// Properties
		{"no ispe", replace(good, "ispe", "abcd"), invalid, "av01", -16, "AVIF: item 1 (av01) has no size (ispe)"},
		{"no width", avif(func(h *heif) { h.props[0] = ispe(0, 30) }), invalid, "ispe", 8, "AVIF: ispe of item 1 (av01): size 0 x 30"},
		{"no height", avif(func(h *heif) { h.props[0] = ispe(40, 0) }), invalid, "ispe", 8, "size 40 x 0"},
		{"other size", avif(func(h *heif) { h.props[0] = ispe(41, 30) }), invalid, "", -1, "the sequence header says 40 x 30, want 41 x 30"},
		{"no av1C", replace(good, "av1C", "abcd"), invalid, "abcd", 0, "unknown essential property"},
		{"no av1C that is essential", avif(func(h *heif) { h.items[0].props = []int{1} }), invalid, "av01", -16, "AVIF: item 1 (av01) has no av1C"},
		{"short av1C", avif(func(h *heif) { h.props[1] = bmff("av1C", []byte{0x81, 0, 0}) }), invalid, "av1C", 4, "AVIF: av1C: want"},
		{"version of av1C", replace(good, "av1C\x81", "av1C\x82"), invalid, "av1C", 4, "AVIF: av1C: want"},
		{"version of hvcC", replace(aHEIC().bytes(), "hvcC\x01", "hvcC\x02"), invalid, "hvcC", 4, "HEIC: hvcC: want version 1"},
		{"lengths of 3 bytes", replace(aHEIC().bytes(), "\x00\x0f\x00", "\x00\x0e\x00"), invalid, "hvcC", 4 + 21, "HEIC: hvcC: lengthSizeMinusOne 2"},
		{"essential", avif(func(h *heif) { h.props[3] = bmff("abcd"); h.items[0].props = []int{1, -2, -4} }), invalid, "abcd", 0, `AVIF: item 1 (av01) has the unknown essential property "abcd"`},
		{"not essential", avif(func(h *heif) { h.props[3] = bmff("abcd"); h.items[0].props = []int{1, -2, 4} }), nil, "", 0, ""},
		{"turned without need", avif(func(h *heif) { h.items[0].props = []int{1, -2, 3} }), invalid, "irot", 0, "AVIF: irot of item 1 (av01): essential is false, want true"},
		{"layers with need", avif(func(h *heif) { h.props[3] = bmff("a1lx", make([]byte, 7)); h.items[0].props = []int{1, -2, -4} }), invalid, "a1lx", 0, "essential is true, want false"},
		{"no such property", avif(func(h *heif) { h.items[0].props = []int{1, -2, 5} }), invalid, "ipma", 8 + 4 + 5, "AVIF: ipma: item 1 has property 5, but there are 4"},
		{"twice in ipma", replace(good, "\x00\x02\x00\x00\x03\x00", "\x00\x01\x00\x00\x03\x00"), invalid, "ipma", 8 + 4 + 5, "AVIF: ipma: item 1 is there twice"},
		{"version of ipma", replace(good, "ipma\x00", "ipma\x02"), invalid, "ipma", 4, "AVIF: ipma: version 2"},
		{"second ipco", replace(good, "ipma", "ipco"), invalid, "ipco\x00\x00\x00\x00\x00\x00", 0, "AVIF: second ipco box"},
		// Derived images
		{"derived from nothing", heic(func(h *heif) { h.refs = nil }), invalid, "grid", -16, "HEIC: item 3 (grid) has no data: it is not derived from coded images"},
		{"input derived from nothing", heic(func(h *heif) {
			h.items[1].kind = "grid"
			h.items[2].kind = "iovl"
		}), invalid, "grid", -16, "HEIC: item 2 (grid) has no data: it is not derived from coded images"},
		{"derived twice", heic(func(h *heif) { h.refs = append(h.refs, heifRef("dimg", 3, 2, 1)) }), invalid, "", -1, "HEIC: iref: second dimg box of item 3 (grid)"},
		{"derived from what is not there", heic(func(h *heif) { h.refs[0] = heifRef("dimg", 3, 1, 9) }), invalid, "dimg", -4, "HEIC: iref: item 3 (grid) is derived from item 9, which is not in iinf"},
		{"derived from itself", heic(func(h *heif) { h.refs[0] = heifRef("dimg", 3, 3, 3) }), invalid, "grid", -16, "not derived from coded images"},
		{"missing image of a grid", heic(func(h *heif) { h.refs[0] = heifRef("dimg", 3, 1) }), invalid, "idat", 4 + 8, "the data of item 3 (grid): 1 rows and 2 columns, but 1 images"},
		{"grid of another size", heic(func(h *heif) { h.items[2].data[0][5] = 101 }), invalid, "idat", 4 + 8, "size 101 x 50, but ispe says 100 x 50"},
		{"grid not covered", heic(func(h *heif) { h.props[2] = ispe(129, 50); h.items[2].data[0][5] = 129 }), invalid, "idat", 4 + 8, "2 x 1 images of 64 x 64 do not cover 129 x 50"},
		{"grid too short", heic(func(h *heif) { h.items[2].data[0] = make([]byte, 7) }), invalid, "idat", 4 + 7, "7 bytes, want 8, or 12"},
		{"large grid too short", heic(func(h *heif) { h.items[2].data[0][1] = 1 }), invalid, "idat", 4 + 8, "8 bytes, want 8, or 12"},
		{"large grid", heic(func(h *heif) { h.items[2].data[0] = []byte{0, 1, 0, 1, 0, 0, 0, 100, 0, 0, 0, 50} }), nil, "", 0, ""},
		{"grid in mdat", heic(func(h *heif) { h.items[2].method = 0 }), nil, "", 0, ""},
		{"wrong grid in mdat", heic(func(h *heif) { h.items[2].method = 0; h.items[2].data[0][5] = 101 }), invalid, "", -1, "size 101 x 50"},
		{"identity", heic(func(h *heif) { h.items[2].kind = "iden"; h.refs[0] = heifRef("dimg", 3, 1) }), nil, "", 0, ""},
		{"identity of two", heic(func(h *heif) { h.items[2].kind = "iden" }), invalid, "dimg", -4, "HEIC: iref: item 3 (iden) is derived from 2 images"},
		{"mixed codecs", heic(func(h *heif) {
			h.items[1].kind = "av01"
			h.props = append(h.props, av1C)
			h.items[1].props = []int{1, 7}
		}), invalid, "", -1, "is coded otherwise"},
		// AV1
		{"no frame", data(obu(1, 0), obu(2)), invalid, "", -1, "there is no frame"},
		{"no sequence header", data(obu(6, 0)), invalid, "", -1, "there is no sequence header"},
		{"OBU too long", data(image, []byte{6<<3 | 2, 5, 1}), invalid, "", -1, "an OBU is longer than what is left"},
		{"OBU size cut short", data(image, []byte{6<<3 | 2, 0x80}), invalid, "", -1, "an OBU is cut short"},
		{"OBU header cut short", data(image, []byte{6<<3 | 2}), invalid, "", -1, "an OBU is cut short"},
		{"OBU size too large", data(image, []byte{6<<3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0}), invalid, "", -1, "the size of an OBU is too large"},
		{"forbidden bit of an OBU", data(image, []byte{0x80 | 6<<3 | 2, 0}), invalid, "", -1, "the forbidden bit of an OBU"},
		{"reserved OBU", data(image, obu(9)), invalid, "", -1, "reserved type"},
		{"zeros", data(image, make([]byte, 9)), invalid, "", -1, "reserved type"},
		{"last OBU without size", data(image[:len(image)-7], []byte{6 << 3, 1, 2, 3}), nil, "", 0, ""},
		{"OBUs with extensions", data(image, []byte{6<<3 | 4 | 2, 0, 1, 1, 6<<3 | 4, 0, 1, 2, 3}), nil, "", 0, ""},
		// HEVC
		{"NAL too long", nals(nal(19, 1), []byte{0, 0, 0, 9, 19 << 1, 1}), invalid, "", -1, "a NAL unit is longer than what is left"},
		{"NAL too short", nals(nal(19, 1), []byte{0, 0, 0, 1, 19 << 1}), invalid, "", -1, "a NAL unit is shorter than its header"},
		{"NAL length cut short", nals(nal(19, 1), []byte{0, 0, 0}), invalid, "", -1, "a NAL unit is cut short"},
		{"forbidden bit of a NAL", nals(nal(19, 1), nal(0x80|19, 1), []byte{0, 0, 0, 2, 0x80, 1}), invalid, "", -1, "the forbidden bit of a NAL unit"},
		{"no temporal identifier", nals([]byte{0, 0, 0, 2, 19 << 1, 0}), invalid, "", -1, "no temporal identifier"},
		{"no slice", nals(nal(39, 1)), invalid, "", -1, "there is no coded slice"},
		{"NAL without data", nals(nal(19), nal(19)), nil, "", 0, ""},
		// Sequences
		{"no samples", sequence("stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04", "stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), unsupported, "", 8, "a video"},
		{"stsz too short", sequence("stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04", "stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05"), invalid, "stsz", -4, "the box stsz is too short"},
		{"fewer chunks", sequence(stco("\x00\x00\x00\x02"), stco("\x00\x00\x00\x01")), invalid, "stco", -4, "stsc and stco have 1 samples, but stsz has 4"},
		{"missing chunks", sequence(stco("\x00\x00\x00\x02"), stco("\x00\x00\x00\x03")), invalid, "stco", -4, ""},
		{"first chunk", sequence("stsc\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01", "stsc\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02"), invalid, "stsc", -4, "AVIF: stsc: first_chunk 2, want 1"},
		{"stsc is empty", sequence("stsc\x00\x00\x00\x00\x00\x00\x00\x02", "stsc\x00\x00\x00\x00\x00\x00\x00\x00"), invalid, "stsc", -4, "AVIF: stsc is empty"},
		{"no stsc", sequence("stsc", "abcd"), invalid, "trak", -4, "has no stsc"},
		{"no stco", sequence("stco", "abcd"), invalid, "trak", -4, "has no stsc"},
		{"track without size", sequence("\x00\x28\x00\x00\x00\x1e\x00\x00", "\x00\x28\x00\x00\x00\x00\x00\x00"), invalid, "trak", -4, "tkhd: size 40 x 0"},
		{"video", sequence("av01", "abcd"), unsupported, "", 8, "a video"},
		{"not a picture", sequence("pict", "soun"), unsupported, "", 8, "a video"},
		{"wrong sample", sequence(string(obu(6, 1, 2)), string([]byte{6<<3 | 2, 9, 1, 2})), invalid, "", -1, "AVIF: the data of track 1 (av01): an OBU is longer than what is left"},
		{"second moov", append(aSequence().bytes(), bmff("moov")...), invalid, "", -1, "second moov box"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if len(test.b) == 0 {
				return
			}
			at := int64(-1)
			if test.at != "" {
				at = int64(bytes.Index(test.b, []byte(test.at)) + test.offset)
			} else if test.offset >= 0 {
				at = int64(test.offset)
			}
			want(t, checkBytes(t, test.b, structural), test.kind, at, test.part)
			want(t, check(t, iotest.OneByteReader(bytes.NewReader(test.b)), structural), test.kind, at, test.part)
			if err := checkBytes(t, test.b, stripping); test.kind != nil && err == nil {
				t.Errorf("stripping: got no error, want %v", test.kind)
			}
		})
	}
}

// TestISOBMFFShared reads images that share their data, wholly or in part.
func TestISOBMFFShared(t *testing.T) {
	meta := verify.Meta{Type: "image/heic", Width: 50, Height: 100}
	// A tile that is the same as another, wholly: damage is found once.
	h := aHEIC()
	image := h.items[1].data[0]
	h.items[0].data = [][]byte{image}
	h.iloc = func(b []byte) []byte {
		copy(b[8+8+8:], b[8:12])
		return b
	}
	b := h.bytes()
	want(t, checkBytes(t, b, structural), nil, 0, "")
	strippedISOBMFF(t, b, meta)
	b[bytes.Index(b, image)+2]++
	want(t, checkBytes(t, b, structural), invalid, -1, "item 1 (hvc1): a NAL unit is longer than what is left")

	// A tile that is the beginning of another is not looked into. So it is not known what
	// to blank in it.
	h = aHEIC()
	h.items[0].data = [][]byte{slices.Concat(image, image)}
	h.iloc = func(b []byte) []byte {
		copy(b[8+8+8:], b[8:12])
		return b
	}
	b = h.bytes()
	want(t, checkBytes(t, b, structural), nil, 0, "")
	want(t, checkBytes(t, b, stripping), invalid, -1, "its metadata cannot be removed; save it with another program: HEIC: the data of item 2 (hvc1) are not in order, or overlap those of another")

	// Data before and after meta are not looked into.
	avif := anAVIF()
	avif.items[0].data = [][]byte{{1, 2, 3}, av1(40, 30)}
	avif.metaLast = true
	b = avif.bytes()
	at := bytes.Index(b, av1(40, 30))
	i := bytes.Index(b, slices.Concat(u32(at), u32(len(av1(40, 30)))))
	copy(b[i:], u32(len(b)+8))
	b = append(b, bmff("mdat", av1(40, 30))...)
	want(t, checkBytes(t, b, structural), nil, 0, "")
}

// TestISOBMFFTypes accepts some types.
func TestISOBMFFTypes(t *testing.T) {
	only := func(types ...string) verify.Options { return verify.Options{Types: types} }
	avif, heic := anAVIF().bytes(), aHEIC().bytes()
	neutral := aHEIC()
	neutral.brands = "mif1 miaf"
	later := neutral.bytes()
	want(t, checkBytes(t, avif, only("image/avif")), nil, 0, "")
	want(t, checkBytes(t, heic, only("image/heic")), nil, 0, "")
	want(t, checkBytes(t, later, only("image/heic")), nil, 0, "")
	want(t, checkBytes(t, heic, only("image/png", "image/avif")), unsupported, 8,
		"it looks like a HEIC; only PNG and AVIF are taken; open it and save it as PNG, because a new name does not convert it; or have the store take it too")
	want(t, checkBytes(t, avif, only("image/heic")), unsupported, 8, "it looks like an AVIF; only HEIC is taken")
	want(t, checkBytes(t, later, only("image/avif")), unsupported, 8, "it looks like a HEIC; only AVIF is taken")
	// The brands decide early, if they can.
	want(t, checkBytes(t, heic[:len(ftyp("heic mif1"))], only("image/avif")), unsupported, 8, "a HEIC")
	want(t, checkBytes(t, heic, only("image/png")), unsupported, 0, "a HEIC; only PNG is taken; open it and save it as PNG, because a new name does not convert it; or have the store take it too")
	err := checkBytes(t, ftyp("isom mp42"), only("image/png"))
	want(t, err, unsupported, 0, "a video; only PNG is taken")
	if strings.Contains(err.Error(), "or have the store") {
		t.Errorf("got %v, want no advice to take videos", err)
	}
}

// TestISOBMFFDisplayed turns and crops images.
func TestISOBMFFDisplayed(t *testing.T) {
	clap := func(v ...int) []byte {
		var b []byte
		for _, n := range v {
			b = append(b, u32(n)...)
		}
		return bmff("clap", b)
	}
	for _, test := range []struct {
		name          string
		prop          []byte
		width, height int // of the AVIF of 40 x 30
		cropped       int // width of the HEIC of 100 x 50
	}{
		{"upright", bmff("irot", []byte{0}), 40, 30, 100},
		{"left", bmff("irot", []byte{1}), 30, 40, 50},
		{"upside down", bmff("irot", []byte{2}), 40, 30, 100},
		{"right", bmff("irot", []byte{3}), 30, 40, 50},
		{"mirrored", bmff("imir", []byte{1}), 40, 30, 100},
		{"cropped at the top left", clap(20, 1, 10, 1, -20, 2, -10, 1), 20, 10, 20}, // (20-40)/2, (10-30)/2
		{"cropped in the middle", clap(20, 1, 10, 1, 0, 1, 0, 1), 40, 30, 20},
		{"cropped to halves", clap(40, 2, 20, 2, -10, 1, -10, 1), 20, 10, 20},
		{"cropped outside", clap(20, 1, 10, 1, -110, 1, -10, 1), 40, 30, 100},
		{"cropped to nothing", clap(0, 1, 10, 1, -20, 1, -10, 1), 40, 30, 100},
		{"cropped by zero", clap(20, 0, 10, 1, -20, 1, -10, 1), 40, 30, 100},
		{"cropped to fractions", clap(21, 2, 10, 1, -10, 1, -10, 1), 40, 30, 100},
	} {
		h := anAVIF()
		h.props[3] = test.prop
		h.items[0].props = []int{1, -2, -4}
		meta, err := verify.Copy(io.Discard, bytes.NewReader(h.bytes()), structural)
		if err != nil || meta.Width != test.width || meta.Height != test.height {
			t.Errorf("%s: got %v, %v, want %d x %d", test.name, meta, err, test.width, test.height)
		}
		h = aHEIC()
		h.props[3] = test.prop
		meta, err = verify.Copy(io.Discard, bytes.NewReader(h.bytes()), structural)
		if err != nil || meta.Width != test.cropped {
			t.Errorf("%s: got the HEIC %v, %v, want width %d", test.name, meta, err, test.cropped)
		}
	}
}

// TestISOBMFFLimits limits pixels.
func TestISOBMFFLimits(t *testing.T) {
	avif, heic, avis := anAVIF().bytes(), aHEIC().bytes(), aSequence().bytes()
	for _, test := range []struct {
		b      []byte
		opts   verify.Options
		kind   error
		at     string
		offset int
	}{
		{avif, verify.Options{MaxPixels: 1200}, nil, "", 0},
		{avif, verify.Options{MaxPixels: 1199}, tooMany, "ispe", 8},
		{heic, verify.Options{MaxPixels: 5000}, nil, "", 0},
		{heic, verify.Options{MaxPixels: 4999}, tooMany, "ispe\x00\x00\x00\x00\x00\x00\x00\x64", 8},
		{avis, verify.Options{MaxPixels: 1200}, nil, "", 0},
		{avis, verify.Options{MaxPixels: 1199}, tooMany, "trak", -4},
		{avis, verify.Options{MaxAnimationPixels: 4800}, nil, "", 0},
		{avis, verify.Options{MaxAnimationPixels: 4799}, tooMany, "trak", -4},
	} {
		want(t, checkBytes(t, test.b, test.opts), test.kind, int64(bytes.Index(test.b, []byte(test.at))+test.offset), "")
		if _, err := verify.Describe(bytes.NewReader(test.b)); err != nil {
			t.Errorf("got %v, want a description", err)
		}
	}
	// Both, the image and the sequence, may be too large.
	sequence := aSequence()
	h := anAVIF()
	h.brands, h.before = sequence.brands, sequence.before
	h.moov = func(at int) []byte { return bytes.ReplaceAll(sequence.moov(at), u32(40<<16), u32(50<<16)) }
	h.props[0] = ispe(40, 30)
	b := h.bytes()
	meta, err := verify.Copy(io.Discard, bytes.NewReader(b), structural)
	if want := (verify.Meta{Type: "image/avif", Width: 50, Height: 30}); err != nil || meta != want {
		t.Errorf("got %v, %v, want %v, the sequence's", meta, err, want)
	}
	want(t, checkBytes(t, b, verify.Options{MaxPixels: 1499}), tooMany, -1, "50 x 30")
	want(t, checkBytes(t, b, verify.Options{MaxPixels: 1199}), tooMany, -1, "40 x 30")
}

// TestISOBMFFHostile reads what claims much.
func TestISOBMFFHostile(t *testing.T) {
	meta := func(parts ...[]byte) []byte { return append(ftyp("avif"), full("meta", 0, 0, parts...)...) }
	hdlr := full("hdlr", 0, 0, u32(0), []byte("pict"), make([]byte, 13))
	nested := []byte{}
	for range 1 << 16 {
		nested = append(nested, "\x00\x00\x00\x00stbl"...)
	}
	for i := 0; i < len(nested); i += 8 {
		copy(nested[i:], u32(len(nested)-i))
	}
	infe := full("infe", 2, 0, u16(1), u16(0), []byte("av01\x00"))
	for _, test := range []struct {
		name string
		b    []byte
		part string
	}{
		{"items", meta(hdlr, full("iinf", 1, 0, u32(1<<14), bytes.Repeat(infe, 3000))), "more than 2048 items"},
		{"extents of no size", meta(hdlr, full("iinf", 0, 0, u16(1), infe), full("iloc", 0, 0, u16(0), u16(1), u16(1), u16(0), u16(65535))), "more than 8192 extents"},
		{"extents", meta(hdlr, full("iloc", 2, 0, u16(0), u32(1<<31-1), bytes.Repeat([]byte{0, 0, 0, 1, 0, 0, 0, 0, 255, 255}, 9))), "more than 8192 extents"},
		{"properties", meta(hdlr, bmff("iprp", bmff("ipco", bytes.Repeat(bmff("abcd"), 1<<14)))), "more than 2048 properties"},
		{"associations", meta(hdlr, bmff("iprp", full("ipma", 0, 0, u32(1<<31-1), bytes.Repeat(append([]byte{0, 1, 255}, make([]byte, 255)...), 400)))), "more than 16384 associations"},
		{"references", meta(hdlr, full("iref", 0, 0, bytes.Repeat(heifRef("abcd", 1, make([]int, 1000)...), 40))), "more than 8192 references"},
		{"empty references", meta(hdlr, full("iref", 0, 0, bytes.Repeat(heifRef("abcd", 1), 4000))), "more than 2048 boxes"},
		{"nested boxes", append(ftyp("avis"), bmff("moov", bmff("trak", bmff("mdia", bmff("minf", nested))))...), ""},
		{"tracks", append(ftyp("avis"), bmff("moov", bytes.Repeat(bmff("trak"), 65))...), "more than 64 tracks"},
		{"chunks without samples", bytes.Replace(bytes.Replace(aSequence().bytes(), slices.Concat([]byte("stsc"), u32(0), u32(2), u32(1), u32(1)), slices.Concat([]byte("stsc"), u32(0), u32(1), u32(1), u32(0)), 1),
			slices.Concat([]byte("stco"), u32(0), u32(2)), slices.Concat([]byte("stco"), u32(0), u32(-1)), 1), "stco is too short"},
		{"samples", bytes.Replace(aSequence().bytes(), []byte("stsz\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x04"), []byte("stsz\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"), 1), ""},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := checkBytes(t, test.b, structural)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, invalid) && !errors.Is(err, unsupported) || !strings.Contains(err.Error(), test.part) {
			t.Errorf("%s: got %v, want %s", test.name, err, test.part)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 3<<20 {
			t.Errorf("%s: got %d bytes allocated, want at most 3 MiB", test.name, n)
		}
	}
	// A chain of derivations.
	h := aHEIC()
	h.items, h.refs = h.items[:3], nil
	for i := 100; i < 200; i++ {
		h.items = append(h.items, heifItem{i, "iden", "", nil, 0, []int{3}})
		h.refs = append(h.refs, heifRef("dimg", i, i-1))
	}
	h.refs = append(h.refs, heifRef("dimg", 100, 1))
	h.primary = 199
	want(t, checkBytes(t, h.bytes(), structural), invalid, -1, "in too many steps")
}

// TestISOBMFFMemory reads a long mdat.
func TestISOBMFFMemory(t *testing.T) {
	h := anAVIF()
	h.end = nil
	for _, opts := range []verify.Options{structural, stripping} {
		allocated := func(size int64) uint64 {
			b := h.bytes()
			copy(b[bytes.Index(b, []byte("mdat"))-4:], u32(0)) // to the end
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := verify.Copy(io.Discard, io.MultiReader(bytes.NewReader(b), io.LimitReader(endlessBox{}, size)), opts)
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Fatal(err)
			}
			return after.TotalAlloc - before.TotalAlloc
		}
		allocated(1 << 20)
		few, many := allocated(1<<20), allocated(1<<28)
		if many > few+100<<10 {
			t.Errorf("got %d bytes allocated for 1 MiB and %d for 256 MiB, want the same", few, many)
		}
	}
}

// An endlessBox is a stream of zeros.
type endlessBox struct{}

func (endlessBox) Read(b []byte) (int, error) { return len(b), nil }

// FuzzISOBMFF checks what must hold of any file.
func FuzzISOBMFF(f *testing.F) {
	for _, file := range heifFiles(f) {
		f.Add(file.b)
	}
	h := aHEIC()
	h.metaLast = true
	f.Add(h.bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		meta, err := verify.Copy(&out, bytes.NewReader(b), structural)
		if _, serr := verify.Copy(io.Discard, bytes.NewReader(b), stripping); err != nil {
			if serr == nil {
				t.Errorf("stripping: got no error, want %v", err)
			}
			verify.Describe(bytes.NewReader(b))
			return
		} else if serr == nil {
			strippedISOBMFF(t, b, meta)
		} else if !strings.Contains(serr.Error(), "cannot be removed") {
			t.Errorf("stripping: got %v, want that it cannot be stripped", serr)
		}
		if !bytes.Equal(out.Bytes(), b) {
			t.Error("got another copy, want the bytes of the file")
		}
		if m, err := verify.Describe(bytes.NewReader(b)); err != nil || m != meta {
			t.Errorf("got the description %v, %v, want %v", m, err, meta)
		}
	})
}

// TestISOBMFFDecoders decodes files with libavif and libheif, before and after they are
// stripped. It also asks exiftool what is in them.
func TestISOBMFFDecoders(t *testing.T) {
	for name, f := range heifFiles(t) {
		if strings.HasPrefix(name, "built") || name == "grid.avif" {
			continue // these have no pixels, or nothing to strip
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			decode := func(b []byte) []byte {
				in, out := filepath.Join(dir, name), filepath.Join(dir, "out.y4m")
				tool := []string{"avifdec", in, out}
				if filepath.Ext(name) == ".heic" {
					out = filepath.Join(dir, "out.png")
					tool = []string{"heif-convert", in, out}
				}
				if _, err := exec.LookPath(tool[0]); err != nil {
					t.Skipf("%s is missing: apt-get install libavif-bin libheif-examples", tool[0])
				}
				if err := os.WriteFile(in, b, 0o600); err != nil {
					t.Fatal(err)
				}
				if text, err := exec.Command(tool[0], tool[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", tool[0], err, text)
				}
				decoded, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				if names, data, _ := parse(decoded); filepath.Ext(name) == ".heic" { // Exif is copied to the PNG
					decoded = data[slices.Index(names, "IDAT")]
				}
				return decoded
			}
			before := decode(f.b)
			out := strippedISOBMFF(t, f.b, f.meta)
			if after := decode(out); !bytes.Equal(after, before) {
				t.Error("got other pixels after stripping, want the same")
			}
			if _, err := exec.LookPath("exiftool"); err != nil {
				t.Skip("exiftool is missing: apt-get install libimage-exiftool-perl")
			}
			text, err := exec.Command("exiftool", "-a", "-G1", "-s", "-ee3", "-u", filepath.Join(dir, name)).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, group := range []string{"IFD0", "GPS", "ExifIFD", "XMP", "IPTC", "Warning", "Software"} {
				if bytes.Contains(text, []byte(group)) {
					t.Errorf("got %s from exiftool, want nothing in %s", text, group)
				}
			}
		})
	}
}

// BenchmarkISOBMFF reads images of several sizes, each of one large OBU or NAL unit.
func BenchmarkISOBMFF(b *testing.B) {
	for _, size := range []int{8 << 10, 1 << 20, 64 << 20} {
		frame := make([]byte, size)
		avif, heic := anAVIF(), aHEIC()
		leb := []byte{byte(size)&0x7f | 0x80, byte(size>>7)&0x7f | 0x80, byte(size>>14)&0x7f | 0x80, byte(size >> 21)}
		avif.items[0].data = [][]byte{slices.Concat(av1(40, 30), []byte{6<<3 | 2}, leb, frame)}
		heic.items[1].data = [][]byte{nal(19, frame...)}
		for name, stream := range map[string][]byte{"avif": avif.bytes(), "heic": heic.bytes()} {
			for how, opts := range map[string]verify.Options{"structural": structural, "strip": stripping} {
				b.Run(fmt.Sprintf("%dKiB/%s/%s", size>>10, name, how), func(b *testing.B) {
					b.SetBytes(int64(len(stream)))
					b.ReportAllocs()
					in := bytes.NewReader(stream)
					for b.Loop() {
						in.Reset(stream)
						if _, err := verify.Copy(io.Discard, in, opts); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
