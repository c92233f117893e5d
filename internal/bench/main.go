// Bench measures imaged over HTTP beside what one might use instead and beside
// floors: servers that do the least that can be done for the same answer.
//
// It starts all of them itself, one at a time, on the same files, the server on
// one core and the load on another, in rounds, and prints a table of medians.
package main

import (
	"bytes"
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
	flags.IntVar(&b.rounds, "rounds", 5, "measure everything this many `times` and take medians")
	flags.DurationVar(&b.duration, "duration", 2*time.Second, "load a server for this long in each round")
	dir := flags.String("dir", os.TempDir(), "keep the images in a temporary directory in this `directory`; the\nfilesystem that it is on is part of what is measured")
	imaged := flags.String("imaged", "", "measure these `programs`, separated by commas, instead of building imaged;\nthe first is the one that all others are compared with")
	minio := flags.String("minio", "minio", "measure MinIO with this `program`, if it is there")
	only := flags.String("run", ".", "measure only work that matches this `expression`, such as 'GET 8 KiB'")
	table := flags.String("table", "", "write the table to this `file` too")
	chart := flags.String("svg", "", "write a bar chart to this `file`")
	serverCPU := flags.Int("server-cpu", 0, "run the servers on this `core`")
	loadCPU := flags.Int("load-cpu", 1, "run the load on this `core`; -1: pin nothing")
	name := flags.String("serve", "", "be the server of this `name`, for the program's own use")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *name != "" {
		return serve(ctx, *name, *dir, stdout)
	}
	matching, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	if b.rounds < 1 || b.duration <= 0 {
		return errors.New("-rounds and -duration must be positive")
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
	builds := strings.FieldsFunc(*imaged, func(r rune) bool { return r == ',' })
	if len(builds) == 0 {
		build, err := buildImaged(ctx, b.scratch)
		if err != nil {
			return err
		}
		builds = []string{build}
	}
	if err := b.makeImages(); err != nil {
		return err
	}
	rows, err := b.measureAll(ctx, tasks(builds, b.nginx, b.minio), matching)
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

// buildImaged builds the imaged of this tree, as its users do.
func buildImaged(ctx context.Context, scratch string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/ba692904/imagestore").Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w (run this in its own directory, or give -imaged)", err)
	}
	program := filepath.Join(scratch, "imaged")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, "./cmd/imaged")
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
}

// A bench is one run of this program.
type bench struct {
	rounds   int
	duration time.Duration
	scratch  string   // a directory of our own
	self     string   // this program
	wrk      string   // "" where it is missing
	nginx    string   // "" where it is missing
	minio    string   // "" where it or curl is missing
	curl     string   // "" where MinIO is missing
	onCore   []string // what puts a server on its core
	pinned   string   // how servers and load are spread, for the report
	notes    []string // what was left out, and why, and what else to know
	log      func(format string, args ...any)
}

// find looks for a program that we do not come with.
func (b *bench) find(program, without string) string {
	// Debian has daemons where only root's PATH looks.
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	b.notes = append(b.notes, fmt.Sprintf("%s is not installed: %s.", program, without))
	b.log("%s", b.notes[len(b.notes)-1])
	return ""
}

// findMinIO looks for MinIO and for curl, which makes its bucket.
func (b *bench) findMinIO(program string) {
	if b.minio = b.find(program, "it is left out"); b.minio == "" {
		return
	}
	if b.curl = b.find("curl", "MinIO, whose bucket it would make, is left out"); b.curl == "" {
		b.minio = ""
		return
	}
	b.notes = append(b.notes, "MinIO syncs its files but not the directories that they are in: images that it has answered for may be gone after a power cut.")
}

// pin keeps the servers and the load from taking each other's time. This
// process moves to the load's core and takes wrk with it.
func (b *bench) pin(serverCPU, loadCPU int) {
	b.pinned = "servers and load on whatever core was free"
	if loadCPU < 0 {
		return
	}
	out, err := exec.Command("taskset", "-a", "-c", "-p", strconv.Itoa(loadCPU), strconv.Itoa(os.Getpid())).CombinedOutput()
	if err != nil {
		b.notes = append(b.notes, fmt.Sprintf("taskset could not pin anything: %v. %s", err, bytes.TrimSpace(out)))
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
		name := filepath.Join(dir, "image.png")
		if err := os.WriteFile(name, noise(size), 0o666); err != nil {
			return err
		}
		old := time.Now().Add(-time.Hour) // as most images are when they are read
		if err := os.Chtimes(name, old, old); err != nil {
			return err
		}
	}
	return nil
}

// measureAll goes round after round through all tasks and servers, so that
// what else the machine does meets all of them alike.
func (b *bench) measureAll(ctx context.Context, tasks []task, matching *regexp.Regexp) ([]*row, error) {
	var rows []*row
	for round := range b.rounds {
		i := 0
		for _, t := range tasks {
			if !matching.MatchString(t.name) || t.kind != put && b.wrk == "" {
				continue
			}
			for _, connections := range []int{1, 16} {
				var first *row
				for _, p := range t.peers {
					if round == 0 {
						rows = append(rows, &row{task: t, connections: connections, peer: p})
					}
					r := rows[i]
					i++
					if first == nil {
						first = r
					}
					res, err := b.measure(ctx, t, p, connections)
					if ctx.Err() != nil {
						return nil, errors.New("interrupted")
					}
					if err != nil {
						return nil, fmt.Errorf("%s, %s: %w", t.name, p.name, err)
					}
					r.results = append(r.results, res)
					r.ratios = append(r.ratios, first.results[round].perSecond/res.perSecond)
					r.cpuRatios = append(r.cpuRatios, float64(res.cpu)/float64(first.results[round].cpu))
					b.log("round %d of %d: %s, %d connections, %s: %.0f/s, %v of CPU each", round+1, b.rounds, t.name, connections, p.name, res.perSecond, res.cpu)
				}
			}
		}
	}
	return rows, nil
}

// measure starts one server, makes sure that it does what it should, and loads
// it. Every measurement has a process of its own, for its memory's sake.
func (b *bench) measure(ctx context.Context, t task, p peer, connections int) (result, error) {
	scratch, err := os.MkdirTemp(b.scratch, "server-")
	if err != nil {
		return result{}, err
	}
	defer truncateAll(scratch) // once the server has ended
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

// truncateAll gives back the space that images take, but leaves their names to
// the end of the run: an ext4 without a journal does not use an inode again for
// minutes after it was deleted, and passing over thousands of those made creating
// a file five times as slow for whoever came next.
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

// The part of a measurement's time that the load runs before it, unmeasured.
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

// check makes sure that the image comes, and returns the header field to send
// along: for a conditional GET the condition that is not met, by ETag if the
// server has any.
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
		return "", fmt.Errorf("the server answers %s: %.200s", resp.Status, body)
	case t.kind == conditionalGet:
		if etag := resp.Header.Get("ETag"); etag != "" {
			return "If-None-Match: " + etag, nil
		}
		return "If-Modified-Since: " + resp.Header.Get("Last-Modified"), nil
	case !bytes.Equal(body, noise(t.size)):
		return "", fmt.Errorf("the server answers %d bytes that are not the image", len(body))
	}
	return "", nil
}

func (b *bench) put(ctx context.Context, t task, p peer, s *server, dir string, connections int) (result, error) {
	image := noise(t.size)
	request := putRequest(s.addr, p, image)
	statuses := []int{http.StatusCreated, http.StatusNoContent, http.StatusOK} // the last two for what is replaced
	if _, err := closedLoop(ctx, s.addr, connections, b.duration/warmUp, request, statuses...); err != nil {
		return result{}, err
	}
	// Not those of the warm-up again: every PUT makes a new image.
	const others = 500_000_000
	res, err := s.timed(func() (result, error) {
		return closedLoop(ctx, s.addr, connections, b.duration, func(n int64) net.Buffers { return request(n + others) }, statuses...)
	})
	if err != nil {
		return result{}, err
	}
	if p.layout == bucket { // in files that only the server can read
		_, err := check(ctx, t, s, p.url(putID(1+others)))
		return res, err
	}
	stored, err := os.ReadFile(filepath.Join(dir, p.file(putID(1+others))))
	if err == nil && !bytes.Equal(stored, image) {
		err = errors.New("what the server stored is not the image")
	}
	return res, err
}
