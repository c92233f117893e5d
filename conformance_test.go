package imagestore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
)

// images is what a Store and a Client have in common.
type images interface {
	Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Precondition) (imagestore.Info, error)
	Get(ctx context.Context, id string) (*imagestore.Image, error)
	Delete(ctx context.Context, id string, conds ...imagestore.Precondition) error
	Stat(ctx context.Context, id string) (imagestore.Info, error)
	All(ctx context.Context) iter.Seq2[imagestore.Info, error]
}

var (
	_ images = (*imagestore.Store)(nil)
	_ images = (*client.Client)(nil)
)

// TestConformance runs one suite on Stores over every filesystem and on
// Clients of them.
func TestConformance(t *testing.T) {
	for _, fsys := range append(filesystems, objectStore) {
		t.Run(fsys.name, func(t *testing.T) {
			t.Run("Store", func(t *testing.T) {
				conformance(t, func(t *testing.T) images { return imagestore.New(fsys.new(t), nil) })
			})
			t.Run("Client", func(t *testing.T) {
				conformance(t, func(t *testing.T) images {
					return newClient(t, serve(t, imagestore.New(fsys.new(t), nil), nil).URL)
				})
			})
		})
	}
}

func conformance(t *testing.T, newImages func(*testing.T) images) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, images)
	}{
		{"what is put can be got", testPutGet},
		{"put replaces", testReplace},
		{"open images stay whole", testOpenStaysWhole},
		{"seek", testSeek},
		{"not found", testNotFound},
		{"bad ids", testBadIDs},
		{"bad images", testBadImages},
		{"failing reader", testFailingReader},
		{"canceled context", testCanceled},
		{"IfAbsent", testIfAbsent},
		{"IfMatch", testIfMatch},
		{"one winner", testOneWinner},
		{"versions differ", testVersionsDiffer},
		{"All", testAll},
		{"readers during writes", testReadersDuringWrites},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newImages(t)) })
	}
}

func put(t *testing.T, s images, id string, b []byte, conds ...imagestore.Precondition) imagestore.Info {
	t.Helper()
	info, err := s.Put(t.Context(), id, bytes.NewReader(b), conds...)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func get(t *testing.T, s images, id string) (imagestore.Info, []byte) {
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

// wantError checks that an error is of a kind and carries operation and id.
func wantError(t *testing.T, err, kind error, op, id string) {
	t.Helper()
	e, ok := errors.AsType[*imagestore.Error](err)
	if !errors.Is(err, kind) || !ok || e.Op != op || e.ID != id {
		t.Errorf("got error %v (%#v), want %q from %s %q", err, e, kind, op, id)
	}
}

func testPutGet(t *testing.T, s images) {
	for _, side := range []int{1, 255, 256, 300, 1000} { // around the size of the buffer and well above
		want := noise(t, side, 1)
		start := time.Now().Truncate(time.Second)
		info := put(t, s, "TestPost", want)
		if info.ID != "TestPost" || info.Size != int64(len(want)) || info.ModTime.Before(start) || !strings.HasPrefix(info.ETag, `"`) {
			t.Errorf("Put returned %+v for %d bytes", info, len(want))
		}
		got, b := get(t, s, "TestPost")
		if !bytes.Equal(b, want) {
			t.Errorf("got %d bytes back, not the %d that were put", len(b), len(want))
		}
		if got != info {
			t.Errorf("Get says %+v, Put said %+v", got, info)
		}
		if st, err := s.Stat(t.Context(), "TestPost"); err != nil || st != info {
			t.Errorf("Stat says %+v, %v, Put said %+v", st, err, info)
		}
	}
	// However the bytes arrive.
	want := noise(t, 300, 2)
	for _, r := range []io.Reader{
		iotest.OneByteReader(bytes.NewReader(want)),
		iotest.DataErrReader(bytes.NewReader(want)),
		bytes.NewBuffer(want),
		io.LimitReader(bytes.NewReader(want), int64(len(want))),
	} {
		if _, err := s.Put(t.Context(), "x", r); err != nil {
			t.Fatal(err)
		}
		if _, b := get(t, s, "x"); !bytes.Equal(b, want) {
			t.Errorf("%T: what was got is not what was put", r)
		}
	}
	if err := s.Delete(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), "x")
	wantError(t, err, imagestore.ErrNotFound, "get", "x")
}

func testReplace(t *testing.T, s images) {
	small, large := noise(t, 10, 1), noise(t, 400, 2)
	for _, b := range [][]byte{small, large, small} {
		put(t, s, "a", b)
		if _, got := get(t, s, "a"); !bytes.Equal(got, b) {
			t.Error("the old image, or a mixture, is still there")
		}
	}
}

func testOpenStaysWhole(t *testing.T, s images) {
	old := noise(t, 200, 1)
	for _, change := range []func() error{
		func() error { _, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 100, 2))); return err },
		func() error { return s.Delete(t.Context(), "a") },
	} {
		put(t, s, "a", old)
		img, err := s.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(img); err != nil || !bytes.Equal(b, old) {
			t.Errorf("the open image did not stay as it was: %d bytes, %v", len(b), err)
		}
	}
}

func testSeek(t *testing.T, s images) {
	want := noise(t, 300, 1)
	put(t, s, "a", want)
	img, err := s.Get(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(img, want); err != nil {
		t.Error(err)
	}
	for _, at := range []struct {
		offset int64
		whence int
		left   []byte
	}{
		{100, io.SeekStart, want[100:]},
		{-7, io.SeekEnd, want[len(want)-7:]},
		{-50, io.SeekCurrent, want[len(want)-50:]},
		{0, io.SeekEnd, nil},
		{0, io.SeekStart, want},
	} {
		if _, err := img.Seek(at.offset, at.whence); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(img); err != nil || !bytes.Equal(b, at.left) {
			t.Errorf("after Seek(%d, %d) there are %d bytes, %v, not %d", at.offset, at.whence, len(b), err, len(at.left))
		}
	}
	if err := img.Close(); err != nil {
		t.Error(err)
	}
	if n, err := img.Read(make([]byte, 1)); err == nil {
		t.Errorf("Read after Close returns %d, nil", n)
	}
}

func testNotFound(t *testing.T, s images) {
	_, err := s.Get(t.Context(), "none")
	wantError(t, err, imagestore.ErrNotFound, "get", "none")
	_, err = s.Stat(t.Context(), "none")
	wantError(t, err, imagestore.ErrNotFound, "stat", "none")
	err = s.Delete(t.Context(), "none")
	wantError(t, err, imagestore.ErrNotFound, "delete", "none")
	err = s.Delete(t.Context(), "none", imagestore.IfMatch("*"))
	wantError(t, err, imagestore.ErrNotFound, "delete", "none")
	for info, err := range s.All(t.Context()) {
		t.Errorf("All of an empty store yields %+v, %v", info, err)
	}
}

func testBadIDs(t *testing.T, s images) {
	for _, id := range []string{"", ".", "..", "../a", "a/b", `a\b`, ".staging", "a%2Fb", "a\x00", strings.Repeat("a", 129)} {
		_, err := s.Put(t.Context(), id, bytes.NewReader(noise(t, 1, 1)))
		wantError(t, err, imagestore.ErrInvalidID, "put", id)
		_, err = s.Get(t.Context(), id)
		wantError(t, err, imagestore.ErrInvalidID, "get", id)
		_, err = s.Stat(t.Context(), id)
		wantError(t, err, imagestore.ErrInvalidID, "stat", id)
		err = s.Delete(t.Context(), id)
		wantError(t, err, imagestore.ErrInvalidID, "delete", id)
	}
}

func testBadImages(t *testing.T, s images) {
	good := noise(t, 300, 1)
	flipped := bytes.Clone(good)
	flipped[len(flipped)-30] ^= 1
	info := put(t, s, "a", good)
	for _, test := range []struct {
		name string
		b    []byte
		kind error
	}{
		{"nothing", nil, imagestore.ErrNotPNG},
		{"text", []byte("hello, world"), imagestore.ErrNotPNG},
		{"JPEG", []byte("\xff\xd8\xff\xe0\x00\x10JFIF\x00 and so on"), imagestore.ErrNotPNG},
		{"signature only", good[:8], imagestore.ErrBroken},
		{"truncated in the first buffer", good[:1000], imagestore.ErrBroken},
		{"truncated at the end", good[:len(good)-1], imagestore.ErrBroken},
		{"a flipped bit", flipped, imagestore.ErrBroken},
		{"bytes after the end", append(bytes.Clone(good), 0), imagestore.ErrBroken},
	} {
		for _, id := range []string{"a", "b"} {
			_, err := s.Put(t.Context(), id, bytes.NewReader(test.b))
			if wantError(t, err, test.kind, "put", id); t.Failed() {
				t.Fatalf("... for %s", test.name)
			}
		}
		if got, b := get(t, s, "a"); got != info || !bytes.Equal(b, good) {
			t.Fatalf("%s: the old image is gone", test.name)
		}
		if _, err := s.Stat(t.Context(), "b"); !errors.Is(err, imagestore.ErrNotFound) {
			t.Fatalf("%s: stored, or worse: %v", test.name, err)
		}
	}
}

func testFailingReader(t *testing.T, s images) {
	good := noise(t, 300, 1)
	put(t, s, "a", good)
	broken := errors.New("the camera was unplugged")
	for _, n := range []int{0, 10, 70_000, len(good)} {
		_, err := s.Put(t.Context(), "a", io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(broken)))
		wantError(t, err, broken, "put", "a")
	}
	if _, b := get(t, s, "a"); !bytes.Equal(b, good) {
		t.Error("the old image is gone")
	}
}

func testCanceled(t *testing.T, s images) {
	good := noise(t, 300, 1)
	info := put(t, s, "a", good)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Put(ctx, "a", bytes.NewReader(noise(t, 3, 2)))
	wantError(t, err, context.Canceled, "put", "a")
	_, err = s.Get(ctx, "a")
	wantError(t, err, context.Canceled, "get", "a")
	_, err = s.Stat(ctx, "a")
	wantError(t, err, context.Canceled, "stat", "a")
	wantError(t, s.Delete(ctx, "a"), context.Canceled, "delete", "a")
	for _, err := range s.All(ctx) {
		wantError(t, err, context.Canceled, "list", "")
	}
	// In the middle of an upload.
	ctx, cancel = context.WithCancel(t.Context())
	half := io.MultiReader(bytes.NewReader(good[:70_000]), readerFunc(func([]byte) (int, error) {
		cancel()
		return 0, nil
	}), bytes.NewReader(good[70_000:]))
	_, err = s.Put(ctx, "a", half)
	wantError(t, err, context.Canceled, "put", "a")
	if got, b := get(t, s, "a"); got != info || !bytes.Equal(b, good) {
		t.Error("the old image is gone")
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func testIfAbsent(t *testing.T, s images) {
	first := put(t, s, "a", noise(t, 2, 1), imagestore.IfAbsent())
	_, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 2, 2)), imagestore.IfAbsent())
	wantError(t, err, imagestore.ErrPrecondition, "put", "a")
	if info, _ := get(t, s, "a"); info != first {
		t.Error("the image was replaced all the same")
	}
	if err := s.Delete(t.Context(), "a", imagestore.IfAbsent()); !errors.Is(err, imagestore.ErrPrecondition) {
		t.Errorf("Delete with IfAbsent: %v", err)
	}
}

func testIfMatch(t *testing.T, s images) {
	_, err := s.Put(t.Context(), "a", bytes.NewReader(noise(t, 2, 1)), imagestore.IfMatch("*"))
	wantError(t, err, imagestore.ErrPrecondition, "put", "a")
	v1 := put(t, s, "a", noise(t, 2, 1))
	v2 := put(t, s, "a", noise(t, 2, 2), imagestore.IfMatch(v1.ETag))
	_, err = s.Put(t.Context(), "a", bytes.NewReader(noise(t, 2, 3)), imagestore.IfMatch(v1.ETag))
	wantError(t, err, imagestore.ErrPrecondition, "put", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch(v1.ETag)), imagestore.ErrPrecondition, "delete", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch("W/"+v2.ETag)), imagestore.ErrPrecondition, "delete", "a")
	wantError(t, s.Delete(t.Context(), "a", imagestore.IfMatch("without quotes")), imagestore.ErrBadRequest, "delete", "a")
	if info, _ := get(t, s, "a"); info != v2 {
		t.Errorf("the image is %+v, not %+v", info, v2)
	}
	v3 := put(t, s, "a", noise(t, 2, 3), imagestore.IfMatch(v1.ETag+" , "+v2.ETag), imagestore.Precondition{})
	_, err = s.Put(t.Context(), "a", bytes.NewReader(noise(t, 2, 3)), imagestore.IfMatch("*"), imagestore.IfMatch(v3.ETag))
	wantError(t, err, imagestore.ErrBadRequest, "put", "a")
	err = s.Delete(t.Context(), "a", imagestore.IfMatch(v3.ETag))
	if onObjects := errors.Is(err, imagestore.ErrUnsupported); onObjects != strings.Contains(t.Name(), objectStore.name) || !onObjects && err != nil {
		t.Errorf("Delete of the version that is stored returns %v", err)
	}
}

func testOneWinner(t *testing.T, s images) {
	for round := range 20 {
		id := fmt.Sprint("round", round)
		var first imagestore.Info
		for _, cond := range []func() imagestore.Precondition{
			imagestore.IfAbsent,
			func() imagestore.Precondition { return imagestore.IfMatch(first.ETag) },
		} {
			var winners atomic.Int32
			var winner imagestore.Info
			var wg sync.WaitGroup
			for writer := range 8 {
				b := noise(t, 3, uint64(writer))
				wg.Go(func() {
					info, err := s.Put(t.Context(), id, bytes.NewReader(b), cond())
					switch {
					case err == nil:
						winners.Add(1)
						winner = info
					case !errors.Is(err, imagestore.ErrPrecondition):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := winners.Load(); n != 1 {
				t.Fatalf("round %d has %d winners", round, n)
			}
			if first, _ = get(t, s, id); first != winner {
				t.Fatalf("round %d: what is stored is not the winner's", round)
			}
		}
	}
}

func testVersionsDiffer(t *testing.T, s images) {
	seen := make(map[string]bool)
	b := noise(t, 3, 1)
	for i := range 60 {
		info := put(t, s, "a", b)
		if seen[info.ETag] {
			t.Fatalf("two versions have the ETag %s", info.ETag)
		}
		seen[info.ETag] = true
		if i%5 == 0 {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testAll(t *testing.T, s images) {
	want := make(map[string]imagestore.Info)
	b := noise(t, 1, 1)
	for i := range 50 {
		id := fmt.Sprintf("id-%02d", i)
		want[id] = put(t, s, id, b)
	}
	got := make(map[string]imagestore.Info)
	for info, err := range s.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, dup := got[info.ID]; dup {
			t.Errorf("%s comes twice", info.ID)
		}
		got[info.ID] = info
	}
	if !maps.Equal(got, want) {
		t.Errorf("All yields %v, not %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	for range s.All(t.Context()) {
		break // must not go on, nor panic
	}
}

// testReadersDuringWrites has readers look all the time while an image is
// replaced and deleted: each must see some version as it was put, or none.
func testReadersDuringWrites(t *testing.T, s images) {
	versions := [][]byte{noise(t, 50, 1), noise(t, 120, 2), noise(t, 300, 3)}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
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
					t.Error(err)
					return
				}
				b, err := io.ReadAll(img)
				img.Close()
				if err != nil || int64(len(b)) != img.Size || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
					t.Errorf("a reader got %d bytes that nobody put, %v", len(b), err)
					return
				}
			}
		})
	}
	for i := range 60 {
		put(t, s, "a", versions[i%len(versions)])
		if i%4 == 3 {
			if err := s.Delete(t.Context(), "a"); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	readers.Wait()
}
