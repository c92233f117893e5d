package imagestore_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/errorfs"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestManyImages lists more images than one read of a directory, one window of a
// list, or one page of a Client holds. Some directories have no image.
func TestManyImages(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	var want []string
	for i := range 1200 {
		id := fmt.Sprint("i", i)
		must(t, fsys.Mkdir(id, 0o777))
		if i%12 > 0 {
			must(t, afero.WriteFile(fsys, id+"/image", []byte("x"), 0o666))
			want = append(want, id)
		}
	}
	slices.Sort(want)
	if got := list(t, s, imagestore.ListOptions{}); !slices.Equal(got, want) {
		t.Errorf("got %d images, want %d in order", len(got), len(want))
	}
	if got := list(t, s, imagestore.ListOptions{After: want[9], Limit: 1050}); !slices.Equal(got, want[10:1060]) {
		t.Errorf("After and Limit: got %d images, want %d in order", len(got), 1050)
	}
	if got := list(t, newClient(t, serve(t, s, nil).URL), imagestore.ListOptions{}); !slices.Equal(got, want) {
		t.Errorf("Client: got %d images, want %d in order", len(got), len(want))
	}
}

// TestBadEntry lists three images of which one cannot be read.
func TestBadEntry(t *testing.T) {
	t.Parallel()
	base := onDisk(t)
	fsys := errorfs.New(base)
	s := imagestore.New(fsys, nil)
	for _, id := range []string{"a", "b", "c"} {
		put(t, s, id, testimage.PNG(t, 3, 1))
	}
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Path == "b/image" {
			return syscall.EIO
		}
		return nil
	})
	srv := serve(t, s, nil)
	for reason, s := range map[error]storetest.Images{syscall.EIO: s, imagestore.ErrInternal: newClient(t, srv.URL)} {
		var good, bad []string
		for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
			if err == nil {
				good = append(good, info.ID)
				continue
			}
			wantError(t, err, reason, "list", "b")
			if info != (imagestore.Info{ID: "b"}) {
				t.Errorf("%T: got %+v with an error, want an Info with the id alone", s, info)
			}
			bad = append(bad, info.ID)
		}
		if !slices.Equal(good, []string{"a", "c"}) || !slices.Equal(bad, []string{"b"}) {
			t.Errorf("%T: got %q and errors about %q, want a, c and an error about b", s, good, bad)
		}
	}
	got := testhttp.Request(t, "GET", srv.URL+"/images?after=a&limit=1", nil)
	if want := `{"images":[{"id":"b","error":"internal"}],"next":"b"}` + "\n"; string(got.Bytes) != want {
		t.Errorf("got the page %s, want %s", got.Bytes, want)
	}
	fsys.FailIf(func(op errorfs.Op) error {
		if op.Path == "." {
			return syscall.EIO
		}
		return nil
	})
	for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		if info != (imagestore.Info{}) {
			t.Errorf("unreadable root: got %+v, want the zero Info", info)
		}
		wantError(t, err, syscall.EIO, "list", "")
	}
}

// A twiceFs lists every name of the root twice. A directory that changes meanwhile
// may do that.
type twiceFs struct{ afero.Fs }

func (f twiceFs) Open(name string) (afero.File, error) {
	file, err := f.Fs.Open(name)
	return twiceDir{file}, err
}

type twiceDir struct{ afero.File }

func (d twiceDir) Readdirnames(n int) ([]string, error) {
	names, err := d.File.Readdirnames(n)
	return append(names, names...), err
}

func TestNameTwice(t *testing.T) {
	t.Parallel()
	s := imagestore.New(twiceFs{afero.NewMemMapFs()}, nil)
	put(t, s, "a", testimage.PNG(t, 3, 1))
	put(t, s, "b", testimage.PNG(t, 3, 1))
	if got, want := list(t, s, imagestore.ListOptions{}), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
