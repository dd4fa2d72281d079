package shop

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
)

// Shop is the application.
type Shop struct {
	DB     *sql.DB
	Pool   *sqllease.Connector
	Server *Server

	lost     []*sql.Rows
	ctx      context.Context
	stop     context.CancelFunc
	requests sync.WaitGroup
}

// Open opens it, with a pool of that name and of so many connections.
func Open(name string, limit int) *Shop {
	s := &Shop{Server: &Server{}}
	db, err := sqllease.OpenDB(s.Server, sqllease.Config{
		Name: name, MaxOpen: limit, AcquireTimeout: 10 * time.Second, LeakThreshold: 3 * time.Second, MaxLifetime: time.Hour, SlowCallThreshold: 2 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	s.DB = db
	s.Pool, _ = sqllease.ConnectorOf(db)
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Close ends all its requests, and closes it.
func (s *Shop) Close() {
	s.stop()
	s.requests.Wait()
	for _, rows := range s.lost {
		_ = rows.Close()
	}
	_ = s.DB.Close()
}

// Every has so many requests a second come, at random.
func (s *Shop) Every(perSecond float64, request func(context.Context) error) {
	s.requests.Go(func() {
		for {
			select {
			case <-time.After(time.Duration(mathrand.ExpFloat64() / perSecond * float64(time.Second))):
				s.Once(request)
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// Once makes one request, in a trace of its own.
func (s *Shop) Once(request func(context.Context) error) {
	s.requests.Go(func() {
		var id trace.TraceID
		var span trace.SpanID
		_, _ = rand.Read(id[:])
		_, _ = rand.Read(span[:])
		in := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled})
		_ = request(trace.ContextWithSpanContext(s.ctx, in))
	})
}

// Day is what goes on by day.
func (s *Shop) Day(factor float64) {
	s.Every(18*factor, func(ctx context.Context) error { return s.Product(ctx, 4) })
	s.Every(4*factor, s.Orders)
	s.Every(4*factor, s.Order)
	s.Every(1.5*factor, s.Report)
	s.Every(1*factor, func(ctx context.Context) error { return s.Export(ctx, false) })
}

// Dispute has an export leak its connection.
func (s *Shop) Dispute() {
	s.Once(func(ctx context.Context) error { return s.Export(ctx, true) })
}
