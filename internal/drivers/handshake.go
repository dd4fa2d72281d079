package drivers

import (
	"database/sql/driver"
	"reflect"
	"strings"
)

// SystemOfConn is what a new connection has learned of its server in the handshake, as the
// conventions' db.system.name; empty: nothing. go-sql-driver keeps which of its abilities
// the server has: the first of them, long passwords to MySQL, is the one that MariaDB denies
// in order to be recognised (https://mariadb.com/docs/server/reference/clientserver-protocol/1-connecting/connection#capabilities).
func SystemOfConn(conn driver.Conn) (system string) {
	const isMySQL, protocol41 = 1 << 0, 1 << 9
	defer oddly(&system)
	if PackageOf(conn) != "github.com/go-sql-driver/mysql" {
		return ""
	}
	v := reflect.Indirect(reflect.ValueOf(conn))
	for _, name := range []string{"capabilities", "flags"} { // flags until version 1.9
		if f := v.FieldByName(name); f.IsValid() && f.CanUint() && f.Uint()&protocol41 != 0 && f.Uint()&isMySQL == 0 {
			return MariaDB
		}
	}
	return ""
}

// highestPID is the highest number of a process that Linux gives. PgBouncer makes numbers up,
// nearly all of which are higher.
const highestPID = 1 << 22

// NumberOf is the number that the server has given a new connection, where the driver keeps
// it. Those of PostgreSQL do, since they need it to cancel a query: it is the server's process.
// One that a pooler has made up is zero.
func NumberOf(conn driver.Conn) (number uint64, kept bool) {
	defer func() {
		if recover() != nil { // a driver that has changed
			number, kept = 0, false
		}
	}()
	v := reflect.Indirect(reflect.ValueOf(conn))
	if v.Kind() != reflect.Struct {
		return 0, false
	}
	switch path := PackageOf(conn); {
	case strings.HasSuffix(path, "/stdlib") && strings.Contains(path, "/pgx"): // of any version, and of those who copied it
		v = v.FieldByName("conn").Elem().FieldByName("pgConn").Elem()
	case path != "github.com/lib/pq" && path != "github.com/uptrace/bun/driver/pgdriver":
		return 0, false
	}
	for _, name := range []string{"pid", "processID"} { // lib/pq's name until version 1.10
		switch f := v.FieldByName(name); {
		case !f.IsValid():
			continue
		case f.CanUint() && f.Uint() <= highestPID:
			number = f.Uint()
		case f.CanInt() && f.Int() >= 0 && f.Int() <= highestPID:
			number = uint64(f.Int())
		}
		return number, true
	}
	return 0, false
}
