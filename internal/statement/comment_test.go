package statement

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	parent = "00-5b67fbde4c3d5f2056aad4951d28b758-3673b2fa1511659e-01"
	state  = "congo=t61,rojo=00f0"
)

// said is the comment that tags make.
func said(tags Tags) string {
	const query = "DO 1"
	return strings.TrimPrefix(strings.TrimPrefix(PlaceOf(query, Unknown).With(query, tags, false), query), " ")
}

func TestTagsAreSortedAndEncoded(t *testing.T) {
	assert.Equal(t, "/*a='it%27s',b%20c='%2A%2F',d='',route='%2Forders',traceparent='"+parent+"',tracestate='congo%3Dt61%2Crojo%3D00f0'*/",
		said(Tags{parent, state, map[string]string{"route": "/orders", "a": "it's", "b c": "*/", "d": "", "": "no key"}}))
	assert.Empty(t, said(Tags{}), "there is nothing to say")
	assert.Equal(t, "/*traceparent='"+parent+"'*/", said(Tags{Traceparent: parent, Others: map[string]string{"traceparent": "mine", "tracestate": "mine"}}), "the call's trace is the true one")
	assert.Equal(t, "/*traceparent='mine'*/", said(Tags{Others: map[string]string{"traceparent": "mine"}}))
}

func TestTagsAreBounded(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, c := range map[string]struct {
		tags Tags
		want string
	}{
		"the longest value":        {Tags{Others: map[string]string{"a": long(LongestValue)}}, "/*a='" + long(LongestValue) + "'*/"},
		"a longer one":             {Tags{Others: map[string]string{"a": long(LongestValue + 1), "b": "c"}}, "/*b='c'*/"},
		"one of 30 MB":             {Tags{Others: map[string]string{"a": long(30 << 20)}}, ""},
		"the longest key":          {Tags{Others: map[string]string{long(LongestKey): "a"}}, "/*" + long(LongestKey) + "='a'*/"},
		"a longer key":             {Tags{Others: map[string]string{long(LongestKey + 1): "a"}}, ""},
		"a tracestate of 16 kB":    {Tags{parent, long(16 << 10), nil}, "/*traceparent='" + parent + "'*/"},
		"a tracestate before tags": {Tags{parent, strings.Repeat("=", LongestValue), map[string]string{"a": long(LongestValue), "b": "c"}}, "/*b='c',traceparent='" + parent + "',tracestate='" + strings.Repeat("%3D", LongestValue) + "'*/"},
	} {
		assert.Equal(t, c.want, said(c.tags), name)
	}

	many := map[string]string{}
	for i := range 10_000 {
		many[fmt.Sprintf("key%04d", i)] = long(i % 100)
	}
	comment := said(Tags{parent, state, many})
	assert.LessOrEqual(t, len(comment), LongestComment)
	assert.Greater(t, len(comment), LongestComment-len(",key0000=''"))
	assert.Contains(t, comment, "traceparent='"+parent+"',tracestate='congo")
	assert.Contains(t, comment, "/*key0000='',key0001='x',", "which ones is no chance")
}

func TestACommentIsOneAllocation(t *testing.T) {
	const query = "SELECT a FROM t"
	place, tags := PlaceOf(query, MySQL), Tags{parent, state, map[string]string{"route": "/orders", "app": "shop"}}
	assert.Equal(t, 1.0, testing.AllocsPerRun(10, func() { place.With(query, tags, true) }))
}

// tag is a comment that nothing can end early.
var tag = regexp.MustCompile(`/\*([A-Za-z0-9._~%-]+)='([A-Za-z0-9._~%-]*)'\*/`)

// FuzzComment puts any tag into any statement. The tag reads as what it was, and the
// statement as what it was without the comment.
func FuzzComment(f *testing.F) {
	for i, query := range []string{
		"SELECT 1", "SELECT 1;", "SELECT 'a'", "SELECT 1 -- a", "-- name: A :one\nSELECT 1", "/*+ a */ SELECT 1", "SELECT /* a */ 1", "SELECT a #>> '{b}'",
		"SELECT $$ ' $$", "SELECT 1; # a\n", `SELECT 'a\'b'`, "SELECT 1 /*! + 1 */", "CREATE TABLE t (a int)", "SELECT 1 /* /* */ */", "SELECT 5--1", "SELECT `a`,[b],\"c\"",
		"SELECT 1 --a\r+1", "SELECT e'a', q'a'", "SELECT\v1 \f", "a b\xff\u00a0",
	} {
		f.Add(query, "route", "/orders */; DROP TABLE t; /*", uint8(i), i%2 == 0)
		f.Add(query, "!50000 DROP TABLE t", "'\\", uint8(i), i%3 == 0)
		f.Add(query, "M!\xff", "\x00\xc3", uint8(i), true)
	}
	f.Fuzz(func(t *testing.T, query, key, value string, grammar uint8, inFront bool) {
		g := everywhere[int(grammar)%len(everywhere)]
		place := PlaceOf(query, g)
		got := place.With(query, Tags{Others: map[string]string{key: value}}, inFront)
		if place.IsNowhere() || !(pair{key, value}).isBounded() {
			require.Equal(t, query, got)
			return
		}
		at := place.end
		if inFront && !place.follows {
			at = place.front
		}
		added := got[at : len(got)-len(query)+at]
		require.Equal(t, query, got[:at]+got[at+len(added):])
		parts := tag.FindStringSubmatch(added)
		require.NotNil(t, parts, added)
		require.Equal(t, parts[0], strings.TrimSpace(added))
		for i, want := range []string{key, value} {
			decoded, err := url.PathUnescape(parts[i+1])
			require.NoError(t, err)
			require.Equal(t, want, decoded)
		}
		require.Equal(t, meaning(query, g), meaning(got, g), "%q, grammar %d", got, g)
	})
}

// meaning is what the sanitiser makes of a statement, but for white space, and for what it
// hides at the end: where all the rest may be a secret, a comment may be one too.
func meaning(query string, g Grammar) string {
	return strings.TrimRight(strings.Join(strings.Fields(Summarise(query, g).Sanitised), ""), "?")
}
