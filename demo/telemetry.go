package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// This file is the OpenTelemetry SDK: where spans and metrics go.

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
