package server

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// OpenDir opens a store in a directory of the operating system, for the Open of a
// Command. It also returns the absolute path of the directory. It creates a missing
// directory unless the store is only read.
func OpenDir(dir string, opts *imagestore.Options, readOnly bool) (store *imagestore.Store, path string, err error) {
	if dir == "" {
		return nil, "", errors.New("-dir is empty: it must name a directory, such as images")
	}
	if path, err = filepath.Abs(dir); err != nil {
		return nil, "", err
	}
	if !readOnly {
		store, err = imagestore.OpenDir(path, opts)
		return store, path, err
	}
	if fi, err := os.Stat(path); err != nil || !fi.IsDir() {
		return nil, "", cmp.Or(err, fmt.Errorf("-dir is %q, which is not a directory", dir))
	}
	return imagestore.New(afero.NewReadOnlyFs(afero.NewBasePathFs(afero.NewOsFs(), path)), opts), path, nil
}
