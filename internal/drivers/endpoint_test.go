package drivers

import (
	"context"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// connector is one that nobody knows.
type connector struct{}

func (*connector) Connect(context.Context) (driver.Conn, error) { return nil, driver.ErrBadConn }
func (*connector) Driver() driver.Driver                        { return nil }

// hosted is a connector as those of PostgreSQL's drivers are.
type hosted struct {
	connector
	cfg any
}

type hostConfig struct {
	User, Password, Host string
	Port                 uint16
	Database             string
}

// named is a connector that keeps its data source name.
type named struct {
	connector
	name string
}

func TestWhereAConnectorConnectsIsFound(t *testing.T) {
	mysqlAt := func(dsn string) driver.Connector {
		cfg, err := mysql.ParseDSN(dsn)
		require.NoError(t, err)
		c, err := mysql.NewConnector(cfg)
		require.NoError(t, err)
		return c
	}
	for name, c := range map[string]struct {
		c    driver.Connector
		want Endpoint
	}{
		"MySQL":                    {mysqlAt("user:password@tcp(db.example.org:3307)/shop?timeout=3s"), Endpoint{"db.example.org", 3307, "shop"}},
		"MySQL, IPv6":              {mysqlAt("user:password@tcp([::1]:3306)/shop"), Endpoint{"::1", 3306, "shop"}},
		"MySQL, a socket":          {mysqlAt("user@unix(/run/mysqld.sock)/shop"), Endpoint{"/run/mysqld.sock", 0, "shop"}},
		"settings":                 {&hosted{cfg: hostConfig{"user", "password", "db", 5433, "shop"}}, Endpoint{"db", 5433, "shop"}},
		"a pointer to settings":    {&hosted{cfg: &hostConfig{"user", "password", "db", 5433, "shop"}}, Endpoint{"db", 5433, "shop"}},
		"no settings":              {&hosted{cfg: (*hostConfig)(nil)}, Endpoint{}},
		"other settings":           {&hosted{cfg: 7}, Endpoint{}},
		"a URL":                    {&named{name: "postgres://user:password@db:5433/shop?sslmode=disable"}, Endpoint{"db", 5433, "shop"}},
		"a URL without a port":     {&named{name: "postgresql://user@db/shop"}, Endpoint{"db", 0, "shop"}},
		"a URL of two hosts":       {&named{name: "postgres://user:password@one,two/shop"}, Endpoint{}},
		"a URL that is none":       {&named{name: "postgres://user:pass word@db/shop"}, Endpoint{}},
		"keys":                     {&named{name: "user=user password=password host=db port=5433 dbname=shop"}, Endpoint{"db", 5433, "shop"}},
		"keys in keys":             {&named{name: "password=host=secret user=user"}, Endpoint{}},
		"keys with quotes":         {&named{name: `password='a host=secret' host=db`}, Endpoint{}},
		"a name that is something": {&named{name: "registeredConnConfig0"}, Endpoint{}},
		"nothing":                  {&connector{}, Endpoint{}},
	} {
		assert.Equal(t, c.want, EndpointOf(c.c), name)
	}
	assert.Equal(t, Endpoint{}, EndpointOf(nil))
}

func FuzzEndpointOfDSN(f *testing.F) {
	f.Add("user", "pass")
	f.Add("host", "x port=7")
	f.Fuzz(func(t *testing.T, user, password string) {
		const secret = "s3cr3t"
		password = strings.ReplaceAll(password, " ", "") // quotes would be needed, of which nothing is read
		if strings.ContainsAny(password+user, "\t\n\v\f\r\u0085\u00a0 ") || strings.ContainsFunc(password+user, func(r rune) bool { return r > 126 }) {
			return
		}
		for _, dsn := range []string{
			"user=" + user + " password=" + password + secret + " host=db",
			"postgres://" + user + ":" + password + secret + "@db/shop",
		} {
			e := endpointOfDSN(dsn)
			assert.NotContains(t, e.Address+e.Namespace, secret, dsn)
		}
	})
}

// cyclic has settings that lead back to it.
type cyclic struct {
	connector
	cfg *cyclic
}

func TestNothingOfADSNIsTakenForSomethingElse(t *testing.T) {
	c := &cyclic{}
	c.cfg = c
	assert.Equal(t, Endpoint{}, EndpointOf(c))
	for _, dsn := range []string{
		"host=h;port=5432;user=bob;password=s3cret;dbname=x",
		"database=d;uid=bob;pwd=s3cret",
		"server=h; database=d;password=s3cret",
		"password = dbname=s3cret",
		"postgres://bob:p@s3cret?x@host/db",
		"postgres://bob:p@s3cret#x@host/db",
		`host='s3cret'`,
	} {
		assert.Equal(t, Endpoint{}, endpointOfDSN(dsn), dsn)
	}
}
