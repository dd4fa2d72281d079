// Command directions tells which files of a package use names of which, and holds that
// against the table of layers in a document: a file may use what is in its own layer or
// in one below, and what the table of exceptions has, with its reason. It fails where
// that is not so, and where the tables name what is not there.
//
//	go run ./internal/tools/directions . docs/architecture.md
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("directions: give the folder of a package, and the document with its layers")
	}
	uses, files, err := usesOf(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	l := layersOf(string(text))
	faults, up, across := l.check(uses, files)
	fmt.Printf("directions: %d files in %d layers; %d arrows, %d within a layer, %d back up\n", len(files), l.count, len(uses), across, up)
	for _, f := range faults {
		fmt.Println("directions:", f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}

// arrow says that one file uses names that another declares.
type arrow struct{ from, to string }

// usesOf finds the arrows of a package, tests left out, and what is used along each.
func usesOf(dir string) (uses map[arrow][]string, files []string, err error) {
	fset := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, nil, err
	}
	var parsed []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		if notHere(name) {
			continue
		}
		parsed = append(parsed, f)
		files = append(files, filepath.Base(name))
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
	// What is imported is of no interest, and is missing: names of the package's own are
	// found all the same.
	conf := types.Config{Importer: nothing{}, Error: func(error) {}, FakeImportC: true}
	pkg, _ := conf.Check("root", fset, parsed, info)
	uses = map[arrow][]string{}
	note := func(at token.Pos, o types.Object) {
		if o == nil || o.Pkg() != pkg || !shared(o, pkg) {
			return
		}
		a := arrow{filepath.Base(fset.Position(at).Filename), filepath.Base(fset.Position(o.Pos()).Filename)}
		if a.from != a.to && !slices.Contains(uses[a], o.Name()) {
			uses[a] = append(uses[a], o.Name())
		}
	}
	for id, o := range info.Uses {
		note(id.Pos(), o)
	}
	for sel, s := range info.Selections {
		note(sel.Sel.Pos(), s.Obj())
	}
	return uses, files, nil
}

// notHere tells whether a file is for another release of Go than most: its twin stands for
// it.
func notHere(name string) bool { return strings.HasSuffix(name, "_go126.go") }

// shared tells whether a name may be used in other files: one of the package's, a method,
// or a field.
func shared(o types.Object, pkg *types.Package) bool {
	if o.Parent() == pkg.Scope() {
		return true
	}
	switch o := o.(type) {
	case *types.Func:
		return true
	case *types.Var:
		return o.IsField()
	}
	return false
}

// nothing imports every package as an empty one.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	p := types.NewPackage(path, filepath.Base(path))
	p.MarkComplete()
	return p, nil
}

// layers are what the document says: the layer of each file, by numbers from the lowest on,
// and what is allowed besides.
type layers struct {
	count   int
	of      map[string]int
	allowed map[arrow]bool
}

var (
	layerRow     = regexp.MustCompile("(?m)^\\| ([0-9]+) [^|]*\\|((?: `[a-z0-9_]+\\.go`)+) \\|")
	exceptionRow = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+\\.go)` → `([a-z0-9_]+\\.go)` \\|")
	fileName     = regexp.MustCompile("`([a-z0-9_]+\\.go)`")
)

func layersOf(text string) layers {
	l := layers{of: map[string]int{}, allowed: map[arrow]bool{}}
	for _, row := range layerRow.FindAllStringSubmatch(text, -1) {
		l.count++
		number, _ := strconv.Atoi(row[1]) // they are digits
		for _, f := range fileName.FindAllStringSubmatch(row[2], -1) {
			l.of[f[1]] = number
		}
	}
	for _, row := range exceptionRow.FindAllStringSubmatch(text, -1) {
		l.allowed[arrow{row[1], row[2]}] = true
	}
	return l
}

// check finds what is against the table.
func (l layers) check(uses map[arrow][]string, files []string) (faults []string, up, across int) {
	for _, f := range files {
		if _, ok := l.of[f]; !ok {
			faults = append(faults, f+" is in no layer")
		}
	}
	for f := range l.of {
		if !slices.Contains(files, f) {
			faults = append(faults, f+" is in a layer, and not there")
		}
	}
	for a, names := range uses {
		switch from, to := l.of[a.from], l.of[a.to]; {
		case from == to:
			across++
		case from < to && l.allowed[a]:
			up++
		case from < to:
			slices.Sort(names)
			faults = append(faults, fmt.Sprintf("%s uses %s of %s, which is in a layer above", a.from, strings.Join(names, ", "), a.to))
		}
	}
	for a := range l.allowed {
		if _, ok := uses[a]; !ok || l.of[a.from] >= l.of[a.to] {
			faults = append(faults, fmt.Sprintf("%s → %s is allowed, and there is no such arrow back up", a.from, a.to))
		}
	}
	slices.Sort(faults)
	return faults, up, across
}
