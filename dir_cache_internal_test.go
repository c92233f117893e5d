package imagestore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestCacheIsBounded checks the size of the cache, which no caller sees.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	var c cache
	for _, largest := range []int{1, smallSize} { // of the smallest images, most of the cost is not data
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 10_000 {
					id := fmt.Sprint(rand.IntN(20_000))
					if i%10 == 0 {
						c.drop(id)
						continue
					}
					c.add(&cachedImage{Info: Info{ID: id}, data: make([]byte, rand.IntN(largest))})
				}
			})
		}
		wg.Wait()
		total := 0
		for _, item := range c.items {
			total += item.cost()
		}
		if c.size < total || total > cacheSize {
			t.Fatalf("got %d bytes cached, of which the cache counts %d, want at most %d", total, c.size, cacheSize)
		}
		if c.size < cacheSize/2 || len(c.items) < 100 {
			t.Errorf("got %d images of %d bytes cached, want the cache half full", len(c.items), c.size)
		}
	}
	for id := range c.items {
		c.drop(id)
	}
	if c.size != 0 {
		t.Errorf("got a size of %d bytes of an empty cache, want 0", c.size)
	}
}
