package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/livepage"
)

// This file runs the demo: it starts all there is, and shows it.

// demo runs it all and prints the report.
func demo(ctx context.Context, opt options, out io.Writer) (_ *report, err error) {
	d := &demonstration{opt: opt, out: out, journal: newJournal(), findings: newFindings()}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return d.show(ctx)
}

// demonstration is a run of the demo.
type demonstration struct {
	opt      options
	out      io.Writer
	journal  *journal
	findings *findings

	telemetry *telemetry
	pool      *sqllease.Connector
	db        *database
	load      *load

	closers []func() error // in order of opening
}

func (d *demonstration) onStop(f func() error) { d.closers = append(d.closers, f) }

// stop closes what start has opened, the latest first.
func (d *demonstration) stop() error {
	var err error
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		err = errors.Join(err, d.closers[last]())
		d.closers = d.closers[:last]
	}
	return err
}

// start starts the database, the service on it, and makes the load ready.
func (d *demonstration) start(ctx context.Context) (err error) {
	if d.db, err = openDatabase(ctx, d.opt.dsn, d.opt.idleLimit); err != nil {
		return err
	}
	d.onStop(d.db.close)
	d.onStop(func() error { return within(10*time.Second, d.db.empty) })
	if err := d.db.fill(ctx); err != nil {
		return err
	}
	if d.telemetry, err = newTelemetry(ctx, d.opt.otlp); err != nil {
		return err
	}
	d.onStop(func() error { return within(5*time.Second, d.telemetry.close) })
	db, err := d.openPool()
	if err != nil {
		return err
	}
	d.onStop(db.Close)
	url, err := d.listen(&shop{db})
	if err != nil {
		return err
	}
	d.load = newLoad(url, phasesOf(d.opt.duration, d.opt.idleLimit))
	d.telemetry.spans.inRush = d.load.inRush
	return nil
}

// openPool opens the application's *sql.DB. This is all that sqllease asks of
// an application.
func (d *demonstration) openPool() (*sql.DB, error) {
	db, err := sqllease.Open("mysql", d.db.dsn, sqllease.Config{
		Name:              "shop",
		MaxOpen:           poolLimit,
		AcquireTimeout:    10 * time.Second,
		LeakThreshold:     d.opt.leakThreshold,
		SlowCallThreshold: d.opt.longCall,
		FindBlockers:      true,
		OnLeak:            d.findings.addLeak,
		OnSlowCall:        d.findings.addSlowCall,
		Logger:            slog.New(poolLog{d.journal, d.findings}),
		TracerProvider:    d.telemetry.traces,
		MeterProvider:     d.telemetry.metrics,
	})
	if err != nil {
		return nil, err
	}
	d.pool, _ = sqllease.ConnectorOf(db)
	return db, nil
}

// listen serves the application and its metrics.
func (d *demonstration) listen(app *shop) (url string, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(d.opt.port)))
	if err != nil {
		return "", fmt.Errorf("HTTP service: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", d.telemetry.instrument(app.routes()))
	mux.Handle("/metrics", d.telemetry.scrape())
	mux.Handle("/debug/sqllease/", livepage.Handler())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	d.onStop(func() error {
		err := within(5*time.Second, server.Shutdown)
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
	return "http://" + l.Addr().String(), nil
}

// show runs the load, prints lines meanwhile and the report at the end; with
// -serve, the report when the duration is over, and what came after at Ctrl-C.
func (d *demonstration) show(ctx context.Context) (*report, error) {
	d.printHead()
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	if !d.opt.serve {
		time.AfterFunc(d.opt.duration, cancel)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.load.run(bounded)
	}()
	d.follow(done)
	if d.opt.serve && ctx.Err() == nil {
		return d.serve(done), nil
	}
	<-done
	r := d.report(ctx.Err() == nil)
	r.print(d.out)
	return r, nil
}

// serve prints the report and lets the load go on until it ends.
func (d *demonstration) serve(done <-chan struct{}) *report {
	first := d.report(true)
	first.print(d.out)
	fmt.Fprintf(d.out, "\nThe load goes on until Ctrl-C. Metrics: %s/metrics\n", d.load.url)
	<-done
	last := d.report(true)
	first.printLater(d.out, last)
	if len(first.wrong()) > 0 {
		return first
	}
	return last
}

func (d *demonstration) printHead() {
	fmt.Fprintf(d.out, "sqllease demo: an HTTP service on database/sql, with a pool of %d connections.\n", poolLimit)
	fmt.Fprintf(d.out, "It has four mistakes in it. sqllease finds them in %s. Ctrl-C ends it earlier.\n", seconds(d.opt.duration))
	fmt.Fprintf(d.out, "The report at the end has six items: 2 to 5 are the mistakes.\n\n")
	fmt.Fprintf(d.out, "  database  %s\n", d.db.about)
	fmt.Fprintf(d.out, "  service   %s, metrics for Prometheus at /metrics\n", d.load.url)
	fmt.Fprintf(d.out, "  live page %s/debug/sqllease/\n", d.load.url)
	if d.opt.otlp != "" {
		fmt.Fprintf(d.out, "  traces    to %s, by OTLP over gRPC\n", d.opt.otlp)
	}
	fmt.Fprintf(d.out, "\n%s\n", progressHeader)
}

// follow prints how things stand every now and then, until the load is done or,
// with -serve, the duration is over.
func (d *demonstration) follow(done <-chan struct{}) {
	ticker := time.NewTicker(d.opt.progress)
	defer ticker.Stop()
	end := time.NewTimer(d.opt.duration)
	defer end.Stop()
	for {
		select {
		case <-done:
			return
		case <-end.C:
			if d.opt.serve {
				return
			}
		case <-ticker.C:
			fmt.Fprintln(d.out, d.progressLine())
		}
	}
}

// progressHeader counts, under "closed in time", connections closed before the server would have.
const progressHeader = "                                            closed\n" +
	"   time  load    requests  in use  waiting  in time  leaks  nested  slow  errors"

// progressLine says how things stand.
func (d *demonstration) progressLine() string {
	p, _ := d.load.now()
	c, s := d.load.counts(), d.pool.Stats()
	return fmt.Sprintf("  %4.0fs  %-6s  %8d  %4d/%d  %7d  %7d  %5d  %6d  %4d  %6d",
		d.load.since().Seconds(), p.name, c.sent, s.InUse, s.Limit, s.Waiting, s.Closed.Retired(),
		s.Leaks, s.NestedAcquires, s.SlowCalls, c.failed)
}

// report collects what the run has shown so far.
func (d *demonstration) report(whole bool) *report {
	r := &report{
		ran:       d.load.since().Round(100 * time.Millisecond),
		planned:   d.opt.duration,
		whole:     whole,
		rush:      d.telemetry.spans.snapshot(true),
		stats:     d.pool.Stats(),
		counts:    d.load.counts(),
		leaks:     d.findings.leakSites(),
		firstLeak: d.findings.firstLeak(),
		slow:      d.findings.slowSites(),
		nested:    d.findings.nestings(),
		blocked:   d.findings.blockings(),
		remedies:  d.findings.remedyList(),
		logged:    d.journal.list(),
		idleLimit: d.opt.idleLimit,
		longCall:  d.opt.longCall,
	}
	for _, at := range r.counts.refused {
		if time.Since(at) > d.opt.leakThreshold+time.Second {
			r.leakDue++
		}
	}
	if d.db.cuts != nil {
		r.cuts, r.cutsSeen = d.db.cuts(), true
	}
	return r
}

// within calls f with a context of its own that ends after limit.
func within(limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return f(ctx)
}
