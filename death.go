package sqllease

// closeReason says why a session was closed. The gate knows what it decided; what a call
// met with, only its holder does.
type closeReason uint8

const (
	closedExpired   closeReason = iota // it reached Config.MaxLifetime
	closedIdle                         // it could not be older without being idle for too long
	closedCancelled                    // the context of a call in it ended, and the driver gave it up
	closedCut                          // the server, or the network, ended it in a call
	closedReset                        // it was found dead when it was to be handed out, or was pinged
	closedInvalid                      // the driver said that it is of no use, and no call had failed
	closedPanicked                     // the driver panicked in it
	closedSuspect                      // it is as old as one that was found dead
	closedSurplus                      // database/sql's own limits of idle connections, and their lifetime
	closedLimit                        // the limit was lowered
	closedFlushed                      // by Connector.Flush
	closedRole                         // its server takes no writes any more
	closedReclaimed                    // it was taken from a leaked lease
	closedShutdown                     // the connector was closed
	closeReasons
)

var closeReasonNames = [closeReasons]string{
	"expired", "idle_limit", "cancelled", "cut", "reset_failed", "invalid", "panicked", "suspect", "surplus", "limit", "flushed", "role_changed", "reclaimed", "shutdown",
}

func (r closeReason) String() string { return closeReasonNames[r] }

// death is how a session ended.
type death struct {
	reason closeReason
	how    string // of one that others ended: the server's code, or what the connection met with; else empty
}

// illness is what its holder saw of a session. Its hold tells whose it is: what another
// holder saw does not count.
type illness struct {
	death
	hold  uint64 // zero: none
	fatal bool   // its holder closes it for that
}
