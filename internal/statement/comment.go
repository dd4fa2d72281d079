package statement

import (
	"cmp"
	"slices"
	"strings"
)

// The bounds of a comment, in bytes. Keys and values are measured before they are encoded,
// the comment as it is sent.
const (
	LongestKey     = 64
	LongestValue   = 512
	LongestComment = 2048
)

// Tags are what a comment says. Empty ones are left out.
type Tags struct {
	Traceparent string
	Tracestate  string
	Others      map[string]string // of the application
}

// pair is a tag.
type pair struct{ key, value string }

func byKey(a, b pair) int { return cmp.Compare(a.key, b.key) }

// isBounded tells whether a tag is worth a place. Half a value would be a wrong one.
func (p pair) isBounded() bool {
	return p.key != "" && len(p.key) <= LongestKey && len(p.value) <= LongestValue
}

// size is what the pair adds to a comment, with its comma.
func (p pair) size() int { return size(p.key) + len("=''") + size(p.value) + len(",") }

// choose appends the pairs that fit to none, sorted by key as sqlcommenter has it. The
// trace comes first, then the tags in the order of their keys.
func (t Tags) choose(none []pair) []pair {
	left := LongestComment - len("/**/")
	pairs := none
	for _, own := range [...]pair{{"traceparent", t.Traceparent}, {"tracestate", t.Tracestate}} {
		if own.value != "" && own.isBounded() && own.size() <= left {
			pairs = append(pairs, own)
			left -= own.size()
		}
	}
	chosen := len(pairs)
	for key, value := range t.Others {
		if tag := (pair{key, value}); tag.isBounded() && !t.has(key) {
			pairs = append(pairs, tag)
		}
	}
	others := pairs[chosen:]
	slices.SortFunc(others, byKey)
	for _, tag := range others {
		if tag.size() <= left {
			pairs[chosen] = tag
			chosen++
			left -= tag.size()
		}
	}
	slices.SortFunc(pairs[:chosen], byKey)
	return pairs[:chosen]
}

// has tells whether a key is the trace's.
func (t Tags) has(key string) bool {
	return t.Traceparent != "" && (key == "traceparent" || key == "tracestate")
}

// With puts tags into the statement whose place it is, as sqlcommenter has it
// (https://google.github.io/sqlcommenter/spec/): pairs of key='value', percent-encoded.
// In front of its first word, if that is wanted and no comment of its own follows: proxies
// and planners take hints from the first comment only. Otherwise behind its end.
func (p Place) With(query string, tags Tags, inFront bool) string {
	var few [16]pair
	pairs := tags.choose(few[:0])
	if p.IsNowhere() || len(pairs) == 0 {
		return query
	}
	at, before, after := p.end, " ", ""
	switch {
	case inFront && !p.follows:
		at, before, after = p.front, "", " "
	case p.line:
		before = "\n"
	}
	length := len(query) + len(before) + len("/**/") - len(",") + len(after)
	for _, tag := range pairs {
		length += tag.size()
	}
	var b strings.Builder
	b.Grow(length)
	b.WriteString(query[:at])
	b.WriteString(before)
	write(&b, pairs)
	b.WriteString(after)
	b.WriteString(query[at:])
	return b.String()
}

func write(b *strings.Builder, pairs []pair) {
	b.WriteString("/*")
	for i, tag := range pairs {
		if i > 0 {
			b.WriteByte(',')
		}
		encode(b, tag.key)
		b.WriteString("='")
		encode(b, tag.value)
		b.WriteByte('\'')
	}
	b.WriteString("*/")
}

// isPlain tells the bytes that stand for themselves. What is left of others is %XX, so that
// no tag can end a comment, begin one that a server executes, or have a placeholder in it
// that a driver would count.
func isPlain(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || isDigit(b) || b == '-' || b == '.' || b == '_' || b == '~'
}

func encode(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if isPlain(s[i]) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[s[i]>>4])
		b.WriteByte(hex[s[i]&15])
	}
}

// size is how long s is once it is encoded.
func size(s string) int {
	n := len(s)
	for i := range len(s) {
		if !isPlain(s[i]) {
			n += len("XX")
		}
	}
	return n
}
