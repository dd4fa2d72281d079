package drawing

import (
	"fmt"
	"time"
)

// Trace is a chart of spans below each other, each with its name above it.
type Trace struct {
	Heading
	Spans []Span // the first is the whole
}

// Span is a bar of a trace.
type Span struct {
	Name       string
	Depth      int // how many spans it is in
	Start, End time.Duration
	Color      Color
	Whole      bool // it is made of the spans below it
}

// SVG returns the picture.
func (c Trace) SVG() string {
	const line, thick, gap, indent = 18.0, 11.0, 9.0, 16.0
	var s sheet
	y := s.heading(c.Heading)
	all := c.Spans[0]
	scale := inside / float64(all.End-all.Start)
	for _, span := range c.Spans {
		took := milliseconds(span.End - span.Start)
		s.text(width-margin, y+14, "quiet end", took)
		left := margin + indent*float64(span.Depth)
		for _, words := range wrap(span.Name, textSize, width-margin-left-textWidth(took, textSize)-10) {
			y += line
			s.text(left, y-4, "text", words)
		}
		kind := "bar"
		if span.Whole {
			kind = "whole"
		}
		s.bar(span.Color, kind, margin+float64(span.Start-all.Start)*scale, y+2, float64(span.End-span.Start)*scale, thick)
		y += thick + gap
	}
	return s.finish(c.Heading, y+6)
}

// milliseconds is a time with as many digits as tell something.
func milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case ms < 1:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	default:
		return fmt.Sprintf("%.0f ms", ms)
	}
}
