package fidelity

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// server is a database server whose sessions have state, as real ones do: a current
// database and a setting, in which a prepared statement stays as it was prepared, a
// temporary table, locks, an open transaction. It knows what it was told by whom, and so
// can say what must never happen, whichever pool stands before it:
//
//   - two calls at once on one session, or a call on one that was closed;
//   - a call for one lease on the session of another that goes on;
//   - a statement that answers from a state in which its session never was since the
//     *sql.Stmt exists, or fails for what happened before that;
//   - more sessions than the pool was ever allowed.
type server struct {
	mu      sync.Mutex
	tick    int              // guarded by mu: what it has done so far; it is the server's clock
	life    int              // guarded by mu: how often it was restarted
	altered int              // guarded by mu: the tick of the last ALTER
	dialed  []*session       // guarded by mu: all there ever were
	locks   map[int]*session // guarded by mu
	closes  []int            // guarded by mu: the sessions that the driver closed, in order
	refuses time.Time        // guarded by mu: until when dials fail
	faults  []string         // guarded by mu: what must never happen, and did
	ended   map[int]bool     // guarded by mu: the leases that are over
	homes   map[int]*session // guarded by mu: the session of each lease
	ends    map[int]error    // guarded by mu: what the next commit or rollback of a lease answers
	badEnds int              // guarded by mu: how many transactions ended with driver.ErrBadConn
	most    int              // guarded by mu: the largest limit that the pool has had; zero: none
	takes   time.Duration    // how long a call takes; set once
	yields  bool             // others may go on during a call; set once
	twins   bool             // statements have texts in common; set once
	logs    bool             // it notes its calls; set once
	calls   []string         // guarded by mu
	asks    bool             // its results ask their session when they are asked; set once
	plans   int              // guarded by mu: how many statements it has prepared
	refused int              // guarded by mu: how many dials it has refused
}

func newServer() *server {
	return &server{locks: map[int]*session{}, ended: map[int]bool{}, homes: map[int]*session{}, ends: map[int]error{}, tick: 1}
}

// binding is what a text means on a session: what its statements are prepared with.
type binding struct{ database, setting int }

// moment is since when a session was in a state.
type moment struct {
	tick  int
	state binding
}

// session is a session of the server, and the driver's connection to it.
type session struct {
	s    *server
	id   int
	life int          // the server's, in which it began
	over func() error // how the context of its dial has ended; set once

	// All of this is guarded by s.mu.
	call       string // in flight; empty: none
	closed     bool   // by the driver's Close
	dead       bool   // the driver knows that it is of no use: a call was cut off in it
	lease      int    // whose calls come; zero: nobody's yet
	state      binding
	temporary  bool // it has a temporary table
	begun      *int // in a transaction: the setting at its begin
	saved      *int // likewise at its savepoint
	past       []moment
	statements map[*statement]bool // that the server has
	discarded  int                 // the tick at which it was told to forget them
}

// The server's errors.
var (
	errAltered   = errors.New("server: cached plan must not change result type")
	errUnknown   = errors.New("server: unknown prepared statement")
	errNoTable   = errors.New("server: table does not exist")
	errInTx      = errors.New("server: there is already a transaction in progress")
	errNotInTx   = errors.New("server: there is no transaction in progress")
	errSyntax    = errors.New("server: syntax error")
	errUnwilling = errors.New("server: too many connections")
)

func (s *server) faultLocked(format string, args ...any) {
	s.faults = append(s.faults, fmt.Sprintf(format, args...))
}

// dial begins a session.
func (s *server) dial(d *deed) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick++
	if time.Now().Before(s.refuses) {
		s.refused++
		return nil, errUnwilling
	}
	c := &session{s: s, id: len(s.dialed) + 1, life: s.life, statements: map[*statement]bool{}, past: []moment{{s.tick, binding{}}}}
	s.dialed = append(s.dialed, c)
	if n := len(s.openLocked()); s.most > 0 && n > s.most {
		s.faultLocked("%d sessions are open where %d are allowed", n, s.most)
	}
	if d != nil {
		c.lease = d.lease
		s.homes[d.lease] = c
	}
	return c, nil
}

// openLocked are the connections that the driver did not close.
func (s *server) openLocked() []*session {
	return slices.DeleteFunc(slices.Clone(s.dialed), func(c *session) bool { return c.closed })
}

// note notes something between the calls.
func (s *server) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, text)
}

// over notes that a lease is over, as far as the application is concerned.
func (s *server) over(lease int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[lease] = true
}

// now is the server's time.
func (s *server) now() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tick
}

// restart ends all sessions. Nobody is told.
func (s *server) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tick++
	s.life++
	for _, c := range s.dialed {
		c.forgetLocked()
	}
}

// left is what there is on the server, and of connections to it.
type left struct{ connections, sessions, statements, locks, temporary, transactions int }

func (l left) String() string {
	return fmt.Sprintf("%d connections, %d sessions, %d statements, %d locks, %d temporary tables, %d transactions",
		l.connections, l.sessions, l.statements, l.locks, l.temporary, l.transactions)
}

func (s *server) left() (l left) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l.locks = len(s.locks)
	for _, c := range s.openLocked() {
		l.connections++
		if c.goneLocked() {
			continue
		}
		l.sessions++
		l.statements += len(c.statements)
		if c.temporary {
			l.temporary++
		}
		if c.begun != nil {
			l.transactions++
		}
	}
	return l
}

// wrong is what must never happen, and did.
func (s *server) wrong() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.faults)
}

// goneLocked tells whether the server has ended a session.
func (c *session) goneLocked() bool { return c.dead || c.closed || c.life != c.s.life }

// forgetLocked lets go of all that a session has on the server.
func (c *session) forgetLocked() {
	c.temporary, c.begun, c.saved = false, nil, nil
	clear(c.statements)
	c.unlockLocked()
}

func (c *session) unlockLocked() {
	maps.DeleteFunc(c.s.locks, func(_ int, by *session) bool { return by == c })
}

// becomeLocked changes the state of a session.
func (c *session) becomeLocked(state binding) {
	if c.state != state {
		c.state = state
		c.past = append(c.past, moment{c.s.tick, state})
	}
}

// wasLocked tells whether a session has been in a state since some time.
func (c *session) wasLocked(state binding, since int) bool {
	for i, m := range c.past {
		if m.state == state && (i == len(c.past)-1 || c.past[i+1].tick > since) {
			return true
		}
	}
	return false
}

// answer is the row that a statement brings.
type answer [2]int64

// runLocked runs a text: one statement, several, or one in a comment.
func (c *session) runLocked(text string) (a answer, err error) {
	a = answer{int64(c.state.database), int64(c.state.setting)}
	text = strings.TrimSuffix(strings.TrimPrefix(text, "/*! "), " */")
	for one := range strings.SplitSeq(text, "; ") {
		c.s.tick++
		if a, err = c.runOneLocked(one); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (c *session) runOneLocked(text string) (a answer, err error) {
	first, _, _ := strings.Cut(text, " ")
	n := 0
	if i := strings.IndexAny(text, "0123456789"); i >= 0 {
		n = int(text[i] - '0')
	}
	state := c.state
	switch {
	case first == "USE", first == "CALL": // of a procedure that does so
		state.database = n
	case first == "SET", strings.HasSuffix(text, "INTO @s"):
		state.setting = n
	case first == "RESET":
		state.setting = 0
	case strings.HasPrefix(text, "SELECT GET_LOCK"):
		return c.lockLocked(n), nil
	case strings.HasPrefix(text, "SELECT CONNECTION_ID"):
		return answer{int64(c.id), 0}, nil
	case strings.HasPrefix(text, "SELECT RELEASE_ALL_LOCKS"):
		c.unlockLocked()
	case first == "DISCARD":
		c.forgetStatementsLocked()
		c.unlockLocked()
		c.temporary, state.setting = false, 0
	case first == "DEALLOCATE":
		c.forgetStatementsLocked()
	case first == "ALTER":
		c.s.altered = c.s.tick
	case first == "CREATE":
		c.temporary = true
	case first == "DROP":
		c.temporary = false
	case first == "BEGIN", first == "COMMIT", first == "ROLLBACK", first == "SAVEPOINT":
		return a, c.transactLocked(text)
	case first == "SELECT", first == "INSERT":
		if strings.HasSuffix(text, "temporary") && !c.temporary {
			return a, errNoTable
		}
	default:
		return a, errSyntax
	}
	c.becomeLocked(state)
	return answer{int64(state.database), int64(state.setting)}, nil
}

// lockLocked answers 1 where it gets the lock, as GET_LOCK does.
func (c *session) lockLocked(name int) answer {
	if by := c.s.locks[name]; by != nil && by != c {
		return answer{0, 0}
	}
	c.s.locks[name] = c
	return answer{1, 0}
}

func (c *session) forgetStatementsLocked() {
	clear(c.statements)
	c.discarded = c.s.tick
}

// transactLocked keeps a transaction's bounds. What SET has done in it goes with
// ROLLBACK, as with PostgreSQL; what USE has done stays.
func (c *session) transactLocked(text string) error {
	setting := c.state.setting
	switch {
	case text == "BEGIN" && c.begun != nil:
		return errInTx
	case text == "BEGIN":
		c.begun = &setting
		return nil
	case c.begun == nil:
		return errNotInTx
	case text == "SAVEPOINT":
		c.saved = &setting
		return nil
	case text == "ROLLBACK TO" && c.saved == nil:
		return errNotInTx
	case text == "ROLLBACK TO":
		c.becomeLocked(binding{c.state.database, *c.saved})
		return nil
	case text == "ROLLBACK":
		c.becomeLocked(binding{c.state.database, *c.begun})
	}
	c.begun, c.saved = nil, nil
	return nil
}

// statement is a prepared statement on a session.
type statement struct {
	c      *session
	text   string
	state  binding // in which it was prepared
	tick   int     // at which it was
	closed bool    // guarded by server.mu
}

func (c *session) prepareLocked(text string) *statement {
	c.s.tick++
	c.s.plans++
	st := &statement{c: c, text: text, state: c.state, tick: c.s.tick}
	c.statements[st] = true
	return st
}

// runLocked executes a statement for a *sql.Stmt of which the deed says when it was made.
func (st *statement) runLocked(d *deed) (answer, error) {
	c := st.c
	c.s.tick++
	if !c.statements[st] {
		if d.since() > c.discarded {
			c.s.faultLocked("%s: the statement is not known, but was made after statements were discarded last", d)
		}
		return answer{}, errUnknown
	}
	if st.tick < c.s.altered {
		if d.since() > c.s.altered && !c.s.twins { // else it may have its twin's
			c.s.faultLocked("%s: the statement is broken by an ALTER, but was made after it", d)
		}
		return answer{}, errAltered
	}
	if !c.wasLocked(st.state, d.since()) {
		c.s.faultLocked("%s: the statement answers from %v, in which its session has not been since it was made", d, st.state)
	}
	if strings.Contains(st.text, ";") || !slices.ContainsFunc(texts[:], func(text string) bool { return strings.HasPrefix(st.text, text) }) {
		return c.runLocked(st.text)
	}
	return answer{int64(st.state.database), int64(st.state.setting)}, nil
}
