package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease"
)

const (
	connections = 8
	callers     = 16
	deadline    = time.Second // of a call
)

// app is an application that works.
type app struct {
	db    *sql.DB
	pool  *sqllease.Connector
	stmts []*sql.Stmt

	calls, failed, wrong atomic.Int64
	longest              atomic.Int64
}

// open opens its pool, and prepares statements for all of its life.
func open(addr string) (*app, error) {
	// A commit does not end with its context: readTimeout ends it where a network is silent.
	db, err := sqllease.Open("mysql", "soak@tcp("+addr+")/soak?readTimeout=3s", sqllease.Config{
		MaxOpen: connections, LeakThreshold: time.Minute, MaxLifetime: 20 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	a := &app{db: db}
	a.pool, _ = sqllease.ConnectorOf(db)
	for _, q := range []string{"SELECT ? + 0", "SELECT 2 * ?"} {
		stmt, err := db.Prepare(q)
		if err != nil {
			return nil, err
		}
		a.stmts = append(a.stmts, stmt)
	}
	return a, nil
}

// work has callers call until it is stopped.
func (a *app) work() (stop func()) {
	end := make(chan struct{})
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				pause := 2 * time.Millisecond
				if a.call() != nil {
					pause = 20 * time.Millisecond
				}
				select {
				case <-end:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	return func() { close(end); all.Wait() }
}

var errWrong = errors.New("an answer is another caller's")

// call does one of the things that applications do.
func (a *app) call() error {
	in := deadline
	if rand.N(50) == 0 {
		in = rand.N(5 * time.Millisecond) // some callers go
	}
	ctx, cancel := context.WithTimeout(context.Background(), in)
	defer cancel()
	start := time.Now()
	err := []func(context.Context) error{a.query, a.prepared, a.preparedOnce, a.write, a.several}[rand.N(5)](ctx)
	for took := int64(time.Since(start)); ; {
		longest := a.longest.Load()
		if took <= longest || a.longest.CompareAndSwap(longest, took) {
			break
		}
	}
	a.calls.Add(1)
	if err != nil {
		a.failed.Add(1)
	}
	if errors.Is(err, errWrong) {
		a.wrong.Add(1)
	}
	return err
}

func (a *app) query(ctx context.Context) error {
	return same(func(n int, got *int) error { return a.db.QueryRowContext(ctx, "SELECT ? + 0", n).Scan(got) })
}

func (a *app) prepared(ctx context.Context) error {
	return same(func(n int, got *int) error {
		err := a.stmts[n%2].QueryRowContext(ctx, n).Scan(got)
		*got /= 1 + n%2
		return err
	})
}

func (a *app) preparedOnce(ctx context.Context) error {
	stmt, err := a.db.PrepareContext(ctx, "SELECT ? + 0")
	if err != nil {
		return err
	}
	defer func() { _ = stmt.Close() }()
	return same(func(n int, got *int) error { return stmt.QueryRowContext(ctx, n).Scan(got) })
}

func (a *app) write(ctx context.Context) error {
	tx, err := a.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, "REPLACE INTO written VALUES (?, ?)", rand.N(100), 1); err != nil {
		return err
	}
	return tx.Commit()
}

// several reads rows, and does not always read all of them.
func (a *app) several(ctx context.Context) error {
	rows, err := a.db.QueryContext(ctx, "SELECT seq FROM seq_1_to_50")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for n, enough := 1, rand.N(100); rows.Next() && n < enough; n++ {
		var got int
		if err := rows.Scan(&got); err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%w: %d, not %d", errWrong, got, n)
		}
	}
	return rows.Err()
}

// same asks for a number, and looks whether it is the one that comes.
func same(ask func(n int, got *int) error) error {
	n, got := rand.N(1_000_000), -1
	if err := ask(n, &got); err != nil {
		return err
	}
	if got != n {
		return fmt.Errorf("%w: %d, not %d", errWrong, got, n)
	}
	return nil
}
