package sqllease

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/statement"
)

// described is a statement's summary and what telemetry makes of it: making that anew at
// each call would cost more than the call.
type described struct {
	*statement.Summary
	name  string          // the summary's text
	text  string          // the statement, as spans show it; empty: they do not
	place statement.Place // for a comment

	options atomic.Pointer[statementOptions]
}

// statementOptions are what a statement's calls say besides, of a pool of that identity.
type statementOptions struct {
	of     *identity
	start  []trace.SpanStartOption // of their spans
	record measured                // of their metrics, where they succeed
}

// descriptions remember that of each statement.
type descriptions = statement.Cache[described]

// in is what its calls say in a pool of that identity. That changes once at most.
func (d *described) in(id *identity) *statementOptions {
	if known := d.options.Load(); known != nil && known.of == id {
		return known
	}
	made := &statementOptions{of: id, start: id.startOf(d), record: id.of(d.Operation)}
	d.options.Store(made)
	return made
}

// startOf makes the options of the spans of a statement's calls.
func (id *identity) startOf(d *described) []trace.SpanStartOption {
	attrs := append(id.attrs, keyOperation.String(d.Operation), keySummary.String(d.name))
	if d.text != "" {
		attrs = append(attrs, keyText.String(d.text))
	}
	if d.Target != "" {
		attrs = append(attrs, keyCollection.String(d.Target))
	}
	if d.Procedure != "" {
		attrs = append(attrs, keyProcedure.String(d.Procedure))
	}
	return optionsOf(attrs, trace.SpanKindClient)
}
