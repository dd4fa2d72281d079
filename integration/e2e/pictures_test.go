//go:build pictures

package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// This file asks a real Prometheus what the dashboard asks it, about a service
// on a good day and in an outage. scripts/draw-dashboard.sh draws the
// answers with Grafana's own components: make pictures.

// The outage: the server fails over and is full, then slow, while many callers
// come.
const (
	good    = 70 * time.Second
	full    = 8 * time.Second
	lagging = 40 * time.Second
)

var statements = []string{
	"SELECT id, total FROM orders WHERE customer = 1", "SELECT name FROM products WHERE id = 7",
	"UPDATE products SET stock = 3 WHERE id = 7", "INSERT INTO orders (customer) VALUES (1)",
}

// shop is a server on which each statement takes that long.
func shop(took time.Duration) mysqlscript.Script {
	script := mysqlscript.Script{Statements: map[string]mysqlscript.Answer{}}
	for i, statement := range statements {
		answer := mysqlscript.OK()
		if strings.HasPrefix(statement, "SELECT") {
			answer = mysqlscript.Rows("value", "a", "b", "c", "d", "e", "f")
		}
		script.Statements[statement] = mysqlscript.After(took*time.Duration(1+i), answer)
	}
	return script
}

func TestDrawDashboard(t *testing.T) {
	const out = "../../.cache/pictures/answers"
	require.NoError(t, os.MkdirAll(out, 0o755))
	config := sqllease.Config{MaxOpen: 16, AcquireTimeout: 2 * time.Second, LeakThreshold: 5 * time.Second, SlowCallThreshold: time.Second}
	all := scene{name: "shop", config: config, script: shop(2 * ms), instances: []string{"shop-1:8080", "shop-2:8080"}}
	instances := map[string][]*instance{"shop": all.launch(t)}
	one := instances["shop"][0]
	targets, many := targets([]scene{all}, instances)
	ctx, prom := scrape(t.Context(), t, targets, many)
	began := time.Now()
	acting, stop := context.WithCancel(ctx)
	for _, i := range instances["shop"] {
		i.call(acting, 6, 25*ms, visit)
	}
	wait(ctx, good)
	saveAnswers(ctx, t, prom, began, filepath.Join(out, "quiet.json"))

	require.NoError(t, leak(ctx, one.process.Load().db))
	one.server.Change(func(s *mysqlscript.Script) { s.Greeting = mysqlscript.Fail(1040, "Too many connections") })
	one.server.EndAll(mysqlscript.RST)
	one.call(acting, 120, 50*ms, visit)
	wait(ctx, full)
	one.server.Change(func(s *mysqlscript.Script) { *s = shop(150 * ms) })
	wait(ctx, lagging)
	saveAnswers(ctx, t, prom, began, filepath.Join(out, "outage.json"))
	stop()
	one.callers.Wait()
}

// visit runs one of the statements, some of them in a transaction.
func visit(ctx context.Context, db *sql.DB) error {
	n := int(time.Now().UnixMicro()) % len(statements)
	if !strings.HasPrefix(statements[n], "SELECT") {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // it is committed, or failed
		if _, err := tx.ExecContext(ctx, statements[n]); err != nil {
			return err
		}
		return tx.Commit()
	}
	rows, err := db.QueryContext(ctx, statements[n])
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
	}
	return rows.Err()
}

// saveAnswers saves what Prometheus answers to each query of the dashboard.
func saveAnswers(ctx context.Context, t *testing.T, prom v1.API, began time.Time, path string) {
	t.Helper()
	during := v1.Range{Start: began, End: time.Now(), Step: 500 * time.Millisecond}
	answers := map[string][]model.Matrix{}
	for _, p := range readDashboard(t).Panels {
		for _, query := range p.Targets {
			expr := strings.TrimPrefix(of("shop", query.Expr), "sort_desc")
			answers[p.Title] = append(answers[p.Title], matrix(ctx, t, prom, expr, during))
		}
	}
	text, err := json.Marshal(map[string]any{"from": during.Start.UnixMilli(), "to": during.End.UnixMilli(), "answers": answers})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, text, 0o600))
}
