package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// Dials that hang, panic or fail.

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
		db, c, l := openLimited(t, f, Config{AcquireTimeout: time.Minute, SlowAcquireThreshold: -1})
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
		all.Go(func() { // queues for 5 s, and then has a dial that hangs of its own
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
		assert.Equal(t, []int{1, 1, 1}, []int{s.Open, s.Dialing, s.Waiting})
		all.Wait()
		s = c.Stats()
		assert.Zero(t, s.Open)
		assert.Equal(t, uint64(2), s.DialErrors)
		assert.Empty(t, l.records)
		endLimited(t, db, c, f)
	})
}

func TestAConnectThatPanicsLosesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(_ context.Context, dial int) error {
			if dial <= 3 {
				elapse(time.Second)
				panic("the driver's bug")
			}
			return nil
		}}
		db, c, _ := openLimited(t, f, Config{})
		var all sync.WaitGroup
		for range 3 { // two of them queue
			all.Go(func() {
				assert.PanicsWithValue(t, "the driver's bug", func() { _, _ = db.ExecContext(t.Context(), "DO 1") })
			})
		}
		all.Wait()
		assert.Zero(t, c.Stats().Open)
		assert.Equal(t, uint64(3), c.Stats().DialErrors)
		endLimited(t, db, c, f)
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
		db, c, _ := openLimited(t, f, Config{})
		_, err := db.ExecContext(t.Context(), "DO 1")
		assert.Same(t, refused, err, "untouched")
		assert.Zero(t, c.Stats().Open)
		endLimited(t, db, c, f)
	})
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
			db, c, l := openLimited(t, lifetimeDriver(t, server.DSN()), Config{})
			for range 2 {
				_, err := db.ExecContext(t.Context(), "DO 1")
				require.Error(t, err)
				assert.Zero(t, c.Stats().Open)
			}
			assert.Equal(t, c.Stats().Dials, c.Stats().DialErrors)
			server.Change(func(s *mysqlscript.Script) { s.Greeting, s.Login = nil, nil })
			useOnce(t, db)
			assert.Empty(t, l.records)
			require.NoError(t, db.Close())
			assert.Zero(t, c.Stats().Open)
		})
	}
}

func TestAServerThatNeverGreetsIsLeftWithTheCallersContext(t *testing.T) {
	server := mysqlscript.Start(t, mysqlscript.Script{Greeting: mysqlscript.Hang()})
	db, c, _ := openLimited(t, lifetimeDriver(t, server.DSN()), Config{})
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
	useOnce(t, db)
	require.NoError(t, db.Close())
	assert.Zero(t, c.Stats().Open)
}

func TestTheNextWaiterDialsWhenADialFails(t *testing.T) {
	for name, fail := range map[string]func(ctx context.Context) error{
		"an error": func(context.Context) error { return errors.New("refused") },
		"a panic":  func(context.Context) error { panic("planted") },
		"its context": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var failures atomic.Int32
				failures.Store(3)
				f := &gateFake{t: t, most: 1, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
					if call == "dial" && failures.Add(-1) >= 0 {
						<-time.After(time.Second)
						return fail(ctx)
					}
					return nil
				}}
				db, c := f.open(Config{MaxOpen: 1})
				var wait sync.WaitGroup
				var done []int
				for i := range 8 {
					wait.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+5*i)*time.Second)
						defer cancel()
						var conn *sql.Conn
						var err error
						if v := caught(func() { conn, err = db.Conn(ctx) }); v != nil || err != nil {
							return
						}
						done = append(done, i)
						assert.NoError(t, conn.Close())
					})
					synctest.Wait()
				}
				wait.Wait()
				assert.Equal(t, []int{3, 4, 5, 6, 7}, done)
				f.end(db, c)
			})
		})
	}
}

func TestADialThatHangsEndsWithItsContextOrTheAcquireTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Bool
		hang.Store(true)
		f := &gateFake{t: t, most: 1, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
			if call == "dial" && hang.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		db, c := f.open(Config{MaxOpen: 1, AcquireTimeout: 10 * time.Second})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := db.Conn(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(start))

		_, err = db.Conn(t.Context())
		var acquire *AcquireError
		require.ErrorAs(t, err, &acquire)
		assert.Equal(t, 10*time.Second, acquire.Waited)
		assert.Equal(t, 13*time.Second, time.Since(start))
		hang.Store(false)
		usable(t, db, 1)
		f.end(db, c)
	})
}

func TestFailedDialsAreCountedByWhatTheyMetWith(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var meets error
		f := &telemetryFake{on: func(ctx context.Context, call, _ string) error {
			if call != "connect" || meets == nil {
				return nil
			}
			if meets == context.DeadlineExceeded {
				<-ctx.Done()
			}
			return meets
		}}
		p := newTelemetryPool(t, f, Config{MaxOpen: 2, AcquireTimeout: dialGrace})
		for _, err := range []error{
			&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
			&net.DNSError{Err: "no such host", Name: "db.internal"},
			&mysql.MySQLError{Number: 1040, Message: "Too many connections"},
			context.DeadlineExceeded, errors.New("no"),
		} {
			meets = err
			_, got := p.db.ExecContext(underParent(t), "DO 1")
			require.Error(t, got)
		}
		want := []string{"refused", "dns", "too_many_connections", "timeout", "other"}
		assert.ElementsMatch(t, want, p.values(t, "sqllease.dial.failures", "error.type"))
		assert.Equal(t, int64(len(want)), p.sum(t, "sqllease.dial.failures"))
		want[3] = "acquire_timeout"
		assert.ElementsMatch(t, want, p.values(t, "db.client.connection.wait_time", "error.type"), "they failed their acquires, too")
		assert.Equal(t, int64(1), p.sum(t, "db.client.connection.timeouts"))
		assert.Equal(t, uint64(1), p.c.Stats().Timeouts)
		assert.Equal(t, uint64(len(want)), p.c.Stats().DialErrors)
	})
}

// A driver bounds its dial by the deadline of the context, and may notice that before the
// context does.
func TestADialThatRunsOutJustBeforeItsDeadlineIsLate(t *testing.T) {
	early := func(ctx context.Context, call, _ string) error {
		if call != "connect" {
			return nil
		}
		at, _ := ctx.Deadline()
		elapse(time.Until(at) - 100*time.Microsecond)
		return &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
	}
	for name, c := range map[string]struct {
		cfg     Config
		timeout time.Duration
		why     string
	}{
		"by AcquireTimeout": {Config{AcquireTimeout: dialGrace}, time.Hour, "acquire_timeout"},
		"by the context":    {Config{}, dialGrace, "context.DeadlineExceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newTelemetryPool(t, &telemetryFake{on: early}, c.cfg)
				ctx, cancel := context.WithTimeout(underParent(t), c.timeout)
				defer cancel()
				_, err := p.db.ExecContext(ctx, "DO 1")
				require.Error(t, err)
				assert.Equal(t, []string{c.why}, p.values(t, "db.client.connection.wait_time", "error.type"))
				assert.Equal(t, []string{"timeout"}, p.values(t, "sqllease.dial.failures", "error.type"))
				assert.Equal(t, int64(1), p.sum(t, "db.client.connection.timeouts"))
			})
		})
	}
}
