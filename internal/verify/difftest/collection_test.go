package difftest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ba692904/imagestore/internal/verify"
)

// A real is a file of the collection, and what was found out about it.
type real struct {
	path     string
	meta     verify.Meta // from Describe
	shown    shown
	err      error // of the structure
	deepErr  error // with VerifyPixels
	stripErr error
	stripped string // the path without metadata, or ""
}

// An excuse is a file on which our verdict and that of a decoder differ, and why.
type excuse struct {
	what difference
	name string // the end of its path
	why  string
}

type difference string

const (
	refused     difference = "shown, but refused"
	deepRefused difference = "shown, but refused with VerifyPixels"
	taken       difference = "not shown, but taken with VerifyPixels"
	notStripped difference = "taken, but not stripped"
	changed     difference = "shown differently after it is stripped"
	browser     difference = "displayed otherwise in a browser"
)

// A ledger knows which differences are excused.
type ledger struct {
	mu   sync.Mutex
	used map[excuse]bool
}

// report fails t unless the difference on the file is excused.
func (l *ledger) report(t *testing.T, what difference, path, format string, args ...any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	excused := false
	for _, e := range excuses {
		if e.what == what && strings.HasSuffix(path, "/"+e.name) {
			l.used[e] = true
			excused = true
		}
	}
	if !excused {
		t.Errorf("%s: %s: %s", path, what, fmt.Sprintf(format, args...))
	}
}

// TestCollection compares the verdicts on real files with those of decoders that are
// not ours. What they show must be taken, and what is taken must be shown. It also
// strips every file that is taken: the pixels must stay, and nothing private.
func TestCollection(t *testing.T) {
	paths := collection(t)
	l := &ledger{used: make(map[excuse]bool)}
	dir := t.TempDir()
	reals := make([]real, len(paths))
	t.Run("decoders", func(t *testing.T) {
		var next atomic.Int64
		for worker := range runtime.GOMAXPROCS(0) {
			t.Run(strconv.Itoa(worker), func(t *testing.T) {
				t.Parallel()
				p := startPillow(t)
				for i := int(next.Add(1)) - 1; i < len(paths); i = int(next.Add(1)) - 1 {
					reals[i] = compare(t, l, p, paths[i], filepath.Join(dir, strconv.Itoa(i)))
				}
			})
		}
	})
	t.Run("stripped", func(t *testing.T) {
		t.Run("browser", func(t *testing.T) { t.Parallel(); compareBrowser(t, l, reals) })
		t.Run("private", func(t *testing.T) { t.Parallel(); checkPrivate(t, dir, reals) })
	})
	for _, e := range excuses {
		if !l.used[e] && slices.ContainsFunc(paths, func(path string) bool { return strings.HasSuffix(path, "/"+e.name) }) {
			t.Errorf("%s: %s: got no difference; remove its excuse", e.name, e.what)
		}
	}
	checkCounts(t, reals)
}

// compare compares the verdicts on a file, which it strips to name.
func compare(t *testing.T, l *ledger, p *pillow, path, name string) real {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := real{path: path}
	f.meta, err = verify.Describe(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	show := func(path string) shown {
		if f.meta.Type == "image/avif" || f.meta.Type == "image/heic" || f.err != nil {
			return decode(t, path, f.meta.Type)
		}
		return p.show(t, path)
	}
	f.shown = show(path)
	if f.meta.Type == "" {
		if f.shown.Error == "" && slices.Contains([]string{"PNG", "JPEG", "GIF", "WEBP"}, f.shown.Format) {
			l.report(t, refused, path, "%s is not recognized", f.shown.Format)
		}
		return f
	}
	meta, out, err := copyOf(t, b, verify.Options{})
	f.err = err
	_, _, f.deepErr = copyOf(t, b, verify.Options{VerifyPixels: true})
	switch {
	case f.shown.Error == "" && err != nil:
		l.report(t, refused, path, "got %v", err)
	case f.shown.Error == "" && f.deepErr != nil:
		l.report(t, deepRefused, path, "got %v", f.deepErr)
	case f.shown.Error != "" && f.deepErr == nil:
		l.report(t, taken, path, "got %v from a decoder", f.shown.Error)
	}
	if f.meta.Type == "image/webp" {
		t.Run(filepath.Base(path), func(t *testing.T) { against(t, b) })
	}
	if err != nil {
		if f.deepErr == nil {
			t.Errorf("%s: got %v for the structure, want no error as for the pixels", path, err)
		}
		return f
	}
	if !bytes.Equal(out, b) {
		t.Errorf("%s: got other bytes, want them copied", path)
	}
	if meta != f.meta {
		t.Errorf("%s: got %+v from Describe, want %+v as from Copy", path, f.meta, meta)
	}

	strippedMeta, out, err := copyOf(t, b, verify.Options{StripMetadata: true})
	if f.stripErr = err; err != nil {
		l.report(t, notStripped, path, "got %v", err)
		return f
	}
	if strippedMeta != meta {
		t.Errorf("%s: stripped: got %+v, want %+v", path, strippedMeta, meta)
	}
	if again, got, err := copyOf(t, out, verify.Options{StripMetadata: true}); err != nil || again != meta || !bytes.Equal(got, out) {
		t.Errorf("%s: stripped twice: got %+v, %d bytes, %v, want %+v and the %d bytes of the first time", path, again, len(got), err, meta, len(out))
	}
	if _, _, err := copyOf(t, out, verify.Options{VerifyPixels: f.deepErr == nil}); err != nil {
		t.Errorf("%s: got %v for the stripped image, want no error", path, err)
	}
	f.stripped = name + "." + strings.TrimPrefix(meta.Type, "image/")
	if err := os.WriteFile(f.stripped, out, 0o666); err != nil {
		t.Fatal(err)
	}
	if f.shown.Error == "" && !bytes.Equal(out, b) {
		if now := show(f.stripped); now != f.shown {
			l.report(t, changed, path, "got %+v, want %+v as before", now, f.shown)
		}
	}
	return f
}

// compareBrowser lets Chromium display what is taken, and what is stripped. A browser
// takes HEIC only on some systems.
func compareBrowser(t *testing.T, l *ledger, reals []real) {
	t.Helper()
	var paths []string
	var origin []real
	for _, f := range reals {
		if f.meta.Type == "" || f.meta.Type == "image/heic" || f.err != nil {
			continue
		}
		paths, origin = append(paths, f.path), append(origin, f)
		if f.stripped != "" {
			paths, origin = append(paths, f.stripped), append(origin, f)
		}
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil || i < 0 || i >= len(paths) {
			http.NotFound(w, r)
			return
		}
		b, err := os.ReadFile(paths[i])
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", origin[i].meta.Type)
		w.Write(b)
	})
	var got []string
	browse(t, h, loadScript+fmt.Sprintf(`
		async function run() {
			const sizes = []
			for (let i = 0; i < %d; i++) {
				sizes.push(await load('/' + i).then(image => image.naturalWidth + ' x ' + image.naturalHeight, e => '' + e))
			}
			return sizes
		}`, len(paths)), &got)
	if len(got) != len(paths) {
		t.Fatalf("got %d sizes, want %d", len(got), len(paths))
	}
	for i, f := range origin {
		if want := fmt.Sprintf("%d x %d", f.meta.Width, f.meta.Height); got[i] != want {
			what := ""
			if paths[i] == f.stripped {
				what = " after it is stripped"
			}
			l.report(t, browser, f.path, "got %s%s, want %s as from Copy", got[i], what, want)
		}
	}
}

// allowedTag matches the tags that a stripped image may have, with their values: facts
// about the file and the coding of its pixels, colour profiles, and the orientation.
var allowedTag = regexp.MustCompile(`^(` + strings.Join([]string{
	`SourceFile`,
	`ExifTool:ExifToolVersion`,
	`ExifTool:Warning: (Error inflating iCCP|\[minor\] Text/EXIF chunk\(s\) found after PNG IDAT.*)$`,
	`System:.*`,
	`Composite:(AvgBitrate|ImageSize|Megapixels)`,
	`File:(BitsPerSample|ColorComponents|EncodingProcess|ExifByteOrder|FileType|FileTypeExtension|ImageHeight|ImageWidth|MIMEType|YCbCrSubSampling)`,
	`IFD0:Orientation`,
	`ICC(_Profile|-chrm|-header|-meas|-view):.*`,
	`JFIF:(JFIFVersion|ResolutionUnit|XResolution|YResolution)`,
	`Adobe:(APP14Flags[01]|ColorTransform|DCTEncodeVersion)`,
	`PNG:(Animation(Frames|Plays)|BackgroundColor|BitDepth|(Blue|Green|Red|WhitePoint)[XY]|ColorType|Compression|Filter|Gamma|ICC_Profile|` +
		`ImageHeight|ImageWidth|Interlace|Palette|ProfileName|SRGBRendering|SignificantBits|Transparency)`,
	`PNG-pHYs:PixelUnits`, `PNG-pHYs:PixelsPerUnit[XY]`,
	`GIF:(AnimationIterations|BackgroundColor|BitsPerPixel|ColorResolutionDepth|Duration|FrameCount|GIFVersion|HasColorMap|ImageHeight|ImageWidth|` +
		`PixelAspectRatio|TransparentColor)`,
	`RIFF:(Alpha(Compression|Filtering|Preprocessing)|AnimationLoopCount|BackgroundColor|Duration|(Horizontal|Vertical)Scale|ImageHeight|ImageWidth|` +
		`VP8Version|WebP_Flags)`,
	`Meta:(Free|MetaImageSize|PrimaryItemReference)`, // the bytes of free are zero
	`QuickTime:(MajorBrand|MinorVersion|CompatibleBrands|HandlerType|Free|Unknown_free|Unknown_imir|Rotation|MediaData(Offset|Size)?|AuxiliaryImageType)`,
	`QuickTime:(AV1ConfigurationVersion|AverageFrameRate|BitDepth(Chroma|Luma)|Chroma(Format|SamplePosition)|ConstantFrameRate|ConstraintIndicatorFlags|` +
		`Gen(ProfileCompatibilityFlags|eral(LevelIDC|ProfileIDC|ProfileSpace|TierFlag))|HEVCConfigurationVersion|HighBitDepth|InitialDelaySamples|` +
		`MinSpatialSegmentationIDC|NumTemporalLayers|ParallelismType|Seq(LevelIdx0|Profile|Tier0)|TemporalIDNested|TwelveBit)`,
	`QuickTime:(Color(Primaries|Profiles)|MatrixCoefficients|TransferCharacteristics|VideoFullRangeFlag|ImagePixelDepth|ImageSpatialExtent)`,
	`QuickTime:(Duration|MatrixStructure|MovieHeaderVersion|NextTrackID|PreferredRate|PreferredVolume|TimeScale)`,
	`QuickTime:(CurrentTime|PosterTime|Preview(Duration|Time)|Selection(Duration|Time)): 0 s$`,
	`Track\d+:(ChunkOffset|GraphicsMode|HandlerType|ImageHeight|ImageWidth|MatrixStructure|Media(Duration|HeaderVersion|LanguageCode|TimeScale)|OpColor|` +
		`OtherFormat|SampleSizes|SampleToChunk|SyncSampleTable|TimeToSampleTable|Track(Duration|HeaderVersion|ID|Layer|Volume)|Unknown_(av1C|auxl|colr))`,
	`(QuickTime:|Track\d+:(Media|Track))(Create|Modify)Date: 0000:00:00 00:00:00$`,
}, "|") + `)(:|$)`)

// checkPrivate lets exiftool look for what a stripped image must not have.
func checkPrivate(t *testing.T, dir string, reals []real) {
	t.Helper()
	origin := make(map[string]string)
	for _, f := range reals {
		if f.stripped != "" {
			origin[f.stripped] = f.path
		}
	}
	out, err := exec.Command("exiftool", "-json", "-G1", "-a", "-u", "-ee3", "-r", dir).Output()
	var answers []map[string]any
	if jsonErr := json.Unmarshal(out, &answers); jsonErr != nil {
		t.Fatalf("exiftool: %v, %v", err, jsonErr)
	}
	if len(answers) != len(origin) {
		t.Errorf("exiftool: got %d files, want %d", len(answers), len(origin))
	}
	for _, answer := range answers {
		for _, tag := range slices.Sorted(maps.Keys(answer)) {
			if found := fmt.Sprintf("%s: %v", tag, answer[tag]); !allowedTag.MatchString(found) {
				t.Errorf("%s: stripped: got %.120s from exiftool, want nothing private", origin[fmt.Sprint(answer["SourceFile"])], found)
			}
		}
	}
}

// checkCounts logs the figures, and checks that the collection is not too small.
func checkCounts(t *testing.T, reals []real) {
	t.Logf("%-5s %6s %12s %14s %16s %15s %18s %8s %12s", "", "files", "shown, taken", "shown, refused", "pixels refused",
		"unshown, taken", "unshown, refused", "stripped", "not stripped")
	for _, test := range []struct {
		mediaType string
		least     int
	}{{"png", 800}, {"jpeg", 200}, {"gif", 50}, {"webp", 40}, {"avif", 40}, {"heic", 30}} {
		var files, shownTaken, shownRefused, deep, notShownTaken, notShownRefused, stripped, notStripped int
		for _, f := range reals {
			if f.meta.Type != "image/"+test.mediaType {
				continue
			}
			files++
			switch {
			case f.shown.Error == "" && f.err != nil:
				shownRefused++
			case f.shown.Error == "":
				shownTaken++
				if f.deepErr != nil {
					deep++
				}
			case f.err != nil:
				notShownRefused++
			default:
				notShownTaken++
			}
			if f.stripped != "" {
				stripped++
			} else if f.err == nil {
				notStripped++
			}
		}
		t.Logf("%-5s %6d %12d %14d %16d %15d %18d %8d %12d", test.mediaType, files, shownTaken, shownRefused, deep, notShownTaken, notShownRefused, stripped, notStripped)
		if shownTaken < test.least {
			t.Errorf("%s: got %d files that are shown and taken, want at least %d in a collection", test.mediaType, shownTaken, test.least)
		}
	}
}
