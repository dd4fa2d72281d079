package drawing

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "give the pictures of the documentation the style of today")

// documents are the pictures of the documentation.
func documents(t *testing.T) (files []string) {
	files, err := filepath.Glob("../../docs/*.svg")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

func TestPicturesOfTheDocumentationHaveNoFault(t *testing.T) {
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Empty(t, faults(string(text)), file)
	}
}

func TestPicturesOfTheDocumentationHaveOneStyle(t *testing.T) {
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		styled := regexp.MustCompile(`(?s)<style>\n.*  </style>`).ReplaceAllLiteralString(string(text), "<style>\n"+style()+"  </style>")
		if *update {
			require.NoError(t, os.WriteFile(file, []byte(styled), 0o644))
			continue
		}
		assert.True(t, styled == string(text), "%s has another style: go test ./internal/drawing -update", file)
	}
}

var heading = Heading{
	Title: "A title that is long enough for two lines, since it says more than a title should say",
	Note:  "A note that is long enough for two lines as well, with letters that XML does not like: a < b & c",
}

func sampleBars() Bars {
	return Bars{
		Heading: heading,
		Series:  []string{"one", "two", "the third", "four"},
		Groups:  []string{"a group with quite a long name", "another"},
		Measures: []Measure{
			{"time, µs", "%.1f", [][]float64{{1, 2, 3, 4000.5}, {0, 0, 0, 0}}},
			{"allocations", "%.0f", [][]float64{{100, 200, 300, 400}, {1, 0, 1, 0}}},
		},
	}
}

func sampleLines() Lines {
	axis := func(ticks ...float64) (a Axis) {
		for _, at := range ticks {
			a.Ticks = append(a.Ticks, Tick{at, n(at)})
		}
		return a
	}
	rising := func(name string, factor float64) Line {
		return Line{name, []Point{{1, factor}, {10, 10 * factor}, {100, 100 * factor}}}
	}
	x, y := axis(1, 10, 100), axis(1, 10, 100, 1000)
	x.Log, y.Log, x.Name = true, true, "callers"
	return Lines{Heading: heading, X: x, Y: y, Panels: []Panel{
		{"left", "a note", []Line{rising("first", 1), rising("second", 5)}},
		{"right", "another", []Line{rising("first", 5), rising("second", 1)}},
	}}
}

func sampleTrace() Trace {
	return Trace{Heading: heading, Spans: []Span{
		{"GET /", 0, time.Second, 2 * time.Second, Grey, true},
		{"SELECT orders SELECT products SELECT customers SELECT everything", 1, 1100 * time.Millisecond, 1100 * time.Millisecond, Blue, false},
		{"commit", 1, 1999 * time.Millisecond, 2 * time.Second, Blue, false},
	}}
}

func TestChartsHaveNoFault(t *testing.T) {
	for name, svg := range map[string]string{"bars": sampleBars().SVG(), "lines": sampleLines().SVG(), "trace": sampleTrace().SVG()} {
		assert.Empty(t, faults(svg), name)
	}
}

func TestFaultsAreFound(t *testing.T) {
	lines := sampleLines().SVG()
	for fault, change := range map[string][2]string{
		"not well formed":                {"</svg>", ""},
		"clipped: \"callers\"":           {">callers<", `>callers</text><text class="text" x="540" y="20">callers<`},
		"overlap: \"callers\" and \"x\"": {">callers</text>", `>callers</text><text class="quiet mid" x="304" y="430">x</text>`},
		"crossed by a line: \"first\"":   {`<polyline`, `<polyline points="0,0 560,500 0,500 560,0"/><polyline`},
		"wider than its bar: \"words\"":  {`<polyline`, `<rect x="0" y="0" width="10" height="30"/><text class="inbar" x="0" y="20">words</text><polyline`},
		"too small on a phone":           {"font-size: 14px", "font-size: 13px"},
		"undefined: .unknown":            {`"text title"`, `"text title unknown"`},
		"undefined: --blue, dark":        {"--blue: #4493f8;", ""},
		"undefined: --blue, light":       {"--blue: #0969da;", ""},
		"one colour for light and dark":  {`class="frame"`, `class="frame" fill="#ffffff"`},
	} {
		broken := strings.Replace(lines, change[0], change[1], 1)
		require.NotEqual(t, lines, broken, fault)
		assert.Contains(t, strings.Join(faults(broken), "\n"), fault)
	}
}

func TestALineHasOneColourAndItsNameToo(t *testing.T) {
	p, err := read(sampleLines().SVG())
	require.NoError(t, err)
	colors := map[string][]string{}
	for _, l := range p.labels {
		colors[l.text] = append(colors[l.text], l.color)
	}
	assert.Equal(t, []string{"blue", "blue"}, colors["first"])
	assert.Equal(t, []string{"orange", "orange"}, colors["second"])
	assert.Len(t, p.lines, 4)
}

func TestANameStandsNextToItsLine(t *testing.T) {
	chart := sampleLines()
	chart.Panels[0].Lines[1].Points = []Point{{1, 1.1}, {10, 11}, {100, 110}} // almost the same line
	p, err := read(chart.SVG())
	require.NoError(t, err)
	assert.Empty(t, faults(chart.SVG()))
	middle := func(line []Point, b box) float64 {
		least := 1e9
		for _, at := range along(line) {
			least = min(least, b.far(at))
		}
		return least
	}
	second, first := p.lines[0], p.lines[1] // the first is drawn last
	for _, l := range p.labels {
		switch {
		case l.left > width/2: // the other panel
		case l.text == "first":
			assert.Less(t, middle(first, l.box), middle(second, l.box))
		case l.text == "second":
			assert.Less(t, middle(second, l.box), middle(first, l.box))
		}
	}
}

func TestBarsAreAsLongAsTheirValues(t *testing.T) {
	chart := Bars{Heading: heading, Series: []string{"a", "b"}, Groups: []string{"g"},
		Measures: []Measure{{"m", "%.0f", [][]float64{{10, 40}}}}}
	var lengths []float64
	for _, m := range regexp.MustCompile(`bar" x="[^"]*" y="[^"]*" width="([^"]*)"`).FindAllStringSubmatch(chart.SVG(), -1) {
		lengths = append(lengths, numbers(m[1])[0])
	}
	require.Len(t, lengths, 2)
	assert.InDelta(t, 4*lengths[0], lengths[1], 0.5)
}

func TestALineEndsAtTheAxis(t *testing.T) {
	axis := Axis{Log: true, Ticks: []Tick{{At: 1}, {At: 100}}}
	assert.InDelta(t, 0.5, axis.share(10), 1e-9)
	assert.Zero(t, axis.share(0))
	assert.InDelta(t, 1, axis.share(1000), 1e-9)
}

func TestWhatCannotBeToldApartIsNotDrawn(t *testing.T) {
	chart := sampleBars()
	chart.Measures[0].Values[0] = []float64{1, 2, 3, 4, 5}
	assert.Panics(t, func() { chart.SVG() })
	same := sampleLines()
	same.Panels[0].Lines[1].Points = same.Panels[0].Lines[0].Points
	assert.Panics(t, func() { same.SVG() }, "a name would stand at two lines")
}
