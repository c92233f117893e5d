package keylock

import (
	"context"
	"testing"
)

// TestForgets checks that a lock is kept only while it is held or waited for.
func TestForgets(t *testing.T) {
	t.Parallel()
	var m Map
	unlock, err := m.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	unlockB, err := m.Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if n := m.Len(); n != 2 {
		t.Errorf("got %d locks, want 2", n)
	}
	unlockB()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Lock(ctx, "a"); err != context.Canceled {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	unlock()
	if n := m.Len(); n != 0 {
		t.Errorf("got %d locks, want 0", n)
	}
	unlock, err = m.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
