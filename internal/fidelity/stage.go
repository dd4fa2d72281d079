package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Way is a way to open a database on a connector.
type Way struct {
	Open Open
	// Unwrap reaches the driver's own connection in what sql.Conn.Raw gives.
	Unwrap func(conn any) (driver.Conn, bool)
}

// Bare is the way of database/sql.
var Bare = Way{Open: bare, Unwrap: func(conn any) (driver.Conn, bool) { c, ok := conn.(driver.Conn); return c, ok }}

// texts that are prepared.
var texts = [...]string{"SELECT a", "SELECT b", "INSERT INTO c"}

// textOf is a text to be prepared. Where statements are not to have twins, it is one that
// there was not before.
func (s *stage) textOf(i int) string {
	text := texts[i%len(texts)]
	if s.twins {
		return text
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unique++
	return fmt.Sprintf("%s%d", text, s.unique)
}

const sharedStatements = 4

// stage is where a program runs.
type stage struct {
	crowd
	way       Way
	db        *sql.DB
	server    *server
	ctx       context.Context
	members   []*member
	pending   [][]instruction // of each member
	leases    int             // how many there were; guarded by mu
	unique    int             // how many texts there were; guarded by mu
	mu        sync.Mutex
	shared    [sharedStatements]*own // guarded by mu
	using     [sharedStatements]int  // guarded by mu: how many members are at it
	spare     []*sql.Stmt            // guarded by mu: that nobody uses
	desperate bool                   // guarded by mu: database/sql has come to the last of its attempts
	out       playing
}

// playing is what came of a program.
type playing struct {
	shots   []string   // after each step
	said    [][]string // by member: what came of what it did
	wrong   []string   // what must never happen, whatever the program
	looks   []look     // at the server; the last two with the statements that live long, and without
	closed  left       // once the database is closed
	badEnds int        // how many transactions ended with driver.ErrBadConn
	calls   []string   // of the driver, where they were wanted
}

// look is what there was on the server.
type look struct {
	left
	desperate bool // database/sql has come to the last of its attempts, some time before
}

func (s *stage) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.looks = append(s.out.looks, look{s.server.left(), s.desperate})
}

// playCrowd runs a program on a pool of its own.
func playCrowd(t *testing.T, w Way, c crowd) (out playing) {
	defer watchdog(c)()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		s := &stage{crowd: c, way: w, server: newServer(), ctx: ctx}
		s.server.asks, s.server.twins, s.server.logs = c.asks, c.twins, c.logs
		s.open(t)
		s.run()
		s.strike(cancel)
		out = s.out
	})
	return out
}

// watchdog says which program stands still: a lock that nobody gives back cannot be seen
// from inside.
func watchdog(c crowd) (done func()) {
	const patience = 60 * time.Second // of real time
	t := time.AfterFunc(patience, func() {
		all := make([]byte, 1<<20)
		all = all[:runtime.Stack(all, true)]
		panic(fmt.Sprintf("this program stands still:\n%s\n\nprogram: %q\n\n%s", c.String(), c.bytes(), all))
	})
	return func() { t.Stop() }
}

func (s *stage) open(t *testing.T) {
	db, err := s.way.Open(backend{s.server})
	require.NoError(t, err)
	s.db = db
	s.setLimit(s.limit)
	s.setIdle(s.idle)
	db.SetConnMaxIdleTime(s.idleTime)
	for i := range sharedStatements - 1 {
		born := s.server.now()
		text := s.textOf(i)
		st, err := db.PrepareContext(s.ctx, text)
		require.NoError(t, err)
		s.shared[i] = &own{st: st, born: born, text: text, database: -1}
		if s.cleans {
			s.shared[i].database = 0
		}
	}
	s.pending = make([][]instruction, s.crowd.members)
	for i := range s.crowd.members {
		m := &member{stage: s, id: i, todo: make(chan func())}
		s.members = append(s.members, m)
		go m.live()
	}
	synctest.Wait()
}

func (s *stage) setLimit(n int) {
	if s.nests {
		n = max(n, 2)
	}
	s.limit = n
	s.db.SetMaxOpenConns(n)
	s.server.mu.Lock()
	s.server.most = max(s.server.most, n)
	s.server.mu.Unlock()
}

// setIdle sets no more than the limit: database/sql would reduce it to that, for good.
func (s *stage) setIdle(n int) {
	s.idle = min(n, s.limit)
	s.db.SetMaxIdleConns(s.idle)
}

// lease numbers a lease.
func (s *stage) lease() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases++
	return s.leases
}

// run runs the steps. A member's steps are its own script: one for which it is not the
// time waits for the member's next turn, so that what a member does never depends on
// whom database/sql serves first.
func (s *stage) run() {
	for _, in := range s.steps {
		if s.kind == inLine && s.isDesperate() {
			clear(s.pending) // from here on another way may do better
			break
		}
		if in.who == world {
			if e := events[in.what]; e.kinds[s.kind] && (e.may == nil || e.may(s, in.how)) {
				e.do(s, in.how)
			}
		} else {
			s.pending[in.who] = append(s.pending[in.who], in)
			s.turn(s.members[in.who])
		}
		s.settle()
	}
	s.finish()
}

// breath is the time between two steps: what comes one after another is so by the clock,
// too, and what another way may take for changing its mind, of a limit, has been taken.
const breath = 23 * time.Millisecond

// isDesperate tells whether database/sql has come to the last of its attempts: it dials
// then, beside connections that it keeps, and which may be as bad.
func (s *stage) isDesperate() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.desperate
}

// settle waits until all have come to rest, and notes how they stand.
func (s *stage) settle() {
	synctest.Wait()
	pass(breath)
	synctest.Wait()
	if s.logs {
		s.server.note("— " + s.standing())
	}
	if s.kind == inLine {
		s.out.shots = append(s.out.shots, s.standing())
	}
}

// standing says what each member is at, and how much it has said.
func (s *stage) standing() string {
	var b strings.Builder
	for _, m := range s.members {
		state := "-"
		switch {
		case m.isIn():
			state = "calls"
		case m.busy:
			state = "waits"
		}
		fmt.Fprintf(&b, "[%s %d] ", state, len(m.said))
	}
	return b.String()
}

// waiting tells whether a member waits for a connection, other than this.
func (s *stage) waiting(than *member) bool {
	for _, m := range s.members {
		if m != than && m.busy && !m.isIn() {
			return true
		}
	}
	return false
}

// calling tells whether a member is in a slow call.
func (s *stage) calling() bool {
	for _, m := range s.members {
		if m.isIn() {
			return true
		}
	}
	return false
}

// turn lets a member take its next step, if there is one that it can take.
func (s *stage) turn(m *member) (moved bool) {
	if m.busy {
		return m.nudge()
	}
	for len(s.pending[m.id]) > 0 {
		in := s.pending[m.id][0]
		a := acts[in.what]
		if !a.kinds[s.kind] || a.may != nil && !a.may(m, in.how) {
			s.pending[m.id] = s.pending[m.id][1:] // it means nothing here
			continue
		}
		if a.now != nil {
			s.pending[m.id] = s.pending[m.id][1:]
			a.now(m, in.how)
			continue
		}
		if !s.isTime(m, a, in.how) {
			return false
		}
		s.pending[m.id] = s.pending[m.id][1:]
		m.start(a, in.how)
		return true
	}
	return false
}

// isTime tells whether a step can be taken now. Where one member at most is to wait,
// nobody asks for a connection while one does. And what takes a lock of database/sql's
// that somebody has who is in a call, or waits, would not be seen to wait: see act.quiet.
func (s *stage) isTime(m *member, a act, how int) bool {
	if s.kind == inLine && a.acquires != nil && a.acquires(m, how) && s.waiting(m) {
		return false
	}
	return !a.quiet && !m.deferred || !s.calling()
}

// finish lets everybody come to the end of their steps, and give back what they have.
func (s *stage) finish() {
	for idle := 0; idle < 3; {
		moved, over := false, true
		for _, m := range s.members {
			if s.turn(m) || s.giveUp(m) {
				moved = true
				s.settle()
			}
			over = over && !m.busy && len(s.pending[m.id]) == 0 && !m.holds()
		}
		switch {
		case over:
			return
		case moved:
			idle = 0
		default:
			pass(time.Second)
			s.settle()
			idle++
		}
	}
	s.out.wrong = append(s.out.wrong, "it stands still: "+s.standing())
}

// giveUp lets a member that has no steps left give back what it has.
func (s *stage) giveUp(m *member) bool {
	if m.busy || len(s.pending[m.id]) > 0 || !m.holds() || m.deferred && s.calling() {
		return false
	}
	m.start(act{name: "end", do: func(m *member, _ int) { m.giveBack(false) }}, 0)
	return true
}

// strike looks at what is left, and takes it down.
func (s *stage) strike(cancel func()) {
	pass(2*time.Minute + 300*time.Millisecond)
	synctest.Wait()
	s.look()
	for _, m := range s.members {
		if m.busy { // it stands still, which was noted
			m.cancel()
		}
	}
	synctest.Wait()
	s.closeStatements()
	pass(time.Minute)
	synctest.Wait()
	s.look()
	_ = s.db.Close()
	cancel()
	for _, m := range s.members {
		close(m.todo)
		s.out.said = append(s.out.said, m.said)
		s.out.wrong = append(s.out.wrong, m.wrong...)
	}
	synctest.Wait()
	s.out.closed = s.server.left()
	s.out.wrong = append(s.out.wrong, s.server.wrong()...)
	s.out.badEnds, s.out.calls = s.server.badEnds, s.server.calls
}

func (s *stage) closeStatements() {
	for _, st := range s.spare {
		_ = st.Close()
	}
	for _, o := range s.shared {
		if o != nil {
			_ = o.st.Close()
		}
	}
	for _, m := range s.members {
		for _, o := range m.own {
			if o != nil {
				_ = o.st.Close()
			}
		}
	}
}
