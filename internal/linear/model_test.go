// Package linear checks that what a Store, or a Client of one, did for many
// callers at once it could have done for one after the other: that it is
// linearizable, for each id. It is a module of its own because of the checker.
package linear

import (
	"fmt"

	"github.com/anishathalye/porcupine"
	"github.com/ba692904/imagestore"
)

// A version is what is stored under an id. The zero value is no image.
type version struct {
	etag    string
	picture uint64
}

// A call is what was asked for.
type call struct {
	op      string // "put", "get", "stat" or "delete"
	id      string
	cond    string // "" is none, absent is IfAbsent, all else the ETag of an IfMatch
	picture uint64 // what to put
}

const absent = "absent" // no ETag: it has no quotes

// An answer is what came back.
type answer struct {
	err     error // nil, imagestore.ErrNotFound or imagestore.ErrPrecondition
	version       // of an image put or got; without the picture of one that was only looked at
}

// model is a register for every id, checked one by one.
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

// step says whether a may be the answer to c, and what is stored afterwards.
func step(now version, c call, a answer) (ok bool, next version) {
	none := now == version{}
	switch {
	case none && c.op != "put":
		return a.err == imagestore.ErrNotFound, now
	case c.cond == absent && !none, c.cond != absent && c.cond != "" && c.cond != now.etag:
		return a.err == imagestore.ErrPrecondition, now
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
