package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file holds documents against what they are about: the versions that
// compose.yaml starts, and the runbook's sections.

func prometheusVersion(t *testing.T) string {
	t.Helper()
	return found(t, "../../scripts/install-prometheus.sh", `(?m)^version=(v[0-9.]+)$`)
}

func TestComposeStartsWhatIsTested(t *testing.T) {
	const compose = "../../compose.yaml"
	assert.Equal(t, prometheusVersion(t), found(t, compose, `image: prom/prometheus:(\S+)`))
	assert.Equal(t, found(t, "../../scripts/install-jaeger.sh", `(?m)^released=(\S+)$`), found(t, compose, `image: jaegertracing/jaeger:(\S+)`))
	assert.Equal(t, found(t, "pictures/package.json", `"@grafana/ui": "(\S+)"`), found(t, compose, `image: grafana/grafana:(\S+)`))
	assert.Equal(t, found(t, "../../demo/go.mod", `(?m)^go ([0-9]+\.[0-9]+)`), found(t, compose, `image: golang:(\S+)`))
}

func TestTheRunbookHasASectionForEachAlert(t *testing.T) {
	rules, err := os.ReadFile(dashboards + "sqllease-rules.yaml")
	require.NoError(t, err)
	runbook, err := os.ReadFile("../../docs/runbook.md")
	require.NoError(t, err)
	alerts := captured(string(rules), `(?m)- alert: (\w+)$`)
	require.NotEmpty(t, alerts)
	assert.ElementsMatch(t, alerts, captured(string(runbook), `(?m)^## (\w+)$`))
	var links []string
	for _, alert := range alerts {
		links = append(links, "https://github.com/sqllease/sqllease/blob/main/docs/runbook.md#"+strings.ToLower(alert))
	}
	assert.Equal(t, links, captured(string(rules), `(?m)runbook_url: (\S+)$`))
}

func captured(text, expr string) (out []string) {
	for _, m := range regexp.MustCompile(expr).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

// found returns what an expression captures in a file.
func found(t *testing.T, file, expr string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	m := regexp.MustCompile(expr).FindSubmatch(text)
	require.NotNil(t, m, "%s has no %s", file, expr)
	return string(m[1])
}
