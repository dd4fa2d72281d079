// Command support holds docs/support.md against what the tests really run: a row that names
// a Go module, a version and a folder must have the version that the go.mod of that folder
// requires, and the row of Go must have the releases that the workflow runs. It is run in
// the root of the repository. With -write, it puts the right versions of modules into the
// document.
//
//	go run ./internal/tools/support [-write] docs/support.md
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const workflow = ".github/workflows/ci.yml"

func main() {
	log.SetFlags(0)
	log.SetPrefix("support: ")
	write := flag.Bool("write", false, "put the right versions of modules into the document")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("give the document: go run ./internal/tools/support [-write] docs/support.md")
	}
	if err := run(flag.Arg(0), *write); err != nil {
		log.Fatal(err)
	}
}

func run(document string, write bool) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	ci, err := os.ReadFile(workflow)
	if err != nil {
		return err
	}
	right, faults := corrected(string(text), requiredBy)
	if write {
		faults = nil
		if err := os.WriteFile(document, []byte(right), 0o644); err != nil { //nolint:gosec // a document is for all
			return err
		}
	}
	faults = append(faults, goReleases(string(text), string(ci))...)
	if len(faults) > 0 {
		return fmt.Errorf("%s is not true; correct it (-write corrects the versions of modules):\n%s", document, strings.Join(faults, "\n"))
	}
	return nil
}

// moduleRow is a row of a table: a module, its version, and the folder whose go.mod says so.
var moduleRow = regexp.MustCompile("(?m)^\\| `([^`|]+)` \\| (v[^ |]+) \\| `([^`|]+)` \\|")

// corrected is the document with the versions that are required, and says what was wrong.
func corrected(text string, requiredBy func(folder, module string) (version string, err error)) (right string, faults []string) {
	rows := 0
	right = moduleRow.ReplaceAllStringFunc(text, func(row string) string {
		rows++
		cells := moduleRow.FindStringSubmatch(row)
		module, told, folder := cells[1], cells[2], cells[3]
		version, err := requiredBy(folder, module)
		switch {
		case err != nil:
			faults = append(faults, err.Error())
			return row
		case version != told:
			faults = append(faults, fmt.Sprintf("%s is %s there, and %s in %s/go.mod", module, told, version, folder))
		}
		return strings.Replace(row, "| "+told+" |", "| "+version+" |", 1)
	})
	if rows == 0 {
		faults = append(faults, "no row names a module, its version and a folder")
	}
	return right, faults
}

// requiredBy is the version of a module that the go.mod in a folder requires.
func requiredBy(folder, module string) (version string, err error) {
	path := filepath.Join(folder, "go.mod")
	text, err := os.ReadFile(path) //nolint:gosec // a go.mod of this repository
	if err != nil {
		return "", err
	}
	line := regexp.MustCompile(`(?m)^(?:require)?\s+` + regexp.QuoteMeta(module) + ` (v\S+)$`).FindSubmatch(text)
	if line == nil {
		return "", fmt.Errorf("%s does not require %s directly", path, module)
	}
	return string(line[1]), nil
}

var (
	goRow    = regexp.MustCompile(`(?m)^\| Go \| ([^|]+) \|`)
	goMatrix = regexp.MustCompile(`(?m)^\s*go: \[(.+)\]$`)
	release  = regexp.MustCompile(`[0-9]+\.[0-9]+`)
)

// goReleases says where the row of Go has other releases than the workflow.
func goReleases(text, ci string) (faults []string) {
	row, matrix := goRow.FindStringSubmatch(text), goMatrix.FindStringSubmatch(ci)
	if row == nil || matrix == nil {
		return []string{"no row of Go there, or no list of its releases in " + workflow}
	}
	told, run := release.FindAllString(row[1], -1), release.FindAllString(matrix[1], -1)
	if !slices.Equal(told, run) {
		return []string{fmt.Sprintf("Go is %v there, and %v in %s", told, run, workflow)}
	}
	return nil
}
