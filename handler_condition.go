package imagestore

import (
	"net/http"
	"time"

	"github.com/ba692904/imagestore/internal/etag"
)

// settleTime is the age from which a version can be told from others by its
// date. It is longer than a change takes from choosing its time to being seen.
const settleTime = time.Minute

// validators has the values that the conditions of a read are compared with. HTTP's dates are
// in seconds, and an image may change several times in one.
type validators struct {
	etag     string
	modified time.Time // Last-Modified
	settled  bool      // whether no other version has, or will have, this date
}

// validatorsOf returns the validators of a version.
//
// The date is rounded up once the version has settled. All later versions have a
// later date then. Before, it is rounded down: a client gets no date in time that
// the next version may be given too. It is never in the future (RFC 9110, section
// 8.8.2.1).
func validatorsOf(info Info) validators {
	now := time.Now()
	down := info.ModTime.Truncate(time.Second)
	up := down
	if up.Before(info.ModTime) {
		up = up.Add(time.Second)
	}
	if now.Sub(up) >= settleTime {
		return validators{info.ETag, up, true}
	}
	if down.After(now) {
		down = now.Truncate(time.Second)
	}
	return validators{info.ETag, down, false}
}

// evaluate evaluates the conditions of a GET or HEAD in the order of RFC 9110,
// section 13.2.2. It returns the status of the answer; 206 means that Range applies.
// The error is for 412, and for a malformed If-Match.
//
// A date holds only if it is the version's Last-Modified. A date that was made
// otherwise may be that of an older version, which was restored from a backup for
// example.
func (v validators) evaluate(header http.Header) (status int, err error) {
	status = http.StatusPartialContent
	if header["If-Match"] != nil {
		if err := IfMatch(header.Get("If-Match")).Check(v.etag); err != nil {
			return 0, err
		}
	} else if header["If-Unmodified-Since"] != nil && !v.isDate(header, "If-Unmodified-Since") {
		if t, ok := dateIn(header, "If-Unmodified-Since"); ok && v.settled && v.modified.After(t) {
			return 0, &detailedError{kind: ErrPreconditionFailed, detail: "the image was modified later; its ETag is " + v.etag}
		}
		status = http.StatusOK // the client may have a part of another version
	}
	if header["If-None-Match"] != nil {
		// A malformed list matches nothing.
		if found, _ := etag.Match(header.Get("If-None-Match"), v.etag, false); found {
			return http.StatusNotModified, nil
		}
	} else if v.isDate(header, "If-Modified-Since") {
		return http.StatusNotModified, nil
	}
	if lines := header["If-Range"]; lines != nil && !(len(lines) == 1 && lines[0] == v.etag) && !v.isDate(header, "If-Range") {
		status = http.StatusOK
	}
	return status, nil
}

// isDate reports whether a header field is the date of this version and no other.
func (v validators) isDate(header http.Header, name string) bool {
	t, ok := dateIn(header, name)
	return ok && v.settled && t.Equal(v.modified)
}

// dateIn returns the date in a header field. More than one, and what is no date,
// are ignored (RFC 9110, section 13.1.3).
func dateIn(header http.Header, name string) (t time.Time, ok bool) {
	if len(header[name]) != 1 {
		return t, false
	}
	t, err := http.ParseTime(header[name][0])
	return t, err == nil
}
