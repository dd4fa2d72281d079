package board

import (
	"encoding/json"
	"flag"
	"net/url"
	"os"
	"strings"
	"testing"

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
	var d dashboard.Dashboard //nolint:staticcheck // what every Grafana imports; only the newest have the other model
	require.Empty(t, said(d.UnmarshalJSONStrict(text)))
	require.Empty(t, said(d.Validate()))
	assert.Equal(t, dashboard.NewDashboard().SchemaVersion, d.SchemaVersion, "the schema of current Grafana")
	assert.NotContains(t, string(text), "__inputs", "an import asks for nothing but the data sources")
}

// said is an error's text, which is empty if the model found nothing.
func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestLinksAreQueriesOfTheTraces(t *testing.T) {
	for _, link := range append(waitLinks, leakLinks...) {
		address, err := url.Parse(link["url"].(string))
		require.NoError(t, err)
		var panes map[string]struct {
			Queries []struct{ Service, Operation string }
		}
		require.NoError(t, json.Unmarshal([]byte(address.Query().Get("panes")), &panes))
		assert.Equal(t, "${service}", panes["a"].Queries[0].Service)
		assert.NotEmpty(t, panes["a"].Queries[0].Operation)
	}
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
			for _, one := range p.targets {
				if constant := !strings.Contains(one.legend, "{"); constant && p.colours != nil {
					assert.Contains(t, p.colours, one.legend, "%s: all series have a colour, or none", p.title)
				}
			}
		}
	}
}
