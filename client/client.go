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
//
// A Client of [Client.WithDigests] checks the bytes too, with digests that are sent
// along.
//
// A Client checks every answer. One that was not asked for, or that no image store
// sends, is a [StatusError]. The text of an error is printable and bounded, so that
// it can be logged.
package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/internal/digest"
)

const (
	// maxJSON bounds an answer that is not an image, in bytes. A page of a list
	// has a kilobyte for each image. A hostile one takes 32 times as much decoded.
	maxJSON = 1 << 20
	// pageSize is how many images a list asks for at a time.
	pageSize = 1000
	// askFirst is the size of an upload, in bytes, from which the client asks the
	// server first. A refusal then saves more than the round trip costs.
	askFirst = 1 << 20
)

// A Client uses the image store of one server. It is safe for concurrent use.
type Client struct {
	base    string // without a slash at its end
	http    *http.Client
	digests bool // whether images are checked on their way
}

// New returns a Client for the store whose images are at baseURL/images. A nil
// hc is [http.DefaultClient]. Authentication and timeouts are up to hc, which New
// copies.
//
// Redirects are up to hc too, with one exception. A PUT or DELETE that would go
// on as a GET (301, 302 and 303) ends with a [StatusError]. So does a PUT that
// would have to be sent again (307 and 308). A redirected request keeps its
// conditions. A transport that adds credentials sees redirected requests as well,
// and must look at their host.
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
	return &Client{base: strings.TrimRight(u.String(), "/"), http: withSameMethod(*hc)}, nil
}

// withSameMethod returns a client that does not follow a redirect by which
// net/http changes the method. The redirect itself is the answer then.
func withSameMethod(hc http.Client) *http.Client {
	policy := hc.CheckRedirect
	hc.CheckRedirect = func(next *http.Request, sent []*http.Request) error {
		switch {
		case next.Method != sent[0].Method:
			return http.ErrUseLastResponse
		case policy != nil:
			return policy(next, sent)
		case len(sent) >= 10: // as without a policy
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	return &hc
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
	if c.digests {
		sent, err := digestOf(ctx, r)
		if err != nil {
			return result, err
		}
		req.Header.Set("Repr-Digest", sent)
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
	if !body.sent(req.ContentLength) {
		return result, newStatusError(resp, "it came before the image was sent")
	}
	var info imagestore.Info
	if err := decode(resp, &info); err != nil {
		return result, err
	}
	if info.ID != id {
		return result, newStatusError(resp, fmt.Sprintf("it is about the image %.100q", info.ID))
	}
	if err := check(resp, &info); err != nil {
		return result, err
	}
	return imagestore.PutResult{Info: info, Replaced: resp.StatusCode == http.StatusOK}, nil
}

// Get opens the image for reading. The caller closes it. The bytes arrive while
// they are read, as long as ctx is not done. After a Seek the next Read asks the
// server for the rest. It fails with [imagestore.ErrPreconditionFailed] if the
// image has been replaced meanwhile.
func (c *Client) Get(ctx context.Context, id string) (img *imagestore.Image, err error) {
	defer wrap("get", id, &err)
	info, resp, err := c.open(ctx, http.MethodGet, id)
	if err != nil {
		return nil, err
	}
	r := &reader{c: c, ctx: ctx, info: info, body: resp.Body}
	if c.digests {
		if r.check, err = newDigestCheck(resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
	}
	return &imagestore.Image{Info: info, ReadSeekCloser: r}, nil
}

// Stat describes the image without fetching it.
func (c *Client) Stat(ctx context.Context, id string) (info imagestore.Info, err error) {
	defer wrap("stat", id, &err)
	info, resp, err := c.open(ctx, http.MethodHead, id)
	if err != nil {
		return info, err
	}
	return info, resp.Body.Close()
}

// open asks for an image. It returns the description and the answer.
func (c *Client) open(ctx context.Context, method, id string) (imagestore.Info, *http.Response, error) {
	req, err := c.request(ctx, method, id, nil)
	if err != nil {
		return imagestore.Info{}, nil, err
	}
	if c.digests && method == http.MethodGet {
		req.Header.Set("Want-Repr-Digest", digest.Preference)
	}
	resp, err := c.do(req, http.StatusOK)
	if err != nil {
		return imagestore.Info{}, nil, err
	}
	info, err := infoOf(id, resp)
	if err != nil {
		resp.Body.Close()
		return imagestore.Info{}, nil, err
	}
	return info, resp, nil
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
				if !yield(e.Info, err) {
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
	if p.Images == nil { // any other service's JSON
		return p, newStatusError(resp, "it is no list of images")
	}
	last := after
	for i := range p.Images {
		e := &p.Images[i]
		// Callers may make files of ids, so none may be a path.
		if err := imagestore.CheckID(e.ID); err != nil || e.ID <= last || !strings.HasPrefix(e.ID, prefix) {
			return p, newStatusError(resp, fmt.Sprintf("the list has %.200q after %q", e.ID, last))
		}
		last = e.ID
		if e.Error != "" {
			e.Info = imagestore.Info{ID: e.ID}
		} else if err := check(resp, &e.Info); err != nil {
			return p, err
		}
	}
	if len(p.Images) > limit || p.Next != "" && (p.Next != last || last == after) {
		return p, newStatusError(resp, fmt.Sprintf("the list of %d images ends with %q and goes on after %.200q", len(p.Images), last, p.Next))
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
// Every other answer is an error.
func (c *Client) do(req *http.Request, want ...int) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.Request == nil { // of a transport other than net/http's
		resp.Request = req
	}
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case !slices.Contains(want, resp.StatusCode):
		err = refusal(resp)
	case encoding != "" && encoding != "identity": // a proxy's; nobody has asked for it
		err = newStatusError(resp, fmt.Sprintf("its Content-Encoding is %.100q", encoding))
	default:
		return resp, nil
	}
	resp.Body.Close()
	return nil, err
}

// infoOf returns what the header of a response says of the image.
func infoOf(id string, resp *http.Response) (imagestore.Info, error) {
	h := resp.Header
	modTime, err := time.Parse(time.RFC3339Nano, h.Get("Imagestore-Modified"))
	if err != nil {
		modTime, err = http.ParseTime(h.Get("Last-Modified"))
	}
	if err != nil {
		return imagestore.Info{}, newStatusError(resp, fmt.Sprintf("its Last-Modified is %.100q, not a time", h.Get("Last-Modified")))
	}
	info := imagestore.Info{ID: id, Type: h.Get("Content-Type"), Size: resp.ContentLength, ModTime: modTime, ETag: h.Get("ETag")}
	width, err := strconv.Atoi(h.Get("Imagestore-Width"))
	height, err2 := strconv.Atoi(h.Get("Imagestore-Height"))
	if err == nil && err2 == nil { // the store may not know them
		info.Width, info.Height = width, height
	}
	if info.Type == "" {
		return info, newStatusError(resp, "it has no Content-Type")
	}
	return info, check(resp, &info)
}

// check returns an error if the answer describes something that is not an image of
// a store. The id is checked already. Otherwise it brings the type and the time to
// the form in which a Store has them. The type may be empty, as in some lists.
func check(resp *http.Response, info *imagestore.Info) error {
	mediaType, _, _ := mime.ParseMediaType(info.Type) // "" if it is malformed
	modTime := info.ModTime.UTC()
	detail := ""
	switch year := modTime.Year(); {
	case info.Type != "" && !strings.HasPrefix(mediaType, "image/") && mediaType != "application/octet-stream":
		detail = fmt.Sprintf("its type is %.100q, not an image's", info.Type)
	case info.Width < 0 || info.Height < 0:
		detail = fmt.Sprintf("the image has %d x %d pixels", info.Width, info.Height)
	case info.Size < 0:
		detail = "it does not say how long the image is"
	case !isStrong(info.ETag):
		detail = fmt.Sprintf("its ETag is %.100q, not a strong one", info.ETag)
	case year < 0 || year > 9999: // neither JSON nor HTTP has such a time
		detail = fmt.Sprintf("the image was modified in the year %d", year)
	default:
		info.Type, info.ModTime = mediaType, modTime
		return nil
	}
	return newStatusError(resp, detail)
}

// isStrong reports whether etag is a strong entity tag (RFC 9110, section 8.8.3).
// It must be ASCII, so that it can be printed.
func isStrong(etag string) bool {
	if len(etag) < 2 || etag[0] != '"' || etag[len(etag)-1] != '"' {
		return false
	}
	opaque := etag[1 : len(etag)-1]
	return !strings.ContainsFunc(opaque, func(c rune) bool { return c <= ' ' || c == '"' || c > '~' })
}

// decode reads an answer that is JSON. It reads to the end, so that the connection
// can be used again.
func decode(resp *http.Response, v any) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return newStatusError(resp, fmt.Sprintf("it is longer than %d bytes", maxJSON))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return newStatusError(resp, fmt.Sprintf("it has the type %.100q and is not the JSON that was asked for: %v", resp.Header.Get("Content-Type"), err))
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
