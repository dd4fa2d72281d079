package livepage

import (
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease"
)

// TestViewersShareAStepWithoutSpoilingIt looks at one step in many ways at once, while the pool works.
func TestViewersShareAStepWithoutSpoilingIt(t *testing.T) {
	db, c := open(t, sqllease.Config{Name: "shop", MaxOpen: 3})
	c.Record(200)
	_, other := open(t, sqllease.Config{Name: "other"})
	h := page(t, Pools(c, other)).(*handler)
	var all sync.WaitGroup
	done := make(chan struct{})
	for range 6 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_, _ = db.Exec("UPDATE t SET a = 1")
				}
			}
		})
	}
	h.steps.come()
	var viewers sync.WaitGroup
	for i, query := range []url.Values{
		{}, {"place": {"test"}}, {"sort_places": {"-held"}, "sort_out": {"place"}, "sort_connections": {"age"}},
		{"lease": {"3"}, "tracks": {"all"}}, {"until": {fmt.Sprint(time.Now().UnixMilli())}}, {"pool": {"other"}},
	} {
		viewers.Go(func() {
			for range 20 {
				a := addressOf(query)
				assert.Len(t, h.changed(&a, time.Now(), map[string]string{}), len(sectionNames), i)
			}
		})
	}
	viewers.Wait()
	h.steps.leave()
	close(done)
	all.Wait()
	assert.Nil(t, h.steps.doc)
}
