package livepage

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

const (
	ms     = seconds(time.Millisecond)
	second = seconds(time.Second)
)

// out are so many connections that a line of code has, for so long.
func out(n int, place string, use use, lasts seconds) (all []holder) {
	for i := range n {
		all = append(all, holder{site: site{Place: place}, Use: use, For: lasts - seconds(i), Held: lasts})
	}
	return all
}

// leaked are likewise, and reported.
func leaked(n int, place string, lasts seconds) []holder {
	all := out(n, place, unusedRow, lasts)
	for i := range all {
		all[i].Leaked = true
	}
	return all
}

func TestTheSentence(t *testing.T) {
	full := func(p pool) pool { p.Limit, p.InUse, p.Open = 8, 8, 8; return p }
	for name, c := range map[string]struct {
		pool  pool
		state state
		text  string
	}{
		"nothing goes on":       {pool{Limit: 8}, well, "All is well: 0 of 8 in use, nobody waits."},
		"all is well":           {pool{Limit: 8, InUse: 2}, well, "All is well: 2 of 8 in use, nobody waits."},
		"without a limit":       {pool{InUse: 2}, well, "All is well: 2 in use, nobody waits."},
		"for a moment unused":   {pool{Limit: 8, InUse: 1, Out: out(1, "shop/a.go:1", unused, 999*ms)}, well, "All is well: 1 of 8 in use, nobody waits."},
		"a call takes long":     {pool{Limit: 8, InUse: 1, Out: out(1, "shop/a.go:1", inCall, 90*second)}, well, "All is well: 1 of 8 in use, nobody waits."},
		"full":                  {full(pool{}), watch, "8 of 8 connections are in use, nobody waits."},
		"a limit of one":        {pool{Limit: 1, InUse: 1}, watch, "1 of 1 connection is in use, nobody waits."},
		"one is unused":         {pool{Limit: 8, InUse: 1, Out: out(1, "shop/a.go:1", unused, 2*second)}, watch, "1 of 8 connections are in use, nobody waits. 1 connection is checked out but unused, for 2.0 s, by shop/a.go:1."},
		"some are unused":       {pool{Limit: 8, InUse: 3, Out: out(3, "shop/a.go:1", unusedSQL, 2*second)}, watch, "3 of 8 connections are in use, nobody waits. 3 connections are checked out but unused, for up to 2.0 s, all by shop/a.go:1."},
		"somebody waits":        {full(pool{Waiting: 1, LongestWait: 200 * ms}), watch, "8 of 8 connections are in use, 1 caller waits, for 200 ms so far."},
		"many wait for long":    {full(pool{Waiting: 12, LongestWait: 1234 * ms}), trouble, "8 of 8 connections are in use, 12 callers wait, the longest for 1.2 s."},
		"who has them":          {full(pool{Waiting: 12, LongestWait: 1234 * ms, Out: out(3, "shop/export.go:150", unused, 3*second)}), trouble, "8 of 8 connections are in use, 12 callers wait, the longest for 1.2 s. 3 connections are checked out but unused, for up to 3.0 s, all by shop/export.go:150."},
		"two of several places": {full(pool{Waiting: 2, LongestWait: 500 * ms, Out: append(out(2, "shop/a.go:1", unused, 2*second), out(1, "shop/b.go:2", unused, 3*second)...)}), watch, "8 of 8 connections are in use, 2 callers wait, the longest for 500 ms. 3 connections are checked out but unused, for up to 3.0 s, 2 of them by shop/a.go:1."},
		"as many places":        {full(pool{Waiting: 2, LongestWait: 500 * ms, Out: append(out(1, "shop/b.go:1", unused, 2*second), out(1, "shop/a.go:2", unused, 3*second)...)}), watch, "8 of 8 connections are in use, 2 callers wait, the longest for 500 ms. 2 connections are checked out but unused, for up to 3.0 s, by 2 places, such as shop/a.go:2."},
		"a slow server":         {full(pool{Waiting: 3, LongestWait: 2 * second, Out: out(8, "shop/report.go:8", inCall, 4700*ms)}), trouble, "8 of 8 connections are in use, 3 callers wait, the longest for 2.0 s. 8 calls take long: for up to 4.7 s so far, all by shop/report.go:8."},
		"one slow call":         {full(pool{Waiting: 3, LongestWait: 500 * ms, Out: out(1, "shop/report.go:8", inRows, 4700*ms)}), watch, "8 of 8 connections are in use, 3 callers wait, the longest for 500 ms. 1 call takes long: for 4.7 s so far, by shop/report.go:8."},
		"too much to do":        {full(pool{Waiting: 3, LongestWait: 500 * ms, Busiest: busiest{site{Place: "shop/report.go:8"}, 0.724}}), watch, "8 of 8 connections are in use, 3 callers wait, the longest for 500 ms. In the last minute, shop/report.go:8 had 72 % of their time."},
		"some got none":         {pool{Limit: 8, InUse: 2, Failed: 17}, trouble, "2 of 8 connections are in use, nobody waits. 17 callers got no connection in the last minute."},
		"some died":             {pool{Limit: 8, InUse: 2, Died: 1}, watch, "2 of 8 connections are in use, nobody waits. 1 connection died in the last minute."},
		"leaks that are over":   {pool{Limit: 8, InUse: 1, Out: leaked(1, "shop/a.go:1", 30*second), Reports: []report{{Kind: "leak", Lease: 0}, {Kind: "leak", Lease: 7}, {Kind: "leak", Lease: 8}, {Kind: "leak", Lease: 9, Ago: 61 * second}}}, trouble, "1 connection has leaked: checked out but unused for 30 s, by shop/a.go:1. 1 of 8 connections are in use, nobody waits. 2 leaks were reported in the last minute, and are over."},
		"it stood still":        {pool{Limit: 8, Reports: []report{{Kind: "standstill", Ago: 5 * second}}}, watch, "0 of 8 connections are in use, nobody waits. 1 standstill was reported in the last minute, and is over."},
		"blocked": {func() pool {
			p := pool{Limit: 8, InUse: 2, Out: out(2, "shop/order.go:88", inCall, 12*second)}
			p.Out[0].Blocked, p.Out[1].Blocked = "row lock on shop.stock: connection 4711 of pool \"shop\" (lease 17), taken by shop/export.go:150", "row lock on shop.stock"
			return p
		}(), trouble, `The call at shop/order.go:88 has been blocked for 12 s by row lock on shop.stock: connection 4711 of pool "shop" (lease 17), taken by shop/export.go:150. So is 1 other call. 2 of 8 connections are in use, nobody waits.`},
		"a leak":          {pool{Limit: 8, InUse: 1, Out: leaked(1, "shop/export.go:150", 40*second)}, trouble, "1 connection has leaked: checked out but unused for 40 s, by shop/export.go:150. 1 of 8 connections are in use, nobody waits."},
		"leaks":           {full(pool{Waiting: 12, LongestWait: 1234 * ms, Out: leaked(3, "shop/export.go:150", 40*second)}), trouble, "3 connections have leaked: checked out but unused for up to 40 s, all by shop/export.go:150. 8 of 8 connections are in use, 12 callers wait, the longest for 1.2 s."},
		"the server":      {pool{Limit: 8, Waiting: 3, LongestWait: 4 * second, Dials: dials{5, "connection_refused", 2 * second}}, trouble, "No new connection can be opened: the last 5 dials failed (connection_refused), the latest 2.0 s ago. 0 of 8 connections are in use, 3 callers wait, the longest for 4.0 s."},
		"one dial":        {pool{Limit: 8, InUse: 2, Dials: dials{1, "", 2 * second}}, trouble, "No new connection can be opened: the last dial failed, 2.0 s ago. 2 of 8 connections are in use, nobody waits."},
		"a dial of old":   {pool{Limit: 8, InUse: 2, Dials: dials{1, "", 90 * second}}, well, "All is well: 2 of 8 in use, nobody waits."},
		"it stands":       {full(pool{Waiting: 2, LongestWait: 13 * second, StandsStill: 12 * second, Out: out(8, "shop/invoice.go:7", unusedSQL, 12*second)}), trouble, "The pool has stood still for 12 s: all 8 connections are checked out but unused, all by shop/invoice.go:7. 2 callers wait, the longest for 13 s."},
		"a deadlock":      {full(pool{Waiting: 8, LongestWait: 13 * second, StandsStill: 12 * second, Deadlocked: true, Out: out(8, "shop/invoice.go:7", unusedSQL, 12*second)}), trouble, "Deadlock for 12 s: all 8 connections are held by code that waits for another one, all by shop/invoice.go:7. 8 callers wait, the longest for 13 s."},
		"of one":          {pool{Limit: 1, InUse: 1, Waiting: 1, LongestWait: 13 * second, StandsStill: 12 * second, Deadlocked: true, Out: out(1, "shop/invoice.go:7", unusedSQL, 12*second)}, trouble, "Deadlock for 12 s: the only connection is held by code that waits for another one, by shop/invoice.go:7. 1 caller waits, for 13 s so far."},
		"the worst first": {full(pool{Waiting: 8, LongestWait: 13 * second, StandsStill: 12 * second, Out: leaked(2, "shop/export.go:150", 40*second), Dials: dials{5, "", second}}), trouble, "The pool has stood still for 12 s: both connections are checked out but unused, both by shop/export.go:150. 8 callers wait, the longest for 13 s."},
	} {
		t.Run(name, func(t *testing.T) {
			state, text := sentence(&c.pool)
			assert.Equal(t, c.text, text)
			assert.Equal(t, c.state, state)
		})
	}
}

func TestTimesAreRoundedForPeople(t *testing.T) {
	for text, d := range map[string]time.Duration{
		"0 s": 0, "1 µs": 300, "18 µs": 18_300, "1 ms": 999_999, "340 ms": 340_200_000, "999 ms": 999_400_000, "1.0 s": 999_600_000, "1.2 s": 1_240 * time.Millisecond,
		"9.9 s": 9_949 * time.Millisecond, "10 s": 9_951 * time.Millisecond, "59 s": 59 * time.Second, "1 min": 59_600 * time.Millisecond, "2 min 5 s": 125 * time.Second,
		"3 h 10 min": 190*time.Minute + 12*time.Second, "5 h": 5 * time.Hour, "2 d 1 h": 49 * time.Hour,
	} {
		assert.Equal(t, text, duration(d))
	}
	assert.Equal(t, "<1 %", percent(time.Second, time.Hour))
	assert.Equal(t, "25 %", percent(time.Second, 4*time.Second))
	assert.Equal(t, "0 %", percent(0, 0))
}

func TestWhatIsShownSteersNothing(t *testing.T) {
	assert.Equal(t, "a b\uFFFDc \uFFFDd\uFFFD", shown("a\nb\x1bc\t\u202ed\xff"))
	assert.Equal(t, "a\n\tb\uFFFD", shownLines("a\n\tb\u2066"))
	assert.Equal(t, "äö…", clip("äöüß", 3))
	assert.Equal(t, "äöü", clip("äöü", 3))
}
