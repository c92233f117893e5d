package s3

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
)

// askAbove is the size from which a conditional PUT waits for the service to
// ask for the body. Servers written in Go, such as MinIO, read so much of a
// body that they do not need.
const askAbove = 256 << 10

// A plan is the condition that a PUT sends, and what a success of it means.
type plan struct {
	ifMatch, ifNoneMatch string
	replaces             bool // whether there was an object before
}

// put sends one PUT, of up to 5 GiB, and never repeats it. Once begun it goes on
// after ctx is done and returns its outcome. A refusal for p's condition matches
// ErrPreconditionFailed.
func (b *bucket) put(ctx context.Context, id string, meta imagestore.Meta, content io.ReadSeeker, p plan) (imagestore.Info, error) {
	size, err := content.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = content.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return imagestore.Info{}, b.wrap(id, err)
	}
	// In a bucket without versions, MinIO may undo a PUT that is cut off by
	// removing the object, and the old one is lost with it. So ctx does not cut
	// it off.
	w := b.watch(context.WithoutCancel(ctx))
	defer w.end()
	sent := &body{content: content, w: w}
	now := time.Now()
	in := &s3.PutObjectInput{
		Bucket:        &b.name,
		Key:           b.key(id),
		Body:          sent,
		ContentLength: &size,
		Metadata:      map[string]string{mtimeKey: formatTime(now)},
	}
	if meta.Type != "" {
		in.ContentType = &meta.Type
	}
	if meta.Width > 0 && meta.Height > 0 {
		in.Metadata[widthKey] = strconv.Itoa(meta.Width)
		in.Metadata[heightKey] = strconv.Itoa(meta.Height)
	}
	opts := []func(*s3.Options){once}
	if p.ifMatch != "" {
		in.IfMatch = &p.ifMatch
	}
	if p.ifNoneMatch != "" {
		in.IfNoneMatch = &p.ifNoneMatch
	}
	if in.IfMatch != nil || in.IfNoneMatch != nil {
		opts = append(opts, askFirst)
	}
	out, err := b.client.PutObject(w, in, opts...)
	failed := sent.err.Load()
	switch {
	case failed != nil:
		err = *failed
	case isRefusal(err, p):
		err = fmt.Errorf("%w: %w", imagestore.ErrPreconditionFailed, err)
	default:
		err = b.answered(w, err)
	}
	if err != nil {
		return imagestore.Info{}, b.wrap(id, err)
	}
	return imagestore.Info{
		ID:      id,
		Type:    meta.Type,
		Size:    size,
		Width:   meta.Width,
		Height:  meta.Height,
		ModTime: now.Round(0).UTC(), // as metadata has it: without the monotonic clock
		ETag:    quoted(out.ETag),
	}, nil
}

// askFirst sends Expect: 100-continue with more uploads than the SDK does. A
// service that refuses a PUT for its condition may close the connection instead
// of reading the body. A client that is still sending would miss the answer.
func askFirst(o *s3.Options) { o.ContinueHeaderThresholdBytes = askAbove }

// A body is the content of a PUT on its way to the service.
type body struct {
	content io.ReadSeeker
	w       *watch
	err     atomic.Pointer[error] // of content; net/http may read on after an early answer
}

func (b *body) Read(p []byte) (int, error) {
	b.w.touch()
	n, err := b.content.Read(p)
	if err != nil && err != io.EOF {
		b.err.Store(&err)
	}
	return n, err
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	at, err := b.content.Seek(offset, whence)
	if err != nil {
		b.err.Store(&err)
	}
	return at, err
}
