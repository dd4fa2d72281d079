package e2e

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/stretchr/testify/require"
)

// This file is the expressions, as the dashboard and the rules have them.

// expression is one of the dashboard's or of the rules'.
type expression struct {
	name   string
	query  string
	labels []string // that its legend shows
}

// dashboard is what the tests read of Grafana's model.
type dashboard struct {
	Panels     []panel
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

type panel struct {
	Title, Type, Description string
	Targets                  []struct{ Expr, LegendFormat string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(dashboards + "sqllease.json")
	require.NoError(t, err)
	require.NotContains(t, string(text), "__inputs", "an import must ask nothing but the data source")
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// chosen is what the dashboard's variables stand for: all services and pools,
// and a short interval, since all happens within seconds.
var chosen = strings.NewReplacer("$__rate_interval", "10s", "$job", ".*", "$pool", ".*")

var legendLabel = regexp.MustCompile(`\{\{(\w+)\}\}`)

// expressions returns those of the panels.
func (d dashboard) expressions(t *testing.T) (out []expression) {
	t.Helper()
	for _, p := range d.Panels {
		if p.Type == "row" {
			continue
		}
		require.NotEmpty(t, p.Description, p.Title)
		for _, target := range p.Targets {
			e := expression{name: p.Title + ": " + target.LegendFormat, query: chosen.Replace(target.Expr)}
			require.NotContains(t, e.query, "$", "%s: a variable that the test does not know", e.name)
			for _, m := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				e.labels = append(e.labels, m[1])
			}
			out = append(out, e)
		}
	}
	require.NotEmpty(t, out)
	return out
}

// variable is a query of the dashboard for the values of a label.
type variable struct{ name, series, label string }

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// variables returns those that are queried.
func (d dashboard) variables(t *testing.T) (out []variable) {
	t.Helper()
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := labelValues.FindStringSubmatch(v.Definition)
		require.NotNil(t, m, "variable %s: %s", v.Name, v.Definition)
		out = append(out, variable{v.Name, chosen.Replace(m[1]), m[2]})
	}
	require.NotEmpty(t, out)
	return out
}

// ruleExpressions returns those of the rules that Prometheus has loaded.
func ruleExpressions(t *testing.T, rules v1.RulesResult) (out []expression) {
	t.Helper()
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			switch r := rule.(type) {
			case v1.RecordingRule:
				out = append(out, expression{name: r.Name, query: r.Query})
			case v1.AlertingRule:
				out = append(out, expression{name: r.Name, query: r.Query})
			default:
				t.Fatalf("%s: a rule of type %T", group.Name, rule)
			}
		}
	}
	require.NotEmpty(t, out)
	return out
}
