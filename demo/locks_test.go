package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lockScene is an embedded server, and connections to it.
type lockScene struct {
	*testing.T
	db *sql.DB
}

func newLockScene(t *testing.T) *lockScene {
	newJournal()
	server, err := startEmbedded(time.Minute)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, server.close()) })
	db, err := sql.Open("mysql", server.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	return &lockScene{t, db}
}

// connect returns a connection, and its number on the server.
func (s *lockScene) connect() (conn *sql.Conn, number int) {
	s.Helper()
	conn, err := s.db.Conn(s.Context())
	require.NoError(s, err)
	require.NoError(s, conn.QueryRowContext(s.Context(), "SELECT CONNECTION_ID()").Scan(&number))
	return conn, number
}

// getLock begins to ask for the lock; the channel has the answer.
func (s *lockScene) getLock(conn *sql.Conn) <-chan bool {
	got := make(chan bool, 1)
	go func() {
		var answer sql.NullBool
		_ = conn.QueryRowContext(context.WithoutCancel(s.Context()), "SELECT GET_LOCK('stock', 60)").Scan(&answer)
		got <- answer.Bool
	}()
	return got
}

// locks are the rows of metadata_locks.
func (s *lockScene) locks() (list []string) {
	s.Helper()
	rows, err := s.db.QueryContext(s.Context(),
		"SELECT OBJECT_TYPE, OBJECT_NAME, LOCK_TYPE, LOCK_STATUS, OWNER_THREAD_ID FROM performance_schema.metadata_locks ORDER BY LOCK_STATUS")
	require.NoError(s, err)
	defer rows.Close() //nolint:errcheck // rows.Err tells
	for rows.Next() {
		var kind, name, mode, status string
		var owner int
		require.NoError(s, rows.Scan(&kind, &name, &mode, &status, &owner))
		list = append(list, fmt.Sprint(kind, " ", name, " ", mode, " ", status, " ", owner))
	}
	require.NoError(s, rows.Err())
	return list
}

// process is what threads has of a connection.
func (s *lockScene) process(number int) []string {
	s.Helper()
	var user, host, command string
	var state, statement sql.NullString
	err := s.db.QueryRowContext(s.Context(), "SELECT PROCESSLIST_USER, PROCESSLIST_HOST, PROCESSLIST_COMMAND, PROCESSLIST_STATE, PROCESSLIST_INFO "+
		"FROM performance_schema.threads WHERE PROCESSLIST_ID = ?", number).Scan(&user, &host, &command, &state, &statement)
	require.NoError(s, err)
	return []string{user, host, command, state.String, statement.String}
}

func TestTheEmbeddedServerShowsWhoWaitsForWhoseLock(t *testing.T) {
	s := newLockScene(t)
	first, holder := s.connect()
	second, waiter := s.connect()
	require.True(t, <-s.getLock(first))
	assert.Empty(t, s.locks(), "nobody waits")
	assert.Equal(t, []string{"root", "127.0.0.1", "Sleep", "", ""}, s.process(holder))

	got := s.getLock(second)
	assert.Eventually(t, func() bool { return len(s.locks()) > 0 }, 10*time.Second, 5*time.Millisecond)
	assert.Equal(t, []string{
		fmt.Sprintf("USER LEVEL LOCK stock EXCLUSIVE GRANTED %d", holder),
		fmt.Sprintf("USER LEVEL LOCK stock EXCLUSIVE PENDING %d", waiter),
	}, s.locks())
	assert.Equal(t, []string{"root", "127.0.0.1", "Query", "User lock", "SELECT GET_LOCK('stock', 60)"}, s.process(waiter))

	var released bool
	require.NoError(t, first.QueryRowContext(t.Context(), "SELECT RELEASE_LOCK('stock')").Scan(&released))
	assert.True(t, <-got)
	assert.Empty(t, s.locks())
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
}

func TestALockOfTheEmbeddedServerEndsWithItsConnection(t *testing.T) {
	s := newLockScene(t)
	first, _ := s.connect()
	second, _ := s.connect()
	require.True(t, <-s.getLock(first))
	got := s.getLock(second)
	assert.Eventually(t, func() bool { return len(s.locks()) == 2 }, 10*time.Second, 5*time.Millisecond)
	_ = first.Raw(func(any) error { return driver.ErrBadConn }) // it is closed
	assert.True(t, <-got)
	require.NoError(t, second.Close())
}

// The other tables are empty, and have the columns that are asked for.
func TestTheEmbeddedServerAnswersEveryQuestion(t *testing.T) {
	s := newLockScene(t)
	var on bool
	require.NoError(t, s.db.QueryRowContext(t.Context(), "SELECT @@performance_schema").Scan(&on))
	assert.True(t, on)
	for _, table := range []string{"data_lock_waits", "data_locks", "session_connect_attrs", "events_statements_current", "events_transactions_current"} {
		var n int
		require.NoError(t, s.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM performance_schema."+table).Scan(&n))
		assert.Zero(t, n, table)
	}
}
