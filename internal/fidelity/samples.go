package fidelity

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// IdleSettings are what decides how many sessions there are.
type IdleSettings struct {
	Limit, Idle int
	IdleTime    time.Duration
}

func (i IdleSettings) String() string {
	return fmt.Sprintf("limit %d, idle %d, idle time %v", i.Limit, i.Idle, i.IdleTime)
}

// phase is some load: so many callers, whose calls take that long, and who do nothing
// between them for some time.
type phase struct {
	name     string
	callers  int
	takes    time.Duration
	rests    time.Duration
	patience time.Duration // how long they wait for a connection; zero: for as long as it takes
	lasts    time.Duration
	exact    bool // how many sessions there are is determined
}

var phases = []phase{
	{name: "light load", callers: 1, takes: 7 * time.Millisecond, rests: 50 * time.Millisecond, lasts: 3 * time.Second, exact: true},
	{name: "a few at once", callers: 3, takes: 110 * time.Millisecond, rests: 61 * time.Millisecond, lasts: 3 * time.Second},
	{name: "saturation", callers: 12, takes: 11 * time.Millisecond, lasts: 2 * time.Second, exact: true},
	{name: "overload", callers: 30, takes: 13 * time.Millisecond, patience: 31 * time.Millisecond, lasts: 2 * time.Second, exact: true},
	{name: "seldom", callers: 1, takes: 7 * time.Millisecond, rests: 3 * time.Second, lasts: 20 * time.Second, exact: true},
	{name: "afterwards", lasts: 90 * time.Second, exact: true},
}

// sampled are how many sessions there were in a phase, by sample.
type sampled map[string][]int

// Samples compares how many sessions there are on the server over time.
func Samples(t *testing.T, w Way, settings IdleSettings) {
	b, o := settings.sample(t, Bare), settings.sample(t, w)
	for _, p := range phases {
		bare, other := b[p.name], o[p.name]
		require.Len(t, other, len(bare), p.name)
		if p.exact {
			assert.Equal(t, bare, other, "%s: sessions", p.name)
			continue
		}
		assert.InDelta(t, mean(bare), mean(other), 0.6, "%s: sessions, %v bare, %v otherwise", p.name, bare, other)
	}
}

func mean(all []int) float64 {
	sum := 0
	for _, n := range all {
		sum += n
	}
	return float64(sum) / float64(len(all))
}

func (i IdleSettings) sample(t *testing.T, w Way) (all sampled) {
	defer watchdog(crowd{})()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		db, err := w.Open(backend{s})
		require.NoError(t, err)
		db.SetMaxOpenConns(i.Limit)
		db.SetMaxIdleConns(i.Idle)
		db.SetConnMaxIdleTime(i.IdleTime)
		all = sampled{}
		for _, p := range phases {
			s.takes = p.takes
			all[p.name] = p.run(t, db, s)
		}
		require.NoError(t, db.Close())
		assert.Empty(t, s.wrong())
		assert.Zero(t, s.left())
	})
	return all
}

// run lasts for a phase, and takes samples.
func (p phase) run(t *testing.T, db *sql.DB, s *server) (samples []int) {
	end := time.Now().Add(p.lasts)
	var callers sync.WaitGroup
	for range p.callers {
		callers.Go(func() {
			for time.Now().Before(end) {
				p.call(t, db)
				pass(p.rests)
			}
		})
	}
	const first, every = 503 * time.Millisecond, 200 * time.Millisecond
	pass(first)
	for time.Now().Before(end) {
		synctest.Wait()
		samples = append(samples, s.left().sessions)
		pass(every)
	}
	callers.Wait()
	return samples
}

func (p phase) call(t *testing.T, db *sql.DB) {
	ctx := t.Context()
	if p.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.patience)
		defer cancel()
	}
	c, err := db.Conn(ctx)
	if err != nil {
		return // it has waited for long enough
	}
	_, err = c.ExecContext(t.Context(), "INSERT INTO c")
	assert.NoError(t, err)
	assert.NoError(t, c.Close())
}
