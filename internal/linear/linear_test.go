package linear

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/spf13/afero"
)

// images is what is checked.
type images interface {
	Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Precondition) (imagestore.Info, error)
	Get(ctx context.Context, id string) (*imagestore.Image, error)
	Stat(ctx context.Context, id string) (imagestore.Info, error)
	Delete(ctx context.Context, id string, conds ...imagestore.Precondition) error
}

// picture returns the PNG with this number. All have the same size, so that
// the version alone tells their ETags apart.
func picture(n uint64) []byte {
	img := image.NewGray(image.Rect(0, 0, 8, 1))
	binary.BigEndian.PutUint64(img.Pix, n)
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression, BufferPool: &encoders}
	if err := enc.Encode(&b, img); err != nil {
		panic(err) // a Buffer never fails
	}
	return b.Bytes()
}

// encoders keeps what is large in an encoder: it would take most of the time.
var encoders encoderPool

type encoderPool struct{ sync.Pool }

func (p *encoderPool) Get() *png.EncoderBuffer {
	b, _ := p.Pool.Get().(*png.EncoderBuffer)
	return b
}

func (p *encoderPool) Put(b *png.EncoderBuffer) { p.Pool.Put(b) }

// A recorder makes calls and keeps what came of them.
type recorder struct {
	clock    atomic.Int64 // counts what happens: two moments are never the same
	pictures atomic.Uint64
	numbers  sync.Map // the bytes of a picture to its number
	latest   sync.Map // id to the ETag that somebody saw last, which others then fight for

	mu      sync.Mutex
	history []porcupine.Operation
	kinds   map[string]int
	err     error // the first that is no answer
}

var ids = []string{"a", "b"}

// work has several goroutines make n calls each, chosen at random.
func (rec *recorder) work(ctx context.Context, s images, goroutines, n int, seed uint64) {
	var all sync.WaitGroup
	for g := range goroutines {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(g)))
			for range n {
				c := call{id: ids[r.IntN(len(ids))]}
				latest, known := rec.latest.Load(c.id)
				switch p := r.IntN(100); {
				case p < 45:
					c.op, c.picture = "put", rec.pictures.Add(1)
					if r.IntN(3) == 0 {
						c.cond = absent
					}
				case p < 60:
					c.op = "delete"
				case p < 80:
					c.op = "get"
				default:
					c.op = "stat"
				}
				if known && c.cond == "" && (c.op == "put" || c.op == "delete") && r.IntN(2) == 0 {
					c.cond = latest.(string)
				}
				rec.call(ctx, s, g, c)
			}
		})
	}
	all.Wait()
}

// call makes one call.
func (rec *recorder) call(ctx context.Context, s images, goroutine int, c call) {
	var conds []imagestore.Precondition
	switch c.cond {
	case "":
	case absent:
		conds = append(conds, imagestore.IfAbsent())
	default:
		conds = append(conds, imagestore.IfMatch(c.cond))
	}
	var b []byte
	if c.op == "put" {
		b = picture(c.picture)
		rec.numbers.Store(string(b), c.picture)
	}
	var info imagestore.Info
	var img *imagestore.Image
	var err error
	called := rec.clock.Add(1)
	switch c.op {
	case "put":
		info, err = s.Put(ctx, c.id, bytes.NewReader(b), conds...)
	case "get":
		if img, err = s.Get(ctx, c.id); err == nil {
			info = img.Info
		}
	case "stat":
		info, err = s.Stat(ctx, c.id)
	case "delete":
		err = s.Delete(ctx, c.id, conds...)
	}
	// Before an image is read: which version it is was decided when it was
	// opened, and it stays that one whatever happens meanwhile.
	returned := rec.clock.Add(1)

	a := answer{version: version{info.ETag, c.picture}}
	if img != nil {
		runtime.Gosched() // lets something happen meanwhile
		b, readErr := io.ReadAll(img)
		err = errors.Join(readErr, img.Close())
		if n, ok := rec.numbers.Load(string(b)); ok {
			a.picture = n.(uint64)
		} else if err == nil {
			err = fmt.Errorf("%d bytes are no picture that was put", len(b))
		}
	}
	kind := c.op
	if c.cond == absent {
		kind += ", IfAbsent"
	} else if c.cond != "" {
		kind += ", IfMatch"
	}
	for _, reason := range []error{imagestore.ErrNotFound, imagestore.ErrPrecondition} {
		if errors.Is(err, reason) {
			kind += ": " + reason.Error()
			a, err = answer{err: reason}, nil
		}
	}
	if info.ETag != "" {
		rec.latest.Store(c.id, info.ETag)
	}

	rec.mu.Lock()
	defer rec.mu.Unlock()
	if err != nil && rec.err == nil {
		rec.err = fmt.Errorf("%+v: %w", c, err)
	}
	if rec.kinds == nil {
		rec.kinds = make(map[string]int)
	}
	rec.kinds[kind]++
	rec.history = append(rec.history, porcupine.Operation{ClientId: goroutine, Input: c, Call: called, Output: a, Return: returned})
}

// check returns what is wrong with what was recorded.
func (rec *recorder) check(t *testing.T) error {
	if rec.err != nil {
		return rec.err
	}
	etags := make(map[[2]string]uint64)
	for _, o := range rec.history {
		c, a := o.Input.(call), o.Output.(answer)
		if c.op != "put" || a.err != nil {
			continue
		}
		key := [2]string{c.id, a.etag}
		if other, ok := etags[key]; ok {
			return fmt.Errorf("pictures %d and %d of %q have the same ETag %s", other, c.picture, c.id, a.etag)
		}
		etags[key] = c.picture
	}
	result, info := porcupine.CheckOperationsVerbose(model, rec.history, time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	page := filepath.Join(t.ArtifactDir(), "history.html") // kept by go test -artifacts
	if err := porcupine.VisualizePath(model, info, page); err != nil {
		t.Error(err)
	}
	if result == porcupine.Unknown {
		t.Fatalf("nobody can tell in a minute whether the history is linearizable, see %s", page)
	}
	return fmt.Errorf("the history is not linearizable, see %s", page)
}

// kinds is all that can happen. A history without one of them proves less than
// it seems to.
var kinds = []string{
	"put", "put, IfAbsent", "put, IfAbsent: precondition failed", "put, IfMatch", "put, IfMatch: precondition failed",
	"get", "get: no such image", "stat", "stat: no such image",
	"delete", "delete: no such image", "delete, IfMatch", "delete, IfMatch: no such image", "delete, IfMatch: precondition failed",
}

func onDisk(t *testing.T) afero.Fs                    { return afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()) }
func inMemory(*testing.T) afero.Fs                    { return afero.NewMemMapFs() }
func direct(_ *testing.T, s *imagestore.Store) images { return s }

func overHTTP(t *testing.T, s *imagestore.Store) images {
	srv := httptest.NewServer(imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	// As many connections are kept as there are goroutines, not two.
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(srv.URL, &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLinearizable records what many callers see of each kind of store, which
// is started anew twice meanwhile.
func TestLinearizable(t *testing.T) {
	for _, test := range []struct {
		name   string
		fs     func(*testing.T) afero.Fs
		opts   imagestore.Options
		images func(*testing.T, *imagestore.Store) images
		n      int
	}{
		{"Store in memory", inMemory, imagestore.Options{}, direct, 250},
		{"Store on disk", onDisk, imagestore.Options{}, direct, 80},
		{"Store on disk, NoSync", onDisk, imagestore.Options{NoSync: true}, direct, 250},
		{"Client, in memory", inMemory, imagestore.Options{}, overHTTP, 100},
		{"Client, on disk", onDisk, imagestore.Options{}, overHTTP, 80},
	} {
		t.Run(test.name, func(t *testing.T) {
			const starts, goroutines = 3, 6
			fsys := test.fs(t)
			rec := new(recorder)
			for range starts {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				rec.work(t.Context(), test.images(t, imagestore.New(fsys, &test.opts)), goroutines, test.n, seed)
			}
			if err := rec.check(t); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls", len(rec.history))
			for _, kind := range kinds {
				if rec.kinds[kind] == 0 {
					t.Errorf("it never came to this: %s", kind)
				}
			}
			if len(rec.kinds) != len(kinds) {
				t.Errorf("it came to %v", rec.kinds)
			}
		})
	}
}

// TestNotLinearizable proves that TestLinearizable can fail: it makes the
// mistakes that a store can make and demands that they are noticed.
func TestNotLinearizable(t *testing.T) {
	for _, test := range []struct {
		name    string
		mistake func(t *testing.T, fsys afero.Fs, s *imagestore.Store) images
	}{
		{"conditions are decided before the change", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return statFirst{s} }},
		{"old images are kept for a while", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return &stale{Store: s} }},
		{"the ETag is of one version, the bytes of another", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return lookTwice{s} }},
		{"success comes before the change", func(t *testing.T, _ afero.Fs, s *imagestore.Store) images { return &early{Store: s, t: t} }},
		// Each Store has its own locks: this much is promised for one only.
		{"two Stores share a directory", func(_ *testing.T, fsys afero.Fs, s *imagestore.Store) images {
			return &two{Store: s, other: imagestore.New(fsys, &imagestore.Options{NoSync: true})}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			const attempts = 50 // one is enough as a rule
			for attempt := range attempts {
				fsys := onDisk(t)
				rec := new(recorder)
				seed := rand.Uint64()
				rec.work(t.Context(), test.mistake(t, fsys, imagestore.New(fsys, &imagestore.Options{NoSync: true})), 6, 50, seed)
				if rec.err != nil {
					t.Fatalf("seed %d: %v", seed, rec.err)
				}
				if err := rec.check(t); err != nil {
					t.Logf("seed %d, attempt %d: %v", seed, attempt+1, err)
					return
				}
			}
			t.Error("nobody notices")
		})
	}
}

// statFirst decides IfAbsent and IfMatch before a Put that is unconditional.
type statFirst struct{ *imagestore.Store }

func (s statFirst) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Precondition) (imagestore.Info, error) {
	for _, cond := range conds {
		info, err := s.Stat(ctx, id)
		if err != nil && !errors.Is(err, imagestore.ErrNotFound) {
			return info, err
		}
		if name, value := cond.Header(); name == "If-None-Match" && err == nil || name == "If-Match" && value != info.ETag {
			return info, imagestore.ErrPrecondition
		}
	}
	return s.Store.Put(ctx, id, r)
}

// stale answers every other Stat from what it knew.
type stale struct {
	*imagestore.Store
	known sync.Map
}

func (s *stale) Stat(ctx context.Context, id string) (imagestore.Info, error) {
	if info, ok := s.known.LoadAndDelete(id); ok {
		return info.(imagestore.Info), nil
	}
	info, err := s.Store.Stat(ctx, id)
	if err == nil {
		s.known.Store(id, info)
	}
	return info, err
}

// lookTwice takes what it says of an image from another look at it.
type lookTwice struct{ *imagestore.Store }

func (l lookTwice) Get(ctx context.Context, id string) (*imagestore.Image, error) {
	info, err := l.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	runtime.Gosched() // lets something happen meanwhile
	img, err := l.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	img.Info = info
	return img, nil
}

// early deletes only after it has said so.
type early struct {
	*imagestore.Store
	t *testing.T
}

func (e *early) Delete(ctx context.Context, id string, conds ...imagestore.Precondition) error {
	if len(conds) > 0 {
		return e.Store.Delete(ctx, id, conds...)
	}
	_, err := e.Stat(ctx, id)
	if err == nil {
		done := make(chan struct{})
		e.t.Cleanup(func() { <-done })
		go func() {
			defer close(done)
			e.Store.Delete(ctx, id)
		}()
	}
	return err
}

// two sends every other Put to another Store of the same directory.
type two struct {
	*imagestore.Store
	other *imagestore.Store
	puts  atomic.Uint64
}

func (s *two) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Precondition) (imagestore.Info, error) {
	if s.puts.Add(1)%2 == 0 {
		return s.other.Put(ctx, id, r, conds...)
	}
	return s.Store.Put(ctx, id, r, conds...)
}
