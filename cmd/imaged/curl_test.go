package main_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCurl sends requests with curl.
func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	t.Parallel()
	s := start(t)
	file := filepath.Join(s.Dir, "x.png")
	b := pixel(t)
	if err := os.WriteFile(file, []byte(b), 0o666); err != nil {
		t.Fatal(err)
	}
	curl := func(args ...string) (status, body string) {
		t.Helper()
		cmd := exec.Command("curl", append([]string{"-s", "-S", "--max-time", "60", "-w", "\n%{http_code}"}, args...)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("curl %v: %v %s", args, err, stderr.String())
		}
		i := bytes.LastIndexByte(out, '\n')
		return string(out[i+1:]), string(out[:i])
	}
	url := s.url + "/images/a"
	sum := sha256.Sum256([]byte(b))
	right := "Repr-Digest: sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	wrong := "Repr-Digest: sha-256=:" + base64.StdEncoding.EncodeToString(make([]byte, len(sum))) + ":"
	_, header := curl("-T", file, "-D", "-", "-o", "/dev/null", url)
	etag := ""
	for line := range strings.Lines(header) {
		if value, ok := strings.CutPrefix(line, "Etag: "); ok {
			etag = strings.TrimSpace(value)
		}
	}
	for _, test := range []struct {
		args   []string
		status string
		body   string // beginning of the answer
	}{
		{[]string{url}, "200", b},
		{[]string{"-T", file, url}, "200", `{"id":"a"`},
		{[]string{"-F", "file=@" + file, s.url + "/images/b"}, "201", `{"id":"b"`},
		{[]string{"-F", "image=@" + file, s.url + "/images/b"}, "400", `{"title":"Bad Request"`},
		{[]string{"-F", "file=@" + file, s.url + "/images"}, "201", `{"id":"`},
		{[]string{"-r", "0-3", url}, "206", b[:4]},
		{[]string{"-H", "If-None-Match: *", url}, "304", ""},
		{[]string{"-H", "If-None-Match: " + etag, url}, "200", b}, // the ETag is that of the version before
		{[]string{"-I", url}, "200", "HTTP/1.1 200 OK"},
		{[]string{"-I", s.url + "/images/none"}, "404", "HTTP/1.1 404 Not Found"},
		{[]string{"-T", file, "-H", "If-None-Match: *", url}, "412", `{"title":"Precondition Failed"`},
		{[]string{"--data-binary", "@" + file, url}, "200", `{"id":"a"`},
		{[]string{"-T", file, "-H", right, url}, "200", `{"id":"a"`},
		{[]string{"-T", file, "-H", wrong, url}, "400", `{"title":"Bad Request"`},
		{[]string{"-F", `file=@"` + file + `";headers="` + right + `"`, url}, "200", `{"id":"a"`},
		{[]string{"-F", `file=@"` + file + `";headers="` + wrong + `"`, url}, "400", `{"title":"Bad Request"`},
		{[]string{"-H", "Want-Repr-Digest: sha-256=10", "-o", os.DevNull, "-w", "Repr-Digest: %header{repr-digest}\n%{http_code}", url}, "200", right},
		{[]string{"--path-as-is", s.url + "/images/../a"}, "400", `{"title":"Bad Request"`},
		{[]string{s.url + "/images?limit=1"}, "200", `{"images":[{"id":"`},
		{[]string{"-X", "DELETE", url}, "204", ""},
		{[]string{url}, "404", `{"title":"Not Found"`},
	} {
		if status, body := curl(test.args...); status != test.status || !strings.HasPrefix(body, test.body) {
			t.Errorf("curl %v: got %s %q, want %s %q", test.args, status, body, test.status, test.body)
		}
	}
}
