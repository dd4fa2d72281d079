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

// plainTypes are types of values that refer to nothing but data.
type plainTypes struct{ known sync.Map } // of reflect.Type to bool

func (p *plainTypes) has(t reflect.Type) bool {
	plain, ok := p.known.Load(t)
	if !ok {
		plain = isPlain(t, 0)
		p.known.Store(t, plain)
	}
	return plain.(bool)
}

// isPlain tells whether values of a type can refer to nothing but data.
func isPlain(t reflect.Type, depth int) bool {
	const deepest = 8 // a type may refer to itself
	if depth > deepest {
		return false
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return isPlain(t.Elem(), depth+1)
	case reflect.Struct:
		for i := range t.NumField() {
			if !isPlain(t.Field(i).Type, depth+1) {
				return false
			}
		}
		return true
	case reflect.Chan, reflect.Func, reflect.Interface, reflect.Map, reflect.UnsafePointer, reflect.Uintptr:
		return false
	}
	return true
}
