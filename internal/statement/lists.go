package statement

import (
	"bytes"
	"strings"
)

// lists keep lists of values short, so that statements of one shape have one text: IN (?, ?)
// becomes IN (?), and of the rows behind VALUES that are alike in a row of them, one is
// shown. The numbers of placeholders behind a list depend on its length; they are not shown.
type lists struct {
	state  listState
	first  string // the first value of a list
	from   int    // where in the text the values of the list begin
	to     int    // where in the text the last row ends
	row    []byte // the row, as rows are compared
	last   []byte // the row before
	depth  int    // of the brackets in the row
	behind bool   // a list
}

type listState uint8

const (
	outside     listState = iota
	behindIn              // the word IN
	inList                // of values
	behindValue           // the word VALUES
	inRow
	behindRow
)

// write appends a token to the text, behind a blank or not.
func (l *lists) write(out *bytes.Buffer, token string, blank bool) {
	if blank {
		out.WriteByte(' ')
	}
	if l.behind && numbered(token) {
		token = "?"
	}
	out.WriteString(token)
	l.pass(out, token)
}

// pass takes notice of a token that was written.
func (l *lists) pass(out *bytes.Buffer, token string) {
	switch l.state {
	case behindIn:
		l.open(out, token)
	case inList:
		l.value(out, token)
	case behindValue, behindRow:
		l.between(token)
	case inRow:
		l.inRow(out, token)
	default:
		l.outside(token)
	}
}

func (l *lists) outside(token string) {
	l.state = outside
	switch {
	case strings.EqualFold(token, "IN"):
		l.state = behindIn
	case strings.EqualFold(token, "VALUES"):
		l.state, l.last = behindValue, nil
	}
}

// open takes notice of what is behind IN.
func (l *lists) open(out *bytes.Buffer, token string) {
	if token != "(" {
		l.outside(token)
		return
	}
	l.state, l.first, l.from = inList, "", out.Len()
}

// value takes notice of a token of a list, which may prove to be something else.
func (l *lists) value(out *bytes.Buffer, token string) {
	switch {
	case placeholder(token):
		if l.first == "" {
			l.first = token
		}
	case token == "," || token == "+" || token == "-":
	case token == ")" && l.first != "":
		out.Truncate(l.from)
		out.WriteString(l.first + ")")
		l.state, l.behind = outside, true
	case token == "(" && l.first == "":
		l.last = nil
		l.between(token)
	default:
		l.outside(token)
	}
}

// between takes notice of what is between rows.
func (l *lists) between(token string) {
	switch {
	case token == "(":
		l.state, l.row, l.depth = inRow, append(l.row[:0], '('), 1
	case strings.EqualFold(token, "ROW"), token == "," && l.state == behindRow:
	default:
		l.outside(token)
	}
}

// inRow takes notice of a token of a row.
func (l *lists) inRow(out *bytes.Buffer, token string) {
	if placeholder(token) {
		token = "?"
		if n := len(l.row) - len(" -"); n > 0 && signed(l.row) {
			l.row = l.row[:n]
		}
	}
	l.row = append(append(l.row, ' '), token...)
	switch token {
	case "(":
		l.depth++
	case ")":
		l.depth--
	}
	if l.depth == 0 {
		l.close(out)
	}
}

// close ends a row, which is taken back if it is like the one before.
func (l *lists) close(out *bytes.Buffer) {
	l.state, l.behind = behindRow, true
	if bytes.Equal(l.row, l.last) {
		out.Truncate(l.to)
		return
	}
	l.to = out.Len()
	l.row, l.last = l.last, l.row
}

// end takes back what was read of a list that goes on in what is not read.
func (l *lists) end(out *bytes.Buffer) {
	switch {
	case l.state == inList && l.first != "":
		out.Truncate(l.from)
		out.WriteString(l.first)
	case l.state == behindRow, l.state == inRow && len(l.last) > 0:
		out.Truncate(l.to)
	}
}

// signed tells whether what comes has a sign, and is not subtracted or added.
func signed(row []byte) bool {
	for _, sign := range []string{"( -", "( +", ", -", ", +"} {
		if bytes.HasSuffix(row, []byte(sign)) {
			return true
		}
	}
	return false
}

func placeholder(token string) bool { return token == "?" || numbered(token) }

// numbered tells placeholders such as $1, :1 and @p1.
func numbered(token string) bool {
	for _, mark := range []string{"$", ":", "@p"} {
		if number, found := strings.CutPrefix(token, mark); found {
			return number != "" && digits(number) == len(number)
		}
	}
	return false
}
