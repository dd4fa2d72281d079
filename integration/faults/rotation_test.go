package faults

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

// rotating is a connector whose credentials change.
type rotating struct{ now atomic.Pointer[mysql.Config] }

func (r *rotating) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := mysql.NewConnector(r.now.Load())
	if err != nil {
		return nil, err
	}
	return c.Connect(ctx)
}

func (r *rotating) Driver() driver.Driver { return mysql.MySQLDriver{} }

// use has connections that are opened from now on log in so.
func (r *rotating) use(user, password string) {
	next := r.now.Load().Clone()
	next.User, next.Passwd = user, password
	r.now.Store(next)
}

var rotationFaults = []fault{rotation()}

// rotation gives an application another user, and drops the old one with all its connections.
func rotation() fault {
	return fault{
		name:   "MariaDB: the login is replaced, `Flush(300ms)` is called, then the old user is dropped and its connections are killed",
		server: onMaria, through: goMySQL, expect: prevented,
		connect: func(a *app, addr string) driver.Connector {
			cfg := mysql.NewConfig()
			cfg.User, cfg.Net, cfg.Addr, cfg.DBName = a.user, "tcp", addr, "faults"
			r := &rotating{}
			r.now.Store(cfg)
			a.login = r
			return r
		},
		play: func(s *scene) {
			s.both(func(a *app) { a.line.Delay(2*time.Millisecond, 0) })
			s.underLoad(func() {
				s.both(func(a *app) {
					s.exec(mariaUser(a.user + "_2")...)
					s.exec("ALTER USER " + a.user + "_2 IDENTIFIED BY 'next'")
					a.login.use(a.user+"_2", "next")
				})
				s.lease.pool.Flush(300 * time.Millisecond)
				s.lease.await("its old connections to be replaced", func() bool { return s.sessions(s.lease) == 0 })
				s.both(func(a *app) {
					s.exec("DROP USER " + a.user)
					s.kill(a)
					a.user += "_2"
				})
			})
		},
	}
}
