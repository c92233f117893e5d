package verify

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// AVIF and HEIC are ISO base media files (ISO/IEC 14496-12), which hold images as items
// (ISO/IEC 23008-12, HEIF). Comments cite these as BMFF and HEIF. AVIF is the AV1 Image
// File Format, v1.1.0.
//
// The structure is checked. So is how the coded data of an image nest: in the OBUs of AV1
// (AV1 specification, 5.3), or in the NAL units of HEVC (ISO/IEC 14496-15, 4.3.3). The
// pixels are not decoded, whatever Options say: no decoder of AV1 or HEVC needs only
// constant memory. Damage within an OBU or a NAL unit is not found.
//
// Coded data are not looked into if they come before the meta or moov box that describes
// them, if the extents of an item are not in order, or if images share parts of them.
// They must then be where they are said to be, and no more.
//
// Stripping keeps every byte where it is. It keeps the primary item, what that is derived
// from, its transparency, and what may be shown in its place (tmap, sato). All else is
// blanked: Exif, XMP, thumbnails, maps of depths, other images, names, times, messages in
// the coded data, and bytes that no image has. Boxes, items and properties that are not
// needed become of type free. The Exif orientation goes too: properties turn an image,
// and readers ignore what Exif says (HEIF A.2.1).

// Bounds of what is kept in memory.
const (
	// maxBox is the largest meta or moov box. The largest meta of a real file known has
	// 39 KB, for 822 items. An ICC profile in it may have some ten KB.
	maxBox = 256 << 10
	// maxItems is the largest number of items.
	maxItems = 1 << 11
	// maxProperties is the largest number of properties, which items share.
	maxProperties = 1 << 11
	// maxRefs is the largest number of boxes of references between items.
	maxRefs = 1 << 11
	// maxParts is the largest number of pieces of data, which are extents of items or
	// samples of tracks, and of references. There may be twice as many associations.
	maxParts = 1 << 13
	// maxMdats is the largest number of mdat boxes.
	maxMdats = 1 << 10
	// maxFtyp is the largest ftyp box.
	maxFtyp = 4 << 10
)

// Advice for a file that cannot be stripped.
const unstrippable = "its metadata cannot be removed; save it with another program: "

// isISOBMFF reports whether a file begins with a file type box (BMFF 4.3).
func isISOBMFF(head []byte) bool {
	return len(head) > 0 && head[0] == 0 && (len(head) < 5 || beginsWith(head[4:], "ftyp"))
}

// Brands that say that an image is inside (AVIF 6; HEIF 10.2 and B.4).
var (
	avifBrands     = []string{"avif", "avis"}
	heicBrands     = []string{"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs"}
	heifBrands     = []string{"mif1", "mif2", "mif3", "msf1", "miaf", "1pic"}
	stillBrands    = []string{"avif", "heic", "heix", "heim", "heis", "mif1", "mif2"}
	sequenceBrands = []string{"avis", "msf1", "hevc", "hevx", "hevm", "hevs"}
)

// An isobmff reads an ISO base media file.
type isobmff struct {
	r      *reader
	opts   Options
	brands []string // the major brand first

	seen  [3]bool   // of ftyp, meta and moov
	head  *heifMeta // the meta box
	items *heifMeta // the same, if it has a primary item
	movie *movie
	mdats []span // payloads
	stale bool   // items or movie have come since parts was made
	parts []part // sorted, of the data of images
	pos   int    // index of the first of parts that is not done
	meta  Meta
	known bool // meta is known
}

// A span is a range of offsets in the file.
type span struct{ from, to int64 }

// checkISOBMFF reads an AVIF or HEIC.
func checkISOBMFF(r *reader, opts Options) (Meta, error) {
	f := &isobmff{r: r, opts: opts}
	err := f.ftyp()
	for err == nil {
		err = f.box()
	}
	if err == errEnd {
		err = f.end()
	}
	return f.meta, err
}

// header reads the header of a box (BMFF 4.2) and leaves it to be consumed. The size of
// a box that goes to the end of the file is -1.
func (f *isobmff) header() (name string, size int64, head int, err error) {
	at := f.r.offset()
	b, err := f.r.peek(1)
	if err == nil && len(b) == 0 {
		return "", 0, 0, errEnd
	}
	if err == nil {
		b, err = f.r.peek(8)
	}
	if err != nil {
		return "", 0, 0, err
	}
	if len(b) < 8 {
		f.r.skip(int64(len(b)))
		return "", 0, 0, f.r.truncated(errEnd, "%s: %d of 8 bytes of a box's size and type are missing", f.name(), 8-len(b))
	}
	name, size, head = string(b[4:8]), int64(binary.BigEndian.Uint32(b)), 8
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || '~' < c && c != 0xfffd }) {
		return "", 0, 0, damaged(at+4, "%s: box type %q, want four letters", f.name(), name)
	}
	switch size {
	case 0:
		return name, -1, 8, nil
	case 1:
		if b, err = f.r.peek(16); err != nil {
			return "", 0, 0, err
		}
		if len(b) < 16 {
			f.r.skip(int64(len(b)))
			return "", 0, 0, f.r.truncated(errEnd, "%s: %d of 8 bytes of the largesize of %s are missing", f.name(), 16-len(b), name)
		}
		large := binary.BigEndian.Uint64(b[8:])
		if large > 1<<62 {
			return "", 0, 0, damaged(at+8, "%s: %s: largesize %d is implausible", f.name(), name, large)
		}
		size, head = int64(large), 16
	}
	if size < int64(head) {
		return "", 0, 0, damaged(at, "%s: %s: size %d, want at least %d", f.name(), name, size, head)
	}
	return name, size, head, nil
}

// name returns what is known of the format.
func (f *isobmff) name() string {
	avif, heic := f.has(avifBrands), f.has(heicBrands)
	switch {
	case f.known:
		return names[f.meta.Type]
	case avif && !heic:
		return "AVIF"
	case heic && !avif:
		return "HEIC"
	}
	return "HEIF"
}

// has reports whether one of the brands is there.
func (f *isobmff) has(brands []string) bool {
	return slices.ContainsFunc(f.brands, func(b string) bool { return slices.Contains(brands, b) })
}

// ftyp reads the file type box (BMFF 4.3).
func (f *isobmff) ftyp() error {
	at := f.r.offset()
	name, size, head, err := f.header()
	if err == errEnd {
		return f.r.truncated(err, "HEIF: there is no box")
	} else if err != nil {
		return err
	}
	switch {
	case name != "ftyp":
		return damaged(at+4, "HEIF: the first box must be ftyp, not %q", name)
	case size < int64(head)+8 || size > maxFtyp || size%4 != 0:
		return damaged(at, "HEIF: ftyp: size %d, want 16 to %d in steps of 4", size, maxFtyp)
	}
	b := make([]byte, size)
	f.r.drop()
	if n, err := f.r.full(b); err != nil {
		return f.r.truncated(err, "HEIF: %d bytes of ftyp are missing", len(b)-n)
	}
	all := b
	b = b[head:]
	f.brands = append(f.brands, string(b[:4]))
	for i := 8; i < len(b); i += 4 {
		f.brands = append(f.brands, string(b[i:i+4]))
	}
	avif, heic, any := f.has(avifBrands), f.has(heicBrands), f.has(heifBrands)
	switch {
	case !avif && !heic && !any:
		return f.unsupported(at+8, brandName(f.brands[0]))
	case avif && !heic && !f.opts.accepts("image/avif"):
		return &Error{ErrUnsupportedType, at + 8, f.opts.another("an AVIF")}
	case heic && !avif && !f.opts.accepts("image/heic"):
		return &Error{ErrUnsupportedType, at + 8, f.opts.another("a HEIC")}
	}
	f.seen[0] = true
	if f.opts.StripMetadata {
		f.stripBrands(b)
	}
	err = f.r.emit(all)
	f.r.keep()
	return err
}

// otherBrands are those that images have besides (BMFF annex E; MIAF 10; HEIF 10).
var otherBrands = []string{"isom", "iso2", "iso3", "iso4", "iso5", "iso6", "iso7", "iso8", "iso9", "isoa", "isob", "isoc", "mp41", "mp42",
	"MA1A", "MA1B", "MiHA", "MiHB", "MiHE", "MiPr", "MiAn", "MiBu", "MiCm", "av01", "tmap", "geo1", "unif"}

// stripBrands replaces the brands that are not known, and blanks the minor version. The
// major brand stays, because it may say what is shown.
func (f *isobmff) stripBrands(b []byte) {
	known := func(brand string) bool {
		return slices.Contains(slices.Concat(avifBrands, heicBrands, heifBrands, otherBrands), brand)
	}
	first := f.brands[slices.IndexFunc(f.brands, known)]
	clear(b[4:8])
	for i := 8; i < len(b); i += 4 {
		if !known(string(b[i : i+4])) {
			copy(b[i:], first)
		}
	}
}

// unsupported refuses a format that no store takes.
func (f *isobmff) unsupported(offset int64, name string) error {
	return &Error{ErrUnsupportedType, offset, fmt.Sprintf("it looks like %s; %s", name, f.opts.convert())}
}

// box reads a box at the top level. It returns errEnd at the end of the file.
func (f *isobmff) box() error {
	at := f.r.offset()
	name, size, head, err := f.header()
	if err != nil {
		return err
	}
	switch name {
	case "ftyp":
		return wrong(at+4, "%s: second ftyp box", f.name())
	case "meta", "moov":
		return f.buffered(name, at, size, head)
	case "mini":
		return f.unsupported(at+4, "an image in a MinimizedImageBox (mini)")
	case "moof":
		return f.unsupported(at+4, "a fragmented video")
	}
	switch {
	case f.r.describe && size < 0:
		return errEnd
	case f.r.describe:
		return f.r.skip(size) // it seeks
	case name == "mdat":
		return f.mdat(at, size, head)
	}
	if f.opts.StripMetadata {
		b, err := f.r.peek(8)
		if err != nil {
			return err
		}
		copy(b[4:], "free")
	}
	if err := f.r.skip(int64(head)); err != nil {
		return err
	}
	return f.each(name, at, size, head, func(b []byte) error {
		if f.opts.StripMetadata {
			clear(b)
		}
		return nil
	})
}

// each reads the payload of a box, of which the header has been consumed.
func (f *isobmff) each(name string, at, size int64, head int, do func(b []byte) error) error {
	for left := size - int64(head); size < 0 || left > 0; {
		limit := left
		if size < 0 {
			limit = 1 << 62
		}
		b, err := f.r.next(limit)
		if err == errEnd && size < 0 {
			return errEnd
		} else if err != nil {
			return f.r.truncated(err, "%s: %d bytes of the box %s at byte %d are missing", f.name(), left, name, at)
		}
		left -= int64(len(b))
		if err := do(b); err != nil {
			return err
		}
	}
	return nil
}

// buffered reads a meta or moov box.
func (f *isobmff) buffered(name string, at, size int64, head int) error {
	i := 1
	if name == "moov" {
		i = 2
	}
	switch {
	case f.seen[i]:
		return wrong(at+4, "%s: second %s box", f.name(), name)
	case size > maxBox:
		return invalid(at, "its description is too large; save it with another program: %s: %s: size %d, at most %d are read", f.name(), name, size, maxBox)
	}
	f.seen[i] = true
	f.r.drop()                                                  // until it is known to be right
	b := make([]byte, head, max(int64(head), min(size, 8<<10))) // it grows with what comes
	if _, err := f.r.full(b); err != nil {
		return err
	}
	end := f.each(name, at, size, head, func(part []byte) error {
		if len(b)+len(part) > maxBox {
			return invalid(at, "its description is too large; save it with another program: %s: %s: at most %d bytes are read", f.name(), name, maxBox)
		}
		b = append(b, part...)
		return nil
	})
	if end != nil && end != errEnd {
		return end
	}
	whole := box{name: name, at: at, data: b[head:], all: b}
	var err error
	if name == "meta" {
		err = f.readMeta(whole)
	} else {
		err = f.readMovie(whole)
	}
	if err != nil {
		return err
	}
	f.stale = true
	if f.opts.StripMetadata {
		if err := f.strip(whole); err != nil {
			return err
		}
	}
	if name == "meta" {
		f.head.forget()
	}
	for piece := range slices.Chunk(b, BufferSize/4) {
		if err := f.r.emit(piece); err != nil {
			return err
		}
	}
	f.r.keep()
	return end
}

// strip blanks what is not needed in a meta or moov box.
func (f *isobmff) strip(b box) error {
	switch {
	case b.name == "meta" && len(f.mdats) > 0, b.name == "moov" && len(f.mdats) > 0 && f.isSequence():
		return f.late(b.at)
	case b.name == "meta":
		return f.head.strip()
	case f.isSequence():
		return f.movie.strip()
	default:
		b.free()
	}
	return nil
}

// late refuses to strip a file whose description follows the data.
func (f *isobmff) late(at int64) error {
	return invalid(at, unstrippable+"%s: meta and moov must come before mdat, which was written already", f.name())
}

// isSequence reports whether the file is to be played.
func (f *isobmff) isSequence() bool {
	return f.movie != nil && f.movie.colour != nil && f.has(sequenceBrands)
}

// readMeta judges the meta box.
func (f *isobmff) readMeta(b box) (err error) {
	if f.head, err = f.parseMeta(b); err != nil {
		return err
	}
	if f.head.primary != nil {
		f.items = f.head
	} else if !f.has(sequenceBrands) {
		return wrong(b.at, "%s: meta has no pitm box, which names the primary item", f.name())
	}
	// The major brand avis asks for the sequence to be shown (AVIF 6.3).
	if f.movie == nil && (f.items == nil || f.brands[0] == "avis") {
		return nil // moov may follow
	}
	if err := f.describe(); err != nil {
		return err
	}
	return f.limits()
}

// readMovie judges the moov box. A still image may come with a video, which no decoder
// of images looks at.
func (f *isobmff) readMovie(b box) (err error) {
	if f.has(sequenceBrands) {
		if f.movie, err = f.parseMovie(b); err != nil {
			return err
		}
	}
	if f.items == nil && !f.isSequence() || f.items == nil && f.has(stillBrands) && f.brands[0] != "avis" {
		return nil // meta may follow
	}
	if err := f.describe(); err != nil {
		return err
	}
	return f.limits()
}

// describe finds out what is shown.
func (f *isobmff) describe() error {
	switch {
	case f.known:
		return nil
	case f.isSequence() && (f.items == nil || f.brands[0] == "avis"):
		t := f.movie.colour
		f.meta = Meta{t.mediaType, int(t.width), int(t.height)}
	case f.items != nil:
		f.meta = Meta{f.items.mediaType, int(f.items.width), int(f.items.height)}
	case f.seen[2]:
		return f.unsupported(8, "a video")
	default:
		return f.r.truncated(errEnd, "%s: there is neither a meta nor a moov box", f.name())
	}
	if !f.opts.accepts(f.meta.Type) {
		return &Error{ErrUnsupportedType, 8, f.opts.another(articles[f.meta.Type])}
	}
	f.known = true
	if f.meta.Type == "image/avif" && !f.has(avifBrands) {
		return wrong(8, "AVIF: ftyp: the brand avif is missing")
	}
	return f.r.described()
}

// articles has the names of the media types, with an article.
var articles = map[string]string{"image/avif": "an AVIF", "image/heic": "a HEIC"}

// limits judges the sizes of the images that are known.
func (f *isobmff) limits() error {
	if f.items != nil {
		for _, s := range f.items.sizes {
			if err := f.opts.checkPixels(s.at, s.width, s.height); err != nil {
				return err
			}
		}
	}
	if f.isSequence() {
		for _, t := range f.movie.tracks {
			if !t.shown {
				continue
			}
			if err := f.opts.checkPixels(t.at, t.width, t.height); err != nil {
				return err
			}
			if err := f.opts.checkFrames(t.at, t.width, t.height, t.samples); err != nil {
				return err
			}
		}
	}
	return nil
}

// mdat reads a media data box (BMFF 8.1.1).
func (f *isobmff) mdat(at, size int64, head int) error {
	switch {
	case f.opts.StripMetadata && f.head == nil && f.movie == nil:
		return f.late(at)
	case len(f.mdats) == maxMdats:
		return invalid(at, "it is in too many pieces; save it with another program: %s: more than %d mdat boxes", f.name(), maxMdats)
	}
	if err := f.plan(); err != nil {
		return err
	}
	if err := f.r.skip(int64(head)); err != nil {
		return err
	}
	from := at + int64(head)
	f.mdats = append(f.mdats, span{from, from})
	last := &f.mdats[len(f.mdats)-1]
	return f.each("mdat", at, size, head, func(b []byte) error {
		err := f.data(b, last.to)
		last.to += int64(len(b))
		return err
	})
}

// end judges the whole file.
func (f *isobmff) end() error {
	if err := f.describe(); err != nil {
		return err
	}
	if err := f.limits(); err != nil {
		return err
	}
	if err := f.plan(); err != nil {
		return err
	}
	for _, p := range f.parts {
		i := after(f.mdats, p.from)
		if i < len(f.mdats) && f.mdats[i].from <= p.from && p.to <= f.mdats[i].to {
			continue
		}
		if p.to > f.r.offset() {
			return f.r.truncated(errEnd, "%s: the data of %s end at byte %d", f.name(), p.owner.name(), p.to)
		}
		return wrong(p.owner.at, "%s: the data of %s, at bytes %d to %d, are not within one mdat box", f.name(), p.owner.name(), p.from, p.to)
	}
	return nil
}

// anyHEIF is what a file without a brand of its own may be.
const anyHEIF = "a HEIC, an AVIF or a like image"

// brandName says what a file is, by its major brand (as registered at mp4ra.org).
func brandName(brand string) string {
	switch {
	case brand == "avif" || brand == "avis":
		return "an AVIF"
	case slices.Contains(heicBrands, brand):
		return "a HEIC"
	case slices.Contains(heifBrands, brand):
		return anyHEIF
	case brand == "    ": // it is not known
		return "a HEIC, an AVIF or a video"
	case brand == "jxl ":
		return "a JPEG XL"
	case brand == "jp2 " || brand == "jpx " || brand == "jpm " || brand == "jpxb":
		return "a JPEG 2000"
	case brand == "crx ":
		return "a Canon raw photo (CR3)"
	case brand == "avci" || brand == "avcs":
		return "an HEIF image coded with AVC"
	case brand == "jpeg" || brand == "jpgs":
		return "an HEIF image coded with JPEG"
	case brand == "j2ki" || brand == "j2is":
		return "an HEIF image coded with JPEG 2000"
	case brand == "vvic" || brand == "vvis":
		return "an HEIF image coded with VVC"
	case brand == "qt  ":
		return "a QuickTime video"
	case strings.HasPrefix(brand, "3g"):
		return "a 3GPP video"
	case strings.HasPrefix(brand, "M4A") || strings.HasPrefix(brand, "M4B"):
		return "sound (M4A)"
	}
	return "a video"
}
