package sqllease

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
)

// DefaultLeakThreshold is the [Config.LeakThreshold] of a Config that sets none.
const DefaultLeakThreshold = 30 * time.Second

// DefaultSlowAcquireThreshold is the [Config.SlowAcquireThreshold] of a Config
// that sets neither it nor a short [Config.AcquireTimeout].
const DefaultSlowAcquireThreshold = 5 * time.Second

// Config says how a [Connector] behaves. The zero value is useful: it sets no
// limit of its own, discovers the server's idle limit, reports connections that
// are checked out but unused for 30 seconds, and sends telemetry to the global
// OpenTelemetry providers. Most applications set MaxOpen, AcquireTimeout and
// QueueTarget, and leave the rest. docs/config.md says of each setting when to change it.
//
// A Config is checked once, by [Wrap], and copied: changing it afterwards has no
// effect.
type Config struct {
	// The pool.

	// Name names the pool in telemetry, logs and errors (the attribute
	// db.client.connection.pool.name). Empty: a name is made from the driver's,
	// with a number if a process has several pools.
	Name string

	// MaxOpen is how many connections may exist at once: checked out, idle, or being
	// dialed. [Open] and [OpenDB] then also keep up to MaxOpen idle connections, where
	// database/sql alone keeps 2; call SetMaxIdleConns on the *sql.DB to keep fewer.
	// Zero: no limit, until the application calls SetMaxOpenConns on the *sql.DB.
	MaxOpen int

	// MinIdle is how many connections are kept ready for the next caller, within
	// MaxOpen, from the start. They are dialed ahead, without any caller's context.
	// While dials fail, they are tried less and less often, at least twice a minute.
	// One that would be idle for too long is pinged before, and stays, if the driver can ping.
	// MinIdle wins over SetMaxIdleConns(0) and SetConnMaxIdleTime. Zero: none.
	MinIdle int

	// Instances is how many processes have such a pool on this server. It changes nothing,
	// but a warning says where MaxOpen times Instances is more than the server has. Zero:
	// one.
	Instances int

	// Waiting for a connection.

	// AcquireTimeout bounds the wait for a connection: queue, dial and reset
	// together, but not the query. A caller that waits longer gets an *AcquireError,
	// which names who has the connections. Zero: only the caller's context bounds the
	// wait. It never bounds the reset of a connection that database/sql had free.
	AcquireTimeout time.Duration

	// MaxWaiting is how many callers may wait for a connection at once, in each lane: who would
	// be one more is refused at once, with an *AcquireError that unwraps to ErrOverloaded. Zero:
	// any number.
	MaxWaiting int

	// QueueTarget refuses callers while more come than can be served, so that those who are served
	// are served in time. If everybody who was served within ten times as long (100 ms at least) had
	// waited for longer, those who have waited for longer are refused, until nobody waits: with an
	// *AcquireError that unwraps to ErrOverloaded. So a short rush is waited for, and a flood is
	// not. Choose what a caller can wait in good times: a tenth of their deadline, or less. Minimum:
	// 1ms. Zero: nobody is refused for having waited.
	QueueTarget time.Duration

	// Lanes are shares of the pool for callers who differ, by name: WithLane says who is in which.
	// At most Max connections are checked out at once in a lane, and Reserve connections are kept
	// for it. Within that, whoever waits longest is served first. At most 16. Nil: all callers are
	// alike.
	Lanes map[string]Lane

	// SlowAcquireThreshold is how long a caller may queue before a warning in the log
	// names who has the connections: at most once a minute, while it lasts. The queue is
	// looked at once a second. Zero: 5 seconds, or half of AcquireTimeout if that is
	// shorter. Negative: no warnings.
	SlowAcquireThreshold time.Duration

	// StandstillThreshold is how long a pool may stand still before that is reported: callers
	// wait, all connections are checked out, and nothing is done with any of them. The queue is
	// looked at once a second. Zero: SlowAcquireThreshold, or 5 seconds if that is negative.
	// Negative: a standstill is not reported, nor is a deadlock.
	StandstillThreshold time.Duration

	// FailDeadlockAfter ends a deadlock of the pool that has lasted for so long: every
	// connection is held by a goroutine that waits for another one, and nothing has moved. The
	// newest of these waiters then fails with an *AcquireError that unwraps to ErrDeadlock, and
	// the others go on. The queue is looked at once a second. A goroutine may have handed its
	// transaction to another one, which sqllease cannot see: choose a time in which that would
	// have used it. Zero: a deadlock is reported, and lasts until a context, or AcquireTimeout,
	// ends. Deadlocks are detected on amd64 and arm64. Minimum: 1ms.
	FailDeadlockAfter time.Duration

	// How long connections live.

	// MaxLifetime is the age after which a connection is not handed out again and is
	// closed. One that is checked out is never cut. Zero: only the server's idle limit
	// bounds a connection's life. Minimum: 1ms.
	MaxLifetime time.Duration

	// LifetimeJitter is the share of its lifetime by which a connection may end earlier, at
	// random: 0.1 is a tenth. Connections that were opened together end at different times
	// then, also those of many processes. It only shortens. No more than a tenth of the pool's
	// connections is to end within the same tenth of a lifetime, so some end earlier than
	// this says. Zero: 0.025. At most 0.5.
	LifetimeJitter float64

	// NetworkIdleLimit is the idle time after which something on the way to the
	// server (a load balancer, a NAT, a proxy) silently drops a connection. Connections
	// are closed before they are idle for so long; it does not bound their age. Zero:
	// none is known, and one is learned from connections that are found dead. Minimum: 1ms.
	NetworkIdleLimit time.Duration

	// IdleOnly has the server's idle limit bound the idle time alone. False: it bounds the
	// age of a connection as well, one in constant use included, so that no idle time is
	// ever near it.
	IdleOnly bool

	// Dialect says what kind of server it is, if the driver does not tell. It decides how
	// the server is asked for its idle limit, and how its statements are read. Empty:
	// told from the Go package of the driver; the server of an unknown driver is asked
	// nothing.
	Dialect Dialect

	// Discovery is how the server is asked for its idle limit, for kinds of servers that
	// are not listed with Dialect. NoDiscovery: it is never asked. Nil: as Dialect says.
	Discovery *Discovery

	// Leaks and slow calls.

	// LeakThreshold is how long a connection may be checked out but unused (no call in
	// flight) before it is reported as a leak. WithHoldLimit changes it for single
	// acquires. Zero: 30 seconds. Negative: nothing is reported, slow calls included.
	LeakThreshold time.Duration

	// SlowCallThreshold is how long one call may take before it is reported as slow. A
	// slow call is not a leak. Zero: ten times LeakThreshold, or LeakThreshold with
	// FindBlockers. Negative: slow calls are not reported.
	SlowCallThreshold time.Duration

	// FindBlockers has the server asked who blocks a call that has become slow, if the call
	// waits for a lock: the report then names that connection, and, if it is one of this
	// pool's, the code that took it. The question goes over a connection of its own, one more
	// than MaxOpen, for two seconds at most, and is asked every two seconds at most. While no
	// call is slow, nothing is asked; but with a MySQL driver, each dial takes a round trip
	// more. To see the connections of other users, the server's user needs a privilege:
	// docs/blockers.md. MySQL, MariaDB and PostgreSQL only. False: the server is not asked.
	FindBlockers bool

	// ReclaimAfter is how long a connection may be checked out but unused before it is
	// closed. That makes room for others, and ends what the server holds for it, such as
	// the locks of a transaction; the holder's next call fails with a *ReclaimedError. A
	// connection is reported as a leak first, and never closed during a call, nor after
	// the application has taken the driver's own connection with Unwrap, nor if
	// WithHoldLimit excepts it. Zero: leaked connections are left alone. Not below
	// LeakThreshold.
	ReclaimAfter time.Duration

	// NoGoroutineLook keeps reports from looking at what the goroutine that has the connection
	// does at that moment. Such a look stops the whole process, for some 15 µs for each of its
	// goroutines, only while something is reported, at most once in 5 seconds, and for a
	// thousandth of the time at most; with more than 10,000 goroutines there is none. False: reports say it, as Lease.Now.
	NoGoroutineLook bool

	// OnLeak is called with each report of a leak, and again when such a connection
	// comes back, on a goroutine that nothing waits for. It may use the database; a
	// panic in it is logged. It gets every report, of which the log has only the first
	// of each place a minute, and that of a return only when it is done with the leak. Nil: not
	// called.
	OnLeak func(Leak)

	// OnSlowCall is called in the same way with each report of a slow call. Nil: not
	// called.
	OnSlowCall func(SlowCall)

	// OnStandstill is called in the same way when the pool stands still, deadlocks included,
	// and when that is over. Nil: not called.
	OnStandstill func(Standstill)

	// OnNestedAcquire is called in the same way with each place in the code where a request
	// holds a connection and waits for another. Nil: not called.
	OnNestedAcquire func(NestedAcquire)

	// Where logs, spans and metrics go.

	// Logger receives leak reports and warnings. Nil: slog.Default(), as it is at that
	// moment.
	Logger *slog.Logger

	// TracerProvider makes the spans. Nil: otel.GetTracerProvider().
	TracerProvider trace.TracerProvider

	// MeterProvider makes the metrics. Nil: otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// What spans show.

	// QueryText says what spans show of a statement, and of the text of an error, which
	// may quote the statement. Empty: the statement with ? for every literal, and of
	// errors their type and code. Logs never show more than that, and metrics less.
	QueryText QueryText

	// OmitSpans names calls that get no span. Their metrics go on. Nil: every call but
	// CallRows and CallReset gets one.
	OmitSpans []Call

	// OmitRootSpans leaves out the spans of calls that are in no trace, such as those of
	// a background job. Their metrics go on. False: such a call starts a trace.
	OmitRootSpans bool

	// FilterSpan is asked for each span whether it is to be made. It is called within
	// the application's calls and must be quick. It is told only what a span shows at
	// its beginning. Nil: every span is made.
	FilterSpan func(context.Context, Operation) bool

	// IsError is asked whether the error of a call makes its span a failed one; the span
	// says what the error was in any case. It is not asked about calls that the caller
	// cancelled, or that database/sql repeats on another connection: they never fail a
	// span. Nil: every other error does.
	IsError func(context.Context, error) bool

	// Attributes of spans and metrics.

	// ServerAddress, ServerPort and Namespace are server.address, server.port and
	// db.namespace: the host, or the path of a socket; its port; the database. Zero: as
	// the connector of go-sql-driver/mysql, pgx or lib/pq has them; otherwise not shown.
	ServerAddress string
	ServerPort    int
	Namespace     string

	// Attributes are your own, the same in every span and metric of this pool: a team, a
	// shard. Nil: none.
	Attributes []attribute.KeyValue

	// SpanAttributes returns more attributes for the spans of a call: a tenant, a job. It
	// is called within the application's calls and must be quick. An attribute with the
	// name of one of ours replaces it. Nil: none.
	SpanAttributes func(context.Context) []attribute.KeyValue

	// MetricAttributes returns more attributes for the metrics of a call and of its
	// wait. The first 128 combinations are counted each; all others are counted
	// together, with otel.metric.overflow. Nil: none.
	MetricAttributes func(context.Context) []attribute.KeyValue

	// Comments in statements.

	// Comments adds a comment to each statement, by which the server's logs lead to the
	// trace: traceparent and tracestate of the call's span, and CommentTags, in the format
	// of sqlcommenter. CommentsAppend puts it at the end, CommentsPrepend in front, where a
	// log that cuts long statements still has it. Prepared statements have none, those
	// that database/sql prepares for their arguments included; nor has a statement that the comment
	// might change or that the server would keep with it (docs/telemetry.md). Every
	// statement then has another text: a driver that caches statements by text finds none
	// again, as pgx does unless its default_query_exec_mode is exec or simple_protocol.
	// Empty: no comments.
	Comments Comments

	// CommentTags returns more for the comment, such as the route of a request. It is
	// called within the application's calls and must be quick. The server and its logs
	// see the values. A key above 64 bytes, a value above 512, and what would make the
	// comment longer than 2,048 bytes are left out. Nil: none.
	CommentTags func(context.Context) map[string]string
}

// QueryText says what spans show of a statement.
type QueryText string

// What spans show of a statement.
const (
	QueryTextSanitized QueryText = ""    // the statement, with ? for every literal
	QueryTextRaw       QueryText = "raw" // the statement as it is, and the text of errors
	QueryTextOff       QueryText = "off" // no statement, but the operation and the table
)

// Comments says where statements have their comment.
type Comments string

// Where statements have their comment.
const (
	CommentsOff     Comments = ""        // they have none
	CommentsAppend  Comments = "append"  // at their end
	CommentsPrepend Comments = "prepend" // in front of their first word
)

// Call names a call of database/sql's to the driver, or a part of an acquire.
type Call string

// The calls that have spans of their own.
const (
	CallQuery       Call = "query"
	CallExec        Call = "exec"
	CallPrepare     Call = "prepare"
	CallBegin       Call = "begin"
	CallCommit      Call = "commit"
	CallRollback    Call = "rollback"
	CallPing        Call = "ping"
	CallAcquire     Call = "acquire"     // the wait for a connection
	CallTransaction Call = "transaction" // from begin to commit or rollback
)

// The calls that have none: only [Lease.Call] tells of them.
const (
	CallRows  Call = "rows"  // reading rows, which is part of their query
	CallReset Call = "reset" // making a connection ready for its next holder, which is part of the acquire
)

// Operation is what [Config.FilterSpan] is asked about.
type Operation struct {
	Call      Call
	Summary   string // operations and tables, such as "SELECT orders"; empty where there is no statement
	Statement string // with ? for every literal
}
