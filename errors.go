package imagestore

import (
	"errors"
	"net/http"
	"strconv"
)

// The reasons why an operation fails. [errors.Is] finds them in the errors of a
// Store and of a Client alike.
var (
	// ErrInvalidID means that no image can have this id; see [CheckID].
	ErrInvalidID = errors.New("invalid id")
	// ErrBadRequest means that an argument or the request is malformed.
	ErrBadRequest = errors.New("bad request")
	// ErrDigestMismatch means that the bytes that came have another digest than the
	// one that was sent with them. Something on the way has changed them.
	ErrDigestMismatch = errors.New("digest mismatch")
	// ErrNotFound means that there is no image with this id.
	ErrNotFound = errors.New("no such image")
	// ErrPreconditionFailed means that a [Condition] does not hold.
	ErrPreconditionFailed = errors.New("precondition failed")
	// ErrTooLarge means that the image has more bytes or pixels than [Options] allow.
	ErrTooLarge = errors.New("image too large")
	// ErrUnsupportedType means that the upload is of no format that the store takes.
	ErrUnsupportedType = errors.New("unsupported image type")
	// ErrInvalidImage means that the upload is damaged, incomplete or followed by other bytes.
	ErrInvalidImage = errors.New("invalid image")
	// ErrReadOnly means that the storage refuses every change.
	ErrReadOnly = errors.New("the store is read-only")
	// ErrNoSpace means that the storage or a quota is full.
	ErrNoSpace = errors.New("no space left in the store")
	// ErrNotDurable means that the change was made and is seen by readers, but
	// could not be made durable: a power cut may undo it.
	ErrNotDurable = errors.New("the change is not durable")
	// ErrTooManyUploads means that a handler has as many uploads and deletes
	// under way as it takes. Try again later.
	ErrTooManyUploads = errors.New("too many uploads and deletes at once")
	// ErrUnavailable means that the storage is out of reach or in use. Try again later.
	ErrUnavailable = errors.New("the storage is unavailable")
	// ErrNotImplemented means that the storage cannot do this safely.
	ErrNotImplemented = errors.New("not possible on this storage")
	// ErrInternal is returned by a Client only. The server's log has the cause.
	ErrInternal = errors.New("internal error of the store")
)

// Reasons that only the handler has.
var (
	errUnknownPath    = errors.New("nothing is served at this path")
	errMethod         = errors.New("method not allowed")
	errRequestTimeout = errors.New("request timeout")
	errUnsatisfiable  = errors.New("range not satisfiable")
)

// An httpError is one reason as an HTTP response.
type httpError struct {
	err    error
	status int
	code   string
}

// httpErrors has the status and the code of each reason. The handler looks up the
// reason, the client the code. The first row that an error matches applies. Codes
// never change.
var httpErrors = []httpError{
	{ErrNotDurable, http.StatusInternalServerError, "not_durable"}, // whatever the cause of it is
	{ErrInvalidID, http.StatusBadRequest, "invalid_id"},
	{ErrBadRequest, http.StatusBadRequest, "bad_request"},
	{ErrDigestMismatch, http.StatusBadRequest, "digest_mismatch"},
	{ErrReadOnly, http.StatusForbidden, "read_only"},
	{ErrNotFound, http.StatusNotFound, "not_found"},
	{errUnknownPath, http.StatusNotFound, "unknown_path"},
	{errMethod, http.StatusMethodNotAllowed, "method_not_allowed"},
	{errRequestTimeout, http.StatusRequestTimeout, "request_timeout"},
	{ErrPreconditionFailed, http.StatusPreconditionFailed, "precondition_failed"},
	{ErrTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{ErrUnsupportedType, http.StatusUnsupportedMediaType, "unsupported_type"},
	{errUnsatisfiable, http.StatusRequestedRangeNotSatisfiable, "range_not_satisfiable"},
	{ErrInvalidImage, http.StatusUnprocessableEntity, "invalid_image"},
	{ErrTooManyUploads, http.StatusServiceUnavailable, "too_many_uploads"},
	{ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
	{ErrNotImplemented, http.StatusNotImplemented, "not_implemented"},
	{ErrNoSpace, http.StatusInsufficientStorage, "no_space"},
	{ErrInternal, http.StatusInternalServerError, "internal"},
}

// httpErrorFor returns the row for err and the text that a client may read. The
// text of an unknown error stays here, because it may name paths or hosts.
func httpErrorFor(err error) (row httpError, detail string) {
	for _, row := range httpErrors {
		if !errors.Is(err, row.err) {
			continue
		}
		if e, ok := errors.AsType[*detailedError](err); ok && e.kind == row.err && e.detail != "" {
			return row, row.err.Error() + ": " + e.detail
		}
		if e, ok := errors.AsType[*Error](err); ok && row.err == ErrNotFound {
			return row, row.err.Error() + ": " + strconv.Quote(e.ID)
		}
		return row, row.err.Error()
	}
	return httpErrorFor(ErrInternal)
}

// ErrorForCode returns the reason with this code, or nil if there is none. A Client
// uses it to return the same error as the Store.
func ErrorForCode(code string) error {
	for _, row := range httpErrors {
		if row.code == code {
			return row.err
		}
	}
	return nil
}

// Error records the operation and the image that failed. [errors.Is] finds in it
// one of the reasons above, where one fits. It also finds the cause, such as an
// error of the filesystem or of the reader given to Put.
type Error struct {
	Op  string // "put", "get", "delete", "stat", "verify", "list" or "sweep"
	ID  string // the id as it was given; empty where the error is about no single image
	Err error
}

// Error returns the operation, the id and the reason.
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

// A detailedError is one case of a reason. Its detail is written by this package
// and may be shown to anybody. Its cause may name paths and may not.
type detailedError struct {
	kind   error
	detail string
	cause  error
}

func (e *detailedError) Error() string {
	text := e.kind.Error()
	if e.detail != "" {
		text += ": " + e.detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *detailedError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.cause}
}
