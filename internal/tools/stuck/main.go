// Command stuck brings about the deadlock that Go 1.27.0 has in database/sql
// (https://github.com/golang/go/issues/81043), and looks whether the report of sqllease names it.
// scripts/stuck.sh runs it
package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

const (
	stuckVersion = "go1.27.0"
	patience     = 2 * time.Minute // it takes some seconds; a busy machine may need more
	rowsEach     = 1_000_000
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stuck:", err)
		os.Exit(1)
	}
}

func run() error {
	if v := runtime.Version(); v != stuckVersion {
		return fmt.Errorf("this is %s, and only %s gets stuck", v, stuckVersion)
	}
	reports := make(chan sqllease.Leak, 1)
	db, err := sqllease.OpenDB(connector{}, sqllease.Config{
		Name: "stuck", LeakThreshold: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
		OnLeak: func(l sqllease.Leak) {
			select {
			case reports <- l:
			default:
			}
		},
	})
	if err != nil {
		return err
	}
	for range 2 * runtime.GOMAXPROCS(0) {
		go func() {
			for {
				read(db)
			}
		}()
	}
	select {
	case l := <-reports: // the process ends with what is stuck
		return check(l)
	case <-time.After(patience):
		return errors.New("nothing got stuck")
	}
}

// read reads rows that another goroutine closes meanwhile, as database/sql does when a context ends.
func read(db *sql.DB) {
	rows, err := db.Query("SELECT n FROM t")
	if err != nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = rows.Close()
	}()
	for rows.Next() {
		_, _ = rows.Columns()
	}
	_ = rows.Err() // they were closed, or came to their end
	<-closed
}

// check looks whether the report says what it is.
func check(l sqllease.Leak) error {
	report := l.String()
	fmt.Println(report)
	for _, says := range []string{"closingMutex", "with rows open", "stuck/main.go", "build it with Go 1.27.1"} {
		if !strings.Contains(report, says) {
			return fmt.Errorf("the report does not say %q", says)
		}
	}
	return nil
}

// connector is a driver in this process whose rows come at once.
type connector struct{}

func (c connector) Connect(context.Context) (driver.Conn, error) { return conn{}, nil }
func (c connector) Driver() driver.Driver                        { return c }
func (c connector) Open(string) (driver.Conn, error)             { return conn{}, nil }

type conn struct{}

func (conn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (conn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (conn) Close() error                        { return nil }
func (conn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &rows{}, nil
}

type rows struct{ read int }

func (r *rows) Columns() []string { return []string{"n"} }
func (r *rows) Close() error      { return nil }
func (r *rows) Next([]driver.Value) error {
	if r.read++; r.read > rowsEach {
		return io.EOF
	}
	return nil
}
