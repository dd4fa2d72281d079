package livepage

import (
	"strconv"
	"time"

	"github.com/sqllease/sqllease"
)

// The view model: what all three formats show. It is plain data, made by read from what the pools
// tell. The names in JSON are stable, and docs/livepage.md lists them.

// document is what is shown.
type document struct {
	At     time.Time `json:"at"`               // when the pools were read
	Frozen bool      `json:"frozen"`           // at is in the past, and what is shown was worked out from the recording
	Pools  []*pool   `json:"pools"`            //
	Pin    *pinned   `json:"pinned,omitempty"` // the lease that was asked for
	Note   string    `json:"note,omitempty"`   // what cannot be shown, and why
	chosen *pool     // the one that the page has a picture of; nil: there is none
}

// state is how a pool is, in a word.
type state string

const (
	well    state = "well"    // nothing is to be done
	watch   state = "watch"   // callers wait, or may do so soon
	trouble state = "trouble" // somebody should look
)

// seconds is a time that JSON has as a number of seconds.
type seconds time.Duration

// MarshalJSON has microseconds, which is more than anybody needs.
func (s seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Round(time.Microsecond).Seconds(), 'f', -1, 64), nil
}

func (s seconds) String() string { return duration(time.Duration(s)) }

// pool is one pool.
type pool struct {
	Key      string `json:"key"`  // its name in the address of the page: that of the pool, with a number where pools share one
	Name     string `json:"name"` //
	State    state  `json:"state"`
	Sentence string `json:"sentence"`
	Advice   string `json:"advice,omitempty"`

	Limit       int     `json:"limit"` // 0: none
	Open        int     `json:"open"`
	InUse       int     `json:"in_use"`
	Idle        int     `json:"idle"`
	Dialing     int     `json:"dialing"`
	Waiting     int     `json:"waiting"`
	LongestWait seconds `json:"longest_wait_seconds"`

	Deadlocked  bool    `json:"deadlocked"`
	StandsStill seconds `json:"stands_still_seconds"`
	Dials       dials   `json:"dials"`
	Failed      int     `json:"failed_acquires_last_minute"`
	Refused     int     `json:"refused_last_minute"` // of those that failed, with ErrOverloaded
	Refusing    bool    `json:"refusing"`            // some are refused just now
	Died        int     `json:"connections_died_last_minute"`
	Busiest     busiest `json:"busiest_last_minute"`

	Lanes       []lane       `json:"lanes,omitempty"` // nil: the pool has none
	HeldBy      []heldBy     `json:"held_by"`
	WaitsBy     []heldBy     `json:"waiting_by"`
	Out         []holder     `json:"checked_out"`
	Queue       []waiter     `json:"callers_waiting"`
	Places      []place      `json:"places"`
	Connections []connection `json:"connections"`
	Reports     []report     `json:"reports"`
	Leaks       []leakSite   `json:"leak_sites"`
	Longest     []finished   `json:"longest_leases"`

	RecordedSince time.Time `json:"recorded_since,omitzero"` // zero: nothing is recorded
	Recorded      int       `json:"recorded_leases"`

	connector *sqllease.Connector
	recording sqllease.Recording
	leases    map[uint64]*sqllease.Lease // those that are checked out, by their number
}

// lane is a lane of Config.Lanes.
type lane struct {
	Name     string  `json:"lane"`
	InUse    int     `json:"in_use"`  // dials included
	Max      int     `json:"max"`     // 0: any number
	Reserve  int     `json:"reserve"` // 0: none
	Waiting  int     `json:"waiting"`
	Longest  seconds `json:"longest_wait_seconds"`
	Refused  int     `json:"refused_last_minute"`
	Refusing bool    `json:"refusing"`
}

// isFull tells whether its next caller waits, whatever is ready.
func (l *lane) isFull() bool { return l.Max > 0 && l.InUse >= l.Max }

// busiest is the line of code that had most of the connections' time.
type busiest struct {
	site
	Share float64 `json:"share"` // of the time that connections were checked out, from 0 to 1
}

// dials are those that failed since the last one that did not.
type dials struct {
	Failed int     `json:"failed_in_a_row"`
	Why    string  `json:"why,omitempty"` // what the last one met with
	Ago    seconds `json:"last_failed_seconds_ago,omitempty"`
}

// site is a line of the application's code.
type site struct {
	Place    string `json:"place"`              // "dir/file.go:42"
	Function string `json:"function,omitempty"` // "shop.export"
}

// span is a request's trace.
type span struct {
	TraceID  string `json:"trace_id,omitempty"`
	TraceURL string `json:"trace_url,omitempty"`
}

// use is what a connection that is checked out is used for.
type use string

const (
	inCall    use = "call"
	inRows    use = "reading"
	unused    use = "unused"
	unusedSQL use = "unused_in_transaction"
	unusedRow use = "unused_with_rows_open"
	notKnown  use = "not_known"
)

// words say so to people.
func (u use) words() string {
	switch u {
	case inCall:
		return "in a call"
	case inRows:
		return "reading rows"
	case unusedSQL:
		return "unused, in a transaction"
	case unusedRow:
		return "unused, with rows open"
	case notKnown:
		return "not known"
	}
	return "unused"
}

func (u use) isUnused() bool { return u == unused || u == unusedSQL || u == unusedRow }

// holder is a connection that is checked out.
type holder struct {
	Lease uint64 `json:"lease"`
	site
	Lane       string  `json:"lane,omitempty"`
	Held       seconds `json:"held_seconds"`
	Use        use     `json:"use"`
	Call       string  `json:"call,omitempty"` // the call in flight, such as "exec"
	For        seconds `json:"use_seconds"`    // for how long it is used so
	InTx       bool    `json:"in_transaction"`
	Leaked     bool    `json:"reported_as_leaked"`
	Blocked    string  `json:"blocked_by,omitempty"` // what the report of a slow call has found
	Statement  string  `json:"statement,omitempty"`
	Waited     seconds `json:"waited_seconds"`
	Connection uint64  `json:"connection"`
	Server     uint64  `json:"server_connection_id,omitempty"`
	span
}

// waiter is a caller who waits for a connection.
type waiter struct {
	Position int `json:"position"` // 1: the next
	site
	Lane  string  `json:"lane,omitempty"`
	Waits seconds `json:"waiting_seconds"`
	span
}

// place is a line of code, with what the recording has of its leases.
type place struct {
	site
	Leases  int     `json:"leases"`
	Out     int     `json:"checked_out_now"`
	Held    seconds `json:"held_seconds"`
	Unused  seconds `json:"unused_seconds"`
	Waited  seconds `json:"waited_seconds"`
	Longest seconds `json:"longest_held_seconds"`
	Failed  int     `json:"failed_acquires"`
}

// connection is one connection of the pool.
type connection struct {
	Number  uint64     `json:"connection"`
	Server  uint64     `json:"server_connection_id,omitempty"`
	Lease   uint64     `json:"lease,omitempty"` // 0: it is idle
	Age     seconds    `json:"age_seconds"`
	Idle    seconds    `json:"idle_seconds"`
	Expires *time.Time `json:"expires,omitempty"` // nil: it does not
	Left    seconds    `json:"expires_in_seconds,omitempty"`
	Why     string     `json:"expires_because,omitempty"`
}

// report is something that was reported.
type report struct {
	At    time.Time `json:"at"`
	Ago   seconds   `json:"seconds_ago"`
	Kind  string    `json:"kind"` // "leak", "slow call" or "standstill"
	Lease uint64    `json:"lease,omitempty"`
	Found string    `json:"found"`
	Fix   string    `json:"fix,omitempty"`
}

// leakSite is a line whose connections were reported.
type leakSite struct {
	site
	Class string    `json:"class"`
	Times int       `json:"reports"`
	Last  time.Time `json:"last"`
}

// finished is a lease that is over.
type finished struct {
	Lease uint64 `json:"lease"`
	site
	Lane      string    `json:"lane,omitempty"`
	Ended     time.Time `json:"ended"`
	Held      seconds   `json:"held_seconds"`
	Unused    seconds   `json:"unused_seconds"`
	Reading   seconds   `json:"reading_seconds"`
	InTx      seconds   `json:"in_transaction_seconds"`
	Waited    seconds   `json:"waited_seconds"`
	Outcome   string    `json:"outcome"`
	Statement string    `json:"statement,omitempty"`
	span
}

// pinned is the lease that somebody looks at.
type pinned struct {
	Pool       string `json:"pool"`
	Lease      uint64 `json:"lease"`
	Connection uint64 `json:"connection"`
	Server     uint64 `json:"server_connection_id,omitempty"`
	site
	Lane      string    `json:"lane,omitempty"`
	Asked     time.Time `json:"asked"`
	Acquired  time.Time `json:"acquired"`
	Ended     time.Time `json:"ended,omitzero"` // zero: it is checked out
	Queue     seconds   `json:"queue_seconds"`
	Dial      seconds   `json:"dial_seconds"`
	Reset     seconds   `json:"reset_seconds"`
	Held      seconds   `json:"held_seconds"`
	Unused    seconds   `json:"unused_seconds"` // this and the next two: once it is over
	Reading   seconds   `json:"reading_seconds"`
	InTx      seconds   `json:"in_transaction_seconds"`
	Use       use       `json:"use,omitempty"` // while it is checked out
	For       seconds   `json:"use_seconds,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
	Statement string    `json:"statement,omitempty"`
	Stack     string    `json:"stack"`
	Now       []string  `json:"now,omitempty"` // what its goroutines did when somebody asked last
	NowAt     time.Time `json:"now_at,omitzero"`
	Found     []report  `json:"reports,omitempty"`
	span
}
