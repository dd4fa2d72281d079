package drivers

import (
	"database/sql/driver"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease/internal/statement"
)

// other is a driver that nobody knows.
type other struct{ driver.Driver }

func TestTheDialectIsToldFromTheDriversPackage(t *testing.T) {
	assert.Equal(t, MySQL, DialectOf(&mysql.MySQLDriver{}))
	assert.Equal(t, MySQL, DialectOf(mysql.MySQLDriver{}))
	assert.Empty(t, DialectOf(other{}))
	assert.Empty(t, DialectOf(&other{&mysql.MySQLDriver{}}), "what a driver embeds does not count")
	assert.Empty(t, DialectOf(nil))
}

func TestEveryDialectIsWhole(t *testing.T) {
	for _, name := range Names() {
		d := Named(name)
		assert.Equal(t, name, d.Name)
		assert.NotEmpty(t, d.System, name)
		assert.NotEqual(t, statement.Unknown, d.Grammar, name)
		assert.NotNil(t, d.Discovery, name)
	}
	assert.Equal(t, Dialect{}, Named("none"))
}

func TestAVendoredDriverIsTheDriver(t *testing.T) {
	for path, own := range map[string]string{
		"github.com/lib/pq":                      "github.com/lib/pq",
		"example.org/shop/vendor/github.com/a/b": "github.com/a/b",
		"example.org/vendors/github.com/a/b":     "example.org/vendors/github.com/a/b",
		"":                                       "",
	} {
		assert.Equal(t, own, unvendored(path))
	}
}

func TestTheSystemOfADriverThatIsNotAskedIsKnown(t *testing.T) {
	assert.Empty(t, SystemOf(other{}))
	assert.Empty(t, SystemOf(nil))
	for path, system := range systems {
		assert.Empty(t, DialectOf(nil), path)
		assert.Regexp(t, `^[a-z0-9]+([._][a-z0-9]+)*$`, system, path)
		assert.NotContains(t, path, " ")
	}
}
