package storetest_test

import (
	"compress/gzip"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/ba692904/imagestore"
	"github.com/ba692904/imagestore/storetest"
	"github.com/ba692904/imagestore/storetest/testhttp"
)

func handler(t *testing.T, opts *imagestore.Options) http.Handler {
	return imagestore.NewHandler(imagestore.New(onDisk(t), opts), &imagestore.HandlerOptions{Logger: testhttp.Quiet})
}

func serve(t *testing.T, h http.Handler) string { return testhttp.Serve(t, h).URL }

// proxy returns a reverse proxy for a URL.
func proxy(t *testing.T, target string) *httputil.ReverseProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// TestMounts runs the suite on mounts that keep the contract.
func TestMounts(t *testing.T) {
	for name, mount := range map[string]func(t *testing.T) (baseURL string){
		"plain":       func(t *testing.T) string { return serve(t, handler(t, nil)) },
		"StripPrefix": func(t *testing.T) string { return serve(t, http.StripPrefix("/api/v1", handler(t, nil))) + "/api/v1" },
		"small limit": func(t *testing.T) string { return serve(t, handler(t, &imagestore.Options{MaxBytes: 2 << 20})) },
		"ServeMux": func(t *testing.T) string {
			images := http.StripPrefix("/api", handler(t, nil))
			mux := http.NewServeMux()
			mux.Handle("/api/images", images)
			mux.Handle("/api/images/", images)
			return serve(t, mux) + "/api"
		},
		"ReverseProxy": func(t *testing.T) string { return serve(t, proxy(t, serve(t, handler(t, nil)))) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.TestHandler(t, mount(t), nil)
		})
	}
	t.Run("authentication", func(t *testing.T) {
		t.Parallel()
		inner := handler(t, nil)
		base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, password, _ := r.BasicAuth(); password != "secret" {
				http.Error(w, "unauthorized", http.StatusUnauthorized)
				return
			}
			inner.ServeHTTP(w, r)
		}))
		storetest.TestHandler(t, base+"/", &http.Client{Transport: testhttp.RoundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.SetBasicAuth("me", "secret")
			return testhttp.Client.Transport.RoundTrip(r)
		})})
	})
}

// without is middleware that drops header fields of requests.
func without(h http.Handler, names ...string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range names {
			r.Header.Del(name)
		}
		h.ServeHTTP(w, r)
	})
}

// A zipper compresses answers and keeps their ETags.
type zipper struct {
	http.ResponseWriter
	zip *gzip.Writer
}

func (z *zipper) WriteHeader(status int) {
	if status == http.StatusOK {
		z.Header().Del("Content-Length")
		z.Header().Set("Content-Encoding", "gzip")
		z.zip = gzip.NewWriter(z.ResponseWriter)
	}
	z.ResponseWriter.WriteHeader(status)
}

func (z *zipper) Write(p []byte) (int, error) {
	if z.zip == nil {
		return z.ResponseWriter.Write(p)
	}
	return z.zip.Write(p)
}

func zip(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			h.ServeHTTP(w, r)
			return
		}
		z := &zipper{ResponseWriter: w}
		h.ServeHTTP(z, r)
		if z.zip != nil {
			z.zip.Close()
		}
	})
}

// changing is a proxy that changes answers.
func changing(t *testing.T, change func(*http.Response) error) http.Handler {
	p := proxy(t, serve(t, handler(t, nil)))
	p.ModifyResponse = change
	return p
}

// brokenMounts are mounts that break the contract.
var brokenMounts = []struct {
	name  string
	mount func(t *testing.T) (baseURL string)
	fails []string
	says  string
}{
	{
		name:  "gzip that keeps the ETag",
		mount: func(t *testing.T) string { return serve(t, zip(handler(t, nil))) },
		fails: []string{"GET"},
		says:  "the image arrives compressed",
	}, {
		name: "weak ETags",
		mount: func(t *testing.T) string {
			return serve(t, changing(t, func(r *http.Response) error {
				if etag := r.Header.Get("ETag"); etag != "" && r.Request.Method == http.MethodGet {
					r.Header.Set("ETag", "W/"+etag)
				}
				return nil
			}))
		},
		fails: []string{"GET", "Range", "If-None-Match and If-Modified-Since on reads"},
		says:  "want the ETag of the upload: got W/",
	}, {
		name:  "drops If-None-Match",
		mount: func(t *testing.T) string { return serve(t, without(handler(t, nil), "If-None-Match")) },
		fails: []string{"If-None-Match and If-Modified-Since on reads", "If-None-Match on changes", "of writers at once one wins", "bad requests"},
		says:  "does a proxy or middleware drop If-None-Match?",
	}, {
		name: "a page of its own for 404",
		mount: func(t *testing.T) string {
			return serve(t, changing(t, func(r *http.Response) error {
				if r.StatusCode == http.StatusNotFound {
					r.Header = http.Header{"Content-Type": {"text/html"}}
					r.Body.Close()
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader("<h1>Oops</h1>")), -1
				}
				return nil
			}))
		},
		fails: []string{"DELETE", "no such image", "bad requests"},
		says:  "the answer 404 Not Found to GET has no header Imagestore-Error",
	}, {
		name: "redirects",
		mount: func(t *testing.T) string {
			inner := handler(t, nil)
			return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if p, ok := strings.CutPrefix(r.URL.Path, "/v2"); ok {
					r.URL.Path = p
					inner.ServeHTTP(w, r)
					return
				}
				http.Redirect(w, r, "/v2"+r.URL.Path, http.StatusMovedPermanently)
			}))
		},
		fails: []string{
			"upload as the body", "upload as a form", "upload under a new id", "upload of unknown length", "upload of 1 MiB", "upload cut short",
			"GET", "HEAD", "Range", "If-None-Match and If-Modified-Since on reads", "If-Match on reads", "If-None-Match on changes", "If-Match on changes",
			"of writers at once one wins", "DELETE", "no such image", "list", "OPTIONS", "other methods", "bad ids", "bad requests", "bad images", "too large", "digests",
		},
		says: "clients do not repeat uploads there",
	}, {
		name:  "drops Range",
		mount: func(t *testing.T) string { return serve(t, without(handler(t, nil), "Range")) },
		fails: []string{"Range"},
		says:  "does a proxy or middleware drop Range or If-Range?",
	}, {
		name:  "drops Repr-Digest",
		mount: func(t *testing.T) string { return serve(t, without(handler(t, nil), "Repr-Digest")) },
		fails: []string{"digests"},
		says:  "does a proxy or middleware drop Repr-Digest?",
	}, {
		name: "drops Repr-Digest from answers",
		mount: func(t *testing.T) string {
			return serve(t, changing(t, func(r *http.Response) error {
				r.Header.Del("Repr-Digest")
				return nil
			}))
		},
		fails: []string{"digests"},
		says:  "does a proxy or middleware drop Want-Repr-Digest or Repr-Digest?",
	}, {
		// The store does not know the prefix /store.
		name: "a prefix that the proxy takes away",
		mount: func(t *testing.T) string {
			return serve(t, http.StripPrefix("/store", proxy(t, serve(t, handler(t, nil))))) + "/store"
		},
		fails: []string{"upload as the body", "upload as a form", "upload under a new id", "upload of unknown length", "upload of 1 MiB", "If-None-Match on changes"},
		says:  "does a proxy change paths, so that the store cannot know its own?",
	}, {
		name: "limits bodies",
		mount: func(t *testing.T) string {
			inner := handler(t, nil)
			return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.ContentLength > 1_000_000 {
					http.Error(w, "too much", http.StatusRequestEntityTooLarge)
					return
				}
				inner.ServeHTTP(w, r)
			}))
		},
		fails: []string{"upload of 1 MiB"},
		says:  "not by the store: does a proxy limit the size of bodies?",
	},
}

// TestBrokenMounts runs the suite for each broken mount, in a process of its own.
func TestBrokenMounts(t *testing.T) {
	for _, test := range brokenMounts {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			failed, out := rerun(t, "TestBrokenMount", test.name)
			wantFailures(t, failed, out, test.fails, test.says)
		})
	}
}

// TestBrokenMount runs the suite in the other processes.
func TestBrokenMount(t *testing.T) {
	for _, test := range brokenMounts {
		if test.name == os.Getenv(rerunEnv) {
			storetest.TestHandler(t, test.mount(t), nil)
			return
		}
	}
	if os.Getenv(rerunEnv) != "" {
		t.Fatal("no such mount")
	}
}
