package imagestore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ba692904/imagestore/internal/deadline"
	"github.com/ba692904/imagestore/internal/formfile"
	"github.com/ba692904/imagestore/internal/problem"
)

// A handler is a client of the Store's exported methods.
type handler struct {
	store    *Store
	opts     HandlerOptions
	changes  slots // for uploads and deletes
	discards slots // for the bodies of refused uploads that are read
	lists    slots // for lists that are read
	reads    slots // for images that are being opened
	hashes   slots // for images that are being hashed
}

// slots bounds how many requests do something at once. It holds a value for each.
type slots chan struct{}

// take reports whether a slot was free. It must be given back.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

// wait takes a slot. It waits for one for as long as a client may take for 64 KiB.
// The error that all are taken has the format busy, with their number.
func (s slots) wait(ctx context.Context, timeout time.Duration, busy string) error {
	if s.take() {
		return nil
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return tooBusy(ErrUnavailable, busy, cap(s))
	}
}

func (s slots) give() { <-s }

// storeContext returns the context for calls of the Store. net/http cancels the
// request's when a client that has sent everything shuts down its sending side. Such
// a client still waits for the answer. A deadline of middleware stays.
func storeContext(r *http.Request) (context.Context, context.CancelFunc) {
	ctx := context.WithoutCancel(r.Context())
	if deadline, ok := r.Context().Deadline(); ok {
		return context.WithDeadline(ctx, deadline)
	}
	return ctx, func() {}
}

// begin counts a change towards MaxUploads, until end.
func (h *handler) begin() error {
	if !h.changes.take() {
		return tooBusy(ErrTooManyUploads, "%d are under way", cap(h.changes))
	}
	return nil
}

func (h *handler) end() { h.changes.give() }

// errBusy marks an error of too many requests at once, which is not worth a line in
// the log for each.
var errBusy = errors.New("too many requests at once")

func tooBusy(kind error, format string, n int) error {
	return &detailedError{kind: kind, detail: fmt.Sprintf(format, n) + "; try again in a second", cause: errBusy}
}

// writeHeader begins an answer that has no image in it.
func (h *handler) writeHeader(w http.ResponseWriter, status int) {
	deadline.ExtendWrite(w, h.opts.Timeout)
	w.WriteHeader(status)
}

// fail is the one place where errors are answered and logged.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	h.log(r, err)
	if !h.discardBody(r, err) && r.ProtoMajor == 1 { // HTTP/2 ends one stream, not the connection
		w.Header().Set("Connection", "close")
	}
	row, detail := httpErrorFor(err)
	if row.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	deadline.ExtendWrite(w, h.opts.Timeout)
	problem.Write(w, row.status, row.code, detail)
}

// discardBody reads the rest of a refused upload, up to the size of an allowed one.
// At most MaxUploads are read at once, and none that a busy server has refused. It
// reports whether the connection can be used again.
func (h *handler) discardBody(r *http.Request, err error) bool {
	body, ok := r.Body.(*requestBody)
	if !ok {
		return true // there is none
	}
	if errors.Is(err, ErrTooManyUploads) {
		return false
	}
	if !h.discards.take() {
		return false
	}
	defer h.discards.give()
	return body.discard(h.store.Options().MaxBytes+formfile.MaxExtra, r.Header.Get("Expect") != "")
}

// clientGone gives an error its reason: the client did not wait.
func clientGone(err error) error {
	return &detailedError{kind: ErrBadRequest, detail: "the client hung up", cause: err}
}

func (h *handler) log(r *http.Request, err error) {
	level := slog.LevelDebug
	if row, _ := httpErrorFor(err); row.status >= 500 && !errors.Is(err, errBusy) {
		level = slog.LevelError
	}
	h.opts.Logger.Log(context.WithoutCancel(r.Context()), level, "imagestore: request failed",
		"method", r.Method, "path", r.URL.EscapedPath(), "err", err)
}

func (h *handler) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1)) // with the newline
	w.WriteHeader(status)
	body = append(body, '\n')
	if _, err := deadline.Send(w, bytes.NewReader(body), int64(len(body)), h.opts.Timeout); err != nil {
		h.log(r, clientGone(err)) // and net/http closes the connection
	}
	return nil
}
