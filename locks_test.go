package imagestore

import (
	"context"
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
