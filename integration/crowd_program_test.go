package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// play is a program: who does what, in which order, on how many sessions.
type play struct {
	seed    uint64
	members int
	limit   int
	turns   []turn
}

// turn is one step of a member, or of the world around them. What how means depends on
// the act.
type turn struct{ who, what, how int }

// theWorld is who does what is no member's.
const theWorld = -1

// randomPlay is the program of a seed.
func randomPlay(seed uint64) play {
	r := rand.New(rand.NewPCG(seed, 11))
	p := play{seed: seed, members: 2 + r.IntN(5), limit: 1 + r.IntN(3)}
	for k := range 3 {
		p.turns = append(p.turns, turn{0, actOf("prepare for all"), k + sharedStmts*r.IntN(1<<12)})
	}
	switch seed % 6 {
	case 1:
		p.openWithTwins(growing)
	case 4:
		p.openWithTwins(0)
	}
	for n := 40 + r.IntN(120); len(p.turns) < n; {
		who := r.IntN(p.members)
		what := randomAct(r)
		if acts[what].world {
			who = theWorld
		}
		// Some members do several things before the others come to their next.
		for range 1 + r.IntN(2)*r.IntN(4) {
			p.turns = append(p.turns, turn{who, what, r.IntN(1 << 16)})
			if who == theWorld {
				break
			}
			if what = randomAct(r); acts[what].world {
				break
			}
		}
	}
	return p
}

// openWithTwins puts a scene first to which chance seldom comes. Two statements of one text are on a session each.
// One loses its connection by a handover, and the other is used on that session, where it has to be prepared
// anew: since the first has failed there, after a column was added, or since the session has moved to another
// schema.
func (p *play) openWithTwins(text int) {
	p.members, p.limit = max(p.members, 4), 2
	prepare := func(k int) (how int) {
		for how = k; likely[how/8%len(likely)] != text; how += sharedStmts {
			// until it means slot and text
		}
		return how
	}
	p.turns = []turn{
		{0, actOf("take a connection"), 0}, {1, actOf("prepare for all"), prepare(0)}, {1, actOf("take a connection"), 0},
		{0, actOf("give back"), 0}, {2, actOf("prepare for all"), prepare(1)},
	}
	if text == growing {
		p.turns = append(p.turns, turn{theWorld, actOf("add a column"), 0}, turn{2, actOf("use one of all"), 1})
	}
	p.turns = append(p.turns, turn{2, actOf("take a connection"), 0}, turn{3, actOf("ask"), 0}, turn{2, actOf("give back"), 0})
	if text != growing {
		p.turns = append(p.turns, turn{3, actOf("change"), 1})
	}
	for range 3 {
		p.turns = append(p.turns, turn{3, actOf("use one of all"), 0})
	}
}

func actOf(name string) int {
	return slices.IndexFunc(acts, func(a act) bool { return a.name == name })
}

func randomAct(r *rand.Rand) int {
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	n := r.IntN(total)
	return slices.IndexFunc(acts, func(a act) bool { n -= a.weight; return n < 0 })
}

func (p play) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d members, limit %d", p.seed, p.members, p.limit)
	for i, t := range p.turns {
		fmt.Fprintf(&b, "\n%4d  %s", i, t)
	}
	return b.String()
}

func (t turn) String() string {
	return fmt.Sprintf("%s: %s %d", (&member{id: t.who}).name(), acts[t.what].name, t.how)
}

// shrunk is a shorter program that shows a difference, and that difference, as far as it is
// found in time.
func (p play) shrunk(found string, within time.Duration, differs func(play) string) (play, string) {
	end := time.Now().Add(within)
	for size := len(p.turns) / 2; size > 0; size /= 2 {
		for at := 0; at+size <= len(p.turns) && time.Now().Before(end); {
			n := p
			n.turns = slices.Delete(slices.Clone(p.turns), at, at+size)
			if d := differs(n); d != "" {
				p, found = n, d
			} else {
				at += size
			}
		}
	}
	return p, found
}
