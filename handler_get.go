package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ba692904/imagestore/internal/deadline"
)

// maxReads is how many images are opened at once. Each takes a thread of the 10,000
// that Go allows if the disk is stalled.
const maxReads = 2048

func (h *handler) get(w http.ResponseWriter, r *http.Request, id string) error {
	ctx, cancel := storeContext(r)
	defer cancel()
	digests := wantedDigests(w, r)
	img, err := h.open(ctx, r, id, digests.repr != "")
	if err != nil {
		return err
	}
	defer img.Close()
	header := w.Header()
	v := validatorsOf(img.Info)
	status, err := v.evaluate(r.Header)
	if err != nil {
		return err
	}
	if status == http.StatusNotModified {
		header["Etag"] = []string{img.ETag}
		header["Cache-Control"] = []string{"no-cache"}
		h.writeHeader(w, status)
		return nil
	}
	encoded := header["Content-Encoding"] != nil // by middleware, which changes the bytes and the length
	var ranges []byteRange
	if status == http.StatusPartialContent && r.Method == http.MethodGet && !encoded { // RFC 9110, section 14.2
		if ranges, err = parseRange(r.Header["Range"], img.Size); err != nil {
			header.Set("Content-Range", fmt.Sprintf("bytes */%d", img.Size))
			return err
		}
	}
	if len(ranges) > 0 {
		digests.content = "" // it would be that of the part
	}
	if digests != (digestFields{}) {
		if digests, err = h.hash(ctx, r, img, digests); err != nil {
			return err
		}
	}
	if len(ranges) > 0 { // an error can be answered only now
		if _, err := img.Seek(ranges[0].first, io.SeekStart); err != nil {
			return &Error{Op: "get", ID: id, Err: err}
		}
	}
	setImageHeader(header, img.Info, v.modified)
	digests.set(header)
	if encoded {
		delete(header, "Content-Length")
	}
	if r.Method == http.MethodHead {
		h.writeHeader(w, http.StatusOK)
		return nil
	}
	h.abortOn(h.send(w, img, ranges), r, id)
	return nil
}

// send sends the image, or these ranges of it. The image is at the start of the
// first.
func (h *handler) send(w http.ResponseWriter, img *Image, ranges []byteRange) error {
	length := img.Size
	switch len(ranges) {
	case 0:
		w.WriteHeader(http.StatusOK)
	case 1:
		length = ranges[0].length
		w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
		w.Header().Set("Content-Range", ranges[0].contentRange(img.Size))
		w.WriteHeader(http.StatusPartialContent)
	default:
		return h.sendRanges(w, img, ranges)
	}
	_, err := deadline.Send(w, img.ReadSeekCloser, length, h.opts.Timeout)
	return err
}

// abortOn breaks the connection if sending an image has failed. The header is
// sent, and the client must not take a part for the whole.
func (h *handler) abortOn(err error, r *http.Request, id string) {
	if err == nil {
		return
	}
	if isConnectionError(err) || r.ProtoMajor != 1 && r.Context().Err() != nil { // HTTP/1 cancels at a half close too
		err = clientGone(err)
	}
	h.log(r, &Error{Op: "get", ID: id, Err: err})
	panic(http.ErrAbortHandler)
}

// open opens the image as far as the answer needs it. A HEAD without a digest, or a
// read of what the client has already, does not need the bytes.
func (h *handler) open(ctx context.Context, r *http.Request, id string, hasDigest bool) (*Image, error) {
	if !h.reads.take() {
		return nil, tooBusy(ErrUnavailable, "%d reads wait for the storage", maxReads)
	}
	defer h.reads.give()
	headerOnly := r.Method == http.MethodHead && !hasDigest
	if headerOnly || r.Header["If-None-Match"] != nil {
		info, err := h.store.Stat(ctx, id)
		if err != nil {
			return nil, err
		}
		status, err := validatorsOf(info).evaluate(r.Header)
		if headerOnly || status == http.StatusNotModified || err != nil {
			return &Image{info, noBytes{}}, nil
		}
	}
	return h.store.Get(ctx, id)
}

// noBytes stands for the bytes of an image that are not read.
type noBytes struct{}

func (noBytes) Read([]byte) (int, error)       { return 0, io.EOF }
func (noBytes) Seek(int64, int) (int64, error) { return 0, nil }
func (noBytes) Close() error                   { return nil }

func isConnectionError(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// setImageHeader sets the header fields of an image. Each slice has no room to
// spare, so that appending to one does not change another.
func setImageHeader(header http.Header, info Info, lastModified time.Time) {
	// One string for all that is made here is one allocation.
	b := strconv.AppendInt(make([]byte, 0, 320), info.Size, 10)
	size := len(b)
	b = lastModified.AppendFormat(b, http.TimeFormat)
	last := len(b)
	b = info.ModTime.AppendFormat(b, time.RFC3339Nano)
	modified := len(b)
	b = strconv.AppendInt(b, int64(info.Width), 10)
	width := len(b)
	b = strconv.AppendInt(b, int64(info.Height), 10)
	height := len(b)
	b = append(append(b, `inline; filename="`...), info.ID...)
	if ext := missingExtension(info); ext != "" {
		b = append(append(b, '.'), ext...)
	}
	s := string(append(b, '"'))
	v := [...]string{info.Type, s[:size], info.ETag, s[size:last], s[last:modified], "bytes", "no-cache", s[height:], s[modified:width], s[width:height]}
	header["Content-Type"] = v[0:1:1]
	header["Content-Length"] = v[1:2:2]
	header["Etag"] = v[2:3:3]
	header["Last-Modified"] = v[3:4:4]
	header[modifiedHeader] = v[4:5:5]
	header["Accept-Ranges"] = v[5:6:6]
	header["Cache-Control"] = v[6:7:7] // an id can get another image at any time
	header["Content-Disposition"] = v[7:8:8]
	if info.Width > 0 && info.Height > 0 {
		header[widthHeader] = v[8:9:9]
		header[heightHeader] = v[9:10:10]
	}
}

const (
	// modifiedHeader has the exact modification time of an image, as Info has it.
	modifiedHeader = "Imagestore-Modified"
	// widthHeader and heightHeader have the size of an image in pixels, as displayed.
	widthHeader  = "Imagestore-Width"
	heightHeader = "Imagestore-Height"
)

// missingExtension returns the file name extension that the id lacks, without its dot,
// or "". Other programs may have given an object any type.
func missingExtension(info Info) string {
	ext := extensions[Format(info.Type)]
	has := strings.ToLower(path.Ext(info.ID))
	if ext != "" && has == "."+ext || ext == "jpg" && has == ".jpeg" {
		return ""
	}
	return ext
}
