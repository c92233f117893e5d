package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ba692904/imagestore"
)

// Images has the methods that an imagestore.Store and a client.Client share.
type Images interface {
	Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Condition) (imagestore.PutResult, error)
	Get(ctx context.Context, id string) (*imagestore.Image, error)
	Stat(ctx context.Context, id string) (imagestore.Info, error)
	Delete(ctx context.Context, id string, conds ...imagestore.Condition) error
	List(ctx context.Context, opts imagestore.ListOptions) iter.Seq2[imagestore.Info, error]
}

// TestStore tests the promises of a Store or a Client. newImages returns one
// without images each time, with the default options. It is called for every
// subtest, from several goroutines.
//
// The suite accepts a storage that refuses a conditional Delete with
// imagestore.ErrNotImplemented, or a change of an open image with
// imagestore.ErrUnavailable. It accepts one that gives the same bytes the same ETag,
// and one whose lists lack types or have other times.
func TestStore(t *testing.T, newImages func(t *testing.T) Images) {
	runAll(t, "store", storeTests, newImages)
}

var storeTests = []test[Images]{
	{"an image that was put can be read", "the filesystem loses bytes, or changes modification times by itself", testPutGet},
	{"an image arrives however it is read", "the filesystem loses bytes", testReaders},
	{"a large image", "the filesystem loses bytes, or limits the size of a file", testLarge},
	{"put replaces", "Rename does not replace an existing file, or modification times do not change", testReplace},
	{"delete removes the image", "Remove does not remove, or reports an error where there is none", testDelete},
	{"an open image stays whole when it is replaced", "Rename writes into the existing file", testOpenReplaced},
	{"an open image stays whole when it is deleted", "an open file cannot be read after it was removed", testOpenDeleted},
	{"an open image can be read from anywhere", "Seek breaks the contract of io.Seeker", testSeek},
	{"a missing image is not found", "the error for a missing file is not fs.ErrNotExist", testNotFound},
	{"bad ids are refused", "", testBadIDs},
	{"bad images are refused", "Remove does not remove", testBadImages},
	{"a failed upload leaves the old image", "Remove does not remove, or a file that is open cannot be removed", testFailedUpload},
	{"a canceled context ends every call", "Remove does not remove, or a file that is open cannot be removed", testCanceled},
	{"IfAbsent creates only", "Stat does not show at once what Rename has done", testIfAbsent},
	{"IfMatch changes one version only", "Stat does not show at once what Rename has done, or modification times are coarse", testIfMatch},
	{"of writers with IfAbsent one wins", "Stat does not show at once what Rename has done", testIfAbsentRace},
	{"of writers with IfMatch one wins", "Stat does not show at once what Rename has done, or modification times are coarse", testIfMatchRace},
	{"ETags do not repeat when an image is replaced", "modification times are coarse or not kept", testReplacedETags},
	{"ETags do not repeat when an image is deleted and put again", "modification times are coarse or not kept", testDeletedETags},
	{"readers see whole versions while an image changes", "Rename is not atomic", testReadersDuringWrites},
	{"List", "Readdirnames skips or repeats names", testList},
}

func put(t *testing.T, s Images, id string, b []byte, conds ...imagestore.Condition) imagestore.PutResult {
	t.Helper()
	result, err := s.Put(t.Context(), id, bytes.NewReader(b), conds...)
	if err != nil {
		t.Fatalf("Put fails: %v", err)
	}
	return result
}

func get(t *testing.T, s Images, id string) (imagestore.Info, []byte) {
	t.Helper()
	img, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("Get fails: %v", err)
	}
	b, err := readAllAndClose(img)
	if err != nil {
		t.Fatalf("Read fails after %d of %d bytes: %v", len(b), img.Size, err)
	}
	return img.Info, b
}

func remove(t *testing.T, s Images, id string) {
	t.Helper()
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatalf("Delete fails: %v", err)
	}
}

// wantImage checks a stored image with Get and Stat. A nil b is any bytes.
func wantImage(t *testing.T, s Images, want imagestore.Info, b []byte) {
	t.Helper()
	info, got := get(t, s, want.ID)
	if b != nil && !bytes.Equal(got, b) {
		t.Fatalf("Get: got %d other bytes, want the %d that were put", len(got), len(b))
	}
	if info != want {
		t.Errorf("Get: got %+v, want %+v as from Put", info, want)
	}
	if info, err := s.Stat(t.Context(), want.ID); err != nil || info != want {
		t.Errorf("Stat: got %+v, %v, want %+v as from Put", info, err, want)
	}
}

// wantError checks that an error has a reason, an operation and an id.
func wantError(t *testing.T, err, reason error, op, id string) {
	t.Helper()
	e, ok := errors.AsType[*imagestore.Error](err)
	if !errors.Is(err, reason) || !ok || e.Op != op || e.ID != id {
		t.Errorf("got error %v, want %q of %s %q", err, reason, op, id)
	}
}

func wantNone(t *testing.T, s Images, id string) {
	t.Helper()
	_, err := s.Get(t.Context(), id)
	wantError(t, err, imagestore.ErrNotFound, "get", id)
	_, err = s.Stat(t.Context(), id)
	wantError(t, err, imagestore.ErrNotFound, "stat", id)
	wantError(t, s.Delete(t.Context(), id), imagestore.ErrNotFound, "delete", id)
	wantError(t, s.Delete(t.Context(), id, imagestore.IfMatch("*")), imagestore.ErrNotFound, "delete", id)
}

// sides give images around 64 KiB, the size of the buffer that is validated before a
// write.
var sides = []int{1, 255, 256, 300}

func testPutGet(t *testing.T, s Images) {
	for i, side := range sides {
		b := PNG(t, side, 1)
		id := fmt.Sprint("TestPost", i)
		start := time.Now().Add(-time.Hour) // clocks of other machines differ
		got := put(t, s, id, b)
		if got.ID != id || got.Type != "image/png" || got.Size != int64(len(b)) || got.ModTime.Before(start) || got.ModTime.Location() != time.UTC ||
			len(got.ETag) < 3 || !strings.HasPrefix(got.ETag, `"`) || !strings.HasSuffix(got.ETag, `"`) || got.Replaced {
			t.Errorf("Put of %d bytes: got %+v, want its Info", len(b), got)
		}
		wantImage(t, s, got.Info, b)
	}
}

func testReaders(t *testing.T, s Images) {
	b := PNG(t, 260, 2)
	slow := iotest.OneByteReader(bytes.NewReader(b))
	if runtime.GOOS == "windows" {
		// Over HTTP each byte costs system calls, which take long under Wine. These
		// are the first bytes, and those around the end of the first buffer.
		slow = io.MultiReader(iotest.OneByteReader(bytes.NewReader(b[:1000])), bytes.NewReader(b[1000:65_000]), iotest.OneByteReader(bytes.NewReader(b[65_000:])))
	}
	for i, r := range []io.Reader{
		slow,
		iotest.DataErrReader(bytes.NewReader(b)),
		bytes.NewBuffer(b),
		io.LimitReader(bytes.NewReader(b), int64(len(b))),
	} {
		id := fmt.Sprint("id", i)
		if _, err := s.Put(t.Context(), id, r); err != nil {
			t.Fatalf("Put of a %T fails: %v", r, err)
		}
		if _, got := get(t, s, id); !bytes.Equal(got, b) {
			t.Errorf("Put of a %T: got %d other bytes from Get, want %d", r, len(got), len(b))
		}
	}
}

func testLarge(t *testing.T, s Images) {
	b := PNG(t, 1024, 1) // 1 MiB
	wantImage(t, s, put(t, s, "large", b).Info, b)
	if v, ok := s.(interface {
		Verify(ctx context.Context, id string) error
	}); ok {
		if err := v.Verify(t.Context(), "large"); err != nil {
			t.Errorf("Verify: got %v, want nil", err)
		}
	}
}

func testReplace(t *testing.T, s Images) {
	small, large := PNG(t, 10, 1), PNG(t, 400, 2)
	for i, b := range [][]byte{small, large, small, small} {
		got := put(t, s, "a", b)
		if got.Replaced != (i > 0) {
			t.Errorf("Put number %d of one id: got Replaced %v, want %v", i+1, got.Replaced, i > 0)
		}
		wantImage(t, s, got.Info, b)
	}
}

func testDelete(t *testing.T, s Images) {
	put(t, s, "other", PNG(t, 10, 1))
	for range 2 {
		if got := put(t, s, "a", PNG(t, 10, 2)); got.Replaced {
			t.Error("Put after Delete: got Replaced true, want false")
		}
		remove(t, s, "a")
		wantNone(t, s, "a")
	}
	if _, err := s.Stat(t.Context(), "other"); err != nil {
		t.Errorf("Stat of another image after Delete: got %v, want nil", err)
	}
}

func testOpenReplaced(t *testing.T, s Images) {
	testOpen(t, s, func() error {
		_, err := s.Put(t.Context(), "a", bytes.NewReader(PNG(t, 100, 2)))
		return err
	})
}

func testOpenDeleted(t *testing.T, s Images) {
	testOpen(t, s, func() error { return s.Delete(t.Context(), "a") })
}

// testOpen changes an image while it is being read.
func testOpen(t *testing.T, s Images, change func() error) {
	for _, side := range []int{200, 500} { // small enough for a cache, and not
		old := PNG(t, side, 1)
		put(t, s, "a", old)
		img, err := s.Get(t.Context(), "a")
		if err != nil {
			t.Fatalf("Get fails: %v", err)
		}
		defer img.Close()
		begin := make([]byte, 1000)
		if _, err := io.ReadFull(img, begin); err != nil {
			t.Fatalf("Read fails: %v", err)
		}
		err = change()
		if err != nil && !errors.Is(err, imagestore.ErrUnavailable) {
			t.Fatalf("change of an open image: got %v, want nil or ErrUnavailable", err)
		}
		if rest, err := io.ReadAll(img); err != nil || !bytes.Equal(append(begin, rest...), old) {
			t.Errorf("an open image changes: got %d bytes, %v, want the %d of the version that was opened", len(begin)+len(rest), err, len(old))
		}
		if err != nil {
			wantRefused(t, s, img, old, change)
		}
	}
}

// wantRefused checks that an open image whose change was refused is whole, and that
// it can be changed after Close.
func wantRefused(t *testing.T, s Images, img *imagestore.Image, old []byte, change func() error) {
	t.Helper()
	quirk(t, "an image cannot be changed while it is open")
	wantImage(t, s, img.Info, old)
	if err := img.Close(); err != nil {
		t.Errorf("Close: got %v, want nil", err)
	}
	if err := change(); err != nil {
		t.Errorf("change after Close: got %v, want nil", err)
	}
}

func testSeek(t *testing.T, s Images) {
	want := PNG(t, 300, 1)
	put(t, s, "a", want)
	img, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatalf("Get fails: %v", err)
	}
	defer img.Close()
	if err := iotest.TestReader(img, want); err != nil {
		t.Error(err)
	}
	wantSeek(t, img, want)
	if err := img.Close(); err != nil {
		t.Errorf("Close: got %v, want nil", err)
	}
	if n, err := img.Read(make([]byte, 1)); err == nil {
		t.Errorf("Read after Close: got %d, nil, want an error", n)
	}
}

// wantSeek reads from several positions.
func wantSeek(t *testing.T, r io.ReadSeeker, want []byte) {
	t.Helper()
	for _, at := range []struct {
		offset int64
		whence int
		pos    int
	}{
		{0, io.SeekEnd, len(want)},
		{0, io.SeekStart, 0},
		{100, io.SeekStart, 100},
		{70_000, io.SeekStart, 70_000},
		{-7, io.SeekEnd, len(want) - 7},
		{-1000, io.SeekCurrent, len(want) - 1000}, // ReadAll has read to the end
	} {
		if pos, err := r.Seek(at.offset, at.whence); err != nil || pos != int64(at.pos) {
			t.Fatalf("Seek(%d, %d): got %d, %v, want %d", at.offset, at.whence, pos, err, at.pos)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, want[at.pos:]) {
			t.Fatalf("after Seek(%d, %d): got %d bytes, %v, want the last %d", at.offset, at.whence, len(b), err, len(want)-at.pos)
		}
	}
}

func testNotFound(t *testing.T, s Images) {
	wantNone(t, s, "none")
	for info, err := range s.List(t.Context(), imagestore.ListOptions{}) {
		t.Errorf("List of an empty store: got %+v, %v, want nothing", info, err)
	}
	_, err := s.Put(t.Context(), "none", bytes.NewReader(PNG(t, 3, 1)), imagestore.IfMatch("*"))
	wantError(t, err, imagestore.ErrPreconditionFailed, "put", "none")
}

func testBadIDs(t *testing.T, s Images) {
	for _, id := range []string{"", ".", "..", "../a", "a/b", `a\b`, ".staging", "a%2Fb", "a\x00", "a.", strings.Repeat("a", 129)} {
		_, err := s.Put(t.Context(), id, bytes.NewReader(PNG(t, 1, 1)))
		wantError(t, err, imagestore.ErrInvalidID, "put", id)
		_, err = s.Get(t.Context(), id)
		wantError(t, err, imagestore.ErrInvalidID, "get", id)
		_, err = s.Stat(t.Context(), id)
		wantError(t, err, imagestore.ErrInvalidID, "stat", id)
		wantError(t, s.Delete(t.Context(), id), imagestore.ErrInvalidID, "delete", id)
	}
}

func testBadImages(t *testing.T, s Images) {
	good := PNG(t, 300, 1)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-30] ^= 1
	stored := put(t, s, "a", good).Info
	for _, test := range []struct {
		name   string
		b      []byte
		reason error
	}{
		{"nothing", nil, imagestore.ErrUnsupportedType},
		{"text", []byte("hello, world"), imagestore.ErrUnsupportedType},
		{"a JPEG", []byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00 and so on"), imagestore.ErrUnsupportedType},
		{"a signature alone", good[:8], imagestore.ErrInvalidImage},
		{"an image truncated in the first buffer", good[:1000], imagestore.ErrInvalidImage},
		{"an image truncated at the end", good[:len(good)-1], imagestore.ErrInvalidImage},
		{"an image with a flipped bit", flipped, imagestore.ErrInvalidImage},
		{"an image with more bytes after its end", append(bytes.Clone(good), 0), imagestore.ErrInvalidImage},
	} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Put(t.Context(), id, bytes.NewReader(test.b))
			if wantError(t, err, test.reason, "put", id); t.Failed() {
				t.Fatalf("the error is about %s", test.name)
			}
		}
		wantImage(t, s, stored, good)
		if _, err := s.Stat(t.Context(), "b"); !errors.Is(err, imagestore.ErrNotFound) {
			t.Fatalf("Stat after the failed Put of %s: got %v, want ErrNotFound", test.name, err)
		}
	}
}

func testFailedUpload(t *testing.T, s Images) {
	good := PNG(t, 300, 1)
	stored := put(t, s, "a", good).Info
	broken := errors.New("upload canceled")
	for _, n := range []int{0, 10, 1000, 70_000, len(good)} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Put(t.Context(), id, io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
			wantError(t, err, broken, "put", id)
		}
	}
	wantImage(t, s, stored, good)
	wantNone(t, s, "b")
}

func testCanceled(t *testing.T, s Images) {
	good := PNG(t, 300, 1)
	stored := put(t, s, "a", good).Info
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Put(ctx, "a", bytes.NewReader(PNG(t, 3, 2)))
	wantError(t, err, context.Canceled, "put", "a")
	_, err = s.Get(ctx, "a")
	wantError(t, err, context.Canceled, "get", "a")
	_, err = s.Stat(ctx, "a")
	wantError(t, err, context.Canceled, "stat", "a")
	wantError(t, s.Delete(ctx, "a"), context.Canceled, "delete", "a")
	wantListError(t, s, ctx, imagestore.ListOptions{}, context.Canceled)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	_, err = s.Put(ctx, "a", io.MultiReader(bytes.NewReader(good[:70_000]), cancelReader(cancel), bytes.NewReader(good[70_000:])))
	wantError(t, err, context.Canceled, "put", "a")
	wantImage(t, s, stored, good)
}

// A cancelReader has no bytes. Its Read cancels a context.
type cancelReader context.CancelFunc

func (r cancelReader) Read([]byte) (int, error) { r(); return 0, io.EOF }

func testIfAbsent(t *testing.T, s Images) {
	b := PNG(t, 2, 1)
	first := put(t, s, "a", b, imagestore.IfAbsent()).Info
	_, err := s.Put(t.Context(), "a", bytes.NewReader(PNG(t, 2, 2)), imagestore.IfAbsent())
	wantError(t, err, imagestore.ErrPreconditionFailed, "put", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfAbsent()), imagestore.ErrPreconditionFailed, "delete", "a")
	_, err = s.Put(t.Context(), "a", bytes.NewReader(PNG(t, 2, 2)), imagestore.IfNoneMatch(first.ETag))
	wantError(t, err, imagestore.ErrPreconditionFailed, "put", "a")
	wantImage(t, s, first, b)
	put(t, s, "a", PNG(t, 2, 2), imagestore.IfNoneMatch(`"another"`))
}

func testIfMatch(t *testing.T, s Images) {
	v1 := put(t, s, "a", PNG(t, 2, 1))
	b := PNG(t, 2, 2)
	v2 := put(t, s, "a", b, imagestore.IfMatch(v1.ETag))
	_, err := s.Put(t.Context(), "a", bytes.NewReader(PNG(t, 2, 3)), imagestore.IfMatch(v1.ETag))
	wantError(t, err, imagestore.ErrPreconditionFailed, "put", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch(v1.ETag)), imagestore.ErrPreconditionFailed, "delete", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch("W/"+v2.ETag)), imagestore.ErrPreconditionFailed, "delete", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch("without quotes")), imagestore.ErrBadRequest, "delete", "a")
	wantImage(t, s, v2.Info, b)
	b = PNG(t, 2, 3)
	v3 := put(t, s, "a", b, imagestore.IfMatch(v1.ETag+" , "+v2.ETag), imagestore.Condition{})
	_, err = s.Put(t.Context(), "a", bytes.NewReader(b), imagestore.IfMatch("*"), imagestore.IfMatch(v3.ETag))
	wantError(t, err, imagestore.ErrBadRequest, "put", "a")
	wantImage(t, s, v3.Info, b)
	switch err := s.Delete(t.Context(), "a", imagestore.IfMatch(v3.ETag)); {
	case err == nil:
		wantNone(t, s, "a")
	case errors.Is(err, imagestore.ErrNotImplemented):
		wantError(t, err, imagestore.ErrNotImplemented, "delete", "a")
		quirk(t, "Delete refuses conditions")
		wantImage(t, s, v3.Info, b)
	default:
		t.Errorf("Delete of the stored version: got %v, want nil or ErrNotImplemented", err)
	}
}

func testIfAbsentRace(t *testing.T, s Images) {
	for round := range 5 {
		oneWinner(t, s, fmt.Sprint("id", round), round, imagestore.IfAbsent())
	}
}

func testIfMatchRace(t *testing.T, s Images) {
	info := put(t, s, "a", PNG(t, 3, 100)).Info
	for round := range 5 {
		info = oneWinner(t, s, "a", round, imagestore.IfMatch(info.ETag))
	}
}

// oneWinner puts from several goroutines with a condition that holds for one of
// them. Each Put of each round has another image.
func oneWinner(t *testing.T, s Images, id string, round int, cond imagestore.Condition) imagestore.Info {
	t.Helper()
	const writers = 8
	var results [writers]imagestore.PutResult
	var errs [writers]error
	var wg sync.WaitGroup
	for i := range writers {
		b := PNG(t, 3, uint64(round*writers+i))
		wg.Go(func() { results[i], errs[i] = s.Put(t.Context(), id, bytes.NewReader(b), cond) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil && winner >= 0 {
			t.Fatal("got two winners, want one")
		} else if err == nil {
			winner = i
		} else {
			wantError(t, err, imagestore.ErrPreconditionFailed, "put", id)
		}
	}
	if winner < 0 {
		t.Fatal("got no winner, want one")
	}
	wantImage(t, s, results[winner].Info, PNG(t, 3, uint64(round*writers+winner)))
	return results[winner].Info
}

func testReplacedETags(t *testing.T, s Images) { testETags(t, s, false) }

func testDeletedETags(t *testing.T, s Images) { testETags(t, s, true) }

// testETags puts two images of one size in turn, so that versions differ only in
// time or content.
func testETags(t *testing.T, s Images, deleted bool) {
	images := [2][]byte{PNG(t, 3, 1), PNG(t, 3, 2)}
	seen := make(map[string]int)
	for i := range 12 {
		info := put(t, s, "a", images[i%2])
		if earlier, ok := seen[info.ETag]; ok && earlier%2 == i%2 {
			quirk(t, "ETags are of contents, not of versions: the same bytes get the same ETag again")
			return
		} else if ok {
			t.Fatalf("got one ETag for versions %d and %d, want two: IfMatch could not tell them apart", earlier, i)
		}
		seen[info.ETag] = i
		if deleted {
			remove(t, s, "a")
		}
	}
}

// testReadersDuringWrites reads an image while it is replaced and deleted. One
// reader reads without a pause. The others read once for every change, because some
// storage has no write during reads.
func testReadersDuringWrites(t *testing.T, s Images) {
	versions := [][]byte{PNG(t, 50, 1), PNG(t, 120, 2), PNG(t, 300, 3)}
	read := func() bool {
		img, err := s.Get(t.Context(), "a")
		if errors.Is(err, imagestore.ErrNotFound) {
			return true
		}
		if err != nil {
			t.Errorf("Get while the image changes: got %v, want nil or ErrNotFound", err)
			return false
		}
		b, err := readAllAndClose(img)
		if err != nil || int64(len(b)) != img.Size || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
			t.Errorf("got %d of %d bytes, %v, want one of the versions", len(b), img.Size, err)
			return false
		}
		return true
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for read() {
			select {
			case <-done:
				return
			default:
			}
		}
	})
	var changes [3]chan struct{}
	for i := range changes {
		changes[i] = make(chan struct{}, 1)
		readers.Go(func() {
			for range changes[i] {
				if !read() {
					return
				}
			}
		})
	}
	defer readers.Wait()
	defer func() {
		close(done)
		for _, c := range changes {
			close(c)
		}
	}()
	for i := range 40 {
		for _, c := range changes {
			select {
			case c <- struct{}{}:
			default:
			}
		}
		put(t, s, "a", versions[i%len(versions)])
		if i%8 == 7 {
			remove(t, s, "a")
		}
	}
}
