package fidelity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Combinations takes every combination of the optional interfaces of
// connections, statements and rows, each with steps of an application that look at arguments,
// statements, transactions and columns, and a random program.
func Combinations(t *testing.T, open Open) {
	script := slices.DeleteFunc(slices.Clone(Steps), func(s Step) bool {
		return differences[s.Name].is != nil || strings.Contains(s.Name, "fails") || strings.Contains(s.Name, "context")
	})
	count := 0
	for i := range matrixConns {
		p := matrixProfile(i, i*7, i*5)
		for _, s := range []Step{script[i%len(script)], script[(i+i/len(script))%len(script)]} {
			b, w := play(t, p, bare, s), play(t, p, open, s)
			compare(t, b, w)
			count++
		}
		runProgram(t, open, p, RandomProgram(uint64(i)))
		count++
		if t.Failed() {
			t.Fatalf("%s", p.Name)
		}
	}
	for i := range matrixRows {
		p := matrixProfile(len(matrixConns)-1, i, i)
		for _, s := range script {
			compare(t, play(t, p, bare, s), play(t, p, open, s))
			count++
		}
		if t.Failed() {
			t.Fatalf("%s", p.Name)
		}
	}
	t.Logf("%d combinations of a connection's interfaces, %d of a statement's, %d of rows': %d programs, no difference",
		len(matrixConns), len(matrixStmts), len(matrixRows), count)
}

// matrixProfile is a combination of interfaces by number.
func matrixProfile(conn, stmt, rows int) Profile {
	return Profile{
		Name:          fmt.Sprintf("matrix %d %d %d", conn%len(matrixConns), stmt%len(matrixStmts), rows%len(matrixRows)),
		conn:          matrixConns[conn%len(matrixConns)],
		stmt:          matrixStmts[stmt%len(matrixStmts)],
		rows:          matrixRows[rows%len(matrixRows)],
		driverContext: rows%2 == 0,
		closer:        stmt%2 == 0,
		anyInput:      rows%3 == 0,
	}
}
