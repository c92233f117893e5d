// Package deadline extends the deadlines of an HTTP server while a client makes
// progress. A large body has the time that it needs, and a client that stalls does
// not.
package deadline

import (
	"io"
	"net/http"
	"time"
)

const (
	// Step is how many bytes a client must send or take to get another timeout.
	Step = 64 << 10
	// sendStep is how many bytes are sent at a time, with the timeout of as
	// many steps. Larger pieces are fewer system calls.
	sendStep = 4 * Step
)

// ExtendRead gives the client of w until timeout from now to send something.
// Errors are ignored: some ResponseWriters have no deadlines.
func ExtendRead(w http.ResponseWriter, timeout time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
}

// ExtendWrite gives the client of w until timeout from now to take something.
// Errors are ignored: some ResponseWriters have no deadlines.
func ExtendWrite(w http.ResponseWriter, timeout time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
}

// A Reader reads the body of a request and extends the deadline with every Step.
type Reader struct {
	body    io.Reader
	w       http.ResponseWriter
	timeout time.Duration
	left    int // bytes until the deadline is extended
}

// NewReader returns a Reader of body, a request's that w answers.
func NewReader(body io.Reader, w http.ResponseWriter, timeout time.Duration) *Reader {
	return &Reader{body: body, w: w, timeout: timeout}
}

// Read reads from the body. It extends the deadline for the answer too: over
// HTTP/2, that ends a request whose body is still coming.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		ExtendRead(r.w, r.timeout)
		ExtendWrite(r.w, r.timeout)
		r.left = Step
	}
	n, err := r.body.Read(p)
	r.left -= n
	return n, err
}

// Send sends n bytes of src to the client of w and extends the deadline with
// every piece. An *os.File goes out by sendfile where w can do that. A small src
// that is an [io.WriterTo] and holds no more than n bytes goes out in one Write.
// If src ends early, the error is [io.ErrUnexpectedEOF].
func Send(w http.ResponseWriter, src io.Reader, n int64, timeout time.Duration) (sent int64, err error) {
	if all, ok := src.(interface {
		io.WriterTo
		Len() int
	}); ok && n <= Step && n == int64(all.Len()) {
		ExtendWrite(w, timeout)
		return all.WriteTo(w)
	}
	for sent < n && err == nil {
		piece := min(n-sent, sendStep)
		ExtendWrite(w, timeout*time.Duration((piece+Step-1)/Step))
		var m int64
		m, err = io.CopyN(w, src, piece)
		sent += m
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return sent, err
}
