package goroutines

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Go 1.25 to 1.27 print of one goroutine in its first line.
func TestTheFirstLineOfAGoroutine(t *testing.T) {
	for line, want := range map[string]Goroutine{
		"goroutine 1 [running]:":                                                      {Number: 1, State: "running"},
		"goroutine 34 [chan receive]:":                                                {Number: 34, State: "chan receive"},
		"goroutine 34 [chan receive, 1 minutes]:":                                     {Number: 34, State: "chan receive", For: time.Minute},
		"goroutine 7 [IO wait, 121 minutes, locked to thread]:":                       {Number: 7, State: "IO wait", For: 121 * time.Minute},
		"goroutine 7 [syscall, locked to thread]:":                                    {Number: 7, State: "syscall"},
		"goroutine 12 [select (no cases)]:":                                           {Number: 12, State: "select (no cases)"},
		"goroutine 12 [select (no cases) (leaked)]:":                                  {Number: 12, State: "select (no cases)", Leaked: true},
		"goroutine 12 [chan receive (nil chan)]:":                                     {Number: 12, State: "chan receive (nil chan)"},
		"goroutine 11 [sync.Mutex.Lock (leaked) (scan)]:":                             {Number: 11, State: "sync.Mutex.Lock", Leaked: true},
		"goroutine 9 [select (durable), synctest bubble 4]:":                          {Number: 9, State: "select"},
		"goroutine 9 [sleep (durable), 2 minutes, synctest bubble 4]:":                {Number: 9, State: "sleep", For: 2 * time.Minute},
		`goroutine 9 [select, 2 minutes labels:{"route": "/a]b, 7 minutes:"}]:`:       {Number: 9, State: "select", For: 2 * time.Minute},
		`goroutine 9 [select, 2 minutes] {route: "/a]b, 7 minutes (leaked)]", b: 1}:`: {Number: 9, State: "select", For: 2 * time.Minute},
		"goroutine 9 gp=0xc000002380 m=0 mp=0x5a2b60 [running]:":                      {Number: 9, State: "running"},
		"goroutine 18446744073709551615 [sleep]:":                                     {Number: 1<<64 - 1, State: "sleep"},
		"goroutine 5 [sleep, 99999999999999 minutes]:":                                {Number: 5, State: "sleep"},
		"goroutine 5 [a state of the future, 3 hours]:":                               {Number: 5, State: "a state of the future"},
	} {
		g, ok := parse(line + "\n")
		assert.True(t, ok, line)
		assert.Equal(t, want, g, line)
	}
	for _, line := range []string{
		"", "goroutine", "goroutine 5", "goroutine 5 [", "goroutine 5 []:", "goroutine 5 [sleep:", "goroutine 5 [sleep]", "goroutine 0 [sleep]:", "goroutine 05 [sleep]:", "goroutine -1 [sleep]:",
		"goroutine 18446744073709551616 [sleep]:", "goroutine 5x [sleep]:", "goroutine 5 [sleep] and more:", "gorouting 5 [sleep]:", " goroutine 5 [sleep]:",
	} {
		_, ok := parse(line)
		assert.False(t, ok, line)
	}
}

const printed = `goroutine 34 [select, 3 minutes]:
net/http.(*persistConn).roundTrip(0xc0001, 0x0?)
	/usr/local/go/src/net/http/transport.go:2912 +0x9c5
main.send[...](...)
	/src/demo/send.go:7
main.(*shop).export.func1({0xc000012345, 0x1}, 0x0?)
	C:/src/demo/app.go:150 +0x1d
...23 frames elided...
main.serve()
	/src/demo/app:2.go:9 +0x1d
created by main.main in goroutine 1
	/src/demo/main.go:12 +0x2c7
`

func TestTheCallsOfAGoroutine(t *testing.T) {
	g, ok := parse(printed)
	require.True(t, ok)
	assert.Equal(t, Goroutine{
		Number: 34, State: "select", For: 3 * time.Minute, Cut: true, Creator: 1, Created: "main.main",
		Frames: []runtime.Frame{
			{Function: "net/http.(*persistConn).roundTrip", File: "/usr/local/go/src/net/http/transport.go", Line: 2912},
			{Function: "main.send[...]", File: "/src/demo/send.go", Line: 7},
			{Function: "main.(*shop).export.func1", File: "C:/src/demo/app.go", Line: 150},
			{Function: "main.serve", File: "/src/demo/app:2.go", Line: 9},
		},
	}, g)

	g, ok = parse("goroutine 3 [running]:\n\tgoroutine running on other thread; stack unavailable\ncreated by main.main\n\t/a.go:1 +0x1\n")
	require.True(t, ok)
	assert.Equal(t, Goroutine{Number: 3, State: "running", Cut: true, Created: "main.main"}, g)
}

// Where a call is not understood, those before it count, and the rest is missing.
func TestCallsThatAreNotUnderstoodAreLeftOut(t *testing.T) {
	const first = "goroutine 3 [sleep]:\nmain.a(...)\n\t/a.go:1 +0x1\n"
	for _, rest := range []string{
		"main.b", "main.b()", "main.b()\n/b.go:1", "main.b()\n\t/b.go", "main.b()\n\t/b.go:x", "main.b()\n\t/b.go:-1", "main.b()\n\t:1", "()\n\t/b.go:1", "main.b\n\t/b.go:1", "\t/b.go:1\nmain.b()",
	} {
		g, ok := parse(first + rest + "\n")
		assert.True(t, ok, rest)
		assert.Equal(t, []runtime.Frame{{Function: "main.a", File: "/a.go", Line: 1}}, g.Frames, rest)
		assert.True(t, g.Cut, rest)
	}
}

func TestWhatIsMissingIsNotSaidToHaveEnded(t *testing.T) {
	const a, b = "goroutine 1 [running]:\nmain.main()\n\t/a.go:1 +0x1\n", "goroutine 2 [sleep]:\nmain.b()\n\t/b.go:1 +0x1\n"
	look := func(text string, whole bool) *Look {
		l := read([]byte(text), whole)
		l.began = 10
		return l
	}
	for _, c := range []struct {
		name   string
		look   *Look
		second bool // goroutine 2 is known
		ended  bool // goroutine 3 had ended
	}{
		{"all is there", look(a+"\n"+b, true), true, true},
		{"the end is missing", look(a+"\n"+b, false), false, false},
		{"the end is cut within a goroutine", look(a+"\n"+b[:25], false), false, false},
		{"the end is cut after a goroutine", look(a+"\n"+b+"\n", false), true, false},
		{"one is not understood", look(a+"\n"+"gorout\n\n"+b, true), true, false},
		{"one is there twice", look(a+"\n"+b+"\n"+b, true), false, false},
	} {
		_, known := c.look.Goroutine(2)
		assert.Equal(t, c.second, known, c.name)
		assert.Equal(t, c.ended, c.look.HadEnded(3, 10), c.name)
		assert.False(t, c.look.HadEnded(2, 10), c.name)
		assert.False(t, c.look.HadEnded(0, 10), "no goroutine is known: %s", c.name)
		assert.False(t, c.look.HadEnded(3, 11), "it may have begun after the look: %s", c.name)
	}
}

// Whatever is printed: what is said of a goroutine stands there.
func FuzzParse(f *testing.F) {
	f.Add(printed, true)
	f.Add(printed+"\n"+printed, true)
	f.Add(printed+"\n"+strings.Replace(printed, "34", "35", 1), false)
	f.Add("goroutine 9 [select, 2 minutes labels:{\"a\": \"]:\"}]:\nmain.a()\n\t/a.go:1 +0x1", true)
	f.Add("goroutine 9 [chan receive (leaked), locked to thread, synctest bubble 3] {k: \"]:\"}:\n[originating from goroutine 4]:\n", true)
	f.Fuzz(func(t *testing.T, text string, whole bool) {
		l := read([]byte(text), whole)
		for number := range l.records {
			require.False(t, l.HadEnded(number, 0))
			g, ok := l.Goroutine(number)
			if !ok {
				continue
			}
			require.Equal(t, number, g.Number)
			require.Contains(t, text, fmt.Sprintf("goroutine %d", number))
			require.NotEmpty(t, g.State)
			require.Contains(t, text, "["+g.State)
			require.GreaterOrEqual(t, g.For, time.Duration(0))
			if g.For > 0 {
				require.Contains(t, text, " minutes")
			}
			require.True(t, !g.Leaked || strings.Contains(text, " (leaked)"))
			require.Contains(t, text, g.Created)
			for _, frame := range g.Frames {
				require.NotEmpty(t, frame.Function)
				require.NotEmpty(t, frame.File)
				require.Contains(t, text, frame.Function+"(")
				require.Contains(t, text, "\t"+frame.File+":")
			}
		}
	})
}
