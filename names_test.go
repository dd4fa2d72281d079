package sqllease

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// named is a connector that keeps its data source name.
type named struct {
	telemetryFake
	name string
}

func TestWhatIsToldOfTheServerCounts(t *testing.T) {
	c := &named{name: "host=db port=5433 dbname=shop"}
	p := newTelemetryPool(t, c, Config{ServerAddress: "proxy", Namespace: "orders"})
	exec(t, underParent(t), p.db, "DO 1")
	s := spanAttributes(p.take()[1])
	assert.Equal(t, "proxy", s["server.address"])
	assert.NotContains(t, s, "server.port", "it is the database's, and not the proxy's")
	assert.Equal(t, "orders", s["db.namespace"])
	assert.Equal(t, []string{"proxy"}, p.values(t, "db.client.operation.duration", "server.address"))
	assert.Empty(t, p.values(t, "db.client.connection.wait_time", "server.address"), "a pool has its name")
}
