package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ba692904/imagestore/storetest/testhttp"
)

// TestNginx sends what a browser sends over plain HTTP through an nginx that passes
// on its own Host, the browser's, or the browser's without the port.
func TestNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Skip("nginx is not installed")
		}
	}
	t.Parallel()
	s := start(t, "-hosts", "photos.example")
	dir := t.TempDir()
	hosts := map[string]string{ // by socket
		"default":   "",
		"host":      "proxy_set_header Host $host;",
		"http_host": "proxy_set_header Host $http_host;",
	}
	conf := fmt.Sprintf("daemon off; pid %s/pid; error_log stderr; events {}\nhttp { access_log off;\n", dir)
	if os.Geteuid() == 0 {
		conf = "user root; " + conf // the directory belongs to root
	}
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf += fmt.Sprintf("%s_temp_path %s/%s;\n", name, dir, name)
	}
	for socket, setting := range hosts {
		conf += fmt.Sprintf("server { listen unix:%s/%s; location / { proxy_pass %s; %s } }\n", dir, socket, s.url, setting)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf+"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-e", "stderr", "-c", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt) // its workers end with it
		<-ended
	})

	for socket := range hosts {
		client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			for { // until nginx listens
				c, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, socket))
				select {
				case <-ended:
					return nil, fmt.Errorf("nginx has ended: %s", &stderr)
				default:
				}
				if err == nil || ctx.Err() != nil {
					return c, err
				}
			}
		}}}
		t.Cleanup(client.CloseIdleConnections)
		request := func(method string, body io.Reader, header ...string) testhttp.Answer {
			t.Helper()
			a, err := testhttp.Do(t.Context(), client, method, "http://photos.example:8080/images/"+socket, body, header...)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		if a := request("POST", strings.NewReader(pixel(t)), "Origin", "http://photos.example:8080"); a.StatusCode != 201 {
			t.Errorf("%s: POST of the site's own page: got %d %s, want 201", socket, a.StatusCode, a.Bytes)
		}
		a := request("DELETE", nil, "Origin", "http://evil.example")
		if a.StatusCode != 403 || a.Code() != "cross_origin" || !strings.Contains(string(a.Bytes), "http://evil.example") || !strings.Contains(string(a.Bytes), "$http_host") {
			t.Errorf("%s: DELETE of another site's page: got %d %s, want 403 with both names", socket, a.StatusCode, a.Bytes)
		}
		if a := request("GET", nil, "Referer", "http://photos.example:8080/", "Sec-Fetch-Site", "cross-site"); a.StatusCode != 200 {
			t.Errorf("%s: GET of the site's own page: got %d %s, want 200", socket, a.StatusCode, a.Bytes)
		}
		want := 200
		if socket == "default" {
			want = 403 // imaged cannot know that this is not the loopback interface
		}
		if a := request("GET", nil, "Referer", "http://blog.example/", "Sec-Fetch-Site", "cross-site"); a.StatusCode != want {
			t.Errorf("%s: GET of another site's page: got %d %s, want %d", socket, a.StatusCode, a.Bytes, want)
		}
	}
}
