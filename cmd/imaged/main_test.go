package main_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// imaged is the path of the real binary.
var imaged string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "imaged")
	if err != nil {
		panic(err)
	}
	imaged = filepath.Join(dir, "imaged.exe")
	if out, err := exec.Command("go", "build", "-o", imaged, ".").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v: %s", err, out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// A server is a running imaged.
type server struct {
	*exec.Cmd
	url    string
	stdout *bufio.Reader
	stderr bytes.Buffer
}

func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{Cmd: exec.Command(imaged, append([]string{"-addr", "127.0.0.1:0"}, args...)...)}
	s.Dir = t.TempDir()
	s.Cmd.Stderr = &s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdout = bufio.NewReader(out)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Process.Kill()
		s.Wait()
	})
	line, err := s.stdout.ReadString('\n')
	m := regexp.MustCompile(`^imaged: listening on (http://127\.0\.0\.1:\d+), storing in (/.*|[A-Z]:\\.*)\n$`).FindStringSubmatch(line)
	if err != nil || m == nil {
		t.Fatalf("imaged says %q, %v", line, err)
	}
	s.url = m[1]
	return s
}

func do(t *testing.T, method, url string, body io.Reader, header ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func pixel(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestServes(t *testing.T) {
	s := start(t, "-max-bytes", "1000", "-hosts", "photos.example, a.example")
	if status, text := do(t, "GET", s.url+"/healthz", nil); status != 200 || text != "ok\n" {
		t.Errorf("/healthz says %d %q", status, text)
	}
	b := pixel(t)
	if status, text := do(t, "PUT", s.url+"/images/TestPost", strings.NewReader(b)); status != 201 {
		t.Errorf("PUT is answered with %d %s", status, text)
	}
	stored := filepath.Join(s.Dir, "images", "TestPost", "image.png") // -dir is images
	if got, err := os.ReadFile(stored); err != nil || string(got) != b {
		t.Errorf("the file has %d bytes, %v", len(got), err)
	}
	if status, text := do(t, "GET", s.url+"/images/TestPost", nil, "Host", "photos.example"); status != 200 || text != b {
		t.Errorf("GET is answered with %d %q", status, text)
	}
	if status, _ := do(t, "PUT", s.url+"/images/a", strings.NewReader(b+strings.Repeat("x", 1000))); status != 413 {
		t.Errorf("an image larger than -max-bytes is answered with %d", status)
	}
	if status, text := do(t, "GET", s.url+"/images/TestPost", nil, "Host", "evil.example"); status != 403 || !strings.Contains(text, "-hosts") {
		t.Errorf("another Host is answered with %d %s", status, text)
	}
	if status, _ := do(t, "DELETE", s.url+"/images/TestPost", nil, "Origin", "https://evil.example"); status != 403 {
		t.Errorf("another site's page is answered with %d", status)
	}
	if status, _ := do(t, "DELETE", s.url+"/images/TestPost", nil); status != 204 {
		t.Errorf("DELETE is answered with %d", status)
	}
	if _, err := os.Stat(filepath.Dir(stored)); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// TestBodyNobodyWants has requests with a body that does not come: what answers
// them must not wait for it for ever.
func TestBodyNobodyWants(t *testing.T) {
	s := start(t, "-timeout", "100ms")
	for _, request := range []string{"GET /healthz HTTP/1.1\r\nHost: localhost", "GET /images HTTP/1.1\r\nHost: localhost", "GET /images HTTP/1.1\r\nHost: evil.example"} {
		t.Run(request, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s\r\nContent-Length: 1\r\n\r\n", request)
			if _, err := io.Copy(io.Discard, conn); err != nil { // ends when the server closes
				t.Error(err)
			}
		})
	}
}

// TestStops has imaged told to stop in the middle of an upload.
func TestStops(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there are no signals to send on Windows")
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		s := start(t)
		b := pixel(t)
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(b))
		r := bufio.NewReader(conn)
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
			t.Fatalf("the upload is not wanted: %q, %v", line, err)
		}
		r.ReadString('\n')
		if err := s.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		// Once it does not listen any more it has understood.
		for {
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				break
			}
			c.Close()
		}
		io.WriteString(conn, b)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 201 {
			t.Errorf("the upload under way is answered with %v, %v", resp, err)
		}
		if err := s.Wait(); err != nil || s.stderr.Len() > 0 {
			t.Errorf("imaged ends with %v and says %q", err, s.stderr.String())
		}
		if got, err := os.ReadFile(filepath.Join(s.Dir, "images", "a", "image.png")); err != nil || string(got) != b {
			t.Errorf("the file has %d bytes, %v", len(got), err)
		}
	}
}

// TestDoesNotStart has everything that can be wrong at the start.
func TestDoesNotStart(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		text string
	}{
		{[]string{"-addr", busy.Addr().String(), "-dir", dir}, "address already in use"},
		{[]string{"-addr", "nonsense", "-dir", dir}, "nonsense"},
		{[]string{"-addr", "127.0.0.1:0", "-dir", file}, file},
		{[]string{"-addr", "127.0.0.1:0", "-dir", filepath.Join(file, "images")}, file},
		{[]string{"-addr", "127.0.0.1:0", "-dir", dir, "-max-bytes", "0"}, "-max-bytes"},
		{[]string{"-max-bytes", "many"}, "many"},
		{[]string{"-timeout", "-1s"}, "-timeout"},
		{[]string{"-port", "80"}, "-port"},
		{[]string{"serve"}, "serve"},
		{[]string{"-verify", "-dir", filepath.Join(dir, "none")}, "none"},
	} {
		cmd := exec.Command(imaged, test.args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Count(string(out), "\n") != 1 || !strings.HasPrefix(string(out), "imaged: ") || !strings.Contains(string(out), test.text) {
			t.Errorf("imaged %v ends with %v and says %q", test.args, err, out)
		}
	}
	out, err := exec.Command(imaged, "-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-max-bytes") {
		t.Errorf("imaged -h ends with %v and says %q", err, out)
	}
}

func TestVerify(t *testing.T) {
	dir := t.TempDir()
	verify := func(args ...string) (string, error) {
		out, err := exec.Command(imaged, append([]string{"-verify", "-dir", dir}, args...)...).CombinedOutput()
		return string(out), err
	}
	put := func(id, b string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, id), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, id, "image.png"), []byte(b), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := verify(); err != nil || out != "imaged: all 0 images are whole\n" {
		t.Errorf("of an empty directory it says %q, %v", out, err)
	}
	b := pixel(t)
	put("good", b)
	put("good2", b)
	if out, err := verify(); err != nil || out != "imaged: all 2 images are whole\n" {
		t.Errorf("of whole images it says %q, %v", out, err)
	}
	put("cut", b[:len(b)-1])
	put("flipped", b[:20]+"x"+b[21:])
	put("text", "hello")
	// Right checksums over data that cannot be inflated.
	shallow := []byte(b)
	i := strings.Index(b, "IDAT")
	n := int(binary.BigEndian.Uint32(shallow[i-4:]))
	shallow[i+4+n-1] ^= 1
	binary.BigEndian.PutUint32(shallow[i+4+n:], crc32.ChecksumIEEE(shallow[i:i+4+n]))
	put("shallow", string(shallow))
	// Neither of these is an image.
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	out, err := verify()
	if err == nil || strings.Count(out, "\n") != 4 || !strings.Contains(out, "\nimaged: 3 of 6 images are broken\n") {
		t.Errorf("of broken images it says %q, %v", out, err)
	}
	for _, want := range []string{"cut: broken PNG: truncated", "flipped: broken PNG: ", "text: not a PNG: "} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q: %s", want, out)
		}
	}
	if out, err := verify("-deep"); err == nil || !strings.Contains(out, "shallow: broken PNG: ") {
		t.Errorf("with -deep it says %q, %v", out, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) < 6 {
		t.Errorf("the directory has %v, %v", left, err)
	}
}
