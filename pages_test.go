package sqllease_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/sqllease/sqllease"
)

// What docs/concepts.md and docs/migration.md name of this library is there, and the code
// that they show is that of an example.

// pages are those documents.
var pages = []string{"docs/concepts.md", "docs/migration.md"}

func page(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(text)
}

// identifiers are what the package exports, methods and fields aside.
func identifiers(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	known := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range parsed.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				known[d.Name.Name] = known[d.Name.Name] || d.Recv == nil
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch s := spec.(type) {
					case *ast.TypeSpec:
						known[s.Name.Name] = true
					case *ast.ValueSpec:
						for _, name := range s.Names {
							known[name.Name] = true
						}
					}
				}
			}
		}
	}
	return known
}

func TestThePagesNameOnlyWhatIsThere(t *testing.T) {
	known := identifiers(t)
	hasField := func(of reflect.Type) func(string) bool {
		return func(name string) bool { _, ok := of.FieldByName(name); return ok }
	}
	for prefix, exists := range map[string]func(name string) bool{
		`\bsqllease\.`:                func(name string) bool { return known[name] },
		`\bConfig\.`:                  hasField(reflect.TypeFor[sqllease.Config]()),
		`\bConfig\{`:                  hasField(reflect.TypeFor[sqllease.Config]()),
		`\b(?:Stats\(\)|Stats)\.`:     hasField(reflect.TypeFor[sqllease.Stats]()),
		`\b(?:Closed|ClosedStats)\.`:  hasField(reflect.TypeFor[sqllease.ClosedStats]()),
		`\b(?:Leak|Lease|SlowCall)\.`: hasField(reflect.TypeFor[sqllease.Leak]()),
		`\bConnector\.`: func(name string) bool {
			_, ok := reflect.TypeFor[*sqllease.Connector]().MethodByName(name)
			return ok
		},
	} {
		for _, file := range pages {
			for _, m := range regexp.MustCompile(prefix+`([A-Z]\w*)`).FindAllStringSubmatch(page(t, file), -1) {
				assert.True(t, exists(m[1]), "%s: %s", file, m[0])
			}
		}
	}
}

// goCode is the code that the pages show, without the lines that open and close it.
var goCode = regexp.MustCompile("(?s)```go\n(.*?)```")

func TestThePagesShowTheCodeOfAnExample(t *testing.T) {
	example := page(t, "pages_example_test.go")
	for _, file := range pages {
		for _, code := range goCode.FindAllStringSubmatch(page(t, file), -1) {
			if strings.Contains(code[1], "otelsql.") { // another wrapper's
				continue
			}
			for line := range strings.Lines(code[1]) {
				assert.Contains(t, example, strings.TrimSpace(line), file)
			}
		}
	}
}
