package livepage

import (
	"fmt"
	"net/url"
	"strings"
)

// traceLink makes the address of a trace from its number; empty: there is none.
type traceLink string

// tracePlaceholder stands for the number of the trace.
const tracePlaceholder = "{trace_id}"

// newTraceLink checks a template.
func newTraceLink(template string) (traceLink, error) {
	if !strings.Contains(template, tracePlaceholder) {
		return "", fmt.Errorf("%q has no %s", template, tracePlaceholder)
	}
	u, err := url.Parse(strings.ReplaceAll(template, tracePlaceholder, "0"))
	if err != nil {
		return "", err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("%q is no address that begins with http:// or https://", template)
	}
	return traceLink(template), nil
}

// of is the trace of that number.
func (t traceLink) of(id string, valid bool) span {
	if !valid {
		return span{}
	}
	s := span{TraceID: id}
	if t != "" {
		s.TraceURL = strings.ReplaceAll(string(t), tracePlaceholder, id)
	}
	return s
}
