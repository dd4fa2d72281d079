// Package drivers has what is known of drivers and servers by name, of which none is
// imported: a driver's package, the settings and errors that reflection finds, how a
// server reads texts, and what to ask it. It knows nothing of what is done with that.
package drivers

import (
	"database/sql/driver"
	"reflect"
	"slices"
	"strings"

	"github.com/sqllease/sqllease/internal/statement"
)

// The names of the dialects.
const (
	MySQL       = "mysql"
	MariaDB     = "mariadb"
	TiDB        = "tidb"
	PostgreSQL  = "postgresql"
	CockroachDB = "cockroachdb"
)

// Dialect is what is known of a kind of server.
type Dialect struct {
	Name      string
	System    string            // the conventions' db.system.name
	Grammar   statement.Grammar // how it reads texts
	Discovery *Discovery        // what tells a session's limits; nil: nothing
	Locks     *Locks            // what tells who waits for whom; nil: nothing
	packages  []string          // of drivers that connect to such servers only
}

var dialects = []Dialect{
	{MySQL, MySQL, statement.MySQL, mysqlVariables, mysqlLocks, []string{
		"github.com/go-sql-driver/mysql", "github.com/ziutek/mymysql/godrv", "github.com/go-mysql-org/go-mysql/driver",
		"github.com/aws/aws-advanced-go-wrapper/mysql-driver", "cloud.google.com/go/cloudsqlconn/mysql/mysql",
	}},
	{MariaDB, MariaDB, statement.MySQL, mysqlVariables, mysqlLocks, nil},
	{TiDB, MySQL, statement.MySQL, mysqlVariables, nil, nil}, // not in the conventions' list; it presents itself as MySQL
	{PostgreSQL, PostgreSQL, statement.PostgreSQL, postgresSettings, postgresLocks, []string{
		"github.com/jackc/pgx/v4/stdlib", "github.com/jackc/pgx/v5/stdlib", "github.com/lib/pq",
		"github.com/uptrace/bun/driver/pgdriver", "github.com/yugabyte/pgx/v5/stdlib",
		"github.com/aws/aws-advanced-go-wrapper/pgx-driver", "cloud.google.com/go/cloudsqlconn/postgres/pgxv5",
		"cloud.google.com/go/alloydbconn/driver/postgres",
	}},
	{CockroachDB, CockroachDB, statement.PostgreSQL, postgresSettings, nil, nil},
}

// Names are the names of all.
func Names() (names []string) {
	for _, d := range dialects {
		names = append(names, d.Name)
	}
	return names
}

// Named is the dialect of that name; of one that is not known, nothing is.
func Named(name string) Dialect {
	if i := slices.IndexFunc(dialects, func(d Dialect) bool { return d.Name == name }); i >= 0 {
		return dialects[i]
	}
	return Dialect{}
}

// DialectOf tells a dialect's name from the Go package of the driver; empty: it is not
// known.
func DialectOf(d driver.Driver) string {
	path := PackageOf(d)
	i := slices.IndexFunc(dialects, func(d Dialect) bool { return slices.Contains(d.packages, path) })
	if i < 0 {
		return ""
	}
	return dialects[i].Name
}

// systems are the conventions' names of what drivers connect to that are not asked
// anything.
var systems = map[string]string{
	"github.com/mattn/go-sqlite3":                      "sqlite",
	"modernc.org/sqlite":                               "sqlite",
	"github.com/ncruces/go-sqlite3/driver":             "sqlite",
	"github.com/glebarez/go-sqlite":                    "sqlite",
	"zombiezen.com/go/sqlite":                          "sqlite",
	"github.com/tursodatabase/libsql-client-go":        "sqlite",
	"github.com/microsoft/go-mssqldb":                  "microsoft.sql_server",
	"cloud.google.com/go/cloudsqlconn/sqlserver/mssql": "microsoft.sql_server",
	"github.com/denisenkom/go-mssqldb":                 "microsoft.sql_server",
	"github.com/godror/godror":                         "oracle.db",
	"github.com/sijms/go-ora/v2":                       "oracle.db",
	"github.com/mattn/go-oci8":                         "oracle.db",
	"github.com/ClickHouse/clickhouse-go/v2":           "clickhouse",
	"github.com/snowflakedb/gosnowflake":               "snowflake",
	"github.com/snowflakedb/gosnowflake/v2":            "snowflake",
	"github.com/trinodb/trino-go-client/trino":         "trino",
	"github.com/marcboeker/go-duckdb":                  "duckdb",
	"github.com/marcboeker/go-duckdb/v2":               "duckdb",
	"github.com/duckdb/duckdb-go/v2":                   "duckdb",
	"github.com/googleapis/go-sql-spanner":             "gcp.spanner",
	"github.com/nakagami/firebirdsql":                  "firebirdsql",
	"github.com/SAP/go-hdb/driver":                     "sap.hana",
}

// SystemOf is the conventions' name of what a driver connects to; empty: it is not known.
func SystemOf(d driver.Driver) string { return systems[PackageOf(d)] }

// PackageOf is the path of the Go package that declares x's type.
func PackageOf(x any) string {
	t := reflect.TypeOf(x)
	if t == nil {
		return ""
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return unvendored(t.PkgPath())
}

// unvendored is a package's own path: that of a vendored package begins with
// the folder it is vendored in.
func unvendored(path string) string {
	if _, own, found := strings.Cut(path, "/vendor/"); found {
		return own
	}
	return path
}
