// Package s3fs makes a bucket of an S3 object store a filesystem that an image
// store can work on: an [imagestore.ObjectFs]. It is afero-s3 with what is
// wrong there for this purpose done anew; UPSTREAM.md has the list.
//
// # Requests
//
// Open, Stat, Remove and PutObject are one request each, a page of 1000 names of
// ListObjects is one as well. Only a Stat of a missing object asks a second
// time, and only until the bucket has been seen once, because the answer to HEAD
// does not tell a missing bucket from a missing object.
//
// What only reads is repeated by the SDK, three times unless the client is
// configured otherwise. What changes something is sent once: when the answer is
// lost, the change may have been made, and to make it again could undo what
// somebody else has done since, or, if it was conditional, look like a refusal.
// The error then matches [imagestore.ErrUnavailable].
//
// # Time
//
// The methods of [afero.Fs] have no context, so all requests are bounded here:
// an engine that neither takes nor sends a byte for 20 seconds is given up, with
// ErrUnavailable. That holds for the answer to a request, repetitions included,
// for every Read of a body and for every piece of an upload, but not for an
// upload or a download as a whole.
//
// ListObjects and Check end with their context. A PutObject that has begun does
// not: MINIO.md says what an engine may make of one that is cut off.
//
// # Checksums
//
// They are as the client is configured, by default with a CRC-32 that the engine
// checks, keeps, and sends along to be checked when the whole object is read.
// Over TLS it follows the body and costs no further look at it. Over plain HTTP
// the body is read once more before it is sent, as it would be without the
// CRC-32: the signature then has to cover it. Engines that do not know such
// trailers need AWS_REQUEST_CHECKSUM_CALCULATION=when_required, with which the
// signature covers the body over TLS too.
package s3fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/ba692904/imagestore"
	aferos3 "github.com/fclairamb/afero-s3"
	"github.com/spf13/afero"
)

const (
	// patience is less than what imaged gives its own clients to wait, so that
	// they learn why.
	patience = 20 * time.Second
	pageSize = 1000 // the most that S3 lists at a time
	// askAbove is the size from which a conditional upload waits for the engine
	// to ask for the body. It is what servers written in Go, such as MinIO, take
	// in of a body that they have no use for.
	askAbove = 256 << 10

	contentType = "image/png"
	// mtimeKey is where rclone, too, keeps the modification time: in seconds
	// since 1970, with a decimal point. Last-Modified would not do: PutObject
	// does not get to know it, and is to give the same time as Stat and Open.
	mtimeKey = "mtime"
)

var _ imagestore.ObjectFs = (*Fs)(nil)

// An Fs is a filesystem of the objects in one bucket whose names have one
// prefix. Its methods may be called concurrently.
//
// There are no directories: Mkdir and MkdirAll do nothing, and a name that
// objects have in front of a slash does not exist. What cannot be done in one
// step, Create, Rename, RemoveAll and OpenFile for writing, is refused with
// [errors.ErrUnsupported]; [Fs.PutObject] makes files.
type Fs struct {
	afero.Fs // afero-s3, for what is not below

	client         *s3.Client
	bucket, prefix string
	patience       time.Duration
	bucketSeen     atomic.Bool
}

// New returns the filesystem of the objects in bucket whose names begin with
// prefix and a slash, or of all if prefix is empty. It makes no request; see
// [Fs.Check].
func New(client *s3.Client, bucket, prefix string) *Fs {
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	client = s3.New(client.Options(), func(o *s3.Options) {
		// Otherwise every object that somebody else has put without a checksum
		// is a warning in the log whenever it is read.
		o.DisableLogOutputChecksumValidationSkipped = true
		o.HTTPClient = http11{o.HTTPClient}
	})
	return &Fs{
		Fs:       aferos3.NewFsFromClient(bucket, client),
		client:   client,
		bucket:   bucket,
		prefix:   prefix,
		patience: patience,
	}
}

// Check asks whether the bucket is there, whether objects can be put and removed
// in it, and whether the engine heeds If-None-Match and If-Match when it puts
// them. Of two conditional writers of one version, an engine that does not lets
// both win. It is up to six requests, for an object whose name no image can have.
func (f *Fs) Check(ctx context.Context) (err error) {
	name := ".check-" + rand.Text()
	_, err = f.stat(ctx, name)
	switch {
	case err == nil:
		return fmt.Errorf("s3fs: in bucket %q the engine finds an object that nobody has put", f.bucket)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("s3fs: looking for a missing object in bucket %q: %w", f.bucket, err)
	}
	defer func() { err = errors.Join(err, f.Remove(name)) }()
	put := func(cond imagestore.Precondition) error {
		_, err := f.PutObject(ctx, name, strings.NewReader("probe"), cond)
		return err
	}
	if err := put(imagestore.IfAbsent()); err != nil {
		return fmt.Errorf("s3fs: putting an object into bucket %q: %w", f.bucket, err)
	}
	for _, cond := range []imagestore.Precondition{imagestore.IfAbsent(), imagestore.IfMatch(`"0"`)} {
		header, _ := cond.Header()
		switch err := put(cond); {
		case err == nil:
			return fmt.Errorf("s3fs: the engine of bucket %q ignores %s: %w", f.bucket, header, imagestore.ErrUnsupported)
		case !errors.Is(err, imagestore.ErrPrecondition):
			return fmt.Errorf("s3fs: putting an object into bucket %q with %s: %w", f.bucket, header, err)
		}
	}
	return nil
}

// PutObject makes a file of all that body holds, as [imagestore.ObjectFs] has
// it. It is one request, which S3 allows 5 GiB, and is not repeated. Once begun
// it goes on when ctx is done, and returns what has come of it: a nil error, for
// example. Conditions that the engine does not know are refused with
// [imagestore.ErrUnsupported] if it says so; whether it does is for Check to find
// out.
func (f *Fs) PutObject(ctx context.Context, name string, body io.ReadSeeker, cond imagestore.Precondition) (os.FileInfo, error) {
	size, err := body.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = body.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "put", Path: name, Err: err}
	}
	if err := ctx.Err(); err != nil {
		return nil, &fs.PathError{Op: "put", Path: name, Err: err}
	}
	// In a bucket without versions, MinIO undoes a PUT that is cut off by removing
	// the object, and what it was to replace is lost. So this one goes on to its
	// end, or until the engine keeps still.
	w := f.watch(context.WithoutCancel(ctx))
	defer w.end()
	up := &upload{body: body, w: w}
	now := time.Now()
	in := &s3.PutObjectInput{
		Bucket:        &f.bucket,
		Key:           f.key(name),
		Body:          up,
		ContentLength: &size,
		ContentType:   aws.String(contentType),
		Metadata:      map[string]string{mtimeKey: formatTime(now)},
	}
	switch header, value := cond.Header(); header {
	case "If-None-Match":
		in.IfNoneMatch = &value
	case "If-Match":
		in.IfMatch = &value
	}
	opts := []func(*s3.Options){once}
	if in.IfNoneMatch != nil || in.IfMatch != nil {
		opts = append(opts, askFirst)
	}
	out, err := f.client.PutObject(w, in, opts...)
	switch {
	case up.err != nil:
		err = up.err
	case isRefusal(err, cond):
		err = fmt.Errorf("%w: %w", imagestore.ErrPrecondition, err)
	default:
		err = f.answered(w, err)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "put", Path: name, Err: err}
	}
	return fileInfo{path.Base(name), size, now, quoted(out.ETag)}, nil
}

// Open opens a file for reading, with one request. Its Stat needs no further
// one; Read does after a Seek elsewhere or an error, and ReadAt always does. All
// of them read the version that was opened, and fail if it has been replaced or
// removed.
func (f *Fs) Open(name string) (afero.File, error) {
	w := f.watch(context.Background())
	out, err := f.client.GetObject(w, &s3.GetObjectInput{Bucket: &f.bucket, Key: f.key(name)})
	if err = f.answered(w, err); err != nil {
		w.end()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	w.pause()
	info, err := newInfo(name, out.ContentLength, out.LastModified, out.ETag, out.Metadata)
	if err != nil {
		out.Body.Close()
		w.end()
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &file{fs: f, name: name, info: info, stream: &stream{out.Body, w}}, nil
}

// OpenFile is Open for those who only want to read.
func (f *Fs) OpenFile(name string, flag int, _ os.FileMode) (afero.File, error) {
	if flag != os.O_RDONLY {
		return nil, unsupported("open for writing", name)
	}
	return f.Open(name)
}

// Stat describes a file, with one request.
func (f *Fs) Stat(name string) (os.FileInfo, error) {
	return f.stat(context.Background(), name)
}

func (f *Fs) stat(ctx context.Context, name string) (os.FileInfo, error) {
	w := f.watch(ctx)
	defer w.end()
	out, err := f.client.HeadObject(w, &s3.HeadObjectInput{Bucket: &f.bucket, Key: f.key(name)})
	if isMissing(err) {
		err = f.missing(w, err)
	} else {
		err = f.answered(w, err)
	}
	var info fileInfo
	if err == nil {
		info, err = newInfo(name, out.ContentLength, out.LastModified, out.ETag, out.Metadata)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return info, nil
}

// missing finds out what the answer 404 to HEAD means: it has no body to tell a
// missing object from a missing bucket.
func (f *Fs) missing(w *watch, err error) error {
	if !f.bucketSeen.Load() {
		_, bucketErr := f.client.HeadBucket(w, &s3.HeadBucketInput{Bucket: &f.bucket})
		if isMissing(bucketErr) {
			return &types.NoSuchBucket{Message: &f.bucket}
		}
		if bucketErr = f.answered(w, bucketErr); bucketErr != nil {
			return bucketErr
		}
	}
	return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
}

// Remove removes a file, with one request, which is not repeated. S3 does not
// say whether there was one, so a file that is missing is not an error.
func (f *Fs) Remove(name string) error {
	w := f.watch(context.Background())
	defer w.end()
	_, err := f.client.DeleteObject(w, &s3.DeleteObjectInput{Bucket: &f.bucket, Key: f.key(name)}, once)
	if err = f.answered(w, err); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// ListObjects iterates over the files, as [imagestore.ObjectFs] has it. Their
// modification time is when the engine stored them, to the second or finer: S3
// does not list the time that Stat and Open know.
func (f *Fs) ListObjects(ctx context.Context, after string) iter.Seq2[os.FileInfo, error] {
	return func(yield func(os.FileInfo, error) bool) {
		in := &s3.ListObjectsV2Input{
			Bucket:  &f.bucket,
			Prefix:  &f.prefix,
			MaxKeys: aws.Int32(pageSize),
			// A name of somebody else's may have what XML cannot.
			EncodingType: types.EncodingTypeUrl,
		}
		if after != "" {
			in.StartAfter = aws.String(f.prefix + after)
		}
		last := ""
		for {
			out, err := f.listPage(ctx, in)
			if err != nil {
				yield(nil, &fs.PathError{Op: "list", Path: f.bucket + "/" + f.prefix, Err: err})
				return
			}
			for _, o := range out.Contents {
				key := aws.ToString(o.Key)
				if out.EncodingType == types.EncodingTypeUrl {
					key, err = url.QueryUnescape(key)
				}
				if err == nil && key <= last {
					// So it is with the directory buckets of AWS.
					err = fmt.Errorf("the engine lists %q after %q: %w", key, last, imagestore.ErrUnsupported)
				}
				if err != nil {
					yield(nil, &fs.PathError{Op: "list", Path: f.bucket + "/" + f.prefix, Err: err})
					return
				}
				last = key
				info := fileInfo{strings.TrimPrefix(key, f.prefix), aws.ToInt64(o.Size), aws.ToTime(o.LastModified), quoted(o.ETag)}
				if !yield(info, nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			in.ContinuationToken = out.NextContinuationToken
		}
	}
}

func (f *Fs) listPage(ctx context.Context, in *s3.ListObjectsV2Input) (*s3.ListObjectsV2Output, error) {
	w := f.watch(ctx)
	defer w.end()
	out, err := f.client.ListObjectsV2(w, in)
	return out, f.answered(w, err)
}

// Name returns "s3fs".
func (f *Fs) Name() string { return "s3fs" }

// Mkdir does nothing: a directory is there as soon as a file is in it.
func (f *Fs) Mkdir(string, os.FileMode) error { return nil }

// MkdirAll does nothing, like Mkdir.
func (f *Fs) MkdirAll(string, os.FileMode) error { return nil }

// Create is refused: files are made by PutObject.
func (f *Fs) Create(name string) (afero.File, error) { return nil, unsupported("create", name) }

// Rename is refused: S3 has only a copy, after which both files are there.
func (f *Fs) Rename(oldname, _ string) error { return unsupported("rename", oldname) }

// RemoveAll is refused: S3 removes objects one by one.
func (f *Fs) RemoveAll(name string) error { return unsupported("remove all", name) }

// Chmod is refused: who may do what is for the policy of the bucket to say.
func (f *Fs) Chmod(name string, _ os.FileMode) error { return unsupported("chmod", name) }

func unsupported(op, name string) error {
	return &fs.PathError{Op: op, Path: name, Err: errors.ErrUnsupported}
}

// key returns the whole name of an object. No name leaves the prefix.
func (f *Fs) key(name string) *string {
	return aws.String(f.prefix + path.Clean("/" + name)[1:])
}

// once has a request sent once only.
func once(o *s3.Options) { o.Retryer = aws.NopRetryer{} }

// askFirst has Expect: 100-continue sent with more uploads than the SDK does. An
// engine that refuses one for its condition closes the connection rather than
// take the body in; who is still sending it may then see no answer at all.
func askFirst(o *s3.Options) { o.ContinueHeaderThresholdBytes = askAbove }

// An http11 tells net/http that requests are HTTP/1.1, which the SDK leaves out.
// Without it Expect: 100-continue is sent, but not waited for.
type http11 struct{ s3.HTTPClient }

func (c http11) Do(r *http.Request) (*http.Response, error) {
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	return c.HTTPClient.Do(r)
}

// A fileInfo describes one version of an object.
type fileInfo struct {
	name    string
	size    int64
	modTime time.Time
	etag    string
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) Mode() fs.FileMode  { return 0o644 }
func (i fileInfo) ModTime() time.Time { return i.modTime }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) ETag() string       { return i.etag }

// newInfo makes a fileInfo of the headers of an answer.
func newInfo(name string, size *int64, lastModified *time.Time, etag *string, meta map[string]string) (fileInfo, error) {
	if size == nil { // not to be taken for an empty object
		return fileInfo{}, errors.New("the engine does not say how large the object is")
	}
	mtime, ok := parseTime(meta[mtimeKey])
	if !ok {
		mtime = aws.ToTime(lastModified)
	}
	return fileInfo{path.Base(name), *size, mtime, quoted(etag)}, nil
}

// quoted gives an ETag the quotes that some engines forget in some answers.
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
