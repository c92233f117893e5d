package imagestore_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// pipeListener hands the server one end of a net.Pipe for every connection.
// Time on it is that of the bubble, so that nobody really waits.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// slowly runs a test against a server in a bubble of its own time. A client
// has 30 seconds for every 64 KiB.
func slowly(t *testing.T, s *imagestore.Store, test func(t *testing.T, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := &http.Server{Handler: imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: 30 * time.Second, Logger: quiet})}
		var serving sync.WaitGroup
		serving.Go(func() { srv.Serve(l) })
		test(t, l.dial)
		srv.Close()
		serving.Wait()
		time.Sleep(time.Minute) // of the bubble: net/http lingers over connections that it closes
	})
}

func TestSlowUpload(t *testing.T) {
	b := noise(t, 1500, 1) // 2 MiB, 34 pieces
	for _, test := range []struct {
		name   string
		head   string
		piece  int
		every  time.Duration
		status int
		atMost time.Duration
	}{
		{"slow but moving", "Content-Length: %d\r\n", 64 << 10, 25 * time.Second, 201, time.Hour},
		{"slow but moving, chunked", "Transfer-Encoding: chunked\r\n", 64 << 10, 25 * time.Second, 201, time.Hour},
		{"a byte a second", "Content-Length: %d\r\n", 1, time.Second, 408, 31 * time.Second},
		{"a byte a second, chunked", "Transfer-Encoding: chunked\r\n", 1, time.Second, 408, 31 * time.Second},
		{"a little too slow", "Content-Length: %d\r\n", 32 << 10, 25 * time.Second, 408, 2 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := imagestore.New(afero.NewMemMapFs(), nil)
			slowly(t, s, func(t *testing.T, dial func() net.Conn) {
				conn := dial()
				defer conn.Close()
				start := time.Now()
				head := test.head
				chunked := head[0] == 'T'
				if !chunked {
					head = fmt.Sprintf(head, len(b))
				}
				var sending sync.WaitGroup
				sending.Go(func() {
					w := bufio.NewWriter(conn)
					fmt.Fprintf(w, "PUT /images/a HTTP/1.1\r\nHost: x\r\n%s\r\n", head)
					for rest := b; len(rest) > 0; {
						if len(rest) < len(b) {
							time.Sleep(test.every)
						}
						n := min(test.piece, len(rest))
						if chunked {
							fmt.Fprintf(w, "%x\r\n%s\r\n", n, rest[:n])
						} else {
							w.Write(rest[:n])
						}
						if w.Flush() != nil {
							return // the server does not want any more
						}
						rest = rest[n:]
					}
					if chunked {
						io.WriteString(conn, "0\r\n\r\n")
					}
				})
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				took := time.Since(start)
				if err != nil || resp.StatusCode != test.status || took > test.atMost {
					t.Errorf("after %v the answer is %v, %v", took, resp, err)
				}
				conn.Close()
				sending.Wait()
			})
			if test.status == 201 {
				if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
					t.Error("what is stored is not what was sent")
				}
			}
		})
	}
}

func TestSlowDownload(t *testing.T) {
	b := noise(t, 1500, 1)
	for _, test := range []struct {
		name  string
		piece int
		every time.Duration
		whole bool
	}{
		{"slow but moving", 64 << 10, 25 * time.Second, true},
		{"a byte a second", 1, time.Second, false},
		{"not at all", 1, time.Hour, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := imagestore.New(afero.NewMemMapFs(), nil)
			put(t, s, "a", b)
			slowly(t, s, func(t *testing.T, dial func() net.Conn) {
				conn := dial()
				defer conn.Close()
				start := time.Now()
				if _, err := io.WriteString(conn, "GET /images/a HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				got := 0
				for buf := make([]byte, test.piece); err == nil; time.Sleep(test.every) {
					var n int
					n, err = io.ReadFull(resp.Body, buf)
					got += n
				}
				took := time.Since(start)
				if whole := got == len(b); whole != test.whole {
					t.Errorf("after %v there are %d of %d bytes", took, got, len(b))
				}
			})
		})
	}
}

// TestSlowDisk has the disk take longer than a client may: the client is done
// with its part and must not be punished for it.
func TestSlowDisk(t *testing.T) {
	b := noise(t, 10, 1)
	s := imagestore.New(slowFs{afero.NewMemMapFs()}, nil)
	slowly(t, s, func(t *testing.T, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		go fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 201 {
			t.Errorf("the answer is %v, %v", resp, err)
		}
	})
}

// slowFs takes five minutes to rename a file.
type slowFs struct{ afero.Fs }

func (s slowFs) Rename(from, to string) error {
	time.Sleep(5 * time.Minute)
	return s.Fs.Rename(from, to)
}
