package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// In these it is asked what a statement means.
var statementScenes = []Scene{
	{Name: "a statement is taken into a transaction, and used after USE", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		st := s.prepare("SELECT a")
		all := s.conns(2)
		third := s.handOver(all[0])
		s.drop(all[1])
		tx := s.begin()
		taken := tx.StmtContext(s.t.Context(), st)
		s.exec(tx, "USE 7")
		s.note("database %d", s.database(taken.QueryRowContext(s.t.Context())))
		s.exec(tx, "USE 0")
		require.NoError(s.t, tx.Commit())
		s.close(third)
	}, want: []string{"database 0"}},

	{Name: "a statement keeps its meaning: one connection, twenty callers", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		st := s.prepare("SELECT a")
		s.exec(s.db, "USE 7")
		s.note("databases %v", s.databases(st, 20))
	}, want: []string{"databases map[0:400]"}},

	{Name: "a statement that is prepared after USE means that", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		s.prepare("SELECT a")
		s.exec(s.db, "USE 7")
		s.note("databases %v", s.databases(s.prepare("SELECT a"), 20))
	}, want: []string{"databases map[7:400]"}},

	// Of two statements of one text nobody else can tell which is used: the older is
	// prepared again.
	{Name: "a statement keeps its meaning: it has a twin", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		old := s.prepare("SELECT a")
		s.exec(s.db, "USE 7")
		s.note("databases %v", s.databases(s.prepare("SELECT a"), 20))
		s.note("of the old one: %d", s.database(old.QueryRowContext(s.t.Context())))
	}, want: []string{"databases map[7:400]", "of the old one: 0"}, also: []string{"databases map[7:400]", "of the old one: 7"}},

	// A connection goes from hand to hand, and for long nobody uses the statement.
	{Name: "a statement keeps its meaning: it is not used for long", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		st := s.prepare("SELECT a")
		held := s.handOver(s.conn())
		pass(20 * time.Second)
		s.exec(held, "USE 7")
		s.close(held)
		s.note("database %d", s.database(st.QueryRowContext(s.t.Context())))
	}, want: []string{"database 0"}, also: []string{"database 7"}},

	{Name: "a statement is made after ALTER, and so works", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		old := s.prepare("SELECT a")
		held := s.conn()
		next := s.laterConn()
		s.close(held)
		s.server.alter()
		s.close(<-next)
		st := s.prepare("SELECT a")
		s.note("databases %v", s.databases(st, 20))
		require.NoError(s.t, old.Close())
	}, want: []string{"databases map[0:400]"}},

	{Name: "a statement in use, whose connection goes from hand to hand", play: func(s *scene) {
		s.server.takes = time.Millisecond // so that others wait
		s.db.SetMaxOpenConns(1)
		s.databases(s.prepare("SELECT a"), 20)
		s.note("prepared %d", s.server.plans)
	}, want: []string{"prepared 1"}},

	{Name: "statements are closed, while all connections go from hand to hand", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 20 {
					st := s.prepare("SELECT a")
					s.database(st.QueryRowContext(s.t.Context()))
					require.NoError(s.t, st.Close())
				}
			})
		}
		all.Wait()
		pass(time.Minute)
		s.noteStatements()
	}, want: []string{"statements left: 0"}},

	{Name: "a statement is closed that has a twin, and its connection is idle", play: func(s *scene) {
		held := s.conn()
		twin := s.prepareOn(held, "SELECT a")
		require.NoError(s.t, s.prepare("SELECT a").Close())
		pass(time.Minute)
		s.noteStatements()
		require.NoError(s.t, twin.Close())
		s.close(held)
	}, want: []string{"statements left: 1"}},

	{Name: "a statement is closed, and its connection is next", play: func(s *scene) {
		require.NoError(s.t, s.prepare("SELECT a").Close())
		c := s.conn()
		s.noteStatements()
		s.close(c)
	}, want: []string{"statements left: 0"}},

	// And whoever has the connection keeps it for longer than anybody looks for the
	// statement, which is closed when the connection is given back, then.
	{Name: "a statement is closed after its connection went to somebody else", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		st := s.prepare("SELECT a")
		held := s.handOver(s.conn())
		require.NoError(s.t, st.Close())
		pass(time.Minute)
		s.close(held)
		s.noteStatements()
	}, want: []string{"statements left: 0"}},

	// The statement of the second is closed while that of the first, of the same
	// text, goes on, on a session that is then closed.
	{Name: "a statement is closed that has a twin, whose connection goes", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		s.db.SetMaxIdleConns(1)
		held := s.conn()
		twin := s.prepareOn(held, "SELECT a")
		st := s.prepare("SELECT a")
		other := s.conn()
		s.close(s.handOver(other)) // its ticket goes, the session goes on
		s.close(held)
		require.NoError(s.t, st.Close())
		require.NoError(s.t, twin.Close())
		pass(time.Minute)
		s.noteStatements()
	}, want: []string{"statements left: 0"}},

	// Nobody else can tell whose a statement is that no connection has any more: it
	// stays as long as any of that text is open.
	{Name: "a statement is closed that has a twin, which goes on", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		twin := s.prepare("SELECT a")
		held := s.conn()
		st := s.prepare("SELECT a")
		other := s.conn()
		next := s.laterConn()
		s.close(other)
		require.NoError(s.t, st.Close())
		s.close(<-next, held)
		pass(time.Minute)
		s.noteStatements()
		require.NoError(s.t, twin.Close())
		pass(time.Minute)
		s.noteStatements()
	}, want: []string{"statements left: 1", "statements left: 0"}, also: []string{"statements left: 2", "statements left: 0"}},
}

// stale is a scene in which something happens to a session after a text was prepared on it,
// before it goes from hand to hand. Noted is what the text answers there for somebody else,
// who has prepared it on another session since.
func stale(what string, happens func(s *scene, c *sql.Conn), want string) Scene {
	return Scene{Name: "a session has a statement from before " + what, play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		other, c := s.conn(), s.conn()
		happens(s, c)
		s.close(other)
		st := s.prepare("SELECT a") // on the other session
		other = s.conn()
		s.close(s.handOver(c))
		var database, setting int
		err := st.QueryRowContext(s.t.Context()).Scan(&database, &setting)
		s.note("%d/%d %v", database, setting, err)
		s.close(other)
	}, want: []string{want}}
}

// In these a statement must not be taken for another of its text.
var staleScenes = []Scene{
	stale("USE", func(s *scene, c *sql.Conn) {
		s.prepareOn(c, "SELECT a")
		s.exec(c, "USE 7")
	}, "7/0 <nil>"),

	stale("USE by a statement", func(s *scene, c *sql.Conn) {
		s.prepareOn(c, "SELECT a")
		_, err := s.prepareOn(c, "USE 7").ExecContext(s.t.Context())
		require.NoError(s.t, err)
	}, "7/0 <nil>"),

	stale("USE on the driver's own connection", func(s *scene, c *sql.Conn) {
		s.prepareOn(c, "SELECT a")
		require.NoError(s.t, c.Raw(func(conn any) error {
			inner, _ := s.way.Unwrap(conn)
			return inner.(*session).raw("USE 7")
		}))
	}, "7/0 <nil>"),

	stale("the end of a transaction", func(s *scene, c *sql.Conn) {
		tx, err := c.BeginTx(s.t.Context(), nil)
		require.NoError(s.t, err)
		s.exec(tx, "SET s = 1")
		s.prepareOn(c, "SELECT a")
		require.NoError(s.t, tx.Rollback())
	}, "0/0 <nil>"),

	stale("DISCARD", func(s *scene, c *sql.Conn) {
		s.prepareOn(c, "SELECT a")
		s.exec(c, "DISCARD ALL")
	}, "0/0 <nil>"),

	stale("ALTER, and broken by it", func(s *scene, c *sql.Conn) {
		old := s.prepareOn(c, "SELECT a")
		s.server.alter()
		require.ErrorIs(s.t, old.QueryRowContext(s.t.Context()).Err(), errAltered)
	}, "0/0 <nil>"),
}

// noteStatements notes how many statements are left on the server.
func (s *scene) noteStatements() { s.note("statements left: %d", s.server.left().statements) }

// databases counts from which databases callers get their rows, 20 each.
func (s *scene) databases(st *sql.Stmt, callers int) map[int]int {
	var mu sync.Mutex
	seen := map[int]int{}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range 20 {
				n := s.database(st.QueryRowContext(s.t.Context()))
				mu.Lock()
				seen[n]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return seen
}

// In these the limit changes.
var limitScenes = []Scene{
	{Name: "the limit is raised while all is out, and some wait", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		held := s.conns(2)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { s.close(s.conn()) })
		}
		synctest.Wait()
		s.db.SetMaxOpenConns(4)
		began := time.Now()
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		defer cancel()
		_, err := s.db.ExecContext(ctx, "INSERT INTO c")
		s.note("a new call: %v, at once %t", err, time.Since(began) <= 200*time.Millisecond)
		s.close(held...)
		all.Wait()
	}, want: []string{"a new call: <nil>, at once true"}},

	// It may be the one by which another way knows that the limit is its own.
	{Name: "the limit is raised so far that nobody reaches it", play: func(s *scene) {
		for _, high := range []int{99_999, 100_000, 100_001, 1_000_000} {
			s.db.SetMaxOpenConns(1)
			held := s.conn()
			pass(time.Second)
			s.db.SetMaxOpenConns(high)
			ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
			_, err := s.db.ExecContext(ctx, "INSERT INTO c")
			s.note("%d: %v", high, err)
			cancel()
			s.close(held)
		}
	}, want: []string{"99999: <nil>", "100000: <nil>", "100001: <nil>", "1000000: <nil>"}},

	// database/sql tries three times. What a pool's own refusals take of that is
	// missing where sessions prove bad.
	{Name: "two sessions prove bad, after the limit was lowered", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		s.db.SetMaxIdleConns(2)
		all := s.conns(2)
		s.close(all...)
		held := s.conn()
		s.db.SetMaxOpenConns(1)
		pass(200 * time.Millisecond)
		d := &deed{name: "call", lease: 1, acquires: true, plant: plant{kind: "exec", err: driver.ErrBadConn, times: 2}}
		s.later(func() {
			_, err := s.db.ExecContext(withDeed(s.t.Context(), d), "INSERT INTO c")
			s.note("%v", err)
		})
		s.close(held)
		synctest.Wait()
	}, want: []string{"<nil>"}, also: []string{"driver: bad connection"}}, // the second of them was new

	// Until another way has taken over a limit, callers wait in database/sql, which then
	// gets a connection for them that has to be acquired still, in the first call on it.
	{Name: "somebody waits as the limit is set again", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		held := s.conn()
		s.db.SetMaxOpenConns(1)
		next := s.laterConn()
		pass(2 * time.Minute)
		synctest.Wait()
		s.note("has one, while another holds it: %t", len(next) == 1)
		s.close(held)
		s.close(<-next)
	}, want: []string{"has one, while another holds it: false"}, also: []string{"has one, while another holds it: true"}},

	{Name: "somebody waits as the limit is set again, and cannot be dialed for", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		held := s.conn()
		s.db.SetMaxOpenConns(1)
		failed := s.later(func() {
			_, err := s.db.Conn(s.t.Context())
			s.note("%v", err)
		})
		s.server.refuse(time.Minute)
		s.drop(held)
		pass(2 * time.Minute)
		synctest.Wait()
		s.note("told %t", *failed)
	}, want: []string{"server: too many connections", "told true"}, also: []string{"<nil>", "told true"}},

	{Name: "the opener makes a connection for somebody who has gone", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		s.db.SetMaxIdleConns(2)
		held := s.conns(2)
		s.db.SetMaxOpenConns(2)
		ctx, cancel := context.WithCancel(s.t.Context())
		s.later(func() {
			_, err := s.db.Conn(ctx)
			s.note("%t", err != nil)
		})
		s.later(func() { _ = held[0].Raw(func(any) error { cancel(); return driver.ErrBadConn }) })
		synctest.Wait()
		s.close(held[1])
		s.exec(s.db, "INSERT INTO c")
		s.note("open %t", s.server.left().connections <= 2)
	}, want: []string{"true", "open true"}},
}

// RestartAfterExpiry looks at a restart of which nobody is told, where the sessions of
// some free tickets, which have statements, had come to the end of their lifetime of a
// minute before: the way has to have that.
func RestartAfterExpiry(t *testing.T, w Way) {
	s := Scene{play: func(s *scene) {
		const each = 2
		s.db.SetMaxIdleConns(2 * each)
		st := s.prepare("SELECT a")
		old := s.conns(each)
		for _, c := range old { // it is prepared on each of their sessions
			tx, err := c.BeginTx(s.t.Context(), nil)
			require.NoError(s.t, err)
			s.database(tx.StmtContext(s.t.Context(), st).QueryRowContext(s.t.Context()))
			require.NoError(s.t, tx.Commit())
		}
		pass(40 * time.Second)
		s.close(s.conns(each)...)
		pass(time.Second)
		s.close(old...) // they are next
		pass(25 * time.Second)
		s.server.restart()
		for range 3 {
			pass(time.Second)
			_, err := s.db.ExecContext(s.t.Context(), "INSERT INTO c")
			s.note("%v", err)
		}
	}}
	want := []string{"<nil>", "<nil>", "<nil>"}
	require.Equal(t, want, s.on(t, Bare), "bare")
	assert.Equal(t, want, s.on(t, w))
}

// DialContexts looks at the context that a driver was given to dial with, which it may use
// for as long as the connection lives: the way has to bound an acquire by a second, and to
// dial one connection ahead.
func DialContexts(t *testing.T, w Way) {
	s := Scene{play: func(s *scene) {
		all := s.conns(2)
		pass(time.Hour)
		for _, c := range all {
			require.NoError(s.t, c.Raw(func(conn any) error {
				inner, _ := s.way.Unwrap(conn)
				s.note("%v", inner.(*session).over())
				return nil
			}))
		}
		s.close(all...)
	}}
	want := []string{"<nil>", "<nil>"}
	require.Equal(t, want, s.on(t, Bare), "bare")
	assert.Equal(t, want, s.on(t, w))
}

// Refusals looks at a server that refuses connections for a minute: the way has to keep
// some ready.
func Refusals(t *testing.T, w Way) {
	s := Scene{play: func(s *scene) {
		synctest.Wait()
		s.note("from the start %t", s.server.left().connections > 0)
		s.server.takes = time.Millisecond
		s.server.restart()
		s.server.refuse(time.Minute)
		for range 3 { // those that are ready prove bad
			_, err := s.db.ExecContext(s.t.Context(), "INSERT INTO c")
			require.Error(s.t, err)
		}
		pass(time.Minute)
		s.note("tried seldom %t", s.server.refused < 100)
		pass(time.Minute)
		s.note("again %t", s.server.left().sessions > 0)
	}}
	assert.Equal(t, []string{"from the start true", "tried seldom true", "again true"}, s.on(t, w))
}
