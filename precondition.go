package imagestore

import (
	"fmt"
	"net/http"

	"github.com/ba692904/imagestore/internal/etag"
)

// A Condition makes a Put or a Delete depend on the version that is stored. It
// is checked in one step with the change. If it does not hold, nothing changes
// and the error matches [ErrPreconditionFailed]. The zero value always holds.
type Condition struct {
	match, noneMatch field
}

// A field is the value of a header field, if it is set.
type field struct {
	set   bool
	value string
}

// IfAbsent requires that there is no image with this id.
func IfAbsent() Condition { return IfNoneMatch("*") }

// IfMatch requires that the stored version has one of these ETags: one or
// several with commas between them, or * for any version (RFC 9110, section
// 13.1.1). [Info] has a version's ETag.
func IfMatch(etags string) Condition { return Condition{match: field{true, etags}} }

// IfNoneMatch requires that the stored version has none of these ETags. With * it
// requires that there is no image (RFC 9110, section 13.1.2).
func IfNoneMatch(etags string) Condition { return Condition{noneMatch: field{true, etags}} }

// AllOf returns the condition that holds when all of conds do. Two conditions of one
// kind are an error, because an HTTP request has one If-Match and one If-None-Match.
// A malformed list of ETags is an error too. Both match [ErrBadRequest].
func AllOf(conds ...Condition) (Condition, error) {
	var all Condition
	for _, c := range conds {
		for _, part := range []struct {
			name string
			from field
			to   *field
		}{{"If-Match", c.match, &all.match}, {"If-None-Match", c.noneMatch, &all.noneMatch}} {
			if !part.from.set {
				continue
			}
			if part.to.set {
				return Condition{}, &detailedError{kind: ErrBadRequest, detail: "more than one " + part.name + ": send one, with commas between its ETags"}
			}
			if _, err := etag.Match(part.from.value, "", true); err != nil {
				return Condition{}, &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("%s: %v", part.name, err)}
			}
			*part.to = part.from
		}
	}
	return all, nil
}

// IsZero reports whether c always holds.
func (c Condition) IsZero() bool { return c == Condition{} }

// Check returns nil if c holds for a stored version with this ETag. An empty tag
// means that there is no image. Check is for drivers.
func (c Condition) Check(tag string) error {
	stored := "there is no image"
	if tag != "" {
		stored = "the image's ETag is " + tag
	}
	for _, part := range []struct {
		name  string
		field field
		want  bool
	}{{"If-Match", c.match, true}, {"If-None-Match", c.noneMatch, false}} {
		if !part.field.set {
			continue
		}
		found, err := etag.Match(part.field.value, tag, part.want)
		if err != nil {
			return &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("%s: %v", part.name, err)}
		}
		if found != part.want {
			return &detailedError{kind: ErrPreconditionFailed, detail: fmt.Sprintf("%s is %.200s, but %s", part.name, part.field.value, stored)}
		}
	}
	return nil
}

// Header returns c as header fields of an HTTP request, nil for the zero value.
// It is for clients and for drivers of object stores.
func (c Condition) Header() http.Header {
	var h http.Header
	for name, f := range map[string]field{"If-Match": c.match, "If-None-Match": c.noneMatch} {
		if f.set {
			if h == nil {
				h = make(http.Header)
			}
			h.Set(name, f.value)
		}
	}
	return h
}
