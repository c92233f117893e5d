package imagestore

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/ba692904/imagestore/internal/formfile"
)

const (
	formType = "multipart/form-data"
	formName = "file" // of the part that has the image
)

// uploadTypes are the media types that an upload may have, if it has one.
var uploadTypes = []string{formType, "image/png", "application/octet-stream"}

func (h *handler) upload(w http.ResponseWriter, r *http.Request, id string) error {
	cond, err := conditionOf(r.Header)
	if err != nil {
		return err
	}
	if err := h.begin(); err != nil {
		return err
	}
	defer h.end()
	body, err := h.openBody(r)
	if err != nil {
		return err
	}
	defer body.Close()
	result, err := h.store.Put(r.Context(), id, body, cond)
	if err != nil {
		return err
	}
	location := originalPath(r)
	if r.URL.Path == "/images" {
		location += "/" + id
	}
	w.Header().Set("Location", location)
	w.Header().Set("ETag", result.ETag)
	status := http.StatusCreated
	if result.Replaced {
		status = http.StatusOK
	}
	return h.writeJSON(w, r, status, result.Info)
}

func (h *handler) delete(w http.ResponseWriter, r *http.Request, id string) error {
	cond, err := conditionOf(r.Header)
	if err != nil {
		return err
	}
	if err := h.begin(); err != nil {
		return err
	}
	defer h.end()
	if err := h.store.Delete(r.Context(), id, cond); err != nil {
		return err
	}
	h.writeHeader(w, http.StatusNoContent)
	return nil
}

// conditionOf returns what a change depends on.
func conditionOf(header http.Header) (Condition, error) {
	var conds []Condition
	if header["If-Match"] != nil {
		conds = append(conds, IfMatch(header.Get("If-Match")))
	}
	if header["If-None-Match"] != nil {
		conds = append(conds, IfNoneMatch(header.Get("If-None-Match")))
	}
	if header.Get("If-Unmodified-Since") != "" && header["If-Match"] == nil {
		// To ignore it would overwrite what the client wants to keep.
		return Condition{}, &detailedError{kind: ErrBadRequest, detail: "If-Unmodified-Since is too coarse to protect a change; send If-Match with the ETag instead"}
	}
	return AllOf(conds...)
}

// originalPath returns the path as the client sent it, before StripPrefix.
func originalPath(r *http.Request) string {
	inner := r.URL.EscapedPath()
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil && strings.HasSuffix(u.EscapedPath(), inner) {
		return u.EscapedPath()
	}
	return inner
}

// openBody returns a reader of the image in the request's body. It refuses what
// can be refused before any of the body is read.
func (h *handler) openBody(r *http.Request) (io.ReadCloser, error) {
	if r.Header.Get("Content-Range") != "" { // RFC 9110, section 14.5
		return nil, &detailedError{kind: ErrBadRequest, detail: "an image cannot be sent in pieces; send all of it, without Content-Range"}
	}
	contentType := r.Header.Get("Content-Type")
	mediaType, params, err := mime.ParseMediaType(contentType)
	if contentType != "" && (err != nil || !slices.Contains(uploadTypes, mediaType)) {
		return nil, &detailedError{kind: ErrUnsupportedType, detail: fmt.Sprintf("the Content-Type is %.100q; send the image in the part named %q of %s, "+
			"or as the body with Content-Type image/png, application/octet-stream or none", contentType, formName, formType)}
	}
	maxBytes := h.store.Options().MaxBytes
	allowed := maxBytes
	if mediaType == formType {
		allowed += formfile.MaxExtra
		if params["boundary"] == "" {
			return nil, &detailedError{kind: ErrBadRequest, detail: "the Content-Type multipart/form-data has no boundary; let your HTTP library set it"}
		}
	}
	if r.ContentLength > allowed {
		return nil, tooManyBytes(maxBytes)
	}
	if mediaType == formType {
		return &formBody{formfile.New(r.Body, params["boundary"], formName, maxBytes)}, nil
	}
	return r.Body, nil
}

// A formBody gives the mistakes in a form their reasons.
type formBody struct{ *formfile.Reader }

func (b *formBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if e, ok := errors.AsType[*formfile.Error](err); ok {
		kind := ErrBadRequest
		if e.TooLarge {
			kind = ErrTooLarge
		}
		err = &detailedError{kind: kind, detail: e.Detail, cause: e.Err}
	}
	return n, err
}
