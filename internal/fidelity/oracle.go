package fidelity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Crowd runs a program of several callers on the bare driver and in another way, and
// fails the test where they differ in what is determined, or where something happens that
// must not. It then looks for a shorter program that shows the same.
func Crowd(t *testing.T, w Way, program []byte) {
	t.Helper()
	c := readCrowd(program)
	found := c.differs(t, w)
	if found == "" {
		return
	}
	c, found = c.shrunk(t, w, found)
	t.Errorf("%s\n\n%s\n\nprogram: %q", c.String(), found, c.bytes())
}

// tries is how often a program is run in which chance has a part.
func (c crowd) tries() int {
	if c.kind == inLine {
		return 1
	}
	return 2
}

// differs says what is wrong with another way; empty: nothing.
func (c crowd) differs(t *testing.T, w Way) string {
	for range c.tries() {
		b := playCrowd(t, Bare, c)
		if d := b.wrongAs(c); d != "" {
			return "BARE, and so the harness: " + d
		}
		o := playCrowd(t, w, c)
		if d := o.wrongAs(c); d != "" {
			return d
		}
		if d := c.compare(b, o); d != "" {
			if again := playCrowd(t, Bare, c); c.compare(b, again) != "" {
				return "BARE differs from bare, and so the harness: " + c.compare(b, again)
			}
			return d
		}
	}
	return ""
}

// wrongAs is what must not be, in any run of such a program.
func (p playing) wrongAs(c crowd) string {
	wrong := slices.Clone(p.wrong)
	if p.closed != (left{}) {
		wrong = append(wrong, fmt.Sprintf("left when all is closed: %v", p.closed))
	}
	// database/sql never closes the statements of a transaction that ends with
	// driver.ErrBadConn, nor those that they were made of.
	if p.last(0).statements > 0 && p.badEnds == 0 {
		wrong = append(wrong, fmt.Sprintf("left when all statements are closed: %v", p.last(0)))
	}
	if e := p.last(1); c.kind == tidy && e.locks+e.temporary+e.transactions > 0 {
		wrong = append(wrong, fmt.Sprintf("left by members who left nothing: %v", e))
	}
	return strings.Join(wrong, "\n")
}

// last is what was left at the last look but so many.
func (p playing) last(but int) left { return p.looks[len(p.looks)-1-but].left }

// compare says how two runs differ in what is determined.
func (c crowd) compare(b, o playing) string {
	var d []string
	if c.kind != wild {
		for i := range b.said {
			if at := differsAt(b.said[i], o.said[i], asGood); at >= 0 {
				d = append(d, fmt.Sprintf("member %d, from its result %d on:\n%s", i, at, sideBySide(b.said[i], o.said[i], at)))
			}
		}
	}
	if c.kind == inLine {
		d = append(d, c.compareServers(b, o)...)
	}
	return strings.Join(d, "\n")
}

// compareServers says how they differ in what there is on the server, and in who waits.
func (c crowd) compareServers(b, o playing) (d []string) {
	if at := differsAt(b.shots, o.shots, equal); at >= 0 {
		d = append(d, fmt.Sprintf("how all stand, from step %d on:\n%s", at, sideBySide(b.shots, o.shots, at)))
	}
	if len(b.looks) != len(o.looks) {
		return append(d, "there are not as many looks at the server")
	}
	// A statement may stay for as long as a twin is open. And see asGood.
	better := c.twins || !slices.EqualFunc(b.said, o.said, func(x, y []string) bool { return slices.Equal(x, y) })
	for i := range b.looks {
		if x, y := b.looks[i].left, o.looks[i].asBare(b.looks[i], better); x != y {
			d = append(d, fmt.Sprintf("on the server:\n  bare  %v\n  other %v", x, y))
		}
	}
	return d
}

// asBare is what is left, where what may differ is as the bare driver leaves it: fewer
// statements are as good, as are those that work where bare ones are broken. And at the
// last of its attempts database/sql dials beside the connections that it does not trust;
// another way may close one for that.
func (l look) asBare(b look, better bool) left {
	if l.statements < b.statements || better {
		l.statements = b.statements
	}
	if fewer := b.sessions - l.sessions; fewer == 1 && (b.desperate || l.desperate) {
		l.sessions, l.connections = b.sessions, b.connections
	}
	return l.left
}

func equal(a, b string) bool { return a == b }

// asGood is equal, but that a statement may work which with the bare driver is broken or
// forgotten for as long as the connection lives.
func asGood(bare, other string) bool {
	if bare == other {
		return true
	}
	act, what, _ := strings.Cut(bare, ": ")
	return (what == errAltered.Error() || what == errUnknown.Error()) && strings.HasPrefix(other, act+": ")
}

// differsAt is where two lists differ first; below zero: nowhere.
func differsAt(a, b []string, as func(a, b string) bool) int {
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || !as(a[i], b[i]) {
			return i
		}
	}
	return -1
}

// sideBySide shows two lists, from a little before at on.
func sideBySide(a, b []string, at int) string {
	const before, most = 3, 10
	var out strings.Builder
	line := func(list []string, i int) string {
		if i < len(list) {
			return list[i]
		}
		return "–"
	}
	from := max(at-before, 0)
	for i := from; i < min(max(len(a), len(b)), from+most); i++ {
		fmt.Fprintf(&out, "%4d  bare  %s\n      other %s\n", i, line(a, i), line(b, i))
	}
	return out.String()
}

// shrunk is a shorter program that shows a difference, and that difference: as far as a
// few hundred runs find it.
func (c crowd) shrunk(t *testing.T, w Way, found string) (crowd, string) {
	left := 400
	fails := func(n crowd) string {
		for range 2 * n.tries() { // chance may have to help
			if left--; left < 0 {
				return ""
			}
			if d := n.differs(t, w); d != "" {
				return d
			}
		}
		return ""
	}
	for size := len(c.steps) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(c.steps); {
			n := c
			n.steps = slices.Delete(slices.Clone(c.steps), at, at+size)
			if d := fails(n); d != "" {
				c, found = n, d
			} else {
				at += size
			}
		}
	}
	for _, simpler := range []func(*crowd){
		func(n *crowd) { n.asks = false }, func(n *crowd) { n.nests = false }, func(n *crowd) { n.idleTime = 0 },
		func(n *crowd) { n.idle = 2 }, func(n *crowd) { n.limit = 1 }, func(n *crowd) { n.limit = 2 },
	} {
		n := c
		if simpler(&n); n.nests && n.limit < 2 {
			continue
		}
		if d := fails(n); d != "" {
			c, found = n, d
		}
	}
	return c, found
}

// TellCrowd logs all that comes of a program, for whoever looks into a difference.
func TellCrowd(t *testing.T, w Way, program []byte) {
	t.Helper()
	c := readCrowd(program)
	c.logs = true
	t.Log(c.String())
	for name, way := range map[string]Way{"bare": Bare, "other": w} {
		p := playCrowd(t, way, c)
		t.Logf("%s:\n%s", name, strings.Join(p.calls, "\n"))
		for i, said := range p.said {
			t.Logf("%s: member %d: %s", name, i, strings.Join(said, "; "))
		}
		t.Logf("%s: wrong %q, left %v", name, p.wrong, p.looks)
	}
}
