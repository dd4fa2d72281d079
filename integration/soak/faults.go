package main

import (
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/line"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// admin is an administrator of the server.
type admin struct{ db *sql.DB }

func newAdmin(server *servers.Server) (*admin, error) {
	db, err := sql.Open(server.Driver, server.DSN(""))
	if err != nil {
		return nil, err
	}
	for _, q := range []string{
		"CREATE DATABASE soak", "CREATE TABLE soak.written (id INT PRIMARY KEY, n INT)",
		"CREATE USER soak", "GRANT ALL ON soak.* TO soak",
	} {
		if _, err := db.Exec(q); err != nil {
			return nil, err
		}
	}
	return &admin{db}, nil
}

// sessions are the ids of the application's.
func (a *admin) sessions() (ids []int, err error) {
	rows, err := a.db.Query("SELECT id FROM information_schema.processlist WHERE user = 'soak'")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// statements is how many the server keeps prepared.
func (a *admin) statements() (n int, err error) {
	var name string
	err = a.db.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&name, &n)
	return n, err
}

// faults brings them about.
type faults struct {
	server *servers.Server
	way    *line.Line
	admin  *admin
	pool   *sqllease.Connector
	counts map[string]int
}

// until brings one about after the other. Each is over when it returns.
func (f *faults) until(end time.Time) {
	all := map[string]func(){
		"kill": f.kill, "reset": f.way.Reset, "silence": f.silence, "deaf": f.deaf, "delay": f.delay,
		"handshake": f.handshake, "freeze": f.freeze, "restart": f.restart, "idle limit": f.idleLimit,
		"flush": func() { f.pool.Flush(rand.N(2 * time.Second)) },
	}
	names := slices.Sorted(maps.Keys(all))
	for time.Now().Before(end) {
		name := names[rand.N(len(names))]
		f.counts[name]++
		all[name]()
		time.Sleep(rand.N(2 * time.Second))
	}
}

func (f *faults) kill() {
	ids, _ := f.admin.sessions()
	for _, id := range ids {
		_, _ = f.admin.db.Exec(fmt.Sprintf("KILL %d", id)) // it may have ended
	}
}

func (f *faults) silence() {
	f.way.Silence()
	time.Sleep(rand.N(4 * time.Second))
	f.way.Lost()
}

func (f *faults) deaf() {
	f.way.Deaf(true)
	f.way.Reset()
	time.Sleep(rand.N(3 * time.Second))
	f.way.Deaf(false)
	f.way.Silence() // those that were opened meanwhile are for good
	time.Sleep(time.Second)
	f.way.Lost()
}

func (f *faults) delay() {
	f.way.Delay(50*time.Millisecond, 50*time.Millisecond)
	time.Sleep(rand.N(3 * time.Second))
	f.way.Delay(0, 0)
}

func (f *faults) handshake() {
	f.way.ResetAt(1 + rand.N(3))
	f.way.Reset()
	time.Sleep(rand.N(2 * time.Second))
	f.way.ResetAt(0)
}

func (f *faults) freeze() {
	f.server.Freeze()
	time.Sleep(rand.N(3 * time.Second))
	f.server.Thaw()
}

func (f *faults) restart() {
	if err := f.server.End([]syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[rand.N(2)]); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := f.server.Up(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// idleLimit has new connections end after a second, for a while.
func (f *faults) idleLimit() {
	_, _ = f.admin.db.Exec("SET GLOBAL wait_timeout = 1")
	f.pool.Flush(0)
	time.Sleep(rand.N(4 * time.Second))
	_, _ = f.admin.db.Exec("SET GLOBAL wait_timeout = 28800")
}
