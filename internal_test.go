package imagestore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestLocksAreForgotten is about memory, which no caller sees: a lock is kept
// only while somebody holds it or waits for it.
func TestLocksAreForgotten(t *testing.T) {
	var l locks
	unlock, err := l.lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.lock(ctx, "a"); err != context.Canceled {
		t.Errorf("waiting ends with %v", err)
	}
	unlock()
	if len(l.m) != 0 {
		t.Errorf("%d locks are left", len(l.m))
	}
}

// TestCacheIsBounded looks at what the cache keeps, which no caller sees.
func TestCacheIsBounded(t *testing.T) {
	var c cache
	for _, largest := range []int{1, smallSize} { // for the smallest, what is beside the bytes matters
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 20_000 {
					id := fmt.Sprint(rand.IntN(20_000))
					if i%10 == 0 {
						c.drop(id)
						continue
					}
					c.add(&cached{Info: Info{ID: id}, data: make([]byte, rand.IntN(largest))})
				}
			})
		}
		wg.Wait()
		total := 0
		for _, item := range c.items {
			total += len(item.data) + 1000
		}
		if c.size < total || total > cacheSize {
			t.Fatalf("%d bytes are kept, the cache counts %d and may have %d", total, c.size, cacheSize)
		}
		if c.size < cacheSize/2 || len(c.items) < 100 {
			t.Errorf("only %d images of %d bytes are kept", len(c.items), c.size)
		}
	}
	for id := range c.items {
		c.drop(id)
	}
	if c.size != 0 {
		t.Errorf("nothing is kept, and the cache counts %d bytes", c.size)
	}
}
