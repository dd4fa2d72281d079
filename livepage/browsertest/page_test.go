// Package browsertest uses the live page as people do: with clicks and keys, in a headless browser.
package browsertest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sqllease/sqllease/livepage"
	"github.com/sqllease/sqllease/livepage/browsertest/browser"
	"github.com/sqllease/sqllease/livepage/browsertest/shop"
)

var chromium context.Context

func TestMain(m *testing.M) {
	ctx, cancel, err := browser.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	chromium = ctx
	code := m.Run()
	cancel()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// tab is a page of the browser with the live page in it.
type tab struct {
	t       *testing.T
	ctx     context.Context
	address string
	faults  *[]string // what the browser complains of
}

// opens opens a shop, its live page, and a tab with it.
func opens(t *testing.T, limit int, query string, before ...chromedp.Action) (*shop.Shop, *tab) {
	t.Helper()
	s := shop.Open("shop", limit)
	t.Cleanup(s.Close)
	return s, tabOn(t, livepage.Handler(livepage.Pools(s.Pool), livepage.TraceURL("https://traces.example.com/{trace_id}")), query, before...)
}

func tabOn(t *testing.T, h http.Handler, query string, before ...chromedp.Action) *tab {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/debug/sqllease/", h)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	ctx, cancel := chromedp.NewContext(chromium)
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	b := &tab{t, ctx, server.URL + "/debug/sqllease/", &[]string{}}
	chromedp.ListenTarget(ctx, func(e any) {
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			*b.faults = append(*b.faults, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			*b.faults = append(*b.faults, e.Entry.Text+" "+e.Entry.URL)
		}
	})
	actions := append([]chromedp.Action{log.Enable(), emulation.SetFocusEmulationEnabled(true), browser.Look(1280, 900, false)}, before...)
	b.do(append(actions, chromedp.Navigate(b.address+query), chromedp.WaitVisible(".sentence"))...)
	t.Cleanup(func() { assert.Empty(t, *b.faults, "the browser complains, as of a script that the policy forbids") })
	return b
}

func (b *tab) do(actions ...chromedp.Action) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Run(b.ctx, actions...))
}

// is is what an expression of JavaScript says.
func (b *tab) is(expression string) (value any) {
	b.t.Helper()
	b.do(chromedp.Evaluate(expression, &value, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }))
	return value
}

// becomes waits until an expression is true.
func (b *tab) becomes(expression string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { // chromedp.Poll makes a function of a text, which the page's policy forbids
		var is any
		return chromedp.Run(b.ctx, chromedp.Evaluate(expression, &is)) == nil && is == true
	}, 30*time.Second, 50*time.Millisecond, expression)
}

// shows waits for a text in a part.
func (b *tab) shows(part, text string) {
	b.t.Helper()
	b.becomes(fmt.Sprintf("document.querySelector(%q)?.textContent.includes(%q)", part, text))
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.WaitVisible(selector, chromedp.ByQuery), chromedp.Click(selector, chromedp.ByQuery))
}

// addressHas waits until the address of the page has a text.
func (b *tab) addressHas(text string) {
	b.t.Helper()
	b.becomes(fmt.Sprintf("location.search.includes(%q)", text))
}

const live = `document.body.dataset.state === "live"`

// holds takes a connection, and gives it back at the end.
func holds(t *testing.T, s *shop.Shop) {
	t.Helper()
	c, err := s.DB.Conn(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
}

func TestItIsLive(t *testing.T) {
	s, b := opens(t, 2, "")
	b.becomes(live)
	b.shows(".sentence", "All is well: 0 of 2 in use")
	holds(t, s)
	holds(t, s)
	b.shows(".sentence", "2 of 2 connections are in use")
	b.shows("#out", "page_test.go")
	s.Once(s.Report)
	b.shows(".sentence", "1 caller waits")
	b.shows("#queue", "shop/report.go")
	b.shows("#said", "1 caller waits")
	assert.Contains(t, b.is("document.title"), "shop – sqllease")
	assert.Equal(t, "trouble", b.is(`new Promise(r => setTimeout(() => r(document.querySelector(".pool").classList[1]), 2500))`).(string), "it waits for more than a second")
}

func TestASentenceIsSaidWhenItChanges(t *testing.T) {
	s, b := opens(t, 2, "")
	b.becomes(live)
	holds(t, s)
	b.shows(".sentence", "1 connection is checked out but unused")
	b.shows("#said", "1 connection is checked out but unused")
	said := b.is(`document.getElementById("said").textContent`)
	b.do(chromedp.Evaluate(`window.times = 0; new MutationObserver(() => window.times++).observe(document.getElementById("said"), {childList: true, characterData: true, subtree: true})`, nil))
	first := b.is(`document.querySelector(".sentence").textContent`)
	b.becomes(fmt.Sprintf(`document.querySelector(".sentence").textContent !== %q`, first))
	assert.Equal(t, said, b.is(`document.getElementById("said").textContent`), "only its figures have changed")
	assert.Zero(t, b.is("window.times"))
}

func TestWithoutJavaScript(t *testing.T) {
	s := shop.Open("shop", 2)
	t.Cleanup(s.Close)
	off := chromedp.ActionFunc(func(ctx context.Context) error { return emulation.SetScriptExecutionDisabled(true).Do(ctx) })
	h := livepage.Handler(livepage.Pools(s.Pool))
	holds(t, s)
	holds(t, s)
	b := tabOn(t, h, "", off)
	text := func(selector string) (text string) {
		b.t.Helper()
		b.do(chromedp.Text(selector, &text, chromedp.ByQuery))
		return text
	}
	assert.Contains(t, text(".sentence"), "2 of 2 connections are in use")
	assert.Contains(t, text(".when"), "as of")
	var where string
	b.click(`#out th:nth-child(3) a`)
	b.do(chromedp.WaitVisible(`#out th[aria-sort=descending]`, chromedp.ByQuery), chromedp.Location(&where))
	assert.Contains(t, where, "sort_out=-held")
	b.click("#zoomout")
	b.do(chromedp.WaitVisible(`.span`, chromedp.ByQuery), chromedp.Location(&where))
	assert.Contains(t, where, "span=30s")
	b.click(`#out tbody a`)
	b.do(chromedp.WaitVisible(`.pin`, chromedp.ByQuery))
	assert.Contains(t, text(".pin"), "Where it was taken")
	b.click(`#look`)
	b.do(chromedp.WaitVisible(`.pin pre + p, .pin .none`, chromedp.ByQuery))
	assert.Contains(t, text(".pin"), "Look again")
	b.do(chromedp.SendKeys("#place", "nowhere.go"+kb.Enter, chromedp.ByQuery))
	b.do(chromedp.WaitVisible(`#out .none`, chromedp.ByQuery))
	assert.Contains(t, text("#out"), "No connection is checked out by such a place")
	b.click("#freeze")
	b.do(chromedp.WaitVisible("#golive", chromedp.ByQuery))
	assert.Contains(t, text(".when"), "frozen at")
}

func TestTablesAreSortedByAClick(t *testing.T) {
	s, b := opens(t, 3, "")
	for range 3 {
		holds(t, s)
	}
	b.becomes(live)
	ids := `[...document.querySelectorAll("#out tbody tr td:first-child")].map(e => e.textContent).join()`
	b.becomes(ids + ` === "1,2,3"`)
	b.click(`#out th:last-child a`)
	b.addressHas("sort_out=connection")
	b.click(`#out th:nth-child(3) a`)
	b.addressHas("sort_out=-held")
	b.becomes(`document.querySelector("#out th:nth-child(3)").ariaSort === "descending"`)
	b.click(`#out th:nth-child(3) a`)
	b.becomes(ids + ` === "3,2,1"`)
	assert.Equal(t, true, b.is(live), "it goes on")
	b.do(chromedp.NavigateBack())
	b.becomes(ids + ` === "1,2,3"`)
}

func TestFreezeAndGoOn(t *testing.T) {
	s, b := opens(t, 2, "")
	b.becomes(live)
	holds(t, s)
	b.shows(".sentence", "1 of 2")
	b.click("#freeze")
	b.addressHas("until=")
	b.becomes(`document.body.dataset.state === "frozen"`)
	b.shows(".when", "frozen at")
	sentence := b.is(`document.querySelector(".sentence").textContent`)
	holds(t, s)
	b.is(`new Promise(r => setTimeout(() => r(1), 2200))`)
	assert.Equal(t, sentence, b.is(`document.querySelector(".sentence").textContent`))
	b.click("#zoomin")
	b.addressHas("span=")
	b.becomes(`document.body.dataset.state === "frozen"`)
	assert.Equal(t, sentence, b.is(`document.querySelector(".sentence").textContent`), "what the tables said stays")
	b.do(chromedp.Reload())
	b.shows("#out caption", "as recorded")
	b.click("#golive")
	b.becomes(live)
	b.shows(".sentence", "2 of 2")
}

func TestZoom(t *testing.T) {
	_, b := opens(t, 2, "?span=2m")
	b.becomes(live)
	b.click("#zoomin")
	b.addressHas("span=1m")
	b.shows(".span", "1 min")
	b.click("#zoomout")
	b.shows(".span", "2 min")
	b.click("#zoomout")
	b.addressHas("span=5m")
	b.shows(".span", "5 min")
	b.do(chromedp.Evaluate(`document.querySelector(".plot").dispatchEvent(new WheelEvent("wheel", {deltaY: -100, ctrlKey: true, bubbles: true, cancelable: true}))`, nil))
	b.addressHas("span=2m")
}

func TestABarIsPinned(t *testing.T) {
	s, b := opens(t, 2, "?span=15s")
	s.Dispute()
	b.becomes(live)
	b.becomes(`document.querySelector(".bar text")?.textContent.startsWith("export.go")`)
	b.becomes(`document.querySelector(".bar .edge").getBoundingClientRect().width > 30`)
	var x, y float64
	require.Eventually(t, func() bool { // the picture moves on meanwhile
		b.do(chromedp.Evaluate(`(r => r.left + r.width / 2)(document.querySelector(".bar .edge").getBoundingClientRect())`, &x),
			chromedp.Evaluate(`(r => r.top + r.height / 2)(document.querySelector(".bar .edge").getBoundingClientRect())`, &y),
			chromedp.MouseEvent("mouseMoved", x, y))
		return b.is(`String(!document.getElementById("tip").hidden)`) == "true"
	}, 30*time.Second, 100*time.Millisecond)
	b.shows("#tip", "shop/export.go")
	b.shows("#tip", "SELECT id, product, total FROM orders WHERE customer = ?")
	b.do(chromedp.MouseClickXY(x, y))
	b.addressHas("lease=1")
	b.shows(".pin", "shop.(*Shop).Export")
	assert.Equal(t, "https://traces.example.com/", b.is(`document.querySelector(".pin a[target]").href.slice(0, 27)`))
	b.click("#look")
	b.shows(".pin", "has ended")
	b.click(".pin h2 a")
	b.becomes(`!document.querySelector(".pin")`)
}

func TestAPlaceWhereManyAreDrawnTogether(t *testing.T) {
	s, b := opens(t, 1, "?span=15s")
	for range 20 {
		require.NoError(t, s.Product(context.Background(), 4))
	}
	b.becomes(live)
	b.becomes(`document.querySelector(".shapes .call")?.getAttribute("d").length > 10`)
	var x, y float64
	b.do(chromedp.Evaluate(`(r => r.right - 2)(document.querySelector(".shapes .call").getBoundingClientRect())`, &x),
		chromedp.Evaluate(`(r => r.top + 6)(document.querySelector(".shapes .call").getBoundingClientRect())`, &y))
	b.do(chromedp.MouseClickXY(x, y))
	b.shows(".pin", "shop/product.go")
}

func TestThePageIsNarrowedDown(t *testing.T) {
	s, b := opens(t, 3, "")
	holds(t, s)
	s.Dispute()
	b.becomes(live)
	b.becomes(`document.querySelectorAll("#out tbody tr").length === 2`)
	b.do(chromedp.SendKeys("#place", "EXPORT", chromedp.ByQuery))
	b.click("#tools form button")
	b.addressHas("place=EXPORT")
	b.becomes(`document.querySelectorAll("#out tbody tr").length === 1`)
	b.becomes(`document.querySelectorAll(".labels text.held").length === 1`)
	b.click(`#tools form a`)
	b.becomes(`document.querySelectorAll("#out tbody tr").length === 2`)
	b.click(`#who tbody a`)
	b.addressHas("place=")
}

func TestItIsDarkWhereTheScreenIs(t *testing.T) {
	_, b := opens(t, 2, "")
	colour := `getComputedStyle(document.body).backgroundColor`
	assert.Equal(t, "rgb(251, 251, 250)", b.is(colour))
	b.do(browser.Look(1280, 900, true))
	assert.Equal(t, "rgb(20, 23, 26)", b.is(colour))
}

func TestNothingIsWiderThanAPhone(t *testing.T) {
	s, b := opens(t, 3, "?span=15s&lease=1", browser.Look(360, 740, false))
	s.Dispute()
	holds(t, s)
	s.Day(3)
	b.becomes(live)
	b.shows(".sentence", "checked out but unused")
	assert.Equal(t, 360.0, b.is("innerWidth"))
	wide := `[...document.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, svg, .unseen, .skip") && e.getBoundingClientRect().right > 361).map(e => e.tagName + "." + e.className).join()`
	assert.Empty(t, b.is(wide))
	assert.Equal(t, 360.0, b.is("document.documentElement.scrollWidth"))
}

func TestTheAdvisorIsAskedByAClick(t *testing.T) {
	_, b := opens(t, 2, "")
	b.becomes(live)
	b.click("#advise")
	b.addressHas("advise=1")
	b.shows(".advice", "Nothing is recorded yet")
	b.becomes(live)
	b.click(".advice a")
	b.becomes(`!document.querySelector(".advice") && !location.search.includes("advise")`)
}

func TestWithTheKeyboardAlone(t *testing.T) {
	s, b := opens(t, 2, "?span=15s")
	s.Dispute()
	b.becomes(live)
	b.becomes(`!!document.querySelector(".bar")`)
	focus := func() string {
		return b.is(`(e => e.dataset.key || e.className || e.tagName)(document.activeElement)`).(string)
	}
	var order []string
	for range 20 {
		b.do(chromedp.KeyEvent(kb.Tab))
		order = append(order, focus())
		if strings.HasPrefix(order[len(order)-1], "bar-") {
			break
		}
	}
	assert.Equal(t, []string{"skip", "advice", "held-shop/export.go:11-shop.(*Shop).Export", "freeze", "earlier", "in", "out", "place", "filter", "bar-1"}, order)
	outline := b.is(`getComputedStyle(document.activeElement).outlineStyle`)
	assert.Equal(t, "solid", outline, "the focus is seen")
	b.shows("#tip", "shop/export.go")
	b.is(`new Promise(r => setTimeout(() => r(1), 2200))`)
	assert.Equal(t, "bar-1", focus(), "it stays where it is while the page goes on")
	b.do(chromedp.KeyEvent(" "))
	b.shows(".pin", "shop.(*Shop).Export")
	assert.Equal(t, "bar-1", focus())
	b.do(chromedp.KeyEvent(kb.Escape))
	assert.Equal(t, true, b.is(`document.getElementById("tip").hidden`))
}

func TestItComesBackAfterItsServer(t *testing.T) {
	s := shop.Open("shop", 2)
	t.Cleanup(s.Close)
	page := livepage.Handler(livepage.Pools(s.Pool))
	streams := make(chan context.CancelFunc, 10)
	b := tabOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("format") == "stream" {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			streams <- cancel
			r = r.WithContext(ctx)
		}
		page.ServeHTTP(w, r)
	}), "")
	b.becomes(live)
	(<-streams)() // the server ends it
	holds(t, s)
	b.shows(".sentence", "1 of 2")
	(<-streams)()
	b.becomes(live)
}

func TestATabThatIsClosedEndsItsStream(t *testing.T) {
	s := shop.Open("shop", 2)
	t.Cleanup(s.Close)
	ended := make(chan struct{}, 10)
	page := livepage.Handler(livepage.Pools(s.Pool))
	b := tabOn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page.ServeHTTP(w, r)
		if r.URL.Query().Get("format") == "stream" {
			ended <- struct{}{}
		}
	}), "")
	b.becomes(live)
	b.do(chromedp.Navigate("about:blank"))
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

func TestNamesFromElsewhereRunNothing(t *testing.T) {
	const evil = `<img src=x onerror="window.evil=1"><script>window.evil=1</script>"'`
	s := shop.Open(evil, 2)
	t.Cleanup(s.Close)
	b := tabOn(t, livepage.Handler(livepage.Pools(s.Pool)), "?place=%22%3E%3Cscript%3Ewindow.evil=1%3C/script%3E&lease=1")
	c, err := s.DB.Conn(context.Background())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = c.ExecContext(context.Background(), `UPDATE "`+evil+`" SET a = 1`)
	require.NoError(t, err)
	b.becomes(live)
	b.shows(".name", evil)
	b.becomes(`document.querySelector(".figures dd").textContent.startsWith("1")`)
	assert.Nil(t, b.is("window.evil ?? null"))
	assert.Equal(t, `"><script>window.evil=1</script>`, b.is(`document.getElementById("place").value`))
}
