package imagestore_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestTooManyChanges blocks the one upload or delete that may be under way. Others
// must be refused, and a refused upload must not be read.
func TestTooManyChanges(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 10, 1)
	for _, blocked := range []string{"PUT", "DELETE"} {
		t.Run(blocked, func(t *testing.T) {
			t.Parallel()
			fsys := errorfs.New(onDisk(t))
			s := imagestore.New(fsys, nil)
			put(t, s, "a", b)
			put(t, s, "b", b)
			srv := serve(t, s, &imagestore.HandlerOptions{MaxUploads: 1, Timeout: time.Hour})
			entered, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			fsys.FailIf(func(op errorfs.Op) error {
				if op.Name == "rename" || op.Name == "remove" && op.Path == "a/image.png" {
					once.Do(func() { close(entered); <-release })
				}
				return nil
			})
			var first sync.WaitGroup
			first.Go(func() {
				if got := testhttp.Request(t, blocked, srv.URL+"/images/a", bytes.NewReader(b)); got.StatusCode >= 300 {
					t.Errorf("first change: got %s, want success", got.Status)
				}
			})
			<-entered
			got := testhttp.Request(t, "DELETE", srv.URL+"/images/b", nil)
			if got.StatusCode != http.StatusServiceUnavailable || got.Code() != "too_many_uploads" || got.Header.Get("Retry-After") == "" {
				t.Errorf("DELETE: got %s, %v, want 503, too_many_uploads, Retry-After", got.Status, got.Header)
			}
			// The body never comes. A handler that waited for it would wait for an hour.
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			must(t, err)
			defer conn.Close()
			fmt.Fprintf(conn, "PUT /images/b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 60<<20, b)
			r := bufio.NewReader(conn)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
				t.Errorf("PUT: got %v, %v, want 503 and a closed connection", resp, err)
			}
			if got := testhttp.Request(t, "GET", srv.URL+"/images/b", nil); got.StatusCode != http.StatusOK {
				t.Errorf("GET: got %s, want 200", got.Status)
			}
			close(release)
			first.Wait()
		})
	}
}

// TestDiscardIsBounded refuses an upload while MaxUploads are under way. Its body
// must not be read.
func TestDiscardIsBounded(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	srv := serve(t, s, &imagestore.HandlerOptions{MaxUploads: 1, Timeout: time.Hour})
	b := testimage.PNG(t, 10, 1)
	// One upload takes the only slot.
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /images/slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(b))
	if line, err := bufio.NewReader(conn).ReadString('\n'); !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	other, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	defer other.Close()
	fmt.Fprintf(other, "PUT /images/.bad HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", 60<<20)
	resp, err := http.ReadResponse(bufio.NewReader(other), nil)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !resp.Close {
		t.Errorf("got %v, %v, want 400 and a closed connection", resp, err)
	}
}

// TestHeaderIsNotShared changes the header of an answer in place. The next answer
// must not have the change.
func TestHeaderIsNotShared(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	info := put(t, s, "a", testimage.PNG(t, 10, 1))
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet})
	for _, header := range []http.Header{nil, {"If-None-Match": {info.ETag}}, {"Range": {"bytes=0-1"}}} {
		var want string
		for range 2 {
			r := httptest.NewRequest("GET", "/images/a", nil)
			r.Header = header.Clone()
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			io.Copy(io.Discard, rec.Result().Body)
			got := fmt.Sprint(rec.Header())
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			for name, values := range rec.Header() {
				values[0] = "changed"
				_ = append(values, "added to "+name)
			}
		}
	}
}

func TestBusy(t *testing.T) {
	t.Parallel()
	var log logBuffer
	srv := serve(t, imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{MaxUploads: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	good := testimage.PNG(t, 10, 1)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /images/slow HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(good))
	r := bufio.NewReader(conn)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} { // the upload has its slot now
		if line, err := r.ReadString('\n'); line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
	}
	got := testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(good))
	checkProblem(t, got, 503, "too_many_uploads", "1")
	if got.Header.Get("Retry-After") == "" {
		t.Error("got no Retry-After, want one")
	}
	_, err = newClient(t, srv.URL).Put(t.Context(), "a", bytes.NewReader(good))
	wantError(t, err, imagestore.ErrTooManyUploads, "put", "a")
	if got := testhttp.Request(t, "GET", srv.URL+"/images/none", nil); got.StatusCode != 404 {
		t.Errorf("GET: got %s, want 404", got.Status)
	}
	conn.Write(good)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 201 {
		t.Errorf("upload under way: got %v, %v, want 201", resp, err)
	}
	// The answer may come before the slot is free.
	for testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(good)).StatusCode == 503 {
	}
	if log.String() != "" {
		t.Errorf("got log %s, want none", log.String())
	}
}
