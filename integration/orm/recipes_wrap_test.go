package orm

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"
	"github.com/uptrace/bun/driver/pgdriver"

	"github.com/sqllease/sqllease"
)

// The recipes that are not about one library's use of a *sql.DB.

func wrapInPlaceOfPool(pool *pgxpool.Pool, cfg sqllease.Config) (*sql.DB, error) {
	config := pool.Config()
	cfg.MaxOpen = int(config.MaxConns)
	db, err := sqllease.OpenDB(stdlib.GetConnector(*config.ConnConfig), cfg)
	return db, err
}

func wrapOnPool(pool *pgxpool.Pool, cfg sqllease.Config) (*sql.DB, error) {
	cfg.MaxOpen = int(pool.Config().MaxConns) / 2
	db, err := sqllease.OpenDB(stdlib.GetPoolConnector(pool), cfg)
	return db, err
}

func copyNames(ctx context.Context, db *sql.DB, names [][]any) (n int64, err error) {
	conn, err := db.Conn(sqllease.WithHoldLimit(ctx, 10*time.Minute))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	err = conn.Raw(func(driverConn any) error {
		pg, ok := sqllease.Unwrap[*stdlib.Conn](driverConn)
		if !ok {
			return errors.New("this is no connection of pgx")
		}
		n, err = pg.Conn().CopyFrom(ctx, pgx.Identifier{"users"}, []string{"name"}, pgx.CopyFromRows(names))
		return err
	})
	return n, err
}

func bunOnPgdriver(dsn string, cfg sqllease.Config) (b, copies *bun.DB, err error) {
	connector := pgdriver.NewConnector(pgdriver.WithDSN(dsn), pgdriver.WithTracing(false))
	db, err := sqllease.OpenDB(connector, cfg)
	if err != nil {
		return nil, nil, err
	}
	b = bun.NewDB(db, pgdialect.New())
	copies = bun.NewDB(sql.OpenDB(connector), pgdialect.New())
	copies.SetMaxOpenConns(1)
	return b, copies, nil
}

func timesInPlace(config *pgx.ConnConfig, place *time.Location, cfg sqllease.Config) (*sql.DB, error) {
	inPlace := stdlib.OptionAfterConnect(func(_ context.Context, conn *pgx.Conn) error {
		conn.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamp", OID: pgtype.TimestampOID, Codec: &pgtype.TimestampCodec{ScanLocation: place},
		})
		return nil
	})
	db, err := sqllease.OpenDB(stdlib.GetConnector(*config, inPlace), cfg)
	return db, err
}

func openScripted(dsn string, cfg sqllease.Config) (*sql.DB, error) {
	cfg.Discovery = sqllease.NoDiscovery
	db, err := sqllease.Open("mysql", dsn, cfg)
	return db, err
}

// ProvideDB opens the database of all others.
func ProvideDB(c driver.Connector, cfg sqllease.Config) (*sql.DB, error) {
	return sqllease.OpenDB(c, cfg)
}

// ProvidePool finds what sqllease knows of it.
func ProvidePool(db *sql.DB) (*sqllease.Connector, error) {
	pool, ok := sqllease.ConnectorOf(db)
	if !ok {
		return nil, errors.New("the database was not opened by sqllease")
	}
	return pool, nil
}

// DecorateConnector wraps the connector, whoever opens it.
func DecorateConnector(c driver.Connector, cfg sqllease.Config) (driver.Connector, error) {
	w, err := sqllease.Wrap(c, cfg)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func register(cfg sqllease.Config) error {
	err := sqllease.Register("mysql-leased", &mysql.MySQLDriver{}, cfg)
	return err
}

func attach(db *sql.DB) {
	if pool, ok := sqllease.ConnectorOf(db); ok {
		pool.Attach(db)
	}
}

// poolCollector shows a pool under the names of Prometheus' own collector.
type poolCollector struct {
	pool *sqllease.Connector
	name string
}

func (c poolCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c poolCollector) Collect(ch chan<- prometheus.Metric) {
	send := func(name string, kind prometheus.ValueType, value float64) {
		desc := prometheus.NewDesc("go_sql_"+name, "See sqllease's Connector.DBStats.", nil, prometheus.Labels{"db_name": c.name})
		ch <- prometheus.MustNewConstMetric(desc, kind, value)
	}
	s := c.pool.DBStats()
	send("max_open_connections", prometheus.GaugeValue, float64(s.MaxOpenConnections))
	send("open_connections", prometheus.GaugeValue, float64(s.OpenConnections))
	send("in_use_connections", prometheus.GaugeValue, float64(s.InUse))
	send("idle_connections", prometheus.GaugeValue, float64(s.Idle))
	send("wait_count_total", prometheus.CounterValue, float64(s.WaitCount))
	send("wait_duration_seconds_total", prometheus.CounterValue, s.WaitDuration.Seconds())
	send("max_idle_closed_total", prometheus.CounterValue, float64(s.MaxIdleClosed))
	send("max_idle_time_closed_total", prometheus.CounterValue, float64(s.MaxIdleTimeClosed))
	send("max_lifetime_closed_total", prometheus.CounterValue, float64(s.MaxLifetimeClosed))
}

// ready says no while a caller has waited for a connection for too long.
func ready(pool *sqllease.Connector, tooLong time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s := pool.Stats()
		if s.OldestWait > tooLong {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(w, "in use %d of %d, waiting %d, the oldest for %v\n", s.InUse, s.Limit, s.Waiting, s.OldestWait)
	}
}

// reachable asks the server, on a connection of the pool.
func reachable(db *sql.DB, patience time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(sqllease.WithLane(r.Context(), "probe"), patience)
		defer cancel()
		if err := db.PingContext(ctx); err != nil {
			http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		}
	}
}
