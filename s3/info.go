package s3

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/ba692904/imagestore"
)

// mtimeKey is the metadata key of the modification time. rclone uses it too: it
// holds seconds since 1970, with a decimal point. PUT does not answer with
// Last-Modified, and Commit must return the time that Stat and Open return.
const mtimeKey = "mtime"

// widthKey and heightKey are the metadata keys of the size in pixels, as displayed.
const (
	widthKey  = "width"
	heightKey = "height"
)

// newInfo makes an Info of an answer's headers.
func newInfo(id string, size *int64, lastModified *time.Time, etag, contentType *string, meta map[string]string) (imagestore.Info, error) {
	if size == nil { // it would look like an empty object
		return imagestore.Info{}, errors.New("the service does not say how large the object is")
	}
	if aws.ToString(etag) == "" { // conditions would hold or fail by chance
		return imagestore.Info{}, errors.New("the service gives the object no ETag")
	}
	mediaType := "application/octet-stream"
	if strings.HasPrefix(aws.ToString(contentType), "image/") { // other types are from other programs
		mediaType = *contentType
	}
	mtime, ok := parseTime(meta[mtimeKey])
	if !ok {
		mtime = aws.ToTime(lastModified)
	}
	width, err := strconv.Atoi(meta[widthKey])
	height, err2 := strconv.Atoi(meta[heightKey])
	if err != nil || err2 != nil || width < 1 || height < 1 { // an object of another program
		width, height = 0, 0
	}
	return imagestore.Info{
		ID:      id,
		Type:    mediaType,
		Size:    *size,
		Width:   width,
		Height:  height,
		ModTime: mtime.UTC(),
		ETag:    quoted(etag),
	}, nil
}

// quoted adds the quotes that some services leave out of some answers.
func quoted(etag *string) string {
	tag := aws.ToString(etag)
	if tag == "" || strings.HasSuffix(tag, `"`) {
		return tag
	}
	return `"` + tag + `"`
}

func formatTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

func parseTime(s string) (t time.Time, ok bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return t, false
	}
	nsec, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	return time.Unix(sec, int64(nsec)), err == nil
}
