package imagestore_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/memobject"
)

// TestObjectOperations pins what a Store asks of an object store: every
// operation is a request that costs time and money.
func TestObjectOperations(t *testing.T) {
	var ops []string
	fsys := memobject.New()
	fsys.Before = func(op, _ string) error { ops = append(ops, op); return nil }
	s := imagestore.New(fsys, nil)
	b := noise(t, 10, 1)
	wantOps := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(ops, want) {
			t.Errorf("%s: %q, not %q", what, ops, want)
		}
		ops = nil
	}
	put(t, s, "a", b)
	wantOps("put of a new image", "put")
	put(t, s, "a", b)
	wantOps("put that replaces", "put")
	info := put(t, s, "b", b, imagestore.IfAbsent())
	wantOps("put under a condition", "stat", "put")
	put(t, s, "b", b, imagestore.IfMatch(info.ETag))
	wantOps("put under a condition", "stat", "put")
	_, err := s.Put(t.Context(), "b", bytes.NewReader(b), imagestore.IfAbsent())
	wantError(t, err, imagestore.ErrPrecondition, "put", "b")
	wantOps("put that is refused", "stat")
	_, err = s.Put(t.Context(), "b", bytes.NewReader(b[:len(b)-1]))
	wantError(t, err, imagestore.ErrBroken, "put", "b")
	wantOps("put of a broken image")
	get(t, s, "a")
	wantOps("get", "open")
	if _, err := s.Stat(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	wantOps("stat", "stat")
	for range s.All(t.Context()) {
	}
	wantOps("all", "list")
	url := serve(t, s, nil).URL + "/images/a"
	if got := request(t, "PUT", url, bytes.NewReader(b)); got.StatusCode != http.StatusOK {
		t.Errorf("an upload that replaces is answered with %s", got.Status)
	}
	wantOps("PUT", "stat", "put")
	if got := request(t, "PUT", url+"new", bytes.NewReader(b)); got.StatusCode != http.StatusCreated {
		t.Errorf("an upload of a new image is answered with %s", got.Status)
	}
	wantOps("PUT of a new image", "stat", "put")
	etag := request(t, "HEAD", url, nil).Header.Get("ETag")
	wantOps("HEAD", "stat")
	if got := request(t, "GET", url, nil, "If-None-Match", etag); got.StatusCode != http.StatusNotModified {
		t.Errorf("a GET of what the client has is answered with %s", got.Status)
	}
	wantOps("GET of what the client has", "stat")
	request(t, "GET", url, nil, "If-None-Match", `"other"`)
	wantOps("GET of what the client has not", "stat", "open")
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	wantOps("delete", "stat", "remove")
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "delete", "a")
	wantOps("delete of nothing", "stat")
	if n, err := s.Sweep(t.Context(), 0); n != 0 || err != nil {
		t.Error(n, err)
	}
	wantOps("sweep")
}

// TestObjectRace has another process change the image between the Store's look
// at it and its PutObject.
func TestObjectRace(t *testing.T) {
	mine, theirs := noise(t, 10, 1), noise(t, 10, 2)
	for _, test := range []struct {
		name  string
		conds []imagestore.Precondition
		there bool // before
		after bool // when the other process was there
		want  error
	}{
		{"created, IfAbsent", []imagestore.Precondition{imagestore.IfAbsent()}, false, true, imagestore.ErrPrecondition},
		{"created", nil, false, true, nil},
		{"replaced, any version", []imagestore.Precondition{imagestore.IfMatch("*")}, true, true, nil},
		{"replaced, one version", []imagestore.Precondition{imagestore.IfMatch(`"1"`)}, true, true, imagestore.ErrPrecondition},
		{"deleted, any version", []imagestore.Precondition{imagestore.IfMatch("*")}, true, false, imagestore.ErrPrecondition},
		{"there, IfAbsent", []imagestore.Precondition{{}, imagestore.IfAbsent()}, true, false, imagestore.ErrPrecondition},
	} {
		t.Run(test.name, func(t *testing.T) {
			fsys := memobject.New()
			other := imagestore.New(fsys, nil)
			if test.there {
				put(t, other, "a", theirs)
			}
			done := false
			fsys.Before = func(op, _ string) error {
				if op != "put" || done {
					return nil
				}
				done = true
				if test.after {
					put(t, other, "a", theirs)
					return nil
				}
				return other.Delete(t.Context(), "a")
			}
			_, err := imagestore.New(fsys, nil).Put(t.Context(), "a", bytes.NewReader(mine), test.conds...)
			if !errors.Is(err, test.want) {
				t.Errorf("Put returns %v, not %v", err, test.want)
			}
			if _, b := getAny(t, other, "a"); test.want == nil && !bytes.Equal(b, mine) || test.want != nil && bytes.Equal(b, mine) {
				t.Errorf("Put returned %v, but what is stored are %d bytes that do not go with it", err, len(b))
			}
		})
	}
}

func getAny(t *testing.T, s images, id string) (imagestore.Info, []byte) {
	t.Helper()
	if _, err := s.Stat(t.Context(), id); err != nil {
		return imagestore.Info{}, nil
	}
	return get(t, s, id)
}

// TestObjectsUnavailable has every operation fail for want of the object store.
func TestObjectsUnavailable(t *testing.T) {
	fsys := memobject.New()
	s := imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 10, 1))
	url := serve(t, s, nil).URL
	cause := errors.New("connect to 10.1.2.3: connection refused")
	fsys.Before = func(string, string) error { return fmt.Errorf("%w: %w", imagestore.ErrUnavailable, cause) }
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		got := request(t, method, url+"/images/a", bytes.NewReader(noise(t, 10, 2)))
		if got.StatusCode != http.StatusServiceUnavailable || got.code() != "unavailable" || got.Header.Get("Retry-After") == "" || bytes.Contains(got.body, []byte("10.1.2.3")) {
			t.Errorf("%s: %s, %v, %s", method, got.Status, got.Header, got.body)
		}
	}
	if got := request(t, "GET", url+"/images", nil); got.StatusCode != http.StatusServiceUnavailable || got.code() != "unavailable" {
		t.Errorf("list: %s, %s", got.Status, got.body)
	}
	for _, s := range []images{s, newClient(t, url)} {
		_, err := s.Get(t.Context(), "a")
		wantError(t, err, imagestore.ErrUnavailable, "get", "a")
	}
	for _, err := range s.All(t.Context()) {
		wantError(t, err, imagestore.ErrUnavailable, "list", "")
		if !errors.Is(err, cause) {
			t.Errorf("the cause is lost in %v", err)
		}
	}
	fsys.Before = nil
	get(t, s, "a")
}

// TestObjectPages lists ids whose order is not that of the objects' names, in
// pages of every size.
func TestObjectPages(t *testing.T) {
	fsys := memobject.New()
	s := imagestore.New(fsys, nil)
	var want []string
	for _, id := range []string{"0", "a", "a-", "a--b", "a-b", "a-b-c", "a-b.c", "a.b", "a0", "aa-b", "b-0", "b-1", "b-2", "b-2-x", "b.z", "z"} {
		want = append(want, id)
		put(t, s, id, noise(t, 1, 1))
	}
	put(t, s, "b", noise(t, 1, 1)) // all names that begin with it are before it
	want = append(want, "b")
	slices.Sort(want)
	if _, err := fsys.PutObject(t.Context(), "a/notes.txt", bytes.NewReader(nil), imagestore.Precondition{}); err != nil {
		t.Fatal(err)
	}
	url := serve(t, s, nil).URL
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []string
		for after := ""; ; {
			answer := request(t, "GET", fmt.Sprintf("%s/images?limit=%d&after=%s", url, limit, after), nil)
			var page struct {
				Images []imagestore.Info
				Next   string
			}
			if err := json.Unmarshal(answer.body, &page); err != nil || len(page.Images) > limit {
				t.Fatalf("%s: %v", answer.body, err)
			}
			for _, info := range page.Images {
				got = append(got, info.ID)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("in pages of %d: %q, not %q", limit, got, want)
		}
	}
}

// TestObjectDeletes has several delete one image at once: one did.
func TestObjectDeletes(t *testing.T) {
	fsys := memobject.New()
	s := imagestore.New(fsys, nil)
	put(t, s, "a", noise(t, 10, 1))
	var deleted atomic.Int64
	var wg sync.WaitGroup
	fsys.Before = func(op, _ string) error { runtime.Gosched(); return nil }
	for range 16 {
		wg.Go(func() {
			switch err := s.Delete(t.Context(), "a"); {
			case err == nil:
				deleted.Add(1)
			case !errors.Is(err, imagestore.ErrNotFound):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if deleted.Load() != 1 {
		t.Errorf("%d deletes report success", deleted.Load())
	}
}
