package main

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const root = "../.."

// again tells what to do where a document and the figures differ.
const again = "%s is not what the figures say: (cd bench && go run ./report) writes it again"

func measured(t *testing.T) *figures {
	t.Helper()
	f, err := read(filepath.Base(kept))
	require.NoError(t, err)
	return f
}

func TestTheDocumentsSayWhatWasMeasured(t *testing.T) {
	m, err := documents(measured(t))
	require.NoError(t, err)
	for name, blocks := range m.texts {
		text, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		filled, err := fill(name, string(text), blocks)
		require.NoError(t, err)
		assert.True(t, filled == string(text), again, name)
	}
	for name, picture := range m.pictures {
		drawn, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		assert.True(t, picture == string(drawn), again, name)
	}
}

func TestThePackageCommentSaysWhatWasMeasured(t *testing.T) {
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "doc.go"), nil, parser.ParseComments)
	require.NoError(t, err)
	text := strings.Join(strings.Fields(parsed.Doc.Text()), " ")
	for _, sentence := range inGoDoc(measured(t)) {
		assert.Contains(t, text, sentence)
	}
}

// docs/performance.md says so below its tables.
func TestWhatIsSaidOfTheTables(t *testing.T) {
	f := measured(t)
	of := func(telemetry, work, wrapper string) call { return call{"nothing", telemetry, work, wrapper} }
	for _, work := range works {
		for _, wrapper := range others {
			with, without := of("sampled", work.key, wrapper.key), of("sampled", work.key, ours.key)
			assert.Less(t, f.allocs(without), f.allocs(with), with.name())
			if wrapper.key != "uptrace" && work.key != "exec" && work.key != "tx" {
				assert.Less(t, f.micros(without), f.micros(with), with.name())
			}
		}
	}
	assert.InDelta(t, 0.5, f.micros(of("noop", "exec", "sqllease-all"))-f.micros(of("noop", "exec", ours.key)), 0.2)
	assert.InEpsilon(t, f.micros(of("noop", "exec", "sqllease-off")), f.micros(of("noop", "exec", ours.key)), 0.1)
}

// What is kept is what the documents need, and makes the same documents.
func TestWhatIsKeptIsAllThatIsShown(t *testing.T) {
	f := measured(t)
	before, err := documents(f)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Base(kept))
	require.NoError(t, err)
	assert.Equal(t, string(text), f.shown().String())
	f.values["Waits/hold=heavy-tail/callers=20/pool=bare"] = map[string]float64{"p50-ms": 1}
	f.absent = nil
	_, err = documents(f)
	assert.ErrorContains(t, err, "not measured: Waits/hold=heavy-tail/callers=20/pool=bare p99-ms")
	assert.NotEmpty(t, before.texts)
}

func TestWhatWasMeasuredSeveralTimesIsOneFigure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results")
	require.NoError(t, os.WriteFile(file, []byte(`cores: 2
BenchmarkOverhead/work=exec-2 1 300 ns/op 1.000 allocs/op
BenchmarkOverhead/work=exec-2 1 200 ns/op 1.000 allocs/op
BenchmarkWaits/hold=constant 1 3 p50-ms
BenchmarkWaits/hold=constant 1 1 p50-ms
BenchmarkWaits/hold=constant 1 2 p50-ms
BenchmarkContended/bare 1 100 ns/op
BenchmarkContended/bare-4 1 400 ns/op
BenchmarkContended/bare-4 1 500 ns/op
BenchmarkContended/bare-4 1 300 ns/op
BenchmarkContended/bare-4 1 800 ns/op
PASS
`), 0o600))
	f, err := read(file)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"cores": "2"}, f.setup)
	assert.Equal(t, map[string]map[string]float64{
		"Overhead/work=exec":       {"ns/op": 200, "allocs/op": 1},
		"Waits/hold=constant":      {"p50-ms": 2},
		"Contended/bare":           {"ns/op": 100},
		"Contended/bare/threads=4": {"ns/op": 400},
	}, f.values)
}

func TestFiguresHaveTwoDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0171: "0.017", 0.171: "0.17", 0.996: "1.0", 1.04: "1.0", 6.13: "6.1", 9.96: "10", 42.4: "42", 99.6: "100", 251: "250",
	} {
		assert.Equal(t, want, two(v))
	}
	for v, want := range map[float64]string{0: "< 0.1", 0.04: "< 0.1", 0.06: "0.1", 9.07: "9.1", 9.96: "10", 105.6: "106"} {
		assert.Equal(t, want, waited(v))
	}
	for v, want := range map[float64]string{0.3: "a quarter of a microsecond", 0.48: "half a microsecond", 1: "a microsecond", 1.53: "1.5 microseconds"} {
		assert.Equal(t, want, inWords(v))
	}
	assert.Equal(t, []string{"no allocation", "one allocation", "5 allocations"}, []string{allocations(0), allocations(1), allocations(5)})
}

func TestBlocksAreFilledByName(t *testing.T) {
	blocks := map[string]string{"one": "1\n", "two": "2\n"}
	const before = "a\n<!-- one: begin -->\nold\n<!-- one: end -->\nb\n<!-- two: begin -->\n<!-- two: end -->\n"
	filled, err := fill("x.md", before, blocks)
	require.NoError(t, err)
	const after = "a\n<!-- one: begin -->\n1\n<!-- one: end -->\nb\n<!-- two: begin -->\n2\n<!-- two: end -->\n"
	assert.Equal(t, after, filled)
	filled, err = fill("x.md", after, blocks)
	require.NoError(t, err)
	assert.Equal(t, after, filled)
	for want, text := range map[string]string{
		`x.md: the block "three" is not known`: before + "<!-- three: begin -->\n<!-- three: end -->\n",
		`x.md: the block "one" is there twice`: before + "<!-- one: begin -->\n<!-- one: end -->\n",
		`x.md: the block "one" ends as "two"`:  "<!-- one: begin -->\n<!-- two: end -->\n",
		`x.md has no block "two"`:              "<!-- one: begin -->\n<!-- one: end -->\n",
	} {
		_, err := fill("x.md", text, blocks)
		assert.ErrorContains(t, err, want)
	}
}
