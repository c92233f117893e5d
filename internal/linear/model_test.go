// Package linear checks that a Store, and a Client of one, are linearizable for each
// id: each answer to many callers at once is one that a store gives to one caller at
// a time. The checker is a dependency, so this is a module of its own.
package linear

import (
	"fmt"

	"github.com/anishathalye/porcupine"
	"github.com/ba692904/imagestore"
)

// A version is a stored image. The zero value is no image.
type version struct {
	etag    string
	picture uint64
}

// A call is one call of a method.
type call struct {
	op      string // "put", "get", "stat" or "delete"
	id      string
	cond    string // "" for none, absent for IfAbsent, else the ETag of an IfMatch
	picture uint64 // number of the picture to put
}

const absent = "absent" // differs from every ETag: those have quotes

// An answer is the answer to a call.
type answer struct {
	err     error // nil, imagestore.ErrNotFound or imagestore.ErrPreconditionFailed
	version       // of the image; of a stat, without the picture
}

// model is one register for each id. The checker takes one id at a time.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		at := make(map[string]int)
		for _, o := range history {
			id := o.Input.(call).id
			if _, ok := at[id]; !ok {
				at[id] = len(parts)
				parts = append(parts, nil)
			}
			parts[at[id]] = append(parts[at[id]], o)
		}
		return parts
	},
	Init:              func() any { return version{} },
	Step:              func(state, in, out any) (bool, any) { return step(state.(version), in.(call), out.(answer)) },
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v: %+v", in, out) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

// step reports whether a may be the answer to c, and returns the next version.
func step(now version, c call, a answer) (ok bool, next version) {
	none := now == version{}
	switch {
	case none && c.op != "put":
		return a.err == imagestore.ErrNotFound, now
	case c.cond == absent && !none, c.cond != absent && c.cond != "" && c.cond != now.etag:
		return a.err == imagestore.ErrPreconditionFailed, now
	case a.err != nil:
		return false, now
	case c.op == "put":
		return true, version{a.etag, c.picture}
	case c.op == "delete":
		return true, version{}
	case c.op == "stat":
		return a.etag == now.etag, now
	}
	return a.version == now, now
}
