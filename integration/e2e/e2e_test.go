// Package e2e proves the dashboard and the alert rules on a real Prometheus
// that scrapes the demo.
package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const dashboards = "../../dashboards/"

// patience is how long everything may take once the programs run. The demo
// shows all there is to see within its first ten seconds.
const patience = 45 * time.Second

// quiet are the expressions with nothing to see in a healthy run. They must be
// accepted, and may be empty.
var quiet = []string{
	"Acquires: timed out",
	"Deadlocks and nested acquires: deadlocks",
	"Deadlocks and nested acquires: places of nested acquires",
	"sqllease:deadlocks:increase10m",
	"sqllease:sessions_closed_bad:rate5m",
	"SqlleasePoolExhausted",
	"SqlleaseAcquireSlow",
	"SqlleaseDeadlock",
	"SqlleaseSessionsCutByServer",
	"SqlleaseNearLimit",
}

func TestRulesPassTheirUnitTests(t *testing.T) {
	promtool := find(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "sqllease-rules.yaml"}, {"test", "rules", "sqllease-rules-test.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dashboards
		out, err := cmd.CombinedOutput()
		assert.NoError(t, err, "promtool %v\n%s", args, out)
	}
}

func TestEveryExpressionAnswers(t *testing.T) {
	prometheus := find(t, "prometheus")
	demo := build(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not within %v", patience))
	t.Cleanup(cancel)
	target := freeAddr(t)
	ctx = start(ctx, t, demo, "-duration", "15s", "-serve", "-port", port(t, target))
	ctx, prom := scrape(ctx, t, prometheus, target)

	d := readDashboard(t)
	everyExpressionAnswers(ctx, t, prom, slices.Concat(d.expressions(t), ruleExpressions(t, loaded(ctx, t, prom))))
	for _, v := range d.variables(t) {
		values, _, err := prom.LabelValues(ctx, v.label, []string{v.series}, time.Time{}, time.Time{})
		assert.NoError(t, err, "variable %s", v.name)
		assert.Len(t, values, 1, "variable %s", v.name)
	}
	eventually(ctx, t, func() error {
		return fires(ctx, prom, "SqlleaseLeak", `^Pool shop of \S+ has leaked leases \((proven|idle_in_hand)\)$`)
	})
	leave := crowd(ctx, t, target, 20)
	eventually(ctx, t, func() error {
		return fires(ctx, prom, "SqlleasePoolExhausted", `^Pool shop of \S+ is exhausted: \d+ callers wait$`)
	})
	leave()
	t.Run("each histogram of durations has the objective as a bound", func(t *testing.T) { bucketsFit(ctx, t, prom) })
	t.Run("exemplars lead from a slow acquire to its trace", func(t *testing.T) {
		eventually(ctx, t, func() error { return exemplarsAreThere(ctx, prom) })
	})
}

// build builds the demo.
func build(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "demo")
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = "../../demo"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "the demo does not build:\n%s", out)
	return program
}

const configuration = `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs: [{job_name: demo, static_configs: [{targets: [%q]}]}]
`

// scrape starts a Prometheus that scrapes target and has the rules, and waits
// until it answers.
func scrape(ctx context.Context, t *testing.T, prometheus, target string) (context.Context, v1.API) {
	t.Helper()
	dir := t.TempDir()
	rules := filepath.Join(dir, "rules.yaml")
	require.NoError(t, os.WriteFile(rules, impatient(t), 0o644))
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, configuration, rules, target), 0o644))
	addr := freeAddr(t)
	ctx = start(ctx, t, prometheus, "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+addr, "--enable-feature=exemplar-storage")
	client, err := api.NewClient(api.Config{Address: "http://" + addr})
	require.NoError(t, err)
	prom := v1.NewAPI(client)
	eventually(ctx, t, func() error {
		_, err := prom.Runtimeinfo(ctx)
		return err
	})
	return ctx, prom
}

// impatient are the rules, with alerts that fire within seconds.
func impatient(t *testing.T) []byte {
	t.Helper()
	rules, err := os.ReadFile(dashboards + "sqllease-rules.yaml")
	require.NoError(t, err)
	lasting := regexp.MustCompile(`(?m)^( +for:) \d+m$`)
	require.True(t, lasting.Match(rules))
	return lasting.ReplaceAll(rules, []byte("$1 2s"))
}

// loaded returns the rules, once each has been evaluated without an error.
func loaded(ctx context.Context, t *testing.T, prom v1.API) (rules v1.RulesResult) {
	t.Helper()
	eventually(ctx, t, func() (err error) {
		rules, err = prom.Rules(ctx, nil)
		if err != nil {
			return err
		}
		for _, group := range rules.Groups {
			for _, rule := range group.Rules {
				if name, health, lastError := state(rule); health != v1.RuleHealthGood {
					return fmt.Errorf("rule %s is %s: %s", name, health, lastError)
				}
			}
		}
		return nil
	})
	return rules
}

func state(rule any) (name string, health v1.RuleHealth, lastError string) {
	switch r := rule.(type) {
	case v1.RecordingRule:
		return r.Name, r.Health, r.LastError
	case v1.AlertingRule:
		return r.Name, r.Health, r.LastError
	}
	return fmt.Sprintf("of type %T", rule), v1.RuleHealthUnknown, ""
}

// everyExpressionAnswers asks each until all have answered, and the quiet
// ones once.
func everyExpressionAnswers(ctx context.Context, t *testing.T, prom v1.API, all []expression) {
	t.Helper()
	isQuiet := func(e expression) bool { return slices.Contains(quiet, e.name) }
	silent := slices.DeleteFunc(slices.Clone(all), isQuiet)
	require.Len(t, all, len(silent)+len(quiet), "an entry of quiet names no expression, or two")
	eventually(ctx, t, func() (err error) {
		silent = slices.DeleteFunc(silent, func(e expression) bool {
			answer := ask(ctx, t, prom, e)
			if reason := e.wrong(answer); reason != "" {
				err = fmt.Errorf("%s: %s\n\t%s\n\t%v", e.name, reason, e.query, answer)
				return false
			}
			return true
		})
		return err
	})
	for _, e := range all {
		if isQuiet(e) {
			ask(ctx, t, prom, e)
		}
	}
	t.Logf("%d expressions have answered, and %d more were accepted", len(all)-len(quiet), len(quiet))
}

// ask evaluates an expression, which must be accepted.
func ask(ctx context.Context, t *testing.T, prom v1.API, e expression) model.Vector {
	t.Helper()
	answer, warnings, err := prom.Query(ctx, e.query, time.Now())
	require.NoError(t, err, "%s: %s", e.name, e.query)
	require.Empty(t, warnings, "%s: %s", e.name, e.query)
	require.IsType(t, model.Vector{}, answer, "%s: %s", e.name, e.query)
	return answer.(model.Vector)
}

// wrong says why an answer shows nothing, or not what its legend promises.
func (e expression) wrong(answer model.Vector) string {
	finite := 0
	for _, s := range answer {
		if v := float64(s.Value); v >= 0 && !math.IsInf(v, 0) {
			finite++
		}
		has := func(label string) bool { return s.Metric[model.LabelName(label)] != "" }
		if len(e.labels) > 0 && !slices.ContainsFunc(e.labels, has) {
			return fmt.Sprintf("a sample has none of the labels of the legend %v", e.labels)
		}
	}
	if finite == 0 {
		return "no sample with a value"
	}
	return ""
}

// fires tells whether an alert fires, and with a summary like that.
func fires(ctx context.Context, prom v1.API, name, summary string) error {
	alerts, err := prom.Alerts(ctx)
	if err != nil {
		return err
	}
	for _, a := range alerts.Alerts {
		if string(a.Labels["alertname"]) != name || a.State != v1.AlertStateFiring {
			continue
		}
		if says := string(a.Annotations["summary"]); !regexp.MustCompile(summary).MatchString(says) {
			return fmt.Errorf("the summary of %s is %q, not %s", name, says, summary)
		}
		return nil
	}
	return fmt.Errorf("%s does not fire; alerts: %v", name, alerts.Alerts)
}

// bucketsFit looks whether percentiles can be told: with bounds made for
// milliseconds, every duration in seconds falls into the first bucket, and the
// alert on slow acquires would always fire.
func bucketsFit(ctx context.Context, t *testing.T, prom v1.API) {
	t.Helper()
	const histograms = `count by (__name__) ({__name__=~"(db_client|sqllease).*_seconds_bucket", le="%s"})`
	names := func(le string) (out []string) {
		for _, s := range ask(ctx, t, prom, expression{name: "buckets", query: fmt.Sprintf(histograms, le)}) {
			out = append(out, string(s.Metric["__name__"]))
		}
		return out
	}
	all := names("+Inf")
	require.NotEmpty(t, all)
	assert.ElementsMatch(t, all, names("0.1"), "each of these needs a bucket that ends at 0.1 s, and finer ones")
}

// exemplarsAreThere tells whether acquires and operations have exemplars with
// the trace they are of.
func exemplarsAreThere(ctx context.Context, prom v1.API) error {
	for _, name := range []string{"db_client_connection_wait_time_seconds_bucket", "db_client_operation_duration_seconds_bucket"} {
		series, err := prom.QueryExemplars(ctx, name, time.Now().Add(-patience), time.Now())
		if err != nil {
			return err
		}
		if len(series) == 0 {
			return fmt.Errorf("%s has no exemplar; is the exposition OpenMetrics?", name)
		}
		for _, s := range series {
			for _, e := range s.Exemplars {
				if e.Labels["trace_id"] == "" {
					return fmt.Errorf("%s has an exemplar without a trace: %v", name, e.Labels)
				}
			}
		}
	}
	return nil
}
