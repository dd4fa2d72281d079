//go:build jaeger || pictures

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file is the traces, as a real Jaeger answers them. Jaeger takes minutes
// to build, so that this runs on demand: make jaeger.

const jaegerConfiguration = `
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {metrics: {level: none}}
extensions:
  jaeger_storage: {backends: {memory: {memory: {max_traces: 100000}}}}
  jaeger_query: {storage: {traces: memory}, http: {endpoint: %[1]q}, grpc: {endpoint: %[2]q}}
receivers: {otlp: {protocols: {grpc: {endpoint: %[3]q}}}}
exporters: {jaeger_storage_exporter: {trace_storage: memory}}
`

// waiting is how many traces of callers that waited the tests look at.
const waiting = 5

func TestJaegerShowsTheWaitApartFromTheQuery(t *testing.T) {
	ctx, jaeger, demo := collect(t)
	crowd(ctx, t, demo, 20)
	var found []jaegerTrace
	eventually(ctx, t, func() (err error) {
		found, err = jaeger.traces(ctx, "GET /report", "pool.queue")
		return atLeast(waiting, found, err)
	})
	for _, trace := range found {
		request, acquire, query := trace.span(t, "GET /report"), trace.span(t, "pool.acquire"), trace.span(t, "SELECT sqllease_demo_orders")
		queue := trace.span(t, "pool.queue")
		assert.True(t, acquire.childOf(request) && query.childOf(request) && queue.childOf(acquire))
		assert.LessOrEqual(t, acquire.end(), query.StartTime+rounding, "first the connection, then the query")
		assert.LessOrEqual(t, acquire.Duration+query.Duration, request.Duration+rounding)
		assert.LessOrEqual(t, queue.Duration, acquire.Duration+rounding)
		assert.InDelta(t, acquire.Duration, acquire.parts(), 2000, "its parts are attributes too")
		assert.Equal(t, "mysql", acquire.tag("db.system.name"))
		assert.Equal(t, "shop", query.tag("db.client.connection.pool.name"))
		assert.NotContains(t, query.tag("db.query.text"), "0.35", "no literal")
	}
	// The query sleeps for 350 ms: next to nothing of the request is neither.
	slices.SortFunc(found, func(a, b jaegerTrace) int { return cmp.Compare(a.explained(t), b.explained(t)) })
	assert.Greater(t, found[waiting/2].explained(t), 0.9, "wait and query are what the request did")
	t.Logf("a trace:\n%s", found[waiting/2].tree())
}

func TestJaegerShowsATransactionAndItsStatements(t *testing.T) {
	ctx, jaeger, _ := collect(t)
	var found []jaegerTrace
	eventually(ctx, t, func() (err error) {
		found, err = jaeger.traces(ctx, "POST /orders", "commit")
		return atLeast(1, found, err)
	})
	trace := found[0]
	t.Logf("a trace:\n%s", trace.tree())
	request, tx := trace.span(t, "POST /orders"), trace.span(t, "transaction")
	assert.True(t, tx.childOf(request))
	assert.Equal(t, "committed", tx.tag("sqllease.tx.outcome"))
	for _, name := range []string{
		"begin", "INSERT sqllease_demo_orders SELECT sqllease_demo_products", "UPDATE sqllease_demo_products", "DELETE sqllease_demo_orders", "commit",
	} {
		part := trace.span(t, name)
		assert.True(t, part.childOf(tx), name)
		assert.GreaterOrEqual(t, part.StartTime, tx.StartTime, name)
		assert.LessOrEqual(t, part.end(), tx.end()+rounding, name)
	}
}

// collect starts a Jaeger, and the demo, which sends its traces there.
func collect(t *testing.T) (ctx context.Context, jaeger jaegerAPI, demo string) {
	t.Helper()
	program, err := filepath.Abs("../../.cache/jaeger-v1.76.0/jaeger")
	require.NoError(t, err)
	require.FileExists(t, program, "run scripts/install-jaeger.sh")
	binary := build(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*patience, fmt.Errorf("not within %v", 2*patience))
	t.Cleanup(cancel)
	jaeger, demo = jaegerAPI(freeAddr(t)), freeAddr(t)
	otlp := freeAddr(t)
	config := filepath.Join(t.TempDir(), "jaeger.yaml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, jaegerConfiguration, jaeger, freeAddr(t), otlp), 0o600))
	ctx = start(ctx, t, "env", "OTEL_TRACES_SAMPLER=always_off", program, "--config", config) // it would trace itself
	eventually(ctx, t, func() error { return jaeger.get(ctx, "services", nil, new([]string)) })
	return start(ctx, t, binary, "-duration", "15s", "-serve", "-otlp", otlp, "-port", port(t, demo)), jaeger, demo
}

// build builds the demo.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "demo")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = "../../demo"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "the demo does not build:\n%s", out)
	return program
}

// port is the port of an address.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return port
}

// crowd asks the demo for its slow report, n requests at any time, until the
// function that it returns is called: more than the pool has connections for.
func crowd(ctx context.Context, t *testing.T, demo string, n int) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for ctx.Err() == nil {
				request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+demo+"/report", nil)
				if !assert.NoError(t, err) {
					return
				}
				if response, err := http.DefaultClient.Do(request); err == nil {
					_ = response.Body.Close()
				}
			}
		})
	}
	leave = func() {
		cancel()
		all.Wait()
	}
	t.Cleanup(leave)
	return leave
}

// jaegerAPI is the address of Jaeger's query API.
type jaegerAPI string

// traces returns those of an operation that have a span of that name.
func (j jaegerAPI) traces(ctx context.Context, operation, with string) (found []jaegerTrace, err error) {
	err = j.get(ctx, "traces", url.Values{"service": {"sqllease-demo"}, "operation": {operation}, "limit": {"1000"}}, &found)
	return slices.DeleteFunc(found, func(trace jaegerTrace) bool {
		has := func(name string) bool {
			return slices.ContainsFunc(trace.Spans, func(s span) bool { return s.OperationName == name })
		}
		return !has(operation) || !has(with)
	}), err
}

func atLeast(n int, found []jaegerTrace, err error) error {
	if err == nil && len(found) < n {
		return fmt.Errorf("%d traces, and not %d", len(found), n)
	}
	return err
}

func (j jaegerAPI) get(ctx context.Context, what string, values url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+string(j)+"/api/"+what+"?"+values.Encode(), nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("Jaeger answers %s", response.Status)
	}
	return json.NewDecoder(response.Body).Decode(&struct{ Data any }{into})
}

// jaegerTrace is one of the query API's.
type jaegerTrace struct {
	TraceID string `json:"traceID"`
	Spans   []span `json:"spans"`
}

// span is a span of a trace; its times are in microseconds.
type span struct {
	SpanID        string      `json:"spanID"`
	OperationName string      `json:"operationName"`
	StartTime     int64       `json:"startTime"`
	Duration      int64       `json:"duration"`
	References    []reference `json:"references"`
	Tags          []tag       `json:"tags"`
}

type reference struct {
	RefType string `json:"refType"`
	SpanID  string `json:"spanID"`
}

type tag struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// rounding is what times may differ by that Jaeger cuts to microseconds.
const rounding = 2

// span returns the first of that name.
func (j jaegerTrace) span(t *testing.T, name string) span {
	t.Helper()
	i := slices.IndexFunc(j.Spans, func(s span) bool { return s.OperationName == name })
	require.GreaterOrEqual(t, i, 0, "no %s in\n%s", name, j.tree())
	return j.Spans[i]
}

// explained is the share of the request that is its wait and its query.
func (j jaegerTrace) explained(t *testing.T) float64 {
	t.Helper()
	return float64(j.span(t, "pool.acquire").Duration+j.span(t, "SELECT sqllease_demo_orders").Duration) /
		float64(j.span(t, "GET /report").Duration)
}

// tree is a trace as text.
func (j jaegerTrace) tree() string {
	var out strings.Builder
	j.walk(func(s span, depth int) {
		fmt.Fprintf(&out, "%-44s %10v\n", strings.Repeat("  ", depth)+s.OperationName, s.took())
	})
	return out.String()
}

// walk shows all spans, each before its children, and those in order of time.
func (j jaegerTrace) walk(show func(s span, depth int)) {
	byStart := slices.SortedFunc(slices.Values(j.Spans), func(a, b span) int { return cmp.Compare(a.StartTime, b.StartTime) })
	var level func(depth int, in func(span) bool)
	level = func(depth int, in func(span) bool) {
		for _, s := range byStart {
			if in(s) {
				show(s, depth)
				level(depth+1, func(child span) bool { return child.childOf(s) })
			}
		}
	}
	level(0, func(s span) bool { return !slices.ContainsFunc(s.References, reference.isParent) })
}

func (r reference) isParent() bool { return r.RefType == "CHILD_OF" }

func (s span) took() time.Duration { return time.Duration(s.Duration) * time.Microsecond }

func (s span) end() int64 { return s.StartTime + s.Duration }

func (s span) childOf(parent span) bool { return s.refersTo("CHILD_OF", parent) }

func (s span) refersTo(kind string, other span) bool {
	return slices.Contains(s.References, reference{kind, other.SpanID})
}

func (s span) tag(key string) any {
	for _, t := range s.Tags {
		if t.Key == key {
			return t.Value
		}
	}
	return nil
}

// parts is the sum of the parts of an acquire, in microseconds.
func (s span) parts() (sum float64) {
	for _, part := range []string{"queue", "dial", "reset"} {
		seconds, _ := s.tag("sqllease.acquire." + part).(float64)
		sum += seconds * 1e6
	}
	return sum
}
