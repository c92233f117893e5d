package linear

import (
	"bytes"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// TestETagsNeverRepeat changes one image as fast as it goes, under a clock that
// is right and under one that has been set back. The clock of a test cannot go
// backwards, but a Store that has once replaced an image from the future is in
// the same place: the versions that it has given out are later than its clock.
//
// What this cannot show, because nothing keeps it, is that a version does not
// come again when the image was deleted and the Store started anew while the
// clock was behind: then it takes the same nanosecond and the same size.
func TestETagsNeverRepeat(t *testing.T) {
	for _, test := range []struct {
		name string
		fs   afero.Fs
	}{
		{"on disk", onDisk(t)},
		{"in memory", inMemory(t)},
	} {
		for _, ahead := range []time.Duration{0, time.Hour, 365 * 24 * time.Hour} {
			s := imagestore.New(test.fs, &imagestore.Options{NoSync: true})
			seen := make(map[string]bool)
			note := func(etag string) {
				t.Helper()
				if seen[etag] {
					t.Fatalf("%s, %v ahead: after %d versions the ETag %s comes again", test.name, ahead, len(seen), etag)
				}
				seen[etag] = true
			}
			put := func(conds ...imagestore.Precondition) imagestore.Info {
				t.Helper()
				info, err := s.Put(t.Context(), "a", bytes.NewReader(picture(1)), conds...)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := s.Stat(t.Context(), "a"); err != nil || got != info {
					t.Fatalf("%s, %v ahead: Stat says %+v, %v, Put said %+v", test.name, ahead, got, err, info)
				}
				note(info.ETag)
				return info
			}
			first := put()
			if ahead > 0 {
				future := time.Now().Add(ahead)
				if err := test.fs.Chtimes("a/image.png", future, future); err != nil {
					t.Fatal(err)
				}
				info, err := s.Stat(t.Context(), "a")
				if err != nil || info == first {
					t.Fatalf("the image is still %+v, %v", info, err)
				}
				note(info.ETag)
			}
			for range 50 {
				info := put()
				if info.ModTime.Before(first.ModTime.Add(ahead)) {
					t.Fatalf("%s: what replaces an image from %v ahead is from %v", test.name, ahead, info.ModTime)
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
