package imagestore

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"

	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// openRoot opens the root before a change, for syncChange. So a change that runs out
// of file descriptors fails before it is made. With NoSync it returns nil.
func (d *dirDriver) openRoot() (afero.File, error) {
	if d.noSync {
		return nil, nil
	}
	return d.fs.Open(".")
}

// closeRoot closes the root if the change has failed.
func closeRoot(root afero.File) {
	if root != nil {
		_ = root.Close()
	}
}

// syncChange makes durable what has changed under an id, and closes the root. It
// syncs the root even if the image's directory is not new: another process may have
// made that and not have synced yet. Both Syncs run at the same time, so that a
// journal commits once for both, and for other changes that wait.
func (d *dirDriver) syncChange(id string, root afero.File) error {
	if root == nil {
		return nil
	}
	ofRoot := make(chan error, 1)
	go func() { ofRoot <- recovered(func() error { return syncAndClose(root) }) }()
	ofID := func() error { return recovered(func() error { return d.syncID(id) }) }
	err := ofID()
	rootErr := <-ofRoot
	if fserr.IsTooManyFiles(err) { // the root has given its descriptor back
		err = ofID()
	}
	err = cmp.Or(err, rootErr)
	if p, ok := err.(*panicError); ok {
		panic(p) // where the caller of the Store can recover
	}
	return err
}

// syncID syncs the directory of an id.
func (d *dirDriver) syncID(id string) error {
	var f afero.File
	// Windows refuses to open a directory that another process is about to remove.
	err := whileInUse(context.Background(), func() (err error) {
		f, err = d.fs.Open(id)
		return err
	})
	if fserr.IsNotExist(err) { // deleted by another process, which syncs that change
		return d.checkRoot(d.root)
	}
	if err != nil {
		return err
	}
	return syncAndClose(f)
}

func syncAndClose(f afero.File) error {
	err := f.Sync()
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
