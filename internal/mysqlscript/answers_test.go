package mysqlscript_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sqllease/sqllease/internal/mysqlscript"
)

// What statements are answered.

func TestStatementsAnswerByTheScript(t *testing.T) {
	long := strings.Repeat("x", 70_000)
	middle := strings.Repeat("y", 300)
	s := mysqlscript.Start(t, mysqlscript.Script{
		Statements: map[string]mysqlscript.Answer{
			"SELECT name": mysqlscript.Rows("name", "short", nil, "", middle, long),
			"SELECT n":    mysqlscript.Rows("n", uint64(1), nil, uint64(1<<40)),
			"SELECT none": mysqlscript.NoRows(),
			"SELECT bad":  mysqlscript.Fail(1064, "You have an error in your SQL syntax"),
		},
	})
	db := open(t, s)

	queries := map[string]func(string) (*sql.Rows, error){
		"text": func(statement string) (*sql.Rows, error) {
			return db.QueryContext(t.Context(), statement)
		},
		"prepared": func(statement string) (*sql.Rows, error) {
			prepared, err := db.PrepareContext(t.Context(), statement)
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { _ = prepared.Close() })
			return prepared.QueryContext(t.Context())
		},
	}
	for name, query := range queries {
		t.Run(name, func(t *testing.T) {
			rows, err := query("SELECT name")
			names := scan[string](t, rows, err)
			wantValues(t, names, value("short"), null[string](), value(""), value(middle), value(long))

			rows, err = query("SELECT n")
			numbers := scan[uint64](t, rows, err)
			wantValues(t, numbers, value(uint64(1)), null[uint64](), value(uint64(1<<40)))

			rows, err = query("SELECT none")
			wantValues(t, scan[string](t, rows, err))

			_, err = query("SELECT bad")
			wantMySQLError(t, err, 1064)
		})
	}
	if got := s.Counts(); got.Open != 1 {
		t.Fatalf("an error packet must not cost the session; the counts are %+v", got)
	}
}

func value[T any](v T) sql.Null[T] { return sql.Null[T]{V: v, Valid: true} }
func null[T any]() sql.Null[T]     { return sql.Null[T]{} }

func scan[T any](t *testing.T, rows *sql.Rows, err error) []sql.Null[T] {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var values []sql.Null[T]
	for rows.Next() {
		var v sql.Null[T]
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return values
}

func wantValues[T comparable](t *testing.T, got []sql.Null[T], want ...sql.Null[T]) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("row %d is %v, want %v", i, got[i], want[i])
		}
	}
}

// A server's variables are unsigned, and the driver shows it: code that reads a
// driver.Value must be ready for a uint64.
func TestWaitTimeoutReachesTheDriverAsAnUnsignedNumber(t *testing.T) {
	s := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: mysqlscript.Number(90)})
	var got any
	if err := open(t, s).QueryRowContext(t.Context(), askWaitTimeout).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if got != uint64(90) {
		t.Fatalf("wait_timeout is %T %v, want uint64 90", got, got)
	}
}

func TestWaitTimeoutAnswersAnything(t *testing.T) {
	t.Run("error", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.Fail(1193, "Unknown system variable 'wait_timeout'"))
		wantMySQLError(t, err, 1193)
	})
	t.Run("nonsense", func(t *testing.T) {
		got, err := discover(t, t.Context(), mysqlscript.Text("a while"))
		if err != nil || got != "a while" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("no rows", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.NoRows())
		if !errors.Is(err, sql.ErrNoRows) {
			t.Fatalf("got %v, want sql.ErrNoRows", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		_, err := discover(t, t.Context(), mysqlscript.Disconnect(mysqlscript.FIN))
		if !errors.Is(err, mysql.ErrInvalidConn) {
			t.Fatalf("got %v, want mysql.ErrInvalidConn", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := discover(t, ctx, mysqlscript.Hang())
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v, want the context's error", err)
		}
	})
	t.Run("late", func(t *testing.T) {
		got, err := discover(t, t.Context(), mysqlscript.After(10*time.Millisecond, mysqlscript.Number(7)))
		if err != nil || got != "7" {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}

func discover(t *testing.T, ctx context.Context, answer mysqlscript.Answer) (string, error) {
	t.Helper()
	s := mysqlscript.Start(t, mysqlscript.Script{WaitTimeout: answer})
	var got string
	err := open(t, s).QueryRowContext(ctx, askWaitTimeout).Scan(&got)
	if n := s.Counts(); n.Discoveries != 1 || n.Uses != 0 {
		t.Fatalf("the counts are %+v, want one discovery and no use", n)
	}
	return got, err
}

func TestARowsValueOfAnotherTypeIsAMistakeInTheScript(t *testing.T) {
	for name, values := range map[string][]any{
		"a type that is not spoken": {1.5},
		"two types":                 {"one", uint64(2)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("the script was taken")
				}
			}()
			mysqlscript.Rows("c", values...)
		})
	}
}
