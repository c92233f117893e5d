package imagestore_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/etag"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/internal/verify"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// FuzzCheckID checks that an accepted id is one plain file name on every platform
// and needs no escaping in a URL.
func FuzzCheckID(f *testing.F) {
	for _, id := range []string{"TestPost", "..", "a/b", ".staging", "nul.png", "STAGIN~1", "a.", "é", "a\x00"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		err := imagestore.CheckID(id)
		if err != nil {
			if !errors.Is(err, imagestore.ErrInvalidID) || len(err.Error()) > 500 {
				t.Errorf("CheckID(%q): got %v, want a short ErrInvalidID", id, err)
			}
			return
		}
		if len(id) < 1 || len(id) > 128 || !filepath.IsLocal(id) || id != filepath.Base(id) || strings.ContainsAny(id, `/\:*?"<>|`) ||
			strings.HasPrefix(id, ".") || strings.HasSuffix(id, ".") || url.PathEscape(id) != id || url.QueryEscape(id) != id {
			t.Errorf("CheckID(%q): got nil, want an error", id)
		}
	})
}

// FuzzPrecondition checks that a list of ETags means the same for a change, for a
// read, and for a read by net/http, or is refused.
func FuzzPrecondition(f *testing.F) {
	s := imagestore.New(afero.NewMemMapFs(), nil)
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	info, err := s.Put(f.Context(), "a", bytes.NewReader(testimage.PNG(f, 1, 1)))
	if err != nil {
		f.Fatal(err)
	}
	for _, list := range []string{"*", info.ETag, "W/" + info.ETag, `"x", ` + info.ETag, `"x","y"`, "abc", `"`, "", " * ", `*, "x"`, `"a,b" ,W/"c"`, `"x",`, `,"x"`} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		list = strings.ReplaceAll(list, "ETAG", info.ETag)
		r := httptest.NewRequest("GET", "/images/a", nil)
		r.Header.Set("If-Match", list)
		own := httptest.NewRecorder()
		h.ServeHTTP(own, r)
		byNetHTTP := httptest.NewRecorder()
		byNetHTTP.Header().Set("ETag", info.ETag)
		http.ServeContent(byNetHTTP, r, "", info.ModTime, strings.NewReader(""))
		err := s.Delete(t.Context(), "a", imagestore.IfMatch(list))
		status := 0
		switch {
		case err == nil:
			status = http.StatusOK
			if info, err = s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1))); err != nil {
				t.Fatal(err)
			}
		case errors.Is(err, imagestore.ErrBadRequest):
			status = http.StatusBadRequest
		case errors.Is(err, imagestore.ErrPreconditionFailed):
			status = http.StatusPreconditionFailed
			if byNetHTTP.Code != status {
				t.Errorf("If-Match: %q: got %d from net/http, want 412 as for a change", list, byNetHTTP.Code)
			}
		default:
			t.Fatal(err)
		}
		if own.Code != status {
			t.Errorf("If-Match: %q: got %d for a read, want %d as for a change", list, own.Code, status)
		}
	})
}

// newFuzzStore returns a handler of a store, and a function that checks its files
// and returns its ids. The filesystem also has files outside of the store.
func newFuzzStore(t *testing.T) (h http.Handler, check func() (ids []string)) {
	fsys := afero.NewMemMapFs()
	for _, name := range []string{"secret/image", "srv/secret", "srv/images-not/x/image"} {
		if err := afero.WriteFile(fsys, name, []byte("secret"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	s := imagestore.New(afero.NewBasePathFs(fsys, "srv/images"), &imagestore.Options{MaxBytes: 1 << 20, MaxPixels: 1 << 16})
	before := files(t, fsys)
	return imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet}), func() (ids []string) {
		var outside []string
		for _, name := range files(t, fsys) {
			inside, ok := strings.CutPrefix(name, "srv/images/")
			switch dir, file, _ := strings.Cut(inside, "/"); {
			case name == "srv/images":
			case !ok:
				outside = append(outside, name)
			case dir == ".staging" && file == "":
			case file == "image":
				b, err := afero.ReadFile(fsys, name)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := verify.Copy(io.Discard, bytes.NewReader(b), verify.Options{}); err != nil {
					t.Errorf("stored image: got %v, want it valid", err)
				}
				ids = append(ids, dir)
			case file != "":
				t.Errorf("got the file %s, want images alone", name)
			}
		}
		if !slices.Equal(outside, before) {
			t.Errorf("outside of the store: got %v, want %v", outside, before)
		}
		return ids
	}
}

// checkAnswer checks the properties that every answer has.
func checkAnswer(t *testing.T, rec *httptest.ResponseRecorder) {
	h := rec.Header()
	if h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("got header %v, want nosniff and sandbox", h)
	}
	if failed := rec.Code >= 400; failed != (h.Get("Imagestore-Error") != "") || failed != (h.Get("Content-Type") == "application/problem+json") || rec.Code == 500 {
		t.Errorf("got %d, %v, %s, want a success or a problem, not 500", rec.Code, h, rec.Body)
	}
	if strings.Contains(rec.Body.String(), "srv/") || strings.Contains(rec.Body.String(), "goroutine") {
		t.Errorf("got %s, want no path and no stack", rec.Body)
	}
}

// FuzzMultipart checks that every form either stores a valid image, or stores
// nothing and gets a problem.
func FuzzMultipart(f *testing.F) {
	good := testimage.PNG(f, 2, 1)
	for _, parts := range [][]part{
		{file("file", good)}, {field("a", "1"), file("file", good), field("b", "2")}, {file("file", good), file("file", good)}, {field("x", "y")}, {}, {file("file", good[:20])},
	} {
		body, contentType := form(f, parts...)
		boundary := strings.TrimPrefix(contentType, "multipart/form-data; boundary=")
		f.Add([]byte(strings.ReplaceAll(body, boundary, "b")), "multipart/form-data; boundary=b")
	}
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=file\r\nRepr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\n\r\n"+string(good)+"\r\n--b--"), "multipart/form-data; boundary=b")
	f.Add(good, "multipart/form-data")
	f.Add(good, "multipart/form-data; boundary=\"\x00\"")
	f.Add([]byte("--b\nContent-Disposition: form-data; name=file\n\n"+string(good)+"\n--b--"), "multipart/form-data; boundary=b")
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		h, check := newFuzzStore(t)
		r := httptest.NewRequest("POST", "/images/a", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		checkAnswer(t, rec)
		if ids := check(); (rec.Code == http.StatusCreated) != slices.Equal(ids, []string{"a"}) || rec.Code != http.StatusCreated && len(ids) > 0 {
			t.Errorf("got %d and ids %v", rec.Code, ids)
		}
	})
}

// FuzzHandler checks that every request gets a valid answer and changes nothing
// outside of the store.
func FuzzHandler(f *testing.F) {
	good := string(testimage.PNG(f, 2, 1))
	for _, request := range []string{
		"GET /images/x HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,5-\r\nIf-Range: \"a\"\r\n\r\n",
		"HEAD /images/x HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\", *\r\n\r\n",
		"HEAD /images/x HTTP/1.1\r\nHost: x\r\nWant-Repr-Digest: sha-256=1, sha-512=2;a\r\n\r\n",
		"PUT /images/y HTTP/1.1\r\nHost: x\r\nRepr-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:\r\nContent-Length: 5\r\n\r\nhello",
		"GET /images?limit=1&after=a HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS /images HTTP/1.1\r\nHost: x\r\n\r\n",
		"DELETE /images/x HTTP/1.1\r\nHost: x\r\nIf-Match: *\r\n\r\n",
		"PUT /images/%2e%2e%2fsecret HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST http://x/images HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"PUT /images/y HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x", len(good)) + "\r\n" + good + "\r\n0\r\n\r\n",
		"PUT /images/y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + good,
	} {
		f.Add([]byte(request))
	}
	image := testimage.PNG(f, 3, 2)
	f.Fuzz(func(t *testing.T, request []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return // net/http answers it
		}
		h, check := newFuzzStore(t)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("PUT", "/images/x", bytes.NewReader(image)))
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		checkAnswer(t, rec)
		ids := check()
		switch {
		case rec.Code == 201 && len(ids) == 2, rec.Code == 204 && r.Method == "DELETE" && len(ids) == 0:
		default:
			if !slices.Equal(ids, []string{"x"}) {
				t.Errorf("after %q, answered %d: got ids %v, want x", request, rec.Code, ids)
			}
		}
	})
}

// FuzzRead sends the same request to the handler and to [http.ServeContent], for the
// same bytes, ETag and Last-Modified. forNetHTTP has the differences that are meant.
func FuzzRead(f *testing.F) {
	fsys := afero.NewMemMapFs()
	s := imagestore.New(fsys, nil)
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	b := testimage.PNG(f, 30, 1)
	if _, err := s.Put(f.Context(), "a", bytes.NewReader(b)); err != nil {
		f.Fatal(err)
	}
	modified := time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
	mtime := modified.Add(-time.Second / 4)
	if err := fsys.Chtimes("a/image", mtime, mtime); err != nil {
		f.Fatal(err)
	}
	info, err := s.Stat(f.Context(), "a")
	if err != nil {
		f.Fatal(err)
	}
	netHTTP := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", info.ETag)
		w.Header().Set("Content-Type", "image/png")
		http.ServeContent(w, r, "", modified, bytes.NewReader(b))
	})
	words := strings.NewReplacer("ETAG", info.ETag, "DATE", modified.Format(http.TimeFormat), "DAY", "Thu, 05 Mar 2026 00:00:00 GMT")
	for _, header := range []string{
		"Range: bytes=0-5,7-9", "Range: Bytes=-0, 5-", "Range: items=0-5", "Range: bytes=99999999999999999999-", "Range: bytes=3-99999999999999999999", "Range: bytes=5-2",
		"Range: bytes=0 - 5 ,, -7\r\nIf-Range: ETAG", "Range: bytes=1-\r\nIf-Range: W/ETAG", "Range: bytes=1-\r\nIf-Range: DATE", "Range: bytes=1-\r\nIf-Range: ETAG, \"x\"",
		"If-None-Match: \"x\", W/ETAG", "If-None-Match: *", "If-None-Match:\r\nIf-Modified-Since: DATE", "If-None-Match: x", "If-None-Match: \"x\"\r\nIf-None-Match: ETAG",
		"If-Modified-Since: DATE", "If-Modified-Since: DAY", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", "If-Modified-Since: Wed Mar  4 05:06:08 2026",
		"If-Unmodified-Since: DATE\r\nRange: bytes=1-", "If-Unmodified-Since: DAY\r\nRange: bytes=1-", "If-Unmodified-Since: Sunday, 06-Nov-94 08:49:37 GMT",
		"If-Match: ETAG\r\nIf-None-Match: ETAG", "If-Match: \"x\"\r\nRange: bytes=99999-", "If-Match: W/ETAG", "If-Match: *\r\nRange: bytes=-7",
		"If-None-Match: \"a b\",ETAG", "Range: bytes=-9227000000000000000A", "Range: bytes=-1,0-,0", "Range: bytes=0--0", "Range: bytes=\u00a0",
		"Want-Repr-Digest: sha-256=1\r\nWant-Content-Digest: sha-512=1\r\nRange: bytes=1-3",
	} {
		f.Add(header, false)
		f.Add(header, true)
	}
	f.Fuzz(func(t *testing.T, header string, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		request := method + " /images/a HTTP/1.1\r\nHost: x\r\n" + words.Replace(header) + "\r\n\r\n"
		read := func() *http.Request {
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
			if err != nil || r.URL.Path != "/images/a" || r.ContentLength != 0 {
				return nil // net/http answers it, or it is no read
			}
			return r
		}
		r := read()
		if r == nil {
			return
		}
		got, want := httptest.NewRecorder(), httptest.NewRecorder()
		h.ServeHTTP(got, r)
		checkAnswer(t, got)
		r, status := forNetHTTP(read(), info.ETag, modified)
		if status != 0 {
			if got.Code != status {
				t.Errorf("%q: got %d, want %d", request, got.Code, status)
			}
			return
		}
		netHTTP.ServeHTTP(want, r)
		compareReads(t, request, head, got, want)
	})
}

// forNetHTTP changes a request so that [http.ServeContent] answers it as the handler
// answers the original, or returns the status of that. These are all the differences.
func forNetHTTP(r *http.Request, tag string, modified time.Time) (_ *http.Request, status int) {
	h := r.Header
	isDate := func(name string) bool {
		t, err := http.ParseTime(h.Get(name))
		return err == nil && len(h[name]) == 1 && t.Equal(modified)
	}
	// A list of ETags may have several lines. A malformed one is refused, or matches
	// nothing.
	for _, name := range []string{"If-Match", "If-None-Match"} {
		list := strings.Join(h[name], ", ")
		if h[name] != nil {
			h[name] = []string{list}
		}
		switch _, err := etag.Match(list, tag, true); {
		case h[name] == nil:
		case err != nil && name == "If-Match":
			return r, http.StatusBadRequest
		case err != nil, strings.Contains(list, `*`) && strings.Trim(list, " \t") != "*":
			h[name] = []string{`"none"`}
		}
	}
	// A date is ignored if there are several, or if it is not Last-Modified.
	if !isDate("If-Modified-Since") {
		h.Del("If-Modified-Since")
	}
	if len(h["If-Unmodified-Since"]) > 1 {
		h["If-Unmodified-Since"] = []string{"none"}
	}
	if h["If-Unmodified-Since"] != nil && h["If-Match"] == nil && !isDate("If-Unmodified-Since") {
		h.Del("Range")
	}
	// If-Range has one value.
	if v := h["If-Range"]; v != nil && !(len(v) == 1 && v[0] == tag) && !isDate("If-Range") {
		h.Del("Range")
	}
	// Range is for GET, has one line, the unit bytes, and at most 64 ranges.
	unit, set, ok := strings.Cut(h.Get("Range"), "=")
	specs := strings.Split(set, ",")
	if r.Method == http.MethodHead || len(h["Range"]) != 1 || !ok || !strings.EqualFold(unit, "bytes") || len(specs) > 64 {
		h.Del("Range")
		return r, 0
	}
	// Numbers have no sign and no upper limit. A suffix of no bytes is beyond the end.
	for i, spec := range specs {
		spec = strings.Trim(longNumber.ReplaceAllString(spec, "99999999"), " \t")
		if from, to, _ := strings.Cut(spec, "-"); strings.Trim(from, " \t") == "" && noBytes.MatchString(to) {
			spec = "99999999-"
		}
		if strings.Contains(spec, "+") || strings.Count(spec, "-") > 1 {
			spec = "malformed"
		}
		specs[i] = spec
	}
	h.Set("Range", "bytes="+strings.Join(specs, ","))
	return r, 0
}

var (
	longNumber = regexp.MustCompile(`\b0*[1-9][0-9]{17,}\b`)
	noBytes    = regexp.MustCompile(`^[ \t]*0+$`)
)

// compareReads compares what matters of two answers to one request.
func compareReads(t *testing.T, request string, head bool, got, want *httptest.ResponseRecorder) {
	t.Helper()
	if got.Code != want.Code {
		t.Fatalf("%q: got %d, want %d as from net/http", request, got.Code, want.Code)
	}
	names := []string{"ETag", "Content-Range", "Last-Modified", "Accept-Ranges", "Content-Length", "Content-Type"}
	wantBody, gotBody := want.Body.Bytes(), got.Body.Bytes()
	switch boundaryOf := func(rec *httptest.ResponseRecorder) string {
		_, params, _ := mime.ParseMediaType(rec.Header().Get("Content-Type"))
		return params["boundary"]
	}; {
	case want.Code == http.StatusNotModified:
		names = names[:1]
	case want.Code >= 400:
		if want.Header().Get("Content-Range") == "" { // net/http has none if Range is malformed
			return
		}
		names, wantBody, gotBody = names[1:2], nil, nil
	case boundaryOf(want) != "":
		names = names[:4]
		gotBody, wantBody = textOf(t, boundaryOf(got), gotBody), textOf(t, boundaryOf(want), wantBody)
	}
	for _, name := range names {
		if got, want := got.Header().Get(name), want.Header().Get(name); got != want {
			t.Errorf("%q: got %s %q, want %q as from net/http", request, name, got, want)
		}
	}
	if !head && !bytes.Equal(gotBody, wantBody) {
		t.Errorf("%q: got %d bytes, want %d as from net/http", request, len(gotBody), len(wantBody))
	}
}

// textOf returns the parts of a multipart body with their headers.
func textOf(t *testing.T, boundary string, body []byte) []byte {
	t.Helper()
	var text bytes.Buffer
	for parts := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		p, err := parts.NextPart()
		if err == io.EOF {
			return text.Bytes()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&text, p.Header)
		if _, err := io.Copy(&text, p); err != nil {
			t.Fatal(err)
		}
	}
}

// FuzzSequence sends sequences of requests and compares every answer with a model, a
// map of ids to versions. Three bytes are a request.
func FuzzSequence(f *testing.F) {
	ids := []string{"a", "b", "a.png", "A~b", ".a", "a.", "%61", "a%2Fb", "a/b"}
	names := map[string]string{"a": "a", "%61": "a", "b": "b", "a.png": "a.png", "A~b": "A~b"} // the valid ids
	methods := []string{"GET", "HEAD", "PUT", "POST", "DELETE", "LIST"}
	good := [][]byte{testimage.PNG(f, 2, 1), testimage.PNG(f, 2, 2), testimage.PNG(f, 9, 3)}
	broken := map[int][]byte{415: []byte("GIF89a and so on"), 422: good[0][:len(good[0])-1], 413: testimage.PNG(f, 300, 1)}
	f.Add([]byte{2, 0, 0, 0, 0, 0, 2, 0, 1, 4, 16, 0, 2, 32, 2, 5, 0, 0})
	f.Add([]byte{2, 16, 0, 2, 16, 1, 3, 48, 2, 4, 64, 0, 0, 32, 0, 1, 48, 0, 4, 6, 0, 5, 0, 0})
	f.Add([]byte{3, 1, 3, 3, 1, 4, 3, 1, 5, 3, 1, 8, 0, 1, 0, 2, 4, 0, 2, 7, 0, 4, 8, 0})
	f.Fuzz(func(t *testing.T, program []byte) {
		type version struct {
			etag string
			b    []byte
		}
		h, check := newFuzzStore(t)
		model := make(map[string]version)
		old := `"old"` // an ETag of a version that was replaced or deleted
		for step := 0; len(program) >= 3 && step < 50; step++ {
			method, id := methods[int(program[0])%len(methods)], ids[int(program[1]&15)%len(ids)]
			name, valid := names[id]
			now, exists := model[name]
			target, body, status := "/images/"+id, []byte(nil), 200
			if method == "LIST" {
				method, target, valid = "GET", "/images?limit=1000", false
			}
			listed := target != "/images/"+id
			change := method != "GET" && method != "HEAD"
			r := httptest.NewRequest(method, target, nil)
			if method == "PUT" || method == "POST" {
				body = good[int(program[2])%len(good)]
				for n, code := range []int{415, 422, 413} {
					if int(program[2]&7) == n+3 {
						body, status = broken[code], code
					}
				}
				contentType := ""
				sent := string(body)
				if program[2]&8 != 0 {
					sent, contentType = form(t, file("file", body))
				}
				r = httptest.NewRequest(method, target, strings.NewReader(sent))
				r.Header.Set("Content-Type", contentType)
				if contentType == "" {
					r.Header.Del("Content-Type")
				}
			}
			holds := true
			switch condition := program[1] >> 4; condition % 6 {
			case 1:
				r.Header.Set("If-None-Match", "*")
				holds = !exists
			case 2:
				r.Header.Set("If-Match", cmp.Or(now.etag, old))
				holds = exists
			case 3:
				r.Header.Set("If-Match", old)
				holds = false
			case 4:
				r.Header.Set("If-Match", "*")
				holds = exists
			case 5:
				r.Header.Set("If-None-Match", old+", "+cmp.Or(now.etag, old))
				holds = !exists
			}
			program = program[3:]
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			checkAnswer(t, rec)
			switch {
			case listed:
			case !valid:
				status = 400
			case method == "DELETE" && !exists, !change && !exists:
				status = 404
			case !holds && !change && r.Header.Get("If-None-Match") != "":
				status = 304
			case !holds:
				status = 412
			case method == "DELETE":
				status = 204
				delete(model, name)
				old = now.etag
			case change && status == 200:
				tag := rec.Header().Get("ETag")
				model[name] = version{tag, body}
				if tag == now.etag || tag == old {
					t.Errorf("%s %s: got the ETag %s again, want a new one", method, target, tag)
				}
				old = cmp.Or(now.etag, old)
				if !exists {
					status = 201
				}
			}
			if rec.Code != status {
				t.Fatalf("step %d, %s %s, %v: got %d, %s, want %d", step, method, target, r.Header, rec.Code, rec.Body, status)
			}
			if !listed && !change && status == 200 {
				if rec.Header().Get("ETag") != now.etag || method == "GET" && !bytes.Equal(rec.Body.Bytes(), now.b) {
					t.Errorf("step %d, %s %s: got ETag %s, %d bytes, want %s, %d bytes", step, method, target, rec.Header().Get("ETag"), rec.Body.Len(), now.etag, len(now.b))
				}
			}
			if listed {
				var page struct{ Images []imagestore.Info }
				if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil {
					t.Fatal(err)
				}
				got := make(map[string]string)
				for _, info := range page.Images {
					got[info.ID] = info.ETag
				}
				if len(got) != len(model) || len(got) != len(page.Images) {
					t.Errorf("step %d: got the list %v, want %d images", step, got, len(model))
				}
				for id, v := range model {
					if got[id] != v.etag {
						t.Errorf("step %d: got ETag %s of %s in the list, want %s", step, got[id], id, v.etag)
					}
				}
			}
		}
		if got, want := check(), slices.Sorted(maps.Keys(model)); !slices.Equal(got, want) {
			t.Errorf("got ids %q, want %q", got, want)
		}
	})
}
