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
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
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
	closed bool
}

func (r *reader) Read(p []byte) (int, error) {
	if r.closed {
		return 0, fs.ErrClosed
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
			return 0, &imagestore.Error{Op: "get", ID: r.info.ID, Err: err}
		}
	}
	n, err := r.body.Read(p)
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
	if want := fmt.Sprintf("bytes %d-%d/%d", r.at, r.info.Size-1, r.info.Size); resp.Header.Get("Content-Range") != want {
		resp.Body.Close()
		return fmt.Errorf("the answer's Content-Range is %q, not %q", resp.Header.Get("Content-Range"), want)
	}
	r.body, r.bodyAt = resp.Body, r.at
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
