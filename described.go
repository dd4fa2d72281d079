package sqllease

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/sqllease/sqllease/internal/statement"
)

// described is a statement's summary and what telemetry makes of it: making that anew at
// each call would cost more than the call.
type described struct {
	*statement.Summary
	name   string                  // the summary's text
	start  []trace.SpanStartOption // of the spans of its calls
	record measured                // of the metrics of its calls that succeed
	place  statement.Place         // for a comment
}

// descriptions remember that of each statement.
type descriptions = statement.Cache[described]
