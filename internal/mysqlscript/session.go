package mysqlscript

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Commands of the protocol, by the first byte of the client's packet.
const (
	comQuit            = 0x01
	comInitDB          = 0x02
	comQuery           = 0x03
	comPing            = 0x0e
	comStmtPrepare     = 0x16
	comStmtExecute     = 0x17
	comStmtSendLong    = 0x18
	comStmtClose       = 0x19
	comStmtReset       = 0x1a
	comResetConnection = 0x1f
)

// Errors the server sends by itself, with the codes and texts of MySQL.
const (
	erUnknownCommand     = 1047
	erUnknownStatement   = 1243
	erInteractionTimeout = 4031

	interactionTimeoutText = "The client was disconnected by the server because of inactivity. " +
		"See wait_timeout and interactive_timeout for configuring this behavior."
)

// session is one connection of a client. Its goroutine alone touches it, except
// for end.
type session struct {
	server   *Server
	script   Script
	conn     *net.TCPConn
	ending   sync.Once
	loggedIn bool

	in        *bufio.Reader
	out       []byte // packets not yet sent
	sequence  byte   // of the next packet either side sends
	variables bool   // the statement being answered is SHOW VARIABLES
	binary    bool   // the statement being answered was prepared: rows are binary

	lastStatement uint32
	statements    map[uint32]string
}

func newSession(server *Server, conn *net.TCPConn, script Script) *session {
	return &session{
		server:     server,
		script:     script,
		conn:       conn,
		in:         bufio.NewReader(conn),
		statements: make(map[uint32]string),
	}
}

// run serves the client until it leaves or the script ends the session. Why a
// session ended is for the client to see, and for the counts: the error that
// ended it has no reader here.
func (c *session) run() {
	defer c.server.forget(c)
	defer c.end(FIN)
	if err := c.login(); err != nil {
		return
	}
	for {
		command, err := c.next()
		if err != nil {
			return
		}
		if err := c.obey(command[0], command[1:]); err != nil {
			return
		}
	}
}

// end closes the connection, once; later calls do nothing. Any goroutine may
// call it.
func (c *session) end(how Ending) {
	c.ending.Do(func() {
		switch how {
		case RST:
			_ = c.conn.SetLinger(0) // fails only on a connection that is gone already
		case TimeoutError:
			packet := appendPacket(nil, 0, errorPayload(erInteractionTimeout, interactionTimeoutText))
			_, _ = c.conn.Write(packet) // the client may have left: then nobody needs it
		}
		_ = c.conn.Close() // likewise
	})
}

// login greets the client and lets it in, or does what the script has instead.
func (c *session) login() error {
	if c.script.Greeting != nil {
		return errors.Join(c.script.Greeting(c), errEnded)
	}
	c.writeGreeting()
	if err := c.flush(); err != nil {
		return err
	}
	if _, err := c.readPacket(); err != nil {
		return err
	}
	if c.script.Login != nil {
		return errors.Join(c.script.Login(c), errEnded)
	}
	if c.script.LoginTakes > 0 {
		if err := After(c.script.LoginTakes, func(*session) error { return nil })(c); err != nil {
			return err
		}
	}
	// Counted before the client is told: once its connect has returned, the
	// counts have the session.
	c.loggedIn = true
	c.server.count(func(n *Counts) { n.Opened++; n.Open++ })
	return OK()(c)
}

// next waits for a command, at most for the idle limit.
func (c *session) next() ([]byte, error) {
	var deadline time.Time
	if c.script.IdleLimit > 0 {
		deadline = time.Now().Add(c.script.IdleLimit)
	}
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	command, err := c.readPacket()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.end(c.script.IdleEnding)
		c.server.count(func(n *Counts) { n.IdleEnded++ })
	}
	if err != nil {
		return nil, err
	}
	return command, c.conn.SetReadDeadline(time.Time{}) // a session that works is not idle
}

// obey does one command. It returns an error when the session is over.
func (c *session) obey(command byte, body []byte) error {
	c.binary = false
	switch command {
	case comQuit:
		c.server.count(func(n *Counts) { n.Quit++ })
		return errEnded
	case comQuery:
		return c.execute(string(body))
	case comPing:
		c.server.count(func(n *Counts) { n.Uses++ })
		return OK()(c)
	case comInitDB, comResetConnection, comStmtReset:
		return OK()(c)
	case comStmtPrepare:
		return c.prepare(string(body))
	case comStmtExecute:
		return c.executePrepared(body)
	case comStmtClose:
		c.unprepare(body)
		return nil // has no answer
	case comStmtSendLong:
		return nil // has no answer
	default:
		return Fail(erUnknownCommand, "Unknown command")(c)
	}
}

// execute answers a statement, prepared or not.
func (c *session) execute(statement string) error {
	if asksWaitTimeout(statement) {
		c.server.count(func(n *Counts) { n.Discoveries++ })
		c.variables = strings.HasPrefix(strings.ToLower(statement), "show")
		defer func() { c.variables = false }()
		if c.script.WaitTimeout == nil {
			return Number(DefaultWaitTimeout)(c)
		}
		return c.script.WaitTimeout(c)
	}
	c.server.count(func(n *Counts) { n.Uses++ })
	if answer := c.script.Statements[statement]; answer != nil {
		return answer(c)
	}
	return OK()(c)
}

// asksWaitTimeout is deliberately broad: how the question is spelt is the
// client's business.
func asksWaitTimeout(statement string) bool {
	statement = strings.ToLower(statement)
	return (strings.HasPrefix(statement, "select") || strings.HasPrefix(statement, "show variables")) && strings.Contains(statement, "wait_timeout")
}

func (c *session) prepare(statement string) error {
	c.lastStatement++
	c.statements[c.lastStatement] = statement
	c.server.count(func(n *Counts) { n.Prepared++ })
	c.writePrepared(c.lastStatement, strings.Count(statement, "?"))
	return c.flush()
}

func (c *session) executePrepared(body []byte) error {
	statement, ok := c.statements[statementID(body)]
	if !ok {
		return Fail(erUnknownStatement, "Unknown prepared statement handler given to EXECUTE")(c)
	}
	c.binary = true
	return c.execute(statement)
}

// unprepare counts only statements that were there: a statement closed twice, or
// on a session that never had it, does not balance another one's leak.
func (c *session) unprepare(body []byte) {
	id := statementID(body)
	if _, ok := c.statements[id]; !ok {
		return
	}
	delete(c.statements, id)
	c.server.count(func(n *Counts) { n.Unprepared++ })
}

// statementID reads the id that opens the body of every statement command; 0,
// which no statement has, where there is none.
func statementID(body []byte) uint32 {
	if len(body) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(body)
}
