package sqllease

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// ofLane is a context in a lane; in none, if that is empty.
func ofLane(t *testing.T, lane string) context.Context {
	if lane == "" {
		return t.Context()
	}
	return WithLane(t.Context(), lane)
}

// takeIn takes a connection in a lane.
func takeIn(t *testing.T, db *sql.DB, lane string) *sql.Conn {
	t.Helper()
	conn, err := db.Conn(ofLane(t, lane))
	require.NoError(t, err)
	return conn
}

// waitIn has callers wait in a lane, until they have a connection, or an error.
func waitIn(t *testing.T, db *sql.DB, lane string, n int) (over chan error) {
	over = make(chan error, n)
	for range n {
		go func() { over <- laneWork(t.Context(), db, lane, 0) }()
	}
	synctest.Wait()
	return over
}

func TestStatsTellLanesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 4, MaxWaiting: 2, Lanes: map[string]Lane{"report": {Max: 1}, "probe": {Reserve: 1}}})
		report, page := takeIn(t, db, "report"), takeIn(t, db, "")
		late, cancel := context.WithTimeout(WithLane(t.Context(), "report"), time.Second)
		defer cancel()
		require.ErrorIs(t, db.PingContext(late), context.DeadlineExceeded)
		over := waitIn(t, db, "report", 2)
		require.ErrorIs(t, laneWork(t.Context(), db, "report", 0), ErrOverloaded)
		leakPause(time.Second)

		s := c.Stats()
		assert.Equal(t, uint64(1), s.Refused)
		assert.Equal(t, uint64(1), s.Timeouts)
		assert.False(t, s.Refusing, "that is told of who has waited for too long")
		assert.Equal(t, []LaneStats{
			{Name: "default", InUse: 1, Acquires: 1, leases: 1},
			{Name: "probe", Reserve: 1},
			{Name: "report", Max: 1, InUse: 1, Waiting: 2, Acquires: 1, Timeouts: 1, Refused: 1, leases: 1},
		}, s.Lanes)

		require.NoError(t, report.Close())
		require.NoError(t, <-over)
		require.NoError(t, <-over)
		require.NoError(t, page.Close())
		last := c.Stats().Lanes[2]
		assert.Equal(t, []any{uint64(3), uint64(2), 2 * time.Second, 0, 0}, []any{last.Acquires, last.Waits, last.QueueTime, last.InUse, last.Waiting})
		f.end(db, c)
	})
}

func TestADialInALaneIsInUseThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{on: slow("connect", time.Second)}, Config{Lanes: map[string]Lane{"report": {}}})
		over := waitIn(t, p.db, "report", 1)
		s := p.c.Stats()
		assert.Equal(t, []int{0, 1}, []int{s.InUse, s.Dialing})
		assert.Equal(t, []int{0, 1}, []int{s.Lanes[0].InUse, s.Lanes[1].InUse})
		require.NoError(t, <-over)
	})
}

func TestStatsTellWhetherCallersAreRefused(t *testing.T) {
	for name, lanes := range map[string]map[string]Lane{"without lanes": nil, "in a lane": {"report": {}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &gateFake{t: t}
				db, c := f.open(Config{MaxOpen: 1, QueueTarget: 50 * time.Millisecond, Lanes: lanes})
				holder := take(t, db, 1)[0]
				lane := ""
				if lanes != nil {
					lane = "report"
				}
				over := waitIn(t, db, lane, 10)
				leakPause(500 * time.Millisecond)
				assert.False(t, c.Stats().Refusing)
				leakPause(100 * time.Millisecond)
				s := c.Stats()
				assert.True(t, s.Refusing)
				assert.Equal(t, uint64(9), s.Refused)
				if lanes != nil {
					assert.Equal(t, []bool{false, true}, []bool{s.Lanes[0].Refusing, s.Lanes[1].Refusing})
				} else {
					assert.Nil(t, s.Lanes)
				}
				require.NoError(t, holder.Close())
				for range 9 {
					require.ErrorIs(t, <-over, ErrOverloaded)
				}
				require.NoError(t, <-over, "of who was left alone")
				assert.False(t, c.Stats().Refusing, "nobody waits")
				f.end(db, c)
			})
		})
	}
}

// byLane are the values of a metric by lane: "-" is no lane.
func (p *telemetryPool) byLane(t *testing.T, name string) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for _, m := range p.collect(t) {
		if m.Name != name {
			continue
		}
		values := []float64{}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, point := range data.DataPoints {
				values = append(values, float64(point.Value))
			}
		case metricdata.Histogram[float64]:
			for _, point := range data.DataPoints {
				values = append(values, float64(point.Count))
			}
		}
		for i, set := range attributeSets(m) {
			key := "-"
			if lane, ok := set.Value("sqllease.lane"); ok {
				key = lane.AsString()
			}
			for _, more := range []string{"db.client.connection.state", "error.type", "sqllease.acquire.part"} {
				if v, ok := set.Value(attribute.Key(more)); ok {
					key += " " + v.AsString()
				}
			}
			got[key] += values[i]
		}
	}
	return got
}

// workInLanes has somebody in lane report, with two who wait for it, one of them in vain, and
// somebody in lane default.
func workInLanes(t *testing.T, p *telemetryPool, look func()) {
	report, page := takeIn(t, p.db, "report"), takeIn(t, p.db, "")
	over := waitIn(t, p.db, "report", 1)
	require.ErrorIs(t, laneWork(t.Context(), p.db, "report", 0), ErrOverloaded)
	leakPause(time.Second)
	look()
	require.NoError(t, report.Close())
	require.NoError(t, <-over)
	late, cancel := context.WithTimeout(ofLane(t, "report"), time.Second)
	defer cancel()
	report = takeIn(t, p.db, "report")
	require.Error(t, p.db.PingContext(late))
	require.NoError(t, report.Close())
	require.NoError(t, page.Close())
}

var someLanes = map[string]Lane{"report": {Max: 1, MaxWaiting: 1}, "probe": {Reserve: 1}}

func TestMetricsTellLanesApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 4, Lanes: someLanes, NoGoroutineLook: true})
		assert.Equal(t, map[string]float64{"default": 0, "probe": 0, "report": 0}, p.byLane(t, "db.client.connection.timeouts"), "alerts look at increases")
		workInLanes(t, p, func() {
			assert.Equal(t, map[string]float64{"default used": 1, "probe used": 0, "report used": 1, "- used": 0, "- idle": 0, "- dialing": 0}, p.byLane(t, "db.client.connection.count"))
			assert.Equal(t, map[string]float64{"default": 0, "probe": 0, "report": 1}, p.byLane(t, "db.client.connection.pending_requests"))
			assert.Equal(t, map[string]float64{"report": 1}, p.byLane(t, "sqllease.lane.max"))
			assert.Equal(t, map[string]float64{"probe": 1}, p.byLane(t, "sqllease.lane.reserve"))
			assert.Equal(t, map[string]float64{"-": 4}, p.byLane(t, "db.client.connection.max"))
		})
		assert.Equal(t, map[string]float64{"default": 1, "report": 3, "report overloaded": 1, "report context.DeadlineExceeded": 1}, p.byLane(t, "db.client.connection.wait_time"))
		assert.Equal(t, map[string]float64{"default": 1, "report": 3}, p.byLane(t, "db.client.connection.use_time"))
		assert.Equal(t, map[string]float64{"default": 0, "probe": 0, "report": 1}, p.byLane(t, "db.client.connection.timeouts"))
		assert.Equal(t, 2.0, p.byLane(t, "sqllease.acquire.part")["report queue"], "one was served, one gave up")
	})
}

// What an application without lanes has in its metrics does not change.
func TestWithoutLanesNothingTellsOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 1, MaxWaiting: 1})
		p.c.Record(10)
		holder := takeIn(t, p.db, "report")
		over := waitIn(t, p.db, "report", 1)
		require.ErrorIs(t, laneWork(t.Context(), p.db, "report", 0), ErrOverloaded)
		for _, m := range p.collect(t) {
			assert.NotContains(t, m.Name, "lane.")
			for _, set := range attributeSets(m) {
				assert.False(t, set.HasValue("sqllease.lane"), m.Name)
			}
		}
		assert.Equal(t, map[string]float64{"- used": 1, "- idle": 0, "- dialing": 0}, p.byLane(t, "db.client.connection.count"))
		assert.Equal(t, map[string]float64{"-": 1}, p.byLane(t, "db.client.connection.pending_requests"))
		assert.Empty(t, p.c.Leases()[0].Lane)
		assert.NotContains(t, p.c.Leases()[0].String(), "in lane")
		r := p.c.Recording()
		assert.Nil(t, r.Lanes)
		assert.Empty(t, r.Out[0].Lane)
		require.NoError(t, holder.Close())
		require.NoError(t, <-over)
		for _, s := range p.takeAll() {
			assert.NotContains(t, spanAttributes(s), "sqllease.lane", s.Name())
		}
	})
}

func TestALaneMakesFewSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := map[string]Lane{}
		for i := range mostLanes {
			many[fmt.Sprint(i)] = Lane{Max: 1}
		}
		p := newTelemetryPool(t, &telemetryFake{}, Config{Lanes: many})
		for range 3 {
			for _, name := range append(slices.Collect(maps.Keys(many)), "", "unknown", "another") {
				require.NoError(t, laneWork(t.Context(), p.db, name, 0))
			}
		}
		for _, m := range p.collect(t) {
			assert.LessOrEqual(t, len(attributeSets(m)), mostLanes+1+3, "%s: the default lane, and the states", m.Name)
		}
	})
}

func TestTheAcquiresSpanHasItsLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 4, Lanes: someLanes})
		holder := takeIn(t, p.db, "report")
		page := takeIn(t, p.db, "")
		over := waitIn(t, p.db, "report", 1)
		p.take()
		refused := laneWork(t.Context(), p.db, "report", 0)
		spans := p.take()
		require.Equal(t, []string{"pool.acquire"}, spanNames(spans))
		s := spans[0]
		assert.Equal(t, "report", spanAttributes(s)["sqllease.lane"])
		assert.Equal(t, "overloaded", spanAttributes(s)["error.type"])
		assert.Equal(t, codes.Error, s.Status().Code)
		assert.Equal(t, "overloaded", s.Status().Description)
		require.Len(t, s.Events(), 1)
		for _, a := range s.Events()[0].Attributes {
			if a.Key == "exception.message" {
				assert.Equal(t, refused.Error(), a.Value.AsString())
			}
		}
		assert.Len(t, s.Events()[0].Attributes, 2)

		require.NoError(t, page.Close())
		require.NoError(t, holder.Close())
		require.NoError(t, <-over)
		spans = p.take()
		require.Equal(t, "pool.acquire", spans[0].Name())
		assert.Equal(t, "report", spanAttributes(spans[0])["sqllease.lane"])
		for _, s := range spans[1:] {
			assert.NotContains(t, spanAttributes(s), "sqllease.lane", "it is the wait that a lane makes longer, and not the call")
		}
	})
}

// A span names what an acquire failed with as the metrics do.
func TestSpansNameWhyAnAcquireFailed(t *testing.T) {
	for err, want := range map[error]string{ErrOverloaded: "overloaded", ErrDeadlock: "deadlock", ErrClosed: "closed", context.DeadlineExceeded: "context.DeadlineExceeded"} {
		kind, code := errorType(fmt.Errorf("loading orders: %w", &AcquireError{Err: err}))
		assert.Equal(t, want, kind)
		assert.Empty(t, code)
		assert.True(t, saysNothingOfData(err))
	}
}

// The warning tells of the lane of who waits longest, and why they wait.
func TestTheWarningOfSlowAcquiresTellsOfTheLane(t *testing.T) {
	for name, c := range map[string]struct {
		lanes   map[string]Lane
		held    []string
		waits   string
		cause   string
		heldBy  string
		figures string
	}{
		"its Max":            {map[string]Lane{"report": {Max: 1}}, []string{"", "report"}, "report", "their lane has all connections that its Max allows; ", `\(1, the oldest`, "report 2 1 1"},
		"others' reserve":    {map[string]Lane{"probe": {Reserve: 1}}, []string{"", ""}, "", "the connections that are left are reserved for other lanes; ", `\(2, the oldest`, "default 2 2 0"},
		"all are taken":      {map[string]Lane{"report": {Max: 2}}, []string{"", "", "report"}, "report", "the code in held_by keeps connections for too long, or the limit is too low", `\(3, the oldest`, "report 2 1 2"},
		"they are the first": {map[string]Lane{"report": {Max: 1}, "page": {}}, []string{"", "report", ""}, "page", "the code in held_by keeps connections for too long, or the limit is too low", `\(3, the oldest`, "page 2 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &keptLog{}
				db, err := OpenDB(&leakFake{}, Config{MaxOpen: 3, LeakThreshold: -1, StandstillThreshold: -1, NoGoroutineLook: true, Lanes: c.lanes, Logger: slog.New(log)})
				require.NoError(t, err)
				var held []*sql.Conn
				for _, lane := range c.held {
					held = append(held, takeIn(t, db, lane))
				}
				over := waitIn(t, db, c.waits, 2)
				leakPause(6 * time.Second)
				records := log.take()
				require.Len(t, records, 1)
				assert.Contains(t, records[0].message, "Config.SlowAcquireThreshold: "+c.cause)
				of := records[0].attrs
				assert.Regexp(t, c.heldBy, of["held_by"])
				assert.Equal(t, c.figures, fmt.Sprint(of["lane"], " ", of["lane_waiting"], " ", of["lane_in_use"], " ", of["lane_max"]))
				for _, conn := range held {
					require.NoError(t, conn.Close())
				}
				require.NoError(t, <-over)
				require.NoError(t, <-over)
				require.NoError(t, db.Close())
			})
		})
	}
}

func TestALeaseHasItsLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leaks []Leak
		f := &gateFake{t: t}
		db, c := f.open(Config{MaxOpen: 4, Lanes: someLanes, LeakThreshold: time.Second, OnLeak: func(l Leak) { leaks = append(leaks, l) }})
		report, page := takeIn(t, db, "report"), takeIn(t, db, "")
		held := c.Leases()
		require.Len(t, held, 2)
		assert.Equal(t, []string{"report", "default"}, []string{held[0].Lane, held[1].Lane})
		assert.Contains(t, held[0].String(), ` in lane "report", held `)
		require.NoError(t, page.Close())
		leakPause(2 * time.Second)
		require.Len(t, leaks, 1)
		assert.Equal(t, "report", leaks[0].Lane)
		require.NoError(t, report.Close())
		synctest.Wait()
		f.end(db, c)
	})
}

func TestARecordingHasTheLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanes := maps.Clone(someLanes)
		p := newTelemetryPool(t, &telemetryFake{}, Config{MaxOpen: 4, Lanes: lanes})
		p.c.Record(10)
		clear(lanes)
		workInLanes(t, p, func() {
			r := p.c.Recording()
			assert.Equal(t, someLanes, r.Lanes, "as they were when the pool was opened")
			assert.Equal(t, "report", r.Out[0].Lane)
			assert.Equal(t, "default", r.Out[1].Lane)
			require.Len(t, r.Waiting, 1)
			assert.Equal(t, "report", r.Waiting[0].Lane)
			require.Len(t, r.Leases, 1)
			assert.Equal(t, "report", r.Leases[0].Lane)
			assert.Equal(t, Outcome("overloaded"), r.Leases[0].Outcome)
			assert.True(t, r.Leases[0].Acquired.IsZero())
		})
	})
}
