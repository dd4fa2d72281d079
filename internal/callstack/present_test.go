package callstack

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// frames are calls as "function file", innermost first, all in line 7.
func frames(calls ...string) (all []runtime.Frame) {
	for _, call := range calls {
		function, file, _ := strings.Cut(call, " ")
		all = append(all, runtime.Frame{Function: function, File: strings.Replace(file, "std:", standardRoot, 1), Line: 7})
	}
	return all
}

func TestThePresentLineIsTheApplications(t *testing.T) {
	for name, c := range map[string]struct {
		calls      []string
		site       string
		inDatabase bool
		line       string
	}{
		"a wait in the standard library": {
			calls: []string{"internal/poll.(*FD).Read std:internal/poll/fd.go", "net/http.(*Client).Do std:net/http/client.go", "main.call /src/shop/ship.go", "main.main /src/shop/main.go"},
			site:  "shop/ship.go:7 main.call",
			line:  "poll/fd.go:7 poll.(*FD).Read < http/client.go:7 http.(*Client).Do < shop/ship.go:7 main.call < shop/main.go:7 main.main",
		},
		"the server that called the application": {
			calls: []string{"time.Sleep std:runtime/time.go", "main.call /src/shop/ship.go", "net/http.HandlerFunc.ServeHTTP std:net/http/server.go", "main.logged /src/shop/log.go"},
			site:  "shop/ship.go:7 main.call",
			line:  "runtime/time.go:7 time.Sleep < shop/ship.go:7 main.call",
		},
		"a driver of the application's": {
			calls:      []string{"own/driver.(*conn).Query /src/own/driver/conn.go", "database/sql.(*DB).QueryContext std:database/sql/sql.go", "gorm.io/gorm.(*DB).Find /mod/gorm.io/gorm@v1.2/g.go", "main.find /src/shop/find.go"},
			site:       "shop/find.go:7 main.find",
			inDatabase: true,
			line:       "driver/conn.go:7 driver.(*conn).Query < sql/sql.go:7 sql.(*DB).QueryContext < gorm@v1.2/g.go:7 gorm.(*DB).Find < shop/find.go:7 main.find",
		},
		"nothing but a module": {
			calls: []string{"sync.(*Cond).Wait std:sync/cond.go", "example.com/pool.work /mod/example.com/pool@v1.0/work.go", "example.com/pool.serve /mod/example.com/pool@v1.0/work.go"},
			site:  "pool@v1.0/work.go:7 pool.work",
			line:  "sync/cond.go:7 sync.(*Cond).Wait < pool@v1.0/work.go:7 pool.work < pool@v1.0/work.go:7 pool.serve",
		},
		"the next request of a connection": {
			calls: []string{"internal/poll.(*FD).Read std:internal/poll/fd.go", "net/http.(*conn).serve std:net/http/server.go"},
			line:  "poll/fd.go:7 poll.(*FD).Read < http/server.go:7 http.(*conn).serve",
		},
		"nothing": {},
	} {
		p := PresentOf(frames(c.calls...))
		assert.Equal(t, c.site, p.Site(), name)
		assert.Equal(t, c.inDatabase, p.InDatabase(), name)
		assert.Equal(t, c.line, p.Line(), name)
	}
	p := PresentOf(frames("net.(*conn).Read std:net/net.go", "main.main /src/main.go"))
	assert.True(t, p.Calls("net."))
	assert.False(t, p.Calls("main."), "that is the application's line itself")
	assert.Equal(t, "net.(*conn).Read\n\t"+standardRoot+"net/net.go:7\nmain.main\n\t/src/main.go:7\n", p.String())
}

// With go build -trimpath, the files of the standard library have no folder of their own.
func TestTheStandardLibraryIsKnownWithoutItsFolder(t *testing.T) {
	root := standardRoot
	defer func() { standardRoot = root }()
	for _, standardRoot = range []string{root, ""} {
		assert.True(t, isStandard(runtime.Frame{Function: "net/http.(*Client).Do", File: standardRoot + "net/http/client.go"}))
		assert.True(t, isStandard(runtime.Frame{Function: "sync.(*Cond).Wait", File: standardRoot + "sync/cond.go"}))
		assert.False(t, isStandard(runtime.Frame{Function: "main.main", File: "shop/main.go"}))
		assert.False(t, isStandard(runtime.Frame{Function: "example.com/net/http.Do", File: "example.com/net/http/do.go"}))
		assert.False(t, isStandard(runtime.Frame{Function: "shop/store.Get", File: "/src/shop/store/store.go"}))
	}
}
