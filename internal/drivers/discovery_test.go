package drivers

import (
	"database/sql/driver"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestParseSeconds(t *testing.T) {
	for i, c := range []struct {
		row    []driver.Value
		want   time.Duration
		err    string // part of it; "": none
		system string
	}{
		{row: []driver.Value{uint64(28800)}, want: 8 * time.Hour},
		{row: []driver.Value{int64(1)}, want: time.Second},
		{row: []driver.Value{[]byte("60")}, want: time.Minute},
		{row: []driver.Value{"60"}, want: time.Minute},
		{row: []driver.Value{int64(0)}},
		{row: []driver.Value{int64(9223372036)}, want: 9223372036 * time.Second},
		{row: []driver.Value{int64(9223372037)}}, // more than a time.Duration holds: no limit
		{row: []driver.Value{int64(math.MaxInt64)}},
		{row: []driver.Value{int64(-1)}, err: `"-1"`},
		{row: []driver.Value{"a while"}, err: `"a while"`},
		{row: []driver.Value{"28800.5"}, err: `"28800.5"`},
		{row: []driver.Value{""}, err: `""`},
		{row: []driver.Value{nil}, err: `""`},
		{row: []driver.Value{true}, err: `"true"`},
		{row: nil, err: "0 columns"},
		{row: []driver.Value{int64(1), int64(2), int64(3)}, err: "got 3 columns, expected 1 or 2"},
		{row: []driver.Value{int64(60), []byte("8.4.2")}, want: time.Minute},
		{row: []driver.Value{int64(60), "5.7.25-TiDB-v8.5.1"}, want: time.Minute},
		{row: []driver.Value{int64(60), []byte("10.11.6-MariaDB-0+deb12u1")}, want: time.Minute, system: "mariadb"},
		{row: []driver.Value{int64(60), "5.5.5-10.6.4-mariadb-log"}, want: time.Minute, system: "mariadb"},
		{row: []driver.Value{int64(60), nil}, want: time.Minute},
		{row: []driver.Value{[]byte(strings.Repeat("9", 22<<20))}, err: `9"…, expected`},
	} {
		got, err := parseMySQL(c.row)
		of := fmt.Sprintf("row %d", i) // one of them takes half a minute to print
		wantError(t, c.err, err, of)
		assert.Equal(t, Answer{Limits{Idle: c.want}, c.system}, got, of)
	}
}

func wantError(t *testing.T, want string, err error, of string) {
	t.Helper()
	if want == "" {
		assert.NoError(t, err, of)
		return
	}
	assert.ErrorContains(t, err, want, of)
}

func TestParseTimeouts(t *testing.T) {
	for _, c := range []struct {
		row    []driver.Value
		want   Limits
		err    string
		system string
	}{
		{row: []driver.Value{"5min", "10s"}, want: Limits{Idle: 5 * time.Minute, IdleTx: 10 * time.Second}},
		{row: []driver.Value{[]byte("0"), []byte("0")}},
		{row: []driver.Value{nil, "1h"}, want: Limits{IdleTx: time.Hour}}, // before PostgreSQL 14
		{row: []driver.Value{"1h", nil}, want: Limits{Idle: time.Hour}},
		{row: []driver.Value{nil, nil}},
		{row: []driver.Value{int64(90000), int64(500)}, want: Limits{Idle: 90 * time.Second, IdleTx: 500 * time.Millisecond}},
		{row: []driver.Value{"soon", "0"}, err: `"soon"`},
		{row: []driver.Value{"5min", "soon"}, err: `"soon"`},
		{row: []driver.Value{"5min"}, err: "got 1 column, expected 2 or 3"},
		{row: []driver.Value{"1", "2", "3", "4"}, err: "4 columns"},
		{row: []driver.Value{"5min", "0", nil}, want: Limits{Idle: 5 * time.Minute}},
		{row: []driver.Value{"5min", "0", "23.2.0"}, want: Limits{Idle: 5 * time.Minute}, system: "cockroachdb"},
	} {
		got, err := parsePostgreSQL(c.row)
		wantError(t, c.err, err, fmt.Sprint(c.row))
		assert.Equal(t, Answer{c.want, c.system}, got, fmt.Sprint(c.row))
	}
}

// spellings are timeouts as servers print them.
var spellings = map[string]time.Duration{
	// PostgreSQL
	"0": 0, "": 0, "500ms": 500 * time.Millisecond, "1s": time.Second, "90s": 90 * time.Second,
	"5min": 5 * time.Minute, "2h": 2 * time.Hour, "1d": 24 * time.Hour, "5 min": 5 * time.Minute, " 1d ": 24 * time.Hour,
	"250us": 250 * time.Microsecond, "2147483647ms": 2147483647 * time.Millisecond,
	// CockroachDB
	"300000": 5 * time.Minute, "0s": 0, "1h30m0s": 90 * time.Minute, "5m0s": 5 * time.Minute, "1m30.5s": 90500 * time.Millisecond,
	"250µs": 250 * time.Microsecond,
	// More than a time.Duration holds: no limit
	"106752d": 0, "9223372036854775807d": 0, "9223372036854776": 0,
}

var garbage = []string{
	"soon", "min", "-1", "-5min", "5 fortnights", "1h-30m", "5MIN", "1.2.3s", ".", "s5", "5ns", "1h, 30m", "00:05:00", "∞", "\x00", "1e3s", "0x10", "+5s",
	strings.Repeat("9", 400),
}

func TestParseTimeout(t *testing.T) {
	for text, want := range spellings {
		got, err := parseTimeout(text)
		assert.NoError(t, err, "%q", text)
		assert.Equal(t, want, got, "%q", text)
	}
	for _, text := range garbage {
		got, err := parseTimeout(text)
		assert.ErrorContains(t, err, "expected a timeout", "%q", text)
		assert.Zero(t, got, "%q", text)
	}
}

func FuzzParseTimeout(f *testing.F) {
	for text := range spellings {
		f.Add(text)
	}
	for _, text := range garbage {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTimeout(text)
		if got < 0 || (err != nil && got != 0) {
			t.Fatalf("parseTimeout(%q) is %v, %v", text, got, err)
		}
		if err != nil || got%time.Microsecond != 0 || got > 100*24*time.Hour {
			return // no server prints nanoseconds, and beyond that sums of floats are not exact
		}
		again, err := parseTimeout(got.String())
		if d := again - got; err != nil || d.Abs() > time.Microsecond {
			t.Fatalf("parseTimeout(%q) is %v, of which parseTimeout makes %v, %v", text, got, again, err)
		}
	})
}

func TestNumbersWithoutAUnitAreNotAddedUp(t *testing.T) {
	for _, text := range []string{"1 2 3", "5min 3", "2026 11 21"} {
		_, err := parseTimeout(text)
		assert.Error(t, err, text)
	}
}
