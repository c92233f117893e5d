package pngproof

import (
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"iter"
	"sync"
)

// An inflater proves that the IDAT chunks hold one zlib stream and this one all the
// rows (section 10).
//
// Their bytes come when they come but package zlib fetches what it reads. So zlib
// runs in a coroutine, which sleeps from when it has used up what it was fed until
// it is fed again.
type inflater struct {
	z   io.ReadCloser // nil until it is first needed
	out []byte

	next func() (struct{}, bool)
	stop func()

	// For the coroutine.
	yield  func(struct{}) bool
	in     []byte // what it was fed
	pos    int    // how many bytes of in it has used
	eof    bool   // nothing follows in
	rows   rows
	detail string // the verdict
	ended  bool   // it has come to one
}

// The pool spares most images the 50 KiB that an inflater weighs. It must not hold
// running coroutines: what it drops is never stopped.
var inflaters = sync.Pool{New: func() any {
	return &inflater{out: make([]byte, 8<<10)}
}}

func newInflater(h header) *inflater {
	f := inflaters.Get().(*inflater)
	f.rows = newRows(h)
	f.next, f.stop = iter.Pull(f.run)
	return f
}

// release ends the coroutine, wherever it is.
func (f *inflater) release() {
	f.stop()
	*f = inflater{z: f.z, out: f.out}
	inflaters.Put(f)
}

// feed inflates b. If something is wrong, detail says what, and at, where in b.
func (f *inflater) feed(b []byte) (at int, detail string) {
	f.resume(b)
	switch {
	case f.detail != "":
		return f.pos - 1, f.detail
	case f.pos < len(b):
		// The spec tells decoders to overlook these (section 11.2.3), but also that
		// they are undesirable: they may be anything that lay about in memory.
		return f.pos, "bytes after the end of the zlib stream in IDAT"
	}
	return 0, ""
}

// end says that all is fed.
func (f *inflater) end() (detail string) {
	f.eof = true
	f.resume(nil)
	return f.detail
}

func (f *inflater) resume(b []byte) {
	f.in, f.pos = b, 0
	if !f.ended {
		_, more := f.next()
		f.ended = !more
	}
	f.in = nil // it is the caller's
}

func (f *inflater) run(yield func(struct{}) bool) {
	f.yield = yield
	f.detail = f.prove()
}

func (f *inflater) prove() (detail string) {
	err := f.reset()
	for err == nil {
		var n int
		n, err = f.z.Read(f.out)
		if detail := f.rows.take(f.out[:n]); detail != "" {
			return detail
		}
	}
	switch {
	case err != io.EOF && f.eof:
		return fmt.Sprintf("the zlib stream in IDAT ends early, in %v", &f.rows)
	case err != io.EOF:
		return fmt.Sprintf("the zlib stream in IDAT is wrong in %v: %v", &f.rows, err)
	case !f.rows.complete():
		return fmt.Sprintf("too little image data: it ends in %v", &f.rows)
	}
	return ""
}

func (f *inflater) reset() (err error) {
	if f.z != nil {
		return f.z.(zlib.Resetter).Reset((*feed)(f), nil)
	}
	f.z, err = zlib.NewReader((*feed)(f))
	return err
}

// feed is the inflater as zlib sees it. That it can read single bytes keeps zlib from
// reading ahead, past the end of its stream.
type feed inflater

var errStopped = errors.New("stopped")

// wait returns when there is something to read, or why there never will be.
func (f *feed) wait() error {
	for f.pos == len(f.in) {
		if f.eof {
			return io.EOF
		}
		if !f.yield(struct{}{}) {
			return errStopped
		}
	}
	return nil
}

func (f *feed) ReadByte() (byte, error) {
	if f.pos == len(f.in) {
		if err := f.wait(); err != nil {
			return 0, err
		}
	}
	c := f.in[f.pos]
	f.pos++
	return c, nil
}

func (f *feed) Read(b []byte) (int, error) {
	if err := f.wait(); err != nil {
		return 0, err
	}
	n := copy(b, f.in[f.pos:])
	f.pos += n
	return n, nil
}
