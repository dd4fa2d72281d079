package fidelity_test

import (
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"testing"
	"time"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/fidelity"
)

func TestScenes(t *testing.T) { fidelity.Scenes(t, wrapped) }

func TestARestartIsNotSeenWhereConnectionsAreDialledAhead(t *testing.T) {
	way := wrapped
	way.Open = open(sqllease.Config{MinIdle: 2})
	fidelity.Scenes(t, way, "a restart of which nobody is told, with six ready")
}

func TestARestartIsNotSeenWhereSessionsHaveExpired(t *testing.T) {
	way := wrapped
	way.Open = open(sqllease.Config{MaxLifetime: time.Minute})
	fidelity.RestartAfterExpiry(t, way)
}

func TestTheContextOfADialLastsAsLongAsItsConnection(t *testing.T) {
	way := wrapped
	way.Open = open(sqllease.Config{AcquireTimeout: time.Second, MinIdle: 1})
	fidelity.DialContexts(t, way)
}

func TestConnectionsAreDialledAheadAsOftenAsIsOfUse(t *testing.T) {
	way := wrapped
	way.Open = open(sqllease.Config{MinIdle: 2})
	fidelity.Refusals(t, way)
}

func TestTwoDatabasesOnOneConnector(t *testing.T) { fidelity.Pairs(t, wrappedPair) }

func TestWhoWaitsInADatabaseThatIsClosedIsTold(t *testing.T) { fidelity.ClosedPair(t, wrappedPair) }

func wrappedPair(c driver.Connector) (a, b *sql.DB, err error) {
	w, err := sqllease.Wrap(c, sqllease.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	a, b = sql.OpenDB(w), sql.OpenDB(w)
	w.Attach(a)
	w.Attach(b)
	return a, b, nil
}
