package verify

import (
	"encoding/binary"
	"slices"
)

// A movie is the moov box of an image sequence (BMFF 8.2; HEIF 7).
type movie struct {
	f      *isobmff
	all    box
	tracks []*track
	colour *track // the one that is shown
}

// A track is a sequence of images (BMFF 8.3), or of something else.
type track struct {
	owner
	box           box
	handler       string
	mediaType     string // "" unless it is of images
	width, height int64  // tkhd
	auxiliaryOf   []uint32
	thumbnail     bool
	shown         bool
	samples       int64
	sizes         sizes
	chunks        box // stco or co64
	runs          box // stsc
}

// sizes are the sizes of the samples (BMFF 8.7.3).
type sizes struct {
	same  int64 // of all, unless it is 0
	bits  int   // of a field, 4, 8, 16 or 32
	table []byte
}

// at returns the size of the i-th sample.
func (s sizes) at(i int64) int64 {
	switch {
	case s.same != 0:
		return s.same
	case s.bits == 32:
		return int64(binary.BigEndian.Uint32(s.table[4*i:]))
	case s.bits == 16:
		return int64(binary.BigEndian.Uint16(s.table[2*i:]))
	case s.bits == 8:
		return int64(s.table[i])
	case i%2 == 0:
		return int64(s.table[i/2] >> 4)
	}
	return int64(s.table[i/2] & 15)
}

// maxTracks is the largest number of tracks.
const maxTracks = 64

// parseMovie reads a moov box.
func (f *isobmff) parseMovie(b box) (*movie, error) {
	v := &movie{f: f, all: b}
	err := f.boxes(b, 0, func(child box) error {
		if child.name != "trak" {
			return nil
		}
		if len(v.tracks) == maxTracks {
			return invalid(child.at, "it has too many parts; save it with another program: %s: moov: more than %d tracks", f.name(), maxTracks)
		}
		t := &track{box: child}
		t.at = child.at
		if err := f.trak(t, child); err != nil {
			return err
		}
		t.each = true
		v.tracks = append(v.tracks, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, t := range v.tracks {
		if v.colour == nil && t.mediaType != "" && t.auxiliaryOf == nil && !t.thumbnail && t.samples > 0 && t.handler != "auxv" {
			v.colour, t.shown = t, true
		}
	}
	if v.colour == nil {
		return v, nil
	}
	if t := v.colour; t.width == 0 || t.height == 0 {
		return nil, wrong(t.at, "%s: %s: tkhd: size %d x %d", f.name(), t.name(), t.width, t.height)
	}
	for _, t := range v.tracks {
		for _, id := range t.auxiliaryOf {
			if id == v.colour.id && t.mediaType != "" {
				t.shown = true
			}
		}
	}
	return v, nil
}

// containers lists in what the boxes of a track are that have others in them.
var containers = map[string]string{"mdia": "trak", "minf": "mdia", "stbl": "minf"}

// sampleEntry is the size of the fields of a VisualSampleEntry (BMFF 12.1.3).
const sampleEntry = 78

// trak reads a track, of which other boxes than these are not needed.
func (f *isobmff) trak(t *track, b box) error {
	return f.boxes(b, 0, func(child box) error {
		switch d := (&fields{b: child}); child.name {
		case "mdia", "minf", "stbl":
			if containers[child.name] == b.name { // so that it ends
				return f.trak(t, child)
			}
		case "tkhd": // BMFF 8.3.2
			version, _ := d.full()
			d.uint(8 << (version & 1))
			t.id = uint32(d.uint(4))
			d.uint(4)
			d.uint(4 << (version & 1))
			for range 13 {
				d.uint(4)
			}
			t.width, t.height = int64(d.uint(4)>>16), int64(d.uint(4)>>16)
			if d.failed {
				return f.short(child)
			}
		case "tref": // BMFF 8.3.3
			return f.boxes(child, 0, func(r box) error {
				switch r.name {
				case "auxl":
					for d := (&fields{b: r}); d.pos+4 <= len(r.data) && len(t.auxiliaryOf) < maxTracks; {
						t.auxiliaryOf = append(t.auxiliaryOf, uint32(d.uint(4)))
					}
				case "thmb":
					t.thumbnail = true
				}
				return nil
			})
		case "hdlr":
			if len(child.data) >= 20 && t.handler == "" {
				t.handler = string(child.data[8:12])
			}
		case "stsd": // BMFF 8.5.2
			return f.stsd(t, child)
		case "stsz", "stz2":
			return f.stsz(t, child)
		case "stco", "co64":
			t.chunks = child
		case "stsc":
			t.runs = child
		}
		return nil
	})
}

// stsd reads the sample description of a track.
func (f *isobmff) stsd(t *track, b box) error {
	first := true
	return f.boxes(b, 8, func(entry box) error {
		if !first {
			return nil
		}
		first = false
		t.kind = entry.name
		codec, ok := mediaTypes[entry.name]
		if !ok || t.handler != "pict" && t.handler != "auxv" && t.handler != "vide" {
			return nil
		}
		return f.boxes(entry, sampleEntry, func(child box) (err error) {
			if child.name == codec.config {
				t.mediaType = codec.mediaType
				t.data, err = f.configure(child)
			}
			return err
		})
	})
}

// stsz reads how many samples a track has, and where their sizes are.
func (f *isobmff) stsz(t *track, b box) error {
	d := &fields{b: b}
	d.full()
	if b.name == "stsz" {
		t.sizes.same, t.sizes.bits = int64(d.uint(4)), 32
	} else {
		t.sizes.same, t.sizes.bits = 0, int(d.uint(4)&0xff)
	}
	t.samples = int64(d.uint(4))
	t.sizes.table = b.data[d.pos:]
	switch bits := t.sizes.bits; {
	case d.failed || t.sizes.same == 0 && t.samples*int64(bits) > 8*int64(len(t.sizes.table)):
		return f.short(b)
	case bits != 4 && bits != 8 && bits != 16 && bits != 32:
		return wrong(b.offset(4), "%s: stz2: field_size %d, want 4, 8 or 16", f.name(), bits)
	}
	return nil
}

// samples adds the parts of a track, by its tables (BMFF 8.7).
func (f *isobmff) samples(t *track) error {
	if t.chunks.all == nil || t.runs.all == nil {
		return wrong(t.at, "%s: %s has no stsc, stco or co64 box", f.name(), t.name())
	}
	width := 4
	if t.chunks.name == "co64" {
		width = 8
	}
	chunks, runs := &fields{b: t.chunks, pos: 4}, &fields{b: t.runs, pos: 4}
	count, run := chunks.uint(4), runs.uint(4)
	if run == 0 || runs.failed {
		return wrong(t.runs.at, "%s: stsc is empty", f.name())
	}
	first, each := runs.uint(4), runs.uint(4)
	runs.uint(4)
	if first != 1 {
		return wrong(t.runs.at, "%s: stsc: first_chunk %d, want 1", f.name(), first)
	}
	next, nextEach := uint64(0), uint64(0)
	take := func() {
		if run--; run > 0 {
			next, nextEach = runs.uint(4), runs.uint(4)
			runs.uint(4)
		}
	}
	take()
	sample := int64(0)
	for chunk := uint64(1); chunk <= count; chunk++ {
		if run > 0 && chunk == next {
			first, each = next, nextEach
			take()
			if run > 0 && next <= first {
				return wrong(t.runs.at, "%s: stsc: first_chunk %d follows %d", f.name(), next, first)
			}
		}
		from := int64(chunks.uint(width))
		if chunks.failed || runs.failed {
			return f.short(t.chunks)
		}
		for i := uint64(0); i < each; i++ {
			switch {
			case sample == t.samples:
				return wrong(t.chunks.at, "%s: %s: stsc and stco have more samples than stsz", f.name(), t.name())
			case len(f.parts) == maxParts:
				return invalid(t.chunks.at, "it is in too many pieces; save it with another program: %s: more than %d samples", f.name(), maxParts)
			}
			n := t.sizes.at(sample)
			if from < 0 || from > 1<<62 || n == 0 {
				return wrong(t.chunks.at, "%s: %s: sample %d has %d bytes at byte %d", f.name(), t.name(), sample+1, n, from)
			}
			f.parts = append(f.parts, part{span{from, from + n}, &t.owner})
			from += n
			sample++
		}
	}
	if sample != t.samples {
		return wrong(t.chunks.at, "%s: %s: stsc and stco have %d samples, but stsz has %d", f.name(), t.name(), sample, t.samples)
	}
	return nil
}

// needed lists the boxes that are needed to play a movie, by what they are in, and where
// in its data they begin.
var needed = map[string]struct {
	from  int
	boxes []string
}{
	"moov": {0, []string{"mvhd", "trak"}},
	"trak": {0, []string{"tkhd", "tref", "edts", "mdia"}},
	"edts": {0, []string{"elst"}},
	"mdia": {0, []string{"mdhd", "hdlr", "minf"}},
	"minf": {0, []string{"vmhd", "nmhd", "hdlr", "dinf", "stbl"}},
	"dinf": {0, []string{"dref"}},
	"dref": {8, []string{"url ", "urn "}},
	"stbl": {0, []string{"stsd", "stts", "ctts", "cslg", "stsc", "stsz", "stz2", "stco", "co64", "stss", "sdtp", "sgpd", "sbgp"}},
	"stsd": {8, []string{"av01", "hvc1", "hev1"}},
	"av01": {sampleEntry, entryBoxes},
	"hvc1": {sampleEntry, entryBoxes},
	"hev1": {sampleEntry, entryBoxes},
}

var entryBoxes = []string{"av1C", "hvcC", "colr", "pasp", "clap", "ccst", "auxi", "clli", "mdcv", "cclv", "amve", "btrt"}

// strip blanks what is not needed to play the sequence.
func (v *movie) strip() error {
	return v.f.stripBox(v.all, func(b box) bool {
		return !slices.ContainsFunc(v.tracks, func(t *track) bool { return t.at == b.at && !t.shown })
	})
}

// stripBox blanks the boxes in b that are not needed, or that keep does not want, and
// what is private in others. It goes as deep as needed does.
func (f *isobmff) stripBox(b box, keep func(box) bool) error {
	switch n := len(b.data); b.name {
	case "mvhd", "tkhd", "mdhd": // the times when it was made and changed
		if n > 0 && b.data[0] == 1 {
			clear(b.data[min(4, n):min(20, n)])
		} else {
			clear(b.data[min(4, n):min(12, n)])
		}
	case "hdlr": // all but its type, such as its name
		clear(b.data[min(4, n):min(8, n)])
		clear(b.data[min(12, n):])
	case "url ", "urn ": // a location
		clear(b.data[min(4, n):])
	case "av01", "hvc1", "hev1": // compressorname
		clear(b.data[min(42, n):min(74, n)])
	}
	inside, ok := needed[b.name]
	if !ok && knownProperties[b.name] > 0 {
		return f.stripProperty(b)
	} else if !ok {
		return nil
	}
	var inner error // of a child
	err := f.boxes(b, inside.from, func(child box) error {
		if slices.Contains(inside.boxes, child.name) && keep(child) {
			inner = f.stripBox(child, keep)
			return inner
		}
		child.free()
		return nil
	})
	if err != nil && inner == nil {
		return invalid(b.at, unstrippable+"%s: %s is malformed", f.name(), b.name)
	}
	return err
}
