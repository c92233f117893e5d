package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ba692904/imagestore"
)

const clearLine = "\r\x1b[K" // on a terminal

// verifyAll verifies all images of a store, in the order of their ids, and
// returns how many there are. It prints a line for each that is invalid or
// cannot be read, and returns an error if there are any. progress, which may be
// nil, is a terminal that shows the counts meanwhile.
func verifyAll(ctx context.Context, store *imagestore.Store, stdout, progress io.Writer) (total int, err error) {
	var invalid, unreadable int
	var shown time.Time
	if progress != nil {
		defer func() { io.WriteString(progress, clearLine) }()
	}
	ended := func(err error) (int, error) {
		return total, fmt.Errorf("verification ended early, %s: %w", counts(total, invalid, unreadable), err)
	}
	report := func(id, verdict string, err error) error {
		if progress != nil {
			io.WriteString(progress, clearLine)
		}
		if e, ok := errors.AsType[*imagestore.Error](err); ok {
			err = e.Err // the line begins with the id
		}
		_, err = fmt.Fprintf(stdout, "%s: %s%v\n", id, verdict, err)
		return err
	}
	for info, err := range store.List(ctx, imagestore.ListOptions{}) {
		if err == nil {
			err = store.Verify(ctx, info.ID)
		}
		verdict := ""
		switch {
		case err == nil:
		case info.ID == "" || ctx.Err() != nil:
			return ended(err)
		case errors.Is(err, imagestore.ErrNotFound):
			continue // deleted since it was listed
		case errors.Is(err, imagestore.ErrInvalidImage), errors.Is(err, imagestore.ErrUnsupportedType):
			invalid++
		default:
			unreadable++
			verdict = "cannot be read: "
		}
		total++
		if err != nil {
			if err := report(info.ID, verdict, err); err != nil {
				return ended(err) // nobody reads the rest
			}
		}
		if progress != nil && time.Since(shown) > time.Second/10 {
			shown = time.Now()
			io.WriteString(progress, clearLine+counts(total, invalid, unreadable))
		}
	}
	if invalid+unreadable > 0 {
		return total, errors.New(counts(total, invalid, unreadable))
	}
	return total, nil
}

func counts(total, invalid, unreadable int) string {
	return fmt.Sprintf("%d images: %d invalid, %d cannot be read", total, invalid, unreadable)
}
