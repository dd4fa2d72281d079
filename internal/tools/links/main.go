// Command links follows the links of documents within the repository, and fails where a
// file or a heading is not there, or where nothing leads to a picture. It is run in the
// root of the repository.
//
//	go run ./internal/tools/links *.md docs
package main

import (
	"fmt"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("links: ")
	if len(os.Args) < 2 {
		log.Fatal("give documents, and folders of documents: go run ./internal/tools/links *.md docs")
	}
	documents, pictures, err := found(os.Args[1:])
	if err != nil {
		log.Fatal(err)
	}
	faults, err := check(documents, pictures)
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range faults {
		log.Print(f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}

// found are the documents and pictures at these places, folders included.
func found(places []string) (documents, pictures []string, err error) {
	for _, place := range places {
		err := filepath.WalkDir(place, func(path string, _ fs.DirEntry, err error) error {
			switch filepath.Ext(path) {
			case ".md":
				documents = append(documents, path)
			case ".svg", ".png":
				pictures = append(pictures, path)
			}
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return documents, pictures, nil
}

// check says which links lead nowhere, and which pictures no link leads to.
func check(documents, pictures []string) (faults []string, err error) {
	var shown []string
	for _, document := range documents {
		text, err := os.ReadFile(document) //nolint:gosec // a document of this repository
		if err != nil {
			return nil, err
		}
		for _, link := range linksOf(string(text)) {
			file, anchor, _ := strings.Cut(link, "#")
			target := document
			if file != "" {
				target = filepath.Join(filepath.Dir(document), file)
			}
			shown = append(shown, target)
			if fault := follow(target, anchor); fault != "" {
				faults = append(faults, fmt.Sprintf("%s links to %s: %s", document, link, fault))
			}
		}
	}
	for _, picture := range pictures {
		if !slices.Contains(shown, picture) {
			faults = append(faults, "no document shows "+picture)
		}
	}
	return faults, nil
}

// follow says what is not there; empty: nothing.
func follow(target, anchor string) (fault string) {
	if _, err := os.Stat(target); err != nil {
		return "there is no such file"
	}
	if anchor == "" || filepath.Ext(target) != ".md" {
		return ""
	}
	text, err := os.ReadFile(target) //nolint:gosec // a document of this repository
	if err != nil {
		return err.Error()
	}
	if !slices.Contains(anchorsOf(string(text)), anchor) {
		return "there is no such heading"
	}
	return ""
}

var (
	code      = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
	block     = regexp.MustCompile("(?s)```.*?```")
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	elsewhere = regexp.MustCompile(`^[a-z]+:`)
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	linked    = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	unnamed   = regexp.MustCompile(`[^\pL\pN_ -]`)
)

// linksOf are a document's links within the repository.
func linksOf(text string) (links []string) {
	for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		if to := m[1] + m[2]; !elsewhere.MatchString(to) {
			links = append(links, to)
		}
	}
	return links
}

// anchorsOf are the names of a document's headings, as GitHub makes them. Of a heading that
// is there twice, only the first has one here.
func anchorsOf(text string) (anchors []string) {
	for _, m := range heading.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		name := unnamed.ReplaceAllString(strings.ToLower(linked.ReplaceAllString(m[1], "$1")), "")
		anchors = append(anchors, strings.ReplaceAll(name, " ", "-"))
	}
	return anchors
}
