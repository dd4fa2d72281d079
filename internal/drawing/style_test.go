package drawing

import (
	"math"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLooksDiffer(t *testing.T) {
	for i, a := range looks {
		for _, b := range looks[:i] {
			assert.NotEqual(t, a.color, b.color)
			assert.NotEqual(t, a.dashes, b.dashes)
			assert.NotEqual(t, a.marker(0, 0), b.marker(0, 0))
		}
	}
}

// schemes are the colours of light pages and of dark ones, by name.
func schemes() map[string]map[string]rgb {
	light, dark := map[string]rgb{}, map[string]rgb{}
	for _, c := range palette {
		light[c.name], dark[c.name] = parse(c.light), parse(c.dark)
	}
	return map[string]map[string]rgb{"light": light, "dark": dark}
}

func TestColoursCanBeReadOnThePage(t *testing.T) {
	for scheme, colors := range schemes() {
		for _, name := range []string{"text", "quiet", "blue", "orange", "red"} {
			assert.GreaterOrEqual(t, contrast(colors[name], colors["page"]), 4.5, "%s as text, %s", name, scheme)
		}
		for _, name := range []string{"grey", "plum"} {
			assert.GreaterOrEqual(t, contrast(colors[name], colors["page"]), 3.0, "%s as a bar, %s", name, scheme)
		}
		for _, name := range []string{"blue", "orange", "gold", "violet", "green", "slate"} {
			assert.GreaterOrEqual(t, contrast(colors["page"], colors[name]), 4.5, "text in a bar of %s, %s", name, scheme)
		}
		assert.GreaterOrEqual(t, contrast(colors["text"], colors["grid"]), 4.5, "text in an idle bar, %s", scheme)
	}
}

// TestColoursDifferForEveryEye compares the colours of series as people see them
// who lack one of the three kinds of cones, by Machado's matrices (2009).
func TestColoursDifferForEveryEye(t *testing.T) {
	eyes := map[string][3]rgb{
		"all":      {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
		"no red":   {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
		"no green": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
		"no blue":  {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
	}
	for scheme, colors := range schemes() {
		for eye, matrix := range eyes {
			for i, a := range looks {
				for _, b := range looks[:i] {
					seen := distance(colors[string(a.color)].seen(matrix), colors[string(b.color)].seen(matrix))
					assert.Greater(t, seen, 20.0, "%s and %s, %s page, %s", a.color, b.color, scheme, eye)
				}
			}
		}
	}
}

// rgb is a colour, in linear light.
type rgb [3]float64

func parse(hex string) (c rgb) {
	for i := range c {
		v, err := strconv.ParseUint(hex[1+2*i:3+2*i], 16, 8)
		if err != nil {
			panic(err)
		}
		c[i] = linear(float64(v) / 255)
	}
	return c
}

func linear(v float64) float64 {
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}

func (c rgb) dot(o rgb) float64 { return c[0]*o[0] + c[1]*o[1] + c[2]*o[2] }

// seen is the colour to an eye.
func (c rgb) seen(eye [3]rgb) rgb {
	return rgb{max(0, eye[0].dot(c)), max(0, eye[1].dot(c)), max(0, eye[2].dot(c))}
}

func (c rgb) luminance() float64 { return c.dot(rgb{0.2126, 0.7152, 0.0722}) }

// contrast is that of WCAG, from 1 to 21.
func contrast(a, b rgb) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// lab is a colour in CIELAB, where 1 is about the least difference that is seen.
func (c rgb) lab() rgb {
	f := func(v float64) float64 {
		if v > 0.008856 {
			return math.Cbrt(v)
		}
		return 7.787*v + 16.0/116
	}
	x, y, z := f(c.dot(rgb{0.4124, 0.3576, 0.1805})/0.9505), f(c.luminance()), f(c.dot(rgb{0.0193, 0.1192, 0.9505})/1.089)
	return rgb{116*y - 16, 500 * (x - y), 200 * (y - z)}
}

func distance(a, b rgb) float64 {
	p, q := a.lab(), b.lab()
	return math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2])
}
