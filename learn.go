package sqllease

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// Something on the way to a server may drop idle connections and tell nobody: a firewall, a
// NAT, a load balancer. Only the connections that are found dead tell of it. So an idle limit
// is learned from their idle times. There is no other sign, and a server that restarts leaves
// dead connections too. What tells the two apart:
//
//   - An idle limit ends no connection whose idle time is short. So a death teaches something
//     only if its idle time is longer than every idle time that was survived lately. One that
//     is survived later refutes it.
//   - Any other death means that something else broke connections, at some time since that
//     one was heard of. What was heard of before its death may have died of the same, and
//     what died since it was heard of may have as well. Neither teaches anything.
//   - It takes several deaths that no single event explains.
//
// The limit that was learned grows again with time, and a death that contradicts this has it
// fall back at once.

const (
	// leastIdle is the shortest idle limit that is learned, and the shortest idle time that
	// teaches anything.
	leastIdle = time.Second

	// enoughDeaths teach a limit, and as many more for each time that connections have died of
	// something else lately. One is enough where the server says that it was idle for too long.
	// No more than mostDeaths are kept.
	enoughDeaths, mostDeaths = 3, 30

	// survivalsCount is how long a survival counts against deaths that follow, at least, and
	// deathsCount how long deaths wait for more of them.
	survivalsCount, deathsCount = time.Hour, 24 * time.Hour

	// growEvery is how long a limit stays until it is doubled, growSeldom where deaths have
	// contradicted that again and again.
	growEvery, growSeldom = time.Hour, 24 * time.Hour

	// longestLearned is the limit that is forgotten, where no limit is known.
	longestLearned = 24 * time.Hour
)

// learned is what the idle times of sessions teach. It never looks at a clock.
type learned struct {
	mu sync.Mutex

	recent, older lately        // guarded by mu: what there was since turned, and in as long before it
	turned        clock.Instant // guarded by mu

	broke  clock.Instant // guarded by mu: what was heard of until then may have died of something else
	deaths []idleDeath   // guarded by mu: those that teach something, oldest first

	limit  time.Duration // guarded by mu: the idle limit that is assumed; 0: none
	proven time.Duration // guarded by mu: what it grows from: a session that was idle for so long has died
	grows  clock.Instant // guarded by mu: when it is doubled
	pause  time.Duration // guarded by mu: how long it stays then
	said   time.Duration // guarded by mu: the lowest one that was told of; 0: none was since the last was forgotten
}

// lately is what there was in some time.
type lately struct {
	survived time.Duration // the longest idle time
	breaks   int           // times that something else broke sessions
}

// idleDeath is a session that was found dead.
type idleDeath struct {
	heard, found clock.Instant // when it was heard of last, and when it was found
	cause        idleCause
}

// idleCause is what its server said of it.
type idleCause uint8

const (
	diedUntold idleCause = iota // nothing
	diedIdle                    // that it was idle for too long
	diedKilled                  // that it was killed, or that the server was shut down
	diedOther                   // what has nothing to do with other sessions
)

func (d idleDeath) idle() time.Duration { return d.found.Sub(d.heard) }

// lesson is what was learned, and from what.
type lesson struct {
	limit             time.Duration
	deaths            int
	shortest, longest time.Duration // idle times
	news              bool          // no limit as low was told of
}

// at is the limit that is assumed, where another is known; 0: none.
func (l *learned) at(now clock.Instant, known time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.growLocked(now, known)
	return l.limit
}

// survived notes that a session was idle for so long, and its server was heard of.
func (l *learned) survived(idle time.Duration, now clock.Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(now)
	l.recent.survived = max(l.recent.survived, idle)
	l.deaths = slices.DeleteFunc(l.deaths, func(d idleDeath) bool { return d.idle() <= idle })
	if l.limit > 0 && idle > l.proven { // it is not true any more
		l.pause = growEvery
		l.grows = min(l.grows, now.Add(growEvery))
	}
}

// died notes that a session was found dead, and tells whether the limit is lower for that: it
// was learned, or has fallen back to what it was.
func (l *learned) died(d idleDeath, known time.Duration) (taught lesson, lower bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turnLocked(d.found)
	l.growLocked(d.found, known)
	survived := max(l.recent.survived, l.older.survived)
	switch isShort := d.idle() < leastIdle || d.idle() <= survived; {
	case d.cause == diedOther, d.cause == diedIdle && isShort: // its limit is its own
	case d.cause == diedKilled, isShort:
		l.breakLocked(d)
	case d.cause != diedIdle && d.heard <= l.broke:
	case known > 0 && d.idle() >= known:
	case l.limit > 0 && d.idle() >= l.limit: // nothing new
		l.grows = d.found.Add(l.pause)
	case l.limit > l.proven:
		l.fallLocked(d, survived)
		return lesson{limit: l.limit}, true
	default:
		return l.noteLocked(d)
	}
	return lesson{}, false
}

// turnLocked forgets survivals.
func (l *learned) turnLocked(now clock.Instant) {
	switch past := now.Sub(l.turned); {
	case past >= 2*survivalsCount:
		l.recent, l.older, l.turned = lately{}, lately{}, now
	case past >= survivalsCount:
		l.recent, l.older, l.turned = lately{}, l.recent, now
	}
}

// breakLocked notes that something broke sessions between when d was heard of and when it was
// found dead.
func (l *learned) breakLocked(d idleDeath) {
	if d.heard > l.broke { // else it may have been the same
		l.recent.breaks++
	}
	l.broke = max(l.broke, d.found)
	l.deaths = slices.DeleteFunc(l.deaths, func(other idleDeath) bool { return other.found >= d.heard })
}

// noteLocked keeps a death, and learns from what there is.
func (l *learned) noteLocked(d idleDeath) (taught lesson, lower bool) {
	l.deaths = slices.DeleteFunc(l.deaths, func(old idleDeath) bool { return d.found.Sub(old.found) > deathsCount })
	l.deaths = append(l.deaths, d)
	if d.cause != diedIdle && !l.suffices() {
		l.deaths = l.deaths[max(0, len(l.deaths)-mostDeaths):]
		return lesson{}, false
	}
	taught = lesson{deaths: len(l.deaths), shortest: d.idle()}
	for _, d := range l.deaths {
		taught.shortest, taught.longest = min(taught.shortest, d.idle()), max(taught.longest, d.idle())
	}
	taught.limit = taught.shortest
	if taught.news = l.said == 0 || taught.limit < l.said; taught.news {
		l.said = taught.limit
	}
	l.limit, l.proven, l.deaths = taught.limit, taught.limit, nil
	l.pause = growEvery
	l.grows = d.found.Add(l.pause)
	return taught, true
}

// suffices tells whether the deaths are enough, and no single event explains them: one session
// was heard of after another was found dead.
func (l *learned) suffices() bool {
	latest := l.deaths[len(l.deaths)-1]
	enough := enoughDeaths * (1 + l.recent.breaks + l.older.breaks)
	return len(l.deaths) >= enough && latest.heard >= l.deaths[0].found
}

// fallLocked has a limit that has grown fall back, and grow more seldom. Where a longer idle
// time was survived than what it had grown from, the limit is another one by now.
func (l *learned) fallLocked(d idleDeath, survived time.Duration) {
	if l.proven = min(l.proven, d.idle()); l.proven <= survived {
		l.proven = d.idle()
	}
	l.limit = l.proven
	l.pause = min(2*l.pause, growSeldom)
	l.grows = d.found.Add(l.pause)
}

// growLocked has the limit grow, and forgets one that bounds nothing any more.
func (l *learned) growLocked(now clock.Instant, known time.Duration) {
	if known == 0 {
		known = longestLearned
	}
	for l.limit > 0 && l.limit < known && now >= l.grows {
		l.limit *= 2
		l.grows = l.grows.Add(l.pause)
	}
	if l.limit >= known {
		l.limit, l.proven, l.pause, l.said = 0, 0, 0, 0
	}
}

// knownIdle is the idle limit that the server has told, or Config; 0: none is known.
func (c *Connector) knownIdle() time.Duration {
	return drivers.MinLimit(c.asking.limits().Idle, c.cfg.NetworkIdleLimit)
}

// learnedIdle is the idle limit that was learned; 0: none.
func (c *Connector) learnedIdle(now clock.Instant) time.Duration {
	return c.learned.at(now, c.knownIdle())
}

// unreset takes notice of a session that was dead when it was to be handed out, or that its
// driver gave up: pgx does so with one in a transaction.
func (c *Connector) unreset(ctx context.Context, s *session, err error, now clock.Instant) {
	if s.inOther && err == driver.ErrBadConn {
		s.dies(closedInvalid, "")
		return
	}
	how := howReset(ctx, err)
	s.dies(closedReset, how)
	c.asking.hurry()
	if how != "" {
		c.foundDead(s, how, s.HeardOf(), now)
	}
}

// foundDead takes notice of a session that its holder found dead, and not since its context
// had ended. how is what it met with.
func (c *Connector) foundDead(s *session, how string, heard, now clock.Instant) {
	taught, lower := c.learned.died(idleDeath{heard, now, causeOf(how)}, c.knownIdle())
	if !lower {
		return
	}
	c.gate.ShortenAll(func(s *session) gate.Life {
		s.life.idleWithin(taught.limit)
		return s.life.bounds(c.cfg.LifetimeJitter)
	}, now)
	if taught.news {
		c.warnLearned(taught)
	}
}

// causeOf is what a server said, as the code of it tells.
func causeOf(how string) idleCause {
	switch {
	case drivers.EndedIdle(how):
		return diedIdle
	case drivers.Killed(how):
		return diedKilled
	case drivers.EndedTx(how):
		return diedOther
	}
	return diedUntold
}

// warnLearned says what was learned. It may be called with locks of database/sql held.
func (c *Connector) warnLearned(taught lesson) {
	c.cfg.warnAside("sqllease: idle connections were found dead before the idle limit that is known, so something on the way may have a shorter one. "+
		"Connections are closed earlier from now on. "+
		"Set Config.NetworkIdleLimit to the idle limit of the firewall, NAT, proxy or load balancer, if you know it",
		slog.String("pool", c.cfg.Name), slog.Int("found_dead", taught.deaths),
		slog.Duration("shortest_idle", taught.shortest), slog.Duration("longest_idle", taught.longest),
		slog.Duration("known_limit", c.knownIdle()), slog.Duration("assumed_limit", taught.limit))
}
