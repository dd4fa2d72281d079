package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An application that adopts the library keeps the versions that it has, unless they are
// lower than what the library was tested with: what moves then is said in CHANGELOG.md.
func TestWhatMovesInAnApplicationThatAdopts(t *testing.T) {
	for name, c := range map[string]struct{ has, becomes map[string]string }{
		"with the lowest versions": {
			has: map[string]string{"github.com/go-sql-driver/mysql": "v1.8.0", "go.opentelemetry.io/otel": "v1.40.0", "github.com/stretchr/testify": "v1.11.1"},
		},
		"with newer ones": {
			has: map[string]string{"github.com/go-sql-driver/mysql": "v1.9.3", "go.opentelemetry.io/otel": "v1.44.0", "github.com/stretchr/testify": "v1.11.1"},
		},
		"with older ones": {
			has:     map[string]string{"github.com/go-sql-driver/mysql": "v1.7.1", "go.opentelemetry.io/otel": "v1.35.0", "github.com/stretchr/testify": "v1.10.0"},
			becomes: map[string]string{"github.com/go-sql-driver/mysql": "v1.8.0", "go.opentelemetry.io/otel": "v1.40.0", "github.com/stretchr/testify": "v1.11.1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := filepath.Abs("..")
			require.NoError(t, err)
			write(t, dir, "app_test.go", appTest)
			write(t, dir, "app.go", appBefore)
			mod := "module example.org/app\n\ngo 1.25.0\n\n"
			for module, version := range c.has {
				mod += "require " + module + " " + version + "\n"
			}
			write(t, dir, "go.mod", mod)
			tidy(t, dir)
			before := versions(t, dir, c.has)
			assert.Equal(t, c.has, before)

			write(t, dir, "app.go", appAfter)
			tidied, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			require.NoError(t, err)
			write(t, dir, "go.mod", string(tidied)+"\nrequire github.com/sqllease/sqllease v0.0.0\nreplace github.com/sqllease/sqllease => "+root+"\n")
			tidy(t, dir)
			want := c.becomes
			if want == nil {
				want = c.has
			}
			after := versions(t, dir, c.has)
			for module := range before {
				if before[module] != after[module] {
					t.Logf("%s: %s → %s", module, before[module], after[module])
				}
			}
			assert.Equal(t, want, after)
			run(t, dir, "build", "./...")
		})
	}
}

const appBefore = `package app

import (
	"database/sql"

	"github.com/go-sql-driver/mysql"
	"go.opentelemetry.io/otel"
)

func open(cfg *mysql.Config) (*sql.DB, error) {
	_ = otel.GetTracerProvider()
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(c), nil
}
`

const appAfter = `package app

import (
	"database/sql"

	"github.com/go-sql-driver/mysql"
	"github.com/sqllease/sqllease"
	"go.opentelemetry.io/otel"
)

func open(cfg *mysql.Config) (*sql.DB, error) {
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sqllease.OpenDB(c, sqllease.Config{TracerProvider: otel.GetTracerProvider()})
}
`

const appTest = `package app

import (
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"
)

func TestOpen(t *testing.T) {
	_, err := open(&mysql.Config{})
	require.NoError(t, err)
}
`

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

func tidy(t *testing.T, dir string) {
	t.Helper()
	run(t, dir, "mod", "tidy")
}

// versions are those that an application has of some modules.
func versions(t *testing.T, dir string, of map[string]string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for module := range of {
		found[module] = strings.TrimSpace(run(t, dir, "list", "-m", "-f", "{{.Version}}", module))
	}
	return found
}

// run runs the go command in an application's folder.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.Output()
	if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // as Output says
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, failed.Stderr)
	}
	require.NoError(t, err)
	return string(out)
}
