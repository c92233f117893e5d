package imagestore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/memdriver"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// sha256Of and sha512Of return digests as a field has them.
func sha256Of[T string | []byte](b T) string {
	sum := sha256.Sum256([]byte(b))
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

func sha512Of[T string | []byte](b T) string {
	sum := sha512.Sum512([]byte(b))
	return "sha-512=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// TestUploadDigest sends uploads with digests. One that does not fit must be refused,
// and change nothing.
func TestUploadDigest(t *testing.T) {
	t.Parallel()
	old := testimage.PNG(t, 3, 9)
	for size, b := range map[string][]byte{"small": testimage.PNG(t, 10, 1), "large": testimage.PNG(t, 300, 1)} {
		other := b[:len(b)-1]
		for _, test := range []struct {
			name   string
			header []string
			code   string // "" if it is stored
			text   string // part of the detail
		}{
			{"sha-256", []string{"Repr-Digest", sha256Of(b)}, "", ""},
			{"sha-512", []string{"Repr-Digest", sha512Of(b)}, "", ""},
			{"Content-Digest", []string{"Content-Digest", sha256Of(b)}, "", ""},
			{"everything", []string{"Repr-Digest", sha256Of(b) + ", " + sha512Of(b), "Content-Digest", sha512Of(b), "Content-Digest", sha256Of(b)}, "", ""},
			{"others", []string{"Repr-Digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:, unixsum=1", "Content-Digest", ""}, "", ""},
			{"others too", []string{"Repr-Digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:;a=b, " + sha256Of(b) + ";a"}, "", ""},
			{"fields of RFC 3230", []string{"Digest", "sha-256=" + sha256Of(other), "Content-MD5", "x"}, "", ""},
			{"what is wanted", []string{"Want-Repr-Digest", "sha-256=10"}, "", ""},

			{"another sha-256", []string{"Repr-Digest", sha256Of(other)}, "digest_mismatch", "the body was sent with " + sha256Of(other) + " and arrived with " + sha256Of(b)},
			{"another sha-512", []string{"Repr-Digest", sha512Of(other)}, "digest_mismatch", "the body was sent with " + sha512Of(other) + " and arrived with " + sha512Of(b)},
			{"another Content-Digest", []string{"Content-Digest", sha256Of(other)}, "digest_mismatch", "sent with " + sha256Of(other)},
			{"the second is another", []string{"Repr-Digest", sha256Of(b) + ", " + sha512Of(other)}, "digest_mismatch", sha512Of(other)},
			{"the first is another", []string{"Repr-Digest", sha256Of(other) + ", " + sha512Of(b)}, "digest_mismatch", sha256Of(other)},
			{"one field is another", []string{"Repr-Digest", sha256Of(b), "Content-Digest", sha256Of(other)}, "digest_mismatch", sha256Of(other)},
			{"the other field is another", []string{"Repr-Digest", sha256Of(other), "Content-Digest", sha256Of(b)}, "digest_mismatch", sha256Of(other)},
			{"the last counts", []string{"Repr-Digest", sha256Of(b), "Repr-Digest", sha256Of(other)}, "digest_mismatch", sha256Of(other)},
			{"of nothing", []string{"Repr-Digest", sha256Of("")}, "digest_mismatch", sha256Of("")},

			{"hexadecimal", []string{"Repr-Digest", fmt.Sprintf("sha-256=%x", sha256.Sum256(b))}, "bad_request", "Repr-Digest is malformed"},
			{"without colons", []string{"Content-Digest", strings.ReplaceAll(sha256Of(b), ":", "")}, "bad_request", "send Content-Digest: sha-256=:…:"},
			{"too short", []string{"Repr-Digest", "sha-256=:YQ==:"}, "bad_request", "has 1 bytes, not 32"},
			{"one malformed line", []string{"Repr-Digest", sha256Of(b), "Repr-Digest", ","}, "bad_request", "malformed"},
			{"one malformed field", []string{"Repr-Digest", sha256Of(b), "Content-Digest", "sha-256"}, "bad_request", "Content-Digest is malformed"},
		} {
			t.Run(size+" "+test.name, func(t *testing.T) {
				t.Parallel()
				fsys := onDisk(t)
				s := imagestore.New(fsys, nil)
				put(t, s, "old", old)
				srv := serve(t, s, nil)
				for _, request := range []string{"PUT /images/new", "POST /images/old", "POST /images"} {
					method, path, _ := strings.Cut(request, " ")
					for _, chunked := range []bool{false, true} {
						var body io.Reader = bytes.NewReader(b)
						if chunked {
							body = io.MultiReader(body) // hides the length
						}
						got := testhttp.Request(t, method, srv.URL+path, body, test.header...)
						if test.code != "" {
							checkProblem(t, got, 400, test.code, test.text)
						} else if got.StatusCode != 200 && got.StatusCode != 201 {
							t.Errorf("%s: got %s, %s, want it stored", request, got.Status, got.Bytes)
						} else if got.Header.Get("Repr-Digest")+got.Header.Get("Content-Digest") != "" { // they would be of the JSON
							t.Errorf("%s: got header %v, want no digest of the answer", request, got.Header)
						}
					}
				}
				if test.code == "" {
					if _, got := get(t, s, "new"); !bytes.Equal(got, b) {
						t.Errorf("got %d bytes, want the image", len(got))
					}
					return
				}
				if _, got := get(t, s, "old"); !bytes.Equal(got, old) {
					t.Errorf("got %d bytes, want the old image", len(got))
				}
				if left := files(t, fsys); !slices.Equal(left, []string{".staging", "old", "old/image"}) {
					t.Errorf("got files %v, want the old image alone", left)
				}
			})
		}
	}
}

// TestDigestOfBrokenUpload sends images that are broken as well. The digest must not
// hide that, and a body that has lost its end must not fit.
func TestDigestOfBrokenUpload(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(onDisk(t), nil), nil)
	b := testimage.PNG(t, 10, 1)
	cut := b[:len(b)-1]
	for _, test := range []struct {
		body   []byte
		digest string
		status int
		code   string
	}{
		{cut, sha256Of(b), 400, "digest_mismatch"}, // it was lost on the way
		{cut, sha256Of(cut), 422, "invalid_image"},
		{append(bytes.Clone(b), 0), sha256Of(b), 422, "invalid_image"},
		{[]byte("GIF89a and so on"), sha256Of(b), 415, "unsupported_type"},
		{nil, sha256Of(b), 400, "digest_mismatch"},
		{nil, sha256Of(""), 415, "unsupported_type"},
	} {
		got := testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(test.body), "Repr-Digest", test.digest)
		checkProblem(t, got, test.status, test.code, "")
	}
}

// TestTrailerDigest announces a digest that comes after the image. It must not be
// ignored.
func TestTrailerDigest(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(onDisk(t), nil), nil)
	b := testimage.PNG(t, 10, 1)
	for _, name := range []string{"Repr-Digest", "Content-Digest"} {
		req, err := http.NewRequestWithContext(t.Context(), "PUT", srv.URL+"/images/a", io.MultiReader(bytes.NewReader(b)))
		must(t, err)
		req.Trailer = http.Header{name: {sha256Of(b)}}
		resp, err := testhttp.Client.Do(req)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		checkProblem(t, testhttp.Answer{Response: resp, Bytes: text}, 400, "bad_request", name+" in the trailer")
	}
}

// TestFormDigest sends digests of a form and of the image in it.
func TestFormDigest(t *testing.T) {
	t.Parallel()
	for size, b := range map[string][]byte{"small": testimage.PNG(t, 10, 1), "large": testimage.PNG(t, 300, 1)} {
		// with has the digest in the header of the part.
		with := func(name, value string) part {
			p := file("file", b)
			p.header[textproto.CanonicalMIMEHeaderKey(name)] = []string{value}
			return p
		}
		plain, wrong := file("file", b), sha256Of("x")
		for _, test := range []struct {
			name   string
			parts  []part
			after  string                       // what follows the form
			header func(body string) []string   // of the request
			code   string                       // "" if it is stored
			text   func(body string) (s string) // part of the detail
		}{
			{name: "of the form", parts: []part{field("a", "1"), plain, field("b", "2")}, header: func(body string) []string {
				return []string{"Repr-Digest", sha256Of(body), "Content-Digest", sha512Of(body)}
			}},
			{name: "of the form and what follows", parts: []part{plain}, after: "after\r\n", header: func(body string) []string { return []string{"Repr-Digest", sha256Of(body)} }},
			{name: "of the part", parts: []part{field("a", "1"), with("Repr-Digest", sha256Of(b)), field("b", "2")}},
			{name: "of the part, otherwise", parts: []part{with("content-digest", sha512Of(b)+", md5=:aa:")}},
			{name: "of both", parts: []part{with("Content-Digest", sha512Of(b))}, header: func(body string) []string { return []string{"Content-Digest", sha256Of(body)} }},
			{name: "in another part", parts: []part{{textproto.MIMEHeader{"Content-Disposition": {"form-data; name=a"}, "Repr-Digest": {"x"}}, "1"}, plain}},

			{name: "without what follows", parts: []part{plain}, after: "after\r\n", header: func(body string) []string {
				return []string{"Repr-Digest", sha256Of(strings.TrimSuffix(body, "after\r\n"))}
			}, code: "digest_mismatch"},
			{name: "without the last byte", parts: []part{plain}, header: func(body string) []string { return []string{"Content-Digest", sha512Of(body[:len(body)-1])} }, code: "digest_mismatch",
				text: func(body string) string {
					return "the form was sent with " + sha512Of(body[:len(body)-1]) + " and arrived with " + sha512Of(body)
				}},
			{name: "of the image in the wrong place", parts: []part{plain}, header: func(string) []string { return []string{"Repr-Digest", sha256Of(b)} }, code: "digest_mismatch",
				text: func(string) string { return "a digest of the image alone belongs in the header of its part" }},
			{name: "of another part", parts: []part{with("Repr-Digest", wrong), field("b", "2")}, code: "digest_mismatch",
				text: func(string) string { return "the part was sent with " + wrong + " and arrived with " + sha256Of(b) }},
			{name: "of another part, the form is right", parts: []part{with("Content-Digest", wrong)}, header: func(body string) []string { return []string{"Repr-Digest", sha256Of(body)} }, code: "digest_mismatch"},
			{name: "of another form, the part is right", parts: []part{with("Content-Digest", sha256Of(b))}, header: func(body string) []string { return []string{"Repr-Digest", wrong} }, code: "digest_mismatch"},
			{name: "malformed", parts: []part{plain}, header: func(string) []string { return []string{"Repr-Digest", "x="} }, code: "bad_request"},
			{name: "malformed in the part", parts: []part{with("Repr-Digest", "sha-256=x")}, code: "bad_request", text: func(string) string { return "Repr-Digest is malformed" }},
			{name: "two forms", parts: []part{with("Repr-Digest", sha256Of(b)), plain}, code: "bad_request", text: func(string) string { return "more than one" }},
		} {
			t.Run(size+" "+test.name, func(t *testing.T) {
				t.Parallel()
				fsys := onDisk(t)
				srv := serve(t, imagestore.New(fsys, nil), nil)
				body, contentType := form(t, test.parts...)
				body += test.after
				header := []string{"Content-Type", contentType}
				if test.header != nil {
					header = append(header, test.header(body)...)
				}
				got := testhttp.Request(t, "POST", srv.URL+"/images/a", strings.NewReader(body), header...)
				if test.code == "" {
					if got.StatusCode != 201 {
						t.Fatalf("got %s, %s, want 201", got.Status, got.Bytes)
					}
					if got := testhttp.Request(t, "GET", srv.URL+"/images/a", nil); !bytes.Equal(got.Bytes, b) {
						t.Errorf("got %d bytes, want the image", len(got.Bytes))
					}
					return
				}
				text := ""
				if test.text != nil {
					text = test.text(body)
				}
				checkProblem(t, got, 400, test.code, text)
				if left := files(t, fsys); len(left) > 0 && !slices.Equal(left, []string{".staging"}) {
					t.Errorf("got files %v, want none", left)
				}
			})
		}
	}
}

// TestWantDigest asks for digests of images, one of which is in the cache.
func TestWantDigest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := imagestore.OpenDir(dir, nil)
	must(t, err)
	onObjects := imagestore.NewWithDriver(memdriver.New(), nil)
	b := map[string][]byte{"small": testimage.PNG(t, 80, 1), "large": testimage.PNG(t, 700, 1)}
	for id, b := range b {
		put(t, s, id, b)
		put(t, onObjects, id, b)
		age(t, filepath.Join(dir, id, "image"))
		get(t, s, id)
	}
	for name, s := range map[string]*imagestore.Store{"directory": s, "driver": onObjects} {
		srv := serve(t, s, nil)
		for id, b := range b {
			info, err := s.Stat(t.Context(), id)
			must(t, err)
			const want, wantContent = "Want-Repr-Digest", "Want-Content-Digest"
			of256, of512 := sha256Of(b), sha512Of(b)
			for _, test := range []struct {
				method        string
				header        []string
				status        int
				repr, content string
			}{
				{"GET", nil, 200, "", ""},
				{"GET", []string{want, "sha-256=10"}, 200, of256, ""},
				{"GET", []string{want, "sha-256=3, sha-512=10"}, 200, of512, ""},
				{"GET", []string{want, "sha-512=1, sha-256=1"}, 200, of256, ""},
				{"GET", []string{want, "md5=10", want, "sha-512=1"}, 200, of512, ""},
				{"GET", []string{want, "sha-256=0, md5=5"}, 200, "", ""},
				{"GET", []string{want, "sha-256=10,"}, 200, "", ""},
				{"GET", []string{wantContent, "sha-256=10"}, 200, "", of256},
				{"GET", []string{want, "sha-256=10", wantContent, "sha-512=1"}, 200, of256, of512},
				{"GET", []string{want, "sha-256=10", wantContent, "sha-256=1"}, 200, of256, of256},
				{"GET", []string{"Want-Digest", "sha-256"}, 200, "", ""},
				{"GET", []string{want, "sha-256=10", "If-None-Match", `"x"`}, 200, of256, ""},
				{"GET", []string{want, "sha-256=10", wantContent, "sha-256=1", "If-None-Match", info.ETag}, 304, "", ""},
				{"GET", []string{want, "sha-256=10", "If-Match", `"x"`}, 412, "", ""},
				{"GET", []string{want, "sha-256=10", wantContent, "sha-256=1", "Range", "bytes=5-99"}, 206, of256, ""},
				{"GET", []string{wantContent, "sha-256=1", "Range", "bytes=5-99"}, 206, "", ""},
				{"GET", []string{want, "sha-512=10", "Range", "bytes=5-9,20-"}, 206, of512, ""},
				{"GET", []string{want, "sha-256=10", "Range", "bytes=99999999-"}, 416, "", ""},
				{"HEAD", nil, 200, "", ""},
				{"HEAD", []string{want, "sha-256=10"}, 200, of256, ""},
				{"HEAD", []string{want, "sha-512=10", "Range", "bytes=5-99"}, 200, of512, ""},
				{"HEAD", []string{wantContent, "sha-256=10"}, 200, "", ""},
				{"HEAD", []string{want, "sha-256=10", "If-None-Match", `"x"`}, 200, of256, ""},
				{"HEAD", []string{want, "sha-256=10", "If-None-Match", info.ETag}, 304, "", ""},
				{"HEAD", []string{want, "sha-256=10", "If-Match", `"x"`}, 412, "", ""},
			} {
				got := testhttp.Request(t, test.method, srv.URL+"/images/"+id, nil, test.header...)
				if got.StatusCode != test.status || got.Header.Get("Repr-Digest") != test.repr || got.Header.Get("Content-Digest") != test.content {
					t.Errorf("%s, %s %s %q: got %s, Repr-Digest %q, Content-Digest %q, want %d, %q, %q",
						name, test.method, id, test.header, got.Status, got.Header.Get("Repr-Digest"), got.Header.Get("Content-Digest"), test.status, test.repr, test.content)
				}
				body := b
				switch {
				case test.method == "HEAD" || test.status == 304:
					body = nil
				case test.status == 206 && len(got.Bytes) == 95:
					body = b[5:100]
				case test.status != 200:
					continue
				}
				if !bytes.Equal(got.Bytes, body) || test.status == 200 && got.ContentLength != info.Size {
					t.Errorf("%s, %s %s %q: got %d bytes, length %d, want %d bytes", name, test.method, id, test.header, len(got.Bytes), got.ContentLength, len(body))
				}
			}
			got := testhttp.Request(t, "GET", srv.URL+"/images/none", nil, "Want-Repr-Digest", "sha-256=10")
			checkProblem(t, got, 404, "not_found", "")
		}
	}
	// The server says what it takes.
	got := testhttp.Request(t, "OPTIONS", serve(t, s, nil).URL+"/images/a", nil)
	if want := "sha-256=10, sha-512=5"; got.Header.Get("Want-Repr-Digest") != want {
		t.Errorf("OPTIONS: got Want-Repr-Digest %q, want %q", got.Header.Get("Want-Repr-Digest"), want)
	}
}

// TestDigestReadFails makes the disk fail while an image is read for its digest. The
// header is not sent yet, so the answer is an error.
func TestDigestReadFails(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 300, 1))
	put(t, s, "b", testimage.PNG(t, 10, 1))
	srv := serve(t, s, nil)
	for _, method := range []string{"GET", "HEAD"} {
		for _, op := range []string{"file.read", "file.seek"} {
			n := 0
			fsys.FailIf(func(o errorfs.Op) error {
				if o.Name != op || o.Path != "a/image" {
					return nil
				}
				if n++; op == "file.read" && n < 3 { // the first reads are for the type, and the first of the digest
					return nil
				}
				return errors.New("input/output error")
			})
			got := testhttp.Request(t, method, srv.URL+"/images/a", nil, "Want-Repr-Digest", "sha-256=10")
			if got.StatusCode != 500 || got.Code() != "internal" || got.Header.Get("Repr-Digest") != "" {
				t.Errorf("%s, %s fails: got %s, header %v, want 500 without a digest", method, op, got.Status, got.Header)
			}
		}
	}
	fsys.FailIf(nil)

	// The file is shorter than it was.
	short := imagestore.NewWithDriver(shortDriver{imagestore.DriverOf(s)}, nil)
	var log logBuffer
	shortServer := serve(t, short, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	got := testhttp.Request(t, "GET", shortServer.URL+"/images/b", nil, "Want-Repr-Digest", "sha-256=10")
	if got.StatusCode != 500 || !strings.Contains(log.String(), "unexpected EOF") {
		t.Errorf("short image: got %s, log %q, want 500 and the cause", got.Status, log.String())
	}
	srv.Close()
	if open := fsys.OpenFiles(); len(open) > 0 {
		t.Errorf("got open files %v, want none", open)
	}
}

// A shortDriver has images that end a byte before they should.
type shortDriver struct{ imagestore.Driver }

func (d shortDriver) Open(ctx context.Context, id string) (*imagestore.Image, error) {
	img, err := d.Driver.Open(ctx, id)
	if err == nil {
		img.Size++
	}
	return img, err
}

// TestManyDigests has the disk stall while as many images are read for their digests as
// the handler allows. Another must wait or be refused, and nobody else must wait.
func TestManyDigests(t *testing.T) {
	t.Parallel()
	most := max(4, runtime.GOMAXPROCS(0))
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 100, 1)
	for i := range most {
		put(t, s, fmt.Sprint("a", i), b)
	}
	put(t, s, "b", b)
	entered, release := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	reads := make(map[string]int)
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name != "file.read" || op.Path[0] != 'a' {
			return nil
		}
		mu.Lock()
		reads[op.Path]++
		second := reads[op.Path] == 2 // the first is for the type
		mu.Unlock()
		if second {
			entered <- struct{}{}
			<-release
		}
		return nil
	})
	var log logBuffer
	patient := imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	hasty := imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ask := func(h http.Handler, id string, header http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest("HEAD", "/images/"+id, nil)
		r.Header = header
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	wanted := http.Header{"Want-Repr-Digest": {"sha-256=10"}}
	for _, h := range []http.Handler{patient, hasty} {
		clear(reads)
		var asking sync.WaitGroup
		for i := range most {
			asking.Go(func() {
				if w := ask(h, fmt.Sprint("a", i), wanted); w.Code != 200 || w.Header().Get("Repr-Digest") != sha256Of(b) {
					t.Errorf("got %d, %v, want 200 and the digest", w.Code, w.Header())
				}
			})
			<-entered
		}
		if w := ask(h, "b", nil); w.Code != 200 {
			t.Errorf("without a digest: got %d, want 200", w.Code)
		}
		if h == hasty {
			if w := ask(h, "b", wanted); w.Code != 503 || w.Header().Get("Imagestore-Error") != "unavailable" || w.Header().Get("Retry-After") == "" {
				t.Errorf("one more: got %d, %v, want 503, unavailable and Retry-After", w.Code, w.Header())
			}
		} else {
			asking.Go(func() {
				if w := ask(h, "b", wanted); w.Code != 200 {
					t.Errorf("one more: got %d, want 200 after the others", w.Code)
				}
			})
		}
		for range most {
			release <- struct{}{}
		}
		asking.Wait()
	}
	if got := log.String(); got != "" {
		t.Errorf("got log %q, want none", got)
	}
}

// TestDigestHangUp disconnects a client while an image is read for its digest. Over
// HTTP/1 it may have shut down its sending side alone, so it gets the answer.
func TestDigestHangUp(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		fsys := errorfs.New(onDisk(t))
		s := imagestore.New(fsys, nil)
		b := testimage.PNG(t, 300, 1)
		put(t, s, "a", b)
		h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
		for _, during := range []bool{true, false} {
			ctx, cancel := context.WithCancel(t.Context())
			var reads []int
			fsys.FailIf(func(op errorfs.Op) error {
				if op.Name == "file.read" {
					reads = append(reads, op.N)
					if len(reads) == 2 { // the first is for the type
						cancel()
					}
				}
				return nil
			})
			if !during {
				cancel()
			}
			r := httptest.NewRequestWithContext(ctx, "HEAD", "/images/a", nil)
			r.ProtoMajor = version
			r.Header.Set("Want-Repr-Digest", "sha-256=10")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			cancel()
			switch {
			case version == 1:
				if w.Code != 200 || w.Header().Get("Repr-Digest") != sha256Of(b) {
					t.Errorf("HTTP/1: got %d, %v, want 200 and the digest", w.Code, w.Header())
				}
			case w.Code != 400 || len(reads) > 2:
				t.Errorf("HTTP/2: got %d after %d reads, want 400 after at most 2", w.Code, len(reads))
			}
		}
	}
}
