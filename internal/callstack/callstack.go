// Package callstack captures who called: as program counters, which are recognised where
// they were seen before, and symbolised when somebody reads them; and tells goroutines
// apart. It knows how Go keeps stacks, and what stands between an application and its
// driver; it knows nothing of what is called.
package callstack

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Depth is how many program counters of a caller are kept.
const Depth = 32

// Stack is a call stack as program counters, innermost first. It costs
// nothing until one of its methods symbolises it.
type Stack []uintptr

// Capture returns the program counters of its caller's callers, skip of them left out.
// It is not inlined, since what is recognised is the stack from its caller outwards.
//
//go:noinline
func Capture(skip int) *Known {
	var walked fingerprint
	if to := landmarks.Load(); to != nil {
		walked = walkFrames(to.panics, to.entry)
	}
	if known := walked.recall(skip); known != nil {
		return known
	}
	var buf [Depth]uintptr
	pcs := buf[:runtime.Callers(skip+2, buf[:])]
	if walked.frames == 0 { // it is recognised by what was said of it, which saves memory only
		walked = fingerprintOf(pcs)
		if known := walked.recall(skip); known != nil {
			return known
		}
	}
	return walked.remember(skip, pcs)
}

// Frames symbolises the stack, inlined calls included.
func (s Stack) Frames() []runtime.Frame {
	if len(s) == 0 {
		return nil
	}
	out := make([]runtime.Frame, 0, len(s))
	for frames := runtime.CallersFrames(s); ; {
		f, more := frames.Next()
		out = append(out, f)
		if !more {
			return out
		}
	}
}

// Site is the place in the application that the stack comes from, as
// "dir/file.go:42 pkg.Func": the innermost frame that belongs neither to
// sqllease nor to database/sql nor to the Go runtime, and to no module that the
// application depends on, such as an ORM, unless there is none but these. Empty
// if there is none at all.
func (s Stack) Site() string {
	site, ok := s.SiteFrame()
	if !ok {
		return ""
	}
	return place(site)
}

// place is a frame as Site has it.
func place(f runtime.Frame) string { return location(f) + " " + path.Base(f.Function) }

// SiteFrame is that place; false: there is none.
func (s Stack) SiteFrame() (site runtime.Frame, ok bool) {
	frames := s.application()
	if len(frames) == 0 || isPlumbing(frames[0]) {
		return site, false
	}
	if i := slices.IndexFunc(frames, isOwn); i >= 0 {
		return frames[i], true
	}
	return frames[0], true
}

// Caller is the application's code that called Site, in the same form: it tells apart what goes
// through one helper. Empty: there is none.
func (s Stack) Caller() string {
	frames := withoutServer(s.application())
	site := slices.IndexFunc(frames, isOwn)
	for _, f := range frames[site+1:] {
		if site >= 0 && isOwn(f) {
			return place(f)
		}
	}
	return ""
}

// String lists the application's part of the stack, a call in two lines, as
// Go prints a goroutine: the function, then file and line. It ends where a server calls
// the application: what is further out is the same for every request.
func (s Stack) String() string {
	var b strings.Builder
	for _, f := range withoutServer(s.application()) {
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
	}
	return b.String()
}

// Line lists the same calls in one line, each as Site has it, the innermost first.
func (s Stack) Line() string {
	var calls []string
	for _, f := range withoutServer(s.application()) {
		calls = append(calls, place(f))
	}
	return strings.Join(calls, " < ")
}

// application is the stack from its first frame outside the plumbing
// outwards. A stack that is plumbing only is returned whole.
func (s Stack) application() []runtime.Frame {
	all := s.Frames()
	for i, f := range all {
		if !isPlumbing(f) {
			return trimRuntime(all[i:])
		}
	}
	return all
}

// outermost remembers the frame that a program counter is in, not one that is
// inlined there. There are as many as places that call database/sql, some in it,
// and some that goroutines begin with.
var outermost sync.Map // of uintptr to runtime.Frame

// frameOf is that frame. What a program counter is in is looked up once.
func frameOf(pc uintptr) runtime.Frame {
	if known, ok := outermost.Load(pc); ok {
		return known.(runtime.Frame)
	}
	frames := Stack{pc}.Frames() // several, where calls are inlined
	frame := frames[len(frames)-1]
	outermost.Store(pc, frame)
	return frame
}

// Outside is the stack without what is plumbing at its inner end, which differs
// by whether a connection was free. It compares equal for one place in the
// application.
func (s Stack) Outside() Stack {
	for i, pc := range s {
		if !isPlumbing(frameOf(pc)) {
			return s[i:]
		}
	}
	return s
}

// servers are packages that call an application's handlers, by way of its middleware.
var servers = []string{
	"net/http", "google.golang.org/grpc", "connectrpc.com/connect", "net/rpc",
	"github.com/gin-gonic/gin", "github.com/labstack/echo", "github.com/go-chi/chi", "github.com/gofiber/fiber", "github.com/valyala/fasthttp",
	"github.com/gorilla/mux", "github.com/julienschmidt/httprouter", "github.com/99designs/gqlgen/graphql",
}

// withoutServer is the frames up to the innermost one of a server.
func withoutServer(frames []runtime.Frame) []runtime.Frame {
	for i, f := range frames {
		if i > 0 && slices.ContainsFunc(servers, func(path string) bool { return isOfModule(f.Function, path) }) {
			return frames[:i]
		}
	}
	return frames
}

// isOfModule tells whether a function is of that package, of one below, or of a later
// major version.
func isOfModule(function, path string) bool {
	rest, ok := strings.CutPrefix(function, path)
	return ok && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "/"))
}

// trimRuntime drops the runtime's entry frames, which say nothing.
func trimRuntime(frames []runtime.Frame) []runtime.Frame {
	for len(frames) > 1 && strings.HasPrefix(frames[len(frames)-1].Function, "runtime.") {
		frames = frames[:len(frames)-1]
	}
	return frames
}

// isPlumbing reports whether a frame belongs to the layers between an
// application and its driver. To those, a test of theirs is an application.
func isPlumbing(f runtime.Frame) bool {
	if strings.HasSuffix(f.File, "_test.go") {
		return false
	}
	return strings.HasPrefix(f.Function, "github.com/sqllease/sqllease.") ||
		strings.HasPrefix(f.Function, "github.com/sqllease/sqllease/internal/callstack.") ||
		strings.HasPrefix(f.Function, "github.com/sqllease/sqllease/internal/gate.") ||
		strings.HasPrefix(f.Function, "database/sql.") ||
		strings.HasPrefix(f.Function, "runtime.")
}

// isOwn reports whether a frame belongs to the application's own code: not to
// a module in the module cache, to a vendored one, or to the server of net/http.
func isOwn(f runtime.Frame) bool {
	return !isPlumbing(f) && !strings.Contains(f.File, "@v") && !strings.Contains(f.File, "/vendor/") &&
		!strings.HasPrefix(f.Function, "net/http.") && !strings.HasPrefix(f.Function, "testing.")
}

// location is a frame's file and line, with one folder for orientation.
func location(f runtime.Frame) string {
	dir, file := path.Split(f.File)
	return fmt.Sprintf("%s:%d", path.Join(path.Base(dir), file), f.Line)
}

// On reports whether the stack is that of a goroutine which began with that function, as
// those of database/sql do on which a driver is called. Their stacks are always shallow, so that other callers pay a comparison only.
func (s Stack) On(goroutine string) bool {
	const deepest = 8
	const beginning = 3 // a goroutine's function, perhaps a wrapper of it, and the runtime's
	return len(s) <= deepest && slices.ContainsFunc(s[max(len(s)-beginning, 0):], func(pc uintptr) bool {
		return strings.HasPrefix(frameOf(pc).Function, goroutine)
	})
}

// Through is the module by which the application acquired, such as an ORM, or its package
// where that is all that is known; empty: it did so by itself.
func (s Stack) Through() string {
	site, ok := s.SiteFrame()
	if !ok {
		return ""
	}
	inner := s.application()[0]
	if inner.PC == site.PC && inner.Function == site.Function || !isOwn(site) {
		return ""
	}
	return moduleOf(inner)
}

// moduleOf is the module of a frame: "gorm.io/gorm" of one in its package callbacks. A file
// in the module cache says how much of the package's path is below the module.
func moduleOf(f runtime.Frame) string {
	pkg := packageOf(f.Function)
	_, file, found := strings.Cut(f.File, "@v")
	if !found {
		return pkg
	}
	_, below, _ := strings.Cut(path.Dir(file), "/")
	return strings.TrimSuffix(strings.TrimSuffix(pkg, below), "/")
}

// packageOf is the package of a function: "xorm.io/xorm" of "xorm.io/xorm.(*Session).Exec".
func packageOf(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	name, _, _ := strings.Cut(function[slash:], ".")
	return function[:slash] + strings.ReplaceAll(name, "%2e", ".")
}

// AcquiredBy reports whether that function of database/sql is what the
// application, or whatever else is outside of it, called.
func (s Stack) AcquiredBy(function string) bool {
	for _, f := range s.Frames() {
		if !isPlumbing(f) {
			return false
		}
		if strings.HasPrefix(f.Function, function) {
			return true
		}
	}
	return false
}

// Told is what the functions tell that stand between the application and the driver on
// this stack: all that is said of them, for each that is there. It is looked up once, so
// that there is one such table.
func (k *Known) Told(by map[string]uint32) uint32 {
	const looked = 1 << 31
	told := k.told.Load()
	if told == 0 {
		told = looked
		for _, f := range k.pcs.Frames() {
			told |= by[f.Function]
			if !isPlumbing(f) {
				break
			}
		}
		k.told.Store(told)
	}
	return told &^ looked
}
