package sqllease_test

import (
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"testing"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/fidelity"
)

func wrapped(c driver.Connector) (*sql.DB, error) {
	return sqllease.OpenDB(c, sqllease.Config{Logger: slog.New(slog.DiscardHandler)})
}

func TestWrappedDriversBehaveAsBareOnes(t *testing.T) { fidelity.Each(t, wrapped) }

func TestEveryCombinationOfInterfacesBehavesAsBare(t *testing.T) { fidelity.Combinations(t, wrapped) }

func FuzzFidelity(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(fidelity.RandomProgram(seed))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) <= 400 {
			fidelity.Program(t, wrapped, program)
		}
	})
}
