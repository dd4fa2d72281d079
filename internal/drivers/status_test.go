package drivers

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
)

// sqlStateError is an error as the drivers of PostgreSQL have them.
type sqlStateError struct{ code string }

func (e sqlStateError) SQLState() string { return e.code }
func (e sqlStateError) Error() string {
	return "duplicate key: jane@example.org (SQLSTATE " + e.code + ")"
}

// fieldError is an error as bun's pgdriver has them.
type fieldError struct{ fields map[byte]string }

func (e fieldError) Field(k byte) string { return e.fields[k] }
func (e fieldError) Error() string       { return e.fields['M'] }

func TestTheCodeOfAnErrorIsFoundWithinOthers(t *testing.T) {
	assert.Equal(t, "1213", StatusCode(fmt.Errorf("placing the order: %w", &mysql.MySQLError{Number: 1213})))
	assert.Equal(t, "40001", StatusCode(fmt.Errorf("placing the order: %w", sqlStateError{"40001"})))
	assert.Empty(t, StatusCode(errors.New("no such host")))
	assert.Equal(t, "40001", StatusCode(errors.Join(errors.New("rolled back"), sqlStateError{"40001"})))
	assert.Empty(t, StatusCode((*mysql.MySQLError)(nil)))
	assert.Empty(t, StatusCode((*sqlStateError)(nil)), "a driver's error may be nil within")
	assert.Empty(t, StatusCode(sqlStateError{"duplicate value 's3cret'"}), "that is no SQLSTATE")
	assert.Empty(t, StatusCode(nil))
	assert.Equal(t, "40001", StatusCode(fmt.Errorf("placing the order: %w", fieldError{map[byte]string{'C': "40001", 'M': "could not serialize"}})))
	assert.Empty(t, StatusCode(fieldError{map[byte]string{'M': "40001"}}))
}
