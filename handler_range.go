package imagestore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/ba692904/imagestore/internal/deadline"
)

// maxRanges is how many ranges a request may ask for. Each is a read of its own, on
// an object store even a request.
const maxRanges = 64

// A byteRange is a part of an image that is not empty.
type byteRange struct{ first, length int64 }

func (b byteRange) contentRange(size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", b.first, b.first+b.length-1, size)
}

// parseRange returns the ranges that the lines of a Range field select (RFC 9110,
// section 14.1.2), or none if the whole image is the answer. [http.ServeContent]
// refuses other units and answers bytes=-0 with 206.
//
// Many ranges, and those that together are larger than the image, are ignored
// (section 14.2).
func parseRange(lines []string, size int64) ([]byteRange, error) {
	if len(lines) != 1 || size == 0 {
		return nil, nil
	}
	unit, set, ok := strings.Cut(lines[0], "=")
	if !ok || !strings.EqualFold(unit, "bytes") || strings.Count(set, ",") >= maxRanges {
		return nil, nil
	}
	var ranges []byteRange
	unsatisfiable, sum := false, int64(0)
	for spec := range strings.SplitSeq(set, ",") {
		if spec = strings.Trim(spec, " \t"); spec == "" {
			continue // an empty element of a list (section 5.6.1.2)
		}
		part, err := parseRangeSpec(spec, size)
		if err != nil {
			return nil, &detailedError{kind: errUnsatisfiable, detail: fmt.Sprintf("the range %.50q is malformed; the image has %d bytes", spec, size)}
		}
		if part.length == 0 {
			unsatisfiable = true
			continue
		}
		ranges = append(ranges, part)
		sum += part.length
	}
	if sum > size {
		return nil, nil
	}
	if unsatisfiable && len(ranges) == 0 {
		return nil, &detailedError{kind: errUnsatisfiable, detail: fmt.Sprintf("the image has %d bytes", size)}
	}
	return ranges, nil
}

// parseRangeSpec returns one range. It is empty if it is beyond the end.
func parseRangeSpec(spec string, size int64) (byteRange, error) {
	from, to, ok := strings.Cut(spec, "-")
	if !ok {
		return byteRange{}, strconv.ErrSyntax
	}
	from, to = strings.TrimRight(from, " \t"), strings.TrimLeft(to, " \t")
	if from == "" {
		n, err := parsePosition(to)
		n = min(n, size)
		return byteRange{size - n, n}, err
	}
	first, err := parsePosition(from)
	if err != nil {
		return byteRange{}, err
	}
	last := int64(math.MaxInt64)
	if to != "" {
		last, err = parsePosition(to)
	}
	if err != nil || last < first {
		return byteRange{}, strconv.ErrSyntax
	}
	return byteRange{first, max(0, min(last, size-1)-first+1)}, nil
}

// parsePosition reads a number. One that is too large for an int64 is the largest
// (RFC 9110, section 14.1.1).
func parsePosition(s string) (int64, error) {
	if strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if errors.Is(err, strconv.ErrRange) {
		err = nil
	}
	return int64(n), err
}

// sendRanges answers with several ranges (RFC 9110, section 14.6).
func (h *handler) sendRanges(w http.ResponseWriter, img *Image, ranges []byteRange) error {
	boundary := rand.Text()
	end := "\r\n--" + boundary + "--\r\n"
	length := int64(len(end))
	heads := make([]string, len(ranges))
	for i, part := range ranges {
		heads[i] = fmt.Sprintf("\r\n--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n", boundary, img.Type, part.contentRange(img.Size))
		length += int64(len(heads[i])) + part.length
	}
	w.Header().Set("Content-Type", "multipart/byteranges; boundary="+boundary)
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(http.StatusPartialContent)
	for i, part := range ranges {
		if _, err := img.Seek(part.first, io.SeekStart); err != nil {
			return err
		}
		if err := h.sendText(w, heads[i]); err != nil {
			return err
		}
		if _, err := deadline.Send(w, img.ReadSeekCloser, part.length, h.opts.Timeout); err != nil {
			return err
		}
	}
	return h.sendText(w, end)
}

func (h *handler) sendText(w http.ResponseWriter, s string) error {
	_, err := deadline.Send(w, strings.NewReader(s), int64(len(s)), h.opts.Timeout)
	return err
}
