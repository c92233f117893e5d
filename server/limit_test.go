package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestMaxConnections has more connections than the server accepts. Those beyond
// wait until others end, for whatever reason, and until the server stops.
func TestMaxConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := make(pipes)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Serve(ctx, ln, memStore(), &Config{MaxConnections: 2}) }()
		dial := func() net.Conn {
			c, srv := net.Pipe()
			go func() {
				defer func() { recover() }() // from sending when the listener is closed
				ln <- srv
			}()
			return c
		}
		isServed := func(c net.Conn) bool {
			t.Helper()
			served := make(chan bool, 1)
			c.SetDeadline(time.Now().Add(time.Second))
			go func() {
				io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				served <- err == nil && resp.StatusCode == 200
			}()
			return <-served
		}
		idle, silent := dial(), dial()
		synctest.Wait()
		late := []net.Conn{dial()}
		synctest.Wait()
		late = append(late, dial())
		synctest.Wait()
		if !isServed(idle) || isServed(late[0]) {
			t.Error("got the wrong connections served, want the first two")
		}
		silent.Close()
		synctest.Wait()
		if !isServed(late[0]) || isServed(late[1]) || !isServed(idle) {
			t.Error("got the wrong connections served after one was closed, want the third too")
		}
		time.Sleep(2*time.Minute + time.Second) // the server closes what is idle
		if !isServed(late[1]) {
			t.Error("got the fourth connection refused after the others were idle, want it served")
		}
		dial()
		dial() // for which Accept waits
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
		for _, c := range append(late, idle) {
			c.Close()
		}
	})
}

// A failingListener fails before it accepts each connection.
type failingListener struct {
	net.Listener
	failures int
	left     int
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.left > 0 {
		l.left--
		return nil, syscall.EMFILE // which net/http takes for temporary
	}
	l.left = l.failures
	return l.Listener.Accept()
}

// TestAcceptFails checks that an Accept that fails takes no slot.
func TestAcceptFails(t *testing.T) {
	ln := &failingListener{Listener: listen(t, "tcp", "127.0.0.1:0"), failures: 2, left: 2}
	client, _ := start(t, ln, memStore(), &Config{MaxConnections: 1, Logger: slog.New(slog.DiscardHandler)})
	for range 3 {
		if status, text := do(t, client, "GET", "localhost", "/healthz", ""); status != 200 {
			t.Errorf("got %d %s, want 200", status, text)
		}
		client.CloseIdleConnections()
	}
}

// TestHeaderSize checks the limit on a request's header.
func TestHeaderSize(t *testing.T) {
	client, _ := start(t, listen(t, "tcp", "127.0.0.1:0"), memStore(), nil)
	for size, want := range map[int]int{maxHeader - 1<<10: 404, maxHeader + 4<<10: 431} {
		if status, _ := do(t, client, "GET", "localhost", "/images/a?"+strings.Repeat("x", size), ""); status != want {
			t.Errorf("a header of %d bytes: got %d, want %d", size, status, want)
		}
	}
}

// TestHeaderLines checks the limit on the lines of a header, for the first request
// of a connection and for those after it. Lines of a body do not count.
func TestHeaderLines(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	start(t, ln, memStore(), nil)
	lines := func(n int) string { // with the two that every request has here
		s := " HTTP/1.1\r\nHost: localhost\r\n"
		for i := range n - 2 {
			s += fmt.Sprintf("x%d:\n", i)
		}
		return s
	}
	const get, most = "GET /images/a", maxHeaderLines
	body := fmt.Sprintf("Content-Length: 2000\r\n\r\n%s", strings.Repeat("\n", 2000))
	for _, test := range []struct {
		requests []string
		status   int // of the last one; the others are answered 404 or 415
	}{
		{[]string{get + lines(most) + "\r\n"}, 404},
		{[]string{get + lines(most) + "\n"}, 404},
		{[]string{get + lines(most+1)}, 400},
		{[]string{get + lines(most) + "\r\n", get + lines(most) + "\r\n", get + lines(most+1)}, 400},
		{[]string{"POST /images/a" + lines(most-1) + body, "\r\n" + get + lines(most) + "\r\n"}, 404},
		{[]string{"POST /images/a" + lines(most-1) + body, "\r\n" + get + lines(most+1)}, 400},
		{[]string{"GET /images/a" + lines(most-1) + body + get + lines(2) + "\r\n"}, 404},
		{[]string{"GET /images/a" + lines(2) + "\r\n" + "POST /images/a" + lines(2) + "Content-Length: 2000\r\n\r\n", strings.Repeat("\nx", 1000), get + lines(2) + "\r\n"}, 404}, // nothing of the second header is read after the first answer
	} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		r := bufio.NewReader(c)
		for i, request := range test.requests {
			io.WriteString(c, request)
			resp, err := http.ReadResponse(r, nil)
			last := i == len(test.requests)-1
			if err != nil || last && resp.StatusCode != test.status || !last && resp.StatusCode != 404 && resp.StatusCode != 415 {
				t.Errorf("%.20q, request %d: got %v, %v, want %d at the end", test.requests, i, resp, err, test.status)
				break
			}
			io.Copy(io.Discard, io.LimitReader(resp.Body, max(0, resp.ContentLength)))
		}
	}
}

// TestOddRequests sends requests that browsers do not send.
func TestOddRequests(t *testing.T) {
	ln := listen(t, "tcp", "127.0.0.1:0")
	start(t, ln, memStore(), nil)
	for request, want := range map[string]int{
		"GET /images HTTP/1.0\r\n":                                                 200, // the health check of a proxy
		"OPTIONS /images HTTP/1.0\r\n":                                             204,
		"GET /images HTTP/1.0\r\nHost: evil.example\r\n":                           403,
		"GET /images HTTP/1.1\r\n":                                                 400,
		"GET /images HTTP/1.1\r\nHost:\r\n":                                        403,
		"GET http://evil.example/images HTTP/1.1\r\nHost: localhost\r\n":           403,
		"GET http://localhost/images HTTP/1.1\r\nHost: evil.example\r\n":           200, // RFC 9112, section 3.2.2
		"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n":                  403,
		"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n":                     404,
		"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n":                                200,
		"TRACE /images/a HTTP/1.1\r\nHost: localhost\r\n":                          405,
		"POST /readyz HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n":     403,
		"HEAD /readyz HTTP/1.0\r\n":                                                200,
		"GET /readyz HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 1\r\n\r\nx": 200,
	} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, request+"\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != want {
			t.Errorf("%q: got %v, %v, want %d", request, resp, err, want)
		}
		c.Close()
	}
}
