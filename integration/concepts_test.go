package integration

import (
	"database/sql"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What docs/concepts.md says of servers and drivers.

func TestServersHaveTheLimitsThatThePageTells(t *testing.T) {
	const ofMaria = "SELECT DEFAULT_VALUE FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME = ?"
	const ofPostgres = "SELECT boot_val FROM pg_settings WHERE name = $1"
	for _, s := range []struct{ driver, dsn, query, setting, want string }{
		{"mysql", maria.DSN(""), ofMaria, "MAX_CONNECTIONS", "151"},
		{"mysql", maria.DSN(""), ofMaria, "WAIT_TIMEOUT", "28800"},
		{"pgx", postgres.DSN(""), ofPostgres, "max_connections", "100"},
		{"pgx", postgres.DSN(""), ofPostgres, "idle_session_timeout", "0"},
	} {
		db, err := sql.Open(s.driver, s.dsn)
		require.NoError(t, err)
		var got string
		require.NoError(t, db.QueryRowContext(t.Context(), s.query, s.setting).Scan(&got))
		assert.Equal(t, s.want, got, s.setting)
		require.NoError(t, db.Close())
	}
}

func TestDriversHaveTheSettingsThatThePageTells(t *testing.T) {
	my, err := mysql.ParseDSN("u:p@tcp(h:1)/d?rejectReadOnly=true&timeout=5s")
	require.NoError(t, err)
	assert.True(t, my.RejectReadOnly)
	assert.Equal(t, 5*time.Second, my.Timeout)

	pg, err := pgx.ParseConfig("postgres://u:p@h:1/d?target_session_attrs=read-write&connect_timeout=5&default_query_exec_mode=exec")
	require.NoError(t, err)
	assert.NotNil(t, pg.ValidateConnect)
	assert.Equal(t, 5*time.Second, pg.ConnectTimeout)
	assert.Equal(t, pgx.QueryExecModeExec, pg.DefaultQueryExecMode)
}
