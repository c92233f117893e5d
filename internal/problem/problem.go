// Package problem writes and reads errors as HTTP carries them: problem
// details (RFC 9457) with a code that programs can rely on.
package problem

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
)

const (
	// Header carries the code once more, so that answers to HEAD have it too
	// and nobody takes a proxy's answer for the store's.
	Header = "Imagestore-Error"

	contentType = "application/problem+json"
	maxSize     = 64 << 10 // of what Read reads, in bytes
)

// Details is a problem details object. Its type is about:blank, so Title is the
// status's own text.
type Details struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// Write answers with this problem. Header fields already set are sent along.
func Write(w http.ResponseWriter, status int, code, detail string) {
	body, err := json.Marshal(Details{http.StatusText(status), status, detail, code})
	if err != nil {
		panic(err) // strings and an int always marshal
	}
	body = append(body, '\n')
	h := w.Header()
	h.Set(Header, code)
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(body)
}

// Read returns the problem that a response tells of. The code comes from the
// header and is empty if the response is not from a store; the other fields may
// be missing, in answers to HEAD for example.
func Read(resp *http.Response) Details {
	d := Details{Title: http.StatusText(resp.StatusCode), Status: resp.StatusCode}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType == contentType {
		// A body that cannot be read leaves d as it is, which is all there is
		// to say.
		_ = json.NewDecoder(io.LimitReader(resp.Body, maxSize)).Decode(&d)
	}
	d.Code = resp.Header.Get(Header)
	return d
}
