// Command report writes what `make bench` measured into the documents: the tables of
// docs/performance.md, the figures that README.md quotes, and the pictures of both.
//
//	go run ./report -measured results.txt
//
// The figures are kept in report/figures.txt, from which all of these are made. Without
// -measured it makes them again from those.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"
)

// kept is the file of the figures.
const kept = "report/figures.txt"

func main() {
	log.SetFlags(0)
	log.SetPrefix("report: ")
	measured := flag.String("measured", "", "the results of scripts/measure.sh")
	flag.Parse()
	if *measured != "" {
		if err := keep(*measured); err != nil {
			log.Fatal(err)
		}
	}
	f, err := read(kept)
	if err != nil {
		log.Fatal(err)
	}
	if err := write(f, ".."); err != nil {
		log.Fatal(err)
	}
}

// keep keeps what was measured, if there is all that is shown.
func keep(measured string) error {
	f, err := read(measured)
	if err != nil {
		return err
	}
	if _, err := documents(f); err != nil {
		return err
	}
	return os.WriteFile(kept, []byte(f.shown().String()), 0o644)
}

// write writes the documents and pictures of the repository at root.
func write(f *figures, root string) error {
	made, err := documents(f)
	if err != nil {
		return err
	}
	for name, blocks := range made.texts {
		file := filepath.Join(root, name)
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		filled, err := fill(name, string(text), blocks)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(filled), 0o644); err != nil {
			return err
		}
	}
	for name, picture := range made.pictures {
		if err := os.WriteFile(filepath.Join(root, name), []byte(picture), 0o644); err != nil {
			return err
		}
	}
	return nil
}
