package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
)

func TestCancelledBefore(t *testing.T) {
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			svc := newService(t)
			put(t, svc, "file", text('a', 10))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if r.Method == http.MethodPut || r.Method == http.MethodDelete {
					t.Errorf("got request %s, want none", r.Method)
				}
				return next.RoundTrip(r)
			})
			wantNoLeak(t, svc.wire, func() {
				err := op(ctx, svc.Driver)
				wantError(t, name, err, context.Canceled)
				wantOtherError(t, name, err, imagestore.ErrUnavailable)
			})
		})
	}
}

// TestCancelledRead cancels the context while a service that sends nothing is
// asked.
func TestCancelledRead(t *testing.T) {
	for name, request := range map[string]string{
		"Stat": "HEAD", "Open": "GET", "List": "LIST", "Commit": "HEAD", "Delete": "HEAD", "Check": "HEAD",
	} {
		t.Run(name, func(t *testing.T) {
			svc := newService(t)
			svc.SetPatience(time.Hour)
			put(t, svc, "file", text('a', 10))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			svc.wire.sent()
			svc.wire.interfere(func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
				cancel()
				<-r.Context().Done()
				return nil, r.Context().Err()
			})
			wantNoLeak(t, svc.wire, func() {
				err := operations[name](ctx, svc.Driver)
				wantError(t, name, err, context.Canceled)
				wantOtherError(t, name, err, imagestore.ErrUnavailable)
			})
			svc.wire.wantSent(t, name, request)
		})
	}
	t.Run("Open/answered", func(t *testing.T) {
		svc := newService(t)
		put(t, svc, "file", text('a', 10))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			cancel()
			return resp, err
		})
		wantNoLeak(t, svc.wire, func() {
			_, err := svc.Open(ctx, "file")
			wantError(t, "Open", err, context.Canceled)
		})
	})
	t.Run("deadline", func(t *testing.T) {
		svc := newService(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		for _, name := range []string{"Stat", "Open", "List"} {
			wantError(t, name, operations[name](ctx, svc.Driver), context.DeadlineExceeded)
		}
	})
}

// TestOpenOutlivesContext reads after the context of Open is done.
func TestOpenOutlivesContext(t *testing.T) {
	svc := newService(t)
	want := text('a', 1<<20)
	put(t, svc, "file", want)
	ctx, cancel := context.WithCancel(t.Context())
	img, err := svc.Open(ctx, "file")
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	cancel()
	for range 2 {
		if got, err := io.ReadAll(img); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
		if _, err := img.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCancelledCheck cancels Check while it puts its object. The object goes.
func TestCancelledCheck(t *testing.T) {
	svc := newService(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	svc.wire.interfere(only("PUT", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		cancel()
		return next.RoundTrip(r)
	}))
	wantNoLeak(t, svc.wire, func() {
		err := svc.Check(ctx)
		wantError(t, "Check", err, context.Canceled)
		wantOtherError(t, "Check", err, imagestore.ErrUnavailable)
	})
	wantKeys(t, svc)
}

// TestCancelledPut cancels the context while the body is sent, and when the
// service has answered. A PUT that has begun goes on.
func TestCancelledPut(t *testing.T) {
	halfway := func(cancel func()) fault {
		return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Body = &watchedBody{r.Body, 500_000, cancel}
			return next.RoundTrip(r)
		}
	}
	answered := func(cancel func()) fault {
		return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			cancel()
			return resp, err
		}
	}
	for when, fault := range map[string]func(cancel func()) fault{"halfway": halfway, "at the end": answered} {
		for _, conditional := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/conditional=%t", when, conditional), func(t *testing.T) {
				svc := newService(t)
				old := put(t, svc, "file", text('a', 1000))
				var cond imagestore.Condition
				if conditional {
					cond = imagestore.IfMatch(old.ETag)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				svc.wire.interfere(only("PUT", fault(cancel)))
				want := text('b', 1<<20)
				wantNoLeak(t, svc.wire, func() {
					if _, err := commit(ctx, svc, "file", want, cond); err != nil {
						t.Error(err)
					}
				})
				if ctx.Err() == nil {
					t.Error("the context was never cancelled: nothing was tested")
				}
				svc.wire.interfere(nil)
				wantContent(t, svc, "file", want)
			})
		}
	}
}

// A watchedBody calls then, perhaps more than once, when n bytes have been read.
type watchedBody struct {
	io.ReadCloser
	n    int
	then func()
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.n -= n; b.n <= 0 {
		b.then()
	}
	return n, err
}

func TestCancelledDelete(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	svc.wire.interfere(only("DELETE", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		cancel()
		return next.RoundTrip(r)
	}))
	if err := svc.Delete(ctx, "file", imagestore.Condition{}); err != nil {
		t.Error(err)
	}
	if ctx.Err() == nil {
		t.Error("the context was never cancelled: nothing was tested")
	}
	wantKeys(t, svc)
}

// TestCancelledWaitForDelete waits for another Delete of the same image.
func TestCancelledWaitForDelete(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	svc.wire.interfere(only("DELETE", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		cancel()
		wantError(t, "the second Delete", svc.Delete(ctx, "file", imagestore.Condition{}), context.Canceled)
		return next.RoundTrip(r)
	}))
	if err := svc.Delete(t.Context(), "file", imagestore.Condition{}); err != nil {
		t.Error(err)
	}
}

// TestSilentService gives up a service that sends nothing, also where the context
// has no end.
func TestSilentService(t *testing.T) {
	svc := newService(t)
	svc.wire.interfere(func(r *http.Request, _ http.RoundTripper) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	svc.SetPatience(10 * time.Millisecond)
	for name, op := range operations {
		wantError(t, name, op(context.Background(), svc.Driver), imagestore.ErrUnavailable)
	}
}
