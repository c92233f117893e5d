package s3

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/ba692904/imagestore"
)

var (
	errStill   = errors.New("the service sends and takes nothing")
	errChanged = errors.New("the image has been replaced or deleted since it was opened")
)

// isMissing reports whether a HEAD request was answered 404, for which this is
// the SDK's code.
func isMissing(err error) bool { return errorCode(err) == "NotFound" }

// isRefusal reports whether a PUT failed because of p's condition.
func isRefusal(err error, p plan) bool {
	response, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok || p.ifMatch == "" && p.ifNoneMatch == "" {
		return false
	}
	switch response.HTTPStatusCode() {
	case http.StatusPreconditionFailed:
		return true
	case http.StatusConflict:
		return isConflict(err)
	case http.StatusNotFound:
		return p.ifMatch != "" && errorCode(err) == "NoSuchKey"
	}
	return false
}

// isConflict reports whether the service refused a conditional PUT because of
// another change at the same time. The condition may still hold.
func isConflict(err error) bool { return errorCode(err) == "ConditionalRequestConflict" }

func errorCode(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", imagestore.ErrUnavailable, err) }
