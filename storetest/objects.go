package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

func isObjects(fsys afero.Fs) bool {
	_, ok := fsys.(imagestore.ObjectFs)
	return ok
}

// objectProbes are what a Store relies on if its filesystem is an ObjectFs.
var objectProbes = []struct {
	name string
	run  func(*testing.T, imagestore.ObjectFs)
}{
	{"an object keeps what was put", probeObjectContent},
	{"PutObject replaces at once", probeObjectReplaced},
	{"PutObject heeds conditions", probeObjectConditions},
	{"of conditional writers one wins", probeObjectWinner},
	{"an open object stays whole", probeObjectOpen},
	{"Remove removes an object", probeObjectRemoved},
	{"what is missing is reported", probeObjectMissing},
	{"objects are listed in order", probeObjectList},
	{"Seek", probeObjectSeek},
}

func putObject(t *testing.T, fsys imagestore.ObjectFs, name string, b []byte, cond imagestore.Precondition) os.FileInfo {
	t.Helper()
	fi, err := fsys.PutObject(t.Context(), name, bytes.NewReader(b), cond)
	if err != nil {
		t.Fatalf("PutObject fails: %v", err)
	}
	return fi
}

// etag returns what a Store gives as the ETag of an image.
func etag(t *testing.T, fi os.FileInfo) string {
	t.Helper()
	tagged, ok := fi.(interface{ ETag() string })
	if !ok {
		t.Fatalf("the os.FileInfo of %s has no method ETag() string", fi.Name())
	}
	tag := tagged.ETag()
	if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
		t.Fatalf("%s is no strong ETag with its quotes", tag)
	}
	return tag
}

func probeObjectContent(t *testing.T, fsys imagestore.ObjectFs) {
	for _, size := range []int{1, 70_000, 6 << 20} { // the last is more than what some SDKs send in one piece
		want := text(byte('a'+size%7), size)
		fi := putObject(t, fsys, "dir/file", want, imagestore.Precondition{})
		wantFile(t, fsys, "dir/file", want, "PutObject reported success")
		f, err := fsys.Open("dir/file")
		if err != nil {
			t.Fatalf("Open fails: %v", err)
		}
		opened, err := f.Stat()
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatalf("Stat or Close of an open file fails: %v", err)
		}
		for what, got := range map[string]os.FileInfo{"Stat": stat(t, fsys, "dir/file"), "Stat of an open file": opened} {
			if got.Size() != int64(size) || etag(t, got) != etag(t, fi) || !got.Mode().IsRegular() {
				t.Errorf("%s says %d bytes, ETag %s, %v; PutObject said %d, %s", what, got.Size(), etag(t, got), got.Mode(), size, etag(t, fi))
			}
			if !got.ModTime().Truncate(time.Second).Equal(fi.ModTime().Truncate(time.Second)) {
				t.Errorf("%s gives the time %v, PutObject gave %v", what, got.ModTime().UTC(), fi.ModTime().UTC())
			}
		}
	}
}

func probeObjectReplaced(t *testing.T, fsys imagestore.ObjectFs) {
	versions := [][]byte{text('a', 200_000), text('b', 70_000), text('c', 10)}
	putObject(t, fsys, "file", versions[0], imagestore.Precondition{})
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { // one only: some let no writer in as long as there are readers
		for {
			b, err := readFile(fsys, "file")
			if err != nil || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
				t.Errorf("while an object is replaced, a reader gets %d bytes that nobody has put, %v", len(b), err)
				return
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	defer reader.Wait()
	defer close(done)
	var last string
	for i := range 16 {
		fi := putObject(t, fsys, "file", versions[i%len(versions)], imagestore.Precondition{})
		if etag(t, fi) == last {
			t.Fatalf("two versions with other bytes have the same ETag, %s", last)
		}
		last = etag(t, fi)
	}
}

func probeObjectConditions(t *testing.T, fsys imagestore.ObjectFs) {
	refused := func(cond imagestore.Precondition, when string) {
		t.Helper()
		_, err := fsys.PutObject(t.Context(), "file", bytes.NewReader(text('x', 10)), cond)
		header, value := cond.Header()
		if !errors.Is(err, imagestore.ErrPrecondition) {
			t.Errorf("PutObject with %s: %s returns %v %s: several processes would overwrite each other's images", header, value, err, when)
		}
	}
	refused(imagestore.IfMatch(`"0"`), "where nothing is")
	first := putObject(t, fsys, "file", text('a', 10), imagestore.IfAbsent())
	refused(imagestore.IfAbsent(), "where something is")
	second := putObject(t, fsys, "file", text('b', 10), imagestore.IfMatch(etag(t, first)))
	refused(imagestore.IfMatch(etag(t, first)), "after the object was replaced")
	wantFile(t, fsys, "file", text('b', 10), "PutObject was refused")
	if err := fsys.Remove("file"); err != nil {
		t.Fatal(err)
	}
	refused(imagestore.IfMatch(etag(t, second)), "after the object was removed")
}

func probeObjectWinner(t *testing.T, fsys imagestore.ObjectFs) {
	cond := imagestore.IfAbsent()
	for round := range 5 {
		const writers = 8
		var infos [writers]os.FileInfo
		var errs [writers]error
		var wg sync.WaitGroup
		for i := range writers {
			b := fmt.Appendf(nil, "round %d, writer %d", round, i)
			wg.Go(func() { infos[i], errs[i] = fsys.PutObject(t.Context(), "file", bytes.NewReader(b), cond) })
		}
		wg.Wait()
		winners := 0
		for i, err := range errs {
			switch {
			case err == nil:
				winners++
				cond = imagestore.IfMatch(etag(t, infos[i]))
			case !errors.Is(err, imagestore.ErrPrecondition):
				t.Errorf("PutObject of one who comes too late returns %v", err)
			}
		}
		if winners != 1 {
			t.Fatalf("of %d writers under one condition %d have won", writers, winners)
		}
	}
}

func probeObjectOpen(t *testing.T, fsys imagestore.ObjectFs) {
	for done, change := range map[string]func(name string) error{
		"replaced": func(name string) error {
			putObject(t, fsys, name, text('b', 100), imagestore.Precondition{})
			return nil
		},
		"removed": fsys.Remove,
	} {
		want := text('a', 300_000)
		putObject(t, fsys, done, want, imagestore.Precondition{})
		f, err := fsys.Open(done)
		if err != nil {
			t.Fatalf("Open fails: %v", err)
		}
		defer f.Close()
		begin := make([]byte, 1000)
		if _, err := io.ReadFull(f, begin); err != nil {
			t.Fatalf("Read fails: %v", err)
		}
		if err := change(done); err != nil {
			t.Fatalf("an object that is open cannot be %s: %v", done, err)
		}
		if rest, err := io.ReadAll(f); err != nil || !bytes.Equal(append(begin, rest...), want) {
			t.Errorf("an object that is open and is read on after it was %s gives %d bytes, %v, not the %d that it had", done, len(begin)+len(rest), err, len(want))
		}
		// From elsewhere it may not be to be had any more, but never another one.
		if _, err := f.Seek(150_000, io.SeekStart); err == nil {
			if b, err := io.ReadAll(f); err == nil && !bytes.Equal(b, want[150_000:]) {
				t.Errorf("an object that was %s while it was open gives the bytes of another version after Seek", done)
			} else if err != nil {
				quirk(t, "an object that was %s while it was open cannot be read after Seek: %v", done, err)
			}
		}
	}
}

func probeObjectRemoved(t *testing.T, fsys imagestore.ObjectFs) {
	putObject(t, fsys, "dir/file", text('a', 10), imagestore.Precondition{})
	if err := fsys.Remove("dir/file"); err != nil {
		t.Fatalf("Remove fails: %v", err)
	}
	for _, name := range []string{"dir/file", "dir"} {
		if _, err := fsys.Stat(name); !isMissing(err) {
			t.Errorf("Stat of %s after the object was removed returns %v, which is not fs.ErrNotExist", name, err)
		}
	}
	if err := fsys.Remove("dir/file"); err != nil && !isMissing(err) {
		t.Errorf("Remove of what is not there returns %v, which is neither nil nor fs.ErrNotExist", err)
	}
}

func probeObjectMissing(t *testing.T, fsys imagestore.ObjectFs) {
	putObject(t, fsys, "dir/file", text('a', 10), imagestore.Precondition{})
	for _, name := range []string{"none", "dir", "di", "dir/fil", "dir/none"} {
		f, err := fsys.Open(name)
		if err == nil {
			f.Close()
		}
		if !isMissing(err) {
			t.Errorf("Open of %s, which is not there, returns %v, which is not fs.ErrNotExist", name, err)
		}
		if _, err := fsys.Stat(name); !isMissing(err) {
			t.Errorf("Stat of %s, which is not there, returns %v, which is not fs.ErrNotExist", name, err)
		}
	}
}

func probeObjectList(t *testing.T, fsys imagestore.ObjectFs) {
	list := func(after string) (names []string) {
		t.Helper()
		for fi, err := range fsys.ListObjects(t.Context(), after) {
			if err != nil {
				t.Fatalf("ListObjects fails: %v", err)
			}
			names = append(names, fi.Name())
		}
		return names
	}
	if names := list(""); len(names) > 0 {
		t.Errorf("where nothing is, %q are listed", names)
	}
	want := []string{"0/x", "A/x", "_/x", "a+b/x", "a-b/x", "a.b/x", "a/b/x", "a/x", "a0/x", "a~/x", "z/x"}
	for _, name := range want {
		putObject(t, fsys, name, text('a', len(name)), imagestore.Precondition{})
	}
	for i, after := range append([]string{""}, want...) {
		if got := list(after); !slices.Equal(got, want[i:]) {
			t.Errorf("after %q, %q are listed, not %q", after, got, want[i:])
		}
	}
	if got := list("a-"); !slices.Equal(got, want[4:]) {
		t.Errorf("after %q, %q are listed, not %q", "a-", got, want[4:])
	}
	for fi, err := range fsys.ListObjects(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if named := stat(t, fsys, fi.Name()); fi.Size() != named.Size() || etag(t, fi) != etag(t, named) {
			t.Errorf("%s is listed with %d bytes and the ETag %s; Stat says %d and %s", fi.Name(), fi.Size(), etag(t, fi), named.Size(), etag(t, named))
		}
	}
}

func probeObjectSeek(t *testing.T, fsys imagestore.ObjectFs) {
	want := append(text('a', 100_000), text('b', 100_000)...)
	putObject(t, fsys, "file", want, imagestore.Precondition{})
	seek(t, fsys, want)
}
