package s3_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/s3"
)

// TestConditions pins which requests each kind of condition costs, and what they
// come to. The README has the costs.
func TestConditions(t *testing.T) {
	svc := newService(t)
	first := put(t, svc, "there", text('a', 10)).ETag
	other := put(t, svc, "other", text('b', 10)).ETag
	svc.wire.sent()
	for _, test := range []struct {
		name     string
		cond     imagestore.Condition
		present  []string // requests where the image is there
		presentE error
		absent   []string // requests where there is none
		absentE  error
	}{
		{"none", imagestore.Condition{}, []string{"HEAD", "PUT"}, nil, []string{"HEAD", "PUT"}, nil},
		{"IfAbsent", imagestore.IfAbsent(), []string{"PUT"}, imagestore.ErrPreconditionFailed, []string{"PUT"}, nil},
		{"IfMatch of it", imagestore.IfMatch(first), []string{"PUT"}, nil, []string{"PUT"}, imagestore.ErrPreconditionFailed},
		{"IfMatch of another", imagestore.IfMatch(other), []string{"PUT"}, imagestore.ErrPreconditionFailed, []string{"PUT"}, imagestore.ErrPreconditionFailed},
		{"IfMatch of any", imagestore.IfMatch("*"), []string{"HEAD", "PUT"}, nil, []string{"HEAD"}, imagestore.ErrPreconditionFailed},
		{"IfMatch of a list", imagestore.IfMatch(other + ", " + first), []string{"HEAD", "PUT"}, nil, []string{"HEAD"}, imagestore.ErrPreconditionFailed},
		{"IfMatch of a list without it", imagestore.IfMatch(other + `,"x"`), []string{"HEAD"}, imagestore.ErrPreconditionFailed, []string{"HEAD"}, imagestore.ErrPreconditionFailed},
		{"weak IfMatch", imagestore.IfMatch("W/" + first), []string{"HEAD"}, imagestore.ErrPreconditionFailed, []string{"HEAD"}, imagestore.ErrPreconditionFailed},
		{"IfNoneMatch of it", imagestore.IfNoneMatch(first), []string{"HEAD"}, imagestore.ErrPreconditionFailed, []string{"HEAD", "PUT"}, nil},
		{"IfNoneMatch of another", imagestore.IfNoneMatch(other), []string{"HEAD", "PUT"}, nil, []string{"HEAD", "PUT"}, nil},
		{"both", both(t, imagestore.IfMatch(first), imagestore.IfNoneMatch(other)), []string{"HEAD", "PUT"}, nil, []string{"HEAD"}, imagestore.ErrPreconditionFailed},
		{"malformed", imagestore.IfMatch(`"a" "b"`), []string{"HEAD"}, imagestore.ErrBadRequest, []string{"HEAD"}, imagestore.ErrBadRequest},
		{"empty", imagestore.IfMatch(""), []string{"HEAD"}, imagestore.ErrBadRequest, []string{"HEAD"}, imagestore.ErrBadRequest},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, state := range []struct {
				id      string
				sent    []string
				want    error
				present bool
			}{{"there", test.present, test.presentE, true}, {"new", test.absent, test.absentE, false}} {
				content := text('c', 20)
				result, err := commit(t.Context(), svc, state.id, content, test.cond)
				svc.wire.wantSent(t, "Commit of "+state.id, state.sent...)
				if !errors.Is(err, state.want) {
					t.Errorf("%s: got error %v, want %v", state.id, err, state.want)
				}
				switch {
				case err == nil && result.Replaced != state.present:
					t.Errorf("%s: got Replaced %t, want %t", state.id, result.Replaced, state.present)
				case err == nil:
					wantContent(t, svc, state.id, content)
				case state.present:
					wantContent(t, svc, state.id, text('a', 10))
				}
				svc.wire.sent()
			}
			// The next condition finds the same.
			if err := svc.Remove(t.Context(), "new"); err != nil {
				t.Fatal(err)
			}
			put(t, svc, "there", text('a', 10))
			svc.wire.sent()
		})
	}
}

func both(t *testing.T, conds ...imagestore.Condition) imagestore.Condition {
	t.Helper()
	cond, err := imagestore.AllOf(conds...)
	if err != nil {
		t.Fatal(err)
	}
	return cond
}

// TestChangedMeanwhile changes the image between HEAD and PUT.
func TestChangedMeanwhile(t *testing.T) {
	for name, test := range map[string]struct {
		cond     imagestore.Condition
		change   func(*testing.T, *service)
		want     error
		replaced bool
		sent     []string
	}{
		"replaced, and the condition holds": {imagestore.IfMatch("*"),
			func(t *testing.T, svc *service) { svc.putRaw(t, "file", text('z', 5)) }, nil, true, []string{"HEAD", "PUT", "HEAD", "PUT"}},
		"replaced, and the condition does not hold": {imagestore.IfMatch(`"x",` + md5Tag(text('a', 10))),
			func(t *testing.T, svc *service) { svc.putRaw(t, "file", text('z', 5)) }, imagestore.ErrPreconditionFailed, false, []string{"HEAD", "PUT", "HEAD"}},
		"deleted": {imagestore.IfNoneMatch(`"x"`),
			func(t *testing.T, svc *service) { svc.removeRaw(t, "file") }, nil, false, []string{"HEAD", "PUT", "HEAD", "PUT"}},
		"deleted, and the condition does not hold": {imagestore.IfMatch("*"),
			func(t *testing.T, svc *service) { svc.removeRaw(t, "file") }, imagestore.ErrPreconditionFailed, false, []string{"HEAD", "PUT", "HEAD"}},
		"created, and the condition holds": {imagestore.IfNoneMatch(`"x"`),
			func(t *testing.T, svc *service) { svc.putRaw(t, "new", text('z', 5)) }, nil, true, []string{"HEAD", "PUT", "HEAD", "PUT"}},
		"created, and the condition does not hold": {imagestore.IfNoneMatch(md5Tag(text('z', 5))),
			func(t *testing.T, svc *service) { svc.putRaw(t, "new", text('z', 5)) }, imagestore.ErrPreconditionFailed, false, []string{"HEAD", "PUT", "HEAD"}},
		"replaced without a condition": {imagestore.Condition{},
			func(t *testing.T, svc *service) { svc.putRaw(t, "file", text('z', 5)) }, nil, true, []string{"HEAD", "PUT"}},
	} {
		t.Run(name, func(t *testing.T) {
			svc := newService(t)
			put(t, svc, "file", text('a', 10))
			svc.wire.sent()
			id := "file"
			if strings.HasPrefix(name, "created") {
				id = "new"
			}
			change := sync.OnceFunc(func() { test.change(t, svc) })
			svc.wire.interfere(only("PUT", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				change()
				return next.RoundTrip(r)
			}))
			result, err := commit(t.Context(), svc, id, text('b', 10), test.cond)
			if !errors.Is(err, test.want) || result.Replaced != test.replaced {
				t.Errorf("got Replaced %t, error %v; want %t, %v", result.Replaced, err, test.replaced, test.want)
			}
			svc.wire.wantSent(t, "Commit", test.sent...)
			if err == nil {
				wantContent(t, svc, id, text('b', 10))
			}
		})
	}
}

// TestConflict has the service report another change at the same time, which
// leaves open whether the condition holds.
func TestConflict(t *testing.T) {
	for name, cond := range map[string]imagestore.Condition{"IfAbsent": imagestore.IfAbsent(), "a list": imagestore.IfNoneMatch(`"x"`)} {
		svc := newService(t)
		left := 3
		svc.wire.interfere(only("PUT", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			if left--; left >= 0 {
				return answer(409, "ConditionalRequestConflict")(r, next)
			}
			return next.RoundTrip(r)
		}))
		if _, err := commit(t.Context(), svc, "file", text('a', 10), cond); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantContent(t, svc, "file", text('a', 10))
	}
}

// TestTriesAreBounded has the image change before every PUT.
func TestTriesAreBounded(t *testing.T) {
	svc := newService(t)
	put(t, svc, "file", text('a', 10))
	svc.wire.sent()
	svc.wire.interfere(only("PUT", answer(412, "PreconditionFailed")))
	_, err := commit(t.Context(), svc, "file", text('b', 10), imagestore.IfMatch("*"))
	wantError(t, "Commit", err, imagestore.ErrPreconditionFailed)
	if got := len(svc.wire.sent()); got != 2*s3.MaxTries {
		t.Errorf("got %d requests, want %d", got, 2*s3.MaxTries)
	}
	for _, cond := range []imagestore.Condition{imagestore.IfMatch("*"), imagestore.IfAbsent()} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		svc.wire.interfere(only("PUT", func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
			cancel()
			return answer(409, "ConditionalRequestConflict")(r, next)
		}))
		_, err = commit(ctx, svc, "file", text('b', 10), cond)
		wantError(t, "Commit that is cancelled", err, context.Canceled)
		if got := len(svc.wire.sent()); got > 3 {
			t.Errorf("got %d requests, want at most 3", got)
		}
	}
}

func TestTempFile(t *testing.T) {
	svc := newService(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, end := range []string{"Commit", "Abort", "failed Commit"} {
		u, err := svc.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		svc.wire.sent()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 && runtime.GOOS != "windows" {
			t.Errorf("after Create: got files %v, %v; want none", left, err)
		}
		for _, part := range []string{"ab", "", "cde"} {
			if n, err := u.Write([]byte(part)); n != len(part) || err != nil {
				t.Errorf("Write of %q: got %d, %v", part, n, err)
			}
		}
		svc.wire.wantSent(t, "Write")
		wantKeys(t, svc)
		f := s3.TempFile(u)
		if end != "Abort" {
			cond := imagestore.Condition{}
			if end == "failed Commit" {
				cond = imagestore.IfMatch(`"x"`)
			}
			_, err := u.Commit(t.Context(), "file", imagestore.Meta{Type: "image/png"}, cond)
			if (err == nil) != (end == "Commit") {
				t.Errorf("%s: got error %v", end, err)
			}
		}
		if end == "Commit" {
			wantContent(t, svc, "file", []byte("abcde"))
			if err := svc.Remove(t.Context(), "file"); err != nil {
				t.Error(err)
			}
		}
		if end != "Commit" {
			if err := u.Abort(); err != nil {
				t.Errorf("%s: got error %v", end, err)
			}
		}
		if _, err := f.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after %s: got error %v, want a closed file", end, err)
		}
		if err := u.Abort(); err != nil {
			t.Errorf("second Abort after %s: %v", end, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("after %s: got files %v, %v; want none", end, left, err)
		}
		wantKeys(t, svc)
	}

	u, err := svc.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	if _, err := u.Write(text('a', 10)); err != nil {
		t.Fatal(err)
	}
	if err := s3.TempFile(u).Truncate(5); err != nil {
		t.Fatal(err)
	}
	svc.wire.sent()
	if _, err := u.Commit(t.Context(), "file", imagestore.Meta{Type: "image/png"}, imagestore.IfAbsent()); err == nil {
		t.Error("Commit of a file that lost its end: got no error")
	}
	svc.wire.wantSent(t, "Commit of a file that lost its end")
}

func TestTempFileNoSpace(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	u := s3.New(newService(t).client, "bucket", "").UploadTo(f)
	_, err = u.Write([]byte("x"))
	wantError(t, "Write", err, imagestore.ErrNoSpace)
	f.Close()
}

// TestOneDeletes has many delete one image through one Driver.
func TestOneDeletes(t *testing.T) {
	svc := newService(t)
	for range 5 {
		put(t, svc, "file", text('a', 10))
		const deleters = 8
		errs := make([]error, deleters)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() { errs[i] = svc.Delete(t.Context(), "file", imagestore.Condition{}) })
		}
		all.Wait()
		deleted := 0
		for _, err := range errs {
			if err == nil {
				deleted++
			} else {
				wantError(t, "Delete", err, imagestore.ErrNotFound)
			}
		}
		if deleted != 1 {
			t.Errorf("got %d successful calls of Delete, want 1", deleted)
		}
	}
}

func TestConditionalDelete(t *testing.T) {
	svc := newService(t)
	info := put(t, svc, "file", text('a', 10))
	svc.wire.sent()
	for _, test := range []struct {
		id   string
		cond imagestore.Condition
		want error
	}{
		{"file", imagestore.IfMatch(info.ETag), imagestore.ErrNotImplemented},
		{"file", imagestore.IfMatch("*"), imagestore.ErrNotImplemented},
		{"file", imagestore.IfMatch(`"x"`), imagestore.ErrPreconditionFailed},
		{"file", imagestore.IfAbsent(), imagestore.ErrPreconditionFailed},
		{"missing", imagestore.IfMatch(info.ETag), imagestore.ErrNotFound},
		{"missing", imagestore.IfAbsent(), imagestore.ErrNotFound},
	} {
		wantError(t, "Delete of "+test.id, svc.Delete(t.Context(), test.id, test.cond), test.want)
		svc.wire.wantSent(t, "Delete of "+test.id, "HEAD")
	}
	wantContent(t, svc, "file", text('a', 10))
}
