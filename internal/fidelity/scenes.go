package fidelity

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Scene is a situation of several callers in which a pool of another design than
// database/sql's went wrong, or may. What is noted in it is the same bare and otherwise.
type Scene struct {
	Name string
	play func(*scene)
	want []string // what is noted
	also []string // what may be noted in another way, where that is wanted, or known; nil: nothing
}

// scene is one that is being played.
type scene struct {
	t      *testing.T
	way    Way
	server *server
	db     *sql.DB
	notes  []string
}

// Scenes plays scenes, all or those of the names, on the bare driver and in another way.
func Scenes(t *testing.T, w Way, names ...string) {
	for _, s := range AllScenes {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			require.Equal(t, s.want, s.on(t, Bare), "bare")
			if got := s.on(t, w); s.also == nil || !slices.Equal(s.also, got) {
				assert.Equal(t, s.want, got)
			}
		})
	}
}

func (s Scene) on(t *testing.T, w Way) (notes []string) {
	defer watchdog(crowd{})()
	synctest.Test(t, func(t *testing.T) {
		p := &scene{t: t, way: w, server: newServer()}
		db, err := w.Open(backend{p.server})
		require.NoError(t, err)
		p.db = db
		s.play(p)
		require.NoError(t, db.Close())
		synctest.Wait()
		assert.Empty(t, p.server.wrong())
		assert.Zero(t, p.server.left())
		notes = p.notes
	})
	return notes
}

func (s *scene) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *scene) conn() *sql.Conn {
	c, err := s.db.Conn(s.t.Context())
	require.NoError(s.t, err)
	return c
}

func (s *scene) conns(n int) (all []*sql.Conn) {
	for range n {
		all = append(all, s.conn())
	}
	return all
}

func (s *scene) close(all ...*sql.Conn) {
	for _, c := range all {
		require.NoError(s.t, c.Close())
	}
}

func (s *scene) prepare(text string) *sql.Stmt {
	st, err := s.db.PrepareContext(s.t.Context(), text)
	require.NoError(s.t, err)
	return st
}

func (s *scene) begin() *sql.Tx {
	tx, err := s.db.BeginTx(s.t.Context(), nil)
	require.NoError(s.t, err)
	return tx
}

func (s *scene) exec(on caller, text string) {
	_, err := on.ExecContext(s.t.Context(), text)
	require.NoError(s.t, err)
}

// number is the first column of the only row.
func number(row *sql.Row) (n int, err error) {
	var other int
	err = row.Scan(&n, &other)
	return n, err
}

func (s *scene) session(on caller) int {
	n, err := number(on.QueryRowContext(s.t.Context(), "SELECT CONNECTION_ID()"))
	require.NoError(s.t, err)
	return n
}

func (s *scene) database(row *sql.Row) int {
	n, err := number(row)
	require.NoError(s.t, err)
	return n
}

// later does something on another goroutine, and waits until all are at rest.
func (s *scene) later(do func()) (done *bool) {
	done = new(bool)
	go func() {
		do()
		*done = true
	}()
	synctest.Wait()
	return done
}

// laterConn takes a connection on another goroutine, where none is free.
func (s *scene) laterConn() <-chan *sql.Conn {
	got := make(chan *sql.Conn, 1)
	s.later(func() { got <- s.conn() })
	return got
}

// handOver gives a connection back while somebody waits for one, and so its session goes to
// them. It returns theirs.
func (s *scene) handOver(c *sql.Conn) *sql.Conn {
	next := s.laterConn()
	s.close(c)
	return <-next
}

// drop gives a connection back as a bad one.
func (s *scene) drop(c *sql.Conn) {
	require.Error(s.t, c.Raw(func(any) error { return driver.ErrBadConn }))
}

// prepareOn prepares a text on that connection.
func (s *scene) prepareOn(c *sql.Conn, text string) *sql.Stmt {
	st, err := c.PrepareContext(s.t.Context(), text)
	require.NoError(s.t, err)
	return st
}

// AllScenes are all of them.
var AllScenes = slices.Concat(lockScenes, orderScenes, statementScenes, staleScenes, limitScenes)

// In these, what a caller wants is guarded by a lock of database/sql's on a connection.
var lockScenes = []Scene{
	{Name: "a result is asked while somebody else has its connection", play: func(s *scene) {
		s.server.asks = true
		s.db.SetMaxOpenConns(1)
		first := s.conn()
		next := s.laterConn()
		res, err := first.ExecContext(s.t.Context(), "INSERT INTO c")
		require.NoError(s.t, err)
		s.close(first)
		second := <-next // and does nothing with it
		third := s.later(func() { s.exec(s.db, "INSERT INTO c") })
		asked := s.later(func() {
			n, err := res.RowsAffected()
			s.note("%d %v", n, err)
		})
		s.note("answered %t, while another waits %t", *asked, !*third)
		s.close(second)
		synctest.Wait()
	}, want: []string{"1 <nil>", "answered true, while another waits true"}},

	{Name: "a statement is closed in a transaction for which others wait", play: func(s *scene) {
		s.db.SetMaxOpenConns(1)
		st := s.prepare("SELECT a")
		first := s.conn()
		var tx *sql.Tx
		s.later(func() { tx = s.begin() })
		s.close(first)
		synctest.Wait()
		waits := s.later(func() { s.exec(s.db, "INSERT INTO c") })
		ended := s.later(func() { s.note("%v %v", st.Close(), tx.Commit()) })
		synctest.Wait()
		s.note("ended %t, and so the other has waited %t", *ended, *waits)
	}, want: []string{"<nil> <nil>", "ended true, and so the other has waited true"}},

	{Name: "the contexts of callers cannot be compared", play: func(s *scene) {
		s.db.SetMaxOpenConns(2)
		held := s.conns(2)
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		defer cancel()
		done := s.later(func() {
			c, err := s.db.Conn(uncomparable{ctx, nil})
			require.NoError(s.t, err)
			s.exec(c, "INSERT INTO c")
			s.close(c)
		})
		s.db.SetMaxOpenConns(1)
		pass(200 * time.Millisecond)
		s.close(held...)
		pass(200 * time.Millisecond)
		for range 3 {
			_, err := s.db.ExecContext(uncomparable{ctx, nil}, "INSERT INTO c")
			require.NoError(s.t, err)
		}
		synctest.Wait()
		s.note("%t", *done)
	}, want: []string{"true"}},
}

// uncomparable is a context that panics where it is compared.
type uncomparable struct {
	context.Context
	tags []string
}

// In these it is asked which sessions there are, and which one is next.
var orderScenes = []Scene{
	{Name: "three come back, where two may be idle", play: func(s *scene) {
		s.db.SetMaxIdleConns(2)
		all := s.conns(3)
		s.close(all...)
		s.note("closed %v, next %d", s.server.closes, s.session(s.db))
	}, want: []string{"closed [3], next 2"}},

	{Name: "two may be idle, where four are", play: func(s *scene) {
		s.db.SetMaxIdleConns(4)
		s.close(s.conns(4)...)
		s.db.SetMaxIdleConns(2)
		synctest.Wait()
		slices.Sort(s.server.closes)
		s.note("closed %v, next %d", s.server.closes, s.session(s.db))
	}, want: []string{"closed [3 4], next 2"}},

	{Name: "one of three is bad", play: func(s *scene) {
		s.db.SetMaxIdleConns(3)
		all := s.conns(3)
		s.close(all[0], all[2])
		s.drop(all[1])
		s.note("closed %v, next %d, idle %d", s.server.closes, s.session(s.db), s.db.Stats().Idle)
	}, want: []string{"closed [2], next 3, idle 2"}},

	{Name: "they come back in another order", play: func(s *scene) {
		s.db.SetMaxIdleConns(4)
		all := s.conns(4)
		for _, i := range []int{2, 0, 3, 1} {
			s.close(all[i])
		}
		again := s.conns(4)
		for _, c := range again {
			s.note("%d", s.session(c))
		}
		s.close(again...)
	}, want: []string{"2", "4", "1", "3"}},

	{Name: "a restart of which nobody is told, with six ready", play: func(s *scene) {
		s.db.SetMaxIdleConns(6)
		s.close(s.conns(6)...)
		pass(time.Second)
		s.server.restart()
		for range 3 {
			pass(10 * time.Millisecond)
			_, err := s.db.ExecContext(s.t.Context(), "INSERT INTO c")
			s.note("%v", err)
		}
	}, want: []string{"<nil>", "<nil>", "<nil>"}},

	{Name: "idle settings after an overload with timeouts", play: func(s *scene) {
		const limit = 50
		s.server.takes = 20 * time.Millisecond
		s.db.SetMaxOpenConns(limit)
		s.db.SetMaxIdleConns(2)
		s.db.SetConnMaxIdleTime(time.Second)
		s.overload(4*limit, 30*time.Millisecond)
		s.note("at once: %d", s.server.left().connections)
		pass(3 * time.Second)
		s.note("later: %d", s.server.left().connections)
	}, want: []string{"at once: 2", "later: 0"}},
}

// overload has callers try for two seconds who do not wait for longer than some time.
func (s *scene) overload(callers int, patience time.Duration) {
	end := time.Now().Add(2 * time.Second)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for time.Now().Before(end) {
				ctx, cancel := context.WithTimeout(s.t.Context(), patience)
				if c, err := s.db.Conn(ctx); err == nil {
					s.exec(c, "INSERT INTO c")
					s.close(c)
				}
				cancel()
			}
		})
	}
	all.Wait()
	synctest.Wait()
}
