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
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain runs main if bench starts this program as a server.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-serve" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestRun measures PUTs to all servers that need no other program, for a moment. It
// checks the table and the chart.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds imaged and stores a few hundred images")
	}
	dir := t.TempDir()
	table, chart := filepath.Join(dir, "table.md"), filepath.Join(dir, "chart.svg")
	var stdout, stderr bytes.Buffer
	// -run leaves out the GETs, for which wrk takes a second or more.
	err := run(t.Context(), []string{"-rounds", "2", "-duration", "20ms", "-load-cpu", "-1", "-dir", dir, "-run", "PUT", "-table", table, "-svg", chart,
		"-minio", filepath.Join(dir, "minio"), "-also", buildForTest(t, testBench(t)).program + "=before"}, &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	written, err := os.ReadFile(table)
	if err != nil || string(written) != stdout.String() {
		t.Errorf("got another table in the file than on the standard output, or %v", err)
	}
	for _, want := range []string{"| durable PUT 8 KiB | 1 | imaged | ", "| durable PUT 1 MiB | 16 | imaged | ", "|  |  | before | ", "|  |  | imaged, multipart | ", "|  |  | before, multipart | ",
		"|  |  | floor: PUT | ", "|  |  | floor: PUT, verified | ", "| PUT 1 MiB without syncs | 16 | imagestore, NoSync | ", "|  |  | x/net/webdav | ", "Medians of 2 rounds",
		filepath.Join(dir, "minio") + " is not installed, so it is left out."} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("got a table without %q:\n%s", want, stdout.String())
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
			t.Fatalf("got %v from parsing the chart, want XML", err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if rows := strings.Count(stdout.String(), " µs | "); bars != rows/2 {
		t.Errorf("got %d bars, want %d: one for each row with the most connections", bars, rows/2)
	}
	left, err := filepath.Glob(filepath.Join(dir, "imagestore-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("got files %v, %v, want none", left, err)
	}
}

// TestPeers starts every server of GETs and checks one answer of each.
func TestPeers(t *testing.T) {
	b := testBench(t)
	b.nginx = b.find("nginx", "")
	b.findMinIO("minio")
	for _, task := range tasks([]build{buildForTest(t, b)}, b.nginx, b.minio) {
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
					t.Errorf("got %+v and error %v, want requests with p50 up to p99", res, err)
				}
				if _, err := os.Stat("/proc/self/schedstat"); err == nil && (res.cpu <= 0 || res.peak <= 0) {
					t.Errorf("got a server that costs %v and %d bytes, want more than nothing", res.cpu, res.peak)
				}
			})
		}
	}
	if b.nginx == "" {
		t.Skip("nginx is not installed; all other servers pass")
	}
}

// TestInterrupt cancels a load and checks that it ends, and the server too.
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
		t.Errorf("got error %v after %v, want an error at once", err, time.Since(began))
	}
	s.stop()
	if err := s.cmd.Process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v from a signal to the server, want %v", err, os.ErrProcessDone)
	}
}

func TestSelectTasks(t *testing.T) {
	all := tasks([]build{{"imaged", "imaged"}, {"before", "/tmp/before"}}, "", "")
	var got []string
	for _, task := range selectTasks(all, regexp.MustCompile("PUT 8 KiB"), regexp.MustCompile("^before$")) {
		for _, p := range task.peers {
			got = append(got, task.name+": "+p.name)
		}
	}
	want := []string{"durable PUT 8 KiB: imaged", "durable PUT 8 KiB: before", "PUT 8 KiB without syncs: imagestore, NoSync"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoise(t *testing.T) {
	for _, size := range append(getSizes, 4096, 100_000, 1<<20+1) {
		image := noise(size)
		if len(image) != size {
			t.Errorf("got %d bytes, want %d", len(image), size)
		}
		if _, err := png.Decode(bytes.NewReader(image)); err != nil {
			t.Errorf("%d bytes: got %v, want a PNG", size, err)
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

func buildForTest(t *testing.T, b *bench) build {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("go is not in PATH, and the test builds imaged")
	}
	imaged, err := buildImaged(t.Context(), b.scratch)
	if err != nil {
		t.Fatal(err)
	}
	return imaged
}
