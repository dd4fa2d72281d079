package faults

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/lib/pq"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/line"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// scene is where a case plays: two applications that meet with the same fault.
type scene struct {
	t           *testing.T
	fault       fault
	server      *servers.Server
	admin       *sql.DB
	other       *sql.DB // an administrator of the server that a failover leads to; nil: there is none
	bouncer     string  // what a PgBouncer is called by the server
	bare, lease *app
}

// scenes numbers them, for the names of their users.
var scenes atomic.Int64

// stage makes a scene.
func stage(t *testing.T, f fault) *scene {
	s := &scene{t: t, fault: f}
	prefix := fmt.Sprintf("f%d", scenes.Add(1))
	to := ""
	if f.server != nil {
		s.server = f.server()
		s.admin = s.opened(s.server.Driver, s.server.DSN(""))
		to = s.server.Addr
	}
	if f.behind != nil {
		to = f.behind(s)
	}
	s.bare, s.lease = s.app(prefix+"_bare", to), s.app(prefix+"_lease", to)
	s.openBoth(to)
	return s
}

// openBoth opens the pools of both applications, which are the same.
func (s *scene) openBoth(server string) {
	f := s.fault
	open := func(a *app, open func(dsn string) (*sql.DB, error), wrap func(driver.Connector) *sql.DB) {
		addr := a.line.Addr()
		if f.direct {
			addr = server
		}
		if f.connect != nil {
			a.db = wrap(f.connect(a, addr))
			return
		}
		var err error
		a.db, err = open(fmt.Sprintf(f.through.dsn, a.user, addr) + f.params)
		require.NoError(s.t, err)
	}
	open(s.bare, func(dsn string) (*sql.DB, error) { return sql.Open(f.through.driver, dsn) }, sql.OpenDB)
	s.bare.db.SetMaxOpenConns(s.bare.size)
	s.bare.db.SetMaxIdleConns(s.bare.size)
	cfg := f.cfg
	cfg.MaxOpen = s.lease.size
	open(s.lease, func(dsn string) (*sql.DB, error) { return sqllease.Open(f.through.driver, dsn, cfg) },
		func(c driver.Connector) *sql.DB {
			db, err := sqllease.OpenDB(c, cfg)
			require.NoError(s.t, err)
			return db
		})
	var ok bool
	s.lease.pool, ok = sqllease.ConnectorOf(s.lease.db)
	require.True(s.t, ok)
	s.t.Cleanup(func() { _, _ = s.bare.db.Close(), s.lease.db.Close() })
}

// opened opens a database for the length of the scene.
func (s *scene) opened(driver, dsn string) *sql.DB {
	db, err := sql.Open(driver, dsn)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = db.Close() })
	return db
}

// app makes an application without its pool.
func (s *scene) app(user, to string) *app {
	l, err := line.New(to)
	require.NoError(s.t, err)
	s.t.Cleanup(l.Close)
	if s.server != nil {
		s.exec(s.fault.through.users(user)...)
	}
	return &app{t: s.t, line: l, user: user, through: s.fault.through, size: cmp.Or(s.fault.size, connections), deadline: patience,
		outcome: outcome{kinds: map[string]int{}}}
}

// exec has the administrator do something.
func (s *scene) exec(statements ...string) { s.execBy(s.admin, statements...) }

func (s *scene) execBy(admin *sql.DB, statements ...string) {
	s.t.Helper()
	for _, statement := range statements {
		_, err := admin.Exec(statement)
		require.NoError(s.t, err, statement)
	}
}

// kill ends an application's sessions, as an administrator does.
func (s *scene) kill(a *app) {
	rows, err := s.admin.Query(s.fault.through.sessions, a.user)
	require.NoError(s.t, err)
	var ids []int
	for rows.Next() {
		var id int
		require.NoError(s.t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(s.t, rows.Err())
	for _, id := range ids {
		_, _ = s.admin.Exec(fmt.Sprintf(s.fault.through.kill, id)) // it may have ended
	}
}

// both does something with both applications at once.
func (s *scene) both(do func(*app)) {
	var all sync.WaitGroup
	all.Go(func() { do(s.bare) })
	all.Go(func() { do(s.lease) })
	all.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// underLoad has both work, brings the fault about, and has them work on when it is over.
func (s *scene) underLoad(fault func()) { s.underLoadOf((*app).use, fault) }

func (s *scene) underLoadOf(call func(*app, context.Context, int) error, fault func()) {
	s.both(func(a *app) { a.fill(a.size) })
	var stops []func()
	for _, a := range []*app{s.bare, s.lease} {
		stops = append(stops, a.load(func(ctx context.Context, n int) error { return call(a, ctx, n) }))
	}
	s.both(func(a *app) { a.more(50) })
	fault()
	s.both(func(a *app) { a.over.Store(true) })
	s.both(func(a *app) { a.more(100) })
	for _, stop := range stops {
		stop()
	}
}

// settled has both use every connection, and checks that the server has those that the pool
// says, and none once it is closed.
func (s *scene) settled() {
	s.both(func(a *app) {
		a.line.Lost()
		a.await("its connections to be those of its pool", func() bool {
			a.refresh()
			return s.sessions(a) == a.open()
		})
	})
	assert.Empty(s.t, s.lease.pool.Leases())
	assert.Zero(s.t, s.lease.pool.Stats().Waiting)
	s.both(func(a *app) {
		_ = a.db.Close() // to say goodbye to a server that has hung up is an error
		a.await("its connections to end", func() bool { return s.sessions(a) == 0 && a.line.Open() == 0 && a.open() == 0 })
	})
}

// sessions is how many an application has: on the server, or, where something is between, on the way.
func (s *scene) sessions(a *app) int {
	if s.admin == nil || s.fault.behind != nil {
		return a.line.Open()
	}
	n := 0
	for _, of := range []*sql.DB{s.admin, s.other} {
		var here int
		if of != nil {
			require.NoError(s.t, of.QueryRow("SELECT COUNT(*) FROM ("+s.fault.through.sessions+") s", a.user).Scan(&here))
		}
		n += here
	}
	return n
}

// folder is a new path for what a proxy needs.
func (s *scene) folder() string {
	parent := filepath.Join(dir, fmt.Sprint("proxy", scenes.Add(1)))
	require.NoError(s.t, os.Mkdir(parent, 0o755))
	require.NoError(s.t, os.Chmod(parent, 0o755))
	return filepath.Join(parent, "settings")
}

// through is a driver, and what is the same for all servers behind it.
type through struct {
	driver    string
	dsn       string // of a user and an address
	statement string // asks for a number
	answer    int    // the only number that it gets; zero: any
	sessions  string // of a user
	kill      string // a session
	users     func(name string) []string
}

var (
	goMySQL = through{
		driver: "mysql", dsn: "%s@tcp(%s)/faults", statement: "SELECT ? + 0",
		sessions: "SELECT id FROM information_schema.processlist WHERE user = ?", kill: "KILL %d", users: mariaUser,
	}
	pgxStdlib = through{
		driver: "pgx", dsn: "postgres://%s@%s/postgres?sslmode=disable", statement: "SELECT $1::int",
		sessions: "SELECT pid FROM pg_stat_activity WHERE usename = $1", kill: "SELECT pg_terminate_backend(%d)", users: postgresUser,
	}
	libPQ = through{
		driver: "postgres", dsn: pgxStdlib.dsn, statement: pgxStdlib.statement,
		sessions: pgxStdlib.sessions, kill: pgxStdlib.kill, users: postgresUser,
	}
)

func mariaUser(name string) []string {
	return []string{
		"CREATE DATABASE IF NOT EXISTS faults",
		"CREATE TABLE IF NOT EXISTS faults.t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)",
		"CREATE OR REPLACE USER " + name,
		"GRANT ALL ON faults.* TO " + name,
	}
}

func postgresUser(name string) []string {
	return []string{
		"DO $$ BEGIN CREATE ROLE " + name + " LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
	}
}

const (
	way   = 50 * time.Millisecond // of a line that is some way off, in either direction
	limit = time.Second           // the shortest idle limit that servers have
)
