package sqllease

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// wantConfigError checks that err names the field, its value and the remedy.
func wantConfigError(t *testing.T, err error, field, value, remedy string) {
	t.Helper()
	var refused *ConfigError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, field, refused.Field)
	assert.Equal(t, value, refused.Value)
	assert.Contains(t, refused.Reason, remedy)
	assert.Equal(t, "sqllease: "+field+" is "+value+": "+refused.Reason, err.Error())
}

func TestANilConnectorIsRefused(t *testing.T) {
	for name, inner := range map[string]driver.Connector{"untyped": nil, "a nil pointer": (*lifetimeFake)(nil)} {
		t.Run(name, func(t *testing.T) {
			c, err := Wrap(inner, Config{})
			assert.Nil(t, c)
			wantConfigError(t, err, "connector", "nil", "NewConnector")
			db, err := OpenDB(inner, Config{})
			assert.Nil(t, db)
			wantConfigError(t, err, "connector", "nil", "NewConnector")
		})
	}
}

func TestAConfigThatCannotBeMeantIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		cfg                  Config
		field, value, remedy string
	}{
		"negative MaxOpen":             {Config{MaxOpen: -1}, "MaxOpen", "-1", "use zero for no limit"},
		"negative MinIdle":             {Config{MinIdle: -2}, "MinIdle", "-2", "use zero for none"},
		"negative AcquireTimeout":      {Config{AcquireTimeout: -time.Second}, "AcquireTimeout", "-1s", "use zero for none"},
		"negative MaxLifetime":         {Config{MaxLifetime: -1}, "MaxLifetime", "-1ns", "use zero for none"},
		"negative NetworkIdleLimit":    {Config{NetworkIdleLimit: math.MinInt64}, "NetworkIdleLimit", "-2562047h47m16.854775808s", "use zero for none"},
		"AcquireTimeout no unit":       {Config{AcquireTimeout: 30}, "AcquireTimeout", "30ns", "did you forget a unit?"},
		"MaxLifetime no unit":          {Config{MaxLifetime: 3600}, "MaxLifetime", "3.6µs", "did you forget a unit?"},
		"NetworkIdleLimit no unit":     {Config{NetworkIdleLimit: time.Millisecond - 1}, "NetworkIdleLimit", "999.999µs", "did you forget a unit?"},
		"negative LifetimeJitter":      {Config{LifetimeJitter: -0.1}, "LifetimeJitter", "-0.1", "use zero for 0.025"},
		"LifetimeJitter in per cent":   {Config{LifetimeJitter: 20}, "LifetimeJitter", "20", "at most 0.5; for 20 % write 0.2"},
		"LifetimeJitter above":         {Config{LifetimeJitter: 0.51}, "LifetimeJitter", "0.51", "at most 0.5"},
		"LifetimeJitter not a number":  {Config{LifetimeJitter: math.NaN()}, "LifetimeJitter", "NaN", "at most 0.5"},
		"MinIdle over MaxOpen":         {Config{MaxOpen: 3, MinIdle: 4}, "MinIdle", "4", "MaxOpen, which is 3; lower it or raise MaxOpen"},
		"unknown Comments":             {Config{Comments: "yes"}, "Comments", `"yes"`, "use CommentsOff, CommentsAppend or CommentsPrepend"},
		"CommentTags without Comments": {Config{CommentTags: func(context.Context) map[string]string { return nil }}, "CommentTags", "a function", "set Comments, or leave CommentTags nil"},
		"a Parse without a Query":      {Config{Discovery: &Discovery{Parse: func([][]driver.Value) (ServerLimits, error) { return ServerLimits{}, nil }}}, "Discovery", "a Parse without a Query", "set Query"},
		"unknown Dialect":              {Config{Dialect: "oracle"}, "Dialect", `"oracle"`, `use one of ["mysql" "mariadb" "tidb" "postgresql" "cockroachdb"], or leave it empty`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Wrap(&lifetimeFake{}, c.cfg)
			wantConfigError(t, err, c.field, c.value, c.remedy)
			_, err = OpenDB(&lifetimeFake{}, c.cfg)
			wantConfigError(t, err, c.field, c.value, c.remedy)
			_, err = Open("mysql", "user@tcp(127.0.0.1:1)/test", c.cfg)
			wantConfigError(t, err, c.field, c.value, c.remedy)
			err = Register("a refused driver", &lifetimeFake{}, c.cfg)
			wantConfigError(t, err, c.field, c.value, c.remedy)
			assert.NotContains(t, sql.Drivers(), "a refused driver")
		})
	}
}

func TestAConfigAtItsBoundsIsAccepted(t *testing.T) {
	for name, cfg := range map[string]Config{
		"zero":                       {},
		"a millisecond":              {AcquireTimeout: time.Millisecond, MaxLifetime: time.Millisecond, NetworkIdleLimit: time.Millisecond},
		"for ever":                   {AcquireTimeout: math.MaxInt64, MaxLifetime: math.MaxInt64, NetworkIdleLimit: math.MaxInt64, LeakThreshold: math.MaxInt64},
		"MinIdle is MaxOpen":         {MaxOpen: 3, MinIdle: 3},
		"MinIdle without a limit":    {MinIdle: 3},
		"LeakThreshold is the age":   {MaxLifetime: time.Minute, LeakThreshold: time.Minute},
		"LeakThreshold alone":        {LeakThreshold: time.Hour},
		"LeakThreshold over the age": {MaxLifetime: time.Minute, LeakThreshold: time.Hour}, // a connection on lease is not cut
		"LeakThreshold is off":       {MaxLifetime: time.Second, LeakThreshold: -1},
		"LeakThreshold is not given": {MaxLifetime: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{}
				db, _ := openPool(t, f, cfg)
				useOnce(t, db)
				require.NoError(t, db.Close())
				synctest.Wait()
				for _, s := range f.sessions() {
					s.closedAfter(t)
				}
			})
		})
	}
}

// What is wrapped already is not wrapped again.
func TestWhatIsWrappedAlreadyIsRefused(t *testing.T) {
	c, err := Wrap(&lifetimeFake{}, Config{})
	require.NoError(t, err)
	_, err = Wrap(c, Config{})
	wantConfigError(t, err, "connector", "a *sqllease.Connector", "give Wrap the connector of your driver")
	name := fmt.Sprintf("wrapped once, %d", len(sql.Drivers())) // a name is registered for good: each run has its own
	require.NoError(t, Register(name, c.Driver(), Config{}))
	db, err := Open(name, "", Config{Name: "the outer"})
	require.NoError(t, err)
	outer, _ := ConnectorOf(db)
	_, twice := outer.inner.(*Connector)
	assert.False(t, twice, "the name leads to the driver itself")
	require.NoError(t, db.Close())
	require.NoError(t, c.Close())
}

func TestADriverWithoutANameIsNotRegistered(t *testing.T) {
	wantConfigError(t, Register("", &lifetimeFake{}, Config{}), "name", `""`, "give it one")
}

// A warning of slow acquires comes before the acquires fail.
func TestTheWarningOfSlowAcquiresComesBeforeTheTimeout(t *testing.T) {
	for _, c := range []struct{ timeout, threshold, want time.Duration }{
		{0, 0, 5 * time.Second},
		{time.Minute, 0, 5 * time.Second},
		{4 * time.Second, 0, 2 * time.Second},
		{4 * time.Second, 3 * time.Second, 3 * time.Second},
		{4 * time.Second, -1, -1},
	} {
		set, err := newSettings(Config{AcquireTimeout: c.timeout, SlowAcquireThreshold: c.threshold})
		require.NoError(t, err)
		assert.Equal(t, c.want, set.SlowAcquireThreshold, c)
	}
}
