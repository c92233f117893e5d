package crashfs

import (
	"errors"
	"io"
	"os"
	"path"
	"syscall"
	"time"
)

type info struct {
	name string
	size int
	meta meta
}

func (n *node) info(name string) os.FileInfo {
	return info{path.Base(clean(name)), len(n.data), n.meta}
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return int64(i.size) }
func (i info) Mode() os.FileMode  { return i.meta.mode }
func (i info) ModTime() time.Time { return i.meta.time }
func (i info) IsDir() bool        { return i.meta.mode.IsDir() }
func (i info) Sys() any           { return nil }

// A file is an open file or directory.
type file struct {
	fs   *Fs
	node *node
	name string
	flag int

	// Guarded by fs.mu:
	closed bool
	off    int64
	listed bool
	names  []string // not listed yet
}

// do runs an operation on an open file.
func do[T any](h *file, op string, what func() (T, error)) (result T, err error) {
	h.fs.mu.Lock()
	err = os.ErrClosed
	if !h.closed {
		result, err = what()
	}
	h.fs.mu.Unlock()
	if err != nil && err != io.EOF {
		return result, &os.PathError{Op: op, Path: h.name, Err: err}
	}
	h.fs.report(op, h.name)
	return result, err
}

func (h *file) writable() bool { return h.flag&(os.O_WRONLY|os.O_RDWR) != 0 }

func (h *file) readAt(p []byte, off int64) (n int, err error) {
	switch {
	case len(p) == 0:
		return 0, nil
	case h.flag&os.O_WRONLY != 0:
		return 0, syscall.EBADF
	case h.node.isDir():
		return 0, syscall.EISDIR
	}
	if off < int64(len(h.node.data)) {
		n = copy(p, h.node.data[off:])
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (h *file) writeAt(p []byte, off int64) (int, error) {
	if !h.writable() {
		return 0, syscall.EBADF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n := h.node
	n.touch(off)
	if end := off + int64(len(p)); end > int64(len(n.data)) {
		n.resize(end)
	}
	return copy(n.data[off:], p), nil
}

// The methods of afero.File.

func (h *file) Name() string { return h.name }

func (h *file) Close() error {
	_, err := do(h, "close", func() (_ int, err error) { h.closed = true; return })
	return err
}

func (h *file) Sync() error {
	_, err := do(h, "sync", func() (_ int, err error) { h.node.sync(); return })
	return err
}

func (h *file) Truncate(size int64) error {
	_, err := do(h, "truncate", func() (int, error) {
		if size < 0 || !h.writable() {
			return 0, syscall.EINVAL
		}
		h.node.resize(size)
		return 0, nil
	})
	return err
}

func (h *file) Stat() (os.FileInfo, error) {
	return do(h, "stat", func() (os.FileInfo, error) { return h.node.info(h.name), nil })
}

func (h *file) Read(p []byte) (int, error) {
	return do(h, "read", func() (int, error) {
		n, err := h.readAt(p, h.off)
		h.off += int64(n)
		if n > 0 {
			err = nil // the next Read reports the end
		}
		return n, err
	})
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	return do(h, "read", func() (int, error) { return h.readAt(p, off) })
}

func (h *file) Write(p []byte) (int, error) {
	return do(h, "write", func() (int, error) {
		off := h.off
		if h.flag&os.O_APPEND != 0 {
			off = int64(len(h.node.data))
		}
		n, err := h.writeAt(p, off)
		if n > 0 {
			h.off = off + int64(n)
		}
		return n, err
	})
}

func (h *file) WriteString(s string) (int, error) { return h.Write([]byte(s)) }

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	if h.flag&os.O_APPEND != 0 || off < 0 {
		return 0, errors.New("negative offset, or opened for appending")
	}
	return do(h, "write", func() (int, error) { return h.writeAt(p, off) })
}

func (h *file) Seek(off int64, whence int) (int64, error) {
	return do(h, "seek", func() (int64, error) {
		switch whence {
		case io.SeekCurrent:
			off += h.off
		case io.SeekEnd:
			off += int64(len(h.node.data))
		}
		if off < 0 || whence < io.SeekStart || whence > io.SeekEnd {
			return 0, syscall.EINVAL
		}
		h.off, h.listed = off, false
		return off, nil
	})
}

func (h *file) Readdirnames(n int) (names []string, err error) {
	infos, err := h.Readdir(n)
	for _, fi := range infos {
		names = append(names, fi.Name())
	}
	return names, err
}

func (h *file) Readdir(n int) ([]os.FileInfo, error) {
	return do(h, "readdirent", func() (infos []os.FileInfo, err error) {
		switch {
		case !h.node.isDir():
			return nil, syscall.ENOTDIR
		case h.node.removed:
			return nil, syscall.ENOENT
		case !h.listed:
			h.names, h.listed = h.node.list(), true
		}
		for ; len(h.names) > 0 && (n <= 0 || len(infos) < n); h.names = h.names[1:] {
			if child := h.node.child(h.names[0]); child != nil { // skips an entry that was removed meanwhile
				infos = append(infos, child.info(h.names[0]))
			}
		}
		if n > 0 && len(infos) == 0 {
			err = io.EOF
		}
		return infos, err
	})
}
