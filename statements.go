package sqllease

import (
	"container/heap"
	"database/sql/driver"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/clock"
)

// A *sql.Stmt has one statement on each connection that it was used on. database/sql
// keeps the account of them by connection, and a saturated pool drops its connections
// at every release, while the sessions under them go on. So each use of a *sql.Stmt would
// prepare it anew. That is avoided where it can be without a doubt:
//
//   - What the application prepares goes to the server, always.
//   - What database/sql prepares again, since a *sql.Stmt is used on a connection that is
//     new to it, may share a statement of the same text that the session has: if the
//     session is in the state in which that was prepared (or the process never prepared
//     that text but once, so that it is the very *sql.Stmt's), if no use of it has ended
//     in an error, and if nobody else has it in this lease.
//
// A session's state counts what may change how the server understands a text: see moves.
//
// What is left on the server is what bare database/sql would have left there, but for a
// moment. A statement that the application closes is closed in the same lease, or at the
// end of the session's next, or by upkeep if the session is ready. One that is closed only
// because its connection was dropped may be wanted again: it stays as long as its text had
// been in use before, within bounds.

const (
	shortestKeep = 50 * time.Millisecond
	longestKeep  = 10 * time.Second
	mostSeen     = 1 << 13 // texts that are remembered
)

// texts are what a pool knows of its prepared statements.
type texts struct {
	mu    sync.Mutex           // held for what it guards only: no driver call under it, no other lock but those of armUpkeep
	known map[string]*stmtText // guarded by mu: those that a session has a statement of
	seen  map[uint64]seen      // guarded by mu: what is remembered of texts, by their hash
	due   textHeap             // guarded by mu: those that nobody has, by when to look at them
	wake  func(clock.Instant)
	armed clock.Instant // guarded by mu: when wake's timer fires; zero: it does not
}

// seen is what is remembered of a text.
type seen struct {
	first   clock.Instant // since when it has been in use
	several bool          // the process may have prepared it more than once
}

// stmtText is a statement's text, of which one session has a statement at least.
type stmtText struct {
	query   string
	moves   bool                   // running it changes the session's state
	does    *described             // what else it does to the session
	once    bool                   // guarded by texts.mu: the process has prepared it once
	open    int                    // guarded by texts.mu: how many of the handles' statements have it
	first   clock.Instant          // since when it has been in use
	emptied clock.Instant          // guarded by texts.mu: when open became zero
	real    map[*prepared]struct{} // guarded by texts.mu: the statements on the sessions
	at      clock.Instant          // guarded by texts.mu: when it is looked at
	index   int                    // guarded by texts.mu: in texts.due, from 1; 0: it is not there
}

// prepared is a statement that exists on a session.
type prepared struct {
	inner  driver.Stmt
	text   *stmtText
	of     *session
	state  uint64    // of the session when it was prepared
	broken bool      // a use has failed; for the holder of the session
	by     []*handle // guarded by texts.mu: the handles that have it
	doomed bool      // guarded by texts.mu: nobody has it, and it is to be closed
	next   *prepared // another of this text on the session; for its holder
}

// statements are a session's. But for due, they are for whoever holds the session.
type statements struct {
	texts *texts
	state uint64 // counts what may have changed how texts are understood
	real  map[*stmtText]*prepared
	inTx  uint64 // the state in which the open transaction began

	doomed []*prepared // guarded by texts.mu: those that are to be closed
	due    atomic.Bool // there are some; written under texts.mu
}

// keep is how long a statement stays that nobody has: as long as its text had been in
// use, so that it is prepared again at most about as often as its uses are apart.
func (t *stmtText) keep() time.Duration {
	return min(max(t.emptied.Sub(t.first), shortestKeep), longestKeep)
}

var textSeed = maphash.MakeSeed()

// prepareLocked notes that the application prepares a text, or that database/sql does for
// a statement of which nothing is known.
func (x *texts) prepareLocked(query string, does *described, fresh bool, now clock.Instant) *stmtText {
	if x.known == nil {
		x.known, x.seen = map[string]*stmtText{}, map[uint64]seen{}
	}
	hash := maphash.String(textSeed, query)
	known, ok := x.seen[hash]
	if !ok {
		known = seen{first: now, several: !fresh || len(x.seen) >= mostSeen}
	} else if fresh {
		known.several = true
	}
	if ok || len(x.seen) < mostSeen {
		x.seen[hash] = known
	}
	t := x.known[query]
	if t == nil {
		query = strings.Clone(query)
		t = &stmtText{query: query, moves: does.Moves, does: does, first: known.first, real: map[*prepared]struct{}{}}
		x.known[query] = t
	}
	t.once = !known.several
	return t
}

// add notes a statement that was prepared on the session under h.
func (st *statements) add(h *handle, s *session, query string, inner driver.Stmt, does *described, fresh bool) *prepared {
	x, now := st.texts, clock.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.prepareLocked(query, does, fresh, now)
	p := &prepared{inner: inner, text: t, of: s, state: st.state, by: []*handle{h}}
	if st.real == nil {
		st.real = map[*stmtText]*prepared{}
	}
	for other := st.real[t]; other != nil; other = other.next {
		if len(other.by) == 0 { // the newest is enough to be shared
			st.doomLocked(other)
		}
	}
	p.next = st.real[t]
	st.real[t], t.real[p] = p, struct{}{}
	t.open++
	return p
}

// share finds a statement on the session that a *sql.Stmt may share which database/sql
// prepares again; nil: there is none.
func (st *statements) share(h *handle, query string) *prepared {
	if len(st.real) == 0 {
		return nil
	}
	x := st.texts
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.known[query]
	if t == nil {
		return nil
	}
	for p := st.real[t]; p != nil; p = p.next {
		if p.broken || p.doomed || slices.Contains(p.by, h) || p.state != st.state && !t.once {
			continue
		}
		p.by = append(p.by, h)
		t.open++
		return p
	}
	return nil
}

// leave notes that a handle has a statement no more. closed says that the application
// closed it, and its handle's session is in the caller's hands or not: where the caller
// holds it and nobody else has the statement, true tells the caller to close it.
func (x *texts) leave(p *prepared, h *handle, closed, holds bool) (closes bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.Index(p.by, h)
	if i < 0 {
		return false // the session was closed
	}
	p.by = slices.Delete(p.by, i, i+1)
	x.lessLocked(p.text, 1)
	st := &p.of.statements
	switch {
	case len(p.by) > 0:
		return false
	case closed && holds:
		st.removeLocked(p)
		return true
	case closed, p.broken && !holds:
		st.doomLocked(p)
		x.wakeLocked(clock.Now().Add(shortestKeep))
	}
	return false
}

// lessLocked notes that handles have a text so many times less.
func (x *texts) lessLocked(t *stmtText, n int) {
	if t.open -= n; t.open == 0 && n > 0 {
		t.emptied = clock.Now()
		x.scheduleLocked(t)
	}
}

func (st *statements) doomLocked(p *prepared) {
	if !p.doomed {
		p.doomed = true
		st.doomed = append(st.doomed, p)
		st.due.Store(true)
	}
}

// removeLocked forgets a statement that its caller closes, who holds the session.
func (st *statements) removeLocked(p *prepared) {
	t := p.text
	if first := st.real[t]; first == p {
		st.real[t] = p.next
		if p.next == nil {
			delete(st.real, t)
		}
	} else {
		for first.next != p {
			first = first.next
		}
		first.next = p.next
	}
	st.texts.forgetLocked(p)
}

func (x *texts) forgetLocked(p *prepared) {
	t := p.text
	delete(t.real, p)
	x.lessLocked(t, len(p.by))
	p.by = nil
	if len(t.real) == 0 && t.open == 0 {
		if t.index > 0 {
			heap.Remove(&x.due, t.index-1)
		}
		delete(x.known, t.query)
	}
}

// takeDoomed takes those that are to be closed. Its caller holds the session, and closes
// them.
func (st *statements) takeDoomed() (doomed []*prepared) {
	if !st.due.Load() {
		return nil
	}
	x := st.texts
	x.mu.Lock()
	defer x.mu.Unlock()
	doomed, st.doomed = st.doomed, nil
	for _, p := range doomed {
		st.removeLocked(p)
	}
	st.due.Store(false)
	return doomed
}

// end takes what is closed before the session is: what is left to it, and what a ticket in
// the free list has, as it would have been closed with its ticket. What a handle left open
// that was dropped ends with the connection; unless the session was taken from its holder,
// whose calls reach the driver no more: then it takes all.
func (st *statements) end(taken bool) (left []*prepared) {
	if len(st.real) == 0 {
		return nil
	}
	x := st.texts
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range st.real {
		for ; p != nil; p = p.next {
			if taken || len(p.by) == 0 || slices.ContainsFunc(p.by, func(h *handle) bool { return !h.closed.Load() }) {
				left = append(left, p)
			}
			x.forgetLocked(p)
		}
	}
	st.real, st.doomed = nil, nil
	return left
}

// scheduleLocked has a text looked at that nobody has.
func (x *texts) scheduleLocked(t *stmtText) {
	if t.index > 0 {
		return
	}
	t.at = t.emptied.Add(t.keep())
	heap.Push(&x.due, t)
	x.wakeLocked(t.at)
}

func (x *texts) wakeLocked(at clock.Instant) {
	if x.armed.IsZero() || at < x.armed {
		x.armed = at
		x.wake(at)
	}
}

// expire dooms the statements of the texts that nobody has had for long enough.
func (x *texts) expire(now clock.Instant) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.armed = 0
	for len(x.due) > 0 && x.due[0].at <= now {
		t := heap.Pop(&x.due).(*stmtText)
		if t.open > 0 {
			continue
		}
		if t.at = t.emptied.Add(t.keep()); t.at > now {
			heap.Push(&x.due, t)
			continue
		}
		for p := range t.real {
			p.of.statements.doomLocked(p)
		}
	}
	if len(x.due) > 0 {
		x.wakeLocked(x.due[0].at)
	}
}

// doomAll dooms every statement that nobody has: the server has no room for more.
func (x *texts) doomAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, t := range x.known {
		for p := range t.real {
			if len(p.by) == 0 {
				p.of.statements.doomLocked(p)
			}
		}
	}
}

// began and ended note the bounds of a transaction: what it has changed is undone, or
// not, at its end.
func (st *statements) began() { st.inTx = st.state }

func (st *statements) ended() {
	if st.inTx != st.state {
		st.state++
	}
}

// textHeap is a heap of texts by when they are looked at.
type textHeap []*stmtText

func (h textHeap) Len() int           { return len(h) }
func (h textHeap) Less(i, j int) bool { return h[i].at < h[j].at }

// Swap is of heap.Interface, as are the next two.
func (h textHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push appends.
func (h *textHeap) Push(x any) {
	t := x.(*stmtText)
	*h = append(*h, t)
	t.index = len(*h)
}

// Pop takes the last.
func (h *textHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index = 0
	return t
}
