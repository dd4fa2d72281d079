package drawing

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Lines is a chart of lines, in panels side by side that share their axes. The
// names stand beside the lines.
type Lines struct {
	Heading
	X, Y   Axis
	Panels []Panel
}

// Axis goes from its first tick to its last.
type Axis struct {
	Name  string // below the chart; the upright axis has units in its ticks
	Log   bool
	Ticks []Tick
}

// Tick is a value of an axis; it may have no label.
type Tick struct {
	At    float64
	Label string
}

// Panel is one of the charts.
type Panel struct {
	Title string
	Note  string // below the title
	Lines []Line
}

// Line is a series. Of one name, there is one in each panel, in the same order.
type Line struct {
	Name   string
	Points []Point
}

// Point is a value of a line; outside of the axes, it is drawn at their end.
type Point struct{ X, Y float64 }

// SVG returns the picture.
func (c Lines) SVG() string {
	const tall, gap, above, below = 240.0, 34.0, 44.0, 52.0
	var s sheet
	top := s.heading(c.Heading) + above
	left := margin + c.Y.labels() + 8
	wide := (width - margin - 8 - left - gap*float64(len(c.Panels)-1)) / float64(len(c.Panels))
	for _, tick := range c.Y.Ticks {
		s.text(left-8, top+tall*(1-c.Y.share(tick.At))+5, "quiet small end", tick.Label)
	}
	for i, panel := range c.Panels {
		at := left + float64(i)*(wide+gap)
		p := plot{box: box{at, top, at + wide, top + tall}, x: c.X, y: c.Y}
		s.text(at, top-30, "text name", panel.Title)
		s.text(at, top-12, "text", panel.Note)
		p.grid(&s)
		p.lines(&s, panel.Lines)
	}
	s.text((left+width-margin)/2, top+tall+below-4, "quiet small mid", c.X.Name)
	return s.finish(c.Heading, top+tall+below+10)
}

// share is where a value stands on the axis, from 0 to 1.
func (a Axis) share(v float64) float64 {
	scale := func(v float64) float64 { return v }
	if a.Log {
		scale = math.Log
	}
	first, last := a.Ticks[0].At, a.Ticks[len(a.Ticks)-1].At
	return (scale(min(max(v, first), last)) - scale(first)) / (scale(last) - scale(first))
}

// labels is the room that they take.
func (a Axis) labels() (w float64) {
	for _, tick := range a.Ticks {
		w = max(w, textWidth(tick.Label, smallSize))
	}
	return w
}

// box is a part of the picture.
type box struct{ left, top, right, bottom float64 }

func (b box) has(p Point) bool {
	return b.left <= p.X && p.X <= b.right && b.top <= p.Y && p.Y <= b.bottom
}

func (b box) meets(o box) bool {
	return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
}

func (b box) within(o box) bool {
	return o.left <= b.left && b.right <= o.right && o.top <= b.top && b.bottom <= o.bottom
}

// far is how far a point is from the middle of the box.
func (b box) far(p Point) float64 {
	return math.Hypot((b.left+b.right)/2-p.X, (b.top+b.bottom)/2-p.Y)
}

// plot is the place of a panel in the picture.
type plot struct {
	box
	x, y  Axis
	drawn [][]Point // points all along each line
	named []box     // the names beside them
}

// at is where a point is drawn.
func (p *plot) at(v Point) Point {
	return Point{p.left + p.x.share(v.X)*(p.right-p.left), p.bottom - p.y.share(v.Y)*(p.bottom-p.top)}
}

func (p *plot) grid(s *sheet) {
	for _, tick := range p.y.Ticks {
		y := p.at(Point{0, tick.At}).Y
		s.rule("grid", p.left, y, p.right, y)
	}
	for _, tick := range p.x.Ticks {
		x := p.at(Point{tick.At, 0}).X
		s.rule("grid", x, p.top, x, p.bottom)
		if tick.Label != "" {
			s.text(x, p.bottom+22, "quiet small mid", tick.Label)
		}
	}
	s.rule("axis", p.left, p.bottom, p.right, p.bottom)
}

// lines draws them, the first above the others, each with its name.
func (p *plot) lines(s *sheet, lines []Line) {
	for _, line := range lines {
		p.drawn = append(p.drawn, along(p.points(line)))
	}
	for i, line := range slices.Backward(lines) {
		p.line(s, lookOf(i), p.points(line))
	}
	for i, line := range lines {
		p.name(s, i, line)
	}
}

// points are those of a line, where they are drawn.
func (p *plot) points(line Line) (points []Point) {
	for _, v := range line.Points {
		points = append(points, p.at(v))
	}
	return points
}

// along adds points between those of a line, so close that no label is between them.
func along(line []Point) (all []Point) {
	const steps = 32
	for i := 1; i < len(line); i++ {
		from, to := line[i-1], line[i]
		for k := range steps {
			part := float64(k) / steps
			all = append(all, Point{from.X + part*(to.X-from.X), from.Y + part*(to.Y-from.Y)})
		}
	}
	return append(all, line[len(line)-1])
}

func (p *plot) line(s *sheet, l look, points []Point) {
	var line, markers strings.Builder
	for _, at := range points {
		fmt.Fprintf(&line, "%s,%s ", n(at.X), n(at.Y))
		markers.WriteString(l.marker(at.X, at.Y))
	}
	class := strings.TrimSpace("line " + l.dashes)
	fmt.Fprintf(&s.body, "  <g class=%q><polyline class=%q points=%q/>%s</g>\n", l.color, class, strings.TrimSpace(line.String()), markers.String())
}

// name writes the name of a line beside one of its points, the last that has room.
func (p *plot) name(s *sheet, i int, line Line) {
	const away = 8.0
	w := textWidth(line.Name, textSize*bolder)
	for _, at := range slices.Backward(p.points(line)) {
		for _, start := range []Point{
			{at.X - w - away, at.Y - away},          // above a line that rises
			{at.X + away, at.Y + textSize + away/2}, // and below it
			{at.X, at.Y - away},
			{at.X - w, at.Y + textSize + away/2},
		} {
			room := box{start.X, start.Y - textSize, start.X + w, start.Y + 4}
			if p.free(room) && p.nearest(room) == i {
				p.named = append(p.named, room)
				s.text(start.X, start.Y, string(lookOf(i).color)+" label name", line.Name)
				return
			}
		}
	}
	panic(fmt.Sprintf("drawing: no room for %q beside its line", line.Name))
}

// free is whether a label has room there.
func (p *plot) free(room box) bool {
	return room.within(p.box) && !slices.ContainsFunc(p.named, room.meets) &&
		!slices.ContainsFunc(p.drawn, func(line []Point) bool { return slices.ContainsFunc(line, room.has) })
}

// nearest is the line that a label there would be taken for.
func (p *plot) nearest(room box) (nearest int) {
	least := math.Inf(1)
	for i, line := range p.drawn {
		for _, at := range line {
			if far := room.far(at); far < least {
				nearest, least = i, far
			}
		}
	}
	return nearest
}
