package faults

import (
	"context"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

// failover makes the old server read-only, and leads new connections to another one. No
// connection is cut: those of the pool stay on the old server.
func failover(to func() *servers.Server, write string, tables func(user string) []string, readOnly, readWrite []string) func(*scene) {
	return func(s *scene) {
		s.other = s.opened(to().Driver, to().DSN(""))
		s.both(func(a *app) { s.execBy(s.other, s.fault.through.users(a.user)...) })
		for _, a := range []*app{s.bare, s.lease} { // one after the other: PostgreSQL makes no table twice at once
			s.execBy(s.other, tables(a.user)...)
			s.execBy(s.admin, tables(a.user)...)
		}
		writing := func(a *app, ctx context.Context, n int) error {
			return a.counted(ctx, func(ctx context.Context) error {
				_, err := a.db.ExecContext(ctx, write, n)
				return err
			})
		}
		s.underLoadOf(writing, func() {
			s.both(func(a *app) { a.line.To(to().Addr) })
			s.exec(readOnly...)
		})
		s.exec(readWrite...)
	}
}

func mariaFailover(name, params string, expect expectation) fault {
	return fault{
		name: name, server: onFragileMaria, through: goMySQL, params: params, expect: expect,
		play: failover(onMaria, "INSERT INTO t (n) VALUES (?)", func(string) []string { return nil },
			[]string{"SET GLOBAL read_only = 1"}, []string{"SET GLOBAL read_only = 0"}),
	}
}

var mariaFailovers = []fault{
	mariaFailover("Failover, MariaDB: the old server becomes read-only. New connections lead to the new server", "", followed),
	mariaFailover("Failover, MariaDB: the old server becomes read-only. The driver has `rejectReadOnly=true`", "?rejectReadOnly=true", noWorse),
}

var postgresFailovers = []fault{{
	name:   "Failover, PostgreSQL: the old server becomes read-only (`default_transaction_read_only`). New connections lead to the new server",
	server: onFragilePostgres, through: pgxStdlib, expect: followed,
	play: failover(onPostgres, "INSERT INTO written VALUES ($1)",
		func(user string) []string {
			return []string{"CREATE TABLE IF NOT EXISTS written (n INT)", "GRANT INSERT ON written TO " + user}
		},
		[]string{"ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"},
		[]string{"ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"}),
}}
