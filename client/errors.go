package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/problem"
)

// maxText bounds the text of an error, in bytes.
const maxText = 1000

// A StatusError is an answer other than the one that was asked for. It may be an
// error of the store, or the answer of a proxy, of middleware or of a login page.
// [errors.As] finds it in the errors of a Client. [errors.Is] finds the store's
// reason in it, such as [imagestore.ErrNotFound].
//
// An answer that cannot be an image store's has the StatusCode of a success.
// Strings have no characters that cannot be printed, and are bounded.
type StatusError struct {
	Method     string        // the request's
	URL        string        // the request's, after redirects, without user, query and fragment
	StatusCode int           // such as 401
	Code       string        // the Imagestore-Error field, "" if no image store has answered
	Detail     string        // the problem's detail (RFC 9457), or what is wrong with the answer
	RetryAfter time.Duration // Retry-After (RFC 9110, section 10.2.3), 0 if there is none
	reason     error         // the store's, or nil
}

// Error returns the store's reason, or else the request and the status.
func (e *StatusError) Error() string {
	var text string
	detail := e.Detail
	if e.reason != nil {
		text = e.reason.Error()
		if rest, found := strings.CutPrefix(detail, text); found {
			return text + rest
		}
	} else {
		status := strings.TrimSpace(strconv.Itoa(e.StatusCode) + " " + http.StatusText(e.StatusCode))
		text = fmt.Sprintf("%s %s: the answer is %s", e.Method, e.URL, status)
		if e.Code == "" {
			text += ", not an image store's"
		} else {
			text += " (" + e.Code + ")"
		}
	}
	if detail != "" {
		text += ": " + detail
	}
	return text
}

// Unwrap returns the store's reason, if it is a known one.
func (e *StatusError) Unwrap() error { return e.reason }

func newStatusError(resp *http.Response, detail string) *StatusError {
	u := *resp.Request.URL
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return &StatusError{
		Method:     resp.Request.Method,
		URL:        printable(u.String()),
		StatusCode: resp.StatusCode,
		Detail:     printable(detail),
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
}

// refusal returns the error of an answer whose status is not a wanted one.
func refusal(resp *http.Response) error {
	code, detail := problem.Read(resp)
	if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
		detail = fmt.Sprintf("the redirect to %s://%s%s is not followed", to.Scheme, to.Host, to.EscapedPath())
	}
	err := newStatusError(resp, detail)
	err.Code = printable(code)
	err.reason = imagestore.ErrorForCode(code)
	return err
}

// retryAfter returns how long to wait. A field that is malformed counts as none.
func retryAfter(field string) time.Duration {
	if seconds, err := strconv.ParseUint(field, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	t, err := http.ParseTime(field)
	if err != nil {
		return 0
	}
	return max(0, time.Until(t))
}

// wrap gives a non-nil *err its operation and id. A server may have written a part
// of its text, which errors of net/http and encoding/json repeat.
func wrap(op, id string, err *error) {
	if *err != nil {
		*err = &imagestore.Error{Op: op, ID: id, Err: printableError{*err}}
	}
}

// A printableError has a text that is printable.
type printableError struct{ err error }

func (e printableError) Error() string { return printable(e.err.Error()) }
func (e printableError) Unwrap() error { return e.err }

// printable cuts a long s and escapes characters that cannot be printed, as Go does.
// They include line breaks and changes of the direction of writing. Such a change can
// make one text look like another.
func printable(s string) string {
	var b strings.Builder
	for _, c := range s {
		if b.Len() >= maxText {
			b.WriteString("…")
			break
		}
		if strconv.IsPrint(c) {
			b.WriteRune(c)
		} else {
			quoted := strconv.QuoteRuneToASCII(c)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
