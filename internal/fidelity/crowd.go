package fidelity

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A crowd is a program of several callers, its members, on few sessions. Every byte
// string is one: it says how many they are, what the pool is allowed, and then, three
// bytes at a time, who does what. One member takes one step at a time, and all come to
// rest before the next does, so that a member who has to wait for a connection simply
// waits until somebody else's step lets it go on.
//
// database/sql gives a connection to any of those who wait. So what can be asked of a
// program depends on its kind.

// crowdKind says what is compared.
type crowdKind int

const (
	// inLine is a program in which one member at most waits: everything that comes of
	// it is determined, and is the same bare and wrapped: who waits when, what
	// everybody gets, and what there is on the server.
	inLine crowdKind = iota
	// tidy is one in which any number wait, and every session is given back as it
	// was dialed: what each member gets is determined, and is the same.
	tidy
	// wild is one in which anything goes. What is asked is what holds for every
	// run of the bare driver: see server, and member.check.
	wild
	crowdKinds
)

func (k crowdKind) String() string { return [...]string{"in line", "tidy", "wild"}[k] }

// crowd is a program, read.
type crowd struct {
	kind     crowdKind
	members  int
	limit    int
	idle     int
	idleTime time.Duration
	nests    bool // the first member may take a second connection
	cleans   bool // whoever gives a session back leaves it as it was dialed
	twins    bool // statements have texts in common
	asks     bool // results ask their connection
	logs     bool // the calls of the driver are wanted
	steps    []instruction
}

// instruction is one step of one member, or of the world around them.
type instruction struct{ who, what, how int }

// world is who does what is no member's.
const world = -1

const (
	headBytes = 5
	stepBytes = 3
	worldByte = 8
)

var idleTimes = [...]time.Duration{0, time.Second, 5 * time.Second, time.Minute}

// readCrowd reads a program.
func readCrowd(program []byte) crowd {
	var head [headBytes]byte
	copy(head[:], program)
	c := crowd{
		kind:     crowdKind(head[0]) % crowdKinds,
		members:  2 + int(head[1]%7),
		limit:    1 + int(head[2]%3),
		idle:     int(head[3] % 4),
		idleTime: idleTimes[head[3]/4%4],
		nests:    head[4]%2 == 1,
		asks:     head[4]/2%2 == 1,
		cleans:   head[4]/4%2 == 1,
		twins:    head[4]/8%2 == 1,
	}
	c.cleans = c.cleans && c.kind == inLine || c.kind == tidy
	if c.nests {
		c.limit = max(c.limit, 2) // or else it waits for itself, for ever
	}
	for rest := program[min(headBytes, len(program)):]; len(rest) >= stepBytes; rest = rest[stepBytes:] {
		c.steps = append(c.steps, c.instruction([stepBytes]byte(rest)))
	}
	return c
}

// instruction reads a step. What the world does is every ninth, whatever the number of
// members, so that a program goes on to mean nearly the same when its head changes.
func (c *crowd) instruction(b [stepBytes]byte) instruction {
	if b[0]%9 == worldByte {
		return instruction{world, int(b[1]) % len(events), int(b[2])}
	}
	return instruction{int(b[0]%9) % c.members, int(b[1]) % len(acts), int(b[2])}
}

// bytes is the program that reads as this.
func (c *crowd) bytes() []byte {
	idleTime := 0
	for i, d := range idleTimes {
		if d == c.idleTime {
			idleTime = i
		}
	}
	flags := 0
	if c.nests {
		flags++
	}
	if c.asks {
		flags += 2
	}
	if c.cleans {
		flags += 4
	}
	if c.twins {
		flags += 8
	}
	b := []byte{byte(c.kind), byte(c.members - 2), byte(c.limit - 1), byte(c.idle + 4*idleTime), byte(flags)}
	for _, s := range c.steps {
		who := s.who
		if who == world {
			who = worldByte
		}
		b = append(b, byte(who), byte(s.what), byte(s.how))
	}
	return b
}

func (c *crowd) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d members, limit %d, idle %d, idle time %v", c.kind, c.members, c.limit, c.idle, c.idleTime)
	if c.nests {
		b.WriteString(", the first may nest")
	}
	if c.cleans {
		b.WriteString(", sessions are given back as they were dialed")
	}
	if c.twins {
		b.WriteString(", statements have twins")
	}
	if c.asks {
		b.WriteString(", results ask their connection")
	}
	for i, s := range c.steps {
		fmt.Fprintf(&b, "\n%4d  %s", i, s)
	}
	return b.String()
}

func (s instruction) String() string {
	if s.who == world {
		return fmt.Sprintf("world: %s %d", events[s.what].name, s.how)
	}
	return fmt.Sprintf("member %d: %s %d", s.who, acts[s.what].name, s.how)
}

// PrintCrowd makes a program readable.
func PrintCrowd(program []byte) string {
	c := readCrowd(program)
	return c.String()
}

// RandomCrowd is a program for Crowd.
func RandomCrowd(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	c := crowd{
		kind: crowdKind(seed % uint64(crowdKinds)), members: 2 + r.IntN(7), limit: 1 + r.IntN(3),
		idle: r.IntN(4), nests: r.IntN(4) == 0, asks: r.IntN(3) == 0, cleans: r.IntN(2) == 0, twins: r.IntN(2) == 0,
	}
	if r.IntN(3) == 0 {
		c.idleTime = idleTimes[1+r.IntN(3)]
	}
	if c.kind == inLine {
		c.members = min(c.members, 2+r.IntN(3))
	}
	if c.nests {
		c.limit = max(c.limit, 2)
	}
	for range 10 + r.IntN(120) {
		c.steps = append(c.steps, c.random(r))
	}
	return c.bytes()
}

// random is a step.
func (c *crowd) random(r *rand.Rand) instruction {
	s := instruction{r.IntN(c.members), 0, r.IntN(256)}
	if r.IntN(10) == 0 {
		s.who = world
		s.what = r.IntN(len(events))
		return s
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	for n := r.IntN(total); ; s.what++ {
		if n -= acts[s.what].weight; n < 0 {
			return s
		}
	}
}
