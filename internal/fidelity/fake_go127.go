//go:build go1.27

package fidelity

import (
	"database/sql"
	"database/sql/driver"
	"io"
)

// fakeScanningRows scan into the application's variables themselves.
type fakeScanningRows struct {
	*fakeRows
	row []driver.Value
}

func (r *fakeScanningRows) NextRow() error {
	defer r.enter("NextRow")()
	if err := r.c.f.next("next"); err != nil {
		return err
	}
	if len(r.sets) == 0 || len(r.sets[0]) == 0 {
		return io.EOF
	}
	r.row, r.sets[0] = r.sets[0][0], r.sets[0][1:]
	return nil
}

func (r *fakeScanningRows) ScanColumn(ctx driver.ScanContext, i int, dest any) error {
	defer r.enter("ScanColumn %d %T", i, dest)()
	if err := r.c.f.next("scan"); err != nil {
		return err
	}
	return sql.ConvertAssign(ctx, dest, r.row[i])
}

func init() {
	kinds = append(kinds, "scan")
	Profiles = append(Profiles,
		Profile{Name: "scans by itself", conn: modernConn, stmt: modernStmt, driverContext: true,
			rows: func(r *fakeRows) driver.Rows { return &fakeScanningRows{fakeRows: r} }},
		Profile{Name: "scans by itself, nothing else", conn: plainConn, stmt: plainStmt,
			rows: func(r *fakeRows) driver.Rows {
				return struct{ driver.RowsColumnScanner }{&fakeScanningRows{fakeRows: r}}
			}})
}
