package drivers

import (
	"errors"
	"reflect"
	"regexp"
	"slices"
	"strconv"
)

// StatusCode is what the server said, as the conventions'
// db.response.status_code: MySQL's error number, or an SQLSTATE. It is empty
// where err is not of the server. No driver is imported for it: those of
// PostgreSQL have a method, and MySQL's is known by name.
func StatusCode(err error) (code string) {
	defer func() {
		if recover() != nil { // an error that is nil within, or otherwise odd
			code = ""
		}
	}()
	within(err, func(err error) bool {
		code = ownCode(err)
		return code != ""
	})
	return code
}

// within tells whether something is so of an error, or of one that it wraps.
func within(err error, is func(error) bool) bool {
	for range 16 { // more have not been wrapped in each other in good faith
		if err == nil {
			return false
		}
		if is(err) {
			return true
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			return slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return within(err, is) })
		}
		err = errors.Unwrap(err)
	}
	return false
}

// sqlState is what an SQLSTATE looks like: an error may say other things.
var sqlState = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// sqlStateIn is the SQLSTATE that a text is; empty: it is none.
func sqlStateIn(code string) string {
	if sqlState.MatchString(code) {
		return code
	}
	return ""
}

// ownCode is the code of an error itself.
func ownCode(err error) string {
	v := reflect.ValueOf(err)
	if v.Kind() == reflect.Pointer && v.IsNil() {
		return ""
	}
	switch e := err.(type) {
	case interface{ SQLState() string }:
		return sqlStateIn(e.SQLState())
	case interface{ Field(byte) string }: // bun's pgdriver, which names fields as the protocol does
		return sqlStateIn(e.Field('C'))
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

// IsFull tells whether a server refuses to prepare a statement because it has too many:
// MySQL's and MariaDB's max_prepared_stmt_count.
func IsFull(err error) bool { return err != nil && StatusCode(err) == "1461" }
