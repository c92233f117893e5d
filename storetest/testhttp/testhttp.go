// Package testhttp has what tests of handlers, servers and clients share.
package testhttp

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Quiet is a logger that discards everything.
var Quiet = slog.New(slog.DiscardHandler)

// Client has connections of its own. A test that closes an [httptest.Server] also
// closes the connections of [http.DefaultClient], which other tests may be using.
var Client = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}

// Serve starts a server for h. It is closed when the test ends.
func Serve(tb testing.TB, h http.Handler) *httptest.Server {
	tb.Helper()
	srv := httptest.NewServer(h)
	tb.Cleanup(srv.Close)
	return srv
}

// A RoundTripper is a function that is a transport.
type RoundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f RoundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// An Answer is a response whose body has been read.
type Answer struct {
	*http.Response
	Bytes []byte
}

// Code returns the code of an error, or "".
func (a Answer) Code() string { return a.Header.Get("Imagestore-Error") }

// Do sends a request with header fields given in pairs, and reads the answer.
func Do(ctx context.Context, hc *http.Client, method, url string, body io.Reader, header ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return Answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := hc.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Answer{resp, b}, err
}

// Request is Do with Client. The test ends if there is no answer.
func Request(tb testing.TB, method, url string, body io.Reader, header ...string) Answer {
	tb.Helper()
	a, err := Do(tb.Context(), Client, method, url, body, header...)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}
