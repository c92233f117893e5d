package imagestore_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
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

// FuzzPrecondition checks that a list of ETags means the same for a change as for a
// read by net/http, or is refused.
func FuzzPrecondition(f *testing.F) {
	s := imagestore.New(afero.NewMemMapFs(), nil)
	info, err := s.Put(f.Context(), "a", bytes.NewReader(testimage.PNG(f, 1, 1)))
	if err != nil {
		f.Fatal(err)
	}
	for _, list := range []string{"*", info.ETag, "W/" + info.ETag, `"x", ` + info.ETag, `"x","y"`, "abc", `"`, "", " * ", `*, "x"`, `"a,b" ,W/"c"`, `"x",`, `,"x"`} {
		f.Add(list)
	}
	f.Fuzz(func(t *testing.T, list string) {
		list = strings.ReplaceAll(list, "ETAG", info.ETag)
		err := s.Delete(t.Context(), "a", imagestore.IfMatch(list))
		if err == nil {
			if info, err = s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1))); err != nil {
				t.Fatal(err)
			}
			return
		}
		if errors.Is(err, imagestore.ErrBadRequest) {
			return
		}
		if !errors.Is(err, imagestore.ErrPreconditionFailed) {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		rec.Header().Set("ETag", info.ETag)
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("If-Match", list)
		http.ServeContent(rec, r, "", info.ModTime, strings.NewReader(""))
		if rec.Code != http.StatusPreconditionFailed {
			t.Errorf("If-Match: %q: got %d for a read, want 412 as for a change", list, rec.Code)
		}
	})
}

// newFuzzStore returns a handler of a store, and a function that checks its files
// and returns its ids. The filesystem also has files outside of the store.
func newFuzzStore(t *testing.T) (h http.Handler, check func() (ids []string)) {
	fsys := afero.NewMemMapFs()
	for _, name := range []string{"secret/image.png", "srv/secret", "srv/images-not/x/image.png"} {
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
			case file == "image.png":
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
