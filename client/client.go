// Package client talks to an image store over HTTP. A [Client] has the methods
// Put, Get, Delete, Stat and All of an [imagestore.Store] and returns the same
// errors:
//
//	c, err := client.New("http://127.0.0.1:8080", nil)
//	if err != nil {
//		return err
//	}
//	info, err := c.Put(ctx, "TestPost", file)
//	if errors.Is(err, imagestore.ErrBroken) {
//		return fmt.Errorf("please send that picture again: %w", err)
//	}
//
// Images stream in both directions. Nothing is tried again: whether a Put or a
// Delete whose answer got lost has taken place is for the caller to find out,
// with Stat.
package client

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/problem"
)

const (
	// maxJSON bounds what is read of an answer that is not an image.
	maxJSON = 4 << 20
	// askFirst is the size of an upload from which it is worth a round trip to
	// hear whether it is wanted.
	askFirst = 1 << 20
)

// A Client uses the image store of one server. It may be used concurrently.
type Client struct {
	base string // without a slash at its end
	http *http.Client
}

// New returns a Client for the store whose images are at baseURL/images. A nil
// hc is [http.DefaultClient]; authentication and timeouts are for hc to add.
func New(baseURL string, hc *http.Client) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("imagestore client: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, fmt.Errorf("imagestore client: base URL %q is not of the form http[s]://host[:port][/path]", baseURL)
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	return &Client{strings.TrimRight(u.String(), "/"), hc}, nil
}

// Put stores what r holds under id, as [imagestore.Store.Put] does, and returns
// what is now stored. It tells the server the length if r has a method Len or
// can seek. When Put has returned, r is not read any more: as the Store does, it
// waits for a Read under way, also when ctx is done or the server has refused.
func (c *Client) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Precondition) (info imagestore.Info, err error) {
	defer wrap("put", id, &err)
	if err := imagestore.CheckID(id); err != nil {
		return info, err
	}
	var frame bytes.Buffer
	form := multipart.NewWriter(&frame)
	_, _ = form.CreateFormFile("file", id+".png") // a Buffer never fails
	head := frame.Len()
	_ = form.Close()
	body := &source{ctx: ctx, r: r}
	defer body.stop()
	req, err := c.request(ctx, http.MethodPost, id, conds)
	if err != nil {
		return info, err
	}
	req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(frame.Bytes()[:head]), body, bytes.NewReader(frame.Bytes()[head:])))
	req.ContentLength = -1
	if n, ok := length(r); ok {
		req.ContentLength = int64(frame.Len()) + n
	}
	req.Header.Set("Content-Type", form.FormDataContentType())
	if req.ContentLength < 0 || req.ContentLength >= askFirst {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := c.do(req, http.StatusCreated, http.StatusOK)
	if err != nil {
		return info, cmp.Or(body.stop(), err) // what r has to say comes first
	}
	defer resp.Body.Close()
	if err := decode(resp, &info); err != nil {
		return imagestore.Info{}, err
	}
	if info.ID != id || info.ETag == "" {
		return imagestore.Info{}, fmt.Errorf("the answer is about the image %q with the ETag %q", info.ID, info.ETag)
	}
	return info, nil
}

// Get opens the image for reading. The caller closes it. The bytes arrive while
// they are read, as long as ctx is not done; after a Seek the next Read asks
// the server for the rest from there, and fails with
// [imagestore.ErrPrecondition] if the image has been replaced meanwhile.
func (c *Client) Get(ctx context.Context, id string) (img *imagestore.Image, err error) {
	defer wrap("get", id, &err)
	req, err := c.request(ctx, http.MethodGet, id, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return nil, err
	}
	info, err := infoOf(id, resp)
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return &imagestore.Image{Info: info, ReadSeekCloser: &reader{c: c, ctx: ctx, info: info, body: resp.Body}}, nil
}

// Stat describes the image without fetching it.
func (c *Client) Stat(ctx context.Context, id string) (info imagestore.Info, err error) {
	defer wrap("stat", id, &err)
	req, err := c.request(ctx, http.MethodHead, id, nil)
	if err != nil {
		return info, err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return info, err
	}
	defer resp.Body.Close()
	return infoOf(id, resp)
}

// Delete removes the image, as [imagestore.Store.Delete] does.
func (c *Client) Delete(ctx context.Context, id string, conds ...imagestore.Precondition) (err error) {
	defer wrap("delete", id, &err)
	req, err := c.request(ctx, http.MethodDelete, id, conds)
	if err != nil {
		return err
	}
	resp, err := c.do(req, http.StatusNoContent)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// All iterates over the images, in the order of their ids and a page at a
// time. Images that come or go meanwhile may be seen or missed; all others are
// seen exactly once. An error ends the iteration.
func (c *Client) All(ctx context.Context) iter.Seq2[imagestore.Info, error] {
	return func(yield func(imagestore.Info, error) bool) {
		for after := ""; ; {
			images, next, err := c.page(ctx, after)
			if err != nil {
				wrap("list", "", &err)
				yield(imagestore.Info{}, err)
				return
			}
			for _, info := range images {
				if !yield(info, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			after = next
		}
	}
}

func (c *Client) page(ctx context.Context, after string) ([]imagestore.Info, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/images?limit=1000&after="+after, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	var page struct {
		Images []imagestore.Info
		Next   string
	}
	if err := decode(resp, &page); err != nil {
		return nil, "", err
	}
	last := after
	for _, info := range page.Images { // ids that are paths would be trouble for who makes files of them
		if err := imagestore.CheckID(info.ID); err != nil || info.ID <= last {
			return nil, "", fmt.Errorf("the list has %q after %q: this is not an image store", info.ID, last)
		}
		last = info.ID
	}
	if page.Next != "" && (page.Next != last || last == after) {
		return nil, "", fmt.Errorf("the list ends with %q and goes on after %q: this is not an image store", last, page.Next)
	}
	return page.Images, page.Next, nil
}

func (c *Client) request(ctx context.Context, method, id string, conds []imagestore.Precondition) (*http.Request, error) {
	if err := imagestore.CheckID(id); err != nil {
		return nil, err // an id that is a path would end up somewhere else
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/images/"+id, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity") // Size and ETag are those of the bytes sent
	for _, cond := range conds {
		name, value := cond.Header()
		if name == "" {
			continue
		}
		if req.Header.Get(name) != "" {
			return nil, fmt.Errorf("%w: more than one %s, which HTTP has no way to say", imagestore.ErrBadRequest, name)
		}
		req.Header.Set(name, value)
	}
	return req, nil
}

// do sends the request and returns the response if its status is one of those
// wanted. Every other answer is an error: the one that the store at the other
// end returned, if it was the store that answered.
func (c *Client) do(req *http.Request, want ...int) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	for _, status := range want {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	p := problem.Read(resp)
	kind := imagestore.ErrorForCode(p.Code)
	if kind == nil && p.Code != "" {
		return nil, fmt.Errorf("%s %s: the answer is %s (%s): %s", req.Method, req.URL.Redacted(), resp.Status, p.Code, p.Detail)
	}
	if kind == nil {
		return nil, fmt.Errorf("%s %s: the answer is %s, and not from an image store", req.Method, req.URL.Redacted(), resp.Status)
	}
	detail, found := strings.CutPrefix(p.Detail, kind.Error())
	if found || detail == "" {
		return nil, fmt.Errorf("%w%s", kind, detail)
	}
	return nil, fmt.Errorf("%w: %s", kind, detail)
}

// infoOf reads from the header of a response what it says of the image.
func infoOf(id string, resp *http.Response) (imagestore.Info, error) {
	etag := resp.Header.Get("ETag")
	modTime, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil || etag == "" || resp.ContentLength < 0 {
		return imagestore.Info{}, fmt.Errorf("the answer has no usable ETag, Last-Modified and Content-Length: ETag %q, Last-Modified %q, Content-Length %d",
			etag, resp.Header.Get("Last-Modified"), resp.ContentLength)
	}
	return imagestore.Info{ID: id, Size: resp.ContentLength, ModTime: modTime, ETag: etag}, nil
}

func decode(resp *http.Response, v any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxJSON)).Decode(v); err != nil {
		return fmt.Errorf("the answer cannot be understood: %w", err)
	}
	return nil
}

// length returns how much r has to give, if that can be known.
func length(r io.Reader) (int64, bool) {
	switch r := r.(type) {
	case interface{ Len() int }:
		return int64(r.Len()), true
	case io.Seeker:
		here, err := r.Seek(0, io.SeekCurrent)
		if err != nil {
			return 0, false // a pipe, for example
		}
		end, err := r.Seek(0, io.SeekEnd)
		if err != nil {
			return 0, false
		}
		if _, err := r.Seek(here, io.SeekStart); err != nil || end < here {
			return 0, false
		}
		return end - here, true
	}
	return 0, false
}

func wrap(op, id string, err *error) {
	if *err != nil {
		*err = &imagestore.Error{Op: op, ID: id, Err: *err}
	}
}
