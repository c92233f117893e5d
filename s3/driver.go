// Package s3 keeps the images of an [imagestore.Store] in a bucket of an S3
// object store. An image is one object, whose key is the prefix and the id.
//
// An image is durable when the service says so. The service decides conditions
// together with the upload, so of concurrent conditional writers exactly one
// wins, across processes too. A conditional Delete is refused with
// [imagestore.ErrNotImplemented], because some services ignore its condition.
// [Driver.Check] finds out whether the service of a bucket is fit.
//
//	d := s3.New(client, "my-images", "production/")
//	if err := d.Check(ctx); err != nil {
//		return err
//	}
//	store := imagestore.NewWithDriver(d, nil)
//
// # Requests
//
// Open and Stat send one request each, and List one for every 1000 keys. Delete
// sends two: HEAD and DELETE. An upload is one PUT. HEAD goes before it unless
// the condition is IfAbsent, or IfMatch with one strong ETag. Until the bucket
// has been seen once, Stat of a missing object asks for the bucket too: HEAD
// does not tell a missing bucket from a missing object.
//
// The SDK repeats reads: it sends them up to three times unless the client is
// configured otherwise. Changes are sent once. When an answer is lost, the change
// may have been made. Repeating it could undo a later change of another process. A
// conditional one would look refused. The error then matches
// [imagestore.ErrUnavailable].
//
// # Time
//
// A request fails with ErrUnavailable when the service neither takes nor sends a
// byte for 20 seconds. The limit is for the answer to a request, repetitions
// included, for every Read of a body and for every piece of an upload. It is not
// for an upload or a download as a whole.
//
// Reads end with their context. A PUT or a DELETE that has begun does not:
// MINIO.md says what a service may make of a PUT that is cut off.
//
// # Checksums
//
// They are as the client is configured. The default is a CRC-32, which the
// service checks and keeps. It is checked again when the whole object is read.
// Over TLS it follows the body and costs no further read. Over plain HTTP the
// body is read once more before it is sent, because the signature covers it.
// Services that do not know trailers need
// AWS_REQUEST_CHECKSUM_CALCULATION=when_required.
package s3

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/keylock"
)

var _ imagestore.Driver = (*Driver)(nil)

// A Driver keeps images as objects of one bucket. Its methods are safe for
// concurrent use.
type Driver struct {
	bucket
	deletes keylock.Map // by id
}

// New returns a Driver for the bucket with this name. Its keys are prefix and id,
// with nothing in between: a prefix that is to be a folder ends with a slash.
// The prefix is used as given and may be empty. Objects with other keys are
// ignored, and so are those whose key is no id after the prefix; see
// [imagestore.CheckID]. New sends no request; see [Driver.Check].
func New(client *s3.Client, name, prefix string) *Driver {
	client = s3.New(client.Options(), func(o *s3.Options) {
		// Reading an object without a checksum would log a warning every time.
		o.DisableLogOutputChecksumValidationSkipped = true
		o.HTTPClient = http11{o.HTTPClient}
	})
	return &Driver{bucket: bucket{client: client, name: name, prefix: prefix, patience: patience}}
}

// Stat describes the image, with one request.
func (d *Driver) Stat(ctx context.Context, id string) (imagestore.Info, error) {
	w := d.watch(ctx)
	defer w.end()
	out, err := d.client.HeadObject(w, &s3.HeadObjectInput{Bucket: &d.name, Key: d.key(id)})
	if isMissing(err) {
		err = d.missing(w, err)
	} else {
		err = d.answered(w, err)
	}
	if err != nil {
		return imagestore.Info{}, d.wrap(id, err)
	}
	info, err := newInfo(id, out.ContentLength, out.LastModified, out.ETag, out.ContentType, out.Metadata)
	return info, d.wrap(id, err)
}

// Open opens the image for reading, with one request. Read sends another one
// after a Seek elsewhere or an error. It reads the version that was opened, and
// fails if that has been replaced or deleted.
func (d *Driver) Open(ctx context.Context, id string) (*imagestore.Image, error) {
	w := d.watch(context.WithoutCancel(ctx)) // reading goes on after ctx is done
	detach := w.endWith(ctx)
	out, err := d.client.GetObject(w, &s3.GetObjectInput{Bucket: &d.name, Key: d.key(id)})
	inTime := detach()
	w.pause()
	if err = d.answered(w, err); err != nil {
		w.end()
		return nil, d.wrap(id, err)
	}
	body := &stream{out.Body, w}
	if !inTime {
		body.Close()
		return nil, d.wrap(id, ctx.Err())
	}
	info, err := newInfo(id, out.ContentLength, out.LastModified, out.ETag, out.ContentType, out.Metadata)
	if err != nil {
		body.Close()
		return nil, d.wrap(id, err)
	}
	return &imagestore.Image{Info: info, ReadSeekCloser: &reader{b: &d.bucket, info: info, stream: body}}, nil
}

// Delete removes the image, with two requests. S3 does not say whether there was
// an object, so HEAD asks before. Of concurrent calls for one image on one
// Driver, one succeeds. A condition that holds is refused with
// [imagestore.ErrNotImplemented].
func (d *Driver) Delete(ctx context.Context, id string, cond imagestore.Condition) error {
	unlock, err := d.deletes.Lock(ctx, id)
	if err != nil {
		return d.wrap(id, err)
	}
	defer unlock()
	info, err := d.Stat(ctx, id)
	if err == nil {
		err = cond.Check(info.ETag)
	}
	if err != nil {
		return err
	}
	if !cond.IsZero() {
		return fmt.Errorf("%w: the service may ignore the condition of a DELETE; delete without one", imagestore.ErrNotImplemented)
	}
	return d.remove(ctx, id)
}
