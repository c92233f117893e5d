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
	"github.com/ba692904/imagestore/storetest/memdriver"
	"github.com/spf13/afero"
)

// images is the part of a Store and a Client that is checked.
type images interface {
	Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Condition) (imagestore.PutResult, error)
	Get(ctx context.Context, id string) (*imagestore.Image, error)
	Stat(ctx context.Context, id string) (imagestore.Info, error)
	Delete(ctx context.Context, id string, conds ...imagestore.Condition) error
}

// picture returns the image with this number, a PNG or a GIF. Those of one format have
// one size, so that their ETags differ in the version alone.
func picture(n uint64) []byte {
	if n%2 == 1 {
		return gifPicture(n)
	}
	img := image.NewGray(image.Rect(0, 0, 8, 1))
	binary.BigEndian.PutUint64(img.Pix, n)
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.NoCompression, BufferPool: &encoders}
	if err := enc.Encode(&b, img); err != nil {
		panic(err) // a Buffer never fails
	}
	return b.Bytes()
}

// gifPicture returns a GIF of 1 x 1 pixels whose palette has the number.
func gifPicture(n uint64) []byte {
	b := []byte("GIF89a\x01\x00\x01\x00\x81\x00\x00" + // four colours
		"............" +
		",\x00\x00\x00\x00\x01\x00\x01\x00\x00" +
		"\x02\x02D\x01\x00;")
	binary.BigEndian.PutUint64(b[13:], n)
	return b
}

// encoders keeps the buffers of encoders. To make them would take most of the time.
var encoders encoderPool

type encoderPool struct{ sync.Pool }

func (p *encoderPool) Get() *png.EncoderBuffer {
	b, _ := p.Pool.Get().(*png.EncoderBuffer)
	return b
}

func (p *encoderPool) Put(b *png.EncoderBuffer) { p.Pool.Put(b) }

// A recorder makes calls and records the answers.
type recorder struct {
	clock    atomic.Int64 // counts calls and returns, so that no two have the same time
	pictures atomic.Uint64
	numbers  sync.Map // the bytes of a picture to its number
	latest   sync.Map // id to the ETag seen last, for the next IfMatch

	mu      sync.Mutex
	history []porcupine.Operation
	kinds   map[string]int
	err     error // the first that the model does not know
}

var ids = []string{"a", "b"}

// work makes n random calls on each of several goroutines.
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
	var conds []imagestore.Condition
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
	var result imagestore.PutResult
	var img *imagestore.Image
	var err error
	called := rec.clock.Add(1)
	switch c.op {
	case "put":
		result, err = s.Put(ctx, c.id, bytes.NewReader(b), conds...)
		info = result.Info
	case "get":
		if img, err = s.Get(ctx, c.id); err == nil {
			info = img.Info
		}
	case "stat":
		info, err = s.Stat(ctx, c.id)
	case "delete":
		err = s.Delete(ctx, c.id, conds...)
	}
	// This comes before the image is read. It stays the version that was opened,
	// whatever happens meanwhile.
	returned := rec.clock.Add(1)

	a := answer{version: version{info.ETag, c.picture}}
	if img != nil {
		runtime.Gosched() // gives other goroutines a chance to interfere
		b, readErr := io.ReadAll(img)
		err = errors.Join(readErr, img.Close())
		if n, ok := rec.numbers.Load(string(b)); ok {
			a.picture = n.(uint64)
		} else if err == nil {
			err = fmt.Errorf("got %d bytes that are not those of any picture", len(b))
		}
	}
	kind := c.op
	if c.cond == absent {
		kind += ", IfAbsent"
	} else if c.cond != "" {
		kind += ", IfMatch"
	}
	for _, reason := range []error{imagestore.ErrNotFound, imagestore.ErrPreconditionFailed} {
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

// check returns an error if the history is wrong.
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
			return fmt.Errorf("%q: got ETag %s for pictures %d and %d, want two ETags", c.id, a.etag, other, c.picture)
		}
		etags[key] = c.picture
	}
	result, info := porcupine.CheckOperationsVerbose(model, rec.history, time.Minute)
	if result == porcupine.Ok {
		return nil
	}
	page := filepath.Join(t.ArtifactDir(), "history.html") // go test -artifacts keeps it
	if err := porcupine.VisualizePath(model, info, page); err != nil {
		t.Error(err)
	}
	if result == porcupine.Unknown {
		t.Fatalf("the checker found no verdict in a minute, see %s", page)
	}
	return fmt.Errorf("the history is not linearizable, see %s", page)
}

// kinds are all kinds of calls and answers. A test whose history lacks one would not
// cover it.
var kinds = []string{
	"put", "put, IfAbsent", "put, IfAbsent: precondition failed", "put, IfMatch", "put, IfMatch: precondition failed",
	"get", "get: no such image", "stat", "stat: no such image",
	"delete", "delete: no such image", "delete, IfMatch", "delete, IfMatch: no such image", "delete, IfMatch: precondition failed",
}

func onDisk(t *testing.T) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), t.TempDir()) }

// A start opens a Store of the same images again.
type start func() *imagestore.Store

func onFs(fsys afero.Fs, opts imagestore.Options) start {
	opts.Formats = imagestore.Formats()
	return func() *imagestore.Store { return imagestore.New(fsys, &opts) }
}

func onObjects() start {
	d := memdriver.New()
	d.ConditionalDelete = true // without it, a conditional Delete never succeeds
	return func() *imagestore.Store {
		return imagestore.NewWithDriver(d, &imagestore.Options{Formats: imagestore.Formats()})
	}
}

func direct(_ *testing.T, s *imagestore.Store) images { return s }

func overHTTP(t *testing.T, s *imagestore.Store) images {
	srv := httptest.NewServer(imagestore.NewHandler(s, &imagestore.HandlerOptions{Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	// Keeps a connection for each goroutine. The default keeps two.
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(srv.URL, &http.Client{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestLinearizable records the answers of each kind of store to many callers. It
// starts the store again twice meanwhile.
func TestLinearizable(t *testing.T) {
	for _, test := range []struct {
		name   string
		start  start
		images func(*testing.T, *imagestore.Store) images
		n      int
	}{
		{"Store in memory", onFs(afero.NewMemMapFs(), imagestore.Options{}), direct, 250},
		{"Store on disk", onFs(onDisk(t), imagestore.Options{}), direct, 80},
		{"Store on disk, NoSync", onFs(onDisk(t), imagestore.Options{NoSync: true, Formats: imagestore.Formats()}), direct, 250},
		{"Store of objects", onObjects(), direct, 250},
		{"Client, in memory", onFs(afero.NewMemMapFs(), imagestore.Options{}), overHTTP, 100},
		{"Client, on disk", onFs(onDisk(t), imagestore.Options{}), overHTTP, 80},
		{"Client, of objects", onObjects(), overHTTP, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			const starts, goroutines = 3, 6
			rec := new(recorder)
			for range starts {
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				rec.work(t.Context(), test.images(t, test.start()), goroutines, test.n, seed)
			}
			if err := rec.check(t); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls", len(rec.history))
			for _, kind := range kinds {
				if rec.kinds[kind] == 0 {
					t.Errorf("got no %q, want one or more", kind)
				}
			}
			if len(rec.kinds) != len(kinds) {
				t.Errorf("got %v, want only known kinds", rec.kinds)
			}
		})
	}
}

// TestNotLinearizable runs stores with typical mistakes. The checker must find each
// mistake.
func TestNotLinearizable(t *testing.T) {
	for _, test := range []struct {
		name    string
		mistake func(t *testing.T, fsys afero.Fs, s *imagestore.Store) images
	}{
		{"conditions are decided before the change", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return statFirst{s} }},
		{"old images are kept for a while", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return &stale{Store: s} }},
		{"the ETag is of one version, the bytes of another", func(_ *testing.T, _ afero.Fs, s *imagestore.Store) images { return lookTwice{s} }},
		{"success is reported before the change", func(t *testing.T, _ afero.Fs, s *imagestore.Store) images { return &early{Store: s, t: t} }},
		// Each Store has locks of its own, and one winner is promised within one Store.
		{"two Stores share a directory", func(_ *testing.T, fsys afero.Fs, s *imagestore.Store) images {
			return &two{Store: s, other: imagestore.New(fsys, &imagestore.Options{NoSync: true, Formats: imagestore.Formats()})}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			const attempts = 50 // mostly one is enough
			for attempt := range attempts {
				fsys := onDisk(t)
				rec := new(recorder)
				seed := rand.Uint64()
				rec.work(t.Context(), test.mistake(t, fsys, imagestore.New(fsys, &imagestore.Options{NoSync: true, Formats: imagestore.Formats()})), 6, 50, seed)
				if rec.err != nil {
					t.Fatalf("seed %d: %v", seed, rec.err)
				}
				if err := rec.check(t); err != nil {
					t.Logf("seed %d, attempt %d: %v", seed, attempt+1, err)
					return
				}
			}
			t.Errorf("got linearizable histories in %d attempts, want one that is not", attempts)
		})
	}
}

// statFirst decides IfAbsent and IfMatch before a Put that is unconditional.
type statFirst struct{ *imagestore.Store }

func (s statFirst) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Condition) (imagestore.PutResult, error) {
	for _, cond := range conds {
		info, err := s.Stat(ctx, id)
		if err != nil && !errors.Is(err, imagestore.ErrNotFound) {
			return imagestore.PutResult{}, err
		}
		if err := cond.Check(info.ETag); err != nil {
			return imagestore.PutResult{}, err
		}
	}
	return s.Store.Put(ctx, id, r)
}

// stale answers every other Stat from the one before.
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

// lookTwice takes the Info of an image from a Stat before the Get.
type lookTwice struct{ *imagestore.Store }

func (l lookTwice) Get(ctx context.Context, id string) (*imagestore.Image, error) {
	info, err := l.Stat(ctx, id)
	if err != nil {
		return nil, err
	}
	runtime.Gosched() // gives other goroutines a chance to interfere
	img, err := l.Store.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	img.Info = info
	return img, nil
}

// early reports success of a Delete before it deletes.
type early struct {
	*imagestore.Store
	t *testing.T
}

func (e *early) Delete(ctx context.Context, id string, conds ...imagestore.Condition) error {
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

func (s *two) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Condition) (imagestore.PutResult, error) {
	if s.puts.Add(1)%2 == 0 {
		return s.other.Put(ctx, id, r, conds...)
	}
	return s.Store.Put(ctx, id, r, conds...)
}
