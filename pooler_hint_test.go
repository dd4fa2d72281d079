package sqllease

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

// A server that does not know a statement which was just prepared, or knows one that was not,
// is most often several behind a pooler: the warning says so.
func TestADiscoveryThatAPoolerMakesFailSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		hint any
	}{
		"exists already": {sqlStateError{code: "42P05"}, "is a pooler in transaction mode between, such as PgBouncer? docs/faq.md says which settings it needs"},
		"does not exist": {sqlStateError{code: "26000"}, "is a pooler in transaction mode between, such as PgBouncer? docs/faq.md says which settings it needs"},
		"refused":        {sqlStateError{code: "42501"}, nil},
		"another":        {errors.New("no"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &lifetimeFake{announced: []any{c.err}}
				db, pool, log := openLimited(t, f, Config{Dialect: DialectPostgreSQL})
				useAndAsk(t, db)
				log.wantOneWarning(t, nil, remedies...)
				assert.Equal(t, c.hint, log.take()[0].attrs["hint"])
				endLimited(t, db, pool, f)
			})
		})
	}
}
