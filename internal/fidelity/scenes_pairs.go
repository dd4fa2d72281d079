package fidelity

import (
	"database/sql"
	"database/sql/driver"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Pair opens two databases on one connector.
type Pair func(driver.Connector) (a, b *sql.DB, err error)

// BarePair is database/sql's.
func BarePair(c driver.Connector) (a, b *sql.DB, err error) { return sql.OpenDB(c), sql.OpenDB(c), nil }

// Pairs looks at two databases on one connector: what one does to its sessions is not for
// the other.
func Pairs(t *testing.T, open Pair) {
	want := []string{"0", "7", "0", "7", "0", "7"}
	require.Equal(t, want, playPair(t, BarePair, switching), "bare")
	assert.Equal(t, want, playPair(t, open, switching))
}

func switching(s *scene, a, b *sql.DB) {
	s.exec(a, "USE 7")
	for range 3 {
		for _, db := range []*sql.DB{b, a} {
			s.note("%d", s.database(db.QueryRowContext(s.t.Context(), "SELECT a")))
			if db == b { // the other's session may have gone for this
				s.exec(a, "USE 7")
			}
		}
	}
	require.NoError(s.t, a.Close())
	s.exec(b, "INSERT INTO c")
	require.NoError(s.t, b.Close())
	synctest.Wait()
	assert.Empty(s.t, s.server.wrong())
	assert.Zero(s.t, s.server.left())
}

// ClosedPair looks at a caller who waits in one of two databases on one connector, as that
// is closed.
func ClosedPair(t *testing.T, open Pair) {
	want := []string{"sql: database is closed, told true"}
	require.Equal(t, want, playPair(t, BarePair, waiting), "bare")
	assert.Equal(t, want, playPair(t, open, waiting))
}

func waiting(s *scene, a, b *sql.DB) {
	s.db = b
	held := s.conn()
	pass(time.Second)
	var err error
	told := s.later(func() { _, err = b.Conn(s.t.Context()) })
	require.NoError(s.t, b.Close())
	synctest.Wait()
	was := *told
	_ = held.Close()
	synctest.Wait()
	s.note("%v, told %t", err, was)
	require.NoError(s.t, a.Close())
}

// playPair plays a scene on two databases of one connection each.
func playPair(t *testing.T, open Pair, play func(s *scene, a, b *sql.DB)) (notes []string) {
	defer watchdog(crowd{})()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, server: newServer()}
		a, b, err := open(backend{s.server})
		require.NoError(t, err)
		a.SetMaxOpenConns(1)
		b.SetMaxOpenConns(1)
		play(s, a, b)
		synctest.Wait()
		notes = s.notes
	})
	return notes
}
