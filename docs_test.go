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

var (
	fences   = regexp.MustCompile("(?ms)^```.*?^```$")
	inline   = regexp.MustCompile("`[^`\n]*`")
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	links    = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	notIn    = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`) // an anchor
)

// document returns the text of a document without its blocks of code.
func document(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return fences.ReplaceAllString(string(text), "")
}

// anchors are what GitHub makes of the headings of a document.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	var all []string
	for _, heading := range headings.FindAllStringSubmatch(document(t, file), -1) {
		all = append(all, strings.ReplaceAll(notIn.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-"))
	}
	return all
}

// targets are the links of a document that lead to other files of ours, or within it.
func targets(t *testing.T, file string) []string {
	t.Helper()
	var all []string
	for _, link := range links.FindAllStringSubmatch(inline.ReplaceAllString(document(t, file), ""), -1) {
		if target := link[1] + link[2]; !strings.Contains(target, "://") {
			all = append(all, target)
		}
	}
	return all
}

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	found := map[string]bool{}
	for _, pattern := range []string{"*.md", "docs/*.md", "dashboards/*.md"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			for _, target := range targets(t, file) {
				path, anchor, _ := strings.Cut(target, "#")
				to := file
				if path != "" {
					to = filepath.Join(filepath.Dir(file), path)
				}
				found[to] = true
				_, err := os.Stat(to) // or a folder
				if assert.NoError(t, err, "%s links to %s", file, target) && anchor != "" {
					assert.Contains(t, anchors(t, to), anchor, "%s links to %s", file, target)
				}
			}
		}
	}
	assert.Greater(t, len(found), 30, "documents have links")
	for _, pattern := range []string{"docs/*.md", "docs/*.svg", "docs/*.png"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, file := range files {
			assert.True(t, found[file], "no document leads to %s", file)
		}
	}
}
