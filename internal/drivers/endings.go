package drivers

import "strings"

// meanings say what it means that a session ended so, by the server's code or by what
// [Ended] says of the connection.
var meanings = map[string]string{
	"1053": "the server was shutting down",
	"1927": "somebody killed it: KILL",
	"3169": "somebody killed it: KILL",
	"4031": "the server ended it for being idle: wait_timeout",

	"57P01": "an administrator ended it, or the server was shutting down",
	"57P02": "another process of the server crashed, and the server ended all connections",
	"57P03": "the server was starting, stopping or recovering",
	"57P05": "the server ended it for being idle: idle_session_timeout",
	"25P03": "the server ended it for being idle in a transaction: idle_in_transaction_session_timeout",
	"25P04": "the server ended it since its transaction took too long: transaction_timeout",

	"1290": "the server takes no writes: it may be a replica since a failover",
	"1792": "the server takes no writes: it may be a replica since a failover",
	"1836": "the server takes no writes: it may be a replica since a failover",

	"25006": "the server takes no writes: it may be a standby since a failover",

	"reset":       "the server, or something on the way, reset it",
	"broken_pipe": "the server, or something on the way, had closed it before",
	"eof":         "the server, or something on the way, closed it",
	TimedOut:      "nothing was heard of the server any more",
	Cut:           "the driver found it dead, and does not say how",
}

// Meaning says what it means that a session ended so; empty: nothing is known of it.
func Meaning(how string) string { return meanings[how] }

// FullLimit is what a server has no room left in for another connection: "server", "user" or
// "database"; empty: that is not what it says.
func FullLimit(err error) (limit string) {
	defer oddly(&limit)
	switch StatusCode(err) {
	case "1040":
		return "server"
	case "1203", "1226":
		return "user"
	case "53300":
		switch text := err.Error(); {
		case strings.Contains(text, "for role"):
			return "user"
		case strings.Contains(text, "for database"):
			return "database"
		}
		return "server"
	}
	return ""
}

// EndedIdle tells whether the server has said that it ended a session for being idle.
func EndedIdle(how string) bool { return how == "4031" || how == "57P05" }

// EndedTx tells whether it has said that it ended a session for what its transaction did.
func EndedTx(how string) bool { return how == "25P03" || how == "25P04" }

// Killed tells whether it has said that somebody killed a session, or the server itself.
func Killed(how string) bool {
	switch how {
	case "1053", "1927", "3169", "57P01", "57P02", "57P03":
		return true
	}
	return false
}

// RefusesWrites is the server's code where it says that it takes no writes; else empty.
// MySQL has one code for all that an option forbids.
//
//   - MySQL: https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html (1290, 1792, 1836)
//   - PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html (25006)
func RefusesWrites(err error) (code string) {
	defer oddly(&code)
	switch code := StatusCode(err); code {
	case "1792", "1836", "25006":
		return code
	case "1290":
		if text := err.Error(); strings.Contains(text, "read-only") || strings.Contains(text, "read_only") {
			return code
		}
	}
	return ""
}
