// Package line is the network between an application and a server, for tests: a
// TCP proxy on loopback that can be slow, fall silent, forget idle connections,
// reset them, and lead elsewhere.
package line

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Line passes TCP connections on until it is closed. Its methods may be called
// from any goroutine.
type Line struct {
	listener net.Listener
	running  sync.WaitGroup // every goroutine of it

	mu      sync.Mutex
	pairs   map[*pair]struct{} // guarded by mu
	server  string             // guarded by mu; of the next connection
	ways    ways               // guarded by mu; of all connections
	resetAt int                // guarded by mu; new connections are reset in place of this answer of the server's; 0: never
	deaf    bool               // guarded by mu; new connections are silent
	closed  bool               // guarded by mu
}

// ways is how a line passes data on.
type ways struct {
	delay, jitter time.Duration // in either direction
	forget        time.Duration // a connection that was idle for so long is silent; 0: never
}

// New is a line to a server.
func New(server string) (*Line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Line{listener: listener, server: server, pairs: map[*pair]struct{}{}}
	l.running.Go(l.accept)
	return l, nil
}

// Addr is where it listens, as host:port.
func (l *Line) Addr() string { return l.listener.Addr().String() }

// Close ends the line and every connection over it.
func (l *Line) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.listener.Close()
	l.each(func(p *pair) { p.end(false) })
	l.running.Wait()
}

// To leads connections that are opened from now on to another server.
func (l *Line) To(server string) { l.set(func() { l.server = server }) }

// Delay has everything arrive later, in either direction: by the delay, and by
// something between zero and the jitter.
func (l *Line) Delay(delay, jitter time.Duration) {
	l.set(func() { l.ways.delay, l.ways.jitter = delay, jitter })
}

// Forget has a connection fall silent after it was idle for so long, as a NAT does.
func (l *Line) Forget(idle time.Duration) { l.set(func() { l.ways.forget = idle }) }

// Deaf says whether new connections are accepted, and nothing on them arrives.
func (l *Line) Deaf(deaf bool) { l.set(func() { l.deaf = deaf }) }

// ResetAt resets each new connection in place of the server's first answer, or its
// second, and so on; zero: none is reset.
func (l *Line) ResetAt(answer int) { l.set(func() { l.resetAt = answer }) }

// Silence has the connections of now fall silent: nothing on them arrives any
// more, not even their end. New ones are not concerned.
func (l *Line) Silence() { l.each((*pair).silence) }

// Reset resets the connections of now.
func (l *Line) Reset() { l.each(func(p *pair) { p.end(true) }) }

// Lost ends silent connections at the server's side, which has heard nothing of
// their clients for long.
func (l *Line) Lost() {
	l.each(func(p *pair) {
		if p.isSilent() {
			_ = p.server.Close()
		}
	})
}

// Open is how many connections clients have open.
func (l *Line) Open() int {
	n := 0
	l.each(func(p *pair) {
		if !p.left() {
			n++
		}
	})
	return n
}

func (l *Line) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// each calls with each pair, without the lock.
func (l *Line) each(do func(*pair)) {
	l.mu.Lock()
	all := make([]*pair, 0, len(l.pairs))
	for p := range l.pairs {
		all = append(all, p)
	}
	l.mu.Unlock()
	for _, p := range all {
		do(p)
	}
}

func (l *Line) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.connect(client) })
	}
}

// connect connects a client to the server, and passes on until both have gone.
func (l *Line) connect(client net.Conn) {
	l.mu.Lock()
	to, resetAt, deaf := l.server, l.resetAt, l.deaf
	l.mu.Unlock()
	server, err := net.Dial("tcp", to)
	if err != nil {
		reset(client)
		return
	}
	p := &pair{line: l, client: client, server: server, silent: deaf, resetAt: resetAt, used: time.Now()}
	l.mu.Lock()
	l.pairs[p] = struct{}{}
	closed := l.closed
	l.mu.Unlock()
	if closed { // which has not seen this one
		p.end(false)
	}
	p.pass()
	l.set(func() { delete(l.pairs, p) })
}

// arrival is when something arrives that was sent now, and not before what was sent before.
func (l *Line) arrival(before time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now().Add(l.ways.delay)
	if l.ways.jitter > 0 {
		at = at.Add(rand.N(l.ways.jitter))
	}
	if at.Before(before) {
		return before
	}
	return at
}

func (l *Line) forgets() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ways.forget
}
