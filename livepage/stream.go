package livepage

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
	"weak"
)

// A stream is a request that does not end: each second it sends what has changed on the page of its
// viewer, as server-sent events. It runs on the goroutine of its request, and so ends with it: when
// the tab is closed, when a write fails, when the server shuts down, and after a minute in any
// case. The page then asks again. Nothing else runs: the first stream of a second reads the pools
// for all of them.

const (
	stepEvery   = time.Second
	streamLasts = time.Minute      // http.Server.Shutdown waits no longer, even of a server that cannot be known
	writeWithin = 10 * time.Second // a viewer who does not read holds no goroutine for longer
)

// steps share what was read in one second.
type steps struct {
	read func() *document

	mu      sync.Mutex
	viewers int       // guarded by mu
	step    time.Time // guarded by mu: the second in which doc was read
	doc     *document // guarded by mu: nil while nobody looks
}

// come and go count the viewers: what the last one has seen is let go.
func (s *steps) come() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewers++
}

func (s *steps) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers--; s.viewers == 0 {
		s.doc = nil
	}
}

// at is what was read in the second of that time, or is read now.
func (s *steps) at(now time.Time) *document {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step := now.Truncate(stepEvery); s.doc == nil || !s.step.Equal(step) {
		s.doc, s.step = s.read(), step
	}
	return s.doc
}

// streams end when their server shuts down, which a handler is not told otherwise.
type streams struct {
	mu      sync.Mutex
	servers map[weak.Pointer[http.Server]]chan struct{} // guarded by mu: closed when it shuts down
}

// shutDown is closed when the server of a request shuts down; nil: its server is not known.
func (s *streams) shutDown(r *http.Request) <-chan struct{} {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.servers {
		if p.Value() == nil {
			delete(s.servers, p)
		}
	}
	if s.servers == nil {
		s.servers = map[weak.Pointer[http.Server]]chan struct{}{}
	}
	key := weak.Make(server)
	if done, known := s.servers[key]; known {
		return done
	}
	done := make(chan struct{})
	s.servers[key] = done
	server.RegisterOnShutdown(sync.OnceFunc(func() { close(done) }))
	return done
}

// serveStream sends the page of an address again and again, and once if it is frozen.
func (h *handler) serveStream(w http.ResponseWriter, r *http.Request, a address) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	if r.Method == http.MethodHead {
		return
	}
	if control.Flush() != nil {
		http.Error(w, "something between the page and its server keeps answers back: reload the page to see what has changed", http.StatusNotImplemented)
		return
	}
	a.Look = false
	h.steps.come()
	defer h.steps.leave()
	ends := time.NewTimer(streamLasts)
	defer ends.Stop()
	shutDown := h.streams.shutDown(r)
	sent := map[string]string{}
	for {
		now := time.Now()
		again := a // what it chooses is for this step
		changed := h.changed(&again, now, sent)
		_ = control.SetWriteDeadline(now.Add(writeWithin)) // of a writer that has none, the server's own is in force
		if send(w, "step", changed) != nil || control.Flush() != nil {
			return
		}
		if !a.Until.IsZero() {
			_ = send(w, "frozen", nil)
			return
		}
		a.Span = again.Span // what it has chosen stays, whatever comes later
		if a.Pool == "" {
			a.Pool = again.Pool
		}
		if a.Pool == again.Pool {
			a.Lease, a.At = again.Lease, point{}
		}
		next := time.NewTimer(now.Truncate(stepEvery).Add(stepEvery).Sub(now))
		select {
		case <-next.C:
			continue
		case <-r.Context().Done():
		case <-shutDown:
		case <-ends.C:
		}
		next.Stop()
		return
	}
}

// changed is the parts of the page that are not as they were sent last.
func (h *handler) changed(a *address, now time.Time, sent map[string]string) map[string]string {
	changed, doc := map[string]string{}, h.steps.at(now)
	if !a.Until.Before(doc.At) { // frozen since it was read
		doc = h.read()
	}
	for name, text := range h.sections(h.of(doc, a), *a) {
		if was, known := sent[name]; !known || was != text {
			sent[name], changed[name] = text, text
		}
	}
	return changed
}

// send sends an event, and for how many milliseconds to wait where the stream ends. JSON has no line
// breaks, which would end it.
func send(w http.ResponseWriter, event string, parts map[string]string) error {
	data, err := json.Marshal(parts)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "event: %s\nretry: 1000\ndata: %s\n\n", event, data)
	return err
}
