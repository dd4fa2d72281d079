package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"

	"github.com/sqllease/sqllease/internal/drivers"
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

// bounded lets the first values through that it sees, and calls all later ones
// by the conventions' name for what is not told apart, so that an application
// which makes up values cannot make up series of a metric.
type bounded struct {
	mu    sync.RWMutex
	known map[string]struct{} // guarded by mu
}

// mostValues is how many values one attribute of a metric may have.
const mostValues = 128

func (b *bounded) of(value string) string {
	b.mu.RLock()
	_, known := b.known[value]
	full := len(b.known) >= mostValues
	b.mu.RUnlock()
	switch {
	case known:
		return value
	case full:
		return "_OTHER"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known == nil {
		b.known = map[string]struct{}{}
	}
	if len(b.known) >= mostValues {
		return "_OTHER"
	}
	b.known[value] = struct{}{}
	return value
}

// saysNothingOfData tells whether the text of an error can hold no data of the
// application's.
func saysNothingOfData(err error) bool {
	switch err { //nolint:errorlint // what they are wrapped in may say more
	case context.Canceled, context.DeadlineExceeded, driver.ErrBadConn, errPanicked, errUnclosed, ErrClosed, ErrDeadlock:
		return true
	}
	_, ok := err.(*AcquireError) //nolint:errorlint // as above
	return ok
}
