package daemon

import (
	"io"
	"net"
	"sync"
	"time"
)

// bufferSize is that of the buffer in which net/http gathers an answer.
const bufferSize = 4 << 10

// A joiner accepts connections that send an answer's header and a small image
// in one system call. net/http would make two of it: once its buffer is full it
// writes that, and then the rest.
type joiner struct{ net.Listener }

func (l joiner) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(tcpConn); ok {
		c = &joined{tcpConn: tcp}
	}
	return c, err
}

// A tcpConn is what net/http uses of a [net.TCPConn].
type tcpConn interface {
	net.Conn
	io.ReaderFrom
	CloseWrite() error
}

// A joined connection holds a full buffer back until the next write. If the
// answer just fills the buffer, there is none; but after every answer, net/http
// takes the deadline away, on the goroutine that writes. What is held back when
// the connection is closed belonged to an answer that was broken off. It is not
// for handlers that flush or hijack.
type joined struct {
	tcpConn
	held *[bufferSize]byte // nil if nothing is held back
}

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func (c *joined) Write(p []byte) (int, error) {
	if c.held == nil {
		if len(p) != bufferSize {
			return c.tcpConn.Write(p)
		}
		c.held = buffers.Get().(*[bufferSize]byte)
		return copy(c.held[:], p), nil
	}
	both := net.Buffers{c.held[:], p}
	n, err := both.WriteTo(c.tcpConn)
	c.release()
	return max(0, int(n)-bufferSize), err
}

// flush sends what is held back. If that fails, the connection is of no use.
func (c *joined) flush() error {
	if c.held == nil {
		return nil
	}
	_, err := c.tcpConn.Write(c.held[:])
	c.release()
	if err != nil {
		c.Close()
	}
	return err
}

func (c *joined) release() {
	buffers.Put(c.held)
	c.held = nil
}

func (c *joined) ReadFrom(r io.Reader) (int64, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	return c.tcpConn.ReadFrom(r)
}

func (c *joined) SetWriteDeadline(t time.Time) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.tcpConn.SetWriteDeadline(t)
}
