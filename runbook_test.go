package sqllease

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What docs/runbook.md tells people to search for in the log is in a record, word for word.
func TestTheRunbookNamesTextsThatAreLogged(t *testing.T) {
	page, err := os.ReadFile("docs/runbook.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(page), "\n## 1. Read the log\n")
	require.True(t, found)
	section, _, _ := strings.Cut(after, "\n## ")
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var source strings.Builder
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			source.Write(text)
		}
	}
	rows := regexp.MustCompile("(?m)^\\| `(?:sqllease: )?([^`]+)` \\| (.*?) \\|").FindAllStringSubmatch(section, -1)
	require.Len(t, rows, 8)
	for _, row := range rows {
		assert.Contains(t, source.String(), row[1])
		for _, key := range quoted.FindAllStringSubmatch(row[2], -1) {
			_, name, grouped := strings.Cut(key[1], ".")
			if !grouped {
				name = key[1]
			}
			if name != "held by" {
				assert.Contains(t, source.String(), `("`+name+`"`, "a key of %q", row[1])
			}
		}
	}
}
