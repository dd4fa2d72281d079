// Package bench puts sqllease beside other wrappers of database/sql drivers, in
// what they change and in what they cost.
package bench

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"text/tabwriter"

	xsam "github.com/XSAM/otelsql"
	"github.com/ngrok/sqlmw"
	"github.com/stretchr/testify/assert"
	uptrace "github.com/uptrace/opentelemetry-go-extra/otelsql"
	nhat "go.nhat.io/otelsql"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/fidelity"
)

// wrapper is a way to open a database on a driver, and the way without it that
// it is compared with.
type wrapper struct {
	name       string
	bare, open fidelity.Open
}

var wrappers = []wrapper{
	{"sqllease", byConnector(sql.OpenDB), func(c driver.Connector) (*sql.DB, error) {
		return sqllease.OpenDB(c, sqllease.Config{Logger: slog.New(slog.DiscardHandler)})
	}},
	{"XSAM/otelsql", byConnector(sql.OpenDB), byConnector(func(c driver.Connector) *sql.DB { return xsam.OpenDB(c) })},
	{"uptrace/otelsql", byConnector(sql.OpenDB), byConnector(func(c driver.Connector) *sql.DB { return uptrace.OpenDB(c) })},
	{"nhatthm/otelsql", byDriver(nil), byDriver(func(d driver.Driver) driver.Driver { return nhat.Wrap(d) })},
	{"ngrok/sqlmw", byDriver(nil), byDriver(func(d driver.Driver) driver.Driver { return sqlmw.Driver(d, sqlmw.NullInterceptor{}) })},
}

func byConnector(open func(driver.Connector) *sql.DB) fidelity.Open {
	return func(c driver.Connector) (*sql.DB, error) { return open(c), nil }
}

var registered atomic.Int64

// byDriver opens as an application does that registers a wrapped driver.
func byDriver(wrap func(driver.Driver) driver.Driver) fidelity.Open {
	return func(c driver.Connector) (*sql.DB, error) {
		d := c.Driver()
		if wrap != nil {
			d = wrap(d)
		}
		name := fmt.Sprint("bench", registered.Add(1))
		sql.Register(name, d)
		return sql.Open(name, "dsn")
	}
}

// themes gather steps under what they are about.
var themes = []struct {
	name  string
	about func(step string) bool
}{
	{"arguments: names, own types, converters", isOneOf("arguments ", "name that", "wrong number")},
	{"isolation level and read only", isOneOf("isolation level", "read only")},
	{"column types", isOneOf("columns")},
	{"several result sets", isOneOf("result set", "rows closed before")},
	{"prepared statements", isOneOf("prepared statement", "statement closed")},
	{"transactions whose context ends", isOneOf("context of a transaction", "context ends within")},
	{"contexts that end in a call or before", isOneOf("context ends in", "context has ended", "context of a query")},
	{"failures of reset and IsValid", isOneOf("reset fails", "valid fails")},
	{"failures of other calls", isOneOf("connect fails", "ping fails", "prepare fails", "exec fails", "query fails", "next fails",
		"next result set fails", "rows close fails", "begin fails", "commit fails", "rollback fails", "scan fails")},
	{"plain calls on the pool, connections and transactions", func(string) bool { return true }},
}

func isOneOf(prefixes ...string) func(string) bool {
	return func(step string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(step, p) })
	}
}

// TestWhatWrappersChange prints in how many programs each wrapper differs from
// the bare driver: for the application, in a result, an error or the number of
// connections; for the driver, in the calls that it sees.
func TestWhatWrappersChange(t *testing.T) {
	perTheme := map[string][]int{}
	header := []string{"what"}
	seen, calls := make([]int, len(wrappers)), make([]int, len(wrappers))
	var programs int
	for i, w := range wrappers {
		header = append(header, w.name)
		var findings []fidelity.Finding
		findings, programs = fidelity.Survey(t, w.bare, w.open)
		for _, f := range findings {
			theme := themes[slices.IndexFunc(themes, func(th struct {
				name  string
				about func(string) bool
			}) bool {
				return th.about(f.Step)
			})].name
			if perTheme[theme] == nil {
				perTheme[theme] = make([]int, len(wrappers))
			}
			perTheme[theme][i] += f.Seen
			seen[i] += f.Seen
			calls[i] += f.Calls
		}
		t.Logf("%s: %+v", w.name, findings)
	}
	var out strings.Builder
	tw := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	row(tw, header)
	for _, th := range themes {
		if counts := perTheme[th.name]; counts != nil {
			row(tw, append([]string{th.name}, texts(counts)...))
		}
	}
	row(tw, append([]string{"the application sees a difference"}, texts(seen)...))
	row(tw, append([]string{"only the driver sees one"}, texts(calls)...))
	_ = tw.Flush()
	t.Logf("differences from the bare driver, in %d programs each\n%s", programs, out.String())
}

// TestAroundAndWithinAnotherWrapper shows that sqllease changes nothing more
// around a driver that another wrapper has changed already; and that within
// another wrapper the application sees no more differences than without.
func TestAroundAndWithinAnotherWrapper(t *testing.T) {
	quiet := sqllease.Config{Logger: slog.New(slog.DiscardHandler)}
	t.Run("around", func(t *testing.T) {
		fidelity.Against(t,
			byConnector(func(c driver.Connector) *sql.DB { return sql.OpenDB(changed(c)) }),
			func(c driver.Connector) (*sql.DB, error) { return sqllease.OpenDB(changed(c), quiet) })
	})
	t.Run("within", func(t *testing.T) {
		alone := byConnector(func(c driver.Connector) *sql.DB { return xsam.OpenDB(c) })
		both := func(c driver.Connector) (*sql.DB, error) {
			w, err := sqllease.Wrap(c, quiet)
			if err != nil {
				return nil, err
			}
			db := xsam.OpenDB(w)
			w.Attach(db)
			return db, nil
		}
		without := seenBy(fidelity.Survey(t, byConnector(sql.OpenDB), alone))
		for step, n := range seenBy(fidelity.Survey(t, byConnector(sql.OpenDB), both)) {
			if !fidelity.Wanted(step) {
				assert.LessOrEqual(t, n, without[step], step)
			}
		}
	})
}

// changed is the connector of a driver that another wrapper has changed.
func changed(c driver.Connector) driver.Connector {
	if dc, ok := xsam.WrapDriver(c.Driver()).(driver.DriverContext); ok {
		if made, err := dc.OpenConnector("dsn"); err == nil {
			return made
		}
	}
	return openOnly{xsam.WrapDriver(c.Driver())}
}

// openOnly is the connector of a driver that makes none.
type openOnly struct{ d driver.Driver }

func (o openOnly) Connect(context.Context) (driver.Conn, error) { return o.d.Open("dsn") }
func (o openOnly) Driver() driver.Driver                        { return o.d }

// seenBy is on how many kinds of driver an application sees a difference, by step.
func seenBy(findings []fidelity.Finding, _ int) map[string]int {
	seen := map[string]int{}
	for _, f := range findings {
		seen[f.Step] = f.Seen
	}
	return seen
}

func row(w io.Writer, cells []string) {
	_, _ = fmt.Fprintln(w, "| "+strings.Join(cells, "\t| ")+"\t|")
}

func texts(counts []int) (s []string) {
	for _, n := range counts {
		s = append(s, fmt.Sprint(n))
	}
	return s
}
