package faults

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// bouncer is a PgBouncer before PostgreSQL, as a user of its own there.
func bouncer(settings string) func(s *scene) string {
	return func(s *scene) string {
		s.bouncer = fmt.Sprintf("bouncer%d", scenes.Add(1))
		s.exec(postgresUser(s.bouncer)...)
		p, err := servers.PgBouncer(s.folder(), s.server, s.bouncer, settings)
		require.NoError(s.t, err)
		s.t.Cleanup(func() { p.Stop() })
		return p.Addr
	}
}

// haproxy is an HAProxy before a server.
func haproxy(s *scene) string {
	p, err := servers.HAProxy(s.folder(), s.server, limit)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { p.Stop() })
	return p.Addr
}

var proxyFaults = []fault{
	{
		name:   "HAProxy before MariaDB: `timeout client 1s`. `NetworkIdleLimit: 1s`",
		server: onMaria, behind: haproxy, through: goMySQL, size: idlers, expect: prevented,
		cfg:  sqllease.Config{NetworkIdleLimit: limit},
		play: func(s *scene) { around(s, untouched) },
	},
	{
		name:   "PgBouncer, session pooling, lib/pq: `client_idle_timeout = 1`. `NetworkIdleLimit: 1s`",
		server: onPostgres, behind: bouncer("pool_mode = session\ndefault_pool_size = 50\nclient_idle_timeout = 1"),
		through: libPQ, size: idlers, expect: noticed, cfg: sqllease.Config{NetworkIdleLimit: limit},
		play: func(s *scene) { s.both(func(a *app) { a.idleAround(limit-6*way, limit*3/2, untouched) }) },
	},
	{
		name:   "PgBouncer, transaction pooling, pgx: `client_idle_timeout = 1`. `NetworkIdleLimit: 1s`",
		server: onPostgres, behind: bouncer("pool_mode = transaction\ndefault_pool_size = 4\nclient_idle_timeout = 1"),
		through: pgxStdlib, params: "&default_query_exec_mode=exec", size: idlers, expect: noticed,
		cfg:  sqllease.Config{NetworkIdleLimit: limit},
		play: func(s *scene) { s.both(func(a *app) { a.idleAround(limit-6*way, limit*3/2, untouched) }) },
	},
	{
		name:   "PgBouncer, transaction pooling: `pg_terminate_backend` of its connections while they are in use",
		server: onPostgres, behind: bouncer("pool_mode = transaction\ndefault_pool_size = 4\nserver_login_retry = 1"),
		through: pgxStdlib, params: "&default_query_exec_mode=exec", expect: noWorse,
		play: func(s *scene) {
			s.underLoad(func() {
				s.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + s.bouncer + "'")
				s.both(func(a *app) { a.more(workers) })
			})
		},
	},
	{
		name:   "PgBouncer, transaction pooling: its only connection is busy for 1 s. Callers wait for 500 ms",
		server: onPostgres, behind: bouncer("pool_mode = transaction\ndefault_pool_size = 1"),
		through: pgxStdlib, params: "&default_query_exec_mode=exec", expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.within(limit / 2) })
			busy := make(chan error, 1)
			go func() {
				_, err := s.bare.db.Exec("SELECT pg_sleep(1)")
				busy <- err
			}()
			s.bare.await("the connection to be busy", func() bool {
				var n int
				err := s.admin.QueryRow("SELECT COUNT(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active'", s.bouncer).Scan(&n)
				return err == nil && n == 1
			})
			s.both(func(a *app) { a.burst(workers) })
			require.NoError(s.t, <-busy)
		},
	},
}
