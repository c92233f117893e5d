package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
)

// The numbers of images in the two stores of BenchmarkScale.
const few, many = 1_000, 1_000_000

// BenchmarkScale measures a store of a million images, in turn with one of a
// thousand. The metric x-few is how many times as long an operation takes with a
// million. It needs some 5 GB of disk, and a few minutes to fill it.
func BenchmarkScale(b *testing.B) {
	image := noise(8 << 10)
	stored := noise(128 << 10) // too large for the cache, which would hold few but not many
	dirs := map[int]string{few: b.TempDir(), many: b.TempDir()}
	for n, dir := range dirs {
		began := time.Now()
		if err := populate(dir, n, stored); err != nil {
			b.Fatal(err)
		}
		b.Logf("%d images made in %v", n, time.Since(began).Round(time.Second))
	}
	stores := map[int]*imagestore.Store{}
	for n, dir := range dirs {
		store, err := imagestore.OpenDir(dir, nil)
		if err != nil {
			b.Fatal(err)
		}
		stores[n] = store
	}
	for _, op := range []struct {
		name string
		do   func(s *imagestore.Store, stored, new string) error
	}{
		{"Get", func(s *imagestore.Store, stored, _ string) error {
			img, err := s.Get(ctx, stored)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, img)
			return errors.Join(err, img.Close())
		}},
		{"Put", func(s *imagestore.Store, _, new string) error {
			_, err := s.Put(ctx, new, bytes.NewReader(image))
			return err
		}},
		{"Delete", func(s *imagestore.Store, _, new string) error { return s.Delete(ctx, new) }},
	} {
		b.Run(op.name, func(b *testing.B) {
			took := map[int][]time.Duration{}
			count := 0
			for b.Loop() {
				count += 300
			}
			for i := range count {
				for _, n := range []int{few, many} {
					stored, new := imageName(i*7919%n), fmt.Sprintf("new-%d", i)
					if op.name == "Delete" {
						if _, err := stores[n].Put(ctx, new, bytes.NewReader(image)); err != nil {
							b.Fatal(err)
						}
					}
					took[n] = append(took[n], timeOf(b, func() error { return op.do(stores[n], stored, new) }))
				}
			}
			b.ReportMetric(middle(took[many])/middle(took[few]), "x-few")
			b.ReportMetric(middle(took[many])/1e3, "µs/op")
			b.ReportMetric(0, "ns/op") // the sum of both means nothing
		})
	}
	b.Run("List", func(b *testing.B) {
		var most uint64
		for b.Loop() {
			n := 0
			before := heap()
			for _, err := range stores[many].List(ctx, imagestore.ListOptions{}) {
				if err != nil {
					b.Fatal(err)
				}
				if n++; n%(many/8) == 0 {
					most = max(most, heap()-min(before, heap()))
				}
			}
			if n < many {
				b.Fatalf("got a list of %d images, want %d", n, many)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/many, "µs/image")
		b.ReportMetric(float64(most>>10), "KiB-heap")
	})
	b.Run("page", func(b *testing.B) {
		h := imagestore.NewHandler(stores[many], nil)
		for b.Loop() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/images?limit=100&after="+imageName(many/2), nil))
			if w.Code != http.StatusOK {
				b.Fatalf("got status %d, want 200: %s", w.Code, w.Body)
			}
		}
	})
	b.Run("start", func(b *testing.B) {
		imaged, err := buildImaged(ctx, b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		var took []time.Duration
		for b.Loop() {
			var s *server
			took = append(took, timeOf(b, func() (err error) {
				if s, err = start(ctx, "", []string{imaged.program, "-addr", "127.0.0.1:0", "-dir", dirs[many]}); err != nil {
					return err
				}
				resp, err := http.Head("http://" + s.addr + "/images/" + imageName(1))
				if err == nil && resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
				return err
			}))
			s.stop()
		}
		b.ReportMetric(middle(took)/1e6, "ms/start")
		b.ReportMetric(0, "ns/op") // it includes the stop
	})
	for _, dir := range dirs { // rm is faster than the cleanup of package testing
		if out, err := exec.Command("rm", "-rf", dir).CombinedOutput(); err != nil {
			b.Errorf("%v: %s", err, out)
		}
	}
}

func imageName(i int) string { return fmt.Sprintf("%07d", i) }

// populate makes n images without a Store. They are links to a few files, because
// only the names matter. A file of ext4 can have 65,000 links.
func populate(dir string, n int, image []byte) error {
	old := time.Now().Add(-time.Hour)
	var file string
	for i := range n {
		name := filepath.Join(dir, imageName(i), "image")
		if err := os.Mkdir(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if i%50_000 != 0 {
			if err := os.Link(file, name); err != nil {
				return err
			}
			continue
		}
		file = name
		if err := errors.Join(os.WriteFile(file, image, 0o666), os.Chtimes(file, old, old)); err != nil {
			return err
		}
	}
	return nil
}

// heap returns how many bytes of memory are in use.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
