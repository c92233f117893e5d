package server

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkHeldBack compares requests per second with and without holding back the
// buffer. The two take turns, so that other load affects both. The gain is the
// median of all turns.
func BenchmarkHeldBack(b *testing.B) {
	const perTurn = 960 // requests
	for _, size := range []int{8 << 10, 32 << 10} {
		for _, conns := range []int{1, 2, 16} {
			b.Run(fmt.Sprintf("size=%dKiB/conns=%d", size>>10, conns), func(b *testing.B) {
				plain := benchServer(b, size, conns, func(ln net.Listener) net.Listener { return ln })
				held := benchServer(b, size, conns, func(ln net.Listener) net.Listener { return holdListener{ln} })
				var plainTime, heldTime time.Duration
				gains := make([]float64, 0, b.N)
				turn := func(i int) {
					var p, h time.Duration
					if i%2 == 0 {
						p, h = plain(perTurn/conns), held(perTurn/conns)
					} else {
						h, p = held(perTurn/conns), plain(perTurn/conns)
					}
					plainTime += p
					heldTime += h
					gains = append(gains, 100*(float64(p)/float64(h)-1))
				}
				for i := range b.N {
					turn(i)
				}
				slices.Sort(gains)
				requests := float64(b.N * perTurn)
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(requests/plainTime.Seconds(), "plain-req/s")
				b.ReportMetric(requests/heldTime.Seconds(), "held-req/s")
				b.ReportMetric(gains[len(gains)/2], "gain-%")
			})
		}
	}
}

// benchServer starts a server that answers size bytes, and connects clients. The
// function that it returns sends n requests on each connection, one after the other,
// and returns the time.
func benchServer(b *testing.B, size, conns int, wrap func(net.Listener) net.Listener) func(n int) time.Duration {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, size)
	srv := &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		// The handler of images does this too.
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Write(body)
	})}
	go srv.Serve(wrap(ln))
	b.Cleanup(func() { srv.Close() })
	clients := make([]net.Conn, conns)
	for i := range clients {
		if clients[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, c := range clients {
			c.Close()
		}
	})
	return func(n int) time.Duration {
		var all sync.WaitGroup
		start := time.Now()
		for _, c := range clients {
			all.Go(func() {
				if err := benchRequests(c, n, size); err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		return time.Since(start)
	}
}

// benchRequests reads answers by their length, because parsing them would take time.
func benchRequests(c net.Conn, n, size int) error {
	r := bufio.NewReaderSize(c, 64<<10)
	for range n {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			return err
		}
		for {
			line, err := r.ReadSlice('\n')
			if err != nil {
				return err
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := r.Discard(size); err != nil {
			return err
		}
	}
	return nil
}
