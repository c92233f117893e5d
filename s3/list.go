package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
)

// pageSize is the most keys that S3 lists at a time.
const pageSize = 1000

var errNoToken = errors.New("the service ends a page of a list without saying how to go on")

// List iterates over the images, with one request for every 1000 keys. ModTime
// is when the service stored the object: S3 does not list the time that Stat and
// Open return. Type is empty. A service that does not list in the order of keys,
// such as a directory bucket of AWS, ends the list with
// [imagestore.ErrNotImplemented].
func (d *Driver) List(ctx context.Context, opts imagestore.ListOptions) iter.Seq2[imagestore.Info, error] {
	return func(yield func(imagestore.Info, error) bool) {
		if opts.Prefix != "" && imagestore.CheckID(opts.Prefix[:1]) != nil {
			return // no id begins so, and MinIO refuses "." and ".."
		}
		prefix := d.prefix + opts.Prefix
		in := &s3.ListObjectsV2Input{
			Bucket:  &d.name,
			Prefix:  &prefix,
			MaxKeys: aws.Int32(pageSize),
			// Keys of other programs may have characters that XML cannot have.
			EncodingType: types.EncodingTypeUrl,
		}
		last := ""             // the last key, which the next one must come after
		if opts.After >= "0" { // otherwise every id comes after
			last = d.prefix + opts.After
			in.StartAfter = aws.String(last)
		}
		if 0 < opts.Limit && opts.Limit < pageSize {
			// Asked for one key, MinIO ends the list after an object whose key is the prefix.
			in.MaxKeys = aws.Int32(int32(max(opts.Limit, 2)))
		}
		for listed := 0; ; {
			out, err := d.listPage(ctx, in)
			if err != nil {
				yield(imagestore.Info{}, d.wrap(opts.Prefix, err))
				return
			}
			for _, o := range out.Contents {
				key, err := listedKey(out, o, last)
				if err != nil {
					yield(imagestore.Info{}, d.wrap(opts.Prefix, err))
					return
				}
				last = key
				id := strings.TrimPrefix(key, d.prefix)
				if !strings.HasPrefix(key, prefix) || imagestore.CheckID(id) != nil {
					continue
				}
				info := imagestore.Info{ID: id, Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified).UTC(), ETag: quoted(o.ETag)}
				listed++
				if !yield(info, nil) || listed == opts.Limit {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			if in.ContinuationToken = out.NextContinuationToken; in.ContinuationToken == nil {
				yield(imagestore.Info{}, d.wrap(opts.Prefix, errNoToken))
				return
			}
			in.MaxKeys = aws.Int32(pageSize) // the page before had keys that are no ids
		}
	}
}

// listedKey returns an object's key, which must come after last.
func listedKey(page *s3.ListObjectsV2Output, o types.Object, last string) (string, error) {
	key := aws.ToString(o.Key)
	if page.EncodingType == types.EncodingTypeUrl {
		var err error
		if key, err = url.QueryUnescape(key); err != nil {
			return "", err
		}
	}
	if key <= last {
		return "", fmt.Errorf("the service lists %q after %q: %w", key, last, imagestore.ErrNotImplemented)
	}
	return key, nil
}
