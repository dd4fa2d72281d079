package sqllease

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sqllease/sqllease/internal/gate"
)

// DefaultLane is the name of the lane of a context that has none. [Config.Lanes] may say what it
// may have, as of any other.
const DefaultLane = "default"

// Lane says which share of a pool's connections some of its callers may have; see [Config.Lanes].
// The zero value has no limit of its own, and nothing is reserved for it: it is told apart in
// figures only.
type Lane struct {
	// Max is how many connections it may have checked out at once, those included that are being
	// dialed for it. Zero: any number.
	Max int

	// Reserve is how many connections are kept for it: the others cannot have them, even where it
	// does not use them. It may have more. Zero: none.
	Reserve int

	// MaxWaiting is Config.MaxWaiting for this lane. Zero: as there. Negative: any number.
	MaxWaiting int

	// QueueTarget is Config.QueueTarget for this lane. Zero: as there. Negative: nobody is refused
	// for having waited.
	QueueTarget time.Duration
}

// laneKey is the key of WithLane's value in a context.
type laneKey struct{}

// WithLane returns a context whose callers wait in a lane of [Config.Lanes], with the connections
// that this lane may have. Of a pool that has no such lane, they are in [DefaultLane]: where the
// pool has others, a warning says so once. The empty name is that of DefaultLane.
func WithLane(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, laneKey{}, name)
}

// lanes are those of a pool: DefaultLane alone, where none were asked for.
type lanes struct {
	names   []string               // DefaultLane first, then in order
	ids     map[string]gate.LaneID // nil: none were asked for
	of      []gate.Lane
	reserve int         // connections, together
	unknown atomic.Bool // one was asked for, and that was told
	limited atomic.Bool // the limit is too low for what is reserved, and that was told
}

const (
	mostLanes    = 16
	longestNamed = 64 // bytes
)

// newLanes are those of a Config that was checked.
func newLanes(cfg *Config) *lanes {
	l := &lanes{names: []string{DefaultLane}, reserve: cfg.reserved()}
	if len(cfg.Lanes) > 0 {
		l.ids = map[string]gate.LaneID{}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Lanes)) {
		if name != DefaultLane {
			l.names = append(l.names, name)
		}
	}
	for i, name := range l.names {
		if l.ids != nil {
			l.ids[name] = gate.LaneID(i)
		}
		l.of = append(l.of, cfg.gateLane(cfg.Lanes[name]))
	}
	return l
}

// gateLane is a lane as the gate has it.
func (cfg *Config) gateLane(l Lane) gate.Lane {
	out := gate.Lane{Max: l.Max, Reserve: l.Reserve, MaxWaiting: cfg.MaxWaiting, Target: cfg.QueueTarget}
	if l.MaxWaiting != 0 {
		out.MaxWaiting = max(l.MaxWaiting, 0)
	}
	if l.QueueTarget != 0 {
		out.Target = max(l.QueueTarget, 0)
	}
	return out
}

// laneName is the name of a lane; empty where no lanes were asked for.
func (s *settings) laneName(id gate.LaneID) string {
	if s.lanes.ids == nil || id == gate.NoLane {
		return ""
	}
	return s.lanes.names[id]
}

// laneLimit is the name of a lane that has a limit of its own; empty: it has none.
func (s *settings) laneLimit(id gate.LaneID) string {
	if id == gate.NoLane || s.lanes.of[id].Max == 0 {
		return ""
	}
	return s.laneName(id)
}

// reserved is how many connections are reserved, together.
func (cfg *Config) reserved() (n int) {
	for _, l := range cfg.Lanes {
		n += l.Reserve
	}
	return n
}

func (cfg *Config) checkLanes() error {
	if len(cfg.Lanes) > mostLanes {
		return &ConfigError{"Lanes", fmt.Sprintf("%d lanes", len(cfg.Lanes)), fmt.Sprintf("that is too many, since each has metrics of its own; use %d at most", mostLanes)}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Lanes)) {
		if err := checkLane(name, cfg.Lanes[name]); err != nil {
			return err
		}
	}
	if n := cfg.reserved(); cfg.MaxOpen > 0 && n >= cfg.MaxOpen {
		return &ConfigError{"Lanes", fmt.Sprintf("%d reserved connections", n),
			fmt.Sprintf("that leaves none of MaxOpen, which is %d, for all others; reserve less, or raise MaxOpen. To divide all connections, use Max", cfg.MaxOpen)}
	}
	return nil
}

func checkLane(name string, l Lane) error {
	field := func(f string) string { return fmt.Sprintf("Lanes[%q].%s", name, f) }
	switch {
	case name == "":
		return &ConfigError{"Lanes", `a lane with the name ""`, fmt.Sprintf("a lane needs a name; that of contexts without a lane is %q", DefaultLane)}
	case len(name) > longestNamed:
		return &ConfigError{"Lanes", fmt.Sprintf("a lane with a name of %d bytes", len(name)), fmt.Sprintf("use %d at most: it is an attribute of metrics", longestNamed)}
	case l.Max < 0:
		return &ConfigError{field("Max"), fmt.Sprint(l.Max), "it is negative; use zero for any number"}
	case l.Reserve < 0:
		return &ConfigError{field("Reserve"), fmt.Sprint(l.Reserve), "it is negative; use zero for none"}
	case l.Max > 0 && l.Reserve > l.Max:
		return &ConfigError{field("Reserve"), fmt.Sprint(l.Reserve), fmt.Sprintf("it is above its Max, which is %d; lower it or raise Max", l.Max)}
	}
	return checkUnit(field("QueueTarget"), l.QueueTarget)
}

// checkTargets looks for a wait that is refused only when it is over.
func (cfg *Config) checkTargets() error {
	if cfg.AcquireTimeout <= 0 {
		return nil
	}
	late := func(field string, target time.Duration) error {
		return &ConfigError{field, target.String(), fmt.Sprintf("nobody waits for so long, since AcquireTimeout is %v; lower it, or raise AcquireTimeout", cfg.AcquireTimeout)}
	}
	if cfg.QueueTarget >= cfg.AcquireTimeout {
		return late("QueueTarget", cfg.QueueTarget)
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Lanes)) {
		if target := cfg.Lanes[name].QueueTarget; target >= cfg.AcquireTimeout {
			return late(fmt.Sprintf("Lanes[%q].QueueTarget", name), target)
		}
	}
	return nil
}
