package sqllease

import (
	"context"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/statement"
)

// inheritance is what a lease that has ended leaves to the next holder of its session.
type inheritance struct {
	*leftovers
	taken *callstack.Known
	lease uint64
	span  trace.SpanContext
}

// inheritance is that of a lease that has left something; nil: the application has had the
// driver's own connection, and what it did with it is not known. Its caller holds the session.
func (l *lease) inheritance() *inheritance {
	if l.raw {
		return nil
	}
	return &inheritance{l.left, l.stack, l.id, l.span}
}

// legacy is how one kind is told.
type legacy struct {
	kind  string // in the metric
	level slog.Level
	what  string
	fix   string
}

var legacies = map[statement.Kind]legacy{
	statement.Transaction: {"transaction", slog.LevelWarn,
		"in a transaction that a statement began and none ended: what the next caller does becomes a part of it",
		"use BeginTx with defer tx.Rollback(); or end the transaction on every path, also after an error"},
	statement.TableLock: {"lock", slog.LevelWarn,
		"with locked tables: the next caller can use no others, and everybody else waits for these",
		"run UNLOCK TABLES on the same *sql.Conn on every path, also after an error"},
	statement.NamedLock: {"lock", slog.LevelWarn,
		"with a lock that it still holds: everybody else waits for it",
		"give the lock back on the same *sql.Conn on every path; in PostgreSQL, pg_advisory_xact_lock ends with the transaction"},
	statement.Setting: {"setting", slog.LevelInfo,
		"with a setting that a statement changed: the next caller has it too",
		"in PostgreSQL, use SET LOCAL in a transaction; else put the old value back on the same *sql.Conn; a setting that every connection is to have belongs into the DSN, or into the driver's hook for new connections"},
	statement.Database: {"database", slog.LevelInfo,
		"with another database chosen: the next caller's statements go there",
		"write the database before the table (shop.orders), or use a pool for each database"},
	statement.Channel: {"channel", slog.LevelInfo,
		"still listening to a channel",
		"run UNLISTEN * on the same *sql.Conn before it is closed, or keep a connection for it alone"},
	statement.TemporaryTable: {"temporary_table", slog.LevelInfo,
		"with a temporary table: the next caller finds it there",
		"drop the table on the same *sql.Conn; in PostgreSQL, ON COMMIT DROP does it"},
	statement.PreparedStatement: {"prepared_statement", slog.LevelInfo,
		"with a statement that PREPARE has made: its name is taken, and it takes memory at the server",
		"use PrepareContext, or run DEALLOCATE on the same *sql.Conn"},
}

// inheritances remember of which places it was logged what they leave.
type inheritances struct {
	mu    sync.Mutex
	known map[inherited]struct{} // guarded by mu
}

type inherited struct {
	place placeStack
	kind  statement.Kind
}

// note tells whether it is to be logged: once of each place and kind, as long as there is room.
func (i *inheritances) note(what inherited) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, known := i.known[what]; known || len(i.known) == mostPlaces {
		return false
	}
	if i.known == nil {
		i.known = map[inherited]struct{}{}
	}
	i.known[what] = struct{}{}
	return true
}

// inherited tells what a lease has left. It logs aside: the Logger may use this very database,
// on a connection of which database/sql holds the lock.
func (r *reports) inherited(of *inheritance) {
	told := map[statement.Kind]bool{}
	place := placeStackOf(of.taken.Stack().Outside())
	for _, o := range of.each() {
		if told[o.Kind] {
			continue
		}
		told[o.Kind] = true
		r.metrics.leftover(legacies[o.Kind].kind)
		if r.inheritances.note(inherited{place, o.Kind}) {
			go r.logInherited(of, o)
		}
	}
}

// each is all of them.
func (left *leftovers) each() []leftover {
	if left.tx == nil {
		return left.all
	}
	return append([]leftover{{Effect: left.tx.Effect, by: left.tx}}, left.all...)
}

func (r *reports) logInherited(of *inheritance, o leftover) {
	defer r.cfg.recovered("logging what a connection came back with")
	how, stack := legacies[o.Kind], Stack(of.taken.Stack())
	ctx := trace.ContextWithSpanContext(context.Background(), of.span)
	about := slog.GroupValue(
		slog.String("site", stack.site()), slog.String("kind", how.kind), slog.String("statement", o.by.Sanitised),
		slog.String("fix", how.fix), slog.Uint64("lease", of.lease), slog.String("stack", stack.Line()))
	r.cfg.Logger.LogAttrs(ctx, how.level, "sqllease: a connection came back "+how.what, slog.String("pool", r.cfg.Name), slog.Any("leftover", about))
}
