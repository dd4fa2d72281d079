package lab

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/sqllease/sqllease"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The seeds of a recording and of what is measured differ: an advice is for the load, and not for
// the minute that was recorded.
const (
	measuredSeed = 1
	recordedSeed = 2
)

// visit is what a caller saw.
type visit struct{ wait, response time.Duration }

// play lets the callers of a scene come to a pool, and returns what they saw.
func (s scene) play(t *testing.T, limit int, seed uint64, long time.Duration, record func(*sqllease.Connector)) (seen []visit) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		connector, err := sqllease.Wrap(&server{slower: s.slower}, sqllease.Config{
			Name: "lab", MaxOpen: limit, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		require.NoError(t, err)
		db := sql.OpenDB(connector)
		defer func() { assert.NoError(t, db.Close()) }()
		db.SetMaxIdleConns(1 << 16)
		r := rand.New(rand.NewPCG(seed, 2006))
		if record != nil {
			connector.Record(1 << 18)
		}
		var all sync.WaitGroup
		if s.workers > 0 {
			s.toil(t, r, long, db, &all)
		} else {
			seen = s.let(t, r, long, db, &all)
		}
		if record != nil {
			record(connector) // as one does who looks at it while callers come
		}
		all.Wait()
	})
	return seen
}

// let lets the callers come. What it returns is what they saw, once all have been served.
func (s scene) let(t *testing.T, r *rand.Rand, long time.Duration, db *sql.DB, all *sync.WaitGroup) []visit {
	come := s.come(r, long)
	seen := make([]visit, len(come))
	begin := time.Now()
	for i, at := range come {
		j := s.job(r)
		<-time.After(time.Until(begin.Add(at)))
		all.Go(func() { seen[i] = j.visit(t, db) })
	}
	return seen
}

// toil has workers come again and again, and returns when it is time to stop.
func (s scene) toil(t *testing.T, r *rand.Rand, long time.Duration, db *sql.DB, all *sync.WaitGroup) {
	end := time.Now().Add(long)
	for range s.workers {
		own := rand.New(rand.NewPCG(r.Uint64(), 2006))
		all.Go(func() {
			for time.Now().Before(end) {
				s.job(own).visit(t, db)
			}
		})
	}
	<-time.After(long)
}

// job draws what a caller does.
func (s scene) job(r *rand.Rand) job {
	return job{work: drawn(s.work, r), sleep: drawn(s.sleep, r), unused: drawn(s.unused, r)}
}

func drawn(of lengths, r *rand.Rand) time.Duration {
	if of == nil {
		return 0
	}
	return of(r)
}

// visit has the job done on a connection.
func (j job) visit(t *testing.T, db *sql.DB) visit {
	ctx := context.Background()
	came := time.Now()
	c, err := db.Conn(ctx)
	if !assert.NoError(t, err) {
		return visit{}
	}
	had := time.Now()
	_, err = c.ExecContext(j.with(ctx), "SELECT 1")
	assert.NoError(t, err)
	if j.unused > 0 {
		<-time.After(j.unused)
	}
	assert.NoError(t, c.Close())
	return visit{had.Sub(came), time.Since(came)}
}

// measured is what callers saw at each limit.
type measured struct {
	limits []int
	late   []float64       // the share that waited longer than the goal has it
	met    []bool          // the goal
	means  []time.Duration // of the responses
}

// measure tries limits. Where it is close whether one meets the goal, others come for longer.
func (s scene) measure(t *testing.T) (m measured) {
	const atMost, near = 0.01, 4
	m.limits = s.tried
	if m.limits == nil {
		m.limits = few
	}
	for _, limit := range m.limits {
		late, mean := s.seen(s.play(t, limit, measuredSeed, s.length(), nil))
		if late > atMost/near && late < atMost*near {
			late, _ = s.seen(s.play(t, limit, measuredSeed, max(s.length(), 5*time.Minute), nil))
		}
		m.late, m.means = append(m.late, late), append(m.means, mean)
		m.met = append(m.met, late <= atMost)
	}
	return m
}

// seen is how many of all waited longer than the goal has it, and for how long they were there.
func (s scene) seen(visits []visit) (late float64, mean time.Duration) {
	for _, v := range visits {
		mean += v.response / time.Duration(len(visits))
		if v.wait > s.goal {
			late += 1 / float64(len(visits))
		}
	}
	return late, mean
}

// length is that of a recording, and of a measurement.
func (s scene) length() time.Duration {
	if s.long > 0 {
		return s.long
	}
	return 30 * time.Second
}

// advise records a scene and asks.
func (s scene) advise(t *testing.T, limit int) (a sqllease.Advice) {
	s.play(t, limit, recordedSeed, s.length(), func(c *sqllease.Connector) { a = c.Advise(s.asked()) })
	return a
}

// best is the smallest limit that meets the goal, and with which callers are served about as fast as
// with any; and collapse is the first above it with which they are served slower.
func (m measured) best() (best, collapse int) {
	least := slices.Index(m.means, slices.Min(m.means))
	good := func(k int) bool { return k <= least || float64(m.means[k]) <= 1.05*float64(m.means[least]) }
	for k := least + 1; k < len(m.limits); k++ {
		if float64(m.means[k]) > 1.25*float64(m.means[least]) {
			collapse = m.limits[k]
			break
		}
	}
	for k, met := range m.met {
		if met && good(k) {
			return m.limits[k], collapse
		}
	}
	return m.limits[slices.IndexFunc(m.means, func(d time.Duration) bool { return float64(d) <= 1.05*float64(m.means[least]) })], collapse
}
