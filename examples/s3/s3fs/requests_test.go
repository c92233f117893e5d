package s3fs_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/examples/s3/s3fs"
	"github.com/spf13/afero"
)

// picture returns a PNG that is another one for every seed.
func picture(t *testing.T, side int, seed uint64) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, side, side))
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range img.Pix {
		img.Pix[i] = byte(r.Uint32())
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRequests pins what the operations of a Store cost. The README has the
// same table.
func TestRequests(t *testing.T) {
	e := newEngine(t)
	ctx := t.Context()
	store := imagestore.New(e, nil)
	if _, err := store.Stat(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "the very first Stat, of a missing image,", "HEAD", "HEAD bucket")
	other := s3fs.New(e.client, e.bucket, e.prefix)
	if err := other.Remove("a/image.png"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Stat("a/image.png"); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Stat of a missing image after something else", "DELETE", "HEAD")

	small, large := picture(t, 100, 1), picture(t, 1500, 2) // 10 KB, 2.2 MB
	var info imagestore.Info
	for _, b := range [][]byte{small, large} {
		var err error
		if info, err = store.Put(ctx, "a", bytes.NewReader(b), imagestore.IfAbsent()); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Put with IfAbsent", "HEAD", "PUT")
		if _, err := store.Put(ctx, "a", bytes.NewReader(b), imagestore.IfAbsent()); !errors.Is(err, imagestore.ErrPrecondition) {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Put with IfAbsent where an image is", "HEAD")
		if info, err = store.Put(ctx, "a", bytes.NewReader(b), imagestore.IfMatch(info.ETag)); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Put with IfMatch", "HEAD", "PUT")
		if _, err := store.Put(ctx, "a", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Put of another version", "PUT")
		img, err := store.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(img)
		if err := errors.Join(err, img.Close()); err != nil || !bytes.Equal(got, b) {
			t.Errorf("Get gives %d bytes, %v", len(got), err)
		}
		e.wire.wantSent(t, "Get", "GET")
		if _, err := store.Stat(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Stat", "HEAD")
		if err := store.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Delete", "HEAD", "DELETE")
		if _, err := store.Put(ctx, "a", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		e.wire.wantSent(t, "Put of a new image", "PUT")
		if err := store.Delete(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		e.wire.sent()
	}

	if _, err := store.Get(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	e.wire.wantSent(t, "Get of a missing image", "GET")
	if _, err := store.Stat(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	e.wire.wantSent(t, "Stat of a missing image", "HEAD")
	if err := store.Delete(ctx, "a"); !errors.Is(err, imagestore.ErrNotFound) {
		t.Error(err)
	}
	e.wire.wantSent(t, "Delete of a missing image", "HEAD")
	if err := e.Check(ctx); err != nil {
		t.Error(err)
	}
	e.wire.wantSent(t, "Check", "HEAD", "PUT", "PUT", "PUT", "DELETE")

	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("image-%02d", i))
		put(t, e, want[i]+"/image.png", small)
	}
	e.wire.sent()
	var got []string
	for info, err := range store.All(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("All gives %q", got)
	}
	e.wire.wantSent(t, "All of 20 images", "LIST")
}

// TestUploadRequests pins what an upload over HTTP costs, whose answer tells a
// new image from another version.
func TestUploadRequests(t *testing.T) {
	e := newEngine(t)
	if err := e.Check(t.Context()); err != nil { // as imaged does
		t.Fatal(err)
	}
	e.wire.sent()
	h := imagestore.NewHandler(imagestore.New(e, nil), nil)
	b := picture(t, 100, 1)
	for _, upload := range []struct {
		id, header, value string
		status            int
		sent              []string
	}{
		{"a", "", "", http.StatusCreated, []string{"HEAD", "PUT"}},
		{"a", "", "", http.StatusOK, []string{"HEAD", "PUT"}},
		{"a", "If-Match", "*", http.StatusOK, []string{"HEAD", "PUT"}},
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
			t.Errorf("%s is answered %d, not %d: %s", what, w.Code, upload.status, w.Body)
		}
		e.wire.wantSent(t, what, upload.sent...)
	}
}

// TestUpstreamRequests is what the same would cost with afero-s3 alone.
func TestUpstreamRequests(t *testing.T) {
	e := newEngine(t)
	up := e.upstream()
	e.wire.sent()
	write := func(b []byte) {
		t.Helper()
		f, err := up.OpenFile("file", os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(b)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	write(text('a', 6<<20))
	e.wire.wantSent(t, "writing 6 MiB", "POST", "PUT", "PUT", "POST")
	write(text('a', 10_000))
	e.wire.wantSent(t, "writing 10 KB", "PUT")
	if err := afero.WriteFile(up, "created", text('a', 10_000), 0o666); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "WriteFile", "PUT")
	f, err := up.Create("created")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Create and Close", "PUT", "HEAD", "PUT")
	if _, err := afero.ReadFile(up, "file"); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "ReadFile", "HEAD", "HEAD", "GET")
	if _, err := up.Stat("file"); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Stat", "HEAD")
	if _, err := up.Stat("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Stat of a missing file", "HEAD", "LIST")
	if _, err := up.Open("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Open of a missing file", "HEAD", "LIST")
	if err := up.Rename("file", "renamed"); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Rename", "COPY", "DELETE")
	if err := up.Remove("renamed"); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Remove", "HEAD", "DELETE")
	if err := up.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Mkdir", "PUT")
	f, err = up.Open("")
	if err != nil {
		t.Fatal(err)
	}
	e.wire.sent()
	if _, err := f.Readdirnames(-1); err != nil {
		t.Fatal(err)
	}
	e.wire.wantSent(t, "Readdirnames", "LIST")
}
