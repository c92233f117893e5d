package main_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
)

// picture returns the PNG with this number, of some 40 to 150 KB, so that it
// takes more than one write and a part of one is no part of another.
func picture(n uint64) []byte {
	img := image.NewGray(image.Rect(0, 0, 512, 80+int(n*37%210)))
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

// A state is what is stored under an id: the sum of an image, zero for none.
type state [sha256.Size]byte

// connect returns a client of a server that keeps its connections.
func connect(t *testing.T, s *server) *client.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(s.url, &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fetch returns what is stored under an id, all of it.
func fetch(ctx context.Context, c *client.Client, id string) (state, imagestore.Info, error) {
	img, err := c.Get(ctx, id)
	if errors.Is(err, imagestore.ErrNotFound) {
		return state{}, imagestore.Info{}, nil
	}
	if err != nil {
		return state{}, imagestore.Info{}, err
	}
	defer img.Close()
	b, err := io.ReadAll(img)
	if err == nil && int64(len(b)) != img.Size {
		err = fmt.Errorf("there are %d bytes, not %d", len(b), img.Size)
	}
	return sha256.Sum256(b), img.Info, err
}

// noneStaged demands that no upload has left anything behind.
func noneStaged(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(filepath.Join(dir, ".staging")); err != nil || len(left) > 0 {
		t.Errorf("the staging directory has %v, %v", left, err)
	}
}

// stop has a server end, and demands that it had nothing to complain about.
func stop(t *testing.T, s *server) {
	t.Helper()
	if runtime.GOOS == "windows" {
		return // there are no signals to send
	}
	if err := s.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := s.Wait(); err != nil || s.stderr.Len() > 0 {
		t.Errorf("imaged ends with %v and says %q", err, s.stderr.String())
	}
}

// TestTwoProcesses has two servers of one directory change the same images.
func TestTwoProcesses(t *testing.T) {
	const goroutines, calls = 8, 100
	ids := []string{"a", "b", "c"}
	dir := t.TempDir()
	servers := []*server{start(t, "-dir", dir), start(t, "-dir", dir)}
	clients := []*client.Client{connect(t, servers[0]), connect(t, servers[1])}

	// A change is a Put or a Delete that has succeeded, with when it began and
	// ended.
	type change struct {
		state
		began, ended int64
	}
	type tag struct{ id, etag string }
	var (
		clock    atomic.Int64
		pictures atomic.Uint64
		mu       sync.Mutex
		known    = make(map[state]string) // to the id that it was put under
		etags    = make(map[tag]state)
		changes  = make(map[string][]change)
		counts   = make(map[string]int)
	)
	// see demands that an ETag stands for one image, whoever says so.
	see := func(id, etag string, is state) {
		if was, ok := etags[tag{id, etag}]; ok && was != is {
			t.Errorf("two images of %q have the ETag %s", id, etag)
		}
		etags[tag{id, etag}] = is
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			etag := make(map[string]string) // seen last, by id
			for i := range calls {
				id, c := ids[r.IntN(len(ids))], clients[i%2]
				var conds []imagestore.Precondition
				switch r.IntN(6) {
				case 0:
					conds = append(conds, imagestore.IfAbsent())
				case 1:
					if etag[id] != "" {
						conds = append(conds, imagestore.IfMatch(etag[id]))
					}
				}
				var op string
				var is state
				var info imagestore.Info
				var err error
				began := clock.Add(1)
				switch p := r.IntN(100); {
				case p < 45:
					op = "put"
					b := picture(pictures.Add(1))
					is = sha256.Sum256(b)
					mu.Lock()
					known[is] = id
					mu.Unlock()
					info, err = c.Put(t.Context(), id, bytes.NewReader(b), conds...)
				case p < 65:
					op = "delete"
					err = c.Delete(t.Context(), id, conds...)
				default:
					op, conds = "get", nil
					is, info, err = fetch(t.Context(), c, id)
				}
				ended := clock.Add(1)
				if info.ETag != "" {
					etag[id] = info.ETag
				}

				mu.Lock()
				switch {
				case err == nil:
					counts[op]++
					if op != "get" {
						changes[id] = append(changes[id], change{is, began, ended})
					} else if is != (state{}) && known[is] != id {
						t.Errorf("what is read of %q was never put there", id)
					}
					if is != (state{}) {
						see(id, info.ETag, is)
					}
				case op == "delete" && errors.Is(err, imagestore.ErrNotFound), len(conds) > 0 && errors.Is(err, imagestore.ErrPrecondition):
					counts[op+" refused"]++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	t.Logf("%d calls: %v", goroutines*calls, counts)

	for _, id := range ids {
		got, info, err := fetch(t.Context(), clients[0], id)
		got1, info1, err1 := fetch(t.Context(), clients[1], id)
		if err != nil || err1 != nil || got != got1 || info != info1 {
			t.Errorf("one server says of %q %+v, %v, the other %+v, %v", id, info, err, info1, err1)
		}
		if _, err := os.Stat(filepath.Join(dir, id)); (got == state{}) != os.IsNotExist(err) {
			t.Errorf("of %q there is %+v and its directory: %v", id, info, err)
		}
		// Nothing is lost: what is there now comes from a change after which no
		// other began.
		if !slices.ContainsFunc(changes[id], func(last change) bool {
			return last.state == got && !slices.ContainsFunc(changes[id], func(c change) bool { return c.began > last.ended })
		}) {
			t.Errorf("of %q there is %+v, which is not what came last", id, info)
		}
		for i, c := range clients {
			b := picture(pictures.Add(1))
			info, err := c.Put(t.Context(), id, bytes.NewReader(b))
			if err != nil {
				t.Error(err)
			}
			if got, gotInfo, err := fetch(t.Context(), clients[1-i], id); err != nil || got != sha256.Sum256(b) || gotInfo != info {
				t.Errorf("one server puts %+v, the other says %+v, %v", info, gotInfo, err)
			}
		}
	}
	noneStaged(t, dir)
	for _, s := range servers {
		stop(t, s)
	}
}

// TestDeleteRacesPut has two servers delete what one of them puts: in every
// other round once, which tends to be too early, else as long as the Put takes.
func TestDeleteRacesPut(t *testing.T) {
	const rounds = 60
	dir := t.TempDir()
	servers := []*server{start(t, "-dir", dir), start(t, "-dir", dir)}
	clients := []*client.Client{connect(t, servers[0]), connect(t, servers[1])}
	stayed := 0
	for n := range uint64(rounds) {
		if _, err := clients[n/4%2].Put(t.Context(), "a", bytes.NewReader(picture(2*n))); err != nil {
			t.Fatal(err)
		}
		b := picture(2*n + 1)
		var all sync.WaitGroup
		var done atomic.Bool
		var deleted atomic.Int64
		var info imagestore.Info
		var putErr error
		all.Go(func() {
			info, putErr = clients[n/2%2].Put(t.Context(), "a", bytes.NewReader(b))
			done.Store(true)
		})
		for _, c := range clients {
			all.Go(func() {
				for again := true; again; again = n%2 == 0 && !done.Load() {
					if err := c.Delete(t.Context(), "a"); err == nil {
						deleted.Add(1)
					} else if !errors.Is(err, imagestore.ErrNotFound) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if putErr != nil {
			t.Fatal(putErr)
		}
		_, err := os.Stat(filepath.Join(dir, "a"))
		gone := os.IsNotExist(err)
		if !gone {
			stayed++
		}
		// Of the two images one was deleted or replaced and the other is there
		// or deleted.
		if d := deleted.Load(); gone && d == 0 || !gone && d > 1 || d > 2 {
			t.Errorf("round %d: two images were put, %d deleted, and the directory is gone: %v", n, d, gone)
		}
		for _, c := range clients {
			got, gotInfo, err := fetch(t.Context(), c, "a")
			if err != nil || got != (state{}) && (got != sha256.Sum256(b) || gotInfo != info) || (got == state{}) != gone {
				t.Fatalf("round %d: put is %+v, there is %+v, %v, and the directory is gone: %v", n, info, gotInfo, err, gone)
			}
		}
	}
	t.Logf("in %d rounds %d images stayed", rounds, stayed)
	noneStaged(t, dir)
	for _, s := range servers {
		stop(t, s)
	}
}

// TestKilled kills a server that is busy, again and again. What the system has
// been given survives that, synced or not: power cuts are for TestPowerCut.
func TestKilled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("on Windows there is no SIGKILL")
	}
	outage{
		begin: func(s *server) error { return s.Process.Kill() },
		end: func(s *server) {
			if err := s.Wait(); err == nil || s.ProcessState.Exited() || s.stderr.Len() > 0 {
				t.Fatalf("imaged ends with %v and says %q", err, s.stderr.String())
			}
		},
	}.test(t, t.TempDir(), 12)
}

// An outage is a way in which a server may end without having been asked to.
type outage struct {
	begin func(*server) error // comes in the midst of requests
	end   func(*server)       // waits for the end and makes all ready for the next server
	lies  bool                // an answer that comes after it has begun need not be true
}

// test has it befall a busy server, again and again, and demands that all that
// was answered for is there afterwards, and nothing is broken.
func (o outage) test(t *testing.T, dir string, rounds int) {
	const goroutines, most = 4, 60
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	var pictures atomic.Uint64
	stored := make(map[string]state)
	total, underWay := 0, 0
	for round := range rounds {
		s := start(t, "-dir", dir)
		c := connect(t, s)
		last := 1 + chance.Int64N(most) // the end comes when it has answered this often
		var answered atomic.Int64
		var mu sync.Mutex
		maybe := make(map[string]state) // what changes without an answer would have made
		var all sync.WaitGroup
		for g := range goroutines {
			r := rand.New(rand.NewPCG(seed, uint64(1+round*goroutines+g)))
			all.Go(func() {
				for {
					// Nobody else changes these, so that it is known what came last.
					id := fmt.Sprintf("%c%d", 'a'+g, r.IntN(3))
					mu.Lock()
					was := stored[id]
					mu.Unlock()
					var next state
					var err error
					if r.IntN(3) > 0 {
						b := picture(pictures.Add(1))
						next = sha256.Sum256(b)
						_, err = c.Put(t.Context(), id, bytes.NewReader(b))
					} else {
						err = c.Delete(t.Context(), id)
						if was == next && errors.Is(err, imagestore.ErrNotFound) {
							err = nil
						}
					}
					if err != nil && answered.Load() < last {
						t.Error(err)
					}
					if o.lies && answered.Load() >= last {
						err = cmp.Or(err, errors.New("too late to be true"))
					}
					mu.Lock()
					if err != nil {
						maybe[id] = next
					} else {
						stored[id] = next
					}
					mu.Unlock()
					if err != nil {
						return
					}
					if answered.Add(1) == last {
						if err := o.begin(s); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		all.Wait()
		o.end(s)
		total += int(answered.Load())

		s = start(t, "-dir", dir)
		c = connect(t, s)
		for g := range goroutines {
			for i := range 3 {
				id := fmt.Sprintf("%c%d", 'a'+g, i)
				got, info, err := fetch(t.Context(), c, id)
				if err != nil {
					t.Fatal(err)
				}
				next, unanswered := maybe[id]
				if got != stored[id] && !(unanswered && got == next) {
					t.Errorf("round %d: of %q there is %+v, which was not answered last; without an answer: %v", round, id, info, unanswered)
				}
				if got != stored[id] {
					underWay++
				}
				stored[id] = got
			}
		}
		stop(t, s)
	}
	left, err := os.ReadDir(filepath.Join(dir, ".staging"))
	if err != nil {
		t.Error(err)
	}
	t.Logf("ended %d times: %d changes answered, %d made without an answer, %d staged files left", rounds, total, underWay, len(left))
	if out, err := exec.Command(imaged, "-verify", "-deep", "-dir", dir).CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "images are whole\n") {
		t.Errorf("imaged -verify says %q, %v", out, err)
	}
}
