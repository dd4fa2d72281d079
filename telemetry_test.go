package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.39.0"
	"go.opentelemetry.io/otel/semconv/v1.39.0/dbconv"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/goroutines"
)

// everything makes a pool emit whatever there is.
func everything(t *testing.T) *telemetryPool {
	f := &named{name: "host=db port=5432 dbname=shop"}
	f.answer = []driver.Value{int64(1)}
	f.on = slow("reset", time.Second)
	p := newTelemetryPool(t, f, Config{Lanes: map[string]Lane{DefaultLane: {Max: 1, Reserve: 1}}, Dialect: DialectCockroachDB, NetworkIdleLimit: time.Hour, LeakThreshold: 10 * time.Second, StandstillThreshold: time.Second})
	p.c.SetMaxOpen(1) // as few as are reserved, which Config refuses
	ctx := underParent(t)

	holder, err := p.db.Conn(t.Context())
	require.NoError(t, err)
	time.AfterFunc(time.Second, func() { assert.NoError(t, holder.Close()) })
	tx, err := p.db.BeginTx(ctx, nil) // queues, and is reset
	require.NoError(t, err)
	rows, err := tx.QueryContext(ctx, "SELECT value FROM orders")
	require.NoError(t, err)
	for rows.Next() {
		continue
	}
	require.NoError(t, rows.Err())
	expired, cancel := context.WithTimeout(ctx, 2500*time.Millisecond)
	defer cancel()
	require.Error(t, p.db.PingContext(expired)) // a nested acquire, and a deadlock
	p.c.reports.looks = &goroutines.Looks{}
	p.c.Stats()              // takes the lock that the watch takes before it reports
	elapse(20 * time.Second) // a leak
	require.NoError(t, tx.Commit())
	st, err := p.db.PrepareContext(ctx, "SELECT value FROM orders")
	require.NoError(t, err)
	require.NoError(t, st.Close())
	_, err = p.db.ExecContext(ctx, "CALL refund(1)")
	require.NoError(t, err)
	_, err = p.db.ExecContext(ctx, "CREATE TEMP TABLE refunds (a int)") // which the next caller inherits
	require.NoError(t, err)
	f.on = failing("exec", &mysql.MySQLError{Number: 1062})
	_, err = p.db.ExecContext(ctx, "INSERT INTO orders VALUES (1)")
	require.Error(t, err)
	f.on = failing("exec", driver.ErrBadConn)
	_, err = p.db.ExecContext(ctx, "INSERT INTO orders VALUES (1)") // retried, and found bad each time
	require.Error(t, err)
	f.on = failing("connect", syscall.ECONNREFUSED)
	require.Error(t, p.db.PingContext(ctx))
	f.on = failing("reset", driver.ErrBadConn)
	require.NoError(t, p.db.PingContext(ctx)) // on another session
	tx, err = p.db.BeginTx(ctx, nil)
	require.NoError(t, err)
	require.NoError(t, tx.Rollback())
	elapse(time.Second)
	return p
}

// quoted is what stands between backticks.
var quoted = regexp.MustCompile("`([^`]+)`")

// tables returns the first two cells of the rows of tables in a text.
func tables(text string) (rows [][2]string) {
	for line := range strings.Lines(text) {
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.HasPrefix(line, "| ") {
			rows = append(rows, [2]string{cells[1], cells[2]})
		}
	}
	return rows
}

// section is the part of docs/telemetry.md below that heading.
func section(t *testing.T, heading string) string {
	text, err := os.ReadFile("docs/telemetry.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(text), "\n## "+heading+"\n")
	require.True(t, found, heading)
	before, _, _ := strings.Cut(after, "\n## ")
	return before
}

func TestTheDocumentationListsTheMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		documented := map[string]string{}
		for _, row := range tables(section(t, "Metrics")) {
			for _, name := range quoted.FindAllStringSubmatch(row[0], -1) {
				if unit := quoted.FindStringSubmatch(row[1]); unit != nil {
					documented[name[1]] = unit[1]
				}
			}
		}
		emitted := map[string]string{}
		for _, m := range everything(t).collect(t) {
			emitted[m.Name] = m.Unit
			for _, set := range attributeSets(m) {
				for _, a := range set.ToSlice() {
					assert.Contains(t, section(t, "Metrics")+section(t, "Spans"), "`"+string(a.Key)+"`", m.Name)
				}
			}
		}
		assert.Equal(t, documented, emitted)
	})
}

func TestTheDocumentationListsTheSpans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := everything(t)
		text := section(t, "Spans")
		attributes := map[string]bool{}
		for _, s := range append(p.spans.Ended(), spansOfABlockedCall(t)...) {
			name, kind := s.Name(), s.SpanKind().String()
			switch {
			case strings.HasPrefix(name, "prepare "):
				name = "prepare"
			case strings.Contains(name, " "):
				name = "SELECT orders" // the example of all
			}
			assert.Regexp(t, "(?m)^\\| .*`"+regexp.QuoteMeta(name)+"`.* \\| "+kind+" \\|", text)
			for _, a := range s.Attributes() {
				attributes[string(a.Key)] = true
			}
			for _, e := range s.Events() {
				assert.Contains(t, text, "`"+e.Name+"`")
			}
		}
		documented := map[string]bool{}
		for _, row := range tables(text) {
			for _, name := range quoted.FindAllStringSubmatch(row[0], -1) {
				if strings.Contains(name[1], ".") && !strings.HasPrefix(name[1], "pool.") && !slices.Contains([]string{spanLeak, spanReturn, spanSlowCall, spanNested, spanStill}, name[1]) {
					documented[name[1]] = true
				}
			}
		}
		if callstack.Goroutine() == 0 { // nobody knows what it does now
			delete(documented, "sqllease.now")
		}
		assert.Equal(t, documented, attributes)
	})
}

// logged finds the keys of log records in a source file.
func logged(t *testing.T, file string) (keys []string) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	require.NoError(t, err)
	ast.Inspect(parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		callee, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || fmt.Sprint(callee.X) != "slog" {
			return true
		}
		key, ok := call.Args[0].(*ast.BasicLit)
		require.True(t, ok, "%s: a key that is no constant", file)
		keys = append(keys, strings.Trim(key.Value, `"`))
		return true
	})
	return keys
}

func TestTheDocumentationListsTheLogs(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	emitted := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, key := range logged(t, file) {
			emitted[key] = true
		}
	}
	documented := map[string]bool{"pool": true}
	for line := range strings.Lines(section(t, "Logs")) {
		if cells := strings.Split(line, "|"); len(cells) > 4 {
			for _, key := range quoted.FindAllStringSubmatch(cells[3], -1) {
				documented[key[1]] = true
			}
		}
	}
	assert.Equal(t, documented, emitted)
}

// What has a name of the conventions has its unit and its meaning too.
func TestNamesOfTheConventionsAreTheConventions(t *testing.T) {
	conventions := map[string]string{}
	for _, i := range []interface{ Name() string }{
		dbconv.ClientConnectionCount{}, dbconv.ClientConnectionMax{}, dbconv.ClientConnectionIdleMin{}, dbconv.ClientConnectionPendingRequests{},
		dbconv.ClientConnectionTimeouts{}, dbconv.ClientConnectionWaitTime{}, dbconv.ClientConnectionCreateTime{}, dbconv.ClientConnectionUseTime{},
		dbconv.ClientOperationDuration{}, dbconv.ClientResponseReturnedRows{},
	} {
		conventions[i.Name()] = i.(interface{ Unit() string }).Unit()
	}
	known := map[attribute.Key]bool{}
	for _, key := range []attribute.Key{
		semconv.DBClientConnectionPoolNameKey, semconv.DBClientConnectionStateKey, semconv.DBSystemNameKey, semconv.DBNamespaceKey,
		semconv.ServerAddressKey, semconv.ServerPortKey, semconv.DBQuerySummaryKey, semconv.DBQueryTextKey, semconv.DBOperationNameKey,
		semconv.DBCollectionNameKey, semconv.DBStoredProcedureNameKey, semconv.DBResponseReturnedRowsKey, semconv.DBResponseStatusCodeKey, semconv.ErrorTypeKey,
		semconv.CodeFunctionNameKey, semconv.CodeFilePathKey, semconv.CodeLineNumberKey,
	} {
		known[key] = true
	}
	synctest.Test(t, func(t *testing.T) {
		p := everything(t)
		for _, m := range p.collect(t) {
			if strings.HasPrefix(m.Name, "sqllease.") {
				continue
			}
			assert.Equal(t, conventions[m.Name], m.Unit, m.Name)
			delete(conventions, m.Name)
		}
		assert.Empty(t, conventions, "all are emitted")
		for _, s := range p.spans.Ended() {
			for _, a := range s.Attributes() {
				assert.True(t, known[a.Key] || strings.HasPrefix(string(a.Key), "sqllease."), a.Key)
			}
		}
	})
}

func TestTheErrorOfADiscoveryShowsNoPassword(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &keptLog{}
		f := &gateFake{t: t, script: func(_ context.Context, _ *gateFakeConn, call string) error {
			if call == "query" {
				return errors.New("cannot reach postgres://bob:hunter2@db/shop")
			}
			return nil
		}}
		db, err := OpenDB(f, Config{Dialect: DialectPostgreSQL, Logger: slog.New(log)})
		require.NoError(t, err)
		require.NoError(t, db.PingContext(t.Context()))
		asked()
		records := log.take()
		require.Len(t, records, 1)
		assert.Equal(t, "*errors.errorString; QueryTextRaw shows its text", records[0].attrs["error"])
		require.NoError(t, db.Close())
	})
}

// What an application sends, and what a server says of it, is nobody's who reads
// telemetry.
func TestNoLiteralIsShownAnywhere(t *testing.T) {
	const secret = "jane@example.org"
	for _, query := range []string{
		"SELECT a FROM t WHERE b = '" + secret + "'",
		`SELECT a FROM t WHERE b = "` + secret + `"`,
		"INSERT INTO t VALUES (1, '" + secret + "') /* " + secret + " */",
		"UPDATE t SET a = $x$" + secret + "$x$ -- " + secret,
		"'" + secret,
	} {
		synctest.Test(t, func(t *testing.T) {
			log := &keptLog{}
			f := &telemetryFake{}
			p := &telemetryPool{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
			db, err := OpenDB(f, Config{
				Name: "orders", MaxOpen: 1, LeakThreshold: 10 * time.Second, ReclaimAfter: time.Hour, Logger: slog.New(log),
				TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(p.spans)),
				MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader)),
			})
			require.NoError(t, err)
			p.db = db
			for _, failure := range []error{nil, &mysql.MySQLError{Number: 1062, Message: "Duplicate entry '" + secret + "'"}, errors.New("near " + secret)} {
				f.on = failing("exec", failure)
				_, err = db.ExecContext(t.Context(), query)
				require.Equal(t, failure, err)
			}
			tx, err := db.BeginTx(t.Context(), nil)
			require.NoError(t, err)
			f.on = nil
			_, err = tx.ExecContext(t.Context(), query)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a deadlock, a slow acquire, a leak
			defer cancel()
			err = db.PingContext(ctx)
			require.Error(t, err)
			shown := fmt.Sprint(err)
			elapse(2 * time.Hour) // it is reclaimed
			err = tx.Commit()
			require.Error(t, err)
			shown += fmt.Sprint(err)
			require.NoError(t, db.Close())
			synctest.Wait()
			for _, s := range p.spans.Ended() {
				shown += fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
			}
			shown += fmt.Sprint(p.collect(t), log.take())
			assert.NotContains(t, shown, secret)
			assert.NotContains(t, shown, "jane")
		})
	}
}
