package sizing

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

const ms = time.Millisecond

// scene is a load on a server, played to each limit.
type scene struct {
	name   string
	on     **servers.Server
	rate   float64
	do     call
	goal   time.Duration // 99 of 100 callers are to wait no longer for a connection
	limits []int
	record []int // limits with which it is recorded: too low, and too high
}

const rows = 10_000

var scenes = []scene{
	{"MariaDB, a row by its primary key, 1,000 a second", &maria, 1000, one("SELECT n FROM sized WHERE id = ?", rows), 5 * ms,
		[]int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64}, []int{1, 32}},
	{"PostgreSQL, a row by its primary key, 1,000 a second", &postgres, 1000, one("SELECT n FROM sized WHERE id = $1", rows), 5 * ms,
		[]int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64}, []int{1, 32}},
	{"MariaDB, a sum over 10,000 rows, 100 a second", &maria, 100, plain("SELECT SUM(n) FROM sized"), 50 * ms,
		[]int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32}, []int{1, 24}},
	{"PostgreSQL, a sum over 10,000 rows, 300 a second", &postgres, 300, plain("SELECT SUM(n) FROM sized"), 50 * ms,
		[]int{1, 2, 3, 4, 6, 8, 12, 16, 24, 32}, []int{1, 24}},
	{"MariaDB, half a second of waiting, 100 a second", &maria, 100, plain("SELECT SLEEP(0.5)"), 50 * ms,
		[]int{40, 45, 50, 55, 60, 70, 80, 100, 140}, []int{52, 100}},
	{"PostgreSQL, half a second of waiting, 80 a second", &postgres, 80, plain("SELECT 1 FROM pg_sleep(0.5)"), 50 * ms,
		[]int{30, 35, 40, 45, 50, 55, 60, 70, 90}, []int{42, 80}},
}

// lasts is how long a load is played to one limit.
func lasts() time.Duration {
	if *write {
		return 5 * time.Second
	}
	return 300 * ms
}

// TestLimitsOnRealServers plays each load to each limit, and asks the advisor after two of them.
func TestLimitsOnRealServers(t *testing.T) {
	var text strings.Builder
	tried := scenes
	if !*write {
		tried = tried[:2]
	}
	for _, s := range tried {
		t.Run(s.name, func(t *testing.T) {
			limits := s.limits
			if !*write {
				limits = limits[len(limits)/2 : len(limits)/2+1]
			}
			fmt.Fprintf(&text, "**%s**\n\n%s\n", s.name, s.table(t, limits))
			var advice []string
			for _, limit := range s.record {
				a := s.advice(t, limit)
				t.Log(a)
				assert.NotZero(t, a.Leases)
				advice = append(advice, fmt.Sprintf("with %d: %s", limit, told(a)))
			}
			fmt.Fprintf(&text, "Advice, recorded %s.\n\n", strings.Join(advice, "; "))
		})
	}
	fill(t, "real", strings.TrimRight(text.String(), "\n")+"\n")
}

// table is what callers saw at each limit.
func (s scene) table(t *testing.T, limits []int) string {
	text := "| limit |"
	for _, limit := range limits {
		text += fmt.Sprintf(" %d |", limit)
	}
	text += "\n|" + strings.Repeat("---|", len(limits)+1) + "\n"
	var all []figures
	for _, limit := range limits {
		db := open(t, *s.on, database, limit, sqllease.Config{})
		seen := play(t, s.rate, lasts(), func(ctx context.Context, _ int) (int, error) { return 0, s.do(ctx, db) })
		require.NoError(t, db.Close())
		all = append(all, of(seen, 0))
	}
	row := func(name string, of func(figures) time.Duration) {
		text += "| " + name + " |"
		for _, f := range all {
			text += " " + short(of(f)) + " |"
		}
		text += "\n"
	}
	row("mean", func(f figures) time.Duration { return f.mean })
	row("half", func(f figures) time.Duration { return f.p50 })
	row("99 of 100", func(f figures) time.Duration { return f.p99 })
	return text
}

// advice is that of one recording, four times as long.
func (s scene) advice(t *testing.T, limit int) sqllease.Advice {
	db := open(t, *s.on, database, limit, sqllease.Config{Name: "sized"})
	defer func() { assert.NoError(t, db.Close()) }()
	c, _ := sqllease.ConnectorOf(db)
	c.Record(40_000)
	play(t, s.rate, 4*lasts(), func(ctx context.Context, _ int) (int, error) { return 0, s.do(ctx, db) })
	return c.Advise(sqllease.Goal{Wait: s.goal})
}

// told is an advice in a few words.
func told(a sqllease.Advice) string {
	switch {
	case a.Refused != "":
		return "none, " + string(a.Refused)
	case a.Low == a.High:
		return fmt.Sprint(a.Limit)
	}
	return fmt.Sprintf("%d (%d to %d)", a.Limit, a.Low, a.High)
}

// TestOnePoolOrTwo plays short calls and long ones to one pool, and to two with as many connections
// together. The long ones keep seven connections busy, on average.
func TestOnePoolOrTwo(t *testing.T) {
	const rate, longShare, limit = 280, 20, 10 // one of 20 is long
	r := rand.New(rand.NewPCG(2, 2006))        //nolint:gosec // the same callers each time
	long := make([]bool, 100_000)
	for i := range long {
		long[i] = r.IntN(longShare) == 0
	}
	text := "| 10 connections | short calls: half | 99 of 100 | long calls: half | 99 of 100 |\n|---|---|---|---|---|\n"
	for _, c := range []struct {
		name        string
		short, slow int // 0: the same pool
	}{{"in one pool", limit, 0}, {"3 for short calls, 7 for long ones", 3, 7}, {"1 for short calls, 9 for long ones", 1, 9}} {
		db := open(t, maria, database, c.short, sqllease.Config{})
		other := db
		if c.slow > 0 {
			other = open(t, maria, database, c.slow, sqllease.Config{})
		}
		quick, slow := scenes[0].do, plain("SELECT SLEEP(0.5)")
		seen := play(t, rate, 4*lasts(), func(ctx context.Context, n int) (int, error) {
			if long[n] {
				return 1, slow(ctx, other)
			}
			return 0, quick(ctx, db)
		})
		require.NoError(t, db.Close())
		require.NoError(t, other.Close())
		s, l := of(seen, 0), of(seen, 1)
		text += fmt.Sprintf("| %s | %s | %s | %s | %s |\n", c.name, short(s.p50), short(s.p99), short(l.p50), short(l.p99))
	}
	fill(t, "pools", text)
}

// TestTenInstances has ten pools share one server.
func TestTenInstances(t *testing.T) {
	const instances = 10
	text := "| limit of each of ten instances | 1 | 2 | 4 | 8 | 14 |\n|---|---|---|---|---|---|\n"
	var all []figures
	tried := []int{1, 2, 4, 8, 14}
	if !*write {
		tried = tried[:2]
	}
	for _, limit := range tried {
		var work []call
		var stops []func() error
		for range instances {
			db := open(t, postgres, database, limit, sqllease.Config{})
			stops = append(stops, db.Close)
			do := scenes[1].do
			work = append(work, func(ctx context.Context, _ *sql.DB) error { return do(ctx, db) })
		}
		seen := play(t, scenes[1].rate, lasts(), func(ctx context.Context, n int) (int, error) { return 0, work[n%instances](ctx, nil) })
		for _, stop := range stops {
			require.NoError(t, stop())
		}
		all = append(all, of(seen, 0))
	}
	for _, row := range []struct {
		name string
		of   func(figures) time.Duration
	}{{"half", func(f figures) time.Duration { return f.p50 }}, {"99 of 100", func(f figures) time.Duration { return f.p99 }}} {
		text += "| " + row.name + " |"
		for _, f := range all {
			text += " " + short(row.of(f)) + " |"
		}
		text += "\n"
	}
	fill(t, "instances", text)
}
