package imagestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ba692904/imagestore/internal/problem"
)

const (
	// DefaultMaxUploads is how many uploads a handler takes at once unless its
	// options say otherwise. Each costs up to 150 KiB of memory.
	DefaultMaxUploads = 1024
	// DefaultTimeout is how long a client may take for a piece of 64 KiB unless
	// the options say otherwise, 2 KiB a second.
	DefaultTimeout = 30 * time.Second

	defaultPageSize = 100
	maxPageSize     = 1000

	// A page or a script in an image, if a browser were ever to see one there,
	// can do nothing.
	contentSecurityPolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
)

// HandlerOptions change how a handler works. The zero value is what most want.
type HandlerOptions struct {
	// Logger gets an error for what fails on the server's side, and at debug
	// level what clients got wrong. Nil is slog.Default().
	Logger *slog.Logger
	// MaxUploads is how many uploads are taken at once; more are answered with
	// 503 and Retry-After. 0 is DefaultMaxUploads.
	MaxUploads int
	// Timeout is how long a client may take to send or to fetch 64 KiB. It
	// renews itself, so that a large image has all the time that it needs and
	// a client that stands still does not. Downloads are watched in pieces of
	// 256 KiB, for four times as long. 0 is DefaultTimeout.
	Timeout time.Duration
}

// NewHandler returns a handler that serves the images of s under /images and
// /images/{id}; [http.StripPrefix] puts it under another path. Nil options are
// the defaults. Requests and answers are described in the README.
//
// It knows nothing of users: what may be done by whom is for the middleware
// around it.
func NewHandler(s *Store, opts *HandlerOptions) http.Handler {
	h := &handler{store: s}
	if opts != nil {
		h.opts = *opts
	}
	if h.opts.Logger == nil {
		h.opts.Logger = slog.Default()
	}
	if h.opts.MaxUploads <= 0 {
		h.opts.MaxUploads = DefaultMaxUploads
	}
	if h.opts.Timeout <= 0 {
		h.opts.Timeout = DefaultTimeout
	}
	h.uploads = make(chan struct{}, h.opts.MaxUploads)
	return h
}

type handler struct {
	store   *Store
	opts    HandlerOptions
	uploads chan struct{} // holds a value for every upload under way
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["X-Content-Type-Options"] = nosniff
	w.Header()["Content-Security-Policy"] = inert
	out := &response{ResponseWriter: w, timeout: h.opts.Timeout}
	if r.ContentLength != 0 {
		out.awaitRead() // also for bodies that nobody wants, which net/http reads to the end
	}
	if err := h.serve(out, canonical(r)); err != nil {
		h.fail(out, r, err)
	}
}

// serve answers the request or returns the error to answer with.
func (h *handler) serve(w *response, r *http.Request) error {
	p := r.URL.EscapedPath()
	if p == "/images" {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return h.list(w, r)
		case http.MethodPost:
			return h.upload(w, r, NewID())
		}
		return h.other(w, r, "GET, HEAD, OPTIONS, POST")
	}
	segment, ok := strings.CutPrefix(p, "/images/")
	if !ok {
		return &fault{kind: errUnknownPath, detail: "images are at /images/{id}, their list is at /images"}
	}
	id, err := url.PathUnescape(segment)
	if err != nil {
		return &fault{kind: ErrInvalidID, detail: "it is not percent-encoded as it should be", cause: err}
	}
	if err := CheckID(id); err != nil {
		return err
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return h.get(w, r, id)
	case http.MethodPost, http.MethodPut:
		return h.upload(w, r, id)
	case http.MethodDelete:
		return h.delete(w, r, id)
	}
	return h.other(w, r, "DELETE, GET, HEAD, OPTIONS, POST, PUT")
}

// other answers OPTIONS and refuses every other method.
func (h *handler) other(w *response, r *http.Request, allow string) error {
	w.Header().Set("Allow", allow)
	if r.Method != http.MethodOptions {
		return &fault{kind: errMethod, detail: fmt.Sprintf("%.20q is not one of %s", r.Method, allow)}
	}
	w.Header().Set("Accept-Post", strings.Join(uploadTypes, ", "))
	w.Header().Set("Imagestore-Max-Bytes", strconv.FormatInt(h.store.opts.MaxBytes, 10))
	w.Header().Set("Imagestore-Max-Pixels", strconv.FormatInt(h.store.opts.MaxPixels, 10))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// open opens the image as far as the answer needs it. For HEAD, and where the
// client may have the image already, it is enough to know what it is.
func (h *handler) open(r *http.Request, id string) (*Image, error) {
	if (r.Method == http.MethodHead || r.Header["If-None-Match"] != nil) && h.store.statSuffices(id) {
		info, err := h.store.Stat(r.Context(), id)
		if err != nil || r.Method == http.MethodHead || isNotModified(r.Header, info.ETag) {
			return &Image{info, new(inMemory)}, err
		}
	}
	return h.store.Get(r.Context(), id)
}

func (h *handler) get(w *response, r *http.Request, id string) error {
	img, err := h.open(r, id)
	if err != nil {
		return err
	}
	defer img.Close()
	in, header := r.Header, w.Header()
	if isNotModified(in, img.ETag) {
		header["Etag"] = []string{img.ETag}
		header["Cache-Control"] = noCache
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	mem, isInMemory := img.ReadSeekCloser.(*inMemory)
	if isInMemory && mem.image != nil {
		mem.image.set(header)
	} else {
		newImageHeader(img.Info).set(header)
	}
	content := &servedImage{Image: img}
	switch {
	case in["Range"] != nil || in["If-Match"] != nil || in["If-None-Match"] != nil || in["If-Modified-Since"] != nil || in["If-Unmodified-Since"] != nil,
		header["Content-Encoding"] != nil: // of middleware, which makes it another length
		delete(header, "Content-Length") // for ServeContent to say
		http.ServeContent(w, r, "", img.ModTime, content)
	case r.Method == http.MethodHead:
		w.WriteHeader(http.StatusOK)
	case isInMemory:
		w.WriteHeader(http.StatusOK)
		_, w.err = w.ResponseWriter.Write(mem.image.data)
	default:
		w.WriteHeader(http.StatusOK)
		w.ReadFrom(&io.LimitedReader{R: img.ReadSeekCloser, N: img.Size})
	}
	if w.err != nil {
		// The headers are gone: all that is left is to break the connection,
		// so that nobody takes a part for the whole.
		err := w.err
		if r.Context().Err() != nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded) {
			err = clientGone(err)
		}
		h.log(r, &Error{Op: "get", ID: id, Err: err})
		panic(http.ErrAbortHandler)
	}
	if w.refused == 0 {
		return nil
	}
	for _, name := range []string{"ETag", "Last-Modified", "Content-Disposition", "Accept-Ranges"} {
		header.Del(name) // they are the image's
	}
	switch {
	case content.err != nil:
		return &Error{Op: "get", ID: id, Err: content.err}
	case w.refused == http.StatusPreconditionFailed:
		return &fault{kind: ErrPrecondition, detail: "the image's ETag is " + img.ETag}
	case w.refused == http.StatusRequestedRangeNotSatisfiable:
		return &fault{kind: errRange, detail: fmt.Sprintf("the image has %d bytes", img.Size)}
	}
	return fmt.Errorf("http.ServeContent answers %d", w.refused)
}

// isNotModified says whether 304 is the answer to a request with this header,
// and no other field of it matters.
func isNotModified(header http.Header, etag string) bool {
	if header["If-None-Match"] == nil || header["If-Match"] != nil || header["If-Unmodified-Since"] != nil {
		return false
	}
	found, err := listHas(header.Get("If-None-Match"), etag, false)
	return found && err == nil
}

// Values that never change are not made anew for every answer. Their capacity
// is their length, so that nobody can add to them.
var (
	nosniff      = []string{"nosniff"}
	inert        = []string{contentSecurityPolicy}
	noCache      = []string{"no-cache"} // ids can be replaced
	imageType    = []string{"image/png"}
	acceptRanges = []string{"bytes"}
)

// An imageHeader has those header fields that tell one image from others.
type imageHeader struct{ etag, modified, length, disposition []string }

func newImageHeader(info Info) imageHeader {
	v := [...]string{info.ETag, info.ModTime.Format(http.TimeFormat), strconv.FormatInt(info.Size, 10), `inline; filename="` + info.ID + `.png"`}
	return imageHeader{v[0:1:1], v[1:2:2], v[2:3:3], v[3:4:4]}
}

func (h imageHeader) set(header http.Header) {
	header["Content-Type"] = imageType
	header["Content-Length"] = h.length
	header["Etag"] = h.etag
	header["Last-Modified"] = h.modified
	header["Accept-Ranges"] = acceptRanges
	header["Cache-Control"] = noCache
	header["Content-Disposition"] = h.disposition
}

// A servedImage spares http.ServeContent the way to the end and back, by which
// it learns the size, and remembers an error that it would keep to itself.
type servedImage struct {
	*Image
	moved bool
	err   error
}

func (s *servedImage) Seek(offset int64, whence int) (int64, error) {
	switch {
	case offset == 0 && whence == io.SeekEnd:
		return s.Size, nil
	case offset == 0 && whence == io.SeekStart && !s.moved:
		return 0, nil
	}
	s.moved = true
	n, err := s.Image.Seek(offset, whence)
	if err != nil {
		s.err = err
	}
	return n, err
}

// canonical returns the request as the rest of this package, and of
// http.ServeContent, understands it right: with a list in one line, not several,
// and with Range for GET only (RFC 9110, sections 5.3 and 14.2).
func canonical(r *http.Request) *http.Request {
	lists := [...]string{"If-Match", "If-None-Match"}
	if len(r.Header[lists[0]]) < 2 && len(r.Header[lists[1]]) < 2 && (r.Header["Range"] == nil || r.Method == http.MethodGet) {
		return r
	}
	r2 := *r
	r2.Header = maps.Clone(r.Header)
	for _, name := range lists {
		if lines := r.Header[name]; len(lines) > 1 {
			r2.Header.Set(name, strings.Join(lines, ", "))
		}
	}
	if r.Method != http.MethodGet {
		r2.Header.Del("Range")
	}
	return &r2
}

func (h *handler) delete(w *response, r *http.Request, id string) error {
	conds, err := preconditions(r.Header)
	if err != nil {
		return err
	}
	if err := h.store.Delete(r.Context(), id, conds...); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) list(w *response, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &fault{kind: ErrBadRequest, detail: "the query is not percent-encoded as it should be", cause: err}
	}
	limit := defaultPageSize
	if query.Has("limit") {
		limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || limit < 1 || limit > maxPageSize {
			return &fault{kind: ErrBadRequest, detail: fmt.Sprintf("limit is %.40q, not a number from 1 to %d", query.Get("limit"), maxPageSize)}
		}
	}
	after := query.Get("after")
	if after != "" && CheckID(after) != nil {
		return &fault{kind: ErrBadRequest, detail: fmt.Sprintf("after is %.40q, which is no id", after)}
	}
	images, more, err := h.store.page(r.Context(), after, limit)
	if err != nil {
		return err
	}
	page := struct {
		Images []Info `json:"images"`
		Next   string `json:"next,omitempty"`
	}{Images: images}
	if images == nil {
		page.Images = []Info{}
	}
	if more {
		page.Next = images[len(images)-1].ID
	}
	w.Header().Set("Cache-Control", "no-cache")
	return writeJSON(w, http.StatusOK, page)
}

func (h *handler) upload(w *response, r *http.Request, id string) error {
	select {
	case h.uploads <- struct{}{}:
		defer func() { <-h.uploads }()
	default:
		return &fault{kind: ErrBusy, detail: fmt.Sprintf("%d are under way", cap(h.uploads))}
	}
	conds, err := preconditions(r.Header)
	if err != nil {
		return err
	}
	body, err := openUpload(w, r, h.store.opts.MaxBytes)
	if err != nil {
		return err
	}
	if form, ok := body.(*formFile); ok {
		defer form.release()
	}
	info, replaced, err := h.store.put(r.Context(), id, body, conds, true)
	if err != nil {
		return &Error{Op: "put", ID: id, Err: err}
	}
	location := originalPath(r)
	if r.URL.Path == "/images" {
		location += "/" + id
	}
	w.Header().Set("Location", location)
	w.Header().Set("ETag", info.ETag)
	status := http.StatusCreated
	if replaced {
		status = http.StatusOK
	}
	return writeJSON(w, status, info)
}

// originalPath returns the path as the client sent it, before StripPrefix.
func originalPath(r *http.Request) string {
	inner := r.URL.EscapedPath()
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil && strings.HasSuffix(u.EscapedPath(), inner) {
		return u.EscapedPath()
	}
	return inner
}

// preconditions returns those that a change depends on.
func preconditions(header http.Header) (conds []Precondition, err error) {
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if header[name] != nil {
			conds = append(conds, Precondition{name, header.Get(name)})
		}
	}
	if header.Get("If-Unmodified-Since") != "" && header.Get("If-Match") == "" {
		// To ignore it would overwrite what the client wants to keep.
		return nil, &fault{kind: ErrBadRequest, detail: "a second is too coarse to protect a change: send If-Match with the ETag instead of If-Unmodified-Since"}
	}
	return conds, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
	return nil
}

// fail is the one place where errors are answered and logged.
func (h *handler) fail(w *response, r *http.Request, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		err = clientGone(err)
	}
	h.log(r, err)
	drain(w, r, h.store.opts.MaxBytes)
	answer, detail := answerTo(err)
	if answer.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.extend(1)
	problem.Write(w.ResponseWriter, answer.status, answer.code, detail)
}

// clientGone says of an error that it is the client's: it did not wait.
func clientGone(err error) error {
	return &fault{kind: ErrBadRequest, detail: "the client hung up", cause: err}
}

func (h *handler) log(r *http.Request, err error) {
	level := slog.LevelDebug
	if answer, _ := answerTo(err); answer.status >= 500 && answer.err != ErrBusy {
		level = slog.LevelError
	}
	h.opts.Logger.Log(context.WithoutCancel(r.Context()), level, "imagestore: request failed",
		"method", r.Method, "path", r.URL.EscapedPath(), "err", err)
}
