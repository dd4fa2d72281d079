package sqllease

import (
	"context"
	"database/sql/driver"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// What the server is asked, on the wire; and what it says that it is.

// The same with the real driver, on the wire.
func TestARealDriverSurvivesWhateverItsServerAnnounces(t *testing.T) {
	for name, c := range map[string]struct {
		answer   mysqlscript.Answer
		err      string // part of the warning's; "": no failure
		accepted int    // connections for one session
		pings    int    // that ask whether the connection survived
	}{
		"an error":    {mysqlscript.Fail(1193, "Unknown system variable 'wait_timeout'"), "Error 1193", 1, 1},
		"text":        {mysqlscript.Text("a while"), `"a while"`, 1, 0},
		"empty":       {mysqlscript.Text(""), `""`, 1, 0},
		"negative":    {mysqlscript.Text("-5"), `"-5"`, 1, 0},
		"NULL":        {mysqlscript.Rows("value", nil), `""`, 1, 0},
		"no row":      {mysqlscript.NoRows(), "got no row", 1, 0},
		"OK":          {mysqlscript.OK(), "got", 1, 0},
		"too huge":    {mysqlscript.Number(math.MaxUint64), "", 1, 0},
		"two rows":    {mysqlscript.Rows("value", uint64(60), uint64(70)), "", 1, 0},
		"centuries":   {mysqlscript.Number(1 << 40), "", 1, 0},
		"a close":     {mysqlscript.Disconnect(mysqlscript.FIN), "", 2, 0},
		"a reset":     {mysqlscript.Disconnect(mysqlscript.RST), "", 2, 0},
		"a last word": {mysqlscript.Disconnect(mysqlscript.TimeoutError), "", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: c.answer})
			db, pool, l := openLimited(t, lifetimeDriver(t, server.DSN()), Config{})
			useOnce(t, db)
			awaitDiscovery(t, pool) // else whoever comes meanwhile would dial another connection
			for range 3 {
				useOnce(t, db)
			}
			s := pool.Stats()
			assert.Equal(t, uint64(c.accepted), s.Dials)
			assert.Equal(t, uint64(4), s.Acquires)
			if c.err == "" && c.accepted == 1 {
				assert.Zero(t, s.DiscoveryFailures)
				assert.Empty(t, l.records)
			} else {
				assert.Equal(t, uint64(1), s.DiscoveryFailures)
			}
			switch {
			case c.accepted > 1:
				assert.Empty(t, l.take(), "its connection was lost, and nothing else")
			case c.err != "":
				assert.Contains(t, l.wantOneWarning(t, map[string]string{"dialect": "mysql"}, remedies...), c.err)
			}
			require.NoError(t, db.Close())
			assert.Zero(t, pool.Stats().Open)
			n := server.Await(t, func(n mysqlscript.Counts) bool { return n.Open == 0 })
			assert.Equal(t, c.accepted, n.Opened)
			assert.Equal(t, 1, n.Discoveries)
			assert.Equal(t, 4+c.pings, n.Uses)
		})
	}
}

// awaitDiscovery waits until a server has been asked, in real time, and its answer has taken effect.
func awaitDiscovery(t *testing.T, c *Connector) {
	t.Helper()
	require.Eventually(t, func() bool {
		asked := c.asking.known.Load() != nil || c.Stats().DiscoveryFailures > 0
		return asked && !c.asking.busy.Load()
	}, 10*time.Second, time.Millisecond)
}

// Drivers of MySQL know a MariaDB from its handshake: nobody has to be asked.
func TestAMariaDBIsKnownFromItsHandshake(t *testing.T) {
	for version, want := range map[string]string{"": "mysql", "5.5.5-10.11.6-MariaDB": "mariadb"} {
		server := mysqlscript.Start(t, mysqlscript.Script{Version: version})
		inner, err := mysql.MySQLDriver{}.OpenConnector(server.DSN())
		require.NoError(t, err)
		p := newTelemetryPool(t, inner, Config{Discovery: NoDiscovery})
		exec(t, underParent(t), p.db, "DO 1")
		spans := p.take()
		assert.Equal(t, want, spanAttributes(spans[len(spans)-1])["db.system.name"])
		require.NoError(t, p.db.Close())
	}
}

// A server that is asked says what it is: from then on, spans and metrics say so too. What the application says itself counts for more.
func TestWhatTheServerIsIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"told by the server":      {Config{}, "mariadb"},
		"told by the application": {Config{Dialect: DialectMySQL}, "mysql"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &mariaFake{}, c.cfg)
				exec(t, underParent(t), p.db, "DO 1")
				elapse(2 * askAfter)
				p.take()
				exec(t, underParent(t), p.db, "DO 1")
				spans := p.take()
				assert.Equal(t, c.want, spanAttributes(spans[len(spans)-1])["db.system.name"])
			})
		})
	}
}

// mariaFake is a MariaDB, as go-sql-driver/mysql sees it.
type mariaFake struct{ telemetryFake }

func (f *mariaFake) Driver() driver.Driver { return &mysql.MySQLDriver{} }

func (f *mariaFake) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.telemetryFake.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return mariaFakeConn{conn.(*telemetryFakeConn)}, nil
}

type mariaFakeConn struct{ *telemetryFakeConn }

func (c mariaFakeConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &rowsFake{rows: [][]driver.Value{{"wait_timeout", []byte("28800")}, {"version", []byte("10.11.6-MariaDB-0+deb12u1")}}}, nil
}

// rowsFake is a result set.
type rowsFake struct {
	rows [][]driver.Value
	read int
}

func (r *rowsFake) Columns() []string { return make([]string, len(r.rows[0])) }
func (r *rowsFake) Close() error      { return nil }
func (r *rowsFake) Next(dest []driver.Value) error {
	if r.read == len(r.rows) {
		return io.EOF
	}
	copy(dest, r.rows[r.read])
	r.read++
	return nil
}
