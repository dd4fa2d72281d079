package integration

import (
	"database/sql"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// stage is where a program runs: a pool, and who uses it.
type stage struct {
	*ground
	play
	db *sql.DB
	c  *sqllease.Connector // nil: the pool is bare

	texts, changing, asked, taken []string

	members   []*member
	pending   [][]turn // of each member
	shared    [sharedStmts]*poolStmt
	forgotten []*poolStmt       // that are never closed
	labels    map[string]string // of sessions, by their ids, in the order in which they were seen
	made      [textCount]int    // how many statements of each text there were
	elders    [textCount]int    // how many when a column was added last
	alters    int
	prepares  int  // how many texts were made unique
	lost      bool // a connection may have been, in this step
	out       outcome
}

const (
	sharedStmts = 5
	textCount   = 6
)

// outcome is what came of a program.
type outcome struct {
	lines  []line
	left   glance // when all is given back
	closed glance // when all statements are closed, too
	took   time.Duration
}

// line is one step, or the end of one that had to wait.
type line struct {
	text string
	uses []use
}

func (l line) String() string {
	text := l.text
	for _, u := range l.uses {
		text += fmt.Sprintf(" [statement %d on %s: %s]", u.text, u.session, u.result)
	}
	return text
}

// patience is with what must happen.
const stagePatience = 15 * time.Second

// perform runs a program, bare or wrapped. What is known of a bare run bounds how long
// it is waited for statements to be closed.
func (g *ground) perform(t *testing.T, p play, wrapped bool, bare *outcome) outcome {
	g.ready(t)
	connector, err := g.connector()
	require.NoError(t, err)
	s := &stage{ground: g, play: p, labels: map[string]string{}}
	s.texts, s.changing, s.asked, s.taken = g.texts(), g.changes(), g.questions(), g.locks()
	if wrapped {
		s.db, err = sqllease.OpenDB(connector, sqllease.Config{
			MaxOpen: p.limit, Logger: slog.New(slog.DiscardHandler),
			Discovery: sqllease.NoDiscovery, // who has which session is compared, and one that is asked is not free
		})
		require.NoError(t, err)
		s.c, _ = sqllease.ConnectorOf(s.db)
	} else {
		s.db = sql.OpenDB(connector)
		s.db.SetMaxOpenConns(p.limit)
	}
	s.db.SetMaxIdleConns(p.limit)
	start := time.Now()
	s.run(t)
	s.out.took = time.Since(start)
	s.strike(t, bare)
	return s.out
}

// run takes the steps in turn.
func (s *stage) run(t *testing.T) {
	s.pending = make([][]turn, s.play.members)
	for i := range s.play.members {
		m := &member{stage: s, id: i, todo: make(chan func()), done: make(chan struct{}, 1), cancel: func() {}}
		s.members = append(s.members, m)
		go m.live()
	}
	for _, next := range s.turns {
		if next.who == theWorld {
			m := &member{stage: s, id: theWorld, at: acts[next.what].name}
			acts[next.what].do(m, next.how)
			s.over(m)
			continue
		}
		m := s.members[next.who]
		s.pending[m.id] = append(s.pending[m.id], next)
		for s.turn(t, m) {
			// what was put off, too
		}
	}
	s.finish(t)
}

// turn lets a member take its next step, if there is one that it can take.
func (s *stage) turn(t *testing.T, m *member) (moved bool) {
	for len(s.pending[m.id]) > 0 {
		next := s.pending[m.id][0]
		a := acts[next.what]
		switch {
		case m.waits && a.do == nil:
			s.pending[m.id] = s.pending[m.id][1:]
			m.canceled = true
			m.cancel()
			s.await(t, m)
			s.settle(t)
			return true
		case m.waits:
			return false
		case a.do == nil || a.may != nil && !a.may(m, next.how):
			s.pending[m.id] = s.pending[m.id][1:] // it means nothing here
			continue
		// One at most waits: database/sql serves any of several.
		case a.asks != nil && a.asks(m, next.how) && s.waiter() != nil:
			return false
		}
		s.pending[m.id] = s.pending[m.id][1:]
		s.step(t, m, next)
		return true
	}
	return false
}

// step has a member act, and waits until all have come to rest.
func (s *stage) step(t *testing.T, m *member, next turn) {
	a := acts[next.what]
	before := s.db.Stats().WaitCount
	m.at = a.name
	asks := a.asks != nil && a.asks(m, next.how)
	m.todo <- func() { a.do(m, next.how) }
	if asks && s.held(m) >= s.limit && eventually(stagePatience, func() bool { return s.waiting(before) || len(m.done) > 0 }) && len(m.done) == 0 {
		m.waits = true
		s.out.lines = append(s.out.lines, line{text: m.name() + ": " + m.at + ": waits"})
		return
	}
	s.await(t, m)
	s.settle(t)
}

// waiting tells whether somebody waits for a connection who did not before.
func (s *stage) waiting(before int64) bool {
	if s.c != nil {
		return s.c.Stats().Waiting > 0
	}
	return s.db.Stats().WaitCount > before
}

// held counts the connections that the others have.
func (s *stage) held(than *member) (n int) {
	for _, m := range s.members {
		if m != than {
			n += m.held
		}
	}
	return n
}

func (s *stage) waiter() *member {
	i := slices.IndexFunc(s.members, func(m *member) bool { return m.waits })
	if i < 0 {
		return nil
	}
	return s.members[i]
}

// settle waits until everything is as the last step has left it: whoever waited has been
// served, if there is a connection; what is given back on another goroutine has been; and
// the server has seen the end of sessions that have ended.
func (s *stage) settle(t *testing.T) {
	if m := s.waiter(); m != nil && s.held(m) < s.limit {
		s.await(t, m)
	}
	used := func() int {
		if s.c != nil {
			return s.c.Stats().InUse
		}
		return s.db.Stats().InUse
	}
	if want := s.held(nil); !eventually(stagePatience, func() bool { return used() == want }) {
		s.out.lines = append(s.out.lines, line{text: fmt.Sprintf("%d connections are in use, where members have %d", used(), want)})
	}
	if s.lost {
		s.lost = false
		s.awaitEnd()
	}
}

// await waits for the end of a member's step that had to wait.
func (s *stage) await(t *testing.T, m *member) {
	for end := time.Now().Add(stagePatience); ; {
		select {
		case <-m.done:
			m.waits = false
			s.over(m)
			return
		case <-time.After(time.Second):
			s.standsStill(t, end)
		}
	}
}

// over notes what came of a step.
func (s *stage) over(m *member) {
	m.held = m.holds()
	s.out.lines = append(s.out.lines, line{fmt.Sprintf("%s: %s: %s", m.name(), m.at, strings.Join(m.parts, ", ")), m.uses})
	m.parts, m.uses, m.canceled = nil, nil, false
}

// standsStill fails the test where nothing has happened for long.
func (s *stage) standsStill(t *testing.T, end time.Time) {
	if time.Now().Before(end) {
		return
	}
	all := make([]byte, 1<<20)
	all = all[:runtime.Stack(all, true)]
	t.Fatalf("it stands still: wrapped %t\n%v\n%v\n%s", s.c != nil, s.play, s.out.lines, all)
}

// finish lets everybody come to the end of their steps, and give back what they have.
func (s *stage) finish(t *testing.T) {
	for moved := true; moved; {
		moved = false
		for _, m := range s.members {
			for s.turn(t, m) {
				moved = true
			}
			if !m.waits && (m.leased() || m.rows != nil) {
				s.step(t, m, turn{m.id, actOf("give back"), 0})
				moved = true
			}
		}
	}
	for _, m := range s.members {
		close(m.todo)
	}
}

// label names a session.
func (s *stage) label(id string) string {
	if id == "" {
		return ""
	}
	if s.labels[id] == "" {
		s.labels[id] = fmt.Sprint("s", len(s.labels)+1)
	}
	return s.labels[id]
}

// awaitDeath waits until the server has seen the end of a session.
func (s *stage) awaitDeath(label string) {
	for id, l := range s.labels {
		if l == label && !eventually(stagePatience, func() bool { return !s.has(id) }) {
			s.out.lines = append(s.out.lines, line{text: label + " was killed, and lives"})
		}
	}
}

// awaitEnd waits until the server has no more sessions than the pool: what a session had,
// such as its locks, is free when the server has seen its end.
func (s *stage) awaitEnd() {
	if !eventually(stagePatience, func() bool {
		n, err := s.sessions()
		return err != nil || n <= s.open()
	}) {
		s.out.lines = append(s.out.lines, line{text: "the server has more sessions than the pool"})
	}
}

func (s *stage) open() int {
	if s.c != nil {
		return s.c.Stats().Open
	}
	return s.db.Stats().OpenConnections
}

// rest is long enough for a statement to be closed that was in use for a moment only.
func (s *stage) rest(how int) { time.Sleep(time.Duration(20+how%60) * time.Millisecond) }
