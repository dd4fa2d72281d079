package sqllease

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/drivers"
)

// DefaultLeakThreshold is the [Config.LeakThreshold] of a Config that sets none.
const DefaultLeakThreshold = 30 * time.Second

// DefaultSlowAcquireThreshold is the [Config.SlowAcquireThreshold] of a Config
// that sets none.
const DefaultSlowAcquireThreshold = 5 * time.Second

// Config says how a [Connector] behaves. The zero value is useful: it has no
// limit of its own, finds out the server's idle limit by itself, reports
// leases that are idle in hand for 30 seconds, and emits telemetry through the
// global OpenTelemetry providers. A Config is checked once, by [Wrap], and
// copied: changing it afterwards has no effect.
type Config struct {
	// Name names the pool in telemetry, logs and errors (the attribute
	// db.client.connection.pool.name). Empty: derived from the driver, and
	// numbered where a process has several.
	Name string

	// MaxOpen is the gate's limit: how many sessions may exist at once,
	// leased, ready or being dialed. Zero: no limit, until the
	// application calls SetMaxOpenConns on the *sql.DB, which the gate adopts.
	MaxOpen int

	// MinIdle is how many sessions are kept ready for the next caller, within
	// MaxOpen, from the start. They are dialed ahead, on a goroutine that lives
	// only as long as a session is missing, in a context without the values of
	// any caller's; while dials fail, later and later, up to half a minute. It
	// wins over SetMaxIdleConns(0) and SetConnMaxIdleTime. Zero: none.
	MinIdle int

	// AcquireTimeout bounds one acquire that comes to the gate: queue, dial and
	// reset together. An acquire that exceeds it fails with an *AcquireError
	// that names the holders. Zero: only the caller's context bounds it, as it
	// does the reset of a connection that database/sql had free.
	AcquireTimeout time.Duration

	// SlowAcquireThreshold is how long the longest waiter may be in the queue
	// before a warning says so, with who holds the connections: at most once a
	// minute, while it lasts. Zero: 5 seconds. Negative: no warnings.
	SlowAcquireThreshold time.Duration

	// MaxLifetime is the age after which a session is never handed out again.
	// A lease that is out when it passes is not cut. Zero: only the idle limit
	// of the server bounds a session's life. Minimum: 1ms.
	MaxLifetime time.Duration

	// NetworkIdleLimit is the idle time after which something on the way to
	// the server (a load balancer, a NAT, a proxy) silently drops a
	// connection. It is treated as an idle limit of the server. Zero: none.
	// Minimum: 1ms.
	NetworkIdleLimit time.Duration

	// Dialect says which server answers, where the driver does not tell.
	// Empty: told from the Go package of the driver; a driver that is not
	// known is never asked anything. DialectNone switches discovery off.
	Dialect Dialect

	// LeakThreshold is how long a lease may be idle in hand, with no driver
	// call in flight, before it is reported. WithHoldLimit says otherwise for
	// single acquires. Zero: 30 seconds. Negative: no lease is ever reported,
	// long calls included.
	LeakThreshold time.Duration

	// LongCallThreshold is how long one driver call may take before its lease
	// is reported as busy: that is a slow call, and not a leak. Zero: ten times
	// LeakThreshold. Negative: slow calls are not reported.
	LongCallThreshold time.Duration

	// ReclaimAfter is how long a lease may be idle in hand before its session is
	// taken away and closed, which makes room for others and ends what the
	// server holds for it, such as the locks of a transaction. The holder's next
	// call fails with a *ReclaimedError. A lease is reported before it is
	// reclaimed, so that one which WithHoldLimit excepts is never reclaimed; nor is
	// one with a call in flight, or one whose driver connection the application
	// has taken with Unwrap. Zero: leases are never reclaimed.
	ReclaimAfter time.Duration

	// FailOnDeadlock lets an acquire fail with an *AcquireError that unwraps to
	// ErrDeadlock where otherwise none succeeds before some context ends: when, for a second,
	// nothing was done with any session on lease, and each was last used by a
	// goroutine that waits for another. The newest of these waiters fails; what
	// it holds lets the others go on. False: a deadlock is only logged. It is
	// detected on amd64 and arm64.
	FailOnDeadlock bool

	// OnLeak is called with each report of a leak, and of a lease that was reported
	// and came back, on a goroutine that nothing waits for; of several reports of
	// one place within a minute, the first alone is logged. It may use the
	// database; a panic in it is logged. Nil: not called.
	OnLeak func(Leak)

	// OnSlowCall is called in the same way with each report of a slow call: see
	// LongCallThreshold. Nil: not called.
	OnSlowCall func(SlowCall)

	// Logger receives leak reports and warnings. Nil: slog.Default().
	Logger *slog.Logger

	// TracerProvider makes the spans. Nil: otel.GetTracerProvider().
	TracerProvider trace.TracerProvider

	// MeterProvider makes the metrics. Nil: otel.GetMeterProvider().
	MeterProvider metric.MeterProvider

	// QueryText says what spans show of a statement, and of what a server or
	// driver says in an error, which may quote it. Empty: the statement with ? for
	// every literal, and of errors type and code. Metrics and logs never have
	// more than that.
	QueryText QueryText

	// OmitSpans names the calls that get no span: query, exec, prepare, begin,
	// commit, rollback, ping, acquire, transaction. Their metrics go on. Nil: all
	// get one.
	OmitSpans []string

	// FilterSpan is asked for each span whether there is to be one. It is called
	// in the application's calls, and has to be quick. It is told only what a span
	// would show at its beginning. Nil: there is.
	FilterSpan func(context.Context, Operation) bool

	// Comments adds a comment to each statement that is run directly, by which the
	// server's logs lead to the trace: traceparent and tracestate of the call's
	// span, and CommentTags, in the format of sqlcommenter. CommentsAppend puts it
	// at the statement's end, CommentsPrepend in front of its first word, where a log
	// that cuts long statements still has it. Statements that are prepared, by
	// the application or for their arguments, have none; nor has one where it might
	// change what the statement means, or stay in what the server keeps:
	// docs/telemetry.md tells which. A driver that caches statements by their text, as
	// pgx does unless its default_query_exec_mode is exec or simple_protocol,
	// would find none of them again. Empty: no comments.
	Comments Comments

	// CommentTags returns more for the comment, such as the route of a request. It
	// is called in the application's calls, and has to be quick. Its values reach
	// the server and its logs. A key above 64 bytes, a value above 512, and what
	// would make the comment longer than 2,048 bytes are left out. Nil: none.
	CommentTags func(context.Context) map[string]string

	// ServerAddress, ServerPort and Namespace are shown in spans, and in the
	// metrics of operations, as server.address, server.port and db.namespace: the
	// host, or the path of a socket; its port; the database. Zero: as the connector
	// of go-sql-driver/mysql, pgx or lib/pq has them; else not shown.
	ServerAddress string
	ServerPort    int
	Namespace     string

	// Attributes are the application's own, the same in every span and metric of
	// this pool: a team, a shard. Nil: none.
	Attributes []attribute.KeyValue

	// SpanAttributes returns attributes of a call for its spans: a tenant, a job.
	// It is called in the application's calls, and has to be quick. One of the name of
	// an attribute of ours replaces it. Nil: none.
	SpanAttributes func(context.Context) []attribute.KeyValue

	// MetricAttributes does so for the metrics of operations and of waits. Of their
	// combinations the 128 first are told apart; all others are counted together,
	// with otel.metric.overflow. Nil: none.
	MetricAttributes func(context.Context) []attribute.KeyValue

	// OmitRootSpans leaves out the spans of calls whose context carries no span, such
	// as those of a background job that is in no trace; their metrics go on. False:
	// such a call starts a trace of its own.
	OmitRootSpans bool

	// IsError tells of the error of a call whether it makes its span one that
	// failed; in any case the span says what it was. It is not asked about calls that
	// the caller cancelled, or that database/sql makes again on another connection,
	// which make none. Nil: every other error does.
	IsError func(context.Context, error) bool
}

// QueryText says what spans show of a statement.
type QueryText string

// What spans show of a statement.
const (
	QueryTextSanitised QueryText = ""    // the statement, with ? for every literal
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

// Operation is what [Config.FilterSpan] is asked about.
type Operation struct {
	Call      string // query, exec, prepare, begin, commit, rollback, ping, acquire or transaction
	Summary   string // operations and tables, such as "SELECT orders"; empty where there is no statement
	Statement string // with ? for every literal
}

// settings is a Config that was checked and completed. It never changes.
type settings struct {
	Config
	dialect  drivers.Dialect
	endpoint drivers.Endpoint
	system   string     // the conventions' db.system.name; empty: not known
	guessed  bool       // that, from the driver: the server may say otherwise
	number   poolNumber // of a name that was made up
}

// newSettings checks cfg and fills in what zero stands for.
func newSettings(cfg Config) (*settings, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.LeakThreshold == 0 {
		cfg.LeakThreshold = DefaultLeakThreshold
	}
	if cfg.SlowAcquireThreshold == 0 {
		cfg.SlowAcquireThreshold = DefaultSlowAcquireThreshold
	}
	if cfg.LongCallThreshold == 0 {
		cfg.LongCallThreshold = 10 * min(cfg.LeakThreshold, math.MaxInt64/10)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(presentDefault{})
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	return &settings{Config: cfg}, nil
}

// check returns a *ConfigError for the first field that cannot be meant.
func (cfg *Config) check() error {
	for _, f := range []struct {
		name  string
		value int
	}{{"MaxOpen", cfg.MaxOpen}, {"MinIdle", cfg.MinIdle}} {
		if f.value < 0 {
			return &ConfigError{f.name, fmt.Sprint(f.value), "it counts sessions; use zero for none"}
		}
	}
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"AcquireTimeout", cfg.AcquireTimeout},
		{"MaxLifetime", cfg.MaxLifetime},
		{"NetworkIdleLimit", cfg.NetworkIdleLimit},
		{"ReclaimAfter", cfg.ReclaimAfter},
		{"LeakThreshold", max(cfg.LeakThreshold, 0)}, // negative: none
		{"LongCallThreshold", max(cfg.LongCallThreshold, 0)},
		{"SlowAcquireThreshold", max(cfg.SlowAcquireThreshold, 0)},
	} {
		if f.value < 0 {
			return &ConfigError{f.name, f.value.String(), "it is a duration; use zero for none"}
		}
		if f.value > 0 && f.value < time.Millisecond {
			return &ConfigError{f.name, f.value.String(), "it is below 1ms, which no network and no clock keeps; was a unit forgotten?"}
		}
	}
	if cfg.MaxOpen > 0 && cfg.MinIdle > cfg.MaxOpen {
		return &ConfigError{"MinIdle", fmt.Sprint(cfg.MinIdle),
			fmt.Sprintf("it is above MaxOpen, which is %d; lower it or raise MaxOpen", cfg.MaxOpen)}
	}
	if cfg.MaxLifetime > 0 && cfg.LeakThreshold > cfg.MaxLifetime {
		return &ConfigError{"LeakThreshold", cfg.LeakThreshold.String(),
			fmt.Sprintf("it is above MaxLifetime, which is %v; lower it, or use a negative value to switch reports off", cfg.MaxLifetime)}
	}
	if cfg.ReclaimAfter > 0 && cfg.LeakThreshold < 0 {
		return &ConfigError{"ReclaimAfter", cfg.ReclaimAfter.String(),
			"LeakThreshold is negative, so that no lease is watched; set a threshold, or leave ReclaimAfter zero"}
	}
	if threshold := cmp.Or(cfg.LeakThreshold, DefaultLeakThreshold); cfg.ReclaimAfter > 0 && cfg.ReclaimAfter < threshold {
		return &ConfigError{"ReclaimAfter", cfg.ReclaimAfter.String(),
			fmt.Sprintf("it is below LeakThreshold, which is %v; a lease is reported before it is reclaimed: raise it, or lower LeakThreshold", threshold)}
	}
	if cfg.ServerPort < 0 || cfg.ServerPort > 65535 {
		return &ConfigError{"ServerPort", fmt.Sprint(cfg.ServerPort), "it is no port; use zero if it is not known"}
	}
	switch cfg.QueryText {
	case QueryTextSanitised, QueryTextRaw, QueryTextOff:
	default:
		return &ConfigError{"QueryText", fmt.Sprintf("%q", string(cfg.QueryText)),
			"it is not known; use QueryTextSanitised, QueryTextRaw or QueryTextOff"}
	}
	for _, a := range cfg.Attributes {
		if !a.Valid() || isReserved(a.Key) {
			return &ConfigError{"Attributes", fmt.Sprintf("%q", string(a.Key)),
				"it is empty, or an attribute that sqllease sets itself: see Config.Name, Dialect, ServerAddress, ServerPort and Namespace"}
		}
	}
	switch cfg.Comments {
	case CommentsOff, CommentsAppend, CommentsPrepend:
	default:
		return &ConfigError{"Comments", fmt.Sprintf("%q", string(cfg.Comments)),
			"it is not known; use CommentsOff, CommentsAppend or CommentsPrepend"}
	}
	if cfg.CommentTags != nil && cfg.Comments == CommentsOff {
		return &ConfigError{"CommentTags", "a function", "Comments is CommentsOff, so that no statement has a comment; set it, or leave CommentTags nil"}
	}
	for _, name := range cfg.OmitSpans {
		if !slices.Contains(spanCalls, name) {
			return &ConfigError{"OmitSpans", fmt.Sprintf("%q", name), fmt.Sprintf("there is no such call; use some of %q", spanCalls)}
		}
	}
	if known := append(drivers.Names(), string(DialectNone)); cfg.Dialect != "" && !slices.Contains(known, string(cfg.Dialect)) {
		return &ConfigError{"Dialect", fmt.Sprintf("%q", string(cfg.Dialect)),
			fmt.Sprintf("it is not known; use one of %q, or leave it empty to have it told from the driver", known)}
	}
	return nil
}
