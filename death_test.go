package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// dyingFake is a driver whose connections are valid until a test says otherwise.
type dyingFake struct {
	telemetryFake
	invalid bool
}

func (f *dyingFake) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := f.telemetryFake.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &dyingConn{conn.(*telemetryFakeConn), f}, nil
}

type dyingConn struct {
	*telemetryFakeConn
	f *dyingFake
}

func (c *dyingConn) IsValid() bool { return !c.f.invalid }

// TestWhyASessionWasClosedIsTold compares the metric, and what Stats says, for every
// reason. A deadline of the application's is not the server's doing.
func TestWhyASessionWasClosedIsTold(t *testing.T) {
	invalidAfter := func(err error) func(*testing.T, *telemetryPool, *dyingFake) {
		return func(t *testing.T, p *telemetryPool, f *dyingFake) {
			f.on = func(_ context.Context, call, _ string) error {
				if call == "exec" {
					f.invalid = true
					return err
				}
				return nil
			}
			_, got := p.db.ExecContext(t.Context(), "DO 1")
			require.ErrorIs(t, got, err)
		}
	}
	for want, happen := range map[string]func(*testing.T, *telemetryPool, *dyingFake){
		"expired": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			elapse(2 * time.Hour)
		},
		"idle_limit": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			elapse(11 * time.Minute)
		},
		"cancelled": func(t *testing.T, p *telemetryPool, f *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			f.on = func(ctx context.Context, call, _ string) error {
				if call == "exec" {
					<-ctx.Done()
					f.invalid = true
					return mysql.ErrInvalidConn
				}
				return nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := p.db.ExecContext(ctx, "DO 1")
			require.Error(t, err)
		},
		"cut 1927":        invalidAfter(&mysql.MySQLError{Number: 1927, Message: "Connection was killed"}),
		"cut reset":       invalidAfter(syscall.ECONNRESET),
		"cut broken_pipe": invalidAfter(syscall.EPIPE),
		"invalid":         invalidAfter(&mysql.MySQLError{Number: 1062, Message: "Duplicate entry"}),
		"reset_failed eof": func(t *testing.T, p *telemetryPool, f *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			f.on = func(_ context.Context, call, _ string) error {
				if call == "reset" {
					return badFor{"unexpected EOF"}
				}
				return nil
			}
			exec(t, t.Context(), p.db, "DO 1")
		},
		"panicked": func(t *testing.T, p *telemetryPool, f *dyingFake) {
			f.on = func(_ context.Context, call, _ string) error {
				if call == "exec" {
					panic("the driver's bug")
				}
				return nil
			}
			assert.Panics(t, func() { _, _ = p.db.ExecContext(t.Context(), "DO 1") })
		},
		"surplus": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			p.db.SetMaxIdleConns(0)
		},
		"limit": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			first, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			second, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			p.c.SetMaxOpen(1)
			require.NoError(t, first.Close())
			require.NoError(t, second.Close())
		},
		"flushed": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			p.c.Flush(0)
		},
		"shutdown": func(t *testing.T, p *telemetryPool, _ *dyingFake) {
			exec(t, t.Context(), p.db, "DO 1")
			require.NoError(t, p.db.Close())
		},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := 0
				f := &dyingFake{}
				cfg := Config{MaxOpen: 2, NetworkIdleLimit: 10 * time.Minute}
				if want == "expired" {
					cfg = Config{MaxOpen: 2, MaxLifetime: time.Hour}
				}
				p := newTelemetryPool(t, f, cfg)
				log := &keptLog{debug: true}
				p.c.cfg.Logger = slog.New(log)
				happen(t, p, f)
				synctest.Wait()
				for _, r := range log.take() {
					if r.level == slog.LevelDebug {
						reason, how, _ := strings.Cut(want, " ")
						assert.Equal(t, []any{"sqllease: a connection was closed", reason, how}, []any{r.message, r.attrs["reason"], r.attrs["how"]})
						assert.Equal(t, how == "", r.attrs["meaning"] == "", "%v", r.attrs)
						told++
					}
				}
				assert.Equal(t, 1, told)
				assert.Equal(t, map[string]int64{want: 1}, p.deaths(t))
				assert.Equal(t, uint64(1), p.c.Stats().Closed.Total())
			})
		})
	}
}

// badFor is driver.ErrBadConn, as drivers wrap it.
type badFor struct{ why string }

func (e badFor) Error() string        { return e.why }
func (e badFor) Is(target error) bool { return target == driver.ErrBadConn || target.Error() == e.why }

// deaths are the sessions closed, by reason and by how.
func (p *telemetryPool) deaths(t *testing.T) map[string]int64 {
	got := map[string]int64{}
	data, _ := p.metric(t, "sqllease.session.closed").(metricdata.Sum[int64])
	for _, point := range data.DataPoints {
		reason, _ := point.Attributes.Value("sqllease.close.reason")
		name := reason.AsString()
		if how, ok := point.Attributes.Value("error.type"); ok {
			name += " " + how.AsString()
		}
		got[name] = point.Value
	}
	return got
}

func TestWhoFollowsADeadSessionFindsTheOthersSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &dyingFake{}
		p := newTelemetryPool(t, f, Config{MaxOpen: 2})
		var held []*sql.Conn
		for range 2 {
			conn, err := p.db.Conn(t.Context())
			require.NoError(t, err)
			held = append(held, conn)
		}
		for _, conn := range held {
			require.NoError(t, conn.Close())
		}
		f.on = failing("exec", driver.ErrBadConn)
		_, err := p.db.ExecContext(t.Context(), "DO 1")
		require.ErrorIs(t, err, driver.ErrBadConn)
		deaths := p.deaths(t)
		assert.Equal(t, int64(p.c.Stats().Closed.Total()), deaths["cut cut"]+deaths["suspect"])
		assert.NotZero(t, deaths["cut cut"])
	})
}
