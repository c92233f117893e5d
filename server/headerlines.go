package server

import (
	"bytes"
	"errors"
	"net/http"
)

// maxHeaderLines is how many lines a request's header may have, as in most servers.
// net/http does not limit them, and keeps up to 500 KiB of memory for the short
// lines of 16 KiB.
const maxHeaderLines = 100

var errHeaderLines = errors.New("the header has too many lines") // answered with 400

// headerLines counts the lines of a header while net/http reads them.
type headerLines struct {
	counting bool
	begun    bool // the current line is not empty
	lines    int
}

// connState begins to count where net/http waits for a request, and ends where it
// has read a header. Lines that came with the request before, 4 KiB at most, are not
// counted.
func (h *headerLines) connState(state http.ConnState) {
	switch state {
	case http.StateNew, http.StateIdle:
		*h = headerLines{counting: true}
	case http.StateActive:
		h.counting = false
	}
}

// count counts the lines in the bytes read next, up to the empty line that ends the
// header. Bytes of a body may follow it. It returns how many bytes net/http may
// have. If that is not all, the error is set.
func (h *headerLines) count(p []byte) int {
	rest := p
	for h.counting {
		line, after, complete := bytes.Cut(rest, []byte{'\n'})
		h.begun = h.begun || len(line) > 1 || len(line) == 1 && line[0] != '\r'
		if !complete {
			break
		}
		if !h.begun { // before the first line net/http skips some
			h.counting = h.lines == 0
		} else if h.lines++; h.lines > maxHeaderLines {
			return len(p) - len(rest)
		}
		h.begun = false
		rest = after
	}
	return len(p)
}

// err returns an error while net/http reads a header with too many lines.
func (h *headerLines) err() error {
	if h.counting && h.lines > maxHeaderLines {
		return errHeaderLines
	}
	return nil
}
