package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore/internal/testimage"
)

// hostile are the connections that cost a server most. Each sends a request, or a
// part of one, and then takes nothing or little of the answer.
var hostile = []struct {
	name    string
	request func(i int) string
	takes   int64 // bytes of the answer
}{
	{"nothing", func(int) string { return "" }, 1 << 20},
	{"header", func(int) string { return "GET /images HTTP/1.1\r\nHost: localhost\r\n" + longHeader() }, 1 << 20},
	{"header in short lines", func(int) string { return "GET /images HTTP/1.1\r\n" + strings.Repeat("x:\r\n", 4000) }, 1 << 20},
	{"pipelined header in short lines", func(int) string { // net/http reads its first 4 KiB with the request before
		var b strings.Builder
		b.WriteString("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /images HTTP/1.1\r\n")
		for i := 0; b.Len() < 4<<10-8; i++ {
			fmt.Fprintf(&b, "%s:\n", strconv.FormatInt(int64(36*36+i), 36))
		}
		return b.String()
	}, 1 << 20},
	{"upload, header", func(i int) string { return uploadHeader(i) }, 1 << 20},
	{"upload", func(i int) string { return uploadHeader(i) + begunImage() }, 1 << 20},
	{"form", func(i int) string {
		return fmt.Sprintf("POST /images/%d HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n%s\r\n"+
			"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n%s", i, longHeader(), begunImage())
	}, 1 << 20},
	{"download", func(int) string {
		return "GET /images/large HTTP/1.1\r\nHost: localhost\r\n" + longHeader() + "\r\n"
	}, 1},
	{"list", func(int) string {
		return "GET /images HTTP/1.1\r\nHost: localhost\r\nAccept: application/x-ndjson\r\n" + longHeader() + "\r\n"
	}, 1},
	{"idle", func(int) string { return "GET /images/honest HTTP/1.1\r\nHost: localhost\r\n\r\n" }, 1 << 20},
}

// longHeader returns as many lines, and bytes, as the rest of a header may have.
var longHeader = sync.OnceValue(func() string {
	var b strings.Builder
	for i := range 90 {
		fmt.Fprintf(&b, "%s%d:\r\n", strings.Repeat("x", 170), i)
	}
	return b.String()
})

func uploadHeader(i int) string {
	return fmt.Sprintf("PUT /images/%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n%s\r\n", i, longHeader())
}

// begunImage returns more of an image than is buffered before it goes to the disk.
var begunImage = sync.OnceValue(func() string { return string(picture(0)[:35<<10]) })

// TestHostile has hostile connections of each kind, and an honest client that was
// there before and another one after them. It logs what they cost. For the numbers
// in docs/operating.md:
//
//	HOSTILE=10000 go test -v -run TestHostile ./cmd/imaged
func TestHostile(t *testing.T) {
	n := 200
	if s := os.Getenv("HOSTILE"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	} else {
		t.Parallel()
	}
	dir := imageDir(t, 2000)
	for _, kind := range hostile {
		t.Run(kind.name, func(t *testing.T) {
			s := start(t, "-dir", dir)
			honest := newHonest(t, s)
			honest.get(t)
			before, _ := usage(t, s)
			attack := beginAttack(t, s, n, kind.request, kind.takes)
			accepted := attack.wait(t, 4096)
			honest.get(t)
			if accepted < 1024 { // else uploads may be busy
				honest.change(t)
			}
			after, threads := usage(t, s)
			t.Logf("%d connections, %d accepted: %d MiB resident, %d MiB before, %d threads", n, accepted, after>>20, before>>20, threads)
			most := min(n, 4096)
			if limit := int64(64<<20 + 300<<10*most); after > limit || threads > 64+most {
				t.Errorf("got %d MiB and %d threads, want at most %d and %d", after>>20, threads, limit>>20, 64+most)
			}
			attack.end()
			newHonest(t, s).get(t)
		})
	}
}

// TestFewFiles attacks a server that may open few files. An honest client that was
// there before must not notice.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	dir := imageDir(t, 200)
	for _, kind := range hostile {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := run(t, exec.Command("sh", "-c", `ulimit -n 128; exec "$0" "$@"`, imaged, "-addr", "127.0.0.1:0", "-dir", dir, "-max-connections", "1000"))
			honest := newHonest(t, s)
			honest.get(t)
			attack := beginAttack(t, s, 200, kind.request, kind.takes)
			const most = (128 - 64) / 3
			attack.wait(t, most)
			honest.get(t)
			honest.change(t)
			attack.end()
			newHonest(t, s).get(t)
			s.Process.Kill()
			s.Wait()
			if got, want := s.stderr.String(), "connections=21 wanted=1000 files=128\n"; !strings.HasSuffix(got, want) || strings.Count(got, "\n") != 1 {
				t.Errorf("got errors %q, want one line that ends with %q", got, want)
			}
		})
	}
}

// imageDir returns a directory with n images, a large one and one named "honest".
func imageDir(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	put := func(id string, b []byte) {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, id), 0o777), os.WriteFile(filepath.Join(dir, id, "image"), b, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	small := testimage.PNG(t, 1, 1)
	put("honest", small)
	put("large", append(small, make([]byte, 16<<20)...)) // which no reader checks
	for i := range n {
		put(fmt.Sprintf("image-with-an-id-of-some-length-%d", i), small)
	}
	return dir
}

// An honestClient has one connection.
type honestClient struct {
	*http.Client
	url string
}

func newHonest(t *testing.T, s *server) honestClient {
	var dialed atomic.Bool
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialed.Swap(true) {
			return nil, errors.New("the server has closed the connection")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return honestClient{&http.Client{Transport: transport}, s.url + "/images"}
}

func (c honestClient) do(t *testing.T, method, path, body string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Errorf("%s %s: got %d, %v, %.200q, want %d", method, path, resp.StatusCode, err, b, want)
	}
}

func (c honestClient) get(t *testing.T) {
	t.Helper()
	c.do(t, "GET", "/honest", "", 200)
	c.do(t, "GET", "?limit=1", "", 200)
}

func (c honestClient) change(t *testing.T) {
	t.Helper()
	id := "/" + rand.Text() // others change images of the same directory
	c.do(t, "PUT", id, pixel(t), 201)
	c.do(t, "DELETE", id, "", 204)
}

// An attack is a number of hostile connections.
type attack struct {
	s         *server
	n         int
	takes     int64
	ended     atomic.Int64 // connections that the server has closed
	answered  atomic.Int64 // connections that have taken what they take
	cancel    func()
	goroutine sync.WaitGroup
}

func beginAttack(t *testing.T, s *server, n int, request func(int) string, takes int64) *attack {
	ctx, cancel := context.WithCancel(t.Context())
	a := &attack{s: s, n: n, takes: takes, cancel: cancel}
	t.Cleanup(a.end)
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4<<10)
		}), err)
	}}
	for i := range n {
		a.goroutine.Go(func() {
			conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				return // at the end, where the system has refused more connections
			}
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			io.WriteString(conn, request(i))
			if n, _ := io.CopyN(io.Discard, conn, takes); n == takes {
				a.answered.Add(1)
				<-ctx.Done()
				return
			}
			a.ended.Add(1)
			<-ctx.Done()
		})
	}
	return a
}

// wait returns when the server has accepted as many connections as it can, at most
// most with an honest one, and has read all that they sent. It returns their number.
func (a *attack) wait(t *testing.T, most int) (accepted int) {
	t.Helper()
	for {
		ended := int(a.ended.Load())
		if ended == a.n { // refused, or timed out on a slow machine
			return 0
		}
		connections, unread := connectionsOf(t, a.s)
		want := min(a.n+1-ended, most)
		if connections == want && unread == 0 && (a.takes > 1 || int(a.answered.Load()) >= want-1) {
			return connections - 1
		}
		if t.Context().Err() != nil {
			t.FailNow()
		}
	}
}

func (a *attack) end() {
	a.cancel()
	a.goroutine.Wait()
}

// connectionsOf returns how many connections a server has accepted, and how many
// bytes it has not read from them.
func connectionsOf(t *testing.T, s *server) (accepted int, unread int64) {
	t.Helper()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", s.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	local := fmt.Sprintf("0100007F:%04X", number)
	seen := make(map[string]bool) // the system may list one twice while others end
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 10 || f[1] != local || f[3] != "01" || f[9] == "0" || seen[f[9]] { // not established, or not accepted
			continue
		}
		seen[f[9]] = true
		_, queue, _ := strings.Cut(f[4], ":")
		bytes, err := strconv.ParseInt(queue, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		unread += bytes
	}
	return len(seen), unread
}

// usage returns the peak of the resident memory of a server, in bytes, and its
// threads.
func usage(t *testing.T, s *server) (resident int64, threads int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?s)VmHWM:\s+(\d+) kB.*Threads:\s+(\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("got status %q, want VmHWM and Threads", b)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err == nil {
		threads, err = strconv.Atoi(string(m[2]))
	}
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10, threads
}
