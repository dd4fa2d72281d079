package drawing

import (
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file reads pictures as a browser does, and tells what is wrong with them.

// label is a text of a picture, and the room that it takes.
type label struct {
	box
	text  string
	size  float64
	color string // the first class
	inBar bool
}

// picture is what was read of one.
type picture struct {
	frame   box
	style   string
	labels  []label
	lines   [][]Point // of series
	bars    []box
	classes []string
	painted []string // elements that have a colour of their own, which no dark page changes
}

// read reads a picture.
func read(svg string) (p picture, err error) {
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return p, nil
		}
		if err != nil {
			return p, err
		}
		if start, ok := token.(xml.StartElement); ok {
			if err := p.element(decoder, start); err != nil {
				return p, err
			}
		}
	}
}

func (p *picture) element(decoder *xml.Decoder, start xml.StartElement) error {
	p.classes = append(p.classes, strings.Fields(attr(start, "class"))...)
	for _, paint := range []string{"fill", "stroke", "color", "style"} {
		if v := attr(start, paint); v != "" && v != "none" && !strings.HasPrefix(v, "url(#") {
			p.painted = append(p.painted, start.Name.Local+" "+paint+"="+v)
		}
	}
	switch start.Name.Local {
	case "svg":
		numbers := numbers(attr(start, "viewBox"))
		p.frame = box{numbers[0], numbers[1], numbers[2], numbers[3]}
	case "style":
		return decoder.DecodeElement(&p.style, &start)
	case "rect":
		x, y := number(start, "x"), number(start, "y")
		p.bars = append(p.bars, box{x, y, x + number(start, "width"), y + number(start, "height")})
	case "polyline":
		p.lines = append(p.lines, pairs(numbers(attr(start, "points"))))
	case "text":
		return p.text(decoder, start)
	}
	return nil
}

// text reads a text to its end, with the parts that have a style of their own.
func (p *picture) text(decoder *xml.Decoder, start xml.StartElement) error {
	var words strings.Builder
	classes := strings.Fields(attr(start, "class"))
	for depth := 1; depth > 0; {
		token, err := decoder.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.StartElement:
			depth++
			classes = append(classes, strings.Fields(attr(token, "class"))...)
		case xml.EndElement:
			depth--
		case xml.CharData:
			words.Write(token)
		}
	}
	p.classes = append(p.classes, classes...)
	l := label{text: words.String(), size: p.size(classes), color: classes[0], inBar: slices.Contains(classes, "inbar")}
	w := textWidth(l.text, l.size)
	if slices.Contains(classes, "name") || slices.Contains(classes, "title") {
		w *= bolder
	}
	x, y := number(start, "x"), number(start, "y")
	switch {
	case slices.Contains(classes, "mid"):
		x -= w / 2
	case slices.Contains(classes, "end"):
		x -= w
	}
	l.box = box{x, y - 0.75*l.size, x + w, y + 0.2*l.size}
	p.labels = append(p.labels, l)
	return nil
}

// size is that of letters of these classes.
func (p *picture) size(classes []string) float64 {
	size := sizeOf(p.style, "text")
	for _, class := range classes {
		if s := sizeOf(p.style, `\.`+class); s > 0 {
			size = s
		}
	}
	return size
}

func sizeOf(style, selector string) float64 {
	m := regexp.MustCompile(`(?m)^\s*` + selector + ` \{[^}]*font-size: (\d+)px`).FindStringSubmatch(style)
	if m == nil {
		return 0
	}
	return numbers(m[1])[0]
}

// faults tells what is wrong with a picture.
func faults(svg string) (faults []string) {
	p, err := read(svg)
	if err != nil {
		return []string{"not well formed: " + err.Error()}
	}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	for _, painted := range p.painted {
		fault("one colour for light and dark: %s", painted)
	}
	for _, unknown := range p.unknown() {
		fault("undefined: %s", unknown)
	}
	for i, l := range p.labels {
		if !l.within(p.frame) {
			fault("clipped: %q", l.text)
		}
		if l.inBar && !slices.ContainsFunc(p.bars[1:], l.within) { // the first is the frame
			fault("wider than its bar: %q", l.text)
		}
		if onPhone := l.size * 390 / (p.frame.right - p.frame.left); onPhone < 9.5 {
			fault("too small on a phone: %q, %.1f pixels", l.text, onPhone)
		}
		for _, other := range p.labels[:i] {
			if l.meets(other.box) {
				fault("overlap: %q and %q", other.text, l.text)
			}
		}
		for _, line := range p.lines {
			if slices.ContainsFunc(along(line), l.has) {
				fault("crossed by a line: %q", l.text)
			}
		}
	}
	return faults
}

// unknown are classes that have no rule, and colours that a rule uses and a scheme lacks.
func (p *picture) unknown() (unknown []string) {
	classes := slices.Compact(slices.Sorted(slices.Values(p.classes)))
	for _, class := range classes {
		if !regexp.MustCompile(`(?m)^[^{]*\.` + class + `[ ,]`).MatchString(p.style) {
			unknown = append(unknown, "."+class)
		}
	}
	light, dark, _ := strings.Cut(p.style, "prefers-color-scheme: dark")
	dark, _, _ = strings.Cut(dark, "\n")
	for _, m := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(p.style, -1) {
		for scheme, colors := range map[string]string{"light": light, "dark": dark} {
			if !strings.Contains(colors, m[1]+": #") {
				unknown = append(unknown, m[1]+", "+scheme)
			}
		}
	}
	return unknown
}

func attr(e xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func number(e xml.StartElement, name string) float64 { return numbers(attr(e, name))[0] }

// numbers are those in a text; a wrong one is a picture that no test should read.
func numbers(text string) (all []float64) {
	for _, field := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' }) {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil {
			panic(err)
		}
		all = append(all, v)
	}
	return all
}

func pairs(numbers []float64) (points []Point) {
	for pair := range slices.Chunk(numbers, 2) {
		points = append(points, Point{pair[0], pair[1]})
	}
	return points
}
