// Package problem writes and reads errors in HTTP responses: problem details (RFC
// 9457) with a stable code.
package problem

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
)

const (
	// Header has the code too. So a response to HEAD has it, and a proxy's error
	// cannot be mistaken for one of the store.
	Header = "Imagestore-Error"

	contentType = "application/problem+json"
	maxSize     = 64 << 10 // bytes that Read reads at most
)

// details is a problem details object. Its type is about:blank, so Title is the
// text of the status.
type details struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}

// Write sends a problem as the response. It keeps other header fields that are set.
func Write(w http.ResponseWriter, status int, code, detail string) {
	body, err := json.Marshal(details{http.StatusText(status), status, detail, code})
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

// Read returns the code and the detail of a response, each as the server has sent
// it. The code is the header's, and empty if the response is not from a store. The
// detail may be missing, for example after HEAD.
func Read(resp *http.Response) (code, detail string) {
	var d struct{ Detail string }
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType == contentType {
		// Ignored: the code alone is enough.
		_ = json.NewDecoder(io.LimitReader(resp.Body, maxSize)).Decode(&d)
	}
	return resp.Header.Get(Header), d.Detail
}
