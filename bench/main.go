// Bench measures imaged over HTTP, and compares it with other servers and with
// floors. A floor is a server that does the least for the same answer.
//
// Bench starts every server itself, one at a time, on the same files. The server has
// one core, the load another. Bench prints a table of the medians of several rounds:
//
//	go run . -dir /mnt -run 'GET 8 KiB'
//
// To compare with another commit, build that and name its program:
//
//	git worktree add ../../before COMMIT
//	(cd ../../before && go build -o /tmp/imaged-before ./cmd/imaged)
//	go run . -servers '^(imaged|before)' -also /tmp/imaged-before=before
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var b bench
	flags.IntVar(&b.rounds, "rounds", 5, "`number` of measurements of each server, of which the table has the median")
	flags.DurationVar(&b.duration, "duration", 2*time.Second, "`time` of one measurement")
	dir := flags.String("dir", os.TempDir(), "`directory` on the filesystem to measure; the images are in a temporary\ndirectory there")
	var builds []build
	flags.Func("also", "imaged of another commit to measure too, as `program[=name]`; may be repeated", func(value string) error {
		program, name, _ := strings.Cut(value, "=")
		program, err := exec.LookPath(program)
		builds = append(builds, build{cmp.Or(name, filepath.Base(program)), program})
		return err
	})
	minio := flags.String("minio", "minio", "`program` of MinIO, which is left out if it is missing")
	work := flags.String("run", ".", "regular `expression` of the work to be measured, such as 'GET 8 KiB'")
	servers := flags.String("servers", ".", "regular `expression` of the servers to be measured in addition to the first of\neach group, such as floor")
	table := flags.String("table", "", "`file` to write the table to, besides the standard output")
	chart := flags.String("svg", "", "`file` to write a bar chart to, such as ../docs/speed.svg")
	serverCPU := flags.Int("server-cpu", 0, "`core` of the servers")
	loadCPU := flags.Int("load-cpu", 1, "`core` of the load; -1 pins neither")
	serveName := flags.String("serve", "", "`name` of a server of this program to run; bench starts its servers with it")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *serveName != "" {
		return serve(ctx, *serveName, *dir, stdout)
	}
	runExpr, err := regexp.Compile(*work)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	serversExpr, err := regexp.Compile(*servers)
	if err != nil {
		return fmt.Errorf("-servers: %w", err)
	}
	if b.rounds < 1 || b.duration <= 0 {
		return fmt.Errorf("-rounds is %d and -duration %v: both must be positive", b.rounds, b.duration)
	}

	b.scratch, err = os.MkdirTemp(*dir, "imagestore-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.scratch)
	b.log = func(format string, args ...any) { fmt.Fprintf(stderr, format+"\n", args...) }
	b.self, err = os.Executable()
	if err != nil {
		return err
	}
	b.wrk = b.find("wrk", "GET and 304 are not measured")
	b.nginx = b.find("nginx", "it is left out")
	b.findMinIO(*minio)
	b.pin(*serverCPU, *loadCPU)
	imaged, err := buildImaged(ctx, b.scratch)
	if err != nil {
		return err
	}
	builds = append([]build{imaged}, builds...)
	if err := b.makeImages(); err != nil {
		return err
	}
	rows, err := b.measureAll(ctx, selectTasks(tasks(builds, b.nginx, b.minio), runExpr, serversExpr))
	if err != nil {
		return err
	}
	about := describe(b.scratch, b.pinned, append([]string{"go run ."}, args...), b.notes)
	if err := write(*table, markdown(about, rows)); err != nil {
		return err
	}
	if err := write(*chart, svg(about, rows)); err != nil {
		return err
	}
	_, err = io.WriteString(stdout, markdown(about, rows))
	return err
}

func write(name, content string) error {
	if name == "" {
		return nil
	}
	return os.WriteFile(name, []byte(content), 0o666)
}

// buildImaged builds the imaged of this tree.
func buildImaged(ctx context.Context, scratch string) (build, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/ba692904/imagestore").Output()
	if err != nil {
		return build{}, fmt.Errorf("go list: %w (run bench in its own directory)", err)
	}
	program := filepath.Join(scratch, "imaged")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/imaged")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return build{}, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return build{"imaged", program}, nil
}

// A bench is one run of this program.
type bench struct {
	rounds   int
	duration time.Duration
	scratch  string   // temporary directory
	self     string   // this program
	wrk      string   // "" if it is missing
	nginx    string   // "" if it is missing
	minio    string   // "" if it or curl is missing
	curl     string   // "" if MinIO is missing
	onCore   []string // command that runs a server on its core
	pinned   string   // cores of servers and load, for the report
	notes    []string // caveats for the report
	log      func(format string, args ...any)
}

// find returns the path of a program. If it is missing, a note says so.
func (b *bench) find(program, without string) string {
	// On Debian, daemons are outside the PATH of ordinary users.
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	b.notes = append(b.notes, fmt.Sprintf("%s is not installed, so %s.", program, without))
	b.log("%s", b.notes[len(b.notes)-1])
	return ""
}

// findMinIO finds MinIO, and curl, which makes its bucket.
func (b *bench) findMinIO(program string) {
	if b.minio = b.find(program, "it is left out"); b.minio == "" {
		return
	}
	if b.curl = b.find("curl", "MinIO is left out"); b.curl == "" {
		b.minio = ""
		return
	}
	b.notes = append(b.notes, "MinIO syncs files but not their directories. A power cut may undo a PUT that it has answered.")
}

// pin gives the servers and the load a core each. This process moves to the load's
// core, and wrk inherits that.
func (b *bench) pin(serverCPU, loadCPU int) {
	b.pinned = "servers and load not pinned"
	if loadCPU < 0 {
		return
	}
	out, err := exec.Command("taskset", "-a", "-c", "-p", strconv.Itoa(loadCPU), strconv.Itoa(os.Getpid())).CombinedOutput()
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("taskset failed, so nothing is pinned: %v. %s", err, bytes.TrimSpace(out)))
		return
	}
	runtime.GOMAXPROCS(1)
	b.onCore = []string{"taskset", "-c", strconv.Itoa(serverCPU)}
	b.pinned = fmt.Sprintf("servers on core %d, load on core %d", serverCPU, loadCPU)
}

func (b *bench) images() string { return filepath.Join(b.scratch, "images") }

func imageID(size int) string { return "image-" + strconv.Itoa(size) }

func (b *bench) makeImages() error {
	for _, size := range getSizes {
		dir := filepath.Join(b.images(), imageID(size))
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		name := filepath.Join(dir, "image")
		if err := os.WriteFile(name, noise(size), 0o666); err != nil {
			return err
		}
		old := time.Now().Add(-time.Hour) // a Store caches no file that is a few seconds old
		if err := os.Chtimes(name, old, old); err != nil {
			return err
		}
	}
	return nil
}

// measureAll measures all servers of all tasks once a round, so that other work of
// the machine slows them alike. Every other round goes through the servers of a task
// backwards, so that no server is always first.
func (b *bench) measureAll(ctx context.Context, tasks []task) ([]*row, error) {
	var rows []*row
	var groups [][]*row // of the same task and connections
	for _, t := range tasks {
		if t.kind != put && b.wrk == "" {
			continue
		}
		for _, connections := range []int{1, 16} {
			at := len(rows)
			for _, p := range t.peers {
				rows = append(rows, &row{task: t, connections: connections, peer: p})
			}
			groups = append(groups, rows[at:])
		}
	}
	for round := range b.rounds {
		for _, group := range groups {
			order := slices.Clone(group)
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, r := range order {
				res, err := b.measure(ctx, r.task, r.peer, r.connections)
				if ctx.Err() != nil {
					return nil, errors.New("interrupted")
				}
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", r.task.name, r.peer.name, err)
				}
				r.results = append(r.results, res)
				b.log("round %d of %d: %s, %d connections, %s: %.0f/s, %v of CPU each", round+1, b.rounds, r.task.name, r.connections, r.peer.name, res.perSecond, res.cpu)
			}
			first := group[0].results[round]
			for _, r := range group {
				r.ratios = append(r.ratios, first.perSecond/r.results[round].perSecond)
				r.cpuRatios = append(r.cpuRatios, float64(r.results[round].cpu)/float64(first.cpu))
			}
		}
	}
	return rows, nil
}

// measure starts one server, checks what it does, and measures it. Each measurement
// has a new process, whose peak memory it reports.
func (b *bench) measure(ctx context.Context, t task, p peer, connections int) (result, error) {
	scratch, err := os.MkdirTemp(b.scratch, "server-")
	if err != nil {
		return result{}, err
	}
	defer truncateAll(scratch) // after the server has ended
	dir := b.images()
	if t.kind == put {
		dir = filepath.Join(scratch, "images")
		if err := os.Mkdir(dir, 0o777); err != nil {
			return result{}, err
		}
	}
	s, err := b.start(ctx, p, dir, scratch)
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	if t.kind == put {
		return b.put(ctx, t, p, s, dir, connections)
	}
	return b.get(ctx, t, p, s, scratch, connections)
}

// truncateAll frees the space of files but keeps their names until the run ends. An
// ext4 without a journal does not reuse the inode of a deleted file for minutes.
// Skipping thousands of them made it five times as slow to create a file.
func truncateAll(dir string) {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			err = os.Truncate(name, 0)
		}
		return err
	})
}

func (b *bench) start(ctx context.Context, p peer, dir, scratch string) (*server, error) {
	addr, command := "", append([]string(nil), b.onCore...)
	switch {
	case p.program == "":
		command = append(command, b.self, "-serve", p.name, "-dir", dir)
	case p.program == b.nginx:
		var err error
		if addr, err = freeAddr(); err != nil {
			return nil, err
		}
		conf, err := nginxConf(addr, dir, scratch)
		if err != nil {
			return nil, err
		}
		command = append(command, p.program, "-p", scratch, "-c", conf)
	case p.program == b.minio:
		var err error
		if addr, err = freeAddr(); err != nil {
			return nil, err
		}
		command = append(command, minioCommand(p.program, addr, scratch)...)
	default:
		command = append(command, p.program, "-addr", "127.0.0.1:0", "-dir", dir)
	}
	s, err := start(ctx, addr, command)
	if err == nil && p.layout == bucket {
		if err = fillBucket(ctx, b.curl, s, p, dir); err != nil {
			s.stop()
			return nil, fmt.Errorf("%w%s", err, s.logs)
		}
	}
	return s, err
}

// warmUp is the part of a measurement's time for which the load runs before it.
const warmUp = 5

func (b *bench) get(ctx context.Context, t task, p peer, s *server, scratch string, connections int) (result, error) {
	path := p.url(imageID(t.size))
	header, err := check(ctx, t, s, path)
	if err != nil {
		return result{}, err
	}
	status := http.StatusOK
	if t.kind == conditionalGet {
		status = http.StatusNotModified
	}
	if _, err := closedLoop(ctx, s.addr, connections, b.duration/warmUp, getRequest(s.addr, path, header), status); err != nil {
		return result{}, err
	}
	return s.timed(func() (result, error) {
		return runWrk(ctx, b.wrk, scratch, s.addr, path, header, connections, b.duration)
	})
}

// check fails unless the server sends the image. For a conditional GET it returns the
// header field that makes the server answer 304.
func check(ctx context.Context, t task, s *server, path string) (header string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+path, nil)
	if err != nil {
		return "", err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("got status %s, want 200: %.200s", resp.Status, body)
	case t.kind == conditionalGet:
		if etag := resp.Header.Get("ETag"); etag != "" {
			return "If-None-Match: " + etag, nil
		}
		return "If-Modified-Since: " + resp.Header.Get("Last-Modified"), nil
	case !bytes.Equal(body, noise(t.size)):
		return "", fmt.Errorf("got %d other bytes, want the image", len(body))
	}
	return "", nil
}

func (b *bench) put(ctx context.Context, t task, p peer, s *server, dir string, connections int) (result, error) {
	image := noise(t.size)
	request := putRequest(s.addr, p, image)
	statuses := []int{http.StatusCreated, http.StatusNoContent, http.StatusOK} // the last two are of replaced images
	if _, err := closedLoop(ctx, s.addr, connections, b.duration/warmUp, request, statuses...); err != nil {
		return result{}, err
	}
	// Another range of ids than in the warm-up, so that every PUT makes a new image.
	const measured = 500_000_000
	res, err := s.timed(func() (result, error) {
		return closedLoop(ctx, s.addr, connections, b.duration, func(n int64) net.Buffers { return request(n + measured) }, statuses...)
	})
	if err != nil {
		return result{}, err
	}
	if p.layout == bucket {
		_, err := check(ctx, t, s, p.url(putID(1+measured)))
		return res, err
	}
	stored, err := os.ReadFile(filepath.Join(dir, p.file(putID(1+measured))))
	if err == nil && !bytes.Equal(stored, image) {
		err = errors.New("the stored file is not the image")
	}
	return res, err
}
