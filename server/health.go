package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/problem"
)

const (
	// readyTimeout is how long the storage may take to answer a probe.
	readyTimeout = 5 * time.Second
	// readyID is the id that a probe asks for. There need not be such an image.
	readyID = "readyz"
)

var errReady = errors.New("ready") // how a probe ends that finds the storage in order

// A health answers probes, whatever their host, and passes all else on. It is no
// ServeMux, which would answer ids such as ".." with a redirect.
type health struct {
	next   http.Handler
	ctx    context.Context // done when the server stops
	store  *imagestore.Store
	logger *slog.Logger

	mu sync.Mutex
	// probe asks the storage. Its context ends with the result as its cause. There
	// is one at a time, because each would hold a thread of its own where a disk hangs.
	probe   context.Context
	failing bool // so that the log has one line for each failure of the storage
}

func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isProbe := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
	switch {
	case !isProbe || r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.next.ServeHTTP(w, r)
	case r.URL.Path == "/healthz":
		writeOK(w)
	case h.ctx.Err() != nil:
		writeNotReady(w, "the server is stopping")
	case !h.isReady():
		writeNotReady(w, "the storage does not answer or reports an error; the server's log says more")
	default:
		writeOK(w)
	}
}

func writeOK(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	io.WriteString(w, "ok\n")
}

func writeNotReady(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	problem.Write(w, http.StatusServiceUnavailable, "unavailable", why)
}

// isReady reports whether the storage can look for an image.
func (h *health) isReady() bool {
	h.mu.Lock()
	if h.probe == nil {
		h.startProbe()
	}
	probe := h.probe
	h.mu.Unlock()
	<-probe.Done()
	err := context.Cause(probe)
	ready := err == errReady

	h.mu.Lock()
	defer h.mu.Unlock()
	if ready == h.failing && h.ctx.Err() == nil {
		h.failing = !ready
		if ready {
			h.logger.Info("imagestore: ready again")
		} else {
			h.logger.Error("imagestore: not ready", "err", err)
		}
	}
	return ready
}

// startProbe sets h.probe until the storage has answered, even if that is after
// the timeout. h.mu is held.
func (h *health) startProbe() {
	timed, cancel := context.WithTimeout(h.ctx, readyTimeout)
	probe, end := context.WithCancelCause(timed)
	h.probe = probe
	go func() {
		var err error
		defer func() {
			if p := recover(); p != nil { // as net/http does for a request
				err = fmt.Errorf("panic: %v\n\n%s", p, debug.Stack())
			}
			h.mu.Lock()
			h.probe = nil
			h.mu.Unlock()
			end(err)
			cancel()
		}()
		_, err = h.store.Stat(probe, readyID)
		if err == nil || errors.Is(err, imagestore.ErrNotFound) {
			err = errReady
		}
	}()
}
