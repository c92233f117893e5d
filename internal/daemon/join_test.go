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

// memory is a connection to nobody, which takes no more than so many bytes.
type memory struct {
	tcpConn
	got    bytes.Buffer
	room   int
	closed bool
}

var errFull = errors.New("full")

func (m *memory) Write(p []byte) (int, error) {
	n := min(len(p), m.room-m.got.Len())
	m.got.Write(p[:n])
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func (m *memory) ReadFrom(r io.Reader) (int64, error) { return m.got.ReadFrom(r) }
func (m *memory) SetWriteDeadline(time.Time) error    { return nil }
func (m *memory) Close() error                        { m.closed = true; return nil }

// TestJoinedOrder has everything that can follow a full buffer follow it, on
// connections that take all, a part of what follows, and not even the buffer.
func TestJoinedOrder(t *testing.T) {
	full := bytes.Repeat([]byte("x"), bufferSize)
	for _, test := range []struct {
		name string
		rest []byte
		next func(c *joined, rest []byte) (int64, error)
	}{
		{"Write", []byte("rest"), func(c *joined, rest []byte) (int64, error) { n, err := c.Write(rest); return int64(n), err }},
		{"Write of a full buffer", bytes.ToUpper(full), func(c *joined, rest []byte) (int64, error) { n, err := c.Write(rest); return int64(n), err }},
		{"ReadFrom", []byte("rest"), func(c *joined, rest []byte) (int64, error) { return c.ReadFrom(bytes.NewReader(rest)) }},
		{"SetWriteDeadline", nil, func(c *joined, _ []byte) (int64, error) { return 0, c.SetWriteDeadline(time.Time{}) }},
	} {
		all := append(bytes.Clone(full), test.rest...)
		for _, room := range []int{len(all), bufferSize + 2, 100} {
			m := &memory{room: room}
			c := &joined{tcpConn: m}
			if n, err := c.Write(full); n != bufferSize || err != nil || m.got.Len() > 0 {
				t.Fatalf("%s: a full buffer: %d, %v", test.name, n, err)
			}
			n, err := test.next(c, test.rest)
			if test.name == "ReadFrom" && room > bufferSize {
				room = len(all) // there is no limit to what is read from
			}
			sent := min(room, len(all))
			if !bytes.Equal(m.got.Bytes(), all[:sent]) || n != int64(max(0, sent-bufferSize)) || (err == nil) != (sent == len(all)) {
				t.Errorf("%s, room for %d: %d, %v, and there are %d bytes", test.name, room, n, err, m.got.Len())
			}
			// net/http sees the error of a Write, but not that of others.
			if sent < bufferSize && test.rest == nil && !m.closed {
				t.Errorf("%s, room for %d: the connection goes on after a part of an answer", test.name, room)
			}
			m.room += 2 * len(all)
			before := m.got.Len()
			if n, err := c.Write([]byte("next")); n != 4 || err != nil || m.got.Len() != before+4 {
				t.Errorf("%s, room for %d: then a Write: %d, %v", test.name, room, n, err)
			}
		}
	}
}
