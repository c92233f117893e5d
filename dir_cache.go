package imagestore

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"
)

const (
	// smallSize is the largest image that is cached, in bytes. Larger ones gain
	// nothing, because sendfile does not copy them.
	smallSize = 64 << 10
	// cacheSize bounds the size of the cache, in bytes.
	cacheSize = 16 << 20
	// cacheCost is the memory that an image takes in addition to its bytes.
	cacheCost = 1 << 10
	// settled is the age from which a file is cached. File times are coarse: a
	// younger file could change again without a new time.
	settled = 3 * time.Second
)

// A cache holds small images that were read. A cached image is used only while a
// stat finds the file that it was read from. So no reader sees an image that was
// replaced or deleted, by any process.
type cache struct {
	mu    sync.RWMutex
	items map[string]*cachedImage
	size  int
}

// A cachedImage never changes.
type cachedImage struct {
	Info
	fi   os.FileInfo
	data []byte
}

// cacheable reports whether the image in an open file may be cached.
func cacheable(f *os.File, fi os.FileInfo) bool {
	return fi.Size() <= smallSize && time.Since(fi.ModTime()) > settled && isLocal(f)
}

// readCached reads an image that may be cached.
func readCached(id string, f *os.File, fi os.FileInfo) (*cachedImage, error) {
	data := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	meta, err := readMeta(bytes.NewReader(data))
	return &cachedImage{infoOf(id, fi, meta), fi, data}, err
}

// isOf reports whether fi describes the file that the image was read from, and
// the file has not been written since.
func (c *cachedImage) isOf(fi os.FileInfo) bool {
	return os.SameFile(c.fi, fi) && c.fi.ModTime().Equal(fi.ModTime()) && c.fi.Size() == fi.Size() && sameChange(c.fi, fi)
}

func (c *cachedImage) cost() int { return len(c.data) + cacheCost }

func (c *cachedImage) open() *Image {
	r := new(memoryReader)
	r.Reset(c.data)
	return &Image{c.Info, r}
}

// A memoryReader reads a cached image. Its WriteTo writes all of it at once.
type memoryReader struct{ bytes.Reader }

func (r *memoryReader) Close() error {
	r.Reset(nil)
	return nil
}

// get returns what the cache holds for an id, which may be stale.
func (c *cache) get(id string) *cachedImage {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.items[id]
}

// drop removes an image.
func (c *cache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(id)
}

// remove removes an image. c.mu is held.
func (c *cache) remove(id string) {
	if old := c.items[id]; old != nil {
		c.size -= old.cost()
		delete(c.items, id)
	}
}

// add adds an image and evicts others, chosen at random, to make room for it.
func (c *cache) add(item *cachedImage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = make(map[string]*cachedImage)
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
