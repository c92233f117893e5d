// Package formfile reads the one file of a multipart/form-data body (RFC 7578)
// as a stream.
package formfile

import (
	"bufio"
	"fmt"
	"io"
	"mime/multipart"
	"strings"
	"sync"
)

// MaxExtra is the most bytes that a form may have besides its file. It bounds the
// memory for the headers of hostile parts.
const MaxExtra = 32 << 10

// bufferSize turns the reads of package multipart, 4 KiB each, into few large
// ones.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// An Error says what is wrong with a form. Detail is fit for the client.
type Error struct {
	Detail   string
	TooLarge bool  // there is more than MaxExtra besides the file
	Err      error // the cause, if there is one
}

func (e *Error) Error() string { return e.Detail }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Reader reads the file. It ends only when all of the form was read and is in
// order. Its errors are an [*Error] or the body's own.
type Reader struct {
	body   *source
	buffer *bufio.Reader
	form   *multipart.Reader
	part   *multipart.Part // the file, once it is found
	name   string
	max    int64
}

// New returns a Reader of the part with this name, of at most maxFile bytes.
// Close it after the last Read.
func New(body io.Reader, boundary, name string, maxFile int64) *Reader {
	r := &Reader{name: name, max: maxFile, buffer: buffers.Get().(*bufio.Reader)}
	r.body = &source{r: r.buffer, left: MaxExtra}
	r.buffer.Reset(body)
	r.form = multipart.NewReader(r.body, boundary)
	return r
}

// Close releases the buffer. It does not close the body.
func (r *Reader) Close() error {
	if r.buffer != nil {
		r.buffer.Reset(nil)
		buffers.Put(r.buffer)
		r.buffer = nil
	}
	return nil
}

// Read reads the file.
func (r *Reader) Read(p []byte) (int, error) {
	if r.part == nil {
		if err := r.find(); err != nil {
			return 0, err
		}
	}
	n, err := r.part.Read(p)
	if err == io.EOF {
		return n, r.finish()
	}
	return n, r.cause(err)
}

// find goes to the file.
func (r *Reader) find() error {
	var others []string
	for {
		part, err := r.form.NextPart()
		if err == io.EOF {
			came := "the form is empty"
			if len(others) > 0 {
				came = "these came: " + strings.Join(others, ", ")
			}
			return &Error{Detail: fmt.Sprintf("the form has no part named %q; %s", r.name, came)}
		}
		if err != nil {
			return r.cause(err)
		}
		if part.FormName() == r.name {
			r.part = part
			r.body.left += r.max
			return nil
		}
		if len(others) < 10 {
			others = append(others, fmt.Sprintf("%.40q", part.FormName()))
		}
	}
}

// finish reads what follows the file and returns io.EOF if it is in order.
func (r *Reader) finish() error {
	for {
		part, err := r.form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return r.cause(err)
		}
		if part.FormName() == r.name {
			return &Error{Detail: fmt.Sprintf("the form has more than one part named %q", r.name)}
		}
	}
	if _, err := io.Copy(io.Discard, r.body); err != nil {
		return r.cause(err)
	}
	return io.EOF
}

// cause returns the error of the body where there is one, and otherwise calls
// the form broken.
func (r *Reader) cause(err error) error {
	switch {
	case err == nil:
		return nil
	case r.body.err != nil:
		return r.body.err
	}
	return &Error{Detail: "the multipart body is broken or incomplete", Err: err}
}

// A source is the body. It remembers its error, which package multipart wraps,
// and fails beyond its limit.
type source struct {
	r    io.Reader
	left int64
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if int64(len(p)) > s.left {
		p = p[:s.left+1] // one byte more shows that there is too much
	}
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left < 0 {
		n, err = 0, &Error{Detail: fmt.Sprintf("the form has more than %d bytes besides the file", MaxExtra), TooLarge: true}
	}
	if err != io.EOF {
		s.err = err
	}
	return n, err
}
