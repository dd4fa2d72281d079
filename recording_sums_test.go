package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mayPanic is in the context of calls in which the driver may panic: in others, database/sql would wait for ever.
type mayPanic struct{}

// TestTheSumsOfARecordingAreNeverMoreThanTheHold: whatever drivers and callers do.
func TestTheSumsOfARecordingAreNeverMoreThanTheHold(t *testing.T) {
	f := &gateFake{t: t, script: func(ctx context.Context, _ *gateFakeConn, call string) error {
		switch n := rand.IntN(300); {
		case n == 0 && call != "dial" && call != "close":
			return driver.ErrBadConn
		case n == 1 && call == "exec" && ctx.Value(mayPanic{}) != nil:
			panic("of the driver")
		case n < 20:
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond) //nolint:forbidigo // the driver's
		}
		return nil
	}}
	db, c := f.open(Config{MaxOpen: 6, LeakThreshold: 5 * time.Millisecond, ReclaimAfter: 10 * time.Millisecond, AcquireTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	c.Record(500)
	var all sync.WaitGroup
	done := make(chan struct{})
	work := func() {
		defer func() { _ = recover() }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(20))*time.Millisecond)
		defer cancel()
		pause := func() {
			if rand.IntN(3) == 0 {
				time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond) //nolint:forbidigo // the application's
			}
			if rand.IntN(100) == 0 {
				time.Sleep(25 * time.Millisecond) //nolint:forbidigo // it leaks
			}
		}
		rows := func(r *sql.Rows, err error) {
			if err != nil {
				return
			}
			for r.Next() {
				pause()
			}
			closes := make(chan struct{})
			go func() { defer close(closes); _ = r.Close() }()
			<-closes
		}
		switch rand.IntN(7) {
		case 0:
			_, _ = db.ExecContext(context.WithValue(ctx, mayPanic{}, true), "UPDATE t SET a = 1")
		case 1:
			rows(db.QueryContext(ctx, "SELECT 1"))
		case 2, 3:
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return
			}
			defer func() { _ = tx.Rollback() }()
			pause()
			first, _ := tx.QueryContext(ctx, "SELECT 1")
			rows(tx.QueryContext(ctx, "SELECT 2"))
			if first != nil {
				_ = first.Close()
			}
			pause()
			_ = tx.Commit()
		case 4:
			st, err := db.PrepareContext(ctx, "SELECT 3")
			if err != nil {
				return
			}
			pause()
			rows(st.QueryContext(ctx))
			_ = st.Close()
		case 5:
			conn, err := db.Conn(ctx)
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			st, err := conn.PrepareContext(ctx, "SELECT 4")
			pause()
			if err == nil {
				rows(st.QueryContext(ctx))
				pause()
				_ = st.Close()
				pause()
			}
		case 6:
			conn, err := db.Conn(ctx)
			if err != nil {
				return
			}
			_ = conn.Raw(func(any) error { pause(); return errors.New("no") })
			pause()
			if rand.IntN(2) == 0 {
				defer func() { _ = conn.Close() }()
				runtime.Goexit()
			}
			_ = conn.Close()
		}
	}
	for range 12 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				over := make(chan struct{})
				go func() { defer close(over); work() }()
				<-over
			}
		})
	}
	all.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond):
				c.Record([]int{500, 300, 0}[i%3])
			}
		}
	})
	seen := 0
	began := time.Now()
	for time.Since(began) < 2*time.Second || seen <= 1000 && time.Since(began) < time.Minute {
		r := c.Recording()
		ids := map[uint64]bool{}
		for i := range r.Leases {
			l := &r.Leases[i]
			hold := l.Hold(r.To)
			if l.ID == 0 {
				continue
			}
			seen++
			bad := hold < 0 || l.Unused < 0 || l.Reading < 0 || l.Transaction < 0 || l.Unused+l.Reading > hold || l.Transaction > hold || l.InUse < 1 || l.InUse > 6 ||
				ids[l.ID] || l.Start.After(l.Acquired) || l.Connection == 0
			ids[l.ID] = true
			if bad {
				assert.Fail(t, "wrong", "%v %+v twice %v", hold, l, ids[l.ID])
			}
		}
		if t.Failed() {
			break
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // others work
	}
	close(done)
	all.Wait()
	assert.Greater(t, seen, 1000)
	require.NoError(t, db.Close())
}
