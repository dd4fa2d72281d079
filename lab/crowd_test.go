package lab

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// variant is a pool of ten connections: with sqllease, or with database/sql alone.
type variant struct {
	name string
	bare bool
	cfg  sqllease.Config
}

const (
	poolSize = 10
	dialTime = 5 * ms
)

// alone is database/sql without sqllease.
var alone = variant{name: "`database/sql` alone", bare: true}

// open opens a pool of so many connections. It is closed when the test function that it is for ends.
func (v variant) open(t *testing.T, s *server, limit int) (db *sql.DB, end func()) {
	if v.bare {
		db = sql.OpenDB(s)
		db.SetMaxOpenConns(limit)
	} else {
		cfg := v.cfg
		cfg.Name, cfg.MaxOpen, cfg.Logger = "lab", limit, slog.New(slog.NewTextHandler(io.Discard, nil))
		connector, err := sqllease.Wrap(s, cfg)
		require.NoError(t, err)
		db = sql.OpenDB(connector)
	}
	db.SetMaxIdleConns(limit)
	return db, func() { assert.NoError(t, db.Close()) }
}

// ending is what became of a caller.
type ending uint8

const (
	served  ending = iota
	refused        // by the pool, while they had time left
	late           // their time was over
)

// fate is what a caller saw.
type fate struct {
	came, gone time.Duration // since the beginning
	end        ending
}

func (f fate) response() time.Duration { return f.gone - f.came }

// caller is somebody who comes to a pool: with a lane, or without one.
type caller struct {
	job
	lane     string
	patience time.Duration // 0: they wait for any time
	attempts int           // how often they try, at once when the last attempt failed; 0: once
	calls    int           // how often an attempt takes a connection, one after the other; 0: once
}

// try is one attempt: each time, a connection is acquired, and the job is done on it.
func (c caller) try(db *sql.DB) ending {
	ctx := context.Background()
	if c.lane != "" {
		ctx = sqllease.WithLane(ctx, c.lane)
	}
	if c.patience > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, c.patience)
		defer cancel()
	}
	for range max(c.calls, 1) {
		if err := c.call(ctx, db); err != nil {
			return endOf(ctx, err)
		}
	}
	return served
}

func (c caller) call(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	_, err = conn.ExecContext(c.with(ctx), "SELECT 1")
	return errors.Join(err, conn.Close())
}

func endOf(ctx context.Context, err error) ending {
	switch {
	case err == nil:
		return served
	case ctx.Err() != nil:
		return late
	default:
		return refused
	}
}

// come tries until they are served, or have tried often enough.
func (c caller) come(db *sql.DB, begin time.Time) (f fate) {
	f.came = time.Since(begin)
	for try := 1; ; try++ {
		f.end = c.try(db)
		if f.end == served || try >= c.attempts {
			f.gone = time.Since(begin)
			return f
		}
	}
}

// crowd has callers come at those times, and returns what became of them when all have gone.
func crowd(come []time.Duration, who func(i int) (caller, *sql.DB)) []fate {
	fates := make([]fate, len(come))
	var all sync.WaitGroup
	begin := time.Now()
	for i, at := range come {
		c, to := who(i)
		<-time.After(time.Until(begin.Add(at)))
		all.Go(func() { fates[i] = c.come(to, begin) })
	}
	all.Wait()
	return fates
}

// percentile is what so many of all do not exceed; zero where there is nobody.
func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(p/100*float64(len(all))))]
}

// responses are those of the fates for which it is true.
func responses(fates []fate, of func(fate) bool) (all []time.Duration) {
	for _, f := range fates {
		if of(f) {
			all = append(all, f.response())
		}
	}
	return all
}

// seeds are those of everything that is measured by chance.
var seeds = []uint64{1, 2, 3}

// short is a time as a table has it: with two figures that count.
func short(d time.Duration) string {
	switch v := d.Seconds() * 1000; {
	case v >= 9950:
		return fmt.Sprintf("%.0f s", v/1000)
	case v >= 995:
		return fmt.Sprintf("%.1f s", v/1000)
	case v >= 99.5:
		return fmt.Sprintf("%.0f ms", math.Round(v/10)*10)
	case v >= 9.95:
		return fmt.Sprintf("%.0f ms", v)
	case v == 0:
		return "0"
	default:
		return fmt.Sprintf("%.1f ms", v)
	}
}

// percent is a share as a table has it.
func percent(share float64) string {
	switch {
	case share == 0:
		return "0"
	case share < 0.0995:
		return fmt.Sprintf("%.2g %%", 100*share)
	default:
		return fmt.Sprintf("%.0f %%", 100*share)
	}
}

// mean of some figures.
func mean[T int | float64 | time.Duration](all []T) T {
	var sum T
	for _, v := range all {
		sum += v
	}
	return sum / T(max(len(all), 1))
}

// fromTo is what figures of several runs are, from the least to the most.
func fromTo(all []int) string {
	least, most := slices.Min(all), slices.Max(all)
	if least == most {
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}
