package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/textproto"

	"github.com/ba692904/imagestore/internal/digest"
)

// minHashes is how many images are hashed at once at least. Otherwise there are as
// many as processors. On a slow disk or an object store, a hash waits for its bytes.
const minHashes = 4

// digestNames are the fields that have digests of an upload. Both cover the body as it
// is sent. It is complete and has no coding that is undone (RFC 9530, sections 2 and 3).
var digestNames = [...]string{"Repr-Digest", "Content-Digest"}

// checkDigests returns a reader of a request's body that fails with
// [ErrDigestMismatch], rather than end, if a digest in the header does not fit.
func checkDigests(r *http.Request, body io.Reader, isForm bool) (io.Reader, error) {
	for _, name := range digestNames {
		if _, announced := r.Trailer[name]; announced {
			// To ignore it would store an image that the client wants to be checked.
			return nil, &detailedError{kind: ErrBadRequest, detail: "a " + name + " in the trailer is not checked; send it in the header"}
		}
	}
	if isForm {
		return checkDigestsIn(r.Header, body, "form", "; a digest of the image alone belongs in the header of its part")
	}
	return checkDigestsIn(r.Header, body, "body", "")
}

// checkPartDigests does the same for the part of a form that is the image.
func checkPartDigests(header textproto.MIMEHeader, file io.Reader) (io.Reader, error) {
	return checkDigestsIn(http.Header(header), file, "part", "")
}

func checkDigestsIn(header http.Header, body io.Reader, what, help string) (io.Reader, error) {
	var digests []digest.Digest
	for _, name := range digestNames {
		lines := header[name]
		if lines == nil {
			continue
		}
		parsed, err := digest.Parse(lines)
		if err != nil {
			return nil, &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("%s is malformed: %v; send %[1]s: sha-256=:…:, with the hash in base64 for the dots", name, err)}
		}
		digests = append(digests, parsed...)
	}
	if len(digests) == 0 {
		return body, nil
	}
	return &digestBody{digest.NewReader(body, digests), what, help}, nil
}

// A digestBody gives a mismatch its reason.
type digestBody struct {
	*digest.Reader
	what, help string
}

func (b *digestBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if e, ok := errors.AsType[*digest.MismatchError](err); ok {
		err = &detailedError{kind: ErrDigestMismatch, detail: fmt.Sprintf("the %s was sent with %s and arrived with %s; send it again%s", b.what, e.Want, e.Got, b.help)}
	}
	return n, err
}

// digestFields has the values of two fields of an answer, or the algorithms for
// them. "" is none.
type digestFields struct{ repr, content string }

// wantedDigests returns the algorithms for the fields that a GET or HEAD asks for.
func wantedDigests(w http.ResponseWriter, r *http.Request) (wanted digestFields) {
	repr, content := r.Header["Want-Repr-Digest"], r.Header["Want-Content-Digest"]
	if repr == nil && content == nil {
		return wanted
	}
	if w.Header()["Content-Encoding"] != nil {
		return wanted // middleware changes the bytes, and both cover the changed ones
	}
	wanted.repr = digest.Preferred(repr)
	if r.Method == http.MethodGet { // an answer to HEAD has no content
		wanted.content = digest.Preferred(content)
	}
	return wanted
}

// hash reads all of the image for the digests, and returns to its start. It waits while
// as many images are hashed as the handler allows.
func (h *handler) hash(ctx context.Context, r *http.Request, img *Image, wanted digestFields) (fields digestFields, err error) {
	if r.ProtoMajor != 1 { // HTTP/1 cancels at a half close too
		ctx = r.Context()
	}
	defer func() {
		if err != nil && errors.Is(ctx.Err(), context.Canceled) {
			err = clientGone(err)
		}
		wrap("get", img.ID, &err)
	}()
	if err := h.hashes.wait(ctx, h.opts.Timeout, "%d images are being read for their digests"); err != nil {
		return fields, err
	}
	defer h.hashes.give()
	sums := digest.NewHash(wanted.repr, wanted.content)
	if _, err := io.CopyN(sums, &limitedReader{ctx: ctx, r: img, left: math.MaxInt64 - 1}, img.Size); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fields, err
	}
	if _, err := img.Seek(0, io.SeekStart); err != nil {
		return fields, err
	}
	if wanted.repr != "" {
		fields.repr = sums.Digest(wanted.repr).String()
	}
	if wanted.content != "" {
		fields.content = sums.Digest(wanted.content).String()
	}
	return fields, nil
}

// set sets the fields that have a value.
func (f digestFields) set(header http.Header) {
	if f.repr != "" {
		header.Set("Repr-Digest", f.repr)
	}
	if f.content != "" {
		header.Set("Content-Digest", f.content)
	}
}
