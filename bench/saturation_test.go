package bench

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/nothing"
)

// This file is a pool with more callers than connections, in virtual time: what
// callers wait for is then the order in which they are served, and nothing of
// the machine.

const (
	connections = 10
	meanService = time.Millisecond
	served      = 10_000 // calls in a run
)

// service draws how long a caller holds its connection.
type service struct {
	name  string
	times time.Duration // by which the p99 of waits is lower, at least, where callers queue
	draw  func(*rand.Rand) time.Duration
}

// services have the same mean. The last is Pareto's, with a shape of 1.5: one
// call in a hundred takes as long as seven usual ones, and one in 10,000 as 150.
var services = []service{
	{"constant", 3, func(*rand.Rand) time.Duration { return meanService }},
	{"exponential", 3, func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * float64(meanService)) }},
	{"heavy-tail", 2, func(r *rand.Rand) time.Duration {
		const shape = 1.5
		return time.Duration(float64(meanService) * (shape - 1) / shape * math.Pow(1-r.Float64(), -1/shape))
	}},
}

// arrival lets callers come, and returns once all have been served.
type arrival struct {
	name   string
	queues bool // several callers for each connection, all the time
	run    func(r *rand.Rand, call func())
}

// closed is a loop of so many callers, each of whom comes again at once.
func closed(callers int) arrival {
	return arrival{fmt.Sprintf("callers=%d", callers), callers >= 10*connections, func(_ *rand.Rand, call func()) {
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range served / callers {
					call()
				}
			})
		}
		all.Wait()
	}}
}

// open lets callers come at random, so many that the connections are in use
// for that share of the time.
func open(share float64) arrival {
	return arrival{fmt.Sprintf("load=%.0f", share*100), false, func(r *rand.Rand, call func()) {
		gap := float64(meanService) / connections / share
		var all sync.WaitGroup
		for range served {
			<-time.After(time.Duration(r.ExpFloat64()*gap) + 1)
			all.Go(call)
		}
		all.Wait()
	}}
}

var arrivals = []arrival{closed(10), closed(20), closed(50), closed(100), closed(200), closed(500), closed(1000), open(0.5), open(0.8), open(0.85), open(0.9), open(0.95), open(1), open(1.05)}

// saturated is what came of a run.
type saturated struct {
	waits []time.Duration // in ascending order
	took  time.Duration
}

func (s saturated) percentile(q float64) time.Duration {
	return s.waits[min(int(q*float64(len(s.waits))), len(s.waits)-1)]
}

func (s saturated) throughput() float64 { return float64(len(s.waits)) / s.took.Seconds() }

// taking is a way to take a connection: give gives it back.
type taking func(ctx context.Context, db *sql.DB) (give func() error, err error)

// takeConn takes one for itself.
func takeConn(ctx context.Context, db *sql.DB) (give func() error, err error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	return conn.Close, nil
}

// takePrepared takes one for a query of one of these statements.
func takePrepared(statements []*sql.Stmt) taking {
	var calls atomic.Int64
	return func(ctx context.Context, _ *sql.DB) (give func() error, err error) {
		rows, err := statements[int(calls.Add(1))%len(statements)].QueryContext(ctx)
		if err != nil {
			return nil, err
		}
		return rows.Close, nil
	}
}

// saturate runs the load on a pool of connections that are taken for themselves.
func saturate(t *testing.T, openDB openPool, arrive arrival, hold service) (s saturated) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db, err := openDB(nothing.Driver{})
		require.NoError(t, err)
		s = load(t, db, takeConn, arrive, hold)
		require.NoError(t, db.Close())
	})
	return s
}

// load runs it.
func load(t *testing.T, db *sql.DB, take taking, arrive arrival, hold service) (s saturated) {
	t.Helper()
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(1, 2))
	began := time.Now()
	arrive.run(rand.New(rand.NewPCG(3, 4)), func() {
		asked := time.Now()
		give, err := take(context.Background(), db)
		if !assert.NoError(t, err) {
			return
		}
		mu.Lock()
		s.waits = append(s.waits, time.Since(asked))
		d := hold.draw(r)
		mu.Unlock()
		<-time.After(d + 1)
		assert.NoError(t, give())
	})
	s.took = time.Since(began)
	slices.Sort(s.waits)
	return s
}

// openPool opens a pool on a driver that does nothing.
type openPool func(nothing.Driver) (*sql.DB, error)

// pools are what is compared.
var pools = []struct {
	name string
	open openPool
}{{"bare", bareDB}, {"sqllease", leasedDB}}

func bareDB(d nothing.Driver) (*sql.DB, error) {
	db := sql.OpenDB(d)
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

func leasedDB(d nothing.Driver) (*sql.DB, error) {
	return sqllease.OpenDB(d, sqllease.Config{MaxOpen: connections, SlowAcquireThreshold: -1, LeakThreshold: -1})
}

// TestWaitsUnderSaturation prints what callers wait for, as benchmarks print their
// results, for bench/report: testing/synctest is for tests only. It holds the promise:
// as much is done as with database/sql alone, and where several callers queue for
// each connection all the time, the longest waits, one in a hundred, are a third
// of what they are there, or less; half, where few calls take most of the time.
func TestWaitsUnderSaturation(t *testing.T) {
	for _, hold := range services {
		for _, arrive := range arrivals {
			var runs []saturated
			for _, pool := range pools {
				s := saturate(t, pool.open, arrive, hold)
				runs = append(runs, s)
				fmt.Printf("BenchmarkWaits/hold=%s/%s/pool=%s %d %v\n", hold.name, arrive.name, pool.name, served, s)
			}
			bare, leased := runs[0], runs[1]
			assert.InEpsilon(t, bare.throughput(), leased.throughput(), 0.1, "%s, %s", arrive.name, hold.name)
			if arrive.queues {
				assert.Less(t, hold.times*leased.percentile(0.99), bare.percentile(0.99), "%s, %s", arrive.name, hold.name)
			}
		}
	}
}

// TestPreparedStatementsUnderSaturation has such callers use prepared statements:
// none is prepared twice on a connection, though sqllease hands connections from
// caller to caller under new handles.
func TestPreparedStatementsUnderSaturation(t *testing.T) {
	queries := []string{"SELECT n FROM a", "SELECT n FROM b", "SELECT n FROM c"}
	for _, arrive := range []arrival{closed(100), closed(1000)} {
		for _, pool := range pools {
			var prepared atomic.Int64
			synctest.Test(t, func(t *testing.T) {
				db, err := pool.open(nothing.Driver{Prepared: &prepared})
				require.NoError(t, err)
				statements := make([]*sql.Stmt, len(queries))
				for i, query := range queries {
					statements[i], err = db.Prepare(query)
					require.NoError(t, err)
				}
				load(t, db, takePrepared(statements), arrive, services[1])
				for _, st := range statements {
					require.NoError(t, st.Close())
				}
				require.NoError(t, db.Close())
			})
			assert.LessOrEqual(t, prepared.Load(), int64(connections*len(queries)), "%s, %s", pool.name, arrive.name)
		}
	}
}

// String is the run as a benchmark prints it.
func (s saturated) String() string {
	return fmt.Sprintf("%.0f calls/s %.3f p50-ms %.3f p99-ms",
		s.throughput(), ms(s.percentile(0.5)), ms(s.percentile(0.99)))
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
