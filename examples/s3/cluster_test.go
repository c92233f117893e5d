package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore/storetest"
)

// TestCluster has two servers work on one bucket of a cluster that cluster.sh
// has started, each through another node.
func TestCluster(t *testing.T) {
	c := &cluster{nodes: strings.Fields(os.Getenv("S3_ENDPOINTS")), dir: os.Getenv("S3_CLUSTER")}
	if len(c.nodes) < 3 || c.dir == "" {
		t.Skip("there is no cluster: run ./cluster.sh go test ./...")
	}
	c.imaged = filepath.Join(t.TempDir(), "imaged")
	if out, err := exec.Command("go", "build", "-o", c.imaged, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	prefix := newPrefix()
	servers := []*server{start(t, c, c.nodes[0], prefix), start(t, c, c.nodes[1], prefix)}

	for i, s := range servers {
		t.Run(fmt.Sprint("contract of server ", i), func(t *testing.T) { storetest.TestHandler(t, s.url, nil) })
	}
	t.Run("one sees what the other does", func(t *testing.T) { testBothSee(t, servers) })
	t.Run("of many one creates", func(t *testing.T) { testOneCreates(t, servers) })
	t.Run("no update is lost", func(t *testing.T) { testNoneLost(t, servers) })
	t.Run("clients hang up", func(t *testing.T) { testHangUp(t, servers) })
	t.Run("delete under a condition", func(t *testing.T) { testConditionalDelete(t, servers) })
	t.Run("a node is killed", func(t *testing.T) { testNodeKilled(t, c, servers) })
	t.Run("the engine is away", func(t *testing.T) { testEngineAway(t, c) })
}

// A cluster is one that cluster.sh has started. Node n, from 1, has the URL
// nodes[n-1].
type cluster struct {
	nodes  []string
	dir    string
	imaged string // the path of the real binary
}

// kill ends a node as a failing machine does.
func (c *cluster) kill(t *testing.T, n int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, strconv.Itoa(n), "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Kill()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// restart brings a node back that was killed. It outlives the test, as the
// cluster does.
func (c *cluster) restart(t *testing.T, n int) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.dir, strconv.Itoa(n), "start"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
}

// healthy waits until every node says that the cluster is well.
func (c *cluster) healthy(t *testing.T) {
	t.Helper()
	for _, node := range c.nodes {
		eventually(t, func() error {
			resp, err := http.Get(node + "/minio/health/cluster")
			if err != nil {
				return err
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s says of its health %s", node, resp.Status)
			}
			return nil
		})
	}
}

// eventually waits until what should be so is so. Longer than anything else
// takes MinIO to let go of what a node that died had locked: two minutes.
func eventually(t *testing.T, so func() error) {
	t.Helper()
	const often, enough = 50 * time.Millisecond, 4 * time.Minute
	deadline := time.After(enough)
	tick := time.NewTicker(often)
	defer tick.Stop()
	for {
		err := so()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("after %v still: %v", enough, err)
		}
	}
}

var prefixes atomic.Int64

// newPrefix returns one that nobody has used, also not in an earlier run.
func newPrefix() string {
	return fmt.Sprintf("%d-%d", time.Now().UnixNano(), prefixes.Add(1))
}

// A server is a running imaged.
type server struct {
	*exec.Cmd
	url    string
	client *http.Client
	stderr bytes.Buffer
}

func start(t *testing.T, c *cluster, endpoint, prefix string) *server {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	s := &server{
		Cmd:    exec.Command(c.imaged, "-addr", "127.0.0.1:0", "-endpoint", endpoint, "-bucket", os.Getenv("S3_BUCKET"), "-prefix", prefix),
		client: &http.Client{Transport: transport, Timeout: time.Minute},
	}
	s.Cmd.Stderr = &s.stderr
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Process.Signal(os.Interrupt)
		err := s.Wait()
		if err != nil || t.Failed() {
			t.Errorf("imaged on %s ends with %v and has said:\n%s", endpoint, err, lastLines(s.stderr.String(), 10))
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	m := regexp.MustCompile(`^imaged: listening on (http://127\.0\.0\.1:\d+), storing in .*\n$`).FindStringSubmatch(line)
	if err != nil || m == nil {
		t.Fatalf("imaged says %q, %v", line, err)
	}
	s.url = m[1]
	return s
}

func lastLines(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// A reply is what a server has answered.
type reply struct {
	status int
	etag   string
	code   string
	body   []byte
}

// do sends a request for an image, or for the list if id is "". Whatever it is
// about, the servers themselves are well: what they cannot do for want of the
// engine they say, and how long to wait.
func (s *server) do(t *testing.T, method, id string, body []byte, header ...string) (reply, error) {
	t.Helper()
	url := s.url + "/images"
	if id != "" {
		url += "/" + id
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Errorf("%s of %q is not answered: %v", method, id, err)
		return reply{}, err
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, etag: resp.Header.Get("ETag"), code: resp.Header.Get("Imagestore-Error")}
	r.body, err = io.ReadAll(resp.Body)
	switch {
	case r.status == http.StatusServiceUnavailable && (r.code != "unavailable" || resp.Header.Get("Retry-After") == ""):
		t.Errorf("%s of %q: 503 with the code %q and Retry-After %q", method, id, r.code, resp.Header.Get("Retry-After"))
	case r.status >= 500 && r.status != http.StatusServiceUnavailable && r.status != http.StatusNotImplemented:
		t.Errorf("%s of %q is answered %d: %s", method, id, r.status, r.body)
	}
	return r, err
}

// want is do where the engine is well too.
func (s *server) want(t *testing.T, status int, method, id string, body []byte, header ...string) reply {
	t.Helper()
	r, err := s.do(t, method, id, body, header...)
	if err != nil || r.status != status {
		t.Fatalf("%s of %q is answered %d, %v, not %d: %.300s", method, id, r.status, err, status, r.body)
	}
	return r
}

// list returns the ETags of all images by id.
func (s *server) list(t *testing.T) map[string]string {
	t.Helper()
	etags := make(map[string]string)
	for after := ""; ; {
		resp, err := s.client.Get(s.url + "/images?limit=1000&after=" + after)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			Images []struct{ ID, ETag string }
			Next   string
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the list is answered %s, %v", resp.Status, err)
		}
		for _, img := range page.Images {
			etags[img.ID] = img.ETag
		}
		if after = page.Next; after == "" {
			return etags
		}
	}
}

// picture returns the PNG with this number: of 40 to 240 KB, as MinIO keeps
// large and small objects in different ways.
func picture(n uint64) []byte { return numbered(n, 80+int(n*37%400)) }

func numbered(n uint64, height int) []byte {
	img := image.NewGray(image.Rect(0, 0, 512, height))
	binary.BigEndian.PutUint64(img.Pix, n)
	for i := 8; i < len(img.Pix); i++ {
		img.Pix[i] = byte(n)
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression}
	if err := enc.Encode(&b, img); err != nil {
		panic(err) // a Buffer never fails
	}
	return b.Bytes()
}

func number(t *testing.T, b []byte) uint64 {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		t.Error(err)
		return 0
	}
	return binary.BigEndian.Uint64(img.(*image.Gray).Pix)
}

// testBothSee demands that a change through one server is there for the other
// as soon as it is answered.
func testBothSee(t *testing.T, servers []*server) {
	for n := range uint64(20) {
		one, other := servers[n%2], servers[1-n%2]
		b := picture(n)
		status := http.StatusCreated
		if n%5 > 0 {
			status = http.StatusOK
		}
		put := one.want(t, status, "PUT", "seen", b)
		if got := other.want(t, http.StatusOK, "GET", "seen", nil); !bytes.Equal(got.body, b) || got.etag != put.etag {
			t.Fatalf("one server puts %d bytes, ETag %s; the other has %d bytes, ETag %s", len(b), put.etag, len(got.body), got.etag)
		}
		if etag := other.list(t)["seen"]; etag != put.etag {
			t.Fatalf("one server puts ETag %s, the other lists %q", put.etag, etag)
		}
		if n%5 < 4 {
			continue
		}
		one.want(t, http.StatusNoContent, "DELETE", "seen", nil)
		other.want(t, http.StatusNotFound, "GET", "seen", nil)
		if etag, ok := other.list(t)["seen"]; ok {
			t.Fatalf("one server deletes, the other lists %s", etag)
		}
	}
}

// testOneCreates has many create the same image at once through both servers.
func testOneCreates(t *testing.T, servers []*server) {
	const rounds, writers = 10, 12
	for round := range uint64(rounds) {
		id := fmt.Sprint("new-", round)
		var replies [writers]reply
		var all sync.WaitGroup
		ready := make(chan struct{})
		for w := range replies {
			all.Go(func() {
				b := picture(round*writers + uint64(w))
				<-ready
				replies[w], _ = servers[w%2].do(t, "PUT", id, b, "If-None-Match", "*")
			})
		}
		close(ready)
		all.Wait()
		winner := -1
		for w, r := range replies {
			switch {
			case r.status == http.StatusCreated && winner < 0:
				winner = w
			case r.status != http.StatusPreconditionFailed:
				t.Errorf("round %d: writer %d is answered %d %s", round, w, r.status, r.body)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: nobody has created the image", round)
		}
		for _, s := range servers {
			got := s.want(t, http.StatusOK, "GET", id, nil)
			if !bytes.Equal(got.body, picture(round*writers+uint64(winner))) || got.etag != replies[winner].etag {
				t.Errorf("round %d: there is not what the winner has put", round)
			}
		}
	}
}

// testNoneLost has many count in one image at once, each time reading through
// one server and writing, if nobody else has meanwhile, through either.
func testNoneLost(t *testing.T, servers []*server) {
	const writers, each = 8, 5
	small := func(n uint64) []byte { return numbered(n, 1) }
	servers[0].want(t, http.StatusCreated, "PUT", "count", small(0))
	var all sync.WaitGroup
	var refused atomic.Int64
	for w := range writers {
		all.Go(func() {
			for i, done := w, 0; done < each; i++ {
				was, err := servers[i%2].do(t, "GET", "count", nil)
				if err != nil || was.status != http.StatusOK {
					t.Errorf("GET is answered %d, %v", was.status, err)
					return
				}
				n := number(t, was.body)
				switch r, _ := servers[i/2%2].do(t, "PUT", "count", small(n+1), "If-Match", was.etag); r.status {
				case http.StatusOK:
					done++
				case http.StatusPreconditionFailed:
					refused.Add(1)
				default:
					t.Errorf("PUT with If-Match is answered %d %s", r.status, r.body)
					return
				}
			}
		})
	}
	all.Wait()
	for _, s := range servers {
		if n := number(t, s.want(t, http.StatusOK, "GET", "count", nil).body); n != writers*each {
			t.Errorf("%d updates were acknowledged, %d are there", writers*each, n)
		}
	}
	if refused.Load() == 0 {
		t.Error("no writer ever met another: nothing was tested")
	}
	t.Logf("%d updates, %d refused", writers*each, refused.Load())
}

// testHangUp has clients go away while they replace an image: it is the old one
// or a new one then, but never gone.
func testHangUp(t *testing.T, servers []*server) {
	const goroutines, rounds, longest = 4, 50, 40 * time.Millisecond
	var all sync.WaitGroup
	var cut atomic.Int64
	for g := range uint64(goroutines) {
		all.Go(func() {
			id := fmt.Sprint("cut-", g)
			s, other := servers[g%2], servers[1-g%2]
			unanswered := make(map[state]bool) // which may come late, too
			for n := range uint64(rounds) {
				before, after := picture(2*n), picture(2*n+1)
				unanswered[sha256.Sum256(after)] = true
				if r, err := s.do(t, "PUT", id, before); err != nil || r.status >= 300 {
					t.Errorf("PUT is answered %d, %v: %s", r.status, err, r.body)
				}
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(longest))
				req, err := http.NewRequestWithContext(ctx, "PUT", s.url+"/images/"+id, bytes.NewReader(after))
				if err != nil {
					t.Error(err)
				}
				if resp, err := s.client.Do(req); err != nil {
					cut.Add(1)
				} else {
					resp.Body.Close()
				}
				cancel()
				r, err := other.do(t, "GET", id, nil)
				if err != nil || r.status != http.StatusOK || !bytes.Equal(r.body, before) && !unanswered[sha256.Sum256(r.body)] {
					t.Errorf("round %d: GET is answered %d, %v, %d bytes, which are neither the old image nor a new one", n, r.status, err, len(r.body))
				}
			}
		})
	}
	all.Wait()
	if cut.Load() == 0 {
		t.Error("every client got its answer: nothing was tested")
	}
	t.Logf("%d of %d clients hung up", cut.Load(), goroutines*rounds)
}

func testConditionalDelete(t *testing.T, servers []*server) {
	old := servers[0].want(t, http.StatusCreated, "PUT", "kept", picture(1))
	now := servers[1].want(t, http.StatusOK, "PUT", "kept", picture(2))
	for _, s := range servers {
		s.want(t, http.StatusPreconditionFailed, "DELETE", "kept", nil, "If-Match", old.etag)
		if r := s.want(t, http.StatusNotImplemented, "DELETE", "kept", nil, "If-Match", now.etag); r.code != "unsupported" {
			t.Errorf("DELETE with If-Match is answered with the code %q", r.code)
		}
		if got := s.want(t, http.StatusOK, "GET", "kept", nil); !bytes.Equal(got.body, picture(2)) || got.etag != now.etag {
			t.Error("a DELETE that was refused has changed something")
		}
	}
}

// A state is what is stored under an id: the sum of an image, zero for none.
type state [sha256.Size]byte

// stateOf returns the state that a GET has found, unless it has found out
// nothing.
func stateOf(r reply, err error) (state, bool) {
	switch {
	case err == nil && r.status == http.StatusOK:
		return sha256.Sum256(r.body), true
	case r.status == http.StatusNotFound:
		return state{}, true
	}
	return state{}, false
}

// testNodeKilled kills the node that one of the servers works through while
// both are busy, and brings it back.
func testNodeKilled(t *testing.T, c *cluster, servers []*server) {
	const goroutines, ids, node, away, here = 8, 4, 2, 1, 0
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var pictures atomic.Uint64
	next := func() ([]byte, state) {
		b := picture(pictures.Add(1))
		return b, sha256.Sum256(b)
	}
	// What may be stored: one state, and those of changes since that may have
	// been made, but whose answer was 503. Each image but the first is changed by
	// one goroutine, so that it is known what came last.
	possible := make([]map[string][]state, 1+goroutines)
	for g := range possible {
		possible[g] = make(map[string][]state)
		for i := range ids {
			b, is := next()
			id := fmt.Sprintf("%c%d", 'a'+g, i)
			servers[g%2].want(t, http.StatusCreated, "PUT", id, b)
			possible[g][id] = []state{is}
		}
	}
	stable := possible[0]

	// A count is of requests to one server that went well or did not.
	type count struct {
		server int
		change bool
		ok     bool
	}
	counted := make(chan count)
	// For a moment after a node has come back, MinIO may answer from what that
	// node had when it went.
	var rejoining atomic.Bool
	var stale atomic.Int64
	wrong := func(format string, args ...any) {
		t.Helper()
		if rejoining.Load() {
			stale.Add(1)
			return
		}
		t.Errorf(format, args...)
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	stopAll := sync.OnceFunc(func() {
		close(stop)
		all.Wait()
	})
	defer stopAll()
	for g := 1; g <= goroutines; g++ {
		r := rand.New(rand.NewPCG(seed, uint64(g)))
		all.Go(func() {
			for {
				own := possible[g]
				id := fmt.Sprintf("%c%d", 'a'+g, r.IntN(ids))
				states := own[id]
				did := count{server: r.IntN(2)}
				s := servers[did.server]
				switch r.IntN(4) {
				case 0:
					id = fmt.Sprintf("a%d", r.IntN(ids))
					states = stable[id]
					fallthrough
				case 1:
					var got state
					if got, did.ok = stateOf(s.do(t, "GET", id, nil)); did.ok && !slices.Contains(states, got) {
						wrong("GET of %s finds %.4x, which is none of %.4x", id, got, states)
					}
				case 2:
					did.change = true
					b, is := next()
					reply, err := s.do(t, "PUT", id, b)
					if did.ok = err == nil && (reply.status == http.StatusCreated || reply.status == http.StatusOK); did.ok {
						own[id] = nil
					}
					own[id] = append(own[id], is)
				case 3:
					did.change = true
					reply, err := s.do(t, "DELETE", id, nil)
					did.ok = err == nil && (reply.status == http.StatusNoContent || reply.status == http.StatusNotFound)
					switch {
					case reply.status == http.StatusNotFound && !slices.Contains(states, state{}):
						wrong("DELETE of %s does not find it", id)
					case reply.status == http.StatusNoContent:
						own[id] = nil
						fallthrough
					case !did.ok:
						own[id] = append(own[id], state{})
					}
				}
				select {
				case counted <- did:
				case <-stop:
					return
				}
			}
		})
	}

	// during has the load go on until enough has happened.
	during := func(what string, enough func(counts map[count]int) bool) {
		t.Helper()
		counts := make(map[count]int)
		began, deadline := time.Now(), time.After(2*time.Minute)
		for !enough(counts) {
			select {
			case did := <-counted:
				counts[did]++
			case <-deadline:
				t.Fatalf("%s, and nothing goes on: %+v", what, counts)
			}
		}
		t.Logf("%s, %v: %+v", what, time.Since(began).Round(time.Millisecond), counts)
	}
	const some = 50
	during("all nodes are there", func(n map[count]int) bool {
		return n[count{away, true, true}] >= some && n[count{here, true, true}] >= some
	})
	c.kill(t, node)
	restart := sync.OnceFunc(func() { c.restart(t, node) })
	defer restart()
	during("one is away", func(n map[count]int) bool {
		return n[count{here, true, true}] >= some && n[count{here, false, true}] >= some &&
			n[count{away, true, false}] >= some && n[count{away, false, false}] >= some
	})
	rejoining.Store(true)
	restart()
	during("it is back", func(n map[count]int) bool {
		return n[count{away, true, true}] >= some && n[count{away, false, true}] >= some
	})
	c.healthy(t)
	stopAll()
	t.Logf("%d answers of old while the node came back", stale.Load())

	found := make(map[string]string) // ETags
	for _, own := range possible {
		for id, states := range own {
			for i, s := range servers {
				eventually(t, func() error {
					r, err := s.do(t, "GET", id, nil)
					got, known := stateOf(r, err)
					if !known {
						return fmt.Errorf("GET of %s is answered %d, %v", id, r.status, err)
					}
					if !slices.Contains(states, got) {
						return fmt.Errorf("as %s there is %.4x, which is none of %.4x", id, got, states)
					}
					if etag, ok := found[id]; i > 0 && (etag != r.etag || ok != (r.status == http.StatusOK)) {
						return fmt.Errorf("one server says of %s %d, %q; the other %q", id, r.status, r.etag, etag)
					}
					if r.status == http.StatusOK {
						found[id] = r.etag
					}
					return nil
				})
			}
		}
	}
	for _, s := range servers {
		listed := s.list(t)
		maps.DeleteFunc(listed, func(id, _ string) bool { return len(id) != 2 })
		if !maps.Equal(listed, found) {
			t.Errorf("listed is %v, there is %v", listed, found)
		}
	}
}

// testEngineAway has a server lose the engine and get it back.
func testEngineAway(t *testing.T, c *cluster) {
	p := newProxy(t, strings.TrimPrefix(c.nodes[0], "http://"))
	s := start(t, c, "http://"+p.addr, newPrefix())
	b := picture(1)
	put := s.want(t, http.StatusCreated, "PUT", "there", b)
	p.close()
	s.want(t, http.StatusServiceUnavailable, "GET", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "GET", "missing", nil)
	s.want(t, http.StatusServiceUnavailable, "HEAD", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "PUT", "there", picture(2))
	s.want(t, http.StatusServiceUnavailable, "PUT", "new", picture(2))
	s.want(t, http.StatusServiceUnavailable, "PUT", "there", picture(2), "If-Match", put.etag)
	s.want(t, http.StatusServiceUnavailable, "DELETE", "there", nil)
	s.want(t, http.StatusServiceUnavailable, "GET", "", nil)

	p.open(t)
	if got := s.want(t, http.StatusOK, "GET", "there", nil); !bytes.Equal(got.body, b) || got.etag != put.etag {
		t.Errorf("there is ETag %s, not %s, although every change was refused", got.etag, put.etag)
	}
	if got, want := s.list(t), map[string]string{"there": put.etag}; !maps.Equal(got, want) {
		t.Errorf("listed is %v, not %v", got, want)
	}
	s.want(t, http.StatusOK, "PUT", "there", picture(2))
	s.want(t, http.StatusNoContent, "DELETE", "there", nil)
}

// A proxy hands on what comes to its address while it is open.
type proxy struct {
	addr, to string
	l        net.Listener
	all      sync.WaitGroup
	mu       sync.Mutex
	conns    []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	p := &proxy{addr: "127.0.0.1:0", to: to}
	p.open(t)
	p.addr = p.l.Addr().String()
	t.Cleanup(p.close)
	return p
}

func (p *proxy) open(t *testing.T) {
	t.Helper()
	var err error
	if p.l, err = net.Listen("tcp", p.addr); err != nil {
		t.Fatal(err)
	}
	p.all.Go(func() {
		for {
			in, err := p.l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			for _, c := range [][2]net.Conn{{in, out}, {out, in}} {
				p.all.Go(func() {
					io.Copy(c[0], c[1])
					in.Close()
					out.Close()
				})
			}
		}
	})
}

// close cuts all connections, and there are no new ones until open.
func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.all.Wait()
}
