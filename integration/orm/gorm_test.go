package orm

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gormpostgres "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/sqllease/sqllease"
)

// TestGORM uses models with an association, preloading, nested transactions
// and batches, with prepared statements.
func TestGORM(t *testing.T) {
	onServers(t, func(p *pool) {
		open := gormOnMySQL
		if p.server == postgres {
			open = gormOnPostgreSQL
		}
		db, err := open(p.db, p.dsn)
		require.NoError(p, err)
		db.Logger = logger.Discard // errors are part of these tests
		db = db.Session(&gorm.Session{PrepareStmt: true})
		own, err := db.DB()
		require.NoError(p, err)
		assert.Same(p, p.db, own, "GORM gives the wrapped *sql.DB back")

		b := gormBlog{p, db}
		p.work(b)
		p.request(func(ctx context.Context) { b.savepoints(ctx) })
		p.request(func(ctx context.Context) { b.batchesAndRows(ctx) })
		assert.NotZero(p, p.conn.Stats().StatementsShared, "prepared statements survive handovers")
		p.wantSpans("INSERT users", "INSERT posts", "SELECT users", "SELECT posts", "UPDATE users", "DELETE users",
			"begin", "commit", "rollback", "SAVEPOINT", "prepare INSERT users", "pool.acquire")
	})
}

type gormUser struct {
	ID    int64
	Name  string
	Posts []gormPost `gorm:"foreignKey:Author;constraint:OnDelete:CASCADE"`
}

func (gormUser) TableName() string { return "users" }

type gormPost struct {
	ID     int64
	Author int64
	Title  string
}

func (gormPost) TableName() string { return "posts" }

type gormBlog struct {
	p  *pool
	db *gorm.DB
}

func (b gormBlog) migrate(ctx context.Context) error {
	return b.db.WithContext(ctx).AutoMigrate(&gormUser{}, &gormPost{})
}

func (b gormBlog) addUser(ctx context.Context, name string, titles []string, last func() error) (int64, error) {
	u := gormUser{Name: name}
	for _, title := range titles {
		u.Posts = append(u.Posts, gormPost{Title: title})
	}
	err := b.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&u).Error; err != nil {
			return err
		}
		return last()
	})
	return u.ID, err
}

func (b gormBlog) user(ctx context.Context, id int64) (string, error) {
	var u gormUser
	err := b.db.WithContext(ctx).First(&u, id).Error
	return u.Name, err
}

func (b gormBlog) posts(ctx context.Context, id int64) (titles []string, err error) {
	var u gormUser
	err = b.db.WithContext(ctx).Preload("Posts").First(&u, id).Error
	for _, post := range u.Posts {
		titles = append(titles, post.Title)
	}
	return titles, err
}

func (b gormBlog) rename(ctx context.Context, id int64, name string) error {
	return b.db.WithContext(ctx).Model(&gormUser{ID: id}).Update("name", name).Error
}

func (b gormBlog) remove(ctx context.Context, id int64) error {
	return b.db.WithContext(ctx).Select("Posts").Delete(&gormUser{ID: id}).Error
}

func (b gormBlog) countPosts(ctx context.Context) (int, error) {
	var n int64
	err := b.db.WithContext(ctx).Model(&gormPost{}).Count(&n).Error
	return int(n), err
}

func (b gormBlog) nap(ctx context.Context) error {
	return b.db.WithContext(ctx).Exec(b.p.nap()).Error
}

// savepoints rolls a transaction within a transaction back.
func (b gormBlog) savepoints(ctx context.Context) {
	unwanted := errors.New("unwanted")
	err := b.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&gormUser{Name: "outer"}).Error; err != nil {
			return err
		}
		inner := tx.Transaction(func(tx *gorm.DB) error {
			if err := tx.Create(&gormUser{Name: "inner"}).Error; err != nil {
				return err
			}
			return unwanted
		})
		assert.ErrorIs(b.p, inner, unwanted)
		return nil
	})
	require.NoError(b.p, err)
	var names []string
	require.NoError(b.p, b.db.WithContext(ctx).Model(&gormUser{}).
		Where("name IN ?", []string{"outer", "inner"}).Pluck("name", &names).Error)
	assert.Equal(b.p, []string{"outer"}, names)
}

// batchesAndRows reads the users in batches, with a query in each while its
// rows are closed, and then row by row.
func (b gormBlog) batchesAndRows(ctx context.Context) {
	var batch []gormUser
	seen := 0
	err := b.db.WithContext(ctx).FindInBatches(&batch, 10, func(tx *gorm.DB, n int) error {
		seen += len(batch)
		return tx.Exec("UPDATE posts SET title = ? WHERE author = ?", fmt.Sprint("batch ", n), batch[0].ID).Error
	}).Error
	require.NoError(b.p, err)
	assert.Equal(b.p, 25, seen)

	rows, err := b.db.WithContext(ctx).Model(&gormUser{}).Rows()
	require.NoError(b.p, err)
	defer func() { assert.NoError(b.p, rows.Close()) }()
	b.p.heldHere(false)
	for ; rows.Next(); seen-- {
		var u gormUser
		assert.NoError(b.p, b.db.ScanRows(rows, &u))
		assert.NotEmpty(b.p, u.Name)
	}
	assert.NoError(b.p, rows.Err())
	assert.Zero(b.p, seen)
}

// TestGORMWaitsForItself is a deadlock of GORM's, wrapped or not: transactions
// that hold all connections wait for a statement, and the goroutine that
// prepares it waits for a connection. AcquireTimeout ends it, with an error
// that says what the holders do.
func TestGORMWaitsForItself(t *testing.T) {
	p := newPool(t, maria, sqllease.Config{MaxOpen: 2, AcquireTimeout: 500 * time.Millisecond})
	db, err := gormOnMySQL(p.db, p.dsn)
	require.NoError(t, err)
	db.Logger = logger.Discard
	const query = "SELECT 1 + ?"
	transactions := []*gorm.DB{db.Begin(), db.Begin()}

	direct := make(chan error)
	go func() { direct <- db.Exec(query, 1).Error }()
	require.Eventually(t, func() bool { return p.conn.Stats().Waiting == 1 }, 10*time.Second, time.Millisecond)
	for _, tx := range transactions {
		go func() { direct <- tx.Exec(query, 1).Error }()
	}
	var errs []error
	for range 1 + len(transactions) {
		errs = append(errs, <-direct)
	}
	for _, tx := range transactions {
		assert.NoError(t, tx.Rollback().Error)
	}
	var timeout *sqllease.AcquireError
	if assert.ErrorAs(t, errors.Join(errs...), &timeout) {
		assert.ErrorContains(t, timeout, "2 of 2 in use")
		assert.ErrorContains(t, timeout, "idle in transaction")
	}
}

// TestGORMShowsTimesAsTheServerGetsThem has a DSN with a location. The driver sends
// times in it, and GORM writes them so in its log and in ToSQL, but only if it is
// told the DSN.
func TestGORMShowsTimesAsTheServerGetsThem(t *testing.T) {
	p := newPoolBy(t, maria, usual(t), func(p *pool, cfg sqllease.Config) *sql.DB {
		p.dsn += "&loc=Asia%2FTokyo"
		return p.open(cfg)
	})
	at := time.Date(2026, 2, 28, 23, 30, 0, 0, time.UTC)
	shown := func(dsn string) string {
		db, err := gormOnMySQL(p.db, dsn)
		require.NoError(t, err)
		return db.ToSQL(func(tx *gorm.DB) *gorm.DB { return tx.Exec("SELECT ?", at) })
	}
	var got string
	p.request(func(ctx context.Context) {
		require.NoError(t, p.db.QueryRowContext(ctx, "SELECT CONCAT(?)", at).Scan(&got))
	})
	assert.Contains(t, got, "2026-03-01 08:30:00", "what the server gets")
	assert.Contains(t, shown(p.dsn), "2026-03-01 08:30:00")
	assert.Contains(t, shown(""), "2026-02-28 23:30:00", "without the DSN, GORM shows another time")
}

// TestGORMReadsTimesOfAPlace has the other thing that GORM does with a DSN, when it
// opens the database itself: it reads columns without a time zone in that of the DSN.
func TestGORMReadsTimesOfAPlace(t *testing.T) {
	place, err := time.LoadLocation("Asia/Tokyo")
	require.NoError(t, err)
	dsn := postgres.DSN("") + "&TimeZone=Asia/Tokyo"
	config, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	plain, err := openPostgreSQL(dsn, sqllease.Config{})
	require.NoError(t, err)
	inPlace, err := timesInPlace(config, place, sqllease.Config{})
	require.NoError(t, err)
	var want, without, with time.Time
	for _, way := range []struct {
		dialector gorm.Dialector
		at        *time.Time
	}{
		{gormpostgres.Open(dsn), &want},
		{gormpostgres.New(gormpostgres.Config{Conn: plain}), &without},
		{gormpostgres.New(gormpostgres.Config{Conn: inPlace}), &with},
	} {
		db, err := gorm.Open(way.dialector, &gorm.Config{})
		require.NoError(t, err)
		require.NoError(t, db.WithContext(t.Context()).Raw("SELECT TIMESTAMP '2026-03-01 08:30:00'").Row().Scan(way.at))
		own, err := db.DB()
		require.NoError(t, err)
		require.NoError(t, own.Close())
	}
	assert.True(t, want.Equal(time.Date(2026, 3, 1, 8, 30, 0, 0, place)), "GORM alone: %v", want)
	assert.True(t, with.Equal(want), "as the recipe has it: %v", with)
	assert.False(t, without.Equal(want), "without it: %v", without)
}
