package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/ba692904/imagestore/internal/problem"
)

// guard protects h from web pages of other sites in a browser that can reach the
// server. It refuses changes that the browser sends for another site, as
// [http.CrossOriginProtection] recognizes them.
//
// With checkHost it also refuses requests for other hosts than hosts and those
// of the loopback interface, on any port. A page whose domain suddenly resolves
// to 127.0.0.1 has the same origin as the server (DNS rebinding). It cannot
// choose another Host.
func guard(h http.Handler, checkHost bool, hosts []string) http.Handler {
	origins := http.NewCrossOriginProtection()
	origins.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		problem.Write(w, http.StatusForbidden, "cross_origin",
			fmt.Sprintf("a page of another site, with the Origin %.100q, may not change anything here", r.Header.Get("Origin")))
	}))
	h = origins.Handler(h)
	if !checkHost {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostname(r.Host)
		if !isLoopback(name) && !slices.ContainsFunc(hosts, func(host string) bool { return strings.EqualFold(hostname(host), name) }) {
			problem.Write(w, http.StatusForbidden, "foreign_host",
				fmt.Sprintf("the request is for the host %.100q, which is not one of this server's; if that is its name, add it to the hosts in the server's configuration", name))
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

// isLoopback reports whether a name, or an address, is this machine's own.
func isLoopback(name string) bool {
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// checkHosts finds hosts that no request can be for, such as URLs.
func checkHosts(hosts []string) error {
	for _, host := range hosts {
		if name := hostname(host); name == "" || strings.ContainsAny(host, "/*?#@, \t\r\n") {
			return fmt.Errorf("has %q: it must be a host name or an address, such as photos.example", host)
		}
	}
	return nil
}
