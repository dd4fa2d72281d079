package sqllease

import "go.opentelemetry.io/otel/sdk/trace/tracetest"

func newRecorder() *tracetest.SpanRecorder { return tracetest.NewSpanRecorder() }
