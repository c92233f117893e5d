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

// goServers are the servers that this program can be, with the flag -serve.
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
	"imagestore, mounted":            func(dir string) (http.Handler, error) { return storeHandler(dir, nil) },
	"imagestore, NoSync":             func(dir string) (http.Handler, error) { return storeHandler(dir, &imagestore.Options{NoSync: true}) },
	"floor: from memory":             func(dir string) (http.Handler, error) { return memoryHandler(dir, nil) },
	"floor: as fresh":                freshMemoryHandler,
	"floor: only 304":                func(string) (http.Handler, error) { return http.HandlerFunc(notModified), nil },
	"floor: 304 as fresh":            freshNotModifiedHandler,
	"floor: PUT":                     putHandler(floor{sync: true}),
	"floor: PUT, verified":           putHandler(floor{sync: true, verified: true}),
	"floor: PUT, syncs as MinIO":     putHandler(floor{sync: true, noDirs: true}),
	"floor: PUT, no syncs":           putHandler(floor{}),
	"floor: PUT, verified, no syncs": putHandler(floor{verified: true}),
}

// storeHandler returns the handler that a service mounts.
func storeHandler(dir string, opts *imagestore.Options) (http.Handler, error) {
	store, err := imagestore.OpenDir(dir, opts)
	if err != nil {
		return nil, err
	}
	return imagestore.NewHandler(store, nil), nil
}

// memoryHandler returns a handler that serves the files of dir from memory, with the
// header fields in more. No net/http handler can do less for the same body.
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

// fresh returns a handler that stats the file before h answers. An answer from
// memory that is never stale takes at least that.
func fresh(dir string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(dir + r.URL.Path); err != nil {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// ownHeader returns the header of the Store's handler for a request for an image
// that has one header field. The answer must have the status.
func ownHeader(field, value string, status int) (http.Header, error) {
	fsys := afero.NewMemMapFs()
	if err := afero.WriteFile(fsys, "one/image", []byte("x"), 0o666); err != nil {
		return nil, err
	}
	own := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/images/one", nil)
	r.Header.Set(field, value)
	imagestore.NewHandler(imagestore.New(fsys, nil), nil).ServeHTTP(own, r)
	if own.Code != status {
		return nil, fmt.Errorf("got status %d from the handler, want %d", own.Code, status)
	}
	return own.Header(), nil
}

// freshMemoryHandler returns a memoryHandler that is never stale and sends the header
// of imaged. No net/http handler can do less for the same answer.
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

// freshNotModifiedHandler returns the same for an answer of 304.
func freshNotModifiedHandler(dir string) (http.Handler, error) {
	header, err := ownHeader("If-None-Match", "*", http.StatusNotModified)
	return fresh(dir, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		maps.Copy(w.Header(), header)
		notModified(w, r)
	})), err
}

func notModified(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"1"`)
	if r.Header.Get("If-None-Match") != "" {
		w.WriteHeader(http.StatusNotModified)
	}
}

// putHandler returns a constructor of a handler that stores bodies in a directory,
// as f does.
func putHandler(f floor) func(dir string) (http.Handler, error) {
	return func(dir string) (http.Handler, error) {
		f := f
		f.fs, f.root = afero.NewOsFs(), dir
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			err := imagestore.CheckID(id) // keeps requests inside dir
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

// serve runs one of goServers until ctx is done, for the flag -serve.
func serve(ctx context.Context, name, dir string, stdout io.Writer) error {
	if goServers[name] == nil {
		return fmt.Errorf("-serve is %q, which is not the name of a server of this program", name)
	}
	handler, err := goServers[name](dir)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// The deadlines are like those of imaged. A public server needs them, and they
	// cost some 7 %.
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

// A server is a process that serves a directory of images.
type server struct {
	addr string // host:port
	cmd  *exec.Cmd
	logs *strings.Builder // complete once the process has ended
}

var listening = regexp.MustCompile(`http://(127\.0\.0\.1:\d+)`)

// start runs a program and waits until it listens. The program prints its address,
// unless addr names it.
func start(ctx context.Context, addr string, command []string) (*server, error) {
	s := &server{addr: addr, logs: new(strings.Builder)}
	s.cmd = exec.CommandContext(ctx, command[0], command[1:]...)
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 5 * time.Second // after that it is killed
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
	_ = s.cmd.Wait() // the signal is its error
}

// processes returns the ids of the server's process and of its children.
func (s *server) processes() []string {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	children, _ := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
	return append(strings.Fields(string(children)), pid)
}

var highWater = regexp.MustCompile(`VmHWM:\s+(\d+) kB`)

// peak returns the peak memory of the server, in bytes.
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

// cpu returns the processor time of the server so far. On a machine with other work
// it varies less than requests a second.
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

// timed runs load and adds the cost to the server to its result.
func (s *server) timed(load func() (result, error)) (result, error) {
	before := s.cpu()
	res, err := load()
	if err == nil {
		res.cpu = (s.cpu() - before) / time.Duration(res.requests)
		res.peak = s.peak()
	}
	return res, err
}

// nginxConf writes a configuration that serves dir at addr, and returns its name.
// nginx keeps its own files in scratch.
func nginxConf(addr, dir, scratch string) (string, error) {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the images belong to root
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

// The credentials of a MinIO on loopback whose bucket is public.
const minioUser, minioPassword = "imagestore", "imagestore"

// minioCommand returns the command of a MinIO with one drive, in scratch, at addr.
func minioCommand(program, addr, scratch string) []string {
	return []string{"env", "MINIO_ROOT_USER=" + minioUser, "MINIO_ROOT_PASSWORD=" + minioPassword,
		"MINIO_CI_CD=1", // allows a drive on the root filesystem
		"MINIO_UPDATE=off", "MINIO_BROWSER=off",
		program, "server", "--quiet", "--config-dir", filepath.Join(scratch, "config"), "--address", addr, filepath.Join(scratch, "drive")}
}

const publicBucket = `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
	"Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::images/*"}]}`

// fillBucket makes a public bucket and uploads the images of dir to it. A public
// bucket spares the load the signatures, which are not measured. curl signs the
// requests that make the bucket.
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
	// MinIO listens before it is ready, and even then its /ready answers 200.
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
			err = do(p.url(image.Name()), "-T", filepath.Join(dir, image.Name(), "image"))
		}
	}
	return err
}

// freeAddr returns an address on loopback that was free a moment ago.
func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
