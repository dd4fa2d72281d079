package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	engine "github.com/dolthub/go-mysql-server"
	"github.com/dolthub/go-mysql-server/memory"
	"github.com/dolthub/go-mysql-server/server"
	enginesql "github.com/dolthub/go-mysql-server/sql"
	"github.com/go-sql-driver/mysql"
)

// This file is the database: embedded and in memory, or the one that -dsn
// names; and the tables in it.

// database is the server that the demo runs against.
type database struct {
	dsn   string
	about string       // what it is, for people
	cuts  func() int64 // sessions it cut at its idle limit; nil: it cannot be seen from here
	close func() error // ends an embedded server
}

// openDatabase starts the embedded server, or takes the one that dsn names.
// Either closes a session that is idle for longer than idleLimit.
func openDatabase(ctx context.Context, dsn string, idleLimit time.Duration) (*database, error) {
	if dsn == "" {
		return startEmbedded(idleLimit)
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("-dsn: %w; write it as user:password@tcp(host:3306)/database", err)
	}
	if cfg.DBName == "" {
		return nil, errors.New("-dsn names no database; write it as user:password@tcp(host:3306)/database")
	}
	if cfg.Params["wait_timeout"] == "" {
		setParam(cfg, "wait_timeout", fmt.Sprint(int(idleLimit.Seconds())))
	}
	d := &database{
		dsn:   cfg.FormatDSN(),
		about: fmt.Sprintf("%s at %s; its sessions set wait_timeout to %s s", cfg.DBName, cfg.Addr, cfg.Params["wait_timeout"]),
		close: func() error { return nil },
	}
	if err := d.script(func(db *sql.DB) error { return db.PingContext(ctx) }); err != nil {
		return nil, fmt.Errorf("no connection to the database %s at %s: %w", cfg.DBName, cfg.Addr, err)
	}
	return d, nil
}

// setParam adds a system variable to the ones that each session sets.
func setParam(cfg *mysql.Config, name, value string) {
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params[name] = value
}

// startEmbedded starts go-mysql-server in this process, on a free port. Its
// tables live in memory. It has no isolation: of two transactions that change
// one table at the same time, the later commit wins. That is good enough to
// watch connections, and no way to keep books. Its calls wait for no locks but those
// of GET_LOCK.
func startEmbedded(idleLimit time.Duration) (*database, error) {
	shop := memory.NewDatabase("shop")
	shop.EnablePrimaryKeyIndexes()
	locks := newPerformanceSchema()
	provider := memory.NewDBProvider(shop, locks)
	eng := engine.NewDefault(provider)
	if err := locks.attach(eng); err != nil {
		return nil, fmt.Errorf("embedded server: switch performance_schema on: %w", err)
	}

	ctx := enginesql.NewContext(context.Background())
	seconds := int64(idleLimit.Seconds())
	if err := enginesql.SystemVariables.SetGlobal(ctx, "wait_timeout", seconds); err != nil {
		return nil, fmt.Errorf("embedded server: set wait_timeout to %d: %w", seconds, err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", err)
	}
	watch := &watchedListener{Listener: tcp, open: map[net.Conn]bool{}}
	srv, err := server.NewServer(server.Config{
		Listener:        watch,
		ConnReadTimeout: idleLimit,
	}, eng, enginesql.NewContext, memory.NewSessionBuilder(provider), nil)
	if err != nil {
		return nil, fmt.Errorf("embedded server: %w", errors.Join(err, tcp.Close()))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Listener.Accept()
	}()

	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", tcp.Addr().String(), "shop"
	return &database{
		dsn:   cfg.FormatDSN(),
		about: fmt.Sprintf("go-mysql-server, embedded, at %s; cuts a session that is idle for %v", cfg.Addr, idleLimit),
		cuts:  watch.cuts.Load,
		close: func() error {
			err := srv.Close()
			<-done
			watch.closeAll()
			if engineErr := eng.Close(); !errors.Is(engineErr, context.Canceled) { // so it says that it was closed
				err = errors.Join(err, engineErr)
			}
			return err
		},
	}, nil
}

// watchedListener sees, from the server's side, which connections the server
// cuts because they were idle for too long.
type watchedListener struct {
	net.Listener
	cuts atomic.Int64

	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu
}

func (l *watchedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[c] = true
	return &watchedConn{Conn: c, listener: l}, nil
}

// closeAll closes the connections that their clients left open.
func (l *watchedListener) closeAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.Close() // it may be closed already
	}
}

type watchedConn struct {
	net.Conn
	listener *watchedListener
}

// Read is where the server waits for the next command, under a deadline.
func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.listener.cuts.Add(1)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.Conn)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// What is in the shop.
const (
	products  = 200
	customers = 20
	disputed  = 3         // the last customers; each has an order that is in dispute
	seeded    = 50        // orders of each customer
	fullStock = 1_000_000 // of each product
)

var createTables = []string{
	`CREATE TABLE sqllease_demo_products (
		id INT PRIMARY KEY, name VARCHAR(80) NOT NULL, price DECIMAL(10,2) NOT NULL, stock INT NOT NULL)`,
	`CREATE TABLE sqllease_demo_orders (
		id BIGINT PRIMARY KEY AUTO_INCREMENT, customer INT NOT NULL, product INT NOT NULL,
		total DECIMAL(10,2) NOT NULL, status VARCHAR(20) NOT NULL)`,
}

var dropTables = []string{
	`DROP TABLE IF EXISTS sqllease_demo_orders`,
	`DROP TABLE IF EXISTS sqllease_demo_products`,
}

// fill creates the tables and what is in them from the start, on a connection
// of its own.
func (d *database) fill(ctx context.Context) error {
	return d.script(func(db *sql.DB) error {
		if err := execAll(ctx, db, append(dropTables, createTables...)); err != nil {
			return fmt.Errorf("create the tables: %w", err)
		}
		_, err := db.ExecContext(ctx, "INSERT INTO sqllease_demo_products VALUES "+productRows())
		if err != nil {
			return fmt.Errorf("fill sqllease_demo_products: %w", err)
		}
		_, err = db.ExecContext(ctx, "INSERT INTO sqllease_demo_orders (customer, product, total, status) VALUES "+orderRows())
		if err != nil {
			return fmt.Errorf("fill sqllease_demo_orders: %w", err)
		}
		return nil
	})
}

func productRows() string {
	var rows []string
	for id := range products {
		rows = append(rows, fmt.Sprintf("(%d, 'Product %d', %d.%02d, %d)", 1+id, 1+id, 5+id, id%100, fullStock))
	}
	return strings.Join(rows, ", ")
}

func orderRows() string {
	var rows []string
	for i := range customers * seeded {
		customer, nth := 1+i%customers, i/customers
		status := "paid"
		if customer > customers-disputed && nth == seeded/2 {
			status = "disputed"
		}
		rows = append(rows, fmt.Sprintf("(%d, %d, 19.90, '%s')", customer, 1+i%products, status))
	}
	return strings.Join(rows, ", ")
}

// empty drops the tables again.
func (d *database) empty(ctx context.Context) error {
	return d.script(func(db *sql.DB) error {
		if err := execAll(ctx, db, dropTables); err != nil {
			return fmt.Errorf("drop the tables sqllease_demo_orders and sqllease_demo_products: %w", err)
		}
		return nil
	})
}

// script runs work on a pool of its own, so that it is in no figure.
func (d *database) script(work func(*sql.DB) error) error {
	db, err := sql.Open("mysql", d.dsn)
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1)
	return errors.Join(work(db), db.Close())
}

func execAll(ctx context.Context, db *sql.DB, statements []string) error {
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}
