package faults

import (
	"context"
	"database/sql"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

func onMaria() *servers.Server        { return maria }
func onFragileMaria() *servers.Server { return fragileMaria }

// around leaves connections idle for times around the limit of a server that is some way off: a
// close that is on its way cannot be seen.
func around(a *app, before func(context.Context, *sql.Conn) error) {
	a.idleAround(idlers, limit-6*way, limit+2*way, before)
}

// idlers is how many connections are left idle.
const idlers = 24

func untouched(context.Context, *sql.Conn) error { return nil }

var mariaFaults = []fault{
	{
		name:   "MariaDB: a session sets its own `wait_timeout`, and is idle for that long",
		server: onMaria, through: goMySQL, size: idlers, expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) {
				around(a, func(ctx context.Context, c *sql.Conn) error {
					_, err := c.ExecContext(ctx, "SET SESSION wait_timeout = 1")
					return err
				})
			})
		},
	},
	{
		name:   "MariaDB: `max_user_connections` is below the pool's limit",
		server: onMaria, through: goMySQL, expect: told,
		play: func(s *scene) {
			s.both(func(a *app) { s.exec("ALTER USER " + a.user + " WITH MAX_USER_CONNECTIONS 2") })
			s.both(func(a *app) { a.spell(20) })
			s.both(func(a *app) { s.exec("ALTER USER " + a.user + " WITH MAX_USER_CONNECTIONS 0") })
		},
	},
	{
		name:   "MariaDB: `KILL` of every connection while it is idle",
		server: onMaria, through: goMySQL, expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.line.Delay(way, 0); a.fill(connections) })
			s.both(s.kill)
			s.both(func(a *app) { a.burst(workers); a.line.Delay(0, 0) })
		},
	},
	{
		name:   "MariaDB: `KILL` of every connection while it is in use",
		server: onMaria, through: goMySQL, expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.line.Delay(2*time.Millisecond, 0) })
			s.underLoad(func() { s.both(s.kill) })
		},
	},
}

// restart ends the server by a signal, and starts it again.
func restart(by syscall.Signal) func(*scene) {
	return func(s *scene) {
		s.underLoad(func() {
			require.NoError(s.t, s.server.End(by))
			require.NoError(s.t, s.server.Up())
		})
	}
}

var fragileMariaFaults = []fault{
	{
		name:   "MariaDB: `wait_timeout` is lowered while the application runs",
		server: onFragileMaria, through: goMySQL, size: idlers, expect: prevented,
		play: func(s *scene) {
			s.both(func(a *app) { a.fill(connections) })
			s.exec("SET GLOBAL wait_timeout = 1")
			s.both(func(a *app) { around(a, untouched) })
			s.exec("SET GLOBAL wait_timeout = 28800")
		},
	},
	{
		name:   "MariaDB: ends by `SIGTERM`, and starts again",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived, play: restart(syscall.SIGTERM),
	},
	{
		name:   "MariaDB: ends by `SIGKILL`, and starts again",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived, play: restart(syscall.SIGKILL),
	},
	{
		name:   "MariaDB: freezes (`SIGSTOP`), and goes on",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived,
		play: func(s *scene) {
			s.both(func(a *app) { a.deadline = time.Second })
			s.underLoad(func() {
				s.server.Freeze()
				s.both(func(a *app) { a.more(2 * workers) })
				s.server.Thaw()
			})
		},
	},
}
