// Package sqllease wraps a driver's connector for database/sql. It shows who waits for
// a connection and for how long, who holds one and from which line of code, and it closes
// each connection before the server does.
//
// It is a drop-in replacement. Where an application says
//
//	db, err := sql.Open("mysql", dsn)
//
// it says instead
//
//	db, err := sqllease.Open("mysql", dsn, sqllease.Config{})
//
// and goes on with its *sql.DB. It then has
//
//   - a report, with stack, of every connection that is checked out but unused for 30
//     seconds; of rows that nothing can close any more, at once; and of slow calls, which
//     are not leaks;
//   - spans and metrics in which the wait for a connection (the acquire: queue, dial,
//     reset) and the query are apart;
//   - errors of failed acquires that name who holds the connections;
//   - a report of goroutines that hold a connection and wait for another, and of the
//     deadlock that this leads to;
//   - connections that end before the server's wait_timeout (or PostgreSQL's
//     idle_session_timeout), which is discovered;
//   - a fair queue: first come, first served.
//
// # Words
//
// A lease is one checkout of one connection. A handle is the driver.Conn that
// database/sql sees; a session is the real connection under it. The gate admits leases:
// it has the limit, the ready sessions and the queue of waiters. An acquire begins when
// somebody asks for a connection and ends with a lease; the hold begins there and ends
// with the release.
//
// # How it works
//
// database/sql queues callers before it asks a driver for anything, so a wrapper sees the
// end of a wait and never its beginning. With sqllease, database/sql runs without a limit
// and never queues: a caller that finds no free connection goes straight into Connect, on
// its own goroutine and with its own context. The gate in Connect has the limit and the
// queue. SetMaxOpenConns keeps its meaning: the gate takes the number over.
// docs/architecture.md tells the story on a page, docs/internals.md in detail.
//
// # What an application can notice
//
// A zero Config changes nothing but this:
//
//   - Connections end before the server's limit, and the queue is in order.
//   - An acquire that ends by its context fails with an *[AcquireError], which unwraps to
//     the context's error.
//   - While callers wait, sql.DBStats.InUse counts them and WaitCount stays 0.
//     [Connector.Stats] and [Connector.DBStats] have the true figures.
//     MaxOpenConnections is 100003, a limit that database/sql does not reach.
//   - SetConnMaxLifetime starts again when a connection goes to a waiting caller. Use
//     [Config.MaxLifetime].
//   - A type assertion on the connection in sql.Conn.Raw fails, as with every wrapper. Use
//     [Unwrap].
//   - A connection in which the driver panicked is closed. database/sql would keep it, or
//     lose its place.
//
// # What it costs
//
// While nobody waits, an exec takes about half a microsecond more, and without an SDK of
// OpenTelemetry no allocation; a query takes one. An idle pool runs no goroutine.
// docs/performance.md has the figures, beside other wrappers.
//
// # Under the hood
//
// The package does not import unsafe. On amd64 and arm64, assembly walks the frame
// pointers of the caller's own stack, and reads the caller's goroutine number from the
// runtime's record; both are checked in each process before they are used. The build tag
// sqllease_no_assembly leaves both out: acquires then take about a microsecond longer, and
// deadlocks are not detected. Reflection reads the connector in a *sql.DB
// ([ConnectorOf]), and host, port and database in the connectors of known drivers.
//
// # What it does not do
//
//   - It does not cut a connection that is in use, whatever its age.
//   - It does not retry after a driver's "invalid connection": the statement may have run.
//   - It does not see a transaction that begins with a statement ("BEGIN") instead of
//     BeginTx, nor time that a driver spends outside the calls that database/sql makes.
//   - It asks nothing of a server whose driver it does not know; see [Config.Dialect].
package sqllease
