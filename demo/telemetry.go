package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// This file is the OpenTelemetry SDK: where spans and metrics go, and what the
// demo itself reads out of its spans.

// telemetry holds the providers that the service and sqllease report to.
type telemetry struct {
	spans    *spanFold
	traces   *sdktrace.TracerProvider
	metrics  *metric.MeterProvider
	registry *prometheus.Registry
}

// newTelemetry sets up the SDK. Traces also go to the collector at otlp, if
// that is not empty.
func newTelemetry(ctx context.Context, otlp string) (*telemetry, error) {
	t := &telemetry{spans: newSpanFold(), registry: prometheus.NewRegistry()}
	service := resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName("sqllease-demo"))
	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(service), sdktrace.WithSpanProcessor(t.spans)}
	if otlp != "" {
		exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(otlp), otlptracegrpc.WithInsecure())
		if err != nil {
			return nil, err
		}
		options = append(options, sdktrace.WithBatcher(exporter))
	}
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(t.registry))
	if err != nil {
		return nil, err
	}
	t.traces = sdktrace.NewTracerProvider(options...)
	t.metrics = metric.NewMeterProvider(metric.WithResource(service), metric.WithReader(reader))
	return t, nil
}

// instrument gives each request to routes a span named by its route.
func (t *telemetry) instrument(routes http.Handler) http.Handler {
	return otelhttp.NewHandler(routes, "request",
		otelhttp.WithTracerProvider(t.traces),
		otelhttp.WithMeterProvider(t.metrics),
		otelhttp.WithSpanNameFormatter(func(operation string, r *http.Request) string {
			if r.Pattern == "" {
				return operation
			}
			return r.Pattern
		}))
}

// scrape answers Prometheus.
func (t *telemetry) scrape() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

func (t *telemetry) close(ctx context.Context) error {
	if err := errors.Join(t.traces.Shutdown(ctx), t.metrics.Shutdown(ctx)); err != nil {
		return fmt.Errorf("OpenTelemetry: the last traces could not be delivered: %w", err)
	}
	return nil
}

// sqlleaseScope is the instrumentation scope of sqllease's spans.
const sqlleaseScope = "github.com/sqllease/sqllease"

// spanFold is a span processor that folds the spans of each request into the
// figures of its endpoint: what it spent waiting for a connection, and what
// in the database.
type spanFold struct {
	mu        sync.Mutex
	open      map[trace.TraceID]*request // guarded by mu: requests in flight
	endpoints map[string]*figures        // guarded by mu
}

// request is what is known of a request while its span is open.
type request struct {
	span           trace.SpanID
	wait, querying time.Duration
}

// figures are those of one endpoint.
type figures struct {
	total, wait, querying durations
}

func newSpanFold() *spanFold {
	return &spanFold{open: map[trace.TraceID]*request{}, endpoints: map[string]*figures{}}
}

// OnStart remembers a request.
func (f *spanFold) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	if !isRequest(s) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[s.SpanContext().TraceID()] = &request{span: s.SpanContext().SpanID()}
}

// OnEnd adds a span of sqllease to its request, and a request to its endpoint.
func (f *spanFold) OnEnd(s sdktrace.ReadOnlySpan) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.open[s.SpanContext().TraceID()]
	took := s.EndTime().Sub(s.StartTime())
	switch {
	case r == nil: // its request is over: these are rows that were left open
	case isRequest(s):
		delete(f.open, s.SpanContext().TraceID())
		f.endpointLocked(s.Name()).add(took, r.wait, r.querying)
	case s.InstrumentationScope().Name != sqlleaseScope:
	case slices.Contains(covering, s.Name()):
	case s.Name() == "pool.acquire":
		r.wait += took
	default:
		r.querying += took
	}
}

// Shutdown has nothing to do.
func (f *spanFold) Shutdown(context.Context) error { return nil }

// ForceFlush has nothing to do.
func (f *spanFold) ForceFlush(context.Context) error { return nil }

// covering are spans of time that other spans cover as well.
var covering = []string{"sqllease.leak", "transaction", "pool.queue", "pool.dial", "pool.reset"}

func isRequest(s sdktrace.ReadOnlySpan) bool {
	return !s.Parent().IsValid() && s.SpanKind() == trace.SpanKindServer
}

// snapshot returns the figures so far, by endpoint.
func (f *spanFold) snapshot() map[string]*figures {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[string]*figures, len(f.endpoints))
	for name, e := range f.endpoints {
		out[name] = &figures{e.total.clone(), e.wait.clone(), e.querying.clone()}
	}
	return out
}

// endpointLocked returns the figures of an endpoint.
func (f *spanFold) endpointLocked(name string) *figures {
	e := f.endpoints[name]
	if e == nil {
		e = &figures{}
		f.endpoints[name] = e
	}
	return e
}

func (e *figures) add(total, wait, querying time.Duration) {
	e.total.add(total)
	e.wait.add(wait)
	e.querying.add(querying)
}

// durations counts durations in classes that are 1 % wide, so that a run of
// any length fits in memory. Its sum is exact.
type durations struct {
	classes map[int]int // class → how many
	n       int
	sum     time.Duration
}

const classWidth = 1.01

func (d *durations) add(x time.Duration) {
	if d.classes == nil {
		d.classes = map[int]int{}
	}
	d.classes[classOf(x)]++
	d.n++
	d.sum += x
}

func (d *durations) clone() durations {
	return durations{maps.Clone(d.classes), d.n, d.sum}
}

// classOf numbers the class of x; those of zero and of a nanosecond are 0.
func classOf(x time.Duration) int {
	return int(math.Round(math.Log(float64(max(x, 1))) / math.Log(classWidth)))
}

// percentile returns the smallest duration that a share q of them, 0 < q ≤ 1,
// does not exceed, to within half a class.
func (d *durations) percentile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(d.n)))
	seen := 0
	for _, class := range sortedKeys(d.classes) {
		if seen += d.classes[class]; seen >= rank {
			return time.Duration(math.Pow(classWidth, float64(class)))
		}
	}
	return 0
}
