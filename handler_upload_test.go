package imagestore_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	srv := serve(t, imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), nil), nil)
	url := srv.URL + "/images/TestPost"
	v1, v2 := testimage.PNG(t, 3, 1), testimage.PNG(t, 3, 2)
	body, contentType := form(t, file("file", v1))
	created := testhttp.Request(t, "POST", url, strings.NewReader(body), "Content-Type", contentType)
	if created.StatusCode != 201 || created.Header.Get("Content-Type") != "application/json" {
		t.Errorf("first upload: got %s, %s, want 201, application/json", created.Status, created.Header.Get("Content-Type"))
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
		if got := testhttp.Request(t, test.method, url, bytes.NewReader(v2), test.header...); got.StatusCode != test.status {
			t.Errorf("%s: got %s, %s, want %d", test.name, got.Status, got.Bytes, test.status)
		}
		if test.status == 204 {
			if _, err := os.Stat(dir + "/TestPost"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("directory after DELETE: got %v, want %v", err, os.ErrNotExist)
			}
		}
	}
	got := testhttp.Request(t, "OPTIONS", url, nil)
	if got.StatusCode != 204 || got.Header.Get("Allow") != "DELETE, GET, HEAD, OPTIONS, POST, PUT" || got.Header.Get("Imagestore-Max-Bytes") != strconv.Itoa(imagestore.DefaultMaxBytes) ||
		got.Header.Get("Imagestore-Max-Pixels") != strconv.Itoa(imagestore.DefaultMaxPixels) || got.Header.Get("Accept-Post") != "multipart/form-data, image/png, application/octet-stream" ||
		got.Header.Get("Imagestore-Max-Animation-Pixels") != strconv.Itoa(imagestore.DefaultMaxAnimationPixels) {
		t.Errorf("OPTIONS: got %s, %v, want 204, Allow and the limits", got.Status, got.Header)
	}
}

// TestCutOff breaks uploads off after various numbers of bytes.
func TestCutOff(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	old, b := testimage.PNG(t, 20, 1), testimage.PNG(t, 300, 2)
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
				t.Errorf("%s, cut off after %d of %d bytes: got %d, want 400 or no answer", kind.name, n, len(kind.body), status)
			}
		}
		if got, b := get(t, s, "a"); got != info || !bytes.Equal(b, old) {
			t.Fatalf("%s: got another image, want the old one", kind.name)
		}
		if left := files(t, fsys); !slices.Equal(left, []string{".staging", "a", "a/image"}) {
			t.Fatalf("%s: got files %v, want the old image alone", kind.name, left)
		}
	}
}

// rawStatus sends bytes unchanged, closes its side, and returns the status of the
// answer, or 0 if there is none.
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
		t.Errorf("got answer %s, want no path", b)
	}
	return resp.StatusCode
}

// TestHalfClosed has a client that sends all of its request and then closes its side,
// as nc -N does. net/http cancels the context of the request. The filesystem waits
// until it has.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	h := imagestore.NewHandler(imagestore.New(fsys, &imagestore.Options{NoSync: true}), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	var canceled atomic.Value
	srv := testhttp.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		canceled.Store(r.Context().Done())
		h.ServeHTTP(w, r)
	}))
	fsys.FailIf(func(errorfs.Op) error {
		<-canceled.Load().(<-chan struct{})
		return nil
	})
	b := testimage.PNG(t, 10, 1)
	body, contentType := form(t, file("file", b))
	for range 100 {
		for _, test := range []struct {
			head, body string
			status     int
		}{
			{"PUT /images/a", string(b), 201},
			{"POST /images/a HTTP/1.1\r\nContent-Type: " + contentType, body, 200},
			{"PUT /images/a HTTP/1.1\r\nTransfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(b), b), 200},
			{"GET /images/a", "", 200},
			{"HEAD /images/a", "", 200},
			{"GET /images/a HTTP/1.1\r\nIf-None-Match: *", "", 304},
			{"GET /images/none", "", 404},
			{"GET /images", "", 200},
			{"DELETE /images/a", "", 204},
		} {
			if !strings.Contains(test.head, " HTTP/1.1") {
				test.head += " HTTP/1.1"
			}
			if !strings.Contains(test.head, "chunked") && test.body != "" {
				test.head += fmt.Sprintf("\r\nContent-Length: %d", len(test.body))
			}
			if status := rawStatus(t, srv, test.head+"\r\nHost: x\r\n\r\n"+test.body); status != test.status {
				t.Fatalf("%.100q: got %d, want %d", test.head, status, test.status)
			}
		}
	}
}

// TestMiddlewareDeadline has middleware set a deadline that has passed.
func TestMiddlewareDeadline(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 10, 1)
	info := put(t, s, "a", b)
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	srv := testhttp.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithDeadline(r.Context(), time.Now())
		defer cancel()
		h.ServeHTTP(w, r.WithContext(ctx))
	}))
	for _, request := range []string{"PUT /images/a", "GET /images/a", "HEAD /images/a", "GET /images"} {
		method, path, _ := strings.Cut(request, " ")
		var body io.Reader
		if method == "PUT" {
			body = bytes.NewReader(b)
		}
		if got := testhttp.Request(t, method, srv.URL+path, body); got.StatusCode != http.StatusInternalServerError {
			t.Errorf("%s: got %s, want 500", request, got.Status)
		}
	}
	if got, _ := get(t, s, "a"); got != info {
		t.Errorf("got %v, want the old image, %v", got, info)
	}
}

// TestCutOffHTTP2 breaks uploads off over HTTP/2, where the connection stays.
func TestCutOffHTTP2(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	h := imagestore.NewHandler(imagestore.New(fsys, nil), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	done := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- struct{}{} }()
		h.ServeHTTP(w, r)
	}))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv.Config.Protocols = &protocols
	srv.Start()
	defer srv.Close()
	transport := &http.Transport{Protocols: &protocols}
	defer transport.CloseIdleConnections()
	b := testimage.PNG(t, 300, 1)
	broken := errors.New("broken off")
	for _, n := range []int{1, 1000, 64 << 10, len(b) - 1, len(b)} {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, "PUT", srv.URL+"/images/a", io.MultiReader(bytes.NewReader(b[:n]), readerFunc(func([]byte) (int, error) { return 0, broken })))
		must(t, err)
		resp, err := transport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode < 400 {
				t.Errorf("broken off after %d of %d bytes: got %s, want a failure", n, len(b), resp.Status)
			}
		}
		<-done
		cancel()
	}
	if left := files(t, fsys); len(left) > 0 && !slices.Equal(left, []string{".staging"}) {
		t.Errorf("got files %v, want none", left)
	}
}

// TestContentType sends raw images with various declared types. The bytes decide,
// unless the type says that the body is something else.
func TestContentType(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(afero.NewMemMapFs(), nil), nil)
	b := testimage.PNG(t, 10, 1)
	for status, types := range map[int][]string{
		201: {
			"", "image/png", "IMAGE/PNG", "image/png; charset=utf-8", "image/x-png", "image/jpeg", "image/*", "application/octet-stream",
			"binary/octet-stream",               // S3 tools
			"application/x-www-form-urlencoded", // curl --data-binary
			"text/plain;charset=UTF-8",          // fetch
			"image/png;", "image/png; charset", "image/png, image/png", "image/png; a=b=c",
			"png", "image", "undefined", "null", ";", "; charset=utf-8",
		},
		415: {
			"text/html", "text/html; charset", "application/json", "video/mp4", "application/pdf", "multipart/mixed; boundary=a", "multipart/related; boundary=a=b",
			"multipart/form-data-x; boundary=a", "application/xml", "/", "x/image/png", "text/plainer",
		},
	} {
		for _, contentType := range types {
			var header []string
			if contentType != "" {
				header = []string{"Content-Type", contentType}
			}
			got := testhttp.Request(t, "POST", srv.URL+"/images", bytes.NewReader(b), header...)
			if got.StatusCode != status {
				t.Errorf("%q: got %s, %s, want %d", contentType, got.Status, got.Bytes, status)
			}
		}
	}
	if got := testhttp.Request(t, "PUT", srv.URL+"/images/a", strings.NewReader("a=b"), "Content-Type", "application/x-www-form-urlencoded"); got.StatusCode != 415 {
		t.Errorf("no image: got %s, want 415", got.Status)
	}
}

// TestEmptyFile checks that an empty part is refused as an empty body is.
func TestEmptyFile(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(afero.NewMemMapFs(), nil), nil)
	raw := testhttp.Request(t, "PUT", srv.URL+"/images/a", http.NoBody)
	body, contentType := form(t, part{textproto.MIMEHeader{"Content-Disposition": {`form-data; name="file"; filename=""`}, "Content-Type": {"application/octet-stream"}}, ""})
	inForm := testhttp.Request(t, "PUT", srv.URL+"/images/a", strings.NewReader(body), "Content-Type", contentType)
	if raw.StatusCode != 415 || inForm.StatusCode != 415 || !bytes.Equal(raw.Bytes, inForm.Bytes) {
		t.Errorf("got %s, %s for a body and %s, %s for a form, want 415 and the same text", raw.Status, raw.Bytes, inForm.Status, inForm.Bytes)
	}
}

// TestLyingLength sends bodies whose declared length is wrong, and endless ones.
func TestLyingLength(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	srv := serve(t, imagestore.New(fsys, &imagestore.Options{MaxBytes: 1 << 20}), nil)
	b := string(testimage.PNG(t, 10, 1))
	endless := b[:41] + strings.Repeat("x", 4<<20) // an endless IDAT chunk
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
		{"empty", "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 415},
		{"no body", "PUT /images/a HTTP/1.1\r\nHost: x\r\n\r\n", 415},
		{"chunked, badly", "PUT /images/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + b, 400},
	} {
		if status := rawStatus(t, srv, test.send); status != test.status {
			t.Errorf("%s: got %d, want %d", test.name, status, test.status)
		}
	}
	if left := files(t, fsys); len(left) > 1 {
		t.Errorf("got files %v, want .staging at most", left)
	}
}

// TestExpectContinue checks that an upload with Expect: 100-continue is refused
// before its body is sent.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	srv := serve(t, s, nil)
	for _, head := range []string{
		"PUT /images/.x HTTP/1.1\r\nContent-Length: 100\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 99999999999\r\n",
		"POST /images/a HTTP/1.1\r\nContent-Length: 99999999999\r\nContent-Type: multipart/form-data; boundary=x\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: text/html\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 100\r\nIf-None-Match: *\r\n",
		"PUT /images/a HTTP/1.1\r\nContent-Length: 100\r\nRepr-Digest: sha-256=x\r\n",
		"POST /images/a HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Digest: sha-256=:aa:\r\n",
		"PUT /images/a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: Repr-Digest\r\n",
		"POST /images/a HTTP/1.1\r\nContent-Length: 100\r\nIf-Match: \"x\"\r\nContent-Type: multipart/form-data; boundary=x\r\n",
	} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, head+"Host: x\r\nExpect: 100-continue\r\n\r\n")
		// The client sends nothing more until it has the answer.
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode < 400 {
			t.Errorf("%q: got %v, %v, want 4xx", head, resp, err)
		}
	}
}

// TestRefusedButRead sends all of a refused upload before it reads the answer.
func TestRefusedButRead(t *testing.T) {
	t.Parallel()
	srv := serve(t, imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{MaxUploads: 1})
	jpeg := append([]byte("\xff\xd8\xff\xe0"), make([]byte, 10<<20)...)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for range 2 { // the second request checks that the connection still works
		fmt.Fprintf(conn, "POST /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(jpeg))
		if _, err := conn.Write(jpeg); err != nil {
			t.Fatalf("got %v from sending the upload, want nil", err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 415 {
			t.Fatalf("got %v, %v, want 415", resp, err)
		}
		io.Copy(io.Discard, resp.Body)
	}
}

// TestStalled has clients that stall. The server must close their connections.
func TestStalled(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, &imagestore.Options{MaxBytes: 1 << 40})
	srv := serve(t, s, &imagestore.HandlerOptions{Timeout: 50 * time.Millisecond})
	b := testimage.PNG(t, 300, 1)
	for _, n := range []int{0, 1, 70_000} { // before, in and after the first piece
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b), b[:n])
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 408 || resp.Header.Get("Imagestore-Error") != "request_timeout" {
			t.Errorf("upload that stalls after %d bytes: got %v, %v, want 408", n, resp, err)
		}
		io.Copy(io.Discard, resp.Body)
		if _, err := r.ReadByte(); err != io.EOF {
			t.Errorf("got %v from the connection, want EOF", err)
		}
	}
	if left := files(t, fsys); !slices.Equal(left, []string{".staging"}) {
		t.Errorf("got files %v, want .staging alone", left)
	}

	// The body of a request that needs none stalls.
	for _, method := range []string{"GET", "DELETE", "PATCH"} {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n", method)
		if _, err := io.Copy(io.Discard, conn); err != nil { // ends when the server closes
			t.Errorf("%s: got %v, want the connection closed", method, err)
		}
	}

	// The client does not read a download that is larger than all buffers on the way.
	big := append(bytes.Clone(b[:8]), make([]byte, 64<<20)...)
	if err := afero.WriteFile(fsys, "big/image", big, 0o666); err == nil {
		t.Fatal("WriteFile made a directory")
	}
	fsys.Mkdir("big", 0o777)
	if err := afero.WriteFile(fsys, "big/image", big, 0o666); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: 50 * time.Millisecond, Logger: testhttp.Quiet})
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
	<-done // returns only if the handler gives up
}

// TestMiddlewareLimit has middleware limit the body.
func TestMiddlewareLimit(t *testing.T) {
	t.Parallel()
	h := imagestore.NewHandler(imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	srv := httptest.NewServer(http.MaxBytesHandler(h, 1000))
	defer srv.Close()
	checkProblem(t, testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(testimage.PNG(t, 100, 1))), 413, "too_large", "1000 bytes")
}
