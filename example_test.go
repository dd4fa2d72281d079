//nolint:errcheck // examples leave what is deferred unchecked, as applications do
package sqllease_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease"
)

// exampleDriver is a driver of a server that has one table. The examples open
// it by the name of a driver of PostgreSQL, so that they run without a server.
type exampleDriver struct{}

func init() { sql.Register("pgx", exampleDriver{}) }

func (exampleDriver) Open(string) (driver.Conn, error) { return &exampleConn{}, nil }

// exampleConn is a connection of exampleDriver.
type exampleConn struct{}

func (c *exampleConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *exampleConn) Begin() (driver.Tx, error)           { return exampleTx{}, nil }
func (c *exampleConn) Close() error                        { return nil }

// BackendPID is the server's number for the connection.
func (c *exampleConn) BackendPID() int { return 4711 }

func (c *exampleConn) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return &exampleRows{values: []string{"apple", "pear"}}, nil
}

func (c *exampleConn) ExecContext(context.Context, string, []driver.NamedValue) (driver.Result, error) {
	return driver.RowsAffected(1), nil
}

type exampleTx struct{}

func (exampleTx) Commit() error   { return nil }
func (exampleTx) Rollback() error { return nil }

type exampleRows struct{ values []string }

func (r *exampleRows) Columns() []string { return []string{"name"} }
func (r *exampleRows) Close() error      { return nil }
func (r *exampleRows) Next(dest []driver.Value) error {
	if len(r.values) == 0 {
		return io.EOF
	}
	dest[0], r.values = r.values[0], r.values[1:]
	return nil
}

// An application opens its database through sqllease, and goes on with its
// *sql.DB as before. A connection that cannot be had in time says who has them.
func Example() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		Name:           "shop",
		MaxOpen:        10,
		AcquireTimeout: 2 * time.Second,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := context.Background()
	rows, err := db.QueryContext(ctx, "SELECT name FROM fruit WHERE price < $1", 5)
	if acquire := (*sqllease.AcquireError)(nil); errors.As(err, &acquire) {
		log.Fatalf("the pool is exhausted: %v", acquire)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			log.Fatal(err)
		}
		fmt.Println(name)
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// apple
	// pear
}

// Open takes the place of sql.Open. With the zero Config, the limit that the
// application sets itself is taken over.
func ExampleOpen() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(20)

	var name string
	if err := db.QueryRow("SELECT name FROM fruit LIMIT 1").Scan(&name); err != nil {
		log.Fatal(err)
	}
	fmt.Println(name)
	// Output: apple
}

// OpenDB takes the place of sql.OpenDB, where an application makes its
// driver's connector itself.
func ExampleOpenDB() {
	cfg := mysql.NewConfig()
	cfg.Net, cfg.Addr = "tcp", "db:3306"
	cfg.User, cfg.DBName = "shop", "shop"
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		log.Fatal(err)
	}

	db, err := sqllease.OpenDB(connector, sqllease.Config{
		Name:    "shop",
		MaxOpen: 20,
		MinIdle: 2,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	fmt.Printf("%T\n", db.Driver()) // the driver's own
	// Output: *mysql.MySQLDriver
}

// Wrap is for code that wants the connector itself, such as a library that
// calls sql.OpenDB. Attach lets the gate take over what is set on the *sql.DB.
func ExampleWrap() {
	inner, err := mysql.NewConnector(mysql.NewConfig())
	if err != nil {
		log.Fatal(err)
	}
	connector, err := sqllease.Wrap(inner, sqllease.Config{Name: "shop", MaxOpen: 20})
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	connector.Attach(db)

	fmt.Println(connector.Stats().Limit)
	// Output: 20
}

// A Config that cannot be meant is refused, with what to write instead.
func ExampleWrap_refused() {
	inner, err := mysql.NewConnector(mysql.NewConfig())
	if err != nil {
		log.Fatal(err)
	}
	_, err = sqllease.Wrap(inner, sqllease.Config{MaxOpen: 5, MinIdle: 10})
	fmt.Println(err)
	// Output: sqllease: MinIdle is 10: it is above MaxOpen, which is 5; lower it or raise MaxOpen
}

// Register is for code that insists on sql.Open with the name of a driver,
// such as a migration tool that is told the name in its settings.
func ExampleRegister() {
	if err := sqllease.Register("mysql-leased", &mysql.MySQLDriver{}, sqllease.Config{MaxOpen: 20}); err != nil {
		log.Fatal(err)
	}

	db, err := sql.Open("mysql-leased", "shop@tcp(db:3306)/shop")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if c, ok := sqllease.ConnectorOf(db); ok {
		c.Attach(db)
		fmt.Println(c.Stats().Limit)
	}
	// Output: 20
}

// ConnectorOf finds the Connector behind a *sql.DB, here to see who has a
// connection at this moment.
func ExampleConnectorOf() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	tx, err := db.Begin()
	if err != nil {
		log.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("UPDATE fruit SET price = 3 WHERE name = 'apple'"); err != nil {
		log.Fatal(err)
	}

	c, ok := sqllease.ConnectorOf(db)
	if !ok {
		log.Fatal("the database was not opened through sqllease")
	}
	for _, lease := range c.Leases() {
		fmt.Println(lease.InTx, lease.Statement)
		// lease.Hold is since when, and lease.Stack.Site() where it was taken
	}
	// Output: true UPDATE fruit SET price = ? WHERE name = ?
}

// In sql.Conn.Raw, Unwrap takes the place of the type assertion on the
// driver's connection: to its type, or to an interface that it has.
func ExampleUnwrap() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	err = conn.Raw(func(driverConn any) error {
		backend, ok := sqllease.Unwrap[interface{ BackendPID() int }](driverConn)
		if !ok {
			return errors.New("the driver does not tell its backend's PID")
		}
		fmt.Println(backend.BackendPID())
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: 4711
}

// Every field of a Config has a zero value that is useful. OnLeak is called
// with each report; the logger has it already.
func ExampleConfig() {
	reports := make(chan sqllease.Leak, 1)
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		Name:             "shop",
		MaxOpen:          20,
		AcquireTimeout:   2 * time.Second,
		MaxLifetime:      time.Hour,
		NetworkIdleLimit: 5 * time.Minute,       // that of the load balancer
		LeakThreshold:    10 * time.Millisecond, // for this example; 30 s unless told otherwise
		Logger:           slog.New(slog.DiscardHandler),
		OnLeak: func(l sqllease.Leak) {
			if !l.Returned {
				reports <- l
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	rows, err := db.Query("SELECT name FROM fruit")
	if err != nil {
		log.Fatal(err)
	}
	leak := <-reports // nobody closes the rows
	fmt.Println(leak.Pool, leak.Class, leak.OpenRows, leak.Statement)
	rows.Close()
	// Output: shop unused 1 SELECT name FROM fruit
}

// A report says what is held, since when, by which line, and what to do about
// it. The log has it without further ado; this is what Config.OnLeak gets.
func ExampleLeak() {
	reports := make(chan sqllease.Leak, 1)
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		Name:          "shop",
		LeakThreshold: 10 * time.Millisecond, // for this example
		Logger:        slog.New(slog.DiscardHandler),
		OnLeak: func(l sqllease.Leak) {
			if !l.Returned {
				reports <- l
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	tx, err := db.Begin()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tx.Exec("UPDATE fruit SET name = 'pear' WHERE name = 'apple'"); err != nil {
		log.Fatal(err)
	}
	leak := <-reports // nobody ends the transaction
	for line := range strings.Lines(leak.String()) {
		if s := strings.TrimSpace(line); strings.HasPrefix(s, "sqllease:") || strings.HasPrefix(s, "statement") || strings.HasPrefix(s, "fix") {
			fmt.Println(s)
		}
	}
	_, function, _ := strings.Cut(leak.Stack.Site(), " ") // after file and line
	fmt.Println("taken by  ", function)
	tx.Rollback()
	// Output:
	// sqllease: pool "shop": leaked connection: checked out but unused for longer than 10ms (lease 1)
	// statement  UPDATE fruit SET name = ? WHERE name = ?
	// fix        end the *sql.Tx on every path: defer tx.Rollback() right after BeginTx; if your code does that already, move slow work, such as an HTTP call, out of the transaction
	// taken by   sqllease_test.ExampleLeak
}

// A lock that a connection holds on purpose, as those of migration tools, is no
// leak.
func ExampleWithHoldLimit() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{LeakThreshold: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := sqllease.WithHoldLimit(context.Background(), 0) // never reported
	conn, err := db.Conn(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.ExecContext(ctx, "SELECT pg_advisory_lock(42)")
	fmt.Println(err)
	// Output: <nil>
}

// Stats has the true figures of a pool. Those of sql.DBStats count callers
// that wait as in use.
func ExampleConnector_Stats() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{Name: "shop", MaxOpen: 20})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	c, _ := sqllease.ConnectorOf(db)
	s := c.Stats()
	fmt.Printf("%s: %d of %d in use, %d idle, %d waiting\n", s.Name, s.InUse, s.Limit, s.Idle, s.Waiting)
	// Output: shop: 1 of 20 in use, 0 idle, 0 waiting
}

// The limit that a pool should have, from a recording of its load.
func ExampleConnector_Advise() {
	db, err := sqllease.Open("pgx", "", sqllease.Config{Name: "orders", MaxOpen: 10, Discovery: sqllease.NoDiscovery})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	connector, _ := sqllease.ConnectorOf(db)
	connector.Record(10_000)

	db.Exec("UPDATE fruit SET name = 'pear'") // in a service: a busy hour

	fmt.Println(connector.Advise(sqllease.Goal{Wait: 10 * time.Millisecond}))
	// Output: pool "orders": the limit is not the problem: 99 % of the callers got a connection at once, and the goal is 10ms. Which limit it needs cannot be said: the recording has only 1 acquire. Let it record some thousands.
}
