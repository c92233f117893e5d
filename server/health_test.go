package server

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// TestReady checks readiness while the storage fails and works by turns.
func TestReady(t *testing.T) {
	var broken atomic.Bool
	fsys := brokenFs{Fs: afero.NewMemMapFs(), stat: readyID, open: readyID, opened: func() error {
		if broken.Load() {
			return syscall.EIO
		}
		return syscall.ENOENT
	}}
	var log bytes.Buffer
	client, stop := start(t, listen(t, "tcp", "127.0.0.1:0"), imagestore.New(fsys, nil), &Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for _, fails := range []bool{false, true, true, false, false} {
		broken.Store(fails)
		want, text := 200, "ok\n"
		if fails {
			want, text = 503, `"code":"unavailable"`
		}
		if status, got := do(t, client, "GET", "evil.example", "/readyz", ""); status != want || !strings.Contains(got, text) || strings.Contains(got, syscall.EIO.Error()) {
			t.Errorf("broken %v: got %d %s, want %d %s", fails, status, got, want, text)
		}
		if status, _ := do(t, client, "GET", "evil.example", "/healthz", ""); status != 200 {
			t.Errorf("GET /healthz: got %d, want 200", status)
		}
	}
	stop()
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "not ready") || !strings.Contains(got, syscall.EIO.Error()) || !strings.Contains(got, "ready again") {
		t.Errorf("got log %q, want two lines", got)
	}
}

// TestReadyPanics has the storage panic. The server must go on.
func TestReadyPanics(t *testing.T) {
	fsys := brokenFs{Fs: afero.NewMemMapFs(), stat: readyID, open: readyID, opened: func() error { panic("broken") }}
	var log bytes.Buffer
	client, stop := start(t, listen(t, "tcp", "127.0.0.1:0"), imagestore.New(fsys, nil), &Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if status, got := do(t, client, "GET", "localhost", "/readyz", ""); status != 503 {
			t.Errorf("got %d %s, want 503", status, got)
		}
	}
	if stop(); !strings.Contains(log.String(), "panic: broken") {
		t.Errorf("got log %q, want the panic in it", log.String())
	}
}

// A hungFs does not answer while it hangs.
type hungFs struct {
	afero.Fs
	hangs chan struct{} // closed when it answers again
	calls *atomic.Int64
}

func (h hungFs) Stat(name string) (os.FileInfo, error) {
	h.calls.Add(1)
	<-h.hangs
	return h.Fs.Stat(name)
}

func (h hungFs) Open(name string) (afero.File, error) {
	h.calls.Add(1)
	<-h.hangs
	return h.Fs.Open(name)
}

// TestReadyHangs checks that probes of a disk that hangs are answered, and do not
// pile up there.
func TestReadyHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := hungFs{Fs: afero.NewMemMapFs(), hangs: make(chan struct{}), calls: new(atomic.Int64)}
		h := &health{ctx: t.Context(), store: imagestore.New(fsys, nil), logger: slog.New(slog.DiscardHandler)}
		probe := func() int {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			return w.Code
		}
		start := time.Now()
		codes := make(chan int)
		for range 100 {
			go func() { codes <- probe() }()
		}
		for range 100 {
			if code := <-codes; code != 503 {
				t.Errorf("got %d while the disk hangs, want 503", code)
			}
		}
		if code := probe(); code != 503 || time.Since(start) > readyTimeout || fsys.calls.Load() != 1 {
			t.Errorf("got %d after %v and %d calls, want 503 after %v and one call", code, time.Since(start), fsys.calls.Load(), readyTimeout)
		}
		close(fsys.hangs)
		synctest.Wait()
		if code := probe(); code != 200 {
			t.Errorf("got %d when the disk answers again, want 200", code)
		}
	})
}

// TestReadyStopping checks what a server that stops answers to a probe that came
// before.
func TestReadyStopping(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var log bytes.Buffer
	h := &health{ctx: ctx, store: memStore(), logger: slog.New(slog.NewTextHandler(&log, nil))}
	for path, want := range map[string]int{"/readyz": 503, "/healthz": 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want || want == 503 && (!strings.Contains(w.Body.String(), "the server is stopping") || w.Header().Get("Retry-After") == "") {
			t.Errorf("GET %s: got %d %v %s, want %d", path, w.Code, w.Header(), w.Body, want)
		}
	}
	if log.Len() > 0 {
		t.Errorf("got log %q, want none", &log)
	}
}
