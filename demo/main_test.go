package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

// TestMain fails if anything runs on after the tests. The planted mistake
// leaks connections of the MySQL driver, each with a goroutine that watches
// it: nobody can end those but the application that leaked them.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/go-sql-driver/mysql.(*mysqlConn).startWatcher.func1"))
}

// quick is a run of some seconds.
func quick() options {
	return options{
		duration:      13 * time.Second,
		idleLimit:     2 * time.Second,
		leakThreshold: 2 * time.Second,
		longCall:      time.Second,
		progress:      time.Second,
	}
}

func TestAWholeRunSeesAllThereIsToSee(t *testing.T) {
	traces := startCollector(t)
	opt := quick()
	opt.otlp = traces.addr
	var out bytes.Buffer
	r, err := demo(t.Context(), opt, &out)
	require.NoError(t, err)
	t.Log(out.String())

	assert.Empty(t, r.wrong())
	assert.Empty(t, r.counts.failures)
	for _, l := range r.lessons() {
		assert.Empty(t, l.missing, l.title)
	}
	assert.Contains(t, out.String(), "\nPASS: all 6 were seen;")
	assert.NotContains(t, out.String(), "FAIL")

	line := func(function, text string) string {
		return fmt.Sprintf("demo/app.go:%d demo.(*shop).%s", lineOf(t, "(s *shop) "+function+"(", text), function)
	}
	leak := line("export", "s.db.QueryContext(")
	require.Len(t, r.leaks, 1)
	assert.Equal(t, leak, r.leaks[0].place)
	assert.Equal(t, disputed, r.leaks[0].count)
	assert.Contains(t, out.String(), "as fmt.Println(leak) prints it in Config.OnLeak:\n\nsqllease: pool \"shop\": leaked connection")
	assert.Contains(t, out.String(), "\n  taken by   "+leak+"\n")
	assert.Equal(t, line("invoice", "s.db.BeginTx("), r.nested[0].holder)
	assert.Equal(t, line("find", "s.db.QueryRowContext("), r.nested[0].waiter)
	assert.Regexp(t, `(raise the limit from 8 to at least|the limit of 8 is enough for) \d+`, r.nested[0].fix)
	slow := line("statistics", "s.db.QueryRowContext(")
	assert.Positive(t, at(r.slow, slow).count)
	assert.Contains(t, at(r.slow, slow).fix, "it waits for no lock", "the server was asked, and all of it was answered")

	delivery, stocktaking := line("delivery", "s.db.Conn("), line("stocktaking", "s.db.Conn(")
	assert.Zero(t, at(r.slow, delivery), "it waits for a lock, so it is told apart")
	require.Len(t, r.blocked, 1)
	assert.Equal(t, []string{delivery, stocktaking}, []string{r.blocked[0].waiter, r.blocked[0].holder})
	assert.Regexp(t, `\n  blocked by advisory lock: connection \d+ of pool "shop" \(lease \d+\), taken by `+regexp.QuoteMeta(stocktaking)+`, unused for 1\.\d+s; `, out.String())
	assert.Contains(t, r.blocked[0].fix, "it waits for the code at "+stocktaking+": release its lock, or end its transaction, on every path")
	assert.Empty(t, r.remedies)
	for _, place := range []string{leak, r.nested[0].holder, r.nested[0].waiter, slow, delivery, stocktaking} {
		assert.Contains(t, out.String(), place)
	}

	assert.Equal(t, 2*time.Second, r.stats.IdleLimit)
	assert.Less(t, r.stats.Lifetime, 2*time.Second)
	for _, e := range endpoints {
		if f := r.rush[e.name]; assert.NotNil(t, f, e.name) {
			assert.NotZero(t, f.querying.p99(), e.name)
		}
		assert.Contains(t, traces.spans(), e.name)
	}
	assert.Contains(t, traces.spans(), "pool.acquire")
	assert.Contains(t, traces.spans(), "sqllease.leak")
	assert.Contains(t, traces.spans(), "sqllease.slow_call")
}

func TestCtrlCEndsARunWithItsReport(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out := &watchedOutput{text: "steady", seen: interrupt}
	r, err := demo(ctx, quick(), out)
	require.NoError(t, err)
	assert.Empty(t, r.wrong())
	assert.Positive(t, r.counts.sent)
	assert.False(t, r.whole)
	assert.Equal(t, 1, strings.Count(out.String(), "What the demo showed in"))
	assert.Contains(t, out.String(), " s of 13 s (interrupted)")
	assert.Contains(t, out.String(), "not due yet")
	assert.Contains(t, out.String(), "\nPASS: ")
}

func TestServingEndsWithWhatCameAfterTheReport(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	opt := quick()
	opt.serve = true
	out := &watchedOutput{text: "until Ctrl-C", seen: interrupt}
	r, err := demo(ctx, opt, out)
	require.NoError(t, err)
	t.Log(out.String())
	assert.Empty(t, r.wrong())
	assert.True(t, r.whole)
	assert.Equal(t, 1, strings.Count(out.String(), "What the demo showed in 13 s,"))
	_, closing, found := strings.Cut(out.String(), "until Ctrl-C")
	require.True(t, found)
	assert.Contains(t, closing, "Since the report: ")
	assert.Contains(t, closing, "\nPASS\n")
	assert.Less(t, strings.Count(closing, "\n"), 6, closing)
}

// watchedOutput calls seen when text is written to it.
type watchedOutput struct {
	bytes.Buffer
	text string
	seen func()
}

func (o *watchedOutput) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(o.text)) {
		o.seen()
	}
	return o.Buffer.Write(p)
}

func TestMetricsAreServedForPrometheus(t *testing.T) {
	d := &demonstration{opt: quick(), out: io.Discard, journal: newJournal(), findings: newFindings()}
	defer func() { assert.NoError(t, d.stop()) }()
	require.NoError(t, d.start(t.Context()))
	defer http.DefaultClient.CloseIdleConnections()

	assert.Contains(t, get(t, d.load.url+"/products/7"), `"Product 7"`)
	metrics := get(t, d.load.url+"/metrics")
	for _, name := range []string{
		"db_client_connection_count", "db_client_operation_duration_seconds", "http_server_request_duration_seconds",
	} {
		assert.True(t, strings.Contains(metrics, name), "no metric %s", name)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-help"}, 0, "-duration"},
		{[]string{"-nonsense"}, 2, "-nonsense"},
		{[]string{"rest"}, 2, `"rest"`},
		{[]string{"-duration", "1s"}, 2, "-duration"},
		{[]string{"-port", "70000"}, 2, "-port"},
		{[]string{"-otlp", "localhost"}, 2, "-otlp"},
		{[]string{"-dsn", "nonsense"}, 1, "-dsn"},
		{[]string{"-dsn", "root@tcp(127.0.0.1:1)/"}, 1, "no database"},
		{[]string{"-dsn", "root@tcp(127.0.0.1:1)/shop"}, 1, "127.0.0.1:1"},
	} {
		var stdout, stderr bytes.Buffer
		assert.Equal(t, c.code, run(t.Context(), c.args, &stdout, &stderr), "%q", c.args)
		assert.Contains(t, stderr.String(), c.says, "%q", c.args)
		assert.Empty(t, stdout.String(), "%q", c.args)
	}
}

func TestAnInterruptionBeforeTheStartIsNoError(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var stdout, stderr bytes.Buffer
	assert.Zero(t, run(ctx, nil, &stdout, &stderr))
	assert.Contains(t, stdout.String(), "Interrupted")
	assert.Empty(t, stderr.String())
}

// lineOf returns the line of app.go with text, the first after the one with
// function.
func lineOf(t *testing.T, function, text string) int {
	t.Helper()
	source, err := os.ReadFile("app.go")
	require.NoError(t, err)
	inside := false
	for i, line := range strings.Split(string(source), "\n") {
		inside = inside || strings.Contains(line, function)
		if inside && strings.Contains(line, text) {
			return i + 1
		}
	}
	t.Fatalf("app.go: no %q after %q", text, function)
	return 0
}

func get(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }() // it was read
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, res.StatusCode, string(body))
	return string(body)
}

// traceCollector receives traces by OTLP over gRPC and keeps the spans' names.
type traceCollector struct {
	collector.UnimplementedTraceServiceServer
	addr string

	mu    sync.Mutex
	names map[string]bool // guarded by mu
}

func startCollector(t *testing.T) *traceCollector {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &traceCollector{addr: l.Addr().String(), names: map[string]bool{}}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		assert.NoError(t, <-served)
	})
	return c
}

func (c *traceCollector) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.names[span.GetName()] = true
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (c *traceCollector) spans() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return sortedKeys(c.names)
}
