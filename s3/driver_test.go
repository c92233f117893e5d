package s3_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
	"github.com/ba692904/imagestore/storetest"
)

func TestDriver(t *testing.T) {
	storetest.TestDriver(t, func(t *testing.T) imagestore.Driver { return newService(t).Driver })
}

func TestObject(t *testing.T) {
	svc := newService(t)
	before := time.Now()
	result, err := commit(t.Context(), svc, "file", text('a', 6<<20), imagestore.IfAbsent()) // more than an S3 part
	if err != nil {
		t.Fatal(err)
	}
	svc.wire.wantSent(t, "Commit", "PUT")
	out, err := svc.client.HeadObject(t.Context(), &awss3.HeadObjectInput{
		Bucket: &svc.bucket, Key: aws.String(svc.prefix + "file"), ChecksumMode: types.ChecksumModeEnabled,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := aws.ToString(out.ContentType); got != "image/png" {
		t.Errorf("got Content-Type %q, want image/png", got)
	}
	if aws.ToString(out.ChecksumCRC32) == "" {
		t.Error("the service keeps no checksum")
	}
	modTime := result.ModTime
	if seconds := fmt.Sprintf("%d.%09d", modTime.Unix(), modTime.Nanosecond()); out.Metadata["mtime"] != seconds {
		t.Errorf("got metadata %v, want the time %s", out.Metadata, seconds)
	}
	if modTime.Before(before) || modTime.After(time.Now()) {
		t.Errorf("got time %v, want now", modTime)
	}
	want := imagestore.Info{ID: "file", Type: "image/png", Size: 6 << 20, ModTime: modTime, ETag: aws.ToString(out.ETag)}
	stat, err := svc.Stat(t.Context(), "file")
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]imagestore.Info{"Commit": result.Info, "Stat": stat, "Open": open(t, svc, "file").Info} {
		if got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
}

// TestForeignTimes has objects that others have put.
func TestForeignTimes(t *testing.T) {
	svc := newService(t)
	for mtime, want := range map[string]time.Time{
		"1700000000.123456789":  time.Unix(1700000000, 123456789),
		"1700000000.5":          time.Unix(1700000000, 500000000),
		"1700000000":            time.Unix(1700000000, 0),
		"1700000000.1234567891": time.Unix(1700000000, 123456789),
		"yesterday":             {},
		"1700000000.-5":         {},
		"":                      {},
	} {
		in := &awss3.PutObjectInput{Bucket: &svc.bucket, Key: aws.String(svc.prefix + "file"), Body: strings.NewReader("x")}
		if mtime != "" {
			in.Metadata = map[string]string{"mtime": mtime}
		}
		if _, err := svc.client.PutObject(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		info, err := svc.Stat(t.Context(), "file")
		if err != nil {
			t.Fatal(err)
		}
		if want.IsZero() {
			for listed := range svc.List(t.Context(), imagestore.ListOptions{}) {
				want = listed.ModTime.Truncate(time.Second)
			}
		}
		if !info.ModTime.Equal(want) {
			t.Errorf("mtime %q: got %v, want %v", mtime, info.ModTime, want.UTC())
		}
	}
}

// TestForeignTypes has objects that others have put. A browser must not take
// them for a page.
func TestForeignTypes(t *testing.T) {
	svc := newService(t)
	for contentType, want := range map[string]string{
		"image/png":  "image/png",
		"image/webp": "image/webp",
		"text/html":  "application/octet-stream",
		"":           "application/octet-stream",
	} {
		in := &awss3.PutObjectInput{Bucket: &svc.bucket, Key: aws.String(svc.prefix + "file"), Body: strings.NewReader("x")}
		if contentType != "" {
			in.ContentType = &contentType
		}
		if _, err := svc.client.PutObject(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		info, err := svc.Stat(t.Context(), "file")
		if err != nil || info.Type != want || open(t, svc, "file").Type != want {
			t.Errorf("Content-Type %q: got type %q, %v; want %q", contentType, info.Type, err, want)
		}
	}
}

func TestPrefix(t *testing.T) {
	svc := newService(t)
	want := text('a', 10)
	put(t, svc, "file", want)
	wantKeys(t, svc, "file")
	wantContent(t, s3.New(svc.client, svc.bucket, svc.prefix+"fi"), "le", want) // nothing comes in between
	for _, prefix := range []string{svc.prefix + "file/", svc.prefix + "other", strings.TrimSuffix(svc.prefix, "/")} {
		d := s3.New(svc.client, svc.bucket, prefix)
		if got := list(t, d, imagestore.ListOptions{}); len(got) > 0 {
			t.Errorf("prefix %q: got ids %q, want none", prefix, got)
		}
		_, err := d.Stat(t.Context(), "file")
		wantError(t, "Stat", err, imagestore.ErrNotFound)
	}
	whole := s3.New(svc.client, svc.bucket, "")
	id := "test-" + strings.ToLower(strings.Trim(svc.prefix, "/"))
	if _, err := whole.PutObject(t.Context(), id, bytes.NewReader(want), imagestore.IfAbsent()); err != nil {
		t.Fatal(err)
	}
	wantContent(t, whole, id, want)
	if got := list(t, whole, imagestore.ListOptions{Prefix: id}); len(got) != 1 || got[0] != id {
		t.Errorf("no prefix: got ids %q, want %q", got, id)
	}
	if err := whole.Delete(t.Context(), id, imagestore.Condition{}); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	svc := newService(t)
	if err := svc.Check(t.Context()); err != nil {
		t.Error(err)
	}
	wantKeys(t, svc)
	for _, header := range []string{"If-None-Match", "If-Match"} {
		svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if r.Header.Get(header) != "" && err == nil && resp.StatusCode == http.StatusPreconditionFailed {
				resp.Body.Close()
				return answer(200, "")(r, next)
			}
			return resp, err
		})
		err := svc.Check(t.Context())
		wantError(t, "Check of a service that ignores "+header, err, imagestore.ErrNotImplemented)
		if err != nil && !strings.Contains(err.Error(), "ignores "+header) {
			t.Errorf("got error %v, want one that names %s", err, header)
		}
	}
	svc.wire.interfere(only("HEAD", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := answer(200, "")(r, next)
		resp.Header.Set("ETag", `"0"`)
		resp.Header.Set("Content-Length", "0")
		return resp, err
	}))
	if err := svc.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "never put") {
		t.Errorf("Check of a service that finds everything: got error %v", err)
	}
	svc.wire.interfere(only("DELETE", answer(403, "AccessDenied")))
	wantOtherError(t, "Check where nothing may be removed", svc.Check(t.Context()), imagestore.ErrUnavailable)
	keys := svc.keys(t)
	if len(keys) != 1 {
		t.Errorf("got keys %q, want one of Check", keys)
	}
	for _, key := range keys {
		if imagestore.CheckID(key) == nil {
			t.Errorf("Check makes %q, which could be the id of an image", key)
		}
	}
}

// TestHeaders has answers without some headers.
func TestHeaders(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	svc.wire.interfere(withoutHeader("Last-Modified"))
	if info, err := svc.Stat(t.Context(), "file"); err != nil || info.Size != 10 {
		t.Errorf("no Last-Modified: got %+v, %v", info, err)
	}
	for _, header := range []string{"Content-Length", "ETag"} {
		svc.wire.interfere(withoutHeader(header))
		_, err := svc.Stat(t.Context(), "file")
		wantOtherError(t, "Stat without "+header, err, imagestore.ErrNotFound)
		wantNoLeak(t, svc.wire, func() {
			_, err := svc.Open(t.Context(), "file")
			wantOtherError(t, "Open without "+header, err, imagestore.ErrNotFound)
		})
	}
	svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Header.Set("ETag", strings.Trim(resp.Header.Get("ETag"), `"`))
		}
		return resp, err
	})
	if info, err := svc.Stat(t.Context(), "file"); err != nil || info.ETag != md5Tag(text('a', 10)) {
		t.Errorf("ETag without quotes: got %s, %v", info.ETag, err)
	}
}
