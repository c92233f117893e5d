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
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
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
				if op.Name == "rename" || op.Name == "remove" && op.Path == "a/image" {
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

// TestDiscardIsBounded refuses uploads whose bodies never come. The handler waits for
// MaxUploads of them, and closes the connections of the others. It still takes images.
func TestDiscardIsBounded(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	srv := serve(t, s, &imagestore.HandlerOptions{MaxUploads: 1, Timeout: time.Hour})
	const refused = 4
	answers := make(chan *http.Response, refused)
	var waiting sync.WaitGroup
	for range refused {
		conn := dial(t, srv)
		waiting.Go(func() {
			fmt.Fprintf(conn, "PUT /images/.bad HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\nx", 60<<20)
			if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				answers <- resp
			}
		})
		defer conn.Close()
	}
	for range refused - 1 {
		if resp := <-answers; resp.StatusCode != http.StatusBadRequest || !resp.Close {
			t.Errorf("got %v, want 400 and a closed connection", resp)
		}
	}
	if got := testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(testimage.PNG(t, 10, 1))); got.StatusCode != http.StatusCreated {
		t.Errorf("upload: got %s, want 201", got.Status)
	}
	if len(answers) > 0 {
		t.Error("got an answer before the body of the last refused upload, want the handler to wait for it")
	}
}

func dial(t *testing.T, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// await sends the header of an upload that expects 100 Continue, and waits for that.
// The handler then waits for the body.
func await(t *testing.T, srv *httptest.Server, head string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, srv)
	io.WriteString(conn, head+"Host: x\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	for _, want := range []string{"HTTP/1.1 100 Continue\r\n", "\r\n"} {
		if line, err := r.ReadString('\n'); line != want {
			t.Fatalf("got %q, %v, want %q", line, err, want)
		}
	}
	return conn, r
}

// TestWaitingUploads has many clients that send a header, and at most a little of the
// body. Nobody else must be refused for them.
func TestWaitingUploads(t *testing.T) {
	t.Parallel()
	s := imagestore.New(onDisk(t), nil)
	info := put(t, s, "old", testimage.PNG(t, 3, 1))
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{MaxUploads: 1, Timeout: time.Hour, Logger: testhttp.Quiet})
	done := make(chan struct{}, 100) // the answer may come before the upload no longer counts
	srv := testhttp.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { done <- struct{}{} }()
		h.ServeHTTP(w, r)
	}))
	b := testimage.PNG(t, 100, 1)
	body, contentType := form(t, file("file", b))
	type client struct {
		conn   net.Conn
		r      *bufio.Reader
		rest   string
		status int
	}
	var clients []client
	for _, sent := range []int{0, 1, 1000, 9000} {
		for _, test := range []struct {
			head, body string
			status     int
		}{
			{"PUT /images/raw", string(b), 200},
			{"POST /images", string(b), 201},
			{"PUT /images/old HTTP/1.1\r\nIf-Match: " + info.ETag, string(b), 412},
			{"PUT /images/form HTTP/1.1\r\nContent-Type: " + contentType, body, 200},
		} {
			if !strings.Contains(test.head, " HTTP/1.1") {
				test.head += " HTTP/1.1"
			}
			conn, r := await(t, srv, fmt.Sprintf("%s\r\nContent-Length: %d\r\n", test.head, len(test.body)))
			io.WriteString(conn, test.body[:sent])
			clients = append(clients, client{conn, r, test.body[sent:], test.status})
		}
	}
	for _, id := range []string{"raw", "form", "old"} {
		if got := testhttp.Request(t, "PUT", srv.URL+"/images/"+id, bytes.NewReader(b)); got.StatusCode >= 300 {
			t.Errorf("another upload: got %s, %s, want success", got.Status, got.Bytes)
		}
		<-done
	}
	if got := testhttp.Request(t, "DELETE", srv.URL+"/images/none", nil); got.StatusCode != http.StatusNotFound {
		t.Errorf("DELETE: got %s, want 404", got.Status)
	}
	<-done
	for _, c := range clients {
		io.WriteString(c.conn, c.rest)
		resp, err := http.ReadResponse(c.r, nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("the rest of an upload: got %v, %v, want %d", resp, err, c.status)
		}
		<-done
	}
}

// TestWaitingUploadIsRefused has an upload wait while others begin. It is refused when
// its first 64 KiB have come, or all of it, and no more is read.
func TestWaitingUploadIsRefused(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	srv := serve(t, imagestore.New(fsys, nil), &imagestore.HandlerOptions{MaxUploads: 1, Timeout: time.Hour})
	small := testimage.PNG(t, 10, 1)
	large, largeReader := await(t, srv, fmt.Sprintf("PUT /images/large HTTP/1.1\r\nContent-Length: %d\r\n", 60<<20))
	whole, wholeReader := await(t, srv, fmt.Sprintf("PUT /images/whole HTTP/1.1\r\nContent-Length: %d\r\n", len(small)))
	entered, release := make(chan struct{}), make(chan struct{})
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "rename" {
			close(entered)
			<-release
		}
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() { testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(small)) })
	<-entered
	before := len(fsys.Trace())
	large.Write(testimage.PNG(t, 300, 1)[:64<<10])
	whole.Write(small)
	for _, r := range []*bufio.Reader{largeReader, wholeReader} {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
			t.Errorf("got %v, %v, want 503 and a closed connection", resp, err)
		}
	}
	if ops := fsys.Trace()[before:]; len(ops) > 0 {
		t.Errorf("got %v on the disk, want nothing", ops)
	}
	close(release)
	first.Wait()
}

// TestConditionCounts has a disk stall while the condition of an upload is checked.
// That upload counts, although nothing of its body has come.
func TestConditionCounts(t *testing.T) {
	t.Parallel()
	fsys := errorfs.New(onDisk(t))
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, &imagestore.HandlerOptions{MaxUploads: 1})
	b := testimage.PNG(t, 10, 1)
	put(t, s, "a", b)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	fsys.FailIf(func(errorfs.Op) error {
		once.Do(func() { close(entered); <-release })
		return nil
	})
	var first sync.WaitGroup
	first.Go(func() {
		if got := testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(b), "If-Match", "*"); got.StatusCode != http.StatusOK {
			t.Errorf("conditional upload: got %s, want 200", got.Status)
		}
	})
	<-entered
	checkProblem(t, testhttp.Request(t, "PUT", srv.URL+"/images/b", bytes.NewReader(b)), 503, "too_many_uploads", "1")
	close(release)
	first.Wait()
}

// TestWaitingUploadsAreSmall limits the memory for clients that have sent the header of
// an upload and little more. It runs alone, because it measures the heap.
func TestWaitingUploadsAreSmall(t *testing.T) {
	srv := serve(t, imagestore.New(onDisk(t), nil), &imagestore.HandlerOptions{Timeout: time.Hour})
	_, contentType := form(t)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // for what pools have released
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const clients, most = 200, 24 << 10 // most of it is for the connections of both sides
	for name, header := range map[string]string{"raw": "", "form": "Content-Type: " + contentType + "\r\n"} {
		before := heap()
		for range clients {
			await(t, srv, "PUT /images/a HTTP/1.1\r\nContent-Length: 100000\r\n"+header)
		}
		if got := (heap() - before) / clients; got > most {
			t.Errorf("%s: got %d bytes for each, want at most %d", name, got, most)
		} else {
			t.Logf("%s: %d bytes for each", name, got)
		}
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
	fsys := errorfs.New(onDisk(t))
	srv := serve(t, imagestore.New(fsys, nil), &imagestore.HandlerOptions{MaxUploads: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	good := testimage.PNG(t, 10, 1)
	slow := testimage.PNG(t, 300, 1)
	const first = 64 << 10
	conn, r := await(t, srv, fmt.Sprintf("PUT /images/slow HTTP/1.1\r\nContent-Length: %d\r\n", len(slow)))
	written := make(chan struct{})
	var once sync.Once
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "file.write" {
			once.Do(func() { close(written) })
		}
		return nil
	})
	conn.Write(slow[:first])
	<-written
	got := testhttp.Request(t, "PUT", srv.URL+"/images/a", bytes.NewReader(good))
	checkProblem(t, got, 503, "too_many_uploads", "1")
	if got.Header.Get("Retry-After") == "" {
		t.Error("got no Retry-After, want one")
	}
	_, err := newClient(t, srv.URL).Put(t.Context(), "a", bytes.NewReader(good))
	wantError(t, err, imagestore.ErrTooManyUploads, "put", "a")
	if got := testhttp.Request(t, "GET", srv.URL+"/images/none", nil); got.StatusCode != 404 {
		t.Errorf("GET: got %s, want 404", got.Status)
	}
	conn.Write(slow[first:])
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

// TestManyReads has the disk stall while as many images are opened as the handler
// allows. Another read must be refused at once, and not be logged as an error.
func TestManyReads(t *testing.T) {
	t.Parallel()
	const most = 2048
	base := afero.NewMemMapFs()
	for i := range most + 1 { // on Windows the reads of one image wait for each other
		must(t, afero.WriteFile(base, fmt.Sprintf("a%d/image", i), testimage.PNG(t, 1, 1), 0o666))
	}
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	var log logBuffer
	h := imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	entered, release := make(chan struct{}), make(chan struct{})
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Name == "open" {
			entered <- struct{}{}
			<-release
		}
		return nil
	})
	get := func(i int) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", fmt.Sprintf("/images/a%d", i), nil))
		return w
	}
	var reads sync.WaitGroup
	for i := range most {
		reads.Go(func() {
			if w := get(i); w.Code != 200 {
				t.Errorf("got %d, want 200", w.Code)
			}
		})
		<-entered
	}
	if w := get(most); w.Code != 503 || w.Header().Get("Imagestore-Error") != "unavailable" || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d, %v, want 503, unavailable and Retry-After", w.Code, w.Header())
	}
	close(release)
	reads.Wait()
	if got := log.String(); got != "" {
		t.Errorf("got log %q, want none", got)
	}
}
