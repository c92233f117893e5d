// Package client talks to an image store over HTTP. A [Client] has the methods
// Put, Get, Stat, Delete and List of an [imagestore.Store] and returns the same
// errors:
//
//	c, err := client.New("http://127.0.0.1:8080", nil)
//	if err != nil {
//		return err
//	}
//	stored, err := c.Put(ctx, "TestPost", file)
//	if errors.Is(err, imagestore.ErrInvalidImage) {
//		return fmt.Errorf("please send that picture again: %w", err)
//	}
//
// Images stream in both directions. A Client repeats no request. After a Put or
// a Delete whose answer was lost, Stat shows whether it took place.
package client

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/problem"
)

const (
	// maxJSON bounds an answer that is not an image, in bytes.
	maxJSON = 4 << 20
	// pageSize is how many images a list asks for at a time.
	pageSize = 1000
	// askFirst is the size of an upload, in bytes, from which the client asks the
	// server first. A refusal then saves more than the round trip costs.
	askFirst = 1 << 20
)

// A Client uses the image store of one server. It is safe for concurrent use.
type Client struct {
	base string // without a slash at its end
	http *http.Client
}

// New returns a Client for the store whose images are at baseURL/images. A nil
// hc is [http.DefaultClient]. Authentication and timeouts are up to hc.
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

// Put stores the image that r holds under id, as [imagestore.Store.Put] does. It
// sends a PUT with the image as its body. It declares the length if r has a method
// Len or can seek. After an error there is no result, even after
// [imagestore.ErrNotDurable]. When Put has returned, r is not read any more. Put
// waits for a Read under way, even when ctx is done or the server has refused.
func (c *Client) Put(ctx context.Context, id string, r io.Reader, conds ...imagestore.Condition) (result imagestore.PutResult, err error) {
	defer wrap("put", id, &err)
	body := &source{ctx: ctx, r: r}
	defer body.stop()
	req, err := c.request(ctx, http.MethodPut, id, conds)
	if err != nil {
		return result, err
	}
	req.Body, req.ContentLength = io.NopCloser(body), -1
	if n, ok := length(r); ok {
		req.ContentLength = n
		if n == 0 {
			req.Body = http.NoBody // a length of 0 means an unknown one otherwise
		}
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if req.ContentLength < 0 || req.ContentLength >= askFirst {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := c.do(req, http.StatusCreated, http.StatusOK)
	if err != nil {
		return result, cmp.Or(body.stop(), err) // the error of r comes first
	}
	defer resp.Body.Close()
	var info imagestore.Info
	if err := decode(resp, &info); err != nil {
		return result, err
	}
	if info.ID != id || info.ETag == "" {
		return result, fmt.Errorf("the answer is about the image %q with the ETag %q", info.ID, info.ETag)
	}
	return imagestore.PutResult{Info: inSeconds(info), Replaced: resp.StatusCode == http.StatusOK}, nil
}

// inSeconds cuts the time to what Last-Modified can tell, so that all methods
// return the same Info.
func inSeconds(info imagestore.Info) imagestore.Info {
	info.ModTime = info.ModTime.Truncate(time.Second)
	return info
}

// Get opens the image for reading. The caller closes it. The bytes arrive while
// they are read, as long as ctx is not done. After a Seek the next Read asks the
// server for the rest. It fails with [imagestore.ErrPreconditionFailed] if the
// image has been replaced meanwhile.
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
func (c *Client) Delete(ctx context.Context, id string, conds ...imagestore.Condition) (err error) {
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

// List iterates over the images, as [imagestore.Store.List] does. It asks for a
// page at a time.
func (c *Client) List(ctx context.Context, opts imagestore.ListOptions) iter.Seq2[imagestore.Info, error] {
	return func(yield func(imagestore.Info, error) bool) {
		if opts.Limit < 0 {
			err := fmt.Errorf("%w: the limit is %d, not a positive number", imagestore.ErrBadRequest, opts.Limit)
			wrap("list", "", &err)
			yield(imagestore.Info{}, err)
			return
		}
		after := opts.After
		for left := opts.Limit; ; {
			size := pageSize
			if opts.Limit > 0 {
				size = min(left, pageSize)
			}
			p, err := c.page(ctx, opts.Prefix, after, size)
			if err != nil {
				wrap("list", "", &err)
				yield(imagestore.Info{}, err)
				return
			}
			for _, e := range p.Images {
				err := e.err()
				wrap("list", e.ID, &err)
				if !yield(inSeconds(e.Info), err) {
					return
				}
			}
			left -= len(p.Images)
			if p.Next == "" || opts.Limit > 0 && left <= 0 {
				return
			}
			after = p.Next
		}
	}
}

type page struct {
	Images []entry
	Next   string
}

// An entry is an image of a list, or the code of why it cannot be read.
type entry struct {
	imagestore.Info
	Error string
}

func (e entry) err() error {
	if e.Error == "" {
		return nil
	}
	return cmp.Or(imagestore.ErrorForCode(e.Error), fmt.Errorf("%w: %s", imagestore.ErrInternal, e.Error))
}

func (c *Client) page(ctx context.Context, prefix, after string, limit int) (p page, err error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	if after != "" {
		query.Set("after", after)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/images?"+query.Encode(), nil)
	if err != nil {
		return p, err
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return p, err
	}
	defer resp.Body.Close()
	if err := decode(resp, &p); err != nil {
		return p, err
	}
	last := after
	for _, e := range p.Images { // callers may make files of ids, so none may be a path
		if err := imagestore.CheckID(e.ID); err != nil || e.ID <= last || !strings.HasPrefix(e.ID, prefix) {
			return p, fmt.Errorf("the list has %q after %q: this is not an image store", e.ID, last)
		}
		last = e.ID
	}
	if len(p.Images) > limit || p.Next != "" && (p.Next != last || last == after) {
		return p, fmt.Errorf("the list ends with %q and goes on after %q: this is not an image store", last, p.Next)
	}
	return p, nil
}

func (c *Client) request(ctx context.Context, method, id string, conds []imagestore.Condition) (*http.Request, error) {
	if err := imagestore.CheckID(id); err != nil {
		return nil, err // an id that is a path would lead somewhere else
	}
	cond, err := imagestore.AllOf(conds...)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/images/"+id, nil)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, cond.Header())
	req.Header.Set("Accept-Encoding", "identity") // Size and ETag are of the bytes sent
	return req, nil
}

// do sends the request and returns the response if its status is a wanted one.
// Every other answer is an error. It is the one that the store returned, if it
// was a store that answered.
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

// infoOf returns what the header of a response says of the image.
func infoOf(id string, resp *http.Response) (imagestore.Info, error) {
	etag := resp.Header.Get("ETag")
	modTime, err := http.ParseTime(resp.Header.Get("Last-Modified"))
	if err != nil || etag == "" || resp.ContentLength < 0 {
		return imagestore.Info{}, fmt.Errorf("the answer has no usable ETag, Last-Modified and Content-Length: ETag %q, Last-Modified %q, Content-Length %d",
			etag, resp.Header.Get("Last-Modified"), resp.ContentLength)
	}
	return imagestore.Info{ID: id, Type: resp.Header.Get("Content-Type"), Size: resp.ContentLength, ModTime: modTime, ETag: etag}, nil
}

func decode(resp *http.Response, v any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxJSON)).Decode(v); err != nil {
		return fmt.Errorf("the answer is malformed: %w", err)
	}
	return nil
}

// length returns how many bytes r has, if r can tell.
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
