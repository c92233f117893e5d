package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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
)

// TestHandler tells whether a handler of this module keeps its contract where
// somebody has mounted it: behind a prefix, middleware and proxies. Images are
// at baseURL + "/images". A nil hc is [http.DefaultClient]; authentication is
// for hc to add. hc's redirects are not followed: an upload would not survive
// them.
//
// It uses ids of its own, which nobody else can have, and deletes what it has
// put. It sends a few megabytes at most. What cannot be provoked from outside is
// not tested: a full disk, a read-only one, too many uploads at once, clients
// that are too slow and failures within.
//
// Ids that proxies and routers are known to rewrite or to refuse by themselves,
// such as %2e%2e and a%2Fb, may be answered by them, if not with success; a line
// that begins with "quirk:" tells of it.
func TestHandler(t *testing.T, baseURL string, hc *http.Client) {
	if hc == nil {
		hc = http.DefaultClient
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
	} {
		t.Run(test.name, func(t *testing.T) { test.run(s, t) })
	}
}

// A site is where a handler is mounted.
type site struct {
	base   string
	hc     *http.Client
	prefix string
}

// id returns an id of this run, and deletes its image in the end.
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
			t.Errorf("%s could not be deleted: %v", id, err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s could not be deleted: %s", id, resp.Status)
		}
	})
}

// reply is what is looked at of a response.
type reply struct {
	*http.Response
	body []byte
}

// send sends a request with header fields given in pairs.
func (s *site) send(t *testing.T, method, path string, body io.Reader, header ...string) reply {
	t.Helper()
	got, err := s.try(t.Context(), method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s is not answered: %v", method, path, err)
	}
	return got
}

func (s *site) try(ctx context.Context, method, path string, body io.Reader, header ...string) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.base+path, body)
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := s.hc.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp, b}, err
}

// put stores an image and checks nothing but that it was taken.
func (s *site) put(t *testing.T, id string, b []byte, header ...string) reply {
	t.Helper()
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), header...)
	if got.StatusCode != http.StatusCreated && got.StatusCode != http.StatusOK {
		t.Fatalf("PUT is answered with %s%s", got.Status, got.whose())
	}
	return got
}

// whose guesses who has answered, if it was not the store.
func (r reply) whose() string {
	switch {
	case r.StatusCode >= 300 && r.StatusCode < 400 && r.StatusCode != http.StatusNotModified:
		return fmt.Sprintf(", a redirect to %q: clients do not repeat uploads there; is the URL the one that the server is meant to have?", r.Header.Get("Location"))
	case r.StatusCode == http.StatusUnauthorized || r.StatusCode == http.StatusProxyAuthRequired:
		return ": the *http.Client has to authenticate itself"
	case r.StatusCode == http.StatusRequestEntityTooLarge && r.Header.Get("Imagestore-Error") == "":
		return ", but not by the store: does a proxy limit the size of bodies?"
	case r.StatusCode >= 400 && r.Header.Get("Imagestore-Error") == "":
		return ", but not by the store, whose answer would have the header Imagestore-Error: does a proxy or middleware answer itself, or replace answers by pages of its own?"
	case r.StatusCode >= 400:
		return ": " + string(r.body)
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
	t.Errorf("%s %s is answered with %s, not %d%s%s", r.Request.Method, r.Request.URL.Path, r.Status, status, r.whose(), hint)
	return false
}

// wantProblem checks that an error is the store's own and whole.
func (r reply) wantProblem(t *testing.T, status int, code, text string) {
	t.Helper()
	if !r.want(t, status, "") {
		return
	}
	if got := r.Header.Get("Imagestore-Error"); got == "" {
		t.Errorf("the answer %s to %s has no header Imagestore-Error: does a proxy answer itself, replace the store's errors by pages of its own, or drop headers that it does not know?", r.Status, r.Request.Method)
	} else if got != code {
		t.Errorf("the header Imagestore-Error of %s to %s is %q, not %q", r.Status, r.Request.Method, got, code)
	}
	if r.Request.Method == http.MethodHead {
		return
	}
	var p struct {
		Title, Detail, Code string
		Status              int
	}
	if mediaType, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); mediaType != "application/problem+json" {
		t.Errorf("the answer %s is of type %q, not application/problem+json: does a proxy replace the store's errors?", r.Status, r.Header.Get("Content-Type"))
	} else if err := json.Unmarshal(r.body, &p); err != nil || p.Status != status || p.Code != code || p.Title == "" {
		t.Errorf("the body of %s is %.200q, %v, not the problem %q", r.Status, r.body, err, code)
	} else if !strings.Contains(p.Detail, text) {
		t.Errorf("the detail of %s is %q, which does not have %q", r.Status, p.Detail, text)
	}
}

// wantStored checks the answer to an upload and what is stored then.
func (s *site) wantStored(t *testing.T, got reply, status int, b []byte) imagestore.Info {
	t.Helper()
	if got.StatusCode != status {
		t.Fatalf("%s is answered with %s, not %d%s", got.Request.Method, got.Status, status, got.whose())
	}
	var info imagestore.Info
	if err := json.Unmarshal(got.body, &info); err != nil || info.Size != int64(len(b)) || info.ModTime.IsZero() {
		t.Errorf("the answer to an upload of %d bytes is %q, %v", len(b), got.body, err)
	}
	if info.ETag == "" || info.ETag != got.Header.Get("ETag") {
		t.Errorf("the store says that the ETag is %s, the header says %q: does a proxy change it?", info.ETag, got.Header.Get("ETag"))
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
		t.Errorf("the Location that an upload is answered with, %s, is answered with %s, %v: does a proxy change paths, so that the store cannot know its own?", location, resp.Status, err)
	} else if !bytes.Equal(read, b) {
		t.Errorf("at the Location that an upload is answered with, %s, there are %d bytes that are not the %d sent", location, len(read), len(b))
	}
	return info
}

// unchanged checks that an image is still what it was.
func (s *site) unchanged(t *testing.T, id string, b []byte) {
	t.Helper()
	if got := s.send(t, "GET", "/images/"+id, nil); got.want(t, http.StatusOK, "") && !bytes.Equal(got.body, b) {
		t.Errorf("the image is not what it was: %d bytes, not %d", len(got.body), len(b))
	}
}

func (s *site) testRaw(t *testing.T) {
	id := s.id(t, "raw")
	small, large := picture(t, 10, 1), picture(t, 300, 2)
	status := http.StatusCreated
	for _, method := range []string{"PUT", "POST"} {
		for _, contentType := range []string{"", "image/png", "application/octet-stream"} {
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
				t.Errorf("the id is %q, not %q", info.ID, id)
			}
			status = http.StatusOK
		}
	}
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(large), "Content-Type", "text/html")
	got.wantProblem(t, http.StatusUnsupportedMediaType, "not_png", "multipart/form-data")
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
	b := picture(t, 300, 1)
	status := http.StatusCreated
	for _, parts := range [][]string{{"file", string(b)}, {"before", "x", "file", string(b), "after", "y"}} {
		body, contentType := form(t, parts...)
		got := s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", contentType)
		s.wantStored(t, got, status, b)
		status = http.StatusOK
	}
	other := string(picture(t, 10, 2))
	for _, test := range []struct {
		parts []string
		text  string // that the detail has
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
	got := s.send(t, "POST", "/images/"+id, strings.NewReader(body[:len(body)-10]), "Content-Type", contentType)
	got.wantProblem(t, http.StatusBadRequest, "bad_request", "multipart")
	got = s.send(t, "POST", "/images/"+id, strings.NewReader(body), "Content-Type", "multipart/form-data")
	got.wantProblem(t, http.StatusBadRequest, "bad_request", "boundary")
	s.unchanged(t, id, b)
}

func (s *site) testNewID(t *testing.T) {
	b := picture(t, 10, 1)
	body, contentType := form(t, "file", string(b))
	var ids []string
	for _, got := range []reply{
		s.send(t, "POST", "/images", bytes.NewReader(b)),
		s.send(t, "POST", "/images", strings.NewReader(body), "Content-Type", contentType),
	} {
		var info imagestore.Info
		if err := json.Unmarshal(got.body, &info); err == nil && imagestore.CheckID(info.ID) == nil {
			s.deleteLater(t, info.ID)
		}
		ids = append(ids, s.wantStored(t, got, http.StatusCreated, b).ID)
	}
	if ids[0] == ids[1] || imagestore.CheckID(ids[0]) != nil {
		t.Errorf("the server makes the ids %q", ids)
	}
}

func (s *site) testChunked(t *testing.T) {
	b := picture(t, 300, 1)
	// Wrapped, so that net/http cannot find out how long it is.
	got := s.send(t, "PUT", "/images/"+s.id(t, "chunked"), io.MultiReader(bytes.NewReader(b)))
	s.wantStored(t, got, http.StatusCreated, b)
}

func (s *site) testLarge(t *testing.T) {
	b := picture(t, 1024, 1)
	s.wantStored(t, s.put(t, s.id(t, "large"), b), http.StatusCreated, b)
}

func (s *site) testCut(t *testing.T) {
	b, id := picture(t, 300, 1), s.id(t, "cut")
	s.put(t, id, b)
	other := picture(t, 300, 2)
	broken := errors.New("the client hangs up")
	// No answer comes, but the store must not take the part for the whole.
	_, _ = s.try(t.Context(), "PUT", "/images/"+id, io.MultiReader(bytes.NewReader(other[:70_000]), failingReader{broken}))
	s.unchanged(t, id, b)
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func (s *site) testGet(t *testing.T) {
	b, id := picture(t, 300, 1), s.id(t, "get")
	sent := s.put(t, id, b)
	got := s.send(t, "GET", "/images/"+id, nil)
	if !got.want(t, http.StatusOK, "") {
		return
	}
	if got.Uncompressed || got.Header.Get("Content-Encoding") != "" {
		t.Error("the image arrives compressed, which is not how it was stored: PNGs do not get smaller, and neither Content-Length nor ranges nor the ETag fit any more; keep the proxy from compressing image/png")
	}
	if !bytes.Equal(got.body, b) {
		t.Errorf("the %d bytes that arrive are not the %d that were sent: does a proxy compress or optimize images?", len(got.body), len(b))
	}
	s.wantHeader(t, got, id, len(b), sent.Header.Get("ETag"))
}

// wantHeader checks the header of a whole image.
func (s *site) wantHeader(t *testing.T, got reply, id string, size int, etag string) {
	t.Helper()
	if arrived := got.Header.Get("ETag"); arrived != etag || strings.HasPrefix(arrived, "W/") || arrived == "" {
		t.Errorf("the ETag that was sent, %s, is not the one that arrives, %s: does a proxy compress, or drop the header?", etag, arrived)
	}
	if got.ContentLength != int64(size) {
		t.Errorf("Content-Length is %d (-1 for none), not %d: does a proxy compress or recode?", got.ContentLength, size)
	}
	if _, err := http.ParseTime(got.Header.Get("Last-Modified")); err != nil {
		t.Errorf("Last-Modified is %q", got.Header.Get("Last-Modified"))
	}
	for name, want := range map[string]string{
		"Content-Type":           "image/png",
		"Accept-Ranges":          "bytes",
		"Cache-Control":          "no-cache",
		"X-Content-Type-Options": "nosniff",
		"Content-Disposition":    `inline; filename="` + id + `.png"`,
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("the header %s is %q, not %q: does middleware set or drop it?", name, got, want)
		}
	}
	if csp := got.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "sandbox") {
		t.Errorf("the Content-Security-Policy is %q, which does not make an image harmless: does middleware set its own?", csp)
	}
}

func (s *site) testHead(t *testing.T) {
	b, id := picture(t, 300, 1), s.id(t, "head")
	sent := s.put(t, id, b)
	got := s.send(t, "HEAD", "/images/"+id, nil)
	if got.want(t, http.StatusOK, "") {
		s.wantHeader(t, got, id, len(b), sent.Header.Get("ETag"))
	}
	if len(got.body) > 0 {
		t.Errorf("HEAD is answered with a body of %d bytes", len(got.body))
	}
}

func (s *site) testRange(t *testing.T) {
	const hint = "does a proxy or middleware drop Range or If-Range?"
	b, id := picture(t, 300, 1), s.id(t, "range")
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
		if !bytes.Equal(got.body, b[test.from:test.to]) || got.Header.Get("Content-Range") != want || got.Header.Get("ETag") != etag {
			t.Errorf("%q: %d bytes, Content-Range %q, ETag %s; not %d, %q, %s", test.header, len(got.body), got.Header.Get("Content-Range"), got.Header.Get("ETag"), test.to-test.from, want, etag)
		}
	}
	got := s.send(t, "GET", "/images/"+id, nil, "Range", "bytes=10-", "If-Range", `"another"`)
	if got.want(t, http.StatusOK, hint) && !bytes.Equal(got.body, b) {
		t.Errorf("a range of another version gives %d bytes, not the whole image", len(got.body))
	}
	got = s.send(t, "GET", "/images/"+id, nil, "Range", "bytes=99999999-")
	got.wantProblem(t, http.StatusRequestedRangeNotSatisfiable, "range_not_satisfiable", strconv.Itoa(len(b)))
	if want := fmt.Sprintf("bytes */%d", len(b)); got.StatusCode == http.StatusRequestedRangeNotSatisfiable && got.Header.Get("Content-Range") != want {
		t.Errorf("Content-Range is %q, not %q", got.Header.Get("Content-Range"), want)
	}
}

func (s *site) testNotModified(t *testing.T) {
	b, id := picture(t, 10, 1), s.id(t, "notmodified")
	etag := s.put(t, id, b).Header.Get("ETag")
	modified := s.send(t, "HEAD", "/images/"+id, nil).Header.Get("Last-Modified")
	for _, method := range []string{"GET", "HEAD"} {
		for _, header := range [][]string{
			{"If-None-Match", etag},
			{"If-None-Match", `"another", W/` + etag},
			{"If-Modified-Since", modified},
		} {
			got := s.send(t, method, "/images/"+id, nil, header...)
			if got.want(t, http.StatusNotModified, "does a proxy or middleware drop "+header[0]+"?") && (len(got.body) > 0 || got.Header.Get("ETag") != etag) {
				t.Errorf("a 304 has %d bytes and the ETag %s, not none and %s", len(got.body), got.Header.Get("ETag"), etag)
			}
		}
	}
	got := s.send(t, "GET", "/images/"+id, nil, "If-None-Match", `"another"`)
	if got.want(t, http.StatusOK, "") && !bytes.Equal(got.body, b) {
		t.Errorf("%d bytes arrive, not %d", len(got.body), len(b))
	}
}

func (s *site) testReadMatch(t *testing.T) {
	id := s.id(t, "readmatch")
	etag := s.put(t, id, picture(t, 10, 1)).Header.Get("ETag")
	s.send(t, "GET", "/images/"+id, nil, "If-Match", etag).want(t, http.StatusOK, "does a proxy change ETags?")
	s.send(t, "GET", "/images/"+id, nil, "If-Match", `"another"`).wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", etag)
}

func (s *site) testCreateOnly(t *testing.T) {
	b, id := picture(t, 10, 1), s.id(t, "createonly")
	s.wantStored(t, s.put(t, id, b, "If-None-Match", "*"), http.StatusCreated, b)
	for _, method := range []string{"PUT", "POST"} {
		got := s.send(t, method, "/images/"+id, bytes.NewReader(picture(t, 10, 2)), "If-None-Match", "*")
		if got.StatusCode < 300 {
			t.Errorf("%s with If-None-Match: * replaces an image: does a proxy or middleware drop If-None-Match?", method)
			continue
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "")
	}
}

func (s *site) testReplaceOnly(t *testing.T) {
	id := s.id(t, "replaceonly")
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(picture(t, 10, 1)), "If-Match", "*")
	got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "no image")
	first := s.put(t, id, picture(t, 10, 1)).Header.Get("ETag")
	b := picture(t, 10, 2)
	second := s.put(t, id, b, "If-Match", first).Header.Get("ETag")
	if first == second {
		t.Errorf("two versions have one ETag, %s", first)
	}
	for _, method := range []string{"PUT", "POST", "DELETE"} {
		got := s.send(t, method, "/images/"+id, bytes.NewReader(picture(t, 10, 3)), "If-Match", first)
		if got.StatusCode < 300 {
			t.Fatalf("%s with If-Match of an old version is carried out: does a proxy or middleware drop If-Match?", method)
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", second)
	}
	s.unchanged(t, id, b)
	s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), "If-Match", "no quotes").wantProblem(t, http.StatusBadRequest, "bad_request", "quotes")
	deleted := s.send(t, "DELETE", "/images/"+id, nil, "If-Match", second)
	if deleted.StatusCode == http.StatusNotImplemented {
		deleted.wantProblem(t, http.StatusNotImplemented, "unsupported", "condition")
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
		b := picture(t, 30, uint64(i))
		wg.Go(func() {
			replies[i], errs[i] = s.try(t.Context(), "PUT", "/images/"+id, bytes.NewReader(b), "If-None-Match", "*")
		})
	}
	wg.Wait()
	winners := 0
	for i, got := range replies {
		if errs[i] != nil {
			t.Fatalf("PUT is not answered: %v", errs[i])
		}
		if got.StatusCode < 300 {
			winners++
			s.unchanged(t, id, picture(t, 30, uint64(i)))
			continue
		}
		got.wantProblem(t, http.StatusPreconditionFailed, "precondition_failed", "")
	}
	if winners != 1 {
		t.Errorf("of %d who create one image with If-None-Match: *, %d succeed: do several servers share one directory, or does a proxy repeat requests or drop the header?", writers, winners)
	}
}

func (s *site) testDelete(t *testing.T) {
	id := s.id(t, "delete")
	s.put(t, id, picture(t, 10, 1))
	got := s.send(t, "DELETE", "/images/"+id, nil)
	if got.want(t, http.StatusNoContent, "") && len(got.body) > 0 {
		t.Errorf("DELETE is answered with a body of %d bytes", len(got.body))
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
		t.Fatalf("GET /images%s is answered with %s%s", query, got.Status, got.whose())
	}
	if mediaType, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type")); mediaType != "application/json" {
		t.Errorf("the list is of type %q, not application/json", got.Header.Get("Content-Type"))
	}
	if err := json.Unmarshal(got.body, &p); err != nil || p.Images == nil {
		t.Fatalf("the list is %.200q, %v", got.body, err)
	}
	return p, string(got.body)
}

func (s *site) testList(t *testing.T) {
	want := make(map[string]string)
	for i := range 5 {
		id := s.id(t, fmt.Sprint("list", i))
		want[id] = s.put(t, id, picture(t, 5, uint64(i))).Header.Get("ETag")
	}
	// Others' images may be in the list, but hardly between these.
	got := make(map[string]string)
	after := s.prefix + "-list"
	for i := range 3 {
		p, _ := s.list(t, "?limit=2&after="+url.QueryEscape(after))
		if len(p.Images) > 2 {
			t.Fatalf("a page of at most 2 has %d images: does a proxy drop queries?", len(p.Images))
		}
		for _, info := range p.Images {
			if info.ID <= after {
				t.Fatalf("%q comes after %q: does a proxy drop queries?", info.ID, after)
			}
			after = info.ID
			if strings.HasPrefix(info.ID, s.prefix) {
				got[info.ID] = info.ETag
			}
		}
		if p.Next != "" && p.Next != after {
			t.Errorf("next is %q, the last image of the page %q", p.Next, after)
		}
		if p.Next == "" && i < 2 {
			t.Fatal("next is missing before the end of the list")
		}
	}
	for id, etag := range want {
		if got[id] != etag {
			t.Errorf("%s is in the list with the ETag %q, not %q", id, got[id], etag)
		}
	}
	if p, body := s.list(t, "?after="+strings.Repeat("z", 128)); len(p.Images) > 0 || strings.Contains(body, "null") {
		t.Errorf("the list after the last image is %s", body)
	}
	s.send(t, "HEAD", "/images", nil).want(t, http.StatusOK, "")
	for _, query := range []string{"?limit=0", "?limit=1001", "?limit=x", "?after=.."} {
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
			t.Errorf("Allow is %q, not %q: does middleware, for CORS perhaps, answer OPTIONS itself?", got.Header.Get("Allow"), allow)
		}
		if !strings.Contains(got.Header.Get("Accept-Post"), "multipart/form-data") {
			t.Errorf("Accept-Post is %q", got.Header.Get("Accept-Post"))
		}
		for _, name := range []string{"Imagestore-Max-Bytes", "Imagestore-Max-Pixels"} {
			if n, err := strconv.ParseInt(got.Header.Get(name), 10, 64); err != nil || n <= 0 {
				t.Errorf("%s is %q, which is no limit", name, got.Header.Get(name))
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
			t.Errorf("Allow is %q, not %q", got.Header.Get("Allow"), test.allow)
		}
	}
}

func (s *site) testBadIDs(t *testing.T) {
	b := picture(t, 3, 1)
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
				quirk(t, "%s of the id %s is not answered: %v", method, id, err)
			case got.StatusCode < 300 || got.StatusCode >= 500:
				t.Errorf("%s of the id %s is answered with %s, not 400", method, id, got.Status)
			case got.Header.Get("Imagestore-Error") == "":
				quirk(t, "%s of the id %s is answered with %s, but not by the store", method, id, got.Status)
			case got.StatusCode == http.StatusBadRequest:
				got.wantProblem(t, http.StatusBadRequest, "invalid_id", "an id is 1 to 128 characters")
			}
		}
	}
}

func (s *site) testBadRequests(t *testing.T) {
	b, id := picture(t, 10, 1), s.id(t, "badrequest")
	for _, header := range [][]string{
		{"Content-Range", "bytes 0-9/10"},
		{"If-Unmodified-Since", time.Now().UTC().Format(http.TimeFormat)},
		{"If-None-Match", "no quotes"},
	} {
		got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(b), header...)
		if got.StatusCode < 300 {
			t.Errorf("PUT with %q is carried out: does a proxy or middleware drop the header?", header)
			continue
		}
		got.wantProblem(t, http.StatusBadRequest, "bad_request", "")
	}
	s.wantGone(t, id)
}

func (s *site) testBadImages(t *testing.T) {
	good, id := picture(t, 300, 1), s.id(t, "badimage")
	s.put(t, id, good)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-30] ^= 1
	for _, test := range []struct {
		b      []byte
		status int
		code   string
		text   string
	}{
		{[]byte("hello, world"), http.StatusUnsupportedMediaType, "not_png", ""},
		{[]byte("GIF89a and so on"), http.StatusUnsupportedMediaType, "not_png", "GIF"},
		{nil, http.StatusUnsupportedMediaType, "not_png", ""},
		{good[:len(good)-1], http.StatusUnprocessableEntity, "broken_png", "byte"},
		{good[:100], http.StatusUnprocessableEntity, "broken_png", "byte"},
		{flipped, http.StatusUnprocessableEntity, "broken_png", "byte"},
		{append(bytes.Clone(good), 0), http.StatusUnprocessableEntity, "broken_png", "byte"},
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
	const side = 1<<31 - 1 // the most that a PNG can say
	if pixels < side*side {
		// What the header says is enough: no more is sent than a few bytes.
		b := slices.Clone(picture(t, 1, 1))
		binary.BigEndian.PutUint32(b[16:], side)
		binary.BigEndian.PutUint32(b[20:], side)
		binary.BigEndian.PutUint32(b[29:], crc32.ChecksumIEEE(b[12:29]))
		s.send(t, "PUT", "/images/"+id, bytes.NewReader(b)).wantProblem(t, http.StatusRequestEntityTooLarge, "too_large", "")
	}
	size, _ := strconv.ParseInt(limits.Get("Imagestore-Max-Bytes"), 10, 64)
	if size > 8<<20 {
		quirk(t, "the limit of %d bytes is too much to be tried out", size)
		return
	}
	got := s.send(t, "PUT", "/images/"+id, bytes.NewReader(make([]byte, size+1)), "Expect", "100-continue")
	got.wantProblem(t, http.StatusRequestEntityTooLarge, "too_large", strconv.FormatInt(size, 10))
}
