package sqllease

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	"github.com/sqllease/sqllease/internal/drivers"
)

// settings is a Config that was checked and completed. It never changes.
type settings struct {
	Config
	dialect   drivers.Dialect
	discovery *drivers.Discovery // nil: the server is never asked
	endpoint  drivers.Endpoint
	system    string     // the conventions' db.system.name; empty: not known
	guessed   bool       // that, from the driver: the server may say otherwise
	number    poolNumber // of a name that was made up
	pooled    bool       // the connector takes its connections from a pgxpool
	lanes     *lanes
}

// newSettings checks cfg and fills in what zero stands for.
func newSettings(cfg Config) (*settings, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.Lanes = maps.Clone(cfg.Lanes)
	if cfg.LeakThreshold == 0 {
		cfg.LeakThreshold = DefaultLeakThreshold
	}
	if cfg.SlowAcquireThreshold == 0 {
		cfg.SlowAcquireThreshold = DefaultSlowAcquireThreshold
		if half := cfg.AcquireTimeout / 2; half > 0 {
			cfg.SlowAcquireThreshold = min(cfg.SlowAcquireThreshold, half)
		}
	}
	if cfg.StandstillThreshold == 0 {
		if cfg.StandstillThreshold = cfg.SlowAcquireThreshold; cfg.StandstillThreshold < 0 {
			cfg.StandstillThreshold = DefaultSlowAcquireThreshold
		}
	}
	if cfg.SlowCallThreshold == 0 {
		cfg.SlowCallThreshold = 10 * min(cfg.LeakThreshold, math.MaxInt64/10)
		if cfg.FindBlockers { // before MySQL ends the wait for a row, after 50 seconds
			cfg.SlowCallThreshold = cfg.LeakThreshold
		}
	}
	cfg.LifetimeJitter = cmp.Or(cfg.LifetimeJitter, defaultLifetimeJitter)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(presentDefault{})
	}
	if cfg.TracerProvider == nil {
		cfg.TracerProvider = otel.GetTracerProvider()
	}
	if cfg.MeterProvider == nil {
		cfg.MeterProvider = otel.GetMeterProvider()
	}
	return &settings{Config: cfg, lanes: newLanes(&cfg)}, nil
}

// check returns a *ConfigError for the first field that cannot be meant.
func (cfg *Config) check() error {
	return cmp.Or(cfg.checkPool(), cfg.checkLanes(), cfg.checkDurations(), cfg.checkTargets(), cfg.checkJitter(), cfg.checkReclaim(), cfg.checkBlockers(), cfg.checkNames(), cfg.checkAttributes())
}

func (cfg *Config) checkPool() error {
	for _, f := range []struct {
		name  string
		value int
		zero  string
	}{{"MaxOpen", cfg.MaxOpen, "no limit"}, {"MinIdle", cfg.MinIdle, "none"}, {"Instances", cfg.Instances, "one"}, {"MaxWaiting", cfg.MaxWaiting, "any number"}} {
		if f.value < 0 {
			return &ConfigError{f.name, fmt.Sprint(f.value), "it is negative; use zero for " + f.zero}
		}
	}
	if cfg.MaxOpen > 0 && cfg.MinIdle > cfg.MaxOpen {
		return &ConfigError{"MinIdle", fmt.Sprint(cfg.MinIdle),
			fmt.Sprintf("it is above MaxOpen, which is %d; lower it or raise MaxOpen", cfg.MaxOpen)}
	}
	if cfg.ServerPort < 0 || cfg.ServerPort > 65535 {
		return &ConfigError{"ServerPort", fmt.Sprint(cfg.ServerPort), "a port is between 1 and 65535; use zero if you do not know it"}
	}
	return nil
}

func (cfg *Config) checkDurations() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{
		{"AcquireTimeout", cfg.AcquireTimeout},
		{"QueueTarget", cfg.QueueTarget},
		{"MaxLifetime", cfg.MaxLifetime},
		{"NetworkIdleLimit", cfg.NetworkIdleLimit},
		{"ReclaimAfter", cfg.ReclaimAfter},
		{"FailDeadlockAfter", cfg.FailDeadlockAfter},
		{"LeakThreshold", max(cfg.LeakThreshold, 0)}, // negative: none
		{"SlowCallThreshold", max(cfg.SlowCallThreshold, 0)},
		{"SlowAcquireThreshold", max(cfg.SlowAcquireThreshold, 0)},
		{"StandstillThreshold", max(cfg.StandstillThreshold, 0)},
	} {
		if f.value < 0 {
			return &ConfigError{f.name, f.value.String(), "it is negative; use zero for none"}
		}
		if err := checkUnit(f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

// checkUnit looks for a duration of which a unit was forgotten.
func checkUnit(field string, d time.Duration) error {
	if d > 0 && d < time.Millisecond {
		return &ConfigError{field, d.String(), "it is below 1ms; did you forget a unit?"}
	}
	return nil
}

// defaultLifetimeJitter is the Config.LifetimeJitter of a Config that sets none.
const defaultLifetimeJitter = 0.025

func (cfg *Config) checkJitter() error {
	const most = 0.5
	switch j := cfg.LifetimeJitter; {
	case j < 0:
		return &ConfigError{"LifetimeJitter", fmt.Sprint(j), fmt.Sprintf("it is negative; use zero for %v", defaultLifetimeJitter)}
	case !(j <= most): // nor NaN
		return &ConfigError{"LifetimeJitter", fmt.Sprint(j), fmt.Sprintf("it is a share of the lifetime, at most %v; for 20 %% write 0.2", most)}
	}
	return nil
}

func (cfg *Config) checkBlockers() error {
	for _, f := range []struct {
		name  string
		value time.Duration
	}{{"LeakThreshold", cfg.LeakThreshold}, {"SlowCallThreshold", cfg.SlowCallThreshold}} {
		if cfg.FindBlockers && f.value < 0 {
			return &ConfigError{"FindBlockers", "true", f.name + " is negative, so no slow call is reported; set a threshold, or leave FindBlockers false"}
		}
	}
	return nil
}

func (cfg *Config) checkReclaim() error {
	if cfg.ReclaimAfter <= 0 {
		return nil
	}
	if cfg.LeakThreshold < 0 {
		return &ConfigError{"ReclaimAfter", cfg.ReclaimAfter.String(),
			"LeakThreshold is negative, so nothing is watched; set a threshold, or leave ReclaimAfter zero"}
	}
	if threshold := cmp.Or(cfg.LeakThreshold, DefaultLeakThreshold); cfg.ReclaimAfter < threshold {
		return &ConfigError{"ReclaimAfter", cfg.ReclaimAfter.String(),
			fmt.Sprintf("it is below LeakThreshold, which is %v, and a connection is reported before it is closed; raise it, or lower LeakThreshold", threshold)}
	}
	return nil
}

func (cfg *Config) checkNames() error {
	if known := drivers.Names(); cfg.Dialect != "" && !slices.Contains(known, string(cfg.Dialect)) {
		return &ConfigError{"Dialect", fmt.Sprintf("%q", string(cfg.Dialect)),
			fmt.Sprintf("it is not known; use one of %q, or leave it empty: then the driver decides", known)}
	}
	if cfg.Discovery != nil && cfg.Discovery.Query == "" && cfg.Discovery.Parse != nil {
		return &ConfigError{"Discovery", "a Parse without a Query", "nothing is asked that could be parsed; set Query, or use NoDiscovery"}
	}
	switch cfg.QueryText {
	case QueryTextSanitized, QueryTextRaw, QueryTextOff:
	default:
		return &ConfigError{"QueryText", fmt.Sprintf("%q", string(cfg.QueryText)),
			"it is not known; use QueryTextSanitized, QueryTextRaw or QueryTextOff"}
	}
	switch cfg.Comments {
	case CommentsOff, CommentsAppend, CommentsPrepend:
	default:
		return &ConfigError{"Comments", fmt.Sprintf("%q", string(cfg.Comments)),
			"it is not known; use CommentsOff, CommentsAppend or CommentsPrepend"}
	}
	if cfg.CommentTags != nil && cfg.Comments == CommentsOff {
		return &ConfigError{"CommentTags", "a function", "Comments is CommentsOff, so no statement has a comment; set Comments, or leave CommentTags nil"}
	}
	for _, c := range cfg.OmitSpans {
		if !slices.Contains(spanCalls, c) {
			return &ConfigError{"OmitSpans", fmt.Sprintf("%q", string(c)), fmt.Sprintf("no such call has spans; use %q", spanCalls)}
		}
	}
	return nil
}

func (cfg *Config) checkAttributes() error {
	for _, a := range cfg.Attributes {
		switch value := fmt.Sprintf("%q", string(a.Key)); {
		case a.Key == "":
			return &ConfigError{"Attributes", value, "an attribute needs a key; give it one, or remove it"}
		case !a.Valid():
			return &ConfigError{"Attributes", value, "it has no value; give it one, or remove it"}
		case isReserved(a.Key):
			return &ConfigError{"Attributes", value, "remove it: sqllease sets it itself" + setBy(a.Key)}
		}
	}
	return nil
}

// setBy names the field that changes an attribute which is set here, if one does.
func setBy(key attribute.Key) string {
	field, ok := map[attribute.Key]string{
		keyPool: "Name", keySystem: "Dialect", keyAddress: "ServerAddress", keyPort: "ServerPort", keyNamespace: "Namespace", keyText: "QueryText",
	}[key]
	if !ok {
		return ""
	}
	return " (Config." + field + " changes it)"
}
