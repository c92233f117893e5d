package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serveHeld serves a handler until the test ends. sent counts the system calls that
// write a single buffer.
func serveHeld(t *testing.T, h http.Handler) (url string, sent *atomic.Int64) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sent = new(atomic.Int64)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- serve(ctx, countingListener{ln, sent}, h, Config{Timeout: time.Minute, MaxConnections: 100, Logger: slog.New(slog.DiscardHandler)})
	}()
	t.Cleanup(func() {
		stop()
		http.DefaultClient.CloseIdleConnections()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String(), sent
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
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

// TestHeldBack sends answers of every size around that of net/http's buffer. All
// must arrive, and the larger ones must take one system call.
func TestHeldBack(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	url, sent := serveHeld(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.Write(body[:n])
	}))
	client := http.Client{Timeout: time.Minute}
	get := func(n int) {
		t.Helper()
		resp, err := client.Get(url + "/" + strconv.Itoa(n))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, body[:n]) {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, n)
		}
	}
	together := 0
	for n := holdSize - 300; n <= holdSize+100; n++ {
		before := sent.Load()
		get(n)
		if sent.Load() == before {
			together++
		}
	}
	t.Logf("%d answers in one system call", together)
	if together == 0 {
		t.Error("got no answer in one system call, want those that are larger than the buffer")
	}
	get(len(body))
}

// A fakeConn is a connection that records its calls and has room for some bytes.
type fakeConn struct {
	tcpConn
	block chan struct{} // if not nil, Write waits until a deadline is set

	mu    sync.Mutex
	room  int
	got   []byte
	calls []string
}

func (c *fakeConn) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.called("write")
	if c.block != nil {
		<-c.block
		return 0, os.ErrDeadlineExceeded
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), c.room-len(c.got))
	c.got = append(c.got, p[:n]...)
	if n < len(p) {
		return n, errors.New("no room")
	}
	return n, nil
}

func (c *fakeConn) ReadFrom(r io.Reader) (int64, error) {
	p, err := io.ReadAll(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, p...)
	return int64(len(p)), err
}

func (c *fakeConn) SetWriteDeadline(time.Time) error {
	c.called("deadline")
	if c.block != nil {
		close(c.block)
	}
	return nil
}

func (c *fakeConn) CloseWrite() error { c.called("closewrite"); return nil }
func (c *fakeConn) Close() error      { c.called("close"); return nil }

func (c *fakeConn) called(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, name)
}

// seen returns the bytes that have arrived, and the calls.
func (c *fakeConn) seen() (got []byte, calls []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got), slices.Clone(c.calls)
}

type fakeListener struct {
	net.Listener
	conn net.Conn
}

func (l fakeListener) Accept() (net.Conn, error) { return l.conn, nil }

// held returns a connection that has just been accepted.
func held(t *testing.T, fake *fakeConn) net.Conn {
	t.Helper()
	c, err := holdListener{fakeListener{conn: fake}}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * holdTime)
	synctest.Wait()
	return c
}

var fullBuffer = full('x')

// full returns a full buffer that begins an answer.
func full(c byte) []byte {
	return append([]byte("HTTP/1."), bytes.Repeat([]byte{c}, holdSize-7)...)
}

func writeFull(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Write(fullBuffer); n != holdSize || err != nil {
		t.Fatalf("Write of a full buffer: got %d, %v, want %d", n, err, holdSize)
	}
}

// TestHeldBackOrder makes each call after a full buffer. The connections take all
// bytes, a part of the call's bytes, or a part of the buffer.
func TestHeldBackOrder(t *testing.T) {
	write := func(c net.Conn, rest []byte) (int64, error) { n, err := c.Write(rest); return int64(n), err }
	for _, test := range []struct {
		name  string
		rest  []byte
		next  func(c net.Conn, rest []byte) (int64, error)
		calls []string
	}{
		{"Write", []byte("rest"), write, []string{"write", "write"}},
		{"Write of a full buffer", full('y'), write, []string{"write", "write"}},
		{"ReadFrom", []byte("rest"), func(c net.Conn, rest []byte) (int64, error) {
			return c.(io.ReaderFrom).ReadFrom(bytes.NewReader(rest))
		}, []string{"write"}},
		{"SetWriteDeadline", nil, func(c net.Conn, _ []byte) (int64, error) { return 0, c.SetWriteDeadline(time.Time{}) }, []string{"write", "deadline"}},
		{"CloseWrite", nil, func(c net.Conn, _ []byte) (int64, error) { return 0, c.(tcpConn).CloseWrite() }, []string{"write", "closewrite"}},
		{"Close", nil, func(c net.Conn, _ []byte) (int64, error) { return 0, c.Close() }, []string{"deadline", "write", "close"}},
		{"nothing", nil, func(c net.Conn, _ []byte) (int64, error) { time.Sleep(holdTime); synctest.Wait(); return 0, nil }, []string{"write"}},
	} {
		all := append(bytes.Clone(fullBuffer), test.rest...)
		for _, room := range []int{len(all), holdSize + 2, 100} {
			t.Run(test.name+"/"+strconv.Itoa(room), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fake := &fakeConn{room: room}
					c := held(t, fake)
					writeFull(t, c)
					time.Sleep(holdTime - 1)
					synctest.Wait()
					if got, _ := fake.seen(); len(got) > 0 {
						t.Fatalf("got %d bytes before %v are over, want none", len(got), holdTime)
					}
					n, err := test.next(c, test.rest)
					got, calls := fake.seen()
					if room < holdSize {
						if !slices.Contains(calls, "close") {
							t.Errorf("got calls %q, want a close, because a part of an answer was sent", calls)
						}
						return
					}
					want := all[:min(room, len(all))]
					if test.name == "ReadFrom" {
						want = all // ReadFrom of a fakeConn ignores room
					}
					if whole := len(want) == len(all); !bytes.Equal(got, want) || n != int64(len(want)-holdSize) || (err == nil) != whole || whole && !slices.Equal(calls, test.calls) {
						t.Errorf("got %d, %v, %d bytes sent and calls %q, want %d bytes and %q", n, err, len(got), calls, len(want), test.calls)
					}
					fake.room += 2 * len(all)
					if n, err := c.Write([]byte("next")); n != 4 || err != nil {
						t.Errorf("Write afterwards: got %d, %v, want 4", n, err)
					}
					if next, _ := fake.seen(); !bytes.Equal(next, append(got, "next"...)) {
						t.Errorf("Write afterwards: got %d bytes sent, want 4", len(next)-len(got))
					}
				})
			})
		}
	}
}

// TestHeldBackConcurrently writes from several goroutines, which net/http does not.
func TestHeldBackConcurrently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const goroutines, rounds = 8, 50
		fake := &fakeConn{room: 1 << 30}
		c := held(t, fake)
		var all sync.WaitGroup
		for g := range goroutines {
			all.Go(func() {
				for i := range rounds {
					p := full(byte('a' + g))
					if (g+i)%2 == 0 {
						p = bytes.Repeat([]byte{byte('a' + g)}, 5)
					}
					if n, err := c.Write(p); n != len(p) || err != nil {
						t.Errorf("got %d, %v, want %d", n, err, len(p))
					}
					time.Sleep(time.Duration(i%3) * holdTime / 2)
				}
			})
		}
		all.Wait()
		time.Sleep(holdTime)
		synctest.Wait()
		counts := make(map[byte]int)
		b, _ := fake.seen()
		for b = bytes.ReplaceAll(b, []byte("HTTP/1."), nil); len(b) > 0; {
			same := len(b) - len(bytes.TrimLeft(b, string(b[:1])))
			if same%(holdSize-7)%5 != 0 {
				t.Fatalf("got %d times %q in a row, want whole writes", same, b[0])
			}
			counts[b[0]] += same
			b = b[same:]
		}
		for g := range goroutines {
			if got, want := counts[byte('a'+g)], rounds/2*(holdSize-7+5); got != want {
				t.Errorf("got %d bytes of goroutine %d, want %d", got, g, want)
			}
		}
	})
}

// TestHeldBackStalled has a client that reads nothing. A new deadline and Close must
// end the write of the buffer, even if the timer has begun it.
func TestHeldBackStalled(t *testing.T) {
	for name, end := range map[string]func(net.Conn) error{
		"SetWriteDeadline": func(c net.Conn) error { return c.SetWriteDeadline(time.Now()) },
		"Close":            net.Conn.Close,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeConn{block: make(chan struct{})}
				c := held(t, fake)
				writeFull(t, c)
				time.Sleep(holdTime)
				synctest.Wait() // the timer's write has begun
				if err := end(c); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if _, calls := fake.seen(); !slices.Contains(calls[1:], "close") {
					t.Errorf("got calls %q, want a write and a close", calls)
				}
			})
		})
	}
}

// TestHeldBackBodies writes a full buffer that does not begin an answer.
func TestHeldBackBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeConn{room: 1 << 20}
		c := held(t, fake)
		body := bytes.Repeat([]byte("x"), holdSize)
		if n, err := c.Write(body); n != holdSize || err != nil {
			t.Fatalf("got %d, %v, want %d", n, err, holdSize)
		}
		if got, _ := fake.seen(); !bytes.Equal(got, body) {
			t.Errorf("got %d bytes at once, want %d", len(got), holdSize)
		}
	})
}
