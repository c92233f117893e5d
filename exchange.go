package imagestore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/afero"
)

const (
	// piece is how many bytes a client must move to get another Timeout.
	piece = 64 << 10
	// largePiece is how many bytes are sent at once, for that many more pieces'
	// Timeout: fewer system calls, and fewer wake-ups of who reads.
	largePiece = 4 * piece
	// maxFormExtra bounds what a multipart body may hold beside the image, and
	// with it what hostile headers of parts can cost in memory.
	maxFormExtra = 32 << 10
)

const formType = "multipart/form-data"

// uploadTypes are the types that an upload may have; none at all is fine too.
var uploadTypes = []string{formType, "image/png", "application/octet-stream"}

// A response keeps an eye on what is written: it renews the deadline as long
// as the client takes something, remembers what went wrong and holds back the
// plain-text errors of http.ServeContent, for which the handler has its own.
type response struct {
	http.ResponseWriter
	timeout time.Duration
	body    *bodyReader // nil until some of the request's body was read
	fresh   bool        // the deadline was set just before
	refused int         // the status of ServeContent's error
	err     error       // the first of reading the image or writing it
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend gives the client the time for so many pieces to take what is written.
// Writers that have no deadlines have somebody else to mind the connection.
func (w *response) extend(pieces int64) {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(time.Duration(pieces) * w.timeout))
}

// awaitRead gives the client a while to send something. When the body has
// ended, net/http takes the deadline away.
func (w *response) awaitRead() {
	_ = http.NewResponseController(w.ResponseWriter).SetReadDeadline(time.Now().Add(w.timeout))
}

func (w *response) WriteHeader(status int) {
	if status >= 400 {
		w.refused = status
		return
	}
	w.extend(1)
	w.fresh = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	if w.refused != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom is where http.ServeContent hands over the image. It gives the
// writer below the *os.File itself, which may go out by sendfile.
func (w *response) ReadFrom(r io.Reader) (total int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		return 0, fmt.Errorf("cannot send from a %T", r)
	}
	src := limited.R
	if img, ok := src.(*servedImage); ok {
		src = img.ReadSeekCloser
	}
	if f, ok := src.(afero.File); ok {
		src = unwrap(f)
	}
	for limited.N > 0 && err == nil {
		n := min(limited.N, largePiece)
		if !w.fresh || n > piece {
			w.extend((n + piece - 1) / piece)
		}
		w.fresh = false
		var m int64
		m, err = io.CopyN(w.ResponseWriter, src, n)
		limited.N -= m
		total += m
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // the file has become shorter
	}
	w.err = err
	return total, err
}

// openUpload returns a reader of the image in the request's body, and refuses
// what can be refused before any of the body is read.
func openUpload(w *response, r *http.Request, maxBytes int64) (io.Reader, error) {
	if r.Header.Get("Content-Range") != "" { // RFC 9110, section 14.5
		return nil, &fault{kind: ErrBadRequest, detail: "an image cannot be put in pieces: send all of it, without Content-Range"}
	}
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Header.Get("Content-Type") != "" && (err != nil || !slices.Contains(uploadTypes, mediaType)) {
		return nil, &fault{kind: ErrNotPNG, detail: fmt.Sprintf("the Content-Type is %.100q; send the image in the part named \"file\" of multipart/form-data, "+
			"or as the body with Content-Type image/png, application/octet-stream or none", r.Header.Get("Content-Type"))}
	}
	form := mediaType == formType
	allowed := maxBytes
	if form {
		allowed += maxFormExtra
		if params["boundary"] == "" {
			return nil, &fault{kind: ErrBadRequest, detail: "the Content-Type multipart/form-data has no boundary; let your HTTP library set it"}
		}
	}
	if r.ContentLength > allowed {
		return nil, tooManyBytes(maxBytes)
	}
	body := &bodyReader{r: r.Body, w: w}
	if !form {
		return body, nil
	}
	// multipart.Reader reads 4 KiB at a time, which this turns into few large reads.
	buffered := formBuffers.Get().(*bufio.Reader)
	buffered.Reset(body)
	extra := &limitReader{buffered, maxFormExtra, &fault{kind: ErrTooLarge, detail: fmt.Sprintf("the form holds more than %d bytes beside the image", maxFormExtra)}}
	return &formFile{body: extra, form: multipart.NewReader(extra, params["boundary"]), maxBytes: maxBytes, buffered: buffered}, nil
}

var formBuffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// A bodyReader reads the body of a request, gives the client a new deadline
// for every piece and tells the client's failures from the store's.
type bodyReader struct {
	r    io.Reader
	w    *response
	left int // bytes until the deadline is renewed
	err  error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.left <= 0 {
		b.w.body = b
		b.w.awaitRead()
		b.left = piece
	}
	n, err := b.r.Read(p)
	b.left -= n
	switch {
	case err == nil || err == io.EOF:
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &fault{kind: errSlow, detail: fmt.Sprintf("%d bytes took longer than %v", piece, b.w.timeout), cause: err}
	default:
		if limit, ok := errors.AsType[*http.MaxBytesError](err); ok { // of middleware
			err = tooManyBytes(limit.Limit)
			break
		}
		err = &fault{kind: ErrBadRequest, detail: "the upload was cut short", cause: err}
	}
	b.err = err
	return n, err
}

// drain reads what is left of a refused upload, so that clients that send all
// of it before they listen get to see the answer. It reads no more than an
// upload that is not refused may have and takes no longer than one Timeout.
func drain(w *response, r *http.Request, maxBytes int64) {
	if r.ContentLength == 0 || w.body != nil && w.body.err != nil {
		return // nothing is left, or nothing will come
	}
	if w.body == nil && r.Header.Get("Expect") != "" {
		return // a client that asks first has sent nothing yet
	}
	w.awaitRead()
	_, _ = io.CopyN(io.Discard, r.Body, maxBytes+maxFormExtra)
}

// A formFile reads the part named "file" of a multipart/form-data body (RFC
// 7578), and ends only when all of the body has been seen to be in order.
type formFile struct {
	buffered *bufio.Reader
	body     *limitReader
	form     *multipart.Reader
	part     *multipart.Part
	maxBytes int64
}

func (f *formFile) Read(p []byte) (int, error) {
	if f.part == nil {
		if err := f.find(); err != nil {
			return 0, err
		}
	}
	n, err := f.part.Read(p)
	if err == io.EOF {
		return n, f.finish()
	}
	return n, formError(err)
}

// release gives the buffer back when nobody will read any more.
func (f *formFile) release() {
	f.buffered.Reset(nil)
	formBuffers.Put(f.buffered)
}

// find goes to the part named "file".
func (f *formFile) find() error {
	var others []string
	for {
		part, err := f.form.NextPart()
		if err == io.EOF {
			came := "the form is empty"
			if len(others) > 0 {
				came = "these came: " + strings.Join(others, ", ")
			}
			return &fault{kind: ErrBadRequest, detail: `the form has no part named "file"; ` + came}
		}
		if err != nil {
			return formError(err)
		}
		if part.FormName() == "file" {
			f.part = part
			f.body.left += f.maxBytes
			return nil
		}
		if len(others) < 10 {
			others = append(others, fmt.Sprintf("%.40q", part.FormName()))
		}
	}
}

// finish reads what is behind the image and returns io.EOF if it is in order.
func (f *formFile) finish() error {
	for {
		part, err := f.form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return formError(err)
		}
		if part.FormName() == "file" {
			return &fault{kind: ErrBadRequest, detail: `the form has more than one part named "file"`}
		}
	}
	if _, err := io.Copy(io.Discard, f.body); err != nil {
		return formError(err)
	}
	return io.EOF
}

// formError tells a form that is broken from a connection that is.
func formError(err error) error {
	if _, ok := errors.AsType[*fault](err); ok || err == nil {
		return err
	}
	return &fault{kind: ErrBadRequest, detail: "the multipart body is broken or incomplete", cause: err}
}
