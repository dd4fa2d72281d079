package line

import (
	"net"
	"sync"
	"time"
)

// pair is a client's connection and the one to the server that it is passed on to.
type pair struct {
	line           *Line
	client, server net.Conn

	mu      sync.Mutex
	silent  bool      // guarded by mu
	gone    bool      // guarded by mu; the client has left
	used    time.Time // guarded by mu; when something was last sent
	resetAt int       // guarded by mu; it is reset in place of this answer; 0: never
	answers int       // guarded by mu; that have come from the server
}

func (p *pair) silence() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = true
}

func (p *pair) isSilent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent
}

func (p *pair) left() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gone
}

// end ends both sides.
func (p *pair) end(hard bool) {
	if hard {
		reset(p.client)
		reset(p.server)
	}
	_ = p.client.Close()
	_ = p.server.Close()
}

// reset ends a connection without a goodbye.
func reset(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// pass passes on until both sides have ended.
func (p *pair) pass() {
	var both sync.WaitGroup
	both.Go(func() { p.copy(p.server, p.client) })
	both.Go(func() { p.copy(p.client, p.server) })
	both.Wait()
	p.end(false)
}

// packet is what was read at one time; no data is the end.
type packet struct {
	data []byte
	due  time.Time
}

// copy copies from src to dst, later. What a silent connection sends is lost, its end too.
func (p *pair) copy(dst, src net.Conn) {
	queue := make(chan packet, 256)
	var writing sync.WaitGroup
	writing.Go(func() { p.write(dst, queue) })
	var due time.Time
	for {
		buf := make([]byte, 16<<10)
		n, err := src.Read(buf)
		p.heard(src)
		due = p.line.arrival(due)
		queue <- packet{buf[:n], due}
		if err != nil {
			break
		}
	}
	close(queue)
	p.leaves(src)
	writing.Wait()
}

// heard notes that something was sent: too late, and the line has forgotten the connection.
func (p *pair) heard(src net.Conn) {
	forget := p.line.forgets()
	p.mu.Lock()
	now := time.Now()
	if forget > 0 && now.Sub(p.used) > forget {
		p.silent = true
	}
	p.used = now
	if src == p.server {
		p.answers++
	}
	ends := src == p.server && p.answers == p.resetAt
	p.mu.Unlock()
	if ends {
		p.end(true)
	}
}

// leaves notes that one side has ended.
func (p *pair) leaves(src net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = p.gone || src == p.client
}

// write writes what is due, and ends dst behind the last of it.
func (p *pair) write(dst net.Conn, queue <-chan packet) {
	for sent := range queue {
		time.Sleep(time.Until(sent.due))
		if len(sent.data) == 0 || p.isSilent() {
			continue
		}
		_, _ = dst.Write(sent.data)
	}
	if !p.isSilent() {
		_ = dst.Close()
	}
}
