package sqllease

import (
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hosted is a connector as those of PostgreSQL's drivers are.
type hosted struct {
	telemetryFake
	cfg any
}

type hostConfig struct {
	User, Password, Host string
	Port                 uint16
	Database             string
}

// named is a connector that keeps its data source name.
type named struct {
	telemetryFake
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
		want endpoint
	}{
		"MySQL":                    {mysqlAt("user:password@tcp(db.example.org:3307)/shop?timeout=3s"), endpoint{"db.example.org", 3307, "shop"}},
		"MySQL, IPv6":              {mysqlAt("user:password@tcp([::1]:3306)/shop"), endpoint{"::1", 3306, "shop"}},
		"MySQL, a socket":          {mysqlAt("user@unix(/run/mysqld.sock)/shop"), endpoint{"/run/mysqld.sock", 0, "shop"}},
		"settings":                 {&hosted{cfg: hostConfig{"user", "password", "db", 5433, "shop"}}, endpoint{"db", 5433, "shop"}},
		"a pointer to settings":    {&hosted{cfg: &hostConfig{"user", "password", "db", 5433, "shop"}}, endpoint{"db", 5433, "shop"}},
		"no settings":              {&hosted{cfg: (*hostConfig)(nil)}, endpoint{}},
		"other settings":           {&hosted{cfg: 7}, endpoint{}},
		"a URL":                    {&named{name: "postgres://user:password@db:5433/shop?sslmode=disable"}, endpoint{"db", 5433, "shop"}},
		"a URL without a port":     {&named{name: "postgresql://user@db/shop"}, endpoint{"db", 0, "shop"}},
		"a URL of two hosts":       {&named{name: "postgres://user:password@one,two/shop"}, endpoint{}},
		"a URL that is none":       {&named{name: "postgres://user:pass word@db/shop"}, endpoint{}},
		"keys":                     {&named{name: "user=user password=password host=db port=5433 dbname=shop"}, endpoint{"db", 5433, "shop"}},
		"keys in keys":             {&named{name: "password=host=secret user=user"}, endpoint{}},
		"keys with quotes":         {&named{name: `password='a host=secret' host=db`}, endpoint{}},
		"a name that is something": {&named{name: "registeredConnConfig0"}, endpoint{}},
		"nothing":                  {&telemetryFake{}, endpoint{}},
	} {
		assert.Equal(t, c.want, endpointOf(c.c), name)
	}
	assert.Equal(t, endpoint{}, endpointOf(nil))
}

func TestWhatIsToldOfTheServerCounts(t *testing.T) {
	c := &named{name: "host=db port=5433 dbname=shop"}
	p := newTelemetryPool(t, c, Config{ServerAddress: "proxy", Namespace: "orders"})
	exec(t, underParent(t), p.db, "DO 1")
	s := spanAttributes(p.take()[1])
	assert.Equal(t, "proxy", s["server.address"])
	assert.NotContains(t, s, "server.port", "it is the database's, and not the proxy's")
	assert.Equal(t, "orders", s["db.namespace"])
	assert.Equal(t, []string{"proxy"}, p.values(t, "db.client.operation.duration", "server.address"))
	assert.Empty(t, p.values(t, "db.client.connection.wait_time", "server.address"), "a pool has its name")
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
			assert.NotContains(t, e.address+e.namespace, secret, dsn)
		}
	})
}

// cyclic has settings that lead back to it.
type cyclic struct {
	telemetryFake
	cfg *cyclic
}

func TestNothingOfADSNIsTakenForSomethingElse(t *testing.T) {
	c := &cyclic{}
	c.cfg = c
	assert.Equal(t, endpoint{}, endpointOf(c))
	for _, dsn := range []string{
		"host=h;port=5432;user=bob;password=s3cret;dbname=x",
		"database=d;uid=bob;pwd=s3cret",
		"server=h; database=d;password=s3cret",
		"password = dbname=s3cret",
		"postgres://bob:p@s3cret?x@host/db",
		"postgres://bob:p@s3cret#x@host/db",
		`host='s3cret'`,
	} {
		assert.Equal(t, endpoint{}, endpointOfDSN(dsn), dsn)
	}
}
