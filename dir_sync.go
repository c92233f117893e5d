package imagestore

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// syncDirs makes the entries of two directories durable. Both Syncs run at the
// same time, so that a journal commits once for both, and for other changes that
// wait.
func syncDirs(fsys afero.Fs, a, b string) error {
	other := make(chan error, 1)
	go func() { other <- recovered(func() error { return syncDir(fsys, b) }) }()
	err := cmp.Or(recovered(func() error { return syncDir(fsys, a) }), <-other)
	if p, ok := err.(*panicError); ok {
		panic(p) // where the caller of the Store can recover
	}
	return err
}

func syncDir(fsys afero.Fs, name string) error {
	var f afero.File
	// Windows refuses to open a directory that another process is about to remove.
	err := whileInUse(context.Background(), func() (err error) {
		f, err = fsys.Open(name)
		return err
	})
	if fserr.IsNotExist(err) {
		return nil // deleted by another process, which syncs that change
	}
	if err != nil {
		return err
	}
	err = f.Sync()
	if fserr.IsSyncUnsupported(err) {
		err = nil
	}
	return cmp.Or(err, f.Close())
}

// recovered calls f and returns a panic of it as a *panicError.
func recovered(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{p, debug.Stack()}
		}
	}()
	return f()
}

// A panicError is a panic of a filesystem, with the stack of where it happened.
type panicError struct {
	value any
	stack []byte
}

func (p *panicError) Error() string { return fmt.Sprintf("%v\n\n%s", p.value, p.stack) }
