package linear

import (
	"bytes"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// TestETagsNeverRepeat changes one image as fast as possible, under a right clock and
// under one that was set back. The test cannot set the clock back. It replaces an
// image from the future instead, so that the versions are later than the clock.
//
// One case is not promised. A version can repeat if the image was deleted and the
// Store started again while the clock was behind. It then takes the same nanosecond
// and the same size.
func TestETagsNeverRepeat(t *testing.T) {
	for _, test := range []struct {
		name string
		fs   afero.Fs
	}{
		{"on disk", onDisk(t)},
		{"in memory", afero.NewMemMapFs()},
	} {
		for _, ahead := range []time.Duration{0, time.Hour, 365 * 24 * time.Hour} {
			s := imagestore.New(test.fs, &imagestore.Options{NoSync: true})
			seen := make(map[string]bool)
			note := func(etag string) {
				t.Helper()
				if seen[etag] {
					t.Fatalf("%s, %v ahead: got ETag %s again after %d versions, want a new one", test.name, ahead, etag, len(seen))
				}
				seen[etag] = true
			}
			put := func(conds ...imagestore.Condition) imagestore.Info {
				t.Helper()
				result, err := s.Put(t.Context(), "a", bytes.NewReader(picture(2)), conds...)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := s.Stat(t.Context(), "a"); err != nil || got != result.Info {
					t.Fatalf("%s, %v ahead: got %+v, %v from Stat, want %+v", test.name, ahead, got, err, result.Info)
				}
				note(result.ETag)
				return result.Info
			}
			first := put()
			if ahead > 0 {
				future := time.Now().Add(ahead)
				if err := test.fs.Chtimes("a/image", future, future); err != nil {
					t.Fatal(err)
				}
				info, err := s.Stat(t.Context(), "a")
				if err != nil || info == first {
					t.Fatalf("got %+v, %v, want another version", info, err)
				}
				note(info.ETag)
			}
			for range 50 {
				info := put()
				// A date that is further ahead is wrong, and does not spread.
				if ahead < 24*time.Hour && info.ModTime.Before(first.ModTime.Add(ahead)) {
					t.Fatalf("%s: got an image from %v, want one from %v later or more", test.name, info.ModTime, ahead)
				}
				put(imagestore.IfMatch(info.ETag))
				if err := s.Delete(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				put(imagestore.IfAbsent())
			}
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
