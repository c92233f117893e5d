package imagestore

import (
	"errors"
	"sync"
)

// A group makes one call do for all who ask for it while the one before runs.
type group struct {
	mu   sync.Mutex
	next *call      // that whoever comes now takes part in
	turn sync.Mutex // held while a call runs
}

type call struct {
	done chan struct{}
	err  error // once done
}

var errPanicked = errors.New("the call has panicked")

// do returns what a call of f returned that began after do did.
func (g *group) do(f func() error) error {
	g.mu.Lock()
	c := g.next
	first := c == nil
	if first {
		c = &call{done: make(chan struct{})}
		g.next = c
	}
	g.mu.Unlock()
	if !first {
		<-c.done
		return c.err
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	g.next = nil // for who comes from now on, this call is too early
	g.mu.Unlock()
	defer close(c.done)
	c.err = errPanicked // unless it returns
	c.err = f()
	return c.err
}
