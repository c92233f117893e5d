package imagestore

import (
	"context"
	"io"
	"iter"
	"os"

	"github.com/spf13/afero"
)

// An ObjectFs is a filesystem on top of an object store. There a file comes
// into being whole, in one step that can be made to depend on what is stored
// under its name, Rename is a copy, and directories are only prefixes of names.
// A [Store] on an ObjectFs proves an upload in a temporary file of the operating
// system and then calls PutObject once. It makes no directories, renames
// nothing, and of the methods of [afero.Fs] calls only Open, Stat and Remove.
//
// The [os.FileInfo] of its files have one more method, ETag() string: the
// strong entity tag (RFC 9110, section 8.8.3), with its quotes, that the object
// store gives the object. Images have this one, rather than one made of their
// modification time. Errors for want of the object store itself match
// [ErrUnavailable].
type ObjectFs interface {
	afero.Fs

	// PutObject makes a file of all that body holds. If what is stored under
	// the name at that very moment, by whomever, is not as cond demands, which
	// is the zero value, that of IfAbsent or of IfMatch with one ETag, nothing
	// is changed and the error matches ErrPrecondition. Nothing is changed
	// either after any other error, but for one: when it is not known whether
	// the object store has done it, the error matches ErrUnavailable.
	PutObject(ctx context.Context, name string, body io.ReadSeeker, cond Precondition) (os.FileInfo, error)

	// ListObjects iterates over the files whose names come after the one
	// given, in the order of the bytes of their names. The Name of the
	// os.FileInfo is the whole name. After an error it ends.
	ListObjects(ctx context.Context, after string) iter.Seq2[os.FileInfo, error]
}
