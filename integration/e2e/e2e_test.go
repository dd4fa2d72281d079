// Package e2e proves the dashboard and the alert rules on a real Prometheus
// that scrapes real pools in trouble.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const dashboards = "../../dashboards/"

const (
	patience = 60 * time.Second // how long anything may take
	length   = 44 * time.Second // of the scenes: twenty-two minutes of the rules' time
	warm     = 8 * time.Second  // until the table begins: a start is no trouble
)

// seconds is how long so many minutes of the rules are in a test.
func seconds(minutes string) string {
	n, err := strconv.Atoi(minutes)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%ds", 2*n)
}

func TestRulesPassTheirUnitTests(t *testing.T) {
	promtool := find(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "--lint=all", "sqllease-rules.yaml"}, {"test", "rules", "sqllease-rules-test.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dashboards
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "promtool %v\n%s", args, out)
	}
}

func TestScenes(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), length+patience, fmt.Errorf("not within %v", length+patience))
	t.Cleanup(cancel)
	all := scenes()
	instances := map[string][]*instance{}
	for _, s := range all {
		instances[s.name] = s.launch(t)
		if s.before != nil {
			s.before(ctx, t, instances[s.name])
		}
	}
	config, many := targets(all, instances)
	ctx, prom := scrape(ctx, t, config, many)
	began := time.Now()
	acting, stop := context.WithTimeout(ctx, length)
	defer stop()
	for _, s := range all {
		s.run(acting, t, instances[s.name])
		wait(acting, 200*time.Millisecond) // a start costs more than the rest
	}
	<-acting.Done()
	require.NoError(t, context.Cause(ctx))
	for _, s := range all {
		for _, i := range instances[s.name] {
			i.callers.Wait()
		}
	}

	rulesAreHealthy(ctx, t, prom)
	table := ask(ctx, t, prom, all, v1.Range{Start: began.Add(warm), End: time.Now(), Step: time.Second})
	t.Logf("the highest value of every panel in each scene, and the alerts that fired:\n%s", table)
	for _, s := range all {
		assert.ElementsMatch(t, s.fires, table.fired[s.name], "the alerts of %s", s.name)
		for _, c := range s.shows {
			value, found := table.shown(c.panel, s.name)
			assert.True(t, found && value >= c.least && value <= c.most, "%s shows %v in %q, and not %v to %v", s.name, value, c.panel, c.least, c.most)
		}
	}
	t.Run("every query of the dashboard answers in some scene", func(t *testing.T) { assert.Empty(t, table.silent) })
	t.Run("variables", func(t *testing.T) { variablesAnswer(ctx, t, prom, all) })
	t.Run("the fullest instance is first", func(t *testing.T) { fullestIsFirst(ctx, t, prom) })
	t.Run("alerts keep the labels of the target", func(t *testing.T) { labelsAreKept(ctx, t, prom) })
	t.Run("exemplars lead from a slow acquire to its trace", func(t *testing.T) { exemplarsAreThere(ctx, t, prom) })
}

// launch starts the instances of a scene.
func (s scene) launch(t *testing.T) (all []*instance) {
	t.Helper()
	names := s.instances
	if names == nil {
		names = []string{"1"}
	}
	for _, name := range names {
		i := &instance{job: s.name, name: name, native: s.native, config: s.config}
		if s.refused {
			i.dsn = "user:password@tcp(" + freeAddr(t) + ")/test"
		}
		launch(t, i, s.script)
		all = append(all, i)
	}
	return all
}

// targets is what Prometheus scrapes.
func targets(all []scene, instances map[string][]*instance) (config string, many int) {
	var out strings.Builder
	for _, s := range all {
		fmt.Fprintf(&out, "- job_name: %s\n  scrape_native_histograms: %v\n  static_configs:\n", s.name, s.native)
		for _, i := range instances[s.name] {
			fmt.Fprintf(&out, "  - {targets: [%q], labels: {instance: %q, cluster: local, namespace: scenes}}\n", i.scrape, i.name)
			many++
		}
	}
	return out.String(), many
}

const configuration = `
global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}
rule_files: [%q]
scrape_configs:
%s`

// scrape starts a Prometheus that scrapes the targets and has the rules, and
// waits until it has scraped so many. A minute of the rules is two seconds.
func scrape(ctx context.Context, t *testing.T, targets string, many int) (context.Context, v1.API) {
	t.Helper()
	dir := t.TempDir()
	text, err := os.ReadFile(dashboards + "sqllease-rules.yaml")
	require.NoError(t, err)
	rules := filepath.Join(dir, "rules.yaml")
	require.NoError(t, os.WriteFile(rules, []byte(faster(string(text))), 0o600))
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, configuration, rules, targets), 0o600))
	addr := freeAddr(t)
	ctx = start(ctx, t, find(t, "prometheus"), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--enable-feature=exemplar-storage")
	client, err := api.NewClient(api.Config{Address: "http://" + addr})
	require.NoError(t, err)
	prom := v1.NewAPI(client)
	eventually(ctx, t, func() error {
		up, _, err := prom.Query(ctx, fmt.Sprintf("count(up == 1) == %d", many), time.Now())
		if err == nil && len(up.(model.Vector)) == 0 {
			return errors.New("not every target is up")
		}
		return err
	})
	return ctx, prom
}

func rulesAreHealthy(ctx context.Context, t *testing.T, prom v1.API) {
	t.Helper()
	rules, err := prom.Rules(ctx, nil)
	require.NoError(t, err)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			switch r := rule.(type) {
			case v1.RecordingRule:
				assert.Equal(t, v1.RuleHealth(v1.RuleHealthGood), r.Health, "%s: %s", r.Name, r.LastError)
			case v1.AlertingRule:
				assert.Equal(t, v1.RuleHealth(v1.RuleHealthGood), r.Health, "%s: %s", r.Name, r.LastError)
			}
		}
	}
}

// variablesAnswer looks whether every service can be chosen, with its instances
// and its pool, and found in the traces.
func variablesAnswer(ctx context.Context, t *testing.T, prom v1.API, all []scene) {
	t.Helper()
	for _, s := range all {
		want := map[string]int{"job": len(all), "instance": max(1, len(s.instances)), "pool": 1, "service": 1}
		for _, v := range readDashboard(t).variables(t, s.name) {
			values, _, err := prom.LabelValues(ctx, v.label, []string{v.series}, time.Time{}, time.Time{})
			require.NoError(t, err)
			assert.Len(t, values, want[v.name], "variable %s of %s", v.name, s.name)
		}
	}
}

func fullestIsFirst(ctx context.Context, t *testing.T, prom v1.API) {
	t.Helper()
	panels := readDashboard(t).Panels
	i := slices.IndexFunc(panels, func(p panel) bool { return p.Title == "Utilisation by instance" })
	require.GreaterOrEqual(t, i, 0)
	answer, _, err := prom.Query(ctx, of("two", panels[i].Targets[0].Expr), time.Now())
	require.NoError(t, err)
	all := answer.(model.Vector)
	require.Len(t, all, 2)
	assert.GreaterOrEqual(t, float64(all[0].Value), float64(all[1].Value))
}

func labelsAreKept(ctx context.Context, t *testing.T, prom v1.API) {
	t.Helper()
	answer, _, err := prom.Query(ctx, `count(last_over_time(ALERTS{alertname=~"Sqllease.*"}[2m])) - count(last_over_time(ALERTS{cluster="local", namespace="scenes"}[2m]))`, time.Now())
	require.NoError(t, err)
	require.Len(t, answer, 1)
	assert.Zero(t, float64(answer.(model.Vector)[0].Value))
}

func exemplarsAreThere(ctx context.Context, t *testing.T, prom v1.API) {
	t.Helper()
	for _, name := range []string{
		`db_client_connection_wait_time_seconds_bucket{job="timeouts"}`, `db_client_operation_duration_seconds_bucket{job="timeouts"}`,
		`db_client_connection_wait_time_seconds{job="native"}`,
	} {
		series, err := prom.QueryExemplars(ctx, name, time.Now().Add(-2*patience), time.Now())
		require.NoError(t, err)
		assert.NotEmpty(t, series, "%s has no exemplar", name)
		for _, s := range series {
			for _, e := range s.Exemplars {
				assert.NotEmpty(t, e.Labels["trace_id"], "%s has an exemplar without a trace", name)
			}
		}
	}
}
