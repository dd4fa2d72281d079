package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestTheMigrationsExpressionsAreAccepted has promtool read the expressions that
// docs/migration.md shows for dashboards and alerts. That their names are emitted is tested
// in bench.
func TestTheMigrationsExpressionsAreAccepted(t *testing.T) {
	page, err := os.ReadFile("../../docs/migration.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(page), "\n### Dashboards and alerts\n")
	require.True(t, found)
	table, _, _ := strings.Cut(after, "\n## ")
	rules := strings.Builder{}
	rules.WriteString("groups:\n  - name: migration\n    rules:\n")
	expressions := captured(table, "(?:\\| |^)`([^`]+)`")
	require.Greater(t, len(expressions), 20)
	for i, expression := range expressions {
		fmt.Fprintf(&rules, "      - record: migration:%d\n        expr: |\n          %s\n", i, expression)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	require.NoError(t, os.WriteFile(file, []byte(rules.String()), 0o600))
	out, err := exec.Command(find(t, "promtool"), "check", "rules", file).CombinedOutput()
	assert.NoError(t, err, string(out))
}
