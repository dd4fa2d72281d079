package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
	"github.com/sirupsen/logrus"
	"go.opentelemetry.io/otel"
)

// This file keeps the libraries quiet without losing what they say.

// journal keeps the warnings and errors that libraries log, for the report.
type journal struct {
	mu    sync.Mutex
	lines tally // guarded by mu
}

// newJournal redirects what is logged in this process to a journal.
func newJournal() *journal {
	j := &journal{}
	_ = mysql.SetLogger(driverLog{j}) // fails for a nil logger only
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { j.add("OpenTelemetry", err.Error()) }))
	log.SetFlags(0)
	log.SetOutput(writerTo(func(text string) { j.add("embedded server", text) }))
	logrus.SetOutput(io.Discard)
	hooks := logrus.LevelHooks{}
	hooks.Add(serverLog{j})
	logrus.StandardLogger().ReplaceHooks(hooks)
	return j
}

// longestEntry is how much of a log record is kept; some have stacks.
const longestEntry = 400

func (j *journal) add(source, text string) {
	text = strings.TrimSpace(text)
	if len(text) > longestEntry {
		text = strings.ToValidUTF8(text[:longestEntry], "") + " …"
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines.add(source + ": " + text)
}

// list returns what was logged, equal lines once.
func (j *journal) list() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.list()
}

type writerTo func(text string)

func (f writerTo) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// driverLog is the MySQL driver's logger.
type driverLog struct{ *journal }

func (l driverLog) Print(v ...any) { l.add("MySQL driver", fmt.Sprint(v...)) }

// serverLog takes what the embedded server logs.
type serverLog struct{ *journal }

func (l serverLog) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

// Fire leaves out sessions that the server itself has ended: one for being
// idle, which its listener counts, or one whose client was gone.
func (l serverLog) Fire(e *logrus.Entry) error {
	if !strings.Contains(e.Message, "i/o timeout") && !strings.Contains(e.Message, "use of closed network connection") {
		l.add("embedded server", e.Message)
	}
	return nil
}

// poolLog is the slog.Handler for sqllease's warnings. Reports of leaks and of
// slow calls come to Config.OnLeak and Config.OnSlowCall as well; nested
// acquires, and what the server does not show of locks, come here alone.
type poolLog struct {
	*journal
	findings *findings
}

func (l poolLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l poolLog) Handle(_ context.Context, r slog.Record) error {
	text, known := r.Message, false
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case a.Key == "leak", a.Key == "slow_call":
			known = true
		case a.Key == "nested" && r.Level == slog.LevelWarn: // of an error it is a deadlock
			known = true
			l.findings.addNested(a.Value.Resolve())
		case a.Key == "remedy":
			known = true
			l.findings.addRemedy(a.Value.String())
		}
		text += " " + a.String()
		return true
	})
	if !known {
		l.add("sqllease", text)
	}
	return nil
}

func (l poolLog) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l poolLog) WithGroup(string) slog.Handler      { return l }
