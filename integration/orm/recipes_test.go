package orm

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"
	"github.com/DATA-DOG/go-sqlmock"
	sq "github.com/Masterminds/squirrel"
	"github.com/golang-migrate/migrate/v4"
	migratemysql "github.com/golang-migrate/migrate/v4/database/mysql"
	migratepgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/mysqldialect"
	"github.com/uptrace/bun/dialect/pgdialect"
	gormmysql "gorm.io/driver/mysql"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"xorm.io/xorm"
	"xorm.io/xorm/core"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/orm/ent"
	"github.com/sqllease/sqllease/integration/orm/sqlcdb/mysqldb"
)

// TestRecipesAreThisCode checks that every line of Go in docs/recipes.md is
// what the tests run: each block stands in a file of this name as it is.
func TestRecipesAreThisCode(t *testing.T) {
	document, err := os.ReadFile("../../docs/recipes.md")
	require.NoError(t, err)
	var here strings.Builder
	files, err := filepath.Glob("recipes*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		here.WriteString(unindented(string(text)))
	}
	blocks := strings.Split(string(document), "```go\n")[1:]
	assert.NotEmpty(t, blocks)
	for _, block := range blocks {
		code, _, _ := strings.Cut(block, "```")
		assert.Contains(t, here.String(), unindented(code))
	}
}

// TestTheTableHasTheVersionsOfTheseTests checks the table at the document's top
// against this module.
func TestTheTableHasTheVersionsOfTheseTests(t *testing.T) {
	document, err := os.ReadFile("../../docs/recipes.md")
	require.NoError(t, err)
	module, err := os.ReadFile("../go.mod")
	require.NoError(t, err)
	rows := regexp.MustCompile(`(?m)^\| \[[^]]+\]\(#[^)]+\) \| `+"`([^`]+)`"+` (v[0-9.]+) \|`).FindAllStringSubmatch(string(document), -1)
	assert.Len(t, rows, strings.Count(string(document), "` v"), "each version stands in the table")
	for _, row := range rows {
		if row[1] == "github.com/sqlc-dev/sqlc" { // a program: what it wrote says its version
			wrote, err := os.ReadFile("sqlcdb/mysqldb/db.go")
			require.NoError(t, err)
			assert.Contains(t, string(wrote), "sqlc "+row[2]+"\n")
			continue
		}
		assert.Contains(t, string(module), "\t"+row[1]+" "+row[2]+"\n")
	}
}

// unindented is a text without the white space at the beginning of its lines.
func unindented(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimLeft(line, " \t"))
	}
	return b.String()
}

func openMySQL(dsn string, cfg sqllease.Config) (*sql.DB, error) {
	db, err := sqllease.Open("mysql", dsn, cfg)
	return db, err
}

func openPostgreSQL(dsn string, cfg sqllease.Config) (*sql.DB, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	db, err := sqllease.OpenDB(stdlib.GetConnector(*config), cfg)
	return db, err
}

func gormOnMySQL(db *sql.DB, dsn string) (*gorm.DB, error) {
	g, err := gorm.Open(gormmysql.New(gormmysql.Config{Conn: db, DSN: dsn}), &gorm.Config{})
	return g, err
}

func gormOnPostgreSQL(db *sql.DB, _ string) (*gorm.DB, error) {
	g, err := gorm.Open(gormpostgres.New(gormpostgres.Config{Conn: db}), &gorm.Config{})
	return g, err
}

func xormOnMySQL(db *sql.DB, dsn string) (*xorm.Engine, error) {
	engine, err := xorm.NewEngineWithDB("mysql", dsn, core.FromDB(db))
	return engine, err
}

func xormOnPostgreSQL(db *sql.DB, dsn string) (*xorm.Engine, error) {
	engine, err := xorm.NewEngineWithDB("pgx", dsn, core.FromDB(db))
	return engine, err
}

func sqlxOnMySQL(db *sql.DB) *sqlx.DB {
	x := sqlx.NewDb(db, "mysql")
	return x
}

func sqlxOnPostgreSQL(db *sql.DB) *sqlx.DB {
	x := sqlx.NewDb(db, "pgx")
	return x
}

func entOnMySQL(db *sql.DB) *ent.Client {
	client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.MySQL, db)))
	return client
}

func entOnPostgreSQL(db *sql.DB) *ent.Client {
	client := ent.NewClient(ent.Driver(entsql.OpenDB(dialect.Postgres, db)))
	return client
}

func bunOnMySQL(db *sql.DB) *bun.DB {
	b := bun.NewDB(db, mysqldialect.New())
	return b
}

func bunOnPostgreSQL(db *sql.DB) *bun.DB {
	b := bun.NewDB(db, pgdialect.New())
	return b
}

func sqlcDirect(db *sql.DB) *mysqldb.Queries {
	queries := mysqldb.New(db)
	return queries
}

func sqlcPrepared(ctx context.Context, db *sql.DB) (*mysqldb.Queries, error) {
	queries, err := mysqldb.Prepare(ctx, db)
	return queries, err
}

func squirrelOnMySQL(db *sql.DB) sq.StatementBuilderType {
	builder := sq.StatementBuilder.RunWith(db)
	return builder
}

func squirrelOnPostgreSQL(db *sql.DB) sq.StatementBuilderType {
	builder := sq.StatementBuilder.PlaceholderFormat(sq.Dollar).RunWith(db)
	return builder
}

func squirrelCache(db *sql.DB) *sq.StmtCache {
	cache := sq.NewStmtCache(db)
	return cache
}

func gooseOnMySQL(db *sql.DB, files fs.FS, options ...goose.ProviderOption) (*goose.Provider, error) {
	provider, err := goose.NewProvider(goose.DialectMySQL, db, files, options...)
	return provider, err
}

func gooseOnPostgreSQL(db *sql.DB, files fs.FS, options ...goose.ProviderOption) (*goose.Provider, error) {
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, options...)
	return provider, err
}

func migrateOnMySQL(ctx context.Context, db *sql.DB) (*migrate.Migrate, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	driver, err := migratemysql.WithConnection(ctx, conn, &migratemysql.Config{})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	source, err := iofs.New(migrations, "migrations/migrate")
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return migrate.NewWithInstance("iofs", source, "mysql", driver)
}

func migrateOnPostgreSQL(db *sql.DB) (*migrate.Migrate, error) {
	driver, err := migratepgx.WithInstance(db, &migratepgx.Config{})
	if err != nil {
		return nil, err
	}
	source, err := iofs.New(migrations, "migrations/migrate")
	if err != nil {
		return nil, errors.Join(err, driver.Close())
	}
	return migrate.NewWithInstance("iofs", source, "pgx5", driver)
}

func sqlmockUnderneath(cfg sqllease.Config) (db, bare *sql.DB, mock sqlmock.Sqlmock, err error) {
	bare, mock, err = sqlmock.NewWithDSN("orders")
	if err != nil {
		return nil, nil, nil, err
	}
	db, err = sqllease.Open("sqlmock", "orders", cfg)
	return db, bare, mock, err
}
