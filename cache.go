package imagestore

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// Images of up to smallSize bytes are kept in memory once they have been
	// read, as many as cacheSize bytes hold. Larger ones gain nothing: sendfile
	// does without copying them.
	smallSize = 64 << 10
	cacheSize = 16 << 20
	// settled is how old a file must be to be kept: a younger one may change
	// once more without its time, which the kernel counts in ticks, telling.
	settled = 3 * time.Second
)

// A cache has the small images that were read last. What it has is used only
// if a Stat, each time, finds the very file that it was read from, so that
// nobody ever sees an image that has been replaced or deleted, by whomever.
type cache struct {
	mu    sync.RWMutex
	items map[string]*cached
	size  int
}

// A cached image is never changed.
type cached struct {
	Info
	fi   os.FileInfo
	data []byte
	imageHeader
}

// peek returns what the cache has for an id, which may be of old.
func (c *cache) peek(id string) *cached {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.items[id]
}

// statSuffices says whether it is faster to Stat an image than to open it, and
// tells as much: network filesystems answer Stat with what they know of old.
func (s *Store) statSuffices(id string) bool { return s.objects != nil || s.cache.peek(id) != nil }

// is says whether a file is still the one that the image was read from, and has
// not been written to since.
func (c *cached) is(fi os.FileInfo) bool {
	return os.SameFile(c.fi, fi) && c.fi.ModTime().Equal(fi.ModTime()) && c.fi.Size() == fi.Size() && sameChange(c.fi, fi)
}

// cost is what an image takes of cacheSize: what there is beside its bytes, less
// than 1 KiB, is most of it for the smallest ones.
func (c *cached) cost() int { return len(c.data) + 1<<10 }

// drop removes an image.
func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(id)
}

// remove is drop for who has the lock.
func (c *cache) remove(id string) {
	if old := c.items[id]; old != nil {
		c.size -= old.cost()
		delete(c.items, id)
	}
}

// add has an image kept, and any others dropped for it if there is no room.
func (c *cache) add(item *cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = make(map[string]*cached)
	}
	c.remove(item.ID)
	for id := range c.items { // in random order
		if c.size+item.cost() <= cacheSize {
			break
		}
		c.remove(id)
	}
	c.items[item.ID] = item
	c.size += item.cost()
}

// An inMemory reads a cached image.
type inMemory struct {
	bytes.Reader
	image *cached
}

func (*inMemory) Close() error { return nil }

func (c *cached) open() *Image {
	r := &inMemory{image: c}
	r.Reset(c.data)
	return &Image{c.Info, r}
}

// load reads a small image into memory, and the cache if it may be there.
func (s *Store) load(info Info, f *os.File, fi os.FileInfo) (*Image, error) {
	keep := time.Since(fi.ModTime()) > settled && isLocal(f)
	item := &cached{info, fi, make([]byte, info.Size), newImageHeader(info)}
	if _, err := io.ReadFull(f, item.data); err != nil {
		return nil, err
	}
	if keep {
		s.cache.add(item)
	}
	return item.open(), nil
}
