package imagestore_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

// TestMain runs more tests at once than there are processors, because most wait
// for the disk.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		f.Value.Set(strconv.Itoa(max(6, runtime.GOMAXPROCS(0))))
	}
	m.Run()
}

type filesystem struct {
	name string
	new  func(tb testing.TB) afero.Fs
}

// filesystems are the filesystems that the conformance suite runs on.
var filesystems = []filesystem{
	{"OsFs", onDisk},
	{"MemMapFs", func(testing.TB) afero.Fs { return afero.NewMemMapFs() }},
	{"BasePathFs over MemMapFs", func(testing.TB) afero.Fs { return afero.NewBasePathFs(afero.NewMemMapFs(), "/srv/images") }},
	{"CopyOnWriteFs in memory", func(tb testing.TB) afero.Fs { return afero.NewCopyOnWriteFs(onDisk(tb), afero.NewMemMapFs()) }},
	{"CopyOnWriteFs on disk", func(tb testing.TB) afero.Fs {
		return afero.NewCopyOnWriteFs(afero.NewReadOnlyFs(onDisk(tb)), onDisk(tb))
	}},
}

// allFormats are the options of a Store that takes every format.
var allFormats = &imagestore.Options{Formats: imagestore.Formats()}

func onDisk(tb testing.TB) afero.Fs { return afero.NewBasePathFs(afero.NewOsFs(), tb.TempDir()) }

// serve starts a server for a handler of s. It logs nothing unless opts have a
// logger.
func serve(tb testing.TB, s *imagestore.Store, opts *imagestore.HandlerOptions) *httptest.Server {
	tb.Helper()
	var o imagestore.HandlerOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = testhttp.Quiet
	}
	return testhttp.Serve(tb, imagestore.NewHandler(s, &o))
}

func newClient(tb testing.TB, baseURL string) *client.Client {
	tb.Helper()
	c, err := client.New(baseURL, testhttp.Client)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func put(t *testing.T, s storetest.Images, id string, b []byte, conds ...imagestore.Condition) imagestore.Info {
	t.Helper()
	result, err := s.Put(t.Context(), id, bytes.NewReader(b), conds...)
	if err != nil {
		t.Fatal(err)
	}
	return result.Info
}

func get(t *testing.T, s storetest.Images, id string) (imagestore.Info, []byte) {
	t.Helper()
	img, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	b, err := io.ReadAll(img)
	if err != nil {
		t.Fatal(err)
	}
	return img.Info, b
}

// list returns the ids in a list.
func list(t *testing.T, s storetest.Images, opts imagestore.ListOptions) (ids []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), opts) {
		must(t, err)
		ids = append(ids, info.ID)
	}
	return ids
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError checks that an error has a reason, an operation and an id.
func wantError(t *testing.T, err, reason error, op, id string) {
	t.Helper()
	e, ok := errors.AsType[*imagestore.Error](err)
	if !errors.Is(err, reason) || !ok || e.Op != op || e.ID != id {
		t.Errorf("got %v (%#v), want %q of %s %q", err, e, reason, op, id)
	}
}

// files lists the paths below the root of a filesystem, directories included.
func files(tb testing.TB, fsys afero.Fs) (paths []string) {
	tb.Helper()
	err := afero.Walk(fsys, ".", func(path string, _ os.FileInfo, err error) error {
		if path != "." {
			paths = append(paths, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return paths
}
