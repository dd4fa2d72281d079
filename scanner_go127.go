//go:build go1.27

package sqllease

import "database/sql/driver"

// scanningRows are rows of a driver that scans into the application's
// variables itself, which Go 1.27 made possible: to have a RowsColumnScanner
// has no neutral answer.
type scanningRows struct {
	*rows
	scanner driver.RowsColumnScanner
}

var _ driver.RowsColumnScanner = scanningRows{}

func newRows(r *rows) driver.Rows {
	if s, ok := r.inner.(driver.RowsColumnScanner); ok {
		return scanningRows{r, s}
	}
	return r
}

// NextRow goes to the next row, as Next does for other drivers.
func (r scanningRows) NextRow() error {
	if !r.beginEarly() {
		if err := r.begin(); err != nil {
			return err
		}
	}
	defer r.endRow()
	return r.advanced(r.scanner.NextRow())
}

// ScanColumn asks the driver, which may read a large column from the wire.
func (r scanningRows) ScanColumn(ctx driver.ScanContext, i int, dest any) error {
	if !r.beginEarly() {
		if err := r.begin(); err != nil {
			return err
		}
	}
	defer r.endRow()
	return r.scanner.ScanColumn(ctx, i, dest)
}
