package drivers

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
)

// The kinds of failures. They are few and say nothing of the data, so that they are fit
// for a metric.
const (
	Refused         = "refused"              // nobody listens there
	Unreachable     = "unreachable"          // no way leads there
	TimedOut        = "timeout"              // nobody answered in time
	DNS             = "dns"                  // the host's name was not found
	TLS             = "tls"                  // no encryption was agreed on, or a certificate is not trusted
	Authentication  = "authentication"       // the server does not let this user in
	TooMany         = "too_many_connections" // the server has no room for one more
	Starting        = "starting"             // the server starts, stops or recovers
	UnknownDatabase = "unknown_database"
	Cut             = "cut"       // the connection ended in between
	Cancelled       = "cancelled" // the caller wanted it no longer
)

// failureCodes are what servers say, from MySQL's server error reference, MariaDB's error
// codes and PostgreSQL's appendix A.
var failureCodes = map[string]string{
	"1044": Authentication, "1045": Authentication, "1130": Authentication, "1251": Authentication, "1275": Authentication,
	"1524": Authentication, "1698": Authentication, "1820": Authentication, "1862": Authentication, "3118": Authentication,
	"3159": Authentication, "3955": Authentication, "4151": Authentication,
	"28000": Authentication, "28P01": Authentication,
	"1040": TooMany, "1129": TooMany, "1203": TooMany, "1226": TooMany, "53300": TooMany,
	"1049": UnknownDatabase, "3D000": UnknownDatabase,
	"1053": Starting, "57P03": Starting, "57P01": Starting, "57P02": Starting,
}

// cutCodes are what servers say when they end a session by themselves.
var cutCodes = map[string]bool{
	"1053": true, "1927": true, "3169": true, "4031": true, // shut down, killed, killed, idle for too long
	"57P01": true, "57P02": true, "57P03": true, "57P05": true, // shut down, crashed, starting, idle for too long
	"25P03": true, "25P04": true, // a transaction idle, or open, for too long
	"08003": true, "08006": true,
}

// Failure is why a dial failed; empty where it cannot be told. The caller's own
// cancellation is to be told from ctx: drivers wrap it in all ways.
func Failure(err error) (kind string) {
	defer oddly(&kind)
	if err == nil {
		return ""
	}
	if kind := failureCodes[StatusCode(err)]; kind != "" {
		return kind
	}
	return networkFailure(err)
}

// networkFailure is one that no server told.
func networkFailure(err error) string {
	var dns *net.DNSError
	var slow interface{ Timeout() bool }
	switch {
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.As(err, &dns):
		return DNS
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT) && !ofFile(err): // of a socket's path
		return Refused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EADDRNOTAVAIL):
		return Unreachable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &slow) && slow.Timeout():
		return TimedOut
	case ofTLS(err), slices.ContainsFunc(tlsTexts, func(text string) bool { return says(err, text) }):
		return TLS
	case isCut(err), says(err, invalidConnection):
		return Cut
	}
	return ""
}

// invalidConnection is what go-sql-driver says of a connection that ended in between.
const invalidConnection = "invalid connection"

// ofFile tells an error of a file, such as that of a certificate.
func ofFile(err error) bool {
	var file *fs.PathError
	return errors.As(err, &file)
}

// tlsTexts are what go-sql-driver, lib/pq and pgx say of a server without encryption.
var tlsTexts = []string{
	"TLS requested but server does not support TLS", "pq: SSL is not enabled on the server", "server refused TLS connection",
}

// oddly is deferred where methods of an error are called: one may be nil within.
func oddly(answer *string) {
	if recover() != nil {
		*answer = ""
	}
}

// isCut tells an error of a connection that ended in between.
func isCut(err error) bool {
	for _, cut := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, driver.ErrBadConn, syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED} {
		if errors.Is(err, cut) {
			return true
		}
	}
	return false
}

// ofTLS tells an error of the packages that encrypt, which are not imported for it.
func ofTLS(err error) bool {
	return within(err, func(err error) bool {
		path := PackageOf(err)
		return path == "crypto/tls" || path == "crypto/x509"
	})
}

// Ended tells how the server, or the network, ended a session in the middle of a call: the
// server's code, or what the connection met with. Empty: err is not of that kind.
func Ended(err error) (how string) {
	defer oddly(&how)
	if code := StatusCode(err); code != "" {
		if cutCodes[code] {
			return code
		}
		return ""
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.Is(err, syscall.EPIPE):
		return "broken_pipe"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "eof"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	case isCut(err), says(err, invalidConnection):
		return Cut
	}
	return ""
}

// says compares an error that has no type of its own.
func says(err error, text string) bool {
	for range 16 {
		if err == nil {
			return false
		}
		if strings.EqualFold(err.Error(), text) {
			return true
		}
		err = errors.Unwrap(err)
	}
	return false
}
