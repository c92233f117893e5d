package imagestore_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

func TestGet(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	b := testimage.PNG(t, 300, 1)
	put(t, s, "TestPost", b)
	old := time.Date(2026, 3, 4, 5, 6, 7, 123_000_000, time.UTC)
	must(t, fsys.Chtimes("TestPost/image", old, old))
	info, _ := get(t, s, "TestPost")
	const modified = "Wed, 04 Mar 2026 05:06:08 GMT"
	url := srv.URL + "/images/TestPost"

	for _, method := range []string{"GET", "HEAD"} {
		got := testhttp.Request(t, method, url, nil)
		for name, want := range map[string]string{
			"Content-Type":            "image/png",
			"Content-Length":          strconv.Itoa(len(b)),
			"ETag":                    info.ETag,
			"Last-Modified":           modified,
			"Imagestore-Modified":     "2026-03-04T05:06:07.123Z",
			"Accept-Ranges":           "bytes",
			"Cache-Control":           "no-cache",
			"X-Content-Type-Options":  "nosniff",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
			"Content-Disposition":     `inline; filename="TestPost.png"`,
		} {
			if got := got.Header.Get(name); got != want {
				t.Errorf("%s: got %s %q, want %q", method, name, got, want)
			}
		}
		want := b
		if method == "HEAD" {
			want = nil
		}
		if got.StatusCode != 200 || !bytes.Equal(got.Bytes, want) {
			t.Errorf("%s: got %s, %d bytes, want 200, %d bytes", method, got.Status, len(got.Bytes), len(want))
		}
	}

	for _, test := range []struct {
		name   string
		header []string
		status int
		body   []byte
	}{
		{"If-None-Match of this version", []string{"If-None-Match", info.ETag}, 304, nil},
		{"If-None-Match of several", []string{"If-None-Match", `"x", W/` + info.ETag}, 304, nil},
		{"If-None-Match of another", []string{"If-None-Match", `"x"`}, 200, b},
		{"If-Modified-Since", []string{"If-Modified-Since", modified}, 304, nil},
		{"a range", []string{"Range", "bytes=0-99"}, 206, b[:100]},
		{"the end", []string{"Range", "bytes=-5"}, 206, b[len(b)-5:]},
		{"several lines", []string{"If-None-Match", `"x"`, "If-None-Match", info.ETag}, 304, nil},
		{"several lines of If-Match", []string{"If-Match", `"x"`, "If-Match", info.ETag}, 200, b},
		{"a range of this version", []string{"Range", "bytes=10-", "If-Range", info.ETag}, 206, b[10:]},
		{"a range of another version", []string{"Range", "bytes=10-", "If-Range", `"x"`}, 200, b},
		{"If-Match", []string{"If-Match", info.ETag}, 200, b},
	} {
		got := testhttp.Request(t, "GET", url, nil, test.header...)
		if got.StatusCode != test.status || !bytes.Equal(got.Bytes, test.body) {
			t.Errorf("%s: got %s, %d bytes, want %d, %d bytes", test.name, got.Status, len(got.Bytes), test.status, len(test.body))
		}
		if got.Header.Get("ETag") != info.ETag {
			t.Errorf("%s: got ETag %s, want %s", test.name, got.Header.Get("ETag"), info.ETag)
		}
	}

	for _, ranges := range []string{"bytes=0-9", "bytes=9999999-"} {
		if got := testhttp.Request(t, "HEAD", url, nil, "Range", ranges); got.StatusCode != 200 || got.ContentLength != info.Size {
			t.Errorf("HEAD of %s: got %s, length %d, want 200, length %d", ranges, got.Status, got.ContentLength, info.Size)
		}
	}
	refused := testhttp.Request(t, "GET", url, nil, "If-Match", `"x"`)
	checkProblem(t, refused, 412, "precondition_failed", info.ETag)
	for _, name := range []string{"ETag", "Last-Modified", "Imagestore-Modified", "Content-Disposition"} {
		if v := refused.Header.Get(name); v != "" {
			t.Errorf("412: got %s %s, want none", name, v)
		}
	}
	got := testhttp.Request(t, "GET", url, nil, "Range", "bytes=9999999-")
	checkProblem(t, got, 416, "range_not_satisfiable", strconv.Itoa(len(b)))
	if want := fmt.Sprintf("bytes */%d", len(b)); got.Header.Get("Content-Range") != want {
		t.Errorf("got Content-Range %q, want %q", got.Header.Get("Content-Range"), want)
	}

	got = testhttp.Request(t, "GET", url, nil, "Range", "bytes=0-1,5-9")
	_, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if got.StatusCode != 206 || err != nil {
		t.Fatalf("two ranges: got %s, %v, want 206", got.Status, err)
	}
	parts := multipart.NewReader(bytes.NewReader(got.Bytes), params["boundary"])
	for _, want := range [][]byte{b[0:2], b[5:10]} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(p); !bytes.Equal(got, want) {
			t.Errorf("got part %q, want %q", got, want)
		}
	}
}

// TestDownloadName checks the name under which a browser saves an image.
func TestDownloadName(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ mediaType, id, want string }{
		{"image/png", "photo", "photo.png"},
		{"image/png", "photo.png", "photo.png"},
		{"image/png", "photo.PNG", "photo.PNG"},
		{"image/png", "photo.jpg", "photo.jpg.png"},
		{"image/png", "png", "png.png"},
		{"image/png", "photo.png.old", "photo.png.old.png"},
		{"image/jpeg", "photo", "photo.jpg"},
		{"image/jpeg", "photo.jpeg", "photo.jpeg"},
		{"image/jpeg", "photo.JPG", "photo.JPG"},
		{"image/webp", "photo.webp", "photo.webp"},
		{"image/svg+xml", "photo", "photo"},
		{`image/png; a="b"`, "photo", "photo"},
		{"application/octet-stream", "photo.png", "photo.png"},
	} {
		srv := serve(t, imagestore.NewWithDriver(typedDriver{mediaType: test.mediaType}, nil), nil)
		got := testhttp.Request(t, "HEAD", srv.URL+"/images/"+test.id, nil)
		if got, want := got.Header.Get("Content-Disposition"), `inline; filename="`+test.want+`"`; got != want {
			t.Errorf("%s of type %s: got %s, want %s", test.id, test.mediaType, got, want)
		}
	}
}

// A typedDriver has an image of one type under every id.
type typedDriver struct {
	imagestore.Driver
	mediaType string
}

func (d typedDriver) Stat(_ context.Context, id string) (imagestore.Info, error) {
	return imagestore.Info{ID: id, Type: d.mediaType, ETag: `"a"`}, nil
}

// TestPolyglot stores a PNG that browsers could take for a web page.
func TestPolyglot(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(onDisk(t), nil), nil)
	b := testimage.PNG(t, 3, 1)
	page := "Comment\x00<html><script>alert(1)</script>"
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(page)))
	chunk = append(chunk, "tEXt"+page...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
	polyglot := slices.Concat(b[:33], chunk, b[33:])
	put := testhttp.Request(t, "PUT", srv.URL+"/images/page.html", bytes.NewReader(polyglot))
	if put.StatusCode != 201 {
		t.Fatalf("got %s, want 201", put.Bytes)
	}
	got := testhttp.Request(t, "GET", srv.URL+"/images/page.html", nil, "Accept", "text/html")
	if ct := got.Header.Values("Content-Type"); !bytes.Equal(got.Bytes, polyglot) || !slices.Equal(ct, []string{"image/png"}) ||
		got.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(got.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("got header %v, want an inert image/png", got.Header)
	}
}

// TestMiddlewareEncodes has middleware compress images, which changes their
// length.
func TestMiddlewareEncodes(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	b := testimage.PNG(t, 80, 1)
	put(t, s, "a", b)
	h := imagestore.NewHandler(s, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(w)
		defer zw.Close()
		h.ServeHTTP(encoded{w, zw}, r)
	}))
	defer srv.Close()
	for _, header := range []string{"", "bytes=5-"} { // a range of the image is none of the compressed bytes
		if got := testhttp.Request(t, "GET", srv.URL+"/images/a", nil, "Range", header, "Accept-Encoding", "identity", "Want-Repr-Digest", "sha-256=1"); got.StatusCode != 200 || got.Header.Get("Content-Range")+got.Header.Get("Repr-Digest") != "" {
			t.Errorf("Range %q: got %s, header %v, want 200 without a digest of other bytes", header, got.Status, got.Header)
		} else if r, err := gzip.NewReader(bytes.NewReader(got.Bytes)); err != nil {
			t.Errorf("Range %q: got %v, want it compressed", header, err)
		} else if got, err := io.ReadAll(r); !bytes.Equal(got, b) || err != nil {
			t.Errorf("Range %q: got %d bytes, %v, want the image of %d bytes", header, len(got), err, len(b))
		}
	}
}

type encoded struct {
	http.ResponseWriter
	w io.Writer
}

func (e encoded) Write(p []byte) (int, error) { return e.w.Write(p) }

// TestNothingLeftOpen checks that every request closes the files that it opens.
func TestNothingLeftOpen(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", testimage.PNG(t, 300, 1))
	put(t, s, "b", testimage.PNG(t, 3, 1))
	must(t, fsys.MkdirAll("dir/image", 0o777))
	srv := serve(t, s, nil)
	for _, args := range [][]string{
		{"GET", "/images/a"}, {"HEAD", "/images/a"}, {"GET", "/images/a", "If-None-Match", info.ETag}, {"GET", "/images/a", "If-Match", `"x"`},
		{"GET", "/images/a", "Range", "bytes=9999999-"}, {"GET", "/images/a", "Range", "bytes=0-1,7-9"}, {"GET", "/images/dir"},
		{"GET", "/images/a", "Want-Repr-Digest", "sha-256=1"}, {"HEAD", "/images/a", "Want-Repr-Digest", "sha-256=1"},
		{"GET", "/images"}, {"GET", "/images?limit=1"}, {"DELETE", "/images/b"},
	} {
		testhttp.Request(t, args[0], srv.URL+args[1], nil, args[2:]...)
	}
	must(t, s.Verify(t.Context(), "a"))
	for range s.List(t.Context(), imagestore.ListOptions{}) {
		break
	}
	_, err := s.Sweep(t.Context(), 0)
	must(t, err)
	srv.Close()
	if open := fsys.OpenFiles(); len(open) > 0 {
		t.Errorf("got open files %v, want none", open)
	}
}

// TestRangesHangUp disconnects clients while they receive several ranges of a cached
// image, which another goroutine reads.
func TestRangesHangUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := imagestore.OpenDir(dir, nil)
	must(t, err)
	put(t, s, "a", testimage.PNG(t, 200, 1))
	age(t, filepath.Join(dir, "a", "image"))
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	for range 200 {
		r := httptest.NewRequest("GET", "/images/a", nil)
		r.Header.Set("Range", "bytes=0-2000,3000-5000,6000-8000")
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("got panic %v, want http.ErrAbortHandler", p)
				}
			}()
			h.ServeHTTP(hangUp{httptest.NewRecorder()}, r)
		}()
	}
}

// A hangUp is a client that receives nothing.
type hangUp struct{ http.ResponseWriter }

func (hangUp) Write([]byte) (int, error) { return 0, syscall.EPIPE }
