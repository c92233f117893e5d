package imagestore_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

func TestList(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	if got := testhttp.Request(t, "GET", srv.URL+"/images", nil); string(got.Bytes) != "{\"images\":[]}\n" {
		t.Errorf("got %s, want an empty list", got.Bytes)
	}
	b := testimage.PNG(t, 1, 1)
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("id%02d", i))
		put(t, s, ids[i], b)
		// Other directories are not listed and do not shorten a page.
		if err := fsys.MkdirAll(fmt.Sprintf("id%02d-empty", i), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := afero.WriteFile(fsys, "id00-file", b, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 4, 5, 24, 25, 26, 1000} {
		var got []string
		for after := ""; ; {
			var page struct {
				Images []imagestore.Info
				Next   string
			}
			a := testhttp.Request(t, "GET", fmt.Sprintf("%s/images?limit=%d&after=%s", srv.URL, limit, after), nil)
			if err := json.Unmarshal(a.Bytes, &page); err != nil {
				t.Fatal(err)
			}
			for _, info := range page.Images {
				got = append(got, info.ID)
			}
			if page.Next == "" {
				break
			}
			if len(page.Images) != limit || page.Next != got[len(got)-1] {
				t.Errorf("limit %d: got %d images, next %q, want %d images, next the last id", limit, len(page.Images), page.Next, limit)
			}
			after = page.Next
		}
		if !slices.Equal(got, ids) {
			t.Errorf("limit %d: got %v, want %v", limit, got, ids)
		}
	}
}

// TestListOverEmptyDirectories counts how often a short page reads the root, and how
// often it looks at an entry, if most directories hold no image.
func TestListOverEmptyDirectories(t *testing.T) {
	t.Parallel()
	const empty = 2200          // more than two of the smallest windows
	base := afero.NewMemMapFs() // because making directories on disk is slow
	for i := range empty {
		must(t, base.Mkdir(fmt.Sprintf("a%04d", i), 0o777))
	}
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	put(t, s, "z", testimage.PNG(t, 1, 1))
	srv := serve(t, s, nil)
	for _, query := range []string{"?limit=1", "?limit=1&prefix=a", ""} {
		var mu sync.Mutex
		roots, entries := 0, 0
		fsys.FailIf(func(op errorfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case op.Name == "open" && op.Path == ".":
				roots++
			case strings.HasSuffix(op.Path, "/image"):
				entries++
			}
			return nil
		})
		got := testhttp.Request(t, "GET", srv.URL+"/images"+query, nil)
		if got.StatusCode != 200 || strings.Contains(string(got.Bytes), `"z"`) == strings.Contains(query, "prefix") {
			t.Errorf("%s: got %s, %.200s, want z alone, if it has the prefix", query, got.Status, got.Bytes)
		}
		if mu.Lock(); roots < 1 || roots > 2 || entries > empty+1 {
			t.Errorf("%s: got %d reads of the root and %d of entries, want at most 2 and %d", query, roots, entries, empty+1)
		}
		mu.Unlock()
	}
}

// TestListUnreadable lists images of which one is in a directory that may not be
// read.
func TestListUnreadable(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	for _, id := range []string{"a", "b", "c"} {
		put(t, s, id, testimage.PNG(t, 1, 1))
	}
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Path == "b/image" || op.Path == "b" {
			return syscall.EACCES
		}
		return nil
	})
	srv := serve(t, s, nil)
	got := testhttp.Request(t, "GET", srv.URL+"/images", nil)
	var page struct {
		Images []struct{ ID, Error string }
	}
	if err := json.Unmarshal(got.Bytes, &page); err != nil || got.StatusCode != 200 || fmt.Sprint(page.Images) != "[{a } {b internal} {c }]" {
		t.Errorf("got %s, %s, want a, c and an error about b", got.Status, got.Bytes)
	}
	checkProblem(t, testhttp.Request(t, "GET", srv.URL+"/images?limit=1;after=a", nil), 400, "bad_request", "semicolon")
}

// TestManyLists blocks as many lists as are read at once. Another one must wait for
// them, and be refused after the timeout. Images are served meanwhile.
func TestManyLists(t *testing.T) {
	t.Parallel()
	const most = 16
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	put(t, s, "a", testimage.PNG(t, 1, 1))
	entered, release := make(chan struct{}), make(chan struct{})
	fsys.FailIf(func(op errorfs.Op) error {
		if op.String() == "open ." {
			entered <- struct{}{}
			<-release
		}
		return nil
	})
	for _, timeout := range []time.Duration{time.Hour, time.Nanosecond} {
		h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: timeout, Logger: testhttp.Quiet})
		list := func() *httptest.ResponseRecorder {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/images", nil))
			return w
		}
		var lists sync.WaitGroup
		for range most {
			lists.Go(func() {
				if w := list(); w.Code != 200 {
					t.Errorf("timeout %v: got %d, want 200", timeout, w.Code)
				}
			})
			<-entered
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest("GET", "/images/a", nil)); w.Code != 200 {
			t.Errorf("timeout %v: image: got %d, want 200", timeout, w.Code)
		}
		another := make(chan *httptest.ResponseRecorder, 1)
		go func() { another <- list() }()
		want := 503
		if timeout == time.Hour {
			want = 200
			release <- struct{}{} // one list ends, and the other one begins
			<-entered
		} else if w := <-another; w.Code != want || w.Header().Get("Retry-After") == "" {
			t.Errorf("timeout %v: got %d, %v, want %d and Retry-After", timeout, w.Code, w.Header(), want)
		}
		for range most {
			release <- struct{}{}
		}
		lists.Wait()
		if timeout == time.Hour {
			if w := <-another; w.Code != want {
				t.Errorf("timeout %v: got %d, want %d", timeout, w.Code, want)
			}
		}
	}
}
