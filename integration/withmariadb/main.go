// Command withmariadb runs a command while a MariaDB of its own runs, whose data
// source name, through its socket, is in SQLLEASE_BENCH_DSN.
//
//	go run ./withmariadb <command> <argument>...
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sqllease/sqllease/integration/internal/servers"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("withmariadb: run what? go run ./withmariadb <command> <argument>...")
	}
	if err := run(os.Args[1:]); err != nil {
		log.Fatalf("withmariadb: %v", err)
	}
}

func run(command []string) error {
	parent, err := os.MkdirTemp("", "mariadb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(parent)                      //nolint:errcheck // a temporary directory
	if err := os.Chmod(parent, 0o755); err != nil { //nolint:gosec // the server runs as another user
		return err
	}
	dir := filepath.Join(parent, "server")
	server, err := servers.MariaDB(dir)
	if err != nil {
		return err
	}
	defer server.Stop()
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // that is what it is for
	cmd.Env = append(os.Environ(), fmt.Sprintf("SQLLEASE_BENCH_DSN=root@unix(%s)/mysql", filepath.Join(dir, "s")))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
