package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"sync"
)

// statusCode is what the server said, as the conventions'
// db.response.status_code: MySQL's error number, or an SQLSTATE. It is empty
// where err is not of the server. No driver is imported for it: those of
// PostgreSQL have a method, and MySQL's is known by name.
func statusCode(err error) (code string) {
	defer func() {
		if recover() != nil { // an error that is nil within, or otherwise odd
			code = ""
		}
	}()
	for range 16 { // more have not been wrapped in each other in good faith
		if err == nil {
			return ""
		}
		if code := ownCode(err); code != "" {
			return code
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				if code := statusCode(err); code != "" {
					return code
				}
			}
			return ""
		}
		err = errors.Unwrap(err)
	}
	return ""
}

// sqlState is what an SQLSTATE looks like: an error may say other things.
var sqlState = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// ownCode is the code of an error itself.
func ownCode(err error) string {
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return ""
	}
	if s, ok := err.(interface{ SQLState() string }); ok {
		if code := s.SQLState(); sqlState.MatchString(code) {
			return code
		}
		return ""
	}
	v = reflect.Indirect(v)
	if v.Kind() != reflect.Struct || v.Type().Name() != "MySQLError" {
		return ""
	}
	if n := v.FieldByName("Number"); n.IsValid() && n.CanUint() {
		return strconv.FormatUint(n.Uint(), 10)
	}
	return ""
}

// errorType is the attribute error.type: what the server said, the well-known
// errors by name, others by their Go type; and what the server said by itself.
func errorType(err error) (kind, code string) {
	if code := statusCode(err); code != "" {
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
	return fmt.Sprintf("%T", err), ""
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

// isFull tells whether a server refuses to prepare a statement because it has too many:
// MySQL's and MariaDB's max_prepared_stmt_count.
func isFull(err error) bool {
	if err == nil {
		return false
	}
	_, code := errorType(err)
	return code == "1461"
}
