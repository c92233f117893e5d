package imagestore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestNothingWrittenForBadImages checks that an upload that is refused within its
// first 64 KiB does not write.
func TestNothingWrittenForBadImages(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, &imagestore.Options{MaxPixels: 1000})
	good := testimage.PNG(t, 10, 1)
	huge := bytes.Clone(good)
	copy(huge[16:], "\x7f\xff\xff\xff\x7f\xff\xff\xff")
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(huge)); !errors.Is(err, imagestore.ErrTooLarge) {
		t.Errorf("2147483647 x 2147483647 pixels: got %v, want %v", err, imagestore.ErrTooLarge)
	}
	for _, b := range [][]byte{nil, []byte("GIF89a"), good[:len(good)-1], append(bytes.Clone(good), 1), testimage.PNG(t, 33, 1), huge} {
		if _, err := s.Put(t.Context(), "a", bytes.NewReader(b)); err == nil {
			t.Error("bad image: got no error, want one")
		}
	}
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(good), imagestore.IfMatch("*")); err == nil {
		t.Error("failed precondition: got no error, want one")
	}
	for _, op := range fsys.Trace() {
		if op.Name != "lstat" {
			t.Errorf("got operation %v, want lstat alone", op)
		}
	}
}

// TestVerifyPixels has an image whose chunk checksums are right and whose pixel data
// is damaged.
func TestVerifyPixels(t *testing.T) {
	b := testimage.PNG(t, 30, 1)
	i := bytes.Index(b, []byte("IDAT"))
	n := int(binary.BigEndian.Uint32(b[i-4:]))
	bad := bytes.Clone(b)
	bad[i+4+n-1] ^= 1 // in the checksum of zlib
	binary.BigEndian.PutUint32(bad[i+4+n:], crc32.ChecksumIEEE(bad[i:i+4+n]))

	fsys := onDisk(t)
	checksums, pixels := imagestore.New(fsys, nil), imagestore.New(fsys, &imagestore.Options{VerifyPixels: true})
	put(t, pixels, "good", b)
	put(t, checksums, "bad", bad)
	_, err := pixels.Put(t.Context(), "bad2", bytes.NewReader(bad))
	wantError(t, err, imagestore.ErrInvalidImage, "put", "bad2")
	for _, s := range []*imagestore.Store{checksums, pixels} {
		must(t, s.Verify(t.Context(), "good"))
	}
	must(t, checksums.Verify(t.Context(), "bad"))
	wantError(t, pixels.Verify(t.Context(), "bad"), imagestore.ErrInvalidImage, "verify", "bad")
	wantError(t, pixels.Verify(t.Context(), "none"), imagestore.ErrNotFound, "verify", "none")
	wantError(t, pixels.Verify(t.Context(), ".."), imagestore.ErrInvalidID, "verify", "..")

	// Uploads that break off leave no goroutine.
	before := runtime.NumGoroutine()
	for range 20 {
		half := io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(io.ErrClosedPipe))
		_, err := pixels.Put(t.Context(), "half", half)
		wantError(t, err, io.ErrClosedPipe, "put", "half")
		must(t, afero.WriteFile(fsys, "good/image", b[:len(b)/2], 0o666))
		wantError(t, pixels.Verify(t.Context(), "good"), imagestore.ErrInvalidImage, "verify", "good")
	}
	if after := runtime.NumGoroutine(); after >= before+20 {
		t.Errorf("got %d goroutines, want about %d", after, before)
	}
}

// TestRefusalTexts checks that a refusal says what helps, over HTTP as in Go, and that
// a form and a raw body get the same text.
func TestRefusalTexts(t *testing.T) {
	t.Parallel()
	good := testimage.PNG(t, 10, 1)
	s := imagestore.New(onDisk(t), &imagestore.Options{MaxBytes: 10_000})
	srv := serve(t, s, nil)
	for _, test := range []struct {
		name   string
		b      []byte
		reason error
		status int
		code   string
		text   string
	}{
		{"empty", nil, imagestore.ErrUnsupportedType, 415, "unsupported_type",
			"unsupported image type: the upload is empty; perhaps no file was chosen, or a file was read before and must be rewound"},
		{"a JPEG", []byte("\xff\xd8\xff\xe0\x00\x10JFIF"), imagestore.ErrUnsupportedType, 415, "unsupported_type",
			"unsupported image type: it looks like a JPEG; only PNG is taken; open it and save it as PNG, because a new name does not convert it"},
		{"cut", good[:len(good)-1], imagestore.ErrInvalidImage, 422, "invalid_image",
			"invalid image: cut short; send all of it: 1 of 4 CRC bytes of IEND are missing"},
		{"a byte too many", append(bytes.Clone(good), 1), imagestore.ErrInvalidImage, 422, "invalid_image",
			"invalid image: the picture is whole, but 1 byte follows its end, maybe a private part of an older version of the file (aCropalypse); open it and save it as a new file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			_, err := s.Put(t.Context(), "a", bytes.NewReader(test.b))
			if wantError(t, err, test.reason, "put", "a"); err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("Put: got %v, want %q in it", err, test.text)
			}
			body, contentType := form(t, file("file", test.b))
			url := srv.URL + "/images/a"
			checkProblem(t, testhttp.Request(t, http.MethodPut, url, bytes.NewReader(test.b)), test.status, test.code, test.text)
			checkProblem(t, testhttp.Request(t, http.MethodPost, url, strings.NewReader(body), "Content-Type", contentType), test.status, test.code, test.text)
		})
	}

	// The limit ends the count of bytes after the end and is not what is wrong.
	_, err := s.Put(t.Context(), "a", io.MultiReader(bytes.NewReader(good), strings.NewReader("x"), bytes.NewReader(make([]byte, 20_000))))
	if wantError(t, err, imagestore.ErrInvalidImage, "put", "a"); err != nil && !strings.Contains(err.Error(), "but at least ") {
		t.Errorf("Put: got %v, want the count up to the limit", err)
	}
}
