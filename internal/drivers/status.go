package drivers

import (
	"errors"
	"reflect"
	"regexp"
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
	for range 16 { // more have not been wrapped in each other in good faith
		if err == nil {
			return ""
		}
		if code := ownCode(err); code != "" {
			return code
		}
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, err := range joined.Unwrap() {
				if code := StatusCode(err); code != "" {
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

// IsFull tells whether a server refuses to prepare a statement because it has too many:
// MySQL's and MariaDB's max_prepared_stmt_count.
func IsFull(err error) bool { return err != nil && StatusCode(err) == "1461" }
