package imagestore

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/ba692904/imagestore/internal/deadline"
	"github.com/ba692904/imagestore/internal/verify"
)

// A requestBody reads the body of a request and extends the deadline while the
// client makes progress. It gives failures of the client their reasons. After an
// error it returns the same error again.
type requestBody struct {
	raw     io.Reader
	r       *deadline.Reader // of raw
	w       http.ResponseWriter
	timeout time.Duration
	begun   bool // Read was called
	err     error
}

// withBody returns the request with a requestBody.
func withBody(r *http.Request, w http.ResponseWriter, timeout time.Duration) *http.Request {
	r2 := *r
	r2.Body = &requestBody{raw: r.Body, r: deadline.NewReader(r.Body, w, timeout), w: w, timeout: timeout}
	return &r2
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.begun = true
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		err = b.reason(err)
	}
	b.err = err
	return n, err
}

func (b *requestBody) reason(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &detailedError{kind: errRequestTimeout, detail: fmt.Sprintf("%d bytes took longer than %v", deadline.Step, b.timeout), cause: err}
	}
	if limit, ok := errors.AsType[*http.MaxBytesError](err); ok { // of middleware
		return tooManyBytes(limit.Limit)
	}
	return &detailedError{kind: ErrBadRequest, detail: "the upload was cut short", cause: err}
}

// Close does nothing: net/http closes the body itself.
func (b *requestBody) Close() error { return nil }

// discard reads at most limit bytes of the rest, within one timeout, and reports
// whether that was all. Many clients read the answer only after they have sent the
// whole body. It does not read the body of a client that waits for 100 Continue.
func (b *requestBody) discard(limit int64, expectContinue bool) bool {
	if b.err != nil || expectContinue && !b.begun {
		return b.err == io.EOF
	}
	deadline.ExtendRead(b.w, b.timeout)
	_, err := io.CopyN(io.Discard, b.raw, limit)
	return err == io.EOF
}

// An uploadBody counts an upload towards MaxUploads while the Store checks the
// conditions. It counts again once the first buffer of the body has come, or all of
// it. The Store writes nothing before that. So a client that only sends a header keeps
// nobody else from uploading.
type uploadBody struct {
	io.Reader
	h       *handler
	missing int // bytes of the first buffer
	counted bool
}

// newUploadBody counts the upload until the first Read.
func (h *handler) newUploadBody(body io.Reader) (*uploadBody, error) {
	b := &uploadBody{Reader: body, h: h, missing: verify.BufferSize}
	return b, b.begin()
}

func (b *uploadBody) Read(p []byte) (int, error) {
	if b.missing <= 0 {
		return b.Reader.Read(p)
	}
	b.end()
	n, err := b.Reader.Read(p)
	if b.missing -= n; err == io.EOF {
		b.missing = 0
	}
	if b.missing <= 0 {
		if err := b.begin(); err != nil {
			return 0, err
		}
	}
	return n, err
}

func (b *uploadBody) begin() error {
	err := b.h.begin()
	b.counted = err == nil
	return err
}

// end ends the upload. It may be called again.
func (b *uploadBody) end() {
	if b.counted {
		b.h.end()
		b.counted = false
	}
}
