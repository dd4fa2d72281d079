package behaviour

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/stretchr/testify/assert"
)

// bulks are about much at once.
var bulks = []Behaviour{
	{"a result of 100 000 rows", manyRows},
	{"a value of 4 MB", bigValue},
	{"1000 rows by one prepared statement", manyInserts},
	{"40 callers", manyCallers},
}

func manyRows(r *Run) {
	rows := r.Query(r.DB, fmt.Sprintf(r.SQL.Series, 100_000))
	var n, sum int
	for rows.Next() {
		var v int
		r.OK(rows.Scan(&v))
		n++
		sum += v
	}
	r.OK(rows.Err())
	r.Is("rows", 100_000, n)
	r.Is("their sum", 5_000_050_000, sum)
}

func bigValue(r *Run) {
	r.Table("big", "id INT, b "+r.SQL.Blob)
	big := bytes.Repeat([]byte("0123456789abcde\x00"), 4<<20/16)
	r.Exec(r.DB, "INSERT INTO big VALUES (?, ?)", 1, big)
	got := One[[]byte](r, r.DB, "SELECT b FROM big WHERE id = ?", 1)
	r.Is("it comes back", true, bytes.Equal(big, got))
	r.Is("its length", len(big), len(One[[]byte](r, r.DB, "SELECT b FROM big")))
}

func manyInserts(r *Run) {
	r.Table("many", "id INT PRIMARY KEY, s VARCHAR(20)")
	tx := r.Begin(nil)
	stmt, err := tx.PrepareContext(r.Context(), r.Text("INSERT INTO many VALUES (?, ?)"))
	r.OK(err)
	for i := range 1000 {
		_, err := stmt.ExecContext(r.Context(), i, fmt.Sprint("row ", i))
		r.OK(err)
	}
	r.OK(stmt.Close())
	r.OK(tx.Commit())
	r.Is("rows", 1000, r.Count(r.DB, "many"))
	r.Is("one of them", "row 777", One[string](r, r.DB, "SELECT s FROM many WHERE id = ?", 777))
}

// manyCallers has 40 goroutines wait for Limit connections, each doing a bit
// of everything.
func manyCallers(r *Run) {
	r.Table("callers", "id INT PRIMARY KEY, n INT")
	stmt, err := r.DB.PrepareContext(r.Context(), r.Text("SELECT n FROM callers WHERE id = ?"))
	r.OK(err)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			tx, err := r.DB.BeginTx(r.Context(), nil)
			if !assert.NoError(r, err) {
				return
			}
			defer func() { _ = tx.Rollback() }()
			if _, err = tx.ExecContext(r.Context(), r.Text("INSERT INTO callers VALUES (?, ?)"), i, i*i); !assert.NoError(r, err) {
				return
			}
			if i%4 == 3 {
				assert.NoError(r, tx.Rollback())
				return
			}
			assert.NoError(r, tx.Commit())
			var n int
			assert.NoError(r, stmt.QueryRowContext(r.Context(), i).Scan(&n))
			assert.Equal(r, i*i, n)
		})
	}
	all.Wait()
	r.OK(stmt.Close())
	r.Is("rows", 30, r.Count(r.DB, "callers"))
	r.Is("connections in use", 0, r.DB.Stats().InUse)
	r.Is("no more than the limit", true, r.DB.Stats().OpenConnections <= Limit)
}
