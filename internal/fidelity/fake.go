package fidelity

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
)

//go:generate go run ./genmatrix

// fake is a server and its driver in one. It answers every statement, logs
// every driver call, and notes each call that a driver must never see: two at
// once on a connection, or one on something that was closed.
type fake struct {
	profile Profile

	mu      sync.Mutex
	calls   []string           // guarded by mu
	faults  []string           // guarded by mu: calls that must not have come
	answers map[string][]error // guarded by mu: what the next calls of a kind answer
	during  map[string]func()  // guarded by mu: runs within the next call of a kind
	opened  int                // guarded by mu: connections
	closed  int                // guarded by mu: connections
	shut    int                // guarded by mu: calls of the connector's Close
}

func newFake(p Profile) *fake {
	return &fake{profile: p, answers: map[string][]error{}, during: map[string]func(){}}
}

// answer makes the next calls of a kind answer with these errors, nil being
// success. The kinds are connect, reset, check, ping, prepare, exec, query,
// next, rows close, begin, commit and rollback.
func (f *fake) answer(kind string, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[kind] = errs
}

// within runs do inside the next call of a kind.
func (f *fake) within(kind string, do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.during[kind] = do
}

// forget takes back all that was planted.
func (f *fake) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers, f.during = map[string][]error{}, map[string]func(){}
}

// next is the answer to a call of that kind.
func (f *fake) next(kind string) error {
	f.mu.Lock()
	do := f.during[kind]
	delete(f.during, kind)
	var err error
	if errs := f.answers[kind]; len(errs) > 0 {
		err, f.answers[kind] = errs[0], errs[1:]
	}
	f.mu.Unlock()
	if do != nil {
		do()
	}
	return err
}

func (f *fake) log(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

func (f *fake) fault(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fmt.Sprintf(format, args...))
}

// seen returns the log and empties it.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

// connections is how many connections were opened, and how many of them closed.
func (f *fake) connections() (opened, closed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.opened, f.closed
}

// tagKey marks a context, so that the log shows which one a call was given.
type tagKey struct{}

func tagged(ctx context.Context, tag string) context.Context {
	return context.WithValue(ctx, tagKey{}, tag)
}

func tagOf(ctx context.Context) string {
	tag, _ := ctx.Value(tagKey{}).(string)
	return "ctx=" + tag
}

// The drivers and connectors, with and without their optional interfaces.

type fakeDriver struct{ f *fake }

func (d fakeDriver) Open(string) (driver.Conn, error) { return d.f.connect(context.Background()) }

type fakeContextDriver struct{ fakeDriver }

func (d fakeContextDriver) OpenConnector(dsn string) (driver.Connector, error) {
	if err := d.f.next("open connector"); err != nil {
		return nil, err
	}
	d.f.log("OpenConnector %s", dsn)
	return d.f.connector(), nil
}

func (f *fake) driver() driver.Driver {
	if f.profile.driverContext {
		return fakeContextDriver{fakeDriver{f}}
	}
	return fakeDriver{f}
}

type fakeConnector struct{ f *fake }

func (c fakeConnector) Connect(ctx context.Context) (driver.Conn, error) { return c.f.connect(ctx) }
func (c fakeConnector) Driver() driver.Driver                            { return c.f.driver() }

type fakeClosingConnector struct{ fakeConnector }

func (c fakeClosingConnector) Close() error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.shut++
	return errShut
}

func (f *fake) connector() driver.Connector {
	if f.profile.closer {
		return fakeClosingConnector{fakeConnector{f}}
	}
	return fakeConnector{f}
}

// The errors of the fake. Each is told from the others by identity.
var (
	errShut    = errors.New("fake: connector closed")
	errRefused = errors.New("fake: argument refused")
	errBroken  = errors.New("fake: broken")
)

func (f *fake) connect(ctx context.Context) (driver.Conn, error) {
	f.log("Connect %s", tagOf(ctx))
	if err := f.next("connect"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.opened++
	c := &fakeConn{f: f, id: f.opened}
	f.mu.Unlock()
	return f.profile.conn(c), nil
}

// fakeConn has every optional interface; a profile shows some of them.
type fakeConn struct {
	f  *fake
	id int

	mu     sync.Mutex
	busy   string // guarded by mu: the call that is in flight
	closed bool   // guarded by mu
	stmts  int    // guarded by mu: prepared so far
	rows   int    // guarded by mu: result sets so far
}

// enter logs a call, and notes a fault if it must not come now. The function
// that it returns ends the call.
func (c *fakeConn) enter(format string, args ...any) (leave func()) {
	call := fmt.Sprintf("conn %d: ", c.id) + fmt.Sprintf(format, args...)
	c.f.log("%s", call)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.f.fault("%s: the connection is closed", call)
	}
	if c.busy != "" {
		c.f.fault("%s: during %s", call, c.busy)
	}
	c.busy = call
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.busy = ""
	}
}

func (c *fakeConn) Close() error {
	defer c.enter("Close")()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.f.closed++
	return nil
}

func (c *fakeConn) Ping(ctx context.Context) error {
	defer c.enter("Ping %s", tagOf(ctx))()
	return c.f.next("ping")
}

func (c *fakeConn) ResetSession(ctx context.Context) error {
	defer c.enter("ResetSession %s", tagOf(ctx))()
	return c.f.next("reset")
}

func (c *fakeConn) IsValid() bool {
	defer c.enter("IsValid")()
	return c.f.next("valid") == nil
}

// The arguments that only a NamedValueChecker understands.
type (
	special struct{ n int }
	removed struct{}
	refused struct{}
)

func (c *fakeConn) CheckNamedValue(v *driver.NamedValue) error {
	defer c.enter("CheckNamedValue %s", argument(*v))()
	return check(v, "conn")
}

func check(v *driver.NamedValue, by string) error {
	switch value := v.Value.(type) {
	case special:
		v.Value = fmt.Sprintf("special %d of %s", value.n, by)
		return nil
	case removed:
		return driver.ErrRemoveArgument
	case refused:
		return errRefused
	}
	return driver.ErrSkip
}

func (c *fakeConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	defer c.enter("ExecContext %s %s %s", tagOf(ctx), query, arguments(args))()
	return c.result(len(args), true)
}

func (c *fakeConn) Exec(query string, args []driver.Value) (driver.Result, error) {
	defer c.enter("Exec %s %v", query, args)()
	return c.result(len(args), true)
}

func (c *fakeConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	defer c.enter("QueryContext %s %s %s", tagOf(ctx), query, arguments(args))()
	return c.resultSet(query, len(args), true)
}

func (c *fakeConn) Query(query string, args []driver.Value) (driver.Rows, error) {
	defer c.enter("Query %s %v", query, args)()
	return c.resultSet(query, len(args), true)
}

// declines tells whether a direct call is answered with driver.ErrSkip.
func (c *fakeConn) declines(args int) bool {
	return c.f.profile.declines || c.f.profile.declinesArguments && args > 0
}

func (c *fakeConn) result(args int, direct bool) (driver.Result, error) {
	if direct && c.declines(args) {
		return nil, driver.ErrSkip
	}
	if err := c.f.next("exec"); err != nil {
		return nil, err
	}
	return fakeResult{int64(c.id), int64(args)}, nil
}

func (c *fakeConn) resultSet(query string, args int, direct bool) (driver.Rows, error) {
	if direct && c.declines(args) {
		return nil, driver.ErrSkip
	}
	if err := c.f.next("query"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.rows++
	r := &fakeRows{c: c, id: c.rows}
	c.mu.Unlock()
	if !strings.Contains(query, "nothing") {
		r.sets = [][][]driver.Value{{{int64(1), "one"}, {int64(2), []byte("two")}}, {{int64(3), "three"}}}
	}
	return c.f.profile.rows(r), nil
}

func (c *fakeConn) Prepare(query string) (driver.Stmt, error) {
	defer c.enter("Prepare %s", query)()
	return c.prepare(query)
}

func (c *fakeConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	defer c.enter("PrepareContext %s %s", tagOf(ctx), query)()
	return c.prepare(query)
}

func (c *fakeConn) prepare(query string) (driver.Stmt, error) {
	if err := c.f.next("prepare"); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stmts++
	return c.f.profile.stmt(&fakeStmt{c: c, id: c.stmts, query: query}), nil
}

func (c *fakeConn) Begin() (driver.Tx, error) {
	defer c.enter("Begin")()
	return c.begin()
}

func (c *fakeConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	defer c.enter("BeginTx %s %+v", tagOf(ctx), opts)()
	return c.begin()
}

func (c *fakeConn) begin() (driver.Tx, error) {
	if err := c.f.next("begin"); err != nil {
		return nil, err
	}
	return fakeTx{c}, nil
}

type fakeTx struct{ c *fakeConn }

func (t fakeTx) Commit() error {
	defer t.c.enter("Commit")()
	return t.c.f.next("commit")
}

func (t fakeTx) Rollback() error {
	defer t.c.enter("Rollback")()
	return t.c.f.next("rollback")
}

type fakeResult struct{ id, rows int64 }

func (r fakeResult) LastInsertId() (int64, error) { return r.id, nil }
func (r fakeResult) RowsAffected() (int64, error) { return r.rows, nil }

// fakeStmt has every optional interface; a profile shows some of them.
type fakeStmt struct {
	c      *fakeConn
	id     int
	query  string
	closed bool
}

func (s *fakeStmt) enter(format string, args ...any) (leave func()) {
	call := fmt.Sprintf("stmt %d ", s.id) + fmt.Sprintf(format, args...)
	if s.closed {
		s.c.f.fault("conn %d: %s: the statement is closed", s.c.id, call)
	}
	return s.c.enter("%s", call)
}

func (s *fakeStmt) Close() error {
	defer s.enter("Close")()
	s.closed = true
	return nil
}

func (s *fakeStmt) NumInput() int {
	defer s.enter("NumInput")()
	if s.c.f.profile.anyInput {
		return -1
	}
	return strings.Count(s.query, "?")
}

func (s *fakeStmt) Exec(args []driver.Value) (driver.Result, error) {
	defer s.enter("Exec %v", args)()
	return s.c.result(len(args), false)
}

func (s *fakeStmt) Query(args []driver.Value) (driver.Rows, error) {
	defer s.enter("Query %v", args)()
	return s.c.resultSet(s.query, len(args), false)
}

func (s *fakeStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	defer s.enter("ExecContext %s %s", tagOf(ctx), arguments(args))()
	return s.c.result(len(args), false)
}

func (s *fakeStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	defer s.enter("QueryContext %s %s", tagOf(ctx), arguments(args))()
	return s.c.resultSet(s.query, len(args), false)
}

func (s *fakeStmt) CheckNamedValue(v *driver.NamedValue) error {
	defer s.enter("CheckNamedValue %s", argument(*v))()
	return check(v, "stmt")
}

func (s *fakeStmt) ColumnConverter(i int) driver.ValueConverter {
	defer s.enter("ColumnConverter %d", i)()
	return columnOf(i)
}

// columnOf is the converter of a column.
type columnOf int

func (i columnOf) ConvertValue(v any) (driver.Value, error) {
	if _, ok := v.(refused); ok {
		return nil, errRefused
	}
	return fmt.Sprintf("column %d: %v", int(i), v), nil
}

// fakeRows has every optional interface; a profile shows some of them.
type fakeRows struct {
	c      *fakeConn
	id     int
	sets   [][][]driver.Value // the result sets not yet read, the first of them without the rows read
	closed bool
}

func (r *fakeRows) enter(format string, args ...any) (leave func()) {
	call := fmt.Sprintf("rows %d ", r.id) + fmt.Sprintf(format, args...)
	if r.closed {
		r.c.f.fault("conn %d: %s: the rows are closed", r.c.id, call)
	}
	return r.c.enter("%s", call)
}

func (r *fakeRows) Columns() []string {
	defer r.enter("Columns")()
	return []string{"id", "name"}
}

func (r *fakeRows) Close() error {
	defer r.enter("Close")()
	r.closed = true
	return r.c.f.next("rows close")
}

func (r *fakeRows) Next(dest []driver.Value) error {
	defer r.enter("Next")()
	if err := r.c.f.next("next"); err != nil {
		return err
	}
	if len(r.sets) == 0 || len(r.sets[0]) == 0 {
		return io.EOF
	}
	copy(dest, r.sets[0][0])
	r.sets[0] = r.sets[0][1:]
	return nil
}

func (r *fakeRows) HasNextResultSet() bool {
	defer r.enter("HasNextResultSet")()
	return len(r.sets) > 1
}

func (r *fakeRows) NextResultSet() error {
	defer r.enter("NextResultSet")()
	if err := r.c.f.next("next result set"); err != nil {
		return err
	}
	if len(r.sets) < 2 {
		return io.EOF
	}
	r.sets = r.sets[1:]
	return nil
}

func (r *fakeRows) ColumnTypeDatabaseTypeName(i int) string {
	defer r.enter("ColumnTypeDatabaseTypeName %d", i)()
	return []string{"BIGINT", "VARCHAR"}[i]
}

func (r *fakeRows) ColumnTypeLength(i int) (int64, bool) {
	defer r.enter("ColumnTypeLength %d", i)()
	return int64(20 * i), i > 0
}

func (r *fakeRows) ColumnTypeNullable(i int) (nullable, known bool) {
	defer r.enter("ColumnTypeNullable %d", i)()
	return i > 0, true
}

func (r *fakeRows) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	defer r.enter("ColumnTypePrecisionScale %d", i)()
	return 10, 2, i == 0
}

func (r *fakeRows) ColumnTypeScanType(i int) reflect.Type {
	defer r.enter("ColumnTypeScanType %d", i)()
	return []reflect.Type{reflect.TypeFor[int64](), reflect.TypeFor[string]()}[i]
}

// argument prints an argument with its type, name and place.
func argument(v driver.NamedValue) string {
	return fmt.Sprintf("%s$%d=%T(%v)", v.Name, v.Ordinal, v.Value, v.Value)
}

func arguments(args []driver.NamedValue) string {
	texts := make([]string, len(args))
	for i, v := range args {
		texts[i] = argument(v)
	}
	return "[" + strings.Join(texts, " ") + "]"
}

// Profile is a kind of driver: which of the optional interfaces it shows, and
// how it behaves where drivers differ.
type Profile struct {
	Name string
	conn func(*fakeConn) driver.Conn
	stmt func(*fakeStmt) driver.Stmt
	rows func(*fakeRows) driver.Rows

	driverContext     bool // the driver makes connectors
	closer            bool // the connector is an io.Closer
	declines          bool // every direct call is answered with driver.ErrSkip
	declinesArguments bool // those with arguments are
	anyInput          bool // statements do not know how many arguments they take
}

// Embedding an interface whose only method has its own name would hide the
// method behind the field; under another name it is promoted.
type columnConverter interface{ driver.ColumnConverter } //nolint:staticcheck // drivers that have it must keep working

// The optional interfaces of rows contain driver.Rows, which can be embedded
// only once: these are what they add to it.
type (
	nextResultSets interface {
		HasNextResultSet() bool
		NextResultSet() error
	}
	columnDatabaseTypes interface {
		ColumnTypeDatabaseTypeName(i int) string
	}
	columnLengths interface {
		ColumnTypeLength(i int) (int64, bool)
	}
	columnNulls interface {
		ColumnTypeNullable(i int) (nullable, known bool)
	}
	columnPrecisions interface {
		ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool)
	}
	columnScanTypes interface {
		ColumnTypeScanType(i int) reflect.Type
	}
)

// The parts that profiles are made of.

func allConn(c *fakeConn) driver.Conn   { return c }
func plainConn(c *fakeConn) driver.Conn { return struct{ driver.Conn }{c} }
func allStmt(s *fakeStmt) driver.Stmt   { return s }
func plainStmt(s *fakeStmt) driver.Stmt { return struct{ driver.Stmt }{s} }
func allRows(r *fakeRows) driver.Rows   { return r }
func plainRows(r *fakeRows) driver.Rows { return struct{ driver.Rows }{r} }

// modernConn is what a driver of today has.
func modernConn(c *fakeConn) driver.Conn {
	return struct {
		driver.Conn
		driver.Pinger
		driver.ExecerContext
		driver.QueryerContext
		driver.ConnPrepareContext
		driver.ConnBeginTx
		driver.SessionResetter
		driver.Validator
		driver.NamedValueChecker
	}{c, c, c, c, c, c, c, c, c}
}

// modernStmt likewise.
func modernStmt(s *fakeStmt) driver.Stmt {
	return struct {
		driver.Stmt
		driver.StmtExecContext
		driver.StmtQueryContext
	}{s, s, s}
}

var (
	everything = Profile{Name: "everything", conn: allConn, stmt: allStmt, rows: allRows, driverContext: true, closer: true}
	modern     = Profile{Name: "modern", conn: modernConn, stmt: modernStmt, rows: allRows, driverContext: true}
	nothing    = Profile{Name: "nothing", conn: plainConn, stmt: plainStmt, rows: plainRows}

	noResetter = Profile{Name: "no resetter", stmt: modernStmt, rows: allRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.ExecerContext
			driver.QueryerContext
			driver.ConnBeginTx
			driver.Validator
		}{c, c, c, c, c}
	}}
	noValidator = Profile{Name: "no validator", stmt: modernStmt, rows: allRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.ExecerContext
			driver.QueryerContext
			driver.ConnBeginTx
			driver.SessionResetter
		}{c, c, c, c, c}
	}}
)

// Profiles are the kinds of driver that there are, or may be.
var Profiles = []Profile{
	everything, modern, nothing, noResetter, noValidator,
	{Name: "legacy", stmt: plainStmt, rows: plainRows, closer: true, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.Execer
			driver.Queryer
		}{c, c, c}
	}},
	{Name: "legacy query, modern exec", stmt: modernStmt, rows: plainRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.ExecerContext
			driver.Queryer
			driver.NamedValueChecker
		}{c, c, c, c}
	}},
	{Name: "exec only", stmt: modernStmt, rows: allRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.ExecerContext
			driver.NamedValueChecker
			driver.ConnPrepareContext
		}{c, c, c, c}
	}},
	{Name: "legacy exec only", stmt: plainStmt, rows: plainRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.Execer
		}{c, c}
	}},
	{Name: "query only", stmt: modernStmt, rows: allRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.QueryerContext
			driver.NamedValueChecker
			driver.ConnBeginTx
		}{c, c, c, c}
	}},
	{Name: "legacy query only", stmt: plainStmt, rows: plainRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.Queryer
			driver.Pinger
		}{c, c, c}
	}},
	{Name: "checker on the connection only", stmt: plainStmt, rows: allRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.NamedValueChecker
			driver.SessionResetter
			driver.Validator
		}{c, c, c, c}
	}},
	{Name: "checker on the statement only", rows: allRows, driverContext: true, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.ExecerContext
			driver.QueryerContext
			driver.ConnPrepareContext
			driver.SessionResetter
			driver.Validator
		}{c, c, c, c, c, c}
	}, stmt: func(s *fakeStmt) driver.Stmt {
		return struct {
			driver.Stmt
			driver.StmtExecContext
			driver.StmtQueryContext
			driver.NamedValueChecker
		}{s, s, s, s}
	}},
	{Name: "column converter", conn: plainConn, rows: plainRows, stmt: func(s *fakeStmt) driver.Stmt {
		return struct {
			driver.Stmt
			columnConverter
		}{s, s}
	}},
	{Name: "column converter behind a checker", rows: plainRows, conn: func(c *fakeConn) driver.Conn {
		return struct {
			driver.Conn
			driver.NamedValueChecker
		}{c, c}
	}, stmt: func(s *fakeStmt) driver.Stmt {
		return struct {
			driver.Stmt
			driver.StmtExecContext
			columnConverter
		}{s, s, s}
	}},
	{Name: "column converter of any input", conn: plainConn, rows: plainRows, anyInput: true, stmt: func(s *fakeStmt) driver.Stmt {
		return struct {
			driver.Stmt
			driver.StmtQueryContext
			columnConverter
		}{s, s, s}
	}},
	{Name: "declines arguments", conn: modernConn, stmt: modernStmt, rows: allRows, declinesArguments: true, closer: true},
	{Name: "declines everything", conn: allConn, stmt: plainStmt, rows: allRows, declines: true},
	{Name: "any input", conn: modernConn, stmt: modernStmt, anyInput: true, rows: func(r *fakeRows) driver.Rows {
		return struct {
			driver.Rows
			nextResultSets
			columnLengths
		}{r, r, r}
	}},
}
