package imagestore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ba692904/imagestore/internal/deadline"
	"github.com/ba692904/imagestore/internal/etag"
)

func (h *handler) get(w http.ResponseWriter, r *http.Request, id string) error {
	img, err := h.open(r, id)
	if err != nil {
		return err
	}
	var closer io.Closer = img
	defer func() { closer.Close() }()
	header := w.Header()
	if isNotModified(r.Header, img.ETag) {
		header["Etag"] = []string{img.ETag}
		header["Cache-Control"] = []string{"no-cache"}
		h.writeHeader(w, http.StatusNotModified)
		return nil
	}
	setImageHeader(header, img.Info)
	switch {
	case isConditional(r.Header), header["Content-Encoding"] != nil: // middleware that encodes changes the length
		delete(header, "Content-Length") // which ServeContent sets
		content := &imageContent{Image: img}
		closer = content
		return h.serveContent(w, r, content)
	case r.Method == http.MethodHead:
		h.writeHeader(w, http.StatusOK)
	default:
		w.WriteHeader(http.StatusOK)
		_, err := deadline.Send(w, img.ReadSeekCloser, img.Size, h.opts.Timeout)
		h.abortOn(err, r, id)
	}
	return nil
}

// serveContent has [http.ServeContent] decide about conditions and ranges.
func (h *handler) serveContent(w http.ResponseWriter, r *http.Request, content *imageContent) error {
	out := &imageWriter{ResponseWriter: w, timeout: h.opts.Timeout}
	http.ServeContent(out, r, "", content.ModTime, content)
	h.abortOn(out.err, r, content.ID)
	if out.refused == 0 {
		return nil
	}
	for _, name := range []string{"Etag", "Last-Modified", "Content-Disposition", "Accept-Ranges"} {
		delete(w.Header(), name) // they are the image's
	}
	if err := content.seekError(); err != nil {
		return &Error{Op: "get", ID: content.ID, Err: err}
	}
	switch out.refused {
	case http.StatusPreconditionFailed:
		return &detailedError{kind: ErrPreconditionFailed, detail: "the image's ETag is " + content.ETag}
	case http.StatusRequestedRangeNotSatisfiable:
		return &detailedError{kind: errUnsatisfiable, detail: fmt.Sprintf("the image has %d bytes", content.Size)}
	}
	return fmt.Errorf("http.ServeContent answers %d", out.refused)
}

// abortOn breaks the connection if sending an image has failed. The header is
// sent, and the client must not take a part for the whole.
func (h *handler) abortOn(err error, r *http.Request, id string) {
	if err == nil {
		return
	}
	if r.Context().Err() != nil || isConnectionError(err) {
		err = clientGone(err)
	}
	h.log(r, &Error{Op: "get", ID: id, Err: err})
	panic(http.ErrAbortHandler)
}

// open opens the image as far as the answer needs it. A HEAD, or a GET of what
// the client has already, does not need the bytes.
func (h *handler) open(r *http.Request, id string) (*Image, error) {
	if r.Method == http.MethodHead || r.Header["If-None-Match"] != nil {
		info, err := h.store.Stat(r.Context(), id)
		if err != nil || r.Method == http.MethodHead || isNotModified(r.Header, info.ETag) {
			return &Image{info, noBytes{}}, err
		}
	}
	return h.store.Get(r.Context(), id)
}

// noBytes stands for the bytes of an image that are not read.
type noBytes struct{}

func (noBytes) Read([]byte) (int, error)       { return 0, io.EOF }
func (noBytes) Seek(int64, int) (int64, error) { return 0, nil }
func (noBytes) Close() error                   { return nil }

// isConditional reports whether [http.ServeContent] has something to decide.
func isConditional(header http.Header) bool {
	return header["Range"] != nil || header["If-Match"] != nil || header["If-None-Match"] != nil || header["If-Modified-Since"] != nil || header["If-Unmodified-Since"] != nil
}

// isNotModified reports whether 304 is the answer, and If-None-Match alone
// decides it.
func isNotModified(header http.Header, tag string) bool {
	if header["If-None-Match"] == nil || header["If-Match"] != nil || header["If-Unmodified-Since"] != nil {
		return false
	}
	found, err := etag.Match(header.Get("If-None-Match"), tag, false)
	return found && err == nil
}

func isConnectionError(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// setImageHeader sets the header fields of an image. Each slice has no room to
// spare, so that appending to one does not change another.
func setImageHeader(header http.Header, info Info) {
	// One string for all that is made here is one allocation.
	b := strconv.AppendInt(make([]byte, 0, 256), info.Size, 10)
	size := len(b)
	b = info.ModTime.AppendFormat(b, http.TimeFormat)
	modified := len(b)
	b = append(append(b, `inline; filename="`...), info.ID...)
	if ext, ok := strings.CutPrefix(info.Type, "image/"); ok {
		b = append(append(b, '.'), ext...)
	}
	s := string(append(b, '"'))
	v := [...]string{info.Type, s[:size], info.ETag, s[size:modified], "bytes", "no-cache", s[modified:]}
	header["Content-Type"] = v[0:1:1]
	header["Content-Length"] = v[1:2:2]
	header["Etag"] = v[2:3:3]
	header["Last-Modified"] = v[3:4:4]
	header["Accept-Ranges"] = v[4:5:5]
	header["Cache-Control"] = v[5:6:6] // an id can get another image at any time
	header["Content-Disposition"] = v[6:7:7]
}

// An imageWriter sends an image and renews the deadline for as long as the
// client takes some of it. It remembers what went wrong, and holds back the
// plain-text errors of [http.ServeContent], for which the handler has its own.
type imageWriter struct {
	http.ResponseWriter
	timeout time.Duration
	refused int   // the status of ServeContent's error
	err     error // the first of reading the image or sending it
}

// Unwrap lets [http.ResponseController] reach the writer below.
func (w *imageWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *imageWriter) WriteHeader(status int) {
	if status >= 400 {
		w.refused = status
		return
	}
	deadline.ExtendWrite(w.ResponseWriter, w.timeout)
	w.ResponseWriter.WriteHeader(status)
}

// Write drops the text of an error of ServeContent.
func (w *imageWriter) Write(p []byte) (int, error) {
	if w.refused != 0 {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom is how ServeContent hands over the image.
func (w *imageWriter) ReadFrom(r io.Reader) (int64, error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		w.err = fmt.Errorf("http.ServeContent sends from a %T", r)
		return 0, w.err
	}
	src := limited.R
	if content, ok := src.(*imageContent); ok {
		src = content.ReadSeekCloser
	}
	sent, err := deadline.Send(w.ResponseWriter, src, limited.N, w.timeout)
	w.err = cmp.Or(w.err, err)
	return sent, err
}

// An imageContent is what [http.ServeContent] reads. It spares the seeks by which
// ServeContent learns the size, and remembers an error that ServeContent does not
// return. For several ranges, ServeContent reads on another goroutine, which may go
// on after ServeContent has returned. So an imageContent can be closed meanwhile.
type imageContent struct {
	*Image
	mu     sync.Mutex
	closed bool
	moved  bool
	err    error // of Seek
}

func (c *imageContent) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, fs.ErrClosed
	}
	return c.Image.Read(p)
}

func (c *imageContent) Seek(offset int64, whence int) (n int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, fs.ErrClosed
	case offset == 0 && whence == io.SeekEnd:
		return c.Size, nil
	case offset == 0 && whence == io.SeekStart && !c.moved:
		return 0, nil
	}
	c.moved = true
	if n, err = c.Image.Seek(offset, whence); err != nil {
		c.err = err
	}
	return n, err
}

func (c *imageContent) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.Image.Close()
}

func (c *imageContent) seekError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
