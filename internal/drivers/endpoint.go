package drivers

import (
	"cmp"
	"database/sql/driver"
	"net"
	"os/user"
	"reflect"
	"runtime"
	"strconv"
	"strings"
)

// Endpoint is where a pool's sessions go: never the user, never a password.
type Endpoint struct {
	Address   string // a host, or the path of a socket; empty: not known
	Port      int    // 0: not known, or none
	Namespace string // the database; empty: not known
}

// String is the address with its port; empty: it is not known.
func (e Endpoint) String() string {
	if e.Port == 0 {
		return e.Address
	}
	return net.JoinHostPort(e.Address, strconv.Itoa(e.Port))
}

// EndpointOf finds out where a connector connects. No driver is imported for
// it: those that are known keep their settings in fields of certain names, which
// reflection can read. Of any other, nothing is known; and nothing is said where one of
// the settings is not plain, since then a driver may have taken a password apart.
func EndpointOf(c driver.Connector) (e Endpoint) {
	defer func() {
		if recover() != nil { // a driver that has changed
			e = Endpoint{}
		}
	}()
	v := settingsOf(reflect.ValueOf(c), 8)
	elsewhere := false
	if pool := poolOf(v); pool.IsValid() {
		elsewhere = mayBeElsewhere(pool)
		v = pool.FieldByName("config").Elem().FieldByName("ConnConfig").Elem()
	}
	if v.Kind() != reflect.Struct {
		return Endpoint{}
	}
	switch {
	case has(v, "Addr", "DBName"): // go-sql-driver/mysql
		e.Namespace = v.FieldByName("DBName").String()
		e.Address, e.Port = hostPort(v.FieldByName("Addr").String())
	case has(v, "Host", "Database") && v.FieldByName("Port").CanUint(): // pgx, lib/pq
		if mayBeUser(v) || has(v, "connString") && doubtful(v.FieldByName("connString").String()) {
			return Endpoint{}
		}
		e = Endpoint{v.FieldByName("Host").String(), int(v.FieldByName("Port").Uint()), v.FieldByName("Database").String()} //nolint:gosec // it is an uint16
	case has(v, "name"): // pgx, which reads its data source name later
		return endpointOfDSN(v.FieldByName("name").String())
	case has(v, "dsn"): // a driver that makes no connectors, such as lib/pq's
		return endpointOfDSN(v.FieldByName("dsn").String())
	}
	if elsewhere || mayBeElsewhere(v) {
		e.Address, e.Port = "", 0
	}
	return e.orNone()
}

// mayBeElsewhere tells whether sessions may go to another address than the one that is
// configured: to one of several, to one that a function of the application chooses, or to
// what a network of its own makes of it.
func mayBeElsewhere(v reflect.Value) bool {
	if f := v.FieldByName("Net"); f.IsValid() && !networks[f.String()] {
		return true
	}
	for _, name := range []string{"Multi", "Hostaddr", "beforeConnect"} {
		if f := v.FieldByName(name); f.IsValid() && !f.IsZero() {
			return true
		}
	}
	return hooked(v.FieldByName("BeforeConnect")) || severalHosts(v)
}

// networks are those of which the address is a host or a socket.
var networks = map[string]bool{"": true, "tcp": true, "tcp4": true, "tcp6": true, "unix": true}

// hooked tells whether a function of the application's is called before pgx connects. Where
// it has none, pgx has one of its own, which does nothing.
func hooked(f reflect.Value) bool {
	if !f.IsValid() || f.IsNil() {
		return false
	}
	pc := f.Pointer()
	code := runtime.FuncForPC(pc)
	if code == nil {
		return true
	}
	file, _ := code.FileLine(pc)
	return !strings.Contains(file, "/jackc/pgx/") || !strings.Contains(code.Name(), ".GetConnector.func")
}

// severalHosts tells whether pgx has another host or port to try. It may have the same
// twice, with TLS and without.
func severalHosts(v reflect.Value) bool {
	others := v.FieldByName("Fallbacks")
	if !others.IsValid() {
		return false
	}
	for i := range others.Len() {
		other := others.Index(i).Elem()
		if other.FieldByName("Host").String() != v.FieldByName("Host").String() ||
			other.FieldByName("Port").Uint() != v.FieldByName("Port").Uint() {
			return true
		}
	}
	return false
}

// mayBeUser tells whether the host may be the user, and the port and the database the
// password. A driver takes postgres://user:42/x?y@host apart so, and has the name of the
// process's user then. pgx keeps what it read; lib/pq does not.
func mayBeUser(v reflect.Value) bool {
	if !has(v, "User", "Password") || has(v, "connString") || v.FieldByName("Password").String() != "" {
		return false
	}
	me, err := user.Current()
	return err != nil || v.FieldByName("User").String() == me.Username
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

// IsPooled tells whether a connector takes its connections from a pool below it, a pgxpool,
// and gives them back to it when they are closed.
func IsPooled(c driver.Connector) (is bool) {
	defer func() {
		if recover() != nil { // a driver that embeds a nil pointer
			is = false
		}
	}()
	return poolOf(settingsOf(reflect.ValueOf(c), 8)).IsValid()
}

// poolOf is the pgxpool that a connector of pgx has; none: it has no valid value. The
// package may be one of any version of pgx, or vendored.
func poolOf(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	f := v.FieldByName("pool")
	if !f.IsValid() || f.Type().String() != "*pgxpool.Pool" {
		return reflect.Value{}
	}
	return f.Elem()
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
	return host, portOf(text)
}

// Or returns the endpoint with what was told instead of what was found.
func (e Endpoint) Or(told Endpoint) Endpoint {
	if told.Address != "" { // the port that was found is another address's
		e.Address, e.Port = told.Address, 0
	}
	return Endpoint{e.Address, cmp.Or(told.Port, e.Port), cmp.Or(told.Namespace, e.Namespace)}
}
