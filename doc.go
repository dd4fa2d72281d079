// Package sqllease wraps a driver's connector for database/sql, so that every
// connection is accounted for: who waited how long for it, who holds it since
// when and from where, and what the server will do to it.
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
//   - spans and metrics in which the wait for a connection (the acquire: queue,
//     dial, reset) and the query are apart;
//   - a report, with stack, of every lease that is idle in hand for 30 seconds:
//     a connection that nobody gives back; of rows that nobody can close any
//     more, at once; and of calls that take minutes;
//   - a report of requests that hold a connection and wait for another, and of
//     the deadlock that these come to;
//   - sessions that end before the server's wait_timeout (or PostgreSQL's
//     idle_session_timeout), which is discovered on each session;
//   - a fair queue: first come, first served.
//
// # Words
//
// A lease is one checkout of one connection. A handle is the driver.Conn that
// database/sql sees; a session is the real connection under it. The gate
// admits leases: it has the limit, the ready sessions and the queue of waiters.
// An acquire goes from asking for a connection to holding a lease; the hold
// goes from there to the release.
//
// # How it works
//
// database/sql queues callers before a driver hears of them, so that a wrapper
// sees the end of a wait and never its beginning. Here database/sql runs
// without a limit, and never queues: a caller that finds no free connection
// goes straight into Connect, on its own goroutine and with its own context,
// and the gate in Connect has the limit and the queue. SetMaxOpenConns keeps
// its meaning: the gate takes the number over. docs/architecture.md has the
// story on a page, docs/internals.md in detail.
//
// # What an application can notice
//
// A zero Config changes nothing but this:
//
//   - Sessions end before the server's limit, and the queue is in order.
//   - An acquire that ends by its context fails with an *[AcquireError], which
//     unwraps to the context's error.
//   - While callers wait, sql.DBStats.InUse counts them and WaitCount stays 0.
//     [Connector.Stats] and [Connector.DBStats] have the true figures. MaxOpenConnections is 100003, a
//     limit that database/sql does not reach.
//   - SetConnMaxLifetime restarts its clock when a session is handed over to a
//     waiter. Use [Config.MaxLifetime].
//   - A type assertion on the connection in sql.Conn.Raw fails, as with every
//     wrapper. Use [Unwrap].
//   - A connection in which the driver panicked is closed, where database/sql
//     would keep it or lose its place.
//
// # What it costs
//
// While nobody waits, a call takes about half a microsecond more, and without an
// SDK of OpenTelemetry no allocation for an exec and one for a query. An idle pool
// runs no goroutine. docs/performance.md has the figures, beside other wrappers.
//
// # What it does not do
//
//   - It does not cut a lease that is in use, whatever its age.
//   - It does not turn a driver's "invalid connection" into a retry: the
//     statement may have run.
//   - It does not see a transaction begun by a statement ("BEGIN") rather than
//     by BeginTx, nor time that a driver spends outside the calls that
//     database/sql makes.
//   - It asks nothing of a server whose driver it does not know; see
//     [Config.Dialect].
package sqllease
