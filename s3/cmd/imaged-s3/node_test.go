package main_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A state is the checksum of the image that is stored under an id. Zero is no image.
type state [sha256.Size]byte

// stateOf returns the state that a GET has found, if its answer tells one.
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
	// possible has the states that may be stored: the last that was acknowledged,
	// and those of later changes that were answered 503. One goroutine changes an
	// image, so that the last is known. The images of the first goroutine do not change.
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
	// Shortly after a node has come back, MinIO may answer with what that node had
	// when it was killed.
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
						wrong("GET of %s: got %.4x, want one of %.4x", id, got, states)
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
						wrong("DELETE of %s: got 404, want the image found", id)
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

	// during lets the load go on until enough has happened.
	during := func(what string, enough func(counts map[count]int) bool) {
		t.Helper()
		counts := make(map[count]int)
		began, deadline := time.Now(), time.After(2*time.Minute)
		for !enough(counts) {
			select {
			case did := <-counted:
				counts[did]++
			case <-deadline:
				t.Fatalf("%s: too little happens: %+v", what, counts)
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
	t.Logf("%d stale answers while the node came back", stale.Load())

	found := make(map[string]string) // ETags
	for _, own := range possible {
		for id, states := range own {
			for i, s := range servers {
				eventually(t, func() error {
					r, err := s.do(t, "GET", id, nil)
					got, known := stateOf(r, err)
					if !known {
						return fmt.Errorf("GET of %s: got status %d, %v", id, r.status, err)
					}
					if !slices.Contains(states, got) {
						return fmt.Errorf("GET of %s: got %.4x, want one of %.4x", id, got, states)
					}
					if etag, ok := found[id]; i > 0 && (etag != r.etag || ok != (r.status == http.StatusOK)) {
						return fmt.Errorf("GET of %s: got status %d, ETag %q, want %q as from the other server", id, r.status, r.etag, etag)
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
			t.Errorf("list: got %v, want %v", listed, found)
		}
	}
}
