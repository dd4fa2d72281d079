package statement

import (
	"strings"
	"unicode/utf8"
)

// showAtMost is how many bytes of a statement are shown, the mark of what was left out
// included. Most statements are shorter; what is kept of the longest ones that are remembered
// takes ten megabytes.
const showAtMost = 4096

// more stands where a text was cut.
const more = "…"

// Cut is what is shown of a statement as it is. It shares no memory with it, and is
// valid UTF-8.
func Cut(query string) string {
	if len(query) <= showAtMost {
		return strings.ToValidUTF8(strings.Clone(query), "\uFFFD")
	}
	return strings.ToValidUTF8(query[:whole(query, showAtMost-len(more))], "\uFFFD") + more
}

// shown is what is shown of the statement that was read.
func (z *sanitiser) shown() string {
	text := z.out.Bytes()
	if !z.long && len(text) <= showAtMost {
		return string(text)
	}
	if most := showAtMost - len(more); len(text) > most {
		text = text[:whole(text, most)]
	}
	return string(text) + more
}

// whole is where a text can be cut so that no character is: at most at n.
func whole[T string | []byte](s T, n int) int {
	for i := n; i > n-utf8.UTFMax; i-- {
		if utf8.RuneStart(s[i]) {
			return i
		}
	}
	return n
}

// validUntil is how much of s is valid UTF-8.
func validUntil(s string) int {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size <= 1 {
			return i
		}
		i += size
	}
	return len(s)
}
