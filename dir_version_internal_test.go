package imagestore

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestDeletions checks that deleted versions are kept for as long as they are needed,
// and that their number is bounded.
func TestDeletions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d deletions
		want := func(id string, want time.Time) {
			t.Helper()
			if got := d.get(id); !got.Equal(want) {
				t.Errorf("%s: got %v, want %v", id, got, want)
			}
		}
		now := time.Now()
		d.add("recent", now)
		d.add("recent", now.Add(-time.Second)) // is not the latest
		want("recent", now)
		d.add("past", now.Add(-time.Minute))
		want("past", time.Time{})
		d.add("far ahead", now.Add(maxAhead+1))
		want("far ahead", time.Time{})
		ahead := now.Add(time.Hour)
		d.add("ahead", ahead)
		for i := range 10 * maxDeletions {
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
			d.add(fmt.Sprint(i), time.Now())
			if n := len(d.versions); n > maxDeletions {
				t.Fatalf("got %d versions, want at most %d", n, maxDeletions)
			}
		}
		want("ahead", ahead)
		want("other", time.Time{})
		// More are needed at once than can be kept.
		now = time.Now()
		for i := range 2 * maxDeletions {
			d.add(fmt.Sprint(i), now)
		}
		want("ahead", now) // it is forgotten, so that it dates no other id
		want("other", now)
	})
}
