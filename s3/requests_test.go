package s3_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/s3"
)

// TestRequests pins what the operations of a Store cost. The README has the
// same table.
func TestRequests(t *testing.T) {
	svc := newService(t)
	ctx := t.Context()
	store := imagestore.NewWithDriver(svc, nil)
	if _, err := store.Stat(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Fatal(err)
	}
	svc.wire.wantSent(t, "the first Stat, of a missing image", "HEAD", "HEAD bucket")
	other := s3.New(svc.client, svc.bucket, svc.prefix)
	if err := other.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Stat(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Fatal(err)
	}
	svc.wire.wantSent(t, "Stat of a missing image after another request", "DELETE", "HEAD")

	small, large := testimage.PNG(t, 100, 1), testimage.PNG(t, 1500, 2) // 10 KB, 2.2 MB
	for _, b := range [][]byte{small, large} {
		put := func(want error, replaced bool, conds ...imagestore.Condition) imagestore.PutResult {
			t.Helper()
			result, err := store.Put(ctx, "a", bytes.NewReader(b), conds...)
			if !errors.Is(err, want) || err == nil && result.Replaced != replaced {
				t.Fatalf("got %+v, %v; want Replaced %t, %v", result, err, replaced, want)
			}
			return result
		}
		created := put(nil, false, imagestore.IfAbsent())
		svc.wire.wantSent(t, "Put with IfAbsent", "HEAD", "PUT")
		put(imagestore.ErrPreconditionFailed, false, imagestore.IfAbsent())
		svc.wire.wantSent(t, "Put with IfAbsent where there is an image", "HEAD")
		put(nil, true, imagestore.IfMatch(created.ETag))
		svc.wire.wantSent(t, "Put with IfMatch", "HEAD", "PUT")
		put(nil, true, imagestore.IfMatch("*"))
		svc.wire.wantSent(t, "Put with IfMatch of any version", "HEAD", "HEAD", "PUT")
		put(nil, true)
		svc.wire.wantSent(t, "Put of another version", "HEAD", "PUT")
		img, err := store.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(img)
		if err := errors.Join(err, img.Close()); err != nil || !bytes.Equal(got, b) {
			t.Errorf("Get: got %d bytes, %v; want %d", len(got), err, len(b))
		}
		svc.wire.wantSent(t, "Get", "GET")
		if err := store.Verify(ctx, "a"); err != nil {
			t.Error(err)
		}
		svc.wire.wantSent(t, "Verify", "GET")
		if _, err := store.Stat(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		svc.wire.wantSent(t, "Stat", "HEAD")
		if err := store.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		svc.wire.wantSent(t, "Delete", "HEAD", "DELETE")
		put(nil, false)
		svc.wire.wantSent(t, "Put of a new image", "HEAD", "PUT")
		if err := store.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		svc.wire.sent()
	}

	if _, err := store.Put(ctx, "a", bytes.NewReader(large[:100_000])); !errors.Is(err, imagestore.ErrInvalidImage) {
		t.Error(err)
	}
	svc.wire.wantSent(t, "Put of a broken image")
	if _, err := store.Get(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	svc.wire.wantSent(t, "Get of a missing image", "GET")
	if _, err := store.Stat(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	svc.wire.wantSent(t, "Stat of a missing image", "HEAD")
	if err := store.Delete(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	svc.wire.wantSent(t, "Delete of a missing image", "HEAD")
	if err := svc.Check(ctx); err != nil {
		t.Error(err)
	}
	svc.wire.wantSent(t, "Check", "HEAD", "PUT", "PUT", "PUT", "DELETE")

	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("image-%02d", i))
		put(t, svc, want[i], small)
	}
	svc.wire.sent()
	var got []string
	for info, err := range store.List(ctx, imagestore.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	svc.wire.wantSent(t, "List of 20 images", "LIST")
}

// TestUploadRequests pins what an upload over HTTP costs. Its answer tells a new
// image from another version.
func TestUploadRequests(t *testing.T) {
	svc := newService(t)
	if err := svc.Check(t.Context()); err != nil { // as imaged-s3 does
		t.Fatal(err)
	}
	svc.wire.sent()
	h := imagestore.NewHandler(imagestore.NewWithDriver(svc, nil), nil)
	b := testimage.PNG(t, 100, 1)
	for _, upload := range []struct {
		id, header, value string
		status            int
		sent              []string
	}{
		{"a", "", "", http.StatusCreated, []string{"HEAD", "PUT"}},
		{"a", "", "", http.StatusOK, []string{"HEAD", "PUT"}},
		{"a", "If-Match", md5Tag(b), http.StatusOK, []string{"HEAD", "PUT"}},
		{"a", "If-Match", `"x"`, http.StatusPreconditionFailed, []string{"HEAD"}},
		{"a", "If-Match", "*", http.StatusOK, []string{"HEAD", "HEAD", "PUT"}},
		{"a", "If-None-Match", "*", http.StatusPreconditionFailed, []string{"HEAD"}},
		{"b", "If-None-Match", "*", http.StatusCreated, []string{"HEAD", "PUT"}},
	} {
		r := httptest.NewRequest(http.MethodPut, "/images/"+upload.id, bytes.NewReader(b))
		if upload.header != "" {
			r.Header.Set(upload.header, upload.value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		what := fmt.Sprintf("PUT of %s with %s", upload.id, cmp.Or(upload.header, "no condition"))
		if w.Code != upload.status {
			t.Errorf("%s: got status %d, want %d: %s", what, w.Code, upload.status, w.Body)
		}
		svc.wire.wantSent(t, what, upload.sent...)
	}
}
