package goroutines

import (
	"bytes"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// What the runtime prints of a goroutine:
//
//	goroutine 34 [chan receive (leaked), 3 minutes, locked to thread, synctest bubble 5] {label: value}:
//	main.(*shop).export(0xc000012345, {0x0?, 0x1})
//		/src/demo/app.go:150 +0x1d
//	...additional frames elided...
//	created by main.main in goroutine 1
//		/src/demo/main.go:12 +0x2c7
//
// Versions of Go differ in what the first line has. What is not understood is left out, and
// nothing is guessed.

// Goroutine is what one of them did.
type Goroutine struct {
	Number  uint64
	State   string          // as the runtime says it: "chan receive", "select", "IO wait", "running"
	Leaked  bool            // the runtime has proven that nothing can wake it
	For     time.Duration   // at least for how long it has been so; 0: not known, or less than a minute
	Frames  []runtime.Frame // innermost first; only Function, File and Line are known
	Cut     bool            // frames are missing
	Creator uint64          // the number of the goroutine that created it; 0: not known
	Created string          // the function that did; empty: not known
}

var (
	between = []byte("\n\n")
	prefix  = []byte("goroutine ")
)

// read finds the goroutines in what was printed. If that is not whole, the last one is not
// either.
func read(text []byte, whole bool) *Look {
	l := &Look{records: map[uint64][]byte{}, complete: whole}
	for len(text) > 0 {
		record, rest, more := bytes.Cut(text, between)
		text = rest
		if !more && !whole {
			break
		}
		number, ok := numberOf(record)
		if !ok {
			l.complete = false
			continue
		}
		if _, twice := l.records[number]; twice {
			l.complete, record = false, nil
		}
		l.records[number] = record
	}
	return l
}

func numberOf(record []byte) (number uint64, ok bool) {
	rest, ok := bytes.CutPrefix(record, prefix)
	if !ok {
		return 0, false
	}
	digits, _, _ := bytes.Cut(rest[:min(len(rest), 21)], []byte(" "))
	number, err := strconv.ParseUint(string(digits), 10, 64)
	return number, err == nil && digits[0] != '0'
}

// parse reads one record; false: its first line is not understood.
func parse(record string) (g Goroutine, ok bool) {
	header, rest, _ := strings.Cut(record, "\n")
	if g, ok = parseHeader(header); !ok {
		return Goroutine{}, false
	}
	lines := strings.Split(strings.TrimSuffix(rest, "\n"), "\n")
	for len(lines) > 0 {
		line := lines[0]
		lines = lines[1:]
		if created, is := strings.CutPrefix(line, "created by "); is {
			g.Created, g.Creator = parseCreated(created)
			break
		}
		if strings.HasPrefix(line, "...") || strings.HasPrefix(line, "\tgoroutine running") {
			g.Cut = true // "...23 frames elided...", "goroutine running on other thread; stack unavailable"
			continue
		}
		frame, understood := runtime.Frame{}, false
		if len(lines) > 0 {
			frame, understood = parseFrame(line, lines[0])
		}
		if !understood {
			g.Cut = g.Cut || line != ""
			break
		}
		g.Frames = append(g.Frames, frame)
		lines = lines[1:]
	}
	return g, true
}

func parseHeader(line string) (g Goroutine, ok bool) {
	before, rest, found := strings.Cut(line, " [")
	number, known := numberOf([]byte(before + " "))
	inside, after, closed := strings.Cut(rest, "]")
	if !found || !known || !closed || !strings.HasSuffix(line, ":") {
		return g, false
	}
	if labelled, _, has := strings.Cut(inside, " labels:{"); has { // Go 1.26: a label may have brackets itself
		inside = labelled
	} else if after != ":" && !strings.HasPrefix(after, " {") {
		return g, false
	}
	g.Number = number
	parts := strings.Split(inside, ", ")
	g.State = parts[0]
	for _, note := range []string{" (scan)", " (durable)", " (leaked)", " (durable)", " (scan)"} {
		state, has := strings.CutSuffix(g.State, note)
		g.State = state
		g.Leaked = g.Leaked || has && note == " (leaked)"
	}
	for _, part := range parts[1:] {
		if digits, is := strings.CutSuffix(part, " minutes"); is {
			g.For = minutes(digits)
		}
	}
	return g, g.State != ""
}

// minutes are at most some thousand years, or none.
func minutes(digits string) time.Duration {
	n, err := strconv.ParseUint(digits, 10, 27)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Minute //nolint:gosec // it has 27 bits
}

// parseCreated reads what follows "created by".
func parseCreated(line string) (function string, creator uint64) {
	function, digits, found := strings.Cut(line, " in goroutine ")
	if !found {
		return function, 0
	}
	creator, _ = strconv.ParseUint(digits, 10, 64)
	return function, creator
}

// parseFrame reads the two lines of a call.
func parseFrame(call, place string) (f runtime.Frame, ok bool) {
	arguments := strings.LastIndexByte(call, '(')
	place, indented := strings.CutPrefix(place, "\t")
	if arguments <= 0 || !strings.HasSuffix(call, ")") || !indented {
		return f, false
	}
	if offset := strings.LastIndex(place, " +0x"); offset >= 0 {
		place = place[:offset]
	}
	colon := strings.LastIndexByte(place, ':')
	if colon <= 0 {
		return f, false
	}
	line, err := strconv.ParseUint(place[colon+1:], 10, 31)
	if err != nil {
		return f, false
	}
	return runtime.Frame{Function: call[:arguments], File: place[:colon], Line: int(line)}, true //nolint:gosec // it has 31 bits
}
