package livepage

import (
	"context"
	"database/sql"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// BenchmarkStep is one step of a page that somebody looks at: 10,000 leases are recorded, and 1,000
// connections open, half of them checked out.
func BenchmarkStep(b *testing.B) {
	db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{Name: "shop", MaxOpen: 1000, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	h := Handler(Pools(), Record(0)).(*handler)
	c, _ := sqllease.ConnectorOf(db)
	c.Record(DefaultRecord)
	h.settings.pools = []*sqllease.Connector{c}
	var held []*sql.Conn
	for range 1000 {
		conn, err := db.Conn(context.Background())
		require.NoError(b, err)
		held = append(held, conn)
	}
	for range 10 { // some of each
		for i, conn := range held {
			_, err := conn.ExecContext(context.Background(), "UPDATE t SET n = 1 WHERE id = 2")
			require.NoError(b, err)
			require.NoError(b, conn.Close())
			if held[i], err = db.Conn(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, conn := range held[500:] {
		require.NoError(b, conn.Close())
	}
	for name, query := range map[string]string{"40 tracks": "", "all tracks": "all"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			bytes := 0
			for b.Loop() {
				a := addressOf(nil)
				a.All = query == "all"
				for _, text := range h.changed(&a, time.Now(), map[string]string{}) {
					bytes += len(text)
				}
				h.steps.doc = nil // a step reads
			}
			b.ReportMetric(float64(bytes)/float64(b.N)/1000, "kB/step")
		})
	}
	for _, conn := range held[:500] {
		require.NoError(b, conn.Close())
	}
}
