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

var callNames = [calls]string{"", "query", "exec", "prepare", "begin", "commit", "rollback", "ping", "acquire", "transaction", "rows", "reset"}

// spanCalls are the names of those that have spans.
var spanCalls = callNames[callQuery:callRows]

func (c call) String() string { return callNames[c] }

// brief is how long something takes that is over as soon as it began, to people
// who look at a trace: it is no event and no example.
const brief = time.Millisecond

// ofStatement tells whether a call is one of the last statement.
func ofStatement(call string) bool {
	switch call {
	case callQuery.String(), callExec.String(), callPrepare.String(), callRows.String():
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
