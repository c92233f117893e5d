package imagestore_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// pipeListener gives the server one end of a net.Pipe for every connection. Unlike a
// socket, a pipe uses the fake clock of synctest.
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

// slowly runs a test against a server, under a fake clock. A client has 30 seconds
// for every 64 KiB.
func slowly(t *testing.T, s *imagestore.Store, test func(t *testing.T, dial func() net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := &http.Server{Handler: imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: 30 * time.Second, Logger: testhttp.Quiet})}
		var serving sync.WaitGroup
		serving.Go(func() { srv.Serve(l) })
		test(t, l.dial)
		srv.Close()
		serving.Wait()
		time.Sleep(time.Minute) // on the fake clock, until net/http has closed its connections
	})
}

func TestSlowUpload(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 1500, 1) // 2 MiB, 34 pieces
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
			t.Parallel()
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
							return // the server has closed the connection
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
					t.Errorf("got %v, %v after %v, want %d after at most %v", resp, err, took, test.status, test.atMost)
				}
				conn.Close()
				sending.Wait()
			})
			if test.status == 201 {
				if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
					t.Error("got another image, want the one that was sent")
				}
			}
		})
	}
}

func TestSlowDownload(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 1500, 1)
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
			t.Parallel()
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
					t.Errorf("got %d of %d bytes after %v, want all: %v", got, len(b), took, test.whole)
				}
			})
		})
	}
}

// TestSlowDisk has a disk that takes longer than the deadline of a client. The
// client has sent its upload in time, so the upload must succeed.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 10, 1)
	s := imagestore.New(slowFs{afero.NewMemMapFs()}, nil)
	slowly(t, s, func(t *testing.T, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		go fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != 201 {
			t.Errorf("got %v, %v, want 201", resp, err)
		}
	})
}

// slowFs takes five minutes to rename a file.
type slowFs struct{ afero.Fs }

func (s slowFs) Rename(from, to string) error {
	time.Sleep(5 * time.Minute)
	return s.Fs.Rename(from, to)
}

// TestSlowUploadHTTP2 sends an upload that takes longer than the timeouts of the
// server. In HTTP/2 they are for a whole stream.
func TestSlowUploadHTTP2(t *testing.T) {
	t.Parallel()
	b := testimage.PNG(t, 600, 1) // six pieces
	s := imagestore.New(afero.NewMemMapFs(), nil)
	synctest.Test(t, func(t *testing.T) {
		const timeout = 30 * time.Second
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		srv := &http.Server{
			Handler:   imagestore.NewHandler(s, &imagestore.HandlerOptions{Timeout: timeout, Logger: testhttp.Quiet}),
			Protocols: &protocols, ReadTimeout: timeout, WriteTimeout: timeout,
		}
		var serving sync.WaitGroup
		serving.Go(func() { srv.Serve(l) })
		transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }}
		body := readerFunc(func(p []byte) (int, error) {
			time.Sleep(6 * time.Second) // for 16 KiB at least
			if len(b) == 0 {
				return 0, io.EOF
			}
			n := copy(p, b[:min(64<<10, len(b))])
			b = b[n:]
			return n, nil
		})
		req, err := http.NewRequestWithContext(t.Context(), "PUT", "http://x/images/a", body)
		must(t, err)
		resp, err := transport.RoundTrip(req)
		if err != nil || resp.ProtoMajor != 2 || resp.StatusCode != http.StatusCreated {
			t.Errorf("got %v, %v, want 201 over HTTP/2", resp, err)
		}
		transport.CloseIdleConnections()
		srv.Close()
		serving.Wait()
		time.Sleep(time.Minute) // on the fake clock
	})
}

// TestSlowList has a client that receives a long list slowly, but makes progress.
func TestSlowList(t *testing.T) {
	t.Parallel()
	fsys := afero.NewMemMapFs()
	for i := range 1000 {
		must(t, afero.WriteFile(fsys, fmt.Sprintf("%0128d/image", i), []byte("x"), 0o666))
	}
	slowly(t, imagestore.New(fsys, nil), func(t *testing.T, dial func() net.Conn) {
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, "GET /images?limit=1000 HTTP/1.1\r\nHost: x\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		must(t, err)
		if resp.ContentLength < 3*64<<10 {
			t.Fatalf("got a list of %d bytes, want more", resp.ContentLength)
		}
		for left := resp.ContentLength; left > 0; left -= 64 << 10 {
			time.Sleep(25 * time.Second)
			if _, err := io.CopyN(io.Discard, resp.Body, min(left, 64<<10)); err != nil {
				t.Fatalf("with %d bytes left: got %v, want nil", left, err)
			}
		}
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
