package livepage

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// text is the document for a terminal: the sentence of each pool, then its tables in columns.
func (doc *document) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sqllease at %s\n", doc.At.Format(time.RFC3339))
	if doc.Note != "" {
		fmt.Fprintf(&b, "%s\n", doc.Note)
	}
	if len(doc.Pools) == 0 {
		b.WriteString("\nThis process has no pool.\n")
	}
	for _, p := range doc.Pools {
		fmt.Fprintf(&b, "\n[%s] %s: %s\n", p.State, p.Name, p.Sentence)
	}
	for _, p := range doc.Pools {
		p.write(&b)
	}
	if doc.Pin != nil {
		doc.Pin.write(&b)
	}
	return b.String()
}

// write writes the tables of a pool.
func (p *pool) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n== %s ==\n", p.Name)
	if p.Advice != "" {
		fmt.Fprintf(b, "%s\n", p.Advice)
	}
	table(b, "lanes", "LANE\tIN USE\tMAX\tRESERVED\tWAITING\tLONGEST WAIT\tREFUSED IN THE LAST MINUTE", p.Lanes, func(l *lane) string {
		return fmt.Sprintf("%s\t%d\t%s\t%d\t%d\t%s\t%d%s", l.Name, l.InUse, l.most(), l.Reserve, l.Waiting, l.Longest, l.Refused, l.now())
	})
	head, cell := p.laneColumn()
	table(b, fmt.Sprintf("checked out (%d)", len(p.Out)), "LEASE\t"+head+"PLACE\tHELD\tDOING\tFOR\tCONNECTION\tSERVER\tTRACE\tSTATEMENT", p.Out, func(h *holder) string {
		return fmt.Sprintf("%d\t%s%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s", h.Lease, cell(h.Lane), h.Place, h.Held, h.doing(), h.For, h.Connection, dash(h.Server), dashText(h.TraceID), clip(h.Statement, 80))
	})
	table(b, fmt.Sprintf("waiting, the first first (%d)", len(p.Queue)), "POSITION\t"+head+"PLACE\tWAITS\tTRACE", p.Queue, func(w *waiter) string {
		return fmt.Sprintf("%d\t%s%s\t%s\t%s", w.Position, cell(w.Lane), w.Place, w.Waits, dashText(w.TraceID))
	})
	table(b, "places, by time checked out"+p.recorded(), "PLACE\tHELD\tUNUSED\tWAITED\tTIMES\tNOW\tLONGEST\tFAILED\tFUNCTION", p.Places, func(at *place) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s", at.Place, at.Held, at.Unused, at.Waited, at.Leases, at.Out, at.Longest, at.Failed, at.Function)
	})
	table(b, fmt.Sprintf("connections (%d)", len(p.Connections)), "CONNECTION\tSERVER\tLEASE\tAGE\tIDLE\tEXPIRES IN\tBECAUSE", p.Connections, func(c *connection) string {
		return fmt.Sprintf("%d\t%s\t%s\t%s\t%s\t%s\t%s", c.Number, dash(c.Server), dash(c.Lease), c.Age, c.idle(), c.expires(), dashText(c.Why))
	})
	table(b, "reports, the latest first", "AGO\tKIND\tLEASE\tFOUND", p.Reports, func(r *report) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s", r.Ago, r.Kind, dash(r.Lease), r.Found)
	})
	table(b, "places that were reported", "PLACE\tCLASS\tREPORTS\tLAST", p.Leaks, func(s *leakSite) string {
		return fmt.Sprintf("%s\t%s\t%d\t%s", s.Place, s.Class, s.Times, s.Last.Format(time.RFC3339))
	})
}

// laneColumn is the column of lanes: its head, and a cell of it. A pool without lanes has none.
func (p *pool) laneColumn() (head string, cell func(string) string) {
	if len(p.Lanes) == 0 {
		return "", func(string) string { return "" }
	}
	return "LANE\t", func(name string) string { return name + "\t" }
}

// most is how many connections it may have.
func (l *lane) most() string {
	if l.Max == 0 {
		return "any"
	}
	return fmt.Sprint(l.Max)
}

// now says that callers are refused.
func (l *lane) now() string {
	if l.Refusing {
		return ", and just now"
	}
	return ""
}

// recorded says since when there is a recording.
func (p *pool) recorded() string {
	if p.RecordedSince.IsZero() {
		return ": nothing is recorded"
	}
	return ", since " + clock(p.RecordedSince)
}

// doing says what a connection is used for, in a few words.
func (h *holder) doing() string {
	words := h.Use.words()
	if h.Use == inCall && h.Call != "" {
		words = "in " + h.Call
	}
	if h.InTx && h.Use != unusedSQL && h.Use != notKnown {
		words += ", in a transaction"
	}
	if h.Leaked {
		words += ", leaked"
	}
	return words
}

func (c *connection) idle() string {
	if c.Lease != 0 {
		return "-"
	}
	return c.Idle.String()
}

func (c *connection) expires() string {
	if c.Expires == nil {
		return "never"
	}
	return c.Left.String()
}

// table writes rows in columns, and nothing where there are none.
func table[T any](b *strings.Builder, title, header string, rows []T, line func(*T) string) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, header)
	for i := range rows {
		if i == mostRows {
			fmt.Fprintf(w, "and %d more\n", len(rows)-mostRows)
			break
		}
		fmt.Fprintln(w, line(&rows[i]))
	}
	_ = w.Flush() // a strings.Builder takes all
}

func dash(n uint64) string {
	if n == 0 {
		return "-"
	}
	return number(n)
}

func dashText(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// write writes what is known of a lease.
func (l *pinned) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n== lease %d of %s ==\ntaken by %s %s\nheld for %s, connection %d\n", l.Lease, l.Pool, l.Place, l.Function, l.Held, l.Connection)
	if l.Lane != "" {
		fmt.Fprintf(b, "lane %s\n", l.Lane)
	}
	if l.Statement != "" {
		fmt.Fprintf(b, "statement %s\n", l.Statement)
	}
	fmt.Fprintf(b, "stack\n%s\n", l.Stack)
	for _, now := range l.Now {
		fmt.Fprintf(b, "now %s\n", now)
	}
}
