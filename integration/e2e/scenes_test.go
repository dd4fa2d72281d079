package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// This file is the scenes: what happens to a service, which alerts it fires, and
// what the panels must show of it.

// scene is a service in some trouble, or in none.
type scene struct {
	name      string // its job
	config    sqllease.Config
	script    mysqlscript.Script
	instances []string                                                 // "1" unless set
	refused   bool                                                     // nobody listens where it dials
	native    bool                                                     // its histograms are exponential
	before    func(ctx context.Context, t *testing.T, all []*instance) // before Prometheus starts
	run       func(ctx context.Context, t *testing.T, all []*instance)
	fires     []string // the alerts, each with its instance and what else tells them apart
	shows     []cell
}

// cell is the highest value that a panel showed, which must be from least to most.
type cell struct {
	panel       string // "title: legend"; a * stands for anything
	least, most float64
}

const (
	ms      = time.Millisecond
	endless = 1e9
)

// slow is a server on which the statement "slow" takes that long.
func slow(d time.Duration) mysqlscript.Script {
	return mysqlscript.Script{Statements: map[string]mysqlscript.Answer{"slow": mysqlscript.After(d, mysqlscript.OK())}}
}

// rows is a server that has three rows.
var rows = mysqlscript.Script{Statements: map[string]mysqlscript.Answer{"rows": mysqlscript.Rows("value", "a", "b", "c")}}

// beyond is more than the pool of two can serve.
func beyond(ctx context.Context, _ *testing.T, all []*instance) {
	all[0].call(ctx, 8, 10*ms, execute("slow"))
}

func scenes() []scene {
	tooFew := sqllease.Config{MaxOpen: 2, AcquireTimeout: 200 * ms}
	starved := []string{"SqlleaseAcquireSlow 1", "SqlleaseAcquireTimeouts 1", "SqlleaseNearLimit 1", "SqlleasePoolExhausted 1"}
	return []scene{
		{
			name: "healthy", config: sqllease.Config{MaxOpen: 8}, script: rows,
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 2, 20*ms, execute("quick"))
				all[0].call(ctx, 1, 20*ms, read)
			},
			shows: []cell{{"Utilisation by instance: shop 1", 0, 0.8}, {"Acquires: served", 10, endless}, {"Connections against the limit: limit", 8, 8}, {"Rows of a query: p50", 2, 5}},
		},
		{
			name: "refused", config: sqllease.Config{MaxOpen: 8}, refused: true,
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 4, 100*ms, execute("quick"))
			},
			fires: []string{"SqlleaseDialsFail 1 refused"},
			shows: []cell{
				{"Dials and their failures: failed: refused", 10, endless}, {"Failed dials in 5 min", 10, endless},
				{"Acquires: failed: refused", 5, endless}, {"Timeouts in 5 min", 0, 0},
			},
		},
		{
			name: "hanging", config: sqllease.Config{MaxOpen: 4, AcquireTimeout: 200 * ms}, script: mysqlscript.Script{Greeting: mysqlscript.Hang()},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 20, 20*ms, execute("quick"))
			},
			fires: []string{"SqlleaseAcquireSlow 1", "SqlleaseAcquireTimeouts 1"}, // a dial goes on for 5 s: few fail in so short a time
			shows: []cell{{"Connections against the limit: being dialed", 1, 4}},
		},
		{
			name: "timeouts", config: tooFew, script: slow(300 * ms), run: beyond, fires: starved,
			shows: []cell{
				{"Timeouts in 5 min", 5, endless}, {"Acquires: failed: acquire_timeout", 1, endless}, {"Acquires: served", 1, endless},
				{"p99 of acquires", 0.1, 5}, {"Share of acquire: shop", 0.3, 1}, {"Waiters: shop", 3, 8},
			},
		},
		{
			name:   "overloaded", // one lane of two refuses
			config: sqllease.Config{MaxOpen: 3, MaxWaiting: 3, Lanes: map[string]sqllease.Lane{"report": {Max: 1, MaxWaiting: -1}}},
			script: slow(100 * ms),
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 12, 50*ms, execute("slow"))
				all[0].call(ctx, 3, 0, inLane("report", execute("slow")))
			},
			fires: []string{"SqlleaseAcquireSlow 1", "SqlleaseNearLimit 1", "SqlleaseOverloaded 1", "SqlleasePoolExhausted 1"},
			shows: []cell{
				{"Refused callers, by lane: shop default", 10, endless}, {"Waiters, by lane: shop default", 1, 3}, {"Waiters, by lane: shop report", 1, 3},
				{"Acquire by lane, p99: shop report", 0.1, 5}, {"Acquires: failed: overloaded", 10, endless}, {"Timeouts in 5 min", 0, 0},
				{"Utilisation by instance: shop 1", 0.6, 1}, {"Waiters: shop", 2, 6},
			},
		},
		{
			name: "native", config: tooFew, script: slow(300 * ms), native: true, run: beyond, fires: starved,
			shows: []cell{
				{"Timeouts in 5 min", 5, endless}, {"Acquires: failed: acquire_timeout", 1, endless}, {"Acquires: served", 1, endless},
				{"p99 of acquires", 0.1, 5}, {"Share of acquire: shop", 0.3, 1}, {"Acquire: p99", 0.1, 5}, {"Parts of the acquire, p99: queue", 0.1, 5},
			},
		},
		{
			name: "churn", config: sqllease.Config{MaxOpen: 8, MaxLifetime: ms},
			script: mysqlscript.Script{
				LoginTakes: 20 * ms, // half of the time is that of dials
				Statements: map[string]mysqlscript.Answer{"slow": mysqlscript.After(20*ms, mysqlscript.OK())},
			},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 60, 0, execute("slow"))
			},
			fires: []string{"SqlleaseAcquireSlow 1", "SqlleasePoolExhausted 1"},
			shows: []cell{{"Waiters: shop", 30, 60}, {"Connections against the limit: being dialed", 0, 8}, {"Connections closed, by reason: expired", 10, endless}},
		},
		{
			name: "deadlines", config: sqllease.Config{MaxOpen: 8}, script: slow(time.Second),
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 3, 50*ms, within(250*ms, execute("slow")))
			},
			shows: []cell{{"Connections closed, by reason: cancelled", 5, endless}, {"Timeouts in 5 min", 0, 4}},
		},
		{
			name: "cut", config: sqllease.Config{MaxOpen: 8}, script: slow(50 * ms),
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 4, 20*ms, execute("slow"))
				all[0].callers.Go(func() {
					for ; ctx.Err() == nil; wait(ctx, 300*ms) {
						all[0].server.EndAll(mysqlscript.RST)
					}
				})
			},
			fires: []string{"SqlleaseSessionsCutByServer 1"},
		},
		{
			name: "gap", config: sqllease.Config{MaxOpen: 4, LeakThreshold: 500 * ms}, script: slow(50 * ms),
			before: func(ctx context.Context, t *testing.T, all []*instance) { // a count that is there from the start
				require.NoError(t, leak(ctx, all[0].process.Load().db))
				pool, _ := sqllease.ConnectorOf(all[0].process.Load().db)
				require.Eventually(t, func() bool { return pool.Stats().Leaks > 0 }, patience, 10*ms)
			},
			run: func(ctx context.Context, t *testing.T, all []*instance) {
				all[0].call(ctx, 16, 0, execute("slow"))
				all[0].callers.Go(func() {
					for ; ctx.Err() == nil; wait(ctx, 3*time.Second) {
						all[0].failing.Store(true)
					}
				})
			},
			fires: []string{"SqlleaseAcquireSlow 1", "SqlleaseNearLimit 1", "SqlleasePoolExhausted 1"},
		},
		{
			name: "restart", config: sqllease.Config{MaxOpen: 4},
			run: func(ctx context.Context, t *testing.T, all []*instance) {
				all[0].call(ctx, 2, 20*ms, execute("quick"))
				all[0].callers.Go(func() {
					for wait(ctx, 8*time.Second); ctx.Err() == nil; wait(ctx, 8*time.Second) {
						all[0].restart(t)
					}
				})
			},
			shows: []cell{{"Acquires: served", 10, endless}},
		},
		{
			name: "unlimited",
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 20, 100*ms, execute("quick"))
			},
			shows: []cell{{"Acquires: served", 50, endless}},
		},
		{
			name: "two", config: sqllease.Config{MaxOpen: 2}, script: slow(100 * ms), instances: []string{"1", "2"},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 8, 0, execute("slow"))
				all[1].call(ctx, 1, 500*ms, execute("slow"))
			},
			fires: []string{"SqlleaseAcquireSlow 1", "SqlleaseNearLimit 1", "SqlleasePoolExhausted 1"},
			shows: []cell{{"Utilisation by instance: shop 1", 1, 1}, {"Utilisation by instance: shop 2", 0, 0.5}},
		},
		{
			name: "leaks", config: sqllease.Config{MaxOpen: 8, LeakThreshold: 500 * ms, SlowCallThreshold: 500 * ms},
			script: mysqlscript.Script{Statements: map[string]mysqlscript.Answer{
				"slow": mysqlscript.After(time.Second, mysqlscript.OK()), "rows": mysqlscript.Rows("value", "a", "b", "c"),
			}},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].callers.Go(func() {
					wait(ctx, warm)
					db := all[0].process.Load().db
					_ = leak(ctx, db)
					_ = drop(ctx, db)
					_ = execute("slow")(ctx, db)
				})
			},
			fires: []string{"SqlleaseLeak 1 unused", "SqlleaseLeak 1 proven"},
			shows: []cell{{"Leaks, by class: unused", 1, 4}, {"Leaks, by class: proven", 1, 3}, {"Slow calls: shop", 1, 3}},
		},
		{
			name: "leftovers", config: sqllease.Config{MaxOpen: 8},
			script: mysqlscript.Script{Statements: map[string]mysqlscript.Answer{getLock: mysqlscript.Rows("got", "1")}},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].callers.Go(func() {
					db := all[0].process.Load().db
					_ = execute("quick")(ctx, db) // the first scrapes see a count of zero
					wait(ctx, warm)
					_ = leave(ctx, db)
				})
			},
			fires: []string{"SqlleaseLeftover 1 transaction", "SqlleaseLeftover 1 lock"},
			shows: []cell{{"Leftovers, by kind: transaction", 1, 3}, {"Leftovers, by kind: lock", 1, 3}, {"Leftovers, by kind: setting", 1, 3}},
		},
		{
			name: "unused", config: sqllease.Config{MaxOpen: 8},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].call(ctx, 3, 20*ms, keep)
			},
			shows: []cell{{"Checked out but unused, by place: *.keep", 1, 4}},
		},
		{
			name: "deadlock", config: sqllease.Config{MaxOpen: 2, FailDeadlockAfter: time.Second},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].callers.Go(func() {
					wait(ctx, warm)
					all[0].call(ctx, 2, time.Hour, within(5*time.Second, nest))
				})
			},
			fires: []string{"SqlleaseDeadlock 1"},
			shows: []cell{{"Standstills and nested acquires: deadlocks", 1, 3}, {"Standstills and nested acquires: other standstills", 0, 0}, {"Standstills and nested acquires: places of nested acquires", 1, 3}},
		},
		{
			name: "standstill", config: sqllease.Config{MaxOpen: 2, StandstillThreshold: time.Second},
			run: func(ctx context.Context, _ *testing.T, all []*instance) {
				all[0].callers.Go(func() {
					wait(ctx, warm)
					all[0].call(ctx, 2, time.Hour, within(4*time.Second, hand))
				})
			},
			fires: []string{"SqlleaseStandstill 1"},
			shows: []cell{{"Standstills and nested acquires: deadlocks", 0, 0}, {"Standstills and nested acquires: other standstills", 1, 3}},
		},
	}
}
