package sqllease

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Where a pooler makes numbers up, they may be those of other connections on the server.
func TestNumbersThatAreNotTheServersNameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{waits: locked(102, 1, 2), number: func(of uint64) uint64 { return of + 100 }}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		assert.Empty(t, p.said()[0].Blockers)
		assert.Contains(t, fmt.Sprint(p.log.take()), "a pooler or a proxy is between")
		p.end(t, cancel, &all)
	})
}

// A number that means another connection on the server that was asked, since the call is on
// another, names nobody.
func TestACallThatTheServerDoesNotSeeIsNotSaidToBeBlocked(t *testing.T) {
	for name, process := range map[string][]driver.Value{
		"of another user": {int64(1), "other", "h", nil, "Query", "1", "Updating", "UPDATE t", "RUNNING"},
		"that sleeps":     {int64(1), "app", "h", nil, "Sleep", "1", "", nil, nil},
		"none":            {int64(3), "app", "h", nil, "Query", "1", "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &blockersFake{waits: locked(1, 9), process: func(uint64) []driver.Value { return process }}
				p := newBlockersPool(t, f, Config{})
				ctx, cancel := context.WithCancel(t.Context())
				var all sync.WaitGroup
				p.slow(ctx, &all)
				elapse(slowAfter)
				synctest.Wait()
				require.Len(t, p.said(), 1)
				assert.NotContains(t, p.said()[0].String(), "blocked by")
				p.end(t, cancel, &all)
			})
		})
	}
}

// What other processes execute has no literals in a report.
func TestWhatABlockerOfAnotherProcessExecutesIsSanitised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newBlockersPool(t, &blockersFake{waits: locked(1, 77)}, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		p.slow(ctx, &all)
		elapse(slowAfter)
		synctest.Wait()
		require.Len(t, p.said(), 1)
		s := p.said()[0]
		assert.Contains(t, s.String(), "blocked by row lock on shop.stock: connection 77, not of this pool: user app at 10.0.0.7:4711, active for 7.5s: UPDATE t SET a = ?\n")
		assert.NotContains(t, fmt.Sprint(s, s.LogValue(), p.log.take()), "secret")
		assert.Equal(t, "connection 77 is not of this pool: have its owner end the transaction, or end the connection on the server: KILL 77", s.Fix())
		p.end(t, cancel, &all)
	})
}

func TestAMissingPrivilegeIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &blockersFake{answers: map[string]func() ([][]driver.Value, error){
			"INNODB_LOCK_WAITS": func() ([][]driver.Value, error) { return nil, &mysql.MySQLError{Number: 1227} },
		}}
		p := newBlockersPool(t, f, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		told := 0
		for i := range 3 {
			p.slow(ctx, &all)
			elapse(2 * slowAfter)
			synctest.Wait()
			require.Len(t, p.said(), i+1)
			assert.NotContains(t, p.said()[i].String(), "blocked by", "what the server does not show is not said to be nothing")
			for _, r := range p.log.take() {
				if r.attrs["remedy"] != nil {
					told++
					assert.Contains(t, r.attrs["remedy"], "GRANT PROCESS ON *.* TO 'app'@'%'")
				}
			}
		}
		assert.Equal(t, 1, told)
		p.end(t, cancel, &all)
	})
}

// The number is asked for right after the dial, where the driver does not know it.
func TestAConnectionThatDiesWhenItsNumberIsAskedForIsNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := driver.ErrBadConn
		for name, c := range map[string]struct {
			does  error
			lost  bool
			panic bool
		}{"it is cut": {does: gone, lost: true}, "the server refuses": {does: &mysql.MySQLError{Number: 1064}}, "a panic": {panic: true, lost: true}} {
			f := &blockersFake{}
			f.question = func(context.Context, string) error {
				if f.dialed() > 1 {
					return nil
				}
				if c.panic {
					panic("the driver's bug")
				}
				return c.does
			}
			p := newBlockersPool(t, f, Config{MaxOpen: 1})
			func() {
				defer func() { assert.Equal(t, c.panic, recover() != nil, name) }()
				_, _ = p.ExecContext(t.Context(), "quick")
			}()
			synctest.Wait()
			if c.lost {
				assert.LessOrEqual(t, f.opened(), f.dialed()-1, name)
			} else {
				assert.Equal(t, []int{1, 1}, []int{f.opened(), f.dialed()}, name)
			}
			_, err := p.ExecContext(t.Context(), "quick")
			require.NoError(t, err, name)
			p.end(t, func() {}, &sync.WaitGroup{})
		}
	})
}

// A wait for a row is to be seen before MySQL ends it.
func TestACallIsSlowSoonerWhereBlockersAreFound(t *testing.T) {
	for want, cfg := range map[time.Duration]Config{
		DefaultLeakThreshold:      {FindBlockers: true},
		10 * DefaultLeakThreshold: {},
		time.Minute:               {FindBlockers: true, LeakThreshold: time.Minute},
		time.Hour:                 {FindBlockers: true, SlowCallThreshold: time.Hour},
	} {
		set, err := newSettings(cfg)
		require.NoError(t, err)
		assert.Equal(t, want, set.SlowCallThreshold)
	}
}

func TestBlockersThatCannotBeFoundAreAConfigError(t *testing.T) {
	for name, cfg := range map[string]Config{
		"leaks off":         {Dialect: DialectMySQL, LeakThreshold: -1},
		"slow calls off":    {Dialect: DialectMySQL, SlowCallThreshold: -1},
		"an unknown server": {},
		"another server":    {Dialect: DialectTiDB},
	} {
		cfg.FindBlockers = true
		_, err := Wrap(&blockersFake{}, cfg)
		var wrong *ConfigError
		require.ErrorAs(t, err, &wrong, name)
		assert.Equal(t, "FindBlockers", wrong.Field, name)
	}
}

// A pool that nobody closes stays in memory for no other's sake.
func TestPoolsThatAreClosedAreForgotten(t *testing.T) {
	before := len(finders.list())
	c, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db"})
	require.NoError(t, err)
	other, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db"})
	require.NoError(t, err)
	elsewhere, err := Wrap(&blockersFake{}, Config{FindBlockers: true, Dialect: DialectMySQL, ServerAddress: "db2"})
	require.NoError(t, err)
	assert.Equal(t, []*Connector{other}, c.neighbours())
	for _, c := range []*Connector{c, other, elsewhere} {
		require.NoError(t, c.Close())
	}
	assert.LessOrEqual(t, len(finders.list()), before)
}

func TestHowBlockersAreTold(t *testing.T) {
	const unknown = "a goroutine of database/sql or started with one of its methods"
	lease := &Lease{ID: 7, ConnectionID: 5, Acquired: time.Now(), Hold: 40 * time.Second, Busy: true, Call: CallExec, Since: time.Now().Add(39 * time.Second), Statement: "UPDATE t"}
	for want, b := range map[string]Blocker{
		`row lock: connection 5 of pool "p" (lease 7), taken by ` + unknown + `, in exec for 1s: UPDATE t; it waits for a lock itself`: {ConnectionID: 5, Lock: "row lock", Pool: "p", Lease: lease, Waits: true},
		`advisory lock: connection 5, idle in pool "p": it was given back with the lock (lease 7), taken by ` + unknown:                {ConnectionID: 5, Lock: "advisory lock", Pool: "p", Lease: lease, LeftOver: true},
		"table lock: connection 9, not of this pool: a user that may not be seen":                                                      {ConnectionID: 9, Lock: "table lock"},
		"row lock: a prepared transaction, which no connection has":                                                                    {Lock: "row lock", Blocks: 3, State: "prepared"},
		"metadata lock: a connection that the server does not show":                                                                    {Lock: "metadata lock", Blocks: 3},
		"row lock: connection 9, not of this pool: user u at h (psql), idle in transaction for 3m0s; last statement: SELECT ?":         {ConnectionID: 9, Lock: "row lock", User: "u", Host: "h", Program: "psql", State: "idle in transaction", For: 3 * time.Minute, Statement: "SELECT ?"},
	} {
		assert.Equal(t, want, b.String())
	}
	for want, b := range map[string]blame{
		"":                                      {},
		"it waits for no lock":                  {free: true},
		"make that shorter":                     {blockers: []Blocker{{ConnectionID: 5, Lease: lease, Waits: false}}},
		"release its lock, or end":              {blockers: []Blocker{{ConnectionID: 5, Lease: &Lease{}}}},
		"close the *sql.Rows":                   {blockers: []Blocker{{ConnectionID: 5, Lease: &Lease{OpenRows: 1}}}},
		"release it there before":               {blockers: []Blocker{{ConnectionID: 5, Lease: lease, LeftOver: true}}},
		"XA RECOVER":                            {blockers: []Blocker{{Blocks: 3, State: "prepared"}}},
		"whose holder the server does not show": {blockers: []Blocker{{Blocks: 3, Lock: "metadata lock"}}},
		"KILL 9":                                {blockers: []Blocker{{ConnectionID: 5, Lease: lease, Waits: true}, {ConnectionID: 9}}, end: "KILL 9"},
	} {
		assert.Contains(t, b.fix(), want)
	}
}
