package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

var images = flag.Int("images", 10_000, "`number` of images in BenchmarkList")

// listed is how many images BenchmarkStore lists.
const listed = 100

// An operation is one operation of a Store, and the same with bare system calls.
type operation struct {
	name         string
	moves        bool                           // the image's bytes
	prepare      func(f floor, id string) error // runs before each operation, not timed
	store, floor func(id string) error
}

// BenchmarkStore measures each operation of a Store, its floor, and both in turn.
// The metric x-floor is how many times as long the Store takes. The two take turns, so
// that noise of the machine affects both.
func BenchmarkStore(b *testing.B) {
	for _, place := range []struct {
		name         string
		onDisk, sync bool
	}{
		{"memory", false, true},
		{"disk", true, true},
		{"disk-NoSync", true, false},
	} {
		for _, size := range []int{8 << 10, 64 << 10, 1 << 20} {
			b.Run(place.name+"/"+sizeName(size), func(b *testing.B) {
				var mine floor // on the Store's files, for what is not timed
				var bare floor // on files of its own, on the same filesystem
				var fsys afero.Fs
				if place.onDisk {
					mine = floor{fs: afero.NewOsFs(), root: b.TempDir()}
					bare = floor{fs: afero.NewOsFs(), root: b.TempDir(), sync: place.sync}
					fsys = afero.NewBasePathFs(afero.NewOsFs(), mine.root)
				} else {
					// One for each, because a rename in a MemMapFs looks at all its files.
					fsys = afero.NewMemMapFs()
					mine = floor{fs: fsys, root: "."}
					bare = floor{fs: afero.NewMemMapFs(), root: ".", sync: place.sync}
				}
				image := noise(size)
				for _, f := range []floor{mine, bare} {
					if err := errors.Join(f.init(), f.put("one", bytes.NewReader(image))); err != nil {
						b.Fatal(err)
					}
				}
				store := imagestore.New(fsys, &imagestore.Options{NoSync: !place.sync})
				for _, op := range operations(store, bare, image) {
					b.Run(op.name, func(b *testing.B) { op.measure(b, mine, bare, size) })
				}
			})
		}
	}
}

func operations(store *imagestore.Store, bare floor, image []byte) []operation {
	buf := make([]byte, len(image))
	remove := func(f floor, id string) error {
		if err := f.delete(id); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	create := func(f floor, id string) error {
		f.sync = false
		return f.put(id, bytes.NewReader(image))
	}
	fill := func(f floor, _ string) error {
		if n, err := f.list(); err != nil || n >= listed {
			return err
		}
		var errs []error
		for i := range listed {
			errs = append(errs, create(f, "listed-"+strconv.Itoa(i)))
		}
		return errors.Join(errs...)
	}
	put := func(id string) error {
		_, err := store.Put(ctx, id, bytes.NewReader(image))
		return err
	}
	barePut := func(id string) error { return bare.put(id, bytes.NewReader(image)) }
	return []operation{
		{"Get", true, nil, func(id string) error {
			img, err := store.Get(ctx, id)
			if err != nil {
				return err
			}
			_, err = io.ReadFull(img, buf[:img.Size])
			return errors.Join(err, img.Close())
		}, func(id string) error {
			_, err := bare.get(id, buf)
			return err
		}},
		{"Stat", false, nil, func(id string) error {
			_, err := store.Stat(ctx, id)
			return err
		}, bare.stat},
		{"PutReplace", true, nil, put, barePut},
		{"PutNew", true, remove, put, barePut},
		{"Delete", false, create, func(id string) error { return store.Delete(ctx, id) }, bare.delete},
		{"List", false, fill, func(string) error { return listAtLeast(store, listed) }, func(string) error {
			n, err := bare.list()
			return errors.Join(err, atLeast(n, listed))
		}},
	}
}

func listAtLeast(store *imagestore.Store, want int) error {
	n := 0
	for _, err := range store.List(ctx, imagestore.ListOptions{}) {
		if err != nil {
			return err
		}
		n++
	}
	return atLeast(n, want)
}

func atLeast(n, want int) error {
	if n < want {
		return fmt.Errorf("got a list of %d images, want %d or more", n, want)
	}
	return nil
}

// BenchmarkList measures a list of all images, in turn with a plain walk over the
// same directory: names in order and an Lstat of each image. The flag -images sets
// their number.
func BenchmarkList(b *testing.B) {
	dir := b.TempDir()
	if err := populate(dir, *images, noise(8<<10)); err != nil {
		b.Fatal(err)
	}
	store, err := imagestore.OpenDir(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	walk := floor{fs: afero.NewOsFs(), root: dir}
	var lists, walks []time.Duration
	for b.Loop() {
		lists = append(lists, timeOf(b, func() error { return listAtLeast(store, *images) }))
		walks = append(walks, timeOf(b, func() error {
			n, err := walk.list()
			return errors.Join(err, atLeast(n, *images))
		}))
	}
	b.ReportMetric(middle(lists)/middle(walks), "x-walk")
	b.ReportMetric(middle(lists)/float64(*images)/1e3, "µs/image")
	b.ReportMetric(0, "ns/op") // the sum of both means nothing
}

func (op operation) measure(b *testing.B, mine, bare floor, size int) {
	const id = "one"
	prepare := func(b *testing.B, f floor) {
		if op.prepare == nil {
			return
		}
		if err := op.prepare(f, id); err != nil {
			b.Fatal(err)
		}
	}
	alone := func(do func(string) error, f floor) func(*testing.B) {
		return func(b *testing.B) {
			if op.moves {
				b.SetBytes(int64(size))
			}
			b.ReportAllocs()
			for b.Loop() {
				if op.prepare != nil {
					b.StopTimer()
					prepare(b, f)
					b.StartTimer()
				}
				if err := do(id); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("store", alone(op.store, mine))
	b.Run("floor", alone(op.floor, bare))
	b.Run("both", func(b *testing.B) {
		var store, floor []time.Duration
		for b.Loop() {
			prepare(b, mine)
			store = append(store, timeOf(b, func() error { return op.store(id) }))
			prepare(b, bare)
			floor = append(floor, timeOf(b, func() error { return op.floor(id) }))
		}
		b.ReportMetric(middle(store)/middle(floor), "x-floor")
		b.ReportMetric(0, "ns/op") // the sum of both means nothing
	})
	// The next operation may need the image.
	if op.name == "Delete" {
		prepare(b, mine)
		prepare(b, bare)
	}
}

func timeOf(b *testing.B, do func() error) time.Duration {
	began := time.Now()
	err := do()
	took := time.Since(began)
	if err != nil {
		b.Fatal(err)
	}
	return took
}

func middle(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2])
}

// BenchmarkPuts measures durable uploads on disk, 16 at a time, in turn with as many
// of the floor's.
func BenchmarkPuts(b *testing.B) {
	const writers, each = 16, 8
	for _, size := range []int{8 << 10, 1 << 20} {
		b.Run(sizeName(size), func(b *testing.B) {
			image := noise(size)
			bare := floor{fs: afero.NewOsFs(), root: b.TempDir(), sync: true}
			if err := bare.init(); err != nil {
				b.Fatal(err)
			}
			store := imagestore.New(afero.NewBasePathFs(afero.NewOsFs(), b.TempDir()), nil)
			batches := 0
			// Every id is new. A replaced file leaves an inode that ext4 does not
			// use again for minutes; see truncateAll.
			batch := func(put func(id string) error) func() error {
				return func() error {
					batches++
					batch := batches
					var group sync.WaitGroup
					errs := make([]error, writers)
					for w := range writers {
						group.Go(func() {
							for n := range each {
								id := fmt.Sprintf("batch-%d-%d-%d", batch, w, n)
								errs[w] = errors.Join(errs[w], put(id))
							}
						})
					}
					group.Wait()
					return errors.Join(errs...)
				}
			}
			puts := batch(func(id string) error {
				_, err := store.Put(ctx, id, bytes.NewReader(image))
				return err
			})
			barePuts := batch(func(id string) error { return bare.put(id, bytes.NewReader(image)) })
			var stores, floors []time.Duration
			for b.Loop() {
				stores = append(stores, timeOf(b, puts))
				floors = append(floors, timeOf(b, barePuts))
			}
			b.ReportMetric(middle(stores)/middle(floors), "x-floor")
			b.ReportMetric(middle(stores)/writers/each/1e3, "µs/put")
			b.ReportMetric(0, "ns/op") // the sum of both means nothing
		})
	}
}
