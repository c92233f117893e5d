package client_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/client"
	"github.com/ba692904/imagestore/internal/testimage"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

// A script is a server in memory. It answers each connection's request with the
// next of its answers, byte for byte, and closes the connection. The last answer is
// for all later requests. After an answer it sends again, if that is set, for as
// long as the client takes it.
type script struct {
	answers []string
	again   string
	served  atomic.Int64 // requests
	sent    atomic.Int64 // bytes of again
}

// far is more than a client should take of an answer that does not end.
const far = 64 << 20

func (s *script) dial(context.Context, string, string) (net.Conn, error) {
	local, remote := net.Pipe()
	answer := s.answers[min(s.served.Add(1), int64(len(s.answers)))-1]
	go func() {
		defer remote.Close()
		req, err := http.ReadRequest(bufio.NewReader(remote))
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		io.WriteString(remote, answer)
		for again := strings.Repeat(s.again, 8000); s.again != "" && s.sent.Load() < far; {
			n, err := io.WriteString(remote, again)
			if s.sent.Add(int64(n)); err != nil {
				return
			}
		}
	}()
	return local, nil
}

// last returns the answer that was served last, without interim ones, as net/http
// reads it.
func (s *script) last(method string) (*http.Response, []byte, error) {
	r := bufio.NewReader(strings.NewReader(s.answers[min(s.served.Load(), int64(len(s.answers)))-1]))
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			b, err := io.ReadAll(resp.Body)
			return resp, b, err
		}
	}
}

func (s *script) client(tb testing.TB) *client.Client {
	noTLS := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no TLS here") }
	transport := &http.Transport{DialContext: s.dial, DialTLSContext: noTLS, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10}
	c, err := client.New("http://store.example", &http.Client{Transport: transport})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// rightAnswers has the answers of a store to every operation. The second one of a
// seek is to the Read after it. A check is a get with digests.
var rightAnswers = map[string][]string{
	"put": {"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\r\n" +
		`{"id":"a","type":"image/png","size":70,"modified":"2026-11-25T08:30:28.5Z","etag":"\"x\""}` + "\n"},
	"get":    {imageAnswer("200 OK", "1234", "")},
	"seek":   {imageAnswer("200 OK", "1234", ""), imageAnswer("206 Partial Content", "234", "Content-Range: bytes 1-3/4\r\n")},
	"check":  {imageAnswer("200 OK", "1234", "Repr-Digest: "+sha256Of([]byte("1234"))+"\r\n")},
	"stat":   {strings.TrimSuffix(imageAnswer("200 OK", "1234", ""), "1234")},
	"delete": {"HTTP/1.1 204 No Content\r\n\r\n"},
	"list": {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" +
		`{"images":[{"id":"b6","size":70,"modified":"2026-11-25T08:30:28.5Z","etag":"\"x\""}],"next":"b6"}`,
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + `{"images":[]}`},
}

func imageAnswer(status, body, more string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\nContent-Type: image/png\r\nContent-Length: %d\r\nETag: \"x\"\r\nLast-Modified: Wed, 25 Nov 2026 08:30:28 GMT\r\n%s\r\n%s", status, len(body), more, body)
}

var listOptions = imagestore.ListOptions{Prefix: "b", After: "b5", Limit: 2}

// wrongAnswers differ from the right ones in one place, the last answer in which
// old is. Each must be an error.
var wrongAnswers = []struct{ op, name, old, new string }{
	{"get", "a login page with an ETag", "image/png", "text/html; charset=utf-8"},
	{"get", "no type", "Content-Type: image/png\r\n", ""},
	{"get", "a malformed type", "image/png", "image"},
	{"get", "a type in disguise", "image/png", "text/html, image/png"},
	{"get", "encoded by a proxy", "ETag", "Content-Encoding: gzip\r\nETag"},
	{"get", "no ETag", "ETag: \"x\"\r\n", ""},
	{"get", "an empty ETag", `ETag: "x"`, "ETag:"},
	{"get", "a weak ETag", `ETag: "x"`, `ETag: W/"x"`},
	{"get", "an ETag without quotes", `ETag: "x"`, "ETag: x"},
	{"get", "every ETag", `ETag: "x"`, "ETag: *"},
	{"get", "several ETags", `ETag: "x"`, `ETag: "x","y"`},
	{"get", "an ETag with a space", `ETag: "x"`, `ETag: "x y"`},
	{"get", "half an ETag", `ETag: "x"`, `ETag: "`},
	{"get", "an ETag that cannot be printed", `ETag: "x"`, "ETag: \"\u202e\""},
	{"get", "no time", "Last-Modified: Wed, 25 Nov 2026 08:30:28 GMT\r\n", ""},
	{"get", "the year 10000", "2026", "10000"},
	{"get", "no length", "Content-Length: 4\r\n", ""},
	{"get", "a negative length", "Content-Length: 4", "Content-Length: -4"},
	{"get", "two lengths", "Content-Length: 4", "Content-Length: 4\r\nContent-Length: 5"},
	{"get", "in chunks", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"},
	{"get", "cut short", "Content-Length: 4", "Content-Length: 5"},
	{"get", "a part", "200 OK", "206 Partial Content"},
	{"get", "not modified", "200 OK", "304 Not Modified"},
	{"get", "no content", "200 OK", "204 No Content"},
	{"get", "another protocol", "200 OK", "101 Switching Protocols"},
	{"get", "a broken header", "ETag", "\x1b[31m\u202e\xff\r\nETag"},
	{"get", "a redirect nowhere", "200 OK", "302 Found\r\nLocation: \x7f"},
	{"get", "a redirect to itself", "200 OK", "302 Found\r\nLocation: /images/a"},
	{"stat", "a login page with an ETag", "image/png", "text/html"},
	{"stat", "no length", "Content-Length: 4\r\n", ""},
	{"stat", "accepted", "200 OK", "202 Accepted"},

	{"check", "other bytes", "1234", "1243"},
	{"check", "no digest", "Repr-Digest", "Digest"},
	{"check", "of another algorithm", "sha-256", "sha-384"},
	{"check", "a malformed digest", "=:", "="},
	{"check", "another digest as well", "Repr-Digest: ", "Repr-Digest: sha-512=:" + strings.Repeat("A", 86) + "==:, "},
	{"check", "cut short", "\r\n1234", "\r\n123"},

	{"seek", "all instead of a part", "206 Partial Content", "200 OK"},
	{"seek", "another part", "bytes 1-3/4", "bytes 0-2/4"},
	{"seek", "a part of another length", "bytes 1-3/4", "bytes 1-3/5"},
	{"seek", "no range", "Content-Range: bytes 1-3/4\r\n", ""},
	{"seek", "no length", "Content-Length: 3\r\n", ""},
	{"seek", "too long", "Content-Length: 3", "Content-Length: 4"},
	{"seek", "encoded by a proxy", "ETag", "Content-Encoding: gzip\r\nETag"},
	{"seek", "cut short", "\r\n234", "\r\n23"},

	{"put", "no content", "201 Created", "204 No Content"},
	{"put", "accepted", "201 Created", "202 Accepted"},
	{"put", "another id", `"id":"a"`, `"id":"../x"`},
	{"put", "a negative size", `"size":70`, `"size":-7`},
	{"put", "a huge size", `"size":70`, `"size":` + strings.Repeat("7", 30_000)},
	{"put", "no ETag", `"\"x\""`, `""`},
	{"put", "a weak ETag", `"\"x\""`, `"W/\"x\""`},
	{"put", "no image's type", "image/png", "text/html"},
	{"put", "the year 10000 in UTC", "2026-11-25T08:30:28.5Z", "9999-12-31T23:59:59-23:59"},
	{"put", "the year -1 in UTC", "2026-11-25T08:30:28.5Z", "0000-01-01T00:00:00+23:59"},
	{"put", "the year 10000", "2026", "10000"},
	{"put", "not JSON", "{", "<html>{"},
	{"put", "more than JSON", "}\n", "}7"},
	{"put", "encoded by a proxy", "Content-Type", "Content-Encoding: br\r\nContent-Type"},
	{"put", "cut short", "Content-Type", "Content-Length: 92\r\nContent-Type"},

	{"delete", "200", "204 No Content", "200 OK"},
	{"delete", "hangs up", "HTTP/1.1 204 No Content\r\n\r\n", ""},
	{"delete", "a redirect", "204 No Content", "307 Temporary Redirect\r\nLocation: https://store.example"},

	{"list", "another service's JSON", `"images"`, `"error"`},
	{"list", "null", `{"images":[]}`, "null"},
	{"list", "a path", `"b6"`, `"b/../../etc/passwd"`},
	{"list", "not after the start", `"b6"`, `"b0"`},
	{"list", "outside of the prefix", `"b6"`, `"c"`},
	{"list", "out of order", `"images":[`, `"images":[{"id":"b7","etag":"\"x\""},`},
	{"list", "more than the limit", `"images":[`, `"images":[{"id":"b51","etag":"\"x\""},{"id":"b52","etag":"\"x\""},`},
	{"list", "next goes back", `"next":"b6"`, `"next":"b5"`},
	{"list", "next of nothing", `{"images":[]}`, `{"images":[],"next":"z"}`},
	{"list", "a page again", `{"images":[]}`, `{"images":[{"id":"b6","etag":"\"x\""}]}`},
	{"list", "a negative size", `"size":70`, `"size":-7`},
	{"list", "no ETag", `"\"x\""`, `""`},
	{"list", "no image's type", `"size"`, `"type":"text/html","size"`},
	{"list", "an error with a strange code", `"size"`, `"error":"\u001b[31m\u202e","size"`},
	{"list", "gzip that is none", "Content-Type", "Content-Encoding: gzip\r\nContent-Type"},
}

// TestWrongAnswers has answers that differ from right ones in one place.
func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	for op, answers := range rightAnswers {
		if err := call(t, &script{answers: answers}, op); err != nil {
			t.Errorf("%s with the right answers: got %v, want nil", op, err)
		}
	}
	for _, wrong := range wrongAnswers {
		t.Run(wrong.op+" "+wrong.name, func(t *testing.T) {
			t.Parallel()
			if err := call(t, wrongScript(t, wrong.op, wrong.old, wrong.new), wrong.op); err == nil {
				t.Error("got nil, want an error")
			}
		})
	}
}

func wrongScript(tb testing.TB, op, old, new string) *script {
	s := &script{}
	s.answers = append(s.answers, rightAnswers[op]...)
	for i := len(s.answers) - 1; i >= 0; i-- {
		if answer := strings.Replace(s.answers[i], old, new, 1); answer != s.answers[i] {
			s.answers[i] = answer
			return s
		}
	}
	tb.Fatalf("no right answer to %s has %q", op, old)
	return nil
}

// call calls an operation and checks what is true whatever the server sends.
func call(t *testing.T, s *script, op string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := s.client(t)
	id, method, status := "a", http.MethodGet, http.StatusOK // of an answer without an error
	var err error
	switch op {
	case "put":
		var result imagestore.PutResult
		result, err = c.Put(ctx, id, bytes.NewReader(testimage.PNG(t, 1, 1)))
		method = http.MethodPut
		if !result.Replaced {
			status = http.StatusCreated
		}
		if err == nil {
			wantInfo(t, result.Info, id)
		} else if result != (imagestore.PutResult{}) {
			t.Errorf("got %+v with the error %v, want no result", result, err)
		}
	case "get", "seek", "check":
		if op == "check" {
			c = c.WithDigests()
		}
		var read []byte
		read, status, err = get(ctx, t, c, op == "seek")
		if err == nil {
			if _, b, _ := s.last(method); !bytes.Equal(read, b) {
				t.Errorf("got %q, want %q as sent", read, b)
			}
		}
	case "stat":
		var info imagestore.Info
		info, err = c.Stat(ctx, id)
		method = http.MethodHead
		if err == nil {
			wantInfo(t, info, id)
		}
	case "delete":
		err = c.Delete(ctx, id)
		method, status = http.MethodDelete, http.StatusNoContent
	case "list":
		id = ""
		last := listOptions.After
		var info imagestore.Info
		for info, err = range c.List(ctx, listOptions) {
			if err != nil {
				id = info.ID // of an image that cannot be read
				break
			}
			if wantInfo(t, info, info.ID); imagestore.CheckID(info.ID) != nil || info.ID <= last || !strings.HasPrefix(info.ID, listOptions.Prefix) {
				t.Errorf("got the id %q after %q, want a good one in order", info.ID, last)
			}
			last = info.ID
		}
	}
	if err == nil {
		if resp, _, err := s.last(method); err != nil || resp.StatusCode != status {
			t.Errorf("%s: got no error, although net/http reads %+v, %v", op, resp, err)
		}
		return nil
	}
	if ctx.Err() != nil {
		t.Errorf("%s: got no answer, want one", op)
	}
	wantClean(t, err, strings.NewReplacer("seek", "get", "check", "get").Replace(op), id)
	return err
}

// get reads an image, from its second byte on if it is to seek. It returns what was
// read last, and the status of its answer.
func get(ctx context.Context, t *testing.T, c *client.Client, seek bool) ([]byte, int, error) {
	img, err := c.Get(ctx, "a")
	if err != nil {
		return nil, 0, err
	}
	defer img.Close()
	wantInfo(t, img.Info, "a")
	status := http.StatusOK
	size := img.Size
	if seek && size > 1 {
		if _, err := img.Seek(1, io.SeekStart); err != nil {
			return nil, 0, err
		}
		size--
		status = http.StatusPartialContent
	}
	b, err := io.ReadAll(img)
	if err == nil && int64(len(b)) != size {
		t.Errorf("got %d bytes, want %d", len(b), size)
	}
	return b, status, err
}

// wantInfo checks that an Info is of an image.
func wantInfo(t *testing.T, info imagestore.Info, id string) {
	t.Helper()
	cond, err := imagestore.AllOf(imagestore.IfMatch(info.ETag))
	mediaType, params, _ := mime.ParseMediaType(info.Type)
	_, jsonErr := json.Marshal(info)
	if err = cmp.Or(err, jsonErr); err != nil || cond.Check(info.ETag) != nil || info.ETag == "*" || !isPrintable(info.ETag) || info.ID != id || info.Size < 0 ||
		info.Type != "" && (!strings.HasPrefix(mediaType, "image/") || len(params) != 0) || info.ModTime.Location() != time.UTC {
		t.Errorf("got %+v, %v, want the Info of the image %q", info, err, id)
	}
}

// wantClean checks that an error has an operation and an id, and that it can be
// logged.
func wantClean(t *testing.T, err error, op, id string) {
	t.Helper()
	if e, ok := errors.AsType[*imagestore.Error](err); !ok || e.Op != op || e.ID != id {
		t.Errorf("got %#v, want an Error of %s %q", err, op, id)
	}
	texts := []string{err.Error()}
	if e, ok := errors.AsType[*client.StatusError](err); ok {
		texts = append(texts, e.Error(), e.Method, e.URL, e.Code, e.Detail)
		if e.RetryAfter < 0 {
			t.Errorf("got RetryAfter %v, want it positive", e.RetryAfter)
		}
	}
	for _, text := range texts {
		if !isPrintable(text) || len(text) > 3500 {
			t.Errorf("got a text of %d bytes, %.5000q, want a short one that can be printed", len(text), text)
		}
	}
}

func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return !strconv.IsPrint(c) })
}

// FuzzAnswers sends arbitrary bytes instead of a store's answers.
func FuzzAnswers(f *testing.F) {
	ops := []string{"put", "get", "seek", "stat", "delete", "list", "check"}
	add := func(op int, s *script) {
		f.Add(byte(op), []byte(s.answers[0]), []byte(s.answers[len(s.answers)-1]))
	}
	for i, op := range ops {
		add(i, &script{answers: rightAnswers[op]})
		for _, wrong := range wrongAnswers {
			if wrong.op == op {
				add(i, wrongScript(f, op, wrong.old, wrong.new))
			}
		}
	}
	f.Fuzz(func(t *testing.T, op byte, first, second []byte) {
		call(t, &script{answers: []string{string(first), string(second)}}, ops[int(op)%len(ops)])
	})
}

// TestStatusError has errors of stores and others.
func TestStatusError(t *testing.T) {
	t.Parallel()
	const problem = "\r\nContent-Type: application/problem+json"
	for _, test := range []struct {
		name, header, body string
		want               client.StatusError
		reason             error
		text               string
	}{
		{"a proxy", "404 Not Found", "<html>no such page</html>",
			client.StatusError{StatusCode: 404}, nil, "GET http://store.example/images/a: the answer is 404 Not Found, not an image store's"},
		{"a problem of another", "401 Unauthorized" + problem, `{"code":"not_found","detail":"no such tenant"}`,
			client.StatusError{StatusCode: 401, Detail: "no such tenant"}, nil, "the answer is 401 Unauthorized, not an image store's: no such tenant"},
		{"JSON that is no problem", "401 Unauthorized\r\nContent-Type: application/json", `{"detail":"x"}`,
			client.StatusError{StatusCode: 401}, nil, "not an image store's"},
		{"a status without a text", "599", "", client.StatusError{StatusCode: 599}, nil, "the answer is 599, not"},
		{"a limit of middleware", "429 Too Many Requests\r\nRetry-After: 120", "", client.StatusError{StatusCode: 429, RetryAfter: 2 * time.Minute}, nil, "429"},
		{"a time in the past", "503 x\r\nRetry-After: Wed, 25 Nov 1998 08:30:28 GMT", "", client.StatusError{StatusCode: 503}, nil, "503"},
		{"no time", "503 x\r\nRetry-After: -1", "", client.StatusError{StatusCode: 503}, nil, "503"},
		{"a time too far", "503 x\r\nRetry-After: 99999999999", "", client.StatusError{StatusCode: 503}, nil, "503"},
		{"middleware in a store", "403 Forbidden\r\nLocation: /x\r\nImagestore-Error: foreign_host" + problem, `{"detail":"name it with -hosts"}`,
			client.StatusError{StatusCode: 403, Code: "foreign_host", Detail: "name it with -hosts"}, nil, "403 Forbidden (foreign_host): name it with -hosts"},
		{"a store", "404 Not Found\r\nImagestore-Error: not_found" + problem, `{"detail":"no such image: \"a\""}`,
			client.StatusError{StatusCode: 404, Code: "not_found", Detail: `no such image: "a"`}, imagestore.ErrNotFound, `imagestore: get "a": no such image: "a"`},
		{"a store without a body", "404 Not Found\r\nImagestore-Error: not_found", "",
			client.StatusError{StatusCode: 404, Code: "not_found"}, imagestore.ErrNotFound, `imagestore: get "a": no such image`},
		{"a busy store", "503 x\r\nRetry-After: 1\r\nImagestore-Error: too_many_uploads", "",
			client.StatusError{StatusCode: 503, Code: "too_many_uploads", RetryAfter: time.Second}, imagestore.ErrTooManyUploads, "too many uploads"},
		{"a text for a terminal", "404 x\r\nImagestore-Error: not_found" + problem, `{"detail":"\u001b[31m\nimagestore: get \u202e\u2028\ud800é"}`,
			client.StatusError{StatusCode: 404, Code: "not_found", Detail: `\x1b[31m\nimagestore: get \u202e\u2028` + "\ufffdé"}, imagestore.ErrNotFound, `no such image: \x1b[31m\nimagestore`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := &script{answers: []string{"HTTP/1.1 " + test.header + "\r\n\r\n" + test.body}}
			err := call(t, s, "get")
			e, ok := errors.AsType[*client.StatusError](err)
			if !ok {
				t.Fatalf("got %v, want a StatusError", err)
			}
			test.want.Method, test.want.URL = http.MethodGet, "http://store.example/images/a"
			got := client.StatusError{Method: e.Method, URL: e.URL, StatusCode: e.StatusCode, Code: e.Code, Detail: e.Detail, RetryAfter: e.RetryAfter}
			if got != test.want || errors.Unwrap(e) != test.reason || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %+v with the text %q, want %+v with %q, and the reason %v", got, err, test.want, test.text, test.reason)
			}
		})
	}
}

// TestLongTexts has answers with texts that are too long for an error.
func TestLongTexts(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("\u202e", 10_000)
	for _, answers := range [][]string{
		{"HTTP/1.1 302 Found\r\nLocation: /" + long + "\r\n\r\n", "HTTP/1.1 404 x\r\n\r\n"},
		{"HTTP/1.1 302 Found\r\nLocation: //" + long + "\r\n\r\n", "HTTP/1.1 404 x\r\n\r\n"},
		{"HTTP/1.1 302 Found\r\nLocation: http://[" + long + "\r\n\r\n"},
		{"HTTP/1.1 404 x\r\nImagestore-Error: " + long + "\r\n\r\n"},
		{"HTTP/1.1 404 x\r\nImagestore-Error: not_found\r\nContent-Type: application/problem+json\r\n\r\n" + `{"detail":"` + long + `"}`},
		{"HTTP/1.1 200 OK\r\nContent-Type: " + long + "\r\n\r\n"},
		{"HTTP/1.1 " + long + "\r\n\r\n"},
		{"HTTP/1.1 200 OK\r\n" + long + "\r\n\r\n"},
	} {
		for op := range rightAnswers {
			if err := call(t, &script{answers: answers}, op); err == nil {
				t.Errorf("%s, answered with %.100q: got nil, want an error", op, answers[0])
			}
		}
	}
}

// TestErrorsHideSecrets has a base URL with a password and a redirect with a token.
func TestErrorsHideSecrets(t *testing.T) {
	t.Parallel()
	hc := &http.Client{Transport: testhttp.RoundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host == "login.example" {
			return &http.Response{StatusCode: 401, Body: http.NoBody, Request: r}, nil
		}
		to := http.Header{"Location": {"https://user:hunter2@login.example/login?token=hunter2#hunter2"}}
		return &http.Response{StatusCode: 302, Header: to, Body: http.NoBody}, nil // some transports leave out the Request
	})}
	c, err := client.New("http://user:hunter2@store.example", hc)
	if err != nil {
		t.Fatal(err)
	}
	_, getErr := c.Get(t.Context(), "a")
	for _, err := range []error{getErr, c.Delete(t.Context(), "a")} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "https://login.example/login") {
			t.Errorf("got %v, want an error with the redirect and without its secrets", err)
		}
	}
}

// TestRedirects has a server that sends every request elsewhere.
func TestRedirects(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var elsewhere []string
			store := newStore(t)
			c := dial(t, func(w http.ResponseWriter, r *http.Request) {
				path, found := strings.CutPrefix(r.URL.Path, "/elsewhere")
				if !found {
					http.Redirect(w, r, "/elsewhere"+r.URL.RequestURI(), status)
					return
				}
				elsewhere = append(elsewhere, r.Method+" "+r.Header.Get("If-Match")+r.Header.Get("Range"))
				if r.URL.Path = path; r.Method == http.MethodDelete {
					w.WriteHeader(http.StatusNoContent)
				} else if path == "/images/a" {
					w.Header().Set("Content-Type", "image/png")
					w.Header().Set("ETag", `"x"`)
					http.ServeContent(w, r, "", time.Unix(1, 0), strings.NewReader("1234"))
				} else {
					store.ServeHTTP(w, r)
				}
			})
			_, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1)))
			wantRedirect(t, err, "put", status)
			err = c.Delete(t.Context(), "a", imagestore.IfMatch(`"x"`))
			want := []string{"HEAD ", "GET ", `GET "x"bytes=1-`, "GET "}
			if status < 307 {
				wantRedirect(t, err, "delete", status)
			} else if err != nil {
				t.Errorf("Delete: got %v, want nil", err)
			} else {
				want = append([]string{`DELETE "x"`}, want...) // with its condition
			}
			if _, err := c.Stat(t.Context(), "a"); err != nil {
				t.Errorf("Stat: got %v, want nil", err)
			}
			if _, _, err := get(t.Context(), t, c, true); err != nil {
				t.Errorf("Get and Read after Seek: got %v, want nil", err)
			}
			for _, err := range c.List(t.Context(), imagestore.ListOptions{}) {
				t.Errorf("List: got %v, want nothing", err)
			}
			if got := strings.Join(elsewhere, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("got the requests %q elsewhere, want %q", elsewhere, want)
			}
		})
	}
}

func wantRedirect(t *testing.T, err error, op string, status int) {
	t.Helper()
	wantClean(t, err, op, "a")
	if e, ok := errors.AsType[*client.StatusError](err); !ok || e.StatusCode != status || !strings.Contains(err.Error(), "/elsewhere/images/a is not followed") {
		t.Errorf("%s: got %v, want a StatusError %d that says where it leads", op, err, status)
	}
}

// TestRedirectPolicy checks that the policy of the http.Client decides about the
// redirects that keep the method.
func TestRedirectPolicy(t *testing.T) {
	t.Parallel()
	srv := testhttp.Serve(t, http.RedirectHandler("/images/a", http.StatusFound))
	for want, policy := range map[string]func(*http.Request, []*http.Request) error{
		"stopped after 10 redirects": nil,
		"refused":                    func(*http.Request, []*http.Request) error { return errors.New("refused") },
	} {
		c, err := client.New(srv.URL, &http.Client{Transport: testhttp.Client.Transport, CheckRedirect: policy})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestOtherVersion has a server that does not know If-Match. A Read after a Seek
// must not mix versions.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	for _, other := range []string{`ETag: "y"`, `ETag: W/"x"`, "X: "} {
		s := wrongScript(t, "seek", `ETag: "x"`, other)
		if err := call(t, s, "seek"); !errors.Is(err, imagestore.ErrPreconditionFailed) {
			t.Errorf("answer with %s: got %v, want %v", other, err, imagestore.ErrPreconditionFailed)
		}
	}
}

// TestModTime reads times as exact as the server has sent them.
func TestModTime(t *testing.T) {
	t.Parallel()
	second := time.Date(2026, 11, 25, 8, 30, 28, 0, time.UTC)
	for header, want := range map[string]time.Time{
		"":                                    second,
		"yesterday":                           second,
		"2026-11-25T08:30:28Z":                second,
		"2026-11-25T08:30:28.038778231Z":      second.Add(38778231),
		"2026-11-25T10:30:28.038778231+02:00": second.Add(38778231),
		"2399-01-01T00:00:00.000000001Z":      time.Date(2399, 1, 1, 0, 0, 0, 1, time.UTC),
	} {
		for op, method := range map[string]string{"get": "GET", "stat": "HEAD"} {
			s := wrongScript(t, op, "ETag", "Imagestore-Modified: "+header+"\r\nETag")
			var info imagestore.Info
			img, err := s.client(t).Get(t.Context(), "a")
			if err == nil {
				img.Close()
				info = img.Info
			}
			if method == "HEAD" {
				info, err = s.client(t).Stat(t.Context(), "a")
			}
			if err != nil || info.ModTime != want {
				t.Errorf("%s with Imagestore-Modified %q: got %v, %v, want %v", op, header, info.ModTime, err, want)
			}
		}
	}
	c := (&script{answers: rightAnswers["put"]}).client(t)
	if got, err := c.Put(t.Context(), "a", bytes.NewReader(testimage.PNG(t, 1, 1))); err != nil || got.ModTime != second.Add(500*time.Millisecond) {
		t.Errorf("Put: got %v, %v, want the time of the JSON", got.ModTime, err)
	}
	c = (&script{answers: rightAnswers["list"]}).client(t)
	for got, err := range c.List(t.Context(), listOptions) {
		if err != nil || got.ModTime != second.Add(500*time.Millisecond) {
			t.Errorf("List: got %v, %v, want the time of the JSON", got.ModTime, err)
		}
	}
}

// TestType checks that a type has the form that a Store gives it.
func TestType(t *testing.T) {
	t.Parallel()
	for _, header := range []string{"image/png", "Image/PNG", "image/png; charset=binary", "image/png;"} {
		c := wrongScript(t, "stat", "Content-Type: image/png\r\n", "Content-Type:"+header+"\r\n").client(t)
		if info, err := c.Stat(t.Context(), "a"); err != nil || info.Type != "image/png" {
			t.Errorf("Content-Type %q: got %q, %v, want image/png", header, info.Type, err)
		}
	}
}

// TestAnswerBeforeUpload has a server that answers before it has the image. The
// success of such an answer is none.
func TestAnswerBeforeUpload(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]io.Reader{
		"known length":   bytes.NewReader(make([]byte, 10)),
		"unknown length": io.MultiReader(bytes.NewReader(make([]byte, 10))),
	} {
		read := false
		hc := &http.Client{Transport: testhttp.RoundTripper(func(r *http.Request) (*http.Response, error) {
			if read {
				io.Copy(io.Discard, r.Body)
			} else {
				io.ReadFull(r.Body, make([]byte, 9))
			}
			return http.ReadResponse(bufio.NewReader(strings.NewReader(rightAnswers["put"][0])), r)
		})}
		c, err := client.New("http://store.example", hc)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Put(t.Context(), "a", r)
		wantClean(t, err, "put", "a")
		read = true
		if _, err := c.Put(t.Context(), "a", io.MultiReader(r)); err != nil {
			t.Errorf("%s, after the image: got %v, want nil", name, err)
		}
	}
}

// TestEndlessAnswers has answers that do not end. The client must stop reading.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	const problem = "HTTP/1.1 404 x\r\nImagestore-Error: not_found\r\nContent-Type: application/problem+json\r\n\r\n"
	for _, test := range []struct{ name, begin, again string }{
		{"a status line", "HTTP/1.1 200 ", "x"},
		{"a header field", "HTTP/1.1 200 OK\r\nX: ", "x"},
		{"a header", "HTTP/1.1 200 OK\r\n", "X: y\r\n"},
		{"interim answers", "", "HTTP/1.1 102 Processing\r\n\r\n"},
		{"text of an error", problem + `{"detail":"`, "x"},
		{"fields of an error", problem + `{`, `"x":"y",`},
		{"spaces after a list", "HTTP/1.1 200 OK\r\n\r\n" + `{"images":[]}`, " "},
		{"spaces", "HTTP/1.1 200 OK\r\n\r\n", " "},
		{"depth", "HTTP/1.1 200 OK\r\n\r\n", `{"images":[`},
		{"images", "HTTP/1.1 200 OK\r\n\r\n" + `{"images":[`, `{},`},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"},
		{"a chunk's extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", "x"},
		{"a trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n"},
	} {
		for _, op := range []string{"put", "get", "stat", "delete", "list"} {
			t.Run(test.name+" "+op, func(t *testing.T) {
				t.Parallel()
				s := &script{answers: []string{test.begin}, again: test.again}
				if err := call(t, s, op); err == nil || s.sent.Load() >= far {
					t.Errorf("got %v after %d bytes, want an error before %d", err, s.sent.Load(), far)
				}
			})
		}
	}
}
