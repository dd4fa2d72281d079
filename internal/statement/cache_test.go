package statement

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// reading is a cache of summaries.
func reading() *Cache[Summary] {
	return NewCache(func(query string) *Summary { return Summarise(query, Unknown) })
}

// counting is a cache that counts how often it has to read a statement.
func counting() (c *Cache[string], reads *int) {
	reads = new(int)
	return NewCache(func(query string) *string {
		*reads++
		query = strings.Clone(query)
		return &query
	}), reads
}

// numbered is one of many statements.
func statementNo(i int) string { return fmt.Sprintf("SELECT a, b FROM orders WHERE c%d = ?", i) }

// check tells whether the table is sound: within its bounds, with each of its statements in
// the chain where it is looked for, once, and no other.
func (t *table[D]) check(tb testing.TB) {
	bytes, linked := 0, 0
	for _, e := range t.all {
		bytes += len(e.query)
		require.Same(tb, e, t.find(e.hash, e.query))
	}
	for i := range t.chains {
		for e := t.chains[i].Load(); e != nil; e = e.next.Load() {
			linked++
		}
	}
	require.Equal(tb, bytes, t.bytes)
	require.Equal(tb, len(t.all), linked)
	require.LessOrEqual(tb, bytes, mostBytes)
	require.LessOrEqual(tb, len(t.all), most)
	require.LessOrEqual(tb, 2*len(t.all), len(t.chains))
}

func TestTheCacheAnswersWhatAStatementsSummaryIs(t *testing.T) {
	c := reading()
	first := c.Of("SELECT a FROM t WHERE b = 1")
	assert.Equal(t, Summarise("SELECT a FROM t WHERE b = 1", Unknown), first)
	assert.Same(t, first, c.Of("SELECT a FROM t WHERE b = 1"), "it is not read twice")
	assert.Equal(t, "INSERT t", c.Of("INSERT INTO t VALUES (1)").Text())
}

// As many as there is room for are read once.
func TestWhatFitsIsNeverForgotten(t *testing.T) {
	c, reads := counting()
	for range 3 {
		for i := range most {
			c.Of(statementNo(i))
		}
	}
	assert.Equal(t, most, *reads)
	c.known.Load().check(t)
}

// A few statements too many cost little, and twice as many do not cost all.
func TestMoreStatementsThanFitInTurn(t *testing.T) {
	for _, c := range []struct {
		statements int
		found      float64 // of a hundred
	}{{most + 1, 99}, {most + 52, 95}, {most + most/10, 85}, {2 * most, 40}} {
		cache, reads := counting()
		const rounds = 40
		for round := range rounds {
			if round == rounds/2 {
				*reads = 0
			}
			for i := range c.statements {
				require.Equal(t, statementNo(i), *cache.Of(statementNo(i)))
			}
		}
		uses := c.statements * rounds / 2
		assert.Greater(t, 100*float64(uses-*reads)/float64(uses), c.found, c.statements)
		cache.known.Load().check(t)
	}
}

// Statements with a literal in them, each of which comes once, do not push those out that
// are used.
func TestStatementsThatComeOnceLeaveTheOthersAlone(t *testing.T) {
	c, reads := counting()
	const often, uses = most / 2, 50 * most
	missed := 0
	for i := range uses {
		before := *reads
		c.Of(statementNo(i % often))
		missed += *reads - before
		c.Of(fmt.Sprintf("SELECT a FROM orders WHERE id = %d", i))
	}
	assert.Less(t, missed, often+uses/10)
	c.known.Load().check(t)
}

// When an application turns to other statements, these take the place of the former ones.
func TestStatementsThatAreNotUsedAnyMoreGo(t *testing.T) {
	c, reads := counting()
	for i := range 10 * most {
		c.Of(statementNo(i % most))
	}
	const others, rounds = most / 2, 60
	for round := range rounds {
		if round == rounds-1 {
			*reads = 0
		}
		for i := range others {
			c.Of(statementNo(most + i))
		}
	}
	assert.Less(t, *reads, others/20)
}

func TestTheCacheIsBoundedInEntries(t *testing.T) {
	c := reading()
	for i := range 5 * most {
		s := c.Of(fmt.Sprintf("SELECT a FROM t%d WHERE b = %d", i, i))
		require.Equal(t, fmt.Sprintf("t%d", i), s.Target)
		require.LessOrEqual(t, len(c.known.Load().all), most)
	}
	assert.Len(t, c.known.Load().all, most, "it is full, and stays so")
	c.known.Load().check(t)
}

func TestTheCacheIsBoundedInBytes(t *testing.T) {
	c, reads := counting()
	for i := range 2 * most {
		c.Of(fmt.Sprintf("%0*d", rand.IntN(Longest)+1, i))
		require.LessOrEqual(t, c.known.Load().bytes, mostBytes)
	}
	assert.Greater(t, c.known.Load().bytes, mostBytes-Longest, "it is full, and stays so")
	c.known.Load().check(t)
	long := strings.Repeat("x", Longest+1)
	*reads = 0
	for range 2 {
		assert.Equal(t, long, *c.Of(long))
	}
	assert.Equal(t, 2, *reads, "what is too long is not remembered")
	assert.Same(t, c.Of(long[1:]), c.Of(long[1:]), "what is just not is")
}

// Many ask at once for more than fits: each gets its own answer, and none is lost in a chain
// while others change it.
func TestTheCacheServesManyAtOnce(t *testing.T) {
	c := reading()
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := range 3 * most {
				query := fmt.Sprintf("SELECT a FROM t%d", (i+g*100)%(most+most/8))
				if got := c.Of(query).Sanitised; got != query {
					t.Errorf("the summary of %q is that of %q", query, got)
					return
				}
			}
		})
	}
	wait.Wait()
	c.known.Load().check(t)
}

// Those who ask for a new statement at the same time have the same answer afterwards.
func TestAStatementThatManyReadIsRememberedOnce(t *testing.T) {
	c := reading()
	var wait sync.WaitGroup
	answers := make([]*Summary, 8)
	for i := range answers {
		wait.Go(func() {
			for j := range 100 {
				answers[i] = c.Of(statementNo(j))
			}
		})
	}
	wait.Wait()
	for _, s := range answers {
		assert.Same(t, c.Of(statementNo(99)), s)
	}
	assert.Len(t, c.known.Load().all, 100)
}

func TestAStatementIsFoundWithoutAnAllocation(t *testing.T) {
	c := reading()
	query := statementNo(1)
	c.Of(query)
	assert.Zero(t, testing.AllocsPerRun(100, func() { c.Of(query) }))
}

// BenchmarkDistinctStatements looks up so many statements in turn: as many as fit, and a few
// more.
func BenchmarkDistinctStatements(b *testing.B) {
	for _, n := range []int{1, 100, 2000, 2100, 2 * most} {
		b.Run(fmt.Sprint("statements=", n), func(b *testing.B) {
			c := reading()
			queries := make([]string, n)
			for i := range queries {
				queries[i] = statementNo(i)
				c.Of(queries[i])
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i = (i + 1) % n {
				c.Of(queries[i])
			}
		})
	}
}

// BenchmarkOneStatementByMany has every processor look up the same one.
func BenchmarkOneStatementByMany(b *testing.B) {
	c := reading()
	b.RunParallel(func(p *testing.PB) {
		for query := statementNo(1); p.Next(); {
			c.Of(query)
		}
	})
}
