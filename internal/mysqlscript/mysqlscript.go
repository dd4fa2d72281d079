// Package mysqlscript is a server that speaks enough of the MySQL protocol for
// a client to log in, to run statements and to prepare them, and that follows a
// script for everything a test wants to see go wrong.
//
// It exists so that the lifetimes of sessions are tested without a server. What
// matters there happens on the wire and is hard to bring about on demand with a
// real one: an idle limit below a second, a session closed with FIN, with RST or
// behind error 4031, a login that hangs, a limit that cannot be read. Here each
// of them is a line of a [Script], and [Counts] says what the client did: how
// many sessions it opened, how many it holds, what it prepared and closed.
//
// It is not a database. It knows no SQL, checks no password, and keeps no data:
// a statement the script does not name is answered with an OK packet. It listens
// on the loopback interface only, and ends with the test that started it.
package mysqlscript

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"testing"
	"time"
)

// DefaultWaitTimeout is the answer, in seconds, to SELECT @@session.wait_timeout
// where [Script.WaitTimeout] is nil. It is the default of MySQL and MariaDB.
const DefaultWaitTimeout = 28800

// Script says how the server behaves. The zero Script is a server that accepts
// everybody, answers every statement with OK and never ends a session itself.
type Script struct {
	// Version is the server version told in the greeting; "" is 8.0.36-mysqlscript.
	Version string

	// Greeting is played in place of the greeting, before the client has said
	// anything, and ends the connection; nil greets. Fail(1040, ...) here is a
	// server that has too many connections, Hang() one that accepts and is silent.
	Greeting Answer

	// Login is played in place of accepting the client's login, and ends the connection; nil
	// accepts it, after LoginTakes.
	Login Answer

	// LoginTakes is how long the server takes to accept a login.
	LoginTakes time.Duration

	// WaitTimeout is the answer to SELECT @@session.wait_timeout; nil is
	// Number(DefaultWaitTimeout). What the server says here and what it does
	// (IdleLimit) are independent of each other.
	WaitTimeout Answer

	// Statements are the answers to statements, by their exact text, prepared or
	// not. A statement that is not named is answered with OK. Preparing always
	// succeeds; the answer is played when the statement is executed.
	Statements map[string]Answer

	// IdleLimit is how long a session may wait for its next command before the
	// server ends it; 0 is for ever.
	IdleLimit time.Duration

	// IdleEnding is how the server ends a session that has passed IdleLimit.
	IdleEnding Ending
}

// Counts is what the server has seen so far.
type Counts struct {
	Accepted    int // connections accepted, those that never logged in included
	Opened      int // sessions that logged in
	Open        int // sessions that are logged in now
	Quit        int // sessions ended by the client with COM_QUIT
	IdleEnded   int // sessions ended by the server for passing Script.IdleLimit
	Discoveries int // times the client asked for the session's wait_timeout
	Uses        int // other statements run, prepared statements executed, and pings
	Prepared    int // statements prepared
	Unprepared  int // prepared statements closed by the client with COM_STMT_CLOSE
}

// Server is a running server. Its methods may be called from any goroutine.
type Server struct {
	listener  net.Listener
	accepting sync.WaitGroup // the accept loop
	serving   sync.WaitGroup // the sessions

	mu       sync.Mutex
	script   Script                // guarded by mu
	counts   Counts                // guarded by mu
	changed  chan struct{}         // guarded by mu; closed and replaced when counts changes
	sessions map[*session]struct{} // guarded by mu
}

// Start runs a server that follows the script until the test ends.
func Start(t testing.TB, script Script) *Server {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("mysqlscript: cannot listen on the loopback interface: %v", err)
	}
	s := &Server{
		listener: listener,
		script:   script,
		changed:  make(chan struct{}),
		sessions: make(map[*session]struct{}),
	}
	s.accepting.Go(func() { s.accept(t) })
	t.Cleanup(s.close)
	return s
}

// Addr is the address the server listens on, as host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// DSN is the data source name of the server for github.com/go-sql-driver/mysql,
// without parameters.
func (s *Server) DSN() string { return fmt.Sprintf("user:password@tcp(%s)/test", s.Addr()) }

// Counts returns what the server has seen so far.
func (s *Server) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// awaitBound is far beyond anything a loopback server needs: reaching it means
// that what was waited for will not happen.
const awaitBound = 10 * time.Second

// Await blocks until the counts satisfy the condition, and returns them. It
// fails the test after ten seconds. It must be called on the test's goroutine.
func (s *Server) Await(t testing.TB, condition func(Counts) bool) Counts {
	t.Helper()
	bound := time.NewTimer(awaitBound)
	defer bound.Stop()
	for {
		s.mu.Lock()
		counts, changed := s.counts, s.changed
		s.mu.Unlock()
		if condition(counts) {
			return counts
		}
		select {
		case <-changed:
		case <-bound.C:
			t.Fatalf("mysqlscript: what the test waits for has not come in %v; the counts stand at %+v", awaitBound, counts)
		}
	}
}

// Change edits the script. As with a server's global settings, sessions that are
// open keep the script they were opened under.
func (s *Server) Change(edit func(*Script)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Open sessions read the old map without a lock.
	s.script.Statements = maps.Clone(s.script.Statements)
	edit(&s.script)
}

// EndAll ends every session that is open now, whatever it is doing.
func (s *Server) EndAll(how Ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		c.end(how)
	}
}

// accept serves connections until the listener is closed.
func (s *Server) accept(t testing.TB) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("mysqlscript: %s accepts no more connections: %v", s.Addr(), err)
			}
			return
		}
		c := s.newSession(conn.(*net.TCPConn))
		s.serving.Go(c.run)
	}
}

func (s *Server) newSession(conn *net.TCPConn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newSession(s, conn, s.script)
	s.sessions[c] = struct{}{}
	s.countLocked(func(n *Counts) { n.Accepted++ })
	return c
}

// forget is called by a session that has ended, after its connection is closed:
// who sees in the counts that it has gone can rely on the close being on its way.
func (s *Server) forget(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, c)
	if c.loggedIn {
		s.countLocked(func(n *Counts) { n.Open-- })
	}
}

func (s *Server) count(add func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(add)
}

func (s *Server) countLocked(add func(*Counts)) {
	add(&s.counts)
	close(s.changed)
	s.changed = make(chan struct{})
}

// close ends the server and waits until none of its goroutines is left. The
// accept loop ends first: after it, no session can begin that EndAll would miss.
func (s *Server) close() {
	_ = s.listener.Close() // nothing can be done about a listener that will not close
	s.accepting.Wait()
	s.EndAll(FIN)
	s.serving.Wait()
}
