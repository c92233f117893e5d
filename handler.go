package imagestore

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime"
	"strings"

	"github.com/ba692904/imagestore/internal/deadline"
	"github.com/ba692904/imagestore/internal/digest"
)

// contentSecurityPolicy makes a page or a script harmless that a browser might
// see in an image.
const contentSecurityPolicy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

// NewHandler returns a handler that serves the images of s under /images and
// /images/{id}. Use [http.StripPrefix] to mount it under another path. Nil
// options are the defaults. docs/http.md describes requests and answers.
//
// The handler knows no users. Authentication and authorization are up to the
// middleware around it. So is a check such as [http.CrossOriginProtection], without
// which a page of any site can make a browser upload.
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
	h.changes = make(slots, h.opts.MaxUploads)
	h.discards = make(slots, h.opts.MaxUploads)
	h.lists = make(slots, maxLists)
	h.reads = make(slots, maxReads)
	h.hashes = make(slots, max(minHashes, runtime.GOMAXPROCS(0)))
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Made anew for every answer, because middleware may change what it finds.
	v := [...]string{"nosniff", contentSecurityPolicy}
	w.Header()["X-Content-Type-Options"] = v[0:1:1]
	w.Header()["Content-Security-Policy"] = v[1:2:2]
	r = normalize(r)
	if r.ContentLength != 0 {
		deadline.ExtendRead(w, h.opts.Timeout) // also for a body that only net/http reads
		r = withBody(r, w, h.opts.Timeout)
	}
	if err := h.serve(w, r); err != nil {
		h.fail(w, r, err)
	}
}

// serve answers the request, or returns the error to answer with.
func (h *handler) serve(w http.ResponseWriter, r *http.Request) error {
	p := r.URL.EscapedPath()
	if p == "/images" {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return h.list(w, r)
		case http.MethodPost:
			return h.upload(w, r, NewID())
		}
		return h.methodNotAllowed(w, r, "GET, HEAD, OPTIONS, POST")
	}
	segment, ok := strings.CutPrefix(p, "/images/")
	if !ok {
		return &detailedError{kind: errUnknownPath, detail: fmt.Sprintf("the path is %.200q; %s", p, meant(r))}
	}
	id, err := url.PathUnescape(segment)
	if err != nil {
		return &detailedError{kind: ErrInvalidID, detail: "its percent-encoding is malformed", cause: err}
	}
	if err := CheckID(id); err != nil {
		if e, ok := errors.AsType[*detailedError](err); ok && (id == "" || strings.Contains(segment, "/")) {
			e.detail = strings.Replace(e.detail, idRule, meant(r)+"; "+idRule, 1)
		}
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
	return h.methodNotAllowed(w, r, "DELETE, GET, HEAD, OPTIONS, POST, PUT")
}

// meant returns the path that a nearly right one was meant to be, or where images
// are.
func meant(r *http.Request) string {
	p := r.URL.EscapedPath()
	mount, _ := strings.CutSuffix(originalPath(r), p)
	mount += "/images"
	names := strings.FieldsFunc(p, func(c rune) bool { return c == '/' })
	if len(names) == 2 && (strings.EqualFold(names[0], "images") || strings.EqualFold(names[0], "image")) && CheckID(names[1]) == nil {
		return fmt.Sprintf("perhaps you mean %.400q", mount+"/"+names[1])
	}
	return fmt.Sprintf("images are at %.200s/{id}, their list is at %.200s", mount, mount)
}

// methodNotAllowed answers OPTIONS and refuses every other method.
func (h *handler) methodNotAllowed(w http.ResponseWriter, r *http.Request, allow string) error {
	w.Header().Set("Allow", allow)
	if r.Method != http.MethodOptions {
		return &detailedError{kind: errMethod, detail: fmt.Sprintf("%.20q is not one of %s", r.Method, allow)}
	}
	opts := h.store.Options()
	types := []string{formType}
	for _, f := range opts.Formats {
		types = append(types, string(f))
	}
	w.Header().Set("Accept-Post", strings.Join(append(types, "application/octet-stream"), ", "))
	w.Header().Set("Imagestore-Max-Bytes", fmt.Sprint(opts.MaxBytes))
	w.Header().Set("Imagestore-Max-Pixels", fmt.Sprint(opts.MaxPixels))
	w.Header().Set("Imagestore-Max-Animation-Pixels", fmt.Sprint(opts.MaxAnimationPixels))
	w.Header().Set("Want-Repr-Digest", digest.Preference)
	h.writeHeader(w, http.StatusNoContent)
	return nil
}

// normalize returns the request with each list of ETags in one line (RFC 9110,
// section 5.3).
func normalize(r *http.Request) *http.Request {
	lists := [...]string{"If-Match", "If-None-Match"}
	if len(r.Header[lists[0]]) < 2 && len(r.Header[lists[1]]) < 2 {
		return r
	}
	r2 := *r
	r2.Header = maps.Clone(r.Header)
	for _, name := range lists {
		if lines := r.Header[name]; len(lines) > 1 {
			r2.Header.Set(name, strings.Join(lines, ", "))
		}
	}
	return &r2
}
