package imagestore_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
	"github.com/spf13/afero"
)

func TestList(t *testing.T) {
	t.Parallel()
	fsys := onDisk(t)
	s := imagestore.New(fsys, nil)
	srv := serve(t, s, nil)
	if got := testhttp.Request(t, "GET", srv.URL+"/images", nil); string(got.Bytes) != "{\"images\":[]}\n" {
		t.Errorf("got %s, want an empty list", got.Bytes)
	}
	b := testimage.PNG(t, 1, 1)
	var ids []string
	for i := range 25 {
		ids = append(ids, fmt.Sprintf("id%02d", i))
		put(t, s, ids[i], b)
		// Other directories are not listed and do not shorten a page.
		if err := fsys.MkdirAll(fmt.Sprintf("id%02d-empty", i), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := afero.WriteFile(fsys, "id00-file", b, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 4, 5, 24, 25, 26, 1000} {
		var got []string
		for after := ""; ; {
			var page struct {
				Images []imagestore.Info
				Next   string
			}
			a := testhttp.Request(t, "GET", fmt.Sprintf("%s/images?limit=%d&after=%s", srv.URL, limit, after), nil)
			if err := json.Unmarshal(a.Bytes, &page); err != nil {
				t.Fatal(err)
			}
			for _, info := range page.Images {
				got = append(got, info.ID)
			}
			if page.Next == "" {
				break
			}
			if len(page.Images) != limit || page.Next != got[len(got)-1] {
				t.Errorf("limit %d: got %d images, next %q, want %d images, next the last id", limit, len(page.Images), page.Next, limit)
			}
			after = page.Next
		}
		if !slices.Equal(got, ids) {
			t.Errorf("limit %d: got %v, want %v", limit, got, ids)
		}
	}
}
