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
// close that is on its way cannot be seen. It does so until an application without sqllease has
// met with one.
func around(s *scene, before func(context.Context, *sql.Conn) error) {
	for range 5 {
		s.both(func(a *app) { a.idleAround(limit-6*way, limit+2*way, before) })
		if s.bare.seen().failed > 0 {
			return
		}
	}
}

// idlers is how many connections are left idle.
const idlers = 16

func untouched(context.Context, *sql.Conn) error { return nil }

func killedWhileIdle(s *scene) {
	s.both(func(a *app) { a.line.Delay(way, 0); a.fill(connections) })
	s.both(s.kill)
	s.both(func(a *app) { a.burst(workers); a.line.Delay(0, 0) })
}

func killedInUse(s *scene) {
	s.both(func(a *app) { a.line.Delay(2*time.Millisecond, 0) })
	s.underLoad(func() { s.both(s.kill) })
}

var mariaFaults = []fault{
	{
		name:   "MariaDB: the application sets `wait_timeout` on its own connection",
		server: onMaria, through: goMySQL, size: idlers, expect: told,
		play: func(s *scene) {
			around(s, func(ctx context.Context, c *sql.Conn) error {
				_, err := c.ExecContext(ctx, "SET SESSION wait_timeout = 1")
				return err
			})
		},
	},
	{
		name:   "MariaDB: `max_user_connections` is below the pool's limit",
		server: onMaria, through: goMySQL, expect: prevented,
		play: func(s *scene) {
			s.both(func(a *app) { s.exec("ALTER USER " + a.user + " WITH MAX_USER_CONNECTIONS 2") })
			s.both(func(a *app) { a.spell(20) })
			s.both(func(a *app) { s.exec("ALTER USER " + a.user + " WITH MAX_USER_CONNECTIONS 0") })
		},
	},
	{
		name:   "MariaDB: `KILL` of every connection while it is idle",
		server: onMaria, through: goMySQL, expect: noWorse, play: killedWhileIdle,
	},
	{
		name:   "MariaDB: `KILL` of every connection while it is in use",
		server: onMaria, through: goMySQL, expect: noWorse, play: killedInUse,
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

// frozen freezes the server until callers have given up, twice each.
func frozen(s *scene) {
	s.both(func(a *app) { a.within(500 * time.Millisecond) }) // but a commit waits for the server, whatever its context says
	s.underLoad(func() {
		s.server.Freeze()
		s.both(func(a *app) { a.more(2 * workers) })
		s.server.Thaw()
		s.both(func(a *app) { a.within(patience) }) // it has to catch up first
	})
}

var fragileMariaFaults = []fault{
	{
		name:   "MariaDB: `wait_timeout` is lowered while the application runs",
		server: onFragileMaria, through: goMySQL, size: idlers, expect: prevented,
		play: func(s *scene) {
			s.both(func(a *app) { a.fill(connections) })
			s.exec("SET GLOBAL wait_timeout = 1")
			around(s, untouched)
			s.exec("SET GLOBAL wait_timeout = 28800")
		},
	},
	{
		name:   "MariaDB: the server ends by `SIGTERM`, and starts again",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived, play: restart(syscall.SIGTERM),
	},
	{
		name:   "MariaDB: the server ends by `SIGKILL`, and starts again",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived, play: restart(syscall.SIGKILL),
	},
	{
		name:   "MariaDB: the server freezes (`SIGSTOP`), and goes on",
		server: onFragileMaria, direct: true, through: goMySQL, expect: survived, play: frozen,
	},
}
