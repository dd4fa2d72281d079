// Package integration runs sqllease on real servers and real drivers. The
// servers are private: made in a temporary directory, started on loopback and
// stopped by the tests.
package integration

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"
)

// maria and postgres are the servers of all tests.
var maria, postgres *server

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	_ = mysql.SetLogger(&mysql.NopLogger{}) // it tells every cut connection, of which there are many here
	dir, err := os.MkdirTemp("", "sqllease")
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the servers run as users of their own
		return fail(err)
	}
	if maria, err = startMaria(filepath.Join(dir, "mariadb")); err != nil {
		return fail(err)
	}
	defer maria.stop()
	if postgres, err = startPostgres(filepath.Join(dir, "postgres")); err != nil {
		return fail(err)
	}
	defer postgres.stop()
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			return fail(err)
		}
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "integration:", err)
	return 1
}

// server is a database server that runs for the tests.
type server struct {
	driver string
	dsn    string // without a database's parameters
	addr   string
	start  []string // the command
	as     *syscall.Credential
	cmd    *exec.Cmd
}

// up starts the server and waits until it answers.
func (s *server) up() error {
	s.cmd = exec.Command(s.start[0], s.start[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: s.as}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	db, err := sql.Open(s.driver, s.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		err := db.PingContext(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w", s.start[0], s.addr, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop kills the server: nothing in it is worth a clean end.
func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// startMaria makes a data directory in dir and starts MariaDB on it.
func startMaria(dir string) (*server, error) {
	install, err := find("mariadb-server", "mariadb-install-db")
	if err != nil {
		return nil, err
	}
	daemon, err := find("mariadb-server", "mariadbd", "/usr/sbin/mariadbd")
	if err != nil {
		return nil, err
	}
	as, name, err := account("mysql", dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := quietly(nil, install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
		"--user="+name, "--datadir="+data); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &server{driver: "mysql", addr: addr, dsn: "root@tcp(" + addr + ")/mysql", as: as,
		start: []string{daemon, "--no-defaults", "--datadir=" + data, "--socket=" + filepath.Join(dir, "s"),
			"--port=" + strconv.Itoa(port), "--bind-address=127.0.0.1", "--max-connections=2000",
			"--skip-name-resolve", "--pid-file=" + filepath.Join(dir, "pid")}}
	return s, s.up()
}

// startPostgres makes a cluster in dir and starts PostgreSQL on it.
func startPostgres(dir string) (*server, error) {
	initdb, err := find("postgresql", "initdb", "/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return nil, err
	}
	daemon, err := find("postgresql", "postgres", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	as, _, err := account("postgres", dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := quietly(as, initdb, "--auth=trust", "--username=postgres", "--no-sync", "-D", data); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := &server{driver: "pgx", addr: addr, dsn: "postgres://postgres@" + addr + "/postgres?sslmode=disable", as: as,
		start: []string{daemon, "-D", data, "-p", strconv.Itoa(port), "-k", dir, "-c", "listen_addresses=127.0.0.1",
			"-c", "max_connections=300", "-c", "fsync=off"}}
	return s, s.up()
}

// find looks for a program by name and then by the places given.
func find(pkg, name string, places ...string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, pattern := range places {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[len(found)-1], nil
		}
	}
	return "", fmt.Errorf("%s is not installed; on Debian, as root: apt-get install %s", name, pkg)
}

// account makes dir for the named user, and returns what a process needs to
// run as it. Whoever is not root runs the server as themselves.
func account(name, dir string) (*syscall.Credential, string, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, "", err
	}
	if os.Getuid() != 0 {
		me, err := user.Current()
		if err != nil {
			return nil, "", err
		}
		return nil, me.Username, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, "", err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, "", err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, name, nil
}

// quietly runs a command, and shows its output if it fails.
func quietly(as *syscall.Credential, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
