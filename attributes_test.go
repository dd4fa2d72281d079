package sqllease

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
)

type tenantKey struct{}

func tenantOf(ctx context.Context) []attribute.KeyValue {
	if tenant, ok := ctx.Value(tenantKey{}).(string); ok {
		return []attribute.KeyValue{attribute.String("tenant", tenant)}
	}
	return nil
}

func TestTheApplicationsAttributesAreOnSpansAndMetrics(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{
		Attributes:       []attribute.KeyValue{attribute.String("team", "orders")},
		SpanAttributes:   tenantOf,
		MetricAttributes: tenantOf,
	})
	exec(t, context.WithValue(underParent(t), tenantKey{}, "acme"), p.db, "DO 1")
	exec(t, underParent(t), p.db, "DO 2")
	spans := p.takeAll()
	require.Equal(t, []string{"pool.dial", "pool.acquire", "DO", "DO"}, spanNames(spans))
	for i, s := range spans {
		got := spanAttributes(s)
		assert.Equal(t, "orders", got["team"], s.Name())
		if i < 3 {
			assert.Equal(t, "acme", got["tenant"], s.Name())
		} else {
			assert.NotContains(t, got, "tenant")
		}
	}
	for _, m := range p.collect(t) {
		for _, set := range attributeSets(m) {
			team, _ := set.Value("team")
			assert.Equal(t, "orders", team.AsString(), m.Name)
		}
	}
	assert.Equal(t, []string{"acme"}, p.values(t, "db.client.operation.duration", "tenant"))
	assert.Equal(t, []string{"acme"}, p.values(t, "db.client.connection.wait_time", "tenant"))
}

func TestAnApplicationThatMakesUpValuesMakesUpNoSeries(t *testing.T) {
	p := newTelemetryPool(t, &telemetryFake{}, Config{MetricAttributes: tenantOf})
	for i := range 2 * mostValues {
		exec(t, context.WithValue(t.Context(), tenantKey{}, fmt.Sprint(i)), p.db, "DO 1")
	}
	assert.Len(t, p.values(t, "db.client.operation.duration", "tenant"), mostValues)
	assert.Equal(t, uint64(2*mostValues), p.total(t, "db.client.operation.duration"), "what is not told apart is counted all the same")
}

func TestAttributesThatAreTheLibrarysOwnAreRefused(t *testing.T) {
	for _, key := range []attribute.Key{"", "db.system.name", "server.address", "db.client.connection.pool.name", "sqllease.hold", "error.type"} {
		_, err := Wrap(&telemetryFake{}, Config{Attributes: []attribute.KeyValue{key.String("x")}})
		var refused *ConfigError
		require.ErrorAs(t, err, &refused, string(key))
		assert.Equal(t, "Attributes", refused.Field)
	}
}
