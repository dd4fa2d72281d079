package sqllease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/sqllease/sqllease/internal/clock"
)

// sec is an instant of the tests below, in seconds from some beginning.
func sec(n int) clock.Instant {
	return clock.Instant(100 * 24 * time.Hour).Add(time.Duration(n) * time.Second)
}

// idleFor is so many seconds of idle time.
func idleFor(n int) time.Duration { return time.Duration(n) * time.Second }

const knownLimit = 8 * time.Hour // what the server says

// dies is a session that was heard of last, and found dead, at these times.
func (l *learned) dies(heard, found int, cause idleCause) (lesson, bool) {
	return l.died(idleDeath{sec(heard), sec(found), cause}, knownLimit)
}

func TestWhatDeathsTeach(t *testing.T) {
	type step func(l *learned)
	dead := func(heard, found int) step { return func(l *learned) { l.dies(heard, found, diedUntold) } }
	says := func(heard, found int, cause idleCause) step { return func(l *learned) { l.dies(heard, found, cause) } }
	lives := func(idle, now int) step { return func(l *learned) { l.survived(idleFor(idle), sec(now)) } }
	for name, c := range map[string]struct {
		steps []step
		want  int // seconds
	}{
		"three":                               {[]step{dead(0, 200), dead(200, 350), dead(350, 530)}, 150},
		"two":                                 {[]step{dead(0, 200), dead(200, 350)}, 0},
		"three, of one event":                 {[]step{dead(0, 200), dead(100, 230), dead(190, 340)}, 0},
		"four, of one event and another":      {[]step{dead(0, 200), dead(100, 230), dead(190, 340), dead(250, 400)}, 130},
		"three, and shorter ones survived":    {[]step{lives(149, 0), dead(0, 200), lives(100, 210), dead(200, 350), dead(350, 530)}, 150},
		"as long was survived before":         {[]step{lives(200, 0), dead(0, 200), dead(200, 400), dead(400, 600)}, 0},
		"that is two hours ago":               {[]step{lives(200, 0), dead(7200, 7400), dead(7400, 7600), dead(7600, 7800)}, 200},
		"as long was survived in between":     {[]step{dead(0, 200), dead(200, 350), lives(200, 400), dead(400, 650)}, 0},
		"one is short: all may be of that":    {[]step{lives(50, 0), dead(0, 200), dead(200, 350), dead(190, 240), dead(350, 530)}, 0},
		"one is short, before all":            {[]step{lives(50, 0), dead(0, 40), dead(50, 200), dead(200, 350), dead(350, 530)}, 0},
		"and three more":                      {[]step{lives(50, 0), dead(0, 40), dead(50, 200), dead(200, 350), dead(350, 530), dead(530, 690), dead(690, 900), dead(900, 1100)}, 150},
		"heard of before a short one":         {[]step{lives(50, 0), dead(960, 1000), dead(900, 1100), dead(800, 1200), dead(700, 1300), dead(600, 1400), dead(1000, 1500), dead(1, 1600)}, 0},
		"less than a second":                  {[]step{dead(0, 0), dead(1, 1), dead(2, 2)}, 0},
		"killed":                              {[]step{says(0, 200, diedKilled), says(200, 400, diedKilled), says(400, 600, diedKilled)}, 0},
		"in a transaction":                    {[]step{says(0, 200, diedOther), says(200, 400, diedOther), says(400, 600, diedOther)}, 0},
		"one, idle":                           {[]step{says(0, 200, diedIdle)}, 200},
		"one, idle, and another lives longer": {[]step{lives(300, 0), says(0, 200, diedIdle)}, 0},
		"one, idle, after a restart":          {[]step{says(0, 40, diedKilled), says(30, 230, diedIdle)}, 200},
		"the known limit itself":              {[]step{dead(0, 28800), dead(28800, 57600), dead(57600, 86400)}, 0},
		"two, and one a day later":            {[]step{dead(0, 200), dead(200, 350), dead(86000, 86760)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var l learned
			for _, do := range c.steps {
				do(&l)
			}
			assert.Equal(t, idleFor(c.want), l.at(sec(0), knownLimit))
		})
	}
}

// taughtAt is a record that has learned a limit of 100 s at that time.
func taughtAt(found int) *learned {
	l := &learned{}
	l.dies(found-100, found, diedIdle)
	return l
}

func TestALearnedLimitGrowsUntilItIsForgotten(t *testing.T) {
	for name, known := range map[string]time.Duration{"known": knownLimit, "unknown": 0} {
		t.Run(name, func(t *testing.T) {
			l, want := taughtAt(0), 100*time.Second
			forgotten := max(known, longestLearned)
			if known > 0 {
				forgotten = known
			}
			for hour := 0; want < forgotten; hour++ {
				assert.Equal(t, want, l.at(sec(3600*hour), known))
				assert.Equal(t, want, l.at(sec(3600*hour+3599), known))
				want *= 2
			}
			assert.Zero(t, l.at(sec(10*3600), known))
			assert.Zero(t, l.at(sec(0), known), "for ever")
		})
	}
}

func TestALimitThatIsKnownMeanwhileIsNotLearned(t *testing.T) {
	l := taughtAt(0)
	assert.Zero(t, l.at(sec(1), 100*time.Second))
}

func TestADeathThatContradictsTheGrowthHasTheLimitFallBack(t *testing.T) {
	l, now := taughtAt(0), 0
	for _, hours := range []int{1, 2, 4, 8, 16, 24, 24} {
		now += 3600 * hours
		assert.Equal(t, 100*time.Second, l.at(sec(now-1), knownLimit))
		assert.Equal(t, 200*time.Second, l.at(sec(now), knownLimit))
		taught, lower := l.dies(now, now+150, diedUntold)
		now += 150
		assert.True(t, lower)
		assert.Equal(t, lesson{limit: 100 * time.Second}, taught)
		assert.Equal(t, 100*time.Second, l.at(sec(now), knownLimit))
	}
	l.survived(100*time.Second+1, sec(now)) // it has gone
	assert.Equal(t, 200*time.Second, l.at(sec(now+3600), knownLimit))
}

func TestALimitThatHasRisenIsNotWhatItWas(t *testing.T) {
	l := taughtAt(0)
	l.survived(150*time.Second, sec(3600))
	taught, lower := l.dies(7200, 7200+350, diedUntold)
	assert.True(t, lower)
	assert.Equal(t, lesson{limit: 350 * time.Second}, taught)
}

func TestADeathWithinALimitThatHasNotGrownIsNotEnough(t *testing.T) {
	l := taughtAt(0)
	_, lower := l.dies(0, 50, diedUntold)
	assert.False(t, lower)
	l.dies(50, 95, diedUntold)
	_, lower = l.dies(95, 150, diedUntold)
	assert.True(t, lower)
	assert.Equal(t, 45*time.Second, l.at(sec(150), knownLimit))
}

func TestADeathBeyondTheLimitSaysThatItIsTrue(t *testing.T) {
	l := taughtAt(0)
	l.dies(3400, 3550, diedUntold)
	assert.Equal(t, 100*time.Second, l.at(sec(3550+3599), knownLimit))
	assert.Equal(t, 200*time.Second, l.at(sec(3550+3600), knownLimit))
}

// A limit is news if no lower one was told of, until it is forgotten.
func TestALimitIsNewsOnce(t *testing.T) {
	l := taughtAt(0)
	taught, _ := l.dies(0, 60, diedIdle)
	assert.True(t, taught.news)
	l.at(sec(3600), knownLimit)
	taught, _ = l.dies(0, 3700, diedIdle)
	assert.False(t, taught.news)
	l.at(sec(100*3600), knownLimit)
	taught, _ = l.dies(360000, 360100, diedIdle)
	assert.True(t, taught.news)
}
