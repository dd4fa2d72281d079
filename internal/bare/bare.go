// Package bare does what database/sql itself does with a driver: it calls what of the
// optional interfaces the driver has, and what it has to have where it lacks them. It
// knows no wrapper, no pool, and no driver by name.
package bare

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
)

// Capabilities are a driver connection's optional interfaces, looked up once: those that
// are asked for often.
type Capabilities struct {
	Pinger    driver.Pinger
	Execer    driver.ExecerContext
	Queryer   driver.QueryerContext
	Preparer  driver.ConnPrepareContext
	Resetter  driver.SessionResetter
	Validator driver.Validator
	Checker   driver.NamedValueChecker

	// Execs and Queries tell whether database/sql would run statements on the connection
	// directly.
	Execs, Queries bool
}

// CapabilitiesOf looks them up.
func CapabilitiesOf(conn driver.Conn) (c Capabilities) {
	c.Pinger, _ = conn.(driver.Pinger)
	c.Execer, _ = conn.(driver.ExecerContext)
	c.Queryer, _ = conn.(driver.QueryerContext)
	c.Preparer, _ = conn.(driver.ConnPrepareContext)
	c.Resetter, _ = conn.(driver.SessionResetter)
	c.Validator, _ = conn.(driver.Validator)
	c.Checker, _ = conn.(driver.NamedValueChecker)
	_, execs := conn.(driver.Execer)    //nolint:staticcheck // drivers that still have it must keep working
	_, queries := conn.(driver.Queryer) //nolint:staticcheck // as above
	c.Execs, c.Queries = execs || c.Execer != nil, queries || c.Queryer != nil
	return c
}

// KeepsAfterTx tells whether database/sql would keep the connection when it has rolled back
// a transaction whose context ended.
func (c *Capabilities) KeepsAfterTx() bool { return c.Resetter != nil && c.Validator != nil }

// Exec is what database/sql does with an Execer or ExecerContext.
func (c *Capabilities) Exec(ctx context.Context, conn driver.Conn, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.Execer != nil {
		return c.Execer.ExecContext(ctx, query, args)
	}
	legacy, ok := conn.(driver.Execer) //nolint:staticcheck // drivers that still have it must keep working
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return legacy.Exec(query, values)
}

// Query is what database/sql does with a Queryer or QueryerContext.
func (c *Capabilities) Query(ctx context.Context, conn driver.Conn, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.Queryer != nil {
		return c.Queryer.QueryContext(ctx, query, args)
	}
	legacy, ok := conn.(driver.Queryer) //nolint:staticcheck // as above
	if !ok {
		return nil, driver.ErrSkip
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return legacy.Query(query, values)
}

// Prepare is what database/sql does with a connection to prepare a statement.
func (c *Capabilities) Prepare(ctx context.Context, conn driver.Conn, query string) (driver.Stmt, error) {
	if c.Preparer != nil {
		return c.Preparer.PrepareContext(ctx, query)
	}
	st, err := conn.Prepare(query)
	if err == nil && ctx.Err() != nil {
		_ = st.Close()
		return nil, ctx.Err()
	}
	return st, err
}

// Begin is what database/sql does with a connection to begin a transaction.
func Begin(ctx context.Context, conn driver.Conn, opts driver.TxOptions) (driver.Tx, error) {
	if b, ok := conn.(driver.ConnBeginTx); ok {
		return b.BeginTx(ctx, opts)
	}
	if opts.Isolation != 0 {
		return nil, errors.New("sql: driver does not support non-default isolation level")
	}
	if opts.ReadOnly {
		return nil, errors.New("sql: driver does not support read-only transactions")
	}
	t, err := conn.Begin() //nolint:staticcheck // it is all that this driver has
	if err == nil && ctx.Err() != nil {
		_ = t.Rollback()
		return nil, ctx.Err()
	}
	return t, err
}

// ExecStatement is what database/sql does with a statement to execute it.
func ExecStatement(ctx context.Context, inner driver.Stmt, args []driver.NamedValue) (driver.Result, error) {
	if e, ok := inner.(driver.StmtExecContext); ok {
		return e.ExecContext(ctx, args)
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return inner.Exec(values) //nolint:staticcheck // it is all that this driver has
}

// QueryStatement is what it does to query it.
func QueryStatement(ctx context.Context, inner driver.Stmt, args []driver.NamedValue) (driver.Rows, error) {
	if q, ok := inner.(driver.StmtQueryContext); ok {
		return q.QueryContext(ctx, args)
	}
	values, err := plainValues(ctx, args)
	if err != nil {
		return nil, err
	}
	return inner.Query(values) //nolint:staticcheck // it is all that this driver has
}

// NamedValues are the arguments of a legacy call, as those of a newer one.
func NamedValues(args []driver.Value) []driver.NamedValue {
	named := make([]driver.NamedValue, len(args))
	for i, v := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return named
}

// plainValues makes the arguments of a legacy call, and refuses what it cannot
// carry, as database/sql does: names, and a context that has ended.
func plainValues(ctx context.Context, args []driver.NamedValue) ([]driver.Value, error) {
	values := make([]driver.Value, len(args))
	for i, v := range args {
		if v.Name != "" {
			return nil, errors.New("sql: driver does not support the use of Named Parameters")
		}
		values[i] = v.Value
	}
	return values, ctx.Err()
}

// QueryRows runs a query without arguments on a driver connection and returns its first
// rows, at most that many.
func QueryRows(ctx context.Context, conn driver.Conn, query string, most int) (all [][]driver.Value, err error) {
	rows, done, err := queryRows(ctx, conn, query)
	if err != nil {
		return nil, err
	}
	defer func() {
		if closeErr := errors.Join(rows.Close(), done()); err == nil {
			err = closeErr
		}
	}()
	for len(all) < most {
		row := make([]driver.Value, len(rows.Columns()))
		if err := rows.Next(row); err != nil {
			if err == io.EOF {
				return all, nil
			}
			return nil, err
		}
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = string(b) // the driver may use its memory again
			}
		}
		all = append(all, row)
	}
	return all, nil
}

// queryRows runs a query as database/sql would: directly, or, where the driver
// has no such method or declines, as a prepared statement. done releases it.
func queryRows(ctx context.Context, conn driver.Conn, query string) (rows driver.Rows, done func() error, err error) {
	can := CapabilitiesOf(conn)
	rows, err = can.Query(ctx, conn, query, nil)
	if err != driver.ErrSkip {
		return rows, func() error { return nil }, err
	}
	st, err := can.Prepare(ctx, conn, query)
	if err != nil {
		return nil, nil, err
	}
	rows, err = QueryStatement(ctx, st, nil)
	if err != nil {
		_ = st.Close()
		return nil, nil, err
	}
	return rows, st.Close, nil
}
