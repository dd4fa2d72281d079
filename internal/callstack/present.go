package callstack

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
)

// Present is the stack of a goroutine that somebody else looked at: what it does at this
// moment. A stack that was captured begins in the library; this one begins wherever the
// goroutine is.
type Present struct {
	Inner []runtime.Frame // what the application's line called, innermost first; all, where there is no such line
	outer []runtime.Frame // that line and what called it, up to where a server calls the application
	own   bool            // there is one
}

// PresentOf finds the application's line among the calls of a goroutine, innermost first. It
// is the innermost one of the application's own that is not below a call of database/sql. If
// all are those of modules that it depends on, it is the innermost of theirs.
func PresentOf(frames []runtime.Frame) Present {
	frames = trimRuntime(frames)
	from := slices.IndexFunc(frames, isWrapping) + 1 // what a driver does there is not the application's
	site := indexFrom(frames, from, func(f runtime.Frame) bool { return isOwn(f) && !isStandard(f) })
	if site < 0 {
		site = indexFrom(frames, from, func(f runtime.Frame) bool {
			return !isPlumbing(f) && !isStandard(f) && !strings.HasPrefix(f.Function, "testing.")
		})
	}
	if site < 0 {
		return Present{Inner: frames}
	}
	return Present{Inner: frames[:site], outer: withoutServer(frames[site:]), own: true}
}

func indexFrom(frames []runtime.Frame, from int, is func(runtime.Frame) bool) int {
	if i := slices.IndexFunc(frames[from:], is); i >= 0 {
		return from + i
	}
	return -1
}

// isWrapping tells whether a frame stands between an application and its driver.
func isWrapping(f runtime.Frame) bool {
	return isPlumbing(f) && !strings.HasPrefix(f.Function, "runtime.")
}

// Site is the application's line, as [Stack.Site] has it; empty: there is none.
func (p Present) Site() string {
	if !p.own {
		return ""
	}
	return place(p.outer[0])
}

// Calls tells whether the application's line called that function, by the beginning of its
// name, or the goroutine began with it.
func (p Present) Calls(function string) bool {
	return slices.ContainsFunc(p.Inner, func(f runtime.Frame) bool { return strings.HasPrefix(f.Function, function) })
}

// InDatabase tells whether it is in a call of database/sql, or of the library's.
func (p Present) InDatabase() bool { return slices.ContainsFunc(p.Inner, isWrapping) }

// String lists the calls as Go prints a goroutine, each in two lines.
func (p Present) String() string {
	var b strings.Builder
	for _, f := range slices.Concat(p.Inner, p.outer) {
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
	}
	return b.String()
}

// Line lists them in one line, each as Site has it.
func (p Present) Line() string {
	var calls []string
	for _, f := range slices.Concat(p.Inner, p.outer) {
		calls = append(calls, place(f))
	}
	return strings.Join(calls, " < ")
}

// standardRoot is the folder of the standard library; empty: its files are known without one,
// as with go build -trimpath.
var standardRoot = func() string {
	index := reflect.ValueOf(strings.Index).Pointer()
	file, _ := runtime.FuncForPC(index).FileLine(index)
	return strings.TrimSuffix(file, "strings/strings.go")
}()

// standard are the first elements of the paths of its packages.
const standard = " archive bufio bytes cmp compress container context crypto database debug embed encoding errors expvar flag fmt go hash" +
	" html image index internal io iter log maps math mime net os path plugin reflect regexp runtime slices sort strconv strings" +
	" structs sync syscall testing text time unicode unique unsafe vendor weak "

// isStandard tells whether a frame is of the standard library.
func isStandard(f runtime.Frame) bool {
	if standardRoot != "" {
		return strings.HasPrefix(f.File, standardRoot)
	}
	first, _, _ := strings.Cut(packageOf(f.Function), "/")
	return strings.Contains(standard, " "+first+" ")
}
