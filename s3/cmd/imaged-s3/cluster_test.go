package main_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore/storetest"
)

// TestCluster runs two servers on one bucket of a cluster of cluster.sh, each
// through another node.
func TestCluster(t *testing.T) {
	c := &cluster{nodes: strings.Fields(os.Getenv("S3_ENDPOINTS")), dir: os.Getenv("S3_CLUSTER")}
	if len(c.nodes) < 3 || c.dir == "" {
		t.Skip("there is no cluster: run ./cluster.sh go test ./...")
	}
	c.imaged = filepath.Join(t.TempDir(), "imaged-s3")
	if out, err := exec.Command("go", "build", "-o", c.imaged, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	prefix := newPrefix()
	servers := []*server{start(t, c, c.nodes[0], prefix), start(t, c, c.nodes[1], prefix)}

	for i, s := range servers {
		t.Run(fmt.Sprint("contract of server ", i), func(t *testing.T) { storetest.TestHandler(t, s.url, nil) })
	}
	t.Run("one sees what the other does", func(t *testing.T) { testBothSee(t, servers) })
	t.Run("one of many creates", func(t *testing.T) { testOneCreates(t, servers) })
	t.Run("no update is lost", func(t *testing.T) { testNoneLost(t, servers) })
	t.Run("clients hang up", func(t *testing.T) { testHangUp(t, servers) })
	t.Run("conditional delete", func(t *testing.T) { testConditionalDelete(t, servers) })
	t.Run("a node is killed", func(t *testing.T) { testNodeKilled(t, c, servers) })
	t.Run("the service is away", func(t *testing.T) { testServiceAway(t, c) })
}

// testBothSee checks that the other server sees a change as soon as it is
// answered.
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
			t.Fatalf("got %d bytes, ETag %s from the other server, want %d, %s", len(got.body), got.etag, len(b), put.etag)
		}
		if etag := other.list(t)["seen"]; etag != put.etag {
			t.Fatalf("got ETag %q in the other server's list, want %s", etag, put.etag)
		}
		if n%5 < 4 {
			continue
		}
		one.want(t, http.StatusNoContent, "DELETE", "seen", nil)
		other.want(t, http.StatusNotFound, "GET", "seen", nil)
		if etag, ok := other.list(t)["seen"]; ok {
			t.Fatalf("got ETag %s in the other server's list, want no image", etag)
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
				t.Errorf("round %d: writer %d got status %d, %s", round, w, r.status, r.body)
			}
		}
		if winner < 0 {
			t.Fatalf("round %d: got no winner, want one", round)
		}
		for _, s := range servers {
			got := s.want(t, http.StatusOK, "GET", id, nil)
			if !bytes.Equal(got.body, picture(round*writers+uint64(winner))) || got.etag != replies[winner].etag {
				t.Errorf("round %d: got another image than the winner's", round)
			}
		}
	}
}

// testNoneLost has many writers count in one image. Each reads through one
// server and writes through either, if no other has written meanwhile.
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
					t.Errorf("GET: got status %d, %v", was.status, err)
					return
				}
				n := number(t, was.body)
				switch r, _ := servers[i/2%2].do(t, "PUT", "count", small(n+1), "If-Match", was.etag); r.status {
				case http.StatusOK:
					done++
				case http.StatusPreconditionFailed:
					refused.Add(1)
				default:
					t.Errorf("PUT with If-Match: got status %d, %s", r.status, r.body)
					return
				}
			}
		})
	}
	all.Wait()
	for _, s := range servers {
		if n := number(t, s.want(t, http.StatusOK, "GET", "count", nil).body); n != writers*each {
			t.Errorf("got %d updates, want the %d that were acknowledged", n, writers*each)
		}
	}
	if refused.Load() == 0 {
		t.Error("no writer met another: nothing was tested")
	}
	t.Logf("%d updates, %d refused", writers*each, refused.Load())
}

// testHangUp has clients hang up while they replace an image. The image is then
// the old one or a new one, and never missing.
func testHangUp(t *testing.T, servers []*server) {
	const goroutines, rounds, longest = 4, 50, 40 * time.Millisecond
	var all sync.WaitGroup
	var cut atomic.Int64
	for g := range uint64(goroutines) {
		all.Go(func() {
			id := fmt.Sprint("cut-", g)
			s, other := servers[g%2], servers[1-g%2]
			unanswered := make(map[state]bool) // may also come late
			for n := range uint64(rounds) {
				before, after := picture(2*n), picture(2*n+1)
				unanswered[sha256.Sum256(after)] = true
				if r, err := s.do(t, "PUT", id, before); err != nil || r.status >= 300 {
					t.Errorf("PUT: got status %d, %v: %s", r.status, err, r.body)
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
					t.Errorf("round %d: GET: got status %d, %v, %d bytes; want the old image or a new one", n, r.status, err, len(r.body))
				}
			}
		})
	}
	all.Wait()
	if cut.Load() == 0 {
		t.Error("every client got an answer: nothing was tested")
	}
	t.Logf("%d of %d clients hung up", cut.Load(), goroutines*rounds)
}

func testConditionalDelete(t *testing.T, servers []*server) {
	old := servers[0].want(t, http.StatusCreated, "PUT", "kept", picture(1))
	now := servers[1].want(t, http.StatusOK, "PUT", "kept", picture(2))
	for _, s := range servers {
		s.want(t, http.StatusPreconditionFailed, "DELETE", "kept", nil, "If-Match", old.etag)
		if r := s.want(t, http.StatusNotImplemented, "DELETE", "kept", nil, "If-Match", now.etag); r.code != "not_implemented" {
			t.Errorf("DELETE with If-Match: got code %q, want not_implemented", r.code)
		}
		if got := s.want(t, http.StatusOK, "GET", "kept", nil); !bytes.Equal(got.body, picture(2)) || got.etag != now.etag {
			t.Error("a refused DELETE has changed the image")
		}
	}
}
