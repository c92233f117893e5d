package server

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// A host is a name in lower case without a trailing dot, or an address. Hosts can
// be compared with ==. The zero host is none.
type host struct {
	name string
	addr netip.Addr // an IPv4 address within IPv6 is IPv4
}

// parseHost returns the host of a Host header field: host[:port] (RFC 9110, section
// 7.2). It returns the zero host for anything else, such as "localhost:evil.example".
func parseHost(s string) host {
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		if _, err := strconv.ParseUint(s[i+1:], 10, 16); err != nil {
			return host{}
		}
		s = s[:i]
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		if !strings.Contains(s, ":") {
			return host{} // brackets are for IPv6
		}
		return parseAddr(s[1 : len(s)-1])
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	before := byte('.')
	for i := range len(s) {
		c := s[i]
		if c == '.' && before == '.' || c != '.' && c != '-' && c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return host{}
		}
		before = c
	}
	if last := s[strings.LastIndexByte(s, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		return parseAddr(s) // a browser takes it for an address or for nothing, never for a name
	}
	return host{name: s}
}

// parseAddr returns the zero host unless s is an address. A zone has a meaning on
// one machine only, so no client may send it.
func parseAddr(s string) host {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return host{}
	}
	return host{addr: addr.Unmap()}
}

// hostOf returns the host of a web page, given its URL or its origin.
func hostOf(page string) host {
	u, err := url.Parse(page)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return host{}
	}
	return parseHost(u.Host)
}

// isLoopback reports whether h is this machine, whatever DNS says: all names below
// localhost are (RFC 6761, section 6.3).
func (h host) isLoopback() bool {
	return h.addr.IsLoopback() || h.name == "localhost" || strings.HasSuffix(h.name, ".localhost")
}

// parseHosts parses the names of a server. A name that no request can be for is
// an error.
func parseHosts(names []string) (hosts []host, err error) {
	for _, name := range names {
		h := parseAddr(name) // an IPv6 address needs no brackets here
		if h == (host{}) {
			h = parseHost(name)
		}
		if h == (host{}) {
			return nil, fmt.Errorf("has %q: it must be a host name in ASCII or an address, without scheme, path or pattern, such as %s", name, likelyHost(name))
		}
		hosts = append(hosts, h)
	}
	return hosts, nil
}

// likelyHost returns what is probably meant by a name that parseHosts refuses.
func likelyHost(name string) string {
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	if i := strings.IndexAny(name, "/?#"); i >= 0 {
		name = name[:i]
	}
	if domain, ok := strings.CutPrefix(strings.TrimPrefix(name, "*"), "."); ok {
		name = "www." + domain
	}
	if parseHost(name) == (host{}) {
		return "photos.example"
	}
	return name
}
