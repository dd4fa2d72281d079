package sqllease

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/config.md has each field of Config, in the order of the struct, with its default.
func TestTheDocumentationHasEachSetting(t *testing.T) {
	text, err := os.ReadFile("docs/config.md")
	require.NoError(t, err)
	var documented []string
	for _, section := range strings.Split(string(text), "\n### ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		documented = append(documented, strings.Trim(name, "`"))
		assert.Contains(t, body, "- Default: ", name)
	}
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		fields = append(fields, f.Name)
	}
	assert.Equal(t, fields, documented)
}

// It has the signature of each function.
func TestTheDocumentationHasTheSignatures(t *testing.T) {
	text, err := os.ReadFile("docs/config.md")
	require.NoError(t, err)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if f.Type.Kind() == reflect.Func {
			assert.Contains(t, string(text), "### `"+f.Name+"`\n\n`"+f.Type.String()+"`: ")
		}
	}
}

// The defaults that it tells in seconds are those of the code.
func TestTheDocumentationTellsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("docs/config.md")
	require.NoError(t, err)
	for name, is := range map[string]time.Duration{
		"LeakThreshold":        DefaultLeakThreshold,
		"SlowAcquireThreshold": DefaultSlowAcquireThreshold,
	} {
		found := regexp.MustCompile("(?s)### `" + name + "`.*?- Default: (\\d+) s").FindSubmatch(text)
		require.NotNil(t, found, name)
		told, err := time.ParseDuration(string(found[1]) + "s")
		require.NoError(t, err)
		assert.Equal(t, is, told, name)
	}
	set, err := newSettings(Config{})
	require.NoError(t, err)
	assert.Equal(t, 10*set.LeakThreshold, set.SlowCallThreshold, "ten times LeakThreshold")
	assert.Regexp(t, fmt.Sprintf("(?s)### `LifetimeJitter`.*?- Default: %v", set.LifetimeJitter), string(text))
}
