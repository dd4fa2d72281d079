package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLinksThatLeadNowhereAreTold(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	write("a.md", "# One & `two`\n[here](#one--two) [there](b.md#why-not) [gone](c.md) [none](b.md#no)\n"+
		"[far](https://example.com/x) `x[T](y)` <img src=\"seen.png\">\n```\n[code](d.md)\n# no heading\n```\n")
	write("b.md", "## [Why](a.md) not?\n[no](a.md#no-heading)\n")
	write("seen.png", "")
	write("unseen.svg", "")
	documents, pictures, err := found([]string{dir})
	require.NoError(t, err)
	faults, err := check(documents, pictures)
	require.NoError(t, err)
	at := func(name string) string { return filepath.Join(dir, name) }
	assert.Equal(t, []string{
		at("a.md") + " links to c.md: there is no such file",
		at("a.md") + " links to b.md#no: there is no such heading",
		at("b.md") + " links to a.md#no-heading: there is no such heading",
		"no document shows " + at("unseen.svg"),
	}, faults)
}
