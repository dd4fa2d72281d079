package livepage

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// This file draws what is no lease: dials and ends of connections, reports, the queue, the axis.

// drawEvents draws what happened.
func (d *painter) drawEvents() {
	rec := &d.pool.recording
	last := map[sqllease.EventKind]int{} // the last mark of each kind
	for i := range rec.Events {
		e := &rec.Events[i]
		x := d.x(e.At)
		if x > 100 {
			break
		}
		at, drawn := d.at[e.Connection]
		switch {
		case e.Kind == sqllease.EventDialed && drawn:
			d.drawDial(at, x, e.Took)
		case e.Kind == sqllease.EventClosed && drawn:
			d.drawEnd(at, x, e)
		case x >= 0:
			d.drawMark(last, x, e)
		}
	}
	for i := range d.Tracks {
		for _, of := range d.Tracks[i].stays {
			d.drawStay(i, of)
		}
	}
}

// drawStay draws the line on which a connection was there.
func (d *painter) drawStay(i int, s *stay) {
	from, to := max(0, d.x(s.from)), 100.0
	if !s.to.IsZero() {
		to = min(100, d.x(s.to))
	}
	if to > from {
		d.box("life", int(100*from), max(1, int(100*(to-from))), trimmed(float64(d.Tracks[i].Y)+float64(d.Pitch-2)/2-0.5), "1")
	}
}

// markRows are the rows in which marks stand above the tracks, by their kind.
var markRows = map[sqllease.EventKind]int{
	sqllease.EventLeak: 1, sqllease.EventSlowCall: 2, sqllease.EventStandstill: 2, sqllease.EventFlush: 3, sqllease.EventLimit: 3,
}

// rowsOfMarks is how many rows are needed.
func (d *painter) rowsOfMarks() (rows int) {
	for _, e := range d.pool.recording.Events {
		if e.At.After(d.From) {
			rows = max(rows, markRows[e.Kind])
		}
	}
	return rows
}

func (d *painter) drawDial(at int, x float64, took time.Duration) {
	w := 100 * float64(took) / float64(d.To.Sub(d.From))
	if x < 0 {
		return
	}
	from := max(0, x-max(w, shortest))
	d.box("dial", int(100*from), max(1, int(100*(x-from))), fmt.Sprint(d.Tracks[at].Y+d.Pitch/2-4), "5")
}

func (d *painter) drawEnd(at int, x float64, e *sqllease.RecordedEvent) {
	if x < 0 || len(d.Ends) >= mostEnds {
		return
	}
	d.Ends = append(d.Ends, end{X: percentOf(min(x, 99.5)), Y: d.Tracks[at].Mid, Bad: died(e.Why) || e.Why == "panicked" || e.Why == "reclaimed",
		Text: fmt.Sprintf("connection %d closed at %s: %s", e.Connection, clock(e.At), closeWords(e.Why))})
}

// closeReasons say why a connection was closed.
var closeReasons = map[string]string{
	"expired":      "it reached Config.MaxLifetime",
	"idle_limit":   "in time, before the server's idle limit",
	"cancelled":    "a call was cancelled, and the driver gave the connection up",
	"cut":          "the server or the network cut it during a call",
	"reset_failed": "it was found dead",
	"invalid":      "the driver called it invalid",
	"panicked":     "the driver panicked",
	"suspect":      "it was as old as one that was found dead",
	"surplus":      "more were idle than database/sql keeps",
	"limit":        "the limit was lowered",
	"flushed":      "the pool was flushed",
	"role_changed": "its server takes no writes any more",
	"reclaimed":    "it was taken back from a leak",
	"shutdown":     "the pool was closed",
}

func closeWords(why string) string {
	if words := closeReasons[why]; words != "" {
		return words
	}
	return shown(why)
}

// drawMark draws a line through all tracks.
func (d *painter) drawMark(last map[sqllease.EventKind]int, x float64, e *sqllease.RecordedEvent) {
	text, class := string(e.Kind), "leak"
	switch e.Kind {
	case sqllease.EventLeak:
	case sqllease.EventSlowCall:
		class = "slow"
	case sqllease.EventStandstill:
		class = "still"
	case sqllease.EventFlush:
		class = "flush"
	case sqllease.EventLimit:
		class, text = "limit", fmt.Sprintf("limit %d", e.Limit)
	default: // of a connection that is not drawn, or a dial that failed: see drawQueue
		return
	}
	if at, drawn := last[e.Kind]; drawn && x-d.Marks[at].at < markGap {
		d.Marks[at].many(x, text, e)
		return
	}
	if len(d.Marks) >= mostMarks {
		return
	}
	m := mark{X: percentOf(x), Text: text, Class: class, Y: markRow * markRows[e.Kind], Lease: e.Lease, Title: clock(e.At) + " " + text, Lines: []string{percentOf(x)}, at: x, line: x, n: 1}
	if e.Found != "" {
		m.Title += ": " + clip(shown(e.Found), 200)
	}
	last[e.Kind] = len(d.Marks)
	d.Marks = append(d.Marks, m)
}

// markGap has marks of one kind that are closer share their text, in percent; lineGap their line.
const (
	markGap = 11
	lineGap = 0.4
)

// many notes that a mark stands for one more.
func (m *mark) many(x float64, text string, e *sqllease.RecordedEvent) {
	if x-m.line >= lineGap {
		m.Lines, m.line = append(m.Lines, percentOf(x)), x
	}
	if m.n++; e.Kind == sqllease.EventLimit {
		m.Text = text // the last one counts
		return
	}
	m.Text = fmt.Sprintf("%s ×%d", e.Kind, m.n)
}

// clock is a time of day, as the picture's axis has it.
func clock(t time.Time) string { return t.Local().Format("15:04:05") }

// change is a caller who comes, or goes.
type change struct {
	at time.Time
	by int
}

// drawQueue draws how many waited.
func (d *painter) drawQueue() {
	rec := &d.pool.recording
	var changes []change
	lost := map[int]map[string]int{}
	fails := func(at time.Time, why string) {
		if x := d.x(at); x >= 0 && x <= 100 {
			column := int(x / 2)
			if lost[column] == nil {
				lost[column] = map[string]int{}
			}
			lost[column][why]++
		}
	}
	for _, all := range [][]sqllease.RecordedLease{rec.Leases, rec.Waiting} {
		for i := range all {
			l := &all[i]
			if !d.wanted(l) {
				continue
			}
			if l.Acquired.IsZero() && !l.End.IsZero() {
				fails(l.End, "no connection: "+shown(string(l.Outcome)))
			}
			if until := l.Start.Add(l.Queue); l.Queue > 0 && until.After(d.From) && l.Start.Before(d.To) {
				changes = append(changes, change{l.Start, 1})
				if until.Before(d.To) {
					changes = append(changes, change{until, -1})
				}
			}
		}
	}
	for i := range rec.Events {
		if e := &rec.Events[i]; e.Kind == sqllease.EventDialFailed {
			fails(e.At, "dial failed: "+shown(e.Why))
		}
	}
	d.drawSteps(changes)
	d.drawLost(lost)
}

// drawSteps draws the area: in each column the most who waited in it.
func (d *painter) drawSteps(changes []change) {
	const wide = 400
	slices.SortFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	var steps [wide]int
	now, next := 0, 0
	for column := range steps {
		until := d.From.Add(time.Duration(column+1) * d.To.Sub(d.From) / wide)
		steps[column] = now
		for ; next < len(changes) && changes[next].at.Before(until); next++ {
			now += changes[next].by
			steps[column] = max(steps[column], now)
		}
		d.Queue.Peak = max(d.Queue.Peak, steps[column])
	}
	if d.Queue.Peak == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("M0 100")
	for column, n := range steps {
		if column > 0 && steps[column-1] == n {
			continue
		}
		fmt.Fprintf(&b, "H%dV%d", column*10000/wide, 100-int(math.Round(100*float64(n)/float64(d.Queue.Peak))))
	}
	b.WriteString("H10000V100z")
	d.Queue.D = b.String()
}

func (d *painter) drawLost(lost map[int]map[string]int) {
	for column, of := range lost {
		var texts []string
		for why, n := range of {
			texts = append(texts, fmt.Sprintf("%d × %s", n, why))
		}
		slices.Sort(texts)
		d.Queue.Lost = append(d.Queue.Lost, mark{X: percentOf(float64(column)*2 + 1), Text: "×", Title: strings.Join(texts, "\n"), Y: d.Queue.Y + 12})
	}
	slices.SortFunc(d.Queue.Lost, func(a, b mark) int { return strings.Compare(a.X, b.X) })
}

// drawTicks draws the axis: four or five times that are round.
func (d *painter) drawTicks() {
	span := d.To.Sub(d.From)
	step := time.Second
	for _, s := range []time.Duration{time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 15 * time.Second, 30 * time.Second,
		time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, 30 * time.Minute} {
		if step = s; span/s <= 5 {
			break
		}
	}
	for at := d.From.Truncate(step).Add(step); at.Before(d.To); at = at.Add(step) {
		if x := d.x(at); x >= 8 && x <= 92 {
			d.Ticks = append(d.Ticks, tick{percentOf(x), clock(at)})
		}
	}
}
