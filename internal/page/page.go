// Package page reads and writes the blocks of a document that are made by programs: what is between
// two comments, <!-- name: begin --> and <!-- name: end -->. It is for tests and measurements.
package page

import (
	"fmt"
	"os"
	"strings"
)

// Block is what a block of a document has, between its comments, which stay in what is around it.
func Block(file, name string) (before, inside, after string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", "", err
	}
	begins, ends := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->\n"
	before, rest, begun := strings.Cut(string(text), begins)
	inside, after, ended := strings.Cut(rest, ends)
	if !begun || !ended {
		return "", "", "", fmt.Errorf("%s has no block %q: it begins with %s", file, name, begins)
	}
	return before + begins, inside, ends + after, nil
}

// Fill writes a block.
func Fill(file, name, text string) error {
	before, _, after, err := Block(file, name)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(before+text+after), 0o644) //nolint:gosec // it is a document
}
