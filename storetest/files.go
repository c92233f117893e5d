package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// fileTests test the files of a Store.
var fileTests = []test[afero.Fs]{
	{"delete removes the directory", "Remove does not remove, or reports an error where there is none", testDeletedDirectory},
	{"delete leaves the files of others alone", "Readdirnames skips names, and Remove removes a directory that is not empty", testForeignFiles},
	{"an image can be put where a directory was left behind", "neither Mkdir nor Stat reports that a directory exists", testLeftBehind},
	{"a directory is no image", "Stat takes a directory for a file", testEmptyDirectory},
	{"uploads leave nothing behind", "Remove does not remove, or a file that is open cannot be removed", testNothingStaged},
	{"a second Store sees the images of the first", "changes are not visible at once", testSecondStore},
	{"List tells the same as Put", "Stat of a file and of its name differ", testListedInfo},
}

// wantNothingStaged checks that there is no staged file.
func wantNothingStaged(t *testing.T, fsys afero.Fs, after string) {
	t.Helper()
	d, err := fsys.Open(".staging")
	if fserr.IsNotExist(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil && err != io.EOF || len(names) > 0 {
		t.Errorf("staging directory after %s: got %q, %v, want it empty", after, names, err)
	}
}

func testDeletedDirectory(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	for range 2 {
		put(t, s, "a", PNG(t, 10, 1))
		remove(t, s, "a")
		if _, err := fsys.Stat("a"); !fserr.IsNotExist(err) {
			t.Errorf("directory of a deleted image: got %v from Stat, want fs.ErrNotExist", err)
		}
	}
}

func testForeignFiles(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	put(t, s, "a", PNG(t, 10, 1))
	writeFile(t, fsys, "a/notes.txt", []byte("mine"))
	remove(t, s, "a")
	wantFile(t, fsys, "a/notes.txt", []byte("mine"), "Delete reported success")
	wantNone(t, s, "a")
}

func testLeftBehind(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	mkdir(t, fsys, "a")
	b := PNG(t, 10, 1)
	wantImage(t, s, put(t, s, "a", b).Info, b)
}

func testEmptyDirectory(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	mkdir(t, fsys, "none")
	wantNone(t, s, "none")
	if ids := list(t, s, imagestore.ListOptions{}); len(ids) > 0 {
		t.Errorf("List: got %q, want nothing", ids)
	}
}

func testNothingStaged(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	b := PNG(t, 300, 1)
	for _, side := range sides {
		put(t, s, "a", PNG(t, side, 1))
	}
	wantNothingStaged(t, fsys, "Put")
	broken := errors.New("upload canceled")
	for _, n := range []int{0, 1000, 70_000, len(b)} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Put(t.Context(), id, io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)))
			wantError(t, err, broken, "put", id)
			wantNothingStaged(t, fsys, "a failed upload")
		}
	}
	_, err := s.Put(t.Context(), "a", bytes.NewReader(b[:len(b)-1]))
	wantError(t, err, imagestore.ErrInvalidImage, "put", "a")
	wantNothingStaged(t, fsys, "an invalid image")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err = s.Put(ctx, "a", io.MultiReader(bytes.NewReader(b[:70_000]), cancelReader(cancel), bytes.NewReader(b[70_000:])))
	wantError(t, err, context.Canceled, "put", "a")
	wantNothingStaged(t, fsys, "a canceled upload")
	if _, err := fsys.Stat("b"); !fserr.IsNotExist(err) {
		t.Errorf("directory after a failed upload: got %v from Stat, want fs.ErrNotExist", err)
	}
}

func testSecondStore(t *testing.T, fsys afero.Fs) {
	b := PNG(t, 300, 1)
	info := put(t, imagestore.New(fsys, nil), "a", b).Info
	second := imagestore.New(fsys, nil)
	wantImage(t, second, info, b)
	b = PNG(t, 200, 2)
	info = put(t, second, "a", b, imagestore.IfMatch(info.ETag)).Info
	wantImage(t, imagestore.New(fsys, nil), info, b)
	wantFile(t, fsys, "a/image", b, "Put reported success")
	if f, err := fsys.OpenFile("a/image", os.O_RDONLY, 0); err != nil {
		t.Errorf("OpenFile of the image: got %v, want nil", err)
	} else {
		f.Close()
	}
}

func testListedInfo(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	want := []imagestore.Info{put(t, s, "a", PNG(t, 1, 1)).Info, put(t, s, "b", PNG(t, 300, 1)).Info}
	i := 0
	for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		if err != nil {
			t.Fatalf("List fails: %v", err)
		}
		if i >= len(want) || info != version(want[i]) {
			t.Errorf("List: got %+v, want %+v as from Put, without type and pixels", info, want[min(i, 1)])
		}
		i++
	}
	if i != len(want) {
		t.Errorf("List: got %d images, want %d", i, len(want))
	}
}
