package sqllease

import (
	"context"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What idle times teach, in whole pools. learn_record_test.go has the rules one by one.

// drivers that notice a dead session at a reset, at a call that is made again, and at one that
// fails.
var noticing = map[string]func() *droppingFake{
	"at the reset":                 func() *droppingFake { return &droppingFake{atReset: true, fails: sayBad} },
	"at a call, which is repeated": func() *droppingFake { return &droppingFake{fails: sayBad} },
	"at a call, which fails":       func() *droppingFake { return &droppingFake{fails: sayEOF} },
}

const network = 100 * time.Second // drops what is idle for longer

// Without learning, two calls in three would meet a dead session: some 380 a day.
func TestAnIdleLimitIsLearnedFromTheDead(t *testing.T) {
	for name, fake := range noticing {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := fake()
				f.drops(network)
				l := newLearner(t, f, 1)
				l.lives(24*time.Hour, 3*network)
				dead := f.dead.Load()
				t.Logf("first day: %d calls, %d failed, %d found dead, %v learned", l.calls, l.failed, dead, l.learned())
				assert.LessOrEqual(t, dead, int64(25))
				assert.GreaterOrEqual(t, dead, int64(enoughDeaths))
				assert.InDelta(t, network.Seconds(), l.learned().Seconds(), network.Seconds()/9, "with the margin, nothing dies")
				assert.Equal(t, l.learned(), l.c.Stats().IdleLimit)
				if name == "at a call, which fails" {
					assert.Equal(t, int(dead), l.failed)
				} else {
					assert.Zero(t, l.failed)
				}
				l.lives(7*24*time.Hour, 3*network)
				t.Logf("the week after: %d calls, %d failed, %d found dead, %v learned", l.calls, l.failed, f.dead.Load()-dead, l.learned())
				assert.LessOrEqual(t, f.dead.Load()-dead, int64(20), "it is tried less and less often whether the limit is still there")
			})
		})
	}
}

// An application whose idle times are about as long as the limit is the worst case.
func TestALimitIsLearnedThatIsMetAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(network)
		l := newLearner(t, f, 2)
		for range 1000 {
			elapse(network - 5*time.Second + time.Duration(l.rand.Int64N(int64(10*time.Second))))
			l.call()
		}
		t.Logf("%d calls, %d failed, %v learned", l.calls, l.failed, l.learned())
		assert.LessOrEqual(t, l.failed, 10)
	})
}

// Each restart leaves dead sessions of all ages: those used a moment ago, and those that only
// a burst uses, which are found much later.
func TestRestartsTeachNothing(t *testing.T) {
	for name, fake := range noticing {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(4) {
				synctest.Test(t, func(t *testing.T) {
					f := fake()
					l := newLearner(t, f, seed)
					for range 24 {
						l.burst(6)
						for range 12 {
							l.lives(time.Duration(l.rand.Int64N(int64(5*time.Minute))), 20*time.Second)
							f.restarts()
							l.lives(time.Minute, 20*time.Second)
						}
						assert.Zero(t, l.learned())
					}
					assert.Greater(t, f.dead.Load(), int64(24*12))
					assert.Empty(t, l.log.warnings(), "nor is it said that limits could not be discovered")
				})
			}
		})
	}
}

// A server that restarts once a day, and callers that come now and then.
func TestRareRestartsOfAQuietPoolTeachNothing(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			f := &droppingFake{fails: sayEOF}
			l := newLearner(t, f, seed)
			for range 30 {
				l.lives(24*time.Hour, time.Hour)
				f.restarts()
				assert.Zero(t, l.learned())
			}
		})
	}
}

func TestShortIdleTimesTeachNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(500 * time.Millisecond)
		l := newLearner(t, f, 3)
		l.lives(time.Hour, time.Second)
		assert.Greater(t, l.failed, 1000)
		assert.Zero(t, l.learned())
	})
}

func TestALimitThatHasGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(network)
		l := newLearner(t, f, 4)
		l.lives(time.Hour, 3*network)
		require.NotZero(t, l.learned())
		f.drops(0)
		failed := l.failed
		l.lives(30*time.Hour, 3*network)
		assert.Equal(t, failed, l.failed)
		assert.Zero(t, l.learned())
		assert.Equal(t, 8*time.Hour, l.c.Stats().IdleLimit)
	})
}

func TestALimitThatIsLoweredIsLearnedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(network)
		l := newLearner(t, f, 5)
		l.lives(6*time.Hour, 3*network)
		require.InDelta(t, network.Seconds(), l.learned().Seconds(), network.Seconds()/9)
		f.drops(network / 4)
		l.lives(6*time.Hour, 3*network)
		assert.InDelta(t, network.Seconds()/4, l.learned().Seconds(), network.Seconds()/36)
	})
}

// Where two ways lead to the server, what one of them lets live refutes what the other ends.
// Something between the two limits is learned. Without learning, half of the connections
// that are taken are dead.
func TestOfTwoLimitsSomethingBetweenIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.limit.Store(int64(network))
		f.odd.Store(int64(4 * network))
		l := newLearner(t, f, 6)
		for range 10 {
			before, deadBefore := l.calls, f.dead.Load()
			for range 200 {
				elapse(time.Duration(l.rand.Int64N(int64(8 * network))))
				l.burst(1 + l.rand.IntN(4))
			}
			assert.Less(t, 5*int(f.dead.Load()-deadBefore), l.calls-before)
			assert.Greater(t, l.learned(), network)
		}
	})
}

// The sessions that are there get the limit too, and none ends for its age.
func TestALearnedLimitIsThatOfEverySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(network)
		l := newLearner(t, f, 7)
		for range 3 {
			l.call()
			elapse(network + time.Second)
		}
		l.burst(4)
		require.Zero(t, l.learned())
		elapse(network + time.Second)
		l.call()
		l.call()
		require.Equal(t, network+time.Second-askAfter, l.learned(), "it was asked for its limit a moment after the first call")
		assert.Equal(t, enoughDeaths, l.failed, "the others were idle for too long by then, and nobody got them")
		elapse(beforeLimit(l.learned()) + askAfter)
		synctest.Wait()
		assert.Zero(t, l.c.Stats().Open)

		dials := f.dials.Load()
		for range 60 {
			elapse(time.Minute)
			l.call()
		}
		assert.Equal(t, dials+1, f.dials.Load(), "it is used, and not idle")
	})
}

func TestWhatWasLearnedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		f.drops(network)
		l := newLearner(t, f, 8)
		l.call()
		for range enoughDeaths {
			elapse(2 * network)
			l.call()
			l.call()
		}
		l.log.wantOneWarning(t, map[string]string{
			"found_dead": "3", "shortest_idle": (2*network - askAfter).String(), "longest_idle": (2*network - askAfter).String(),
			"known_limit": "8h0m0s", "assumed_limit": (2*network - askAfter).String(),
		}, "Set Config.NetworkIdleLimit")
	})
}

// A server that says why it ended a session is believed.
func TestWhatAServerSaysOfADeathCounts(t *testing.T) {
	saying := func(number uint16) *droppingFake {
		return &droppingFake{fails: func(*droppingConn) error { return &mysql.MySQLError{Number: number} }}
	}
	t.Run("idle", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := saying(4031)
			f.drops(network)
			l := newLearner(t, f, 9)
			l.call()
			elapse(2 * network)
			l.call()
			assert.Equal(t, 2*network-askAfter, l.learned())
		})
	})
	t.Run("killed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f := saying(1927)
			f.drops(network)
			l := newLearner(t, f, 9)
			l.lives(time.Hour, 3*network)
			assert.Greater(t, l.failed, enoughDeaths)
			assert.Zero(t, l.learned())
		})
	})
}

// A caller whose context ends may be the reason itself: nothing is known of the session.
func TestACallThatItsCallerEndedTeachesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF, after: func(ctx context.Context) error {
			<-ctx.Done()
			return driver.ErrBadConn
		}}
		l := newLearner(t, f, 10)
		for range 10 {
			elapse(2 * network)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := l.db.ExecContext(ctx, "DO 1")
			require.Error(t, err)
			cancel()
		}
		assert.Zero(t, l.learned())
	})
}

// A connection that is taken and given back without a call has heard nothing.
func TestALeaseWithoutACallIsNoSignOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &droppingFake{fails: sayEOF}
		db, c := openPool(t, f, Config{NetworkIdleLimit: network, MaxOpen: 1, Discovery: NoDiscovery})
		useOnce(t, db)
		for range 10 {
			elapse(beforeLimit(network) / 10)
			giveBack(t, take(t, db, 1)...)
		}
		assert.Equal(t, uint64(1), c.Stats().Closed.Total())
		useOnce(t, db)
	})
}
