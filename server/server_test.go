package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// pixel returns a small PNG.
func pixel(t *testing.T) string {
	t.Helper()
	return string(testimage.PNG(t, 1, 1))
}

func memStore() *imagestore.Store { return imagestore.New(afero.NewMemMapFs(), nil) }

// start runs Serve at ln until the test ends or stop is called. It returns a client
// of the server.
func start(t *testing.T, ln net.Listener, store *imagestore.Store, cfg *Config) (client *http.Client, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, store, cfg) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, ln.Addr().Network(), ln.Addr().String())
	}}
	stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return &http.Client{Transport: transport}, stop
}

// do sends a request for a host and returns the answer.
func do(t *testing.T, client *http.Client, method, host, path, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
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

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// TestUnixSocket serves at a Unix socket. It accepts any host, as from a proxy,
// unless hosts are given.
func TestUnixSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths of temporary directories are too long for a socket")
	}
	socket := filepath.Join(t.TempDir(), "socket")
	client, stop := start(t, listen(t, "unix", socket), memStore(), nil)
	b := pixel(t)
	if status, text := do(t, client, "PUT", "photos.example", "/images/a", b); status != 201 {
		t.Errorf("PUT: got %d %s, want 201", status, text)
	}
	if status, text := do(t, client, "GET", "photos.example", "/images/a", ""); status != 200 || text != b {
		t.Errorf("GET: got %d %q, want the image", status, text)
	}
	stop()
	if _, err := os.Stat(socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket after the end: got %v, want no such file", err)
	}

	client, _ = start(t, listen(t, "unix", socket), memStore(), &Config{Hosts: []string{"photos.example"}})
	for host, want := range map[string]int{"photos.example": 404, "localhost": 404, "evil.example": 403} {
		if status, text := do(t, client, "GET", host, "/images/a", ""); status != want {
			t.Errorf("GET for %s: got %d %s, want %d", host, status, text, want)
		}
	}
	// nginx has the Host localhost for a Unix socket, unless it is told to pass one on.
	a, err := testhttp.Do(t.Context(), client, "GET", "http://localhost/images/a", nil, "Sec-Fetch-Site", "cross-site")
	if err != nil || a.StatusCode != 404 {
		t.Errorf("GET for another site's page: got %v, %v, want 404", a.Response, err)
	}
}

// TestHosts checks the hosts that are accepted at a loopback address. Health probes
// are accepted for any host.
func TestHosts(t *testing.T) {
	client, _ := start(t, listen(t, "tcp", "127.0.0.1:0"), memStore(), &Config{Hosts: []string{"photos.example"}})
	client2, _ := start(t, listen(t, "tcp", "127.0.0.1:0"), memStore(), nil)
	for _, test := range []struct {
		client             *http.Client
		method, host, path string
		status             int
		text               string
	}{
		{client, "GET", "10.1.2.3:8080", "/healthz", 200, "ok\n"},
		{client, "HEAD", "10.1.2.3:8080", "/healthz", 200, ""},
		{client2, "GET", "evil.example", "/healthz", 200, "ok\n"},
		{client, "POST", "10.1.2.3", "/healthz", 403, `"code":"foreign_host"`},
		{client, "GET", "10.1.2.3", "/images", 403, `"code":"foreign_host"`},
		{client, "GET", "photos.example", "/images", 200, ""},
		{client, "GET", "127.0.0.1", "/images", 200, ""},
		{client2, "GET", "photos.example", "/images", 403, `"code":"foreign_host"`},
		{client2, "GET", "localhost", "/images", 200, ""},
		{client2, "GET", "localhost", "/healthz/x", 404, `"code":"unknown_path"`},
	} {
		if status, text := do(t, test.client, test.method, test.host, test.path, ""); status != test.status || !strings.Contains(text, test.text) {
			t.Errorf("%s %s for %s: got %d %s, want %d %s", test.method, test.path, test.host, status, text, test.status, test.text)
		}
	}
}

// TestConfigErrors checks that Serve refuses a bad Config and closes the listener.
func TestConfigErrors(t *testing.T) {
	for _, test := range []struct {
		cfg  Config
		text string
	}{
		{Config{Timeout: -time.Second}, "Config.Timeout is -1s: it must be from 1ms to 24h"},
		{Config{Timeout: time.Nanosecond}, "Config.Timeout is 1ns"},
		{Config{Timeout: math.MaxInt64}, "Config.Timeout is 2562047h47m16.854775807s"},
		{Config{Hosts: []string{"a.example", "https://a.example"}}, `Config.Hosts has "https://a.example"`},
		{Config{Hosts: []string{""}}, `Config.Hosts has ""`},
		{Config{MaxConnections: -1}, "Config.MaxConnections is -1: it must be at least 1, such as 4096"},
	} {
		ln := listen(t, "tcp", "127.0.0.1:0")
		if err := Serve(t.Context(), ln, memStore(), &test.cfg); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%+v: got %v, want %s", test.cfg, err, test.text)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%+v: Accept afterwards: got %v, want %v", test.cfg, err, net.ErrClosed)
		}
	}
}

// TestReadsOfOtherSites checks that a browser cannot look into the store for another
// site's page, at an address that browsers reach.
func TestReadsOfOtherSites(t *testing.T) {
	client, _ := start(t, listen(t, "tcp", "127.0.0.1:0"), memStore(), nil)
	for _, test := range []struct {
		header []string
		want   int
	}{
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "image"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Dest", "image", "Referer", "http://localhost:3000/"}, 404},
	} {
		a, err := testhttp.Do(t.Context(), client, "GET", "http://127.0.0.1/images/a", nil, test.header...)
		if err != nil || a.StatusCode != test.want {
			t.Errorf("%q: got %v, %v, want %d", test.header, a.Response, err, test.want)
		}
	}
}

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { defer func() { recover() }(); close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestShutdown stops the server during a request that takes almost as long as it may,
// and during one that takes longer.
func TestShutdown(t *testing.T) {
	for took, want := range map[time.Duration]string{
		shutdownTimeout - time.Second: "",
		shutdownTimeout + time.Second: "some requests did not finish within 30s",
	} {
		synctest.Test(t, func(t *testing.T) {
			ln := make(pipes)
			ctx, cancel := context.WithCancel(t.Context())
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				cancel()
				time.Sleep(took)
			})
			go func() {
				c, srv := net.Pipe()
				ln <- srv
				defer c.Close()
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
				io.Copy(io.Discard, c)
			}()
			err := serve(ctx, ln, h, Config{Timeout: 10 * time.Minute, MaxConnections: 1, Logger: slog.New(slog.DiscardHandler)})
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("a request that takes %v: got %v, want %q", took, err, want)
			}
			time.Sleep(time.Hour)
		})
	}
}

// TestTimeouts has clients that stall. The server must close their connections.
func TestTimeouts(t *testing.T) {
	const timeout = 7 * time.Minute
	for request, want := range map[string]time.Duration{
		"":                                10 * time.Second,
		"GET /healthz HTTP/1.1\r\nHost: ": 10 * time.Second,
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n":  timeout,
		"GET /images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n":   timeout,
		"PUT /images/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n": timeout,
		"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n":                       2 * time.Minute, // idle
	} {
		synctest.Test(t, func(t *testing.T) {
			ln := make(pipes)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- Serve(ctx, ln, memStore(), &Config{Timeout: timeout}) }()
			c, srv := net.Pipe()
			ln <- srv
			start := time.Now()
			go io.WriteString(c, request)
			io.Copy(io.Discard, c) // ends when the server closes
			if got := time.Since(start); got < want || got > want+time.Second {
				t.Errorf("%q: got a connection that ends after %v, want %v", request, got, want)
			}
			c.Close()
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLogger checks that the handler uses the logger of the Config.
func TestLogger(t *testing.T) {
	var log bytes.Buffer
	store := imagestore.New(brokenFs{Fs: afero.NewMemMapFs(), root: true}, nil)
	client, stop := start(t, listen(t, "tcp", "127.0.0.1:0"), store, &Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if status, text := do(t, client, "GET", "localhost", "/images", ""); status != 500 {
		t.Errorf("got %d %s, want 500", status, text)
	}
	stop()
	if !strings.Contains(log.String(), "request failed") {
		t.Errorf("got log %q, want the failed request", log.String())
	}
}

// TestSweepFails checks that a failed sweep is logged and tried again the next day.
func TestSweepFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), sweepInterval+time.Second)
		defer cancel()
		fsys := afero.NewMemMapFs()
		if err := afero.WriteFile(fsys, ".staging", nil, 0o666); err != nil { // no directory
			t.Fatal(err)
		}
		store := imagestore.New(fsys, nil)
		sweep(ctx, store, time.Hour, slog.New(slog.NewTextHandler(&log, nil)))
		if got := strings.Count(log.String(), "sweep failed"); got != 2 {
			t.Errorf("got %d errors in log %q, want 2", got, log.String())
		}
	})
}

// TestSweep checks that a staged file is swept, but not while its upload may still be
// under way.
func TestSweep(t *testing.T) {
	for timeout, gone := range map[time.Duration]time.Duration{ // when the next sweep is due
		minTimeout:                sweepInterval,
		imagestore.DefaultTimeout: sweepInterval,
		6 * time.Hour:             6 * sweepInterval,  // after 121 hours
		maxTimeout:                21 * sweepInterval, // after 481 hours
	} {
		synctest.Test(t, func(t *testing.T) {
			left := ".staging/" + rand.Text()
			fsys := afero.NewMemMapFs()
			now := time.Now()
			if err := errors.Join(afero.WriteFile(fsys, left, []byte("x"), 0o666), fsys.Chtimes(left, now, now)); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() {
				ended <- Serve(ctx, make(pipes), imagestore.New(fsys, nil), &Config{Timeout: timeout, Logger: slog.New(slog.NewTextHandler(&log, nil))})
			}()
			time.Sleep(gone - time.Second)
			synctest.Wait()
			if _, err := fsys.Stat(left); err != nil {
				t.Errorf("timeout %v: file before %v: got %v, want it kept", timeout, gone, err)
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if _, err := fsys.Stat(left); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("timeout %v: file after %v: got %v, want no such file", timeout, gone, err)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if !strings.Contains(log.String(), "removed=1") {
				t.Errorf("timeout %v: got log %q, want removed=1", timeout, log.String())
			}
		})
	}
}

// TestSweepAtStart checks that the first sweep removes old staged files only. A file
// younger than an hour may belong to another server.
func TestSweepAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fsys := afero.NewMemMapFs()
		left, young := ".staging/"+rand.Text(), ".staging/"+rand.Text()
		if err := afero.WriteFile(fsys, left, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if err := afero.WriteFile(fsys, young, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Serve(ctx, make(pipes), imagestore.New(fsys, nil), &Config{Timeout: minTimeout}) }()
		synctest.Wait()
		if _, err := fsys.Stat(left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("old file: got %v, want no such file", err)
		}
		if _, err := fsys.Stat(young); err != nil {
			t.Errorf("young file: got %v, want it kept", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
