package imagestore

import (
	"fmt"
	"slices"
	"strings"
)

// A Precondition makes a Put or a Delete depend on what is stored under the id
// at the very moment of the change. When it does not hold, nothing is changed
// and the error matches [ErrPrecondition]. The zero value always holds. Of each
// kind there may be one.
type Precondition struct{ header, value string }

// IfAbsent demands that there is no image with this id: of several writers
// exactly one creates it.
func IfAbsent() Precondition { return Precondition{"If-None-Match", "*"} }

// IfMatch demands that the image is the version with this ETag, as [Info] has
// it. What If-Match of RFC 9110, section 13.1.1, allows is allowed: several
// ETags with commas between them, or * for any version.
func IfMatch(etag string) Precondition { return Precondition{"If-Match", etag} }

// Header returns the precondition as a header field of an HTTP request, both
// strings empty for the zero value.
func (p Precondition) Header() (name, value string) { return p.header, p.value }

// conditional says whether there is a condition among these.
func conditional(conds []Precondition) bool {
	return slices.ContainsFunc(conds, func(p Precondition) bool { return p.header != "" })
}

// check returns nil if the image with this ETag, "" if there is none, is as
// the preconditions demand.
func check(conds []Precondition, etag string) error {
	for i, p := range conds {
		if p.header == "" {
			continue
		}
		if slices.ContainsFunc(conds[:i], func(q Precondition) bool { return q.header == p.header }) {
			return &fault{kind: ErrBadRequest, detail: "more than one " + p.header + ", which HTTP has no way to say"}
		}
		strong := p.header == "If-Match"
		found, err := listHas(p.value, etag, strong)
		if err != nil {
			return &fault{kind: ErrBadRequest, detail: fmt.Sprintf("%s: %v", p.header, err)}
		}
		if found == strong {
			continue
		}
		detail := "there is no image"
		if etag != "" {
			detail = "the image's ETag is " + etag
		}
		return &fault{kind: ErrPrecondition, detail: fmt.Sprintf("%s is %.200s, but %s", p.header, p.value, detail)}
	}
	return nil
}

// listHas says whether a list of entity tags (RFC 9110, sections 8.8.3 and
// 13.1) has etag. A list that cannot be understood is an error: to take it for
// one that does not match would let If-None-Match overwrite an image.
func listHas(list, etag string, strong bool) (found bool, err error) {
	rest := strings.Trim(list, " \t")
	if rest == "*" {
		return etag != "", nil
	}
	for {
		tag, weak := strings.CutPrefix(rest, "W/")
		end := -1
		if strings.HasPrefix(tag, `"`) {
			end = strings.IndexByte(tag[1:], '"')
		}
		if end < 0 {
			return false, fmt.Errorf("%.100q is neither * nor a list of ETags in double quotes", list)
		}
		if tag[:end+2] == etag && !(strong && weak) {
			found = true
		}
		rest = strings.TrimLeft(tag[end+2:], " \t")
		if rest == "" {
			return found, nil
		}
		if rest[0] != ',' {
			return false, fmt.Errorf("%.100q has no comma between its ETags", list)
		}
		rest = strings.TrimLeft(rest, ", \t")
	}
}
