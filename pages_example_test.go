//nolint:errcheck // examples leave what is deferred unchecked, as applications do
package sqllease_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/sqllease/sqllease"
)

// notify tells whoever is on duty.
func notify(string) {}

// Without an SDK of OpenTelemetry, an application has the log, its own functions, and the
// figures and leases of the pool, which it may show on a page.
func Example_withoutAnSDK() {
	dsn, mux := "postgres://shop@db/shop", http.NewServeMux()
	db, err := sqllease.Open("pgx", dsn, sqllease.Config{
		Name:           "shop",
		MaxOpen:        20,
		AcquireTimeout: 2 * time.Second,
		OnLeak:         func(l sqllease.Leak) { notify(l.String()) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	c, _ := sqllease.ConnectorOf(db)
	mux.HandleFunc("GET /debug/pool", func(w http.ResponseWriter, _ *http.Request) {
		s := c.Stats()
		fmt.Fprintf(w, "%d of %d in use, %d waiting, the longest for %v\n", s.InUse, s.Limit, s.Waiting, s.OldestWait)
		for _, lease := range c.Leases() {
			fmt.Fprintln(w, lease)
		}
	})

	rows, err := db.QueryContext(context.Background(), "SELECT name FROM fruit WHERE price < 5")
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/debug/pool", http.NoBody))
	first, rest, _ := strings.Cut(answer.Body.String(), "\n")
	_, statement, _ := strings.Cut(rest, "with rows open; ")
	fmt.Println(first)
	fmt.Print(statement)
	// Output:
	// 1 of 20 in use, 0 waiting, the longest for 0s
	// last statement: SELECT name FROM fruit WHERE price < ?
}

// One line changes: the one that opens the database.
func Example_migration() {
	dsn := "postgres://shop@db/shop"
	db, err := sqllease.Open("pgx", dsn, sqllease.Config{MaxOpen: 20})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	fmt.Println(db.Ping())
	// Output: <nil>
}
