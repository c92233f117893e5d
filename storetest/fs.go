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
	"github.com/spf13/afero"
)

// TestFs tells whether an imagestore.Store on a filesystem keeps its promises.
// newFs returns a filesystem with an empty root every time.
//
// The subtests of "filesystem" look at what a Store relies on, without a Store.
// They fail only where a promise is broken; a line that begins with "quirk:"
// tells of what is unusual and what the Store copes with. Only quirks come from
// O_EXCL that is not exclusive, Remove of a directory that is not empty, parents
// that need not be there, names listed in batches, times that are kept coarsely
// or change when a file is closed, a FileInfo that changes later, names that do
// not tell upper from lower case, and Sync of a directory that is not supported.
//
// Of an imagestore.ObjectFs they look at what that promises instead.
//
// The subtests of "store" look at the promises themselves, one by one. If one
// fails, look first at what "filesystem" found.
//
// What no test can find out is whether Sync does what it says: whether images
// survive a power cut is for the author of the filesystem to know.
func TestFs(t *testing.T, newFs func(t *testing.T) afero.Fs) {
	t.Run("filesystem", func(t *testing.T) {
		if isObjects(newFs(t)) {
			for _, probe := range objectProbes {
				t.Run(probe.name, func(t *testing.T) {
					objects := newFs(t).(imagestore.ObjectFs)
					guarded(t, func() { probe.run(t, objects) })
				})
			}
			return
		}
		for _, probe := range probes {
			t.Run(probe.name, func(t *testing.T) {
				fsys := newFs(t)
				guarded(t, func() { probe.run(t, fsys) })
			})
		}
	})
	t.Run("store", func(t *testing.T) {
		for _, promise := range promises {
			t.Run(promise.name, func(t *testing.T) {
				fsys := newFs(t)
				defer func() {
					if t.Failed() {
						t.Log("the usual cause: " + promise.cause)
					}
				}()
				guarded(t, func() { promise.run(t, fsys) })
			})
		}
	})
}

// probes are what a Store relies on.
var probes = []struct {
	name string
	run  func(*testing.T, afero.Fs)
}{
	{"a file keeps what was written", probeContent},
	{"Sync of a file", probeSyncFile},
	{"Sync of a directory", probeSyncDir},
	{"Rename moves", probeRenameMoves},
	{"Rename replaces", probeRenameReplaces},
	{"Rename is atomic", probeRenameAtomic},
	{"an open file survives being replaced", probeOpenReplaced},
	{"an open file survives being removed", probeOpenRemoved},
	{"Remove removes a file", probeRemoveFile},
	{"Remove removes an empty directory", probeRemoveDir},
	{"Remove of a directory that is not empty", probeRemoveFull},
	{"Mkdir of a directory that is there", probeMkdirTwice},
	{"what is missing is reported", probeMissing},
	{"a missing parent", probeMissingParent},
	{"names are listed", probeList},
	{"names are listed in batches", probeListBatches},
	{"Seek", probeSeek},
	{"modification times order versions", probeTimesOrder},
	{"modification times stay", probeTimesStay},
	{"modification times are exact", probeTimesExact},
	{"O_EXCL", probeExclusive},
	{"ids are names", probeNames},
	{"a FileInfo is a snapshot", probeSnapshot},
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
		t.Fatalf("Write of %d bytes returns %d, %v", len(b), n, err)
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

// wantFile checks what is in a file after something was done.
func wantFile(t *testing.T, fsys afero.Fs, name string, want []byte, done string) {
	t.Helper()
	b, err := readFile(fsys, name)
	switch {
	case err != nil:
		t.Fatalf("%s, but the file cannot be read: %v", done, err)
	case !bytes.Equal(b, want):
		t.Fatalf("%s, but the file has %d bytes that are not the %d expected", done, len(b), len(want))
	}
}

// text returns n bytes that are others for every c.
func text(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

func probeContent(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	f, err := create(fsys, "dir/file")
	if err != nil {
		t.Fatalf("a file cannot be created: %v", err)
	}
	want := append(text('a', 100_000), text('b', 50_001)...)
	for _, b := range [][]byte{want[:65_536], want[65_536:]} {
		if n, err := f.Write(b); err != nil || n != len(b) {
			t.Fatalf("Write of %d bytes returns %d, %v", len(b), n, err)
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
		t.Errorf("Stat says that a file is not a regular one, but %v", fi.Mode())
	}
	if fi := stat(t, fsys, "dir"); !fi.IsDir() || fi.Mode().IsRegular() {
		t.Errorf("Stat says that a directory is not one, but %v", fi.Mode())
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
		case isUnsupported(err):
			quirk(t, "Sync of a directory is not supported (%v): that an image is there after a power cut rests on the filesystem alone", err)
		default:
			t.Errorf("Sync of the directory %s fails, and not because it is not supported: %v", name, err)
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
	if _, err := fsys.Stat("from/x"); !isMissing(err) {
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
		if _, err := fsys.Stat("from/x"); !isMissing(err) {
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
	for range 3 {
		readers.Go(func() {
			for {
				b, err := readFile(fsys, "to/y")
				if err != nil {
					t.Errorf("Rename is not atomic: while a file is replaced a reader finds none: %v", err)
					return
				}
				if !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
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
		if err := fsys.Rename(name, "to/y"); err != nil {
			t.Fatalf("Rename onto a file that is being read fails: %v", err)
		}
	}
}

func probeOpenReplaced(t *testing.T, fsys afero.Fs) {
	probeOpen(t, fsys, "replaced", func() error {
		writeFile(t, fsys, "new", text('b', 100_000))
		return fsys.Rename("new", "file")
	})
}

func probeOpenRemoved(t *testing.T, fsys afero.Fs) {
	probeOpen(t, fsys, "removed", func() error { return fsys.Remove("file") })
}

// probeOpen changes a file while somebody reads it.
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
	if err := change(); err != nil {
		t.Fatalf("a file that is open cannot be %s: %v", done, err)
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		t.Fatalf("a file cannot be read on after it was %s: %v", done, err)
	}
	if !bytes.Equal(append(begin, rest...), old) {
		t.Errorf("a file that is open changes when it is %s: a reader gets %d bytes, not the %d that were there when it was opened", done, len(begin)+len(rest), len(old))
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
	} else if !isMissing(err) {
		t.Errorf("Stat of a file that was removed returns %v, which is not fs.ErrNotExist", err)
	}
	if _, err := fsys.Stat("dir"); err != nil {
		quirk(t, "a directory goes away with the last file in it")
	}
	if err := fsys.Remove("dir/file"); err == nil {
		quirk(t, "Remove of a file that is not there reports success")
	} else if !isMissing(err) {
		quirk(t, "Remove of a file that is not there returns %v, which is not fs.ErrNotExist", err)
	}
}

func probeRemoveDir(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	if err := fsys.Remove("dir/file"); err != nil {
		t.Fatalf("Remove of a file fails: %v", err)
	}
	if err := fsys.Remove("dir"); err != nil && !isMissing(err) {
		t.Fatalf("Remove of an empty directory fails: %v", err)
	}
	if _, err := fsys.Stat("dir"); err == nil {
		t.Error("Remove of an empty directory reports success, but the directory is still there")
	} else if !isMissing(err) {
		t.Errorf("Stat of a directory that was removed returns %v, which is not fs.ErrNotExist", err)
	}
}

// A Store looks whether a directory is empty before it removes it.
func probeRemoveFull(t *testing.T, fsys afero.Fs) {
	mkdir(t, fsys, "dir")
	writeFile(t, fsys, "dir/file", text('a', 10))
	if err := fsys.Remove("dir"); err == nil {
		quirk(t, "Remove removes a directory that is not empty: if another process puts an image at the same moment as it is deleted, it is lost")
	}
}

// A crash, or somebody else's file, leaves a directory in which there is no
// image. The Store makes it once more and must hear that it is there.
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
		} else if !isMissing(err) {
			t.Errorf("Open of a file that is not there (%s) returns %v, which is not fs.ErrNotExist", name, err)
		}
		if _, err := fsys.Stat(name); err == nil {
			t.Errorf("Stat of a file that is not there (%s) reports success", name)
		} else if !isMissing(err) {
			t.Errorf("Stat of a file that is not there (%s) returns %v, which is not fs.ErrNotExist", name, err)
		}
	}
	if err := fsys.Rename("none", "dir/none"); err == nil {
		t.Error("errors are hidden: Rename of a file that is not there reports success")
	}
	if _, err := fsys.Stat("file/none"); err == nil {
		t.Error("Stat of a file below another file reports success")
	} else if !isMissing(err) {
		quirk(t, "Stat of a file below another file returns %v, which is neither fs.ErrNotExist nor ENOTDIR", err)
	}
}

// A Store makes the directories that it needs when it is told that they are
// missing.
func probeMissingParent(t *testing.T, fsys afero.Fs) {
	f, err := create(fsys, "none/file")
	switch {
	case err == nil:
		f.Close()
		quirk(t, "a missing parent is accepted: a file can be created in a directory that is not there")
	case !isMissing(err):
		t.Errorf("creating a file in a directory that is not there returns %v, which is not fs.ErrNotExist: the first image cannot be put", err)
	}
	writeFile(t, fsys, "file", text('a', 10))
	switch err := fsys.Rename("file", "none2/file"); {
	case err == nil:
		wantFile(t, fsys, "none2/file", text('a', 10), "Rename into a directory that is not there reported success")
		quirk(t, "a missing parent is accepted: a file can be moved into a directory that is not there")
	case !isMissing(err):
		quirk(t, "Rename into a directory that is not there returns %v, which is not fs.ErrNotExist: when another process deletes an image at the same moment as it is put, Put fails", err)
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
		t.Errorf("Readdirnames(1) of an empty directory returns %q", names)
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
		t.Errorf("Readdirnames(-1) returns %q, not the names that are there, %q", got, want)
	}
	d, err := fsys.Open(".")
	if err != nil {
		t.Fatalf("the root cannot be opened as %q: %v", ".", err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil || !slices.Equal(names, []string{"dir"}) {
		t.Errorf("the names in the root are %q, %v; they should be just dir", names, err)
	}
}

// A Store lists in batches only where the directory is an *os.File.
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
			// Not closed: MemMapFs has left it locked.
			quirk(t, "Readdirnames in batches panics when names have gone meanwhile: %v", p)
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
		quirk(t, "Readdirnames in batches skips names when others have gone meanwhile: %d of %d were seen", len(got), len(want))
	}
}

func probeSeek(t *testing.T, fsys afero.Fs) {
	want := append(text('a', 100_000), text('b', 100_000)...)
	writeFile(t, fsys, "file", want)
	seek(t, fsys, want)
}

// seek reads a file from all sorts of places.
func seek(t *testing.T, fsys afero.Fs, want []byte) {
	t.Helper()
	f, err := fsys.Open("file")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	defer f.Close()
	other, err := fsys.Open("file")
	if err != nil {
		t.Fatalf("a file cannot be opened twice: %v", err)
	}
	defer other.Close()
	for _, at := range []struct {
		offset int64
		whence int
		pos    int
	}{
		{0, io.SeekEnd, len(want)},
		{0, io.SeekStart, 0},
		{99_000, io.SeekStart, 99_000},
		{-7, io.SeekEnd, len(want) - 7},
		{-1000, io.SeekCurrent, len(want) - 1000}, // reading has come to the end
	} {
		if pos, err := f.Seek(at.offset, at.whence); err != nil || pos != int64(at.pos) {
			t.Fatalf("Seek(%d, %d) returns %d, %v, not %d", at.offset, at.whence, pos, err, at.pos)
		}
		if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, want[at.pos:]) {
			t.Fatalf("after Seek(%d, %d) %d bytes can be read, %v, not the %d that are there", at.offset, at.whence, len(b), err, len(want)-at.pos)
		}
	}
	if b, err := io.ReadAll(other); err != nil || !bytes.Equal(b, want) {
		t.Errorf("two open files share one position: the second reads %d of %d bytes, %v", len(b), len(want), err)
	}
}

// stamp sets a file's modification time as a Store does and returns what the
// filesystem made of it.
func stamp(t *testing.T, fsys afero.Fs, name string, at time.Time) time.Time {
	t.Helper()
	if err := fsys.Chtimes(name, at, at); err != nil && !isUnsupported(err) {
		t.Fatalf("Chtimes fails, and not because it is not supported: %v", err)
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
		got := stamp(t, fsys, name, at)
		if !got.After(last) { // the Store tries the coarsest step that it knows
			got = stamp(t, fsys, name, at.Add(2*time.Second))
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
	want := stamp(t, fsys, "new", time.Now().Add(-time.Hour))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := stat(t, fsys, "new").ModTime(); !got.Equal(want) {
		quirk(t, "closing a file changes its modification time")
		if got = stamp(t, fsys, "new", want); !got.Equal(want) {
			t.Fatalf("closing a file changes its modification time and Chtimes does not set it back (%v, not %v): the ETag that Put returns is not the one that Get returns", got.UTC(), want.UTC())
		}
	}
	if err := fsys.Rename("new", "dir/file"); err != nil {
		t.Fatalf("Rename fails: %v", err)
	}
	if got := stat(t, fsys, "dir/file").ModTime(); !got.Equal(want) {
		t.Errorf("Rename changes the modification time (%v, not %v): the ETag that Put returns is not the one that Get returns", got.UTC(), want.UTC())
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
		t.Errorf("Stat of an open file says %d bytes of %v, Stat of its name %d bytes of %v", fi.Size(), fi.ModTime().UTC(), named.Size(), named.ModTime().UTC())
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("Close of a file that was read fails: %v", err)
	}
	if got := stat(t, fsys, "dir/file").ModTime(); !got.Equal(want) {
		t.Errorf("reading a file changes its modification time (%v, not %v), and with it the ETag", got.UTC(), want.UTC())
	}
}

// A Store copes with coarse times while it replaces images; whether that is
// enough, its own promises show.
func probeTimesExact(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "file", text('a', 10))
	want := time.Date(2001, 2, 3, 4, 5, 7, 123456789, time.UTC)
	if err := fsys.Chtimes("file", want, want); isUnsupported(err) {
		quirk(t, "Chtimes is not supported: %v", err)
		return
	} else if err != nil {
		t.Fatalf("Chtimes fails, and not because it is not supported: %v", err)
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

// A Store gives staged files names that nobody else can have.
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
			t.Fatal("when several create one file with O_EXCL, none succeeds")
		case n > 1:
			quirk(t, "O_EXCL is not exclusive: when several create one file at once, more than one succeeds")
			return
		}
	}
}

func probeNames(t *testing.T, fsys afero.Fs) {
	for _, name := range []string{"TestPost", "_", "a~b.c-d_e", "0", "x.png", strings.Repeat("a", 128)} {
		mkdir(t, fsys, name)
		want := text(name[0], len(name))
		writeFile(t, fsys, name+"/image.png", want)
		wantFile(t, fsys, name+"/image.png", want, fmt.Sprintf("a file was written in a directory called %.20q", name))
	}
	if _, err := fsys.Stat("TESTPOST"); err == nil {
		quirk(t, "upper and lower case are not told apart: ids that differ only in case are one image")
	}
}

// A Store keeps no FileInfo.
func probeSnapshot(t *testing.T, fsys afero.Fs) {
	writeFile(t, fsys, "file", text('a', 10))
	fi := stat(t, fsys, "file")
	before := fi.ModTime()
	at := before.Add(-time.Hour)
	if err := fsys.Chtimes("file", at, at); err == nil && !fi.ModTime().Equal(before) {
		quirk(t, "a FileInfo changes together with its file")
	}
}
