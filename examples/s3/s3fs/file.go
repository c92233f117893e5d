package s3fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// A file is one version of an object that is open for reading.
type file struct {
	fs     *Fs
	name   string
	info   fileInfo
	closed bool

	at       int64   // where the next Read begins
	stream   *stream // nil when there is none
	streamAt int64   // where it stands
}

func (f *file) Name() string               { return f.name }
func (f *file) Stat() (os.FileInfo, error) { return f.info, nil }

// Read reads on in the body that is being received, or asks for another one.
func (f *file) Read(p []byte) (n int, err error) {
	switch {
	case f.closed:
		return 0, f.error("read", fs.ErrClosed)
	case f.at >= f.info.size:
		return 0, io.EOF
	}
	if f.streamAt != f.at {
		f.drop()
	}
	if f.stream == nil {
		if f.stream, err = f.open(fmt.Sprintf("bytes=%d-", f.at)); err != nil {
			return 0, f.error("read", err)
		}
		f.streamAt = f.at
	}
	n, err = f.stream.Read(p)
	if err == io.EOF && f.at+int64(n) < f.info.size {
		err = unavailable(io.ErrUnexpectedEOF)
	}
	if err != nil && err != io.EOF {
		// None of what came with the error counts: if it is a wrong checksum, it
		// came with the last bytes, without which nobody takes them for the whole.
		f.drop()
		return 0, f.error("read", err)
	}
	f.at += int64(n)
	f.streamAt = f.at
	return n, err
}

// ReadAt is a request of its own and leaves alone where Read is.
func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	switch {
	case f.closed:
		return 0, f.error("read", fs.ErrClosed)
	case off < 0:
		return 0, f.error("read", fs.ErrInvalid)
	case len(p) == 0:
		return 0, nil
	case off >= f.info.size:
		return 0, io.EOF
	}
	short := int64(len(p)) > f.info.size-off
	if short {
		p = p[:f.info.size-off]
	}
	s, err := f.open(fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1))
	if err != nil {
		return 0, f.error("read", err)
	}
	defer s.Close()
	n, err = io.ReadFull(s, p)
	switch {
	case errors.Is(err, io.EOF), err == io.ErrUnexpectedEOF:
		return n, f.error("read", unavailable(io.ErrUnexpectedEOF))
	case err != nil:
		return n, f.error("read", err)
	case short:
		return n, io.EOF
	}
	return n, nil
}

// Seek asks for nothing: Read does that.
func (f *file) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.info.size
	default:
		return 0, f.error("seek", fs.ErrInvalid)
	}
	switch {
	case f.closed:
		return 0, f.error("seek", fs.ErrClosed)
	case offset < 0:
		return 0, f.error("seek", fs.ErrInvalid)
	}
	f.at = offset
	return offset, nil
}

// Close gives up what has not been read yet: to receive it all only to keep the
// connection would cost more than another connection.
func (f *file) Close() error {
	if f.closed {
		return f.error("close", fs.ErrClosed)
	}
	f.closed = true
	f.drop()
	return nil
}

// open asks for a part of the version that the file is.
func (f *file) open(byteRange string) (*stream, error) {
	w := f.fs.watch(context.Background())
	out, err := f.fs.client.GetObject(w, &s3.GetObjectInput{
		Bucket:  &f.fs.bucket,
		Key:     f.fs.key(f.name),
		Range:   &byteRange,
		IfMatch: &f.info.etag,
	})
	if err = f.fs.answered(w, err); err != nil {
		w.end()
		if code := errorCode(err); code == "PreconditionFailed" || code == "NoSuchKey" {
			// Not fs.ErrNotExist: this version has been there.
			return nil, errChanged
		}
		return nil, err
	}
	s := &stream{out.Body, w}
	// An engine that ignored either header would make a mixture of the file.
	first, _, _ := strings.Cut(strings.TrimPrefix(byteRange, "bytes="), "-")
	switch {
	case quoted(out.ETag) != f.info.etag:
		err = errChanged
	case !strings.HasPrefix(aws.ToString(out.ContentRange), "bytes "+first+"-"):
		err = fmt.Errorf("asked for the range %s, the engine sent %q", byteRange, aws.ToString(out.ContentRange))
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// drop ends the body that is being received.
func (f *file) drop() {
	if f.stream != nil {
		f.stream.Close()
		f.stream = nil
	}
}

func (f *file) error(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// What a file in an object store does not have: it is read-only and no directory.

func (f *file) Write([]byte) (int, error)          { return 0, unsupported("write", f.name) }
func (f *file) WriteAt([]byte, int64) (int, error) { return 0, unsupported("write", f.name) }
func (f *file) WriteString(string) (int, error)    { return 0, unsupported("write", f.name) }
func (f *file) Truncate(int64) error               { return unsupported("truncate", f.name) }
func (f *file) Sync() error                        { return nil } // what can be read is durable

func (f *file) Readdir(int) ([]os.FileInfo, error) { return nil, unsupported("readdir", f.name) }
func (f *file) Readdirnames(int) ([]string, error) { return nil, unsupported("readdir", f.name) }

// A stream is the body of an answer. The time that its reader takes between two
// calls of Read does not count.
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

// An upload is a body on its way to the engine.
type upload struct {
	body io.ReadSeeker
	w    *watch
	err  error // of body
}

func (u *upload) Read(p []byte) (int, error) {
	u.w.touch()
	n, err := u.body.Read(p)
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}

func (u *upload) Seek(offset int64, whence int) (int64, error) {
	at, err := u.body.Seek(offset, whence)
	if err != nil {
		u.err = err
	}
	return at, err
}
