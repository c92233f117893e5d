package s3_test

import (
	"bytes"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
)

func TestSeek(t *testing.T) {
	svc := newService(t)
	want := text('a', 1000)
	put(t, svc, "file", want)
	put(t, svc, "empty", nil)
	svc.wire.sent()
	f := open(t, svc, "file")
	for _, seek := range []struct {
		offset int64
		whence int
		want   int64 // negative for an error
	}{
		{0, io.SeekEnd, 1000},
		{-10, io.SeekEnd, 990},
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
			t.Errorf("Seek(%d, %d): got %d, %v; want %d", seek.offset, seek.whence, at, err, seek.want)
		}
	}
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want) {
		t.Errorf("after all that: got %d bytes, %v; want 1000", len(b), err)
	}
	svc.wire.wantSent(t, "Seek to many places and Read from the start", "GET")
	svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if got := r.Header.Get("If-Match"); r.Header.Get("Range") != "" && got != f.ETag {
			t.Errorf("got If-Match %q, want %q", got, f.ETag)
		}
		return next.RoundTrip(r)
	})
	for _, from := range []int64{999, 500, 1, 0} {
		f.Seek(from, io.SeekStart)
		if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want[from:]) {
			t.Errorf("from %d: got %d bytes, %v", from, len(b), err)
		}
	}
	svc.wire.wantSent(t, "Read from four places", "GET", "GET", "GET", "GET")
	f.Seek(1500, io.SeekStart)
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("after the end: got %d bytes, %v; want EOF", n, err)
	}
	if b, err := io.ReadAll(open(t, svc, "empty")); err != nil || len(b) != 0 {
		t.Errorf("empty object: got %d bytes, %v; want none", len(b), err)
	}
	svc.wire.wantSent(t, "Read of an empty object", "GET")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, err := f.Read(make([]byte, 10))
	wantError(t, "Read after Close", err, fs.ErrClosed)
	_, err = f.Seek(0, io.SeekStart)
	wantError(t, "Seek after Close", err, fs.ErrClosed)
	wantError(t, "Close after Close", f.Close(), fs.ErrClosed)
}

// TestReplacedWhileOpen reads on when the version that is open has gone.
func TestReplacedWhileOpen(t *testing.T) {
	svc := newService(t)
	want := text('a', 100)
	put(t, svc, "file", want)
	f := open(t, svc, "file")
	put(t, svc, "file", text('b', 200))
	if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want) {
		t.Errorf("got %d bytes, %v; want those that were opened", len(b), err)
	}
	for _, change := range []string{"replaced", "removed"} {
		if _, err := f.Seek(50, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		n, err := f.Read(make([]byte, 10))
		if n != 0 {
			t.Errorf("%s: got %d bytes, want none", change, n)
		}
		wantError(t, change, err, s3.ErrChanged)
		wantOtherError(t, change, err, imagestore.ErrNotFound)
		svc.removeRaw(t, "file")
	}
}

// TestReplacedWhileCut ends a body too early when the image has been replaced.
func TestReplacedWhileCut(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 100))
	svc.wire.interfere(cutOnce(50, func() { put(t, svc, "file", text('b', 100)) }))
	f := open(t, svc, "file")
	b, err := io.ReadAll(f)
	if !bytes.Equal(b, text('a', 100)[:len(b)]) {
		t.Errorf("got %d bytes that are not those of the image", len(b))
	}
	wantOtherError(t, "Read", err, io.EOF)
	_, err = f.Read(make([]byte, 10))
	wantError(t, "the Read after it", err, s3.ErrChanged)
}

// TestIgnoredHeaders has a service answer with more, or with something else,
// than was asked for.
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
		svc := newService(t)
		put(t, svc, "file", text('a', 1000))
		svc.wire.interfere(fault)
		wantNoLeak(t, svc.wire, func() {
			f, err := svc.Open(t.Context(), "file")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.Seek(500, io.SeekStart)
			if n, err := f.Read(make([]byte, 10)); n != 0 || err == nil {
				t.Errorf("%s is ignored: got %d bytes, %v; want an error", name, n, err)
			}
		})
	}
}

func TestDownloadCut(t *testing.T) {
	svc := newService(t)
	want := text('a', 1<<20)
	put(t, svc, "file", want)
	svc.wire.interfere(lossy{up: plenty, down: 700_000}.fault(t))
	wantNoLeak(t, svc.wire, func() {
		f, err := svc.Open(t.Context(), "file")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		first, err := io.ReadAll(f)
		wantError(t, "Read", err, imagestore.ErrUnavailable)
		rest, err := io.ReadAll(f) // from where it was cut
		if err != nil || !bytes.Equal(append(first, rest...), want) {
			t.Errorf("got parts of %d and %d bytes, %v; want the whole", len(first), len(rest), err)
		}
	})
}

func TestDownloadStalled(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 1<<20))
	svc.wire.interfere(lossy{up: plenty, down: 700_000, stall: true}.fault(t))
	svc.SetPatience(200 * time.Millisecond)
	f := open(t, svc, "file")
	b, err := io.ReadAll(f)
	wantError(t, "Read", err, imagestore.ErrUnavailable)
	if !bytes.Equal(b, text('a', 1<<20)[:len(b)]) {
		t.Error("got other bytes")
	}
}

// TestSlowReader takes longer between two calls of Read than the service may send
// nothing.
func TestSlowReader(t *testing.T) {
	svc := newService(t)
	want := text('a', 1<<20)
	put(t, svc, "file", want)
	const patience = time.Second
	svc.SetPatience(patience)
	f := open(t, svc, "file")
	<-time.After(patience + patience/2)
	first := make([]byte, 1000)
	if _, err := io.ReadFull(f, first); err != nil {
		t.Fatal(err)
	}
	<-time.After(patience + patience/2)
	if rest, err := io.ReadAll(f); err != nil || !bytes.Equal(append(first, rest...), want) {
		t.Errorf("got %d more bytes, %v; want the rest", len(rest), err)
	}
	svc.wire.wantSent(t, "all that", "PUT", "GET")
}

func TestWrongBytes(t *testing.T) {
	svc := newService(t)
	want := text('a', 100_000)
	put(t, svc, "file", want)
	svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil {
			resp.Body = &wrongBody{ReadCloser: resp.Body}
		}
		return resp, err
	})
	b, err := io.ReadAll(open(t, svc, "file"))
	wantOtherError(t, "Read of wrong bytes", err, imagestore.ErrUnavailable)
	if len(b) >= len(want) {
		t.Error("got all bytes although they are wrong")
	}
}

// A wrongBody flips one bit.
type wrongBody struct {
	io.ReadCloser
	done bool
}

func (b *wrongBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 && !b.done {
		p[0] ^= 1
		b.done = true
	}
	return n, err
}

// TestNoChecksum reads an object without a checksum.
func TestNoChecksum(t *testing.T) {
	svc := newService(t, func(o *awss3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.Logger = logging.LoggerFunc(func(_ logging.Classification, format string, args ...any) {
			t.Errorf("the SDK logs: "+format, args...)
		})
	})
	want := text('a', 1000)
	put(t, svc, "file", want)
	wantContent(t, svc, "file", want)
	svc.wire.interfere(cutOnce(500, nil))
	b, err := io.ReadAll(open(t, svc, "file"))
	wantError(t, "Read of a body that ends too early", err, imagestore.ErrUnavailable, io.ErrUnexpectedEOF)
	if !bytes.Equal(b, want[:len(b)]) {
		t.Error("got other bytes")
	}
}
