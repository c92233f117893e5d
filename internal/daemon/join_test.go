package daemon

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// serve serves a handler as Serve does until the test ends, at a URL. Of what
// its connections write, sent counts the system calls that are not for several
// buffers at once.
func serve(t *testing.T, h http.Handler) (url string, sent *atomic.Int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sent = new(atomic.Int64)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, counting{ln, sent}, h, nil, time.Minute) }()
	t.Cleanup(func() {
		stop()
		http.DefaultClient.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), sent
}

type counting struct {
	net.Listener
	n *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c.(*net.TCPConn), l.n}, nil
}

type countingConn struct {
	*net.TCPConn
	n *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.n.Add(1)
	return c.TCPConn.Write(p)
}

// TestJoined looks at every size of an answer about which net/http's buffer
// is full: each must arrive, and one that is larger in one piece.
func TestJoined(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	var sent *atomic.Int64
	url, sent := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			t.Error(err)
		}
		before := sent.Load()
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Write(body[:n])
		if now := sent.Load(); now != before {
			t.Errorf("of %d bytes, %d pieces have been sent alone", n, now-before)
		}
	}))
	client := http.Client{Timeout: 10 * time.Second} // rather than wait for ever for what is held back
	joined := 0
	for n := bufferSize - 300; n <= bufferSize+100; n++ {
		before := sent.Load()
		resp, err := client.Get(url + "/" + strconv.Itoa(n))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body[:n]) {
			t.Fatalf("of %d bytes %d arrive, %v", n, len(got), err)
		}
		if sent.Load() == before {
			joined++
		}
	}
	if joined < 100 { // all that are larger than the buffer
		t.Errorf("only %d answers have come in one piece", joined)
	}
	resp, err := client.Get(url + "/10000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, body) {
		t.Errorf("of %d bytes %d arrive, %v", len(body), len(got), err)
	}
}

// memory is a connection to nobody.
type memory struct {
	tcpConn
	got    bytes.Buffer
	err    error // of the next write
	closed bool
}

func (m *memory) Write(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	return m.got.Write(p)
}

func (m *memory) ReadFrom(r io.Reader) (int64, error) { return m.got.ReadFrom(r) }
func (m *memory) SetWriteDeadline(t time.Time) error  { return nil }
func (m *memory) Close() error                        { m.closed = true; return nil }

// TestJoinedOrder has everything that can follow a full buffer follow it.
func TestJoinedOrder(t *testing.T) {
	full := bytes.Repeat([]byte("x"), bufferSize)
	for name, next := range map[string]func(c *joined) error{
		"Write":                  func(c *joined) error { n, err := c.Write([]byte("rest")); return wantBytes(4, int64(n), err) },
		"Write of a full buffer": func(c *joined) error { n, err := c.Write(full); return wantBytes(bufferSize, int64(n), err) },
		"ReadFrom":               func(c *joined) error { n, err := c.ReadFrom(strings.NewReader("rest")); return wantBytes(4, n, err) },
		"SetWriteDeadline":       func(c *joined) error { return c.SetWriteDeadline(time.Time{}) },
	} {
		for _, failing := range []error{nil, errors.New("gone")} {
			m := &memory{}
			c := &joined{tcpConn: m}
			for round := range 2 { // the second as good as the first
				m.got.Reset()
				if n, err := c.Write(full); n != bufferSize || err != nil || m.got.Len() > 0 {
					t.Fatalf("%s, round %d: a full buffer: %d, %v", name, round, n, err)
				}
				m.err = failing
				err := next(c)
				m.err = nil
				if !errors.Is(err, failing) {
					t.Errorf("%s, round %d: %v instead of %v", name, round, err, failing)
				}
				if failing == nil && !bytes.HasPrefix(m.got.Bytes(), full) {
					t.Errorf("%s, round %d: the full buffer is not sent first", name, round)
				}
			}
			if failing != nil && !m.closed && name != "Write" && name != "Write of a full buffer" { // of which net/http sees the error
				t.Errorf("%s: the connection goes on after a part of an answer", name)
			}
		}
	}
}

func wantBytes(want, n int64, err error) error {
	if err == nil && n != want {
		return io.ErrShortWrite
	}
	return err
}
