package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ba692904/imagestore/internal/testimage"
)

// TestMemory limits the memory of a thousand uploads at once.
func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc of Linux")
	}
	t.Parallel()
	const clients, limit = 1000, 256 << 20
	body := string(testimage.PNG(t, 512, 1)) // 256 KiB
	s := start(t)
	var begun, all sync.WaitGroup
	begun.Add(clients)
	goOn := make(chan struct{})
	const first = 200 << 10
	for i := range clients {
		all.Go(func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err == nil {
				defer conn.Close()
				_, err = fmt.Fprintf(conn, "PUT /images/i%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body[:first])
			}
			begun.Done()
			<-goOn
			if err == nil {
				_, err = io.WriteString(conn, body[first:])
			}
			var resp *http.Response
			if err == nil {
				resp, err = http.ReadResponse(bufio.NewReader(conn), nil)
			}
			if err != nil || resp.StatusCode != http.StatusCreated {
				t.Errorf("client %d: got %v, %v, want 201", i, resp, err)
			}
		})
	}
	begun.Wait()
	close(goOn)
	all.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d uploads at once of %d bytes each: a peak of %d MiB resident", clients, len(body), kib>>10)
	if kib<<10 > limit {
		t.Errorf("got a peak of %d MiB, want at most %d", kib>>10, limit>>20)
	}
}
