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
	for a, why := range map[attribute.KeyValue]string{
		attribute.String("", "x"):                               `sqllease: Attributes is "": an attribute needs a key; give it one, or remove it`,
		{Key: "team"}:                                           `sqllease: Attributes is "team": it has no value; give it one, or remove it`,
		attribute.String("db.system.name", "x"):                 `sqllease: Attributes is "db.system.name": remove it: sqllease sets it itself (Config.Dialect changes it)`,
		attribute.String("server.address", "x"):                 `sqllease: Attributes is "server.address": remove it: sqllease sets it itself (Config.ServerAddress changes it)`,
		attribute.String("db.client.connection.pool.name", "x"): `sqllease: Attributes is "db.client.connection.pool.name": remove it: sqllease sets it itself (Config.Name changes it)`,
		attribute.String("sqllease.hold", "x"):                  `sqllease: Attributes is "sqllease.hold": remove it: sqllease sets it itself`,
		attribute.String("error.type", "x"):                     `sqllease: Attributes is "error.type": remove it: sqllease sets it itself`,
	} {
		_, err := Wrap(&telemetryFake{}, Config{Attributes: []attribute.KeyValue{a}})
		var refused *ConfigError
		require.ErrorAs(t, err, &refused, a.Key)
		assert.EqualError(t, err, why)
	}
}
