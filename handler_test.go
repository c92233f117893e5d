package imagestore_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/faultfs"
	"github.com/spf13/afero"
)

// part is one part of a multipart form.
type part struct {
	header textproto.MIMEHeader
	body   string
}

func field(name, body string) part {
	return part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"`}}, body}
}

func file(name string, body []byte) part {
	return part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + name + `"; filename="x.png"`}, "Content-Type": {"image/png"}}, string(body)}
}

// form returns a multipart body and its Content-Type.
func form(tb testing.TB, parts ...part) (body, contentType string) {
	tb.Helper()
	var b strings.Builder
	w := multipart.NewWriter(&b)
	for _, p := range parts {
		pw, err := w.CreatePart(p.header)
		if err != nil {
			tb.Fatal(err)
		}
		io.WriteString(pw, p.body)
	}
	w.Close()
	return b.String(), w.FormDataContentType()
}

// TestEveryError has each row of the error table happen over HTTP: the status,
// the code, the form of the answer, and what a Client makes of it.
func TestEveryError(t *testing.T) {
	good := noise(t, 300, 1)
	store := func(t *testing.T, fsys afero.Fs) images { return imagestore.New(fsys, nil) }
	readOnly := func(t *testing.T) afero.Fs {
		fsys := onDisk(t)
		put(t, store(t, fsys), "a", good)
		return afero.NewReadOnlyFs(fsys)
	}
	failing := func(ops string, err error) func(t *testing.T) afero.Fs {
		return func(t *testing.T) afero.Fs {
			fsys := faultfs.New(onDisk(t))
			fsys.FailIf(func(o faultfs.Op) error {
				if slices.Contains(strings.Fields(ops), o.Name) {
					return err
				}
				return nil
			})
			return fsys
		}
	}
	replace := func(t *testing.T, c images) error {
		_, err := c.Put(t.Context(), "a", bytes.NewReader(good))
		return err
	}
	limits := &imagestore.Options{MaxBytes: 50_000, MaxPixels: 10_000}
	for _, test := range []struct {
		name   string
		fs     func(*testing.T) afero.Fs
		opts   *imagestore.Options
		method string
		path   string
		header []string
		body   []byte
		status int
		code   string
		text   string // that the detail must have
		kind   error
		client func(t *testing.T, c images) error // the same through a Client
	}{
		{name: "bad id", method: "GET", path: "/images/.staging", status: 400, code: "invalid_id", text: "an id is 1 to 128 characters"},
		{name: "bad escape", method: "GET", path: "/images/%2e%2e", status: 400, code: "invalid_id"},
		{name: "empty id", method: "GET", path: "/images/", status: 400, code: "invalid_id", text: "empty"},
		{name: "bad limit", method: "GET", path: "/images?limit=0", status: 400, code: "bad_request", text: "1 to 1000"},
		{name: "bad after", method: "GET", path: "/images?after=..", status: 400, code: "bad_request", text: "after"},
		{name: "bad query", method: "GET", path: "/images?limit=%zz", status: 400, code: "bad_request", text: "query"},
		{name: "bad If-Match", method: "PUT", path: "/images/a", header: []string{"If-Match", "abc"}, body: good, status: 400, code: "bad_request", text: "double quotes",
			kind: imagestore.ErrBadRequest, client: func(t *testing.T, c images) error { return c.Delete(t.Context(), "a", imagestore.IfMatch("abc")) }, fs: func(t *testing.T) afero.Fs {
				fsys := onDisk(t)
				put(t, store(t, fsys), "a", good)
				return fsys
			}},
		{name: "If-Unmodified-Since", method: "PUT", path: "/images/a", header: []string{"If-Unmodified-Since", "Mon, 23 Nov 2026 00:00:00 GMT"}, body: good, status: 400, code: "bad_request", text: "If-Match"},
		{name: "Content-Range", method: "PUT", path: "/images/a", header: []string{"Content-Range", "bytes 0-9/10"}, body: good, status: 400, code: "bad_request", text: "in pieces"},
		{name: "no boundary", method: "POST", path: "/images/a", header: []string{"Content-Type", "multipart/form-data"}, body: good, status: 400, code: "bad_request", text: "boundary"},
		{name: "read-only", fs: readOnly, method: "PUT", path: "/images/a", body: good, status: 403, code: "read_only", kind: imagestore.ErrReadOnly, client: replace},
		{name: "delete read-only", fs: readOnly, method: "DELETE", path: "/images/a", status: 403, code: "read_only", kind: imagestore.ErrReadOnly,
			client: func(t *testing.T, c images) error { return c.Delete(t.Context(), "a") }},
		{name: "no such image", method: "GET", path: "/images/none", status: 404, code: "not_found", kind: imagestore.ErrNotFound,
			client: func(t *testing.T, c images) error { _, err := c.Stat(t.Context(), "none"); return err }},
		{name: "no such path", method: "GET", path: "/", status: 404, code: "unknown_path", text: "/images/{id}"},
		{name: "method", method: "PATCH", path: "/images/a", status: 405, code: "method_not_allowed", text: "DELETE, GET"},
		{name: "method on the list", method: "DELETE", path: "/images", status: 405, code: "method_not_allowed", text: "GET, HEAD"},
		{name: "precondition", method: "PUT", path: "/images/a", header: []string{"If-Match", `"x"`}, body: good, status: 412, code: "precondition_failed", text: "no image",
			kind: imagestore.ErrPrecondition, client: func(t *testing.T, c images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(good), imagestore.IfMatch(`"x"`))
				return err
			}},
		{name: "bytes, declared", opts: limits, method: "PUT", path: "/images/a", body: good, status: 413, code: "too_large", text: "50000 bytes", kind: imagestore.ErrTooLarge, client: replace},
		{name: "pixels", opts: limits, method: "PUT", path: "/images/a", body: noise(t, 101, 1), status: 413, code: "too_large", text: "10000",
			kind: imagestore.ErrTooLarge, client: func(t *testing.T, c images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(noise(t, 101, 1)))
				return err
			}},
		{name: "not a PNG", method: "PUT", path: "/images/a", body: []byte("GIF89a and so on"), status: 415, code: "not_png", text: "GIF",
			kind: imagestore.ErrNotPNG, client: func(t *testing.T, c images) error {
				_, err := c.Put(t.Context(), "a", strings.NewReader("GIF89a and so on"))
				return err
			}},
		{name: "wrong type", method: "PUT", path: "/images/a", header: []string{"Content-Type", "text/html"}, body: good, status: 415, code: "not_png", text: "multipart/form-data"},
		{name: "broken PNG", method: "PUT", path: "/images/a", body: good[:len(good)-1], status: 422, code: "broken_png", text: fmt.Sprintf("byte %d", len(good)-1),
			kind: imagestore.ErrBroken, client: func(t *testing.T, c images) error {
				_, err := c.Put(t.Context(), "a", bytes.NewReader(good[:len(good)-1]))
				return err
			}},
		{name: "disk full", fs: failing("file.write", syscall.ENOSPC), method: "PUT", path: "/images/a", body: good, status: 507, code: "no_space", kind: imagestore.ErrNoSpace, client: replace},
		{name: "over quota", fs: failing("file.sync", syscall.EDQUOT), method: "PUT", path: "/images/a", body: good, status: 507, code: "no_space", kind: imagestore.ErrNoSpace, client: replace},
		{name: "disk broken", fs: failing("rename", syscall.EIO), method: "PUT", path: "/images/a", body: good, status: 500, code: "internal", kind: imagestore.ErrInternal, client: replace},
		{name: "disk unreadable", fs: failing("open stat", syscall.EIO), method: "GET", path: "/images/a", status: 500, code: "internal",
			kind: imagestore.ErrInternal, client: func(t *testing.T, c images) error { _, err := c.Get(t.Context(), "a"); return err }},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := onDisk(t)
			if test.fs != nil {
				fsys = test.fs(t)
			}
			var log bytes.Buffer
			srv := serve(t, imagestore.New(fsys, test.opts), &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			got := request(t, test.method, srv.URL+test.path, bytes.NewReader(test.body), test.header...)
			checkProblem(t, got, test.status, test.code, test.text)
			if logged := log.Len() > 0; logged != (test.status >= 500) {
				t.Errorf("an answer of %d left in the log: %q", test.status, log.String())
			}
			if test.code == "internal" && !strings.Contains(log.String(), "input/output error") {
				t.Errorf("the log does not have the cause: %q", log.String())
			}
			if test.method == "GET" {
				head := request(t, "HEAD", srv.URL+test.path, nil, test.header...)
				if head.StatusCode != test.status || head.code() != test.code || len(head.body) > 0 {
					t.Errorf("HEAD is answered with %s, code %q and %d bytes", head.Status, head.code(), len(head.body))
				}
			}
			if test.client != nil {
				err := test.client(t, newClient(t, srv.URL))
				if !errors.Is(err, test.kind) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("a Client returns %v, not %v", err, test.kind)
				}
			}
		})
	}
}

func checkProblem(t *testing.T, got answer, status int, code, text string) {
	t.Helper()
	if got.StatusCode != status || got.code() != code {
		t.Errorf("the answer is %s with the code %q and the body %q, not %d with the code %q", got.Status, got.code(), got.body, status, code)
	}
	if ct := got.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("its Content-Type is %q", ct)
	}
	var p struct {
		Title, Detail, Code string
		Status              int
	}
	if err := json.Unmarshal(got.body, &p); err != nil || p.Title != http.StatusText(status) || p.Status != status || p.Code != code || !strings.Contains(p.Detail, text) {
		t.Errorf("its body is %s, %v; the detail should have %q", got.body, err, text)
	}
	if strings.Contains(string(got.body), os.TempDir()) || strings.Contains(string(got.body), "image.png") {
		t.Errorf("it names a path: %s", got.body)
	}
	if got.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Error("it may be sniffed")
	}
}

func TestBusy(t *testing.T) {
	var log syncBuffer
	srv := serve(t, imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{MaxUploads: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	good := noise(t, 10, 1)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /images/slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(good))
	r := bufio.NewReader(conn)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} { // so it has its place
		if line, err := r.ReadString('\n'); line != want {
			t.Fatalf("the upload is answered with %q, %v", line, err)
		}
	}
	got := request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(good))
	checkProblem(t, got, 503, "busy", "1")
	if got.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	_, err = newClient(t, srv.URL).Put(t.Context(), "a", bytes.NewReader(good))
	wantError(t, err, imagestore.ErrBusy, "put", "a")
	if got := request(t, "GET", srv.URL+"/images/none", nil); got.StatusCode != 404 {
		t.Errorf("meanwhile a read is answered with %s", got.Status)
	}
	conn.Write(good)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 201 {
		t.Errorf("the upload under way is answered with %v, %v", resp, err)
	}
	// The answer may be there before the place is free.
	for request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(good)).StatusCode == 503 {
	}
	if log.String() != "" {
		t.Errorf("it is logged as an error: %s", log.String())
	}
}

func TestGet(t *testing.T) {
	s := imagestore.New(onDisk(t), nil)
	srv := serve(t, s, nil)
	b := noise(t, 300, 1)
	info := put(t, s, "TestPost", b)
	modified := info.ModTime.Format(http.TimeFormat)
	url := srv.URL + "/images/TestPost"

	for _, method := range []string{"GET", "HEAD"} {
		got := request(t, method, url, nil)
		for name, want := range map[string]string{
			"Content-Type":            "image/png",
			"Content-Length":          strconv.Itoa(len(b)),
			"ETag":                    info.ETag,
			"Last-Modified":           modified,
			"Accept-Ranges":           "bytes",
			"Cache-Control":           "no-cache",
			"X-Content-Type-Options":  "nosniff",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
			"Content-Disposition":     `inline; filename="TestPost.png"`,
		} {
			if got := got.Header.Get(name); got != want {
				t.Errorf("%s: the header %s is %q, not %q", method, name, got, want)
			}
		}
		want := b
		if method == "HEAD" {
			want = nil
		}
		if got.StatusCode != 200 || !bytes.Equal(got.body, want) {
			t.Errorf("%s is answered with %s and %d bytes", method, got.Status, len(got.body))
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
		{"If-Modified-Since before", []string{"If-Modified-Since", info.ModTime.Add(-time.Second).Format(http.TimeFormat)}, 200, b},
		{"a range", []string{"Range", "bytes=0-99"}, 206, b[:100]},
		{"the end", []string{"Range", "bytes=-5"}, 206, b[len(b)-5:]},
		{"several lines", []string{"If-None-Match", `"x"`, "If-None-Match", info.ETag}, 304, nil},
		{"several lines of If-Match", []string{"If-Match", `"x"`, "If-Match", info.ETag}, 200, b},
		{"a range of this version", []string{"Range", "bytes=10-", "If-Range", info.ETag}, 206, b[10:]},
		{"a range of another version", []string{"Range", "bytes=10-", "If-Range", `"x"`}, 200, b},
		{"If-Match", []string{"If-Match", info.ETag}, 200, b},
	} {
		got := request(t, "GET", url, nil, test.header...)
		if got.StatusCode != test.status || !bytes.Equal(got.body, test.body) {
			t.Errorf("%s: the answer is %s with %d bytes, not %d with %d", test.name, got.Status, len(got.body), test.status, len(test.body))
		}
		if got.Header.Get("ETag") != info.ETag {
			t.Errorf("%s: the ETag is %q", test.name, got.Header.Get("ETag"))
		}
	}

	for _, ranges := range []string{"bytes=0-9", "bytes=9999999-"} {
		if got := request(t, "HEAD", url, nil, "Range", ranges); got.StatusCode != 200 || got.ContentLength != info.Size {
			t.Errorf("HEAD of a range is answered with %s, length %d", got.Status, got.ContentLength)
		}
	}
	refused := request(t, "GET", url, nil, "If-Match", `"x"`)
	checkProblem(t, refused, 412, "precondition_failed", info.ETag)
	for _, name := range []string{"ETag", "Last-Modified", "Content-Disposition"} {
		if v := refused.Header.Get(name); v != "" {
			t.Errorf("a refusal has the image's %s: %s", name, v)
		}
	}
	got := request(t, "GET", url, nil, "Range", "bytes=9999999-")
	checkProblem(t, got, 416, "range_not_satisfiable", strconv.Itoa(len(b)))
	if want := fmt.Sprintf("bytes */%d", len(b)); got.Header.Get("Content-Range") != want {
		t.Errorf("the Content-Range is %q, not %q", got.Header.Get("Content-Range"), want)
	}

	got = request(t, "GET", url, nil, "Range", "bytes=0-1,5-9")
	_, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if got.StatusCode != 206 || err != nil {
		t.Fatalf("two ranges are answered with %s, %v", got.Status, err)
	}
	parts := multipart.NewReader(bytes.NewReader(got.body), params["boundary"])
	for _, want := range [][]byte{b[0:2], b[5:10]} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(p); !bytes.Equal(got, want) {
			t.Errorf("a part is %q, not %q", got, want)
		}
	}
}

// TestMounted checks what depends on the path that a handler is mounted at.
func TestMounted(t *testing.T) {
	for _, prefix := range []string{"", "/api/v1", "/caf%C3%A9"} {
		h := imagestore.NewHandler(imagestore.New(afero.NewMemMapFs(), nil), &imagestore.HandlerOptions{Logger: quiet})
		if prefix != "" {
			h = http.StripPrefix(strings.ReplaceAll(prefix, "%C3%A9", "é"), h)
		}
		srv := httptest.NewServer(h)
		defer srv.Close()
		b := noise(t, 3, 1)
		got := request(t, "POST", srv.URL+prefix+"/images/TestPost", bytes.NewReader(b))
		if loc := got.Header.Get("Location"); got.StatusCode != 201 || loc != prefix+"/images/TestPost" {
			t.Errorf("at %q: %s, Location %q", prefix, got.Status, loc)
		}
		got = request(t, "POST", srv.URL+prefix+"/images", bytes.NewReader(b), "If-None-Match", "*")
		var info imagestore.Info
		if err := json.Unmarshal(got.body, &info); err != nil || imagestore.CheckID(info.ID) != nil {
			t.Errorf("POST /images answers %s, %v", got.body, err)
		}
		if loc := got.Header.Get("Location"); got.StatusCode != 201 || loc != prefix+"/images/"+info.ID || got.Header.Get("ETag") != info.ETag {
			t.Errorf("at %q: %s, Location %q, ETag %s for %+v", prefix, got.Status, loc, got.Header.Get("ETag"), info)
		}
		if got := request(t, "GET", srv.URL+got.Header.Get("Location"), nil); !bytes.Equal(got.body, b) {
			t.Errorf("at %q: what is at the Location is not what was posted: %s", prefix, got.Status)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	srv := serve(t, imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil), nil)
	url := srv.URL + "/images/TestPost"
	v1, v2 := noise(t, 3, 1), noise(t, 3, 2)
	body, contentType := form(t, file("file", v1))
	created := request(t, "POST", url, strings.NewReader(body), "Content-Type", contentType)
	if created.StatusCode != 201 || created.Header.Get("Content-Type") != "application/json" {
		t.Errorf("a first upload is answered with %s", created.Status)
	}
	etag := created.Header.Get("ETag")
	for _, test := range []struct {
		name   string
		method string
		header []string
		status int
	}{
		{"create only", "PUT", []string{"If-None-Match", "*"}, 412},
		{"create only, twice said", "PUT", []string{"If-None-Match", "*", "If-None-Match", etag}, 400},
		{"not this version", "PUT", []string{"If-None-Match", etag}, 412},
		{"replace another version", "PUT", []string{"If-Match", `"x"`}, 412},
		{"delete another version", "DELETE", []string{"If-Match", `"x"`}, 412},
		{"replace this version", "PUT", []string{"If-Match", etag, "If-Match", `"x"`}, 200},
		{"replace an old version", "POST", []string{"If-Match", etag}, 412},
		{"as octets", "POST", []string{"Content-Type", "application/octet-stream"}, 200},
		{"as a PNG", "PUT", []string{"Content-Type", "image/png; charset=x"}, 200},
		{"delete", "DELETE", []string{"If-Match", "*"}, 204},
		{"delete again", "DELETE", nil, 404},
		{"create", "PUT", []string{"If-None-Match", "*"}, 201},
	} {
		if got := request(t, test.method, url, bytes.NewReader(v2), test.header...); got.StatusCode != test.status {
			t.Errorf("%s: %s %s", test.name, got.Status, got.body)
		}
		if test.status == 204 {
			if _, err := os.Stat(dir + "/TestPost"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after DELETE the directory is still there: %v", err)
			}
		}
	}
	got := request(t, "OPTIONS", url, nil)
	if got.StatusCode != 204 || got.Header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS, POST, PUT" || got.Header.Get("Imagestore-Max-Bytes") != strconv.Itoa(imagestore.DefaultMaxBytes) ||
		got.Header.Get("Imagestore-Max-Pixels") != strconv.Itoa(imagestore.DefaultMaxPixels) || !strings.Contains(got.Header.Get("Accept-Post"), "image/png") {
		t.Errorf("OPTIONS is answered with %s and %v", got.Status, got.Header)
	}
}

func TestList(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	if got := request(t, "GET", srv.URL+"/images", nil); string(got.body) != "{\"images\":[]}\n" {
		t.Errorf("the empty list is %s", got.body)
	}
	b := noise(t, 1, 1)
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("id%02d", i))
		put(t, s, ids[i], b)
		// What is not an image is not listed and does not make a page short.
		if err := fsys.MkdirAll(fmt.Sprintf("id%02d-empty", i), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := afero.WriteFile(fsys, "id00-file", b, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 4, 5, 24, 25, 26, 1000} {
		var got []string
		for after := ""; ; {
			var page struct {
				Images []imagestore.Info
				Next   string
			}
			a := request(t, "GET", fmt.Sprintf("%s/images?limit=%d&after=%s", srv.URL, limit, after), nil)
			if err := json.Unmarshal(a.body, &page); err != nil {
				t.Fatal(err)
			}
			for _, info := range page.Images {
				got = append(got, info.ID)
			}
			if page.Next == "" {
				break
			}
			if len(page.Images) != limit || page.Next != got[len(got)-1] {
				t.Errorf("limit %d: a page has %d images and goes on after %q", limit, len(page.Images), page.Next)
			}
			after = page.Next
		}
		if !slices.Equal(got, ids) {
			t.Errorf("limit %d: the pages have %v", limit, got)
		}
	}
}

// TestMultipart sends forms that are not as they should be.
func TestMultipart(t *testing.T) {
	good := noise(t, 10, 1)
	exact := noise(t, 314, 1)
	maxBytes := len(exact)
	rawForm := func(s string) (string, string) { return s, "multipart/form-data; boundary=b" }
	nested, nestedType := form(t, file("file", good))
	many := make([]part, 500)
	for i := range many {
		many[i] = field(fmt.Sprint("f", i), "")
	}
	disposition := func(s string) part {
		return part{textproto.MIMEHeader{"Content-Disposition": {s}}, string(good)}
	}
	for _, test := range []struct {
		name   string
		form   func() (body, contentType string)
		status int
		text   string
	}{
		{"only the file", func() (string, string) { return form(t, file("file", good)) }, 201, ""},
		{"fields around it", func() (string, string) { return form(t, field("a", "1"), file("file", good), field("b", "2")) }, 201, ""},
		{"no file name", func() (string, string) { return form(t, field("file", string(good))) }, 201, ""},
		{"a file name with a path", func() (string, string) {
			return form(t, disposition(`form-data; name="file"; filename="../../etc/passwd"`))
		}, 201, ""},
		{"a file name like no other", func() (string, string) {
			return form(t, disposition(`form-data; name=file; filename*=UTF-8''..%2f%00.png`))
		}, 201, ""},
		{"an epilogue", func() (string, string) { b, ct := form(t, file("file", good)); return b + "and more", ct }, 201, ""},
		{"an image of just the size allowed", func() (string, string) { return form(t, file("file", exact)) }, 201, ""},
		{"the name in the file name", func() (string, string) { return form(t, disposition(`form-data; name="x"; filename="file"`)) }, 400, `"x"`},
		{"another case", func() (string, string) { return form(t, file("File", good)) }, 400, `"File"`},
		{"no parts", func() (string, string) { return form(t) }, 400, "empty"},
		{"no part of that name", func() (string, string) { return form(t, field("a", "1"), file("image", good)) }, 400, `these came: "a", "image"`},
		{"no disposition", func() (string, string) { return form(t, part{textproto.MIMEHeader{}, string(good)}) }, 400, `no part named "file"`},
		{"two files", func() (string, string) { return form(t, file("file", good), file("file", good)) }, 400, "more than one"},
		{"too many parts", func() (string, string) { return form(t, append(many, file("file", good))...) }, 413, "beside the image"},
		{"too much after it", func() (string, string) {
			return form(t, file("file", good), field("a", strings.Repeat("x", maxBytes+40_000)))
		}, 413, ""},
		{"a giant header", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "X": {strings.Repeat("x", 60_000)}}, string(good)})
		}, 413, "beside the image"},
		{"a file that is too large", func() (string, string) { return form(t, file("file", noise(t, 400, 1))) }, 413, fmt.Sprint(maxBytes, " bytes")},
		{"nested", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "Content-Type": {nestedType}}, nested})
		}, 415, "not a PNG"},
		{"another boundary", func() (string, string) { b, _ := form(t, file("file", good)); return rawForm(b) }, 400, "multipart"},
		{"not a form at all", func() (string, string) { return rawForm(string(good)) }, 400, "multipart"},
		{"nothing", func() (string, string) { return rawForm("") }, 400, "multipart"},
		{"no end", func() (string, string) {
			b, ct := form(t, file("file", good))
			return b[:len(b)-4], ct
		}, 400, "multipart"},
		{"a part without end", func() (string, string) {
			b, ct := form(t, file("file", good))
			return b[:len(b)-100], ct
		}, 400, "multipart"},
		{"bad header", func() (string, string) { return rawForm("--b\r\n: no name\r\n\r\nx\r\n--b--\r\n") }, 400, "multipart"},
		{"base64", func() (string, string) {
			return form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"`}, "Content-Transfer-Encoding": {"base64"}}, "iVBORw0KGgo="})
		}, 415, "not a PNG"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := onDisk(t)
			srv := serve(t, imagestore.New(fsys, &imagestore.Options{MaxBytes: int64(maxBytes)}), nil)
			body, contentType := test.form()
			for _, chunked := range []bool{false, true} {
				var r io.Reader = strings.NewReader(body)
				if chunked {
					r = io.MultiReader(r) // hides the length
				}
				got := request(t, "POST", srv.URL+"/images/a", r, "Content-Type", contentType)
				if test.status < 300 {
					if got.StatusCode != 201 && got.StatusCode != 200 {
						t.Errorf("chunked %v: %s %s", chunked, got.Status, got.body)
					}
					if got := request(t, "GET", srv.URL+"/images/a", nil); !bytes.Equal(got.body, good) && !bytes.Equal(got.body, exact) {
						t.Errorf("chunked %v: what is stored is not the image", chunked)
					}
					continue
				}
				code := map[int]string{400: "bad_request", 413: "too_large", 415: "not_png"}[test.status]
				checkProblem(t, got, test.status, code, test.text)
				if left := files(t, fsys); len(left) > 0 && !slices.Equal(left, []string{".staging"}) {
					t.Errorf("chunked %v: it leaves %v", chunked, left)
				}
			}
		})
	}
}

// TestCutOff has clients go away after every so many bytes of an upload.
func TestCutOff(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	old, b := noise(t, 20, 1), noise(t, 300, 2)
	info := put(t, s, "a", old)
	body, contentType := form(t, file("file", b))
	for _, kind := range []struct {
		name string
		body string
		head string
	}{
		{"raw", string(b), fmt.Sprintf("PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(b))},
		{"form", body, fmt.Sprintf("POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body))},
		{"form and epilogue", body + strings.Repeat("x", 100), fmt.Sprintf("POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", contentType, len(body)+100)},
		{"chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(b), b), "PUT /images/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"},
		{"chunked form", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body), "POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Type: " + contentType + "\r\nTransfer-Encoding: chunked\r\n\r\n"},
	} {
		cuts := []int{0, 1, 50, 200, 1000, 65_535, 65_536, 65_537, len(kind.body) - 60, len(kind.body) - 13, len(kind.body) - 2, len(kind.body) - 1}
		for _, n := range cuts {
			status := rawStatus(t, srv, kind.head+kind.body[:n])
			if status != 400 && status != 0 {
				t.Errorf("%s, cut off after %d of %d bytes: %d", kind.name, n, len(kind.body), status)
			}
		}
		if got, b := get(t, s, "a"); got != info || !bytes.Equal(b, old) {
			t.Fatalf("%s: the old image is gone", kind.name)
		}
		if left := files(t, fsys); !slices.Equal(left, []string{".staging", "a", "a/image.png"}) {
			t.Fatalf("%s: what is left is %v", kind.name, left)
		}
	}
}

// rawStatus sends bytes as they are, closes its side and returns the status
// that comes back, 0 if none does.
func rawStatus(t *testing.T, srv *httptest.Server, send string) int {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() { // the server may stop reading at any time
		io.WriteString(conn, send)
		conn.(*net.TCPConn).CloseWrite()
	}()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && strings.Contains(string(b), os.TempDir()) {
		t.Errorf("the answer names a path: %s", b)
	}
	return resp.StatusCode
}

// TestLyingLength has bodies that are not as long as they say, or never end.
func TestLyingLength(t *testing.T) {
	fsys := onDisk(t)
	srv := serve(t, imagestore.New(fsys, &imagestore.Options{MaxBytes: 1 << 20}), nil)
	b := string(noise(t, 10, 1))
	endless := b[:41] + strings.Repeat("x", 4<<20) // an IDAT chunk that goes on and on
	endless = endless[:33] + "\x7f\xff\xff\xffIDAT" + endless[41:]
	body, contentType := form(t, file("file", []byte(endless)))
	for _, test := range []struct {
		name   string
		send   string
		status int
	}{
		{"too short", fmt.Sprintf("PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b)-7, b), 422},
		{"too long", fmt.Sprintf("PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b)+7, b), 400},
		{"two lengths", fmt.Sprintf("PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Length: 3\r\n\r\n%s", len(b), b), 400},
		{"negative", "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n" + b, 400},
		{"over the limit", "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413},
		{"far over the limit", "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n", 413},
		{"chunked, without end", fmt.Sprintf("PUT /images/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", len(endless), endless), 413},
		{"chunked form, without end", fmt.Sprintf("POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s", contentType, len(body), body), 413},
		{"chunked, badly", "PUT /images/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + b, 400},
	} {
		if status := rawStatus(t, srv, test.send); status != test.status {
			t.Errorf("%s: the answer is %d, not %d", test.name, status, test.status)
		}
	}
	// Not by rawStatus: to net/http, who closes a side when there is no body to
	// wait for has hung up, and the answer is then 400 or this one.
	if a := request(t, http.MethodPut, srv.URL+"/images/a", nil); a.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("nothing: the answer is %d", a.StatusCode)
	}
	if left := files(t, fsys); len(left) > 1 {
		t.Errorf("what is left is %v", left)
	}
}

// TestPolyglot stores a PNG that is a web page as well.
func TestPolyglot(t *testing.T) {
	srv := serve(t, imagestore.New(onDisk(t), nil), nil)
	b := noise(t, 3, 1)
	page := "Comment\x00<html><script>alert(1)</script>"
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(page)))
	chunk = append(chunk, "tEXt"+page...)
	chunk = binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
	polyglot := slices.Concat(b[:33], chunk, b[33:])
	put := request(t, "PUT", srv.URL+"/images/page.html", bytes.NewReader(polyglot))
	if put.StatusCode != 201 {
		t.Fatalf("it is not even a PNG: %s", put.body)
	}
	got := request(t, "GET", srv.URL+"/images/page.html", nil, "Accept", "text/html")
	if ct := got.Header.Values("Content-Type"); !bytes.Equal(got.body, polyglot) || !slices.Equal(ct, []string{"image/png"}) ||
		got.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(got.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("it is served with %v", got.Header)
	}
}

// TestPaths tries to get out of the store, past clients that clean paths.
func TestPaths(t *testing.T) {
	outside := t.TempDir()
	root := outside + "/root"
	secret := noise(t, 5, 1)
	for _, dir := range []string{outside + "/secret", root + "/.staging"} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/image.png", secret, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	srv := serve(t, imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), root), nil), nil)
	before := files(t, afero.NewBasePathFs(afero.NewOsFs(), outside))
	for _, id := range []string{
		"..", "../secret", "../../etc", "%2e%2e", "%2e%2e/secret", "..%2fsecret", "%2e%2e%2fsecret", "..%5csecret", `..\secret`,
		"%252e%252e%252fsecret", "..%c0%afsecret", "%c0%ae%c0%ae%c0%afsecret", "%e0%80%ae%e0%80%aesecret", "..%00", "a%00", "a%00/../../secret",
		".staging", "%2estaging", ".staging/image.png", "STAGIN~1", "a/../../secret", "./secret", "//secret", "/secret", "a/image.png", "a%2fimage.png",
		"con", "NUL", "nul.png", "com1", "LPT9.x", "aux.", "a.", "a:b", "a::$DATA", "a%3ab", "a%20", "%20a", "-a", "~a", "a*", "a?b/c", "%", "%zz", "%2",
		strings.Repeat("a", 129), strings.Repeat("a", 5000), strings.Repeat("../", 100) + "etc/passwd", "", "a;b", "a%0d%0aX:y", "caf%c3%a9",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			head := fmt.Sprintf("%s /images/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", method, id, len(secret))
			status := rawStatus(t, srv, head+string(secret))
			if id == "a?b/c" { // the id is a
				continue
			}
			if status != 400 {
				t.Errorf("%s of %.60q is answered with %d", method, id, status)
			}
		}
	}
	after := files(t, afero.NewBasePathFs(afero.NewOsFs(), outside))
	if !slices.Equal(before, after) {
		t.Errorf("before there was %v, now there is %v", before, after)
	}
	for _, target := range []string{"*", "x:y", "http://x/images/..", "//images/a", "/images/../images/a", "/healthz/../images/.."} {
		if status := rawStatus(t, srv, "GET "+target+" HTTP/1.1\r\nHost: x\r\n\r\n"); status != 400 && status != 404 {
			t.Errorf("GET %s is answered with %d", target, status)
		}
	}
}

// TestExpectContinue checks that a client that asks first is told before it
// sends anything.
func TestExpectContinue(t *testing.T) {
	s := imagestore.New(onDisk(t), nil)
	put(t, s, "a", noise(t, 3, 1))
	srv := serve(t, s, nil)
	for _, head := range []string{
		"PUT /images/.x HTTP/1.1\r\nContent-Length: 100\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 99999999999\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: text/plain\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 100\r\nIf-None-Match: *\r\n",
		"POST /images/a HTTP/1.1\r\nContent-Length: 100\r\nIf-Match: \"x\"\r\nContent-Type: multipart/form-data; boundary=x\r\n",
	} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, head+"Host: x\r\nExpect: 100-continue\r\n\r\n")
		// The client keeps the connection open and silent until it is answered.
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode < 400 {
			t.Errorf("%q is answered with %v, %v", head, resp, err)
		}
	}
}

// TestRefusedButRead has a client send all of a large upload before it listens.
func TestRefusedButRead(t *testing.T) {
	srv := serve(t, imagestore.New(onDisk(t), nil), nil)
	jpeg := append([]byte("\xff\xd8\xff\xe0"), make([]byte, 20<<20)...)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(jpeg))
	if _, err := conn.Write(jpeg); err != nil {
		t.Fatalf("the upload breaks: %v", err)
	}
	r := bufio.NewReader(conn)
	for range 2 { // and the connection is still good
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 415 && resp.StatusCode != 404 {
			t.Fatalf("the answer is %v, %v", resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		fmt.Fprintf(conn, "GET /images/a HTTP/1.1\r\nHost: x\r\n\r\n")
	}
}

// TestStalled has clients that stand still, of whom the server must rid itself.
func TestStalled(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, &imagestore.Options{MaxBytes: 1 << 40})
	srv := serve(t, s, &imagestore.HandlerOptions{Timeout: 50 * time.Millisecond})
	b := noise(t, 300, 1)
	for _, n := range []int{0, 1, 70_000} { // before, in and after the first piece
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b), b[:n])
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 408 || resp.Header.Get("Imagestore-Error") != "too_slow" {
			t.Errorf("an upload that stops after %d bytes is answered with %v, %v", n, resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("the connection is not closed: %v", err)
		}
	}
	if left := files(t, fsys); !slices.Equal(left, []string{".staging"}) {
		t.Errorf("what is left is %v", left)
	}

	// A body that nobody asked for.
	for _, method := range []string{"GET", "DELETE", "PATCH"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n", method)
		if _, err := io.Copy(io.Discard, conn); err != nil { // ends when the server closes
			t.Errorf("%s: %v", method, err)
		}
	}

	// A download that nobody takes, larger than all buffers on the way.
	big := append(bytes.Clone(b[:8]), make([]byte, 64<<20)...)
	if err := afero.WriteFile(fsys, "big/image.png", big, 0o666); err == nil {
		t.Fatal("WriteFile made a directory")
	}
	fsys.Mkdir("big", 0o777)
	if err := afero.WriteFile(fsys, "big/image.png", big, 0o666); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: 50 * time.Millisecond, Logger: quiet})
	watched := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		h.ServeHTTP(w, r)
	}))
	defer watched.Close()
	conn, err := net.Dial("tcp", watched.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /images/big HTTP/1.1\r\nHost: x\r\n\r\n")
	<-done // or the test does not end
}

// TestReadErrorBreaksConnection has the disk fail in the middle of a download.
func TestReadErrorBreaksConnection(t *testing.T) {
	b := noise(t, 600, 1)
	for _, test := range []struct {
		name  string
		fail  func(base afero.Fs) error // at the third read
		cause string
	}{
		{"read error", func(afero.Fs) error { return syscall.EIO }, "input/output error"},
		{"file cut short", func(base afero.Fs) error {
			f, err := base.OpenFile("a/image.png", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Truncate(100)
		}, "unexpected EOF"},
	} {
		for _, header := range []string{"", "bytes=5-", "bytes=0-9,50-300000"} {
			t.Run(test.name+" "+header, func(t *testing.T) {
				base := onDisk(t)
				fsys := faultfs.New(base)
				s := imagestore.New(fsys, nil)
				put(t, s, "a", b)
				var log syncBuffer
				srv := serve(t, s, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				n := 0
				fsys.FailIf(func(op faultfs.Op) error {
					if op.Name == "file.read" {
						if n++; n >= 3 {
							return test.fail(base)
						}
					}
					return nil
				})
				req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/images/a", nil)
				must(t, err)
				if header != "" {
					req.Header.Set("Range", header)
				}
				resp, err := http.DefaultClient.Do(req)
				if err == nil { // broken off early is fine too
					defer resp.Body.Close()
					if _, err := io.ReadAll(resp.Body); err == nil {
						t.Error("the response ends as if all were well")
					}
				}
				srv.Close() // waits for the handler
				if !strings.Contains(log.String(), test.cause) || strings.Count(log.String(), "level=ERROR") != 1 {
					t.Errorf("the log says %q", log.String())
				}
			})
		}
	}
}

// TestSeekError has the disk fail before the answer has begun.
func TestSeekError(t *testing.T) {
	fsys := faultfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 3, 1))
	var log syncBuffer
	srv := serve(t, s, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	fsys.FailIf(func(op faultfs.Op) error {
		if op.Name == "file.seek" {
			return syscall.EIO
		}
		return nil
	})
	for _, header := range []string{"bytes=2-", "bytes=5-"} {
		checkProblem(t, request(t, "GET", srv.URL+"/images/a", nil, "Range", header), 500, "internal", "")
	}
	if !strings.Contains(log.String(), "input/output error") {
		t.Errorf("the log says %q", log.String())
	}
}

// TestNothingLeftOpen looks for files that a request has opened and left so.
func TestNothingLeftOpen(t *testing.T) {
	fsys := faultfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", noise(t, 300, 1))
	put(t, s, "b", noise(t, 3, 1))
	must(t, fsys.MkdirAll("dir/image.png", 0o777))
	srv := serve(t, s, nil)
	for _, args := range [][]string{
		{"GET", "/images/a"}, {"HEAD", "/images/a"}, {"GET", "/images/a", "If-None-Match", info.ETag}, {"GET", "/images/a", "If-Match", `"x"`},
		{"GET", "/images/a", "Range", "bytes=9999999-"}, {"GET", "/images/a", "Range", "bytes=0-1,7-9"}, {"GET", "/images/dir"},
		{"GET", "/images"}, {"GET", "/images?limit=1"}, {"DELETE", "/images/b"},
	} {
		request(t, args[0], srv.URL+args[1], nil, args[2:]...)
	}
	must(t, s.Verify(t.Context(), "a"))
	for range s.All(t.Context()) {
		break
	}
	_, err := s.Sweep(t.Context(), 0)
	must(t, err)
	srv.Close()
	if open := fsys.OpenFiles(); len(open) > 0 {
		t.Errorf("%v are left open", open)
	}
}

// TestMiddlewareLimit has somebody else bound the body.
func TestMiddlewareLimit(t *testing.T) {
	h := imagestore.NewHandler(imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{Logger: quiet})
	srv := httptest.NewServer(http.MaxBytesHandler(h, 1000))
	defer srv.Close()
	checkProblem(t, request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(noise(t, 100, 1))), 413, "too_large", "1000 bytes")
}

// TestOldImage has an image from 1970, as some archives make them.
func TestOldImage(t *testing.T) {
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 3, 1))
	must(t, fsys.Chtimes("a/image.png", time.Unix(0, 0), time.Unix(0, 0)))
	want, err := s.Stat(t.Context(), "a")
	must(t, err)
	if got, err := newClient(t, serve(t, s, nil).URL).Stat(t.Context(), "a"); err != nil || got != want {
		t.Errorf("a Client says %+v, %v, a Store %+v", got, err, want)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestMiddlewareEncodes has middleware send images in another encoding, which
// has another length.
func TestMiddlewareEncodes(t *testing.T) {
	s := imagestore.New(onDisk(t), nil)
	b := noise(t, 80, 1)
	put(t, s, "a", b)
	h := imagestore.NewHandler(s, nil)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(w)
		defer zw.Close()
		h.ServeHTTP(encoded{w, zw}, r)
	}))
	defer srv.Close()
	if got := request(t, "GET", srv.URL+"/images/a", nil); !bytes.Equal(got.body, b) {
		t.Errorf("%s, %d bytes", got.Status, len(got.body))
	}
}

type encoded struct {
	http.ResponseWriter
	w io.Writer
}

func (e encoded) Write(p []byte) (int, error) { return e.w.Write(p) }
