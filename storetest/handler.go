package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestHandler tests that a handler of this module keeps its contract where it is
// mounted: behind a prefix, middleware and proxies. Images are at baseURL +
// "/images". A nil hc has connections of its own. Authentication is up to hc.
// Redirects are not followed: an upload would not survive them.
//
// The suite uses random ids, and deletes the images that it puts. It sends a few
// megabytes at most. It does not test conditions that a client cannot cause: a full
// or read-only disk, too many uploads, slow clients and failures of the server.
//
// Some proxies and routers rewrite or refuse ids such as %2e%2e and a%2Fb. They may,
// unless they report success. A log line that begins with "quirk:" reports it.
func TestHandler(t *testing.T, baseURL string, hc *http.Client) {
	if hc == nil {
		hc = testhttp.Client
	}
	noRedirects := *hc
	noRedirects.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	s := &site{base: strings.TrimSuffix(baseURL, "/"), hc: &noRedirects, prefix: "storetest-" + rand.Text()}
	for _, test := range []struct {
		name string
		run  func(*site, *testing.T)
	}{
		{"upload as the body", (*site).testRaw},
		{"upload as a form", (*site).testForm},
		{"upload under a new id", (*site).testNewID},
		{"upload of unknown length", (*site).testChunked},
		{"upload of 1 MiB", (*site).testLarge},
		{"upload cut short", (*site).testCut},
		{"GET", (*site).testGet},
		{"HEAD", (*site).testHead},
		{"Range", (*site).testRange},
		{"If-None-Match and If-Modified-Since on reads", (*site).testNotModified},
		{"If-Match on reads", (*site).testReadMatch},
		{"If-None-Match on changes", (*site).testCreateOnly},
		{"If-Match on changes", (*site).testReplaceOnly},
		{"of writers at once one wins", (*site).testOneWinner},
		{"DELETE", (*site).testDelete},
		{"no such image", (*site).testNotFound},
		{"list", (*site).testList},
		{"OPTIONS", (*site).testOptions},
		{"other methods", (*site).testMethods},
		{"bad ids", (*site).testBadIDs},
		{"bad requests", (*site).testBadRequests},
		{"bad images", (*site).testBadImages},
		{"too large", (*site).testTooLarge},
		{"digests", (*site).testDigests},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(s, t) })
	}
}

// A site is a mounted handler.
type site struct {
	base   string
	hc     *http.Client
	prefix string
}

// id returns an id of this run. Its image is deleted when the test ends.
func (s *site) id(t *testing.T, name string) string {
	t.Helper()
	id := s.prefix + "-" + name
	s.deleteLater(t, id)
	return id
}

func (s *site) deleteLater(t *testing.T, id string) {
	t.Helper()
	t.Cleanup(func() {
		req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), "DELETE", s.base+"/images/"+id, nil)
		if err != nil {
			t.Error(err)
			return
		}
		resp, err := s.hc.Do(req)
		if err != nil {
			t.Errorf("DELETE of %s: got %v, want an answer", id, err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotFound {
			t.Errorf("DELETE of %s: got %s, want 204 or 404", id, resp.Status)
		}
	})
}

// A reply is an answer with methods that check it.
type reply struct{ testhttp.Answer }

// send sends a request with header fields given in pairs.
func (s *site) send(t *testing.T, method, path string, body io.Reader, header ...string) reply {
	t.Helper()
	got, err := s.try(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: got no answer: %v", method, path, err)
	}
	return got
}

func (s *site) try(ctx context.Context, method, path string, body io.Reader, header ...string) (reply, error) {
	got, err := testhttp.Do(ctx, s.hc, method, s.base+path, body, header...)
	return reply{got}, err
}

// put stores an image. It checks the status only.
func (s *site) put(t *testing.T, id string, b []byte, header ...string) reply {
	t.Helper()
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), header...)
	if got.StatusCode != http.StatusCreated && got.StatusCode != http.StatusOK {
		t.Fatalf("PUT: got %s, want 200 or 201%s", got.Status, got.whose())
	}
	return got
}

// whose returns the likely sender of an unexpected answer, or the store's reason.
func (r reply) whose() string {
	switch {
	case r.StatusCode >= 300 && r.StatusCode < 400 && r.StatusCode != http.StatusNotModified:
		return fmt.Sprintf(", a redirect to %q: clients do not repeat uploads there; is the base URL right?", r.Header.Get("Location"))
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusProxyAuthRequired:
		return ": the *http.Client must authenticate"
	case r.StatusCode == http.StatusRequestEntityTooLarge && r.Code() == "":
		return ", but not by the store: does a proxy limit the size of bodies?"
	case r.StatusCode >= 400 && r.Code() == "":
		return ", but not by the store, whose answer would have the header Imagestore-Error: does a proxy or middleware answer itself, or replace error pages?"
	case r.StatusCode >= 400:
		return ": " + string(r.Bytes)
	}
	return ""
}

// want checks the status.
func (r reply) want(t *testing.T, status int, hint string) bool {
	t.Helper()
	if r.StatusCode == status {
		return true
	}
	if hint != "" {
		hint = "; " + hint
	}
	t.Errorf("%s %s: got %s, want %d%s%s", r.Request.Method, r.Request.URL.Path, r.Status, status, r.whose(), hint)
	return false
}

// wantProblem checks that an answer is a complete problem of the store.
func (r reply) wantProblem(t *testing.T, status int, code, text string) {
	t.Helper()
	if !r.want(t, status, "") {
		return
	}
	if got := r.Code(); got == "" {
		t.Errorf("the answer %s to %s has no header Imagestore-Error: does a proxy answer itself, replace error pages, or drop unknown headers?", r.Status, r.Request.Method)
	} else if got != code {
		t.Errorf("header Imagestore-Error of %s to %s: got %q, want %q", r.Status, r.Request.Method, got, code)
	}
	if r.Request.Method == http.MethodHead {
		return
	}
	var p struct {
		Title, Detail, Code string
		Status              int
	}
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType != "application/problem+json" {
		t.Errorf("the answer %s: got type %q, want application/problem+json: does a proxy replace error pages?", r.Status, r.Header.Get("Content-Type"))
	} else if err := json.Unmarshal(r.Bytes, &p); err != nil || p.Status != status || p.Code != code || p.Title == "" {
		t.Errorf("body of %s: got %.200q, %v, want the problem %q", r.Status, r.Bytes, err, code)
	} else if !strings.Contains(p.Detail, text) {
		t.Errorf("detail of %s: got %q, want %q in it", r.Status, p.Detail, text)
	}
}

// wantStored checks the answer to an upload and the stored image.
func (s *site) wantStored(t *testing.T, got reply, status int, b []byte) imagestore.Info {
	t.Helper()
	if got.StatusCode != status {
		t.Fatalf("%s: got %s, want %d%s", got.Request.Method, got.Status, status, got.whose())
	}
	var info imagestore.Info
	if err := json.Unmarshal(got.Bytes, &info); err != nil || info.Size != int64(len(b)) || info.ModTime.IsZero() || info.Type != "image/png" || info.Width < 1 || info.Height < 1 {
		t.Errorf("answer to an upload of %d bytes: got %q, %v, want its Info", len(b), got.Bytes, err)
	}
	if info.ETag == "" || info.ETag != got.Header.Get("ETag") {
		t.Errorf("header ETag: got %q, want %s as in the body: does a proxy change it?", got.Header.Get("ETag"), info.ETag)
	}
	var names map[string]any
	if err := json.Unmarshal(got.Bytes, &names); err != nil || !slices.Equal(slices.Sorted(maps.Keys(names)), []string{"etag", "height", "id", "modified", "size", "type", "width"}) {
		t.Errorf("answer to an upload: got %q, %v, want the names id, type, size, width, height, modified and etag", got.Bytes, err)
	}
	location, err := got.Location()
	if err != nil {
		t.Fatalf("the answer to an upload has no usable Location: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", location.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.hc.Do(req)
	if err != nil {
		t.Fatalf("the Location %s cannot be fetched: %v", location, err)
	}
	defer resp.Body.Close()
	if read, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || err != nil {
		t.Errorf("GET of the Location %s: got %s, %v, want 200: does a proxy change paths, so that the store cannot know its own?", location, resp.Status, err)
	} else if !bytes.Equal(read, b) {
		t.Errorf("GET of the Location %s: got %d other bytes, want the %d that were sent", location, len(read), len(b))
	}
	return info
}

// unchanged checks that an image has not changed.
func (s *site) unchanged(t *testing.T, id string, b []byte) {
	t.Helper()
	if got := s.send(t, "GET", "/images/"+id, nil); got.want(t, http.StatusOK, "") && !bytes.Equal(got.Bytes, b) {
		t.Errorf("the image has changed: got %d other bytes, want %d", len(got.Bytes), len(b))
	}
}

func (s *site) testRaw(t *testing.T) {
	id := s.id(t, "raw")
	small, large := PNG(t, 10, 1), PNG(t, 300, 2)
	status := http.StatusCreated
	for _, method := range []string{"PUT", "POST"} {
		for _, contentType := range []string{"", "image/png", "image/x-png", "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"} {
			b := small
			if contentType == "image/png" {
				b = large
			}
			var header []string
			if contentType != "" {
				header = []string{"Content-Type", contentType}
			}
			got := s.send(t, method, "/images/"+id, bytes.NewReader(b), header...)
			if info := s.wantStored(t, got, status, b); info.ID != id {
				t.Errorf("got id %q, want %q", info.ID, id)
			}
			status = http.StatusOK
		}
	}
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(large), "Content-Type", "application/json")
	got.wantProblem(t, http.StatusUnsupportedMediaType, "unsupported_type", "multipart/form-data")
	s.unchanged(t, id, small)
}

// form returns a multipart body with parts given as name and content, and its
// Content-Type.
func form(t *testing.T, parts ...string) (body, contentType string) {
	t.Helper()
	var b strings.Builder
	w := multipart.NewWriter(&b)
	for i := 0; i < len(parts); i += 2 {
		p, err := w.CreateFormFile(parts[i], "test_image.png")
		if err == nil {
			_, err = io.WriteString(p, parts[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

func (s *site) testForm(t *testing.T) {
	id := s.id(t, "form")
	b := PNG(t, 300, 1)
	status := http.StatusCreated
	for _, parts := range [][]string{{"file", string(b)}, {"before", strings.Repeat("x", 100_000), "file", string(b), "after", "y"}} {
		body, contentType := form(t, parts...)
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType)
		s.wantStored(t, got, status, b)
		status = http.StatusOK
	}
	// Neither the boundary nor the file name is quoted as it should be.
	body := "--=b\r\nContent-Disposition: form-data; name=\"file\"; filename=my shot.png\r\n\r\n" + string(b) + "\r\n--=b--\r\n"
	got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", "multipart/form-data; boundary==b")
	s.wantStored(t, got, status, b)
	other := string(PNG(t, 10, 2))
	for _, test := range []struct {
		parts []string
		text  string // part of the detail
	}{
		{[]string{"picture", other}, "picture"},
		{nil, "empty"},
		{[]string{"file", other, "file", other}, "more than one"},
	} {
		body, contentType := form(t, test.parts...)
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType)
		got.wantProblem(t, http.StatusBadRequest, "bad_request", test.text)
	}
	body, contentType := form(t, "file", other)
	for _, cut := range []int{len("-\r\n"), 10} { // the shorter one leaves "--boundary-"
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body[:len(body)-cut]), "Content-Type", contentType)
		got.wantProblem(t, http.StatusBadRequest, "bad_request", "multipart")
	}
	got = s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", "multipart/form-data")
	got.wantProblem(t, http.StatusBadRequest, "bad_request", "boundary")
	s.unchanged(t, id, b)
}

func (s *site) testNewID(t *testing.T) {
	b := PNG(t, 10, 1)
	body, contentType := form(t, "file", string(b))
	var ids []string
	for _, got := range []reply{
		s.send(t, "POST", "/images", bytes.NewReader(b)),
		s.send(t, "POST", "/images", strings.NewReader(body), "Content-Type", contentType),
	} {
		var info imagestore.Info
		if err := json.Unmarshal(got.Bytes, &info); err == nil && imagestore.CheckID(info.ID) == nil {
			s.deleteLater(t, info.ID)
		}
		ids = append(ids, s.wantStored(t, got, http.StatusCreated, b).ID)
	}
	if ids[0] == ids[1] || imagestore.CheckID(ids[0]) != nil {
		t.Errorf("got ids %q, want two valid ones", ids)
	}
}

func (s *site) testChunked(t *testing.T) {
	b := PNG(t, 300, 1)
	// MultiReader hides the length from net/http.
	got := s.send(t, "PUT", "/images/"+s.id(t, "chunked"), io.MultiReader(bytes.NewReader(b)))
	s.wantStored(t, got, http.StatusCreated, b)
}

func (s *site) testLarge(t *testing.T) {
	b := PNG(t, 1024, 1)
	s.wantStored(t, s.put(t, s.id(t, "large"), b), http.StatusCreated, b)
}

func (s *site) testCut(t *testing.T) {
	b, id := PNG(t, 300, 1), s.id(t, "cut")
	s.put(t, id, b)
	other := PNG(t, 300, 2)
	broken := errors.New("upload canceled")
	// There is no answer, but the store must not keep the part.
	_, _ = s.try(t.Context(), "PUT", "/images/"+id, io.MultiReader(bytes.NewReader(other[:70_000]), failingReader{broken}))
	s.unchanged(t, id, b)
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func (s *site) testGet(t *testing.T) {
	b, id := PNG(t, 300, 1), s.id(t, "get")
	sent := s.put(t, id, b)
	got := s.send(t, "GET", "/images/"+id, nil)
	if !got.want(t, http.StatusOK, "") {
		return
	}
	if got.Uncompressed || got.Header.Get("Content-Encoding") != "" {
		t.Error("the image arrives compressed: a PNG does not get smaller, and its length, ranges and ETag no longer fit; keep the proxy from compressing image/png")
	}
	if !bytes.Equal(got.Bytes, b) {
		t.Errorf("got %d other bytes, want the %d that were sent: does a proxy compress or optimize images?", len(got.Bytes), len(b))
	}
	s.wantHeader(t, got, id, len(b), sent.Header.Get("ETag"))
	var info imagestore.Info
	if err := json.Unmarshal(sent.Bytes, &info); err != nil {
		t.Fatalf("PUT: got %q, %v, want an Info", sent.Bytes, err)
	}
	if modified, err := time.Parse(time.RFC3339, got.Header.Get("Imagestore-Modified")); err != nil || !modified.Equal(info.ModTime) {
		t.Errorf("got Imagestore-Modified %q, want %v as in the answer to the upload: does a proxy drop unknown headers?", got.Header.Get("Imagestore-Modified"), info.ModTime)
	}
}

// wantHeader checks the header of a complete image.
func (s *site) wantHeader(t *testing.T, got reply, id string, size int, etag string) {
	t.Helper()
	if arrived := got.Header.Get("ETag"); arrived != etag || strings.HasPrefix(arrived, "W/") || arrived == "" {
		t.Errorf("want the ETag of the upload: got %s, want %s: does a proxy compress, or drop the header?", arrived, etag)
	}
	if got.ContentLength != int64(size) {
		t.Errorf("got Content-Length %d (-1 is none), want %d: does a proxy compress or recode?", got.ContentLength, size)
	}
	if _, err := http.ParseTime(got.Header.Get("Last-Modified")); err != nil {
		t.Errorf("got Last-Modified %q, want a time", got.Header.Get("Last-Modified"))
	}
	width, err := strconv.Atoi(got.Header.Get("Imagestore-Width"))
	height, err2 := strconv.Atoi(got.Header.Get("Imagestore-Height"))
	if err != nil || err2 != nil || width < 1 || height < 1 {
		t.Errorf("got Imagestore-Width %q and Imagestore-Height %q, want the size in pixels", got.Header.Get("Imagestore-Width"), got.Header.Get("Imagestore-Height"))
	}
	for name, want := range map[string]string{
		"Content-Type":           "image/png",
		"Accept-Ranges":          "bytes",
		"Cache-Control":          "no-cache",
		"X-Content-Type-Options": "nosniff",
		"Content-Disposition":    `inline; filename="` + id + `.png"`,
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("header %s: got %q, want %q: does middleware set or drop it?", name, got, want)
		}
	}
	if csp := got.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "sandbox") {
		t.Errorf("got Content-Security-Policy %q, want one that keeps an image from running scripts: does middleware set its own?", csp)
	}
}

func (s *site) testHead(t *testing.T) {
	b, id := PNG(t, 300, 1), s.id(t, "head")
	sent := s.put(t, id, b)
	got := s.send(t, "HEAD", "/images/"+id, nil)
	if got.want(t, http.StatusOK, "") {
		s.wantHeader(t, got, id, len(b), sent.Header.Get("ETag"))
	}
	if len(got.Bytes) > 0 {
		t.Errorf("HEAD: got a body of %d bytes, want none", len(got.Bytes))
	}
}

func (s *site) testRange(t *testing.T) {
	const hint = "does a proxy or middleware drop Range or If-Range?"
	b, id := PNG(t, 300, 1), s.id(t, "range")
	etag := s.put(t, id, b).Header.Get("ETag")
	for _, test := range []struct {
		header   []string
		from, to int
	}{
		{[]string{"Range", "bytes=0-99"}, 0, 100},
		{[]string{"Range", "bytes=-5"}, len(b) - 5, len(b)},
		{[]string{"Range", "bytes=10-", "If-Range", etag}, 10, len(b)},
	} {
		got := s.send(t, "GET", "/images/"+id, nil, test.header...)
		if !got.want(t, http.StatusPartialContent, hint) {
			continue
		}
		want := fmt.Sprintf("bytes %d-%d/%d", test.from, test.to-1, len(b))
		if !bytes.Equal(got.Bytes, b[test.from:test.to]) || got.Header.Get("Content-Range") != want || got.Header.Get("ETag") != etag {
			t.Errorf("%q: got %d bytes, Content-Range %q, ETag %s, want %d, %q, %s", test.header, len(got.Bytes), got.Header.Get("Content-Range"), got.Header.Get("ETag"), test.to-test.from, want, etag)
		}
	}
	got := s.send(t, "GET", "/images/"+id, nil, "Range", "bytes=10-", "If-Range", `"another"`)
	if got.want(t, http.StatusOK, hint) && !bytes.Equal(got.Bytes, b) {
		t.Errorf("range of another version: got %d bytes, want the whole image", len(got.Bytes))
	}
	got = s.send(t, "GET", "/images/"+id, nil, "Range", "items=0-5")
	if got.want(t, http.StatusOK, "") && !bytes.Equal(got.Bytes, b) {
		t.Errorf("range of an unknown unit: got %d bytes, want the whole image", len(got.Bytes))
	}
	for _, beyond := range []string{"bytes=99999999-", "bytes=-0"} {
		got = s.send(t, "GET", "/images/"+id, nil, "Range", beyond)
		got.wantProblem(t, http.StatusRequestedRangeNotSatisfiable, "range_not_satisfiable", strconv.Itoa(len(b)))
		if want := fmt.Sprintf("bytes */%d", len(b)); got.StatusCode == http.StatusRequestedRangeNotSatisfiable && got.Header.Get("Content-Range") != want {
			t.Errorf("%s: got Content-Range %q, want %q", beyond, got.Header.Get("Content-Range"), want)
		}
	}
}

func (s *site) testNotModified(t *testing.T) {
	b, id := PNG(t, 10, 1), s.id(t, "notmodified")
	etag := s.put(t, id, b).Header.Get("ETag")
	modified := s.send(t, "HEAD", "/images/"+id, nil).Header.Get("Last-Modified")
	for _, method := range []string{"GET", "HEAD"} {
		for _, header := range [][]string{
			{"If-None-Match", etag},
			{"If-None-Match", `"another", W/` + etag},
		} {
			got := s.send(t, method, "/images/"+id, nil, header...)
			if got.want(t, http.StatusNotModified, "does a proxy or middleware drop "+header[0]+"?") && (len(got.Bytes) > 0 || got.Header.Get("ETag") != etag) {
				t.Errorf("304: got %d bytes, ETag %s, want none, ETag %s", len(got.Bytes), got.Header.Get("ETag"), etag)
			}
		}
	}
	// Another version may follow within the second, so dates do not count yet.
	for _, header := range [][]string{{"If-None-Match", `"another"`}, {"If-Modified-Since", modified}} {
		got := s.send(t, "GET", "/images/"+id, nil, header...)
		if got.want(t, http.StatusOK, "does a cache answer?") && !bytes.Equal(got.Bytes, b) {
			t.Errorf("%q: got %d other bytes, want %d", header, len(got.Bytes), len(b))
		}
	}
}

func (s *site) testReadMatch(t *testing.T) {
	id := s.id(t, "readmatch")
	etag := s.put(t, id, PNG(t, 10, 1)).Header.Get("ETag")
	s.send(t, "GET", "/images/"+id, nil, "If-Match", etag).want(t, http.StatusOK, "does a proxy change ETags?")
	s.send(t, "GET", "/images/"+id, nil, "If-Match", `"another"`).wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", etag)
}

func (s *site) testCreateOnly(t *testing.T) {
	b, id := PNG(t, 10, 1), s.id(t, "createonly")
	s.wantStored(t, s.put(t, id, b, "If-None-Match", "*"), http.StatusCreated, b)
	for _, method := range []string{"PUT", "POST"} {
		got := s.send(t, method, "/images/"+id, bytes.NewReader(PNG(t, 10, 2)), "If-None-Match", "*")
		if got.StatusCode < 300 {
			t.Errorf("%s with If-None-Match: * of an existing image: got success, want 412: does a proxy or middleware drop If-None-Match?", method)
			continue
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "")
	}
}

func (s *site) testReplaceOnly(t *testing.T) {
	id := s.id(t, "replaceonly")
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(PNG(t, 10, 1)), "If-Match", "*")
	got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "no image")
	first := s.put(t, id, PNG(t, 10, 1)).Header.Get("ETag")
	b := PNG(t, 10, 2)
	second := s.put(t, id, b, "If-Match", first).Header.Get("ETag")
	if first == second {
		t.Errorf("got ETag %s for two versions, want two ETags", first)
	}
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		got := s.send(t, method, "/images/"+id, bytes.NewReader(PNG(t, 10, 3)), "If-Match", first)
		if got.StatusCode < 300 {
			t.Fatalf("%s with If-Match of an old version: got success, want 412: does a proxy or middleware drop If-Match?", method)
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", second)
	}
	s.unchanged(t, id, b)
	s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), "If-Match", "no quotes").wantProblem(t, http.StatusBadRequest, "bad_request", "quotes")
	deleted := s.send(t, "DELETE", "/images/"+id, nil, "If-Match", second)
	if deleted.StatusCode == http.StatusNotImplemented {
		deleted.wantProblem(t, http.StatusNotImplemented, "not_implemented", "condition")
		quirk(t, "the store is on an object store, which cannot delete under a condition")
		return
	}
	deleted.want(t, http.StatusNoContent, "does a proxy change ETags?")
}

func (s *site) testOneWinner(t *testing.T) {
	const writers = 8
	id := s.id(t, "onewinner")
	var replies [writers]reply
	var errs [writers]error
	var wg sync.WaitGroup
	for i := range writers {
		b := PNG(t, 30, uint64(i))
		wg.Go(func() {
			replies[i], errs[i] = s.try(t.Context(), "PUT", "/images/"+id, bytes.NewReader(b), "If-None-Match", "*")
		})
	}
	wg.Wait()
	winners := 0
	for i, got := range replies {
		if errs[i] != nil {
			t.Fatalf("PUT: got no answer: %v", errs[i])
		}
		if got.StatusCode < 300 {
			winners++
			s.unchanged(t, id, PNG(t, 30, uint64(i)))
			continue
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "")
	}
	if winners != 1 {
		t.Errorf("of %d concurrent PUTs of one image with If-None-Match: *: got %d successes, want 1: do several servers share one directory, or does a proxy repeat requests or drop the header?", writers, winners)
	}
}

func (s *site) testDelete(t *testing.T) {
	id := s.id(t, "delete")
	s.put(t, id, PNG(t, 10, 1))
	got := s.send(t, "DELETE", "/images/"+id, nil)
	if got.want(t, http.StatusNoContent, "") && len(got.Bytes) > 0 {
		t.Errorf("DELETE: got a body of %d bytes, want none", len(got.Bytes))
	}
	s.wantGone(t, id)
}

func (s *site) testNotFound(t *testing.T) { s.wantGone(t, s.prefix+"-none") }

func (s *site) wantGone(t *testing.T, id string) {
	t.Helper()
	for _, method := range []string{"GET", "HEAD", "DELETE"} {
		s.send(t, method, "/images/"+id, nil).wantProblem(t, http.StatusNotFound, "not_found", "")
	}
}

type page struct {
	Images []imagestore.Info
	Next   string
}

// list fetches a page of the list.
func (s *site) list(t *testing.T, query string) (p page, body string) {
	t.Helper()
	got := s.send(t, "GET", "/images"+query, nil)
	if got.StatusCode != http.StatusOK {
		t.Fatalf("GET /images%s: got %s, want 200%s", query, got.Status, got.whose())
	}
	if mediaType, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type")); mediaType != "application/json" {
		t.Errorf("list: got type %q, want application/json", got.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(got.Bytes, &p); err != nil || p.Images == nil {
		t.Fatalf("list: got %.200q, %v, want images", got.Bytes, err)
	}
	return p, string(got.Bytes)
}

func (s *site) testList(t *testing.T) {
	want := make(map[string]string)
	for i := range 5 {
		id := s.id(t, fmt.Sprint("list", i))
		want[id] = s.put(t, id, PNG(t, 5, uint64(i))).Header.Get("ETag")
	}
	// The list may have other images, but random ids hardly between these.
	got := make(map[string]string)
	after := s.prefix + "-list"
	for i := range 3 {
		p, _ := s.list(t, "?limit=2&after="+url.QueryEscape(after))
		if len(p.Images) > 2 {
			t.Fatalf("got a page of %d images, want at most 2: does a proxy drop queries?", len(p.Images))
		}
		for _, info := range p.Images {
			if info.ID <= after {
				t.Fatalf("got %q in a page after %q, want greater ids: does a proxy drop queries?", info.ID, after)
			}
			after = info.ID
			if strings.HasPrefix(info.ID, s.prefix) {
				got[info.ID] = info.ETag
			}
		}
		if p.Next != "" && p.Next != after {
			t.Errorf("got next %q, want the last id of the page, %q", p.Next, after)
		}
		if p.Next == "" && i < 2 {
			t.Fatal("got no next before the end of the list, want one")
		}
	}
	if p, _ := s.list(t, "?prefix="+url.QueryEscape(s.prefix+"-list")+"&after="+url.QueryEscape(s.prefix+"-list1")); len(p.Images) != 3 || p.Next != "" {
		t.Errorf("list with a prefix: got %d images, next %q, want the last 3 of 5", len(p.Images), p.Next)
	}
	for id, etag := range want {
		if got[id] != etag {
			t.Errorf("%s in the list: got ETag %q, want %q", id, got[id], etag)
		}
	}
	if p, body := s.list(t, "?after="+strings.Repeat("z", 128)); len(p.Images) > 0 || strings.Contains(body, "null") {
		t.Errorf("list after the last image: got %s, want an empty one", body)
	}
	s.send(t, "HEAD", "/images", nil).want(t, http.StatusOK, "")
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?after=%2F", "?prefix=%2F"} {
		s.send(t, "GET", "/images"+query, nil).wantProblem(t, http.StatusBadRequest, "bad_request", query[1:6])
	}
}

const (
	listMethods  = "GET, HEAD, OPTIONS, POST"
	imageMethods = "DELETE, GET, HEAD, OPTIONS, POST, PUT"
)

func (s *site) testOptions(t *testing.T) {
	for path, allow := range map[string]string{"/images": listMethods, "/images/" + s.prefix + "-none": imageMethods} {
		got := s.send(t, "OPTIONS", path, nil)
		got.want(t, http.StatusNoContent, "does middleware, for CORS perhaps, answer OPTIONS itself?")
		if got.Header.Get("Allow") != allow {
			t.Errorf("got Allow %q, want %q: does middleware, for CORS perhaps, answer OPTIONS itself?", got.Header.Get("Allow"), allow)
		}
		if !strings.Contains(got.Header.Get("Accept-Post"), "multipart/form-data") {
			t.Errorf("got Accept-Post %q, want multipart/form-data in it", got.Header.Get("Accept-Post"))
		}
		for _, name := range []string{"Imagestore-Max-Bytes", "Imagestore-Max-Pixels"} {
			if n, err := strconv.ParseInt(got.Header.Get(name), 10, 64); err != nil || n <= 0 {
				t.Errorf("header %s: got %q, want a limit", name, got.Header.Get(name))
			}
		}
	}
}

func (s *site) testMethods(t *testing.T) {
	for _, test := range []struct{ method, path, allow string }{
		{"PATCH", "/images/" + s.prefix + "-none", imageMethods},
		{"PUT", "/images", listMethods},
		{"DELETE", "/images", listMethods},
	} {
		got := s.send(t, test.method, test.path, nil)
		got.wantProblem(t, http.StatusMethodNotAllowed, "method_not_allowed", test.allow)
		if got.Header.Get("Allow") != test.allow {
			t.Errorf("got Allow %q, want %q", got.Header.Get("Allow"), test.allow)
		}
	}
}

func (s *site) testBadIDs(t *testing.T) {
	b := PNG(t, 3, 1)
	for _, id := range []string{".staging", "%2Estaging", "a.", "nul.png", "a%20b", "a%25", "caf%C3%A9", "-a", strings.Repeat("a", 129)} {
		s.send(t, "GET", "/images/"+id, nil).wantProblem(t, http.StatusBadRequest, "invalid_id", "an id is 1 to 128 characters")
		s.send(t, "PUT", "/images/"+id, bytes.NewReader(b)).wantProblem(t, http.StatusBadRequest, "invalid_id", "an id is 1 to 128 characters")
	}
	for _, id := range []string{"%2e%2e", "%2e", "a%2Fb", "a/b", "%2F", "a%5Cb", "a%00b", "%2e%2e%2f.staging"} {
		for _, method := range []string{"GET", "PUT"} {
			var body io.Reader
			if method == "PUT" {
				body = bytes.NewReader(b)
			}
			got, err := s.try(t.Context(), method, "/images/"+id, body)
			switch {
			case err != nil:
				quirk(t, "%s of id %s gets no answer: %v", method, id, err)
			case got.StatusCode < 300 || got.StatusCode >= 500:
				t.Errorf("%s of id %s: got %s, want 400", method, id, got.Status)
			case got.Code() == "":
				quirk(t, "%s of id %s is answered with %s, but not by the store", method, id, got.Status)
			case got.StatusCode == http.StatusBadRequest:
				got.wantProblem(t, http.StatusBadRequest, "invalid_id", "an id is 1 to 128 characters")
			}
		}
	}
}

func (s *site) testBadRequests(t *testing.T) {
	b, id := PNG(t, 10, 1), s.id(t, "badrequest")
	for _, header := range [][]string{
		{"Content-Range", "bytes 0-9/10"},
		{"If-Unmodified-Since", time.Now().UTC().Format(http.TimeFormat)},
		{"If-None-Match", "no quotes"},
	} {
		got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), header...)
		if got.StatusCode < 300 {
			t.Errorf("PUT with %q: got success, want 400: does a proxy or middleware drop the header?", header)
			continue
		}
		got.wantProblem(t, http.StatusBadRequest, "bad_request", "")
	}
	s.wantGone(t, id)
}

func (s *site) testBadImages(t *testing.T) {
	good, id := PNG(t, 300, 1), s.id(t, "badimage")
	s.put(t, id, good)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-30] ^= 1
	for _, test := range []struct {
		b      []byte
		status int
		code   string
		text   string
	}{
		{[]byte("hello, world"), http.StatusUnsupportedMediaType, "unsupported_type", ""},
		{[]byte("GIF89a and so on"), http.StatusUnsupportedMediaType, "unsupported_type", "GIF"},
		{nil, http.StatusUnsupportedMediaType, "unsupported_type", ""},
		{good[:len(good)-1], http.StatusUnprocessableEntity, "invalid_image", "byte"},
		{good[:100], http.StatusUnprocessableEntity, "invalid_image", "byte"},
		{flipped, http.StatusUnprocessableEntity, "invalid_image", "byte"},
		{append(bytes.Clone(good), 0), http.StatusUnprocessableEntity, "invalid_image", "byte"},
	} {
		s.send(t, "PUT", "/images/"+id, bytes.NewReader(test.b)).wantProblem(t, test.status, test.code, test.text)
		body, contentType := form(t, "file", string(test.b))
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType)
		got.wantProblem(t, test.status, test.code, test.text)
	}
	s.unchanged(t, id, good)
}

func (s *site) testTooLarge(t *testing.T) {
	id := s.id(t, "toolarge")
	limits := s.send(t, "OPTIONS", "/images/"+id, nil).Header
	pixels, _ := strconv.ParseInt(limits.Get("Imagestore-Max-Pixels"), 10, 64)
	const side = 1<<31 - 1 // the largest that a PNG can have
	if pixels < side*side {
		// The header alone is too large, so the body has only a few bytes.
		b := slices.Clone(PNG(t, 1, 1))
		binary.BigEndian.PutUint32(b[16:], side)
		binary.BigEndian.PutUint32(b[20:], side)
		binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
		s.send(t, "PUT", "/images/"+id, bytes.NewReader(b)).wantProblem(t, http.StatusRequestEntityTooLarge, "too_large", "")
	}
	size, _ := strconv.ParseInt(limits.Get("Imagestore-Max-Bytes"), 10, 64)
	if size > 8<<20 {
		quirk(t, "the limit of %d bytes is too large to be tested", size)
		return
	}
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(make([]byte, size+1)), "Expect", "100-continue")
	got.wantProblem(t, http.StatusRequestEntityTooLarge, "too_large", strconv.FormatInt(size, 10))
}

// digestOf returns a digest as a field has it (RFC 9530).
func digestOf[T string | []byte](b T) string {
	sum := sha256.Sum256([]byte(b))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func (s *site) testDigests(t *testing.T) {
	b, other, id := PNG(t, 10, 1), PNG(t, 10, 2), s.id(t, "digests")
	for _, name := range []string{"Repr-Digest", "Content-Digest"} {
		s.put(t, id, b, name, digestOf(b))
		refused := func(got reply, code, text string) {
			t.Helper()
			if got.StatusCode < 300 {
				t.Errorf("upload with another %s: got success, want 400: does a proxy or middleware drop %[1]s?", name)
				return
			}
			got.wantProblem(t, http.StatusBadRequest, code, text)
		}
		refused(s.send(t, "PUT", "/images/"+id, bytes.NewReader(other), name, digestOf(b)), "digest_mismatch", digestOf(other))
		refused(s.send(t, "PUT", "/images/"+id, bytes.NewReader(other), name, "sha-256=malformed"), "bad_request", name)
		body, contentType := form(t, "file", string(other))
		refused(s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType, name, digestOf(other)), "digest_mismatch", digestOf(body))
		body = strings.Replace(body, "\r\n\r\n", "\r\n"+name+": "+digestOf(b)+"\r\n\r\n", 1)
		refused(s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType), "digest_mismatch", digestOf(other))
		body = strings.ReplaceAll(body, digestOf(b), digestOf(other))
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType, name, digestOf(body))
		if got.StatusCode != http.StatusOK {
			t.Errorf("form with the right digests: got %s, want 200%s", got.Status, got.whose())
		}
		s.put(t, id, b)
	}
	s.unchanged(t, id, b)
	for _, header := range [][]string{{"Want-Repr-Digest", "sha-256=10"}, {"Want-Repr-Digest", "sha-256=10, sha-512=5", "Range", "bytes=0-9"}} {
		for _, method := range []string{"GET", "HEAD"} {
			if got := s.send(t, method, "/images/"+id, nil, header...); got.Header.Get("Repr-Digest") != digestOf(b) {
				t.Errorf("%s with %q: got %s, Repr-Digest %q, want %s: does a proxy or middleware drop Want-Repr-Digest or Repr-Digest?%s",
					method, header, got.Status, got.Header.Get("Repr-Digest"), digestOf(b), got.whose())
			}
		}
	}
	if got := s.send(t, "GET", "/images/"+id, nil); got.Header.Get("Repr-Digest") != "" {
		t.Errorf("GET: got a Repr-Digest, which was not asked for")
	}
}
