package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// badInputLog keeps what is logged.
type badInputLog struct {
	mu      sync.Mutex
	records []slog.Record // guarded by mu
}

func badInputLogger(l *badInputLog) *slog.Logger { return slog.New(l) }

// Enabled reports true: everything is kept.
func (l *badInputLog) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs returns l: the library gives its attributes with each record.
func (l *badInputLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup returns l: the library has no groups.
func (l *badInputLog) WithGroup(string) slog.Handler { return l }

// Handle keeps a record.
func (l *badInputLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, r)
	return nil
}

// await waits for a record, since warnings are logged aside.
func (l *badInputLog) await() {
	for range 1000 {
		l.mu.Lock()
		n := len(l.records)
		l.mu.Unlock()
		if n > 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// wantOneWarning checks that one record was logged, a warning with all these
// texts in its message and all these attributes, and returns its error.
func (l *badInputLog) wantOneWarning(t *testing.T, attributes map[string]string, texts ...string) string {
	t.Helper()
	l.await()
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Len(t, l.records, 1)
	r := l.records[0]
	assert.Equal(t, slog.LevelWarn, r.Level)
	for _, text := range texts {
		assert.Contains(t, r.Message, text)
	}
	got := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		got[a.Key] = a.Value.String()
		return true
	})
	for key, value := range attributes {
		assert.Equal(t, value, got[key], key)
	}
	return got["error"]
}

// badInputRemedies is what a warning of a failed discovery has to name.
var badInputRemedies = []string{"idle limit could not be discovered", "Config.NetworkIdleLimit", "Config.Dialect", "sqllease.DialectNone"}

// badInputConfigError checks that err names the field, its value and the remedy.
func badInputConfigError(t *testing.T, err error, field, value, remedy string) {
	t.Helper()
	var refused *ConfigError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, field, refused.Field)
	assert.Equal(t, value, refused.Value)
	assert.Contains(t, refused.Reason, remedy)
	assert.Equal(t, "sqllease: "+field+" is "+value+": "+refused.Reason, err.Error())
}

func TestANilConnectorIsRefused(t *testing.T) {
	for name, inner := range map[string]driver.Connector{"untyped": nil, "a nil pointer": (*lifetimeFake)(nil)} {
		t.Run(name, func(t *testing.T) {
			c, err := Wrap(inner, Config{})
			assert.Nil(t, c)
			badInputConfigError(t, err, "connector", "nil", "NewConnector")
			db, err := OpenDB(inner, Config{})
			assert.Nil(t, db)
			badInputConfigError(t, err, "connector", "nil", "NewConnector")
		})
	}
}

func TestAConfigThatCannotBeMeantIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cfg                  Config
		field, value, remedy string
	}{
		"negative MaxOpen":          {Config{MaxOpen: -1}, "MaxOpen", "-1", "use zero for none"},
		"negative MinIdle":          {Config{MinIdle: -2}, "MinIdle", "-2", "use zero for none"},
		"negative AcquireTimeout":   {Config{AcquireTimeout: -time.Second}, "AcquireTimeout", "-1s", "use zero for none"},
		"negative MaxLifetime":      {Config{MaxLifetime: -1}, "MaxLifetime", "-1ns", "use zero for none"},
		"negative NetworkIdleLimit": {Config{NetworkIdleLimit: math.MinInt64}, "NetworkIdleLimit", "-2562047h47m16.854775808s", "use zero for none"},
		"AcquireTimeout no unit":    {Config{AcquireTimeout: 30}, "AcquireTimeout", "30ns", "was a unit forgotten?"},
		"MaxLifetime no unit":       {Config{MaxLifetime: 3600}, "MaxLifetime", "3.6µs", "was a unit forgotten?"},
		"NetworkIdleLimit no unit":  {Config{NetworkIdleLimit: time.Millisecond - 1}, "NetworkIdleLimit", "999.999µs", "was a unit forgotten?"},
		"MinIdle over MaxOpen":      {Config{MaxOpen: 3, MinIdle: 4}, "MinIdle", "4", "MaxOpen, which is 3; lower it or raise MaxOpen"},
		"LeakThreshold over MaxLifetime": {
			Config{MaxLifetime: time.Minute, LeakThreshold: time.Hour}, "LeakThreshold", "1h0m0s", "MaxLifetime, which is 1m0s; lower it, or use a negative value",
		},
		"unknown Comments":             {Config{Comments: "yes"}, "Comments", `"yes"`, "use CommentsOff, CommentsAppend or CommentsPrepend"},
		"CommentTags without Comments": {Config{CommentTags: func(context.Context) map[string]string { return nil }}, "CommentTags", "a function", "set it, or leave CommentTags nil"},
		"unknown Dialect":              {Config{Dialect: "oracle"}, "Dialect", `"oracle"`, `use one of ["mysql" "mariadb" "tidb" "postgresql" "cockroachdb" "none"], or leave it empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Wrap(&lifetimeFake{}, c.cfg)
			badInputConfigError(t, err, c.field, c.value, c.remedy)
			_, err = OpenDB(&lifetimeFake{}, c.cfg)
			badInputConfigError(t, err, c.field, c.value, c.remedy)
			_, err = Open("mysql", "user@tcp(127.0.0.1:1)/test", c.cfg)
			badInputConfigError(t, err, c.field, c.value, c.remedy)
			err = Register("badinput refused", &lifetimeFake{}, c.cfg)
			badInputConfigError(t, err, c.field, c.value, c.remedy)
			assert.NotContains(t, sql.Drivers(), "badinput refused")
		})
	}
}

func TestAConfigAtItsBoundsIsAccepted(t *testing.T) {
	for name, cfg := range map[string]Config{
		"zero":                       {},
		"a millisecond":              {AcquireTimeout: time.Millisecond, MaxLifetime: time.Millisecond, NetworkIdleLimit: time.Millisecond},
		"for ever":                   {AcquireTimeout: math.MaxInt64, MaxLifetime: math.MaxInt64, NetworkIdleLimit: math.MaxInt64, LeakThreshold: math.MaxInt64},
		"MinIdle is MaxOpen":         {MaxOpen: 3, MinIdle: 3},
		"MinIdle without a limit":    {MinIdle: 3},
		"LeakThreshold is the age":   {MaxLifetime: time.Minute, LeakThreshold: time.Minute},
		"LeakThreshold alone":        {LeakThreshold: time.Hour},
		"LeakThreshold is off":       {MaxLifetime: time.Second, LeakThreshold: -1},
		"LeakThreshold is not given": {MaxLifetime: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{}
				db, _ := lifetimeOpen(t, f, cfg)
				lifetimeUse(t, db)
				require.NoError(t, db.Close())
				synctest.Wait()
				for _, s := range f.sessions() {
					s.closedAfter(t)
				}
			})
		})
	}
}

func TestOpenPassesTheDriversRefusalOn(t *testing.T) {
	_, err := Open("no such driver", "", Config{})
	assert.ErrorContains(t, err, "no such driver")
	_, err = Open("mysql", "this is no data source name", Config{})
	_, plain := sql.Open("mysql", "this is no data source name")
	require.Error(t, plain)
	assert.Equal(t, plain, err)
}

func TestRegisterRefusesWhatCannotBeRegistered(t *testing.T) {
	badInputConfigError(t, Register("badinput nil", nil, Config{}), "driver", "nil", "give Register the driver to wrap")
	badInputConfigError(t, Register("badinput nil", (*lifetimeFake)(nil), Config{}), "driver", "nil", "give Register the driver to wrap")
	assert.NotContains(t, sql.Drivers(), "badinput nil")
	badInputConfigError(t, Register("mysql", &lifetimeFake{}, Config{}), "name", `"mysql"`, "choose another")

	name := fmt.Sprintf("badinput %d", len(sql.Drivers())) // a name is registered for good: each run has its own
	require.NoError(t, Register(name, &lifetimeFake{}, Config{}))
	badInputConfigError(t, Register(name, &lifetimeFake{}, Config{}), "name", fmt.Sprintf("%q", name), "registered already; choose another")
	db, err := sql.Open(name, "")
	require.NoError(t, err)
	lifetimeUse(t, db)
	c, ok := ConnectorOf(db)
	require.True(t, ok)
	assert.Equal(t, uint64(1), c.Stats().Dials)
	require.NoError(t, db.Close())
	assert.Zero(t, c.Stats().Open)
}

func TestAConnectorIsFoundOnlyWhereThereIsOne(t *testing.T) {
	plain := sql.OpenDB(&lifetimeFake{})
	defer func() { assert.NoError(t, plain.Close()) }()
	for name, db := range map[string]*sql.DB{"nil": nil, "zero": {}, "plain": plain} {
		c, ok := ConnectorOf(db)
		assert.False(t, ok, name)
		assert.Nil(t, c, name)
	}
	assert.Empty(t, plain.Stats().OpenConnections)

	c, err := Wrap(&lifetimeFake{}, Config{})
	require.NoError(t, err)
	db := sql.OpenDB(c)
	found, ok := ConnectorOf(db)
	assert.True(t, ok)
	assert.Same(t, c, found)
	require.NoError(t, db.Close())
	found, ok = ConnectorOf(db)
	assert.True(t, ok, "of a closed *sql.DB too: its last figures are of interest")
	assert.Same(t, c, found)
}

func TestAttachingNothingOrTwiceDoesNoHarm(t *testing.T) {
	f := &lifetimeFake{}
	db, c := lifetimeOpen(t, f, Config{})
	c.Attach(nil)
	c.Attach(db)
	c.Attach(nil)
	db.SetMaxOpenConns(2)
	lifetimeUse(t, db)
	assert.Equal(t, 2, c.Stats().Limit)
	assert.Equal(t, queueless, db.Stats().MaxOpenConnections)
	assert.Len(t, c.pools.attached(), 1)
}

// badInputLimited opens a pool of one session, so that room which a failure
// kept would be missing, and keeps its log.
func badInputLimited(t *testing.T, inner driver.Connector, cfg Config) (*sql.DB, *Connector, *badInputLog) {
	t.Helper()
	l := &badInputLog{}
	cfg.MaxOpen, cfg.Logger = 1, badInputLogger(l)
	cfg.QueryText = QueryTextRaw // else the text of an error is not shown
	db, c := lifetimeOpen(t, inner, cfg)
	return db, c, l
}

// badInputEnd closes the pool and checks that nothing is left of it.
func badInputEnd(t *testing.T, db *sql.DB, c *Connector, f *lifetimeFake) {
	t.Helper()
	lifetimeUse(t, db)
	require.NoError(t, db.Close())
	synctest.Wait()
	s := c.Stats()
	assert.Zero(t, s.Open)
	assert.Zero(t, s.Dialling)
	assert.Zero(t, s.Waiting)
	for _, session := range f.sessions() {
		session.closedAfter(t)
		assert.Zero(t, session.late)
	}
}

func TestAConnectThatHangsEndsWithItsContext(t *testing.T) {
	hang := func(ctx context.Context, dial int) error {
		if dial > 2 {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: hang}
		db, c, l := badInputLimited(t, f, Config{AcquireTimeout: time.Minute})
		start := time.Now()
		var all sync.WaitGroup
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := db.ExecContext(ctx, "DO 1")
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, 3*time.Second, time.Since(start))
		})
		synctest.Wait()
		all.Go(func() { // queues for 3 s, and then has a dial that hangs of its own
			_, err := db.ExecContext(t.Context(), "DO 1")
			var acquire *AcquireError
			if assert.ErrorAs(t, err, &acquire) {
				assert.ErrorIs(t, err, context.DeadlineExceeded)
				assert.Equal(t, time.Minute, acquire.Waited)
			}
			assert.Equal(t, time.Minute, time.Since(start))
		})
		synctest.Wait()
		s := c.Stats()
		assert.Equal(t, []int{1, 1, 1}, []int{s.Open, s.Dialling, s.Waiting})
		all.Wait()
		s = c.Stats()
		assert.Zero(t, s.Open)
		assert.Equal(t, uint64(2), s.DialErrors)
		assert.Empty(t, l.records)
		badInputEnd(t, db, c, f)
	})
}

func TestAConnectThatPanicsLosesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(_ context.Context, dial int) error {
			if dial <= 3 {
				lifetimeElapse(time.Second)
				panic("the driver's bug")
			}
			return nil
		}}
		db, c, _ := badInputLimited(t, f, Config{})
		var all sync.WaitGroup
		for range 3 { // two of them queue
			all.Go(func() {
				assert.PanicsWithValue(t, "the driver's bug", func() { _, _ = db.ExecContext(t.Context(), "DO 1") })
			})
		}
		all.Wait()
		assert.Zero(t, c.Stats().Open)
		assert.Equal(t, uint64(3), c.Stats().DialErrors)
		badInputEnd(t, db, c, f)
	})
}

func TestAConnectThatFailsPassesItsErrorOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := errors.New("refused")
		f := &lifetimeFake{connect: func(_ context.Context, dial int) error {
			if dial == 1 {
				return refused
			}
			return nil
		}}
		db, c, _ := badInputLimited(t, f, Config{})
		_, err := db.ExecContext(t.Context(), "DO 1")
		assert.Same(t, refused, err, "untouched")
		assert.Zero(t, c.Stats().Open)
		badInputEnd(t, db, c, f)
	})
}

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
		"two columns":     {DialectMySQL, []driver.Value{int64(1), int64(2)}, "got 2 columns, expected 1"},
		"one column":      {DialectPostgreSQL, []driver.Value{"5min"}, "got 1 columns, expected 2"},
		"a strange unit":  {DialectPostgreSQL, []driver.Value{"5 fortnights", "0"}, `got "5 fortnights", expected a timeout`},
		"negative, in tx": {DialectCockroachDB, []driver.Value{"0", "-1"}, `got "-1", expected a timeout`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.answer}}
				// The limit that is known goes on to count.
				db, pool, l := badInputLimited(t, f, Config{Name: "orders", Dialect: c.dialect, NetworkIdleLimit: time.Minute})
				for range 3 {
					lifetimeUse(t, db)
					lifetimeElapse(time.Minute)
				}
				lifetimeUse(t, db)
				s := pool.Stats()
				assert.Equal(t, uint64(4), s.Dials)
				assert.Zero(t, s.DialErrors)
				assert.Equal(t, uint64(4), s.DiscoveryFailures)
				assert.Equal(t, ClosedStats{Expired: 3}, s.Closed)
				assert.Equal(t, time.Minute, s.IdleLimit)
				text := l.wantOneWarning(t, map[string]string{
					"pool": "orders", "dialect": string(c.dialect), "query": drivers.Named(string(c.dialect)).Discovery.Query,
				}, badInputRemedies...)
				assert.Contains(t, text, c.err)
				badInputEnd(t, db, pool, f)
				assert.Len(t, f.sessions(), 4, "no session was dialled twice")
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
				db, pool, l := badInputLimited(t, f, Config{Dialect: c.dialect})
				lifetimeUse(t, db)
				assert.Equal(t, c.limit, pool.Stats().IdleLimit)
				assert.Zero(t, pool.Stats().DiscoveryFailures)
				assert.Empty(t, l.records)
				badInputEnd(t, db, pool, f)
			})
		})
	}
}

func TestADiscoveryThatHangsCostsItsTimeoutOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{announced: []any{badInputHang}}
		db, c, l := badInputLimited(t, f, Config{Dialect: DialectMySQL})
		start := time.Now()
		lifetimeUse(t, db)
		assert.Equal(t, 5*time.Second, time.Since(start))
		lifetimeUse(t, db)
		assert.Equal(t, 5*time.Second, time.Since(start), "the session is there now")
		s := c.Stats()
		assert.Equal(t, uint64(1), s.Dials)
		assert.Equal(t, uint64(1), s.DiscoveryFailures)
		assert.Equal(t, 1, s.Open)
		text := l.wantOneWarning(t, nil, badInputRemedies...)
		assert.Equal(t, context.DeadlineExceeded.Error(), text)
		all := f.sessions()
		require.Len(t, all, 2, "the session that was asked is lost, and not asked is its successor")
		assert.Equal(t, 5*time.Second, all[0].closedAfter(t))
		assert.Equal(t, 2, all[1].uses)
		badInputEnd(t, db, c, f)
	})
}

// badInputHang is a discovery that is never answered.
func badInputHang(ctx context.Context, _ *lifetimeFakeConn) error {
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
				f := &lifetimeFake{announced: []any{badInputHang, badInputHang, lifetimeSeconds(60)}}
				c.cfg.Dialect = DialectMySQL
				db, pool, l := badInputLimited(t, f, c.cfg)
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
				lifetimeUse(t, db)
				assert.Equal(t, time.Minute, pool.Stats().IdleLimit)
				badInputEnd(t, db, pool, f)
				assert.Len(t, f.sessions(), 3)
			})
		})
	}
}

func TestADiscoveryThatPanicsClosesTheSessionAndLosesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panicking := func(context.Context, *lifetimeFakeConn) error { panic("the driver's bug") }
		f := &lifetimeFake{announced: []any{panicking, lifetimeSeconds(60)}}
		db, c, _ := badInputLimited(t, f, Config{Dialect: DialectMySQL})
		assert.PanicsWithValue(t, "the driver's bug", func() { _, _ = db.ExecContext(t.Context(), "DO 1") })
		synctest.Wait()
		assert.Zero(t, c.Stats().Open)
		f.sessions()[0].closedAfter(t)
		badInputEnd(t, db, c, f)
	})
}

// badInputValid is a session whose driver tells whether it still works.
type badInputValid struct{ *lifetimeFakeConn }

func (c badInputValid) IsValid() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.broken
}

func TestADiscoveryThatCostsTheSessionIsNotAskedOfItsSuccessor(t *testing.T) {
	costing := func(err error) func(context.Context, *lifetimeFakeConn) error {
		return func(_ context.Context, c *lifetimeFakeConn) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.broken = true
			return err
		}
	}
	valid := func(c *lifetimeFakeConn) driver.Conn { return badInputValid{c} }
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
				db, pool, l := badInputLimited(t, f, Config{Dialect: DialectMySQL, MaxLifetime: time.Minute})
				lifetimeUse(t, db)
				lifetimeElapse(time.Minute)
				lifetimeUse(t, db)
				s := pool.Stats()
				assert.Equal(t, uint64(2), s.Dials)
				assert.Equal(t, uint64(2), s.DiscoveryFailures)
				assert.Equal(t, ClosedStats{Expired: 1}, s.Closed)
				assert.Equal(t, c.err.Error(), l.wantOneWarning(t, nil, badInputRemedies...))
				badInputEnd(t, db, pool, f)
				assert.Len(t, f.sessions(), 4)
			})
		})
	}
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
		db, c, l := badInputLimited(t, f, Config{Dialect: DialectMySQL})
		_, err := db.ExecContext(t.Context(), "DO 1")
		assert.Same(t, refused, err)
		s := c.Stats()
		assert.Zero(t, s.Open)
		assert.Equal(t, uint64(1), s.DialErrors)
		l.wantOneWarning(t, nil, badInputRemedies...)
		badInputEnd(t, db, c, f)
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
			db, pool, l := badInputLimited(t, lifetimeDriver(t, server.DSN()), Config{})
			for range 3 {
				lifetimeUse(t, db)
			}
			s := pool.Stats()
			assert.Equal(t, uint64(1), s.Dials)
			assert.Equal(t, uint64(3), s.Acquires)
			if c.err == "" && c.accepted == 1 {
				assert.Zero(t, s.DiscoveryFailures)
				assert.Empty(t, l.records)
			} else {
				assert.Equal(t, uint64(1), s.DiscoveryFailures)
				assert.Contains(t, l.wantOneWarning(t, map[string]string{"dialect": "mysql"}, badInputRemedies...), c.err)
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

func TestAServerThatRefusesTheLoginFailsTheAcquireAlone(t *testing.T) {
	full := mysqlscript.Fail(1040, "Too many connections")
	for name, script := range map[string]mysqlscript.Script{
		"closes for a greeting": {Greeting: mysqlscript.Disconnect(mysqlscript.FIN)},
		"resets for a greeting": {Greeting: mysqlscript.Disconnect(mysqlscript.RST)},
		"is full":               {Greeting: full},
		"closes at the login":   {Login: mysqlscript.Disconnect(mysqlscript.FIN)},
		"resets at the login":   {Login: mysqlscript.Disconnect(mysqlscript.RST)},
		"denies":                {Login: mysqlscript.Fail(1045, "Access denied")},
	} {
		t.Run(name, func(t *testing.T) {
			server := mysqlscript.Start(t, script)
			db, c, l := badInputLimited(t, lifetimeDriver(t, server.DSN()), Config{})
			for range 2 {
				_, err := db.ExecContext(t.Context(), "DO 1")
				require.Error(t, err)
				assert.Zero(t, c.Stats().Open)
			}
			assert.Equal(t, c.Stats().Dials, c.Stats().DialErrors)
			server.Change(func(s *mysqlscript.Script) { s.Greeting, s.Login = nil, nil })
			lifetimeUse(t, db)
			assert.Empty(t, l.records)
			require.NoError(t, db.Close())
			assert.Zero(t, c.Stats().Open)
		})
	}
}

func TestAServerThatNeverGreetsIsLeftWithTheCallersContext(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{Greeting: mysqlscript.Hang()})
	db, c, _ := badInputLimited(t, lifetimeDriver(t, server.DSN()), Config{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "DO 1")
		failed <- err
	}()
	server.Await(t, func(n mysqlscript.Counts) bool { return n.Accepted == 1 })
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	assert.Zero(t, c.Stats().Open)
	server.Change(func(s *mysqlscript.Script) { s.Greeting = nil })
	lifetimeUse(t, db)
	require.NoError(t, db.Close())
	assert.Zero(t, c.Stats().Open)
}
