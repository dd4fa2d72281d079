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

func TestParseMySQL(t *testing.T) {
	of := func(v driver.Value) [][]driver.Value { return [][]driver.Value{{[]byte("wait_timeout"), v}} }
	idle := func(d time.Duration) Answer { return Answer{Limits: Limits{Idle: d}} }
	for i, c := range []struct {
		rows [][]driver.Value
		want Answer
		err  string // part of it; "": none
	}{
		{rows: of(uint64(28800)), want: idle(8 * time.Hour)},
		{rows: of(int64(1)), want: idle(time.Second)},
		{rows: of([]byte("60")), want: idle(time.Minute)},
		{rows: of("60"), want: idle(time.Minute)},
		{rows: of(int64(0))},
		{rows: of(int64(9223372036)), want: idle(9223372036 * time.Second)},
		{rows: of(int64(9223372037))}, // more than a time.Duration holds: no limit
		{rows: of(int64(math.MaxInt64))},
		{rows: of(int64(-1)), err: `"-1"`},
		{rows: of("a while"), err: `"a while"`},
		{rows: of("28800.5"), err: `"28800.5"`},
		{rows: of(""), err: `""`},
		{rows: of(nil), err: `""`},
		{rows: of(true), err: `"true"`},
		{rows: [][]driver.Value{nil}, err: "0 column(s)"},
		{rows: [][]driver.Value{{int64(1)}}, err: "got 1 column(s), expected names and values"},
		{rows: [][]driver.Value{{"version", "8.4.2"}}, err: `""`},
		{rows: of([]byte(strings.Repeat("9", 22<<20))), err: `9"…, expected`},
		{rows: append(of("60"), []driver.Value{"version", []byte("8.4.2")}), want: Answer{Limits: Limits{Idle: time.Minute}, System: "mysql"}},
		{rows: append(of("60"), []driver.Value{"VERSION", "8.0.11-TiDB-v8.5.1"}, []driver.Value{"tidb_idle_transaction_timeout", "9"}),
			want: Answer{Limits: Limits{time.Minute, 9 * time.Second}, System: "mysql"}},
		{rows: append(of("60"), []driver.Value{"version", nil}), want: idle(time.Minute)},
		{rows: append(of("60"), []driver.Value{"idle_transaction_timeout", "30"}, []driver.Value{"idle_write_transaction_timeout", "20"},
			[]driver.Value{"idle_readonly_transaction_timeout", "0"}, []driver.Value{"read_only", "OFF"},
			[]driver.Value{"max_connections", "151"}, []driver.Value{"version", "5.5.5-10.6.4-mariadb-log"}),
			want: Answer{Limits: Limits{time.Minute, 20 * time.Second}, System: "mariadb", MaxConnections: 151}},
		{rows: append(of("60"), []driver.Value{"idle_transaction_timeout", "soon"}), err: `"soon"`},
		{rows: append(of("0"), []driver.Value{"read_only", "ON"}), want: Answer{ReadOnly: true}},
		{rows: append(of("0"), []driver.Value{"read_only", "NO_LOCK_NO_ADMIN"}), want: Answer{ReadOnly: true}},
		{rows: append(of("0"), []driver.Value{"innodb_read_only", "1"}, []driver.Value{"read_only", "0"}), want: Answer{ReadOnly: true}},
		{rows: append(of("0"), []driver.Value{"max_connections", "many"}), want: Answer{}},
	} {
		got, err := parseMySQL(c.rows)
		of := fmt.Sprintf("row %d", i) // one of them takes half a minute to print
		wantError(t, c.err, err, of)
		assert.Equal(t, c.want, got, of)
	}
}

// What is asked behind ProxySQL must not switch its multiplexing off.
func TestNoQuestionHasAnAt(t *testing.T) {
	for _, d := range dialects {
		assert.NotContains(t, d.Discovery.Query, "@", d.Name)
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

func TestParsePostgreSQL(t *testing.T) {
	five := Limits{Idle: 5 * time.Minute}
	for _, c := range []struct {
		row  []driver.Value
		want Answer
		err  string
	}{
		{row: []driver.Value{"5min", "10s"}, want: Answer{Limits: Limits{Idle: 5 * time.Minute, IdleTx: 10 * time.Second}}},
		{row: []driver.Value{[]byte("0"), []byte("0")}},
		{row: []driver.Value{nil, "1h"}, want: Answer{Limits: Limits{IdleTx: time.Hour}}}, // before PostgreSQL 14
		{row: []driver.Value{"1h", nil}, want: Answer{Limits: Limits{Idle: time.Hour}}},
		{row: []driver.Value{nil, nil}},
		{row: []driver.Value{int64(90000), int64(500)}, want: Answer{Limits: Limits{Idle: 90 * time.Second, IdleTx: 500 * time.Millisecond}}},
		{row: []driver.Value{"soon", "0"}, err: `"soon"`},
		{row: []driver.Value{"5min", "soon"}, err: `"soon"`},
		{row: []driver.Value{"5min"}, err: "got 1 column(s), expected the values"},
		{row: []driver.Value{"5min", "0", nil}, want: Answer{Limits: five, System: "postgresql"}},
		{row: []driver.Value{"5min", "0", "23.2.0"}, want: Answer{Limits: five, System: "cockroachdb"}},
		{row: []driver.Value{"5min", "0", nil, "on", "100", "3", nil}, want: Answer{Limits: five, System: "postgresql", ReadOnly: true, MaxConnections: 100, Reserved: 3}},
		{row: []driver.Value{"5min", "0", nil, "off", "100", "3", "5"}, want: Answer{Limits: five, System: "postgresql", MaxConnections: 100, Reserved: 8}},
	} {
		got, err := parsePostgreSQL([][]driver.Value{c.row})
		wantError(t, c.err, err, fmt.Sprint(c.row))
		assert.Equal(t, c.want, got, fmt.Sprint(c.row))
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
