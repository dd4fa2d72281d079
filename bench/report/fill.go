package main

import (
	"fmt"
	"regexp"
)

// A block of a document that is made is between two comments, which say what it is.
var block = regexp.MustCompile(`(?s)<!-- ([a-z ]+): begin -->\n.*?<!-- ([a-z ]+): end -->\n`)

// fill puts the blocks into a document, which has each of them once and no other.
func fill(file, text string, blocks map[string]string) (string, error) {
	seen := map[string]bool{}
	var err error
	filled := block.ReplaceAllStringFunc(text, func(old string) string {
		m := block.FindStringSubmatch(old)
		made, known := blocks[m[1]]
		switch {
		case m[1] != m[2]:
			err = fmt.Errorf("%s: the block %q ends as %q", file, m[1], m[2])
		case !known:
			err = fmt.Errorf("%s: the block %q is not known", file, m[1])
		case seen[m[1]]:
			err = fmt.Errorf("%s: the block %q is there twice", file, m[1])
		}
		seen[m[1]] = true
		return fmt.Sprintf("<!-- %s: begin -->\n%s<!-- %s: end -->\n", m[1], made, m[1])
	})
	for name := range blocks {
		if err == nil && !seen[name] {
			err = fmt.Errorf("%s has no block %q; it begins with <!-- %s: begin -->", file, name, name)
		}
	}
	return filled, err
}
