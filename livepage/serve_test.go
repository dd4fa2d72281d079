package livepage

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/callstack"
)

func TestEveryAnswerIsGuarded(t *testing.T) {
	h := page(t)
	for _, address := range []string{"/", "/?format=json", "/?format=text", "/?asset=page.js", "/?asset=none", "/?format=none"} {
		header := get(h, address).Header()
		assert.Equal(t, policy, header.Get("Content-Security-Policy"), address)
		assert.NotContains(t, policy, "unsafe")
		assert.Equal(t, "nosniff", header.Get("X-Content-Type-Options"), address)
		assert.Equal(t, "no-store", header.Get("Cache-Control"), address)
		assert.Equal(t, "no-referrer", header.Get("Referrer-Policy"), address)
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "/", nil))
		assert.Equal(t, http.StatusMethodNotAllowed, w.Code)
		assert.Equal(t, "GET, HEAD", w.Header().Get("Allow"))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", nil))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Empty(t, w.Body.String())
}

func TestAssetsAreThePagesOwn(t *testing.T) {
	h := page(t)
	for name, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		w := get(h, "/?asset="+name)
		assert.Equal(t, http.StatusOK, w.Code)
		assert.Equal(t, kind, w.Header().Get("Content-Type"))
		assert.NotEmpty(t, w.Body.String())
	}
	for _, name := range []string{"none.js", "page.html", "parts.html", "..%2Fpage.go", "%2Fetc%2Fpasswd", "..%2Fassets%2Fpage.css", "."} {
		assert.Equal(t, http.StatusNotFound, get(h, "/?asset="+name).Code, name)
	}
}

func TestThePageWorksUnderAnyPath(t *testing.T) {
	open(t, sqllease.Config{Name: "shop", MaxOpen: 8})
	h := page(t)
	first := get(h, "/debug/sqllease/").Body.String()
	assert.Contains(t, first, "All is well: 0 of 8 in use, nobody waits.")
	for _, link := range regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(first, -1) {
		assert.Regexp(t, `^[?#]`, link[1], "it is relative to the page, whatever its path")
	}
	for _, path := range []string{"/debug/sqllease", "/", "/a/b/c"} {
		assert.Contains(t, get(h, path).Body.String(), "All is well")
	}
	mux := http.NewServeMux()
	mux.Handle("/pools/", http.StripPrefix("/pools", h))
	assert.Contains(t, get(mux, "/pools/").Body.String(), "All is well")
	assert.Contains(t, get(mux, "/pools/?format=text").Body.String(), "All is well")
}

func TestFormatsThatAreNone(t *testing.T) {
	open(t, sqllease.Config{Name: "shop"})
	h := page(t)
	assert.Equal(t, http.StatusBadRequest, get(h, "/?format=xml").Code)
	for _, format := range []string{"json", "text"} {
		assert.Equal(t, http.StatusNotFound, get(h, "/?pool=none&format="+format).Code)
		assert.Equal(t, http.StatusOK, get(h, "/?pool=shop&format="+format).Code)
	}
	w := get(h, "/?pool=none")
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Contains(t, w.Body.String(), "There is no pool none any more.")
}

func TestWithoutAPool(t *testing.T) {
	h := page(t, Pools())
	assert.Contains(t, get(h, "/").Body.String(), "This process has no pool.")
	assert.Contains(t, get(h, "/?format=text").Body.String(), "This process has no pool.")
	assert.Contains(t, get(h, "/?format=json").Body.String(), `"pools": []`)
}

// busyPool has two connections out, of two; one in a transaction, and one caller who waits.
func busyPool(t *testing.T, h func() http.Handler, look func(http.Handler)) {
	db, _ := open(t, sqllease.Config{Name: "shop", MaxOpen: 2, LeakThreshold: 30 * time.Second})
	page := h()
	in := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3}})
	tx, err := db.BeginTx(trace.ContextWithSpanContext(context.Background(), in), nil)
	require.NoError(t, err)
	_, err = tx.Exec("UPDATE t SET n = 'secret' WHERE id = 17")
	require.NoError(t, err)
	second := conn(t, db)
	waited := make(chan error)
	go func() {
		_, err := db.Exec("DELETE FROM t")
		waited <- err
	}()
	time.Sleep(2 * time.Second) //nolint:forbidigo // of virtual time
	look(page)
	require.NoError(t, tx.Commit())
	require.NoError(t, second.Close())
	require.NoError(t, <-waited)
}

func TestText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busyPool(t, func() http.Handler { return page(t) }, func(h http.Handler) {
			text := get(h, "/?format=text").Body.String()
			for _, line := range []string{
				`\[trouble\] shop: 2 of 2 connections are in use, 1 caller waits, for 2.0 s so far\. 2 connections are checked out but unused, for up to 2.0 s, by 2 places, such as livepage/main_test.go:\d+\.`,
				`(?m)^LEASE +PLACE +HELD +DOING`,
				`(?m)^1 +livepage/serve_test.go:\d+ +2.0 s +unused, in a transaction +2.0 s +1 +- +01020000000000000000000000000000 +UPDATE t SET n = \? WHERE id = \?$`,
				`(?m)^1 +livepage/serve_test.go:\d+ +2.0 s +-$`,
				`(?m)^CONNECTION +SERVER +LEASE`,
			} {
				assert.Regexp(t, line, text)
			}
			assert.NotContains(t, text, "secret")
		})
	})
}

func TestJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busyPool(t, func() http.Handler { return page(t, TraceURL("https://traces/{trace_id}")) }, func(h http.Handler) {
			w := get(h, "/?format=json&lease=1&now=1")
			assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
			var doc map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &doc))
			shop := doc["pools"].([]any)[0].(map[string]any)
			assert.Equal(t, "shop", shop["name"])
			assert.Equal(t, "trouble", shop["state"])
			assert.Equal(t, 2.0, shop["longest_wait_seconds"])
			first := shop["checked_out"].([]any)[0].(map[string]any)
			assert.Equal(t, 2.0, first["held_seconds"])
			assert.Equal(t, "unused_in_transaction", first["use"])
			assert.Equal(t, "UPDATE t SET n = ? WHERE id = ?", first["statement"])
			assert.Equal(t, "https://traces/01020000000000000000000000000000", first["trace_url"])
			assert.Equal(t, 1.0, shop["callers_waiting"].([]any)[0].(map[string]any)["position"])
			pinned := doc["pinned"].(map[string]any)
			assert.Contains(t, pinned["stack"], "serve_test.go")
			now := "runs"
			if callstack.Goroutine() == 0 {
				now = "not known"
			}
			assert.Contains(t, pinned["now"].([]any)[0], now)
			assert.NotContains(t, w.Body.String(), "secret")
		})
	})
}

func TestAPageFromElsewhereLooksAtNothing(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: "shop"})
	held := conn(t, db)
	h := page(t, Pools(c))
	now := func(site string) bool {
		r, w := httptest.NewRequest(http.MethodGet, "/?format=json&lease=1&now=1", nil), httptest.NewRecorder()
		r.Header.Set("Sec-Fetch-Site", site)
		h.ServeHTTP(w, r)
		return strings.Contains(w.Body.String(), `"now": [`)
	}
	assert.False(t, now("cross-site"))
	assert.True(t, now("same-origin"))
	require.NoError(t, held.Close())
}

func TestTheAdvisorIsAskedWhereSomebodyWantsToKnow(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: `"shop": <b>`})
	h := page(t, Pools(c))
	for _, format := range []string{"html", "text", "json"} {
		assert.NotContains(t, get(h, "/?format="+format).Body.String(), "recording has only")
	}
	_, err := db.Exec("UPDATE t SET a = 1")
	require.NoError(t, err)
	html := get(h, "/?advise=1").Body.String()
	assert.Contains(t, html, `<p class="advice"><b>Advice</b> The limit is not the problem:`)
	assert.Contains(t, html, "the recording has only 1 acquire.")
	assert.Contains(t, html, "advise=1&amp;", "other links of the page keep it")
	_, err = db.Exec("UPDATE t SET a = 1")
	require.NoError(t, err)
	assert.Contains(t, get(h, "/?advise=1&format=text").Body.String(), "the recording has only 1 acquire.", "it is asked once a minute at most")
	assert.Contains(t, get(h, "/?advise=1&format=json").Body.String(), `"advice": "The limit is not the problem`)
	said := h.(*handler).advices.of(c, time.Now().Add(adviceLasts))
	assert.Contains(t, said, "the recording has only 2 acquires.")
}

func TestTheAdvisorSaysThatNothingIsRecorded(t *testing.T) {
	_, c := open(t, sqllease.Config{Name: "shop"})
	h := page(t, Pools(c), Record(0))
	assert.Contains(t, get(h, "/?advise=1").Body.String(), "<b>Advice</b> Nothing is recorded")
}

func TestPoolsAreReadWhileTheyWork(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: "shop", MaxOpen: 3})
	h := page(t, Pools(c), Record(500))
	var work sync.WaitGroup
	for range 6 {
		work.Go(func() {
			for range 300 {
				tx, err := db.BeginTx(context.Background(), nil)
				if assert.NoError(t, err) {
					_, _ = tx.Exec("UPDATE t SET n = 1")
					assert.NoError(t, tx.Commit())
				}
			}
		})
	}
	for i := range 30 {
		for _, format := range []string{"html", "json", "text"} {
			assert.Equal(t, http.StatusOK, get(h, "/?lease="+strconv.Itoa(10*i)+"&format="+format).Code)
		}
	}
	work.Wait()
	assert.Contains(t, get(h, "/?format=text").Body.String(), "All is well: 0 of 3 in use, nobody waits.")
}

// names are the fields that JSON has of a type.
func names(of reflect.Type, all map[string]bool) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of == reflect.TypeFor[time.Time]() {
		return
	}
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" {
			all[name] = true
		}
		if name != "" || f.Anonymous {
			names(f.Type, all)
		}
	}
}

func TestTheDocumentListsEveryField(t *testing.T) {
	text, err := os.ReadFile("../docs/livepage.md")
	require.NoError(t, err)
	all := map[string]bool{}
	names(reflect.TypeFor[document](), all)
	require.Greater(t, len(all), 60)
	for name := range all {
		assert.Contains(t, string(text), "`"+name+"`")
	}
}

func TestNamesFromElsewhereAreHarmless(t *testing.T) {
	const evil = "<script>alert(1)</script>\"'`--></svg>{{.}}\u202e\x1b[31m\x00\xff javascript:alert(2)"
	synctest.Test(t, func(t *testing.T) {
		db, c := open(t, sqllease.Config{Name: evil, MaxOpen: 1, LeakThreshold: time.Second})
		h := page(t)
		_, err := db.Exec("UPDATE " + evil + " SET a = 1")
		require.NoError(t, err)
		held := conn(t, db)
		_, err = held.ExecContext(context.Background(), "UPDATE \""+evil+"\" SET a = 1")
		require.NoError(t, err)
		time.Sleep(3 * time.Second) //nolint:forbidigo // of virtual time
		key := url.QueryEscape(shown(c.Name()))
		for _, address := range []string{"/", "/?pool=" + key, "/?lease=2&pool=" + key, "/?pool=" + url.QueryEscape(evil), "/?place=" + url.QueryEscape(evil),
			"/?span=" + url.QueryEscape(evil), "/?until=" + url.QueryEscape(evil), "/?sort_out=" + url.QueryEscape(evil), "/?lease=" + url.QueryEscape(evil)} {
			text := get(h, address).Body.String()
			assert.NotContains(t, text, "<script>", address)
			assert.Equal(t, 1, strings.Count(text, "<script"), address)
			assert.NotContains(t, text, "\u202e", address)
			assert.NotContains(t, text, "\x1b", address)
			assert.NotContains(t, text, `href="javascript:`, address)
			assert.NotRegexp(t, `(?i)\son[a-z]+=`, text, address)
			assert.NotContains(t, text, "style=", address)
			assert.True(t, strings.HasSuffix(strings.TrimSpace(text), "</html>"), address)
		}
		text := get(h, "/?format=text&lease=2").Body.String()
		assert.NotContains(t, text, "\x1b")
		assert.NotContains(t, text, "\u202e")
		var doc map[string]any
		require.NoError(t, json.Unmarshal(get(h, "/?format=json&lease=2").Body.Bytes(), &doc))
		require.NoError(t, held.Close())
	})
}

func TestOptionsThatCannotBeMeant(t *testing.T) {
	for _, template := range []string{"", "https://traces/", "javascript:alert('{trace_id}')", "//traces/{trace_id}", "ftp://traces/{trace_id}", "https://{trace_id}:x y/", "/{trace_id}"} {
		assert.Panics(t, func() { TraceURL(template) }, template)
	}
	assert.NotPanics(t, func() { TraceURL("http://localhost:16686/trace/{trace_id}?uiFind=a") })
	assert.PanicsWithValue(t, "livepage: Record(-1): a pool cannot record fewer than no leases", func() { Record(-1) })
}

// records is how many leases of the next few a pool records.
func records(t *testing.T, c *sqllease.Connector) bool {
	t.Helper()
	return !c.Recording().From.IsZero()
}

func TestMountingTurnsTheRecordingOn(t *testing.T) {
	_, before := open(t, sqllease.Config{Name: "before"})
	_, own := open(t, sqllease.Config{Name: "own"})
	own.Record(5)
	require.False(t, records(t, before))
	page(t)
	_, after := open(t, sqllease.Config{Name: "after"})
	assert.True(t, records(t, before))
	assert.True(t, records(t, after))
}

func TestOnlyPoolsThatAreShownRecord(t *testing.T) {
	db, one := open(t, sqllease.Config{Name: "one"})
	_, other := open(t, sqllease.Config{Name: "other"})
	h := page(t, Pools(one), Record(3))
	_, after := open(t, sqllease.Config{Name: "after"})
	assert.False(t, records(t, other))
	assert.False(t, records(t, after))
	for range 5 {
		_, err := db.Exec("UPDATE t SET n = 1")
		require.NoError(t, err)
	}
	assert.Len(t, one.Recording().Leases, 3)
	text := get(h, "/?format=text").Body.String()
	assert.Contains(t, text, "one:")
	assert.NotContains(t, text, "other")

	_, unrecorded := open(t, sqllease.Config{Name: "unrecorded"})
	h = page(t, Pools(unrecorded), Record(0))
	assert.False(t, records(t, unrecorded))
	assert.Contains(t, get(h, "/").Body.String(), "Nothing is recorded")
}

func TestPoolsOfOneNameAreToldApart(t *testing.T) {
	_, a := open(t, sqllease.Config{Name: "shop", MaxOpen: 3})
	_, b := open(t, sqllease.Config{Name: "shop", MaxOpen: 4})
	h := page(t, Pools(a, b))
	assert.Contains(t, get(h, "/?format=text&pool=shop").Body.String(), "of 3")
	assert.Contains(t, get(h, "/?format=text&pool=shop+(2)").Body.String(), "of 4")
}

func TestThePoolInTroubleIsShownFirst(t *testing.T) {
	_, quiet := open(t, sqllease.Config{Name: "quiet", MaxOpen: 3})
	db, full := open(t, sqllease.Config{Name: "full", MaxOpen: 1})
	held := conn(t, db)
	text := get(page(t, Pools(quiet, full)), "/").Body.String()
	assert.Less(t, strings.Index(text, "1 of 1 connection is in use"), strings.Index(text, "0 of 3 in use"))
	require.NoError(t, held.Close())
}
