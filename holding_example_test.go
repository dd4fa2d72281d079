//go:build gc && (amd64 || arm64) && !sqllease_no_assembly

// Elsewhere goroutines are not told apart.

//nolint:errcheck // examples leave what is deferred unchecked, as applications do
package sqllease_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
)

// transfer is to do both statements in one transaction. The second one runs outside of it.
func transfer(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, "UPDATE fruit SET stock = stock - 1"); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, "INSERT INTO sold VALUES ('apple')"); err != nil { // tx was meant
		return err
	}
	return tx.Commit()
}

// A test with one connection finds each place in the code that needs two at once. With more
// connections, such code works until as many callers come as there are connections.
func Example_testsWithOneConnection() {
	told := make(chan sqllease.Standstill, 2)
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		MaxOpen:           1,
		FailDeadlockAfter: time.Second,
		Logger:            slog.New(slog.DiscardHandler),
		OnStandstill:      func(s sqllease.Standstill) { told <- s },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	err = transfer(context.Background(), db)
	fmt.Println("deadlock:", errors.Is(err, sqllease.ErrDeadlock))
	s := <-told
	fmt.Println("taken by", function(s.Held[0].Stack), "-", s.Held[0].Relation, "waits at", function(s.Held[0].WaitsAt))
	// Output:
	// deadlock: true
	// taken by sqllease_test.transfer - the same goroutine waits at sqllease_test.transfer
}

// function is the function of the application that a stack leads to.
func function(s sqllease.Stack) string {
	_, name, _ := strings.Cut(s.Site(), " ")     // after file and line
	name, _, inner := strings.Cut(name, ".func") // of a function in it, which has a number
	if inner {
		name = "a function in " + name
	}
	return name
}

// inTrace is the context of a request that is traced.
func inTrace(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{byte(requests.Add(1))}, SpanID: trace.SpanID{1},
	}))
}

var requests atomic.Int32

// rights asks for the roles of a user, and, while it reads them, on other goroutines for what
// each of them may do.
func rights(ctx context.Context, db *sql.DB, busy *sync.WaitGroup) error {
	roles, err := db.QueryContext(ctx, "SELECT role FROM roles WHERE user = 'ann'")
	if err != nil {
		return err
	}
	defer roles.Close()
	busy.Done() // for this example: as many requests come at once as there are connections
	busy.Wait()
	for roles.Next() {
		var both sync.WaitGroup
		both.Go(func() { db.ExecContext(ctx, "SELECT may FROM rights WHERE role = ?", "editor") })
		both.Go(func() { db.ExecContext(ctx, "SELECT who FROM groups WHERE role = ?", "editor") })
		both.Wait()
	}
	return roles.Err()
}

// A request that reads rows, and has other goroutines query meanwhile, stands still if as many
// do so as there are connections. One report tells how those who hold the connections and
// those who wait belong together.
func ExampleStandstill() {
	told := make(chan sqllease.Standstill, 2)
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		MaxOpen:             2,
		StandstillThreshold: time.Second, // for this example
		Logger:              slog.New(slog.DiscardHandler),
		OnStandstill:        func(s sqllease.Standstill) { told <- s },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx, cancel := context.WithCancel(context.Background())
	var all, busy sync.WaitGroup
	busy.Add(2)
	for range 2 {
		all.Go(func() { rights(inTrace(ctx), db, &busy) })
	}
	s := <-told
	fmt.Println(s.InUse, "of", s.Limit, "connections are checked out, and", s.Waiting, "callers wait; deadlock:", s.Deadlock)
	fmt.Println("taken by", function(s.Held[0].Stack), "-", s.Held[0].Relation, "waits at", function(s.Held[0].WaitsAt))
	advice, _, _ := strings.Cut(s.Fix(), ";")
	fmt.Println(advice)
	cancel()
	all.Wait()
	// Output:
	// 2 of 2 connections are checked out, and 4 callers wait; deadlock: false
	// taken by sqllease_test.rights - the same trace waits at a function in sqllease_test.rights
	// close the open rows first: call rows.Close() before the inner statement (a defer is too late), or read them to their end
}
