package main_test

import (
	"bytes"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// testServiceAway cuts a server off from the service, and connects it again.
func testServiceAway(t *testing.T, c *cluster) {
	p := newProxy(t, strings.TrimPrefix(c.nodes[0], "http://"))
	s := start(t, c, "http://"+p.addr, newPrefix())
	b := picture(1)
	put := s.want(t, http.StatusCreated, "PUT", "there", b)
	p.close()
	s.want(t, http.StatusServiceUnavailable, "GET", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "GET", "missing", nil)
	s.want(t, http.StatusServiceUnavailable, "HEAD", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "PUT", "there", picture(2))
	s.want(t, http.StatusServiceUnavailable, "PUT", "new", picture(2))
	s.want(t, http.StatusServiceUnavailable, "PUT", "there", picture(2), "If-Match", put.etag)
	s.want(t, http.StatusServiceUnavailable, "DELETE", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "GET", "", nil)

	p.open(t)
	if got := s.want(t, http.StatusOK, "GET", "there", nil); !bytes.Equal(got.body, b) || got.etag != put.etag {
		t.Errorf("got ETag %s, want %s: every change was refused", got.etag, put.etag)
	}
	if got, want := s.list(t), map[string]string{"there": put.etag}; !maps.Equal(got, want) {
		t.Errorf("list: got %v, want %v", got, want)
	}
	s.want(t, http.StatusOK, "PUT", "there", picture(2))
	s.want(t, http.StatusNoContent, "DELETE", "there", nil)
}

// A proxy passes connections on while it is open.
type proxy struct {
	addr, to string
	l        net.Listener
	all      sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{addr: "127.0.0.1:0", to: to}
	p.open(t)
	p.addr = p.l.Addr().String()
	t.Cleanup(p.close)
	return p
}

func (p *proxy) open(t *testing.T) {
	t.Helper()
	var err error
	if p.l, err = net.Listen("tcp", p.addr); err != nil {
		t.Fatal(err)
	}
	p.all.Go(func() {
		for {
			in, err := p.l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
				p.all.Go(func() {
					io.Copy(c[0], c[1])
					in.Close()
					out.Close()
				})
			}
		}
	})
}

// close cuts all connections. There are no new ones until open.
func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.all.Wait()
}
