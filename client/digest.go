package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/digest"
)

// WithDigests returns a Client of the same server that checks images on their way
// (RFC 9530). c itself stays as it is.
//
// Put sends a SHA-256 digest of the image. The server refuses the image with
// [imagestore.ErrDigestMismatch] if other bytes have arrived. Put reads r twice, so r
// must be an [io.Seeker], such as an [os.File] or a [bytes.Reader]. Any other r is an
// [imagestore.ErrBadRequest], and nothing is sent.
//
// Get asks for a digest, and fails with a [StatusError] if the answer has none. An
// Image that is read from its start to its end is checked. The Read that would return
// its last bytes fails with [imagestore.ErrDigestMismatch] if they do not fit, and so
// does every later Read. Bytes that are read after a Seek elsewhere are not checked.
func (c *Client) WithDigests() *Client {
	c2 := *c
	c2.digests = true
	return &c2
}

// digestOf returns the digest of what r has left, as a field has it. It seeks r back
// to where it was.
func digestOf(ctx context.Context, r io.Reader) (string, error) {
	seeker, ok := r.(io.Seeker)
	if !ok {
		return "", noSeeker(fmt.Errorf("a %T has no method Seek", r))
	}
	start, err := seeker.Seek(0, io.SeekCurrent)
	if err != nil {
		return "", noSeeker(err)
	}
	sum := digest.NewHash(digest.SHA256)
	if _, err := io.Copy(sum, &source{ctx: ctx, r: r}); err != nil {
		return "", err
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return "", err
	}
	return sum.Digest(digest.SHA256).String(), nil
}

func noSeeker(err error) error {
	return fmt.Errorf("%w: the digest of the image is sent before the image, so the reader must be able to seek; use a file or a bytes.Reader: %w", imagestore.ErrBadRequest, err)
}

// A digestCheck compares an image with the digests that came with it, while it is read.
type digestCheck struct {
	want []digest.Digest
	hash *digest.Hash
	next int64 // offset up to which hash has the image
	err  error // of the image
}

// newDigestCheck returns the check of the image in an answer.
func newDigestCheck(resp *http.Response) (*digestCheck, error) {
	want, err := digest.Parse(resp.Header["Repr-Digest"])
	if err != nil {
		return nil, newStatusError(resp, fmt.Sprintf("its Repr-Digest is malformed: %v", err))
	}
	if len(want) == 0 {
		return nil, newStatusError(resp, "it has no Repr-Digest of sha-256 or sha-512, which was asked for; does a proxy drop it, or is the server too old?")
	}
	c := &digestCheck{want: want, hash: digest.HashFor(want)}
	_ = c.add(nil, 0, resp.ContentLength) // the error of an empty image is for the first Read
	return c, nil
}

// add takes bytes that were read at an offset of an image with this size. The error
// is for the last bytes.
func (c *digestCheck) add(b []byte, at, size int64) error {
	if at == 0 {
		c.hash.Reset()
		c.next = 0
	}
	if at == c.next {
		c.hash.Write(b)
		c.next += int64(len(b))
	}
	if c.next < size {
		return nil
	}
	if e, ok := errors.AsType[*digest.MismatchError](c.hash.Check(c.want)); ok {
		c.err = fmt.Errorf("%w: the server sent %s, the bytes that came have %s", imagestore.ErrDigestMismatch, e.Want, e.Got)
	}
	return c.err
}
