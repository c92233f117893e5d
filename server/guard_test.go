package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

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
		{"the proxy's name", true, []string{"a.example", "photos.example"}, "GET", "Photos.example:443", nil, "", ""},
		{"not the proxy's name", true, []string{"photos.example"}, "GET", "evil.example", nil, "foreign_host", ""},
		{"the proxy's name and port", true, []string{"photos.example:8443"}, "GET", "photos.example:8443", nil, "", ""},
		{"unchecked", false, nil, "PUT", "evil.example", nil, "", ""},
		{"another site's page", false, nil, "POST", "a.example", map[string]string{"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, "cross_origin", "evil.example"},
		{"another site's page, old browser", true, nil, "DELETE", "127.0.0.1", map[string]string{"Origin": "https://evil.example"}, "cross_origin", "evil.example"},
		{"another site's page, old browser, its own port", true, nil, "PUT", "127.0.0.1:8080", map[string]string{"Origin": "http://127.0.0.1:1"}, "cross_origin", ""},
		{"another site's page reads", true, nil, "GET", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site"}, "", ""},
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
			guard(h, test.checkHost, test.hosts).ServeHTTP(w, r)
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
