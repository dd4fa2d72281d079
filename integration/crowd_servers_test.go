package integration

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// ground is a server and a driver, as crowds use them. What is asked for its session's
// sake has the session's id in its last column.
type ground struct {
	name      string
	connector func() (driver.Connector, error)
	raw       func(conn any, wrapped bool, text string) error // runs a text on the driver's own connection
	plain     []any                                           // arguments that make a driver send a text as it is, and remember nothing of it
	cancelsTx bool                                            // what comes of such an end is determined
	unique    bool                                            // no two statements are to have the same text
	tells     bool                                            // the driver says driver.ErrBadConn of a session that has just been killed

	postgres   bool
	admin      *sql.DB // a session of its own
	statements int     // that others have on the server
	altered    bool    // grows is not as it was made
}

// The three of c0, c1 and c2 have the tables who and odd, with other rows, and odd with
// another type. c0 has grows, to which columns are added, and log, for what is written.
var tenantNames = []string{"zero é", "one é", "two é"}

const homes = 3

// texts are what is prepared, and what is asked directly with 1 for its argument.
func (g *ground) texts() []string {
	id, arg := "CONNECTION_ID()", "?"
	if g.postgres {
		id, arg = "pg_backend_pid()", "$1"
	}
	texts := []string{
		"SELECT name, %id FROM who WHERE 1 = %arg",
		`SELECT "name", %id FROM who WHERE 1 = %arg`, // in MariaDB it depends on the sql_mode
		"SELECT *, %id FROM c0.grows WHERE 1 = %arg",
		"INSERT INTO c0.log (run) VALUES (%arg) RETURNING 'written', %id",
		"SELECT v, %id FROM odd WHERE 1 = %arg",
		"SELECT name, %id FROM mine WHERE 1 = %arg", // which may be there, as a temporary table
	}
	for i := range texts {
		texts[i] = strings.NewReplacer("%id", id, "%arg", arg).Replace(texts[i])
	}
	return texts
}

const (
	growing = 2 // the text that reads grows
	writing = 3 // the text that writes
)

// changes are the texts that change a session.
func (g *ground) changes() []string {
	if g.postgres {
		return []string{
			"SET search_path = c0", "SET search_path = c1", "SET search_path = c2", "SET search_path = c1", "SET LOCAL search_path = c2",
			"RESET search_path", "SELECT 1; SET search_path = c2", "SET application_name = 'one'", "SET application_name = 'two'",
			"SET TIME ZONE '+05'", "SET default_transaction_read_only = on", "SET default_transaction_read_only = off", "LISTEN news",
			"CREATE TEMPORARY TABLE mine AS SELECT 'mine' AS name", "CREATE TEMPORARY TABLE mine ON COMMIT DROP AS SELECT 'brief' AS name",
			"CREATE TEMPORARY TABLE who AS SELECT 'temporary' AS name", "DROP TABLE IF EXISTS pg_temp.mine", "DROP TABLE IF EXISTS pg_temp.who",
			"CREATE TEMPORARY TABLE odd AS SELECT 1.5 AS v", "DROP TABLE IF EXISTS pg_temp.odd",
			"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT here", "ROLLBACK TO SAVEPOINT here", "DISCARD ALL", "DEALLOCATE ALL", "RESET ALL",
		}
	}
	return []string{
		"USE c0", "USE c1", "USE c2", "USE c1", "USE c2", "/*! USE c1 */", "SELECT 1; USE c2", "use c0",
		"SET sql_mode = 'ANSI_QUOTES'", "SET sql_mode = DEFAULT", "SET NAMES latin1", "SET NAMES utf8mb4", "SET time_zone = '+05:00'",
		"SET @v = 1", "SET @v = 2", "SELECT 3 INTO @v",
		"CREATE TEMPORARY TABLE mine AS SELECT 'mine' AS name", "CREATE TEMPORARY TABLE who AS SELECT 'temporary' AS name",
		"DROP TEMPORARY TABLE IF EXISTS mine", "DROP TEMPORARY TABLE IF EXISTS who",
		"BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT here", "ROLLBACK TO SAVEPOINT here",
	}
}

// questions are asked directly: what a session is like.
func (g *ground) questions() []string {
	if g.postgres {
		return []string{
			"SELECT name, pg_backend_pid() FROM who", "SELECT name, pg_backend_pid() FROM mine", "SELECT v, pg_backend_pid() FROM odd",
			"SELECT current_setting('application_name'), to_timestamp(0)::text, pg_backend_pid()",
			"SELECT count(*), pg_backend_pid() FROM c0.log WHERE run = 1", "SELECT *, pg_backend_pid() FROM c0.grows",
		}
	}
	return []string{
		"SELECT name, CONNECTION_ID() FROM who", "SELECT name, CONNECTION_ID() FROM mine", `SELECT "name", CONNECTION_ID() FROM who`,
		"SELECT DATABASE(), FROM_UNIXTIME(0), @v, CONNECTION_ID()",
		"SELECT COUNT(*), CONNECTION_ID() FROM c0.log WHERE run = 1", "SELECT *, CONNECTION_ID() FROM c0.grows",
	}
}

// locks are the questions that take locks, and give them back. None waits.
func (g *ground) locks() []string {
	if g.postgres {
		return []string{
			"SELECT pg_try_advisory_lock(4001), pg_backend_pid()", "SELECT pg_try_advisory_lock(4002), pg_backend_pid()",
			"SELECT pg_try_advisory_xact_lock(4001), pg_backend_pid()", "SELECT pg_advisory_unlock(4001), pg_backend_pid()",
			"SELECT pg_advisory_unlock_all()::text, pg_backend_pid()",
		}
	}
	return []string{
		"SELECT GET_LOCK('crowd1', 0), CONNECTION_ID()", "SELECT GET_LOCK('crowd2', 0), CONNECTION_ID()",
		"SELECT IS_USED_LOCK('crowd1') = CONNECTION_ID(), CONNECTION_ID()", "SELECT RELEASE_LOCK('crowd1'), CONNECTION_ID()",
		"SELECT RELEASE_ALL_LOCKS(), CONNECTION_ID()",
	}
}

func (g *ground) kill() string {
	if g.postgres {
		return "SELECT pg_terminate_backend(pg_backend_pid())"
	}
	return "KILL CONNECTION_ID()"
}

// grow adds a column, unless somebody's transaction has the table.
func (g *ground) grow(n int) error {
	g.altered = true
	if g.postgres {
		_, err := g.admin.Exec(fmt.Sprintf("ALTER TABLE c0.grows ADD COLUMN c%d INT", n))
		return err
	}
	_, err := g.admin.Exec(fmt.Sprintf("ALTER TABLE c0.grows NOWAIT ADD COLUMN c%d INT", n))
	return err
}

// ready makes the tables what they were.
func (g *ground) ready(t *testing.T) {
	g.exec(t, "DELETE FROM c0.log")
	if !g.altered {
		return
	}
	g.altered = false
	if g.postgres {
		g.exec(t, "DROP TABLE c0.grows", "CREATE TABLE c0.grows AS SELECT 1 AS a")
		return
	}
	g.exec(t, "CREATE OR REPLACE TABLE c0.grows ENGINE = MEMORY AS SELECT 1 AS a")
}

func (g *ground) exec(t *testing.T, statements ...string) {
	for _, s := range statements {
		_, err := g.admin.Exec(s)
		require.NoError(t, err, s)
	}
}

// adminOf opens a database of one session, to look at a server from.
func adminOf(t *testing.T, driverName, dsn string) *sql.DB {
	db, err := sql.Open(driverName, dsn)
	require.NoError(t, err)
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// mariaGround makes MariaDB ready. The crowd has a user of its own, by whom its sessions are told.
func mariaGround(t *testing.T, s *servers.Server) *ground {
	g := &ground{name: "MariaDB", cancelsTx: true, admin: adminOf(t, "mysql", s.DSN(""))}
	g.exec(t, "CREATE USER IF NOT EXISTS crowd", "GRANT ALL ON *.* TO crowd")
	for name, off := range map[string]string{"innodb_flush_log_at_trx_commit": "0", "sync_frm": "OFF"} { // nothing is worth waiting for a disk
		var on string
		require.NoError(t, g.admin.QueryRow("SELECT @@global."+name).Scan(&on))
		g.exec(t, "SET GLOBAL "+name+" = "+off)
		t.Cleanup(func() { g.exec(t, "SET GLOBAL "+name+" = "+on) })
	}
	for i := range homes {
		c := fmt.Sprint("c", i)
		g.exec(t, "CREATE OR REPLACE DATABASE "+c+" CHARACTER SET utf8mb4", // MEMORY: it takes no part in transactions, so that a column can be added in the midst of one
			fmt.Sprintf("CREATE TABLE %s.who ENGINE = MEMORY AS SELECT '%s' AS name", c, tenantNames[i]),
			fmt.Sprintf("CREATE TABLE %s.odd ENGINE = MEMORY AS SELECT %s AS v", c, []string{"'text'", "17", "1.5"}[i]))
	}
	g.exec(t, "CREATE TABLE c0.log (run INT) ENGINE = InnoDB", "CREATE TABLE c0.grows ENGINE = MEMORY AS SELECT 1 AS a")
	g.connector = func() (driver.Connector, error) {
		return mysql.MySQLDriver{}.OpenConnector("crowd@tcp(" + s.Addr + ")/c0?multiStatements=true")
	}
	g.raw = func(conn any, wrapped bool, text string) error {
		c, err := innermost[driver.ExecerContext](conn, wrapped)
		if err == nil {
			_, err = c.ExecContext(context.Background(), text, nil)
		}
		return err
	}
	var ignored string
	require.NoError(t, g.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&ignored, &g.statements))
	return g
}

// postgresGround makes PostgreSQL ready: a database of the crowd's own.
func postgresGround(t *testing.T, s *servers.Server) *ground {
	home := adminOf(t, "pgx", s.DSN(""))
	for _, statement := range []string{"DROP DATABASE IF EXISTS crowd WITH (FORCE)", "CREATE DATABASE crowd", "ALTER DATABASE crowd SET search_path = c0"} {
		_, err := home.Exec(statement)
		require.NoError(t, err)
	}
	g := &ground{postgres: true, admin: adminOf(t, "postgres", s.DSN("crowd")+"&application_name=admin")}
	for i := range homes {
		c := fmt.Sprint("c", i)
		g.exec(t, "CREATE SCHEMA "+c, fmt.Sprintf("CREATE TABLE %s.who AS SELECT '%s' AS name", c, tenantNames[i]),
			fmt.Sprintf("CREATE TABLE %s.odd AS SELECT %s AS v", c, []string{"'text'", "17", "18"}[i]))
	}
	g.exec(t, "CREATE TABLE c0.log (run INT)", "CREATE TABLE c0.grows AS SELECT 1 AS a",
		"SET lock_timeout = '15ms'") // for grow: whoever has the table has it for longer
	return g
}

func pgxGround(t *testing.T, s *servers.Server) *ground {
	g := postgresGround(t, s)
	// On a session it has one statement of a text, which all share: what one's end, or its age,
	// means to others is not ours to compare.
	g.name, g.cancelsTx, g.unique = "PostgreSQL, pgx", true, true
	g.plain = []any{pgx.QueryExecModeSimpleProtocol}
	g.connector = func() (driver.Connector, error) {
		return stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(s.DSN("crowd"))
	}
	g.raw = func(conn any, wrapped bool, text string) error {
		c, err := innermost[*stdlib.Conn](conn, wrapped)
		if err == nil {
			_, err = c.Conn().Exec(context.Background(), text, pgx.QueryExecModeSimpleProtocol)
		}
		return err
	}
	return g
}

func pqGround(t *testing.T, s *servers.Server) *ground {
	g := postgresGround(t, s)
	// It watches the context of a transaction, as database/sql does: whether the
	// connection outlives the context's end depends on who is first.
	g.name, g.cancelsTx = "PostgreSQL, lib/pq", false
	g.tells = true
	g.connector = func() (driver.Connector, error) { return pq.NewConnector(s.DSN("crowd")) }
	g.raw = func(conn any, wrapped bool, text string) error {
		c, err := innermost[driver.ExecerContext](conn, wrapped)
		if err == nil {
			_, err = c.ExecContext(context.Background(), text, nil)
		}
		return err
	}
	return g
}

// innermost is the driver's own connection.
func innermost[T any](conn any, wrapped bool) (T, error) {
	c, ok := conn.(T)
	if wrapped {
		c, ok = sqllease.Unwrap[T](conn)
	}
	if !ok {
		return c, fmt.Errorf("the driver's own connection, a %T, cannot be reached", c)
	}
	return c, nil
}

// sessions counts those of the crowd on the server.
func (g *ground) sessions() (n int, err error) {
	query := "SELECT COUNT(*) FROM information_schema.processlist WHERE user = 'crowd'"
	if g.postgres {
		query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'crowd' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
	}
	return n, g.admin.QueryRow(query).Scan(&n)
}

// locked lists the locks that are held, each with the id of its session.
func (g *ground) locked() (held [][2]string, err error) {
	query := "SELECT 'crowd1', IS_USED_LOCK('crowd1') UNION ALL SELECT 'crowd2', IS_USED_LOCK('crowd2')"
	if g.postgres {
		query = "SELECT objid::text, pid::text FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1, 2"
	}
	rows, err := g.admin.Query(query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		var id sql.NullString
		if err := rows.Scan(&name, &id); err != nil {
			return nil, err
		}
		if id.Valid {
			held = append(held, [2]string{name, id.String})
		}
	}
	return held, rows.Err()
}

// prepared counts the statements of all sessions, where the server tells.
func (g *ground) prepared() (n int, err error) {
	if g.postgres {
		return 0, nil
	}
	var ignored string
	err = g.admin.QueryRow("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'").Scan(&ignored, &n)
	return n - g.statements, err
}

// inspections are what is asked of each session at the end, beside its id.
func (g *ground) inspections() []string {
	if g.postgres {
		return []string{
			`SELECT concat_ws(', ', current_setting('search_path'), current_setting('application_name'), current_setting('timezone'),
				current_setting('default_transaction_read_only'), (SELECT string_agg(c, '+') FROM pg_listening_channels() c)), pg_backend_pid()`,
			`SELECT coalesce(string_agg(relname, '+' ORDER BY relname), 'no temporary tables'), pg_backend_pid()
				FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'`,
			"SELECT coalesce(string_agg(objid::text, '+' ORDER BY objid), 'no locks'), pg_backend_pid() FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
		}
	}
	list := []string{
		"SELECT DATABASE(), @@sql_mode, @@character_set_client, @@time_zone, @v, @@in_transaction, CONNECTION_ID()",
		"SELECT IS_USED_LOCK('crowd1') <=> CONNECTION_ID(), IS_USED_LOCK('crowd2') <=> CONNECTION_ID(), CONNECTION_ID()",
	}
	for i := range homes {
		list = append(list, fmt.Sprintf("SELECT HEX(name), CONNECTION_ID() FROM c%d.who", i), fmt.Sprintf("SELECT name, CONNECTION_ID() FROM c%d.mine", i))
	}
	return list
}

// statementsOf asks a session of PostgreSQL for its statements, but for those by which this library
// asks for the server's limits, and which pgx then remembers.
const statementsOf = "SELECT statement FROM pg_prepared_statements WHERE statement NOT LIKE '%idle_in_transaction_session_timeout%'"

// errorKind names an error by its kind or number. What is lost is lost in one way: whether the
// driver found out by what the server had said, or by the end of the connection, depends on
// which came first.
func errorKind(err error) string {
	var network net.Error
	var my *mysql.MySQLError
	for _, lost := range []error{driver.ErrBadConn, sql.ErrConnDone, mysql.ErrInvalidConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, lost) {
			return lostSession
		}
	}
	for _, known := range []error{context.Canceled, errRaw, sql.ErrTxDone, sql.ErrNoRows} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	switch code := postgresCode(err); {
	case code == "57P01":
		return lostSession
	case code != "":
		return code
	case errors.As(err, &my) && slices.Contains([]uint16{1317, 1927}, my.Number):
		return lostSession
	case my != nil:
		return fmt.Sprint(my.Number)
	case errors.As(err, &network), strings.Contains(err.Error(), "conn closed"):
		return lostSession
	}
	return err.Error()
}

const lostSession = "the session is lost"

// brokenPlan tells of statements that the server, or the driver, will not run any more: their table
// has other columns, or the session was told to forget them.
func brokenPlan(kind string) bool { return kind == "0A000" || kind == "26000" }

// eventually waits for what must happen.
func eventually(patience time.Duration, happens func() bool) bool {
	for end := time.Now().Add(patience); !happens(); time.Sleep(300 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// has tells whether a session is on the server.
func (g *ground) has(id string) bool {
	query := "SELECT COUNT(*) FROM information_schema.processlist WHERE id = " + id
	if g.postgres {
		query = "SELECT count(*) FROM pg_stat_activity WHERE pid = " + id
	}
	var n int
	return g.admin.QueryRow(query).Scan(&n) == nil && n > 0
}
