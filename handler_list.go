package imagestore

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
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
	for info, err := range h.store.List(r.Context(), opts) {
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
	w.Header().Set("Cache-Control", "no-cache")
	return h.writeJSON(w, r, http.StatusOK, page)
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
