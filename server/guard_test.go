package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// embedded returns what a browser sends for an element of a page.
func embedded(dest, referer string) map[string]string {
	h := map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": dest}
	if referer != "" {
		h["Referer"] = referer
	}
	return h
}

func TestGuard(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for _, test := range []struct {
		name      string
		checkHost bool
		hosts     []string
		method    string
		host      string
		header    map[string]string
		code      string // "" where the request passes
		text      string // part of the answer
	}{
		{"curl", true, nil, "PUT", "127.0.0.1:8080", nil, "", ""},
		{"localhost", true, nil, "PUT", "LocalHost:8080", nil, "", ""},
		{"another loopback address", true, nil, "PUT", "127.1.2.3", nil, "", ""},
		{"IPv6", true, nil, "PUT", "[::1]:8080", nil, "", ""},
		{"IPv6 without a port", true, nil, "PUT", "[::1]", nil, "", ""},
		{"IPv4 in IPv6", true, nil, "PUT", "[::ffff:127.0.0.1]:80", nil, "", ""},
		{"rebound name, read", true, nil, "GET", "evil.example:8080", nil, "foreign_host", "add it to the hosts"},
		{"rebound name, write", true, nil, "PUT", "evil.example", nil, "foreign_host", "evil.example"},
		{"rebound name, own origin", true, nil, "PUT", "evil.example", map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, "foreign_host", ""},
		{"a name that begins like ours", true, nil, "GET", "localhost.evil.example", nil, "foreign_host", ""},
		{"another address", true, nil, "GET", "192.0.2.1", nil, "foreign_host", ""},
		{"no host", true, nil, "GET", "", nil, "foreign_host", ""},
		{"localhost with a dot", true, nil, "PUT", "localhost.:8080", nil, "", ""},
		{"below localhost", true, nil, "PUT", "App.localhost:8080", nil, "", ""},
		{"below localhost with a dot", true, nil, "PUT", "app.localhost.", nil, "", ""},
		{"a name that ends like ours", true, nil, "GET", "evillocalhost", nil, "foreign_host", ""},
		{"no port", true, nil, "GET", "localhost:evil.example", nil, "foreign_host", "localhost:evil.example"},
		{"a zone", true, nil, "GET", "[::1%evil.example]", nil, "foreign_host", ""},
		{"the proxy's name with a dot", true, []string{"photos.example"}, "GET", "photos.example.:443", nil, "", ""},
		{"the proxy's name in -hosts with a dot", true, []string{"Photos.example."}, "GET", "photos.example", nil, "", ""},
		{"the proxy's IPv6 address", true, []string{"2001:DB8:0::1"}, "GET", "[2001:db8::1]:80", nil, "", ""},
		{"the proxy's name", true, []string{"a.example", "photos.example"}, "GET", "Photos.example:443", nil, "", ""},
		{"not the proxy's name", true, []string{"photos.example"}, "GET", "evil.example", nil, "foreign_host", ""},
		{"the proxy's name and port", true, []string{"photos.example:8443"}, "GET", "photos.example:8443", nil, "", ""},
		{"unchecked", false, nil, "PUT", "evil.example", nil, "", ""},
		{"another site's page", false, nil, "POST", "a.example", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, "cross_origin", "evil.example"},
		{"another site's page, old browser", true, nil, "DELETE", "127.0.0.1", map[string]string{"Origin": "https://evil.example"}, "cross_origin", "evil.example"},
		{"another site's page, old browser, its own port", true, nil, "PUT", "127.0.0.1:8080", map[string]string{"Origin": "http://127.0.0.1:1"}, "cross_origin", ""},
		{"own origin behind a proxy that passes another Host on", true, []string{"photos.example"}, "POST", "127.0.0.1:8080", map[string]string{"Origin": "http://Photos.example.:8443"}, "", ""},
		{"own origin, new browser, such a proxy", false, []string{"photos.example"}, "POST", "imaged:8080", map[string]string{"Origin": "https://photos.example", "Sec-Fetch-Site": "cross-site"}, "", ""},
		{"another origin behind such a proxy", true, []string{"photos.example"}, "POST", "127.0.0.1:8080", map[string]string{"Origin": "http://evil.example"}, "cross_origin", `its Origin is \"http://evil.example\", the Host of the request is \"127.0.0.1:8080\"; a proxy must pass the Host on, in nginx with proxy_set_header Host $http_host`},
		{"an origin that has our name as a user", true, []string{"photos.example"}, "POST", "127.0.0.1", map[string]string{"Origin": "http://photos.example@evil.example"}, "cross_origin", ""},
		{"an origin that is no web page", true, []string{"photos.example"}, "POST", "127.0.0.1", map[string]string{"Origin": "chrome-extension://photos.example"}, "cross_origin", ""},
		{"an opaque origin", true, []string{"photos.example"}, "POST", "127.0.0.1", map[string]string{"Origin": "null"}, "cross_origin", ""},
		{"a page on loopback changes", true, nil, "POST", "127.0.0.1:8080", map[string]string{"Origin": "http://localhost:3000", "Sec-Fetch-Site": "cross-site"}, "cross_origin", ""},

		{"<img> elsewhere", true, nil, "GET", "127.0.0.1", embedded("image", "https://evil.example/"), "cross_origin", "a page on localhost needs a referrer policy"},
		{"<img> elsewhere, all interfaces", false, nil, "GET", "localhost:8080", embedded("image", "https://evil.example/"), "cross_origin", "$http_host"},
		{"<img> without referrer", true, nil, "GET", "app.localhost", embedded("image", ""), "cross_origin", ""},
		{"<object>", true, nil, "GET", "[::1]:8080", embedded("object", "https://evil.example/"), "cross_origin", ""},
		{"this machine by another address", false, nil, "GET", "0.0.0.0:8080", embedded("image", ""), "cross_origin", ""},
		{"HEAD", true, nil, "HEAD", "127.0.0.1", embedded("empty", "https://evil.example/"), "cross_origin", ""},
		{"OPTIONS", true, nil, "OPTIONS", "127.0.0.1", embedded("empty", "https://evil.example/"), "cross_origin", ""},
		{"<iframe>", true, nil, "GET", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, "cross_origin", ""},
		{"prefetch of a page", true, nil, "GET", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch"}, "cross_origin", ""},
		{"a resource that claims to be a page", true, nil, "GET", "127.0.0.1", embedded("document", ""), "cross_origin", ""},
		{"a link elsewhere", true, nil, "GET", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Referer": "https://evil.example/"}, "", ""},
		{"<img> on loopback", true, nil, "GET", "127.0.0.1:8080", embedded("image", "http://localhost:3000/"), "", ""},
		{"<img> on IPv6 loopback", true, nil, "GET", "127.0.0.1:8080", embedded("image", "http://[::1]:3000/"), "", ""},
		{"<img crossorigin> on loopback", true, nil, "GET", "127.0.0.1:8080", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": "https://app.localhost:3000"}, "", ""},
		{"<img> that names loopback", true, nil, "GET", "127.0.0.1", embedded("image", "https://evil.example/http://localhost/"), "cross_origin", ""},
		{"<img> below our name", true, nil, "GET", "127.0.0.1", embedded("image", "https://localhost.evil.example/"), "cross_origin", ""},
		{"<img> on another port of the same host", true, nil, "GET", "localhost:8080", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, "", ""},
		{"<img> on a page of ours behind a proxy that passes another Host on", true, []string{"photos.example"}, "GET", "127.0.0.1", embedded("image", "https://photos.example/"), "", ""},
		{"<img> elsewhere, public name", true, []string{"photos.example"}, "GET", "photos.example", embedded("image", "https://blog.example/"), "", ""},
		{"own page", true, nil, "POST", "localhost:8080", map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:8080"}, "", ""},
		{"typed into the address bar", true, nil, "GET", "localhost:8080", map[string]string{"Sec-Fetch-Site": "none"}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest(test.method, "/images/a", nil)
			r.Host = test.host
			for k, v := range test.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			hosts, err := parseHosts(test.hosts)
			if err != nil {
				t.Fatal(err)
			}
			(&guard{images: h, hosts: hosts, checkHost: test.checkHost, checkReads: true}).ServeHTTP(w, r)
			status, contentType := http.StatusNoContent, ""
			if test.code != "" {
				status, contentType = http.StatusForbidden, "application/problem+json"
			}
			header := w.Result().Header
			if w.Code != status || header.Get("Imagestore-Error") != test.code || header.Get("Content-Type") != contentType || !strings.Contains(w.Body.String(), test.text) {
				t.Errorf("got %d %v %s, want %d with code %q and text %q", w.Code, header, w.Body, status, test.code, test.text)
			}
		})
	}
}

// TestParseHost checks which Host header fields are well-formed, and what they name.
func TestParseHost(t *testing.T) {
	for s, want := range map[string]string{
		"localhost": "localhost", "LOCALHOST.:8080": "localhost", "a-b_c.example:80": "a-b_c.example", "1.example": "1.example",
		"127.0.0.1": "127.0.0.1", "127.0.0.1.": "127.0.0.1", "192.0.2.1:65535": "192.0.2.1",
		"[::1]": "::1", "[0:0::1]:80": "::1", "[::ffff:127.0.0.1]": "127.0.0.1",
		"": "", ".": "", "..": "", ":80": "", "[]": "", "[": "", "]": "", "[:": "", "a..example": "", ".localhost": "", "localhost..": "",
		"localhost:": "", "localhost:evil.example": "", "localhost:99999": "", "localhost:-1": "", "localhost:+1": "", "localhost:80:80": "",
		"::1": "", "[::1": "", "::1]": "", "[::1]:": "", "[::1]x": "", "[::1]:x": "", "[::1%evil.example]": "", "[::1%25lo]": "",
		"[127.0.0.1]": "", "[localhost]": "", "127.1": "", "0x7f.1": "", "2130706433": "", "127.0.0.01": "", "127.0.0.1:80.": "",
		"localhost/": "", "a@localhost": "", "localhost%2e": "", "bücher.example": "", "*.localhost": "", "a,localhost": "", "local host": "",
	} {
		h := parseHost(s)
		got := h.name
		if h.addr.IsValid() {
			got += h.addr.String()
		}
		if got != want {
			t.Errorf("%q: got host %q, want %q", s, got, want)
		}
	}
}

func TestIsLoopback(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true, "localhost:80": true, "a.b.localhost": true,
		"0.0.0.0:80": false, "[::]:80": false, "192.0.2.1:80": false, "/run/imaged.sock": false, "@": false, "": false,
		"localhost.example": false, "notlocalhost": false, "localhost:evil.example": false, "[::1%evil.example]": false,
	} {
		if got := parseHost(addr).isLoopback(); got != want {
			t.Errorf("%q: got %v, want %v", addr, got, want)
		}
	}
}

// TestParseHosts checks that names that can never match are refused, with what was
// probably meant.
func TestParseHosts(t *testing.T) {
	for name, want := range map[string]string{
		"photos.example": "", "photos.example.:8443": "", "::1": "", "[::1]:80": "", "192.0.2.1": "", "localhost": "",
		"https://photos.example/": "photos.example", "photos.example/images": "photos.example", "http://[::1]:80/": "[::1]:80",
		".example.com": "www.example.com", "*.example.com": "www.example.com", "*": "photos.example", "": "photos.example",
		"bücher.example": "photos.example", "127.1": "photos.example", "::1%lo": "photos.example", "a b": "photos.example",
	} {
		_, err := parseHosts([]string{"a.example", name})
		if want != "" {
			want = fmt.Sprintf("has %q: it must be a host name in ASCII or an address, without scheme, path or pattern, such as %s", name, want)
		}
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%q:\n got %v\nwant %s", name, err, want)
		}
	}
}
