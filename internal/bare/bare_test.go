package bare

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// oldest is a connection of a driver as the first ones were: it has what it must have.
type oldest struct {
	calls *[]string
	rows  [][]driver.Value
}

func (c oldest) note(call string) { *c.calls = append(*c.calls, call) }

func (c oldest) Prepare(query string) (driver.Stmt, error) {
	c.note("prepare " + query)
	return stmt{c}, nil
}
func (c oldest) Close() error              { return nil }
func (c oldest) Begin() (driver.Tx, error) { c.note("begin"); return tx{c}, nil }

type tx struct{ c oldest }

func (t tx) Commit() error   { return nil }
func (t tx) Rollback() error { t.c.note("rollback"); return nil }

type stmt struct{ c oldest }

func (s stmt) Close() error  { s.c.note("close"); return nil }
func (s stmt) NumInput() int { return -1 }
func (s stmt) Exec(args []driver.Value) (driver.Result, error) {
	s.c.note("exec")
	return driver.RowsAffected(len(args)), nil
}

func (s stmt) Query([]driver.Value) (driver.Rows, error) {
	s.c.note("query")
	return &rows{left: s.c.rows}, nil
}

type rows struct{ left [][]driver.Value }

func (*rows) Columns() []string { return []string{"a"} }
func (*rows) Close() error      { return nil }
func (r *rows) Next(dest []driver.Value) error {
	if len(r.left) == 0 {
		return io.EOF
	}
	copy(dest, r.left[0])
	r.left = r.left[1:]
	return nil
}

// legacy can also run statements directly, in the old way.
type legacy struct{ oldest }

func (c legacy) Exec(query string, args []driver.Value) (driver.Result, error) {
	c.note("exec " + query)
	return driver.RowsAffected(len(args)), nil
}

func TestWhatADriverLacksIsLeftToItsStatements(t *testing.T) {
	c := oldest{calls: new([]string)}
	can := CapabilitiesOf(c)
	assert.False(t, can.Execs || can.Queries || can.KeepsAfterTx())
	_, err := can.Exec(t.Context(), c, "DO 1", nil)
	assert.Equal(t, driver.ErrSkip, err)
	_, err = can.Query(t.Context(), c, "SELECT 1", nil)
	assert.Equal(t, driver.ErrSkip, err)
	assert.Empty(t, *c.calls)
}

func TestALegacyCallCarriesPlainValues(t *testing.T) {
	c := legacy{oldest{calls: new([]string)}}
	can := CapabilitiesOf(c)
	assert.True(t, can.Execs)
	args := NamedValues([]driver.Value{int64(1), "x"})
	assert.Equal(t, 2, args[1].Ordinal)
	res, err := can.Exec(t.Context(), c, "DO ?", args)
	require.NoError(t, err)
	assert.Equal(t, driver.RowsAffected(2), res)
	args[0].Name = "a"
	_, err = can.Exec(t.Context(), c, "DO ?", args)
	require.ErrorContains(t, err, "Named Parameters")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = can.Exec(ended, c, "DO ?", nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{"exec DO ?"}, *c.calls)
}

func TestALegacyCallUndoesWhatItsContextNoLongerWants(t *testing.T) {
	c := oldest{calls: new([]string)}
	can := CapabilitiesOf(c)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := can.Prepare(ended, c, "SELECT 1")
	require.ErrorIs(t, err, context.Canceled)
	_, err = Begin(ended, c, driver.TxOptions{})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{"prepare SELECT 1", "close", "begin", "rollback"}, *c.calls)
	_, err = Begin(t.Context(), c, driver.TxOptions{ReadOnly: true})
	require.ErrorContains(t, err, "read-only")
	_, err = Begin(t.Context(), c, driver.TxOptions{Isolation: 4})
	require.ErrorContains(t, err, "isolation")
}

func TestRowsAreReadByWhateverTheDriverHas(t *testing.T) {
	text := []byte("x")
	c := oldest{new([]string), [][]driver.Value{{text}, {"y"}}}
	rows, err := QueryRows(t.Context(), c, "SELECT a", 1)
	require.NoError(t, err)
	assert.Equal(t, [][]driver.Value{{"x"}}, rows, "no more than were asked for")
	rows, err = QueryRows(t.Context(), c, "SELECT a", 9)
	require.NoError(t, err)
	text[0] = 'z' // the driver uses its memory again
	assert.Equal(t, [][]driver.Value{{"x"}, {"y"}}, rows)
	*c.calls = (*c.calls)[3:]
	assert.Equal(t, []string{"prepare SELECT a", "query", "close"}, *c.calls)
	c.rows = nil
	rows, err = QueryRows(t.Context(), c, "SELECT a", 9)
	require.NoError(t, err)
	assert.Empty(t, rows)
	_, err = QueryRows(t.Context(), refusing{c}, "SELECT a", 9)
	require.ErrorIs(t, err, errRefused)
}

var errRefused = errors.New("refused")

// refusing prepares nothing.
type refusing struct{ oldest }

func (refusing) Prepare(string) (driver.Stmt, error) { return nil, errRefused }
