package lab

import (
	"flag"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/page"
)

// The documents that keep the tables.
const (
	sizingPage   = "../docs/sizing.md"
	overloadPage = "../docs/overload.md"
)

var write = flag.Bool("write", false, "write what was measured into "+sizingPage+" and "+overloadPage+", and their pictures")

// outcome is what was measured of a scene, and what the advisor said.
type outcome struct {
	scene
	measured measured
	advice   []sqllease.Advice // one for each recorded limit
}

func (s scene) outcome(t *testing.T, measure bool) outcome {
	o := outcome{scene: s}
	if measure {
		o.measured = s.measure(t)
	}
	for _, limit := range s.limits {
		o.advice = append(o.advice, s.advise(t, limit))
	}
	return o
}

// right tells whether an advice is the measured optimum, or a step beside it, or whether its range
// has it.
func (m measured) right(a sqllease.Advice) bool {
	best, _ := m.best()
	if a.Refused != "" {
		return false
	}
	return a.Low <= best && best <= a.High || m.step(a.Limit)-m.step(best) <= 1 && m.step(best)-m.step(a.Limit) <= 1
}

// step is the number of the limit that was tried which is next to this one.
func (m measured) step(limit int) int {
	k, _ := slices.BinarySearch(m.limits, limit)
	return k
}

func TestAdviceIsWhatEveryLimitShows(t *testing.T) {
	outcomes := make([]outcome, len(known))
	t.Run("scenes", func(t *testing.T) {
		for i, s := range known {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				outcomes[i] = s.outcome(t, true)
			})
		}
	})
	right, asked := 0, 0
	for _, o := range outcomes {
		best, collapse := o.measured.best()
		for i, a := range o.advice {
			t.Logf("%s, at %d: measured %d, collapse %d; %s", o.name, o.limits[i], best, collapse, a)
			asked++
			if o.measured.right(a) {
				right++
			} else {
				t.Logf("  WRONG")
			}
			assert.True(t, collapse == 0 || a.Limit < collapse, "%s, recorded at %d: the advice of %d is beyond the collapse at %d", o.name, o.limits[i], a.Limit, collapse)
		}
	}
	assert.GreaterOrEqual(t, 10*right, 9*asked, "%d of %d are right", right, asked)
	if *write {
		fill(t, sizingPage, "known", tableOf(outcomes)+fmt.Sprintf("\n%d of %d are right.\n", right, asked))
		draw(t, outcomes)
	}
}

func TestWhatCannotBeKnownIsRefused(t *testing.T) {
	text := "| load | recorded with | why there is no advice | the limit to try |\n|---|---|---|---|\n"
	for _, s := range unknowable {
		for i, a := range s.outcome(t, false).advice {
			t.Logf("%s, at %d: %s", s.name, s.limits[i], a)
			assert.NotEmpty(t, a.Refused, "%s, at %d: %s", s.name, s.limits[i], a)
			try := "the same"
			if a.Try > 0 {
				try = fmt.Sprint(a.Try)
			}
			text += fmt.Sprintf("| %s | %d | %s | %s |\n", s.name, s.limits[i], a.Refused, try)
		}
	}
	if *write {
		fill(t, sizingPage, "unknowable", text)
	}
}

// tableOf has a row for each scene.
func tableOf(outcomes []outcome) string {
	text := "| load | best, as measured | slower from | recorded with | advice | recorded with | advice |\n|---|---|---|---|---|---|---|\n"
	for _, o := range outcomes {
		best, collapse := o.measured.best()
		slower := "–"
		if collapse > 0 {
			slower = fmt.Sprint(collapse)
		}
		text += fmt.Sprintf("| %s | %d | %s |", o.name, best, slower)
		for i, a := range o.advice {
			text += fmt.Sprintf(" %d | %s |", o.limits[i], o.measured.cell(a))
		}
		text += "\n"
	}
	return text
}

// cell is an advice in the table.
func (m measured) cell(a sqllease.Advice) string {
	if a.Refused != "" {
		return "none: " + string(a.Refused)
	}
	s := fmt.Sprintf("%d (%d to %d)", a.Limit, a.Low, a.High)
	if !m.right(a) {
		s = "**" + s + "**"
	}
	if a.Collapse > 0 {
		s += fmt.Sprintf(", below %d", a.Collapse)
	}
	return s
}

// fill writes a block of a page.
func fill(t *testing.T, file, name, text string) {
	require.False(t, t.Failed(), "the page is not written: something failed")
	require.NoError(t, page.Fill(file, name, text))
}

// keep writes one, if that was asked for.
func keep(t *testing.T, file, name, text string) {
	if *write {
		fill(t, file, name, text)
	}
}

// What the page has is a row for each scene, and no other.
func TestThePageHasEveryScene(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (.*?) \|`)
	for name, scenes := range map[string][]scene{"known": known, "unknowable": unknowable} {
		var has, want []string
		_, inside, _, err := page.Block(sizingPage, name)
		require.NoError(t, err)
		for _, row := range rows.FindAllStringSubmatch(inside, -1)[1:] {
			has = append(has, row[1])
		}
		for _, s := range scenes {
			want = append(want, s.name)
		}
		assert.Equal(t, want, has, "make lab writes the page again")
	}
}
