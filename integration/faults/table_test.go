package faults

import (
	"flag"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease/internal/page"
)

// document keeps the table.
const document = "../../docs/lifetime.md"

var write = flag.Bool("write", false, "write what was seen into "+document)

// blocks are the parts of the table: each is between two comments of the page.
var blocks = []block{
	{"prevented", func(e expectation) bool { return e == prevented }},
	{"followed", func(e expectation) bool { return e == followed }},
	{"the same", func(e expectation) bool { return e != prevented && e != followed && e != told }},
	{"open", func(e expectation) bool { return e == told }},
}

type block struct {
	name string
	has  func(expectation) bool
}

// faults are the cases of a block.
func (b block) faults() (all []fault) {
	for _, g := range groups {
		for _, f := range g.faults {
			if b.has(f.expect) {
				all = append(all, f)
			}
		}
	}
	return all
}

// row is what both applications saw of a fault.
type row struct {
	name        string
	bare, lease outcome
}

// table has the rows that were played.
type table struct {
	mu     sync.Mutex
	rows   map[string]row // guarded by mu; by name
	failed []string       // guarded by mu: the cases that were not as expected, and what was seen
}

func (t *table) add(r row) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows[r.name] = r
}

// ended notes a case that failed, for the last lines of the output.
func (t *table) ended(of *testing.T, f fault) {
	if !of.Failed() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[f.name] // none, if it did not get that far
	t.failed = append(t.failed, fmt.Sprintf("%s\n  bare:     %v\n  sqllease: %v", f.name, r.bare, r.lease))
}

// text is a block with the rows that were played.
func (t *table) text(b block) string {
	text := "| what happens | bare driver | sqllease |\n|---|---|---|\n"
	for _, f := range b.faults() {
		if r, played := t.rows[f.name]; played {
			text += fmt.Sprintf("| %s | %s | %s |\n", r.name, r.bare.cell(), r.lease.cell())
		}
	}
	return text
}

// write writes the rows into the page.
func (t *table) write(test *testing.T) {
	require.False(test, test.Failed(), "the page is not written: a case failed")
	for _, b := range blocks {
		for _, f := range b.faults() {
			require.Contains(test, t.rows, f.name, "the page is not written: not every case was played")
		}
	}
	for _, b := range blocks {
		require.NoError(test, page.Fill(document, b.name, t.text(b)))
	}
}

// cell is an outcome as the table has it.
func (o outcome) cell() string {
	s := fmt.Sprintf("%d of %d, %s", o.failed, o.calls, shown(o.longest))
	if o.late > 0 {
		s += fmt.Sprintf("; %d after the fault", o.late)
	}
	return s
}

// shown is a duration as a reader can use it.
func shown(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// What the page has is a row for each case, and no other.
func TestThePageHasEveryCase(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| (.*?) \| [^|]* \| [^|]* \|$`)
	for _, b := range blocks {
		_, inside, _, err := page.Block(document, b.name)
		require.NoError(t, err)
		var has, want []string
		for _, m := range rows.FindAllStringSubmatch(inside, -1)[1:] {
			has = append(has, m[1])
		}
		for _, f := range b.faults() {
			want = append(want, f.name)
		}
		assert.Equal(t, want, has, "make faults writes the page again")
	}
}
