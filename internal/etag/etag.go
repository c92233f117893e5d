// Package etag reads lists of entity tags, as If-Match and If-None-Match carry
// them (RFC 9110, sections 8.8.3 and 13.1).
package etag

import (
	"fmt"
	"strings"
)

// Match reports whether list names tag. The list "*" names every tag but "",
// which stands for no representation at all. Strong comparison takes no weak
// tag of the list.
//
// A malformed list is an error. Treating it as one that does not match would
// let If-None-Match overwrite an image.
func Match(list, tag string, strong bool) (found bool, err error) {
	rest := strings.Trim(list, " \t")
	if rest == "*" {
		return tag != "", nil
	}
	rest = strings.TrimLeft(rest, ", \t") // empty elements are ignored (section 5.6.1.2)
	for {
		opaque, weak := strings.CutPrefix(rest, "W/")
		end := -1
		if strings.HasPrefix(opaque, `"`) {
			end = strings.IndexByte(opaque[1:], '"')
		}
		if end < 0 || strings.ContainsFunc(opaque[1:end+1], func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return false, fmt.Errorf("%.100q is neither * nor a list of ETags in double quotes", list)
		}
		if opaque[:end+2] == tag && !(strong && weak) {
			found = true
		}
		rest = strings.TrimLeft(opaque[end+2:], " \t")
		if rest == "" {
			return found, nil
		}
		if rest[0] != ',' {
			return false, fmt.Errorf("%.100q has no comma between its ETags", list)
		}
		if rest = strings.TrimLeft(rest, ", \t"); rest == "" {
			return found, nil
		}
	}
}
