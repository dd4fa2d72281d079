// Command demo shows sqllease at work, with nothing to install: an HTTP
// service on database/sql, under load, on a MySQL-compatible server that runs
// in this process and cuts idle sessions after three seconds.
//
// It ends with a report: where the time of the requests went, how many
// sessions were retired before the server would have cut them, and the place
// in the code that leaks connections. Its exit code is 0 if all that was as
// expected, 1 if not, and 2 if the command line cannot be meant.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sqllease/sqllease"
)

// options say what to run. The flags set the upper part.
type options struct {
	duration time.Duration
	dsn      string
	otlp     string
	serve    bool
	port     int

	idleLimit     time.Duration // of the server, whole seconds
	leakThreshold time.Duration
	progress      time.Duration // between two lines
}

// poolLimit is how many sessions the service may have at once.
const poolLimit = 8

// shortest is the shortest run in which all there is to see happens.
const shortest = 15 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is main with an exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	opt, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	r, err := demo(ctx, opt, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	if len(r.wrong()) > 0 {
		return 1
	}
	return 0
}

// parse reads the command line. It has told the user about an error.
func parse(args []string, stderr io.Writer) (options, error) {
	opt := options{idleLimit: 3 * time.Second, leakThreshold: 2 * time.Second, progress: 3 * time.Second}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&opt.duration, "duration", 30*time.Second, "how long to run")
	flags.StringVar(&opt.dsn, "dsn", "", "run on a MySQL or MariaDB server: user:password@tcp(host:3306)/database;\n"+
		"tables named sqllease_demo_… are created in it, and dropped at the end")
	flags.StringVar(&opt.otlp, "otlp", "", "send the traces to a collector at `host:port`, by OTLP over gRPC")
	flags.BoolVar(&opt.serve, "serve", false, "keep running after the report until Ctrl-C, with metrics for Prometheus")
	flags.IntVar(&opt.port, "port", 0, "port of the HTTP service; 0 is any that is free")
	if err := flags.Parse(args); err != nil {
		return opt, err
	}
	if err := opt.check(flags.Args()); err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return opt, err
	}
	return opt, nil
}

func (opt options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("unexpected argument %q; -help lists the flags", rest[0])
	}
	if opt.duration < shortest {
		return fmt.Errorf("-duration is %v; sessions need %v to idle, expire and leak", opt.duration, shortest)
	}
	if opt.port < 0 || opt.port > 65535 {
		return fmt.Errorf("-port is %d; a port is at most 65535, and 0 is any that is free", opt.port)
	}
	if opt.otlp != "" {
		if _, _, err := net.SplitHostPort(opt.otlp); err != nil {
			return fmt.Errorf("-otlp is %q; write it as host:port, such as localhost:4317", opt.otlp)
		}
	}
	return nil
}

// demo runs it all and prints the report.
func demo(ctx context.Context, opt options, out io.Writer) (_ *report, err error) {
	d := &demonstration{opt: opt, out: out, journal: newJournal()}
	defer func() { err = errors.Join(err, d.stop()) }()
	if err := d.start(ctx); err != nil {
		return nil, err
	}
	return d.show(ctx)
}

// demonstration is a run of the demo.
type demonstration struct {
	opt     options
	out     io.Writer
	journal *journal
	leaks   leakBook

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
	return nil
}

// openPool opens the application's *sql.DB. This is all that sqllease asks of
// an application.
func (d *demonstration) openPool() (*sql.DB, error) {
	db, err := sqllease.Open("mysql", d.db.dsn, sqllease.Config{
		Name:           "shop",
		MaxOpen:        poolLimit,
		AcquireTimeout: 10 * time.Second,
		LeakThreshold:  d.opt.leakThreshold,
		OnLeak:         d.leaks.add,
		Logger:         slog.New(poolLog{d.journal}),
		TracerProvider: d.telemetry.traces,
		MeterProvider:  d.telemetry.metrics,
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
// -serve, one when the duration is over and one at Ctrl-C.
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
	d.follow(ctx, done)
	if d.opt.serve && ctx.Err() == nil {
		d.report(ctx).print(d.out)
		fmt.Fprintf(d.out, "\nThe load goes on until Ctrl-C. Metrics: %s/metrics\n", d.load.url)
	}
	<-done
	r := d.report(ctx)
	r.print(d.out)
	return r, nil
}

func (d *demonstration) printHead() {
	fmt.Fprintf(d.out, "sqllease demo: an HTTP service on database/sql, with %d sessions at most, for %v\n\n", poolLimit, d.opt.duration)
	fmt.Fprintf(d.out, "  database  %s\n", d.db.about)
	fmt.Fprintf(d.out, "  service   %s, metrics for Prometheus at /metrics\n", d.load.url)
	if d.opt.otlp != "" {
		fmt.Fprintf(d.out, "  traces    to %s, by OTLP over gRPC\n", d.opt.otlp)
	}
	fmt.Fprintf(d.out, "\n%s\n", progressHeader)
}

// follow prints how things stand every now and then, until the duration is
// over and, unless it goes on, the load is done.
func (d *demonstration) follow(ctx context.Context, done <-chan struct{}) {
	start := time.Now()
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
			at := time.Since(start).Round(time.Second)
			p, _ := phaseAt(d.load.phases, at)
			fmt.Fprintln(d.out, progressLine(at, p, d.load.counts(), d.pool.Stats(), d.leaks.count()))
		}
	}
}

// report collects what the run has shown so far.
func (d *demonstration) report(ctx context.Context) *report {
	r := &report{
		endpoints: d.telemetry.spans.snapshot(),
		stats:     d.pool.Stats(),
		counts:    d.load.counts(),
		leaks:     d.leaks.list(),
		logged:    d.journal.list(),
		whole:     ctx.Err() == nil || time.Since(d.load.start) > d.opt.duration,
		idleLimit: d.opt.idleLimit,
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
