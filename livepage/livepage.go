// Package livepage shows the pools of a process on a page, while they work: who has the
// connections, from which line of code and since when, who waits for one, and the last minutes as
// a picture. Mount it where net/http/pprof is mounted:
//
//	http.Handle("/debug/sqllease/", livepage.Handler())
//
// The page is for people who may see the code: it shows places in it, and statements. Literals in
// statements are replaced by ?, and arguments are never shown. It has no password of its own.
//
// To mount it turns the recording on (see [sqllease.Connector.Record]): for the pools that there
// are, and for those that are opened later. Apart from that it does nothing while nobody looks: it
// has no goroutine and no timer. While somebody does, the pools are read once a second, however
// many look. It answers GET and HEAD only, and no request changes anything.
//
// # Formats
//
//	curl 'localhost:6060/debug/sqllease/?format=text'   # for a terminal
//	curl 'localhost:6060/debug/sqllease/?format=json'   # for programs
//
// Both have what the page has: of all pools, or of one with &pool=NAME. The JSON has times as numbers
// of seconds, in fields that end in _seconds, and moments by RFC 3339. Its names are stable.
// docs/livepage.md lists them.
//
// # Mounting
//
// The handler looks at the query of an address and never at its path, and all its links are
// relative. So it works under any path, with http.StripPrefix or without it, with a slash at the
// end or without.
package livepage

import (
	"fmt"
	"net/http"

	"github.com/sqllease/sqllease"
	"github.com/sqllease/sqllease/internal/recording"
)

// DefaultRecord is how many leases each pool records, unless [Record] says otherwise.
const DefaultRecord = 10_000

// Option changes what [Handler] shows.
type Option func(*settings)

type settings struct {
	pools  []*sqllease.Connector // nil: those of the process
	record int
	trace  traceLink
}

// Pools has the page show these pools, and no others. Without it, it shows all pools of the process
// that are not closed, those that are opened later too.
func Pools(pools ...*sqllease.Connector) Option {
	return func(s *settings) { s.pools = append(make([]*sqllease.Connector, 0, len(pools)), pools...) }
}

// Record has each pool record its last n leases, instead of [DefaultRecord]: so far back does the
// picture go. Each takes some 300 bytes. A pool that records already is left as it is. Zero: no
// pool is made to record, and those that do not have no picture. It panics if n is negative.
func Record(n int) Option {
	if n < 0 {
		panic(fmt.Sprintf("livepage: Record(%d): a pool cannot record fewer than no leases", n))
	}
	return func(s *settings) { s.record = n }
}

// TraceURL has each trace be a link: to this address, in which {trace_id} stands for the number of
// the trace, such as "https://jaeger.example.com/trace/{trace_id}". It panics if that is no address
// with http or https, or has no {trace_id}.
func TraceURL(template string) Option {
	link, err := newTraceLink(template)
	if err != nil {
		panic("livepage: TraceURL: " + err.Error())
	}
	return func(s *settings) { s.trace = link }
}

// Handler is the page. It panics if an option cannot be meant, as http.Handle does of a pattern.
func Handler(options ...Option) http.Handler {
	s := settings{record: DefaultRecord}
	for _, option := range options {
		option(&s)
	}
	if s.record > 0 {
		s.startRecording()
	}
	return newHandler(s)
}

// startRecording turns it on where it is off.
func (s *settings) startRecording() {
	if s.pools == nil {
		recording.SetStandard(s.record)
	}
	for _, c := range s.list() {
		if c.Recording().From.IsZero() {
			c.Record(s.record)
		}
	}
}

// list is the pools that are shown.
func (s *settings) list() []*sqllease.Connector {
	if s.pools != nil {
		return s.pools
	}
	return sqllease.Connectors()
}
