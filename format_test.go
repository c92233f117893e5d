package imagestore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// A sample is an image and what a Store should find in it.
type sample struct {
	format        imagestore.Format
	width, height int
	b             []byte
}

// segment returns a JPEG marker segment.
func segment(marker byte, data string) string {
	return string(binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(len(data)+2))) + data
}

// withSegments returns a JPEG with marker segments at its beginning.
func withSegments(jpeg []byte, segments string) []byte {
	return slices.Concat(jpeg[:2], []byte(segments), jpeg[2:])
}

// exif has the orientation 6, by which width and height change places, and a camera.
const exif = "Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x02" +
	"\x01\x10\x00\x02\x00\x00\x00\x04CAM\x00" +
	"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"

func samples(t *testing.T) []sample {
	rotated := withSegments(testimage.JPEG(t, 30, 20, 1), segment(0xe1, exif))
	return []sample{
		{imagestore.PNG, 10, 10, testimage.PNG(t, 10, 1)},
		{imagestore.JPEG, 30, 20, testimage.JPEG(t, 30, 20, 1)},
		{imagestore.JPEG, 20, 30, rotated},
		{imagestore.JPEG, 20, 30, withSegments(rotated, strings.Repeat(segment(0xe2, strings.Repeat("x", 65000)), 3))},
		{imagestore.JPEG, 200, 300, append(testimage.JPEG(t, 200, 300, 2), "what a phone puts after it"...)},
		{imagestore.GIF, 5, 5, testimage.GIF(t, 5, 1)},
	}
}

// TestReplaceFormat replaces an image by one of another format, again and again. Every
// way to describe it must tell the same.
func TestReplaceFormat(t *testing.T) {
	t.Parallel()
	for _, fsys := range filesystems {
		base := fsys.new(t)
		s := imagestore.New(base, allFormats)
		c := newClient(t, serve(t, s, nil).URL)
		for i, sample := range samples(t) {
			for _, to := range []storetest.Images{s, c} {
				result, err := to.Put(t.Context(), "a", bytes.NewReader(sample.b))
				if err != nil {
					t.Fatalf("%s, image %d: %T: got %v, want nil", fsys.name, i, to, err)
				}
				info := result.Info
				if info.Type != string(sample.format) || info.Width != sample.width || info.Height != sample.height || info.Size != int64(len(sample.b)) {
					t.Errorf("%s, image %d: %T: got %+v, want %s of %d x %d", fsys.name, i, to, info, sample.format, sample.width, sample.height)
				}
				for _, from := range []storetest.Images{s, c} {
					stat, err := from.Stat(t.Context(), "a")
					if err != nil || stat != info {
						t.Errorf("%s, image %d: %T: got %+v, %v from Stat, want %+v", fsys.name, i, from, stat, err, info)
					}
					img, err := from.Get(t.Context(), "a")
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(img)
					if img.Close(); err != nil || img.Info != info || !bytes.Equal(b, sample.b) {
						t.Errorf("%s, image %d: %T: got %+v, %d bytes, %v from Get, want %+v", fsys.name, i, from, img.Info, len(b), err, info)
					}
				}
			}
			if got := files(t, base); !slices.Equal(got, []string{".staging", "a", "a/image"}) {
				t.Errorf("%s, image %d: got the files %q, want one image", fsys.name, i, got)
			}
		}
	}
}

// TestByHandTruncated serves what another program has not written to its end.
func TestByHandTruncated(t *testing.T) {
	t.Parallel()
	b := withSegments(testimage.JPEG(t, 30, 20, 1), segment(0xe5, strings.Repeat("x", 65000)))[:10000]
	for _, fsys := range filesystems {
		base := fsys.new(t)
		must(t, errors.Join(base.MkdirAll("a", 0o777), afero.WriteFile(base, "a/image", b, 0o666)))
		img, err := imagestore.New(base, nil).Get(t.Context(), "a")
		if err != nil {
			t.Errorf("%s: got %v, want nil", fsys.name, err)
			continue
		}
		got, err := io.ReadAll(img)
		if img.Close(); err != nil || !bytes.Equal(got, b) || img.Type != "image/jpeg" || img.Width != 0 {
			t.Errorf("%s: got %+v, %d bytes, %v, want a JPEG of %d bytes", fsys.name, img.Info, len(got), err, len(b))
		}
	}
}

// TestByHand describes files that another program has put into the directory.
func TestByHand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := imagestore.OpenDir(dir, nil) // serves formats that it would not take
	must(t, err)
	srv := serve(t, s, nil)
	c := newClient(t, srv.URL)
	all := append(samples(t),
		sample{"application/octet-stream", 0, 0, []byte("<html>")},
		sample{"application/octet-stream", 0, 0, nil},
		sample{"image/jpeg", 0, 0, []byte("\xff\xd8\xff\xe0 and no more")})
	for i, sample := range all {
		id := fmt.Sprintf("a%d", i)
		must(t, errors.Join(os.Mkdir(filepath.Join(dir, id), 0o777), os.WriteFile(filepath.Join(dir, id, "image"), sample.b, 0o666)))
		for range 2 { // from the file, and from the cache
			for _, s := range []storetest.Images{s, c} {
				img, err := s.Get(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(img)
				img.Close()
				if info := img.Info; err != nil || info.Type != string(sample.format) || info.Width != sample.width || info.Height != sample.height || !bytes.Equal(b, sample.b) {
					t.Errorf("image %d: %T: got %+v, %d bytes, %v, want %s of %d x %d", i, s, info, len(b), err, sample.format, sample.width, sample.height)
				}
				if info, err := s.Stat(t.Context(), id); err != nil || info != img.Info {
					t.Errorf("image %d: %T: got %+v, %v from Stat, want %+v", i, s, info, err, img.Info)
				}
			}
			age(t, filepath.Join(dir, id, "image"))
		}
		got := testhttp.Request(t, "GET", srv.URL+"/images/"+id, nil)
		if got.Header.Get("Content-Type") != string(sample.format) || (got.Header.Get("Imagestore-Width") != "") != (sample.width > 0) {
			t.Errorf("image %d: got %v, want %s", i, got.Header, sample.format)
		}
	}
}

// TestFormats puts every sample into stores that take some formats.
func TestFormats(t *testing.T) {
	t.Parallel()
	for _, taken := range [][]imagestore.Format{nil, {imagestore.JPEG}, {imagestore.GIF, imagestore.PNG}} {
		s := imagestore.New(onDisk(t), &imagestore.Options{Formats: taken})
		takes := s.Options().Formats
		if taken == nil && !slices.Equal(takes, []imagestore.Format{imagestore.PNG}) || taken != nil && !slices.Equal(takes, taken) {
			t.Errorf("got the formats %v, want %v", takes, taken)
		}
		takes[0] = "changed" // does not change those of s
		url := serve(t, s, nil).URL + "/images/a"
		for _, sample := range samples(t) {
			got := testhttp.Request(t, "PUT", url, bytes.NewReader(sample.b))
			if slices.Contains(s.Options().Formats, sample.format) {
				if got.StatusCode >= 300 {
					t.Errorf("%v: got %s, %s, want it taken", taken, got.Status, got.Bytes)
				}
				continue
			}
			checkProblem(t, got, 415, "unsupported_type", "")
			name := strings.ToUpper(strings.TrimPrefix(string(sample.format), "image/"))
			for _, text := range []string{"it looks like a " + name, "only ", " taken", "Options.Formats", "-formats"} {
				if !strings.Contains(string(got.Bytes), text) {
					t.Errorf("%v: got %s, want %q in it", taken, got.Bytes, text)
				}
			}
		}
		for _, svg := range []string{
			"<svg/>", "<?xml version='1.0'?>\n<svg>", "\ufeff<!-- x --><svg>", "\n <!DOCTYPE svg PUBLIC \"\" \"\">\n<svg>",
		} {
			checkProblem(t, testhttp.Request(t, "PUT", url, strings.NewReader(svg)), 415, "unsupported_type", "SVG")
		}
	}
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "image/bmp") {
			t.Errorf("got the panic %v, want one that names image/bmp", p)
		}
	}()
	imagestore.New(onDisk(t), &imagestore.Options{Formats: []imagestore.Format{"image/bmp"}})
}

// TestParseFormats parses lists of formats.
func TestParseFormats(t *testing.T) {
	t.Parallel()
	got, err := imagestore.ParseFormats("PNG, jpg,jpeg ,gif,webp,avif,heic")
	if err != nil || !slices.Equal(got, imagestore.Formats()) {
		t.Errorf("got %v, %v, want all formats", got, err)
	}
	for _, list := range []string{"", "png,", "svg", "image/png", "png jpeg"} {
		if got, err := imagestore.ParseFormats(list); err == nil || !strings.Contains(err.Error(), "jpeg, gif") {
			t.Errorf("%q: got %v, %v, want an error that lists the formats", list, got, err)
		}
	}
}

// TestStripMetadata stores a photograph without what it tells of its owner.
func TestStripMetadata(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), &imagestore.Options{Formats: imagestore.Formats(), StripMetadata: true})
	url := serve(t, s, nil).URL + "/images/a"
	photo := withSegments(testimage.JPEG(t, 30, 20, 1), segment(0xe1, exif)+segment(0xfe, "my secret"))
	photo = append(photo, "my other secret"...)
	put := testhttp.Request(t, "PUT", url, bytes.NewReader(photo))
	got := testhttp.Request(t, "GET", url, nil)
	for _, secret := range []string{"CAM", "secret"} {
		if bytes.Contains(got.Bytes, []byte(secret)) {
			t.Errorf("got %q in the stored image, want it stripped", secret)
		}
	}
	if put.StatusCode != 201 || put.Header.Get("ETag") != got.Header.Get("ETag") || !strings.Contains(string(put.Bytes), fmt.Sprintf(`"size":%d,"width":20,"height":30`, len(got.Bytes))) {
		t.Errorf("got %s, %v, %s, want the size and the ETag of the %d bytes that are stored", put.Status, put.Header, put.Bytes, len(got.Bytes))
	}
	pixels := func(b []byte) []uint8 {
		img, _, err := image.Decode(bytes.NewReader(b))
		must(t, err)
		return img.(*image.Gray).Pix
	}
	if !bytes.Equal(pixels(got.Bytes), pixels(photo)) {
		t.Error("got other pixels in the stored image, want the same")
	}
	if info, err := s.Stat(t.Context(), "a"); err != nil || info.Width != 20 || info.Height != 30 {
		t.Errorf("got %+v, %v, want the orientation kept", info, err)
	}
}

// TestMaxAnimationPixels puts animations up to the limit.
func TestMaxAnimationPixels(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), &imagestore.Options{Formats: imagestore.Formats(), MaxPixels: 100, MaxAnimationPixels: 300})
	for frames, want := range map[int]error{1: nil, 3: nil, 4: imagestore.ErrTooLarge, 50: imagestore.ErrTooLarge} {
		animation := new(gif.GIF)
		for range frames {
			animation.Image = append(animation.Image, image.NewPaletted(image.Rect(0, 0, 10, 10), color.Palette{color.Black, color.White}))
			animation.Delay = append(animation.Delay, 1)
		}
		var b bytes.Buffer
		must(t, gif.EncodeAll(&b, animation))
		if _, err := s.Put(t.Context(), "a", &b); !errors.Is(err, want) {
			t.Errorf("%d frames of 100 pixels: got %v, want %v", frames, err, want)
		}
	}
}
