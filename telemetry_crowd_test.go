package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// countingTracers have spans that notice being ended twice, used afterwards, or told nonsense.
type countingTracers struct {
	noop.TracerProvider
	c *counting
}

type counting struct {
	next   atomic.Uint64
	mu     sync.Mutex
	open   map[*countedSpan]bool
	faults map[string]int
}

func (c *counting) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults[fmt.Sprintf(format, args...)]++
}

func (p countingTracers) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return countingTracer{c: p.c}
}

type countingTracer struct {
	noop.Tracer
	c *counting
}

type countedSpan struct {
	noop.Span
	c      *counting
	name   string
	sc     trace.SpanContext
	parent trace.Span
	ended  atomic.Int32
	owner  any // who runs it, by the context
	start  time.Time
}

type ownerKey struct{}

func (t countingTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	n := t.c.next.Add(1)
	var id trace.SpanID
	for i := range 8 {
		id[i] = byte(n >> (8 * i))
	}
	parent := trace.SpanFromContext(ctx)
	tid := parent.SpanContext().TraceID()
	if !tid.IsValid() {
		tid = trace.TraceID{1, id[0], id[1], id[2], id[3]}
	}
	s := &countedSpan{c: t.c, name: name, parent: parent, owner: ctx.Value(ownerKey{}), start: time.Now(),
		sc: trace.NewSpanContext(trace.SpanContextConfig{TraceID: tid, SpanID: id, TraceFlags: trace.FlagsSampled})}
	if up, ok := parent.(*countedSpan); ok {
		if up.ended.Load() > 0 && up.name != "request" {
			t.c.fault("%s starts under %s, which has ended", name, up.name)
		}
		if s.owner != nil && up.owner != nil && s.owner != up.owner {
			t.c.fault("%s of another's under %s", name, up.name)
		}
	}
	config := trace.NewSpanStartConfig(opts...)
	for _, l := range config.Links() {
		if !l.SpanContext.IsValid() {
			t.c.fault("%s has a link to nothing", name)
		}
	}
	t.c.mu.Lock()
	t.c.open[s] = true
	t.c.mu.Unlock()
	return trace.ContextWithSpan(ctx, s), s
}

func (s *countedSpan) IsRecording() bool              { return true }
func (s *countedSpan) SpanContext() trace.SpanContext { return s.sc }
func (s *countedSpan) SetAttributes(attrs ...attribute.KeyValue) {
	if s.ended.Load() > 0 {
		s.c.fault("%s is told %v after its end", s.name, attrs[0].Key)
	}
	var sum float64
	for _, a := range attrs {
		if a.Value.Type() == attribute.FLOAT64 && a.Value.AsFloat64() < 0 {
			s.c.fault("%s: %s is negative", s.name, a.Key)
		}
		if a.Key == keyTxBusy || a.Key == keyTxIdle {
			sum += a.Value.AsFloat64()
		}
	}
	if s.name == "transaction" && sum > time.Since(s.start).Seconds()+0.0001 {
		s.c.fault("transaction: busy and idle are more than it lasted")
	}
	if rand.N(400) == 0 {
		panic("the application's")
	}
}
func (s *countedSpan) End(...trace.SpanEndOption) {
	if s.ended.Add(1) > 1 {
		s.c.fault("%s is ended twice", s.name)
	}
	s.c.mu.Lock()
	delete(s.c.open, s)
	s.c.mu.Unlock()
}

// chaosFake fails, hangs, panics and dies at random.
type chaosFake struct{ telemetryFake }

type chaosConn struct {
	*telemetryFakeConn
	dead atomic.Bool
}

func (f *chaosFake) Connect(ctx context.Context) (driver.Conn, error) {
	if err := f.happen(ctx, "connect", ""); err != nil {
		return nil, err
	}
	c, _ := (&f.telemetryFake).Connect(ctx)
	if c == nil {
		return nil, io.EOF
	}
	return &chaosConn{telemetryFakeConn: c.(*telemetryFakeConn)}, nil
}
func (c *chaosConn) IsValid() bool { return !c.dead.Load() && rand.N(100) > 0 }

func chaos(ctx context.Context, call, _ string) error {
	if call == "rows close" || call == "next" {
		return nil
	}
	if rand.N(4) == 0 {
		select {
		case <-time.After(time.Duration(rand.N(3000)) * time.Microsecond):
		case <-ctx.Done():
			return []error{ctx.Err(), driver.ErrBadConn, errors.New("invalid connection")}[rand.N(3)]
		}
	}
	switch rand.N(60) {
	case 0:
		return driver.ErrBadConn
	case 1:
		return syscall.ECONNRESET
	case 2:
		return errors.New("any")
	case 3:
		if call == "exec" || call == "commit" || call == "reset" {
			panic("the driver's")
		}
	case 4:
		return &os.SyscallError{Syscall: "x", Err: syscall.ECONNREFUSED}
	}
	return nil
}

func TestACrowd(t *testing.T) {
	times := 150
	if n, err := strconv.Atoi(os.Getenv("SQLLEASE_CROWD")); err == nil {
		times = n
	}
	for round := range 3 {
		c := &counting{open: map[*countedSpan]bool{}, faults: map[string]int{}}
		reader := sdkmetric.NewManualReader()
		f := &chaosFake{telemetryFake{on: chaos, answer: []driver.Value{int64(1), int64(2)}}}
		cfg := Config{
			MaxOpen: 6, MinIdle: round, Logger: slog.New(slog.DiscardHandler), TracerProvider: countingTracers{c: c},
			MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
			LeakThreshold: 15 * time.Millisecond, ReclaimAfter: 30 * time.Millisecond, AcquireTimeout: 80 * time.Millisecond,
			SpanAttributes: func(context.Context) []attribute.KeyValue {
				if rand.N(300) == 0 {
					panic("SpanAttributes")
				}
				return []attribute.KeyValue{attribute.Int("tenant", rand.N(3))}
			},
			MetricAttributes: func(context.Context) []attribute.KeyValue {
				if rand.N(300) == 0 {
					panic("MetricAttributes")
				}
				return []attribute.KeyValue{attribute.Int("tenant", rand.N(300))}
			},
			IsError: func(context.Context, error) bool {
				if rand.N(50) == 0 {
					panic("IsError")
				}
				return rand.N(2) == 0
			},
			FilterSpan: func(context.Context, Operation) bool {
				if rand.N(300) == 0 {
					panic("FilterSpan")
				}
				return rand.N(10) > 0
			},
		}
		if round == 2 {
			cfg.Comments = CommentsAppend
		}
		db, err := OpenDB(f, cfg)
		require.NoError(t, err)
		w, _ := ConnectorOf(db)
		tracer := countingTracer{c: c}
		stop := make(chan struct{})
		var all, looks sync.WaitGroup
		for i := range 24 {
			all.Go(func() {
				for n := range times {
					one(db, tracer, fmt.Sprint(i, "/", n))
				}
			})
		}
		looks.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
					var rm metricdata.ResourceMetrics
					_ = reader.Collect(context.Background(), &rm)
					w.Stats()
					w.Leases()
				}
			}
		})
		all.Wait()
		close(stop)
		looks.Wait()
		if round == 1 {
			go func() { _ = db.Close() }()
		}
		assert.Eventually(t, func() bool {
			runtime.GC()
			s := w.Stats()
			return s.InUse == 0 && s.Dialing == 0 && s.Waiting == 0
		}, 20*time.Second, time.Millisecond, "all is given back, or reclaimed")
		assert.NoError(t, db.Close())
		assert.Eventually(t, func() bool { return w.Stats().Open == 0 && f.open() == 0 }, 20*time.Second, time.Millisecond)
		s := w.Stats()
		assert.Equal(t, s.Dials-s.DialErrors, s.Closed.Total(), "each session that was dialed was closed, and counted once")
		if round < 2 { // with comments, what is declined is not ended
			assert.Eventually(t, func() bool { return len(c.left()) == 0 }, 20*time.Second, time.Millisecond, "reports are told aside")
			assert.Empty(t, c.left())
		}
		c.mu.Lock()
		t.Log(round, "spans", c.next.Load(), "closed", s.Closed, "leaks", s.Leaks, s.Proven, "timeouts", s.Timeouts, s.Cancelled)
		assert.Empty(t, c.faults)
		c.mu.Unlock()
	}
}

// left are the spans of ours that have not ended, by name.
func (c *counting) left() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := map[string]int{}
	for s := range c.open {
		left[s.name]++
	}
	delete(left, "request")
	return left
}

// one does what an application does in a request.
func one(db *sql.DB, tracer trace.Tracer, owner string) {
	defer func() { _ = recover() }()
	ctx := context.WithValue(context.Background(), ownerKey{}, owner)
	if rand.N(2) == 0 {
		var span trace.Span
		ctx, span = tracer.Start(ctx, "request")
		defer span.End()
	}
	var cancel context.CancelFunc
	ctx, cancel = context.WithTimeout(ctx, time.Duration(rand.N(30000)+200)*time.Microsecond)
	if rand.N(3) == 0 {
		cancel()
		ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
		time.AfterFunc(time.Duration(rand.N(10000))*time.Microsecond, cancel)
	}
	defer cancel()
	nap := func() {
		if rand.N(25) == 0 {
			elapse(60 * time.Millisecond) // reclaimed
		}
	}
	use := func(q interface {
		ExecContext(context.Context, string, ...any) (sql.Result, error)
		QueryContext(context.Context, string, ...any) (*sql.Rows, error)
		PrepareContext(context.Context, string) (*sql.Stmt, error)
	}) {
		for range rand.N(4) {
			switch rand.N(4) {
			case 0:
				_, _ = q.ExecContext(ctx, "UPDATE t SET a = 1 WHERE b = "+strconv.Itoa(rand.N(5)))
			case 1:
				rows, err := q.QueryContext(ctx, "SELECT a FROM t")
				if err != nil {
					continue
				}
				for rows.Next() && rand.N(3) > 0 {
				}
				nap()
				if rand.N(20) > 0 {
					_ = rows.Close()
				}
			case 2:
				st, err := q.PrepareContext(ctx, "DELETE FROM t WHERE a = ?")
				if err == nil {
					_, _ = st.ExecContext(ctx, 1)
					_ = st.Close()
				}
			case 3:
				nap()
			}
		}
	}
	switch rand.N(4) {
	case 0, 1:
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return
		}
		defer func() { _ = tx.Rollback() }()
		use(tx)
		if rand.N(2) == 0 {
			_ = tx.Commit()
		}
	case 2:
		use(db)
	case 3:
		conn, err := db.Conn(ctx)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		use(conn)
		if tx, err := conn.BeginTx(ctx, nil); err == nil {
			use(tx)
			if rand.N(3) > 0 {
				_ = tx.Rollback()
			}
		}
	}
}
