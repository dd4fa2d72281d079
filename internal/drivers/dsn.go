package drivers

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// endpointOfDSN reads a data source name of PostgreSQL, in either of its forms.
// It takes out what it knows and nothing else; of several hosts, and where a
// user or password may have been taken for something else, nothing at all.
func endpointOfDSN(dsn string) Endpoint {
	switch {
	case doubtful(dsn):
		return Endpoint{}
	case isURL(dsn):
		return endpointOfURL(dsn)
	}
	return endpointOfKeys(dsn)
}

func isURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}

// doubtful tells whether a part of the password may have been taken for something else.
// Drivers disagree about white space beyond ASCII, and about what ends a part of a URL; who
// writes a password with a blank or an at sign in it often forgets to quote it.
func doubtful(dsn string) bool {
	for i := range len(dsn) {
		if dsn[i] >= utf8.RuneSelf {
			return true
		}
	}
	if !isURL(dsn) {
		return repeats(dsn)
	}
	u, err := url.Parse(dsn)
	return err != nil || strings.Count(dsn, "@") > 1 || (u.User == nil && strings.Contains(dsn, "@")) ||
		strings.Contains(u.RawQuery+u.Fragment, "@") || strings.ContainsAny(u.Path, ":@")
}

// repeats tells whether a key seems to be there twice.
func repeats(dsn string) bool {
	seen := map[string]bool{}
	for _, field := range strings.Fields(dsn) {
		key, _, found := strings.Cut(field, "=")
		if found && key != "" && seen[key] {
			return true
		}
		seen[key] = true
	}
	return false
}

func endpointOfURL(dsn string) Endpoint {
	u, err := url.Parse(dsn)
	if err != nil {
		return Endpoint{}
	}
	for key := range u.Query() {
		switch key {
		case "host", "hostaddr", "port", "dbname", "database", "service": // they count, or not: drivers disagree
			return Endpoint{}
		}
	}
	return Endpoint{u.Hostname(), portOf(u.Port()), strings.TrimPrefix(u.Path, "/")}.orNone()
}

func endpointOfKeys(dsn string) (e Endpoint) {
	for _, field := range strings.Fields(dsn) {
		key, value, found := strings.Cut(field, "=")
		if !found || key == "" || value == "" || strings.ContainsAny(field, `;'"\,`) {
			return Endpoint{}
		}
		switch key {
		case "host":
			e.Address = value
		case "port":
			e.Port = portOf(value)
		case "dbname", "database":
			e.Namespace = value
		}
	}
	return e.orNone()
}

// portOf is a port, or 0 if it is none.
func portOf(text string) int {
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// What is surely a host, the path of a socket or the name of a database, in which no other
// setting hides.
var (
	plainHost   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}$`)
	plainSocket = regexp.MustCompile(`^/[A-Za-z0-9_./:-]+$`)
	plainName   = regexp.MustCompile(`^[\pL\pN_][\pL\pN_.$-]*$`)
)

// orNone is the endpoint if it is plain, and nothing otherwise.
func (e Endpoint) orNone() Endpoint {
	if e.Address != "" && !isPlainAddress(e.Address) || e.Namespace != "" && !plainName.MatchString(e.Namespace) {
		return Endpoint{}
	}
	return e
}

func isPlainAddress(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == ""
	}
	return plainHost.MatchString(s) || plainSocket.MatchString(s)
}
