package s3fs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
	"github.com/ba692904/imagestore/storetest"
	"github.com/spf13/afero"
)

func TestPromises(t *testing.T) {
	storetest.TestFs(t, func(t *testing.T) afero.Fs { return newEngine(t).Fs })
}

func TestObject(t *testing.T) {
	e := newEngine(t)
	want := text('a', 6<<20) // more than what the SDK's uploader sends in one piece
	before := time.Now()
	fi := put(t, e, "dir/file", want)
	e.wire.wantSent(t, "PutObject", "PUT")
	out, err := e.client.HeadObject(t.Context(), &s3.HeadObjectInput{
		Bucket: &e.bucket, Key: aws.String(e.prefix + "/dir/file"), ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := aws.ToString(out.ContentType); got != "image/png" {
		t.Errorf("the Content-Type is %q", got)
	}
	if aws.ToString(out.ChecksumCRC32) == "" {
		t.Error("the engine keeps no checksum")
	}
	if seconds := fmt.Sprintf("%d.%09d", fi.ModTime().Unix(), fi.ModTime().Nanosecond()); out.Metadata["mtime"] != seconds {
		t.Errorf("the metadata are %v, the time is %s", out.Metadata, seconds)
	}
	if fi.ModTime().Before(before) || fi.ModTime().After(time.Now()) {
		t.Errorf("the time is %v", fi.ModTime())
	}
	stat, err := e.Stat("dir/file")
	if err != nil {
		t.Fatal(err)
	}
	opened, err := open(t, e, "dir/file").Stat()
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]interface {
		fs.FileInfo
		ETag() string
	}{"PutObject": fi.(info), "Stat": stat.(info), "Open": opened.(info)} {
		if got.Name() != "file" || got.Size() != 6<<20 || got.IsDir() || !got.Mode().IsRegular() ||
			!got.ModTime().Equal(fi.ModTime()) || got.ETag() != aws.ToString(out.ETag) {
			t.Errorf("%s says %s, %d bytes, %v, %v, %s", what, got.Name(), got.Size(), got.Mode(), got.ModTime(), got.ETag())
		}
	}
}

type info interface {
	fs.FileInfo
	ETag() string
}

// TestForeignTimes has objects that others have put.
func TestForeignTimes(t *testing.T) {
	e := newEngine(t)
	for mtime, want := range map[string]time.Time{
		"1700000000.123456789":  time.Unix(1700000000, 123456789),
		"1700000000.5":          time.Unix(1700000000, 500000000),
		"1700000000":            time.Unix(1700000000, 0),
		"1700000000.1234567891": time.Unix(1700000000, 123456789),
		"yesterday":             {},
		"1700000000.-5":         {},
		"":                      {},
	} {
		in := &s3.PutObjectInput{Bucket: &e.bucket, Key: aws.String(e.prefix + "/file"), Body: strings.NewReader("x")}
		if mtime != "" {
			in.Metadata = map[string]string{"mtime": mtime}
		}
		if _, err := e.client.PutObject(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		fi, err := e.Stat("file")
		if err != nil {
			t.Fatal(err)
		}
		if want.IsZero() {
			for listed := range e.ListObjects(t.Context(), "") {
				want = listed.ModTime().Truncate(time.Second)
			}
		}
		if !fi.ModTime().Equal(want) {
			t.Errorf("mtime %q is %v, not %v", mtime, fi.ModTime().UTC(), want.UTC())
		}
	}
}

func TestSeek(t *testing.T) {
	e := newEngine(t)
	want := text('a', 1000)
	put(t, e, "file", want)
	put(t, e, "empty", nil)
	e.wire.sent()
	f := open(t, e, "file")
	for _, seek := range []struct {
		offset int64
		whence int
		want   int64 // negative for an error
	}{
		{0, io.SeekEnd, 1000},
		{0, io.SeekStart, 0},
		{300, io.SeekCurrent, 300},
		{-100, io.SeekCurrent, 200},
		{-201, io.SeekCurrent, -1},
		{-1, io.SeekStart, -1},
		{-1001, io.SeekEnd, -1},
		{0, 3, -1},
		{2000, io.SeekStart, 2000},
		{0, io.SeekStart, 0},
	} {
		at, err := f.Seek(seek.offset, seek.whence)
		if seek.want < 0 && err == nil || seek.want >= 0 && (err != nil || at != seek.want) {
			t.Errorf("Seek(%d, %d) returns %d, %v, not %d", seek.offset, seek.whence, at, err, seek.want)
		}
	}
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want) {
		t.Errorf("after all that, Read gives %d bytes, %v", len(b), err)
	}
	e.wire.wantSent(t, "to seek about and read from the start", "GET")
	for _, from := range []int64{999, 500, 1, 0} {
		f.Seek(from, io.SeekStart)
		if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want[from:]) {
			t.Errorf("from %d, Read gives %d bytes, %v", from, len(b), err)
		}
	}
	e.wire.wantSent(t, "to read from four places", "GET", "GET", "GET", "GET")
	f.Seek(1500, io.SeekStart)
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("Read after the end gives %d bytes, %v", n, err)
	}
	if b, err := io.ReadAll(open(t, e, "empty")); err != nil || len(b) != 0 {
		t.Errorf("of an empty file, Read gives %d bytes, %v", len(b), err)
	}
	e.wire.wantSent(t, "to read an empty file", "GET")
	if n, err := f.ReadAt(nil, 500); n != 0 || err != nil {
		t.Errorf("ReadAt of nothing gives %d bytes, %v", n, err)
	}
	if _, err := f.ReadAt(make([]byte, 10), -1); err == nil {
		t.Error("ReadAt reads before the beginning")
	}
}

// TestIgnoredHeaders has an engine answer with more, or with something else,
// than what was asked for.
func TestIgnoredHeaders(t *testing.T) {
	whole := func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && r.Header.Get("Range") != "" {
			resp.StatusCode = http.StatusOK
			resp.Header.Del("Content-Range")
		}
		return resp, err
	}
	otherETag := func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil && r.Header.Get("If-Match") != "" {
			resp.Header.Set("ETag", `"other"`)
		}
		return resp, err
	}
	for name, fault := range map[string]fault{"Range": whole, "If-Match": otherETag} {
		e := newEngine(t)
		put(t, e, "file", text('a', 1000))
		e.wire.interfere(fault)
		wantNoLeak(t, e.wire, func() {
			f, err := e.Open("file")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.Seek(500, io.SeekStart)
			if n, err := f.Read(make([]byte, 10)); n != 0 || err == nil {
				t.Errorf("%s is ignored, but Read gives %d bytes, %v", name, n, err)
			}
		})
	}
}

func TestUnquotedETag(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Header.Set("ETag", strings.Trim(resp.Header.Get("ETag"), `"`))
		}
		return resp, err
	})
	fi, err := e.Stat("file")
	if err != nil {
		t.Fatal(err)
	}
	if tag := etag(fi); len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		t.Errorf("the ETag is %s", tag)
	}
}

func TestListPages(t *testing.T) {
	e := newEngine(t)
	const files = 1001 // one more than a page
	var want []string
	for i := range files {
		want = append(want, fmt.Sprintf("%04d/image.png", i))
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(want, files/16+1) {
		wg.Go(func() {
			for _, name := range part {
				if _, err := e.PutObject(t.Context(), name, strings.NewReader("x"), imagestore.Precondition{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	e.wire.sent()
	if got := list(t, e, ""); !slices.Equal(got, want) {
		t.Errorf("%d files are listed, not %d", len(got), len(want))
	}
	e.wire.wantSent(t, "the list of 1001 files", "LIST", "LIST")
	if got := list(t, e, want[0]); !slices.Equal(got, want[1:]) {
		t.Errorf("after the first, %d files are listed", len(got))
	}
	e.wire.wantSent(t, "the list of 1000 files", "LIST")
	for range e.ListObjects(t.Context(), "") {
		break
	}
	e.wire.wantSent(t, "the first of 1001 files", "LIST")
}

func TestListOddNames(t *testing.T) {
	e := newEngine(t)
	want := []string{"100%/x", "a b/x", "a%2Fb/x", "a+b/x", "a&b/x", "<a>/x", "ä/x", `"a"/x`, "a\x01b/x"}
	for _, name := range want {
		put(t, e, name, text('a', 10))
	}
	slices.Sort(want)
	if got := list(t, e, ""); !slices.Equal(got, want) {
		t.Errorf("the files are %q, not %q", got, want)
	}
	for _, name := range want {
		wantContent(t, e, name, text('a', 10))
		if err := e.Remove(name); err != nil {
			t.Error(err)
		}
	}
	wantNothing(t, e)
}

func TestListOutOfOrder(t *testing.T) {
	e := newEngine(t)
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := answer(200, "")(r, next)
		body := "<ListBucketResult><Contents><Key>" + e.prefix + "/b</Key></Contents><Contents><Key>" + e.prefix + "/a</Key></Contents></ListBucketResult>"
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return resp, err
	})
	var names []string
	var last error
	for fi, err := range e.ListObjects(t.Context(), "") {
		if last = err; err == nil {
			names = append(names, fi.Name())
		}
	}
	if !slices.Equal(names, []string{"b"}) {
		t.Errorf("%q are listed", names)
	}
	wantError(t, "ListObjects out of order", last, imagestore.ErrUnsupported)
}

func TestPrefix(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	// Neither of these may see the other's files.
	for _, prefix := range []string{e.prefix + "/f", e.prefix + "-other"} {
		wantNothing(t, s3fs.New(e.client, e.bucket, prefix))
	}
	for _, prefix := range []string{e.prefix, e.prefix + "/", "/" + e.prefix} {
		wantContent(t, s3fs.New(e.client, e.bucket, prefix), "file", text('a', 10))
	}
	wantContent(t, s3fs.New(e.client, e.bucket, ""), e.prefix+"/file", text('a', 10))
}

func TestCheck(t *testing.T) {
	e := newEngine(t)
	if err := e.Check(t.Context()); err != nil {
		t.Error(err)
	}
	wantNothing(t, e)
	for _, header := range []string{"If-None-Match", "If-Match"} {
		e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if r.Header.Get(header) != "" && err == nil && resp.StatusCode == http.StatusPreconditionFailed {
				resp.Body.Close()
				return answer(200, "")(r, next)
			}
			return resp, err
		})
		err := e.Check(t.Context())
		wantError(t, "Check of an engine that ignores "+header, err, imagestore.ErrUnsupported)
		if err != nil && !strings.Contains(err.Error(), "ignores "+header) {
			t.Errorf("Check returns %v", err)
		}
	}
	e.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodDelete {
			return answer(403, "AccessDenied")(r, next)
		}
		return next.RoundTrip(r)
	})
	wantOtherError(t, "Check where nothing may be removed", e.Check(t.Context()), imagestore.ErrUnavailable)
	e.wire.interfere(nil)
	for _, name := range list(t, e, "") {
		if imagestore.CheckID(name) == nil {
			t.Errorf("Check makes %q, which could be the id of an image", name)
		}
	}
}

func TestUnsupported(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	f := open(t, e, "file")
	_, err := f.WriteAt(nil, 0)
	wantError(t, "WriteAt", err, errors.ErrUnsupported)
	_, err = f.WriteString("")
	wantError(t, "WriteString", err, errors.ErrUnsupported)
	wantError(t, "Truncate", f.Truncate(0), errors.ErrUnsupported)
	wantError(t, "Chmod", e.Chmod("file", 0o600), errors.ErrUnsupported)
	wantContent(t, e, "file", text('a', 10))
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
}

func TestOpenOfUnknownSize(t *testing.T) {
	e := newEngine(t)
	put(t, e, "file", text('a', 10))
	e.wire.interfere(withoutHeader("Content-Length"))
	wantNoLeak(t, e.wire, func() {
		_, err := e.Open("file")
		wantOtherError(t, "Open of a file of unknown size", err, fs.ErrNotExist)
	})
}
