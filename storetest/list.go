package storetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
)

// listedIDs are in the order of their bytes. A storage may append a slash to an id:
// - and . sort before it, and ~ after it. No two ids differ only in case.
var listedIDs = []string{
	"0", "C", "Z9", "_", "a", "a-", "a--b", "a-b", "a-b-c", "a-b.c", "a.b", "a0", "aa-b", "a~", "b-0", "b-1", "b-2", "b-2-x", "b.z", "z",
}

func testList(t *testing.T, s Images) {
	want := make(map[string]imagestore.Info)
	b := PNG(t, 1, 1)
	put(t, s, "b", b)
	remove(t, s, "b")
	for i := range listedIDs { // in another order
		id := listedIDs[(7*i+3)%len(listedIDs)]
		want[id] = put(t, s, id, b).Info
	}
	t.Run("every image once, in order", func(t *testing.T) { testListAll(t, s, want) })
	t.Run("prefix, start and limit", func(t *testing.T) { testListPart(t, s) })
	t.Run("pages of every size", func(t *testing.T) { testListPages(t, s) })
	t.Run("ends early", func(t *testing.T) { testListEnds(t, s) })
	t.Run("bad options are refused", func(t *testing.T) { testListOptions(t, s) })
}

// list returns the ids that List yields.
func list(t *testing.T, s Images, opts imagestore.ListOptions) (ids []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), opts) {
		if err != nil {
			t.Fatalf("List fails: %v", err)
		}
		ids = append(ids, info.ID)
	}
	return ids
}

func testListAll(t *testing.T, s Images, want map[string]imagestore.Info) {
	if ids := list(t, s, imagestore.ListOptions{}); !slices.Equal(ids, listedIDs) {
		t.Fatalf("List: got %q, want %q", ids, listedIDs)
	}
	times := false
	for got := range s.List(t.Context(), imagestore.ListOptions{}) {
		want := want[got.ID]
		times = times || !got.ModTime.Equal(want.ModTime)
		if got.Type == "" {
			got.Type = want.Type
		}
		if got.ModTime.IsZero() || got.Size != want.Size || got.ETag != want.ETag || got.Type != want.Type {
			t.Errorf("List: got %+v, want %+v as from Put", got, want)
		}
	}
	if times {
		quirk(t, "a list has other times than the images")
	}
}

// selected returns the ids that List should yield.
func selected(opts imagestore.ListOptions) (ids []string) {
	for _, id := range listedIDs {
		if strings.HasPrefix(id, opts.Prefix) && id > opts.After && (opts.Limit == 0 || len(ids) < opts.Limit) {
			ids = append(ids, id)
		}
	}
	return ids
}

func testListPart(t *testing.T, s Images) {
	if got := list(t, s, imagestore.ListOptions{Limit: 5000}); !slices.Equal(got, listedIDs) { // more than a page of a handler
		t.Errorf("List with a limit of 5000: got %q, want %q", got, listedIDs)
	}
	for _, prefix := range []string{"", "a", "a-b", "b", "zz", "-"} {
		for _, after := range []string{"", "B", "a", "a-a", "b-1", "~"} {
			for _, limit := range []int{0, 1, 3} {
				opts := imagestore.ListOptions{Prefix: prefix, After: after, Limit: limit}
				if got, want := list(t, s, opts), selected(opts); !slices.Equal(got, want) {
					t.Errorf("List(%+v): got %q, want %q", opts, got, want)
				}
			}
		}
	}
}

func testListPages(t *testing.T, s Images) {
	for _, prefix := range []string{"", "a"} {
		want := selected(imagestore.ListOptions{Prefix: prefix})
		for limit := 1; limit <= len(want)+1; limit++ {
			var got []string
			for after := ""; len(got) <= len(want); after = got[len(got)-1] {
				page := list(t, s, imagestore.ListOptions{Prefix: prefix, After: after, Limit: limit})
				if len(page) == 0 {
					break
				}
				got = append(got, page...)
			}
			if !slices.Equal(got, want) {
				t.Errorf("pages of %d with prefix %q: got %q, want %q", limit, prefix, got, want)
			}
		}
	}
}

// testListEnds ends an iteration early. List must end too, and not panic.
func testListEnds(t *testing.T, s Images) {
	for range s.List(t.Context(), imagestore.ListOptions{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for info, err := range s.List(ctx, imagestore.ListOptions{}) {
		cancel()
		n++
		if err != nil { // a Client that has a page yields the rest of it
			wantError(t, err, context.Canceled, "list", "")
			if info != (imagestore.Info{}) {
				t.Errorf("last result of List: got %+v, want the zero Info", info)
			}
		}
	}
	if n > len(listedIDs) {
		t.Errorf("List: got %d images, want at most %d", n, len(listedIDs))
	}
}

func testListOptions(t *testing.T, s Images) {
	for _, opts := range []imagestore.ListOptions{
		{Limit: -1}, {Prefix: "a/"}, {Prefix: "/"}, {Prefix: `\`}, {Prefix: "a b"}, {Prefix: "\x00"}, {Prefix: "é"}, {Prefix: "a%"}, {Prefix: "a\xff"}, {After: "a/b"},
	} {
		wantListError(t, s, t.Context(), opts, imagestore.ErrBadRequest)
	}
}

// wantListError checks that List yields one error and ends.
func wantListError(t *testing.T, s Images, ctx context.Context, opts imagestore.ListOptions, reason error) {
	t.Helper()
	n := 0
	for info, err := range s.List(ctx, opts) {
		n++
		wantError(t, err, reason, "list", "")
		if info != (imagestore.Info{}) {
			t.Errorf("List(%#v): got %+v with an error, want the zero Info", opts, info)
		}
	}
	if n != 1 {
		t.Errorf("List(%#v): got %d results, want one error", opts, n)
	}
}
