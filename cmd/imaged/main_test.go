package main_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore/internal/testimage"
)

// imaged is the path of the binary. It is IMAGED where there is no go command.
var imaged = os.Getenv("IMAGED")

func TestMain(m *testing.M) {
	if imaged != "" {
		os.Exit(m.Run())
	}
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
	return run(t, exec.Command(imaged, append([]string{"-addr", "127.0.0.1:0"}, args...)...))
}

// run starts a command that becomes imaged.
func run(t *testing.T, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{Cmd: cmd}
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
		t.Fatalf("got line %q, %v, want the listening line", line, err)
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
	return string(testimage.PNG(t, 1, 1))
}

func TestServes(t *testing.T) {
	t.Parallel()
	s := start(t, "-max-bytes", "1000", "-hosts", "photos.example, a.example")
	if status, text := do(t, "GET", s.url+"/healthz", nil, "Host", "10.1.2.3"); status != 200 || text != "ok\n" {
		t.Errorf("GET /healthz: got %d %q, want 200 ok", status, text)
	}
	b := pixel(t)
	if status, text := do(t, "PUT", s.url+"/images/TestPost", strings.NewReader(b)); status != 201 {
		t.Errorf("PUT: got %d %s, want 201", status, text)
	}
	stored := filepath.Join(s.Dir, "images", "TestPost", "image") // -dir is images
	if got, err := os.ReadFile(stored); err != nil || string(got) != b {
		t.Errorf("the file: got %d bytes, %v, want %d", len(got), err, len(b))
	}
	if status, text := do(t, "GET", s.url+"/images/TestPost", nil, "Host", "photos.example"); status != 200 || text != b {
		t.Errorf("GET: got %d %q, want the image", status, text)
	}
	if status, _ := do(t, "PUT", s.url+"/images/a", strings.NewReader(b+strings.Repeat("x", 1000))); status != 413 {
		t.Errorf("PUT of more than -max-bytes: got %d, want 413", status)
	}
	if status, text := do(t, "GET", s.url+"/images/TestPost", nil, "Host", "evil.example"); status != 403 || !strings.Contains(text, "evil.example") {
		t.Errorf("GET for another host: got %d %s, want 403", status, text)
	}
	if status, _ := do(t, "DELETE", s.url+"/images/TestPost", nil, "Origin", "https://evil.example"); status != 403 {
		t.Errorf("DELETE by another site's page: got %d, want 403", status)
	}
	if status, _ := do(t, "DELETE", s.url+"/images/TestPost", nil); status != 204 {
		t.Errorf("DELETE: got %d, want 204", status)
	}
	if _, err := os.Stat(filepath.Dir(stored)); !os.IsNotExist(err) {
		t.Errorf("directory after DELETE: got %v, want no such file", err)
	}
}

// TestBodyNeverComes declares a body that does not come. The server must close the
// connection after the timeout.
func TestBodyNeverComes(t *testing.T) {
	t.Parallel()
	s := start(t, "-timeout", "100ms")
	for _, request := range []string{"GET /healthz HTTP/1.1\r\nHost: localhost", "GET /images HTTP/1.1\r\nHost: localhost", "GET /images HTTP/1.1\r\nHost: evil.example"} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
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

// TestStops tells imaged to stop in the middle of an upload.
func TestStops(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals to send")
	}
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		s := start(t)
		b := pixel(t)
		conn := upload(t, s, len(b))
		if err := s.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		stopsListening(t, s)
		io.WriteString(conn, b)
		resp, err := http.ReadResponse(conn.r, nil)
		if err != nil || resp.StatusCode != 201 {
			t.Errorf("%v: the upload under way: got %v, %v, want 201", signal, resp, err)
		}
		if err := s.Wait(); err != nil || s.stderr.Len() > 0 {
			t.Errorf("%v: got %v and the errors %q, want none", signal, err, s.stderr.String())
		}
		if got, err := os.ReadFile(filepath.Join(s.Dir, "images", "a", "image")); err != nil || string(got) != b {
			t.Errorf("%v: the file: got %d bytes, %v, want %d", signal, len(got), err, len(b))
		}
	}
}

// TestSecondSignal checks that a second signal ends imaged at once, although an
// upload is under way.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no signals to send")
	}
	s := start(t)
	upload(t, s, 1000)
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Wait() }()
	for s.Process.Signal(syscall.SIGTERM) == nil { // the system may merge the first two
		runtime.Gosched()
	}
	if err := <-ended; err == nil || s.ProcessState.Exited() {
		t.Errorf("got %v, want an end by the signal", err)
	}
}

// A connection has a buffered reader.
type connection struct {
	net.Conn
	r *bufio.Reader
}

// upload begins an upload of size bytes, and returns when imaged asks for the body.
func upload(t *testing.T, s *server, size int) connection {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "PUT /images/a HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", size)
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("got %q, %v, want 100 Continue", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return connection{conn, r}
}

// stopsListening waits until imaged no longer listens.
func stopsListening(t *testing.T, s *server) {
	t.Helper()
	for {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			return
		}
		c.Close()
	}
}

// TestDoesNotStart checks errors at the start. The server package tests most flags.
func TestDoesNotStart(t *testing.T) {
	t.Parallel()
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
	inUse := "address already in use"
	if runtime.GOOS == "windows" {
		inUse = "bind: " // and a longer text
	}
	for _, test := range []struct {
		args []string
		text string
	}{
		{[]string{"-addr", busy.Addr().String(), "-dir", dir}, inUse},
		{[]string{"-addr", "127.0.0.1:0", "-dir", file}, file},
		{[]string{"-addr", "127.0.0.1:0", "-dir", filepath.Join(file, "images")}, file},
		{[]string{"-addr", "127.0.0.1:0", "-dir", ""}, "-dir is empty"},
		{[]string{"-timeout", "-1s"}, "-timeout"},
		{[]string{"-verify", "-dir", filepath.Join(dir, "none")}, "none"},
		{[]string{"-verify", "-dir", file}, "not a directory"},
	} {
		cmd := exec.Command(imaged, test.args...)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err == nil || strings.Count(string(out), "\n") != 1 || !strings.HasPrefix(string(out), "imaged: ") || !strings.Contains(string(out), test.text) {
			t.Errorf("imaged %q: got %v and %q, want one line with %q", test.args, err, out, test.text)
		}
		if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
			t.Errorf("imaged %q: got the files %v, %v, want none", test.args, left, err)
		}
	}
	out, err := exec.Command(imaged, "-h").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "-max-bytes") || !strings.Contains(string(out), "-dir") {
		t.Errorf("imaged -h: got %v and %q, want all flags", err, out)
	}
}

// TestVerify verifies a directory of images. The directory must not change.
func TestVerify(t *testing.T) {
	t.Parallel()
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
		if err := os.WriteFile(filepath.Join(dir, id, "image"), []byte(b), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	b := pixel(t)
	put("good", b)
	put("good2", b)
	if out, err := verify(); err != nil || out != "imaged: all 2 images are valid\n" {
		t.Errorf("valid images: got %q, %v, want all 2 valid", out, err)
	}
	put("cut", b[:len(b)-1])
	put("text", "hello")
	// The chunk checksums are right, but the data cannot be decompressed.
	damaged := []byte(b)
	i := strings.Index(b, "IDAT")
	n := int(binary.BigEndian.Uint32(damaged[i-4:]))
	damaged[i+4+n-1] ^= 1
	binary.BigEndian.PutUint32(damaged[i+4+n:], crc32.ChecksumIEEE(damaged[i:i+4+n]))
	put("pixels", string(damaged))
	if err := os.Symlink("loop", filepath.Join(dir, "loop")); err != nil && runtime.GOOS != "windows" { // no image
		t.Fatal(err)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	there, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args  []string
		lines []string // prefixes of the lines
	}{
		{nil, []string{"cut: invalid image: ", "text: unsupported image type", "imaged: 5 images: 2 invalid, 0 cannot be read"}},
		{[]string{"-verify-pixels"}, []string{"cut: invalid image: ", "pixels: invalid image: ", "text: unsupported image type", "imaged: 5 images: 3 invalid, 0 cannot be read"}},
	} {
		out, err := verify(test.args...)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if err == nil || !slices.EqualFunc(lines, test.lines, strings.HasPrefix) {
			t.Errorf("%q: got %v and the lines %q, want %q", test.args, err, lines, test.lines)
		}
	}
	after, err := os.Stat(dir)
	if left, err2 := os.ReadDir(dir); err != nil || err2 != nil || len(left) != len(there) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("got files %v, %v, %v, changed at %v, want %v, unchanged", left, err, err2, after.ModTime(), there)
	}
}
