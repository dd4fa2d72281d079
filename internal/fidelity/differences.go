package fidelity

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// differences are what the wrapping changes on purpose, by the name of the
// step that shows it. Everything else is equal.
var differences = map[string]struct {
	why string
	is  func(t *testing.T, bare, wrapped Outcome)
}{
	"statement closed while its handle is idle": {
		"closing is wire traffic, and the session may be somebody else's: the next lease closes it",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.ElementsMatch(t, bare.calls, wrapped.calls, "the calls are the same, in another order")
			wrapped.calls = bare.calls
			same(t, bare, wrapped)
		},
	},
	"limit as database/sql tells it": {
		"the gate has the limit; database/sql has one that it does not reach",
		func(t *testing.T, bare, wrapped Outcome) {
			i := slices.Index(bare.results, "3")
			require.GreaterOrEqual(t, i, 0)
			assert.Equal(t, "100003", wrapped.results[i])
			wrapped.results[i] = "3"
			same(t, bare, wrapped)
		},
	},
	"wait as database/sql tells it": {
		"callers wait in Connect, which database/sql counts as in use; Connector.Stats has the waits",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.Equal(t, "in use 1, waits 1", bare.results[0])
			assert.Equal(t, "in use 2, waits 0", wrapped.results[0])
			wrapped.results[0] = bare.results[0]
			same(t, bare, wrapped)
		},
	},
	"context ends at the limit": {
		"the error names the holders, and unwraps to the context's",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.Equal(t, context.DeadlineExceeded, bare.errs[1])
			var acquire *sqllease.AcquireError
			require.ErrorAs(t, wrapped.errs[1], &acquire)
			assert.Equal(t, context.DeadlineExceeded, acquire.Unwrap())
			wrapped.errs[1] = bare.errs[1]
			same(t, bare, wrapped)
		},
	},
	"type of the connection in Raw": {
		"it is the handle's; Unwrap reaches the driver's",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.Equal(t, "*sqllease.handle", wrapped.results[0])
			wrapped.results[0] = bare.results[0]
			same(t, bare, wrapped)
		},
	},
	"name that no argument may have": {
		"database/sql looks at names before direct calls, which every handle has: a driver without them is spared a statement in vain",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.Subset(t, bare.calls, wrapped.calls)
			wrapped.calls = bare.calls
			same(t, bare, wrapped)
		},
	},
	"panic in the driver": {
		"the state of such a connection is unknown: it is closed",
		func(t *testing.T, bare, wrapped Outcome) {
			assert.Equal(t, 1, bare.opened)
			assert.Equal(t, 2, wrapped.opened)
		},
	},
}

// Wanted tells whether a step shows one of the wanted differences.
func Wanted(step string) bool { return differences[step].is != nil }
