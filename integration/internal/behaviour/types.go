package behaviour

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"
)

// types are about values: what goes in and what comes out.
var types = []Behaviour{
	{"values of every type, from a query", func(r *Run) { values(r, "") }},
	{"values of every type, from a prepared statement", func(r *Run) { values(r, " WHERE id = ?", 1) }},
	{"NULL in every type", nulls},
	{"column types", columnTypes},
	{"arguments of every Go type", arguments},
	{"arguments that are refused", refusedArguments},
	{"named arguments", namedArguments},
	{"raw bytes", rawBytes},
}

// columns makes a table of the driver's columns, with a row of values and one
// of NULLs.
func columns(r *Run) {
	r.Helper()
	declared, literals := []string{"id INT"}, []string{"1"}
	for _, c := range r.Driver.Columns {
		declared = append(declared, c.Name+" "+c.Type+" NULL")
		literals = append(literals, c.Literal)
	}
	r.Table("columns_of_all", strings.Join(declared, ", "))
	r.Exec(r.DB, "INSERT INTO columns_of_all VALUES ("+strings.Join(literals, ", ")+")")
	r.Exec(r.DB, "INSERT INTO columns_of_all (id) VALUES (2)")
}

func values(r *Run, where string, args ...any) {
	columns(r)
	for _, c := range r.Driver.Columns {
		query := r.Text("SELECT " + c.Name + " FROM columns_of_all" + where)
		if where == "" {
			query += " ORDER BY id LIMIT 1"
		}
		into := reflect.New(reflect.TypeOf(c.Want))
		r.OK(r.DB.QueryRowContext(r.Context(), query, args...).Scan(into.Interface()))
		r.Is(c.Name, c.Want, inUTC(into.Elem().Interface()))
		var plain any
		r.OK(r.DB.QueryRowContext(r.Context(), query, args...).Scan(&plain))
		r.Saw(c.Name+", as the driver gives it", plain)
	}
}

// inUTC makes times comparable: drivers name the zone of zero differently.
func inUTC(v any) any {
	if at, ok := v.(time.Time); ok {
		return at.UTC()
	}
	return v
}

func nulls(r *Run) {
	columns(r)
	for _, c := range r.Driver.Columns {
		query := r.Text("SELECT " + c.Name + " FROM columns_of_all WHERE id = ?")
		of := reflect.TypeOf(c.Want)
		pointer := reflect.New(reflect.PointerTo(of))
		r.OK(r.DB.QueryRowContext(r.Context(), query, 2).Scan(pointer.Interface()))
		r.Is(c.Name+", pointer", true, pointer.Elem().IsNil())
		plain := any("not NULL")
		r.OK(r.DB.QueryRowContext(r.Context(), query, 2).Scan(&plain))
		r.Is(c.Name+", any", nil, plain)
		if of.Kind() != reflect.Slice { // in a slice NULL is nil
			r.Fails(c.Name+", no room for NULL", r.DB.QueryRowContext(r.Context(), query, 2).Scan(reflect.New(of).Interface()))
		}
	}
	r.Is("sql.NullString", sql.NullString{}, One[sql.NullString](r, r.DB, "SELECT NULL"))
	r.Is("sql.Null", sql.Null[int64]{}, One[sql.Null[int64]](r, r.DB, "SELECT NULL"))
}

func columnTypes(r *Run) {
	columns(r)
	for _, query := range []string{"SELECT * FROM columns_of_all", "SELECT * FROM columns_of_all WHERE id = ?", "SELECT 1 + 1, 'a' AS b, NULL"} {
		args := make([]any, strings.Count(query, "?"))
		for i := range args {
			args[i] = 3 // no row has it
		}
		rows := r.Query(r.DB, query, args...)
		names, err := rows.Columns()
		r.OK(err)
		r.Saw("columns", names)
		if strings.Contains(query, "*") {
			r.Is("number of columns", 1+len(r.Driver.Columns), len(names))
		}
		columnTypesOf(r, rows)
		r.OK(rows.Close())
	}
}

func columnTypesOf(r *Run, rows *sql.Rows) {
	all, err := rows.ColumnTypes()
	r.OK(err)
	for _, c := range all {
		length, hasLength := c.Length()
		precision, scale, hasSize := c.DecimalSize()
		nullable, known := c.Nullable()
		r.Saw("type of "+c.Name(), []any{c.DatabaseTypeName(), length, hasLength, precision, scale, hasSize, nullable, known})
		r.Saw("scan type of "+c.Name(), c.ScanType())
	}
}

// celsius is a type that is its own driver.Valuer.
type celsius float64

// Value is the number of degrees.
func (c celsius) Value() (driver.Value, error) { return float64(c), nil }

// word and number are types of an application.
type (
	word   string
	number int32
)

// At has the microseconds that every server keeps.
var At = time.Date(2026, 2, 28, 23, 59, 59, 123456000, time.UTC)

func arguments(r *Run) {
	r.Table("arguments", "id INT, i BIGINT, f DOUBLE PRECISION, s VARCHAR(100), b "+r.SQL.Blob+", t "+r.SQL.Time)
	seven, none := 7, (*int)(nil)
	for i, a := range []struct {
		column    string
		arg, want any
	}{
		{"i", 7, int64(7)},
		{"i", int64(math.MaxInt64), int64(math.MaxInt64)},
		{"i", int64(math.MinInt64), int64(math.MinInt64)},
		{"i", int8(-8), int64(-8)},
		{"i", uint32(math.MaxUint32), int64(math.MaxUint32)},
		{"i", uint64(64), int64(64)},
		{"i", number(9), int64(9)},
		{"i", &seven, int64(7)},
		{"i", sql.NullInt64{Int64: 5, Valid: true}, int64(5)},
		{"i", sql.Null[int64]{V: 6, Valid: true}, int64(6)},
		{"i", none, nil},
		{"i", nil, nil},
		{"i", sql.NullInt64{}, nil},
		{"f", 0.1, 0.1},
		{"f", float32(0.5), 0.5},
		{"f", celsius(36.6), 36.6},
		{"f", math.SmallestNonzeroFloat64, nil},
		{"f", math.MaxFloat64, math.MaxFloat64},
		{"s", "", ""},
		{"s", `quotes ' " and \ and ? and $1 and :a and %`, `quotes ' " and \ and ? and $1 and :a and %`},
		{"s", "žluťoučký kůň 🐎", "žluťoučký kůň 🐎"},
		{"s", word("a word"), "a word"},
		{"s", sql.NullString{String: "s", Valid: true}, "s"},
		{"s", nil, nil},
		{"b", []byte{}, ""}, // not NULL, though some give it as nil
		{"b", []byte{0, 1, '\'', '\\', 127, 128, 255}, []byte{0, 1, '\'', '\\', 127, 128, 255}},
		{"b", []byte(nil), nil},
		{"t", At, r.Driver.Moment},
		{"t", At.In(time.FixedZone("far", 14*60*60)), r.Driver.Moment},
		{"t", sql.NullTime{Time: At, Valid: true}, r.Driver.Moment},
		{"t", sql.NullTime{}, nil},
	} {
		what := fmt.Sprintf("%d: %T in column %s", i, a.arg, a.column)
		_, err := r.DB.ExecContext(r.Context(), r.Text("INSERT INTO arguments (id, "+a.column+") VALUES (?, ?)"), i, a.arg)
		r.Ended(what, err)
		if a.arg == math.SmallestNonzeroFloat64 {
			continue // a denormal: servers differ in taking it
		}
		r.OK(err)
		query := r.Text("SELECT " + a.column + " FROM arguments WHERE id = ?")
		if a.want == nil {
			got := any("not NULL")
			r.OK(r.DB.QueryRowContext(r.Context(), query, i).Scan(&got))
			r.Is(what, nil, got)
			continue
		}
		into := reflect.New(reflect.TypeOf(a.want))
		r.OK(r.DB.QueryRowContext(r.Context(), query, i).Scan(into.Interface()))
		r.Is(what, a.want, inUTC(into.Elem().Interface()))
	}
}

// unwilling is a driver.Valuer that has no value.
type unwilling struct{}

// Value fails.
func (unwilling) Value() (driver.Value, error) { return nil, fmt.Errorf("no value today") }

func refusedArguments(r *Run) {
	var out int
	for _, arg := range []any{make(chan int), func() {}, struct{ X chan int }{}, complex(1, 2), unwilling{}, sql.Out{Dest: &out}} {
		what := fmt.Sprintf("%T", arg)
		_, err := r.DB.ExecContext(r.Context(), r.Text("SELECT ?"), arg)
		r.Fails("exec of "+what, err)
		rows, err := r.DB.QueryContext(r.Context(), r.Text("SELECT ?"), arg)
		if err == nil {
			defer func() { _ = rows.Close() }()
			r.Is("rows of "+what, false, rows.Next())
			err = rows.Err()
		}
		r.Fails("query of "+what, err)
	}
	r.Table("pairs", "a INT, b INT")
	for _, args := range [][]any{{}, {1}, {1, 2, 3}} {
		_, err := r.DB.ExecContext(r.Context(), r.Text("INSERT INTO pairs (a, b) VALUES (?, ?)"), args...)
		r.Ended(fmt.Sprintf("2 placeholders and %d arguments", len(args)), err)
		stmt, err := r.DB.PrepareContext(r.Context(), r.Text("INSERT INTO pairs (a, b) VALUES (?, ?)"))
		r.OK(err)
		_, err = stmt.ExecContext(r.Context(), args...)
		r.Ended(fmt.Sprintf("2 placeholders and %d arguments, prepared", len(args)), err)
		r.OK(stmt.Close())
	}
	r.Saw("pairs", r.Count(r.DB, "pairs"))
}

func namedArguments(r *Run) {
	r.Table("named", "a INT, b INT")
	if r.Driver.Named == "" {
		_, err := r.DB.ExecContext(r.Context(), r.Text("INSERT INTO named (a, b) VALUES (?, ?)"), sql.Named("b", 2), sql.Named("a", 1))
		r.Fails("named arguments", err)
		return
	}
	r.Exec(r.DB, "INSERT INTO named (a, b) VALUES "+r.Driver.Named, sql.Named("b", 2), sql.Named("a", 1))
	r.Is("a", 1, One[int](r, r.DB, "SELECT a FROM named"))
	r.Is("b", 2, One[int](r, r.DB, "SELECT b FROM named"))
}

func rawBytes(r *Run) {
	rows := r.Query(r.DB, "SELECT 'one' UNION ALL SELECT 'two' UNION ALL SELECT NULL")
	var got []string
	for rows.Next() {
		var raw sql.RawBytes
		r.OK(rows.Scan(&raw))
		got = append(got, fmt.Sprintf("%q %t", raw, raw == nil))
	}
	r.OK(rows.Err())
	r.Is("raw bytes", []string{`"one" false`, `"two" false`, `"" true`}, got)
}
