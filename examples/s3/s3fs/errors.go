package s3fs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/ba692904/imagestore"
)

var (
	errStill   = errors.New("the engine keeps still")
	errChanged = errors.New("the object has been replaced or removed since it was opened")
)

// A watch is the context of one request. It ends when the engine has kept still
// for too long.
type watch struct {
	context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (f *Fs) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(f.patience, func() { cancel(fmt.Errorf("%w for %v", errStill, f.patience)) })
	return &watch{ctx, cancel, timer, f.patience}
}

// touch starts the time anew.
func (w *watch) touch() { w.timer.Reset(w.limit) }

// pause stops the time until touch.
func (w *watch) pause() { w.timer.Stop() }

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// answered takes note of what the error of a request, nil included, says of the
// bucket, and gives it its kind.
func (f *Fs) answered(w *watch, err error) error {
	if err == nil {
		f.bucketSeen.Store(true)
		return nil
	}
	if cause := context.Cause(w); cause != nil {
		if errors.Is(cause, errStill) {
			return unavailable(cause)
		}
		return w.Err() // the caller's own doing
	}
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok {
		return err // never sent, for want of credentials, for example
	}
	status, code := response.HTTPStatusCode(), errorCode(err)
	switch {
	case code == "NoSuchBucket":
		f.bucketSeen.Store(false)
		return err
	case code == "NoSuchKey":
		f.bucketSeen.Store(true)
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	case status == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %w", imagestore.ErrNoSpace, err)
	case status == http.StatusNotImplemented:
		return fmt.Errorf("%w: %w", imagestore.ErrUnsupported, err)
	case status >= 500, status < 300, // no answer, which is 0, or one that broke off
		status == http.StatusTooManyRequests, status == http.StatusRequestTimeout,
		code == "RequestTimeout": // which is 400
		return unavailable(err)
	}
	return err
}

// isMissing says whether the error of a HEAD request is 404, for which this is
// the SDK's code.
func isMissing(err error) bool { return errorCode(err) == "NotFound" }

// isRefusal says whether the error of a put is that what is stored is not as
// cond demands.
func isRefusal(err error, cond imagestore.Precondition) bool {
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	header, _ := cond.Header()
	if !ok || header == "" {
		return false
	}
	switch response.HTTPStatusCode() {
	case http.StatusPreconditionFailed:
		return true
	case http.StatusConflict: // another writer or remover was faster
		return errorCode(err) == "ConditionalRequestConflict"
	case http.StatusNotFound:
		return header == "If-Match" && errorCode(err) == "NoSuchKey"
	}
	return false
}

func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", imagestore.ErrUnavailable, err) }
