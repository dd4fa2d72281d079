package drivers

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
)

func TestAFailureIsOneOfAFewKinds(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{refused, Refused},
		{fmt.Errorf("connecting as alice: %w", refused), Refused},
		{errors.Join(errors.New("host a"), refused), Refused},
		{&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ENOENT)}, Refused},
		{os.NewSyscallError("connect", syscall.ENETUNREACH), Unreachable},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "db.internal", IsNotFound: true}}, DNS},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, TimedOut},
		{fmt.Errorf("dialing: %w", context.DeadlineExceeded), TimedOut},
		{context.Canceled, Cancelled},
		{x509.UnknownAuthorityError{}, TLS},
		{fmt.Errorf("connecting: %w", x509.HostnameError{Host: "db"}), TLS},
		{mysql.ErrNoTLS, TLS},
		{&mysql.MySQLError{Number: 1045, Message: "Access denied for user 'alice'@'10.0.0.1'"}, Authentication},
		{sqlStateError{"28P01"}, Authentication},
		{&mysql.MySQLError{Number: 1040}, TooMany},
		{&mysql.MySQLError{Number: 1203}, TooMany},
		{sqlStateError{"53300"}, TooMany},
		{sqlStateError{"57P03"}, Starting},
		{&mysql.MySQLError{Number: 1049}, UnknownDatabase},
		{sqlStateError{"3D000"}, UnknownDatabase},
		{driver.ErrBadConn, Cut},
		{mysql.ErrInvalidConn, Cut},
		{io.ErrUnexpectedEOF, Cut},
		{os.NewSyscallError("read", syscall.ECONNRESET), Cut},
		{errors.New("pq: unsupported sslmode"), ""},
		{&mysql.MySQLError{Number: 1213}, ""},
		{(*sqlStateError)(nil), ""},
		{nilError{}, ""},
	} {
		assert.Equal(t, c.want, Failure(c.err), "%T: %[1]v", c.err)
	}
}

// nilError is an error whose methods panic.
type nilError struct{ *net.OpError }

func TestASessionThatOthersEndedSaysHow(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{&mysql.MySQLError{Number: 4031}, "4031"},
		{&mysql.MySQLError{Number: 1927}, "1927"},
		{fmt.Errorf("reading: %w", sqlStateError{"57P01"}), "57P01"},
		{sqlStateError{"25P03"}, "25P03"},
		{&mysql.MySQLError{Number: 1062}, ""},
		{sqlStateError{"23505"}, ""},
		{mysql.ErrInvalidConn, "cut"},
		{driver.ErrBadConn, "cut"},
		{io.EOF, "eof"},
		{fmt.Errorf("read: %w", io.ErrUnexpectedEOF), "eof"},
		{os.NewSyscallError("read", syscall.ECONNRESET), "reset"},
		{os.NewSyscallError("write", syscall.EPIPE), "broken_pipe"},
		{&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, "timeout"},
		{errors.New("syntax error"), ""},
		{nilError{}, ""},
	} {
		assert.Equal(t, c.want, Ended(c.err), "%T: %[1]v", c.err)
	}
}
