// Package pgxpool has types that look, to reflection, like those of pgx's package of this
// name: the tests of this module need not import pgx.
package pgxpool

// Pool is a pool below ours.
type Pool struct {
	config        *Config
	beforeConnect func()
}

// Config is what it was made with.
type Config struct{ ConnConfig *ConnConfig }

// ConnConfig is where its connections go.
type ConnConfig struct {
	Host     string
	Port     uint16
	Database string
}

// New is a pool of connections to one server. before is called before each connect; nil:
// nothing is.
func New(to ConnConfig, before func()) *Pool { return &Pool{&Config{&to}, before} }
