package imagestore

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
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
	limit := opts.Limit
	opts.Limit++ // one more shows that there are more
	page := struct {
		Images []any  `json:"images"`
		Next   string `json:"next,omitempty"`
	}{Images: []any{}}
	last := ""
	ctx, cancel := storeContext(r)
	defer cancel()
	leave, err := h.waitForList(ctx)
	if err != nil {
		return err
	}
	defer leave()
	for info, err := range h.store.List(ctx, opts) {
		if err != nil && info.ID == "" {
			return err
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
	leave() // a client that is slow to take the page holds up no other list
	w.Header().Set("Cache-Control", "no-cache")
	return h.writeJSON(w, r, http.StatusOK, page)
}

// waitForList waits while maxLists are read. leave lets the next one begin; it may be
// called again.
func (h *handler) waitForList(ctx context.Context) (leave func(), err error) {
	select {
	case h.lists <- struct{}{}:
	default:
		timeout := time.NewTimer(h.opts.Timeout)
		defer timeout.Stop()
		select {
		case h.lists <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-timeout.C:
			return nil, tooBusy("%d lists are under way", maxLists)
		}
	}
	return sync.OnceFunc(func() { <-h.lists }), nil
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
