package imagestore

import (
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// maxAhead is how far ahead of the clock a version may lie to be followed by a
	// later one. A file that is further ahead has a wrong date, which must not
	// spread to what is put after it.
	maxAhead = 24 * time.Hour
	// maxDeletions bounds how many deleted versions are kept.
	maxDeletions = 1 << 10
)

// The years that JSON and HTTP can show, in seconds since 1970.
const (
	minSecond = -62167219200 // 0000-01-01T00:00:00Z
	maxSecond = 253402300799 // 9999-12-31T23:59:59Z
)

// version returns the version that a file is.
func version(fi os.FileInfo) time.Time {
	t := fi.ModTime()
	return time.Unix(t.Unix(), int64(t.Nanosecond())).UTC() // so that equal ones are equal to ==
}

// later reports whether a is later than b. [time.Time.After] is wrong about the
// largest times that a filesystem can keep.
func later(a, b time.Time) bool {
	if a.Unix() != b.Unix() {
		return a.Unix() > b.Unix()
	}
	return a.Nanosecond() > b.Nanosecond()
}

// putLater reports whether a store has put the version v after another one. It has
// not if v is far ahead of the clock.
func putLater(v, other time.Time) bool {
	return later(v, other) && !isFarAhead(v, time.Now())
}

func isFarAhead(v, now time.Time) bool { return later(v, now.Add(maxAhead)) }

// latest returns the latest of some versions that is not far ahead of the clock. It
// returns the zero time if there is none.
func latest(now time.Time, versions ...time.Time) (last time.Time) {
	for _, v := range versions {
		if later(v, last) && !isFarAhead(v, now) {
			last = v
		}
	}
	return last
}

// nextVersion returns the version to put after another one: the time of the clock,
// if that is later. The clock may have stood still or been set back. Then it is a
// full second after the other one's, because HTTP compares dates by the second.
func nextVersion(now, after time.Time) time.Time {
	if later(now, after) {
		return now
	}
	second := after.Truncate(time.Second)
	if later(after, second) {
		second = second.Add(time.Second)
	}
	return second.Add(time.Second)
}

// newInfo describes a file that has this size and version. In lists, meta is zero.
func newInfo(id string, size int64, version time.Time, meta Meta) Info {
	modTime := version
	switch s := version.Unix(); {
	case s < minSecond:
		modTime = time.Unix(minSecond, 0).UTC()
	case s >= maxSecond: // a whole second, so that rounding up stays in the year
		modTime = time.Unix(maxSecond, 0).UTC()
	}
	return Info{
		ID:      id,
		Type:    meta.Type,
		Size:    size,
		Width:   meta.Width,
		Height:  meta.Height,
		ModTime: modTime,
		ETag:    etagOf(version, size),
	}
}

func infoOf(id string, fi os.FileInfo, meta Meta) Info {
	return newInfo(id, fi.Size(), version(fi), meta)
}

// etagOf returns the ETag of a version. It has the nanoseconds since 1970, or
// seconds and nanoseconds where an int64 is too small for that.
func etagOf(version time.Time, size int64) string {
	b := append(make([]byte, 0, 64), '"')
	if n := version.UnixNano(); time.Unix(0, n).Equal(version) {
		b = strconv.AppendInt(b, n, 36)
	} else {
		b = append(strconv.AppendInt(b, version.Unix(), 36), '.')
		b = strconv.AppendInt(b, int64(version.Nanosecond()), 36)
	}
	b = strconv.AppendInt(append(b, '-'), size, 36)
	return string(append(b, '"'))
}

// A deletions has the latest deleted version of each id, as long as it is needed. A
// version put soon afterwards must be later, also where times are coarse. The zero
// value is ready to use. A deletions is safe for concurrent use.
type deletions struct {
	mu       sync.Mutex
	versions map[string]time.Time
	// floor stands for versions that were too many to keep, of any id. Those that are
	// ahead of the clock are forgotten.
	floor time.Time
}

// get returns a version that is not earlier than the latest deleted one, or the zero
// time if none is needed.
func (d *deletions) get(id string) time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if v, ok := d.versions[id]; ok && later(v, d.floor) {
		return v
	}
	return d.floor
}

// add adds a version that is about to be deleted.
func (d *deletions) add(id string, v time.Time) {
	now := time.Now()
	if !isNeeded(v, now) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if later(d.versions[id], v) {
		return
	}
	if d.versions == nil {
		d.versions = make(map[string]time.Time)
	}
	d.versions[id] = v
	if len(d.versions) < maxDeletions {
		return
	}
	for id, v := range d.versions {
		if !isNeeded(v, now) {
			delete(d.versions, id)
		}
	}
	if len(d.versions) > maxDeletions/2 { // otherwise every add would look at all of them
		for _, v := range d.versions {
			if !later(v, now.Add(settled)) { // others would give every id a wrong date
				d.floor = latest(now, d.floor, v)
			}
		}
		clear(d.versions)
	}
}

// isNeeded reports whether the clock may still give a deleted version again.
func isNeeded(v, now time.Time) bool {
	return later(v, now.Add(-settled)) && !isFarAhead(v, now)
}
