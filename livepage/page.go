package livepage

import (
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"clock": clock, "clip": func(most int, text string) string { return clip(text, most) },
	"percent": func(part, whole seconds) string { return percent(time.Duration(part), time.Duration(whole)) },
	"share":   func(part, whole seconds) int { return int(100 * float64(part) / float64(max(whole, 1))) },
	"date":    func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") },
	"count":   count, "add": func(a, b int) int { return a + b },
}).ParseFS(assets, "assets/*.html"))

// kinds are those of the assets.
var kinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// serveAsset answers with a file of the page's own.
func serveAsset(w http.ResponseWriter, r *http.Request, name string) {
	kind := kinds[path.Ext(name)]
	text, err := assets.ReadFile("assets/" + name)
	if err != nil || kind == "" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(text) // the client may be gone
}

// sectionNames are the parts of the page that change, in their order.
var sectionNames = []string{"head", "sentences", "lanes", "who", "tools", "picture", "pin", "out", "queue", "places", "longest", "connections", "reports"}

// view is what the templates show.
type view struct {
	*document
	Pool    *pool // nil: there is none
	A       address
	Picture *picture

	OutRows        []holder
	QueueRows      []waiter
	PlaceRows      []place
	ConnectionRows []connection
	longestHeld    seconds
}

func (h *handler) viewOf(doc *document, a address) *view {
	v := &view{document: doc, A: a, Pool: doc.chosen}
	if v.Pool == nil {
		return v
	}
	p := v.Pool
	v.Picture = draw(p, &h.reader.sites, a)
	for i := range p.Places {
		v.longestHeld = max(v.longestHeld, p.Places[i].Held)
	}
	has := func(at site) bool {
		return a.Place == "" || strings.Contains(strings.ToLower(at.Place+" "+at.Function), strings.ToLower(a.Place))
	}
	v.OutRows = sorted(only(p.Out, func(h *holder) bool { return has(h.site) }), outColumns, a.sort["out"])
	v.QueueRows = only(p.Queue, func(w *waiter) bool { return has(w.site) })
	v.PlaceRows = sorted(only(p.Places, func(at *place) bool { return has(at.site) }), placeColumns, a.sort["places"])
	v.ConnectionRows = sorted(p.Connections, connectionColumns, a.sort["connections"])
	return v
}

// only is the rows that are wanted.
func only[T any](rows []T, wanted func(*T) bool) (some []T) {
	for i := range rows {
		if wanted(&rows[i]) {
			some = append(some, rows[i])
		}
	}
	return some
}

// sections are the parts of the page as HTML, by name.
func (h *handler) sections(doc *document, a address) map[string]string {
	v, out := h.viewOf(doc, a), map[string]string{}
	for _, name := range sectionNames {
		var b strings.Builder
		if err := templates.ExecuteTemplate(&b, name, v); err != nil {
			panic("livepage: bug: " + err.Error())
		}
		out[name] = b.String()
	}
	return out
}

// servePage answers with the whole page, which needs no script.
func (h *handler) servePage(w http.ResponseWriter, r *http.Request, a address) {
	read := h.read()
	if a.Look {
		h.look(read, &a)
	}
	a.Look = false // the links of the page look at nothing again
	stream := a
	doc := h.of(read, &a)
	if stream.Pool == "" || stream.Pool == a.Pool { // else what it asks for may come back, and until then it is told that it is gone
		stream = a
	}
	parts := h.sections(doc, a)
	html := map[string]template.HTML{}
	for name, text := range parts {
		html[name] = template.HTML(text) //nolint:gosec // it comes from the templates
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if r.Method == http.MethodHead {
		return
	}
	_ = templates.ExecuteTemplate(w, "page.html", map[string]any{"Part": html, "Stream": stream.String(), "Frozen": doc.Frozen, "Names": sectionNames}) // the client may be gone
}

// The templates call these.

// More is how many rows of n are not shown, where most are.
func (v *view) More(n, most int) int { return max(0, n-most) }

// header is that of a column that sorts.
type header struct{ Link, Label, Sort, Mark, Class string }

func (v *view) header(table, name, label, class, link, how string) header {
	out := header{Link: link, Label: label, Sort: "none", Class: class}
	switch how {
	case name:
		out.Sort, out.Mark = "ascending", "▲"
	case "-" + name:
		out.Sort, out.Mark = "descending", "▼"
	}
	return out
}

// Head makes one.
func (v *view) Head(table, name, label, class string) header {
	how, to := v.A.sort[table], ""
	switch table {
	case "out":
		to = next(outColumns, name, how)
	case "places":
		if how == "" {
			how = "-held"
		}
		to = next(placeColumns, name, how)
	default:
		to = next(connectionColumns, name, how)
	}
	return v.header(table, name, label, class, v.A.sorted(table, to).String(), how)
}

// PinLink leads to a lease.
func (v *view) PinLink(id uint64) string { return v.A.withLease(id).String() }

// UnpinLink leads away from it.
func (v *view) UnpinLink() string { return v.A.withLease(0).String() }

// LookLink looks at what the goroutines do now.
func (v *view) LookLink() string { return v.A.withLook().String() }

// PoolLink leads to another pool.
func (v *view) PoolLink(key string) string { return v.A.ofPool(key).String() }

// PlaceLink narrows the page down to a place; to an empty one: not any more.
func (v *view) PlaceLink(place string) string { return v.A.withPlace(place).String() }

// FreezeLink is the page of this moment.
func (v *view) FreezeLink() string { return v.A.withUntil(v.At).String() }

// AdviceLink asks the advisor, or lets go of what it has said.
func (v *view) AdviceLink(asked bool) string { return v.A.withAdvice(asked).String() }

// LiveLink is the page of now.
func (v *view) LiveLink() string { return v.A.withUntil(time.Time{}).String() }

// MoveLink is half a picture earlier, or later.
func (v *view) MoveLink(by int) string {
	to := v.At.Add(time.Duration(by) * v.A.Span / 2)
	if to.After(time.Now()) {
		return v.LiveLink()
	}
	return v.A.withUntil(to).String()
}

// ZoomLink shows less time, or more; empty: no further.
func (v *view) ZoomLink(in bool) string {
	to := v.A.zoomed(in)
	if to.Span == v.A.Span {
		return ""
	}
	return to.String()
}

// AllLink shows all connections, or only the first.
func (v *view) AllLink(all bool) string { return v.A.withAll(all).String() }

// FormatLink is the same in another format.
func (v *view) FormatLink(format string) string {
	return "?format=" + format
}

// Hidden are the fields that the form keeps.
func (v *view) Hidden() [][2]string {
	q, _ := url.ParseQuery(strings.TrimPrefix(v.A.withPlace("").withLease(0).String(), "?")) // it is our own
	var out [][2]string
	for _, key := range slices.Sorted(maps.Keys(q)) {
		out = append(out, [2]string{key, q.Get(key)})
	}
	return out
}

// SpanWords is how much time the picture has.
func (v *view) SpanWords() string { return duration(v.A.Span) }

// Width is a share of the longest, in percent, for the bars in the table of places.
func (v *view) Width(part seconds) string {
	return fmt.Sprintf("%.1f", 100*float64(part)/float64(max(v.longestHeld, 1)))
}

// Mark is the sign of a state: never only its colour.
func (s state) Mark() string {
	return map[state]string{well: "✓", watch: "●", trouble: "▲"}[s]
}

// Words is a state in plain words.
func (s state) Words() string {
	return map[state]string{well: "well", watch: "watch it", trouble: "trouble"}[s]
}

// Doing says what a connection is used for.
func (h *holder) Doing() string { return h.doing() }

// IdleFor says for how long a connection is idle.
func (c *connection) IdleFor() string { return c.idle() }

// Expiry says when a connection ends.
func (c *connection) Expiry() string { return c.expires() }

// Most is how many connections a lane may have.
func (l *lane) Most() string { return l.most() }

// IsFull tells whether its callers wait for their lane.
func (l *lane) IsFull() bool { return l.isFull() && l.Waiting > 0 }

// HasLanes tells whether there is a column of lanes.
func (v *view) HasLanes() bool { return v.Pool != nil && len(v.Pool.Lanes) > 0 }

// Since says since when there is a recording.
func (p *pool) Since() string { return p.recorded() }

// Words is what a use is.
func (u use) Words() string { return u.words() }

// IsUnused tells whether nothing is done with it.
func (u use) IsUnused() bool { return u.isUnused() }

// Because says why a connection expires, in plain words.
func (c *connection) Because() string {
	switch c.Why {
	case "idle_limit":
		return "the server's idle limit"
	case "expired":
		return "Config.MaxLifetime"
	case "flushed":
		return "the pool was flushed"
	case "role_changed":
		return "its server takes no writes"
	}
	return shown(c.Why)
}

// Lasts tells whether it is worth saying for how long the connection is used so.
func (g *heldBy) Lasts() bool {
	return time.Duration(g.UseFor) >= unusedAfter && g.UseFor < g.Longest*9/10
}
