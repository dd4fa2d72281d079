package faults

import (
	"context"
	"database/sql"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

func onPostgres() *servers.Server        { return postgres }
func onFragilePostgres() *servers.Server { return fragilePostgres }

// idleLimitOfRole gives new sessions of an application an idle limit.
func idleLimitOfRole(s *scene) {
	s.both(func(a *app) {
		a.fill(connections)
		s.exec("ALTER ROLE " + a.user + " SET idle_session_timeout = '1s'")
	})
	s.both(func(a *app) { a.idleAround(limit-6*way, limit+2*way, untouched) })
}

var postgresFaults = []fault{
	{
		name:   "PostgreSQL: `idle_session_timeout` is lowered for new connections",
		server: onPostgres, through: pgxStdlib, size: idlers, expect: noticed, play: idleLimitOfRole,
	},
	{
		name:   "PostgreSQL: the application sets `idle_session_timeout` on its own connection",
		server: onPostgres, through: pgxStdlib, size: idlers, expect: noticed,
		play: func(s *scene) {
			s.both(func(a *app) {
				a.idleAround(limit-6*way, limit+2*way, func(ctx context.Context, c *sql.Conn) error {
					_, err := c.ExecContext(ctx, "SET idle_session_timeout = '1s'")
					return err
				})
			})
		},
	},
	{
		name:   "PostgreSQL: `CONNECTION LIMIT` of the role is below the pool's limit",
		server: onPostgres, through: pgxStdlib, expect: prevented,
		play: func(s *scene) {
			s.both(func(a *app) { s.exec("ALTER ROLE " + a.user + " CONNECTION LIMIT 2") })
			s.both(func(a *app) { a.spell(20) })
			s.both(func(a *app) { s.exec("ALTER ROLE " + a.user + " CONNECTION LIMIT -1") })
		},
	},
	{
		name:   "PostgreSQL: `pg_terminate_backend` of every connection while it is idle",
		server: onPostgres, through: pgxStdlib, expect: noticed, play: killedWhileIdle,
	},
	{
		name:   "PostgreSQL with lib/pq: `pg_terminate_backend` of every connection while it is idle",
		server: onPostgres, through: libPQ, expect: noticed, play: killedWhileIdle,
	},
	{
		name:   "PostgreSQL: `pg_terminate_backend` of every connection while it is in use",
		server: onPostgres, through: pgxStdlib, expect: noWorse, play: killedInUse,
	},
}

// frozenEach freezes the server for longer than callers wait, and sees whether calls succeed
// soon after, for one application after the other:
// what one of them dials meanwhile must not stand in the way of the other.
func frozenEach(s *scene) {
	for _, a := range []*app{s.bare, s.lease} {
		a.fill(a.size)
		a.within(500 * time.Millisecond)
		stop := a.load(a.use)
		a.more(50)
		s.server.Freeze()
		a.more(4 * workers)
		s.server.Thaw()
		a.over.Store(true)
		worked := func() int { o := a.seen(); return o.calls - o.failed }
		from := worked()
		for end := time.Now().Add(5 * limit); worked() < from+50 && time.Now().Before(end); {
			time.Sleep(limit / 100)
		}
		stop()
		a.within(patience)
	}
}

var fragilePostgresFaults = []fault{
	{
		name:   "PostgreSQL: `idle_session_timeout` is lowered by a reload, also for open connections",
		server: onFragilePostgres, through: pgxStdlib, size: idlers, expect: noticed,
		play: func(s *scene) {
			s.both(func(a *app) { a.fill(idlers) })
			s.exec("ALTER SYSTEM SET idle_session_timeout = '1s'", "SELECT pg_reload_conf()")
			s.both(func(a *app) { a.idleAround(limit-6*way, limit+2*way, untouched) })
			s.exec("ALTER SYSTEM RESET idle_session_timeout", "SELECT pg_reload_conf()")
		},
	},
	{
		name:   "PostgreSQL: a fast shutdown (`SIGINT`), and a start",
		server: onFragilePostgres, direct: true, through: pgxStdlib, expect: survived, play: restart(syscall.SIGINT),
	},
	{
		name:   "PostgreSQL: a smart shutdown (`SIGTERM`), which waits for the clients; then a fast one, and a start",
		server: onFragilePostgres, direct: true, through: pgxStdlib, expect: survived,
		play: func(s *scene) {
			s.underLoad(func() {
				require.NoError(s.t, s.server.Signal(syscall.SIGTERM))
				s.both(func(a *app) { a.more(200) })
				require.NoError(s.t, s.server.End(syscall.SIGINT))
				require.NoError(s.t, s.server.Up())
			})
		},
	},
	{
		name:   "PostgreSQL: the server ends by `SIGKILL`, and starts again",
		server: onFragilePostgres, direct: true, through: pgxStdlib, expect: survived,
		play: func(s *scene) {
			s.underLoad(func() {
				s.server.Stop()
				require.NoError(s.t, s.server.Up())
			})
		},
	},
	{
		name:   "PostgreSQL: the server freezes (`SIGSTOP`), and goes on",
		server: onFragilePostgres, direct: true, through: pgxStdlib, expect: survived, play: frozen,
	},
	{
		name:   "PostgreSQL: the server freezes for 2 s, and goes on. Callers wait for 500 ms, also in the 5 s after",
		server: onFragilePostgres, direct: true, through: pgxStdlib, expect: survived, play: frozenEach,
	},
}
