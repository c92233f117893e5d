package imagestore

import (
	"log/slog"
	"time"
)

const (
	// DefaultMaxUploads is how many uploads and deletes a handler has under way
	// at once unless its options say otherwise. An upload takes up to 150 KiB of
	// memory. A change on a stalled disk takes two threads of the 10,000 that Go
	// allows.
	DefaultMaxUploads = 1024
	// DefaultTimeout is how long a client may take for 64 KiB unless the options
	// say otherwise: 2 KiB a second.
	DefaultTimeout = 30 * time.Second
)

// HandlerOptions configure a handler. The zero value is fit for most.
type HandlerOptions struct {
	// Logger gets the failures of the server at level error, and the mistakes
	// of clients at level debug. Nil is slog.Default().
	Logger *slog.Logger
	// MaxUploads is how many uploads and deletes may be under way at once. More
	// are answered with 503 and Retry-After. An upload counts once its first 64 KiB
	// have arrived, or all of it. 0 is DefaultMaxUploads.
	MaxUploads int
	// Timeout is how long a client may take to send or receive 64 KiB. The
	// deadline is extended as the client makes progress, so a large image has the
	// time that it needs. 0 is DefaultTimeout.
	Timeout time.Duration
}
