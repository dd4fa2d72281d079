package drivers

import (
	"context"
	"database/sql/driver"
	"os/user"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers/testdata/pgxpool"
)

// connector is one that nobody knows.
type connector struct{}

func (connector) Connect(context.Context) (driver.Conn, error) { return nil, driver.ErrBadConn }
func (connector) Driver() driver.Driver                        { return nil }

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

// addrConfig are settings as those of MySQL's driver.
type addrConfig struct{ Net, Addr, DBName string }

// readConfig are settings that keep what they were read from.
type readConfig struct {
	hostConfig
	connString string
}

func me(t *testing.T) string {
	u, err := user.Current()
	require.NoError(t, err)
	return u.Username
}

func mysqlBefore(t *testing.T) driver.Connector {
	cfg, err := mysql.ParseDSN("user:password@tcp(db:3306)/shop")
	require.NoError(t, err)
	require.NoError(t, cfg.Apply(mysql.BeforeConnect(func(context.Context, *mysql.Config) error { return nil })))
	c, err := mysql.NewConnector(cfg)
	require.NoError(t, err)
	return c
}

// pooled is a connector as pgx's, on a pool below it.
type pooled struct {
	connector
	hostConfig
	pool *pgxpool.Pool
}

func poolAt(host string, before func()) *pooled {
	return &pooled{pool: pgxpool.New(pgxpool.ConnConfig{Host: host, Port: 5433, Database: "shop"}, before)}
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
		"a pool":                   {poolAt("db", nil), Endpoint{"db", 5433, "shop"}},
		"a pool with a hook":       {poolAt("db", func() {}), Endpoint{"", 0, "shop"}},
		"a pool made by itself":    {&pooled{pool: &pgxpool.Pool{}}, Endpoint{}},
		"no pool":                  {&pooled{hostConfig: hostConfig{"user", "password", "db", 5433, "shop"}}, Endpoint{"db", 5433, "shop"}},

		"MySQL, a user in the address":         {&hosted{cfg: addrConfig{"tcp", "user:s3cret@db:3306", "shop"}}, Endpoint{}},
		"MySQL, an address without a port":     {&hosted{cfg: addrConfig{"tcp", "db", "größe_1"}}, Endpoint{"db", 0, "größe_1"}},
		"MySQL, a port that is none":           {&hosted{cfg: addrConfig{"tcp", "db:s3cret", "shop"}}, Endpoint{"db", 0, "shop"}},
		"MySQL, a network of one's own":        {&hosted{cfg: addrConfig{"cloud", "project:place:name", "shop"}}, Endpoint{"", 0, "shop"}},
		"MySQL, a password taken for one":      {mysqlAt("user:password(s3cret)/shop"), Endpoint{"", 0, "shop"}},
		"MySQL, a function of the application": {mysqlBefore(t), Endpoint{"", 0, "shop"}},
		"a password taken for a database":      {&hosted{cfg: hostConfig{"root", "", "alice", 4242, "s3cret@db/shop"}}, Endpoint{}},
		"settings without a password":          {&hosted{cfg: hostConfig{"user", "", "db", 5433, "shop"}}, Endpoint{"db", 5433, "shop"}},
		"a user taken for a host":              {&hosted{cfg: hostConfig{me(t), "", "alice", 4242, "s3cret"}}, Endpoint{}},
		"the same, and what was read":          {&hosted{cfg: readConfig{hostConfig{me(t), "", "alice", 4242, "s3cret"}, "postgres://alice:4242/s3cret#x@db/shop"}}, Endpoint{}},
		"white space in what was read":         {&hosted{cfg: readConfig{hostConfig{"user", "pass", "s3cret", 0, ""}, "user=user password=pass\u00a0host=s3cret"}}, Endpoint{}},
		"what was read":                        {&hosted{cfg: readConfig{hostConfig{me(t), "", "db", 5433, "shop"}, "host=db port=5433 dbname=shop password=''"}}, Endpoint{"db", 5433, "shop"}},
	} {
		assert.Equal(t, c.want, EndpointOf(c.c), name)
	}
	assert.Equal(t, Endpoint{}, EndpointOf(nil))
}

// embedding is a connector whose fields cannot be looked at.
type embedding struct{ *pooled }

// otherPool is a connector with a pool that is none of pgx's.
type otherPool struct {
	connector
	pool *addrConfig
}

func TestAPoolBelowIsFound(t *testing.T) {
	assert.True(t, IsPooled(poolAt("db", nil)))
	assert.True(t, IsPooled(*poolAt("db", nil)), "pgx's connector is no pointer")
	for name, c := range map[string]driver.Connector{
		"no pool": &pooled{}, "another pool": &otherPool{pool: &addrConfig{}}, "nothing": &connector{}, "nil": nil, "nil within": embedding{}, "settings": &hosted{cfg: 7},
	} {
		assert.False(t, IsPooled(c), name)
	}
}

func FuzzEndpointOfDSN(f *testing.F) {
	f.Add("user", "pass")
	f.Add("host", "x port=7")
	f.Fuzz(func(t *testing.T, user, password string) {
		const secret = "s3cr3t"
		password = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\v", "", "\f", "", "\r", "").Replace(password) // quotes would be needed, of which nothing is read
		if strings.ContainsAny(user, " \t\n\v\f\r") {
			return
		}
		for _, dsn := range []string{
			"user=" + user + " password=" + password + secret + " host=db",
			"host=db password=" + password + secret + " user=" + user,
			"postgres://" + user + ":" + password + secret + "@db/shop",
			"postgres://" + user + ":" + secret + password + "@db/shop",
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
		"postgres://alice:4242/s3cret@db/shop",
		"postgres://alice:4242/s3c?ret@db/shop",
		"postgres://alice:4242/s3c#ret@db/shop",
		"postgres://alice/s3cret@db",
		"postgres://alice:4242/s3cret%40db",
		"postgres://al/ice:s3cret@db/shop",
		"postgres://user:password@db/shop?host=other",
		"user=user password=pass\u00a0host=s3cret",
		"user=user password=pass\u2003dbname=s3cret host=db",
		"host=db user=user password=pass host=s3cret",
		"host=-s3cret",
		"host=fe80::1%s3cret",
	} {
		assert.Equal(t, Endpoint{}, endpointOfDSN(dsn), dsn)
	}
}
