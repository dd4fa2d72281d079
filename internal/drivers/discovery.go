package drivers

import (
	"cmp"
	"context"
	"database/sql/driver"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/bare"
)

// Limits are what a server does to a session by itself. Zero: nothing.
type Limits struct {
	Idle   time.Duration // it closes a session that is idle for longer
	IdleTx time.Duration // it ends a session that is idle in a transaction for longer
}

// Answer is what a session says of its server. Zero: it did not say.
type Answer struct {
	Limits
	System         string // the conventions' db.system.name
	ReadOnly       bool   // it takes no writes
	MaxConnections int    // how many connections it has, for everybody
	Reserved       int    // how many of these are kept for administrators
}

// Discovery asks a session for its limits.
type Discovery struct {
	Query string
	Parse func(rows [][]driver.Value) (Answer, error)
}

// What is asked is one statement, without an @: behind ProxySQL, a statement with one in it
// switches multiplexing off for its connection, for good
// (https://proxysql.com/documentation/multiplexing/). A session answers for itself: a DSN
// can set its own limits, and a server's global setting changes those of new sessions only.
//
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_wait_timeout
//   - MariaDB: https://mariadb.com/docs/server/server-management/variables-and-modes/server-system-variables#idle_transaction_timeout
//   - TiDB: https://docs.pingcap.com/tidb/stable/system-variables#tidb_idle_transaction_timeout-new-in-v760
//   - PostgreSQL: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//   - CockroachDB: https://www.cockroachlabs.com/docs/stable/session-variables
var (
	mysqlVariables   = &Discovery{mysqlDiscovery, parseMySQL}
	postgresSettings = &Discovery{postgresDiscovery, parsePostgreSQL}
)

const mysqlDiscovery = "SHOW VARIABLES WHERE Variable_name IN ('wait_timeout', 'idle_transaction_timeout', " +
	"'idle_write_transaction_timeout', 'idle_readonly_transaction_timeout', 'tidb_idle_transaction_timeout', " +
	"'read_only', 'super_read_only', 'innodb_read_only', 'max_connections', 'version')"

// Settings that the server does not know (idle_session_timeout came with
// PostgreSQL 14) are NULL.
const postgresDiscovery = "SELECT current_setting('idle_session_timeout', true), current_setting('idle_in_transaction_session_timeout', true), " +
	"current_setting('crdb_version', true), current_setting('transaction_read_only', true), " +
	"current_setting('max_connections', true), current_setting('superuser_reserved_connections', true), " +
	"current_setting('reserved_connections', true)"

// mostRows bounds an answer: what is longer was not meant.
const mostRows = 64

// Ask asks a session. The error of an answer that makes no sense is an *[AnswerError].
func (d *Discovery) Ask(ctx context.Context, conn driver.Conn) (a Answer, err error) {
	rows, err := bare.QueryRows(ctx, conn, d.Query, mostRows)
	switch {
	case err != nil:
		return Answer{}, err
	case len(rows) == 0:
		return Answer{}, &AnswerError{"no row", "one"}
	}
	return d.Parse(rows)
}

// AnswerError is an answer that makes no sense. The connection that brought it
// is none the worse.
type AnswerError struct{ got, want string }

func (e *AnswerError) Error() string { return "got " + e.got + ", expected " + e.want }

// Unlike is an answer of which a parser says so.
func Unlike(err error) *AnswerError {
	return &AnswerError{quoted(err.Error()), "an answer that Discovery.Parse understands"}
}

// quoted is an answer for people, who do not read all of a long one.
func quoted(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(strings.ToValidUTF8(text[:most], "")) + "…"
	}
	return strconv.Quote(text)
}

// parseMySQL reads variables, each a row of its name and its value. MariaDB has its name in
// the version.
func parseMySQL(rows [][]driver.Value) (a Answer, err error) {
	variables := map[string]string{}
	for _, row := range rows {
		if len(row) < 2 {
			return a, &AnswerError{fmt.Sprintf("%d column(s)", len(row)), "names and values of variables"}
		}
		variables[strings.ToLower(settingText(row[0]))] = settingText(row[1])
	}
	if a.Idle, err = parseSeconds(variables["wait_timeout"]); err != nil {
		return Answer{}, err
	}
	for _, name := range []string{
		"idle_transaction_timeout", "idle_write_transaction_timeout", "idle_readonly_transaction_timeout", "tidb_idle_transaction_timeout",
	} {
		d, err := parseSeconds(cmp.Or(variables[name], "0"))
		if err != nil {
			return Answer{}, err
		}
		a.IdleTx = MinLimit(a.IdleTx, d)
	}
	for _, name := range []string{"read_only", "super_read_only", "innodb_read_only"} {
		a.ReadOnly = a.ReadOnly || isOn(variables[name])
	}
	a.MaxConnections = parseCount(variables["max_connections"])
	a.System = systemOfVersion(variables["version"])
	return a, nil
}

func systemOfVersion(version string) string {
	switch version = strings.ToLower(version); {
	case version == "":
		return ""
	case strings.Contains(version, MariaDB):
		return MariaDB
	}
	return MySQL
}

// MinLimit is the smaller of two limits, of which zero is none.
func MinLimit(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// isOn reads a switch. MariaDB's read_only has more positions than two, of which all but one
// refuse writes.
func isOn(text string) bool {
	switch strings.ToUpper(text) {
	case "", "OFF", "0", "FALSE", "NO":
		return false
	}
	return true
}

// parseCount reads a number that matters less: what is none is not known.
func parseCount(text string) int {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return int(n)
}

func parseSeconds(text string) (time.Duration, error) {
	seconds, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, &AnswerError{quoted(text), "a number of seconds"}
	}
	if seconds > uint64(math.MaxInt64/time.Second) {
		return 0, nil // centuries: no limit
	}
	return time.Duration(seconds) * time.Second, nil
}

// parsePostgreSQL reads the settings in the order in which they are asked for, the first two
// of which must be there; crdb_version is CockroachDB's alone. A standby's transactions are
// read-only.
func parsePostgreSQL(rows [][]driver.Value) (a Answer, err error) {
	row := rows[0]
	if len(row) < 2 {
		return a, &AnswerError{fmt.Sprintf("%d column(s)", len(row)), "the values of settings"}
	}
	setting := func(i int) string {
		if i < len(row) {
			return settingText(row[i])
		}
		return ""
	}
	if a.Idle, err = parseTimeout(setting(0)); err != nil {
		return Answer{}, err
	}
	if a.IdleTx, err = parseTimeout(setting(1)); err != nil {
		return Answer{}, err
	}
	switch {
	case setting(2) != "":
		a.System = CockroachDB
	case len(row) > 2:
		a.System = PostgreSQL
	}
	a.ReadOnly = isOn(setting(3))
	a.MaxConnections, a.Reserved = parseCount(setting(4)), parseCount(setting(5))+parseCount(setting(6))
	return a, nil
}

// ParseIdleLimit reads an answer of which the first value is the idle limit, in seconds.
func ParseIdleLimit(rows [][]driver.Value) (a Answer, err error) {
	if len(rows[0]) == 0 {
		return a, &AnswerError{"no column", "a number of seconds"}
	}
	a.Idle, err = parseSeconds(settingText(rows[0][0]))
	return a, err
}

// timeoutUnits are PostgreSQL's units, and those of Go, in which CockroachDB
// answers.
var timeoutUnits = map[string]time.Duration{
	"us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// parseTimeout reads a timeout as a server prints it: "0", "5min", "1d",
// "1h30m0s"; a bare number is milliseconds, and empty (unset) is none.
func parseTimeout(text string) (time.Duration, error) {
	var total float64
	rest := strings.TrimSpace(text)
	if isNumber(rest) {
		rest += "ms"
	}
	for rest != "" {
		digits := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
		if digits < 0 {
			digits = len(rest)
		}
		n, err := strconv.ParseFloat(rest[:digits], 64)
		if err != nil {
			return 0, &AnswerError{quoted(text), "a timeout"}
		}
		rest = strings.TrimLeft(rest[digits:], " ")
		letters := strings.IndexAny(rest, "0123456789. ")
		if letters < 0 {
			letters = len(rest)
		}
		unit, ok := timeoutUnits[rest[:letters]]
		if !ok {
			return 0, &AnswerError{quoted(text), "a timeout; its unit is not known"}
		}
		total += n * float64(unit)
		rest = strings.TrimLeft(rest[letters:], " ")
	}
	if total >= math.MaxInt64 {
		return 0, nil // centuries: no limit
	}
	return time.Duration(total), nil
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// settingText is a value as the text a server would print; NULL is empty.
func settingText(v driver.Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	case string:
		return v
	}
	return fmt.Sprint(v)
}
