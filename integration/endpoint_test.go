package integration

import (
	"context"
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/drivers"
)

// GetConnector is called as pgx's function is: what is declared in it has a similar name.
func GetConnector(t *testing.T, dsn string, options ...stdlib.OptionOpenDB) driver.Connector {
	if len(options) == 1 && options[0] == nil {
		options[0] = stdlib.OptionBeforeConnect(func(context.Context, *pgx.ConnConfig) error { return nil })
	}
	cfg, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	return stdlib.GetConnector(*cfg, options...)
}

func ofPQ(t *testing.T, dsn string) driver.Connector {
	c, err := pq.NewConnector(dsn)
	require.NoError(t, err)
	return c
}

// ofPool is a connector on a pgxpool, which connects to nothing.
func ofPool(t *testing.T, dsn string, before func(context.Context, *pgx.ConnConfig) error) driver.Connector {
	cfg, err := pgxpool.ParseConfig(dsn)
	require.NoError(t, err)
	cfg.BeforeConnect = before
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return stdlib.GetPoolConnector(pool)
}

// The fields in which drivers keep where they connect are theirs to change.
func TestTheEndpointIsToldWhereItIsCertain(t *testing.T) {
	const plain = "postgres://user:pass@db:5433/shop"
	known, database, nothing := drivers.Endpoint{Address: "db", Port: 5433, Namespace: "shop"}, drivers.Endpoint{Namespace: "shop"}, drivers.Endpoint{}
	for name, c := range map[string]struct {
		c    driver.Connector
		want drivers.Endpoint
	}{
		"pgx":                             {GetConnector(t, plain), known},
		"pgx, with keys":                  {GetConnector(t, "host=db port=5433 dbname=shop user=user password='it s'"), known},
		"pgx, without TLS":                {GetConnector(t, plain+"?sslmode=disable"), known},
		"pgx, another hook":               {GetConnector(t, plain, stdlib.OptionAfterConnect(func(context.Context, *pgx.Conn) error { return nil })), known},
		"pgx, a hook":                     {GetConnector(t, plain, nil), database},
		"pgx, a hook of its own":          {GetConnector(t, plain, stdlib.OptionBeforeConnect(stdlib.RandomizeHostOrderFunc)), database},
		"pgx, two hosts":                  {GetConnector(t, "postgres://user:pass@db:5433,other:5433/shop"), database},
		"pgx, two ports":                  {GetConnector(t, "host=db,db port=5433,5434 dbname=shop"), database},
		"pgx, a password with a slash":    {GetConnector(t, "postgres://alice:4242/secret@db/shop"), nothing},
		"pgx, one with more marks":        {GetConnector(t, "postgres://alice:4242/sec#ret@db/shop"), nothing},
		"pgxpool":                         {ofPool(t, plain, nil), known},
		"pgxpool, a hook":                 {ofPool(t, plain, func(context.Context, *pgx.ConnConfig) error { return nil }), database},
		"lib/pq":                          {ofPQ(t, plain), known},
		"lib/pq, two hosts":               {ofPQ(t, "host=db,other port=5433 dbname=shop user=user password=pass"), database},
		"lib/pq, another address":         {ofPQ(t, "host=db hostaddr=10.1.2.3 dbname=shop user=user password=pass"), database},
		"lib/pq, a password with a slash": {ofPQ(t, "postgres://alice:4242/secret@db/shop"), nothing},
		"lib/pq, with a question mark":    {ofPQ(t, "postgres://alice:4242/sec?ret@db/shop"), nothing},
		"lib/pq, with a hash":             {ofPQ(t, "postgres://alice:4242/sec#ret@db/shop"), nothing},
	} {
		assert.Equal(t, c.want, drivers.EndpointOf(c.c), name)
		assert.Equal(t, strings.HasPrefix(name, "pgxpool"), drivers.IsPooled(c.c), name)
	}
}
