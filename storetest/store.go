package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/spf13/afero"
)

// promises are what a Store says of itself, and what is mostly at fault when
// one is broken.
var promises = []struct {
	name  string
	cause string
	run   func(*testing.T, afero.Fs)
}{
	{"what is put can be got", "the filesystem loses bytes, or changes modification times by itself", testPutGet},
	{"a large image", "the filesystem loses bytes, or limits the size of a file", testLarge},
	{"put replaces", "Rename does not replace an existing file, or modification times stand still", testReplace},
	{"delete removes the image and its directory", "Remove does not remove, or reports an error where there is none", testDelete},
	{"delete leaves the files of others alone", "Readdirnames does not show what is there, and Remove removes a directory that is not empty", testDeleteForeign},
	{"an image can be put where a directory was left behind", "neither Mkdir nor Stat tells that a directory is there", testLeftBehind},
	{"an open image stays whole when it is replaced", "Rename writes into the file that was there", testOpenReplaced},
	{"an open image stays whole when it is deleted", "a file that was removed cannot be read on", testOpenDeleted},
	{"an open image can be read from anywhere", "Seek does not do what io.Seeker says", testSeek},
	{"what is not there is not found", "the error for what is missing is not fs.ErrNotExist", testNotFound},
	{"of writers with IfAbsent one wins", "Stat does not show at once what Rename has done", testIfAbsent},
	{"of writers with IfMatch one wins", "Stat does not show at once what Rename has done, or modification times are coarse", testIfMatch},
	{"ETags do not repeat when an image is replaced", "modification times are coarse or not kept", testReplacedETags},
	{"ETags do not repeat when an image is deleted and put again", "modification times are coarse or not kept", testDeletedETags},
	{"a failed upload leaves the old image and nothing else", "Remove does not remove, or a file that is open cannot be removed", testFailedUpload},
	{"a canceled upload leaves the old image and nothing else", "Remove does not remove, or a file that is open cannot be removed", testCanceledUpload},
	{"readers see whole versions while an image changes", "Rename is not atomic", testReadersDuringWrites},
	{"All lists every image once", "Readdirnames skips or repeats names", testAll},
	{"a second Store sees what the first has put", "the filesystem shows something else to those who come later", testSecondStore},
}

func put(t *testing.T, s *imagestore.Store, id string, b []byte, conds ...imagestore.Precondition) imagestore.Info {
	t.Helper()
	info, err := s.Put(t.Context(), id, bytes.NewReader(b), conds...)
	if err != nil {
		t.Fatalf("Put fails: %v", err)
	}
	return info
}

// wantImage checks what is stored, by every way of asking, if b is not nil its
// bytes too.
func wantImage(t *testing.T, s *imagestore.Store, want imagestore.Info, b []byte) {
	t.Helper()
	img, err := s.Get(t.Context(), want.ID)
	if err != nil {
		t.Fatalf("Get fails: %v", err)
	}
	defer img.Close()
	got, err := io.ReadAll(img)
	if err != nil || b != nil && !bytes.Equal(got, b) {
		t.Fatalf("Get gives %d bytes, %v, which are not the %d that were put", len(got), err, len(b))
	}
	if img.Info != want {
		t.Errorf("Get says %+v, Put said %+v", img.Info, want)
	}
	if info, err := s.Stat(t.Context(), want.ID); err != nil || info != want {
		t.Errorf("Stat says %+v, %v, Put said %+v", info, err, want)
	}
}

func wantError(t *testing.T, err, kind error, what string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s returns the error %v, not %q", what, err, kind)
	}
}

// wantNoStaged checks that no upload has left anything.
func wantNoStaged(t *testing.T, fsys afero.Fs) {
	t.Helper()
	d, err := fsys.Open(".staging")
	if isMissing(err) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil && err != io.EOF || len(names) > 0 {
		t.Errorf("uploads have left %q behind, %v", names, err)
	}
}

func testPutGet(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	for i, side := range []int{1, 255, 256, 300} { // around 64 KiB and above
		b := picture(t, side, 1)
		info := put(t, s, fmt.Sprint("id", i), b)
		if info.Size != int64(len(b)) {
			t.Errorf("Put of %d bytes says %+v", len(b), info)
		}
		wantImage(t, s, info, b)
	}
	wantNoStaged(t, fsys)
}

func testLarge(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	b := picture(t, 1024, 1) // 1 MiB
	wantImage(t, s, put(t, s, "large", b), b)
	if err := s.Verify(t.Context(), "large"); err != nil {
		t.Errorf("Verify returns %v", err)
	}
}

func testReplace(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	small, large := picture(t, 10, 1), picture(t, 400, 2)
	for _, b := range [][]byte{small, large, small, small} {
		wantImage(t, s, put(t, s, "a", b), b)
	}
	wantNoStaged(t, fsys)
}

func testDelete(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	put(t, s, "other", picture(t, 10, 1))
	for range 2 {
		put(t, s, "a", picture(t, 10, 2))
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatalf("Delete fails: %v", err)
		}
		_, err := s.Get(t.Context(), "a")
		wantError(t, err, imagestore.ErrNotFound, "Get of an image that was deleted")
		_, err = s.Stat(t.Context(), "a")
		wantError(t, err, imagestore.ErrNotFound, "Stat of an image that was deleted")
		wantError(t, s.Delete(t.Context(), "a"), imagestore.ErrNotFound, "Delete of an image that was deleted")
		if _, err := fsys.Stat("a"); !isMissing(err) {
			t.Errorf("the directory of an image that was deleted is still there (Stat: %v)", err)
		}
	}
	if _, err := s.Stat(t.Context(), "other"); err != nil {
		t.Errorf("Delete of an image takes another with it: %v", err)
	}
}

func testDeleteForeign(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	put(t, s, "a", picture(t, 10, 1))
	if objects, ok := fsys.(imagestore.ObjectFs); ok {
		putObject(t, objects, "a/notes.txt", []byte("mine"), imagestore.Precondition{})
	} else {
		writeFile(t, fsys, "a/notes.txt", []byte("mine"))
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatalf("Delete fails: %v", err)
	}
	wantFile(t, fsys, "a/notes.txt", []byte("mine"), "Delete reported success")
}

func testLeftBehind(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	mkdir(t, fsys, "a")
	b := picture(t, 10, 1)
	wantImage(t, s, put(t, s, "a", b), b)
}

func testOpenReplaced(t *testing.T, fsys afero.Fs) {
	testOpen(t, fsys, func(s *imagestore.Store) { put(t, s, "a", picture(t, 100, 2)) })
}

func testOpenDeleted(t *testing.T, fsys afero.Fs) {
	testOpen(t, fsys, func(s *imagestore.Store) {
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatalf("Delete fails while the image is open: %v", err)
		}
	})
}

func testOpen(t *testing.T, fsys afero.Fs, change func(*imagestore.Store)) {
	s := imagestore.New(fsys, nil)
	old := picture(t, 500, 1)
	put(t, s, "a", old)
	img, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatalf("Get fails: %v", err)
	}
	defer img.Close()
	begin := make([]byte, 1000)
	if _, err := io.ReadFull(img, begin); err != nil {
		t.Fatal(err)
	}
	change(s)
	rest, err := io.ReadAll(img)
	if err != nil || !bytes.Equal(append(begin, rest...), old) {
		t.Errorf("an image that is open does not stay as it was: %d bytes of %d, %v", len(begin)+len(rest), len(old), err)
	}
}

func testSeek(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	want := picture(t, 300, 1)
	put(t, s, "a", want)
	img, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatalf("Get fails: %v", err)
	}
	defer img.Close()
	if err := iotest.TestReader(img, want); err != nil {
		t.Error(err)
	}
}

func testNotFound(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	check := func() {
		t.Helper()
		_, err := s.Get(t.Context(), "none")
		wantError(t, err, imagestore.ErrNotFound, "Get of an image that is not there")
		_, err = s.Stat(t.Context(), "none")
		wantError(t, err, imagestore.ErrNotFound, "Stat of an image that is not there")
		wantError(t, s.Delete(t.Context(), "none"), imagestore.ErrNotFound, "Delete of an image that is not there")
	}
	check()
	for info, err := range s.All(t.Context()) {
		t.Errorf("All of an empty store yields %+v, %v", info, err)
	}
	mkdir(t, fsys, "none") // a directory is not yet an image
	check()
}

func testIfAbsent(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	for round := range 5 {
		oneWinner(t, s, fmt.Sprint("id", round), round, imagestore.IfAbsent())
	}
}

func testIfMatch(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	info := put(t, s, "a", picture(t, 3, 100))
	old := info.ETag
	for round := range 5 {
		info = oneWinner(t, s, "a", round, imagestore.IfMatch(info.ETag))
	}
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch(old)), imagestore.ErrPrecondition, "Delete of an old version")
	if isObjects(fsys) {
		wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch(info.ETag)), imagestore.ErrUnsupported, "Delete under a condition")
		wantImage(t, s, info, nil)
		return
	}
	if err := s.Delete(t.Context(), "a", imagestore.IfMatch(info.ETag)); err != nil {
		t.Errorf("Delete of the version that is stored fails: %v", err)
	}
}

// oneWinner has several write at once on a condition that holds for one. All
// write something else, in other rounds too.
func oneWinner(t *testing.T, s *imagestore.Store, id string, round int, cond imagestore.Precondition) imagestore.Info {
	t.Helper()
	const writers = 8
	var infos [writers]imagestore.Info
	var errs [writers]error
	var wg sync.WaitGroup
	for i := range writers {
		b := picture(t, 3, uint64(round*writers+i))
		wg.Go(func() { infos[i], errs[i] = s.Put(t.Context(), id, bytes.NewReader(b), cond) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil && winner >= 0 {
			t.Fatal("two writers have won")
		} else if err == nil {
			winner = i
		} else {
			wantError(t, err, imagestore.ErrPrecondition, "Put of one who comes too late")
		}
	}
	if winner < 0 {
		t.Fatal("no writer has won")
	}
	wantImage(t, s, infos[winner], picture(t, 3, uint64(round*writers+winner)))
	return infos[winner]
}

func testReplacedETags(t *testing.T, fsys afero.Fs) { testETags(t, fsys, false) }

func testDeletedETags(t *testing.T, fsys afero.Fs) { testETags(t, fsys, true) }

// testETags puts one image again and again: only its time tells the versions
// apart.
func testETags(t *testing.T, fsys afero.Fs, remove bool) {
	s := imagestore.New(fsys, nil)
	b := picture(t, 3, 1)
	seen := make(map[string]bool)
	for i := range 10 {
		info := put(t, s, "a", b)
		if seen[info.ETag] && isObjects(fsys) {
			quirk(t, "ETags tell contents apart, not versions: the same bytes have the same again")
			return
		}
		if seen[info.ETag] {
			t.Fatalf("version %d has an ETag that an earlier one had: IfMatch would take the one for the other", i)
		}
		seen[info.ETag] = true
		if !remove {
			continue
		}
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatalf("Delete fails: %v", err)
		}
	}
}

func testFailedUpload(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	good := picture(t, 300, 1)
	info := put(t, s, "a", good)
	broken := errors.New("the line is dead")
	for _, n := range []int{0, 1000, 70_000, len(good)} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Put(t.Context(), id, io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
			wantError(t, err, broken, "Put from a reader that fails")
		}
	}
	_, err := s.Put(t.Context(), "a", bytes.NewReader(good[:len(good)-1]))
	wantError(t, err, imagestore.ErrBroken, "Put of an image that is cut short")
	wantImage(t, s, info, good)
	_, err = s.Stat(t.Context(), "b")
	wantError(t, err, imagestore.ErrNotFound, "Stat of an image whose upload failed")
	wantNoStaged(t, fsys)
}

func testCanceledUpload(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	good := picture(t, 300, 1)
	info := put(t, s, "a", good)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := s.Put(ctx, "a", io.MultiReader(bytes.NewReader(good[:70_000]), cancelReader(cancel), bytes.NewReader(good[70_000:])))
	wantError(t, err, context.Canceled, "Put that is canceled")
	wantImage(t, s, info, good)
	wantNoStaged(t, fsys)
}

// A cancelReader holds nothing, and cancels when it is read.
type cancelReader context.CancelFunc

func (r cancelReader) Read([]byte) (int, error) { r(); return 0, io.EOF }

func testReadersDuringWrites(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	versions := [][]byte{picture(t, 50, 1), picture(t, 120, 2), picture(t, 300, 3)}
	done := make(chan struct{})
	var readers sync.WaitGroup
	count, writes := 3, 40
	if isObjects(fsys) { // some let no writer in as long as there are readers
		count, writes = 1, 16
	}
	for range count {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				img, err := s.Get(t.Context(), "a")
				if errors.Is(err, imagestore.ErrNotFound) {
					continue
				}
				if err != nil {
					t.Errorf("Get fails while the image is replaced: %v", err)
					return
				}
				b, err := io.ReadAll(img)
				img.Close()
				if err != nil || int64(len(b)) != img.Size || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
					t.Errorf("a reader gets %d bytes that nobody has put, %v", len(b), err)
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer close(done)
	for i := range writes {
		put(t, s, "a", versions[i%len(versions)])
		if i%8 == 7 {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Errorf("Delete fails while the image is read: %v", err)
			}
		}
	}
}

func testAll(t *testing.T, fsys afero.Fs) {
	s := imagestore.New(fsys, nil)
	want := make(map[string]imagestore.Info)
	b := picture(t, 1, 1)
	for i := range 25 {
		id := fmt.Sprintf("id%02d", i)
		want[id] = put(t, s, id, b)
	}
	got := make(map[string]imagestore.Info)
	for info, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatalf("All fails: %v", err)
		}
		if _, dup := got[info.ID]; dup {
			t.Errorf("All lists %s twice", info.ID)
		}
		got[info.ID] = info
	}
	if isObjects(fsys) { // a list may tell another time than the image itself
		for _, infos := range []map[string]imagestore.Info{got, want} {
			for id, info := range infos {
				info.ModTime = time.Time{}
				infos[id] = info
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("All lists %q, not %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

func testSecondStore(t *testing.T, fsys afero.Fs) {
	b := picture(t, 300, 1)
	info := put(t, imagestore.New(fsys, nil), "a", b)
	second := imagestore.New(fsys, nil)
	wantImage(t, second, info, b)
	b = picture(t, 200, 2)
	info = put(t, second, "a", b, imagestore.IfMatch(info.ETag))
	wantImage(t, imagestore.New(fsys, nil), info, b)
	if f, err := fsys.OpenFile("a/image.png", os.O_RDONLY, 0); err != nil {
		t.Errorf("the image is no ordinary file: %v", err)
	} else {
		f.Close()
	}
}
