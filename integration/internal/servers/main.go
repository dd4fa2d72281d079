package servers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/goleak"
)

// Run is for a TestMain: it starts both servers, gives them to use, runs the
// tests, stops the servers, and fails if a goroutine is left that is not ignored.
func Run(m *testing.M, use func(maria, postgres *Server), ignored ...goleak.Option) int {
	return RunWith(m, func(dir string) (stop func(), err error) {
		maria, err := MariaDB(filepath.Join(dir, "mariadb"))
		if err != nil {
			return nil, err
		}
		postgres, err := PostgreSQL(filepath.Join(dir, "postgres"))
		if err != nil {
			maria.Stop()
			return nil, err
		}
		use(maria, postgres)
		return func() { postgres.Stop(); maria.Stop() }, nil
	}, ignored...)
}

// RunWith is Run with other servers, which start makes in a directory, and stop stops.
func RunWith(m *testing.M, start func(dir string) (stop func(), err error), ignored ...goleak.Option) int {
	code, err := run(m, start, ignored)
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		return 1
	}
	return code
}

func run(m *testing.M, start func(dir string) (stop func(), err error), ignored []goleak.Option) (code int, err error) {
	_ = mysql.SetLogger(&mysql.NopLogger{}) // it tells every cut connection, of which there are many in tests
	dir, err := os.MkdirTemp("", "sqllease")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the servers run as users of their own
		return 0, err
	}
	stop, err := start(dir)
	if err != nil {
		return 0, err
	}
	defer stop()
	if code = m.Run(); code == 0 {
		err = goleak.Find(ignored...)
	}
	return code, err
}
