package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// What a server is asked for its limits, and whatever it answers.

func TestDiscoveryIsOfEachSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{
			lifetimeSeconds(28800), lifetimeSeconds(60), errors.New("not now"), lifetimeSeconds(0),
		}}
		db, c := openPool(t, f, Config{Dialect: DialectMySQL, Logger: slog.New(&keptLog{})})
		for _, want := range []time.Duration{
			8 * time.Hour,
			time.Minute,
			time.Minute, // what could not be found out is taken to be as it was
			0,
		} {
			conn, err := db.Conn(t.Context())
			require.NoError(t, err)
			defer func() { assert.NoError(t, conn.Close()) }()
			assert.Equal(t, want, c.Stats().IdleLimit)
		}
		assert.Equal(t, uint64(1), c.Stats().DiscoveryFailures)
		assert.Equal(t, uint64(4), c.Stats().Dials)
	})
}

func TestPostgreSQLsTimeoutsAreDiscovered(t *testing.T) {
	for _, dialect := range []Dialect{DialectPostgreSQL, DialectCockroachDB} {
		synctest.Test(t, func(t *testing.T) {
			f := &lifetimeFake{announced: []any{[]driver.Value{[]byte("5min"), "10s"}}}
			db, c := openPool(t, f, Config{Dialect: dialect})
			useOnce(t, db)
			assert.Equal(t, 5*time.Minute, c.Stats().IdleLimit)
			assert.Equal(t, 270*time.Second, c.Stats().Lifetime)
			assert.Equal(t, int64(10*time.Second), c.newest.idleTx.Load())
		})
	}
}

// remedies are what the warning of a failed discovery has to name.
var remedies = []string{"idle limit could not be discovered", "Config.NetworkIdleLimit", "Config.Dialect", "sqllease.DialectNone"}

// A discovery that fails is counted each time, warned of once, and costs no
// caller anything: neither those of this session nor those of the next.
func TestADiscoveryThatFailsFailsNoSession(t *testing.T) {
	for name, c := range map[string]struct {
		dialect Dialect
		answer  any
		err     string
	}{
		"an error":        {DialectMySQL, errors.New("unknown system variable"), "unknown system variable"},
		"declined":        {DialectMySQL, driver.ErrSkip, "not prepared for that"},
		"text":            {DialectMySQL, []driver.Value{"a while"}, `got "a while", expected a number of seconds`},
		"negative":        {DialectMySQL, []driver.Value{int64(-5)}, `got "-5", expected a number of seconds`},
		"NULL":            {DialectTiDB, []driver.Value{nil}, `got "", expected a number of seconds`},
		"no row":          {DialectMySQL, []driver.Value(nil), "got no row"},
		"two columns":     {DialectMySQL, []driver.Value{int64(1), int64(2), int64(3)}, "got 3 columns, expected 1 or 2"},
		"one column":      {DialectPostgreSQL, []driver.Value{"5min"}, "got 1 column, expected 2 or 3"},
		"a strange unit":  {DialectPostgreSQL, []driver.Value{"5 fortnights", "0"}, `got "5 fortnights", expected a timeout`},
		"negative, in tx": {DialectCockroachDB, []driver.Value{"0", "-1"}, `got "-1", expected a timeout`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				// The limit that is known goes on to count.
				db, pool, l := openLimited(t, f, Config{Name: "orders", Dialect: c.dialect, NetworkIdleLimit: time.Minute})
				for range 3 {
					useOnce(t, db)
					elapse(time.Minute)
				}
				useOnce(t, db)
				s := pool.Stats()
				assert.Equal(t, uint64(4), s.Dials)
				assert.Zero(t, s.DialErrors)
				assert.Equal(t, uint64(4), s.DiscoveryFailures)
				assert.Equal(t, []uint64{3, 3}, []uint64{s.Closed.Retired(), s.Closed.Total()})
				assert.Equal(t, time.Minute, s.IdleLimit)
				text := l.wantOneWarning(t, map[string]string{
					"pool": "orders", "dialect": string(c.dialect), "query": drivers.Named(string(c.dialect)).Discovery.Query,
				}, remedies...)
				assert.Contains(t, text, c.err)
				endLimited(t, db, pool, f)
				assert.Len(t, f.sessions(), 4, "no session was dialed twice")
			})
		})
	}
}

func TestAnOddDiscoveryThatCanBeMeantFailsNot(t *testing.T) {
	for name, c := range map[string]struct {
		dialect Dialect
		answer  []driver.Value
		limit   time.Duration
	}{
		"zero":             {DialectMySQL, []driver.Value{int64(0)}, 0},
		"centuries":        {DialectMySQL, []driver.Value{int64(math.MaxInt64)}, 0},
		"bytes":            {DialectMySQL, []driver.Value{[]byte("60")}, time.Minute},
		"both NULL":        {DialectPostgreSQL, []driver.Value{nil, nil}, 0},
		"the first NULL":   {DialectPostgreSQL, []driver.Value{nil, "1min"}, 0},
		"centuries, days":  {DialectPostgreSQL, []driver.Value{"999999d", "0"}, 0},
		"bare numbers":     {DialectCockroachDB, []driver.Value{"60000", "0"}, time.Minute},
		"never to be told": {DialectNone, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				db, pool, l := openLimited(t, f, Config{Dialect: c.dialect})
				useOnce(t, db)
				assert.Equal(t, c.limit, pool.Stats().IdleLimit)
				assert.Zero(t, pool.Stats().DiscoveryFailures)
				assert.Empty(t, l.records)
				endLimited(t, db, pool, f)
			})
		})
	}
}

func TestADiscoveryThatHangsCostsItsTimeoutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{hanging}}
		db, c, l := openLimited(t, f, Config{Dialect: DialectMySQL})
		start := time.Now()
		useOnce(t, db)
		assert.Equal(t, 5*time.Second, time.Since(start))
		useOnce(t, db)
		assert.Equal(t, 5*time.Second, time.Since(start), "the session is there now")
		s := c.Stats()
		assert.Equal(t, uint64(1), s.Dials)
		assert.Equal(t, uint64(1), s.DiscoveryFailures)
		assert.Equal(t, 1, s.Open)
		text := l.wantOneWarning(t, nil, remedies...)
		assert.Equal(t, context.DeadlineExceeded.Error(), text)
		all := f.sessions()
		require.Len(t, all, 2, "the session that was asked is lost, and not asked is its successor")
		assert.Equal(t, 5*time.Second, all[0].closedAfter(t))
		assert.Equal(t, 2, all[1].uses)
		endLimited(t, db, c, f)
	})
}

// costing is a discovery that costs its session.
func costing(err error) func(context.Context, *lifetimeFakeConn) error {
	return func(_ context.Context, c *lifetimeFakeConn) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.broken = true
		return err
	}
}

// hanging is a discovery that is never answered.
func hanging(ctx context.Context, _ *lifetimeFakeConn) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestADiscoveryThatHangsEndsWithTheCallersContext(t *testing.T) {
	for name, c := range map[string]struct {
		cfg     Config
		timeout time.Duration // of the caller
	}{
		"the caller's":    {Config{}, 3 * time.Second},
		"acquire timeout": {Config{AcquireTimeout: 3 * time.Second}, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{hanging, hanging, lifetimeSeconds(60)}}
				c.cfg.Dialect = DialectMySQL
				db, pool, l := openLimited(t, f, c.cfg)
				for range 2 {
					start := time.Now()
					ctx, cancel := context.WithTimeout(t.Context(), c.timeout)
					_, err := db.ExecContext(ctx, "DO 1")
					cancel()
					require.ErrorIs(t, err, context.DeadlineExceeded)
					assert.Equal(t, 3*time.Second, time.Since(start))
					assert.Zero(t, pool.Stats().Open)
				}
				assert.Empty(t, l.records, "the server was not given its time: nothing is wrong with it")
				assert.Zero(t, pool.Stats().DiscoveryFailures)
				useOnce(t, db)
				assert.Equal(t, time.Minute, pool.Stats().IdleLimit)
				endLimited(t, db, pool, f)
				assert.Len(t, f.sessions(), 3)
			})
		})
	}
}

func TestADiscoveryThatPanicsClosesTheSessionAndLosesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panicking := func(context.Context, *lifetimeFakeConn) error { panic("the driver's bug") }
		f := &lifetimeFake{announced: []any{panicking, lifetimeSeconds(60)}}
		db, c, _ := openLimited(t, f, Config{Dialect: DialectMySQL})
		assert.PanicsWithValue(t, "the driver's bug", func() { _, _ = db.ExecContext(t.Context(), "DO 1") })
		synctest.Wait()
		assert.Zero(t, c.Stats().Open)
		f.sessions()[0].closedAfter(t)
		endLimited(t, db, c, f)
	})
}

func TestADiscoveryThatCostsTheSessionIsNotAskedOfItsSuccessor(t *testing.T) {
	valid := func(c *lifetimeFakeConn) driver.Conn { return validFakeConn{c} }
	for name, c := range map[string]struct {
		err   error
		dress func(*lifetimeFakeConn) driver.Conn
	}{
		"driver.ErrBadConn":        {driver.ErrBadConn, nil},
		"any error, and not valid": {errLifetimeGone, valid},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{costing(c.err)}, dress: c.dress}
				db, pool, l := openLimited(t, f, Config{Dialect: DialectMySQL, MaxLifetime: time.Minute})
				useOnce(t, db)
				elapse(time.Minute)
				useOnce(t, db)
				s := pool.Stats()
				assert.Equal(t, uint64(2), s.Dials)
				assert.Equal(t, uint64(2), s.DiscoveryFailures)
				assert.Equal(t, []uint64{1, 1}, []uint64{s.Closed.Retired(), s.Closed.Total()})
				assert.Equal(t, c.err.Error(), l.wantOneWarning(t, nil, remedies...))
				endLimited(t, db, pool, f)
				assert.Len(t, f.sessions(), 4)
			})
		})
	}
}

func TestADiscoveryThatCostsTheSessionOfADriverWithoutAValidator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{
			announced: []any{costing(io.ErrUnexpectedEOF)},
			dress:     func(c *lifetimeFakeConn) driver.Conn { return resetFakeConn{c} },
		}
		db, _ := openPool(t, f, Config{Dialect: DialectPostgreSQL, MaxOpen: 1})
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.NoError(t, err)
		require.NoError(t, db.Close())
	})
}

func TestASuccessorThatCannotBeDialledFailsTheAcquireAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		var dials atomic.Int32
		f := &lifetimeFake{
			announced: []any{driver.ErrBadConn, lifetimeSeconds(60)},
			connect: func(context.Context, int) error {
				if dials.Add(1) == 2 {
					return refused
				}
				return nil
			},
		}
		db, c, l := openLimited(t, f, Config{Dialect: DialectMySQL})
		_, err := db.ExecContext(t.Context(), "DO 1")
		assert.Same(t, refused, err)
		s := c.Stats()
		assert.Zero(t, s.Open)
		assert.Equal(t, uint64(1), s.DialErrors)
		l.wantOneWarning(t, nil, remedies...)
		endLimited(t, db, c, f)
	})
}

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
		"a close":     {mysqlscript.Disconnect(mysqlscript.FIN), "invalid connection", 2, 0},
		"a reset":     {mysqlscript.Disconnect(mysqlscript.RST), "", 2, 0},
		"a last word": {mysqlscript.Disconnect(mysqlscript.TimeoutError), "", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: c.answer})
			db, pool, l := openLimited(t, lifetimeDriver(t, server.DSN()), Config{})
			for range 3 {
				useOnce(t, db)
			}
			s := pool.Stats()
			assert.Equal(t, uint64(1), s.Dials)
			assert.Equal(t, uint64(3), s.Acquires)
			if c.err == "" && c.accepted == 1 {
				assert.Zero(t, s.DiscoveryFailures)
				assert.Empty(t, l.records)
			} else {
				assert.Equal(t, uint64(1), s.DiscoveryFailures)
				assert.Contains(t, l.wantOneWarning(t, map[string]string{"dialect": "mysql"}, remedies...), c.err)
			}
			require.NoError(t, db.Close())
			assert.Zero(t, pool.Stats().Open)
			n := server.Await(t, func(n mysqlscript.Counts) bool { return n.Open == 0 })
			assert.Equal(t, c.accepted, n.Opened)
			assert.Equal(t, 1, n.Discoveries)
			assert.Equal(t, 3+c.pings, n.Uses)
		})
	}
}

// A MariaDB that a driver for MySQL connects to says that it is one: from then on, spans and
// metrics say so too. What the application says itself counts for more.
func TestWhatTheServerIsIsAsked(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"told by the server":      {Config{}, "mariadb"},
		"told by the application": {Config{Dialect: DialectMySQL}, "mysql"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTelemetryPool(t, &mariaFake{}, c.cfg)
			exec(t, underParent(t), p.db, "DO 1")
			spans := p.take()
			assert.Equal(t, c.want, spanAttributes(spans[len(spans)-1])["db.system.name"])
			for _, m := range p.collect(t) {
				for _, set := range attributeSets(m) {
					system, _ := set.Value("db.system.name")
					assert.Equal(t, c.want, system.AsString(), m.Name)
				}
			}
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
	return &rowFake{row: []driver.Value{uint64(28800), []byte("10.11.6-MariaDB-0+deb12u1")}}, nil
}

// rowFake is a result set of one row.
type rowFake struct {
	row  []driver.Value
	read bool
}

func (r *rowFake) Columns() []string { return make([]string, len(r.row)) }
func (r *rowFake) Close() error      { return nil }
func (r *rowFake) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	copy(dest, r.row)
	return nil
}
