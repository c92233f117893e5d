package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
	"golang.org/x/net/webdav"
)

// goServers are the servers that this program is itself, with the flag -serve.
var goServers = map[string]func(dir string) (http.Handler, error){
	"http.FileServer": func(dir string) (http.Handler, error) {
		return http.FileServer(http.Dir(dir)), nil
	},
	"afero.HttpFs": func(dir string) (http.Handler, error) {
		return http.FileServer(afero.NewHttpFs(afero.NewBasePathFs(afero.NewOsFs(), dir))), nil
	},
	"x/net/webdav": func(dir string) (http.Handler, error) {
		return &webdav.Handler{FileSystem: webdav.Dir(dir), LockSystem: webdav.NewMemLS()}, nil
	},
	"imagestore, mounted": func(dir string) (http.Handler, error) { return storeHandler(dir, nil), nil },
	"imagestore, NoSync": func(dir string) (http.Handler, error) {
		return storeHandler(dir, &imagestore.Options{NoSync: true}), nil
	},
	"floor: from memory":           func(dir string) (http.Handler, error) { return memoryHandler(dir, nil) },
	"floor: as fresh":              freshMemoryHandler,
	"floor: only 304":              func(string) (http.Handler, error) { return http.HandlerFunc(notModified), nil },
	"floor: 304 as fresh":          freshNotModifiedHandler,
	"floor: PUT":                   putHandler(floor{sync: true}),
	"floor: PUT, proven":           putHandler(floor{sync: true, proven: true}),
	"floor: PUT, syncs as MinIO":   putHandler(floor{sync: true, noDirs: true}),
	"floor: PUT, no syncs":         putHandler(floor{}),
	"floor: PUT, proven, no syncs": putHandler(floor{proven: true}),
}

// storeHandler is what a service mounts.
func storeHandler(dir string, opts *imagestore.Options) http.Handler {
	return imagestore.NewHandler(imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), dir), opts), nil)
}

// memoryHandler writes the same bytes as a server of files does: the most that
// any net/http handler can do that has no more to say in its header.
func memoryHandler(dir string, more http.Header) (http.Handler, error) {
	content := map[string][]byte{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err == nil {
			content["/"+filepath.ToSlash(rel)], err = os.ReadFile(name)
		}
		return err
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		image, ok := content[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Length", strconv.Itoa(len(image)))
		maps.Copy(w.Header(), more)
		w.Write(image)
	}), err
}

// fresh looks at a file before it lets a handler answer: the least that is
// needed to know that what is in memory has not been replaced or deleted.
func fresh(dir string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(dir + r.URL.Path); err != nil {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ownHeader returns the header of imaged's answer, with this status, to a request
// for an image with this header field.
func ownHeader(field, value string, status int) (http.Header, error) {
	fsys := afero.NewMemMapFs()
	if err := afero.WriteFile(fsys, "one/image.png", []byte("x"), 0o666); err != nil {
		return nil, err
	}
	own := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/images/one", nil)
	r.Header.Set(field, value)
	imagestore.NewHandler(imagestore.New(fsys, nil), nil).ServeHTTP(own, r)
	if own.Code != status {
		return nil, fmt.Errorf("the handler answers %d", own.Code)
	}
	return own.Header(), nil
}

// freshMemoryHandler is a memoryHandler that is never stale and whose answers
// have the header that imaged's have too: the most that any net/http handler
// can do that answers the same.
func freshMemoryHandler(dir string) (http.Handler, error) {
	header, err := ownHeader("Accept", "image/png", http.StatusOK)
	if err != nil {
		return nil, err
	}
	header.Del("Content-Type")
	header.Del("Content-Length")
	h, err := memoryHandler(dir, header)
	return fresh(dir, h), err
}

// freshNotModifiedHandler is the same for 304.
func freshNotModifiedHandler(dir string) (http.Handler, error) {
	header, err := ownHeader("If-None-Match", "*", http.StatusNotModified)
	return fresh(dir, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), header)
		notModified(w, r)
	})), err
}

func notModified(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`) // so that there is something to ask with
	if r.Header.Get("If-None-Match") != "" {
		w.WriteHeader(http.StatusNotModified)
	}
}

// putHandler stores bodies as f does, in a directory to be named: the least that
// a PUT can do for the same promise.
func putHandler(f floor) func(dir string) (http.Handler, error) {
	return func(dir string) (http.Handler, error) {
		f := f
		f.fs, f.root = afero.NewOsFs(), dir
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			err := imagestore.CheckID(id) // for safety, not for the measurement
			if err == nil && r.Method == http.MethodPut {
				err = f.put(id, r.Body)
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusCreated)
		}), f.init()
	}
}

// serve is this program as one of its own peers, until ctx is done.
func serve(ctx context.Context, name, dir string, stdout io.Writer) error {
	if goServers[name] == nil {
		return fmt.Errorf("-serve %q: there is no such server", name)
	}
	handler, err := goServers[name](dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// Those of imaged: nobody serves strangers without, and they cost some 7 %.
	const timeout = 30 * time.Second
	server := &http.Server{Handler: handler, ReadHeaderTimeout: timeout, ReadTimeout: timeout, WriteTimeout: timeout, IdleTimeout: timeout}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	fmt.Fprintf(stdout, "listening on http://%s\n", ln.Addr())
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// A server is a process that serves the images of a directory.
type server struct {
	addr string // host:port
	cmd  *exec.Cmd
	logs *strings.Builder // complete once the process has ended
}

var listening = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)

// start runs a program that says on its standard output where it listens,
// unless addr says it already.
func start(ctx context.Context, addr string, command []string) (*server, error) {
	s := &server{addr: addr, logs: new(strings.Builder)}
	s.cmd = exec.CommandContext(ctx, command[0], command[1:]...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 5 * time.Second // and then it is killed
	s.cmd.Stderr = s.logs
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if addr == "" {
		line, _ := bufio.NewReader(stdout).ReadString('\n')
		if found := listening.FindStringSubmatch(line); found != nil {
			s.addr = found[1]
			return s, nil
		}
	} else {
		for range 500 {
			conn, err := net.Dial("tcp", addr)
			if err == nil {
				return s, conn.Close()
			}
			if ctx.Err() != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen: %s", filepath.Base(command[0]), s.logs)
}

// stop ends the process and waits for its end.
func (s *server) stop() {
	_ = s.cmd.Cancel()
	killer := time.AfterFunc(s.cmd.WaitDelay, func() { _ = s.cmd.Process.Kill() })
	defer killer.Stop()
	_ = s.cmd.Wait() // that it did not like to be stopped is nothing to report
}

// processes returns the ids of the server's process and of those it started.
func (s *server) processes() []string {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	return append(strings.Fields(string(children)), pid)
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak returns the most memory, in bytes, that the server ever held.
func (s *server) peak() (bytes int64) {
	for _, pid := range s.processes() {
		status, _ := os.ReadFile("/proc/" + pid + "/status")
		if found := highWater.FindSubmatch(status); found != nil {
			kilobytes, _ := strconv.ParseInt(string(found[1]), 10, 64)
			bytes += kilobytes << 10
		}
	}
	return bytes
}

// cpu returns how long the server has had a core for itself: on a machine that
// others use too, it tells more than how much was done in a second.
func (s *server) cpu() (total time.Duration) {
	for _, pid := range s.processes() {
		threads, _ := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
		for _, thread := range threads {
			stat, _ := os.ReadFile(thread)
			var ns time.Duration
			_, _ = fmt.Sscan(string(stat), &ns)
			total += ns
		}
	}
	return total
}

// timed adds to what load finds what it costs the server.
func (s *server) timed(load func() (result, error)) (result, error) {
	before := s.cpu()
	res, err := load()
	if err == nil {
		res.cpu = (s.cpu() - before) / time.Duration(res.requests)
		res.peak = s.peak()
	}
	return res, err
}

// nginxConf writes a configuration that serves dir at addr, with its own files
// in scratch, and returns its name.
func nginxConf(addr, dir, scratch string) (string, error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the files are ours
	}
	conf := fmt.Sprintf(`
%s
daemon off;
worker_processes 1;
pid %[2]s/nginx.pid;
error_log stderr;
events { worker_connections 1024; }
http {
	access_log off;
	types { image/png png; }
	sendfile on;
	keepalive_timeout 120s;
	keepalive_requests 1000000000;
	client_max_body_size 0;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	server {
		listen %[3]s;
		root %[4]s;
		location / {
			dav_methods PUT;
			create_full_put_path on;
		}
	}
}
`, user, scratch, addr, dir)
	name := filepath.Join(scratch, "nginx.conf")
	return name, os.WriteFile(name, []byte(conf), 0o666)
}

// Nothing secret: all that a MinIO holds here is in a public bucket.
const minioUser, minioPassword = "imagestore", "imagestore"

// minioCommand returns what runs a MinIO of one node at addr, with its one
// drive, empty as yet, in scratch.
func minioCommand(program, addr, scratch string) []string {
	return []string{"env", "MINIO_ROOT_USER=" + minioUser, "MINIO_ROOT_PASSWORD=" + minioPassword,
		"MINIO_CI_CD=1", // lets a drive be a directory of the root filesystem
		"MINIO_UPDATE=off", "MINIO_BROWSER=off",
		program, "server", "--quiet", "--config-dir", filepath.Join(scratch, "config"), "--address", addr, filepath.Join(scratch, "drive")}
}

const publicBucket = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
	"Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::images/*"}]}`

// fillBucket makes a bucket that needs no signatures, which are not what is
// measured, and uploads the images of dir to it. curl signs what does need it.
func fillBucket(ctx context.Context, curl string, s *server, p peer, dir string) error {
	do := func(path string, args ...string) error {
		args = append([]string{"--noproxy", "*", "-sSf", "-o", os.DevNull, "-m", "30", "--retry", "5", "http://" + s.addr + path}, args...)
		if out, err := exec.CommandContext(ctx, curl, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("curl %s: %w: %s", path, err, out)
		}
		return nil
	}
	signedPut := func(path, body string) error {
		return do(path, "-X", "PUT", "--data-binary", body, "--aws-sigv4", "aws:amz:us-east-1:s3",
			"--user", minioUser+":"+minioPassword, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD")
	}
	// MinIO listens before it is ready; its /ready answers 200 even then.
	if err := do("/minio/health/cluster"); err != nil {
		return err
	}
	if err := signedPut("/images", ""); err != nil {
		return err
	}
	if err := signedPut("/images?policy=", publicBucket); err != nil {
		return err
	}
	images, err := os.ReadDir(dir)
	for _, image := range images {
		if err == nil {
			err = do(p.url(image.Name()), "-T", filepath.Join(dir, image.Name(), "image.png"))
		}
	}
	return err
}

// freeAddr returns a loopback address that nobody listens on at the moment.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
