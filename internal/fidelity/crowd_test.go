package fidelity_test

import (
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/fidelity"
)

var wrapped = fidelity.Way{
	Open:   open(sqllease.Config{}),
	Unwrap: sqllease.Unwrap[driver.Conn],
}

func open(cfg sqllease.Config) fidelity.Open {
	cfg.Logger = slog.New(slog.DiscardHandler)
	return func(c driver.Connector) (*sql.DB, error) { return sqllease.OpenDB(c, cfg) }
}

// eachSeed calls f for as many seeds. CROWDS says other ones: how many, or from which on
// and how many, such as 1000+500.
func eachSeed(t *testing.T, usual uint64, f func(seed uint64)) {
	from, n := uint64(0), usual
	if text := os.Getenv("CROWDS"); text != "" {
		first, many, both := strings.Cut(text, "+")
		if !both {
			first, many = "0", first
		}
		var err error
		from, err = strconv.ParseUint(first, 10, 64)
		require.NoError(t, err)
		n, err = strconv.ParseUint(many, 10, 64)
		require.NoError(t, err)
	}
	for i := range n {
		f(from + i)
	}
}

// The harness itself: if the bare driver differs from itself, what it says of others
// means nothing.
func TestBareCrowdsAreAsTheyAre(t *testing.T) {
	eachSeed(t, 120, func(seed uint64) { fidelity.Crowd(t, fidelity.Bare, fidelity.RandomCrowd(seed)) })
}

func TestWrappedCrowdsAreAsBareOnes(t *testing.T) {
	eachSeed(t, 200, func(seed uint64) { fidelity.Crowd(t, wrapped, fidelity.RandomCrowd(seed)) })
}

// TestOneCrowd tells of the program that is given, as failures print it.
func TestOneCrowd(t *testing.T) {
	text := os.Getenv("CROWD")
	if text == "" {
		return // no program is given
	}
	program, err := strconv.Unquote(text)
	require.NoError(t, err)
	fidelity.TellCrowd(t, wrapped, []byte(program))
}

func FuzzCrowd(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(fidelity.RandomCrowd(seed))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) <= 1000 {
			fidelity.Crowd(t, wrapped, program)
		}
	})
}
