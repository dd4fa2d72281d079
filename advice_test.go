package sqllease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAdviceSaysWhatToDo(t *testing.T) {
	const ms = time.Millisecond
	waits := Advice{Pool: "orders", Leases: 9000, Seen: 60, Goal: Goal{0.99, 10 * ms}, Recorded: LimitPoint{Limit: 10, Wait: 120 * ms}}
	enough := waits
	enough.Enough, enough.Recorded = true, LimitPoint{Limit: 60, Wait: 2 * ms, Met: true}
	for name, c := range map[string]struct {
		of     Advice
		change func(*Advice)
		want   string
	}{
		"too low": {waits, func(a *Advice) { a.Limit, a.Low, a.High, a.Met, a.Collapse = 18, 16, 20, true, 40 },
			`pool "orders": callers wait for connections: 99 % of the callers got one within 120ms, but the goal is 10ms. ` +
				`Set the limit to 18 (it is 10 now; by this recording it is between 16 and 20). Stay below 40: from there on, more connections make everything slower.`},
		"more than was seen": {waits, func(a *Advice) { a.Limit, a.Low, a.High, a.Met, a.Seen = 12, 11, 12, true, 10 },
			`pool "orders": callers wait for connections: 99 % of the callers got one within 120ms, but the goal is 10ms. ` +
				`Set the limit to 12 (it is 10 now; by this recording it is between 11 and 12). No more than 10 connections were in use at once so far, so record again after the change.`},
		"right": {enough, func(a *Advice) { a.Limit, a.Low, a.High, a.Met = 60, 60, 60, true },
			`pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms. The limit of 60 is right.`},
		"no goal of its own": {enough, func(a *Advice) { a.Limit, a.Low, a.High, a.Met, a.Hold = 60, 60, 60, true, 10*ms },
			`pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms, the median hold. The limit of 60 is right.`},
		"too high": {enough, func(a *Advice) { a.Limit, a.Low, a.High, a.Met = 20, 18, 22, true },
			`pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms. ` +
				`A limit of 20 would be enough (it is 60 now; by this recording it is between 18 and 22).`},
		"no limit is enough": {waits, func(a *Advice) { a.Limit, a.Low, a.High, a.Ceiling = 12, 12, 12, 12 },
			`pool "orders": callers wait for connections: 99 % of the callers got one within 120ms, but the goal is 10ms. ` +
				`No limit meets the goal; the best is 12 (it is 10 now). Make the calls shorter, or fewer. The server has only 12 connections for this pool.`},
		"enough, and too many": {enough, func(a *Advice) { a.Limit, a.Low, a.High = 8, 7, 9 },
			`pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms. ` +
				`But calls would be faster with a limit of 8 (it is 60 now; by this recording it is between 7 and 9).`},
		"low load": {enough, func(a *Advice) { a.Refused, a.Seen = RefusedLoadTooLow, 1 },
			`pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms. ` +
				`Which limit it needs cannot be said: hardly more than 1 connection was in use at once. Record again in a busy hour.`},
		"too far": {waits, func(a *Advice) { a.Refused, a.Seen, a.Try = RefusedTooFar, 10, 20 },
			`pool "orders": callers wait for connections: 99 % of the callers got one within 120ms, but the goal is 10ms. ` +
				`It needs more, but how many cannot be said: no more than 10 connections were in use at once, and how the server does with many more is not known. To find out, set the limit to 20, and record again.`},
		"other causes": {enough, func(a *Advice) {
			a.Limit, a.Low, a.High, a.Met, a.Floor, a.Held = 20, 20, 20, true, 9, 1
			a.UnusedShare, a.DialShare, a.SlowShare, a.Hold, a.Closed = 0.5, 0.3, 0.6, 12*ms, true
		}, `pool "orders": the limit is not the problem: 99 % of the callers got a connection within 2ms, and the goal is 10ms. ` +
			`A limit of 20 would be enough (it is 60 now). Never go below 9: requests that hold a connection and wait for another could deadlock. ` +
			`All the time 1 connection was in use and did not come back: look for leaks. ` +
			`Callers seem to ask again as soon as they were served, so with another limit they come at other times: record again after a change. ` +
			`50 % of the time, connections that were checked out were unused: give them back sooner, and you need fewer. ` +
			`30 % of the acquires opened a new connection: raise SetMaxIdleConns, so that connections are kept. ` +
			`60 % of the time is in a few long holds (120ms and more): make these shorter first.`},
	} {
		t.Run(name, func(t *testing.T) {
			c.change(&c.of)
			assert.Equal(t, c.want, c.of.String())
		})
	}
}

func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	for _, r := range []Refusal{
		RefusedTooFewLeases, RefusedTooShort, RefusedLoadTooLow, RefusedLoadChanges, RefusedGaveUp, RefusedClosedLoop,
		RefusedOverload, RefusedTooFar, RefusedSlowdownUnknown, RefusedFewBursts, RefusedUnsure, RefusedConflict,
	} {
		said := Advice{Refused: r, Leases: 1, Try: 7}.String()
		assert.Regexp(t, `[Rr]ecord|Fix these first`, said, r)
		assert.NotContains(t, said, "Set the limit", r)
	}
}
