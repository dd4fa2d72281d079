//go:build !go1.27

package sqllease

import "database/sql/driver"

// newRows is where rows of drivers that scan by themselves differ, from Go
// 1.27 on.
func newRows(r *rows) driver.Rows { return r }
