package page

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestABlockIsFilled(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) { require.NoError(t, os.WriteFile(file, []byte(text), 0o600)) }
	write("a\n<!-- one: begin -->\nold\n<!-- one: end -->\nb\n<!-- two: begin -->\n<!-- two: end -->\nc\n")
	require.NoError(t, Fill(file, "one", "1\n"))
	require.NoError(t, Fill(file, "two", "2\n"))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Equal(t, "a\n<!-- one: begin -->\n1\n<!-- one: end -->\nb\n<!-- two: begin -->\n2\n<!-- two: end -->\nc\n", string(text))
	_, inside, _, err := Block(file, "one")
	require.NoError(t, err)
	assert.Equal(t, "1\n", inside)
}

func TestABlockThatIsMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	require.Error(t, Fill(file, "one", "1\n"), "there is no such page")
	for _, text := range []string{"", "<!-- one: begin -->\n", "<!-- one: end -->\n<!-- one: begin -->\n"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		require.ErrorContains(t, Fill(file, "one", "1\n"), `has no block "one"`)
		left, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, text, string(left), "it is left as it was")
	}
}
