package s3_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ba692904/imagestore"
)

func TestListPages(t *testing.T) {
	svc := newService(t)
	const images = 1001 // one more than a page
	var want []string
	for i := range images {
		want = append(want, fmt.Sprintf("%04d", i))
	}
	var wg sync.WaitGroup
	for part := range slices.Chunk(want, images/16+1) {
		wg.Go(func() {
			for _, id := range part {
				if _, err := svc.PutObject(t.Context(), id, strings.NewReader("x"), imagestore.Condition{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	svc.wire.sent()
	for _, test := range []struct {
		opts imagestore.ListOptions
		want []string
		sent []string
	}{
		{imagestore.ListOptions{}, want, []string{"LIST", "LIST"}},
		{imagestore.ListOptions{After: "0000"}, want[1:], []string{"LIST"}},
		{imagestore.ListOptions{Limit: 1000}, want[:1000], []string{"LIST"}},
		{imagestore.ListOptions{Limit: 1001}, want, []string{"LIST", "LIST"}},
		{imagestore.ListOptions{Limit: 1}, want[:1], []string{"LIST"}},
		{imagestore.ListOptions{After: "0500x", Limit: 3}, want[501:504], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09"}, want[900:1000], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "0989"}, want[990:1000], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "09"}, want[900:1000], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "05"}, want[900:1000], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "0"}, want[900:1000], []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "0999"}, nil, []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "1"}, nil, []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "."}, nil, nil},
		{imagestore.ListOptions{Prefix: ".."}, nil, nil},
		{imagestore.ListOptions{Prefix: "00", After: ".."}, want[:100], []string{"LIST"}},
		{imagestore.ListOptions{After: "/", Limit: 1}, want[:1], []string{"LIST"}},
		{imagestore.ListOptions{After: "~"}, nil, []string{"LIST"}},
		{imagestore.ListOptions{Prefix: "09", After: "05", Limit: 2}, want[900:902], []string{"LIST"}},
	} {
		if got := list(t, svc, test.opts); !slices.Equal(got, test.want) {
			t.Errorf("%+v: got %d ids, %.5q; want %d, %.5q", test.opts, len(got), got, len(test.want), test.want)
		}
		svc.wire.wantSent(t, fmt.Sprintf("%+v", test.opts), test.sent...)
	}
	for range svc.List(t.Context(), imagestore.ListOptions{}) {
		break
	}
	svc.wire.wantSent(t, "the first of 1001 images", "LIST")
	svc.wire.interfere(func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if got := r.URL.Query().Get("max-keys"); got != "7" {
			t.Errorf("got max-keys %s, want 7", got)
		}
		return next.RoundTrip(r)
	})
	list(t, svc, imagestore.ListOptions{Limit: 7})
}

// TestListSkips has objects of others, whose keys are no ids.
func TestListSkips(t *testing.T) {
	svc := newService(t)
	foreign := []string{"", "+", "100%", "a b", "a%2Fb", "a+b", "a/image", "a&b", "<a>", "ä", `"a"`, "a\x01b", ".check-x", "con", "dot."}
	for _, key := range foreign {
		if key == "" { // the prefix alone, which some tools make for a folder
			svc.putRaw(t, "", nil)
			continue
		}
		svc.putRaw(t, key, text('a', 10))
	}
	for _, id := range []string{"a", "b", "c"} {
		put(t, svc, id, text('a', 10))
	}
	if got, want := list(t, svc, imagestore.ListOptions{}), []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("got ids %q, want %q", got, want)
	}
	for limit := 1; limit <= 3; limit++ {
		svc.wire.sent()
		if got := list(t, svc, imagestore.ListOptions{Limit: limit}); len(got) != limit {
			t.Errorf("limit %d: got ids %q", limit, got)
		}
		if got := len(svc.wire.sent()); got > 2 {
			t.Errorf("limit %d: got %d requests, want at most 2", limit, got)
		}
	}
}

// answerList answers with a list.
func answerList(content string) fault {
	return func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := answer(200, "")(r, next)
		body := "<ListBucketResult>" + content + "</ListBucketResult>"
		resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return resp, err
	}
}

// TestListGoesOn has a service that does not say how to go on.
func TestListGoesOn(t *testing.T) {
	svc := newService(t)
	svc.wire.interfere(answerList("<IsTruncated>true</IsTruncated>"))
	wantOtherError(t, "List", operations["List"](t.Context(), svc.Driver), imagestore.ErrUnavailable)
	svc.wire.wantSent(t, "List", "LIST")
}

// TestListOutOfOrder has services that do not list as S3 prescribes.
func TestListOutOfOrder(t *testing.T) {
	svc := newService(t)
	svc.wire.interfere(answerList("<Contents><Key>other</Key></Contents>" +
		"<Contents><Key>" + svc.prefix + "b</Key></Contents><Contents><Key>" + svc.prefix + "a</Key></Contents>"))
	for after, want := range map[string][]string{"": {"b"}, "b": nil} { // the latter is ignored
		var ids []string
		var last error
		for info, err := range svc.List(t.Context(), imagestore.ListOptions{After: after}) {
			if last = err; err == nil {
				ids = append(ids, info.ID)
			} else if info != (imagestore.Info{}) {
				t.Errorf("got %+v with the error, want the zero Info", info)
			}
		}
		if !slices.Equal(ids, want) {
			t.Errorf("after %q: got ids %q, want %q", after, ids, want)
		}
		wantError(t, "List", last, imagestore.ErrNotImplemented)
	}
}
