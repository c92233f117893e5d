//go:build unix

package imagestore_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

const limitedEnv = "IMAGESTORE_TEST_LIMITED"

// TestDescriptorLimit runs a server in a process that has used up its file
// descriptors.
func TestDescriptorLimit(t *testing.T) {
	t.Parallel()
	if os.Getenv(limitedEnv) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDescriptorLimit$")
		cmd.Env = append(os.Environ(), limitedEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("got %v, want nil\n%s", err, out)
		}
		return
	}
	must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 64, Max: 64}))
	s, err := imagestore.OpenDir(t.TempDir(), nil)
	must(t, err)
	b := testimage.PNG(t, 3, 1)
	info := put(t, s, "a", b)
	// Connections in memory take no descriptors.
	ln := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	defer ln.Close()
	go http.Serve(ln, imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: testhttp.Quiet}))
	c := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ln.dial(), nil }}}
	var used []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		must(t, err)
		used = append(used, f)
	}
	wantNoDescriptors(t, c, "http://localhost", b)
	for _, f := range used {
		f.Close()
	}
	if got, _ := get(t, s, "a"); got != info {
		t.Errorf("got %+v afterwards, want %+v", got, info)
	}
}
