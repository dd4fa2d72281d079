package integration

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

// What a server itself has of the statement that it runs.
const (
	inMariaDB    = "(SELECT INFO FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID())"
	inPostgreSQL = "(SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid())"
)

// commentCases are statements with something in them that is no comment, or is one that
// must stay what it is. Each returns what the server has of it.
var commentCases = []struct {
	driver  string
	server  func() *servers.Server
	queries []string
}{
	{"mysql", func() *servers.Server { return maria }, []string{
		"SELECT " + inMariaDB + ";",
		"-- name: Get :one\nSELECT " + inMariaDB,
		"SELECT " + inMariaDB + " -- it's",
		"SELECT " + inMariaDB + "; # maxscale route to master",
		"SELECT " + inMariaDB + " /* a */;\n",
		"SELECT /*+ MAX_EXECUTION_TIME(1000) */ " + inMariaDB,
		"SELECT CONCAT(" + inMariaDB + ", '--', '/*', \"#\", 'it''s')",
		"SELECT CONCAT(" + inMariaDB + ", 5--1) AS `--/*'`",
		"SELECT /*!40000 CONCAT( */ " + inMariaDB + " /*!40000 , 1) */",
	}},
	{"pgx", func() *servers.Server { return postgres }, postgresCases},
	{"postgres", func() *servers.Server { return postgres }, postgresCases},
}

var postgresCases = []string{
	"SELECT " + inPostgreSQL + ";",
	"-- name: Get :one\nSELECT " + inPostgreSQL,
	"SELECT " + inPostgreSQL + " -- it's",
	"SELECT " + inPostgreSQL + " /* a /* nested */ ' */;\n",
	"/*+ SeqScan(a) */ SELECT " + inPostgreSQL,
	"SELECT /*+ SeqScan(a) */ " + inPostgreSQL,
	"SELECT " + inPostgreSQL + " || ('{\"a\": {\"b\": 1}}'::jsonb #>> '{a,b}')",
	"SELECT " + inPostgreSQL + " || '--' || '/*' || 'it''s' || $$ ' /* $$ AS \"--/*'\"",
}

// The server sees the trace in the statement, wherever the comment goes, and returns the
// same column as without it.
func TestCommentsReachTheServer(t *testing.T) {
	for _, c := range commentCases {
		for _, mode := range []sqllease.Comments{sqllease.CommentsAppend, sqllease.CommentsPrepend} {
			t.Run(c.driver+" "+string(mode), func(t *testing.T) {
				bare := openBare(t, c.driver, c.server())
				provider := sdktrace.NewTracerProvider()
				db := openCommented(t, c.driver, c.server(), provider, mode)
				ctx, span := provider.Tracer("test").Start(t.Context(), "request")
				defer span.End()
				for _, query := range c.queries {
					seen, column := one(ctx, t, db, query)
					assert.Contains(t, seen, traced(span), query)
					_, without := one(ctx, t, bare, query)
					assert.Equal(t, without, column, query)
				}
			})
		}
	}
}

// PostgreSQL shows the first 1,023 bytes of a statement.
func TestACommentInFrontIsNotCutOff(t *testing.T) {
	for mode, isSeen := range map[sqllease.Comments]bool{sqllease.CommentsAppend: false, sqllease.CommentsPrepend: true} {
		provider := sdktrace.NewTracerProvider()
		db := openCommented(t, "postgres", postgres, provider, mode)
		ctx, span := provider.Tracer("test").Start(t.Context(), "request")
		seen, _ := one(ctx, t, db, "SELECT "+inPostgreSQL+" AS seen, '"+strings.Repeat("x", 2000)+"'")
		assert.Equal(t, isSeen, strings.Contains(seen, traced(span)), mode)
		span.End()
	}
}

// What a server keeps of a statement has no comment in it.
func TestServersKeepNoComment(t *testing.T) {
	for _, mode := range []sqllease.Comments{sqllease.CommentsAppend, sqllease.CommentsPrepend} {
		for _, c := range []struct {
			driver string
			server *servers.Server
			run    []string
			kept   []string
		}{
			{"mysql", maria, []string{
				"CREATE OR REPLACE DATABASE commented", "USE commented",
				"CREATE OR REPLACE TABLE commented (a INT DEFAULT (1 + 1), CHECK (a > 0))", "CREATE UNIQUE INDEX i ON commented (a)",
				"CREATE OR REPLACE PROCEDURE commented() BEGIN SELECT 1; END;", "CREATE OR REPLACE FUNCTION commented() RETURNS INT RETURN 1",
				"CREATE OR REPLACE TRIGGER commented BEFORE INSERT ON commented FOR EACH ROW SET NEW.a = 1",
				"CREATE OR REPLACE EVENT commented ON SCHEDULE EVERY 1 DAY DO DO 1", "ALTER EVENT commented DO DO 2",
				"CREATE OR REPLACE VIEW commented_view AS SELECT 1", "PREPARE commented FROM 'SELECT 1'",
			}, []string{
				"SHOW CREATE TABLE commented", "SHOW CREATE PROCEDURE commented", "SHOW CREATE FUNCTION commented",
				"SHOW CREATE TRIGGER commented", "SHOW CREATE EVENT commented", "SHOW CREATE VIEW commented_view",
			}},
			{"postgres", postgres, []string{
				"DROP TABLE IF EXISTS commented CASCADE", "CREATE TABLE commented (a int DEFAULT (1 + 1), CHECK (a > 0))", "CREATE INDEX commented_index ON commented ((a + 1)) WHERE a > 0",
				"CREATE OR REPLACE FUNCTION commented() RETURNS int LANGUAGE sql AS $$SELECT 1$$", "CREATE VIEW commented_view AS SELECT a FROM commented",
				"PREPARE commented AS SELECT 1", "DECLARE commented CURSOR WITH HOLD FOR SELECT 1",
			}, []string{
				"SELECT pg_get_functiondef('commented()'::regprocedure)", "SELECT pg_get_viewdef('commented_view')", "SELECT pg_get_indexdef('commented_index'::regclass)",
				"SELECT string_agg(pg_get_constraintdef(oid), '') FROM pg_constraint WHERE conrelid = 'commented'::regclass",
				"SELECT string_agg(pg_get_expr(adbin, adrelid), '') FROM pg_attrdef WHERE adrelid = 'commented'::regclass",
				"SELECT statement FROM pg_prepared_statements WHERE name = 'commented'", "SELECT statement FROM pg_cursors WHERE name = 'commented'",
			}},
		} {
			t.Run(c.driver+" "+string(mode), func(t *testing.T) {
				provider := sdktrace.NewTracerProvider()
				conn, err := openCommented(t, c.driver, c.server, provider, mode).Conn(t.Context())
				require.NoError(t, err)
				defer func() { assert.NoError(t, conn.Close()) }()
				ctx, span := provider.Tracer("test").Start(t.Context(), "migration")
				defer span.End()
				for _, query := range c.run {
					_, err := conn.ExecContext(ctx, query)
					require.NoError(t, err, query)
				}
				for _, query := range c.kept {
					assert.NotContains(t, row(t, conn, query), "traceparent", query)
				}
			})
		}
	}
}

func openBare(t *testing.T, driver string, server *servers.Server) *sql.DB {
	db, err := sql.Open(driver, server.DSN(""))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	return db
}

func openCommented(t *testing.T, driver string, server *servers.Server, provider trace.TracerProvider, mode sqllease.Comments) *sql.DB {
	db, err := sqllease.Open(driver, server.DSN(""), sqllease.Config{
		TracerProvider: provider, Comments: mode,
		CommentTags: func(context.Context) map[string]string { return map[string]string{"route": "it's */ here"} },
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, db.Close()) })
	return db
}

func traced(span trace.Span) string {
	return "/*route='it%27s%20%2A%2F%20here',traceparent='00-" + span.SpanContext().TraceID().String()
}

// one is the first column of a query's only row, and its name.
func one(ctx context.Context, t *testing.T, db *sql.DB, query string) (value, column string) {
	rows, err := db.QueryContext(ctx, query)
	require.NoError(t, err, query)
	defer func() { assert.NoError(t, rows.Close()) }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	require.True(t, rows.Next(), query)
	into := make([]any, len(columns))
	for i := range into {
		into[i] = new(any)
	}
	into[0] = &value
	require.NoError(t, rows.Scan(into...))
	require.False(t, rows.Next())
	require.NoError(t, rows.Err())
	return value, columns[0]
}

// row is all of a query's only row.
func row(t *testing.T, conn *sql.Conn, query string) string {
	rows, err := conn.QueryContext(t.Context(), query)
	require.NoError(t, err, query)
	defer func() { assert.NoError(t, rows.Close()) }()
	columns, err := rows.Columns()
	require.NoError(t, err)
	values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	require.True(t, rows.Next(), query)
	require.NoError(t, rows.Scan(into...))
	require.NoError(t, rows.Err())
	return strings.ToLower(fmt.Sprint(values))
}
