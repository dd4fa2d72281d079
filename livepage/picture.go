package livepage

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// The picture: a track for each connection that is open, a bar for each lease, the queue below. It is bounded:
// of tracks, of bars, of those that are links of their own. What does not fit falls together: leases
// that are on one column of the picture become one bar, which shows how much of its time was used.

const (
	mostTracks = 40   // unless all are asked for
	allTracks  = 1000 // then
	mostBars   = 4000 // in all
	mostLinks  = 200  // of them are drawn one by one, with a link and a text
	mostMarks  = 60
	mostEnds   = 300
	columns    = 500 // the most that are told apart
	shortest   = 0.2 // percent of the width, of a bar
	linkFrom   = 0.5 // percent: from this width on, a bar is a link
)

// picture is what is drawn. X and widths are percent, y and heights are pixels.
type picture struct {
	From, To      time.Time
	Tracks        []track
	Hidden        int       // connections that are not drawn
	Bars          []bar     // those that are links
	Paths         []outline // all others, and what belongs to them
	Ends          []end
	Marks         []mark
	Ticks         []tick
	Queue         queue
	Unrecorded    string // the width of the part that was not recorded; empty: there is none
	Top, Bottom   int    // of the tracks
	Height, Pitch int
	Lower         int // from the top of the tracks to the end
	Drawn         int // bars, in all
	Merged        int // leases that fell together with others
}

// track has the connections of one line: each was opened after the one before it was closed.
type track struct {
	Connection, Server uint64 // the last one
	Y, Mid             int
	Out                bool
	stays              []*stay
}

// bar is a lease, or what fell together.
type bar struct {
	X, W, Text string
	Y          int
	Lease      uint64
	Parts      []part
	Tx         string // "most", "part" of it was in a transaction; empty: it was not
	Name       string // what stands in it
	Class      string
}

// part is a share of a bar, of its whole width or from a time on.
type part struct {
	Class, X, W string
	Y, H        string
}

// outline is many shapes at once, in a box that is 10000 wide.
type outline struct{ Class, D string }

type end struct {
	X, Text string
	Y       int
	Bad     bool
}

type mark struct {
	X, Text, Title, Class string
	Y                     int
	Lease                 uint64   // of the first
	Lines                 []string // where it has lines
	at, line              float64  // where it stands, and the last of its lines
	n                     int      // how many it stands for
}

type tick struct{ X, Text string }

// queue is how many callers waited.
type queue struct {
	D    string // in a box of 10000 by 100
	Peak int
	Lost []mark // acquires, and dials, that failed
	Y    int
}

const (
	markRow     = 13
	queueHeight = 46
	axisHeight  = 20
)

// rod is a bar before it is drawn.
type rod struct {
	track                  int
	from, to               time.Time
	call, rows, unused, tx time.Duration
	many                   int // leases that fell together
	lease                  *sqllease.RecordedLease
	live                   *sqllease.Lease // it is out
	leaked                 bool
}

func (r *rod) long() time.Duration { return r.to.Sub(r.from) }

// painter draws the picture of a pool.
type painter struct {
	*picture
	pool   *pool
	sites  *sites
	filter string
	at     map[uint64]int // the track of a connection
	paths  map[string]*strings.Builder
}

// draw draws it.
func draw(p *pool, s *sites, a address) *picture {
	to := p.recording.To
	d := &painter{
		picture: &picture{From: to.Add(-a.Span), To: to},
		pool:    p, sites: s, filter: strings.ToLower(a.Place), at: map[uint64]int{}, paths: map[string]*strings.Builder{},
	}
	d.Top = markRow*d.rowsOfMarks() + 6
	rods := d.collect()
	d.lay(rods, a.All)
	d.drawBars(d.merge(rods))
	d.drawEvents()
	d.drawQueue()
	d.drawTicks()
	if from := p.recording.From; from.After(d.From) {
		d.Unrecorded = percentOf(min(d.x(from), 100))
	}
	for _, class := range []string{"life", "dial", "reset", "earlier", "call", "rows", "unused", "tx"} {
		if b := d.paths[class]; b != nil {
			d.Paths = append(d.Paths, outline{class, b.String()})
		}
	}
	return d.picture
}

// x is where a time is, in percent; it may be outside.
func (d *painter) x(t time.Time) float64 {
	return 100 * float64(t.Sub(d.From)) / float64(d.To.Sub(d.From))
}

func percentOf(x float64) string { return fmt.Sprintf("%.2f%%", x) }

// collect are the leases in the picture, by connection.
func (d *painter) collect() map[uint64][]rod {
	rods := map[uint64][]rod{}
	rec := &d.pool.recording
	for i := range rec.Leases {
		l := &rec.Leases[i]
		if l.Acquired.IsZero() || !l.End.After(d.From) || !l.Acquired.Before(d.To) || !d.wanted(l) {
			continue
		}
		rods[l.Connection] = append(rods[l.Connection], rod{
			from: l.Acquired, to: l.End, call: max(0, l.End.Sub(l.Acquired)-l.Reading-l.Unused), rows: l.Reading, unused: l.Unused, tx: l.Transaction, many: 1, lease: l,
		})
	}
	leaked := map[uint64]bool{}
	for i := range d.pool.Out {
		leaked[d.pool.Out[i].Lease] = d.pool.Out[i].Leaked
	}
	for i := range rec.Out {
		l := &rec.Out[i]
		if !l.Acquired.IsZero() && d.wanted(l) {
			rods[l.Connection] = append(rods[l.Connection], rod{from: l.Acquired, to: d.To, many: 1, lease: l, live: d.pool.leases[l.ID], leaked: leaked[l.ID]})
		}
	}
	for _, of := range rods {
		slices.SortFunc(of, func(a, b rod) int { return a.from.Compare(b.from) })
	}
	return rods
}

// wanted tells whether the place of a lease is asked for.
func (d *painter) wanted(l *sqllease.RecordedLease) bool {
	if d.filter == "" {
		return true
	}
	at := d.sites.of(l.Stack)
	return strings.Contains(strings.ToLower(at.Place+" "+at.Function), d.filter)
}

// merge has what falls on one column fall together, and takes fewer columns until all fits.
func (d *painter) merge(rods map[uint64][]rod) (all []rod) {
	for most := columns; ; most /= 2 {
		all = all[:0]
		width := d.To.Sub(d.From) / time.Duration(most)
		for i := range d.Tracks {
			for _, of := range d.Tracks[i].stays {
				all = mergeTrack(all, rods[of.number], i, width, d.From)
			}
		}
		if len(all) <= mostBars || most <= 4 {
			return all[:min(len(all), mostBars)]
		}
	}
}

func mergeTrack(all, of []rod, track int, width time.Duration, from time.Time) []rod {
	last := -1 // the column of the last one, if that is short
	for _, r := range of {
		r.track = track
		if r.long() >= width {
			all, last = append(all, r), -1
			continue
		}
		column := int(r.from.Sub(from) / width)
		if column != last || last < 0 {
			all, last = append(all, r), column
			continue
		}
		to := &all[len(all)-1]
		to.to = r.to
		to.call, to.rows, to.unused, to.tx, to.many = to.call+r.call, to.rows+r.rows, to.unused+r.unused, to.tx+r.tx, to.many+r.many
	}
	return all
}

// drawBars draws those as links that are out, then the longest, as far as there is room; of the
// others only their shapes.
func (d *painter) drawBars(rods []rod) {
	d.Drawn = len(rods)
	least := time.Duration(linkFrom / 100 * float64(d.To.Sub(d.From)))
	var links []int
	for i := range rods {
		r := &rods[i]
		if d.Merged += r.many - 1; r.many == 1 && (r.lease.End.IsZero() || r.long() >= least) {
			links = append(links, i)
		}
	}
	slices.SortFunc(links, func(a, b int) int {
		if x, y := rods[a].lease.End.IsZero(), rods[b].lease.End.IsZero(); x != y {
			if x {
				return -1
			}
			return 1
		}
		return cmp.Compare(rods[b].long(), rods[a].long())
	})
	isLink := map[int]bool{}
	for _, i := range links[:min(len(links), mostLinks)] {
		isLink[i] = true
	}
	for i := range rods {
		if isLink[i] {
			d.drawLink(&rods[i])
		} else {
			d.drawShape(&rods[i])
		}
	}
	slices.SortStableFunc(d.Bars, func(a, b bar) int { return cmp.Compare(a.Y, b.Y) }) // as the keyboard goes
}

// place is where a rod is, in percent, and where its bar is in its track.
func (d *painter) place(r *rod) (x, w float64, y, h int) {
	x = max(0, d.x(r.from))
	w = max(shortest, min(100, d.x(r.to))-x)
	x = min(x, 100-w)
	return x, w, d.Tracks[r.track].Y + 2, d.Pitch - 6
}

// shares are the parts of a bar from the bottom up: how much of its time each took.
func (r *rod) shares(y, h int) (parts []part) {
	whole := float64(max(r.long(), r.call+r.rows+r.unused, 1))
	bottom := float64(y + h)
	for _, s := range []struct {
		class string
		took  time.Duration
	}{{"call", r.call}, {"rows", r.rows}, {"unused", r.unused}} {
		if high := float64(h) * float64(s.took) / whole; high >= 0.25 {
			bottom -= high
			parts = append(parts, part{Class: s.class, Y: trimmed(bottom), H: trimmed(high)})
		}
	}
	return parts
}

func trimmed(x float64) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", x), ".0")
}

// drawShape adds a bar to the shapes.
func (d *painter) drawShape(r *rod) {
	x, w, y, h := d.place(r)
	left, wide := int(math.Round(x*100)), max(1, int(math.Round(w*100)))
	if r.lease.End.IsZero() {
		d.box("earlier", left, wide, fmt.Sprint(y), fmt.Sprint(h))
	}
	for _, p := range r.shares(y, h) {
		d.box(p.Class, left, wide, p.Y, p.H)
	}
	if r.tx > 0 {
		d.box("tx", left, wide, fmt.Sprint(y+h+1), "2")
	}
	d.drawReset(r, x, y, h)
}

// box adds a rectangle to a path.
func (d *painter) box(class string, x, w int, y, h string) {
	b := d.paths[class]
	if b == nil {
		b = &strings.Builder{}
		d.paths[class] = b
	}
	fmt.Fprintf(b, "M%d %sh%dv%sh-%dz", x, y, w, h, w)
}

// drawReset draws what came before the hold: making the connection ready.
func (d *painter) drawReset(r *rod, x float64, y, h int) {
	if w := 100 * float64(r.lease.Reset) / float64(d.To.Sub(d.From)); r.many == 1 && w >= 0.05 && x > 0 {
		d.box("reset", int(100*max(0, x-w)), int(math.Ceil(100*min(w, x))), fmt.Sprint(y+h/2-1), "3")
	}
}

// drawLink draws a bar of its own.
func (d *painter) drawLink(r *rod) {
	x, w, y, h := d.place(r)
	at := d.sites.of(r.lease.Stack)
	b := bar{X: percentOf(x), W: percentOf(w), Y: y, Lease: r.lease.ID, Text: d.textOf(r, at)}
	if w >= 5 {
		b.Name = at.Place[strings.LastIndexByte(at.Place, '/')+1:]
	}
	switch {
	case r.leaked:
		b.Class = "leaked"
	case r.lease.End.IsZero():
		b.Class = "out"
	}
	b.Parts = r.shares(y, h)
	for i := range b.Parts {
		b.Parts[i].X, b.Parts[i].W = b.X, b.W
	}
	tx := r.tx
	if r.lease.End.IsZero() {
		b.Parts = d.liveParts(r, x, w, y, h)
		if r.live != nil && r.live.InTx {
			tx = 1
		}
	}
	switch {
	case tx <= 0:
	case 2*tx >= r.long():
		b.Tx = "most"
	default:
		b.Tx = "part"
	}
	d.Bars = append(d.Bars, b)
	d.drawReset(r, x, y, h)
}

// liveParts are those of a lease that is out: what it does now, since when, and before that what
// nobody knows until it ends.
func (d *painter) liveParts(r *rod, x, w float64, y, h int) (parts []part) {
	box := func(class string, x, w float64) {
		parts = append(parts, part{class, percentOf(x), percentOf(w), fmt.Sprint(y), fmt.Sprint(h)})
	}
	if r.live == nil {
		box("earlier", x, w)
		return parts
	}
	now := min(max(x, d.x(r.live.Since)), x+w-min(w, shortest))
	if now > x {
		box("earlier", x, now-x)
	}
	class := "call"
	switch use := useOf(r.live); {
	case use == inRows:
		class = "rows"
	case use.isUnused():
		class = "unused"
	}
	box(class, now, x+w-now)
	return parts
}

// textOf is what a bar says to whoever points at it.
func (d *painter) textOf(r *rod, at site) string {
	l := r.lease
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n", at.Place, at.Function)
	held := l.Hold(d.To)
	switch {
	case !l.End.IsZero():
		fmt.Fprintf(&b, "held for %s: %s in calls, %s reading rows, %s unused", duration(held), duration(r.call), duration(r.rows), duration(r.unused))
		if r.tx > 0 {
			fmt.Fprintf(&b, "; %s in a transaction", duration(r.tx))
		}
		if l.Outcome != sqllease.OutcomeReturned {
			fmt.Fprintf(&b, "\nended: %s", shown(string(l.Outcome)))
		}
	case r.live != nil:
		fmt.Fprintf(&b, "checked out for %s, %s for %s", duration(held), useOf(r.live).words(), since(r.live.Since, d.To))
		if r.leaked {
			b.WriteString(" (reported as leaked)")
		}
	default:
		fmt.Fprintf(&b, "checked out for %s", duration(held))
	}
	if waited := l.Queue + l.Dial + l.Reset; waited >= time.Millisecond {
		fmt.Fprintf(&b, "\nwaited %s for it", duration(waited))
	}
	if l.Statement != "" {
		fmt.Fprintf(&b, "\n%s", clip(shown(l.Statement), 160))
	}
	if l.SpanContext.IsValid() {
		fmt.Fprintf(&b, "\ntrace %s", l.SpanContext.TraceID())
	}
	return b.String()
}
