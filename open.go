package sqllease

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"

	"github.com/sqllease/sqllease/internal/callstack"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
	"github.com/sqllease/sqllease/internal/recording"
	"github.com/sqllease/sqllease/internal/statement"
)

// Wrap wraps a driver's connector, for sql.OpenDB. Use [OpenDB] where you can: with it,
// SetMaxOpenConns on the *sql.DB sets the limit (see [Connector.Attach]). Wrap returns a
// *[ConfigError] if the connector is nil or wrapped already, or if the Config contradicts
// itself.
func Wrap(c driver.Connector, cfg Config) (*Connector, error) {
	if isNil(c) {
		return nil, &ConfigError{"connector", "nil", "give Wrap the connector of your driver, as made by its NewConnector or OpenConnector"}
	}
	if _, wrapped := c.(*Connector); wrapped {
		return nil, &ConfigError{"connector", "a *sqllease.Connector", "it is wrapped already; give Wrap the connector of your driver"}
	}
	set, err := newSettings(cfg)
	if err != nil {
		return nil, err
	}
	set.pooled = drivers.IsPooled(c)
	if set.MinIdle > 0 && set.pooled {
		return nil, &ConfigError{"MinIdle", fmt.Sprint(set.MinIdle), "the connector takes its connections from a pgxpool, which keeps idle ones itself; set the MinConns of that pool"}
	}
	if set.Dialect == "" {
		set.guessed = true
		set.Dialect = Dialect(drivers.DialectOf(c.Driver()))
	}
	set.dialect = drivers.Named(string(set.Dialect))
	set.discovery = discoveryOf(set.Discovery, set.dialect)
	if set.FindBlockers && set.dialect.Locks == nil {
		return nil, &ConfigError{"FindBlockers", "true", "sqllease does not know how to ask this server; it knows MySQL, MariaDB and PostgreSQL, so leave FindBlockers false, or set Dialect if it is one of these"}
	}
	set.system = cmp.Or(set.dialect.System, drivers.SystemOf(c.Driver()))
	if set.Name == "" {
		set.Name, set.number = takeName(c.Driver())
	}
	set.endpoint = drivers.EndpointOf(c).Or(drivers.Endpoint{Address: set.ServerAddress, Port: set.ServerPort, Namespace: set.Namespace})
	if set.pooled {
		set.discovery = nil // its connections are not new, and that pool ends them
		set.tellPooled()
	}
	return newConnector(c, set), nil
}

// tellPooled says what to know of a pgxpool below ours, and what to do about it.
func (s *settings) tellPooled() {
	s.Logger.Info("sqllease: the connector takes its connections from a pgxpool: each acquire asks that pool, a wait in it shows as a dial, "+
		"and sqllease does not discover the server's idle limit. "+
		"If only this *sql.DB uses the pgxpool, wrap stdlib.GetConnector(*pool.Config().ConnConfig) with MaxOpen at its MaxConns. "+
		"If other code uses it too, set Config.MaxOpen below MaxConns, and SetMaxIdleConns(0) as sqllease.OpenDB does",
		slog.String("pool", s.Name))
}

// openPlain and openDB are called in place of sql.Open and sql.OpenDB: tools that rewrite
// calls of these at build time would put a wrapper around ours, which may hide a part of it
// (see warnHidden).
var (
	openPlain = sql.Open
	openDB    = sql.OpenDB
)

// OpenDB wraps a driver's connector and opens a *sql.DB on it. If [Config.MaxOpen] is
// set, the *sql.DB keeps as many idle connections, so that a pool under load does not close
// and dial all the time. On a pgxpool it keeps none, since that pool keeps them.
// SetMaxIdleConns changes both.
func OpenDB(c driver.Connector, cfg Config) (*sql.DB, error) {
	w, err := Wrap(c, cfg)
	if err != nil {
		return nil, err
	}
	db := openDB(w)
	switch {
	case w.cfg.pooled:
		db.SetMaxIdleConns(0)
	case cfg.MaxOpen > 0:
		db.SetMaxIdleConns(cfg.MaxOpen)
	}
	w.Attach(db)
	return db, nil
}

// Open is sql.Open, wrapped: it opens a database by the name of its driver and a data
// source name. If the name is one of [Register]'s, only this Config counts. Open has to
// open a database once more to learn which driver has the name, and closes that one at
// once. No connection is dialed for it. [OpenDB] needs no such thing.
func Open(driverName, dsn string, cfg Config) (*sql.DB, error) {
	plain, err := openPlain(driverName, dsn)
	if err != nil {
		return nil, err
	}
	d := plain.Driver()
	if err := plain.Close(); err != nil {
		return nil, err
	}
	c, err := connectorOf(d, dsn)
	if err != nil {
		return nil, err
	}
	return OpenDB(c, cfg)
}

// connectorOf makes a connector as sql.Open does.
func connectorOf(d driver.Driver, dsn string) (driver.Connector, error) {
	if dc, ok := d.(driver.DriverContext); ok {
		return dc.OpenConnector(dsn)
	}
	return dsnConnector{d, dsn}, nil
}

// dsnConnector is the connector of a driver that has none.
type dsnConnector struct {
	driver driver.Driver
	dsn    string
}

// Connect opens a connection; the driver has no use for the context.
func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }

// Driver returns the driver.
func (c dsnConnector) Driver() driver.Driver { return c.driver }

// Register registers a wrapped driver under a name of its own, for code that must call
// sql.Open(name, dsn). Every sql.Open makes a pool of its own. The pool does not know its
// *sql.DB, so attach it after sql.Open:
//
//	if c, ok := sqllease.ConnectorOf(db); ok {
//		c.Attach(db)
//	}
//
// If you cannot, set [Config.MaxOpen], and do not call SetMaxOpenConns: callers would wait in
// database/sql, where [Config.AcquireTimeout] does not count. A pool with neither logs a
// warning when it is first used. If the name is taken, Register
// returns a *[ConfigError]; sql.Register would panic.
func Register(name string, d driver.Driver, cfg Config) error {
	if name == "" {
		return &ConfigError{"name", `""`, "sql.Open needs a name to find the driver by; give it one, such as \"mysql-sqllease\""}
	}
	if isNil(d) {
		return &ConfigError{"driver", "nil", "give Register the driver to wrap"}
	}
	if _, err := newSettings(cfg); err != nil {
		return err
	}
	if slices.Contains(sql.Drivers(), name) {
		return &ConfigError{"name", fmt.Sprintf("%q", name), "a driver of that name is registered already; choose another"}
	}
	sql.Register(name, &registered{d, cfg})
	return nil
}

// registered is a wrapped driver in database/sql's register.
type registered struct {
	inner driver.Driver
	cfg   Config
}

var _ driver.DriverContext = (*registered)(nil)

// OpenConnector makes the wrapped connector of one sql.Open.
func (r *registered) OpenConnector(dsn string) (driver.Connector, error) {
	c, err := connectorOf(r.inner, dsn)
	if err != nil {
		return nil, err
	}
	return Wrap(c, r.cfg)
}

// Open is there for driver.Driver; database/sql calls OpenConnector.
func (r *registered) Open(dsn string) (driver.Conn, error) {
	c, err := r.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	return c.Connect(context.Background())
}

// ConnectorOf finds the Connector of a *sql.DB, however it was opened. It
// opens no connection.
func ConnectorOf(db *sql.DB) (*Connector, bool) {
	if db == nil {
		return nil, false
	}
	// database/sql has no way to ask for the connector. Its field can be seen,
	// if not taken, by reflection; if it should ever be renamed, nothing is found.
	field := reflect.ValueOf(db).Elem().FieldByName("connector")
	if !field.IsValid() || field.Kind() != reflect.Interface || field.IsNil() || field.Elem().Type() != reflect.TypeFor[*Connector]() {
		return nil, false
	}
	return (*Connector)(field.Elem().UnsafePointer()), true
}

// Unwrap returns the driver's own connection, in the function given to sql.Conn.Raw. It
// reports false if that is not a T. sqllease does not see what you do with it; such a
// connection is never closed by [Config.ReclaimAfter].
func Unwrap[T any](driverConn any) (T, bool) {
	for {
		h, ok := driverConn.(*handle)
		if !ok {
			break
		}
		if h.begun(context.Background()) != nil {
			var none T
			return none, false
		}
		h.c.unwrapped(h.session)
		driverConn = h.session.conn
		h.unuse()
	}
	t, ok := driverConn.(T)
	return t, ok
}

func isNil(x any) bool {
	if x == nil {
		return true
	}
	v := reflect.ValueOf(x)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

func newConnector(inner driver.Connector, cfg *settings) *Connector {
	c := &Connector{inner: inner, cfg: cfg}
	c.identity.Store(newIdentity(cfg, cfg.system))
	c.summaries = statement.NewCache(c.read)
	c.tracing = newTracing(cfg, &c.identity, c.summaries)
	c.tagsPanicked = once(cfg, "sqllease: Config.CommentTags panicked: the statement went without tags. Its later panics are not logged")
	callstack.Find()
	c.life, c.end = context.WithCancel(context.Background())
	c.poke = context.WithValue(c.life, pokeKey{}, true)
	c.gate.Gate = gate.New(cfg.MaxOpen, cfg.MinIdle, cfg.lanes.of, c.watch.ended, c.joined, c.wakeGateAt, c.pulse.now)
	c.counts.lanes = make([]laneCounters, len(cfg.lanes.names))
	c.gate.SetTrust(gate.Watchful, 0) // until a *sql.DB is attached
	c.texts.wake = func(at clock.Instant) { c.textTimer.at(at, c.closeStatements) }
	c.pulse.c = c
	c.tellLimits(drivers.Limits{})
	c.asking.due.Store(int64(clock.Now()))
	var errs []error
	c.metrics, errs = newMetrics(cfg, &c.identity, c.stats, &c.places)
	c.reports = reports{cfg: cfg, gate: c.gate, looks: processLooks, tracing: &c.tracing, metrics: &c.metrics, summaries: c.summaries, recorder: &c.recorder}
	c.queue.gate, c.queue.cfg, c.queue.reports = c.gate, cfg, &c.reports
	c.watch.gate, c.watch.cfg, c.watch.reports, c.watch.waits, c.watch.took, c.watch.idleTx = c.gate, cfg, &c.reports, &c.queue, c.took, &c.newest.idleTx
	if cfg.FindBlockers {
		c.watch.blame = c.blame
		finders.add(c)
	}
	if len(errs) > 0 {
		c.cfg.Logger.Warn("sqllease: some metrics are missing: the meter provider refused their instruments",
			slog.String("pool", cfg.Name), slog.Any("error", errors.Join(errs...)))
	}
	if !cfg.guessed || !c.asks() { // else it begins once a handshake may have told what the server is
		c.metrics.begin()
	}
	queues.add(&c.queue)
	connectors.add(c)
	if n := recording.Standard(); n > 0 {
		c.Record(n)
	}
	c.refill()
	return c
}

// read reads a statement for the first time.
func (c *Connector) read(query string) *described {
	s := statement.Summarise(query, c.cfg.dialect.Grammar)
	return &described{Summary: s, name: s.Text(), text: c.tracing.textOf(s, query), place: c.placeOf(query, s.Operation)}
}
