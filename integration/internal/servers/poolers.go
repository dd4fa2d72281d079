package servers

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Proxy is a program between an application and a server.
type Proxy struct {
	Addr string // host:port

	cmd  *exec.Cmd
	said bytes.Buffer // read once it has ended
}

// PgBouncer starts one in front of a PostgreSQL, in dir, which must not exist. To the server it
// is the user of that name; everybody may use it.
func PgBouncer(dir string, of *Server, as, settings string) (*Proxy, error) {
	program, err := find("pgbouncer", "pgbouncer", "/usr/sbin/pgbouncer")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(of.Addr)
	if err != nil {
		return nil, err
	}
	addr, own, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file, err := written(dir, fmt.Sprintf(`[databases]
postgres = host=%s port=%s user=%s

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
%s
`, host, port, as, own, settings))
	if err != nil {
		return nil, err
	}
	args := []string{file}
	if os.Getuid() == 0 { // as which it does not run
		args = []string{"-u", "postgres", file}
	}
	return between(addr, program, args...)
}

// HAProxy starts one in front of a server, in dir, which must not exist. A client that is
// silent for the timeout is cut.
func HAProxy(dir string, of *Server, timeoutClient time.Duration) (*Proxy, error) {
	program, err := find("haproxy", "haproxy", "/usr/sbin/haproxy")
	if err != nil {
		return nil, err
	}
	addr, _, err := freeAddr()
	if err != nil {
		return nil, err
	}
	file, err := written(dir, fmt.Sprintf(`defaults
	mode tcp
	timeout connect 10s
	timeout client %dms
	timeout server 1h

listen database
	bind %s
	server one %s
`, timeoutClient.Milliseconds(), addr, of.Addr))
	if err != nil {
		return nil, err
	}
	return between(addr, program, "-db", "-f", file)
}

// written is a file of settings in a new directory. It has no secret, and is read by another user.
func written(dir, text string) (file string, err error) {
	file = filepath.Join(dir, "settings")
	return file, errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(file, []byte(text), 0o644))
}

// between starts a program, and waits until it listens.
func between(addr, program string, args ...string) (*Proxy, error) {
	p := &Proxy{Addr: addr, cmd: exec.Command(program, args...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 600 {
		if c, err := net.Dial("tcp", addr); err == nil {
			return p, c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s does not listen at %s: %s", program, addr, p.Stop())
}

// Stop ends the program, and returns what it said.
func (p *Proxy) Stop() (said string) {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	return p.said.String()
}
