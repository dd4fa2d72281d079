package drivers

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sqllease/sqllease/internal/bare"
)

// Locks is how a kind of server is asked who waits for whom.
type Locks struct {
	number string // tells a connection its own number; a driver may know it without
	ask    func(ctx context.Context, conn driver.Conn, of []uint64) (*Waiting, error)
	end    string // the statement that ends a connection; %d is its number
}

// LockWait is one connection that waits for another.
type LockWait struct {
	Waiter, Holder uint64 // numbers of connections; a holder of zero is a transaction without one
	Lock           string // what it waits for, in words
}

// Process is a connection, as a server tells of it. What the user may not see is empty.
type Process struct {
	User, Host, Program string
	State               string        // "active", "idle in transaction", "idle", or the server's own word
	For                 time.Duration // since when it is in that state; zero: not known
	Statement           string        // the one that it executes, or the last one
	waits               string        // for which lock, as far as its state tells; empty: for none
}

// Waiting is what a server says of those who wait for locks.
type Waiting struct {
	User      string             // the user of that connection
	self      uint64             // the number of the connection that was asked, by the server's own account
	Waits     []LockWait         // who waits for whom
	Processes map[uint64]Process // those who are named there, as far as they were asked for
	Hidden    map[uint64]string  // who waits for a lock whose holder cannot be seen: the lock
	Whole     bool               // all was answered: who is not named waits for nobody
	Lacks     []string           // what an administrator can do so that more is seen, each in a sentence
}

// mostWaits bounds an answer.
const mostWaits = 512

// Number asks a connection for its number on the server.
func (l *Locks) Number(ctx context.Context, conn driver.Conn) (uint64, error) {
	rows, err := bare.QueryRows(ctx, conn, l.number, 1)
	if err != nil {
		return 0, err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return 0, &AnswerError{"no row", "a number"}
	}
	return number(rows[0][0]), nil
}

// ErrMadeUp says that the numbers of connections are of no use.
var ErrMadeUp error = &AnswerError{"numbers of connections that are not the server's, since a pooler or a proxy is between", "the server's own"}

// Ask asks a connection, on which nothing else is done, who blocks those of these numbers. Its
// own number has to be the one by which the server knows it: else a pooler makes numbers up,
// and those of the others mean other connections on the server.
func (l *Locks) Ask(ctx context.Context, conn driver.Conn, own uint64, of []uint64) (*Waiting, error) {
	w, err := l.ask(ctx, conn, of)
	if err == nil && (own == 0 || w.self != own) {
		w, err = nil, ErrMadeUp
	}
	return w, err
}

// End is the statement by which an administrator ends a connection.
func (l *Locks) End(number uint64) string { return fmt.Sprintf(l.end, number) }

// Chain is who blocks a connection: on the shortest way to each of those who wait for nobody,
// at most that many. Who merely stands before it in the queue for the same lock is not in it.
func (w *Waiting) Chain(of uint64, most int) (chain []LockWait) {
	reached := map[uint64]LockWait{of: {}} // by what each was reached first
	order := []uint64{of}
	var roots []uint64
	for i := 0; i < len(order); i++ {
		at, root := order[i], true
		for _, wait := range w.Waits {
			if wait.Waiter != at || wait.Holder == at {
				continue
			}
			root = false
			if _, known := reached[wait.Holder]; !known {
				reached[wait.Holder] = wait
				order = append(order, wait.Holder)
			}
		}
		if root && at != of {
			roots = append(roots, at)
		}
	}
	if len(roots) == 0 { // they wait for each other
		roots = order[1:]
	}
	for _, root := range roots {
		for _, wait := range wayTo(root, of, reached, most) {
			if len(chain) < most && !slices.Contains(chain, wait) {
				chain = append(chain, wait)
			}
		}
	}
	return chain
}

// wayTo leads from the waiter to a root. Of a long one, the middle is left out.
func wayTo(root, of uint64, reached map[uint64]LockWait, most int) (way []LockWait) {
	for at := root; at != of; at = reached[at].Waiter {
		way = append(way, reached[at])
	}
	slices.Reverse(way)
	if len(way) > most {
		way = append(way[:most-1], way[len(way)-1])
	}
	return way
}

// Sees tells whether a call in flight on that connection was seen: on this server, by this user.
func (w *Waiting) Sees(number uint64) bool {
	p, known := w.Processes[number]
	return known && p.State == "active" && p.User == w.User
}

// lacks notes something once.
func (w *Waiting) lacks(what string) {
	if !slices.Contains(w.Lacks, what) {
		w.Lacks = append(w.Lacks, what)
	}
}

// postgresLocks asks PostgreSQL, from version 9.6 on. pg_blocking_pids stops the lock manager
// for a moment, so it is asked of few. Everybody may call it, and read pg_locks; of other
// users, pg_stat_activity shows statements and states to members of pg_read_all_stats alone.
//
//   - https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION
//   - https://www.postgresql.org/docs/current/view-pg-locks.html
//   - https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
//   - https://www.postgresql.org/docs/current/predefined-roles.html
var postgresLocks = &Locks{"SELECT pg_backend_pid()", askPostgreSQL, "SELECT pg_terminate_backend(%d)"}

// A process waits for one lock at a time. Who waits for a row waits for the end of a
// transaction, and has a lock on the row's place, which names the table.
const postgresBlockers = `WITH RECURSIVE reach(pid) AS (
	SELECT unnest(ARRAY[%s]::int[])
	UNION
	SELECT b.pid FROM reach, unnest(pg_blocking_pids(reach.pid)) AS b(pid)
), few AS (
	SELECT pid FROM reach LIMIT 64
), locks AS (
	SELECT pid,
		max(locktype) FILTER (WHERE NOT granted) AS kind,
		max(CASE WHEN database = (SELECT oid FROM pg_database WHERE datname = current_database()) THEN relation::regclass::text END) AS object
	FROM pg_locks WHERE NOT granted OR locktype = 'tuple' GROUP BY pid
)
SELECT few.pid, array_to_string(pg_blocking_pids(few.pid), ','), locks.kind, locks.object,
	a.usename, CASE WHEN a.client_addr IS NULL AND a.client_port = -1 THEN 'a local socket' ELSE host(a.client_addr) END, a.application_name,
	a.state, extract(epoch FROM clock_timestamp() - CASE WHEN a.state = 'active' THEN a.query_start ELSE a.state_change END), a.query,
	pg_backend_pid(), quote_ident(current_user), session_user
FROM few LEFT JOIN locks ON locks.pid = few.pid LEFT JOIN pg_stat_activity a ON a.pid = few.pid`

// unseen is what pg_stat_activity shows in place of a statement that the user may not see.
const unseen = "<insufficient privilege>"

func askPostgreSQL(ctx context.Context, conn driver.Conn, of []uint64) (*Waiting, error) {
	rows, err := bare.QueryRows(ctx, conn, fmt.Sprintf(postgresBlockers, numbers(of)), mostWaits)
	if err != nil {
		return nil, err
	}
	w := &Waiting{Processes: map[uint64]Process{}, Whole: true}
	for _, row := range rows {
		if len(row) < 13 {
			return nil, &AnswerError{fmt.Sprintf("%d column(s)", len(row)), "13"}
		}
		text := func(i int) string { return settingText(row[i]) }
		pid := number(row[0])
		for holder := range strings.SplitSeq(text(1), ",") {
			if holder != "" {
				w.Waits = append(w.Waits, LockWait{pid, number(holder), postgresLock(text(2), text(3))})
			}
		}
		p := Process{User: text(4), Host: text(5), Program: text(6), State: text(7), For: seconds(text(8)), Statement: text(9)}
		if p.Statement == unseen {
			p.Statement = ""
			w.lacks("GRANT pg_read_all_stats TO " + text(11) + "; lets sqllease see what the connections of other users do")
		}
		w.Processes[pid] = p
		w.self, w.User = number(row[10]), text(12)
	}
	return w, nil
}

// postgresLock is a lock in words.
func postgresLock(kind, object string) string {
	switch kind {
	case "transactionid", "tuple":
		kind = "row"
		if object == "" {
			kind = "row or unique key"
		}
	case "relation":
		kind = "table"
	case "":
		return "lock"
	}
	return lockOn(kind+" lock", object)
}

func lockOn(lock, object string) string {
	if object == "" {
		return lock
	}
	return lock + " on " + object
}

// numbers is a list of them, for a statement.
func numbers(all []uint64) string {
	texts := make([]string, len(all))
	for i, n := range all {
		texts[i] = strconv.FormatUint(n, 10)
	}
	return strings.Join(texts, ",")
}

// number reads one; what is none is zero.
func number(v driver.Value) uint64 {
	n, err := strconv.ParseUint(settingText(v), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// seconds reads a time; what is none, or below zero, is zero.
func seconds(text string) time.Duration {
	s, err := strconv.ParseFloat(text, 64)
	if err != nil || !(s > 0) || s > 1e9 {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
