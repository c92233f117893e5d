package imagestore

import (
	"errors"
	"io/fs"
	"net/http"
	"runtime"
	"strconv"
	"syscall"
)

// The reasons why an operation fails that a caller may want to tell apart.
// [errors.Is] finds them in the errors of a Store and of a client alike.
var (
	ErrInvalidID    = errors.New("invalid id")                  // no image can have this id; see CheckID
	ErrBadRequest   = errors.New("bad request")                 // the request makes no sense; the rest of the text says why
	ErrNotFound     = errors.New("no such image")               // there is no image with this id
	ErrPrecondition = errors.New("precondition failed")         // the image is not as a Precondition demands
	ErrTooLarge     = errors.New("image too large")             // more bytes or more pixels than Options allow
	ErrNotPNG       = errors.New("not a PNG")                   // what was sent is something else altogether
	ErrBroken       = errors.New("broken PNG")                  // a PNG, but damaged, incomplete or with more behind it
	ErrReadOnly     = errors.New("the store cannot be changed") // the filesystem refuses every change
	ErrNoSpace      = errors.New("no space left in the store")  // the filesystem or a quota is full
	ErrBusy         = errors.New("too many uploads at once")    // try again a little later
	ErrUnavailable  = errors.New("the storage is unavailable")  // an ObjectFs is out of reach: try again a little later
	ErrUnsupported  = errors.New("not supported here")          // the filesystem cannot do this safely
	ErrInternal     = errors.New("the store failed internally") // only from a client: the server's log has the cause
)

// What only the handler has to say.
var (
	errUnknownPath = errors.New("nothing is served here")
	errMethod      = errors.New("method not allowed")
	errSlow        = errors.New("the client was too slow")
	errRange       = errors.New("the range cannot be satisfied")
)

// An answer is what one kind of error looks like over HTTP.
type answer struct {
	err    error
	status int
	code   string
}

// answers is the one place that ties errors, statuses and codes together: the
// handler reads it forward, the client backward. Codes never change.
var answers = []answer{
	{ErrInvalidID, http.StatusBadRequest, "invalid_id"},
	{ErrBadRequest, http.StatusBadRequest, "bad_request"},
	{ErrReadOnly, http.StatusForbidden, "read_only"},
	{ErrNotFound, http.StatusNotFound, "not_found"},
	{errUnknownPath, http.StatusNotFound, "unknown_path"},
	{errMethod, http.StatusMethodNotAllowed, "method_not_allowed"},
	{errSlow, http.StatusRequestTimeout, "too_slow"},
	{ErrPrecondition, http.StatusPreconditionFailed, "precondition_failed"},
	{ErrTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{ErrNotPNG, http.StatusUnsupportedMediaType, "not_png"},
	{errRange, http.StatusRequestedRangeNotSatisfiable, "range_not_satisfiable"},
	{ErrBroken, http.StatusUnprocessableEntity, "broken_png"},
	{ErrBusy, http.StatusServiceUnavailable, "busy"},
	{ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
	{ErrUnsupported, http.StatusNotImplemented, "unsupported"},
	{ErrNoSpace, http.StatusInsufficientStorage, "no_space"},
	{ErrInternal, http.StatusInternalServerError, "internal"},
}

// answerTo returns the answer to err and the text that a stranger may read.
// Errors that nobody foresaw may name paths or worse, so they say nothing.
func answerTo(err error) (answer, string) {
	for _, a := range answers {
		if !errors.Is(err, a.err) {
			continue
		}
		if f, ok := errors.AsType[*fault](err); ok && f.kind == a.err && f.detail != "" {
			return a, a.err.Error() + ": " + f.detail
		}
		return a, a.err.Error()
	}
	return answerTo(ErrInternal)
}

// ErrorForCode returns the error that the handler's answers announce with this
// code, or nil if there is none. It is how a client in Go turns an answer back
// into the error that the Store returned.
func ErrorForCode(code string) error {
	for _, a := range answers {
		if a.code == code {
			return a.err
		}
	}
	return nil
}

// Error says which operation on which image failed, and why. [errors.Is] finds
// in it both one of the reasons above, where one fits, and the cause, such as
// an error of the filesystem or of the reader given to Put.
type Error struct {
	Op  string // "put", "get", "delete", "stat", "verify", "list" or "sweep"
	ID  string // the image's id as it was given; empty for "sweep", and for "list" if it is about no image
	Err error
}

func (e *Error) Error() string {
	text := "imagestore: " + e.Op
	if e.ID != "" {
		text += " " + strconv.Quote(e.ID)
	}
	return text + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// wrap gives a non-nil *err its operation and id.
func wrap(op, id string, err *error) {
	if *err != nil {
		*err = &Error{Op: op, ID: id, Err: *err}
	}
}

// A fault is one case of one kind of error. Detail is written by this package
// and fit for everybody's eyes; the cause may name paths and is not.
type fault struct {
	kind   error
	detail string
	cause  error
}

func (f *fault) Error() string {
	text := f.kind.Error()
	if f.detail != "" {
		text += ": " + f.detail
	}
	if f.cause != nil {
		text += ": " + f.cause.Error()
	}
	return text
}

func (f *fault) Unwrap() []error {
	if f.cause == nil {
		return []error{f.kind}
	}
	return []error{f.kind, f.cause}
}

// fsError gives an error of the filesystem its kind, where callers care.
func fsError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), isWindowsDiskFull(err):
		return &fault{kind: ErrNoSpace, cause: err}
	// EPERM is what afero's read-only filesystems say; a directory that the
	// process may not write is EACCES, and a mistake in the installation.
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EPERM):
		return &fault{kind: ErrReadOnly, cause: err}
	}
	return err
}

func isWindowsDiskFull(err error) bool {
	const handleDiskFull, diskFull = syscall.Errno(39), syscall.Errno(112)
	return runtime.GOOS == "windows" && (errors.Is(err, handleDiskFull) || errors.Is(err, diskFull))
}

func isNotExist(err error) bool {
	// ENOTDIR, ELOOP: somebody put a file, or a link to itself, where an image's
	// directory would be.
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)
}

// isUnsupported says that a filesystem does not know an operation at all, as
// distinct from having failed at it.
func isUnsupported(err error) bool {
	// Some network and FUSE filesystems answer EINVAL to fsync of a directory.
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL)
}
