package drivers

import (
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

// Answer is what a session says of its server.
type Answer struct {
	Limits
	System string // the conventions' db.system.name, where it is not what the driver is for; empty: it is, or nothing is known
}

// Discovery asks a new session for its limits.
type Discovery struct {
	Query string
	parse func(row []driver.Value) (Answer, error)
}

// What to ask is asked on the session that it is about: a server's global setting changes
// for new sessions only, and a DSN can set the session's own.
//
//   - MySQL: https://dev.mysql.com/doc/refman/8.4/en/server-system-variables.html#sysvar_wait_timeout
//   - PostgreSQL: https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//   - CockroachDB: https://www.cockroachlabs.com/docs/stable/session-variables
var (
	waitTimeout = &Discovery{"SELECT @@session.wait_timeout, VERSION()", parseMySQL}
	timeouts    = &Discovery{postgresDiscovery, parsePostgreSQL}
)

// Settings that the server does not know (idle_session_timeout came with
// PostgreSQL 14) are NULL.
const postgresDiscovery = "SELECT current_setting('idle_session_timeout', true), current_setting('idle_in_transaction_session_timeout', true), current_setting('crdb_version', true)"

// Ask asks a new session. The error of an answer that makes no sense is an *[AnswerError].
func (d *Discovery) Ask(ctx context.Context, conn driver.Conn) (Answer, error) {
	row, err := bare.QueryRow(ctx, conn, d.Query)
	switch {
	case err != nil:
		return Answer{}, err
	case row == nil:
		return Answer{}, &AnswerError{"no row", "one"}
	}
	return d.parse(row)
}

// AnswerError is an answer that makes no sense. The connection that brought it
// is none the worse.
type AnswerError struct{ got, want string }

func (e *AnswerError) Error() string { return "got " + e.got + ", expected " + e.want }

// quoted is an answer for people, who do not read all of a long one.
func quoted(text string) string {
	const most = 64
	if len(text) > most {
		return strconv.Quote(strings.ToValidUTF8(text[:most], "")) + "…"
	}
	return strconv.Quote(text)
}

// parseMySQL reads MySQL's wait_timeout, and the version, in which MariaDB has its name.
func parseMySQL(row []driver.Value) (a Answer, err error) {
	if err := columns(row, 1, 2); err != nil {
		return a, err
	}
	if a.Idle, err = parseSeconds(settingText(row[0])); err != nil {
		return Answer{}, err
	}
	if len(row) > 1 && strings.Contains(strings.ToLower(settingText(row[1])), MariaDB) {
		a.System = MariaDB
	}
	return a, nil
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

// parsePostgreSQL reads PostgreSQL's two timeouts, and a setting that only CockroachDB has.
func parsePostgreSQL(row []driver.Value) (a Answer, err error) {
	if err := columns(row, 2, 3); err != nil {
		return a, err
	}
	if a.Idle, err = parseTimeout(settingText(row[0])); err != nil {
		return Answer{}, err
	}
	if a.IdleTx, err = parseTimeout(settingText(row[1])); err != nil {
		return Answer{}, err
	}
	if len(row) > 2 && settingText(row[2]) != "" {
		a.System = CockroachDB
	}
	return a, nil
}

// columns tells whether an answer has the values that were asked for. What the server is
// may be missing.
func columns(row []driver.Value, least, most int) error {
	switch n := len(row); {
	case n >= least && n <= most:
		return nil
	case n == 1:
		return &AnswerError{"1 column", fmt.Sprintf("%d or %d", least, most)}
	default:
		return &AnswerError{fmt.Sprintf("%d columns", n), fmt.Sprintf("%d or %d", least, most)}
	}
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
