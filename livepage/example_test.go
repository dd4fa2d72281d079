package livepage_test

import (
	"net/http"

	"github.com/sqllease/sqllease/livepage"
)

// On an address that only the people reach who may see the code, as where net/http/pprof is.
func Example() {
	http.Handle("/debug/sqllease/", livepage.Handler(livepage.TraceURL("https://jaeger.example.com/trace/{trace_id}")))
	go func() { _ = http.ListenAndServe("localhost:6060", nil) }() //nolint:gosec // as net/http/pprof shows it
}
