package e2e

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// This file is the table of what the panels showed, and which alerts fired.

// table has a column for each scene.
type table struct {
	columns []string
	rows    []string                      // the panels' series, in order
	units   map[string]string             // of a row
	values  map[string]map[string]float64 // row → column → the highest value
	fired   map[string][]string           // column → alerts
	silent  []string                      // queries that answered in no scene
}

// ask asks Prometheus what every panel showed during the run, scene by scene.
func ask(ctx context.Context, t *testing.T, prom v1.API, all []scene, during v1.Range) *table {
	t.Helper()
	out := &table{units: map[string]string{}, values: map[string]map[string]float64{}, fired: map[string][]string{}}
	for _, s := range all {
		out.columns = append(out.columns, s.name)
	}
	for _, p := range readDashboard(t).Panels {
		for _, query := range p.Targets {
			before := len(out.rows)
			for _, s := range all {
				expr := strings.TrimPrefix(of(s.name, query.Expr), "sort_desc") // which only an instant has
				for _, series := range matrix(ctx, t, prom, expr, during) {
					out.add(p, legend(query.LegendFormat, series.Metric), s.name, series)
				}
			}
			if len(out.rows) == before {
				out.silent = append(out.silent, p.Title+": "+query.Expr)
			}
		}
	}
	for _, a := range readDashboard(t).Annotations.List {
		for _, s := range all {
			if a.Expr == "" {
				continue
			}
			for _, series := range matrix(ctx, t, prom, of(s.name, a.Expr), during) {
				m := series.Metric
				out.fired[s.name] = append(out.fired[s.name],
					legend("{{alertname}} {{instance}} {{sqllease_leak_class}}{{sqllease_leftover_kind}}{{error_type}}", m))
			}
		}
	}
	return out
}

// matrix evaluates an expression, which must be accepted.
func matrix(ctx context.Context, t *testing.T, prom v1.API, expr string, during v1.Range) model.Matrix {
	t.Helper()
	answer, warnings, err := prom.QueryRange(ctx, expr, during)
	require.NoError(t, err, expr)
	require.Empty(t, warnings, expr)
	return answer.(model.Matrix)
}

// add enters the highest of a series' values, if it has any.
func (b *table) add(p panel, legend, column string, series *model.SampleStream) {
	highest := math.Inf(-1)
	for _, v := range series.Values {
		if !math.IsNaN(float64(v.Value)) {
			highest = max(highest, float64(v.Value))
		}
	}
	if math.IsInf(highest, -1) {
		return
	}
	row := p.Title
	if legend != p.Title {
		row += ": " + legend
	}
	if b.values[row] == nil {
		b.values[row] = map[string]float64{}
		b.rows = append(b.rows, row)
		b.units[row] = p.FieldConfig.Defaults.Unit
	}
	b.values[row][column] = highest
}

// shown returns a row's value. A * in the row's name stands for anything.
func (b *table) shown(row, column string) (value float64, found bool) {
	before, after, some := strings.Cut(row, "*")
	for _, name := range b.rows {
		matches := name == row || some && strings.HasPrefix(name, before) && strings.HasSuffix(name, after)
		if value, found = b.values[name][column]; matches && found {
			return value, true
		}
	}
	return 0, false
}

const columnWidth = 10

// String is the table as text.
func (b *table) String() string {
	var out strings.Builder
	line := func(name string, cell func(column string) string) {
		fmt.Fprintf(&out, "%-62s", name)
		for _, column := range b.columns {
			fmt.Fprintf(&out, "%*s", columnWidth, cell(column))
		}
		out.WriteString("\n")
	}
	line("", func(column string) string { return column })
	alerts := map[string]bool{}
	for _, fired := range b.fired {
		for _, alert := range fired {
			alerts[alert] = true
		}
	}
	for _, alert := range slices.Sorted(maps.Keys(alerts)) {
		line("fires "+alert, func(column string) string {
			if slices.Contains(b.fired[column], alert) {
				return "fires"
			}
			return ""
		})
	}
	for _, row := range b.rows {
		line(row, func(column string) string {
			value, found := b.values[row][column]
			if !found {
				return "-"
			}
			return said(value, b.units[row])
		})
	}
	return out.String()
}

// said is a value in its unit, in few characters.
func said(value float64, unit string) string {
	switch unit {
	case "s":
		return time.Duration(value * float64(time.Second)).Round(rough(value)).String()
	case "percentunit":
		return fmt.Sprintf("%.1f%%", 100*value)
	case "suffix:/s":
		return fmt.Sprintf("%.1f/s", value)
	}
	return fmt.Sprintf("%.4g", value)
}

// rough is a hundredth of a number of seconds, or less.
func rough(value float64) time.Duration {
	if value <= 0 {
		return time.Second
	}
	return time.Duration(math.Pow(10, math.Floor(math.Log10(value))-2) * float64(time.Second))
}
