package imagestore

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/ba692904/imagestore/internal/fserr"
)

// prepareDir makes a directory for a Store and returns its absolute path.
func prepareDir(dir string) (root string, err error) {
	if root, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	_, statErr := os.Stat(root)
	if err := os.MkdirAll(root, 0o777); err != nil {
		return "", err
	}
	if statErr != nil {
		syncParents(root)
	}
	f, err := os.CreateTemp(root, ".check-")
	if fserr.IsNoSpace(err) {
		return root, nil
	}
	if err != nil {
		return "", err
	}
	return root, errors.Join(f.Close(), os.Remove(f.Name()))
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
