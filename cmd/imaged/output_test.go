package main_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestOutputGone closes the pipes that imaged writes to, as "imaged 2>&1 | head" does.
// It must serve on.
func TestOutputGone(t *testing.T) {
	t.Parallel()
	s := &server{Cmd: exec.Command(imaged, "-addr", "127.0.0.1:0")}
	s.Dir = t.TempDir()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdout, s.Stderr = w, w
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Process.Kill()
		s.Wait()
	})
	w.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	s.url, _, _ = strings.Cut(strings.TrimPrefix(line, "imaged: listening on "), ",")

	// An upload that fails for a reason of the server's is logged.
	if err := os.WriteFile(filepath.Join(s.Dir, "images", "a"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if status, text := do(t, "PUT", s.url+"/images/a", strings.NewReader(pixel(t))); status < 500 {
			t.Errorf("PUT: got %d %s, want 500 or more", status, text)
		}
		if status, text := do(t, "GET", s.url+"/healthz", nil); status != 200 {
			t.Errorf("GET /healthz: got %d %s, want 200", status, text)
		}
	}
	if runtime.GOOS == "windows" {
		return // Windows has no signals to send
	}
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Errorf("got %v, want an end without an error", err)
	}
}

// TestVerifyOutputGone closes the pipe that the findings go to, as "imaged -verify |
// head" does. imaged must end early and say so.
func TestVerifyOutputGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, id := range []string{"a", "b", "c"} {
		if err := os.Mkdir(filepath.Join(dir, id), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, id, "image"), []byte("no image"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	defer w.Close()
	cmd := exec.Command(imaged, "-verify", "-dir", dir)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	const want = "imaged: verification ended early, 1 images: 1 invalid, 0 cannot be read: write "
	if err := cmd.Run(); err == nil || !cmd.ProcessState.Exited() || !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("got %v and errors %q, want %q", err, stderr.String(), want)
	}
}
