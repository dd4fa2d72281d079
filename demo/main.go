// Command demo shows sqllease at work, with nothing to install: an HTTP
// service on database/sql, under load, on a MySQL-compatible server that runs
// in this process and cuts idle sessions after three seconds.
//
// It ends with a report of six things: a wait for a connection, told from the
// query; a leak; a request that holds a connection and waits for another; a slow
// call; a call that waits for a lock, and the line of code that has the lock; and
// connections closed before the server would have cut them. Its exit
// code is 0 if all of them were seen and nothing failed, 1 if not, and 2 if the
// command line cannot be meant. A run that was interrupted is judged by what it
// should have seen so far.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
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
	longCall      time.Duration // sqllease's SlowCallThreshold
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
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		fmt.Fprintln(stdout, "Interrupted before there was anything to see.")
		return 0
	}
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
	opt := options{idleLimit: 3 * time.Second, leakThreshold: 2 * time.Second, longCall: time.Second, progress: 3 * time.Second}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.DurationVar(&opt.duration, "duration", 30*time.Second, "how long to run")
	flags.StringVar(&opt.dsn, "dsn", "", "run on a MySQL or MariaDB server: user:password@tcp(host:3306)/database;\n"+
		"tables named sqllease_demo_… are created in it, and dropped at the end")
	flags.StringVar(&opt.otlp, "otlp", "", "send the traces to a collector at `host:port`, by OTLP over gRPC")
	flags.BoolVar(&opt.serve, "serve", false, "go on after the report, with metrics for Prometheus, until Ctrl-C")
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
		return fmt.Errorf("-duration is %v; all there is to see takes %v", opt.duration, shortest)
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
