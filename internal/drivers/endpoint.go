package drivers

import (
	"cmp"
	"database/sql/driver"
	"net"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Endpoint is where a pool's sessions go: never the user, never a password.
type Endpoint struct {
	Address   string // a host, or the path of a socket; empty: not known
	Port      int    // 0: not known, or none
	Namespace string // the database; empty: not known
}

// EndpointOf finds out where a connector connects. No driver is imported for
// it: those that are known keep their settings in fields of certain names, which
// reflection can read. Of any other, nothing is known.
func EndpointOf(c driver.Connector) (e Endpoint) {
	defer func() {
		if recover() != nil { // a driver that has changed
			e = Endpoint{}
		}
	}()
	v := settingsOf(reflect.ValueOf(c), 8)
	if v.Kind() != reflect.Struct {
		return Endpoint{}
	}
	switch {
	case has(v, "Addr", "DBName"): // go-sql-driver/mysql
		e.Namespace = v.FieldByName("DBName").String()
		e.Address, e.Port = hostPort(v.FieldByName("Addr").String())
	case has(v, "Host", "Database") && v.FieldByName("Port").CanUint(): // pgx, lib/pq
		return Endpoint{v.FieldByName("Host").String(), int(v.FieldByName("Port").Uint()), v.FieldByName("Database").String()} //nolint:gosec // it is an uint16
	case has(v, "name"): // pgx, which reads its data source name later
		return endpointOfDSN(v.FieldByName("name").String())
	case has(v, "dsn"): // a driver that makes no connectors, such as older ones of lib/pq
		return endpointOfDSN(v.FieldByName("dsn").String())
	}
	return e
}

// settingsOf looks through pointers, interfaces and the field that has the
// settings, so many steps and no more.
func settingsOf(v reflect.Value, steps int) reflect.Value {
	switch {
	case steps == 0:
		return reflect.Value{}
	case v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface:
		return settingsOf(v.Elem(), steps-1)
	case v.Kind() != reflect.Struct:
		return v
	}
	if cfg := v.FieldByName("cfg"); cfg.IsValid() {
		return settingsOf(cfg, steps-1)
	}
	return v
}

// has tells whether a struct has these fields, as texts.
func has(v reflect.Value, names ...string) bool {
	for _, name := range names {
		if f := v.FieldByName(name); !f.IsValid() || f.Kind() != reflect.String {
			return false
		}
	}
	return true
}

// hostPort takes an address apart; one without a port is a socket's.
func hostPort(addr string) (host string, port int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return addr, 0
	}
	port, _ = strconv.Atoi(text)
	return host, port
}

// plain is a setting that is surely one: a name or an address, and nothing that
// another setting could hide in.
var plain = regexp.MustCompile(`^[A-Za-z0-9_./:-]+$`)

// endpointOfDSN reads a data source name of PostgreSQL, in either of its forms.
// It takes out what it knows and nothing else; of several hosts, and where a
// user or password may have been taken for something else, nothing at all.
func endpointOfDSN(dsn string) (e Endpoint) {
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		u, err := url.Parse(dsn)
		if err != nil || strings.Count(dsn, "@") > 1 || (u.User == nil && strings.Contains(dsn, "@")) ||
			strings.Contains(u.RawQuery+u.Fragment, "@") || strings.ContainsAny(u.Path, ":@") {
			return Endpoint{}
		}
		e.Address, e.Namespace = u.Hostname(), strings.TrimPrefix(u.Path, "/")
		e.Port, _ = strconv.Atoi(u.Port())
		return e.orNone()
	}
	for _, field := range strings.Fields(dsn) {
		key, value, found := strings.Cut(field, "=")
		if !found || key == "" || value == "" || strings.ContainsAny(field, `;'"\,`) {
			return Endpoint{}
		}
		switch key {
		case "host":
			e.Address = value
		case "port":
			e.Port, _ = strconv.Atoi(value)
		case "dbname", "database":
			e.Namespace = value
		}
	}
	return e.orNone()
}

// orNone is the endpoint if it is plain, and nothing otherwise.
func (e Endpoint) orNone() Endpoint {
	for _, s := range []string{e.Address, e.Namespace} {
		if s != "" && !plain.MatchString(s) {
			return Endpoint{}
		}
	}
	return e
}

// Or returns the endpoint with what was told instead of what was found.
func (e Endpoint) Or(told Endpoint) Endpoint {
	if told.Address != "" { // the port that was found is another address's
		e.Address, e.Port = told.Address, 0
	}
	return Endpoint{e.Address, cmp.Or(told.Port, e.Port), cmp.Or(told.Namespace, e.Namespace)}
}
