package imagestore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/ba692904/imagestore/internal/fserr"
)

const (
	// minWindow and maxWindow bound how many names a list holds. A list of a
	// million images reads the directory some 16 times.
	minWindow = 1 << 10
	maxWindow = 1 << 16
)

// List implements [Driver]. A directory has its names in no order. List reads all of
// them and keeps a window of the smallest that it has not listed yet. It reads them
// again for the next window.
func (d *dirDriver) List(ctx context.Context, opts ListOptions) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		size := maxWindow
		if opts.Limit > 0 { // then most names of a large window would go to waste
			size = min(max(opts.Limit, minWindow), maxWindow)
		}
		root := d.root
		if root == nil {
			root = d.identify()
		}
		listed, after := 0, opts.After
		for {
			window, more, err := d.window(ctx, opts.Prefix, after, size)
			if err != nil {
				yield(Info{}, d.fsError(err))
				return
			}
			for _, id := range window {
				if err := ctx.Err(); err != nil {
					yield(Info{}, err)
					return
				}
				info, err := d.describe(ctx, id)
				if errors.Is(err, ErrNotFound) {
					continue // a directory without an image
				}
				if !yield(info, d.fsError(err)) {
					return
				}
				if listed++; listed == opts.Limit {
					return
				}
			}
			if !more {
				break
			}
			after = window[len(window)-1]
			size = min(8*size, maxWindow) // so that directories without images cost few passes
		}
		// Without the root, every image looks deleted.
		if err := d.checkRoot(root); err != nil {
			yield(Info{}, err)
		}
	}
}

// describe describes an image without opening it.
func (d *dirDriver) describe(ctx context.Context, id string) (Info, error) {
	fi, err := d.stat(ctx, id)
	if err != nil {
		return Info{ID: id}, err
	}
	return infoOf(id, fi, Meta{}), nil
}

// window returns the size smallest ids after an id that begin with prefix, in
// order, and whether there are more.
func (d *dirDriver) window(ctx context.Context, prefix, after string, size int) (ids []string, more bool, err error) {
	bound := "" // the largest id of a full window
	cut := func() {
		slices.Sort(ids)
		ids = slices.Compact(ids) // a directory that changes may list a name twice
		if len(ids) > size {
			clear(ids[size:])
			ids, more = ids[:size], true
			bound = ids[size-1]
		}
	}
	for id, err := range d.ids(ctx) {
		if err != nil {
			return nil, false, err
		}
		if id <= after || !strings.HasPrefix(id, prefix) {
			continue
		}
		if bound != "" && id > bound {
			continue
		}
		if ids = append(ids, id); len(ids) == 2*size {
			cut()
		}
	}
	cut()
	return ids, more, nil
}

// Sweep implements [Sweeper]. It removes staged files that were not written to for
// longer than olderThan. It touches nothing that the store has not made, and follows
// no link. Empty directories stay, because they may be somebody else's.
func (d *dirDriver) Sweep(ctx context.Context, olderThan time.Duration) (removed int, err error) {
	fi, err := d.lstat(stagingDir)
	if fserr.IsNotExist(err) {
		return 0, d.checkRoot(d.root) // nothing was ever put
	}
	if err == nil && !fi.IsDir() {
		err = errors.New(stagingDir + " is not a directory, so nothing in it is removed")
	}
	if err != nil {
		return 0, d.fsError(err)
	}
	before := time.Now().Add(-olderThan)
	failed := 0
	var first error // which stops no other file from being removed
	for name, err := range d.names(ctx, stagingDir) {
		if err != nil {
			return removed, d.fsError(err)
		}
		if !isStaged(name) {
			continue
		}
		name = path.Join(stagingDir, name)
		fi, err := d.lstat(name)
		if err == nil && fi.Mode().IsRegular() && fi.ModTime().Before(before) {
			if err = d.fs.Remove(name); err == nil {
				removed++
			}
		}
		if err == nil || fserr.IsNotExist(err) || fserr.IsInUse(err) {
			continue // another process was faster, or still needs it
		}
		if failed++; failed == 1 {
			first = d.fsError(err)
		}
	}
	if failed > 0 {
		return removed, fmt.Errorf("staged files that cannot be removed: %d, the first of them: %w", failed, first)
	}
	return removed, nil
}
