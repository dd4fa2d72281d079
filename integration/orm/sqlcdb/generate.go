// Package sqlcdb holds what sqlc generates its code from: the schema, and the
// queries in the two dialects.
package sqlcdb

import _ "embed" // of the schema

//go:generate go run github.com/sqlc-dev/sqlc/cmd/sqlc@v1.30.0 generate

// The schemas, which the tests create as they stand.
var (
	//go:embed mysql.sql
	MySQL string
	//go:embed postgresql.sql
	PostgreSQL string
)
