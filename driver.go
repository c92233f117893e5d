package imagestore

import (
	"context"
	"io"
	"iter"
	"time"
)

// A Driver is the storage below a [Store]. Ids are checked and images validated
// before a Driver sees them. Its methods are safe for concurrent use.
//
// Errors match the reasons of this package where one fits: [ErrNotFound],
// [ErrPreconditionFailed], [ErrReadOnly], [ErrNoSpace], [ErrUnavailable],
// [ErrNotImplemented], [ErrNotDurable]. Others are internal, and never shown to
// a client of the handler.
//
// Package storetest has a test suite for drivers. A Driver may also be a
// [Sweeper] and a [DirectOpener].
type Driver interface {
	// Stat describes the image. It is never more stale than Open.
	Stat(ctx context.Context, id string) (Info, error)

	// Open opens the image for reading. The Image stays whole while it is
	// open, even if the image is replaced or deleted. It holds the *os.File
	// itself where there is one, so that a server can use sendfile. ctx only
	// matters while Open runs.
	Open(ctx context.Context, id string) (*Image, error)

	// Create begins an upload. Readers do not see it before its Commit.
	Create(ctx context.Context) (Upload, error)

	// Delete removes the image if cond holds, in one step. The deletion is
	// durable when Delete has returned nil. A missing image is ErrNotFound,
	// whatever cond is.
	Delete(ctx context.Context, id string, cond Condition) error

	// List iterates over the images in the order of the bytes of their ids, in
	// constant memory. An error about one image comes with an Info that has
	// the ID alone, and the iteration goes on. Any other error comes with the
	// zero Info and ends it.
	List(ctx context.Context, opts ListOptions) iter.Seq2[Info, error]
}

// An Upload takes the bytes of one image. It is for one goroutine at a time.
type Upload interface {
	io.Writer

	// Commit stores the written bytes as the image with this id, if cond holds.
	// It is one step: a reader sees the old image or the new one. The image is
	// durable when Commit has returned nil. After an error the old image is in
	// place, with two exceptions. After ErrNotDurable, which comes with the
	// result, the new image is in place. After ErrUnavailable it may be.
	Commit(ctx context.Context, id string, meta Meta, cond Condition) (PutResult, error)

	// Abort discards what was written. It does nothing after Commit has
	// succeeded.
	Abort() error
}

// A Sweeper is a Driver that removes what crashes have left behind. See
// [Store.Sweep].
type Sweeper interface {
	Sweep(ctx context.Context, olderThan time.Duration) (removed int, err error)
}

// A DirectOpener is a Driver whose Open may answer from memory. OpenDirect reads
// the storage itself, for [Store.Verify].
type DirectOpener interface {
	OpenDirect(ctx context.Context, id string) (*Image, error)
}

// Info describes one version of an image. In lists, Type, Width and Height are
// missing where the driver would have to open the image for them.
type Info struct {
	ID string `json:"id"`
	// Type is the media type, such as "image/png". It is "application/octet-stream" for
	// a file of another program that is of no known format.
	Type string `json:"type,omitempty"`
	Size int64  `json:"size"` // in bytes
	// Width and Height are in pixels, as browsers display the image: Exif's orientation
	// of a JPEG and the rotation of an AVIF or a HEIC are applied. They are 0 if they
	// are not known.
	Width  int `json:"width,omitempty"`
	Height int `json:"height,omitempty"`
	// ModTime is when the version was put, in UTC and as exact as the storage
	// keeps it. A Client takes it from Last-Modified, in whole seconds, if the
	// server does not send Imagestore-Modified.
	ModTime time.Time `json:"modified"`
	// ETag identifies the version: a strong entity tag (RFC 9110, section
	// 8.8.3) with its quotes, fit for IfMatch.
	ETag string `json:"etag"`
}

// A PutResult describes what a Put has stored.
type PutResult struct {
	Info
	Replaced bool `json:"-"` // whether there was an image with this id before
}

// An Image is an open image: its description and its bytes. It must be closed.
// It stays whole while it is open, even if the image is replaced or deleted. It
// is for one goroutine at a time.
type Image struct {
	Info
	io.ReadSeekCloser
}

// Meta is what validation has learned of an upload. It becomes a part of the Info.
type Meta struct {
	Type          string // the media type, such as "image/png"
	Width, Height int    // as displayed, in pixels
}

// ListOptions select the images that a list has.
type ListOptions struct {
	Prefix string // lists ids that begin with Prefix
	After  string // lists ids greater than After, compared byte by byte
	Limit  int    // is the most images to list; 0 lists all
}
