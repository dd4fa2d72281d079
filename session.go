package sqllease

import (
	"context"
	"database/sql/driver"
	"errors"
	"reflect"
	"sync"

	"github.com/sqllease/sqllease/internal/bare"
	"github.com/sqllease/sqllease/internal/clock"
	"github.com/sqllease/sqllease/internal/drivers"
	"github.com/sqllease/sqllease/internal/gate"
)

// session is the real connection to the server. It belongs to the gate, and, while it
// is held, to one handle.
type session struct {
	gate.Session[session]

	conn driver.Conn
	can  bare.Capabilities // of conn; read-only
	life lifetime          // written with the gate's lock held, until it is closing

	illness illness // written by the holder
	spoke   uint64  // likewise: the hold in which its server was heard of last
	refused string  // likewise: the code with which a write failed, since the server takes none; empty: none did
	reads   bool    // likewise: it is in a transaction that is to be read-only
	inOther bool    // likewise: the lease before left it in a transaction, which a statement began

	lease lease // the present one, or the last

	statements statements

	// late is locked by every call, once a result of this session's was seen that
	// may ask its connection later, when somebody else has it. nil: none was. Written
	// by the holder.
	late  *sync.Mutex
	plain reflect.Type // of its results that cannot; written likewise

	// release ends the context that the driver's Connect was given; nil: it had the
	// caller's own.
	release context.CancelFunc
}

// needsReset tells whether there is anything to be done before the next holder has it.
func (s *session) needsReset() bool { return s.can.Resetter != nil || s.statements.due.Load() }

// reset makes a session ready for its next holder: the driver's own reset, then the
// statements that are to be closed, which a driver may find by their text.
func (s *session) reset(ctx context.Context) (err error) {
	s.takeTurn()
	defer s.endTurn()
	if s.can.Resetter != nil {
		err = s.can.Resetter.ResetSession(ctx)
	}
	if !isBad(err) {
		s.sweep()
	}
	return err
}

// close closes what is left of its statements, then the connection, in the order in
// which database/sql would. Its caller is the closer: nobody else can reach s, but for
// results that ask their connection late.
func (s *session) close() error {
	s.takeTurn()
	defer s.endTurn()
	if s.release != nil {
		defer s.release()
	}
	for _, p := range s.statements.end(s.lease.isTaken()) {
		_ = p.inner.Close() // the connection's own error is the one to report
	}
	conn := s.conn
	s.conn, s.can = nil, bare.Capabilities{} // a ticket may remember s for long
	return conn.Close()
}

// takeTurn and endTurn have what is done with a session outside of a use take turns with
// results that ask their connection late.
func (s *session) takeTurn() {
	if s.late != nil {
		s.late.Lock()
	}
}

func (s *session) endTurn() {
	if s.late != nil {
		s.late.Unlock()
	}
}

// isBad tells whether an error says that a connection is of no use any more.
func isBad(err error) bool { return errors.Is(err, driver.ErrBadConn) }

// sweep closes the statements that are to be closed. Its caller holds the session.
func (s *session) sweep() {
	for _, p := range s.statements.takeDoomed() {
		_ = p.inner.Close() // whoever closed it was told long ago
	}
}

// sweepAlone does so outside of a use.
func (s *session) sweepAlone() {
	s.takeTurn()
	defer s.endTurn()
	s.sweep()
}

// ails notes what is wrong with a session, which its caller holds.
func (s *session) ails(reason closeReason, how string) {
	s.illness = illness{death{reason, how}, s.Hold(), false}
}

// dies notes why its caller, who holds it, closes it.
func (s *session) dies(reason closeReason, how string) {
	s.illness = illness{death{reason, how}, s.Hold(), true}
}

// hasSpoken tells whether its server was heard of in this hold. Its caller is the holder.
func (s *session) hasSpoken() bool { return s.spoke == s.Hold() }

// met notes how a call ended that failed, or was given up: it may cost the session. how is
// not empty if others have ended it; answered says that nothing is wrong with it.
func (s *session) met(ctx context.Context, err error) (how string, answered bool) {
	if err == driver.ErrSkip {
		return "", false
	}
	if tx, ok := ctx.(lasting); ok {
		ctx = tx.Context
	}
	if ctx.Err() != nil {
		s.ails(closedCancelled, "")
		return "", false
	}
	if err == nil {
		return "", true
	}
	switch how = drivers.Ended(err); {
	case how == "":
		if code := drivers.RefusesWrites(err); code != "" && !s.reads {
			s.refused = code
		}
		return "", true
	case how == drivers.Cut && s.illness.hold == s.Hold():
		return "", false // the driver says that it has given the connection up, which is not why
	}
	s.ails(closedCut, how)
	return how, false
}

// isGivenUp tells whether its driver has given it up for the transaction that it is in: that
// says nothing of other sessions. Its caller is the holder.
func (s *session) isGivenUp() bool {
	return s.illness.fatal && s.illness.reason == closedInvalid && s.illness.hold == s.Hold()
}

// howReset is what a session met with that was to be handed out.
func howReset(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "" // who wanted it went, and the driver may have given it up for that
	}
	return drivers.Ended(err)
}

// death is how it ended. Its caller closes it.
func (s *session) death() death {
	seen := s.illness.hold == s.Hold()
	if seen && s.illness.fatal {
		return s.illness.death
	}
	switch s.Reason() {
	case gate.Expired:
		return death{reason: s.expiresFor(s.HasAged(clock.Now()))}
	case gate.Dropped:
		return death{reason: closedSurplus}
	case gate.OverSize:
		return death{reason: closedLimit}
	case gate.Taken:
		return death{reason: closedReclaimed}
	case gate.ShutDown:
		return death{reason: closedShutdown}
	}
	if seen {
		return s.illness.death
	}
	return death{reason: closedInvalid}
}

// expiresFor is the reason with which it will be closed, as it expires.
func (s *session) expiresFor(aged bool) closeReason {
	switch {
	case s.life.role:
		return closedRole
	case s.IsFlushed():
		return closedFlushed
	case s.life.byIdle, !aged:
		return closedIdle
	}
	return closedExpired
}
