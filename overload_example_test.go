//nolint:errcheck // examples leave what is deferred unchecked, as applications do
package sqllease_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"

	"github.com/sqllease/sqllease"
)

// readiness answers whether the database answers, however many reports wait.
func readiness(db *sql.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(sqllease.WithLane(r.Context(), "probe"), time.Second)
		defer cancel()
		if err := db.PingContext(ctx); err != nil {
			http.Error(w, "no database", http.StatusServiceUnavailable)
		}
	}
}

// A connection is kept for the health check, so that it gets one while all others wait.
func ExampleWithLane() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		Name:    "shop",
		MaxOpen: 2,
		Lanes:   map[string]sqllease.Lane{"probe": {Reserve: 1}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	report, err := db.Begin() // of the two connections, the only one for reports
	if err != nil {
		log.Fatal(err)
	}
	defer report.Rollback()
	short, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = db.ExecContext(short, "UPDATE fruit SET price = 1")
	fmt.Println("another report:", errors.Is(err, context.DeadlineExceeded))

	answer := httptest.NewRecorder()
	readiness(db)(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	fmt.Println("the health check:", answer.Code)
	// Output:
	// another report: true
	// the health check: 200
}

// fail answers a request that has failed. Whoever was refused is to come again in a moment, and not
// all at the same time.
func fail(w http.ResponseWriter, err error) {
	if errors.Is(err, sqllease.ErrOverloaded) {
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(3))) // seconds
		http.Error(w, "busy, please try again", http.StatusServiceUnavailable)
		return
	}
	http.Error(w, "sorry", http.StatusInternalServerError)
}

// A pool refuses callers early when more come than it can serve. A service says so, with a 503.
func ExampleConfig_overload() {
	db, err := sqllease.Open("pgx", "postgres://shop@db/shop", sqllease.Config{
		Name:        "shop",
		MaxOpen:     1,
		QueueTarget: 50 * time.Millisecond, // whoever waits for longer is refused, while too many come
		MaxWaiting:  1,                     // a bound for memory: so low here to show it
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	holder, err := db.Begin()
	if err != nil {
		log.Fatal(err)
	}
	waits := make(chan error)
	go func() { waits <- db.Ping() }()
	for c, _ := sqllease.ConnectorOf(db); c.Stats().Waiting == 0; {
		time.Sleep(time.Millisecond)
	}

	answer := httptest.NewRecorder()
	fail(answer, db.Ping())
	fmt.Println(answer.Code, answer.Header().Get("Retry-After") != "")

	holder.Rollback()
	fmt.Println("who waited:", <-waits)
	// Output:
	// 503 true
	// who waited: <nil>
}
