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
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/memdriver"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestDriverCalls pins the calls that each operation makes to a driver. On an
// object store each call is a request, which costs time and money.
func TestDriverCalls(t *testing.T) {
	t.Parallel()
	var calls []string
	d := memdriver.New()
	d.Before = func(op, _ string) error { calls = append(calls, op); return nil }
	s := imagestore.NewWithDriver(d, nil)
	b := testimage.PNG(t, 10, 1)
	want := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(calls, want) {
			t.Errorf("%s: got the calls %q, want %q", what, calls, want)
		}
		calls = nil
	}
	put(t, s, "a", b)
	want("Put of a new image", "create", "commit")
	put(t, s, "a", b)
	want("Put that replaces", "create", "commit")
	info := put(t, s, "b", b, imagestore.IfAbsent())
	want("Put with IfAbsent", "stat", "create", "commit")
	put(t, s, "b", b, imagestore.IfMatch(info.ETag))
	want("Put with IfMatch", "stat", "create", "commit")
	_, err := s.Put(t.Context(), "b", bytes.NewReader(b), imagestore.IfAbsent())
	wantError(t, err, imagestore.ErrPreconditionFailed, "put", "b")
	want("Put whose condition fails", "stat")
	_, err = s.Put(t.Context(), "b", bytes.NewReader(b[:len(b)-1]))
	wantError(t, err, imagestore.ErrInvalidImage, "put", "b")
	want("Put of an invalid image")
	get(t, s, "a")
	want("Get", "open")
	_, err = s.Stat(t.Context(), "a")
	must(t, err)
	want("Stat", "stat")
	must(t, s.Verify(t.Context(), "a"))
	want("Verify", "open")
	list(t, s, imagestore.ListOptions{})
	want("List", "list")
	url := serve(t, s, nil).URL
	testhttp.Request(t, "GET", url+"/images?limit=1", nil)
	want("GET of the list", "list")
	if got := testhttp.Request(t, "PUT", url+"/images/a", bytes.NewReader(b)); got.StatusCode != http.StatusOK {
		t.Errorf("PUT that replaces: got %s, want 200", got.Status)
	}
	want("PUT", "create", "commit")
	if got := testhttp.Request(t, "PUT", url+"/images/new", bytes.NewReader(b)); got.StatusCode != http.StatusCreated {
		t.Errorf("PUT of a new image: got %s, want 201", got.Status)
	}
	want("PUT of a new image", "create", "commit")
	etag := testhttp.Request(t, "HEAD", url+"/images/a", nil).Header.Get("ETag")
	want("HEAD", "stat")
	testhttp.Request(t, "GET", url+"/images/a", nil)
	want("GET", "open")
	if got := testhttp.Request(t, "GET", url+"/images/a", nil, "If-None-Match", etag); got.StatusCode != http.StatusNotModified {
		t.Errorf("GET of the current version: got %s, want 304", got.Status)
	}
	want("GET of the current version", "stat")
	testhttp.Request(t, "GET", url+"/images/a", nil, "If-None-Match", `"other"`)
	want("GET of another version", "stat", "open")
	testhttp.Request(t, "DELETE", url+"/images/new", nil)
	want("DELETE", "delete")
	must(t, s.Delete(t.Context(), "a"))
	want("Delete", "delete")
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "delete", "a")
	want("Delete of a missing image", "delete")
	if n, err := s.Sweep(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("Sweep: got %d, %v, want 0, nil", n, err)
	}
	want("Sweep")
}

// TestDriverRace makes another process change the image between the Store's Stat
// and its Commit.
func TestDriverRace(t *testing.T) {
	t.Parallel()
	mine, theirs := testimage.PNG(t, 10, 1), testimage.PNG(t, 10, 2)
	for _, test := range []struct {
		name  string
		conds []imagestore.Condition
		there bool // before Put
		after bool // after the other process
		want  error
	}{
		{"created, IfAbsent", []imagestore.Condition{imagestore.IfAbsent()}, false, true, imagestore.ErrPreconditionFailed},
		{"created", nil, false, true, nil},
		{"replaced, any version", []imagestore.Condition{imagestore.IfMatch("*")}, true, true, nil},
		{"replaced, one version", []imagestore.Condition{imagestore.IfMatch(`"1"`)}, true, true, imagestore.ErrPreconditionFailed},
		{"deleted, any version", []imagestore.Condition{imagestore.IfMatch("*")}, true, false, imagestore.ErrPreconditionFailed},
		{"there, IfAbsent", []imagestore.Condition{{}, imagestore.IfAbsent()}, true, false, imagestore.ErrPreconditionFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := memdriver.New()
			s := imagestore.NewWithDriver(d, nil)
			if test.there {
				put(t, s, "a", theirs)
			}
			done := false
			d.Before = func(op, _ string) error {
				if op != "commit" || done {
					return nil
				}
				done = true
				if test.after {
					put(t, s, "a", theirs)
					return nil
				}
				return s.Delete(t.Context(), "a")
			}
			_, err := s.Put(t.Context(), "a", bytes.NewReader(mine), test.conds...)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if _, b := getAny(t, s, "a"); test.want == nil && !bytes.Equal(b, mine) || test.want != nil && bytes.Equal(b, mine) {
				t.Errorf("got %d bytes after Put returned %v, want the image of the winner", len(b), err)
			}
		})
	}
}

// getAny is get, but returns nothing for a missing image.
func getAny(t *testing.T, s storetest.Images, id string) (imagestore.Info, []byte) {
	t.Helper()
	if _, err := s.Stat(t.Context(), id); err != nil {
		return imagestore.Info{}, nil
	}
	return get(t, s, id)
}

// TestDriverUnavailable makes every operation fail because the storage is out of
// reach.
func TestDriverUnavailable(t *testing.T) {
	t.Parallel()
	d := memdriver.New()
	s := imagestore.NewWithDriver(d, nil)
	put(t, s, "a", testimage.PNG(t, 10, 1))
	url := serve(t, s, nil).URL
	cause := errors.New("connect to 10.1.2.3: connection refused")
	d.Before = func(string, string) error { return fmt.Errorf("%w: %w", imagestore.ErrUnavailable, cause) }
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
		got := testhttp.Request(t, method, url+"/images/a", bytes.NewReader(testimage.PNG(t, 10, 2)))
		if got.StatusCode != http.StatusServiceUnavailable || got.Code() != "unavailable" || got.Header.Get("Retry-After") == "" || bytes.Contains(got.Bytes, []byte("10.1.2.3")) {
			t.Errorf("%s: got %s, %v, %s, want 503, unavailable, Retry-After, no address", method, got.Status, got.Header, got.Bytes)
		}
	}
	if got := testhttp.Request(t, "GET", url+"/images", nil); got.StatusCode != http.StatusServiceUnavailable || got.Code() != "unavailable" {
		t.Errorf("list: got %s, %s, want 503, unavailable", got.Status, got.Bytes)
	}
	for _, s := range []storetest.Images{s, newClient(t, url)} {
		_, err := s.Get(t.Context(), "a")
		wantError(t, err, imagestore.ErrUnavailable, "get", "a")
	}
	n := 0
	for _, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		n++
		wantError(t, err, imagestore.ErrUnavailable, "list", "")
		if !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause %v", err, cause)
		}
	}
	if n != 1 {
		t.Errorf("got %d results from List, want one error", n)
	}
	d.Before = nil
	get(t, s, "a")
}

// TestDriverPages lists over HTTP in pages of every size. Several ids begin alike,
// so that a separator after an id would change their order.
func TestDriverPages(t *testing.T) {
	t.Parallel()
	s := imagestore.NewWithDriver(memdriver.New(), nil)
	want := []string{"0", "a", "a-", "a--b", "a-b", "a-b-c", "a-b.c", "a.b", "a0", "aa-b", "b", "b-0", "b-1", "b-2", "b-2-x", "b.z", "z"}
	for _, id := range want {
		put(t, s, id, testimage.PNG(t, 1, 1))
	}
	url := serve(t, s, nil).URL
	for limit := 1; limit <= len(want)+1; limit++ {
		var got []string
		for after := ""; ; {
			answer := testhttp.Request(t, "GET", fmt.Sprintf("%s/images?limit=%d&after=%s", url, limit, after), nil)
			var page struct {
				Images []imagestore.Info
				Next   string
			}
			if err := json.Unmarshal(answer.Bytes, &page); err != nil || len(page.Images) > limit {
				t.Fatalf("got page %s, %v, want JSON of at most %d images", answer.Bytes, err, limit)
			}
			for _, info := range page.Images {
				got = append(got, info.ID)
			}
			if after = page.Next; after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("pages of %d: got %q, want %q", limit, got, want)
		}
	}
}

// TestDriverDeletes deletes one image from several goroutines. One must succeed.
func TestDriverDeletes(t *testing.T) {
	t.Parallel()
	d := memdriver.New()
	s := imagestore.NewWithDriver(d, nil)
	put(t, s, "a", testimage.PNG(t, 10, 1))
	var deleted atomic.Int64
	var wg sync.WaitGroup
	d.Before = func(op, _ string) error { runtime.Gosched(); return nil }
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
		t.Errorf("got %d successful deletes, want 1", deleted.Load())
	}
}
