package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// behind returns a Client of a store behind a proxy that changes requests and answers.
func behind(t *testing.T, request func(*http.Request), answer func(*http.Response) error) *client.Client {
	t.Helper()
	store, err := url.Parse(testhttp.Serve(t, newStore(t)).URL)
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, (&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(store)
			if request != nil {
				request(r.Out)
			}
		},
		ModifyResponse: answer,
	}).ServeHTTP)
}

// flip changes the byte at an offset, counted from the end if it is negative.
func flip(resp *http.Response, at int) error {
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	b[(len(b)+at)%len(b)] ^= 1
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return nil
}

func TestDigestOfPut(t *testing.T) {
	t.Parallel()
	small, large := testimage.PNG(t, 10, 1), testimage.PNG(t, 1100, 1)
	swapped := testimage.PNG(t, 10, 2)
	var sent http.Header
	swap := false
	plain := behind(t, func(r *http.Request) {
		sent = r.Header.Clone()
		if swap {
			io.Copy(io.Discard, r.Body) // otherwise the client may get no answer
			r.Body = io.NopCloser(bytes.NewReader(swapped))
			r.ContentLength = int64(len(swapped))
		}
	}, nil)
	c := plain.WithDigests()
	name := filepath.Join(t.TempDir(), "x.png")
	if err := os.WriteFile(name, append([]byte("junk"), large...), 0o666); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		r io.Reader
		b []byte
	}{
		{bytes.NewReader(small), small},
		{strings.NewReader(string(large)), large},
		{file, large}, // from where it is
		{io.NewSectionReader(bytes.NewReader(small), 0, int64(len(small))), small},
	} {
		if _, err := c.Put(t.Context(), "a", test.r); err != nil {
			t.Errorf("%T: got %v, want nil", test.r, err)
		}
		if got, want := sent.Get("Repr-Digest"), sha256Of(test.b); got != want {
			t.Errorf("%T: got Repr-Digest %q, want %q", test.r, got, want)
		}
		if got := read(t, plain, "a"); !bytes.Equal(got, test.b) {
			t.Errorf("%T: got %d other bytes, want the image", test.r, len(got))
		}
	}
	if _, err := plain.Put(t.Context(), "a", bytes.NewReader(small)); err != nil || sent.Get("Repr-Digest") != "" {
		t.Errorf("without digests: got %v, header %v, want no Repr-Digest", err, sent)
	}

	swap = true
	result, err := c.Put(t.Context(), "a", bytes.NewReader(large))
	swap = false
	if !errors.Is(err, imagestore.ErrDigestMismatch) || !strings.Contains(err.Error(), sha256Of(large)) || result != (imagestore.PutResult{}) {
		t.Errorf("another image arrives: got %+v, %v, want %v", result, err, imagestore.ErrDigestMismatch)
	}
	if got := read(t, plain, "a"); !bytes.Equal(got, small) {
		t.Errorf("another image arrives: got %d bytes, want the old image", len(got))
	}
}

// TestDigestOfOneTimeReader puts images that can be read only once, or not at all.
// Nothing must be sent.
func TestDigestOfOneTimeReader(t *testing.T) {
	t.Parallel()
	c := dial(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("got %s, want no request", r.Method) }).WithDigests()
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("reader failed")
	cancelled, cancelLater := context.WithCancel(t.Context())
	reads := 0
	endless := readerFunc(func(p []byte) (int, error) {
		cancelLater()
		if reads++; reads > 1 {
			t.Fatal("got a Read after the context was done, want none")
		}
		return len(p), nil
	})
	for _, test := range []struct {
		ctx  context.Context
		r    io.Reader
		want error
	}{
		{t.Context(), bytes.NewBufferString("x"), imagestore.ErrBadRequest},
		{t.Context(), pr, imagestore.ErrBadRequest},
		{t.Context(), failing{iotest.ErrReader(broken), strings.NewReader("x")}, broken},
		{t.Context(), failing{strings.NewReader("x"), seekOnce(broken)}, broken},
		{ctx, strings.NewReader("x"), context.Canceled},
		{cancelled, failing{endless, strings.NewReader("x")}, context.Canceled},
	} {
		_, err := c.Put(test.ctx, "a", test.r)
		if e, ok := errors.AsType[*imagestore.Error](err); !errors.Is(err, test.want) || !ok || e.Op != "put" || e.ID != "a" {
			t.Errorf("%T: got %v, want %v", test.r, err, test.want)
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type failing struct {
	io.Reader
	io.Seeker
}

// A seekerFunc is a function that seeks.
type seekerFunc func() error

func (f seekerFunc) Seek(int64, int) (int64, error) { return 0, f() }

// seekOnce returns a Seeker that fails the second time.
func seekOnce(err error) io.Seeker {
	n := 0
	return seekerFunc(func() error {
		if n++; n == 2 {
			return err
		}
		return nil
	})
}

func read(t *testing.T, c *client.Client, id string) []byte {
	t.Helper()
	img, err := c.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b, err := io.ReadAll(img)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDigestOfGet reads images behind a proxy that changes one byte of them.
func TestDigestOfGet(t *testing.T) {
	t.Parallel()
	small, large := testimage.PNG(t, 10, 1), testimage.PNG(t, 300, 1)
	changed := -1 // the offset of the byte, or -1
	var repr []string
	asked := ""
	plain := behind(t, nil, func(resp *http.Response) error {
		asked = resp.Request.Header.Get("Want-Repr-Digest")
		if resp.Request.Method != http.MethodGet {
			return nil
		}
		if repr != nil {
			resp.Header["Repr-Digest"] = repr
		}
		if changed < 0 {
			return nil
		}
		return flip(resp, changed)
	})
	c := plain.WithDigests()
	exactly := func(img *imagestore.Image) error {
		_, err := io.ReadFull(img, make([]byte, img.Size))
		return err
	}
	readers := map[string]func(img *imagestore.Image) error{
		"ReadAll":  func(img *imagestore.Image) error { _, err := io.ReadAll(img); return err },
		"ReadFull": exactly,
		"CopyN":    func(img *imagestore.Image) error { _, err := io.CopyN(io.Discard, img, img.Size); return err },
		"bytes":    func(img *imagestore.Image) error { _, err := io.ReadAll(iotest.OneByteReader(img)); return err },
		"after Seek and back": func(img *imagestore.Image) error {
			img.Seek(0, io.SeekEnd)
			img.Seek(0, io.SeekStart)
			return exactly(img)
		},
		"again": func(img *imagestore.Image) error {
			io.CopyN(io.Discard, img, 100)
			img.Seek(0, io.SeekStart)
			return exactly(img)
		},
		"with a look elsewhere": func(img *imagestore.Image) error {
			io.CopyN(io.Discard, img, 100)
			img.Seek(50, io.SeekStart)
			io.CopyN(io.Discard, img, 7)
			img.Seek(100, io.SeekStart)
			_, err := io.ReadAll(img)
			return err
		},
	}
	for _, b := range [][]byte{small, large} {
		if _, err := c.Put(t.Context(), "a", bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		for name, read := range readers {
			for _, changed = range []int{-1, 0, 30, len(b) - 1} {
				img, err := c.Get(t.Context(), "a")
				if err != nil {
					t.Fatal(err)
				}
				if asked == "" {
					t.Error("got no Want-Repr-Digest, want one")
				}
				err = read(img)
				if changed < 0 {
					if err != nil {
						t.Errorf("%s: got %v, want nil", name, err)
					}
					if _, err := img.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("%s: got %v at the end, want EOF", name, err)
					}
				} else {
					if e, ok := errors.AsType[*imagestore.Error](err); !errors.Is(err, imagestore.ErrDigestMismatch) || !ok || e.Op != "get" || !strings.Contains(err.Error(), sha256Of(b)) {
						t.Errorf("%s, byte %d is another: got %v, want %v", name, changed, err, imagestore.ErrDigestMismatch)
					}
					img.Seek(0, io.SeekStart)
					if n, err := img.Read(make([]byte, 1)); n > 0 || !errors.Is(err, imagestore.ErrDigestMismatch) {
						t.Errorf("%s, byte %d is another: got %d bytes, %v from another Read, want the error again", name, changed, n, err)
					}
				}
				img.Close()
			}
		}
	}

	// A part of an image is not checked.
	changed = -1
	img, err := c.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	changed = 0
	img.Seek(5, io.SeekStart)
	if b, err := io.ReadAll(img); err != nil || len(b) != len(large)-5 {
		t.Errorf("a part: got %d bytes, %v, want %d", len(b), err, len(large)-5)
	}

	// Without digests nobody notices.
	if got := read(t, plain, "a"); bytes.Equal(got, large) || asked != "" {
		t.Errorf("without digests: got Want-Repr-Digest %q, want none and the changed image", asked)
	}

	changed = -1
	for _, test := range []struct {
		repr []string
		ok   bool
	}{
		{[]string{}, false},
		{[]string{""}, false},
		{[]string{"md5=:CY9rzUYh03PK3k6DJie09g==:"}, false},
		{[]string{"sha-256"}, false},
		{[]string{"sha-256=:aa:"}, false},
		{[]string{"\u202e"}, false},
		{[]string{"md5=:CY9rzUYh03PK3k6DJie09g==:", sha256Of(large)}, true},
	} {
		repr = test.repr
		img, err := c.Get(t.Context(), "a")
		if test.ok && err == nil {
			img.Close()
			continue
		}
		e, ok := errors.AsType[*client.StatusError](err)
		if test.ok || !ok || e.StatusCode != 200 || !strings.Contains(e.Detail, "Repr-Digest") || !isPrintable(err.Error()) {
			t.Errorf("Repr-Digest %q: got %v, want success: %v, or a StatusError", repr, err, test.ok)
		}
	}
	repr = []string{}
	if _, err := c.Stat(t.Context(), "a"); err != nil || asked != "" {
		t.Errorf("Stat: got %v, Want-Repr-Digest %q, want nil and none", err, asked)
	}
}

// TestDigestOfNothing has a server that sends an empty image.
func TestDigestOfNothing(t *testing.T) {
	t.Parallel()
	for b, fits := range map[string]bool{"": true, "x": false} {
		s := &script{answers: []string{imageAnswer("200 OK", "", "Repr-Digest: "+sha256Of([]byte(b))+"\r\n")}}
		img, err := s.client(t).WithDigests().Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if _, err := io.ReadAll(img); (err == nil) != fits || !fits && !errors.Is(err, imagestore.ErrDigestMismatch) {
			t.Errorf("digest of %q: got %v, want it to fit: %v", b, err, fits)
		}
	}
}
