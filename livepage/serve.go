package livepage

import (
	"encoding/json"
	"net/http"
	"net/url"
	"time"
)

// handler answers requests. Nothing of it runs between them.
type handler struct {
	settings settings
	reader   reader
	steps    steps
	looks    looks
	advices  advices
	streams  streams
	keys     keys
}

func newHandler(s settings) *handler {
	h := &handler{settings: s, reader: reader{trace: s.trace}}
	h.steps.read = h.read
	return h
}

// policy lets the page load its own script, style and icon, and nothing else: no script in the page
// itself, and nothing from elsewhere.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP looks at the query only: so the page works under every path.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "the page is read with GET", http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	if name := query.Get("asset"); name != "" {
		serveAsset(w, r, name)
		return
	}
	a := addressOf(query)
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		a.Look = false // a page from elsewhere does not have the process stopped
	}
	if a.Until.After(time.Now()) {
		a.Until = time.Time{} // it has not come
	}
	switch query.Get("format") {
	case "", "html":
		h.servePage(w, r, a)
	case "json":
		h.serveJSON(w, a, query)
	case "text":
		h.serveText(w, a, query)
	case "stream":
		h.serveStream(w, r, a)
	default:
		http.Error(w, `there is no such format: format is "html", "json" or "text"`, http.StatusBadRequest)
	}
}

// read reads all pools.
func (h *handler) read() *document {
	pools := h.settings.list()
	doc := &document{At: time.Now(), Pools: make([]*pool, 0, len(pools))}
	for i, key := range h.keys.of(pools) {
		doc.Pools = append(doc.Pools, h.reader.read(pools[i], key))
	}
	return doc
}

// of is a document as an address wants it: one pool has a picture, another time may be shown, a
// lease may be pinned.
func (h *handler) of(doc *document, a *address) *document {
	out := &document{At: doc.At, Pools: append([]*pool{}, doc.Pools...)}
	at := out.choose(a)
	if at < 0 {
		return out
	}
	if !a.Until.IsZero() && a.Until.Before(doc.At) {
		out.Frozen, out.At = true, a.Until
		out.Pools[at] = h.reader.frozen(out.Pools[at], a.Until)
		out.chosen = out.Pools[at]
	}
	if a.Advise {
		h.advised(out)
	}
	if a.Pool != "" && a.Pool != out.chosen.Key {
		a.Lease, a.At = 0, point{} // they are of that one
	}
	a.Pool = out.chosen.Key
	a.fit(out.chosen.recording.To.Sub(out.chosen.recording.From))
	if a.Lease == 0 && !a.At.At.IsZero() {
		a.Lease = leaseAt(out.chosen, a.At, a.Span)
	}
	if a.Lease != 0 {
		out.Pin = h.pin(out.chosen, a.Lease)
		if out.Pin == nil {
			out.Note = "Lease " + number(a.Lease) + " is not in the recording any more."
		}
	}
	return out
}

// choose finds the pool that an address names; where it names none, the first of those that are
// worst. -1: there is none.
func (doc *document) choose(a *address) int {
	at := -1
	for i, p := range doc.Pools {
		if p.Key == a.Pool {
			doc.chosen = p
			return i
		}
		if at < 0 || worse(p.State, doc.Pools[at].State) {
			at = i
		}
	}
	if at >= 0 {
		doc.chosen = doc.Pools[at]
		if a.Pool != "" {
			doc.Note = "There is no pool " + a.Pool + " any more. This is another one."
		}
	}
	return at
}

func worse(a, b state) bool {
	rank := map[state]int{well: 0, watch: 1, trouble: 2}
	return rank[a] > rank[b]
}

// serveJSON answers programs.
func (h *handler) serveJSON(w http.ResponseWriter, a address, query url.Values) {
	doc, ok := h.forPrograms(w, a, query)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(doc) // the client may be gone
}

// serveText answers a terminal.
func (h *handler) serveText(w http.ResponseWriter, a address, query url.Values) {
	doc, ok := h.forPrograms(w, a, query)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(doc.text())) // likewise
}

// forPrograms is the document without what is only for the page: all pools, or the one that is asked
// for.
func (h *handler) forPrograms(w http.ResponseWriter, a address, query url.Values) (*document, bool) {
	read := h.read()
	if a.Look {
		h.look(read, &a)
	}
	doc := h.of(read, &a)
	if query.Get("pool") == "" {
		return doc, true
	}
	if doc.chosen == nil || doc.chosen.Key != shown(query.Get("pool")) {
		http.Error(w, "there is no such pool", http.StatusNotFound)
		return nil, false
	}
	doc.Pools = []*pool{doc.chosen}
	return doc, true
}

// look looks at what the goroutines do that have connections of the chosen pool.
func (h *handler) look(doc *document, a *address) {
	chosen := *doc
	if chosen.choose(a) >= 0 {
		h.looks.look(chosen.chosen.connector)
	}
}
