package livepage

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

func TestEachPoolHasAKeyOfItsOwn(t *testing.T) {
	var pools []*sqllease.Connector
	for _, name := range []string{"shop", "shop (2)", "shop", "shop (2)", "shop"} {
		_, c := open(t, sqllease.Config{Name: name})
		pools = append(pools, c)
	}
	seen := map[string]bool{}
	for _, key := range new(keys).of(pools) {
		assert.False(t, seen[key], key)
		seen[key] = true
	}
}

func TestAPoolIsFoundByTheNameThatItHas(t *testing.T) {
	_, c := open(t, sqllease.Config{Name: "a\tpool"})
	h := page(t, Pools(c))
	for _, format := range []string{"json", "text"} {
		assert.Equal(t, http.StatusOK, get(h, "/?format="+format+"&pool="+url.QueryEscape(c.Name())).Code)
	}
}

func TestANumberThatIsTooLargeIsLeftOut(t *testing.T) {
	a := addressOf(url.Values{"lease": {"99999999999999999999"}, "at": {"99999999999999999999.1"}})
	assert.Zero(t, a.Lease)
	assert.Zero(t, a.At.Connection)
}

// A pool that is closed takes its leases with it: those of another have other numbers.
func TestALeaseOfAPoolThatIsGoneIsNotLookedForInAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, other := open(t, sqllease.Config{Name: "other"})
		h := page(t, Pools(other))
		_, err := db.Exec("UPDATE t SET a = 1")
		require.NoError(t, err)
		require.NotEmpty(t, other.Recording().Leases)
		for _, address := range []string{"/?pool=shop&lease=1", fmt.Sprintf("/?pool=shop&at=1.%d", time.Now().UnixMilli())} {
			text := get(h, address).Body.String()
			assert.Contains(t, text, "There is no pool shop any more.")
			assert.Regexp(t, `data-address="\?[^"]*pool=shop"`, text, "what follows says so too")
			assert.NotContains(t, text, "Checkout 1 ", address)
		}
	})
}

func TestAStreamOfAPoolThatIsGoneGoesOnSayingSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "other"})
		var v viewer
		leave, done := watches(page(t), "/?format=stream&pool=shop", &v)
		wait(3500 * time.Millisecond)
		_, parts := v.events(t)
		last := ""
		for _, p := range parts {
			if s := p["sentences"]; s != "" {
				last = s
			}
		}
		assert.Contains(t, last, "There is no pool shop any more.")
		leave()
		<-done
	})
}

func TestNothingIsSaidOfATimeThatIsNotRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, recorded := open(t, sqllease.Config{Name: "recorded", MaxOpen: 1})
		_, not := open(t, sqllease.Config{Name: "not"})
		held := conn(t, db)
		wait(time.Minute)
		recorded.Record(10)
		wait(time.Minute)
		h := page(t, Pools(recorded, not), Record(0))
		until := time.Now().Add(-90 * time.Second).UnixMilli()
		for _, pool := range []string{"recorded", "not"} {
			text := get(h, fmt.Sprintf("/?format=text&pool=%s&until=%d", pool, until)).Body.String()
			assert.NotContains(t, text, "All is well", pool)
		}
		require.NoError(t, held.Close())
	})
}

func TestAPageIsFrozenWhoeverElseLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop"})
		h := page(t)
		var first, second viewer
		leave, done := watches(h, "/?format=stream", &first)
		wait(900 * time.Millisecond) // its step was read at the beginning of this second
		leave2, done2 := watches(h, fmt.Sprintf("/?format=stream&until=%d", time.Now().Add(-100*time.Millisecond).UnixMilli()), &second)
		<-done2
		_, parts := second.events(t)
		assert.Contains(t, parts[0]["head"], "frozen at")
		leave()
		leave2()
		<-done
	})
}

func TestATimeThatHasNotComeIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open(t, sqllease.Config{Name: "shop"})
		var v viewer
		leave, done := watches(page(t), "/?format=stream&until=4102444800000", &v)
		wait(2500 * time.Millisecond)
		kinds, parts := v.events(t)
		assert.NotContains(t, kinds, "frozen", "what is live goes on")
		assert.NotContains(t, parts[0]["head"], "frozen")
		leave()
		<-done
	})
}

// What an address says costs no more than a page does.
func TestAbsurdAddressesAreAnswered(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: "shop", MaxOpen: 5})
	c.Record(1000)
	for range 50 {
		_, err := db.Exec("UPDATE t SET a = 1")
		require.NoError(t, err)
	}
	held := conn(t, db)
	h := page(t, Pools(c))
	for key, values := range map[string][]string{
		"span":   {"-5m", "NaN", "Inf", "0", "1ns", "2540400h", "-2540400h", "1e9h", "9223372036s", "999999999999999999999h", "1h30m0.0000001s"},
		"until":  {"-1", "0", "1", "NaN", "1e18", "9007199254740992", "9007199254740993", "-9223372036854775808", "9223372036854775807", "253402300800000"},
		"at":     {"1.1", "1.", ".1", "1.-1", "18446744073709551615.9007199254740992", "1.9007199254740992", "0.1"},
		"lease":  {"-1", "18446744073709551615", "1e3", "0x10"},
		"place":  {strings.Repeat("é", 5000), "\xff\xfe", "%", "\x00", strings.Repeat("a", 100_000)},
		"tracks": {"all", "none"},
		"pool":   {"\x00", strings.Repeat("x", 50_000)},
		"now":    {"1"},
	} {
		for _, value := range values {
			for _, more := range []string{"", "&tracks=all&until=1", "&span=1ns&at=1.1"} {
				for _, format := range []string{"", "json", "text"} {
					w := get(h, "/?format="+format+"&"+key+"="+url.QueryEscape(value)+more)
					assert.Contains(t, []int{http.StatusOK, http.StatusNotFound}, w.Code)
					assert.Less(t, w.Body.Len(), 2_000_000, key)
					if w.Code == http.StatusOK {
						assert.NotEmpty(t, w.Body.String(), key+" "+value+" "+format)
					}
				}
			}
		}
	}
	require.NoError(t, held.Close())
}

// TestAPoolMayCloseWhileItIsDrawn: nothing panics.
func TestAPoolMayCloseWhileItIsDrawn(t *testing.T) {
	for range 30 {
		db, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{Name: "shop", MaxOpen: 3, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		c, _ := sqllease.ConnectorOf(db)
		h := page(t, Pools(c), Record(50))
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 20 {
				_, _ = db.Exec("UPDATE t SET a = 1")
			}
			_ = db.Close()
		}()
		for range 10 {
			for _, f := range []string{"", "json", "text"} {
				assert.Equal(t, http.StatusOK, get(h, "/?now=1&format="+f).Code)
			}
		}
		<-done
		assert.Equal(t, http.StatusOK, get(h, "/").Code)
	}
}

func TestAReadThatPanicsIsMadeAgain(t *testing.T) {
	open(t, sqllease.Config{Name: "shop"})
	h := page(t).(*handler)
	read, bad := h.steps.read, true
	h.steps.read = func() *document {
		if bad {
			bad = false
			panic("once")
		}
		return read()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ask := func() *viewer {
		v := &viewer{header: http.Header{}}
		h.ServeHTTP(v, httptest.NewRequest(http.MethodGet, "/?format=stream", nil).WithContext(ctx))
		return v
	}
	assert.Panics(t, func() { ask() })
	assert.Zero(t, h.steps.viewers)
	v := ask()
	assert.Contains(t, v.text.String(), "event: step")
	assert.Nil(t, h.steps.doc)
}

func TestAPageOfManyLeasesIsBounded(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: "shop", MaxOpen: 1000})
	c.Record(20_000)
	var held []*sql.Conn
	for range 1000 {
		held = append(held, conn(t, db))
	}
	for range 20 {
		for i, k := range held {
			require.NoError(t, k.Close())
			held[i] = conn(t, db)
		}
	}
	h := page(t, Pools(c))
	for _, address := range []string{"/", "/?tracks=all", "/?place=test", "/?format=json", "/?format=text", "/?tracks=all&until=" + fmt.Sprint(time.Now().Add(-100*time.Millisecond).UnixMilli())} {
		assert.Less(t, get(h, address).Body.Len(), 1_000_000, address)
	}
	for _, k := range held {
		require.NoError(t, k.Close())
	}
}

// A pool that is closed leaves the others with the names that their addresses have.
func TestAPoolKeepsItsKeyWhenAnotherOfItsNameIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, err := sqllease.OpenDB(nothing.Driver{}, sqllease.Config{Name: "shop", MaxOpen: 3, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		open(t, sqllease.Config{Name: "shop", MaxOpen: 4})
		h := page(t)
		require.Contains(t, get(h, "/?format=text&pool=shop").Body.String(), "of 3")
		require.Contains(t, get(h, "/?format=text&pool=shop+(2)").Body.String(), "of 4")
		require.NoError(t, first.Close())
		assert.Contains(t, get(h, "/?pool=shop").Body.String(), "There is no pool shop any more.")
		assert.Contains(t, get(h, "/?format=text&pool=shop+(2)").Body.String(), "of 4")
		open(t, sqllease.Config{Name: "shop", MaxOpen: 5})
		assert.Contains(t, get(h, "/?format=text&pool=shop").Body.String(), "of 5")
	})
}
