package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/fserr"
	"github.com/spf13/afero"
)

// TestFs tests a filesystem, and the promises of a Store on it. newFs returns a
// filesystem with an empty root each time. It is called for every subtest, from
// several goroutines.
//
// The subtests of "filesystem" test the filesystem without a Store. They fail only
// where it breaks a promise that a Store relies on. They report these differences
// as quirks:
//
//   - O_EXCL that is not exclusive;
//   - Remove of a directory that is not empty;
//   - parents that need not exist;
//   - lists in batches that skip or repeat names;
//   - coarse times, and times that change when a file is closed;
//   - a FileInfo that changes later;
//   - names that ignore case;
//   - missing symbolic links;
//   - directories that cannot be synced.
//
// The subtests of "store" are those of [TestStore]. The subtests of "files" test the
// files that a Store makes. If one of them fails, see first what "filesystem" reports.
//
// No test checks whether synced data survives a power cut.
func TestFs(t *testing.T, newFs func(t *testing.T) afero.Fs) {
	runAll(t, "filesystem", probes, newFs)
	runAll(t, "store", storeTests, func(t *testing.T) Images { return imagestore.New(newFs(t), nil) })
	runAll(t, "files", fileTests, newFs)
}

// probes test the promises that a Store relies on.
var probes = []test[afero.Fs]{
	{"a file keeps what was written", "", probeContent},
	{"Sync of a file", "", probeSyncFile},
	{"Sync of a directory", "", probeSyncDir},
	{"Rename moves", "", probeRenameMoves},
	{"Rename replaces", "", probeRenameReplaces},
	{"Rename is atomic", "", probeRenameAtomic},
	{"an open file survives being replaced", "", probeOpenReplaced},
	{"an open file survives being removed", "", probeOpenRemoved},
	{"Remove removes a file", "", probeRemoveFile},
	{"Remove removes an empty directory", "", probeRemoveDir},
	{"Remove of a directory that is not empty", "", probeRemoveFull},
	{"Mkdir of a directory that is there", "", probeMkdirTwice},
	{"a missing file is reported", "", probeMissing},
	{"a missing parent", "", probeMissingParent},
	{"names are listed", "", probeList},
	{"names are listed in batches", "", probeListBatches},
	{"Seek", "", probeSeek},
	{"modification times order versions", "", probeTimesOrder},
	{"modification times stay", "", probeTimesStay},
	{"modification times are exact", "", probeTimesExact},
	{"O_EXCL", "", probeExclusive},
	{"ids are names", "", probeNames},
	{"a FileInfo is a snapshot", "", probeSnapshot},
	{"LstatIfPossible does not follow links", "", probeLstat},
}

// create opens a new file as a Store does.
func create(fsys afero.Fs, name string) (afero.File, error) {
	return fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

func writeFile(t *testing.T, fsys afero.Fs, name string, b []byte) {
	t.Helper()
	f, err := create(fsys, name)
	if err != nil {
		t.Fatalf("a file cannot be created: %v", err)
	}
	if n, err := f.Write(b); err != nil || n != len(b) {
		t.Fatalf("Write of %d bytes: got %d, %v", len(b), n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatalf("Close of a file that was written fails: %v", err)
	}
}

func mkdir(t *testing.T, fsys afero.Fs, name string) {
	t.Helper()
	if err := fsys.Mkdir(name, 0o777); err != nil {
		t.Fatalf("a directory cannot be made: %v", err)
	}
}

func stat(t *testing.T, fsys afero.Fs, name string) os.FileInfo {
	t.Helper()
	fi, err := fsys.Stat(name)
	if err != nil {
		t.Fatalf("Stat of a file that is there fails: %v", err)
	}
	return fi
}

// wantFile checks the content of a file. done says what was done before.
func wantFile(t *testing.T, fsys afero.Fs, name string, want []byte, done string) {
	t.Helper()
	b, err := readFile(fsys, name)
	switch {
	case err != nil:
		t.Fatalf("%s, but the file cannot be read: %v", done, err)
	case !bytes.Equal(b, want):
		t.Fatalf("%s, but the file: got %d other bytes, want %d", done, len(b), len(want))
	}
}

// readFile reads a file as a reader of an image does.
func readFile(fsys afero.Fs, name string) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	return readAllAndClose(f)
}

func probeContent(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	f, err := create(fsys, "dir/file")
	if err != nil {
		t.Fatalf("a file cannot be created: %v", err)
	}
	want := append(text('a', 100_000), text('b', 50_001)...)
	for _, b := range [][]byte{want[:65_536], want[65_536:]} {
		if n, err := f.Write(b); err != nil || n != len(b) {
			t.Fatalf("Write of %d bytes: got %d, %v", len(b), n, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatalf("Close of a file that was written fails: %v", err)
	}
	fi := stat(t, fsys, "dir/file")
	if fi.Size() != int64(len(want)) {
		t.Errorf("writes are lost: every Write and Close reported success, but Stat says that the file has %d of %d bytes", fi.Size(), len(want))
	}
	if !fi.Mode().IsRegular() || fi.IsDir() {
		t.Errorf("Stat of a file: got mode %v, want a regular file", fi.Mode())
	}
	if fi := stat(t, fsys, "dir"); !fi.IsDir() || fi.Mode().IsRegular() {
		t.Errorf("Stat of a directory: got mode %v, want a directory", fi.Mode())
	}
	wantFile(t, fsys, "dir/file", want, "Write and Close reported success")
}

func probeSyncFile(t *testing.T, fsys afero.Fs) {
	f, err := create(fsys, "file")
	if err != nil {
		t.Fatalf("a file cannot be created: %v", err)
	}
	defer f.Close()
	if _, err := f.Write(text('a', 10)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Errorf("Sync of a file fails, so that no image can be made durable and Put fails unless Options.NoSync is set: %v", err)
	}
}

func probeSyncDir(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	for _, name := range []string{"dir", "."} {
		d, err := fsys.Open(name)
		if err != nil {
			t.Errorf("the directory %s cannot be opened: %v", name, err)
			continue
		}
		switch err := d.Sync(); {
		case err == nil:
		case fserr.IsSyncUnsupported(err):
			quirk(t, "Sync of a directory is not supported (%v): the filesystem alone decides whether an image survives a power cut", err)
		default:
			t.Errorf("Sync of the directory %s fails, although it is supported: %v", name, err)
		}
		if err := d.Close(); err != nil {
			t.Errorf("Close of the directory %s fails: %v", name, err)
		}
	}
}

func probeRenameMoves(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "from")
	mkdir(t, fsys, "to")
	want := text('a', 1000)
	writeFile(t, fsys, "from/x", want)
	if err := fsys.Rename("from/x", "to/y"); err != nil {
		t.Fatalf("Rename does not move a file into another directory: %v", err)
	}
	wantFile(t, fsys, "to/y", want, "Rename reported success")
	if _, err := fsys.Stat("from/x"); !fserr.IsNotExist(err) {
		t.Errorf("Rename reported success, but the file is under its old name as well (Stat: %v)", err)
	}
}

func probeRenameReplaces(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "from")
	mkdir(t, fsys, "to")
	for i, want := range [][]byte{text('a', 1000), text('b', 70_000), text('c', 10)} {
		writeFile(t, fsys, "from/x", want)
		if err := fsys.Rename("from/x", "to/y"); err != nil && i > 0 {
			t.Fatalf("Rename does not replace an existing file: %v", err)
		} else if err != nil {
			t.Fatalf("Rename fails: %v", err)
		}
		wantFile(t, fsys, "to/y", want, "Rename onto an existing file reported success")
		if _, err := fsys.Stat("from/x"); !fserr.IsNotExist(err) {
			t.Fatalf("Rename reported success, but the file is under its old name as well (Stat: %v)", err)
		}
	}
}

func probeRenameAtomic(t *testing.T, fsys afero.Fs) {
	versions := [][]byte{text('a', 200_000), text('b', 70_000), text('c', 10)}
	mkdir(t, fsys, "to")
	writeFile(t, fsys, "to/y", versions[0])
	done := make(chan struct{})
	var readers sync.WaitGroup
	var gate sync.RWMutex // keeps readers out while a file that is in use is replaced
	var inUse atomic.Bool
	read := func() ([]byte, error) {
		gate.RLock()
		defer gate.RUnlock()
		return readFile(fsys, "to/y")
	}
	for range 3 {
		readers.Go(func() {
			for {
				b, err := read()
				switch {
				case fserr.IsInUse(err): // a Store tries again
					inUse.Store(true)
				case err != nil:
					t.Errorf("Rename is not atomic: while a file is replaced a reader finds none: %v", err)
					return
				case !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }):
					t.Errorf("Rename is not atomic: while a file is replaced a reader gets %d bytes that are neither the old file nor the new one", len(b))
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	defer readers.Wait()
	defer close(done)
	for i := range 100 {
		name := fmt.Sprint("from", i)
		writeFile(t, fsys, name, versions[i%len(versions)])
		err := fsys.Rename(name, "to/y")
		if fserr.IsInUse(err) {
			inUse.Store(true)
			gate.Lock()
			err = fsys.Rename(name, "to/y")
			gate.Unlock()
		}
		if err != nil {
			t.Fatalf("Rename onto a file that is being read fails: %v", err)
		}
	}
	if inUse.Load() {
		quirk(t, "a file cannot be replaced while it is read, or read while it is replaced: a Store tries again for a limited time")
	}
}

func probeOpenReplaced(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "new", text('b', 100_000))
	probeOpen(t, fsys, "replaced", func() error { return fsys.Rename("new", "file") })
}

func probeOpenRemoved(t *testing.T, fsys afero.Fs) {
	probeOpen(t, fsys, "removed", func() error { return fsys.Remove("file") })
}

// probeOpen changes a file while it is being read.
func probeOpen(t *testing.T, fsys afero.Fs, done string, change func() error) {
	old := text('a', 300_000)
	writeFile(t, fsys, "file", old)
	f, err := fsys.Open("file")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	defer f.Close()
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(f, begin); err != nil {
		t.Fatalf("Read fails: %v", err)
	}
	err = change()
	inUse := fserr.IsInUse(err)
	if err != nil && !inUse {
		t.Fatalf("a file that is open cannot be %s: %v", done, err)
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		t.Fatalf("a file cannot be read on after it was %s: %v", done, err)
	}
	if !bytes.Equal(append(begin, rest...), old) {
		t.Errorf("a file that is open changes when it is %s: got %d other bytes, want the %d that it had when it was opened", done, len(begin)+len(rest), len(old))
	}
	if !inUse {
		return
	}
	quirk(t, "a file that is open cannot be %s: a change waits for readers, for a limited time", done)
	wantFile(t, fsys, "file", old, "a change was refused")
	if err := f.Close(); err != nil {
		t.Fatalf("Close of a file that was read fails: %v", err)
	}
	if err := change(); err != nil {
		t.Errorf("a file cannot be %s after its reader has closed it: %v", done, err)
	}
}

func probeRemoveFile(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	if err := fsys.Remove("dir/file"); err != nil {
		t.Fatalf("Remove of a file fails: %v", err)
	}
	if _, err := fsys.Stat("dir/file"); err == nil {
		t.Error("Remove of a file reports success, but the file is still there")
	} else if !fserr.IsNotExist(err) {
		t.Errorf("Stat of a file that was removed returns %v, which is not fs.ErrNotExist", err)
	}
	if _, err := fsys.Stat("dir"); err != nil {
		quirk(t, "a directory goes away with the last file in it")
	}
	if err := fsys.Remove("dir/file"); err == nil {
		quirk(t, "Remove of a file that is not there reports success")
	} else if !fserr.IsNotExist(err) {
		quirk(t, "Remove of a file that is not there returns %v, which is not fs.ErrNotExist", err)
	}
}

func probeRemoveDir(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	if err := fsys.Remove("dir/file"); err != nil {
		t.Fatalf("Remove of a file fails: %v", err)
	}
	if err := fsys.Remove("dir"); err != nil && !fserr.IsNotExist(err) {
		t.Fatalf("Remove of an empty directory fails: %v", err)
	}
	if _, err := fsys.Stat("dir"); err == nil {
		t.Error("Remove of an empty directory reports success, but the directory is still there")
	} else if !fserr.IsNotExist(err) {
		t.Errorf("Stat of a directory that was removed returns %v, which is not fs.ErrNotExist", err)
	}
}

// A Store reads a directory before it removes it, so this is a quirk only.
func probeRemoveFull(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	if err := fsys.Remove("dir"); err == nil {
		quirk(t, "Remove removes a directory that is not empty: an image that another process puts during a Delete is lost")
	}
}

// A crash can leave a directory without an image. The next Put makes it again, and
// must be able to tell that it exists.
func probeMkdirTwice(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	switch err := fsys.Mkdir("dir", 0o777); {
	case err == nil:
		quirk(t, "Mkdir of a directory that is there reports success")
	case !errors.Is(err, fs.ErrExist):
		quirk(t, "Mkdir of a directory that is there returns %v, which is not fs.ErrExist", err)
	}
}

func probeMissing(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "file", text('a', 10))
	for _, name := range []string{"none", "dir/none", "none/none"} {
		f, err := fsys.Open(name)
		if err == nil {
			f.Close()
			t.Errorf("Open of a file that is not there (%s) reports success", name)
		} else if !fserr.IsNotExist(err) {
			t.Errorf("Open of a file that is not there (%s) returns %v, which is not fs.ErrNotExist", name, err)
		}
		if _, err := fsys.Stat(name); err == nil {
			t.Errorf("Stat of a file that is not there (%s) reports success", name)
		} else if !fserr.IsNotExist(err) {
			t.Errorf("Stat of a file that is not there (%s) returns %v, which is not fs.ErrNotExist", name, err)
		}
	}
	if err := fsys.Rename("none", "dir/none"); err == nil {
		t.Error("errors are hidden: Rename of a file that is not there reports success")
	}
	if _, err := fsys.Stat("file/none"); err == nil {
		t.Error("Stat of a file below another file reports success")
	} else if !fserr.IsNotExist(err) {
		quirk(t, "Stat of a file below another file returns %v, which is neither fs.ErrNotExist nor ENOTDIR", err)
	}
}

// A Store makes missing directories when an operation returns fs.ErrNotExist.
func probeMissingParent(t *testing.T, fsys afero.Fs) {
	f, err := create(fsys, "none/file")
	switch {
	case err == nil:
		f.Close()
		quirk(t, "a missing parent is accepted: a file can be created in a directory that is not there")
	case !fserr.IsNotExist(err):
		t.Errorf("creating a file in a directory that is not there returns %v, which is not fs.ErrNotExist: the first image cannot be put", err)
	}
	writeFile(t, fsys, "file", text('a', 10))
	switch err := fsys.Rename("file", "none2/file"); {
	case err == nil:
		wantFile(t, fsys, "none2/file", text('a', 10), "Rename into a directory that is not there reported success")
		quirk(t, "a missing parent is accepted: a file can be moved into a directory that is not there")
	case !fserr.IsNotExist(err):
		quirk(t, "Rename into a directory that is not there returns %v, which is not fs.ErrNotExist: a Put fails if another process deletes the image at the same moment", err)
	}
	if err := fsys.MkdirAll("new/new", 0o777); err != nil {
		t.Errorf("MkdirAll fails: %v", err)
	}
	if err := fsys.MkdirAll("new/new", 0o777); err != nil {
		t.Errorf("MkdirAll of a directory that is there fails: %v", err)
	}
}

func probeList(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	list := func(n int) []string {
		t.Helper()
		d, err := fsys.Open("dir")
		if err != nil {
			t.Fatalf("a directory cannot be opened: %v", err)
		}
		defer d.Close()
		names, err := d.Readdirnames(n)
		if err != nil && err != io.EOF {
			t.Fatalf("Readdirnames(%d) fails: %v", n, err)
		}
		return names
	}
	if names := list(1); len(names) > 0 {
		t.Errorf("Readdirnames(1) of an empty directory: got %q, want no names", names)
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("file%02d", i))
		writeFile(t, fsys, "dir/"+want[i], text('a', i))
	}
	mkdir(t, fsys, "dir/sub")
	want = append(want, "sub")
	writeFile(t, fsys, "dir/sub/below", nil)
	if names := list(1); len(names) == 0 {
		t.Error("Readdirnames(1) of a directory that is not empty returns no name: Delete would take it for empty")
	}
	got := list(-1)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("Readdirnames(-1): got %q, want %q", got, want)
	}
	d, err := fsys.Open(".")
	if err != nil {
		t.Fatalf("the root cannot be opened as %q: %v", ".", err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil || !slices.Equal(names, []string{"dir"}) {
		t.Errorf("names in the root: got %q, %v, want dir", names, err)
	}
}

// A Store lists in batches only if the directory is an *os.File.
func probeListBatches(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("file%02d", i))
		writeFile(t, fsys, "dir/"+want[i], nil)
	}
	d, err := fsys.Open("dir")
	if err != nil {
		t.Fatalf("a directory cannot be opened: %v", err)
	}
	defer func() {
		if p := recover(); p != nil {
			// Not closed, because MemMapFs leaves it locked.
			quirk(t, "Readdirnames in batches panics when names are removed meanwhile: %v", p)
			return
		}
		d.Close()
	}()
	var got []string
	for {
		names, err := d.Readdirnames(3)
		got = append(got, names...)
		if len(got) > len(want) {
			quirk(t, "Readdirnames in batches returns names more than once")
			return
		}
		if err != nil || len(names) == 0 {
			break
		}
		for _, name := range names {
			_ = fsys.Remove("dir/" + name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		quirk(t, "Readdirnames in batches skips names when others are removed meanwhile: %d of %d were seen", len(got), len(want))
	}
}

func probeSeek(t *testing.T, fsys afero.Fs) {
	want := append(text('a', 100_000), text('b', 100_000)...)
	writeFile(t, fsys, "file", want)
	f, err := fsys.Open("file")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	defer f.Close()
	other, err := fsys.Open("file")
	if err != nil {
		t.Fatalf("a file cannot be opened twice: %v", err)
	}
	wantSeek(t, f, want)
	if b, err := readAllAndClose(other); err != nil || !bytes.Equal(b, want) {
		t.Errorf("two open files share one position: the second reads %d of %d bytes, %v", len(b), len(want), err)
	}
}

// setTime sets a file's modification time as a Store does, and returns the time that
// the filesystem keeps.
func setTime(t *testing.T, fsys afero.Fs, name string, at time.Time) time.Time {
	t.Helper()
	if err := fsys.Chtimes(name, at, at); err != nil && !fserr.IsUnsupported(err) {
		t.Fatalf("Chtimes fails, although it is supported: %v", err)
	}
	return stat(t, fsys, name).ModTime()
}

func probeTimesOrder(t *testing.T, fsys afero.Fs) {
	var last time.Time
	for i := range 5 {
		name := fmt.Sprint("file", i)
		writeFile(t, fsys, name, text('a', 10))
		at := time.Now()
		if !at.After(last) {
			at = last.Add(1)
		}
		got := setTime(t, fsys, name, at)
		if !got.After(last) { // as a Store does for coarse times
			got = setTime(t, fsys, name, at.Add(2*time.Second))
		}
		if !got.After(last) {
			t.Fatalf("Chtimes is not kept and modification times are coarse: two versions in a row get the same time, %v", got.UTC())
		}
		last = got
	}
}

func probeTimesStay(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	f, err := create(fsys, "new")
	if err != nil {
		t.Fatalf("a file cannot be created: %v", err)
	}
	if _, err := f.Write(text('a', 10)); err != nil {
		t.Fatal(err)
	}
	want := setTime(t, fsys, "new", time.Now().Add(-time.Hour))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := stat(t, fsys, "new").ModTime(); !got.Equal(want) {
		quirk(t, "closing a file changes its modification time")
		if got = setTime(t, fsys, "new", want); !got.Equal(want) {
			t.Fatalf("closing a file changes its modification time and Chtimes does not set it back (got %v, want %v): Put and Get return different ETags", got.UTC(), want.UTC())
		}
	}
	if err := fsys.Rename("new", "dir/file"); err != nil {
		t.Fatalf("Rename fails: %v", err)
	}
	if got := stat(t, fsys, "dir/file").ModTime(); !got.Equal(want) {
		t.Errorf("Rename changes the modification time (got %v, want %v): Put and Get return different ETags", got.UTC(), want.UTC())
	}
	r, err := fsys.Open("dir/file")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	fi, err := r.Stat()
	if err != nil {
		t.Fatalf("Stat of an open file fails: %v", err)
	}
	if named := stat(t, fsys, "dir/file"); !fi.ModTime().Equal(named.ModTime()) || fi.Size() != named.Size() {
		t.Errorf("Stat of an open file: got %d bytes of %v, want %d bytes of %v as from Stat of its name", fi.Size(), fi.ModTime().UTC(), named.Size(), named.ModTime().UTC())
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("Close of a file that was read fails: %v", err)
	}
	if got := stat(t, fsys, "dir/file").ModTime(); !got.Equal(want) {
		t.Errorf("reading a file changes its modification time, and with it the ETag: got %v, want %v", got.UTC(), want.UTC())
	}
}

// A Store copes with coarse times when it replaces images. The subtests of "store"
// show whether that is enough.
func probeTimesExact(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "file", text('a', 10))
	want := time.Date(2001, 2, 3, 4, 5, 7, 123456789, time.UTC)
	if err := fsys.Chtimes("file", want, want); fserr.IsUnsupported(err) {
		quirk(t, "Chtimes is not supported: %v", err)
		return
	} else if err != nil {
		t.Fatalf("Chtimes fails, although it is supported: %v", err)
	}
	got := stat(t, fsys, "file").ModTime()
	if got.Equal(want) {
		return
	}
	for _, step := range []time.Duration{100, time.Microsecond, time.Millisecond, 10 * time.Millisecond, time.Second, 2 * time.Second} {
		if got.Equal(want.Truncate(step)) || got.Equal(want.Truncate(step).Add(step)) {
			quirk(t, "modification times are coarse: they are kept in steps of %v", step)
			return
		}
	}
	quirk(t, "Chtimes is not kept: %v became %v", want, got.UTC())
}

// A Store gives staged files random names, so it does not need O_EXCL.
func probeExclusive(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "file", text('a', 10))
	if f, err := create(fsys, "file"); err == nil {
		f.Close()
		quirk(t, "O_EXCL is not exclusive: it opens a file that is there")
		return
	}
	for i := range 20 {
		var winners atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if f, err := create(fsys, fmt.Sprint("race", i)); err == nil {
					winners.Add(1)
					f.Close()
				}
			})
		}
		wg.Wait()
		switch n := winners.Load(); {
		case n == 0:
			t.Fatal("of concurrent creates of one file with O_EXCL: got no success, want one")
		case n > 1:
			quirk(t, "O_EXCL is not exclusive: of concurrent creates of one file, more than one succeeds")
			return
		}
	}
}

func probeNames(t *testing.T, fsys afero.Fs) {
	for _, name := range []string{"TestPost", "_", "a~b.c-d_e", "0", "x.png", strings.Repeat("a", 128)} {
		mkdir(t, fsys, name)
		want := text(name[0], len(name))
		writeFile(t, fsys, name+"/image", want)
		wantFile(t, fsys, name+"/image", want, fmt.Sprintf("a file was written in the directory %.20q", name))
	}
	if _, err := fsys.Stat("TESTPOST"); err == nil {
		quirk(t, "names ignore case: ids that differ only in case are one image")
	}
}

// A Store keeps no FileInfo, so this is a quirk only.
func probeSnapshot(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "file", text('a', 10))
	fi := stat(t, fsys, "file")
	before := fi.ModTime()
	at := before.Add(-time.Hour)
	if err := fsys.Chtimes("file", at, at); err == nil && !fi.ModTime().Equal(before) {
		quirk(t, "a FileInfo changes together with its file")
	}
}

// A Store uses Lstat before it opens an image, so that a symbolic link in the store
// cannot lead out of it.
func probeLstat(t *testing.T, fsys afero.Fs) {
	linker, ok := fsys.(afero.Linker)
	if !ok {
		quirk(t, "there are no symbolic links")
		return
	}
	writeFile(t, fsys, "file", text('a', 10))
	if err := linker.SymlinkIfPossible("file", "link"); err != nil {
		quirk(t, "there are no symbolic links: %v", err)
		return
	}
	if d, err := fsys.Open("."); err == nil {
		names, err := d.Readdirnames(-1)
		d.Close()
		if err == nil && !slices.Contains(names, "link") {
			quirk(t, "there are no symbolic links: creating one reports success and does nothing")
			return
		}
	}
	lstater, ok := fsys.(afero.Lstater)
	if !ok {
		quirk(t, "there are symbolic links, but no LstatIfPossible: a link in the store is followed")
		return
	}
	fi, called, err := lstater.LstatIfPossible("link")
	switch {
	case err != nil:
		t.Errorf("LstatIfPossible of a symbolic link fails: %v", err)
	case !called:
		quirk(t, "LstatIfPossible follows symbolic links, and says so: a link in the store is followed")
	case fi.Mode()&fs.ModeSymlink == 0:
		t.Errorf("LstatIfPossible follows symbolic links: got mode %v of a link, want %v; a link in the store could lead out of it", fi.Mode(), fs.ModeSymlink)
	}
	fi, _, err = lstater.LstatIfPossible("file")
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != 10 {
		t.Errorf("LstatIfPossible of a file: got %v, %v, want a regular file of 10 bytes", fi, err)
	}
	if _, _, err := lstater.LstatIfPossible("none"); !fserr.IsNotExist(err) {
		t.Errorf("LstatIfPossible of a missing file returns %v, which is not fs.ErrNotExist", err)
	}
}
