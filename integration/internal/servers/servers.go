// Package servers starts private database servers for tests: made in a
// directory of the caller's, listening on loopback only.
package servers

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
	"strings"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql" // asks MariaDB whether it is up
	_ "github.com/jackc/pgx/v5/stdlib" // asks PostgreSQL whether it is up
)

// Server is a database server that runs until it is stopped.
type Server struct {
	Driver string // that its tests use, as sql.Open knows it
	Addr   string // host:port
	Socket string // the path of its socket; of PostgreSQL, the folder of that

	dsn   string // with a %s for the database
	home  string // the database that is always there
	start []string
	as    *syscall.Credential
	cmd   *exec.Cmd
}

// DSN is the data source name of one of its databases; of the one that is
// always there, if none is named.
func (s *Server) DSN(database string) string {
	if database == "" {
		database = s.home
	}
	return fmt.Sprintf(s.dsn, database)
}

// Up starts the server and waits until it answers.
func (s *Server) Up() error {
	s.cmd = exec.Command(s.start[0], s.start[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: s.as}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	db, err := sql.Open(s.Driver, s.DSN(""))
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
			return fmt.Errorf("%s does not answer at %s: %w", s.start[0], s.Addr, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Stop kills the server: nothing in it is worth a clean end. PostgreSQL has a process for
// each session, which would answer for a moment longer: they are killed with it.
func (s *Server) Stop() {
	sessions := children(s.cmd.Process.Pid)
	_ = s.cmd.Process.Kill()
	for _, pid := range sessions {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = s.cmd.Wait()
	for _, pid := range sessions {
		for range 1000 {
			if _, state := stat(pid); state == "" || state == "Z" {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// End has the server end by a signal, and waits until it has; what it started ends with it.
func (s *Server) End(by syscall.Signal) error {
	if err := s.Signal(by); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-ended
		return fmt.Errorf("%s does not end by %v", s.start[0], by)
	}
}

// Signal sends the server a signal.
func (s *Server) Signal(what syscall.Signal) error { return s.cmd.Process.Signal(what) }

// Freeze stops every process of the server as it stands; Thaw lets them go on.
func (s *Server) Freeze() { s.all(syscall.SIGSTOP) }

// Thaw lets a frozen server go on.
func (s *Server) Thaw() { s.all(syscall.SIGCONT) }

func (s *Server) all(what syscall.Signal) {
	for _, pid := range append(children(s.cmd.Process.Pid), s.cmd.Process.Pid) {
		_ = syscall.Kill(pid, what)
	}
}

// children are the processes that a process has started.
func children(of int) (pids []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		if parent, _ := stat(pid); parent == of {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stat is a process's parent and state, as proc(5) has them; empty: there is none.
func stat(pid int) (parent int, state string) {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := strings.Cut(string(line), ") ") // behind the name
	fields := strings.Fields(after)
	if len(fields) < 2 {
		return 0, ""
	}
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[0]
}

// MariaDB makes a data directory in dir, which must not exist, and starts
// MariaDB on it.
func MariaDB(dir string) (*Server, error) { return MariaDBWith(dir) }

// MariaDBWith does so with more settings.
func MariaDBWith(dir string, settings ...string) (*Server, error) {
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
	tmp := "--tmpdir=" + dir // its own: a server that starts removes the temporary tables that it finds
	if err := quietly(nil, install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
		"--user="+name, "--datadir="+data, tmp); err != nil {
		return nil, err
	}
	addr, port, err := freeAddr()
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, "s")
	s := &Server{Driver: "mysql", Addr: addr, Socket: socket, dsn: "root@tcp(" + addr + ")/%s", home: "mysql", as: as,
		start: append([]string{daemon, "--no-defaults", "--datadir=" + data, "--socket=" + socket,
			"--port=" + port, "--bind-address=127.0.0.1", "--max-connections=2000",
			"--skip-name-resolve", tmp, "--pid-file=" + filepath.Join(dir, "pid")}, settings...)}
	return s, s.Up()
}

// PostgreSQL makes a cluster in dir, which must not exist, and starts
// PostgreSQL on it.
func PostgreSQL(dir string) (*Server, error) {
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
	if err := quietly(as, initdb, "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "--no-sync", "-D", data); err != nil {
		return nil, err
	}
	addr, port, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &Server{Driver: "pgx", Addr: addr, Socket: dir, dsn: "postgres://postgres@" + addr + "/%s?sslmode=disable", home: "postgres", as: as,
		start: []string{daemon, "-D", data, "-p", port, "-k", dir, "-c", "listen_addresses=127.0.0.1",
			"-c", "max_connections=300", "-c", "fsync=off"}}
	return s, s.Up()
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

// freeAddr is an address on loopback that nobody listens on.
func freeAddr() (addr, port string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer func() { _ = l.Close() }()
	addr = l.Addr().String()
	_, port, err = net.SplitHostPort(addr)
	return addr, port, err
}
