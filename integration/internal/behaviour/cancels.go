package behaviour

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// cancels are about contexts that end.
var cancels = []Behaviour{
	{"a context that has ended", endedContext},
	{"a query cancelled in flight", func(r *Run) { inFlight(r, query) }},
	{"a prepared query cancelled in flight", func(r *Run) { inFlight(r, preparedQuery) }},
	{"a query cancelled in flight in a transaction", func(r *Run) { inFlight(r, txQuery) }},
	{"a query past its deadline", deadline},
	{"rows whose context ends", rowsCancelled},
	{"a wait for a connection that is cancelled", waitCancelled},
}

func endedContext(r *Run) {
	r.OK(r.DB.PingContext(r.Context()))
	stmt, err := r.DB.PrepareContext(r.Context(), "SELECT 1")
	r.OK(err)
	ctx, cancel := context.WithCancel(r.Context())
	cancel()
	_, err = r.DB.Conn(ctx)
	r.FailsAs(context.Canceled, "conn", err)
	_, err = r.DB.BeginTx(ctx, nil)
	r.FailsAs(context.Canceled, "begin", err)
	_, err = stmt.ExecContext(ctx)
	r.FailsAs(context.Canceled, "exec of a statement", err)
	r.FailsAs(context.Canceled, "ping", r.DB.PingContext(ctx))
	_, err = r.DB.ExecContext(ctx, "SELECT 1")
	r.FailsAs(context.Canceled, "exec", err)
	r.FailsAs(context.Canceled, "query", r.DB.QueryRowContext(ctx, "SELECT 1").Scan(new(int)))
	// What a connection that is held does with such a context is chance with
	// lib/pq, which asks the server for a cancel and sends the statement.
	r.OK(stmt.Close())
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

// query, preparedQuery and txQuery are ways of asking what takes long.
func query(ctx context.Context, r *Run) error {
	return r.DB.QueryRowContext(ctx, r.SQL.Slow).Scan(new(any))
}

func preparedQuery(ctx context.Context, r *Run) error {
	stmt, err := r.DB.PrepareContext(r.Context(), r.SQL.Slow)
	r.OK(err)
	defer func() { _ = stmt.Close() }()
	return stmt.QueryRowContext(ctx).Scan(new(any))
}

func txQuery(ctx context.Context, r *Run) error {
	tx, err := r.DB.BeginTx(context.WithoutCancel(r.Context()), nil)
	r.OK(err)
	err = tx.QueryRowContext(ctx, r.SQL.Slow).Scan(new(any))
	r.Ended("rollback", tx.Rollback())
	return err
}

func inFlight(r *Run, ask func(context.Context, *Run) error) {
	r.OK(r.DB.PingContext(r.Context()))
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- ask(ctx, r) }()
	r.Driver.Await(r)
	cancel()
	r.Cancelled(context.Canceled, "a query cancelled in flight", <-answer)
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

func deadline(r *Run) {
	r.OK(r.DB.PingContext(r.Context()))
	ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
	defer cancel()
	r.Cancelled(context.DeadlineExceeded, "a query past its deadline", r.DB.QueryRowContext(ctx, r.SQL.Slow).Scan(new(any)))
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

func rowsCancelled(r *Run) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rows, err := r.DB.QueryContext(ctx, fmt.Sprintf(r.SQL.Series, 1_000_000))
	r.OK(err)
	defer func() { _ = rows.Close() }()
	for range 10 {
		r.Is("next", true, rows.Next())
	}
	cancel()
	soon(r, func() bool { return rows.Err() != nil }, "the rows know nothing of the end of their context")
	r.FailsAs(context.Canceled, "rows", rows.Err())
	r.Is("next afterwards", false, rows.Next())
	r.OK(rows.Close())
	soon(r, func() bool { return r.DB.Stats().InUse == 0 }, "a connection is still in use")
	r.Is("the database afterwards", 4, One[int](r, r.DB, "SELECT 4"))
}

func waitCancelled(r *Run) {
	for range Limit {
		_ = r.Conn()
	}
	ctx, cancel := context.WithTimeout(r.Context(), 20*time.Millisecond)
	defer cancel()
	err := r.DB.PingContext(ctx)
	// Its text is not compared: through sqllease it names the holders.
	r.Is("it is the context's error", true, errors.Is(err, context.DeadlineExceeded))
}
