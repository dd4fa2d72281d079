package sqllease

import (
	"slices"
	"strings"

	"github.com/sqllease/sqllease/internal/statement"
)

// A session goes from one holder to the next, with all that statements have changed of it: a
// transaction that was begun by a statement and not ended, a lock, a setting. It is only told
// of. What is not certain is not: neither whether it is there, nor whether it is there still.
//
// Most statements leave nothing, and most leases have no leftovers: so a call asks for its
// statement's effect only if the statement is not a usual one, or the lease has left something
// already.

// leftovers are what a lease has left on its session so far. They are for its holder.
type leftovers struct {
	tx  *described // the statement that began a transaction; nil: none did, or it has ended
	all []leftover
}

// leftover is one of them.
type leftover struct {
	statement.Effect
	by   *described // the statement that left it
	inTx bool       // if the transaction is rolled back, it was not left
}

// mostLeftovers is how many are remembered of a lease.
const mostLeftovers = 16

// leaves notes the effect of a statement. What it undoes counts as undone, even if it failed.
func (l *lease) leaves(d *described, err error, g statement.Grammar) {
	if l.left == nil {
		l.left = &leftovers{}
	}
	left := l.left
	if err != nil {
		left.fail(err, g)
	}
	l.change(d, err, g)
	if l.left != nil && left.tx == nil && len(left.all) == 0 {
		l.left = nil
	}
}

func (l *lease) change(d *described, err error, g statement.Grammar) {
	e, left := d.Effect, l.left
	if err != nil && e.Lasts() {
		return
	}
	if e.Ends != statement.NotEnded {
		left.endTx(e.Ends == statement.Committed && err == nil, g)
	}
	switch e.Act {
	case statement.Leaves, statement.LeavesIfTrue, statement.Sets:
		left.add(leftover{e, d, l.inTx || left.tx != nil}, l.inTx, g)
	case statement.Undoes:
		left.remove(func(o leftover) bool { return o.Kind == e.Kind && sharesName(o.Name, e.Name) })
	case statement.UndoesOne:
		if i := slices.IndexFunc(left.all, func(o leftover) bool { return o.Kind == e.Kind }); i >= 0 {
			left.all = slices.Delete(left.all, i, i+1)
		}
	case statement.UndoesAll:
		left.all = nil
	case statement.Reverts:
		left.revert(g)
	case statement.Unclear:
		l.left = nil
	}
}

// add adds one.
func (left *leftovers) add(o leftover, inTx bool, g statement.Grammar) {
	same := func(other leftover) bool { return other.Kind == o.Kind && sharesName(other.Name, o.Name) }
	switch {
	case o.Kind == statement.Transaction:
		if inTx {
			return // the other one is ended by database/sql, and this with it
		}
		left.tx = o.by
		if g == statement.MySQL {
			left.remove(func(o leftover) bool { return o.Kind == statement.TableLock })
		}
		return
	case o.Act == statement.Sets && slices.ContainsFunc(left.all, same): // it may have put the old value back
		left.remove(same)
		return
	case o.Kind != statement.NamedLock:
		left.remove(same)
	}
	if len(left.all) < mostLeftovers {
		left.all = append(left.all, o)
	}
}

func (left *leftovers) remove(which func(leftover) bool) {
	left.all = slices.DeleteFunc(left.all, which)
}

// sharesName tells whether two lists of names have one in common. An empty one stands for all.
func sharesName(a, b string) bool {
	if a == "" || b == "" {
		return true
	}
	names := strings.Split(b, ",")
	return slices.ContainsFunc(strings.Split(a, ","), func(name string) bool { return slices.Contains(names, name) })
}

// fail notes that a statement failed. PostgreSQL then commits nothing of the transaction;
// MySQL keeps it open, unless it had to give it up.
func (left *leftovers) fail(err error, g statement.Grammar) {
	left.revert(g)
	if _, code := errorType(err); g == statement.MySQL && (code == "1213" || code == "1205") { // a deadlock, a lock that was waited for too long
		left.tx = nil
	}
}

// revert forgets what a transaction takes with it that is rolled back, if only to a savepoint.
func (left *leftovers) revert(g statement.Grammar) {
	left.remove(func(o leftover) bool {
		return o.inTx && g == statement.PostgreSQL && o.Kind != statement.NamedLock && o.Kind != statement.PreparedStatement
	})
}

// endTx notes the end of a transaction.
func (left *leftovers) endTx(committed bool, g statement.Grammar) {
	left.tx = nil
	if !committed {
		left.revert(g)
	}
	for i := range left.all {
		left.all[i].inTx = false
	}
}

// endedTx notes the end of one that database/sql has begun.
func (l *lease) endedTx(committed bool, g statement.Grammar) {
	if l.left != nil {
		l.left.endTx(committed, g)
	}
}
