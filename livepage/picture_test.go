package livepage

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// recorded is a pool with such a recording, which ends at the fifth minute.
func recorded(rec sqllease.Recording) *pool {
	rec.From, rec.To = at(0), at(5*time.Minute)
	p := &pool{recording: rec, leases: map[uint64]*sqllease.Lease{}, Key: "shop", Name: "shop", RecordedSince: rec.From}
	for i := range rec.Out {
		l := &rec.Out[i]
		p.leases[l.ID] = &sqllease.Lease{ID: l.ID, Acquired: l.Acquired, Since: l.Acquired.Add(time.Second), Statement: l.Statement}
	}
	return p
}

// lease is one of a connection, from and to in milliseconds of the last minute.
func lease(id, connection uint64, from, to int) sqllease.RecordedLease {
	last := at(4 * time.Minute)
	l := sqllease.RecordedLease{
		ID: id, Connection: connection, Start: last.Add(time.Duration(from) * time.Millisecond), Acquired: last.Add(time.Duration(from) * time.Millisecond), Outcome: sqllease.OutcomeReturned, Stack: here(),
	}
	if to > 0 {
		l.End = last.Add(time.Duration(to) * time.Millisecond)
	} else {
		l.Outcome = ""
	}
	return l
}

// drawn is the picture of its last minute.
func drawn(p *pool, query string) *picture {
	q, err := url.ParseQuery(query)
	if err != nil {
		panic(err)
	}
	a := addressOf(q)
	if a.fits {
		a = a.withSpan(time.Minute)
	}
	return draw(p, &sites{}, a)
}

func pathOf(p *picture, class string) string {
	for _, o := range p.Paths {
		if o.Class == class {
			return o.D
		}
	}
	return ""
}

func TestABarHasItsShares(t *testing.T) {
	l := lease(1, 7, 6000, 12000)
	l.Reading, l.Unused, l.Transaction, l.Queue, l.Statement = 1500*time.Millisecond, 3*time.Second, 4*time.Second, 20*time.Millisecond, "SELECT 1"
	p := drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{l}}), "")
	require.Len(t, p.Tracks, 1)
	require.Len(t, p.Bars, 1)
	b := p.Bars[0]
	assert.Equal(t, []string{"10.00%", "10.00%"}, []string{b.X, b.W})
	assert.Equal(t, []part{{"call", "10.00%", "10.00%", "20", "4"}, {"rows", "10.00%", "10.00%", "16", "4"}, {"unused", "10.00%", "10.00%", "8", "8"}}, b.Parts, "from the bottom up")
	assert.Equal(t, "most", b.Tx)
	assert.Contains(t, b.Name, "picture_test.go:")
	assert.Contains(t, b.Text, "held for 6.0 s: 1.5 s in calls, 1.5 s reading rows, 3.0 s unused; 4.0 s in a transaction\nwaited 20 ms for it\nSELECT 1")
}

func TestALeaseThatIsOutShowsWhatItDoesNow(t *testing.T) {
	of := recorded(sqllease.Recording{Out: []sqllease.RecordedLease{lease(1, 7, 30000, 0), lease(2, 8, 31000, 0)}})
	of.recording.Out[1].Acquired = at(3 * time.Minute)
	of.Out = []holder{{Lease: 1, Leaked: true}}
	p := drawn(of, "")
	require.Len(t, p.Bars, 2)
	assert.Equal(t, []part{{"earlier", "50.00%", "1.67%", "30", "16"}, {"unused", "51.67%", "48.33%", "30", "16"}}, p.Bars[1].Parts)
	assert.Equal(t, "leaked", p.Bars[1].Class)
	assert.Contains(t, p.Bars[1].Text, "checked out for 30 s, unused for 29 s (reported as leaked)")
	assert.Equal(t, []string{"0.00%", "100.00%"}, []string{p.Bars[0].X, p.Bars[0].W}, "it began before the picture, and stands first")
	assert.True(t, p.Tracks[0].Out)
}

func TestShortLeasesAreSeen(t *testing.T) {
	p := drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 30000, 30001)}}), "")
	assert.Empty(t, p.Bars)
	assert.Equal(t, "M5000 8h20v16h-20z", pathOf(p, "call"), "a five-hundredth of the width at least")
	p = drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 59999, 60000)}}), "")
	assert.Equal(t, "M9980 8h20v16h-20z", pathOf(p, "call"), "also at the end")
}

func TestLeasesThatFallOnOneColumnAreOneBar(t *testing.T) {
	var all []sqllease.RecordedLease
	for i := range 60 { // half of the time, of 120 ms
		all = append(all, lease(uint64(i+1), 7, 30000+2*i, 30000+2*i+1))
	}
	p := drawn(recorded(sqllease.Recording{Leases: all}), "")
	assert.Equal(t, 1, p.Drawn)
	assert.Equal(t, 59, p.Merged)
	assert.Equal(t, "M5000 15.9h20v8.1h-20z", pathOf(p, "call"), "half as high as a track that is used all the time")
}

func TestWhatIsNotInThePictureIsNotDrawn(t *testing.T) {
	failed := lease(0, 0, 1000, 2000)
	failed.Acquired = time.Time{}
	failed.Outcome = "acquire_timeout"
	p := drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, -5000, -10), failed}}), "")
	assert.Empty(t, p.Tracks)
	require.Len(t, p.Queue.Lost, 1)
	assert.Equal(t, "1 × no connection: acquire_timeout", p.Queue.Lost[0].Title)
	p = drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 1000, 9000)}}), "place=elsewhere.go")
	assert.Empty(t, p.Tracks)
	p = drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 1000, 9000)}}), "place=PICTURE_test")
	assert.Len(t, p.Bars, 1)
}

func TestEventsAreDrawn(t *testing.T) {
	last := at(4 * time.Minute)
	rec := sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 12000, 15000), lease(2, 8, 12000, 15000)}, Events: []sqllease.RecordedEvent{
		{Kind: sqllease.EventDialed, At: last.Add(12 * time.Second), Took: 6 * time.Second, Connection: 7},
		{Kind: sqllease.EventDialFailed, At: last.Add(13 * time.Second), Why: "connection_refused"},
		{Kind: sqllease.EventLeak, At: last.Add(30 * time.Second), Lease: 1, Found: "shop/a.go:1: unused"},
		{Kind: sqllease.EventLeak, At: last.Add(31 * time.Second), Lease: 2},
		{Kind: sqllease.EventLimit, At: last.Add(40 * time.Second), Limit: 4},
		{Kind: sqllease.EventClosed, At: last.Add(48 * time.Second), Connection: 7, Why: "cut"},
		{Kind: sqllease.EventClosed, At: last.Add(54 * time.Second), Connection: 8, Why: "idle_limit"},
		{Kind: sqllease.EventFlush, At: last.Add(57 * time.Second)},
	}}
	p := drawn(recorded(rec), "")
	assert.Equal(t, "M1000 74h1000v5h-1000z", pathOf(p, "dial"))
	assert.Equal(t, "M0 54.5h9000v1h-9000zM1000 76.5h7000v1h-7000z", pathOf(p, "life"), "from its dial to its end")
	assert.Equal(t, []end{{"80.00%", "connection 7 closed at " + clock(last.Add(48*time.Second)) + ": the server or the network cut it during a call", 82, true},
		{"90.00%", "connection 8 closed at " + clock(last.Add(54*time.Second)) + ": in time, before the server's idle limit", 60, false}}, p.Ends)
	var marks []string
	for _, m := range p.Marks {
		marks = append(marks, m.X+" "+m.Text)
	}
	assert.Equal(t, []string{"50.00% leak ×2", "66.67% limit 4", "95.00% flush"}, marks)
	assert.Equal(t, []string{"50.00%", "51.67%"}, p.Marks[0].Lines)
	assert.Contains(t, p.Marks[0].Title, "leak: shop/a.go:1: unused")
	assert.Equal(t, "1 × dial failed: connection_refused", p.Queue.Lost[0].Title)
}

func TestAConnectionTakesATrackThatIsFree(t *testing.T) {
	event := func(kind sqllease.EventKind, second int, connection uint64) sqllease.RecordedEvent {
		return sqllease.RecordedEvent{Kind: kind, At: at(4*time.Minute + time.Duration(second)*time.Second), Connection: connection}
	}
	of := recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 1, 1000, 5000), lease(2, 2, 2000, 6000), lease(3, 3, 30000, 40000), lease(4, 4, 31000, 40000)}, Events: []sqllease.RecordedEvent{
		event(sqllease.EventDialed, 0, 1), event(sqllease.EventDialed, 1, 2), event(sqllease.EventClosed, 10, 2), event(sqllease.EventDialed, 20, 3), event(sqllease.EventClosed, 21, 1), event(sqllease.EventDialed, 22, 4),
	}})
	p := drawn(of, "")
	require.Len(t, p.Tracks, 2)
	begun := at(4 * time.Minute).UnixMilli()
	assert.Equal(t, fmt.Sprintf("1:%d 4:%d ", begun, begun+22000), p.Tracks[0].Stays())
	assert.Equal(t, fmt.Sprintf("2:%d 3:%d ", begun+1000, begun+20000), p.Tracks[1].Stays())
	assert.Equal(t, uint64(4), p.Tracks[0].Connection, "the last one")

	p = draw(of, &sites{}, addressOf(url.Values{"span": {"35s"}}))
	require.Len(t, p.Tracks, 2, "nothing moves as time goes by")
	assert.Equal(t, uint64(4), p.Tracks[0].Connection)
}

func TestTheQueueIsDrawnInSteps(t *testing.T) {
	waited := func(from, to int) sqllease.RecordedLease {
		l := lease(1, 7, from, to+1000)
		l.Queue = time.Duration(to-from) * time.Millisecond
		l.Acquired = l.Start.Add(l.Queue)
		return l
	}
	waits := lease(0, 0, 45000, 0)
	waits.Acquired, waits.Queue = time.Time{}, 15*time.Second
	p := drawn(recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{waited(15000, 30000), waited(18000, 30000)}, Waiting: []sqllease.RecordedLease{waits}}), "")
	assert.Equal(t, 2, p.Queue.Peak)
	assert.Equal(t, "M0 100H0V100H2500V50H3000V0H5025V100H7500V50H10000V100z", p.Queue.D)
}

// rush is a recording of so many leases on so many connections, each out for a moment, and of as many
// that are out.
func rush(leases, connections int) sqllease.Recording {
	var rec sqllease.Recording
	stack := here()
	for i := range leases {
		l := lease(uint64(i+1), uint64(i%connections+1), i*60000/leases, i*60000/leases+40)
		l.Unused, l.Transaction, l.Stack, l.Statement = 10*time.Millisecond, 20*time.Millisecond, stack, "SELECT id, product, total FROM orders WHERE customer = ? LIMIT ?"
		l.Queue = time.Duration(i%7) * time.Millisecond
		rec.Leases = append(rec.Leases, l)
	}
	for i := range connections {
		rec.Out = append(rec.Out, lease(uint64(leases+i+1), uint64(i+1), 59000, 0))
	}
	for i := range leases {
		rec.Events = append(rec.Events, sqllease.RecordedEvent{Kind: sqllease.EventLeak, At: at(4*time.Minute + time.Duration(i)*time.Minute/time.Duration(leases)), Lease: uint64(i + 1), Found: strings.Repeat("shop/a.go:1 ", 80)},
			sqllease.RecordedEvent{Kind: sqllease.EventClosed, At: at(4*time.Minute + time.Duration(i)*time.Minute/time.Duration(leases)), Connection: uint64(i%connections + 1), Why: "cut"})
	}
	return rec
}

func TestThePictureIsBounded(t *testing.T) {
	for _, c := range []struct{ leases, connections int }{{10_000, 8}, {10_000, 40}, {10_000, 1000}, {100_000, 200}} {
		for _, query := range []string{"", "tracks=all"} {
			t.Run(fmt.Sprint(c, query), func(t *testing.T) {
				of := recorded(rush(c.leases, c.connections))
				p := drawn(of, query)
				assert.LessOrEqual(t, p.Drawn, mostBars)
				assert.LessOrEqual(t, len(p.Bars), mostLinks)
				assert.LessOrEqual(t, len(p.Marks), mostMarks)
				assert.LessOrEqual(t, len(p.Ends), mostEnds)
				if query == "" {
					assert.LessOrEqual(t, len(p.Tracks), mostTracks)
					assert.Equal(t, max(0, c.connections-mostTracks), p.Hidden)
				} else {
					assert.Equal(t, min(c.connections, allTracks), len(p.Tracks))
				}
				all := 0
				for _, o := range p.Paths {
					all += len(o.D)
				}
				assert.Less(t, all, 400_000)
			})
		}
	}
}

func TestAnEarlierTimeIsWorkedOutFromTheRecording(t *testing.T) {
	waits := lease(3, 9, 20000, 50000)
	waits.Acquired, waits.Queue = waits.Start.Add(25*time.Second), 25*time.Second
	of := recorded(sqllease.Recording{Limit: 4, Leases: []sqllease.RecordedLease{lease(1, 7, 1000, 5000), lease(2, 8, 10000, 40000), waits}, Out: []sqllease.RecordedLease{lease(4, 7, 29000, 0), lease(5, 9, 55000, 0)},
		Events: []sqllease.RecordedEvent{{Kind: sqllease.EventLimit, At: at(4 * time.Minute), Limit: 2}, {Kind: sqllease.EventLimit, At: at(5 * time.Minute), Limit: 4}}})
	was := (&reader{}).frozen(of, at(4*time.Minute+30*time.Second))
	assert.Equal(t, "2 of 2 connections are in use, 1 caller waits, for 10 s so far.", strings.Split(was.Sentence, " In the last minute")[0])
	require.Len(t, was.Out, 2)
	assert.Equal(t, []uint64{2, 4}, []uint64{was.Out[0].Lease, was.Out[1].Lease})
	assert.Equal(t, 20*second, was.Out[0].Held)
	assert.Equal(t, notKnown, was.Out[0].Use)
	require.Len(t, was.Queue, 1)
	assert.Len(t, was.recording.Leases, 1)
}

func TestALeaseIsFoundWhereSomebodyPoints(t *testing.T) {
	of := recorded(sqllease.Recording{Leases: []sqllease.RecordedLease{lease(1, 7, 1000, 5000), lease(2, 8, 1000, 5000), lease(3, 7, 8000, 9000)}, Out: []sqllease.RecordedLease{lease(4, 7, 20000, 0)}})
	last := at(4 * time.Minute)
	for when, id := range map[time.Duration]uint64{2: 1, 0: 1, 5: 1, 7: 3, 8: 3, 50: 4, 14: 0} {
		assert.Equal(t, id, leaseAt(of, point{7, last.Add(when * time.Second)}, time.Minute), when)
	}
	assert.Zero(t, leaseAt(of, point{9, last}, time.Minute))
}

func TestAnAddressSaysAllThatIsShown(t *testing.T) {
	q, err := url.ParseQuery("pool=shop+(2)&span=5m&until=1772334000000&place=export.go&tracks=all&lease=47&sort_out=-held&sort_places=unused&format=stream&junk=1")
	require.NoError(t, err)
	a := addressOf(q)
	again, err := url.ParseQuery(strings.TrimPrefix(a.String(), "?"))
	require.NoError(t, err)
	assert.Equal(t, a, addressOf(again))
	q.Del("format")
	q.Del("junk")
	assert.Equal(t, q, again)

	assert.Equal(t, "?", addressOf(nil).String())
	assert.Equal(t, "?span=1m", addressOf(nil).zoomed(true).String())
	assert.Equal(t, longestSpan, addressOf(url.Values{"span": {"9000h"}}).Span)
	assert.Equal(t, longestSpan, addressOf(url.Values{"span": {"2h"}}).zoomed(false).Span)
	assert.Equal(t, shortestSpan, addressOf(url.Values{"span": {"-1s"}}).zoomed(true).Span)
	assert.Empty(t, addressOf(url.Values{"sort_out": {"none"}, "sort_places": {"-"}}).sort)
}

func TestTheFirstPictureHasAsMuchAsIsRecorded(t *testing.T) {
	for recorded, span := range map[time.Duration]time.Duration{time.Second: 15 * time.Second, 16 * time.Second: 30 * time.Second, time.Minute: time.Minute, time.Hour: standardSpan} {
		a := addressOf(nil)
		a.fit(recorded)
		assert.Equal(t, span, a.Span)
		assert.Equal(t, "?", a.String(), "nobody has said so")
	}
	a := addressOf(url.Values{"span": {"10m"}})
	a.fit(time.Second)
	assert.Equal(t, 10*time.Minute, a.Span)
}

func TestTablesAreSorted(t *testing.T) {
	rows := []holder{{Lease: 1, Held: 2 * second, site: site{Place: "b"}}, {Lease: 2, Held: 3 * second, site: site{Place: "a"}}, {Lease: 3, Held: second, site: site{Place: "b"}}}
	ids := func(how string) (ids []uint64) {
		for _, h := range sorted(rows, outColumns, how) {
			ids = append(ids, h.Lease)
		}
		return ids
	}
	assert.Equal(t, []uint64{1, 2, 3}, ids(""))
	assert.Equal(t, []uint64{3, 1, 2}, ids("held"))
	assert.Equal(t, []uint64{2, 1, 3}, ids("-held"))
	assert.Equal(t, []uint64{2, 1, 3}, ids("place"), "what is alike stays as it was")
	assert.Equal(t, "-held", next(outColumns, "held", ""), "the longest first")
	assert.Equal(t, "held", next(outColumns, "held", "-held"))
	assert.Equal(t, "place", next(outColumns, "place", ""))
}
