package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// This file is the expressions, as the dashboard has them.

// dashboard is what the tests read of Grafana's model.
type dashboard struct {
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
	Annotations struct {
		List []struct{ Name, Expr string }
	}
}

type panel struct {
	Title, Type string
	Targets     []target
	FieldConfig struct{ Defaults struct{ Unit string } }
}

type target struct{ Expr, LegendFormat string }

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboards + "sqllease.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// of is an expression with the values that a reader chose: a service, all of its
// instances and pools, and an interval that fits a run of seconds.
func of(job, expr string) string {
	expr = strings.NewReplacer("$__rate_interval", "5s", "$job", job, "$instance", ".*", "$pool", ".*").Replace(expr)
	return faster(expr)
}

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

// legend fills in a legend's labels.
func legend(format string, labels model.Metric) string {
	return strings.TrimSpace(legendLabel.ReplaceAllStringFunc(format, func(label string) string {
		return string(labels[model.LabelName(strings.Trim(label, "{}"))])
	}))
}

// variable is a query of the dashboard for the values of a label.
type variable struct{ name, series, label string }

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// variables returns those that are queried, for a service.
func (d dashboard) variables(t *testing.T, job string) (out []variable) {
	t.Helper()
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		require.NotNil(t, m, "variable %s: %s", v.Name, v.Definition)
		out = append(out, variable{v.Name, of(job, m[1]), m[2]})
	}
	require.NotEmpty(t, out)
	return out
}

// minutes are windows, offsets and patience of expressions and alerts.
var minutes = regexp.MustCompile(`(\[|offset |for: )(\d+)m\b`)

// faster lets a minute pass in two seconds.
func faster(text string) string {
	return minutes.ReplaceAllStringFunc(text, func(found string) string {
		m := minutes.FindStringSubmatch(found)
		return m[1] + seconds(m[2])
	})
}
