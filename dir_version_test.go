package imagestore_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/spf13/afero"
)

// coarseFs rounds modification times down to step, as FAT and many network
// filesystems do.
type coarseFs struct {
	afero.Fs
	step time.Duration
}

func (c coarseFs) Chtimes(name string, atime, mtime time.Time) error {
	return c.Fs.Chtimes(name, atime.Truncate(c.step), mtime.Truncate(c.step))
}

func TestCoarseTimes(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{100, time.Millisecond, time.Second, 2 * time.Second} {
		fsys := coarseFs{onDisk(t), step}
		s := imagestore.New(fsys, nil)
		b := testimage.PNG(t, 3, 1)
		seen := make(map[string]bool)
		for i := range 20 {
			if i == 10 { // as if the clock had been set back
				ahead := time.Now().Add(time.Hour)
				must(t, fsys.Chtimes("a/image", ahead, ahead))
			}
			if i > 0 && i%3 == 0 {
				must(t, s.Delete(t.Context(), "a"))
			}
			info := put(t, s, "a", b)
			if seen[info.ETag] {
				t.Fatalf("steps of %v: got ETag %s again, want a new one", step, info.ETag)
			}
			seen[info.ETag] = true
			if got, _ := get(t, s, "a"); got != info {
				t.Fatalf("steps of %v: got %+v from Get, want %+v as from Put", step, got, info)
			}
		}
	}
}

// TestVersions replaces, and deletes, an image whose time is before or after the
// clock's, which stands still.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		ahead time.Duration // of the old image
		want  time.Duration // the new image's, after the clock
	}{
		{"long ago", -1000 * time.Hour, 0},
		{"in the same second", -300 * time.Millisecond, 0},
		{"now", 0, time.Second},
		{"a moment ahead", 1, 2 * time.Second},
		{"an hour ahead", time.Hour, time.Hour + time.Second},
		{"an hour and some ahead", time.Hour + 1, time.Hour + 2*time.Second},
		{"a day ahead", 24 * time.Hour, 24*time.Hour + time.Second},
		// A wrong date does not spread.
		{"more than a day ahead", 24*time.Hour + 1, 0},
		{"a century ahead", 100 * 365 * 24 * time.Hour, 0},
	} {
		for _, deleted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, deleted %v", test.name, deleted), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fsys := afero.NewMemMapFs()
					s := imagestore.New(fsys, nil)
					b := testimage.PNG(t, 3, 1)
					now := time.Now() // a full second
					put(t, s, "a", b)
					at := now.Add(test.ahead)
					must(t, fsys.Chtimes("a/image", at, at))
					old, _ := get(t, s, "a")
					if deleted {
						must(t, s.Delete(t.Context(), "a"))
					}
					info := put(t, s, "a", b)
					if want := now.Add(test.want).UTC(); info.ModTime != want || info.ETag == old.ETag {
						t.Errorf("got %v, ETag %s, after %v, ETag %s, want %v and another ETag", info.ModTime, info.ETag, old.ModTime, old.ETag, want)
					}
					if other := put(t, s, "b", b); other.ModTime != now.UTC() {
						t.Errorf("another id: got %v, want %v", other.ModTime, now.UTC())
					}
					// Once the clock has passed the version, the clock is right again.
					time.Sleep(test.want + 10*time.Second)
					if info := put(t, s, "a", b); info.ModTime != time.Now().UTC() {
						t.Errorf("later: got %v, want %v", info.ModTime, time.Now().UTC())
					}
				})
			})
		}
	}
}

// TestManyDeletions deletes more images than the store keeps versions of, while the
// clock stands still.
func TestManyDeletions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := imagestore.New(afero.NewMemMapFs(), &imagestore.Options{NoSync: true})
		b := testimage.PNG(t, 1, 1)
		etags := make(map[string]string)
		for i := range 2500 {
			id := fmt.Sprint("i", i)
			etags[id] = put(t, s, id, b).ETag
			must(t, s.Delete(t.Context(), id))
		}
		for id, etag := range etags {
			if info := put(t, s, id, b); info.ETag == etag {
				t.Fatalf("%s: got ETag %s again, want another", id, etag)
			}
		}
	})
}

// extremeTimes are modification times that some filesystems keep. Most do not fit
// into an int64 of nanoseconds, or into the years that JSON allows.
var extremeTimes = []time.Time{
	time.Unix(0, math.MinInt64), time.Unix(0, math.MinInt64).Add(-1),
	time.Unix(0, math.MaxInt64), time.Unix(0, math.MaxInt64).Add(1),
	time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC),
	time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
	time.Date(2350, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2350, 1, 1, 0, 0, 0, 1, time.UTC),
	time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	time.Unix(253402300800, 0), // the year 10000
	time.Unix(-62167219201, 0), // the year -1
	time.Unix(math.MaxInt64, 0),
	time.Unix(math.MinInt64, 0),
}

// TestExtremeTimes reads, lists, replaces and deletes images of such times, on a
// Store and over HTTP.
func TestExtremeTimes(t *testing.T) {
	t.Parallel()
	fsys := afero.NewMemMapFs()
	testExtremeTimes(t, fsys, func(name string, at time.Time) { must(t, fsys.Chtimes(name, at, at)) })
}

func testExtremeTimes(t *testing.T, fsys afero.Fs, setTime func(name string, at time.Time)) {
	s := imagestore.New(fsys, nil)
	b := testimage.PNG(t, 3, 1)
	var ids []string
	etags := make(map[string]time.Time)
	for i, at := range extremeTimes {
		id := fmt.Sprintf("i%02d", i)
		ids = append(ids, id)
		put(t, s, id, b)
		setTime(id+"/image", at)
	}
	c := newClient(t, serve(t, s, nil).URL)
	for name, s := range map[string]storetest.Images{"Store": s, "Client": c} {
		if got := list(t, s, imagestore.ListOptions{}); !slices.Equal(got, ids) {
			t.Errorf("%s: got a list of %q, want %q", name, got, ids)
		}
		if _, got := get(t, s, "i00"); !bytes.Equal(got, b) {
			t.Errorf("%s: got another image, want what was put", name)
		}
	}
	first, last := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	for i, at := range extremeTimes {
		id := ids[i]
		old, err := s.Stat(t.Context(), id)
		must(t, err)
		want := at.UTC()
		switch { // not by Before, which is wrong about such times
		case at.Unix() < first.Unix():
			want = first
		case at.Unix() >= last.Unix():
			want = last
		}
		if old.ModTime != want {
			t.Errorf("time %d: got %v, want %v", at.Unix(), old.ModTime, want)
		}
		if other, ok := etags[old.ETag]; ok {
			t.Errorf("time %d: got the ETag %s of time %d, want another", at.Unix(), old.ETag, other.Unix())
		}
		etags[old.ETag] = at
		if i%2 == 0 {
			put(t, c, id, b, imagestore.IfMatch(old.ETag))
		} else {
			must(t, c.Delete(t.Context(), id, imagestore.IfMatch(old.ETag)))
		}
		if info := put(t, s, id, b); time.Since(info.ModTime).Abs() > time.Hour || info.ETag == old.ETag {
			t.Errorf("time %d, then put: got %+v, want a version of now", at.Unix(), info)
		}
	}
}

// TestDeleteBelowTheFuture has an image of the far future in the base layer of a union
// filesystem, below one that was put. Delete cannot remove it, and must say so.
func TestDeleteBelowTheFuture(t *testing.T) {
	t.Parallel()
	base := onDisk(t)
	b := testimage.PNG(t, 3, 1)
	put(t, imagestore.New(base, nil), "a", b)
	future := time.Now().Add(1000 * time.Hour)
	must(t, base.Chtimes("a/image", future, future))
	s := imagestore.New(afero.NewCopyOnWriteFs(base, onDisk(t)), nil)
	put(t, s, "a", b)
	wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrReadOnly, "delete", "a")
}

// stoppedFs gives all files one modification time, which is far ahead of the clock.
type stoppedFs struct{ afero.Fs }

func (f stoppedFs) Stat(name string) (os.FileInfo, error) {
	fi, err := f.Fs.Stat(name)
	return stoppedInfo{fi}, err
}

type stoppedInfo struct{ os.FileInfo }

func (stoppedInfo) ModTime() time.Time { return time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestStoppedClock checks that no version gets the time of the one that it replaces.
func TestStoppedClock(t *testing.T) {
	t.Parallel()
	s := imagestore.New(stoppedFs{afero.NewMemMapFs()}, nil)
	b := testimage.PNG(t, 3, 1)
	info := put(t, s, "a", b)
	if again, err := s.Put(t.Context(), "a", bytes.NewReader(b)); err == nil {
		t.Errorf("got ETag %s after %s, want an error", again.ETag, info.ETag)
	}
}

// lyingFs loses the second half of every write and reports success.
type lyingFs struct{ afero.Fs }

func (l lyingFs) OpenFile(name string, flag int, perm os.FileMode) (afero.File, error) {
	f, err := l.Fs.OpenFile(name, flag, perm)
	return lyingFile{f}, err
}

type lyingFile struct{ afero.File }

func (l lyingFile) Write(p []byte) (int, error) {
	if _, err := l.File.Write(p[:len(p)/2]); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestLyingFilesystem(t *testing.T) {
	t.Parallel()
	s := imagestore.New(lyingFs{onDisk(t)}, nil)
	if _, err := s.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 30, 1))); err == nil {
		t.Error("got no error for half an image, want one")
	}
	_, err := s.Get(t.Context(), "a")
	wantError(t, err, imagestore.ErrNotFound, "get", "a")
}
