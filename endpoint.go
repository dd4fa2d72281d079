package sqllease

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.39.0"

	"github.com/sqllease/sqllease/internal/drivers"
)

// endpointAttributes are what the conventions say of where a pool connects.
func endpointAttributes(e drivers.Endpoint) (attrs []attribute.KeyValue) {
	if e.Namespace != "" {
		attrs = append(attrs, semconv.DBNamespace(e.Namespace))
	}
	if e.Address != "" {
		attrs = append(attrs, semconv.ServerAddress(e.Address))
	}
	if e.Address != "" && e.Port != 0 {
		attrs = append(attrs, semconv.ServerPort(e.Port))
	}
	return attrs
}
