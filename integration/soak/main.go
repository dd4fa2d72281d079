// Command soak has an application work on a MariaDB of its own through sqllease
// while faults come at random: connections are killed, reset and silenced, the
// server freezes and restarts. It prints what was left behind, and fails if
// something was.
//
//	go run ./soak -duration 30m
package main

import (
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease/integration/internal/line"
	"github.com/sqllease/sqllease/integration/internal/servers"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("soak: ")
	duration := flag.Duration("duration", 30*time.Minute, "for how long")
	flag.Parse()
	_ = mysql.SetLogger(&mysql.NopLogger{})        // it tells every cut connection
	slog.SetDefault(slog.New(slog.DiscardHandler)) // so does the library
	leaks, err := run(*duration)
	if err != nil {
		log.Fatal(err)
	}
	for _, leak := range leaks {
		fmt.Println("LEAK:", leak)
	}
	if len(leaks) > 0 {
		os.Exit(1)
	}
	fmt.Println("PASS: nothing leaked")
}

// run has the application work for so long, and returns what it left behind.
func run(duration time.Duration) (leaks []string, err error) {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server runs as another user
		return nil, err
	}
	server, err := servers.MariaDB(filepath.Join(dir, "mariadb"))
	if err != nil {
		return nil, err
	}
	defer server.Stop()
	way, err := line.New(server.Addr)
	if err != nil {
		return nil, err
	}
	defer way.Close()
	admin, err := newAdmin(server)
	if err != nil {
		return nil, err
	}
	defer func() { _ = admin.db.Close() }()
	empty := measured()
	a, err := open(way.Addr())
	if err != nil {
		return nil, err
	}
	fmt.Printf("%d callers work on %d connections for %v\n", callers, connections, duration)
	stop := a.work()
	f := &faults{server: server, way: way, admin: admin, pool: a.pool, counts: map[string]int{}}
	f.until(time.Now().Add(duration / 4))
	early := measured() // all that grows at first has grown
	f.until(time.Now().Add(duration - duration/4))
	stop()
	return a.judged(admin, way, f, empty, early)
}
