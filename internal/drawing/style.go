package drawing

import (
	"fmt"
	"strings"
)

// Color is one of those that a picture may use for what it shows.
type Color string

// The colours differ for people who see no red, no green or no blue as well.
const (
	Blue   Color = "blue"
	Orange Color = "orange"
	Grey   Color = "grey"
	Plum   Color = "plum"
)

// palette has each colour for light pages and for dark ones. The last ones are
// for docs/acquire.svg, which is drawn by hand.
var palette = []struct{ name, light, dark string }{
	{"text", "#1f2328", "#f0f6fc"},
	{"quiet", "#59636e", "#9198a1"},
	{"grid", "#d0d7de", "#3d444d"},
	{"axis", "#818b98", "#818b98"},
	{"blue", "#0969da", "#4493f8"},
	{"orange", "#bc4c00", "#f0883e"},
	{"grey", "#848d97", "#7d8590"},
	{"plum", "#3b2e58", "#d2b8ff"},
	{"gold", "#8a6100", "#d29922"},
	{"violet", "#6e5494", "#ab7df8"},
	{"green", "#1a7f37", "#3fb950"},
	{"red", "#cf222e", "#f85149"},
	{"slate", "#59636e", "#9198a1"},
	{"page", "#ffffff", "#0d1117"},
}

// rules is the style of all pictures. A colour is a class of its own, so that a
// bar and the name beside it are "orange bar" and "orange name".
const rules = `
text { font-family: -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; font-size: 15px }
.title { font-size: 17px; font-weight: 600 }
.name { font-weight: 600 }
.small { font-size: 14px }
.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; font-size: 14px }
.mid { text-anchor: middle }
.end { text-anchor: end }
.text { fill: var(--text) }
.quiet { fill: var(--quiet) }
.frame { fill: none; stroke: var(--grid) }
.grid { stroke: var(--grid) }
.axis { stroke: var(--axis) }
.arrow { fill: var(--axis) }
.blue { color: var(--blue) }
.orange { color: var(--orange) }
.grey { color: var(--grey) }
.plum { color: var(--plum) }
.gold { color: var(--gold) }
.violet { color: var(--violet) }
.green { color: var(--green) }
.red { color: var(--red) }
.slate { color: var(--slate) }
.idle { color: var(--grid) }
.inbar { fill: var(--page) }
.bar, .label { fill: currentColor }
.mark { fill: none; stroke: currentColor; stroke-width: 2 }
.whole { fill: currentColor; fill-opacity: 0.2; stroke: currentColor; stroke-width: 1.5 }
.line { fill: none; stroke: currentColor; stroke-width: 2.5; stroke-linejoin: round }
.dashed { stroke-dasharray: 7 4 }
.dotted { stroke-dasharray: 2 3 }
.mixed { stroke-dasharray: 9 3 2 3 }
`

// style is the style sheet: the palette, and the rules.
func style() string {
	var light, dark, out strings.Builder
	for _, c := range palette {
		fmt.Fprintf(&light, "--%s: %s; ", c.name, c.light)
		fmt.Fprintf(&dark, "--%s: %s; ", c.name, c.dark)
	}
	fmt.Fprintf(&out, "    :root { %s}\n    @media (prefers-color-scheme: dark) { :root { %s} }\n", light.String(), dark.String())
	for rule := range strings.Lines(strings.TrimPrefix(rules, "\n")) {
		out.WriteString("    " + rule)
	}
	return out.String()
}

// look is how a series is drawn: a line has three signs that tell it apart.
type look struct {
	color  Color
	dashes string                    // the class of the line
	marker func(x, y float64) string // the shape of its points
}

// looks are those of the first, the second, … series of a chart.
var looks = []look{
	{Blue, "", circle},
	{Orange, "dashed", square},
	{Grey, "dotted", triangle},
	{Plum, "mixed", diamond},
}

// lookOf returns that of a series.
func lookOf(i int) look {
	if i >= len(looks) {
		panic(fmt.Sprintf("drawing: series %d; only %d can be told apart", i+1, len(looks)))
	}
	return looks[i]
}

func circle(x, y float64) string {
	return fmt.Sprintf(`<circle class="bar" cx=%q cy=%q r="4"/>`, n(x), n(y))
}

func square(x, y float64) string { return polygon(x, y, -4, -4, 4, -4, 4, 4, -4, 4) }

func triangle(x, y float64) string { return polygon(x, y, 0, -5, 5, 4, -5, 4) }

func diamond(x, y float64) string { return polygon(x, y, 0, -6, 6, 0, 0, 6, -6, 0) }

// polygon is a shape around a point.
func polygon(x, y float64, corners ...float64) string {
	var points []string
	for i := 0; i < len(corners); i += 2 {
		points = append(points, n(x+corners[i])+","+n(y+corners[i+1]))
	}
	return fmt.Sprintf(`<polygon class="bar" points=%q/>`, strings.Join(points, " "))
}
