package lab

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/page"
)

// rowsOf is a table of the page, by the first cell of each row.
func rowsOf(t *testing.T, name string) map[string][]string {
	_, inside, _, err := page.Block(overloadPage, name)
	require.NoError(t, err)
	rows := map[string][]string{}
	for _, line := range strings.Split(strings.TrimSpace(inside), "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		rows[cells[0]] = cells[1:]
	}
	return rows
}

// percentIn is the figure of a cell.
func percentIn(t *testing.T, cell string) float64 {
	number, _, _ := strings.Cut(cell, " ")
	share, err := strconv.ParseFloat(number, 64)
	require.NoError(t, err, cell)
	return share
}

// What the tests of this package look at is what the page says.
func TestThePageOfOverloadHasItsClaims(t *testing.T) {
	text, err := os.ReadFile(overloadPage)
	require.NoError(t, err)
	assert.Contains(t, string(text), "the pool serves at least 90 % of what it can serve, in time")
	assert.Contains(t, string(text), "Nobody is refused before\nthat, and nobody after it.")
	target := targeted(50 * ms).name
	byLoad := rowsOf(t, "overload by load")
	for i, f := range floods {
		if f.calls == 0 {
			assert.GreaterOrEqual(t, percentIn(t, byLoad[target][i]), 90.0, f.name)
		}
	}
	for _, v := range controls {
		assert.Contains(t, byLoad, v.name)
		assert.Contains(t, rowsOf(t, "overload"), v.name)
	}
	for _, v := range probed {
		require.Contains(t, rowsOf(t, "probes"), v.name)
		if v.cfg.Lanes != nil {
			assert.Equal(t, "20 of 20", rowsOf(t, "probes")[v.name][0])
		}
	}
	calm := rowsOf(t, "good times")
	for _, g := range goodTimes {
		require.Contains(t, calm, g.name)
		assert.LessOrEqual(t, percentIn(t, calm[g.name][0]), g.most())
	}
	for _, l := range laws {
		assert.Contains(t, rowsOf(t, "laws"), l.name)
	}
	for _, load := range loads {
		for _, d := range divisions(load.splits) {
			assert.Contains(t, rowsOf(t, mixedBlock(load.busy)), d.name)
		}
	}
}
