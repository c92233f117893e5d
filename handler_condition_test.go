package imagestore_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestReadConditions reads a version that has settled, under every condition.
func TestReadConditions(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	b := testimage.PNG(t, 30, 1)
	put(t, s, "a", b)
	second := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	mtime := second.Add(500 * time.Millisecond)
	must(t, fsys.Chtimes("a/image", mtime, mtime))
	info, _ := get(t, s, "a")
	etag := info.ETag
	date := func(seconds int) string {
		return second.Add(time.Duration(seconds) * time.Second).Format(http.TimeFormat)
	}
	// An older version of the same second was sent with the date 0.
	older, own, later := date(0), date(1), date(2)
	for _, test := range []struct {
		header string
		status int
	}{
		{"If-Modified-Since: " + own, 304},
		{"If-Modified-Since: " + second.Add(time.Second).Format("Monday, 02-Jan-06 15:04:05 GMT"), 304},
		{"If-Modified-Since: " + second.Add(time.Second).Format(time.ANSIC), 304},
		{"If-Modified-Since: " + older, 200},
		{"If-Modified-Since: " + later, 200}, // an older version, restored from a backup
		{"If-Modified-Since: " + own + "\r\nIf-Modified-Since: " + own, 200},
		{"If-Modified-Since: " + own + ", " + own, 200},
		{"If-Modified-Since: yesterday", 200},
		{"If-Modified-Since:", 200},
		{"If-Range: " + own + "\r\nRange: bytes=5-", 206},
		{"If-Range: " + older + "\r\nRange: bytes=5-", 200},
		{"If-Range: " + later + "\r\nRange: bytes=5-", 200},
		{"If-Range: " + own + "\r\nIf-Range: " + own + "\r\nRange: bytes=5-", 200},
		{"If-Unmodified-Since: " + own, 200},
		{"If-Unmodified-Since: " + later, 200},
		{"If-Unmodified-Since: " + older, 412},
		{"If-Unmodified-Since: yesterday", 200},
		{"If-Unmodified-Since: " + older + "\r\nIf-Unmodified-Since: " + older, 200},
		{"If-Unmodified-Since: " + own + "\r\nRange: bytes=5-", 206},
		{"If-Unmodified-Since: " + later + "\r\nRange: bytes=5-", 200},
		{"If-Unmodified-Since: yesterday\r\nRange: bytes=5-", 200},
		{"If-Unmodified-Since: " + older + "\r\nRange: bytes=5-", 412},
		// ETags come first.
		{"If-None-Match: \"x\"\r\nIf-Modified-Since: " + own, 200},
		{"If-None-Match: x\r\nIf-Modified-Since: " + own, 200},
		{"If-None-Match:\r\nIf-Modified-Since: " + own, 200},
		{"If-None-Match: " + etag + "\r\nIf-Modified-Since: " + older, 304},
		{"If-None-Match: *", 304},
		{"If-None-Match: , W/" + etag + " ,\"x\"", 304},
		{"If-None-Match: " + etag + " junk", 200},
		{"If-None-Match: " + etag + "\r\nRange: bytes=5-", 304},
		{"If-None-Match: \"x\"\r\nRange: bytes=5-", 206},
		{"If-Match: " + etag + "\r\nIf-Unmodified-Since: " + older, 200},
		{"If-Match: " + etag + "\r\nIf-Unmodified-Since: " + older + "\r\nRange: bytes=5-", 206},
		{"If-Match: " + etag + "\r\nIf-None-Match: " + etag, 304},
		{"If-Match: " + etag + "\r\nIf-Modified-Since: " + own, 304},
		{"If-Match: *", 200},
		{"If-Match: \"x\"\r\nIf-None-Match: " + etag, 412},
		{"If-Match: W/" + etag, 412},
		{"If-Match: \"x\"\r\nRange: bytes=99999999-", 412},
		{"If-Match: x", 400},
		{"If-Match:", 400},
	} {
		got := rawGet(t, srv.Listener.Addr().String(), "GET", test.header)
		want := map[int][]byte{200: b, 206: b[5:], 304: nil, 400: got.Bytes, 412: got.Bytes}[test.status]
		if got.StatusCode != test.status || !bytes.Equal(got.Bytes, want) {
			t.Errorf("%q: got %s, %d bytes, want %d, %d bytes", test.header, got.Status, len(got.Bytes), test.status, len(want))
		}
		switch test.status {
		case 400:
			checkProblem(t, got, 400, "bad_request", "If-Match")
		case 412:
			checkProblem(t, got, 412, "precondition_failed", etag)
		default:
			if got.Header.Get("ETag") != etag || got.Header.Get("Cache-Control") != "no-cache" {
				t.Errorf("%q: got header %v, want the ETag and no-cache", test.header, got.Header)
			}
		}
		wantHeadAsGet(t, srv.Listener.Addr().String(), test.header, got)
	}
}

// wantHeadAsGet checks that HEAD is answered as GET is, without the body (RFC 9110,
// section 9.3.2). Range is for GET alone.
func wantHeadAsGet(t *testing.T, addr, header string, want testhttp.Answer) {
	t.Helper()
	head := rawGet(t, addr, "HEAD", header)
	if want.StatusCode == 206 {
		want = rawGet(t, addr, "GET", "")
	}
	for _, h := range []http.Header{want.Header, head.Header} {
		h.Del("Date")
	}
	if head.StatusCode != want.StatusCode || len(head.Bytes) > 0 || head.ContentLength != want.ContentLength && want.StatusCode != 304 {
		t.Errorf("HEAD, %q: got %s, length %d, want %s, length %d", header, head.Status, head.ContentLength, want.Status, want.ContentLength)
	}
	for name := range want.Header {
		if head.Header.Get(name) != want.Header.Get(name) {
			t.Errorf("HEAD, %q: got %s %q, want %q", header, name, head.Header.Get(name), want.Header.Get(name))
		}
	}
	if len(head.Header) != len(want.Header) {
		t.Errorf("HEAD, %q: got header %v, want %v", header, head.Header, want.Header)
	}
}

// TestUnsettled reads versions that another one may follow within their second, and
// versions of the future. No answer depends on a date.
func TestUnsettled(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 30, 1)
	for name, age := range map[string]time.Duration{"stored now": 0, "stored 10 s ago": 10 * time.Second, "dated in a minute": -time.Minute, "dated in 70 years": -70 * 365 * 24 * time.Hour} {
		fsys := onDisk(t)
		s := imagestore.New(fsys, nil)
		srv := serve(t, s, nil)
		put(t, s, "a", b)
		if age != 0 {
			mtime := time.Now().Add(-age)
			must(t, fsys.Chtimes("a/image", mtime, mtime))
		}
		info, _ := get(t, s, "a")
		got := rawGet(t, srv.Listener.Addr().String(), "GET", "")
		modified, err := http.ParseTime(got.Header.Get("Last-Modified"))
		must(t, err)
		now, err := http.ParseTime(got.Header.Get("Date"))
		must(t, err)
		if modified.After(now) || modified.After(info.ModTime) || age >= 0 && !modified.Equal(info.ModTime.Truncate(time.Second)) {
			t.Errorf("%s: got Last-Modified %v at %v, want %v in whole seconds, not in the future", name, modified, now, info.ModTime)
		}
		if got := got.Header.Get("Imagestore-Modified"); got != info.ModTime.Format(time.RFC3339Nano) {
			t.Errorf("%s: got Imagestore-Modified %s, want %v", name, got, info.ModTime)
		}
		for _, from := range []time.Time{modified, now, info.ModTime} {
			for _, step := range []time.Duration{-time.Hour, -time.Second, 0, time.Second, time.Hour} {
				date := from.Add(step).UTC().Format(http.TimeFormat)
				for _, header := range []string{
					"If-Modified-Since: " + date, "If-Unmodified-Since: " + date, "If-Unmodified-Since: " + date + "\r\nRange: bytes=5-",
					"If-Range: " + date + "\r\nRange: bytes=5-", "If-Match: *\r\nIf-Modified-Since: " + date,
				} {
					if got := rawGet(t, srv.Listener.Addr().String(), "GET", header); got.StatusCode != 200 || !bytes.Equal(got.Bytes, b) {
						t.Errorf("%s, %q: got %s, %d bytes, want 200, %d bytes", name, header, got.Status, len(got.Bytes), len(b))
					}
				}
			}
		}
		got = rawGet(t, srv.Listener.Addr().String(), "GET", "If-Match: *\r\nRange: bytes=5-\r\nIf-Range: "+info.ETag)
		if got.StatusCode != 206 {
			t.Errorf("%s: got %s by ETag, want 206", name, got.Status)
		}
	}
}

// TestVersionsOfOneSecond replaces an image within a second. The client that has the
// old version, by the date that it was sent with, gets all of the new one later on.
func TestVersionsOfOneSecond(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	addr := srv.Listener.Addr().String()
	a, b := testimage.PNG(t, 30, 1), testimage.PNG(t, 30, 2)
	put(t, s, "a", a)
	first := rawGet(t, addr, "GET", "")
	modified, err := http.ParseTime(first.Header.Get("Last-Modified"))
	must(t, err)
	old, _ := get(t, s, "a")
	put(t, s, "a", b)
	// Later on: the same order of events, two hours ago.
	const ago = 2 * time.Hour
	mtime := old.ModTime.Add(-ago).Truncate(time.Second).Add(time.Second - time.Nanosecond) // the latest of the second
	must(t, fsys.Chtimes("a/image", mtime, mtime))
	for _, held := range []time.Time{modified.Add(-ago), old.ModTime.Add(-ago)} { // from Last-Modified, and from the client's clock
		date := held.UTC().Format(http.TimeFormat)
		for _, header := range []string{"If-Modified-Since: " + date, "If-Range: " + date + "\r\nRange: bytes=5-"} {
			if got := rawGet(t, addr, "GET", header); got.StatusCode != 200 || !bytes.Equal(got.Bytes, b) {
				t.Errorf("%q: got %s, %d bytes, want 200 and the new version", header, got.Status, len(got.Bytes))
			}
		}
		header := "If-Unmodified-Since: " + date + "\r\nRange: bytes=5-"
		if got := rawGet(t, addr, "GET", header); got.StatusCode != 412 {
			t.Errorf("%q: got %s, want 412", header, got.Status)
		}
	}
}

// TestWholeSecond reads a version that is dated at the start of a second.
func TestWholeSecond(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	for _, mtime := range []time.Time{time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), time.Date(1955, 3, 4, 5, 6, 7, 0, time.UTC), time.Unix(0, 0).UTC()} {
		must(t, fsys.Chtimes("a/image", mtime, mtime))
		want := mtime.Format(http.TimeFormat)
		got := rawGet(t, srv.Listener.Addr().String(), "GET", "")
		if got.Header.Get("Last-Modified") != want || got.Header.Get("Imagestore-Modified") != mtime.Format(time.RFC3339) {
			t.Errorf("got Last-Modified %s, Imagestore-Modified %s, want %s", got.Header.Get("Last-Modified"), got.Header.Get("Imagestore-Modified"), want)
		}
		if got := rawGet(t, srv.Listener.Addr().String(), "GET", "If-Modified-Since: "+want); got.StatusCode != 304 {
			t.Errorf("%s: got %s, want 304", want, got.Status)
		}
	}
}

// TestHeadAsGet compares HEAD with GET where there is no image.
func TestHeadAsGet(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	srv := serve(t, imagestore.New(fsys, nil), nil)
	for _, path := range []string{"/images/a", "/images", "/images?limit=0", "/images/.x", "/images/", "/"} {
		got, head := testhttp.Request(t, "GET", srv.URL+path, nil), testhttp.Request(t, "HEAD", srv.URL+path, nil)
		got.Header.Del("Date")
		head.Header.Del("Date")
		var differ []string
		for name := range got.Header {
			if got.Header.Get(name) != head.Header.Get(name) {
				differ = append(differ, name)
			}
		}
		if got.StatusCode != head.StatusCode || len(head.Bytes) > 0 || len(differ) > 0 || len(got.Header) != len(head.Header) {
			t.Errorf("%s: got %s, header %v from HEAD, want %s, %v; %s differ", path, head.Status, head.Header, got.Status, got.Header, strings.Join(differ, ", "))
		}
	}
}
