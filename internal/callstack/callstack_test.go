package callstack

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// stackInner and stackOuter are small enough to be inlined.
func stackInner(skip int) Stack {
	return Capture(skip).Stack()
}

func stackOuter(skip int) Stack { return stackInner(skip) }

// stackTooLarge is not inlined.
//
//go:noinline
func stackTooLarge(skip int) Stack { return stackOuter(skip) }

// stackDeep calls itself that many times before it captures.
func stackDeep(calls int) Stack {
	if calls == 0 {
		return stackInner(0)
	}
	return stackDeep(calls - 1)
}

func TestFramesShowInlinedCalls(t *testing.T) {
	frames := stackTooLarge(0).Frames()
	_, file, line, _ := runtime.Caller(0)
	require.GreaterOrEqual(t, len(frames), 5)
	var functions []string
	for _, f := range frames[:4] {
		functions = append(functions, f.Function)
		assert.Equal(t, file, f.File)
	}
	const here = "github.com/sqllease/sqllease/internal/callstack."
	assert.Equal(t, []string{here + "stackInner", here + "stackOuter", here + "stackTooLarge", here + "TestFramesShowInlinedCalls"}, functions)
	assert.Equal(t, line-1, frames[3].Line)
	assert.Equal(t, frames[1].Line+5, frames[2].Line, "the lines are those of the calls, inlined or not")
	assert.Equal(t, "testing.tRunner", frames[4].Function)
}

func TestFramesAreLeftOutInlinedOrNot(t *testing.T) {
	for skip, innermost := range []string{"stackInner", "stackOuter", "stackTooLarge", "TestFramesAreLeftOutInlinedOrNot"} {
		frames := stackTooLarge(skip).Frames()
		require.NotEmpty(t, frames)
		assert.Equal(t, "github.com/sqllease/sqllease/internal/callstack."+innermost, frames[0].Function)
	}
}

func TestAStackIsBounded(t *testing.T) {
	deep := stackDeep(1000)
	assert.Len(t, deep, Depth)
	assert.Contains(t, deep.Site(), "callstack.stackInner", "the innermost part is kept")
}

func TestAnEmptyStackSaysNothing(t *testing.T) {
	for _, s := range []Stack{nil, {}} {
		assert.Empty(t, s.Frames())
		assert.Empty(t, s.Site())
		assert.Empty(t, s.String())
		assert.False(t, s.On("database/sql.(*DB).connectionOpener"))
	}
}

func TestAPlaceHasOneFolder(t *testing.T) {
	for file, place := range map[string]string{
		"/home/bob/shop/orders/store.go":   "orders/store.go:7",
		"example.com/shop/orders/store.go": "orders/store.go:7",
		"/store.go":                        "/store.go:7",
		"store.go":                         "store.go:7",
		"github.com/bob/shop@v1.2.3/orders/store_linux.go": "orders/store_linux.go:7",
	} {
		assert.Equal(t, place, location(runtime.Frame{File: file, Line: 7}))
	}
}

func TestPlumbingIsToldFromApplications(t *testing.T) {
	for _, c := range []struct {
		function, file string
		plumbing       bool
	}{
		{"database/sql.(*DB).Conn", "/usr/local/go/src/database/sql/sql.go", true},
		{"database/sql.(*DB).Conn.func1", "/usr/local/go/src/database/sql/sql.go", true},
		{"github.com/sqllease/sqllease.(*Connector).Connect", "/src/connector.go", true},
		{"github.com/sqllease/sqllease/internal/callstack.Capture", "/src/callstack.go", true},
		{"runtime.goexit", "/usr/local/go/src/runtime/asm_amd64.s", true},
		{"main.main", "/src/main.go", false},
		{"example.com/database/sql.Run", "/src/run.go", false},
		{"database/sqlx.Run", "/src/run.go", false},
		{"github.com/sqllease/sqllease/demo.run", "/src/demo/run.go", false},
		{"github.com/sqllease/sqllease.TestIt", "/src/it_test.go", false},
		{"runtimes.Run", "/src/run.go", false},
	} {
		assert.Equal(t, c.plumbing, isPlumbing(runtime.Frame{Function: c.function, File: c.file}), c.function)
	}
}

func TestTheSiteIsTheApplicationsOwnCode(t *testing.T) {
	for file, own := range map[string]bool{
		"/home/me/shop/orders.go": true,
		"shop/orders.go":          true,
		"/root/go/pkg/mod/gorm.io/gorm@v1.31.2/prepare_stmt.go":        false,
		"gorm.io/gorm@v1.31.2/prepare_stmt.go":                         false,
		"/home/me/shop/vendor/github.com/jmoiron/sqlx/sqlx_context.go": false,
	} {
		assert.Equal(t, own, isOwn(runtime.Frame{Function: "gorm.io/gorm.(*PreparedStmtDB).prepare", File: file}), file)
	}
	assert.False(t, isOwn(runtime.Frame{Function: "net/http.(*conn).serve", File: "net/http/server.go"}))
}

// handled is where a handler of the application's takes a connection.
func handled(taken *Stack) http.HandlerFunc {
	return func(http.ResponseWriter, *http.Request) { *taken = Capture(0).Stack() }
}

// logged is middleware of the application's.
func logged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(w, r) })
}

func TestAStackEndsWhereAServerCallsTheApplication(t *testing.T) {
	var taken Stack
	logged(handled(&taken)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	assert.Contains(t, taken.String(), "handled.func1")
	assert.NotContains(t, taken.String(), "net/http.")
	assert.NotContains(t, taken.String(), "callstack.logged", "middleware is the same for every request")
	assert.NotEmpty(t, taken.Frames())

	assert.Empty(t, withoutServer(nil))
	server := runtime.Frame{Function: "net/http.HandlerFunc.ServeHTTP"}
	assert.Len(t, withoutServer([]runtime.Frame{server, server}), 1, "what is within a server is shown")
	assert.Len(t, withoutServer([]runtime.Frame{{Function: "main.a"}, {Function: "net/httputil.b"}, {Function: "main.c"}}), 3)
	assert.Len(t, withoutServer([]runtime.Frame{{Function: "main.a"}, {Function: "github.com/go-chi/chi/v5.(*Mux).ServeHTTP"}}), 1)
}

func TestALibraryIsNamedByItsModule(t *testing.T) {
	for _, c := range []struct{ function, file, module string }{
		{"gorm.io/gorm/callbacks.BeginTransaction", "/root/go/pkg/mod/gorm.io/gorm@v1.31.2/callbacks/transaction.go", "gorm.io/gorm"},
		{"gorm.io/gorm.(*DB).Begin", "gorm.io/gorm@v1.31.2/finisher_api.go", "gorm.io/gorm"},
		{"github.com/Masterminds/squirrel.(*stmtCacher).Query", "/root/go/pkg/mod/github.com/!masterminds/squirrel@v1.5.4/stmtcacher.go", "github.com/Masterminds/squirrel"},
		{"gopkg.in/gorp%2ev1.(*DbMap).Begin", "/root/go/pkg/mod/gopkg.in/gorp.v1@v1.7.2/gorp.go", "gopkg.in/gorp.v1"},
		{"gorm.io/gorm/callbacks.BeginTransaction", "/home/me/shop/vendor/gorm.io/gorm/callbacks/transaction.go", "gorm.io/gorm/callbacks"},
	} {
		assert.Equal(t, c.module, moduleOf(runtime.Frame{Function: c.function, File: c.file}), c.file)
	}
}
