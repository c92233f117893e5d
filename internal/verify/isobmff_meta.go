package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// A box is one that is in memory, in a meta or moov box (BMFF 4.2).
type box struct {
	name string
	at   int64  // offset of its header in the file
	all  []byte // with the header, which may be changed in place
	data []byte // without it
}

// offset returns the offset in the file of the data from the i-th byte on.
func (b box) offset(i int) int64 { return b.at + int64(len(b.all)-len(b.data)+i) }

// free makes it a box that says nothing (BMFF 8.1.2).
func (b box) free() {
	copy(b.all[4:], "free")
	clear(b.data)
}

// spare blanks a box that is not needed, if metadata is stripped.
func (f *isobmff) spare(b box) {
	if f.opts.StripMetadata {
		b.free()
	}
}

// spareRest blanks what follows the fields, if metadata is stripped.
func (f *isobmff) spareRest(d *fields) {
	if f.opts.StripMetadata {
		clear(d.b.data[d.pos:])
	}
}

// first returns the first box in some data, which is at an offset in the file. The rest
// is what follows.
func (f *isobmff) first(data []byte, at int64) (b box, rest []byte, err error) {
	if len(data) < 8 {
		return b, nil, wrong(at, "%s: %d bytes at the end of a box are too few for another", f.name(), len(data))
	}
	b = box{name: string(data[4:8]), at: at}
	size, head := uint64(binary.BigEndian.Uint32(data)), 8
	if size == 1 && len(data) >= 16 {
		size, head = binary.BigEndian.Uint64(data[8:]), 16
	}
	if size < uint64(head) || size > uint64(len(data)) {
		return b, nil, wrong(at, "%s: the box %q has size %d, want %d to %d, so that it nests", f.name(), b.name, size, head, len(data))
	}
	b.all, b.data = data[:size], data[head:size]
	return b, data[size:], nil
}

// boxes calls do for each box in b, from its i-th byte on.
func (f *isobmff) boxes(b box, i int, do func(box) error) error {
	if i > len(b.data) {
		return f.short(b)
	}
	for rest, at := b.data[i:], b.offset(i); len(rest) > 0; {
		child, after, err := f.first(rest, at)
		if err != nil {
			return err
		}
		if err := do(child); err != nil {
			return err
		}
		rest, at = after, at+int64(len(child.all))
	}
	return nil
}

// short says that a box ends too early.
func (f *isobmff) short(b box) error {
	return wrong(b.at, "%s: the box %s is too short, it has %d bytes", f.name(), b.name, len(b.all))
}

// A fields reads the fields of a box. What is missing reads as zero, and fails it.
type fields struct {
	b      box
	pos    int
	failed bool
}

// uint reads an unsigned integer of 0 to 8 bytes.
func (d *fields) uint(size int) (v uint64) {
	if size > len(d.b.data)-d.pos {
		d.failed, d.pos = true, len(d.b.data)
		return 0
	}
	for range size {
		v = v<<8 | uint64(d.b.data[d.pos])
		d.pos++
	}
	return v
}

// full reads the version and flags of a FullBox (BMFF 4.2).
func (d *fields) full() (version byte, flags uint32) {
	v := uint32(d.uint(4))
	return byte(v >> 24), v & 0xffffff
}

// wide returns 4 if a version is at least one, otherwise 2.
func wide(version, one byte) int {
	if version >= one {
		return 4
	}
	return 2
}

// An owner is an item or a track, whose data are in parts of the file.
type owner struct {
	id      uint32
	kind    string // such as av01, grid or Exif
	at      int64  // offset of its description
	data    coded
	left    int64 // bytes to come, of an item
	each    bool  // every part is a unit of its own: the samples of a track
	trusted bool  // the data are not looked into
	planned bool
}

// name names the owner.
func (o *owner) name() string {
	if o.each {
		return fmt.Sprintf("track %d (%s)", o.id, o.kind)
	}
	return fmt.Sprintf("item %d (%s)", o.id, o.kind)
}

// A heifMeta is the meta box of a file (BMFF 8.11; HEIF 6).
type heifMeta struct {
	f             *isobmff
	items         []item // sorted by id
	extents       []extent
	properties    []box // in ipco (BMFF 8.11.14)
	associations  []association
	refs          []ref
	tos           []uint32
	idat          box
	hdlr, dinf    box
	primary       *item
	mediaType     string
	width, height int64  // as displayed
	sizes         []size // of the images that are shown
}

// A size is the width and height of an image.
type size struct{ at, width, height int64 }

// An item is an image or metadata (BMFF 8.11.6).
type item struct {
	owner
	protected  bool
	located    bool
	derived    bool   // iref says from what
	shown      bool   // it is needed to show the primary item
	method     byte   // construction_method
	tail       byte   // where the part of info begins that names it
	reference  uint16 // data_reference_index
	info       []byte // the data of infe
	extents    indexes
	properties indexes // of associations
	width      int64   // ispe
	height     int64
}

// An indexes is a range of indexes.
type indexes struct{ from, to int32 }

// An extent is a piece of an item's data (BMFF 8.11.3).
type extent struct{ from, length uint64 }

// An association is in ipma. It names a property by its index, from 1.
type association struct {
	index     uint16
	essential bool
}

// A ref is in iref (BMFF 8.11.12).
type ref struct {
	box
	from uint32
	to   indexes // of tos
}

// parseMeta reads a meta box. Each of its parts must be there at most once.
func (f *isobmff) parseMeta(b box) (*heifMeta, error) {
	m := &heifMeta{f: f}
	parts := map[string]box{}
	err := f.boxes(b, 4, func(child box) error {
		switch child.name {
		case "hdlr", "pitm", "iinf", "iloc", "iprp", "iref", "idat", "grpl", "dinf":
			if _, ok := parts[child.name]; ok {
				return wrong(child.at+4, "%s: second %s box in meta", f.name(), child.name)
			}
			parts[child.name] = child
		default:
			f.spare(child)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.idat, m.hdlr, m.dinf = parts["idat"], parts["hdlr"], parts["dinf"]
	// The handler says what the items are (HEIF 6.2).
	switch h := m.hdlr; {
	case h.all == nil:
		return nil, wrong(b.at, "%s: meta has no hdlr box", f.name())
	case len(h.data) < 20:
		return nil, f.short(h)
	case string(h.data[8:12]) != "pict":
		return nil, f.unsupported(h.offset(8), fmt.Sprintf("a file without a picture (handler %q)", h.data[8:12]))
	}
	for _, part := range []struct {
		name  string
		parse func(box) error
	}{{"iinf", m.iinf}, {"iloc", m.iloc}, {"iprp", m.iprp}, {"iref", m.iref}, {"grpl", m.grpl}} {
		if child, ok := parts[part.name]; ok {
			if err := part.parse(child); err != nil {
				return nil, err
			}
		}
	}
	pitm, ok := parts["pitm"]
	if !ok {
		return m, nil
	}
	if err := m.pitm(pitm); err != nil {
		return nil, err
	}
	return m, m.judge()
}

// item returns the item with an id, or nil.
func (m *heifMeta) item(id uint32) *item {
	i, ok := slices.BinarySearchFunc(m.items, id, func(it item, id uint32) int { return cmp.Compare(it.id, id) })
	if !ok {
		return nil
	}
	return &m.items[i]
}

// pitm reads the primary item box (BMFF 8.11.4).
func (m *heifMeta) pitm(b box) error {
	d := &fields{b: b}
	version, _ := d.full()
	id := uint32(d.uint(wide(version, 1)))
	if d.failed {
		return m.f.short(b)
	}
	m.f.spareRest(d)
	if m.primary = m.item(id); m.primary == nil {
		return wrong(b.offset(4), "%s: pitm: the primary item %d is not in iinf", m.f.name(), id)
	}
	return nil
}

// iinf reads the item information (BMFF 8.11.6).
func (m *heifMeta) iinf(b box) error {
	d := &fields{b: b}
	version, _ := d.full()
	count := d.uint(wide(version, 1))
	if d.failed {
		return m.f.short(b)
	}
	const least = 8 + 4 + 2 + 2 // bytes of an infe box
	m.items = make([]item, 0, min(count, maxItems, uint64(len(b.data)/least)))
	err := m.f.boxes(b, d.pos, func(child box) error {
		if child.name != "infe" {
			return wrong(child.at+4, "%s: iinf: a %q box, want infe", m.f.name(), child.name)
		}
		if len(m.items) == maxItems {
			return invalid(child.at, "it has too many parts; save it with another program: %s: iinf: more than %d items", m.f.name(), maxItems)
		}
		d := &fields{b: child}
		version, _ := d.full()
		it := item{info: child.data}
		it.at = child.at
		it.id = uint32(d.uint(wide(version, 3)))
		it.protected = d.uint(2) != 0
		if version >= 2 {
			it.kind = fourCC(uint32(d.uint(4)))
		}
		it.tail = byte(d.pos)
		if d.failed {
			return m.f.short(child)
		}
		m.items = append(m.items, it)
		return nil
	})
	if err != nil {
		return err
	}
	if count != uint64(len(m.items)) {
		return wrong(b.offset(4), "%s: iinf: entry_count %d, but %d entries follow", m.f.name(), count, len(m.items))
	}
	slices.SortStableFunc(m.items, func(a, b item) int { return cmp.Compare(a.id, b.id) })
	for i := range m.items {
		if i > 0 && m.items[i].id == m.items[i-1].id {
			return wrong(m.items[i].at, "%s: iinf: second item %d", m.f.name(), m.items[i].id)
		}
	}
	return nil
}

// fourCC returns the letters of a type.
func fourCC(v uint32) string { return string(binary.BigEndian.AppendUint32(nil, v)) }

// iloc reads where the data of the items are (BMFF 8.11.3).
func (m *heifMeta) iloc(b box) error {
	d := &fields{b: b}
	version, _ := d.full()
	sizes := d.uint(2)
	offset, length, base, index := int(sizes>>12), int(sizes>>8&15), int(sizes>>4&15), int(sizes&15)
	if version == 0 {
		index = 0
	}
	for _, size := range []int{offset, length, base, index} {
		if version > 2 || size != 0 && size != 4 && size != 8 {
			return wrong(b.offset(0), "%s: iloc: version %d and sizes %04x, want a version up to 2 and sizes 0, 4 or 8", m.f.name(), version, sizes)
		}
	}
	for count := d.uint(wide(version, 2)); count > 0 && !d.failed; count-- {
		at := d.pos
		it := m.item(uint32(d.uint(wide(version, 2))))
		var ignored item // iloc may have items that are not in iinf
		if it == nil {
			it = &ignored
		}
		if it.located {
			return wrong(b.offset(at), "%s: iloc: item %d is there twice", m.f.name(), it.id)
		}
		it.located = true
		if version > 0 {
			it.method = byte(d.uint(2) & 15)
		}
		it.reference = uint16(d.uint(2))
		start := d.uint(base)
		it.extents.from = int32(len(m.extents))
		for extents := d.uint(2); extents > 0 && !d.failed; extents-- {
			if len(m.extents) == maxParts {
				return invalid(b.offset(d.pos), "it is in too many pieces; save it with another program: %s: iloc: more than %d extents", m.f.name(), maxParts)
			}
			d.uint(index)
			e := extent{start + d.uint(offset), d.uint(length)}
			if e.from < start || e.from > 1<<61 || e.length > 1<<61 {
				return damaged(b.offset(d.pos-offset-length), "%s: iloc: an extent of %d bytes at byte %d is implausible", m.f.name(), e.length, e.from)
			}
			m.extents = append(m.extents, e)
		}
		it.extents.to = int32(len(m.extents))
	}
	if d.failed {
		return m.f.short(b)
	}
	m.f.spareRest(d)
	return nil
}

// iprp reads the properties (BMFF 8.11.14).
func (m *heifMeta) iprp(b box) error {
	var ipco bool
	return m.f.boxes(b, 0, func(child box) error {
		switch {
		case child.name == "ipco" && ipco:
			return wrong(child.at+4, "%s: second ipco box", m.f.name())
		case child.name == "ipco":
			ipco = true
			return m.f.boxes(child, 0, func(p box) error {
				if len(m.properties) == maxProperties {
					return invalid(p.at, "it has too many parts; save it with another program: %s: ipco: more than %d properties", m.f.name(), maxProperties)
				}
				m.properties = append(m.properties, p)
				return nil
			})
		case child.name == "ipma":
			return m.ipma(child)
		}
		m.f.spare(child)
		return nil
	})
}

// ipma reads which items the properties belong to (BMFF 8.11.14).
func (m *heifMeta) ipma(b box) error {
	d := &fields{b: b}
	version, flags := d.full()
	if version > 1 {
		return wrong(b.offset(0), "%s: ipma: version %d, want 0 or 1", m.f.name(), version)
	}
	for count := d.uint(4); count > 0 && !d.failed; count-- {
		at := d.pos
		id := uint32(d.uint(wide(version, 1)))
		it := m.item(id)
		var ignored item
		if it == nil {
			it = &ignored
		}
		if it.properties.to > 0 {
			return wrong(b.offset(at), "%s: ipma: item %d is there twice", m.f.name(), id)
		}
		it.properties.from = int32(len(m.associations))
		for n := d.uint(1); n > 0 && !d.failed; n-- {
			if len(m.associations) == 2*maxParts {
				return invalid(b.offset(d.pos), "it has too many parts; save it with another program: %s: ipma: more than %d associations", m.f.name(), 2*maxParts)
			}
			at := d.pos
			a := association{uint16(d.uint(1)), false}
			top := uint16(0x80)
			if flags&1 != 0 {
				a.index, top = a.index<<8|uint16(d.uint(1)), 0x8000
			}
			a.index, a.essential = a.index&^top, a.index&top != 0
			m.associations = append(m.associations, a)
			if int(a.index) > len(m.properties) {
				return wrong(b.offset(at), "%s: ipma: item %d has property %d, but there are %d", m.f.name(), id, a.index, len(m.properties))
			}
		}
		it.properties.to = int32(len(m.associations))
	}
	if d.failed {
		return m.f.short(b)
	}
	m.f.spareRest(d)
	return nil
}

// iref reads the references between items (BMFF 8.11.12).
func (m *heifMeta) iref(b box) error {
	d := &fields{b: b}
	version, _ := d.full()
	return m.f.boxes(b, 4, func(child box) error {
		d := &fields{b: child}
		r := ref{box: child, from: uint32(d.uint(wide(version, 1)))}
		r.to.from = int32(len(m.tos))
		for count := d.uint(2); count > 0 && !d.failed; count-- {
			if len(m.tos) == maxParts {
				return invalid(child.at, "it has too many parts; save it with another program: %s: iref: more than %d references", m.f.name(), maxParts)
			}
			m.tos = append(m.tos, uint32(d.uint(wide(version, 1))))
		}
		r.to.to = int32(len(m.tos))
		if d.failed {
			return m.f.short(child)
		}
		m.f.spareRest(d)
		if len(m.refs) == maxRefs {
			return invalid(child.at, "it has too many parts; save it with another program: %s: iref: more than %d boxes", m.f.name(), maxRefs)
		}
		m.refs = append(m.refs, r)
		return nil
	})
}

// grpl reads the groups of entities (BMFF 8.18). Of these, an image may need those that
// name alternatives, such as a tone-mapped one.
func (m *heifMeta) grpl(b box) error {
	return m.f.boxes(b, 0, func(child box) error {
		if child.name != "altr" && child.name != "ster" {
			m.f.spare(child)
		}
		return nil
	})
}

// isDerived lists the derived images that decoders know (HEIF 6.6.2; AVIF 4.2.3).
var isDerived = map[string]bool{"grid": true, "iden": true, "iovl": true, "tmap": true, "sato": true}

// isBetter lists those that decoders may show in place of an image that they are derived
// from: one with a higher dynamic range, one with more bits.
var isBetter = map[string]bool{"tmap": true, "sato": true}

// codecs names what image items may be coded with (HEIF, annexes).
var codecs = map[string]string{
	"av01": "AV1", "hvc1": "HEVC", "hev1": "HEVC", "lhv1": "layered HEVC", "avc1": "AVC (H.264)", "jpeg": "JPEG", "j2k1": "JPEG 2000",
	"vvc1": "VVC (H.266)", "evc1": "EVC", "unci": "no codec (uncompressed)", "mski": "no codec (a mask)", "tili": "tiles", "jxlc": "JPEG XL", "jxs1": "JPEG XS",
}

// mediaTypes has the media types of the codecs that are taken, and which property or box
// configures them.
var mediaTypes = map[string]struct{ mediaType, config string }{
	"av01": {"image/avif", "av1C"},
	"hvc1": {"image/heic", "hvcC"},
	"hev1": {"image/heic", "hvcC"},
}

// knownProperties has the properties that may be essential, and how many bytes of them
// have a meaning, at most. Those that are no part of what is shown are not here.
var knownProperties = map[string]int{
	// HEIF 6.5 and BMFF 12.1
	"ispe": 12, "pixi": maxBox, "colr": maxBox, "pasp": 8, "clap": 32, "irot": 1, "imir": 1, "auxC": maxBox,
	"clli": 4, "mdcv": 24, "cclv": 37, "amve": 8, "rloc": 12, "lsel": 2, "iscl": 12, "reve": 20, "ndwt": 8,
	"av1C": maxBox, "a1op": 1, "a1lx": 13, // AVIF 2.2 and 2.3
	"hvcC": maxBox, "lhvC": maxBox, "oinf": maxBox, "tols": maxBox, // HEIF B.2
}

// stripProperty blanks what has no meaning in a known property.
func (f *isobmff) stripProperty(b box) error {
	size, data := knownProperties[b.name], b.data
	switch {
	case b.name == "av1C" || b.name == "hvcC":
		return f.stripConfig(b)
	case b.name == "pixi" && len(data) > 4: // the depth of each channel
		size = 5 + int(data[4])
	case b.name == "auxC" && len(data) > 4: // the type, and how it is used
		size = 4 + bytes.IndexByte(append(data[4:len(data):len(data)], 0), 0) + 1 + 32
	case b.name == "colr" && len(data) > 4: // BMFF 12.1.5
		switch string(data[:4]) {
		case "nclx":
			size = 11
		case "nclc":
			size = 10
		case "rICC", "prof": // a profile
		default:
			size = 4
		}
	}
	clear(data[min(size, len(data)):])
	return nil
}

// essential says which properties must be essential, and which must not (AVIF 2.3.2; MIAF,
// ISO/IEC 23000-22, 7.3.9). Chromium refuses an AVIF that breaks this. HEICs of cameras do.
var essential = map[string]bool{"clap": true, "irot": true, "imir": true, "lsel": true, "a1op": true, "a1lx": false}

// judge finds out what is shown, and whether all that this needs is there.
func (m *heifMeta) judge() error {
	if err := m.mark(); err != nil {
		return err
	}
	for i := range m.items {
		if it := &m.items[i]; it.shown {
			if err := m.judgeItem(it); err != nil {
				return err
			}
		}
	}
	// Now that the codec and the sizes are known:
	for i := range m.items {
		if it := &m.items[i]; it.shown && m.mediaType == "image/avif" {
			if err := m.judgeEssential(it); err != nil {
				return err
			}
		}
	}
	for i := range m.refs {
		r := &m.refs[i]
		it := m.item(r.from)
		if r.name == "dimg" && it != nil && it.shown {
			it.derived = true
			if err := m.judgeDerived(it, r); err != nil {
				return err
			}
		}
	}
	for i := range m.items {
		if it := &m.items[i]; it.shown && isDerived[it.kind] && (!it.derived || m.mediaType == "") {
			return wrong(it.at, "%s: %s has no data: it is not derived from coded images", m.f.name(), it.name())
		}
	}
	m.width, m.height = m.displayed(m.primary)
	return nil
}

// mark finds the items that are needed to show the primary item.
func (m *heifMeta) mark() error {
	m.primary.shown = true
	for pass := 0; ; pass++ {
		changed := false
		show := func(it *item) {
			if it != nil && !it.shown {
				it.shown, changed = true, true
			}
		}
		for i := range m.refs {
			r := &m.refs[i]
			from := m.item(r.from)
			if from == nil {
				continue
			}
			alpha := r.name == "auxl" && !from.shown && m.isAlpha(from)
			for _, id := range m.tos[r.to.from:r.to.to] {
				to := m.item(id)
				switch {
				case to == nil && from.shown && r.name == "dimg":
					return wrong(r.at, "%s: iref: %s is derived from item %d, which is not in iinf", m.f.name(), from.name(), id)
				case to == nil:
				case from.shown && (r.name == "dimg" || r.name == "pred" || r.name == "exbl"):
					show(to)
				case to.shown && alpha, to.shown && r.name == "dimg" && isBetter[from.kind]:
					show(from)
				}
			}
		}
		if !changed {
			return nil
		}
		if pass == 16 {
			return wrong(m.primary.at, "%s: iref: the images are derived from each other in too many steps", m.f.name())
		}
	}
}

// property returns a property of an item, or one without data.
func (m *heifMeta) property(it *item, name string) box {
	for _, a := range m.associations[it.properties.from:it.properties.to] {
		if a.index > 0 && m.properties[a.index-1].name == name {
			return m.properties[a.index-1]
		}
	}
	return box{}
}

// The types of an auxiliary image that has the transparency of another (AVIF 4.1; HEIF
// 6.5.8 and B.2.4).
var alphaTypes = []string{"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1"}

// isAlpha reports whether an auxiliary image has the transparency of another.
func (m *heifMeta) isAlpha(it *item) bool {
	b := m.property(it, "auxC")
	if len(b.data) < 4 {
		return false
	}
	kind, _, _ := strings.Cut(string(b.data[4:]), "\x00")
	return slices.Contains(alphaTypes, kind)
}

// judgeItem judges an item that is needed.
func (m *heifMeta) judgeItem(it *item) error {
	f := m.f
	codec, coded := mediaTypes[it.kind]
	switch name := codecs[it.kind]; {
	case isDerived[it.kind] && (!isBetter[it.kind] || it != m.primary):
	case isDerived[it.kind]:
		return f.unsupported(it.at, "an image that few programs show ("+it.kind+")")
	case !coded && name != "":
		return f.unsupported(it.at, "an HEIF image coded with "+name)
	case !coded:
		return wrong(it.at, "%s: %s is not an image", f.name(), it.name())
	case m.mediaType != "" && m.mediaType != codec.mediaType:
		return wrong(it.at, "%s: %s is coded otherwise than the other images", f.name(), it.name())
	default:
		m.mediaType = codec.mediaType
	}
	if it.protected {
		return wrong(it.at, "%s: %s is encrypted", f.name(), it.name())
	}
	for _, a := range m.associations[it.properties.from:it.properties.to] {
		if a.index == 0 || !a.essential {
			continue
		}
		if p := m.properties[a.index-1]; knownProperties[p.name] == 0 {
			return wrong(p.at+4, "%s: %s has the unknown essential property %q: decoders must refuse the image", f.name(), it.name(), p.name)
		}
	}
	ispe := m.property(it, "ispe")
	if len(ispe.data) < 12 {
		if isBetter[it.kind] && ispe.all == nil {
			return m.judgeData(it)
		}
		return wrong(it.at, "%s: %s has no size (ispe)", f.name(), it.name())
	}
	it.width = int64(binary.BigEndian.Uint32(ispe.data[4:]))
	it.height = int64(binary.BigEndian.Uint32(ispe.data[8:]))
	if it.width == 0 || it.height == 0 || it.width > math.MaxInt32 || it.height > math.MaxInt32 {
		return wrong(ispe.offset(4), "%s: ispe of %s: size %d x %d", f.name(), it.name(), it.width, it.height)
	}
	m.sizes = append(m.sizes, size{ispe.offset(4), it.width, it.height})
	if coded {
		config := m.property(it, codec.config)
		if config.all == nil {
			return wrong(it.at, "%s: %s has no %s", f.name(), it.name(), codec.config)
		}
		var err error
		if it.data, err = f.configure(config); err != nil {
			return err
		}
		// Of layers, a smaller one may be shown (AVIF 2.3.2).
		layered := m.property(it, "a1op").all != nil || m.property(it, "lsel").all != nil
		if o, ok := it.data.(*obus); ok && !layered {
			o.width, o.height = it.width, it.height
		}
	}
	return m.judgeData(it)
}

// judgeEssential judges whether the properties of an item are essential.
func (m *heifMeta) judgeEssential(it *item) error {
	for _, a := range m.associations[it.properties.from:it.properties.to] {
		if a.index == 0 {
			continue
		}
		p := m.properties[a.index-1]
		if want, ok := essential[p.name]; ok && a.essential != want {
			return wrong(p.at+4, "%s: %s of %s: essential is %v, want %v", m.f.name(), p.name, it.name(), a.essential, want)
		}
	}
	return nil
}

// judgeData judges where the data of an item are.
func (m *heifMeta) judgeData(it *item) error {
	f := m.f
	if it.kind == "iden" {
		return nil // it has none (HEIF 6.6.2.1)
	}
	switch {
	case !it.located || it.extents.from == it.extents.to:
		return wrong(it.at, "%s: %s has no data: it is not in iloc", f.name(), it.name())
	case it.reference != 0:
		return wrong(it.at, "%s: iloc: the data of %s are in another file", f.name(), it.name())
	case it.method > 1:
		return wrong(it.at, "%s: iloc: construction method %d of %s, want 0 or 1", f.name(), it.method, it.name())
	}
	var last uint64
	for _, e := range m.extents[it.extents.from:it.extents.to] {
		switch {
		case e.length == 0:
			return wrong(it.at, "%s: iloc: %s has an empty extent", f.name(), it.name())
		case it.method == 1 && (m.idat.all == nil || e.from > uint64(len(m.idat.data)) || e.length > uint64(len(m.idat.data))-e.from):
			return wrong(it.at, "%s: iloc: the data of %s, %d bytes from %d on, are not within idat", f.name(), it.name(), e.length, e.from)
		}
		if it.left += int64(e.length); it.left > 1<<61 {
			return wrong(it.at, "%s: iloc: the data of %s are too long", f.name(), it.name())
		}
		it.trusted = it.trusted || e.from < last // they do not come in order
		last = e.from + e.length
	}
	return m.feed(it)
}

// feed reads the data of an item in idat.
func (m *heifMeta) feed(it *item) error {
	if it.method == 0 || it.data == nil {
		return nil
	}
	it.trusted = false
	for _, e := range m.extents[it.extents.from:it.extents.to] {
		if err := m.f.feed(&it.owner, m.idat.data[e.from:e.from+e.length], m.idat.offset(int(e.from))); err != nil {
			return err
		}
	}
	return nil
}

// judgeDerived judges a derived image and what it is made of.
func (m *heifMeta) judgeDerived(it *item, r *ref) error {
	f := m.f
	inputs := m.tos[r.to.from:r.to.to]
	switch {
	case len(inputs) == 0 || it.kind == "iden" && len(inputs) != 1:
		return wrong(r.at, "%s: iref: %s is derived from %d images", f.name(), it.name(), len(inputs))
	case it.kind != "grid":
		return nil
	case it.data != nil:
		return wrong(r.at, "%s: iref: second dimg box of %s", f.name(), it.name())
	}
	it.data = &collector{strip: f.opts.StripMetadata, judge: func(b []byte) string { return m.grid(it, b, inputs) }}
	return m.feed(it)
}

// grid judges the data of a grid of images (HEIF 6.6.2.3).
func (m *heifMeta) grid(it *item, b []byte, inputs []uint32) string {
	if len(b) < 8 || b[1]&1 != 0 && len(b) < 12 {
		return fmt.Sprintf("%d bytes, want 8, or 12 with large fields", len(b))
	}
	rows, columns := int64(b[2])+1, int64(b[3])+1
	width, height := int64(binary.BigEndian.Uint16(b[4:])), int64(binary.BigEndian.Uint16(b[6:]))
	if b[1]&1 != 0 {
		width, height = int64(binary.BigEndian.Uint32(b[4:])), int64(binary.BigEndian.Uint32(b[8:]))
	}
	first := m.item(inputs[0])
	switch {
	case int64(len(inputs)) != rows*columns:
		return fmt.Sprintf("%d rows and %d columns, but %d images", rows, columns, len(inputs))
	case width != it.width || height != it.height:
		return fmt.Sprintf("size %d x %d, but ispe says %d x %d", width, height, it.width, it.height)
	case first.width*columns < width || first.height*rows < height:
		return fmt.Sprintf("%d x %d images of %d x %d do not cover %d x %d", columns, rows, first.width, first.height, width, height)
	}
	return ""
}

// displayed returns the size of an item after its transformations (HEIF 6.3). Chromium
// crops an AVIF only if the crop begins at the top left corner. It shows all of others.
func (m *heifMeta) displayed(it *item) (width, height int64) {
	width, height = it.width, it.height
	if b := m.property(it, "clap"); len(b.data) >= 32 {
		left, top, w, h := clean(b.data, width, height)
		if m.mediaType != "image/avif" || left == 0 && top == 0 {
			width, height = w, h
		}
	}
	if b := m.property(it, "irot"); len(b.data) > 0 && b.data[0]&1 != 0 {
		width, height = height, width
	}
	return width, height
}

// clean returns the clean aperture (BMFF 12.1.4), or the whole image if that is not
// within it.
func clean(b []byte, width, height int64) (left, top, w, h int64) {
	var v [8]int64
	for i := range v {
		v[i] = int64(int32(binary.BigEndian.Uint32(b[4*i:])))
	}
	if v[1] <= 0 || v[3] <= 0 || v[5] <= 0 || v[7] <= 0 || v[0]%v[1] != 0 || v[2]%v[3] != 0 {
		return 0, 0, width, height
	}
	w, h = v[0]/v[1], v[2]/v[3]
	// The offset is that of the centre.
	left, top = 2*v[4]+v[5]*(width-w), 2*v[6]+v[7]*(height-h)
	if w <= 0 || h <= 0 || left < 0 || top < 0 || left%(2*v[5]) != 0 || top%(2*v[7]) != 0 ||
		left/(2*v[5])+w > width || top/(2*v[7])+h > height {
		return 0, 0, width, height
	}
	return left / (2 * v[5]), top / (2 * v[7]), w, h
}

// forget lets go of what only the box itself was judged by, because the rest of a slow
// upload may take long.
func (m *heifMeta) forget() {
	m.properties, m.associations, m.refs = nil, nil, nil
	m.idat, m.hdlr, m.dinf = box{}, box{}, box{}
	for i := range m.items {
		m.items[i].info = nil
	}
}

// neededRefs are the references that say how to show an image (HEIF 6.4; AVIF 4.1).
var neededRefs = []string{"dimg", "auxl", "prem", "pred", "exbl"}

// strip blanks in place what is not needed to show the primary item.
func (m *heifMeta) strip() error {
	for _, b := range []box{m.hdlr, m.dinf} {
		if err := m.f.stripBox(b, func(box) bool { return true }); err != nil {
			return err
		}
	}
	used := make([]bool, len(m.properties)+1)
	for i := range m.items {
		if it := &m.items[i]; it.shown {
			for _, a := range m.associations[it.properties.from:it.properties.to] {
				used[a.index] = true
			}
		}
	}
	for i, p := range m.properties {
		if !used[i+1] || knownProperties[p.name] == 0 {
			p.free()
		} else if err := m.f.stripProperty(p); err != nil {
			return err
		}
	}
	for i := range m.items {
		it := &m.items[i]
		clear(it.info[it.tail:])
		if !it.shown && it.info[0] >= 2 {
			it.info[3] |= 1 // hidden (HEIF 6.4.2)
			copy(it.info[it.tail-4:], "free")
		}
	}
	for i := range m.refs {
		r := &m.refs[i]
		if from := m.item(r.from); from == nil || !from.shown || !slices.Contains(neededRefs, r.name) {
			copy(r.all[4:], "free") // libavif reads the items that it names all the same
		}
	}
	// What no shown item has in idat.
	kept, err := m.f.separate(m.parts(1))
	if err != nil {
		return err
	}
	pos := int64(0)
	for _, s := range append(kept, span{from: int64(len(m.idat.data))}) {
		clear(m.idat.data[pos:s.from])
		pos = s.to
	}
	return nil
}

// parts lists the data of the items that are shown, and of those that are no images, by
// their construction method.
func (m *heifMeta) parts(method byte) (shown, private []part) {
	for i := range m.items {
		it := &m.items[i]
		if it.method != method {
			continue
		}
		for _, e := range m.extents[it.extents.from:it.extents.to] {
			p := part{span{int64(e.from), int64(e.from + e.length)}, &it.owner}
			if it.shown && it.kind != "iden" { // which has none
				shown = append(shown, p)
			} else if !it.shown && codecs[it.kind] == "" && !isDerived[it.kind] && it.kind != "free" {
				private = append(private, p)
			}
		}
	}
	return shown, private
}
