package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.uber.org/goleak"
)

const document = "" +
	"| module | version | go.mod |\n" +
	"|---|---|---|\n" +
	"| `example.com/driver` | v1.2.0 | `integration` | more |\n" +
	"| `example.com/other` | v0.9.0 | `bench` |\n" +
	"| Go | 1.25, 1.26 |\n"

func TestVersionsThatDifferAreToldAndCorrected(t *testing.T) {
	right, faults := corrected(document, func(folder, _ string) (string, error) {
		return map[string]string{"integration": "v1.3.0", "bench": "v0.9.0"}[folder], nil
	})
	assert.Equal(t, []string{"example.com/driver is v1.2.0 there, and v1.3.0 in integration/go.mod"}, faults)
	assert.Contains(t, right, "| `example.com/driver` | v1.3.0 | `integration` | more |")
	assert.Contains(t, right, "| `example.com/other` | v0.9.0 | `bench` |")
}

func TestModulesThatAreNotRequiredAreTold(t *testing.T) {
	right, faults := corrected(document, func(string, string) (string, error) { return "", errors.New("not required") })
	assert.Equal(t, []string{"not required", "not required"}, faults)
	assert.Equal(t, document, right)
}

func TestADocumentWithoutRowsIsAFault(t *testing.T) {
	_, faults := corrected("nothing", nil)
	assert.Len(t, faults, 1)
}

func TestReleasesOfGoAreThoseOfTheWorkflow(t *testing.T) {
	assert.Empty(t, goReleases(document, "  go: [\"1.25\", \"1.26\"]\n"))
	assert.Equal(t, []string{"Go is [1.25 1.26] there, and [1.25 1.26 1.27] in " + workflow},
		goReleases(document, "  go: [\"1.25\", \"1.26\", \"1.27\"]\n"))
	assert.Len(t, goReleases(document, "no list"), 1)
}

func TestRequirementsAreRead(t *testing.T) {
	version, err := requiredBy("../../..", "go.opentelemetry.io/otel")
	assert.NoError(t, err)
	assert.Regexp(t, `^v1\.`, version)
	_, err = requiredBy("../../..", "golang.org/x/sys") // indirect
	assert.Error(t, err)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
