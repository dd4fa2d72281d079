package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/gate"
)

// Dialect names the kind of server, for discovery.
type Dialect string

// The dialects. Servers that speak one of these dialects (Percona, Aurora,
// YugabyteDB, …) count as it.
const (
	DialectMySQL       Dialect = "mysql"
	DialectMariaDB     Dialect = "mariadb"
	DialectTiDB        Dialect = "tidb"
	DialectPostgreSQL  Dialect = "postgresql"
	DialectCockroachDB Dialect = "cockroachdb"
	DialectNone        Dialect = "none" // never ask the server anything
)

var dialects = []Dialect{DialectMySQL, DialectMariaDB, DialectTiDB, DialectPostgreSQL, DialectCockroachDB, DialectNone}

// driverDialects are the Go packages of drivers whose servers are known. The
// core imports none of them.
var driverDialects = map[string]Dialect{
	"github.com/go-sql-driver/mysql":          DialectMySQL,
	"github.com/jackc/pgx/v4/stdlib":          DialectPostgreSQL,
	"github.com/jackc/pgx/v5/stdlib":          DialectPostgreSQL,
	"github.com/lib/pq":                       DialectPostgreSQL,
	"github.com/ziutek/mymysql/godrv":         DialectMySQL,
	"github.com/go-mysql-org/go-mysql/driver": DialectMySQL,
}

// dialectOf tells the dialect from the Go package of the driver.
func dialectOf(d driver.Driver) Dialect {
	return driverDialects[packageOf(d)]
}

// packageOf is the path of the Go package that declares x's type.
func packageOf(x any) string {
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

// limits are what a server does to a session by itself. Zero: nothing.
type limits struct {
	idle   time.Duration // it closes a session that is idle for longer
	idleTx time.Duration // it ends a session that is idle in a transaction for longer
}

// discovery asks a new session for its limits.
type discovery struct {
	query string
	parse func(row []driver.Value) (limits, error)
}

// discoveries holds what to ask, by dialect. It is asked on the session that
// it is about: a server's global setting changes for new sessions only, and a
// DSN can set the session's own.
//
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_wait_timeout
//   - PostgreSQL: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//   - CockroachDB: https://www.cockroachlabs.com/docs/stable/session-variables
var discoveries = map[Dialect]discovery{
	DialectMySQL:       {"SELECT @@session.wait_timeout", parseSeconds},
	DialectMariaDB:     {"SELECT @@session.wait_timeout", parseSeconds},
	DialectTiDB:        {"SELECT @@session.wait_timeout", parseSeconds},
	DialectPostgreSQL:  {postgresDiscovery, parseTimeouts},
	DialectCockroachDB: {postgresDiscovery, parseTimeouts},
}

// Settings that the server does not know (idle_session_timeout came with
// PostgreSQL 14) are NULL.
const postgresDiscovery = "SELECT current_setting('idle_session_timeout', true), current_setting('idle_in_transaction_session_timeout', true)"

// discover runs d on a new session.
func (d discovery) discover(ctx context.Context, conn driver.Conn) (limits, error) {
	row, err := queryRow(ctx, conn, d.query)
	if err != nil {
		return limits{}, err
	}
	return d.parse(row)
}

// answerError is an answer that makes no sense. The connection that brought it
// is none the worse.
type answerError struct{ got, want string }

func (e *answerError) Error() string { return "got " + e.got + ", expected " + e.want }

// parseSeconds reads MySQL's wait_timeout.
func parseSeconds(row []driver.Value) (limits, error) {
	if len(row) != 1 {
		return limits{}, &answerError{fmt.Sprintf("%d columns", len(row)), "1"}
	}
	text := settingText(row[0])
	seconds, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return limits{}, &answerError{strconv.Quote(text), "a number of seconds"}
	}
	if seconds > uint64(math.MaxInt64/time.Second) {
		return limits{}, nil // centuries: no limit
	}
	return limits{idle: time.Duration(seconds) * time.Second}, nil
}

// parseTimeouts reads PostgreSQL's two timeouts.
func parseTimeouts(row []driver.Value) (l limits, err error) {
	if len(row) != 2 {
		return limits{}, &answerError{fmt.Sprintf("%d columns", len(row)), "2"}
	}
	if l.idle, err = parseTimeout(settingText(row[0])); err != nil {
		return limits{}, err
	}
	if l.idleTx, err = parseTimeout(settingText(row[1])); err != nil {
		return limits{}, err
	}
	return l, nil
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
			return 0, &answerError{strconv.Quote(text), "a timeout"}
		}
		rest = strings.TrimLeft(rest[digits:], " ")
		letters := strings.IndexAny(rest, "0123456789. ")
		if letters < 0 {
			letters = len(rest)
		}
		unit, ok := timeoutUnits[rest[:letters]]
		if !ok {
			return 0, &answerError{strconv.Quote(text), "a timeout; its unit is not known"}
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

// queryRow runs a query without arguments on a driver connection and returns
// its only row.
func queryRow(ctx context.Context, conn driver.Conn, query string) (row []driver.Value, err error) {
	rows, done, err := queryRows(ctx, conn, query)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := errors.Join(rows.Close(), done()); err == nil {
			err = closeErr
		}
	}()
	row = make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		if err == io.EOF {
			return nil, &answerError{"no row", "one"}
		}
		return nil, err
	}
	for i, v := range row {
		if b, ok := v.([]byte); ok {
			row[i] = string(b) // the driver may use its memory again
		}
	}
	return row, nil
}

// queryRows runs a query as database/sql would: directly, or, where the driver
// has no such method or declines, as a prepared statement. done releases it.
func queryRows(ctx context.Context, conn driver.Conn, query string) (rows driver.Rows, done func() error, err error) {
	can := capabilitiesOf(conn)
	rows, err = can.query(ctx, conn, query, nil)
	if err != driver.ErrSkip {
		return rows, func() error { return nil }, err
	}
	st, err := can.prepare(ctx, conn, query)
	if err != nil {
		return nil, nil, err
	}
	rows, err = queryStatement(ctx, st, nil)
	if err != nil {
		_ = st.Close()
		return nil, nil, err
	}
	return rows, st.Close, nil
}

// margin is how long before a limit a session is given up: a tenth of it,
// between half a second and half a minute, and never more than half of it. It
// has to exceed a round trip and scheduling noise, since a close that is on
// its way cannot be seen.
func margin(limit time.Duration) time.Duration {
	return min(max(limit/10, 500*time.Millisecond), 30*time.Second, limit/2)
}

// minLimit is the smaller of two limits of which zero means none.
func minLimit(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// lifetime is how long a session may live. It is a value: everything about
// expiry follows from it, the session's last use, and the time.
type lifetime struct {
	born   clock.Instant
	limits limits
	idle   time.Duration // longest time without wire traffic; 0: no limit
	whole  time.Duration // longest age; 0: no limit
}

// newLifetime chooses a session's lifetime. jitter, from 0 to 1, spreads the
// ends of sessions that were born together. It only subtracts: the bound
// stays a bound.
func newLifetime(born clock.Instant, found limits, network, most time.Duration, jitter float64) lifetime {
	const spread = 0.025
	found.idle = minLimit(found.idle, network)
	t := lifetime{born: born, limits: found}
	if found.idle > 0 {
		t.idle = found.idle - margin(found.idle)
	}
	t.whole = minLimit(most, t.idle)
	t.whole -= time.Duration(float64(t.whole) * spread * jitter)
	return t
}

// bounds are what the gate has to know of it.
func (t *lifetime) bounds() gate.Life {
	l := gate.Life{Idle: t.idle}
	if t.whole > 0 {
		l.End = t.born.Add(t.whole)
	}
	return l
}

// jitter is a random number for newLifetime.
func jitter() float64 { return rand.Float64() }
