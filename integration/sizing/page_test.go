package sizing

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/integration/internal/servers"
	"github.com/sqllease/sqllease/internal/page"
)

// document keeps the tables.
const document = "../../docs/sizing.md"

// fill writes a block of the page.
func fill(t *testing.T, name, text string) {
	t.Helper()
	t.Logf("%s:\n%s", name, text)
	if !*write {
		return
	}
	require.False(t, t.Failed(), "the page is not written: something failed")
	require.NoError(t, page.Fill(document, name, text))
}

// short is a time with two figures.
func short(d time.Duration) string {
	unit, of := time.Millisecond, "ms"
	if d >= time.Second {
		unit, of = time.Second, "s"
	}
	n := float64(d) / float64(unit)
	if n >= 10 {
		return fmt.Sprintf("%.0f %s", n, of)
	}
	return fmt.Sprintf("%.1f %s", n, of)
}

// start starts both servers, which have a table of numbers, and enough connections.
func start(dir string) (stop func(), err error) {
	var errs [2]error
	maria, errs[0] = servers.MariaDB(filepath.Join(dir, "maria"))
	postgres, errs[1] = servers.PostgreSQL(filepath.Join(dir, "postgres"))
	stop = func() {
		for _, s := range []*servers.Server{maria, postgres} {
			if s != nil {
				s.Stop()
			}
		}
	}
	if err = errors.Join(errs[:]...); err == nil {
		err = errors.Join(
			prepare(maria, "CREATE DATABASE "+database, "INSERT INTO sized SELECT seq, seq % 97 FROM seq_1_to_"+fmt.Sprint(rows)),
			prepare(postgres, "CREATE DATABASE "+database, "INSERT INTO sized SELECT n, n % 97 FROM generate_series(1, "+fmt.Sprint(rows)+") n"))
	}
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// database is where the table is.
const database = "sizing"

func prepare(s *servers.Server, create, insert string) error {
	if err := run(s, "", create); err != nil {
		return err
	}
	return run(s, database, "CREATE TABLE sized (id INT PRIMARY KEY, n INT NOT NULL)", insert)
}

func run(s *servers.Server, database string, statements ...string) error {
	db, err := sql.Open(s.Driver, s.DSN(database))
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, err = db.Exec(statement); err != nil {
			break
		}
	}
	return errors.Join(err, db.Close())
}
