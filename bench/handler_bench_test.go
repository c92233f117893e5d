package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
)

var ctx = context.Background()

// BenchmarkHandler measures requests over one open connection, client and server
// together. It measures the handler in turn with other handlers. A metric such as
// x-memory is how many times as long the handler takes.
func BenchmarkHandler(b *testing.B) {
	for _, size := range []int{8 << 10, 64 << 10, 1 << 20} {
		b.Run("GET "+sizeName(size), func(b *testing.B) {
			dir := imageDir(b, size)
			own := connectStore(b, dir, "")
			fileServer := connect(b, http.FileServer(http.Dir(dir)), "/one/image", "")
			fromMemory, err := memoryHandler(dir, nil)
			if err != nil {
				b.Fatal(err)
			}
			sameAnswer, err := freshMemoryHandler(dir)
			if err != nil {
				b.Fatal(err)
			}
			memory := connect(b, fromMemory, "/one/image", "")
			same := connect(b, sameAnswer, "/one/image", "")
			b.Run("imagestore", func(b *testing.B) { own.measure(b, size) })
			b.Run("FileServer", func(b *testing.B) { fileServer.measure(b, size) })
			b.Run("memory", func(b *testing.B) { memory.measure(b, size) })
			b.Run("both/FileServer", func(b *testing.B) { compare(b, own, fileServer, "x-FileServer") })
			b.Run("both/memory", func(b *testing.B) { compare(b, own, memory, "x-memory") })
			b.Run("both/as fresh", func(b *testing.B) { compare(b, own, same, "x-as-fresh") })
		})
	}
	for _, size := range []int{8 << 10, 1 << 20} {
		b.Run("GET with a digest "+sizeName(size), func(b *testing.B) {
			dir := imageDir(b, size)
			own := connectStore(b, dir, "")
			sha256 := connectStore(b, dir, "Want-Repr-Digest: sha-256=10")
			sha512 := connectStore(b, dir, "Want-Repr-Digest: sha-512=10")
			b.Run("sha-256", func(b *testing.B) { sha256.measure(b, size) })
			b.Run("both/without", func(b *testing.B) { compare(b, sha256, own, "x-without") })
			b.Run("both/sha-512", func(b *testing.B) { compare(b, sha512, own, "x-without") })
		})
	}
	b.Run("304", func(b *testing.B) {
		dir := imageDir(b, 8<<10)
		store, err := imagestore.OpenDir(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		info, err := store.Stat(ctx, "one")
		if err != nil {
			b.Fatal(err)
		}
		condition := "If-None-Match: " + info.ETag
		own := connectStore(b, dir, condition)
		floor := connect(b, http.HandlerFunc(notModified), "/one/image", condition)
		sameAnswer, err := freshNotModifiedHandler(dir)
		if err != nil {
			b.Fatal(err)
		}
		fresh := connect(b, sameAnswer, "/one/image", condition)
		b.Run("imagestore", func(b *testing.B) { own.measure(b, 0) })
		b.Run("floor", func(b *testing.B) { floor.measure(b, 0) })
		b.Run("both/floor", func(b *testing.B) { compare(b, own, floor, "x-floor") })
		b.Run("both/as fresh", func(b *testing.B) { compare(b, own, fresh, "x-as-fresh") })
	})
}

func imageDir(b *testing.B, size int) string {
	dir := b.TempDir()
	name := filepath.Join(dir, "one", "image")
	if err := os.Mkdir(filepath.Dir(name), 0o777); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(name, noise(size), 0o666); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-time.Hour) // a Store caches no file that is a few seconds old
	if err := os.Chtimes(name, old, old); err != nil {
		b.Fatal(err)
	}
	return dir
}

// A client sends one server the same request again and again. It does little, so
// that its own cost does not hide the server's.
type client struct {
	conn    net.Conn
	request []byte
	answer  []byte // room for the header and the body
}

func connectStore(b *testing.B, dir, header string) *client {
	h, err := storeHandler(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	return connect(b, h, "/images/one", header)
}

func connect(b *testing.B, h http.Handler, path, header string) *client {
	srv := httptest.NewServer(h)
	b.Cleanup(srv.Close)
	addr := srv.Listener.Addr().String()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	c := &client{conn: conn, request: getRequest(addr, path, header)(0)[0]}

	// All answers are as long as the first.
	if _, err := conn.Write(c.request); err != nil {
		b.Fatal(err)
	}
	count := &counter{r: conn}
	all := bufio.NewReader(count)
	resp, err := http.ReadResponse(all, nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK && (header == "" || resp.StatusCode != http.StatusNotModified) {
		b.Fatalf("%s: got status %s, want 200 or 304", path, resp.Status)
	}
	c.answer = make([]byte, count.n)
	return c
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func (c *client) do() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	_, err := io.ReadFull(c.conn, c.answer)
	return err
}

func (c *client) measure(b *testing.B, size int) {
	if size > 0 {
		b.SetBytes(int64(size))
	}
	b.ReportAllocs() // the client makes none
	for b.Loop() {
		if err := c.do(); err != nil {
			b.Fatal(err)
		}
	}
}

func compare(b *testing.B, own, other *client, metric string) {
	var ownTimes, otherTimes []time.Duration
	for b.Loop() {
		ownTimes = append(ownTimes, timeOf(b, own.do))
		otherTimes = append(otherTimes, timeOf(b, other.do))
	}
	b.ReportMetric(middle(ownTimes)/middle(otherTimes), metric)
	b.ReportMetric(0, "ns/op") // the sum of both means nothing
}
