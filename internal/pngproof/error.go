package pngproof

import (
	"errors"
	"fmt"
)

// The kinds of [Error].
var (
	ErrNotPNG        = errors.New("not a PNG")       // there is no signature (section 5.2)
	ErrBroken        = errors.New("broken PNG")      // a rule is broken after the signature
	ErrTooManyPixels = errors.New("too many pixels") // IHDR goes beyond Config.MaxPixels
)

// Error is what is wrong with a stream. [errors.Is] finds its Kind.
type Error struct {
	Kind error // ErrNotPNG, ErrBroken or ErrTooManyPixels

	// Offset is that of the first wrong byte, from the start of the stream: of a CRC
	// that does not match, of a chunk that should not be there, of the first byte
	// that is missing. What only shows in the inflated image is put at the last byte
	// that went into the inflater.
	Offset int64

	// Detail says what was found and what was expected, for people, without a
	// trailing dot.
	Detail string
}

// Error returns the kind, the detail and the offset.
func (e *Error) Error() string {
	return fmt.Sprintf("%v: %s (at byte %d)", e.Kind, e.Detail, e.Offset)
}

// Unwrap returns the Kind.
func (e *Error) Unwrap() error { return e.Kind }
