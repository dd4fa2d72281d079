package e2e

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This file is the versions of what is tested, and of what compose.yaml starts.

func prometheusVersion(t *testing.T) string {
	t.Helper()
	return found(t, "../../scripts/install-prometheus.sh", `(?m)^version=(v[0-9.]+)$`)
}

func TestComposeStartsWhatIsTested(t *testing.T) {
	const compose = "../../compose.yaml"
	assert.Equal(t, prometheusVersion(t), found(t, compose, `image: prom/prometheus:(\S+)`))
	assert.Equal(t, found(t, "../../scripts/install-jaeger.sh", `(?m)^released=(\S+)$`), found(t, compose, `image: jaegertracing/jaeger:(\S+)`))
	assert.Equal(t, found(t, "../../demo/go.mod", `(?m)^go ([0-9]+\.[0-9]+)`), found(t, compose, `image: golang:(\S+)`))
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
