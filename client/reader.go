package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"sync"

	"github.com/ba692904/imagestore"
)

// A source is the body of a request. A goroutine of net/http reads it and may go
// on after the answer has come. So a source can be stopped. It remembers an error
// of r, which net/http may hide.
type source struct {
	ctx     context.Context
	mu      sync.Mutex
	r       io.Reader
	n       int64 // the bytes read
	ended   bool
	err     error
	stopped bool
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return 0, fs.ErrClosed
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	if err == io.EOF {
		s.ended = true
	} else if err != nil {
		s.err = err
	}
	return n, err
}

// sent reports whether all of r was read, which has this length or, if it is
// negative, an unknown one.
func (s *source) sent(length int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended || s.n == length
}

// stop waits for a Read under way, ends all later ones, and returns the error of r,
// if there was one.
func (s *source) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.err
}

// A reader reads an image of the server, from any offset.
type reader struct {
	c      *Client
	ctx    context.Context
	info   imagestore.Info
	body   io.ReadCloser // the rest of an answer, or nil
	bodyAt int64         // the offset of body
	at     int64         // the offset of the next Read
	check  *digestCheck  // nil without digests
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.read(p)
	if err != io.EOF {
		wrap("get", r.info.ID, &err)
	}
	return n, err
}

func (r *reader) read(p []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	if r.check != nil && r.check.err != nil {
		return 0, r.check.err
	}
	if r.at >= r.info.Size {
		return 0, io.EOF
	}
	if r.body != nil && r.bodyAt != r.at {
		r.body.Close()
		r.body = nil
	}
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p)
	if r.check != nil {
		// The last bytes are withheld. Without them nobody takes the image for whole.
		if err := r.check.add(p[:n], r.at, r.info.Size); err != nil {
			return 0, err
		}
	}
	r.at += int64(n)
	r.bodyAt = r.at
	if err == io.EOF && r.at < r.info.Size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// open asks for the rest of the same version.
func (r *reader) open() error {
	req, err := r.c.request(r.ctx, http.MethodGet, r.info.ID, []imagestore.Condition{imagestore.IfMatch(r.info.ETag)})
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.at))
	resp, err := r.c.do(req, http.StatusPartialContent)
	if err != nil {
		return err
	}
	if err := r.isRest(resp); err != nil {
		resp.Body.Close()
		return err
	}
	r.body, r.bodyAt = resp.Body, r.at
	return nil
}

// isRest returns an error unless resp has the rest of the same version. A server
// that does not know If-Match may send another one's.
func (r *reader) isRest(resp *http.Response) error {
	if etag := resp.Header.Get("ETag"); etag != r.info.ETag {
		err := newStatusError(resp, fmt.Sprintf("the answer's ETag is %.100q, not %q", etag, r.info.ETag))
		err.reason = imagestore.ErrPreconditionFailed
		return err
	}
	part := fmt.Sprintf("bytes %d-%d/%d", r.at, r.info.Size-1, r.info.Size)
	if got := resp.Header.Get("Content-Range"); got != part || resp.ContentLength != r.info.Size-r.at {
		return newStatusError(resp, fmt.Sprintf("its Content-Range is %.100q, not %q, and its length %d", got, part, resp.ContentLength))
	}
	return nil
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	if r.closed {
		return 0, fs.ErrClosed
	}
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.info.Size
	default:
		return 0, fmt.Errorf("imagestore client: whence is %d, not 0, 1 or 2", whence)
	}
	if offset < 0 {
		return 0, errors.New("imagestore client: seek before the start")
	}
	r.at = offset
	return offset, nil
}

func (r *reader) Close() error {
	if r.closed {
		return fs.ErrClosed
	}
	r.closed = true
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}
