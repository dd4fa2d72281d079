package livepage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

func TestTheSentenceTellsOfLanes(t *testing.T) {
	report := func(waiting int) lane { return lane{Name: "report", InUse: 3, Max: 3, Waiting: waiting} }
	of := func(p pool, lanes ...lane) pool { p.Limit, p.Lanes = 10, lanes; return p }
	for name, c := range map[string]struct {
		pool  pool
		state state
		text  string
	}{
		"a lane is full":           {of(pool{InUse: 5, Waiting: 12, LongestWait: 4 * second}, lane{Name: "default", InUse: 2}, report(12)), watch, "5 of 10 connections are in use, 12 callers wait, the longest for 4.0 s. Lane report: 3 of 3 in use, 12 wait. Nobody else waits."},
		"one waits":                {of(pool{InUse: 3, Waiting: 1, LongestWait: 200 * ms}, lane{Name: "default"}, report(1)), watch, "3 of 10 connections are in use, 1 caller waits, for 200 ms so far. Lane report: 3 of 3 in use, 1 waits. Nobody else waits."},
		"others wait too":          {of(pool{InUse: 10, Waiting: 14, LongestWait: 4 * second}, lane{Name: "default", InUse: 7, Waiting: 2}, report(12)), trouble, "10 of 10 connections are in use, 14 callers wait, the longest for 4.0 s. Lane report: 3 of 3 in use, 12 wait."},
		"a full lane without wait": {of(pool{InUse: 5}, lane{Name: "default", InUse: 2}, report(0)), well, "All is well: 5 of 10 in use, nobody waits."},
		"kept for others":          {of(pool{InUse: 9, Waiting: 4, LongestWait: 300 * ms}, lane{Name: "default", InUse: 9, Waiting: 4}, lane{Name: "probe", Reserve: 1}), watch, "9 of 10 connections are in use, 4 callers wait, the longest for 300 ms. 1 connection is kept for lane probe."},
		"kept for several":         {of(pool{InUse: 7, Waiting: 4, LongestWait: 300 * ms}, lane{Name: "default", InUse: 7, Waiting: 4}, lane{Name: "a", Reserve: 1}, lane{Name: "b", Reserve: 2}), watch, "7 of 10 connections are in use, 4 callers wait, the longest for 300 ms. 3 connections are kept for lanes a, b."},
		"refused just now":         {pool{Limit: 8, InUse: 8, Waiting: 3, LongestWait: 80 * ms, Failed: 121, Refused: 120, Refusing: true}, trouble, "More callers come than can be served, so some are refused: 120 in the last minute. 8 of 8 connections are in use, 3 callers wait, the longest for 80 ms. 1 caller got no connection in the last minute."},
		"refused in a lane":        {of(pool{InUse: 3, Waiting: 3, LongestWait: 80 * ms, Failed: 120, Refused: 120, Refusing: true}, lane{Name: "default"}, lane{Name: "report", InUse: 3, Max: 3, Waiting: 3, Refusing: true}), trouble, "More callers come than can be served, so some are refused: 120 in the last minute, now in lane report. 3 of 10 connections are in use, 3 callers wait, the longest for 80 ms. Lane report: 3 of 3 in use, 3 wait. Nobody else waits."},
		"refused before":           {pool{Limit: 8, InUse: 2, Failed: 1, Refused: 1}, trouble, "2 of 8 connections are in use, nobody waits. 1 caller was refused in the last minute, since too many came."},
	} {
		t.Run(name, func(t *testing.T) {
			state, text := sentence(&c.pool)
			assert.Equal(t, c.text, text)
			assert.Equal(t, c.state, state)
		})
	}
}

// lanedPool has a report and a page out, two reports that wait, and one that was refused.
func lanedPool(t *testing.T, lanes map[string]sqllease.Lane, look func(http.Handler)) {
	db, c := open(t, sqllease.Config{Name: "shop", MaxOpen: 4, MaxWaiting: 2, Lanes: lanes})
	h := page(t, Pools(c))
	report := sqllease.WithLane(context.Background(), "report")
	first, err := db.Conn(report)
	require.NoError(t, err)
	other := conn(t, db)
	waited := make(chan error, 2)
	for range 2 {
		go func() { waited <- db.PingContext(report) }()
	}
	synctest.Wait()
	if lanes != nil {
		require.ErrorIs(t, db.PingContext(report), sqllease.ErrOverloaded)
	}
	time.Sleep(2 * time.Second) //nolint:forbidigo // of virtual time
	look(h)
	require.NoError(t, first.Close())
	require.NoError(t, errors.Join(<-waited, <-waited))
	require.NoError(t, other.Close())
	if lanes != nil {
		then := fmt.Sprint(time.Now().Add(-time.Millisecond).UnixMilli())
		time.Sleep(time.Minute) //nolint:forbidigo // of virtual time
		assert.Contains(t, get(h, "/?until="+then).Body.String(), "Lane report: 1 of 1 in use, 2 wait.", "what is frozen has the lanes of then")
	}
}

var someLanes = map[string]sqllease.Lane{"report": {Max: 1}, "probe": {Reserve: 1}}

func TestThePageHasLanes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanedPool(t, someLanes, func(h http.Handler) {
			html := get(h, "/?lease=1").Body.String()
			assert.Contains(t, html, "Lane report: 1 of 1 in use, 2 wait. Nobody else waits.")
			assert.Contains(t, html, "<caption>Lanes <span class=\"many\">3</span></caption>")
			assert.Contains(t, html, `<tr><td>report</td><td class="n">1 <b>full</b></td><td class="n">1</td><td class="n">0</td><td class="n">2</td><td class="n">2.0 s</td><td class="n bad">1</td></tr>`)
			assert.Contains(t, html, `<tr><td>probe</td><td class="n">0</td><td class="n">any</td><td class="n">1</td>`)
			assert.Contains(t, html, `data-key="out-1">1</a></td><td>report</td>`)
			assert.Contains(t, html, `data-key="out-2">2</a></td><td>default</td>`)
			assert.Contains(t, html, `<td class="n">1</td><td>report</td>`, "of who waits")
			assert.Contains(t, html, "<dt>lane</dt><dd>report</dd>", "of the one that was chosen")
			assert.Regexp(t, `(?s)out-2.*out-1`, get(h, "/?sort_out=lane").Body.String(), "default is before report")

			text := get(h, "/?format=text&lease=1").Body.String()
			for _, line := range []string{
				`(?m)^LANE +IN USE +MAX +RESERVED +WAITING +LONGEST WAIT +REFUSED IN THE LAST MINUTE$`,
				`(?m)^report +1 +1 +0 +2 +2.0 s +1$`,
				`(?m)^probe +0 +any +1 +0 +0 s +0$`,
				`(?m)^LEASE +LANE +PLACE`, `(?m)^1 +report +livepage/lanes_test.go`, `(?m)^POSITION +LANE +PLACE`, `(?m)^2 +report +livepage/lanes_test.go`, `(?m)^lane report$`,
			} {
				assert.Regexp(t, line, text)
			}

			var doc struct {
				Pools []struct {
					Refused int `json:"refused_last_minute"`
					Lanes   []map[string]any
					Out     []map[string]any `json:"checked_out"`
					Queue   []map[string]any `json:"callers_waiting"`
				}
				Pinned map[string]any
			}
			require.NoError(t, json.Unmarshal(get(h, "/?format=json&lease=1").Body.Bytes(), &doc))
			p := doc.Pools[0]
			assert.Equal(t, 1, p.Refused)
			assert.Equal(t, map[string]any{"lane": "report", "in_use": 1.0, "max": 1.0, "reserve": 0.0, "waiting": 2.0, "longest_wait_seconds": 2.0, "refused_last_minute": 1.0, "refusing": false}, p.Lanes[2])
			assert.Equal(t, []any{"report", "default", "report", "report"}, []any{p.Out[0]["lane"], p.Out[1]["lane"], p.Queue[0]["lane"], doc.Pinned["lane"]})
		})
	})
}

// noLanes is what has lane in it all the same: this file, its functions, and where the table would be.
var noLanes = regexp.MustCompile(`lanes_test\.go|lanedPool|<section id="lanes".*</section>|WithoutLanes`)

func TestThePageOfAPoolWithoutLanesHasNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lanedPool(t, nil, func(h http.Handler) {
			for _, format := range []string{"html", "text", "json"} {
				text := noLanes.ReplaceAllString(get(h, "/?lease=1&format="+format).Body.String(), "")
				assert.NotRegexp(t, `(?i)lane`, text, format)
			}
		})
	})
}
