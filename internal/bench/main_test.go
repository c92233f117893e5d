package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's program be the servers that it measures.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestRun measures everything that needs no other programs, for next to no
// time: all servers of PUTs, the table and the chart.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("builds imaged and stores a few hundred images")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("go is not in PATH, and imaged must be built")
	}
	dir := t.TempDir()
	table, chart := filepath.Join(dir, "table.md"), filepath.Join(dir, "chart.svg")
	var stdout, stderr bytes.Buffer
	// -run leaves out the GETs, for which wrk cannot take less than a second.
	err = run(t.Context(), []string{"-rounds", "2", "-duration", "20ms", "-load-cpu", "-1", "-dir", dir, "-run", "PUT", "-table", table, "-svg", chart, "-minio", filepath.Join(dir, "minio")}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s(go is %s)", err, stderr.String(), goTool)
	}
	written, err := os.ReadFile(table)
	if err != nil || string(written) != stdout.String() {
		t.Errorf("the file and standard output differ, or %v", err)
	}
	for _, want := range []string{"| durable PUT 8 KiB | 1 | imaged | ", "| durable PUT 1 MiB | 16 | imaged | ", "|  |  | imaged, multipart | ",
		"|  |  | floor: PUT | ", "| PUT 1 MiB without syncs | 16 | imagestore, NoSync | ", "|  |  | x/net/webdav | ", "Medians of 2 rounds",
		filepath.Join(dir, "minio") + " is not installed: it is left out."} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, stdout.String())
		}
	}
	picture, err := os.ReadFile(chart)
	if err != nil {
		t.Fatal(err)
	}
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	bars := 0
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the chart is not XML: %v", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if rows := strings.Count(stdout.String(), " µs | "); bars != rows/2 {
		t.Errorf("%d bars for %d rows, of which half have the most connections", bars, rows)
	}
	left, err := filepath.Glob(filepath.Join(dir, "imagestore-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left behind, %v", left, err)
	}
}

// TestPeers starts every server of GETs once and looks at what it answers.
func TestPeers(t *testing.T) {
	b := testBench(t)
	b.nginx = b.find("nginx", "")
	b.findMinIO("minio")
	for _, task := range tasks([]string{buildForTest(t, b)}, b.nginx, b.minio) {
		if task.kind == put || task.size > 64<<10 {
			continue
		}
		for _, p := range task.peers {
			t.Run(task.name+"/"+p.name, func(t *testing.T) {
				s, err := b.start(t.Context(), p, b.images(), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				defer s.stop()
				path := p.url(imageID(task.size))
				header, err := check(t.Context(), task, s, path)
				if err != nil {
					t.Fatal(err)
				}
				status := 200
				if task.kind == conditionalGet {
					status = 304
				}
				res, err := s.timed(func() (result, error) {
					return closedLoop(t.Context(), s.addr, 2, time.Millisecond, getRequest(s.addr, path, header), status)
				})
				if err != nil || res.requests == 0 || res.p50 > res.p99 {
					t.Errorf("%+v, %v", res, err)
				}
				if _, err := os.Stat("/proc/self/schedstat"); err == nil && (res.cpu <= 0 || res.peak <= 0) {
					t.Errorf("the server is said to cost %v and %d bytes", res.cpu, res.peak)
				}
			})
		}
	}
	if b.nginx == "" {
		t.Skip("nginx is not installed; all others are as they should be")
	}
}

// TestInterrupt stops a run in the middle and looks for what is left.
func TestInterrupt(t *testing.T) {
	b := testBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := peer{name: "floor: PUT, no syncs"}
	s, err := b.start(ctx, p, b.images(), b.scratch)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	_, err = closedLoop(ctx, s.addr, 2, time.Minute, putRequest(s.addr, p, noise(8<<10)), 201)
	if err == nil || time.Since(began) > 30*time.Second {
		t.Errorf("the load ends with %v after %v", err, time.Since(began))
	}
	s.stop()
	if err := s.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the server is still there: %v", err)
	}
}

func TestNoise(t *testing.T) {
	for _, size := range append(getSizes, 4096, 100_000, 1<<20+1) {
		image := noise(size)
		if len(image) != size {
			t.Errorf("%d bytes instead of %d", len(image), size)
		}
		if _, err := png.Decode(bytes.NewReader(image)); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func testBench(t *testing.T) *bench {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{rounds: 1, duration: time.Millisecond, scratch: t.TempDir(), self: self, log: t.Logf}
	if err := b.makeImages(); err != nil {
		t.Fatal(err)
	}
	return b
}

func buildForTest(t *testing.T, b *bench) string {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not in PATH, and imaged must be built")
	}
	program, err := buildImaged(t.Context(), b.scratch)
	if err != nil {
		t.Fatal(err)
	}
	return program
}
