package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
)

// TestDriver tests a Driver, and the promises of a Store on it. newDriver
// returns one without images each time. It is called for every subtest, from
// several goroutines.
//
// The subtests of "driver" test the driver without a Store. The subtests of "store"
// are those of [TestStore]. If one of them fails, see first what "driver" reports.
//
// No test checks whether an image survives a power cut.
func TestDriver(t *testing.T, newDriver func(t *testing.T) imagestore.Driver) {
	runAll(t, "driver", driverTests, newDriver)
	runAll(t, "store", storeTests, func(t *testing.T) Images { return imagestore.NewWithDriver(newDriver(t), nil) })
}

var driverTests = []test[imagestore.Driver]{
	{"an image keeps what was written", "", testDriverContent},
	{"type and size in pixels are kept", "the driver does not keep Meta", testDriverMeta},
	{"nothing is seen before Commit", "", testDriverUncommitted},
	{"Abort discards", "", testDriverAbort},
	{"Commit replaces in one step", "", testDriverReplaced},
	{"Commit honors conditions", "", testDriverConditions},
	{"of conditional commits one wins", "", testDriverWinner},
	{"an open image stays whole", "", testDriverOpen},
	{"Delete removes an image", "", testDriverDelete},
	{"Delete honors conditions, or refuses them", "", testDriverConditionalDelete},
	{"of concurrent deletes one succeeds", "", testDriverDeletes},
	{"a missing image is reported", "", testDriverMissing},
	{"images are listed in order", "", testDriverList},
	{"an image can be read from anywhere", "", testDriverSeek},
	{"Sweep spares uploads under way", "", testDriverSweep},
}

// meta describes the images that these tests put. Their bytes are mostly no images, so
// a driver that reads type and size from the bytes finds others.
var meta = imagestore.Meta{Type: "image/png", Width: 1, Height: 1}

// version returns an Info without what a driver may read from the bytes.
func version(info imagestore.Info) imagestore.Info {
	info.Type, info.Width, info.Height = "", 0, 0
	return info
}

func upload(t *testing.T, d imagestore.Driver, b []byte) imagestore.Upload {
	t.Helper()
	u, err := d.Create(t.Context())
	if err != nil {
		t.Fatalf("Create fails: %v", err)
	}
	for rest := b; len(rest) > 0; {
		n, err := u.Write(rest[:min(len(rest), 64<<10)])
		if err != nil || n != min(len(rest), 64<<10) {
			t.Fatalf("Write of %d bytes: got %d, %v", min(len(rest), 64<<10), n, err)
		}
		rest = rest[n:]
	}
	return u
}

func commit(t *testing.T, d imagestore.Driver, id string, b []byte, cond imagestore.Condition) (imagestore.PutResult, error) {
	t.Helper()
	u := upload(t, d, b)
	result, err := u.Commit(t.Context(), id, meta, cond)
	if abortErr := u.Abort(); abortErr != nil {
		t.Errorf("Abort after Commit: got %v, want nil", abortErr)
	}
	return result, err
}

func mustCommit(t *testing.T, d imagestore.Driver, id string, b []byte, cond imagestore.Condition) imagestore.Info {
	t.Helper()
	result, err := commit(t, d, id, b, cond)
	if err != nil {
		t.Fatalf("Commit fails: %v", err)
	}
	if len(result.ETag) < 3 || result.ETag[0] != '"' || result.ETag[len(result.ETag)-1] != '"' {
		t.Fatalf("got ETag %s, want a strong one with its quotes", result.ETag)
	}
	return result.Info
}

// wantDriverImage checks a stored image, in every way to read it.
func wantDriverImage(t *testing.T, d imagestore.Driver, want imagestore.Info, b []byte) {
	t.Helper()
	if info, err := d.Stat(t.Context(), want.ID); err != nil || version(info) != version(want) {
		t.Errorf("Stat: got %+v, %v, want %+v as from Commit", info, err, want)
	}
	open := map[string]func() (*imagestore.Image, error){"Open": func() (*imagestore.Image, error) { return d.Open(t.Context(), want.ID) }}
	if direct, ok := d.(imagestore.DirectOpener); ok {
		open["OpenDirect"] = func() (*imagestore.Image, error) { return direct.OpenDirect(t.Context(), want.ID) }
	}
	for name, open := range open {
		img, err := open()
		if err != nil {
			t.Fatalf("%s fails: %v", name, err)
		}
		if version(img.Info) != version(want) {
			t.Errorf("%s: got %+v, want %+v as from Commit", name, img.Info, want)
		}
		if got, err := readAllAndClose(img); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%s: got %d bytes, %v, want the %d that were written", name, len(got), err, len(b))
		}
	}
}

func wantDriverNone(t *testing.T, d imagestore.Driver, id string) {
	t.Helper()
	img, err := d.Open(t.Context(), id)
	if err == nil {
		img.Close()
	}
	if !errors.Is(err, imagestore.ErrNotFound) {
		t.Errorf("Open of the missing %q: got %v, want ErrNotFound", id, err)
	}
	if _, err := d.Stat(t.Context(), id); !errors.Is(err, imagestore.ErrNotFound) {
		t.Errorf("Stat of the missing %q: got %v, want ErrNotFound", id, err)
	}
	for _, cond := range []imagestore.Condition{{}, imagestore.IfMatch("*"), imagestore.IfAbsent()} {
		if err := d.Delete(t.Context(), id, cond); !errors.Is(err, imagestore.ErrNotFound) {
			t.Errorf("Delete of the missing %q with %v: got %v, want ErrNotFound", id, cond.Header(), err)
		}
	}
}

func testDriverMeta(t *testing.T, d imagestore.Driver) {
	u := upload(t, d, PNG(t, 3, 1))
	defer u.Abort()
	result, err := u.Commit(t.Context(), "a", imagestore.Meta{Type: "image/png", Width: 3, Height: 3}, imagestore.Condition{})
	if err != nil {
		t.Fatalf("Commit fails: %v", err)
	}
	if want := result.Info; want.Type != "image/png" || want.Width != 3 || want.Height != 3 {
		t.Errorf("Commit: got %+v, want image/png of 3 x 3", want)
	}
	if got, err := d.Stat(t.Context(), "a"); err != nil || got != result.Info {
		t.Errorf("Stat: got %+v, %v, want %+v as from Commit", got, err, result.Info)
	}
	img, err := d.Open(t.Context(), "a")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	if got, err := readAllAndClose(img); err != nil || img.Info != result.Info || !bytes.Equal(got, PNG(t, 3, 1)) {
		t.Errorf("Open: got %+v, %d bytes, %v, want %+v as from Commit", img.Info, len(got), err, result.Info)
	}
}

func testDriverContent(t *testing.T, d imagestore.Driver) {
	for i, size := range []int{1, 70_000, 6 << 20} { // some clients send the last in several parts
		b := text(byte('a'+i), size)
		before := time.Now().Add(-time.Hour) // clocks of other machines differ
		info := mustCommit(t, d, "a", b, imagestore.Condition{})
		if info.ID != "a" || info.Type != meta.Type || info.Size != int64(size) || info.ModTime.Before(before) || info.ModTime.Location() != time.UTC {
			t.Errorf("Commit of %d bytes: got %+v, want its Info", size, info)
		}
		wantDriverImage(t, d, info, b)
	}
}

func testDriverUncommitted(t *testing.T, d imagestore.Driver) {
	u := upload(t, d, text('a', 100_000))
	wantDriverNone(t, d, "a")
	for info, err := range d.List(t.Context(), imagestore.ListOptions{}) {
		t.Errorf("List before Commit: got %+v, %v, want nothing", info, err)
	}
	result, err := u.Commit(t.Context(), "a", meta, imagestore.IfAbsent())
	if err != nil || result.Replaced {
		t.Fatalf("Commit: got %+v, %v, want a new image", result, err)
	}
	wantDriverImage(t, d, result.Info, text('a', 100_000))
	if result, err := commit(t, d, "a", text('b', 10), imagestore.Condition{}); err != nil || !result.Replaced {
		t.Errorf("Commit of a second version: got %+v, %v, want Replaced true", result, err)
	}
}

func testDriverAbort(t *testing.T, d imagestore.Driver) {
	old := mustCommit(t, d, "a", text('a', 10), imagestore.Condition{})
	for _, size := range []int{0, 10, 100_000} {
		u := upload(t, d, text('b', size))
		if err := u.Abort(); err != nil {
			t.Errorf("Abort after %d bytes: got %v, want nil", size, err)
		}
		if err := u.Abort(); err != nil {
			t.Errorf("second Abort: got %v, want nil", err)
		}
	}
	u := upload(t, d, text('b', 10))
	if _, err := u.Commit(t.Context(), "a", meta, imagestore.IfAbsent()); !errors.Is(err, imagestore.ErrPreconditionFailed) {
		t.Errorf("Commit with IfAbsent: got %v, want ErrPreconditionFailed", err)
	}
	if err := u.Abort(); err != nil {
		t.Errorf("Abort after a failed Commit: got %v, want nil", err)
	}
	wantDriverImage(t, d, old, text('a', 10))
}

func testDriverReplaced(t *testing.T, d imagestore.Driver) {
	versions := [][]byte{text('a', 200_000), text('b', 70_000), text('c', 10)}
	mustCommit(t, d, "a", versions[0], imagestore.Condition{})
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { // only one, because some storage has no write during reads
		for {
			img, err := d.Open(t.Context(), "a")
			if err != nil {
				t.Errorf("Open while an image is replaced: got %v, want nil", err)
				return
			}
			b, err := readAllAndClose(img)
			if err != nil || int64(len(b)) != img.Size || !slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
				t.Errorf("got %d of %d bytes, %v, want one of the versions", len(b), img.Size, err)
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
	last := ""
	for i := range 16 {
		info := mustCommit(t, d, "a", versions[i%len(versions)], imagestore.Condition{})
		if info.ETag == last {
			t.Fatalf("got ETag %s for two versions, want two ETags", last)
		}
		last = info.ETag
	}
}

func testDriverConditions(t *testing.T, d imagestore.Driver) {
	refused := func(cond imagestore.Condition, when string) {
		t.Helper()
		if _, err := commit(t, d, "a", text('x', 10), cond); !errors.Is(err, imagestore.ErrPreconditionFailed) {
			t.Errorf("Commit with %v %s: got %v, want ErrPreconditionFailed: processes would overwrite each other's images", cond.Header(), when, err)
		}
	}
	for _, cond := range []imagestore.Condition{imagestore.IfMatch(`"0"`), imagestore.IfMatch("*")} {
		refused(cond, "where there is no image")
	}
	first := mustCommit(t, d, "a", text('a', 10), imagestore.IfAbsent())
	for _, cond := range []imagestore.Condition{imagestore.IfAbsent(), imagestore.IfNoneMatch(first.ETag), imagestore.IfNoneMatch(`"0", ` + first.ETag), imagestore.IfMatch(`"0"`), imagestore.IfMatch("W/" + first.ETag)} {
		refused(cond, "where there is an image")
	}
	wantDriverImage(t, d, first, text('a', 10))
	second := mustCommit(t, d, "a", text('b', 10), imagestore.IfMatch(`"0", `+first.ETag))
	refused(imagestore.IfMatch(first.ETag), "after the image was replaced")
	wantDriverImage(t, d, second, text('b', 10))
	third := mustCommit(t, d, "a", text('c', 10), imagestore.IfMatch("*"))
	both, err := imagestore.AllOf(imagestore.IfMatch(third.ETag), imagestore.IfNoneMatch(first.ETag))
	if err != nil {
		t.Fatal(err)
	}
	fourth := mustCommit(t, d, "a", text('d', 10), both)
	wantDriverImage(t, d, fourth, text('d', 10))
	if err := d.Delete(t.Context(), "a", imagestore.Condition{}); err != nil {
		t.Fatalf("Delete fails: %v", err)
	}
	refused(imagestore.IfMatch(fourth.ETag), "after the image was deleted")
	mustCommit(t, d, "a", text('e', 10), imagestore.IfNoneMatch(fourth.ETag))
}

func testDriverWinner(t *testing.T, d imagestore.Driver) {
	cond := imagestore.IfAbsent()
	for round := range 5 {
		const writers = 8
		var uploads [writers]imagestore.Upload
		var results [writers]imagestore.PutResult
		var errs [writers]error
		for i := range writers {
			uploads[i] = upload(t, d, fmt.Appendf(nil, "round %d, writer %d", round, i))
		}
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() { results[i], errs[i] = uploads[i].Commit(t.Context(), "a", meta, cond) })
		}
		wg.Wait()
		winners := 0
		for i, err := range errs {
			switch {
			case err == nil:
				winners++
				cond = imagestore.IfMatch(results[i].ETag)
				wantDriverImage(t, d, results[i].Info, fmt.Appendf(nil, "round %d, writer %d", round, i))
			case !errors.Is(err, imagestore.ErrPreconditionFailed):
				t.Errorf("Commit of a late writer: got %v, want ErrPreconditionFailed", err)
			}
			if err := uploads[i].Abort(); err != nil {
				t.Errorf("Abort: got %v, want nil", err)
			}
		}
		if winners != 1 {
			t.Fatalf("of %d writers with one condition: got %d winners, want 1", writers, winners)
		}
	}
}

func testDriverOpen(t *testing.T, d imagestore.Driver) {
	for done, change := range map[string]func(id string) error{
		"replaced": func(id string) error {
			_, err := commit(t, d, id, text('b', 100), imagestore.Condition{})
			return err
		},
		"deleted": func(id string) error { return d.Delete(t.Context(), id, imagestore.Condition{}) },
	} {
		want := text('a', 300_000)
		mustCommit(t, d, done, want, imagestore.Condition{})
		img, err := d.Open(t.Context(), done)
		if err != nil {
			t.Fatalf("Open fails: %v", err)
		}
		defer img.Close()
		begin := make([]byte, 1000)
		if _, err := io.ReadFull(img, begin); err != nil {
			t.Fatalf("Read fails: %v", err)
		}
		err = change(done)
		inUse := errors.Is(err, imagestore.ErrUnavailable)
		if err != nil && !inUse {
			t.Fatalf("an open image cannot be %s: %v", done, err)
		}
		if rest, err := io.ReadAll(img); err != nil || !bytes.Equal(append(begin, rest...), want) {
			t.Errorf("an open image that was %s: got %d bytes, %v, want the %d that it had", done, len(begin)+len(rest), err, len(want))
		}
		// A Read after Seek may fail, but must not return another version.
		if _, err := img.Seek(150_000, io.SeekStart); err == nil {
			if b, err := io.ReadAll(img); err == nil && !bytes.Equal(b, want[150_000:]) {
				t.Errorf("an open image that was %s: got bytes of another version after Seek, want its own", done)
			} else if err != nil {
				quirk(t, "an image that was %s while it was open cannot be read after Seek: %v", done, err)
			}
		}
		if inUse {
			quirk(t, "an image cannot be %s while it is open", done)
			wantDriverImage(t, d, img.Info, want)
			if err := img.Close(); err != nil {
				t.Errorf("Close: got %v, want nil", err)
			}
			if err := change(done); err != nil {
				t.Errorf("an image that was closed cannot be %s: %v", done, err)
			}
		}
	}
}

func testDriverDelete(t *testing.T, d imagestore.Driver) {
	other := mustCommit(t, d, "ab", text('b', 10), imagestore.Condition{})
	for range 2 {
		mustCommit(t, d, "a", text('a', 10), imagestore.IfAbsent())
		if err := d.Delete(t.Context(), "a", imagestore.Condition{}); err != nil {
			t.Fatalf("Delete fails: %v", err)
		}
		wantDriverNone(t, d, "a")
	}
	wantDriverImage(t, d, other, text('b', 10))
}

func testDriverConditionalDelete(t *testing.T, d imagestore.Driver) {
	info := mustCommit(t, d, "a", text('a', 10), imagestore.Condition{})
	for _, cond := range []imagestore.Condition{imagestore.IfMatch(`"0"`), imagestore.IfMatch("W/" + info.ETag), imagestore.IfAbsent(), imagestore.IfNoneMatch(info.ETag)} {
		if err := d.Delete(t.Context(), "a", cond); !errors.Is(err, imagestore.ErrPreconditionFailed) {
			t.Errorf("Delete with %v of another version: got %v, want ErrPreconditionFailed", cond.Header(), err)
		}
	}
	wantDriverImage(t, d, info, text('a', 10))
	switch err := d.Delete(t.Context(), "a", imagestore.IfMatch(info.ETag)); {
	case err == nil:
		wantDriverNone(t, d, "a")
	case errors.Is(err, imagestore.ErrNotImplemented):
		quirk(t, "Delete refuses conditions")
		wantDriverImage(t, d, info, text('a', 10))
	default:
		t.Errorf("Delete of the stored version: got %v, want nil or ErrNotImplemented", err)
	}
}

func testDriverDeletes(t *testing.T, d imagestore.Driver) {
	for range 3 {
		mustCommit(t, d, "a", text('a', 10), imagestore.Condition{})
		var errs [8]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = d.Delete(t.Context(), "a", imagestore.Condition{}) })
		}
		wg.Wait()
		deleted := 0
		for _, err := range errs {
			if err == nil {
				deleted++
			} else if !errors.Is(err, imagestore.ErrNotFound) {
				t.Errorf("late Delete: got %v, want ErrNotFound", err)
			}
		}
		if deleted != 1 {
			t.Fatalf("of %d deletes of one image: got %d successes, want 1", len(errs), deleted)
		}
	}
}

func testDriverMissing(t *testing.T, d imagestore.Driver) {
	wantDriverNone(t, d, "none")
	mustCommit(t, d, "image", text('a', 10), imagestore.Condition{})
	for _, id := range []string{"none", "imag", "image2", "image.2", "i"} {
		wantDriverNone(t, d, id)
	}
}

func testDriverList(t *testing.T, d imagestore.Driver) {
	want := make(map[string]imagestore.Info)
	for i := range listedIDs { // in another order
		id := listedIDs[(7*i+3)%len(listedIDs)]
		want[id] = mustCommit(t, d, id, text('a', i+1), imagestore.Condition{})
	}
	for _, opts := range []imagestore.ListOptions{
		{}, {Limit: 3}, {After: "a-b"}, {After: "a-a", Limit: 2}, {Prefix: "a"}, {Prefix: "a-b", Limit: 1}, {Prefix: "b", After: "a"}, {Prefix: "a", After: "b-0"},
	} {
		var ids []string
		for info, err := range d.List(t.Context(), opts) {
			if err != nil {
				t.Fatalf("List fails: %v", err)
			}
			ids = append(ids, info.ID)
			put := want[info.ID]
			if info.Size != put.Size || info.ETag != put.ETag || cmp.Or(info.Type, put.Type) != put.Type || info.ModTime.IsZero() {
				t.Errorf("List: got %+v, want %+v as from Commit", info, put)
			}
		}
		if want := selected(opts); !slices.Equal(ids, want) {
			t.Errorf("List(%+v): got %q, want %q", opts, ids, want)
		}
	}
	for range d.List(t.Context(), imagestore.ListOptions{}) {
		break // must end the iteration, and not panic
	}
}

func testDriverSeek(t *testing.T, d imagestore.Driver) {
	want := append(text('a', 100_000), text('b', 100_000)...)
	mustCommit(t, d, "a", want, imagestore.Condition{})
	img, err := d.Open(t.Context(), "a")
	if err != nil {
		t.Fatalf("Open fails: %v", err)
	}
	defer img.Close()
	other, err := d.Open(t.Context(), "a")
	if err != nil {
		t.Fatalf("a second Open fails: %v", err)
	}
	wantSeek(t, img, want)
	if b, err := readAllAndClose(other); err != nil || !bytes.Equal(b, want) {
		t.Errorf("two open images share one position: got %d of %d bytes, %v, from the second", len(b), len(want), err)
	}
}

func testDriverSweep(t *testing.T, d imagestore.Driver) {
	sweeper, ok := d.(imagestore.Sweeper)
	if !ok {
		return // it has nothing to sweep
	}
	u := upload(t, d, text('a', 100_000))
	if n, err := sweeper.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of files older than an hour: got %d, %v, want 0, nil", n, err)
	}
	result, err := u.Commit(t.Context(), "a", meta, imagestore.Condition{})
	if err != nil {
		t.Fatalf("Commit after Sweep fails: %v", err)
	}
	if n, err := sweeper.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep after Commit: got %d, %v, want 0, nil", n, err)
	}
	wantDriverImage(t, d, result.Info, text('a', 100_000))
}
