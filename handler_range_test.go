package imagestore_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestRangeSyntax sends valid, odd and malformed Range fields.
func TestRangeSyntax(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	b := testimage.PNG(t, 30, 1)
	size := len(b)
	etag := put(t, s, "a", b).ETag
	const whole, refused = -1, -2
	huge := strings.Repeat("9", 30)
	for _, test := range []struct {
		header   string
		from, to int
	}{
		// Units other than bytes are ignored. The unit has no upper or lower case.
		{"Range: items=0-5", whole, 0},
		{"Range: 0-5", whole, 0},
		{"Range: bytes", whole, 0},
		{"Range: bytes 0-5", whole, 0},
		{"Range: Bytes=0-5", 0, 6},
		{"Range: BYTES=0-5", 0, 6},
		// A suffix of no bytes is beyond the end.
		{"Range: bytes=-0", refused, 0},
		{"Range: bytes=-00, -0", refused, 0},
		{"Range: bytes=-0,0-5", 0, 6},
		{"Range: bytes=0-5,-0", 0, 6},
		{"Range: bytes=0-5,9999999-", 0, 6},
		{"Range: bytes=9999999-", refused, 0},
		{"Range: bytes=9999999-9999999", refused, 0},
		{fmt.Sprintf("Range: bytes=%d-", size), refused, 0},
		{fmt.Sprintf("Range: bytes=%d-", size-1), size - 1, size},
		{fmt.Sprintf("Range: bytes=%d-%d", size-2, size), size - 2, size},
		{"Range: bytes=-1", size - 1, size},
		// Numbers have no limit.
		{"Range: bytes=0-" + huge, 0, size},
		{"Range: bytes=7-" + huge, 7, size},
		{"Range: bytes=-" + huge, 0, size},
		{"Range: bytes=" + huge + "-", refused, 0},
		{"Range: bytes=" + huge + "-" + huge + "9", refused, 0},
		{"Range: bytes=000000000000000000000000000001-2", 1, 3},
		// White space and empty elements of a list.
		{"Range: bytes= 0-5", 0, 6},
		{"Range: bytes=,0-5", 0, 6},
		{"Range: bytes=, ,\t0-5 ,", 0, 6},
		{"Range: bytes=0 - 5", 0, 6},
		{"Range: bytes=", whole, 0},
		{"Range: bytes=,", whole, 0},
		{"Range:", whole, 0},
		// Malformed ones.
		{"Range: bytes=5-2", refused, 0},
		{"Range: bytes=0-1,5-2", refused, 0},
		{"Range: bytes=0-,0-,5-2", refused, 0},
		{"Range: bytes=5", refused, 0},
		{"Range: bytes=-", refused, 0},
		{"Range: bytes=--5", refused, 0},
		{"Range: bytes=0--0", refused, 0},
		{"Range: bytes=+0-5", refused, 0},
		{"Range: bytes=-+5", refused, 0},
		{"Range: bytes=0x1-5", refused, 0},
		{"Range: bytes=0-1-2", refused, 0},
		{"Range: bytes=-" + huge + "x", refused, 0},
		{"Range: bytes=abc", refused, 0},
		// Two lines are no list of ranges.
		{"Range: bytes=0-1\r\nRange: bytes=5-6", whole, 0},
		// Ranges that together are larger than the image, and many, are ignored.
		{"Range: bytes=0-,0-0", whole, 0},
		{"Range: bytes=0-0" + strings.Repeat(",0-0", 64), whole, 0},
		// If-Range is one strong ETag or the date of a settled version.
		{"Range: bytes=0-5\r\nIf-Range: " + etag, 0, 6},
		{"Range: bytes=0-5\r\nIf-Range: W/" + etag, whole, 0},
		{"Range: bytes=0-5\r\nIf-Range: " + etag + `, "x"`, whole, 0},
		{"Range: bytes=0-5\r\nIf-Range: " + etag + " x", whole, 0},
		{"Range: bytes=0-5\r\nIf-Range: " + etag + "\r\nIf-Range: " + etag, whole, 0},
		{"Range: bytes=0-5\r\nIf-Range: " + strings.Trim(etag, `"`), whole, 0},
		{"Range: bytes=0-5\r\nIf-Range: *", whole, 0},
		{"Range: bytes=0-5\r\nIf-Range:", whole, 0},
		{"If-Range: " + etag, whole, 0},
		{"Range: bytes=-0\r\nIf-Range: \"x\"", whole, 0},
	} {
		got := rawGet(t, srv.Listener.Addr().String(), "GET", test.header)
		var status, contentRange, want = 206, fmt.Sprintf("bytes %d-%d/%d", test.from, test.to-1, size), []byte(nil)
		switch test.from {
		case whole:
			status, contentRange, want = 200, "", b
		case refused:
			status, contentRange, want = 416, fmt.Sprintf("bytes */%d", size), got.Bytes
		default:
			want = b[test.from:test.to]
		}
		if got.StatusCode != status || got.Header.Get("Content-Range") != contentRange || !bytes.Equal(got.Bytes, want) || got.ContentLength != int64(len(want)) {
			t.Errorf("%q: got %s, Content-Range %q, %d bytes, want %d, %q, %d bytes", test.header, got.Status, got.Header.Get("Content-Range"), len(got.Bytes), status, contentRange, len(want))
		}
		if status == 416 {
			checkProblem(t, got, 416, "range_not_satisfiable", fmt.Sprint(size, " bytes"))
		}
		if head := rawGet(t, srv.Listener.Addr().String(), "HEAD", test.header); head.StatusCode != 200 || head.ContentLength != int64(size) || head.Header.Get("Content-Range") != "" {
			t.Errorf("HEAD, %q: got %s, length %d, want 200, length %d", test.header, head.Status, head.ContentLength, size)
		}
	}

	must(t, fsys.Mkdir("empty", 0o777))
	must(t, afero.WriteFile(fsys, "empty/image", nil, 0o666))
	for _, header := range []string{"bytes=0-", "bytes=-5", "bytes=-0", "bytes=5-2"} {
		if got := testhttp.Request(t, "GET", srv.URL+"/images/empty", nil, "Range", header); got.StatusCode != 200 || got.Header.Get("Content-Range") != "" {
			t.Errorf("%s of an empty file: got %s, Content-Range %q, want 200 and none", header, got.Status, got.Header.Get("Content-Range"))
		}
	}
}

// TestManyRanges fetches as many ranges as are allowed.
func TestManyRanges(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	srv := serve(t, s, nil)
	b := testimage.PNG(t, 200, 1)
	put(t, s, "a", b)
	header := "bytes=-5"
	want := [][]byte{b[len(b)-5:]}
	for i := range 63 {
		header += fmt.Sprintf(",%d-%d", 500*i, 500*i+i)
		want = append(want, b[500*i:500*i+i+1])
	}
	got := testhttp.Request(t, "GET", srv.URL+"/images/a", nil, "Range", header)
	checkRanges(t, got, len(b), want)
}

// checkRanges checks an answer with several ranges.
func checkRanges(t *testing.T, got testhttp.Answer, size int, want [][]byte) {
	t.Helper()
	mediaType, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if got.StatusCode != 206 || err != nil || mediaType != "multipart/byteranges" || got.ContentLength != int64(len(got.Bytes)) || got.Header.Get("Content-Range") != "" {
		t.Fatalf("got %s, header %v, want 206, multipart/byteranges", got.Status, got.Header)
	}
	parts := multipart.NewReader(bytes.NewReader(got.Bytes), params["boundary"])
	for i, want := range want {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatalf("part %d: got %v, want it", i, err)
		}
		b, err := io.ReadAll(p)
		var first, last, total int
		if _, err := fmt.Sscanf(p.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total); err != nil || last-first+1 != len(want) || total != size {
			t.Errorf("part %d: got Content-Range %q, want %d bytes of %d", i, p.Header.Get("Content-Range"), len(want), size)
		}
		if !bytes.Equal(b, want) || err != nil || p.Header.Get("Content-Type") != "image/png" {
			t.Errorf("part %d: got %d bytes, %v, header %v, want %d bytes, image/png", i, len(b), err, p.Header, len(want))
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("got %v after %d parts, want EOF", err, len(want))
	}
}

// rawGet sends a request with these lines of header as they are.
func rawGet(t *testing.T, addr, method, header string) testhttp.Answer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	must(t, err)
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "%s /images/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n", method, header)
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return testhttp.Answer{Response: resp, Bytes: b}
}
