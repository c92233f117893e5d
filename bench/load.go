package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A result is one measurement of one server.
type result struct {
	requests  int64
	perSecond float64
	p50, p99  time.Duration
	cpu       time.Duration // of the server, for one request
	peak      int64         // memory of the server, in bytes
}

// closedLoop sends requests over several connections for d, at least one over each.
// A connection sends the next request when it has the answer to the last. request
// makes the n-th request. Every answer must have one of the statuses.
func closedLoop(ctx context.Context, addr string, connections int, d time.Duration, request func(n int64) net.Buffers, statuses ...int) (result, error) {
	var (
		sent  atomic.Int64
		group sync.WaitGroup
		took  = make([][]time.Duration, connections)
		errs  = make([]error, connections)
		start = time.Now()
	)
	for i := range connections {
		group.Go(func() {
			errs[i] = func() error {
				conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
				if err != nil {
					return err
				}
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				defer stop()
				answers := bufio.NewReaderSize(conn, 64<<10)
				for len(took[i]) == 0 || time.Since(start) < d {
					buffers := request(sent.Add(1))
					began := time.Now()
					if _, err := buffers.WriteTo(conn); err != nil {
						return err
					}
					answer, err := http.ReadResponse(answers, nil)
					if err != nil {
						return err
					}
					body, err := io.Copy(io.Discard, answer.Body)
					took[i] = append(took[i], time.Since(began))
					if err != nil {
						return err
					}
					if !slices.Contains(statuses, answer.StatusCode) {
						return fmt.Errorf("got status %s and %d bytes, want status %v", answer.Status, body, statuses)
					}
				}
				return nil
			}()
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	if err := errors.Join(errs...); err != nil {
		return result{}, err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	return result{
		requests:  int64(len(all)),
		perSecond: float64(len(all)) / elapsed.Seconds(),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
	}, nil
}

// getRequest makes requests for one path, with one header field or, for "", none.
func getRequest(addr, path, header string) func(int64) net.Buffers {
	text := "GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if header != "" {
		text += header + "\r\n"
	}
	text += "\r\n"
	return func(int64) net.Buffers { return net.Buffers{[]byte(text)} }
}

// putRequest makes uploads of an image, each with a new id.
func putRequest(addr string, p peer, image []byte) func(int64) net.Buffers {
	var before, after, header string
	method := "PUT"
	if p.multipart {
		const boundary = "b0c1d2e3f4a5968778695a4b3c2d1e0f"
		method = "POST"
		header = "Content-Type: multipart/form-data; boundary=" + boundary + "\r\n"
		before = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"test_image.png\"\r\n\r\n"
		after = "\r\n--" + boundary + "--\r\n"
	}
	length := len(before) + len(image) + len(after)
	return func(n int64) net.Buffers {
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s", method, p.url(putID(n)), addr, header, length, before)
		return net.Buffers{[]byte(head), image, []byte(after)}
	}
}

func putID(n int64) string { return fmt.Sprintf("put-%09d", n) }

// wrkReport is a script of wrk that prints results in one line. Times are in
// microseconds.
const wrkReport = `done = function(summary, latency, requests)
	local e = summary.errors
	print(string.format("result %d %d %d %d %d", summary.requests, summary.duration,
		latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

// runWrk runs wrk, which fetches one path for d.
func runWrk(ctx context.Context, wrk, scratch, addr, path, header string, connections int, d time.Duration) (result, error) {
	script := filepath.Join(scratch, "report.lua")
	if err := os.WriteFile(script, []byte(wrkReport), 0o666); err != nil {
		return result{}, err
	}
	seconds := max(1, int(d.Round(time.Second)/time.Second)) // wrk takes whole seconds only
	args := []string{"-t1", fmt.Sprintf("-c%d", connections), fmt.Sprintf("-d%ds", seconds), "-s", script}
	if header != "" {
		args = append(args, "-H", header)
	}
	cmd := exec.CommandContext(ctx, wrk, append(args, "http://"+addr+path)...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return result{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	_, line, _ := strings.Cut(string(out), "\nresult ")
	var count, micros, p50, p99, failed int64
	if _, err := fmt.Sscan(line, &count, &micros, &p50, &p99, &failed); err != nil || count == 0 || failed > 0 {
		return result{}, fmt.Errorf("wrk: got %d requests, %d of them failed: %s", count, failed, out)
	}
	return result{
		requests:  count,
		perSecond: float64(count) / (float64(micros) / 1e6),
		p50:       time.Duration(p50) * time.Microsecond,
		p99:       time.Duration(p99) * time.Microsecond,
	}, nil
}
