package sqllease

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"

	"github.com/sqllease/sqllease/internal/drivers"
)

// presentDefault hands each record to what slog.Default is then: an application may set it
// after it has opened its database.
type presentDefault struct{}

// Enabled asks it.
func (presentDefault) Enabled(ctx context.Context, level slog.Level) bool {
	return slog.Default().Enabled(ctx, level)
}

// Handle hands a record to it.
func (presentDefault) Handle(ctx context.Context, r slog.Record) error {
	return slog.Default().Handler().Handle(ctx, r)
}

// WithAttrs is of slog.Handler, as is WithGroup; nothing of ours calls them.
func (presentDefault) WithAttrs(attrs []slog.Attr) slog.Handler {
	return slog.Default().Handler().WithAttrs(attrs)
}

// WithGroup is of slog.Handler.
func (presentDefault) WithGroup(name string) slog.Handler {
	return slog.Default().Handler().WithGroup(name)
}

// panicked tells what somebody else's code panicked with. The value may have data
// of the application in it, and is shown only where statements are; the runtime's
// own panics, such as of a nil map, have none.
func (s *settings) panicked(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	if s.QueryText == QueryTextRaw {
		return fmt.Sprint(v)
	}
	return fmt.Sprintf("a %T; QueryTextRaw shows it", v)
}

// said tells of an error of the driver's or the server's. Its text may quote what
// was sent, or a DSN, and is shown only where statements are; else its type, or
// the server's code.
func (s *settings) said(err error) string {
	_, answered := err.(*drivers.AnswerError) //nolint:errorlint // what it is wrapped in may say more
	if answered || s.QueryText == QueryTextRaw || saysNothingOfData(err) || err == io.EOF || err == io.ErrUnexpectedEOF {
		return err.Error()
	}
	kind, code := errorType(err)
	switch {
	case code == "":
	case len(code) == 5: // MySQL's numbers have four digits
		kind = "SQLSTATE " + code
	default:
		kind = "MySQL error " + code
	}
	return kind + "; QueryTextRaw shows its text"
}

// warnAside logs on a goroutine of its own, for who holds room or a lock that
// a Logger which writes to the same database would wait for.
func (s *settings) warnAside(text string, args ...any) { s.logAside(slog.LevelWarn, text, args...) }

func (s *settings) logAside(level slog.Level, text string, args ...any) {
	go func() {
		defer s.recovered("logging")
		s.Logger.Log(context.Background(), level, text, args...)
	}()
}

// recovered is deferred on goroutines of ours, where nobody else could recover
// the panic of a driver or of the application's functions.
func (s *settings) recovered(doing string) {
	v := recover()
	if v == nil {
		return
	}
	defer func() { _ = recover() }() // of the Logger: there is nobody left to tell
	s.Logger.Error("sqllease: recovered from a panic while "+doing+"; the pool goes on, and the stack shows where the panic began",
		slog.String("pool", s.Name), slog.String("panic", s.panicked(v)), slog.String("stack", string(debug.Stack())))
}
