package board

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const file = "../../../../dashboards/sqllease.json"

var update = flag.Bool("update", false, "write the dashboard")

func TestTheDashboardIsWhatThePanelsSay(t *testing.T) {
	want, err := JSON()
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile(file, want, 0o644))
	}
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "run make dashboard")
}

// Grafana's own model, with the options of each kind of panel, refuses fields
// that it does not know and misses those that it needs.
func TestGrafanaAcceptsTheDashboard(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var d dashboard.Dashboard
	require.Empty(t, asBuildErrors(d.UnmarshalJSONStrict(text)))
	require.Empty(t, asBuildErrors(d.Validate()))
	assert.Equal(t, dashboard.NewDashboard().SchemaVersion, d.SchemaVersion, "the schema of current Grafana")
	assert.NotContains(t, string(text), "__inputs", "an import asks for nothing but the data sources")
}

// asBuildErrors are an error's parts: its own text is empty.
func asBuildErrors(err error) (texts []string) {
	var parts cog.BuildErrors
	if err != nil && !errors.As(err, &parts) {
		return []string{err.Error()}
	}
	for _, part := range parts {
		texts = append(texts, fmt.Sprint(*part))
	}
	return texts
}

func TestPanelsCanBeRead(t *testing.T) {
	titles := map[string]bool{}
	for _, r := range rows() {
		for _, p := range r.panels {
			assert.False(t, titles[p.title], "%s is there twice", p.title)
			titles[p.title] = true
			assert.NotEmpty(t, p.description, p.title)
			var colours []string
			for _, colour := range p.colours {
				assert.NotContains(t, colours, colour, "%s: a colour twice", p.title)
				colours = append(colours, colour)
			}
			constant := func(one target) bool { return !slices.Contains([]rune(one.legend), '{') }
			for _, one := range p.targets {
				if p.colours != nil && constant(one) {
					assert.Contains(t, p.colours, one.legend, "%s: all series have a colour, or none", p.title)
				}
			}
		}
	}
}
