package board

import (
	"fmt"
	"strings"
)

// This file is the parts that the queries are made of.

// interval is the window that Grafana chooses to fit the scrapes and the zoom.
const interval = "$__rate_interval"

// chosen are the matchers of what the reader has chosen.
const chosen = `job=~"$job", instance=~"$instance", db_client_connection_pool_name=~"$pool"`

// of is a metric of the chosen pools, where more matchers hold.
func of(metric string, matchers ...string) string {
	return metric + "{" + strings.Join(append([]string{chosen}, matchers...), ", ") + "}"
}

// What the queries leave out, and tell apart.
const (
	closedRows = `error_type!="unclosed"` // rows that leak last until they are proven
	taken      = `db_client_connection_state=~"used|dialing"`
)

// quantile is a percentile of a histogram of either shape: the classic one, in
// buckets, or else the exponential one, which Prometheus calls native.
func quantile(q float64, metric, by, window string, matchers ...string) string {
	return fmt.Sprintf("histogram_quantile(%v, sum by (%s) (rate(%s[%s])))\nor histogram_quantile(%v, sum by (%s) (rate(%s[%s])))",
		q, join("le", by), of(metric+"_bucket", matchers...), window,
		q, by, of(metric, matchers...), window)
}

// counted is how many values a histogram of either shape got, a second.
func counted(metric, by, window string, matchers ...string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[%s]) or histogram_count(rate(%s[%s])))",
		by, of(metric+"_count", matchers...), window, of(metric, matchers...), window)
}

// summed is the sum of the values that a histogram of either shape got, a second.
func summed(metric, by, window string, matchers ...string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[%s]) or histogram_sum(rate(%s[%s])))",
		by, of(metric+"_sum", matchers...), window, of(metric, matchers...), window)
}

// grown is the increase of a counter that is there from the start.
func grown(counter, by, window string) string {
	return fmt.Sprintf("sum by (%s) (increase(%s[%s]))", by, of(counter), window)
}

// born is the increase of a counter whose series begin with their first event,
// and have labels of their own. Such a series counts whole if the pool was there
// before it was. A scrape that fails misses both, so that it counts nothing twice.
func born(counter, own, by, window string, matchers ...string) string {
	series := of(counter, matchers...)
	return fmt.Sprintf("sum by (%s) (\n  (%s unless %s offset %s) and ignoring (%s) (%s offset %s)\n  or increase(%s[%s])\n)",
		by, series, series, window, join(own, "sqllease_lane"), of("db_client_connection_timeouts_total"), window, series, window)
}

// share is the acquires' share of the time that callers spend on the database.
func share(by, window string) string {
	wait := summed("db_client_connection_wait_time_seconds", by, window)
	query := summed("db_client_operation_duration_seconds", by, window, closedRows)
	return fmt.Sprintf("%s\n/ (\n  %s\n  + %s\n)", wait, wait, query)
}

// utilisation is how much of its limit each pool has taken.
var utilisation = fmt.Sprintf("sum without (db_client_connection_state, sqllease_lane) (%s) / (%s > 0)",
	of("db_client_connection_count", taken), of("db_client_connection_max"))

func join(labels ...string) string {
	var some []string
	for _, label := range labels {
		if label != "" {
			some = append(some, label)
		}
	}
	return strings.Join(some, ", ")
}
