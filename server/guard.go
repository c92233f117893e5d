package server

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/ba692904/imagestore/internal/problem"
)

// A guard protects the images from web pages of other sites in a browser that can
// reach the server. The refusals do not depend on the stored images.
type guard struct {
	images http.Handler
	hosts  []host
	// checkHost refuses requests for other hosts than hosts and those of the
	// loopback interface. A page whose domain suddenly resolves to 127.0.0.1 has
	// the same origin as the server (DNS rebinding). It cannot choose another Host.
	checkHost bool
	// checkReads refuses reads that a browser sends to the loopback interface for a
	// page elsewhere. Such a page could find out by <img> which images somebody has.
	checkReads bool
	changes    http.CrossOriginProtection
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := parseHost(r.Host)
	local := h.isLoopback() // some browsers take 0.0.0.0 for this machine too
	switch {
	case g.checkHost && !local && !slices.Contains(g.hosts, h) && !isWithoutHost(r):
		problem.Write(w, http.StatusForbidden, "foreign_host",
			fmt.Sprintf("the request is for the host %.100q, which is not one of this server's; if that is its name, add it to the hosts in the server's configuration", r.Host))
	case g.changes.Check(r) != nil && !slices.Contains(g.hosts, hostOf(r.Header.Get("Origin"))):
		problem.Write(w, http.StatusForbidden, "cross_origin",
			fmt.Sprintf("a page of another site may not change anything here: its Origin is %.100q, the Host of the request is %.100q; %s",
				r.Header.Get("Origin"), r.Host, passHost))
	case g.checkReads && (local || h.addr.IsUnspecified()) && isEmbedded(r) && !g.isOwn(hostOf(r.Header.Get("Origin"))) && !g.isOwn(hostOf(r.Referer())):
		problem.Write(w, http.StatusForbidden, "cross_origin",
			fmt.Sprintf("a page of another site may not use what is on this machine: the Host of the request is %.100q, and neither Origin nor Referer names a page on localhost; "+
				"a page on localhost needs a referrer policy that sends its origin; %s", r.Host, passHost))
	default:
		g.images.ServeHTTP(w, r)
	}
}

const passHost = "a proxy must pass the Host on, in nginx with proxy_set_header Host $http_host, or the name of the site must be in the hosts of the server's configuration"

// isOwn reports whether pages of h may use images on the loopback interface.
func (g *guard) isOwn(h host) bool { return h.isLoopback() || slices.Contains(g.hosts, h) }

// isWithoutHost recognizes what health checks of some proxies send. A browser sends
// HTTP/1.1, which net/http refuses without a Host.
func isWithoutHost(r *http.Request) bool { return r.Host == "" && !r.ProtoAtLeast(1, 1) }

// isEmbedded reports whether a browser sends r for a page of another site. A link
// that the user follows does not count. A page of the same site is on the loopback
// interface too. Chromium sends "none" for a prefetch that a page asks for.
func isEmbedded(r *http.Request) bool {
	h := r.Header
	return h.Get("Sec-Fetch-Site") == "cross-site" && (h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document") ||
		h.Get("Sec-Purpose") != ""
}
