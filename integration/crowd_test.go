package integration

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A crowd is a few callers on fewer sessions of a real server. A program says who acts
// when; one acts at a time, and all come to rest before the next does. It is run on a bare
// *sql.DB and on a wrapped one, and all that an application could see is compared: what
// everybody gets, from which session, who has to wait, and what is left on the server when
// all is given back.

// crowdTime is how long crowds play on each server. CROWD_TIME says another time, such as
// 10m. CROWD_SEED says with which program to begin.
const (
	crowdTime  = 20 * time.Second
	shrinkTime = 30 * time.Second // for a program that differs
)

func TestCrowdsOnRealServersAreTheSameBareAndWrapped(t *testing.T) {
	budget, seed := crowdTime, uint64(0)
	var err error
	if text := os.Getenv("CROWD_TIME"); text != "" {
		budget, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	if text := os.Getenv("CROWD_SEED"); text != "" {
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Run("MariaDB", func(t *testing.T) { mariaGround(t, maria).crowds(t, seed, budget) })
	t.Run("PostgreSQL, pgx", func(t *testing.T) { pgxGround(t, postgres).crowds(t, seed, budget/2) })
	t.Run("PostgreSQL, lib/pq", func(t *testing.T) { pqGround(t, postgres).crowds(t, seed, budget/2) })
}

// crowds plays programs for as long.
func (g *ground) crowds(t *testing.T, seed uint64, budget time.Duration) {
	n, steps, waits, once := 0, 0, 0, 0
	for start := time.Now(); time.Since(start) < budget && !t.Failed(); n++ {
		p := randomPlay(seed + uint64(n))
		found, o := g.differs(t, p)
		switch {
		case found == "":
		case !g.again(t, p):
			once++
			t.Logf("this differed once, and not again:\n%s\n\n%v", found, p)
		default:
			p, found = p.shrunk(found, shrinkTime, func(p play) string { d, _ := g.differs(t, p); return d })
			t.Errorf("%s\n\n%v", found, p)
		}
		steps += len(o.lines)
		for _, l := range o.lines {
			if strings.HasSuffix(l.text, ": waits") {
				waits++
			}
		}
	}
	t.Logf("%d programs, %d steps, of which %d had to wait", n, steps, waits)
	assert.LessOrEqual(t, once, 1+n/20, "programs that differed once, and not again")
}

// again tells whether a program that differed does so again. One may differ by chance: when a statement was
// closed after its lease, or is not wanted any more, the pool itself takes the session for a moment, some 50
// milliseconds later. Whoever comes just then gets another.
func (g *ground) again(t *testing.T, p play) bool {
	for range 3 {
		if found, _ := g.differs(t, p); found != "" {
			return true
		}
	}
	return false
}

// differs says how a wrapped run of a program differs from a bare one; empty: it does not.
func (g *ground) differs(t *testing.T, p play) (found string, bare outcome) {
	bare = g.perform(t, p, false, nil)
	found = g.compare(bare, g.perform(t, p, true, &bare))
	if found == "" {
		return "", bare
	}
	if d := g.compare(bare, g.perform(t, p, false, &bare)); d != "" {
		found = "BARE differs from bare, and so the harness: " + d
	}
	return found, bare
}

// compare says how two runs differ in what is determined.
func (g *ground) compare(b, o outcome) string {
	failures := map[string]int{}
	for i := range max(len(b.lines), len(o.lines)) {
		if i >= len(b.lines) || i >= len(o.lines) || !g.sameLine(b.lines[i], o.lines[i], failures) {
			return sideBySide(b.lines, o.lines, i)
		}
	}
	d := b.left.differs(o.left)
	if d == "" && !o.closed.within(b.closed) {
		d = fmt.Sprintf("when all statements are closed: bare %v, other %v", b.closed.statements, o.closed.statements)
	}
	if d != "" {
		d += "\n" + sideBySide(b.lines, o.lines, len(b.lines))
	}
	return d
}

func (g *ground) sameLine(b, o line, failures map[string]int) bool {
	if b.text != o.text || len(b.uses) != len(o.uses) {
		return false
	}
	for i := range b.uses {
		if !g.sameUse(b.uses[i], o.uses[i], failures) {
			return false
		}
	}
	return true
}

// sameUse compares uses of a statement. What comes of one that was prepared in the same lease is
// certain. One of the pool's that was not used on this session before means what it would mean if
// it were prepared now. One that was may mean what it has meant then, since bare database/sql
// keeps it for as long as the connection lives; another pool may have lost it since, and prepared it
// again. So whatever it has meant to this session in one of its uses is as good, as is one that works
// which is broken with the bare driver.
//
// Columns that others add break plans of PostgreSQL of which the pool does not hear until they
// fail. So a *sql.Stmt that would have been prepared anew may meet such a one: at most once for
// each statement that there was before.
func (g *ground) sameUse(b, o use, failures map[string]int) bool {
	key := fmt.Sprint(o.session, o.text, o.alters)
	fails := o.text == growing && o.result == "0A000"
	if fails {
		failures[key]++
	}
	switch {
	case b.session != o.session:
		return false
	case b.result == o.result:
		return true
	case fails && o.means != nil:
		return failures[key] <= o.elders
	case o.means == nil:
		return false
	}
	return (!o.first || brokenPlan(b.result)) && (slices.Contains(o.means, o.result) || o.text == writing && !brokenPlan(o.result))
}

// glance is what there is on the server, and on the sessions.
type glance struct {
	sessions   int
	locks      string
	states     []string       // of the sessions
	statements map[string]int // by session and text, where the server tells; or else all
	slack      int            // how many more of each another pool may have
}

// differs says how another's glance differs. Fewer statements are as good: those that the
// application has not closed, but whose connection a pool that hands sessions over has
// dropped, stay for a while only. And while a statement of a text is open, another of that text
// which was closed may stay for it to be shared.
func (b glance) differs(o glance) string {
	switch {
	case b.sessions != o.sessions:
		return fmt.Sprintf("sessions: bare %d, other %d", b.sessions, o.sessions)
	case b.locks != o.locks:
		return fmt.Sprintf("locks: bare %s, other %s", b.locks, o.locks)
	case !slices.Equal(b.states, o.states):
		return fmt.Sprintf("sessions:\n  bare  %s\n  other %s", strings.Join(b.states, "\n        "), strings.Join(o.states, "\n        "))
	case !o.within(b):
		return fmt.Sprintf("statements:\n  bare  %v\n  other %v", b.statements, o.statements)
	}
	return ""
}

// within tells whether there are no more statements than with the bare driver.
func (b glance) within(bare glance) bool {
	for k, n := range b.statements {
		if n > bare.statements[k]+max(b.slack, bare.slack) {
			return false
		}
	}
	return true
}

// strike looks at what is left, closes what somebody still has, looks again, and takes
// all down.
func (s *stage) strike(t *testing.T, bare *outcome) {
	slack := 0
	for i := range s.made {
		if slices.ContainsFunc(s.kept(), func(k keptStmt) bool { return k.text == i }) {
			slack++
		}
	}
	if s.postgres {
		slack = min(slack, 1) // of each text
	} else {
		slack *= s.limit
	}
	s.out.left = s.look(t, func(g glance) bool {
		g.slack = slack
		return bare == nil && g.sessions <= s.open() || bare != nil && bare.left.differs(g) == ""
	})
	s.out.left.slack = slack
	for _, k := range s.kept() {
		_ = k.st.Close()
	}
	s.out.closed = s.look(t, func(g glance) bool { return bare == nil || g.within(bare.closed) })
	require.NoError(t, s.db.Close())
	assert.True(t, eventually(stagePatience, func() bool {
		n, err := s.sessions()
		return err == nil && n == 0
	}), "the sessions end with the database:\n%v", s.play)
	if s.c != nil {
		assert.True(t, eventually(stagePatience, func() bool { return s.c.Stats().Open == 0 }), "a session is open here")
	}
	assert.True(t, eventually(stagePatience, func() bool { n, err := s.prepared(); return err == nil && n == 0 }))
}

// look glances until that is enough, for a while. What was closed late, or is not wanted any more, the pool
// closes when it was not wanted for as long as it had been in use, which was shorter than the program.
func (s *stage) look(t *testing.T, enough func(glance) bool) (g glance) {
	const pause = 60 * time.Millisecond // looking too often would have the pool open other sessions, see again
	for end := time.Now().Add(time.Second + 2*s.out.took); ; time.Sleep(pause) {
		if g = s.glance(t); enough(g) || time.Now().After(end) {
			return g
		}
	}
}

// keptStmt is a statement that somebody still has.
type keptStmt struct {
	st   *sql.Stmt
	text int
}

func (s *stage) kept() (all []keptStmt) {
	for _, o := range append(slices.Clone(s.forgotten), s.shared[:]...) {
		if o != nil && !o.closed {
			all = append(all, keptStmt{o.st, o.text})
		}
	}
	for _, m := range s.members {
		all = append(all, m.old...)
	}
	return all
}

// glance looks at the server, and at each session through the pool.
func (s *stage) glance(t *testing.T) (g glance) {
	var err error
	g.sessions, err = s.sessions()
	require.NoError(t, err)
	held, err := s.locked()
	require.NoError(t, err)
	for _, l := range held {
		g.locks += l[0] + " of " + s.label(l[1]) + " "
	}
	g.statements = map[string]int{}
	var conns []*sql.Conn
	for range s.open() {
		c, err := s.db.Conn(t.Context())
		require.NoError(t, err)
		conns = append(conns, c)
	}
	for _, c := range conns {
		g.states = append(g.states, s.inspect(c, g.statements))
	}
	for _, c := range conns {
		_ = c.Close() // it may have proved bad
	}
	slices.Sort(g.states)
	if !s.postgres {
		g.statements["all"], err = s.prepared()
		require.NoError(t, err)
	}
	return g
}

// inspect tells of a session, and counts its statements.
func (s *stage) inspect(c *sql.Conn, statements map[string]int) string {
	m := &member{stage: s, conn: c, cancel: func() {}}
	m.session = m.whose()
	parts := []string{m.session}
	for _, query := range s.inspections() {
		parts = append(parts, m.readAll(c.QueryContext(m.begin(), query, s.plain...)).result)
	}
	if !s.postgres {
		return strings.Join(parts, " | ")
	}
	rows, err := c.QueryContext(context.Background(), statementsOf, s.plain...)
	if err != nil {
		return strings.Join(append(parts, errorKind(err)), " | ")
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err == nil {
			statements[m.session+" "+text]++
		}
	}
	return strings.Join(parts, " | ")
}

// sideBySide shows two runs, around where they differ first.
func sideBySide(b, o []line, at int) string {
	var out strings.Builder
	for i := range max(len(b), len(o)) {
		switch {
		case i > at+2:
			return out.String()
		case i < at && i < len(b):
			fmt.Fprintf(&out, "%4d        %v\n", i, b[i])
			if i < len(o) && b[i].String() != o[i].String() {
				fmt.Fprintf(&out, "      other %v\n", o[i])
			}
			continue
		}
		for _, side := range []struct {
			name  string
			lines []line
		}{{"bare ", b}, {"other", o}} {
			if i < len(side.lines) {
				fmt.Fprintf(&out, "%4d  %s %v\n", i, side.name, side.lines[i])
			}
		}
	}
	return out.String()
}
