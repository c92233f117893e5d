// Package formfile reads the one file of a multipart/form-data body (RFC 7578)
// as a stream.
package formfile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"mime/multipart"
	"net/textproto"
	"strings"
	"sync"
)

const (
	// MaxExtra is the most bytes that a form may have besides its file. They are
	// read and thrown away, so they cost time.
	MaxExtra = 1 << 20
	// maxHeader is the most bytes of one part's header. Package multipart holds
	// a header in up to six times its size, and would allow 10 MiB.
	maxHeader = 16 << 10
	// readAhead is how much package multipart reads before it looks at it. The
	// limits must not refuse a smaller form for it.
	readAhead = 4 << 10
	// bufferSize turns the reads of package multipart, 4 KiB each, into few large
	// ones.
	bufferSize = 64 << 10
)

var buffers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, bufferSize) }}

// An Error says what is wrong with a form. Detail is fit for the client.
type Error struct {
	Detail string
	Err    error // the cause, if there is one
}

func (e *Error) Error() string { return e.Detail }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A Reader reads the file. It ends only when all of the form was read and is in
// order. Its errors are an [*Error], the body's own or those of Wrap.
type Reader struct {
	// Wrap is called with the header of the file's part before the first byte of the
	// file is read. The file is read through the reader that it returns. Nil reads
	// the file as it is. Wrap must not keep the header, which may be large.
	Wrap func(header textproto.MIMEHeader, file io.Reader) (io.Reader, error)

	body     source
	boundary string
	name     string
	form     *multipart.Reader // nil until the first byte of the body has come
	last     *multipart.Part   // the part that next has returned
	part     *multipart.Part   // the file, once it is found
	file     io.Reader         // reads part
}

// New returns a Reader of the part with this name. The file has no limit. Close the
// Reader after the last Read.
func New(body io.Reader, boundary, name string) *Reader {
	return &Reader{body: source{r: body, extra: MaxExtra + readAhead, header: maxHeader}, boundary: boundary, name: name}
}

// Close releases the buffer. It does not close the body.
func (r *Reader) Close() error {
	r.body.release()
	return nil
}

// Read reads the file. The first Read takes no memory before a byte has come.
func (r *Reader) Read(p []byte) (int, error) {
	if r.form == nil {
		r.form = multipart.NewReader(r.body.await(), r.boundary)
	}
	if r.file == nil {
		if err := r.find(); err != nil {
			return 0, err
		}
	}
	n, err := r.file.Read(p)
	if err == io.EOF {
		return n, r.finish()
	}
	return n, err
}

// A filePart is a Reader whose Read reads the part alone.
type filePart Reader

func (f *filePart) Read(p []byte) (int, error) {
	n, err := f.part.Read(p)
	if err != io.EOF {
		err = (*Reader)(f).cause(err)
	}
	return n, err
}

// find goes to the file.
func (r *Reader) find() error {
	var others []string
	for {
		part, header, err := r.next()
		if err == io.EOF {
			came := "the form is empty"
			if len(others) > 0 {
				came = "these came: " + strings.Join(others, ", ")
			}
			return &Error{Detail: fmt.Sprintf("the form has no part named %q; %s", r.name, came)}
		}
		if err != nil {
			return err
		}
		name := nameOf(header)
		if name == r.name {
			r.part = part
			r.body.inFile = true
			return r.wrap(header)
		}
		if len(others) < 10 {
			others = append(others, fmt.Sprintf("%.40q", name))
		}
	}
}

// wrap sets file.
func (r *Reader) wrap(header textproto.MIMEHeader) error {
	file := io.Reader((*filePart)(r))
	if r.Wrap != nil {
		var err error
		if file, err = r.Wrap(header, file); err != nil {
			return err
		}
	}
	r.file = file
	return nil
}

// finish reads what follows the file and returns io.EOF if it is in order.
func (r *Reader) finish() error {
	r.body.inFile = false
	for {
		_, header, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if nameOf(header) == r.name {
			return &Error{Detail: fmt.Sprintf("the form has more than one part named %q", r.name)}
		}
	}
	if _, err := io.Copy(io.Discard, &r.body); err != nil {
		return r.cause(err)
	}
	return io.EOF
}

// next reads the rest of a part and returns the next one and its header.
func (r *Reader) next() (*multipart.Part, textproto.MIMEHeader, error) {
	if r.last != nil { // NextPart would count the rest towards the header
		if _, err := io.Copy(io.Discard, r.last); err != nil {
			return nil, nil, r.cause(err)
		}
	}
	r.body.header = maxHeader + readAhead
	part, err := r.form.NextPart()
	r.body.header = math.MaxInt64
	if err == io.EOF {
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, r.cause(err)
	}
	header := part.Header
	part.Header = nil // a large one would be held for as long as the file
	r.last = part
	return part, header, nil
}

// CheckEnd reads up to limit bytes of the file. It returns an [*Error] if the form
// ends in them, before the file does. A malformed last line looks like bytes of the
// file.
func (r *Reader) CheckEnd(limit int64) error {
	if r.part == nil {
		return nil
	}
	if _, err := io.CopyN(io.Discard, r.part, limit); errors.Is(err, io.ErrUnexpectedEOF) && r.body.err == nil {
		return r.cause(err)
	}
	return nil
}

// cause returns the error of the body where there is one, and otherwise calls
// the form broken.
func (r *Reader) cause(err error) error {
	switch {
	case err == nil:
		return nil
	case r.body.err != nil:
		return r.body.err
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Detail: fmt.Sprintf("the multipart body is broken or incomplete: its last line must be %.100q", "--"+r.boundary+"--"), Err: err}
	}
	return &Error{Detail: "the multipart body is broken", Err: err}
}

// A source is the body. It remembers its error, which package multipart wraps,
// and fails beyond its limits.
type source struct {
	r             io.Reader
	first         [1]byte
	buffer        *bufio.Reader
	read          int64 // all bytes
	extra, header int64 // bytes that may come, unless in the file
	inFile        bool
	err           error
}

// await waits for the first byte of the body and returns a reader that begins with it.
func (s *source) await() io.Reader {
	n, _ := io.ReadFull(s, s.first[:]) // the next Read has the error
	return io.MultiReader(bytes.NewReader(s.first[:n]), s)
}

func (s *source) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if s.read >= bufferSize && s.buffer == nil { // a small form goes without
		s.buffer = buffers.Get().(*bufio.Reader)
		s.buffer.Reset(s.r)
		s.r = s.buffer
	}
	n, err := s.r.Read(p)
	s.read += int64(n)
	if !s.inFile {
		s.extra -= int64(n)
		s.header -= int64(n)
	}
	switch {
	case s.extra < 0:
		n, err = 0, &Error{Detail: fmt.Sprintf("the form has more than %d bytes besides the file", MaxExtra)}
	case s.header < 0:
		n, err = 0, &Error{Detail: fmt.Sprintf("the multipart body is broken: the header of a part, or what precedes the first part, has more than %d bytes", maxHeader)}
	}
	if err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *source) release() {
	if s.buffer != nil {
		s.buffer.Reset(nil)
		buffers.Put(s.buffer)
		s.buffer, s.r = nil, nil
	}
}
