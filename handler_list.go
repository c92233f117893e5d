package imagestore

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// maxLists is how many lists are read at once. Each may read the names of all
	// images and hold 65,536 of them.
	maxLists = 16
)

func (h *handler) list(w http.ResponseWriter, r *http.Request) error {
	opts, err := listOptionsOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	ctx, cancel := storeContext(r)
	defer cancel()
	page, err := h.readPage(ctx, r, opts)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-cache")
	return h.writeJSON(w, r, http.StatusOK, page)
}

// A listPage is one answer to a list.
type listPage struct {
	Images []any  `json:"images"` // Info or unreadable
	Next   string `json:"next,omitempty"`
}

// readPage reads a page. It waits while maxLists are read.
func (h *handler) readPage(ctx context.Context, r *http.Request, opts ListOptions) (listPage, error) {
	if err := h.lists.wait(ctx, h.opts.Timeout, "%d lists are under way"); err != nil {
		return listPage{}, err
	}
	defer h.lists.give()
	page := listPage{Images: []any{}}
	limit := opts.Limit
	opts.Limit++ // one more shows that there are more
	last := ""
	for info, err := range h.store.List(ctx, opts) {
		if err != nil && info.ID == "" {
			return listPage{}, err
		}
		if len(page.Images) == limit {
			page.Next = last
			break
		}
		if err != nil {
			h.log(r, err)
			row, _ := httpErrorFor(err)
			page.Images = append(page.Images, unreadable{info.ID, row.code})
		} else {
			page.Images = append(page.Images, info)
		}
		last = info.ID
	}
	return page, nil
}

// An unreadable takes the place of an image in a list that cannot be read.
type unreadable struct {
	ID    string `json:"id"`
	Error string `json:"error"` // the code
}

func listOptionsOf(rawQuery string) (opts ListOptions, err error) {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return opts, &detailedError{kind: ErrBadRequest, detail: "the query is malformed: its percent-encoding, or a semicolon", cause: err}
	}
	opts = ListOptions{Prefix: query.Get("prefix"), After: query.Get("after"), Limit: defaultPageSize}
	if query.Has("limit") {
		opts.Limit, err = strconv.Atoi(query.Get("limit"))
		if err != nil || opts.Limit < 1 || opts.Limit > maxPageSize {
			return opts, &detailedError{kind: ErrBadRequest, detail: fmt.Sprintf("limit is %.40q, not a number from 1 to %d", query.Get("limit"), maxPageSize)}
		}
	}
	return opts, nil
}
