package sqllease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// How a pool dials a server that is down, or starts.

// downServer is a server that refuses, or hangs, until it is up. A dial takes 5 ms.
type downServer struct {
	*lifetimeFake
	refuses bool // else it hangs

	mu       sync.Mutex
	up       chan struct{} // guarded by mu: closed when it is up
	dials    int           // guarded by mu: since it went down
	now      int           // guarded by mu: dials under way
	failures int           // guarded by mu: of dials since it went down
	most     int           // guarded by mu: the most under way at once, since the first of these until it was up
}

func newDownServer(refuses bool) *downServer {
	s := &downServer{refuses: refuses, up: make(chan struct{})}
	close(s.up)
	s.lifetimeFake = &lifetimeFake{connect: s.dial, exec: func(context.Context) error { elapse(20 * time.Millisecond); return nil }}
	return s
}

func (s *downServer) isUp() bool {
	select {
	case <-s.up:
		return true
	default:
		return false
	}
}

func (s *downServer) dial(ctx context.Context, _ int) (err error) {
	s.mu.Lock()
	up := s.up
	s.dials++
	s.now++
	if s.failures > 0 && !s.isUp() {
		s.most = max(s.most, s.now)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.now--; err != nil {
			s.failures++
		}
	}()
	elapse(5 * time.Millisecond)
	select {
	case <-up:
		return nil
	default:
	}
	if s.refuses {
		return syscall.ECONNREFUSED
	}
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restart has all connections die, and the server be down for so long.
func (s *downServer) restart(down time.Duration) {
	for _, conn := range s.sessions() {
		conn.mu.Lock()
		conn.broken = true
		conn.mu.Unlock()
	}
	s.goDown(down)
}

// goDown lets nobody new in for so long.
func (s *downServer) goDown(down time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.up, s.dials, s.failures, s.most = make(chan struct{}), 0, 0, 0
	up := s.up
	time.AfterFunc(down, func() { close(up) })
}

// counts are its dials since it went down, and the most of them at once. The pool may be dialing.
func (s *downServer) counts() (dials, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials, s.most
}

// stormOutcome is what a restart came to.
type stormOutcome struct {
	failed, dials, most int
	full                time.Duration // from when the server was up until 50 connections were open
}

// storm has 200 callers use a pool of 50 through a restart of 3 s. Each goes on until its
// call succeeds, with a second for each try.
func storm(t *testing.T, s *downServer, db *sql.DB) (o stormOutcome) {
	const callers, limit, down = 200, 50, 3 * time.Second
	use := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		_, err := db.ExecContext(ctx, "DO 1")
		return err
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() { assert.NoError(t, use()) })
	}
	all.Wait()
	before := len(s.sessions())
	s.restart(down)
	start := time.Now()
	var failed atomic.Int64
	for range callers {
		all.Go(func() {
			for time.Since(start) < down+time.Second {
				if use() != nil {
					failed.Add(1)
					elapse(50 * time.Millisecond)
				}
			}
		})
	}
	for len(s.sessions()) < before+limit {
		elapse(time.Millisecond)
		require.Less(t, time.Since(start), time.Minute)
	}
	o.full = time.Since(start) - down
	all.Wait()
	o.failed = int(failed.Load())
	o.dials, o.most = s.counts()
	return o
}

func TestAServerThatIsDownIsDialedByOneAtATime(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		what := map[bool]string{true: "refuses", false: "hangs"}[refuses]
		t.Run(what, func(t *testing.T) {
			var bare, wrapped stormOutcome
			synctest.Test(t, func(t *testing.T) {
				s := newDownServer(refuses)
				db := sql.OpenDB(s)
				db.SetMaxOpenConns(50)
				db.SetMaxIdleConns(50)
				bare = storm(t, s, db)
				require.NoError(t, db.Close())
			})
			synctest.Test(t, func(t *testing.T) {
				s := newDownServer(refuses)
				db, c := openPool(t, s, Config{MaxOpen: 50, LeakThreshold: -1})
				wrapped = storm(t, s, db)
				assert.Zero(t, paceOf(c), "full speed")
				assert.Zero(t, c.Stats().Waiting)
			})
			t.Logf("a server that %s for 3 s, 200 callers, a limit of 50, after the first failure:", what)
			t.Logf("%-9s %12s %6s %13s %20s", "", "failed calls", "dials", "most at once", "until 50 are open")
			for name, o := range map[string]stormOutcome{"bare": bare, "sqllease": wrapped} {
				t.Logf("%-9s %12d %6d %13d %20v", name, o.failed, o.dials, o.most, o.full)
			}
			assert.LessOrEqual(t, wrapped.most, 1, "dials at once")
			if !refuses { // else they fail all at once, and one goroutine of database/sql's dials for the others
				assert.Greater(t, bare.failed, wrapped.failed)
			}
			assert.LessOrEqual(t, wrapped.full, 100*time.Millisecond)
			assert.Less(t, wrapped.dials, 1000, "of callers who come again every 50 ms")
		})
	}
}

// paceOf is how many may be dialed at once.
func paceOf(c *Connector) (n int) {
	c.gate.Look(func() { n = c.gate.FiguresLocked().Pace })
	return n
}

func TestAServerThatRefusesFailsItsCallersOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var order []int // guarded by mu
		f := &lifetimeFake{connect: func(_ context.Context, dial int) error {
			elapse(10 * time.Millisecond)
			return fmt.Errorf("refusal %d", dial)
		}}
		db, c := openPool(t, f, Config{}) // no limit: nobody else would wait
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.EqualError(t, err, "refusal 1")
		start := time.Now()
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.EqualError(t, err, fmt.Sprintf("refusal %d", i+2), "its own dial's")
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
			synctest.Wait()
		}
		assert.Equal(t, []int{1, 19}, []int{c.Stats().Dialing, c.Stats().Waiting})
		all.Wait()
		assert.Equal(t, 200*time.Millisecond, time.Since(start), "nothing is waited for but the dials")
		assert.IsIncreasing(t, order)
	})
}

// While the server lets nobody new in, those who wait share the connections that there are.
func TestWhoMayNotDialIsServedWhatComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refuses atomic.Bool
		f := &lifetimeFake{connect: func(context.Context, int) error {
			if refuses.Load() {
				elapse(time.Minute)
				return errors.New("refused")
			}
			return nil
		}, exec: func(context.Context) error { elapse(time.Second); return nil }}
		db, c := openPool(t, f, Config{MaxOpen: 10})
		held := take(t, db, 1)
		refuses.Store(true)
		var all sync.WaitGroup
		all.Go(func() { _, err := db.ExecContext(t.Context(), "DO 1"); assert.EqualError(t, err, "refused") })
		elapse(time.Minute + time.Second)
		all.Go(func() { _, err := db.ExecContext(t.Context(), "DO 1"); assert.EqualError(t, err, "refused") })
		synctest.Wait()
		start := time.Now()
		for range 3 {
			all.Go(func() {
				_, err := db.ExecContext(t.Context(), "DO 1")
				assert.NoError(t, err)
				assert.LessOrEqual(t, time.Since(start), 3*time.Second)
			})
		}
		synctest.Wait()
		assert.Equal(t, []int{1, 3}, []int{c.Stats().Dialing, c.Stats().Waiting})
		giveBack(t, held...)
		all.Wait()
	})
}

// Whoever was given a session that is dead has it closed, and waits for leave to dial in its
// place.
func TestDeadSessionsAreReplacedOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newDownServer(true)
		db, c := openPool(t, s, Config{MaxOpen: 20})
		giveBack(t, take(t, db, 20)...)
		elapse(time.Second)
		s.restart(500 * time.Millisecond)
		_, err := db.ExecContext(t.Context(), "DO 1") // finds two of them dead, and cannot dial
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.Equal(t, 1, paceOf(c))
		elapse(494 * time.Millisecond)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				conn, err := c.Connect(t.Context()) // as database/sql does at its last attempt
				if assert.NoError(t, err) {
					elapse(time.Second)
					assert.NoError(t, conn.Close())
				}
			})
		}
		synctest.Wait()
		assert.Equal(t, []int{1, 19}, []int{c.Stats().Dialing, c.Stats().Waiting}, "each has closed one, or waits")
		all.Wait()
		stats := c.Stats()
		assert.Positive(t, stats.Closed.Suspect)
		assert.Equal(t, uint64(19), stats.Waits, "one acquire is one wait")
		_, most := s.counts()
		assert.LessOrEqual(t, most, 1)
	})
}

func TestADialThatHangsForEverDoesNotKeepTheOthersBackForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(ctx context.Context, dial int) error {
			switch dial {
			case 1:
				return errors.New("refused")
			case 2:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		db, c := openPool(t, f, Config{MaxOpen: 10})
		_, err := db.ExecContext(t.Context(), "DO 1")
		require.Error(t, err)
		ctx, cancel := context.WithCancel(t.Context()) // of one without a deadline
		var all sync.WaitGroup
		all.Go(func() { _, err := db.ExecContext(ctx, "DO 1"); assert.ErrorIs(t, err, context.Canceled) })
		synctest.Wait()
		start := time.Now()
		for range 5 {
			all.Go(func() {
				useOnce(t, db)
				assert.Equal(t, 5*time.Second, time.Since(start))
			})
		}
		elapse(10 * time.Second)
		assert.Equal(t, []int{1, 0}, []int{c.Stats().Dialing, c.Stats().Waiting})
		cancel()
		all.Wait()
		assert.Zero(t, c.Stats().Dialing)
	})
}

func TestACallerInAHurryDoesNotSlowDownAHealthyPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &lifetimeFake{connect: func(ctx context.Context, _ int) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(900 * time.Millisecond):
				return nil
			}
		}}
		db, c := openPool(t, f, Config{MaxOpen: 50})
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*20*time.Millisecond)
				defer cancel()
				_, err := db.ExecContext(ctx, "DO 1")
				assert.ErrorIs(t, err, context.DeadlineExceeded)
			})
		}
		all.Wait()
		elapse(time.Second)
		assert.Zero(t, c.Stats().DialErrors, "each went on without its caller")
		assert.Zero(t, paceOf(c))
	})
}

func TestWhatADialMetWithSaysWhetherTheServerIsToBlame(t *testing.T) {
	refused, timeout := error(syscall.ECONNREFUSED), context.DeadlineExceeded
	ended := func(cause error) func() context.Context {
		return func() context.Context {
			ctx, cancel := context.WithCancelCause(context.Background())
			cancel(cause)
			return ctx
		}
	}
	late := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 0)
		cancel()
		return ctx
	}
	for name, c := range map[string]struct {
		ctx  func() context.Context
		err  error
		took time.Duration
		want bool
	}{
		"refused":                             {context.Background, refused, time.Millisecond, true},
		"the driver's own time":               {context.Background, timeout, 100 * time.Millisecond, true},
		"a panic":                             {context.Background, errPanicked, 0, true},
		"the caller's time, short":            {late, timeout, 999 * time.Millisecond, false},
		"the caller's time, long":             {late, timeout, time.Second, true},
		"AcquireTimeout, short":               {ended(errOutOfTime), context.Canceled, 999 * time.Millisecond, false},
		"AcquireTimeout, long":                {ended(errOutOfTime), context.Canceled, time.Second, true},
		"the caller went":                     {ended(nil), context.Canceled, time.Hour, false},
		"the caller went, and it was refused": {ended(nil), refused, time.Hour, false},
	} {
		assert.Equal(t, c.want, blames(c.ctx(), c.err, c.took), name)
	}
	soon, cancel := context.WithTimeout(context.Background(), 900*time.Microsecond)
	defer cancel()
	assert.False(t, blames(soon, timeout, time.Millisecond), "a driver takes notice before the context does")
}
