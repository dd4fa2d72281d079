package sqllease

import "time"

// call is a kind of driver call.
type call uint8

const (
	callNone call = iota
	callQuery
	callExec
	callPrepare
	callBegin
	callCommit
	callRollback
	callPing
	callAcquire
	callTx    // from begin to commit or rollback: the span of a transaction
	callRows  // reading rows; has no span of its own
	callReset // of the acquire; likewise
	calls
)

var callNames = [calls]Call{"", CallQuery, CallExec, CallPrepare, CallBegin, CallCommit, CallRollback, CallPing, CallAcquire, CallTransaction, CallRows, CallReset}

// spanCalls are the names of those that have spans.
var spanCalls = callNames[callQuery:callRows]

// name is the call as the application reads it.
func (c call) name() Call { return callNames[c] }

func (c call) String() string { return string(callNames[c]) }

// brief is how long something takes that is over as soon as it began, to people
// who look at a trace: it is no event and no example.
const brief = time.Millisecond

// ofStatement tells whether a call is one of the last statement.
func ofStatement(call Call) bool {
	switch call {
	case CallQuery, CallExec, CallPrepare, CallRows:
		return true
	}
	return false
}

// parts are where an acquire spent its time.
type parts struct {
	queue, dial, reset time.Duration
}

// slowReset is how long a reset takes that is worth a span of its own.
const slowReset = time.Millisecond
