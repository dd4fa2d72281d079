package drawing

import "fmt"

// Bars is a chart of bars, in groups below each other: a group has a bar of each
// series, and stands in every measure, side by side.
type Bars struct {
	Heading
	Series   []string
	Groups   []string
	Measures []Measure
}

// Measure is what the bars of a column tell.
type Measure struct {
	Name   string
	Format string      // of a value, such as %.1f
	Values [][]float64 // of each group, those of each series
}

// The measures of a group of bars.
const (
	barRow   = 17.0 // a bar, with the gap below it
	barThick = 11.0
	barName  = 21.0 // the name of the group, above its bars
	barGap   = 9.0  // between groups, and half of it between columns
)

// SVG returns the picture.
func (c Bars) SVG() string {
	var s sheet
	top := s.heading(c.Heading)
	names := margin + widest(c.Series, smallSize) + 10
	column := (width - margin - names + 2*barGap) / float64(len(c.Measures))
	for m, measure := range c.Measures {
		s.text(names+column*float64(m), top+14, "text name", measure.Name)
	}
	y := top + 22
	for g, group := range c.Groups {
		s.text(margin, y+14, "text name", group)
		y += barName
		for i, name := range c.Series {
			s.text(margin, y+barRow*float64(i)+barThick, "text small", name)
		}
		for m, measure := range c.Measures {
			measure.group(&s, g, names+column*float64(m), y, column-2*barGap)
		}
		y += barRow*float64(len(c.Series)) + barGap
	}
	return s.finish(c.Heading, y+4)
}

// group draws the bars of a group, each with its value.
func (m Measure) group(s *sheet, g int, left, top, wide float64) {
	scale := m.scale(wide)
	for i, v := range m.Values[g] {
		y := top + barRow*float64(i)
		s.bar(lookOf(i).color, "bar", left, y, v*scale, barThick)
		s.text(left+v*scale+6, y+barThick, "text small", m.text(v))
	}
	s.rule("axis", left, top-3, left, top+barRow*float64(len(m.Values[g]))-3)
}

func (m Measure) text(v float64) string { return fmt.Sprintf(m.Format, v) }

// scale is how long a bar of 1 is, so that the longest has room for its value.
func (m Measure) scale(column float64) float64 {
	longest, room := 0.0, 0.0
	for _, values := range m.Values {
		for _, v := range values {
			longest, room = max(longest, v), max(room, textWidth(m.text(v), smallSize))
		}
	}
	if longest == 0 {
		return 0
	}
	return (column - room - 6) / longest
}

// widest is the room that the longest of some texts takes.
func widest(texts []string, size float64) (w float64) {
	for _, text := range texts {
		w = max(w, textWidth(text, size))
	}
	return w
}
