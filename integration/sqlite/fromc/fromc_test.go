package fromc_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/integration/sqlite/fromc"
)

// idle is a driver that does nothing.
type idle struct{}

func (d idle) Connect(context.Context) (driver.Conn, error) { return idleConn{}, nil }
func (d idle) Driver() driver.Driver                        { return d }
func (d idle) Open(string) (driver.Conn, error)             { return idleConn{}, nil }

type idleConn struct{}

func (idleConn) Prepare(string) (driver.Stmt, error) { return nil, driver.ErrSkip }
func (idleConn) Begin() (driver.Tx, error)           { return nil, driver.ErrSkip }
func (idleConn) Close() error                        { return nil }

// A function that C calls takes a lease, whose stack is what runtime.Callers
// says, whatever C has in the register that Go has its frame pointer in.
func TestAStackThroughCIsThatOfTheRuntime(t *testing.T) {
	db, err := sqllease.OpenDB(idle{}, sqllease.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	look := func() { compare(t, db) }
	compare(t, db)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var local [8]uintptr
		here := uintptr(unsafe.Pointer(&local))
		for _, fp := range []uintptr{0, 1, 8, ^uintptr(7), here, here + 8, here - 64, here + 8*uintptr(random.IntN(200)), uintptr(random.Uint64())} {
			one(fp, look)
			another(fp, look)
			fromc.Thread(fp, look)
			fromc.Call(fp, func() { one(fp, look) })
		}
	}
}

//go:noinline
func one(fp uintptr, f func()) { fromc.Call(fp, f); fromc.Call(fp, f) }

//go:noinline
func another(fp uintptr, f func()) {
	fromc.Call(fp, f)
	fromc.Call(fp, f)
}

// compare takes a lease, and compares its stack.
func compare(t *testing.T, db *sql.DB) {
	conn, err := db.Conn(context.Background())
	require.NoError(t, err)
	var pcs [32]uintptr
	want := frames(pcs[:runtime.Callers(1, pcs[:])])
	c, _ := sqllease.ConnectorOf(db)
	leases := c.Leases()
	require.Len(t, leases, 1)
	got := frames(leases[0].Stack)
	got = got[slices.IndexFunc(got, func(f string) bool { return strings.Contains(f, "fromc_test.") }):]
	require.Greater(t, len(got), 3)
	for i := 1; i < min(len(got), len(want)); i++ { // but for the line of the innermost
		require.Equal(t, want[i], got[i])
	}
	require.NoError(t, conn.Close())
}

func frames(s sqllease.Stack) (out []string) {
	for _, f := range s.Frames() {
		out = append(out, fmt.Sprintf("%s %s:%d", f.Function, f.File, f.Line))
	}
	return out
}
