package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/afero"
)

// openDir returns a driver for a directory of the operating system. It stages a file
// to find out whether uploads can be stored.
func openDir(dir string, noSync bool) (*dirDriver, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	d := newDirDriver(afero.NewBasePathFs(afero.NewOsFs(), root), noSync)
	_, statErr := os.Stat(root)
	if err := os.MkdirAll(root, 0o777); err != nil {
		return nil, d.fsError(err)
	}
	if statErr != nil {
		syncParents(root)
	}
	d.root = d.identify()
	up, err := d.Create(context.Background())
	switch {
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrReadOnly):
		return d, nil // images can be read
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("it cannot be written: give this user the permission to write to it: %w", err)
	case err != nil:
		return nil, err
	}
	return d, up.Abort()
}

// syncParents makes a new directory durable, whose entry is in the one above. It
// ignores errors, because not every parent may be opened.
func syncParents(dir string) {
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if d, err := os.Open(parent); err == nil {
			_ = d.Sync()
			_ = d.Close()
		}
		if parent == filepath.Dir(parent) {
			return
		}
	}
}
