package faults

import (
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// forgotten leaves connections idle until something on the way has forgotten them.
func forgotten(s *scene) {
	s.both(func(a *app) {
		a.fill(a.size)
		a.line.Forget(limit)
		a.within(3 * limit)
		time.Sleep(limit + limit/5)
		a.burst(workers)
		a.line.Forget(0)
	})
}

var networkFaults = []fault{
	{
		name:   "Network, MariaDB: something on the way forgets connections that are idle for 1 s. `NetworkIdleLimit: 1s`",
		server: onMaria, through: goMySQL, expect: prevented, cfg: sqllease.Config{NetworkIdleLimit: limit},
		play: forgotten,
	},
	{
		name:   "Network, PostgreSQL: something on the way forgets connections that are idle for 1 s. `NetworkIdleLimit: 1s`",
		server: onPostgres, through: pgxStdlib, expect: prevented, cfg: sqllease.Config{NetworkIdleLimit: limit}, play: forgotten,
	},
	{
		name:   "Network: every connection falls silent while it is in use. `readTimeout=1s`",
		server: onMaria, through: goMySQL, params: "?readTimeout=1s", expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.within(limit / 2) })
			s.underLoad(func() {
				s.both(func(a *app) {
					a.line.Silence()
					a.more(2 * workers)
					a.within(patience)
				})
			})
		},
	},
	{
		name:   "Network: every connection is reset while it is in use",
		server: onMaria, through: goMySQL, expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.line.Delay(2*time.Millisecond, 0) })
			s.underLoad(func() { s.both(func(a *app) { a.line.Reset() }) })
		},
	},
	{
		name:   "Network: new connections are reset in the handshake",
		server: onMaria, through: goMySQL, expect: survived,
		play: func(s *scene) {
			s.underLoad(func() {
				s.both(func(a *app) { a.line.ResetAt(1); a.line.Reset(); a.more(10 * workers) })
				s.both(func(a *app) { a.line.ResetAt(2); a.more(10 * workers) })
				s.both(func(a *app) { a.line.ResetAt(0) })
			})
		},
	},
	{
		name:   "Network: 40 to 60 ms in each direction, 8 callers on 4 connections",
		server: onMaria, through: goMySQL, expect: noWorse,
		play: func(s *scene) {
			s.both(func(a *app) { a.line.Delay(40*time.Millisecond, 20*time.Millisecond) })
			s.underLoad(func() { s.both(func(a *app) { a.more(workers) }) })
			s.both(func(a *app) { a.line.Delay(0, 0) })
		},
	},
	{
		name:   "Network: something accepts new connections and never answers",
		server: onMaria, through: goMySQL, expect: survived,
		play: func(s *scene) {
			s.both(func(a *app) {
				a.within(limit / 2)
				a.line.Deaf(true)
				a.burst(a.size)
				a.line.Deaf(false)
				a.over.Store(true)
				a.within(patience)
				a.burst(workers)
			})
			var e *sqllease.AcquireError
			require.ErrorAs(s.t, s.lease.seen().last, &e)
			assert.Equal(s.t, s.lease.line.Addr(), e.Server)
			assert.Greater(s.t, e.Dial, limit/4)
			assert.Contains(s.t, e.Error(), "still dialing "+s.lease.line.Addr()+" after ")
		},
	},
	scripted("Discovery: the server answers the question for its idle limit with nonsense", mysqlscript.Text("a while"), noWorse),
	scripted("Discovery: the server answers with an error", mysqlscript.Fail(1193, "Unknown system variable"), noWorse),
	scripted("Discovery: the server ends the connection in place of an answer", mysqlscript.Disconnect(mysqlscript.FIN), noWorse),
	scripted("Discovery: the server never answers", mysqlscript.Hang(), noWorse),
}

// scripted is a server that answers the question for its idle limit so. The bare driver does not ask.
func scripted(name string, answer mysqlscript.Answer, expect expectation) fault {
	of := goMySQL
	of.answer = 1
	script := mysqlscript.Script{WaitTimeout: answer, Statements: map[string]mysqlscript.Answer{of.statement: mysqlscript.Number(1)}}
	var server *mysqlscript.Server
	return fault{
		name: name, through: of, expect: expect,
		behind: func(s *scene) string {
			server = mysqlscript.Start(s.t, script)
			return server.Addr()
		},
		play: func(s *scene) {
			s.both(func(a *app) {
				a.within(limit)
				a.burst(workers)
			})
			server.Change(func(s *mysqlscript.Script) { s.WaitTimeout = nil })
		},
	}
}
