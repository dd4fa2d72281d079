package sqllease

import (
	"database/sql/driver"
	"reflect"
	"sync"
)

// A driver.Result may ask its connection when it is asked itself, which may be after
// the lease: then somebody else may have the session. database/sql keeps a connection's
// calls apart by its lock on the connection, which here is a ticket's. So the results that
// could do so are wrapped, and from the first one on the calls of that session and what
// its results ask take turns. What the results of most drivers are made of can ask nobody,
// and these are left as they are. A result that takes its turn has database/sql's lock on
// the ticket meanwhile, which closing a *sql.Stmt may wait for: so it may hold up others
// for as long as the present holder's call lasts, where bare it holds them up for as long
// as its own.

// result guards a result that may ask its connection.
func (s *session) result(h *handle, r driver.Result) driver.Result {
	t := reflect.TypeOf(r)
	if t == nil || t == s.plain {
		return r
	}
	if h.c.plainResults.has(t) {
		s.plain = t
		return r
	}
	if s.late == nil {
		s.late = new(sync.Mutex)
	}
	return lateResult{r, s.late}
}

// lateResult is a result that takes turns with whoever has its session.
type lateResult struct {
	inner driver.Result
	turn  *sync.Mutex
}

// LastInsertId asks the driver.
func (r lateResult) LastInsertId() (int64, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	return r.inner.LastInsertId()
}

// RowsAffected asks the driver.
func (r lateResult) RowsAffected() (int64, error) {
	r.turn.Lock()
	defer r.turn.Unlock()
	return r.inner.RowsAffected()
}
