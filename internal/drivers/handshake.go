package drivers

import (
	"database/sql/driver"
	"reflect"
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
