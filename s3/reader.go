package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
)

// A reader reads one version of an object.
type reader struct {
	b      *bucket
	info   imagestore.Info
	closed bool

	at       int64   // where the next Read begins
	stream   *stream // nil when there is none
	streamAt int64   // where it stands
}

// Read goes on in the body that is being received, or asks for another one.
func (r *reader) Read(p []byte) (n int, err error) {
	switch {
	case r.closed:
		return 0, fs.ErrClosed
	case r.at >= r.info.Size:
		return 0, io.EOF
	}
	if r.streamAt != r.at {
		r.drop()
	}
	if r.stream == nil {
		if r.stream, err = r.open(); err != nil {
			return 0, r.b.wrap(r.info.ID, err)
		}
		r.streamAt = r.at
	}
	n, err = r.stream.Read(p)
	if err == io.EOF && r.at+int64(n) < r.info.Size {
		err = unavailable(io.ErrUnexpectedEOF)
	}
	if err != nil && err != io.EOF {
		// Bytes that come with an error are dropped. A wrong checksum comes with the
		// last bytes. Without them the rest cannot be taken for the whole.
		r.drop()
		return 0, r.b.wrap(r.info.ID, err)
	}
	r.at += int64(n)
	r.streamAt = r.at
	return n, err
}

// Seek sends nothing: Read does.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.info.Size
	default:
		return 0, fs.ErrInvalid
	}
	switch {
	case r.closed:
		return 0, fs.ErrClosed
	case offset < 0:
		return 0, fs.ErrInvalid
	}
	r.at = offset
	return offset, nil
}

// Close drops what has not been read. Receiving it to keep the connection would
// cost more than a new connection.
func (r *reader) Close() error {
	if r.closed {
		return fs.ErrClosed
	}
	r.closed = true
	r.drop()
	return nil
}

// open asks for the rest of the version that was opened.
func (r *reader) open() (*stream, error) {
	w := r.b.watch(context.Background())
	rest := fmt.Sprintf("bytes=%d-", r.at)
	out, err := r.b.client.GetObject(w, &s3.GetObjectInput{
		Bucket:  &r.b.name,
		Key:     r.b.key(r.info.ID),
		Range:   &rest,
		IfMatch: &r.info.ETag,
	})
	if err = r.b.answered(w, err); err != nil {
		w.end()
		if code := errorCode(err); code == "PreconditionFailed" || code == "NoSuchKey" {
			return nil, errChanged // not ErrNotFound: this version was there
		}
		return nil, err
	}
	s := &stream{out.Body, w}
	// A service that ignored either header would mix two versions.
	switch got := aws.ToString(out.ContentRange); {
	case quoted(out.ETag) != r.info.ETag:
		err = errChanged
	case !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", r.at)):
		err = fmt.Errorf("the service sent the range %q instead of %s", got, rest)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// drop ends the body that is being received.
func (r *reader) drop() {
	if r.stream != nil {
		r.stream.Close()
		r.stream = nil
	}
}

// A stream is the body of an answer. The time between two calls of Read does not
// count.
type stream struct {
	body io.ReadCloser
	w    *watch
}

func (s *stream) Read(p []byte) (int, error) {
	s.w.touch()
	n, err := s.body.Read(p)
	s.w.pause()
	if err == nil || err == io.EOF {
		return n, err
	}
	if cause := context.Cause(s.w); cause != nil {
		err = cause
	} else if _, ok := errors.AsType[net.Error](err); !ok && !errors.Is(err, io.ErrUnexpectedEOF) {
		return n, err // a wrong checksum, for example
	}
	return n, unavailable(err)
}

func (s *stream) Close() error {
	err := s.body.Close()
	s.w.end()
	return err
}
