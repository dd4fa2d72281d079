package statement

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A tag can be anything, and ends no comment.
func FuzzWithComment(f *testing.F) {
	f.Add("SELECT 1", "route", "/orders */; DROP TABLE t; /*")
	f.Add("SELECT 1;", "!50000 DROP TABLE t", "'\\")
	f.Add("SELECT 'a", "M!", "\x00")
	whole := regexp.MustCompile(`^/\*([A-Za-z0-9._~%-]+)='([A-Za-z0-9._~%-]*)'\*/$`)
	f.Fuzz(func(t *testing.T, query, key, value string) {
		if !TakesComment(query, "SELECT") {
			return
		}
		got := WithComment(query, map[string]string{key: value})
		if key == "" {
			require.Equal(t, query, got)
			return
		}
		body := strings.TrimRight(query, "; \t\r\n")
		require.True(t, strings.HasPrefix(got, body+" /*"))
		comment := strings.TrimSuffix(strings.TrimPrefix(got, body+" "), query[len(body):])
		parts := whole.FindStringSubmatch(comment)
		require.NotNil(t, parts, comment)
		for i, want := range []string{key, value} {
			decoded, err := url.PathUnescape(parts[i+1])
			require.NoError(t, err)
			require.Equal(t, want, decoded)
		}
	})
}
