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

// uploadTypes are the media types that an upload may have, apart from those of images.
// The bytes decide what a raw body is. Some of these say little about it, but are what
// clients send unless told otherwise: curl, fetch and S3 tools.
var uploadTypes = []string{formType, "application/octet-stream", "binary/octet-stream", "application/x-www-form-urlencoded", "text/plain"}

func (h *handler) upload(w http.ResponseWriter, r *http.Request, id string) error {
	cond, err := conditionOf(r.Header)
	if err != nil {
		return err
	}
	counted, err := h.newUploadBody(r.Body)
	if err != nil {
		return err
	}
	defer counted.end()
	body, err := h.openBody(r, counted)
	if err != nil {
		return err
	}
	defer body.Close()
	ctx, cancel := storeContext(r)
	defer cancel()
	result, err := h.store.Put(ctx, id, body, cond)
	if err != nil {
		return body.explain(err)
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
	ctx, cancel := storeContext(r)
	defer cancel()
	if err := h.store.Delete(ctx, id, cond); err != nil {
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
func (h *handler) openBody(r *http.Request, body io.Reader) (*imageBody, error) {
	if r.Header.Get("Content-Range") != "" { // RFC 9110, section 14.5
		return nil, &detailedError{kind: ErrBadRequest, detail: "an image cannot be sent in pieces; send all of it, without Content-Range"}
	}
	contentType := r.Header.Get("Content-Type")
	mediaType := mediaTypeOf(contentType)
	body, err := checkDigests(r, body, mediaType == formType)
	if err != nil {
		return nil, err
	}
	if !isUploadType(mediaType) {
		return nil, &detailedError{kind: ErrUnsupportedType, detail: fmt.Sprintf("the Content-Type is %.100q; send the image in the part named %q of %s, "+
			"or as the body with the image's Content-Type, application/octet-stream or none", contentType, formName, formType)}
	}
	maxBytes := h.store.Options().MaxBytes
	if mediaType != formType {
		if r.ContentLength > maxBytes {
			return nil, tooManyBytes(maxBytes)
		}
		return &imageBody{Reader: body}, nil
	}
	boundary := boundaryOf(contentType)
	if boundary == "" {
		return nil, &detailedError{kind: ErrBadRequest, detail: "the Content-Type multipart/form-data has no boundary; let your HTTP library set it"}
	}
	if r.ContentLength > maxBytes+formfile.MaxExtra {
		return nil, &detailedError{kind: ErrTooLarge, detail: fmt.Sprintf("the form has %d bytes; at most %d bytes are allowed in the image, and %d besides it",
			r.ContentLength, maxBytes, formfile.MaxExtra)}
	}
	form := formfile.New(body, boundary, formName)
	form.Wrap = checkPartDigests
	return &imageBody{form, form}, nil
}

// separators stand before the parameters of a Content-Type, wellformed or not.
const separators = ";, \t"

// mediaTypeOf returns the media type in a Content-Type whose parameters may be
// malformed.
func mediaTypeOf(contentType string) string {
	if i := strings.IndexAny(contentType, separators); i >= 0 {
		contentType = contentType[:i]
	}
	return strings.ToLower(contentType)
}

// isUploadType reports whether an upload may have this media type. A value without a
// slash, such as "png" or "undefined", is no media type, and says nothing.
func isUploadType(mediaType string) bool {
	return slices.Contains(uploadTypes, mediaType) || strings.HasPrefix(mediaType, "image/") || !strings.Contains(mediaType, "/")
}

// boundaryOf returns the boundary of a form. Many clients do not quote a boundary
// that has characters such as "=", and some separate parameters with commas, as RFC
// 1867 did.
func boundaryOf(contentType string) string {
	_, params, err := mime.ParseMediaType(contentType)
	if err == nil {
		return params["boundary"]
	}
	const key = "boundary="
	for i := range contentType {
		value := contentType[i:]
		if i == 0 || !strings.ContainsRune(separators, rune(contentType[i-1])) || len(value) < len(key) || !strings.EqualFold(value[:len(key)], key) {
			continue
		}
		value = value[len(key):]
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			value, _, _ = strings.Cut(quoted, `"`)
			return value
		}
		value, _, _ = strings.Cut(value, ";")
		return strings.TrimSpace(value)
	}
	return ""
}

// An imageBody is the image in the body of an upload.
type imageBody struct {
	io.Reader
	form *formfile.Reader // the Reader, if the body is a form
}

func (b *imageBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	return n, formError(err)
}

// Close releases the memory for a form. It does not close the body.
func (b *imageBody) Close() error {
	if b.form != nil {
		return b.form.Close()
	}
	return nil
}

// maxFormEnd is how far explain looks for the end of a form.
const maxFormEnd = 64 << 10

// explain returns the error to answer with if the Store has refused the image. A form
// that is not closed looks like an image with bytes after its end.
func (b *imageBody) explain(err error) error {
	if b.form != nil && errors.Is(err, ErrInvalidImage) {
		if broken := b.form.CheckEnd(maxFormEnd); broken != nil {
			return formError(broken)
		}
	}
	return err
}

// formError gives the mistakes in a form their reason.
func formError(err error) error {
	if e, ok := errors.AsType[*formfile.Error](err); ok {
		return &detailedError{kind: ErrBadRequest, detail: e.Detail, cause: e.Err}
	}
	return err
}
