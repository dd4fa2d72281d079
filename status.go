package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/sqllease/sqllease/internal/drivers"
)

// Why acquires fail, as error.type says it, where it is nothing that a dial met with.
const (
	whyLate      = "acquire_timeout" // Config.AcquireTimeout
	whyTooLate   = "context.DeadlineExceeded"
	whyCancelled = "context.Canceled"
	whyClosed    = "closed"
	whyDeadlock  = "deadlock"
	whyFlood     = "overloaded" // Config.MaxWaiting, Config.QueueTarget
	whyOther     = "other"
)

// errorType is the attribute error.type: what the server said, the well-known
// errors by name, others by their Go type; and what the server said by itself.
func errorType(err error) (kind, code string) {
	if code := drivers.StatusCode(err); code != "" {
		return code, code
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "context.DeadlineExceeded", ""
	case errors.Is(err, context.Canceled):
		return "context.Canceled", ""
	case errors.Is(err, driver.ErrBadConn):
		return "driver.ErrBadConn", ""
	case err == errPanicked:
		return "panic", ""
	case err == errUnclosed:
		return "unclosed", ""
	case errors.Is(err, ErrOverloaded):
		return whyFlood, ""
	case errors.Is(err, ErrDeadlock):
		return whyDeadlock, ""
	case errors.Is(err, ErrClosed):
		return whyClosed, ""
	}
	if kind := drivers.Failure(err); kind != "" {
		return kind, ""
	}
	return fmt.Sprintf("%T", innermost(err)), ""
}

// innermost is what an error wraps: of a chain, what it began with.
func innermost(err error) error {
	for range 16 {
		inner := errors.Unwrap(err)
		if inner == nil {
			break
		}
		err = inner
	}
	return err
}

// saysNothingOfData tells whether the text of an error can hold no data of the
// application's.
func saysNothingOfData(err error) bool {
	switch err { //nolint:errorlint // what they are wrapped in may say more
	case context.Canceled, context.DeadlineExceeded, driver.ErrBadConn, errPanicked, errUnclosed, ErrClosed, ErrDeadlock, ErrOverloaded:
		return true
	}
	_, ok := err.(*AcquireError) //nolint:errorlint // as above
	return ok
}
