package server

import (
	"bytes"
	"cmp"
	"io"
	"net"
	"sync"
	"time"
)

const holdSize = 4 << 10          // the size of the buffer in which net/http gathers an answer
const holdTime = time.Millisecond // the longest that a full buffer waits for the rest

// A holdListener's connections send a header and a small image in one system
// call. net/http makes two: its full buffer, then the rest (BenchmarkHeldBack).
type holdListener struct{ net.Listener }

func (l holdListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(tcpConn); ok {
		h := &holdConn{tcpConn: tcp}
		h.timer = time.AfterFunc(holdTime, h.flush)
		return h, err
	}
	return c, err
}

type tcpConn interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

// A holdConn holds back a full buffer that begins an answer, until the next of its
// methods is called or holdTime has passed. Any order of calls is correct.
type holdConn struct {
	tcpConn
	mu    sync.Mutex // locked during every write, except those of ReadFrom
	held  *[holdSize]byte
	timer *time.Timer

	header headerLines
}

var holdBuffers = sync.Pool{New: func() any { return new([holdSize]byte) }}

func (c *holdConn) Read(p []byte) (int, error) {
	if err := c.header.err(); err != nil { // net/http reads again after an error
		return 0, err
	}
	n, err := c.tcpConn.Read(p)
	n = c.header.count(p[:n])
	return n, cmp.Or(c.header.err(), err)
}

func (c *holdConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil || len(p) != holdSize || !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return c.send(p)
	}
	c.timer.Reset(holdTime)
	c.held = holdBuffers.Get().(*[holdSize]byte)
	return copy(c.held[:], p), nil
}

func (c *holdConn) send(p []byte) (int, error) {
	if c.held == nil {
		return c.tcpConn.Write(p)
	}
	c.timer.Stop()
	n, err := (&net.Buffers{c.held[:], p}).WriteTo(c.tcpConn)
	if err != nil {
		c.tcpConn.Close() // the Write of what was held has reported success
	}
	holdBuffers.Put(c.held)
	c.held = nil
	return max(0, int(n)-holdSize), err
}

func (c *holdConn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		c.send(nil)
	}
}

func (c *holdConn) ReadFrom(r io.Reader) (int64, error) {
	c.flush()
	return c.tcpConn.ReadFrom(r)
}

func (c *holdConn) SetWriteDeadline(t time.Time) error {
	if c.mu.TryLock() { // if not, t may be meant to end the write under way
		c.mu.Unlock()
		c.flush() // under the old deadline
	}
	return c.tcpConn.SetWriteDeadline(t)
}

func (c *holdConn) CloseWrite() error {
	c.flush()
	return c.tcpConn.CloseWrite()
}

func (c *holdConn) Close() error {
	c.tcpConn.SetWriteDeadline(time.Now().Add(holdTime)) // a stalled client must not stall Close
	c.flush()
	return c.tcpConn.Close()
}
