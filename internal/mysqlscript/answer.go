package mysqlscript

import (
	"errors"
	"os"
	"time"
)

// Answer is what the server does when it is asked something: [OK], [Number],
// [Text], [NoRows], [Rows], [Fail], [Disconnect], [Hang], or [After] and one of
// them.
//
// It runs on the session's goroutine and returns an error when the session is
// over.
type Answer func(*session) error

// Ending is how the server ends a session.
type Ending int

const (
	// FIN closes the connection in order, as proxies and KILL do.
	FIN Ending = iota

	// RST resets the connection, as MariaDB does with an idle session.
	RST

	// TimeoutError sends error 4031 (ER_CLIENT_INTERACTION_TIMEOUT) without
	// having been asked, and then closes the connection in order, as MySQL does
	// with an idle session since 8.0.24.
	TimeoutError
)

// errEnded ends a session's goroutine after the script has ended its connection.
var errEnded = errors.New("mysqlscript: session ended by the script")

// OK answers with an OK packet.
func OK() Answer {
	return func(c *session) error {
		c.writeOK()
		return c.flush()
	}
}

// Number answers with one row of one unsigned number, as servers do when they
// are asked for a variable such as wait_timeout.
func Number(n uint64) Answer { return Rows("value", n) }

// Text answers with one row of one string.
func Text(s string) Answer { return Rows("value", s) }

// NoRows answers with a result set that has a column and no rows.
func NoRows() Answer { return Rows("value") }

// Rows answers with a result set of one column and one row per value. A value is
// a string, a uint64 or nil, and all that are not nil are of one type.
func Rows(column string, values ...any) Answer {
	kind := kindOf(values)
	return func(c *session) error {
		c.writeResultSet(column, kind, values)
		return c.flush()
	}
}

// Fail answers with an error packet. The session lives on, except where the
// answer is one to the greeting or the login.
func Fail(code uint16, message string) Answer {
	return func(c *session) error {
		c.writeError(code, message)
		return c.flush()
	}
}

// Disconnect ends the session in place of an answer.
func Disconnect(how Ending) Answer {
	return func(c *session) error {
		c.end(how)
		return errEnded
	}
}

// Hang never answers. The session is over when the client leaves it, or at the
// end of the test.
func Hang() Answer {
	return func(c *session) error {
		_, err := c.in.Peek(1)
		return errors.Join(errEnded, err)
	}
}

// After waits, as a slow statement does, and then answers. It stops waiting when
// the client leaves.
func After(d time.Duration, answer Answer) Answer {
	return func(c *session) error {
		if err := c.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
			return err
		}
		if _, err := c.in.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		return answer(c)
	}
}
