package main_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A cluster is one of cluster.sh. Node n has the URL nodes[n-1].
type cluster struct {
	nodes  []string
	dir    string
	imaged string // the path of the real binary
}

// kill ends a node without warning.
func (c *cluster) kill(t *testing.T, n int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, strconv.Itoa(n), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// restart starts a node that was killed. The node outlives the test, as the
// cluster does.
func (c *cluster) restart(t *testing.T, n int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.dir, strconv.Itoa(n), "start"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
}

// healthy waits until every node reports a healthy cluster.
func (c *cluster) healthy(t *testing.T) {
	t.Helper()
	for _, node := range c.nodes {
		eventually(t, func() error {
			resp, err := http.Get(node + "/minio/health/cluster")
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s reports health %s", node, resp.Status)
			}
			return nil
		})
	}
}

// eventually waits until so returns nil. MinIO takes two minutes to release the
// locks of a node that died.
func eventually(t *testing.T, so func() error) {
	t.Helper()
	const often, enough = 50 * time.Millisecond, 4 * time.Minute
	deadline := time.After(enough)
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		err := so()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v still: %v", enough, err)
		}
	}
}

var prefixes atomic.Int64

// newPrefix returns a prefix that no test has used, in earlier runs either.
func newPrefix() string {
	return fmt.Sprintf("%d-%d/", time.Now().UnixNano(), prefixes.Add(1))
}

// A server is a running imaged-s3.
type server struct {
	*exec.Cmd
	url    string
	client *http.Client
	stderr bytes.Buffer
}

func start(t *testing.T, c *cluster, endpoint, prefix string) *server {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	s := &server{
		Cmd:    exec.Command(c.imaged, "-addr", "127.0.0.1:0", "-endpoint", endpoint, "-bucket", os.Getenv("S3_BUCKET"), "-prefix", prefix),
		client: &http.Client{Transport: transport, Timeout: time.Minute},
	}
	s.Cmd.Stderr = &s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Process.Signal(os.Interrupt)
		err := s.Wait()
		if err != nil || t.Failed() {
			t.Errorf("imaged-s3 on %s: got %v at its end, and the log\n%s", endpoint, err, lastLines(s.stderr.String(), 10))
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	m := regexp.MustCompile(`^imaged-s3: listening on (http://127\.0\.0\.1:\d+), storing in .*\n$`).FindStringSubmatch(line)
	if err != nil || m == nil {
		t.Fatalf("got line %q, %v; want the address", line, err)
	}
	s.url = m[1]
	return s
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// A reply is an answer of a server.
type reply struct {
	status int
	etag   string
	code   string
	body   []byte
}

// do sends a request for an image, or for the list if id is "". A failure of the
// service must be 503 with Retry-After, or 501, and never another 5xx.
func (s *server) do(t *testing.T, method, id string, body []byte, header ...string) (reply, error) {
	t.Helper()
	url := s.url + "/images"
	if id != "" {
		url += "/" + id
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Errorf("%s of %q: %v", method, id, err)
		return reply{}, err
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, etag: resp.Header.Get("ETag"), code: resp.Header.Get("Imagestore-Error")}
	r.body, err = io.ReadAll(resp.Body)
	switch {
	case r.status == http.StatusServiceUnavailable && (r.code != "unavailable" || resp.Header.Get("Retry-After") == ""):
		t.Errorf("%s of %q: got 503 with code %q, Retry-After %q", method, id, r.code, resp.Header.Get("Retry-After"))
	case r.status >= 500 && r.status != http.StatusServiceUnavailable && r.status != http.StatusNotImplemented:
		t.Errorf("%s of %q: got status %d: %s", method, id, r.status, r.body)
	}
	return r, err
}

// want is do with a status that must come.
func (s *server) want(t *testing.T, status int, method, id string, body []byte, header ...string) reply {
	t.Helper()
	r, err := s.do(t, method, id, body, header...)
	if err != nil || r.status != status {
		t.Fatalf("%s of %q: got status %d, %v, want %d: %.300s", method, id, r.status, err, status, r.body)
	}
	return r
}

// list returns the ETags of all images by id.
func (s *server) list(t *testing.T) map[string]string {
	t.Helper()
	etags := make(map[string]string)
	for after := ""; ; {
		resp, err := s.client.Get(s.url + "/images?limit=1000&after=" + after)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Images []struct{ ID, ETag string }
			Next   string
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("list: got status %s, %v", resp.Status, err)
		}
		for _, img := range page.Images {
			etags[img.ID] = img.ETag
		}
		if after = page.Next; after == "" {
			return etags
		}
	}
}

// picture returns the PNG with this number. It has 40 to 240 KB: MinIO keeps
// large and small objects in different ways.
func picture(n uint64) []byte { return numbered(n, 80+int(n*37%400)) }

func numbered(n uint64, height int) []byte {
	img := image.NewGray(image.Rect(0, 0, 512, height))
	binary.BigEndian.PutUint64(img.Pix, n)
	for i := 8; i < len(img.Pix); i++ {
		img.Pix[i] = byte(n)
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		panic(err) // a Buffer never fails
	}
	return b.Bytes()
}

func number(t *testing.T, b []byte) uint64 {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Error(err)
		return 0
	}
	return binary.BigEndian.Uint64(img.(*image.Gray).Pix)
}
