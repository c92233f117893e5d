// Package guard keeps web pages of other sites from using a server through the
// browser of somebody who can reach it.
package guard

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/ba692904/imagestore/internal/problem"
)

// New returns a handler that refuses, before h sees them, requests to change
// something that a browser sends for another site's page, as
// [http.CrossOriginProtection] tells them.
//
// With checkHost it refuses as well whatever is not addressed to this machine
// by a loopback name or to one of hosts, whatever the port: a page whose domain suddenly resolves
// to 127.0.0.1 is of the same origin as far as the browser can tell (DNS
// rebinding), but it cannot choose another Host.
func New(h http.Handler, checkHost bool, hosts []string) http.Handler {
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, http.StatusForbidden, "cross_origin",
			fmt.Sprintf("a page of another site (Origin %.100q) may not change anything here", r.Header.Get("Origin")))
	}))
	h = origins.Handler(h)
	if !checkHost {
		return h
	}
	allowed := func(name string) bool {
		return isLoopback(name) || slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(hostname(host), name) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name := hostname(r.Host); !allowed(name) {
			problem.Write(w, http.StatusForbidden, "foreign_host",
				fmt.Sprintf("the request is for the host %.100q; if a reverse proxy passes that on, name it with the flag -hosts", name))
			return
		}
		h.ServeHTTP(w, r)
	})
}

// hostname returns a Host header field without the port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

func isLoopback(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}
