// Package drawing draws the pictures of the documentation as SVG, in one style:
// bars, lines and traces that can be read on a phone and on a screen, on a light
// page and on a dark one. It is for measurements and tests only, and it knows
// nothing of what it draws.
package drawing

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// All pictures are that wide. A phone shows them at about two thirds, so the
// smallest text, of 14, has ten pixels there.
const (
	width  = 560.0
	margin = 18.0
	inside = width - 2*margin

	titleSize = 17.0
	textSize  = 15.0
	smallSize = 14.0
)

// Heading is what stands above a chart, and what a screen reader says of it.
type Heading struct {
	Title       string
	Note        string // in smaller letters below the title
	Description string // what the picture shows, for those who cannot see it
}

// sheet is a picture while it is drawn.
type sheet struct{ body strings.Builder }

// heading draws the title and the note, and returns where there is room below.
func (s *sheet) heading(h Heading) (y float64) {
	y = margin
	for _, line := range wrap(h.Title, titleSize*bolder, inside) {
		y += 22
		s.text(margin, y-6, "text title", line)
	}
	for _, line := range wrap(h.Note, textSize, inside) {
		y += 20
		s.text(margin, y-4, "quiet", line)
	}
	return y + 8
}

// text draws a text, whose baseline begins at a point.
func (s *sheet) text(x, y float64, class, text string) {
	fmt.Fprintf(&s.body, "  <text class=%q x=%q y=%q>%s</text>\n", class, n(x), n(y), html.EscapeString(text))
}

// bar draws a bar of a colour. It has a pixel at least, so that it is seen.
func (s *sheet) bar(color Color, class string, x, y, w, h float64) {
	fmt.Fprintf(&s.body, "  <rect class=\"%s %s\" x=%q y=%q width=%q height=%q rx=\"2\"/>\n", color, class, n(x), n(y), n(max(w, 1)), n(h))
}

// rule draws a straight line that belongs to no series.
func (s *sheet) rule(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&s.body, "  <line class=%q x1=%q y1=%q x2=%q y2=%q/>\n", class, n(x1), n(y1), n(x2), n(y2))
}

// finish returns the picture.
func (s *sheet) finish(h Heading, height float64) string {
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%s" viewBox="0 0 %[1]s %[2]s" role="img" aria-labelledby="title desc">
  <title id="title">%[3]s</title>
  <desc id="desc">%[4]s</desc>
  <style>
%[5]s  </style>
  <rect class="frame" x="0.5" y="0.5" width="%[6]s" height="%[7]s" rx="10"/>
%[8]s</svg>
`, n(width), n(height), html.EscapeString(h.Title), html.EscapeString(h.Description), style(), n(width-1), n(height-1), s.body.String())
}

// n is a length, to a tenth of a pixel.
func n(v float64) string { return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64) }
