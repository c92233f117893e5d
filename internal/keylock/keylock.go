// Package keylock has a lock for every key that is in use.
package keylock

import (
	"context"
	"sync"
)

// A Map holds the locks. Its zero value is ready to use. It is safe for concurrent
// use.
type Map struct {
	mu sync.Mutex
	m  map[string]*lock
}

type lock struct {
	held  chan struct{} // has room for the one holder
	users int           // holder and waiters, guarded by Map.mu
}

// Lock waits until the key is free, or until ctx is done. A lock that is neither held
// nor waited for takes no memory.
func (l *Map) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.m[key]
	if k == nil {
		if l.m == nil {
			l.m = make(map[string]*lock)
		}
		k = &lock{held: make(chan struct{}, 1)}
		l.m[key] = k
	}
	k.users++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.m, key)
		}
	}
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// Len returns the number of keys that are held or waited for.
func (l *Map) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.m)
}
