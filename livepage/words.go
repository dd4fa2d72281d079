package livepage

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// duration is a time as a person reads it: "1.2 s", and not "1.234567891s".
func duration(d time.Duration) string {
	switch {
	case d <= 0:
		return "0 s"
	case d < 999500*time.Nanosecond:
		return fmt.Sprintf("%d µs", max(1, d.Round(time.Microsecond)/time.Microsecond))
	case d < 999500*time.Microsecond:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond)/time.Millisecond)
	case d < 9950*time.Millisecond:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return longDuration(d.Round(time.Second))
}

// longDuration is one of ten seconds and more.
func longDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return two(d, time.Minute, "min", time.Second, "s")
	case d < day:
		return two(d, time.Hour, "h", time.Minute, "min")
	}
	return two(d, day, "d", time.Hour, "h")
}

// two is a time in two units, or in one where nothing is left for the other.
func two(d, large time.Duration, largeUnit string, small time.Duration, smallUnit string) string {
	rest := d % large / small
	if rest == 0 {
		return fmt.Sprintf("%d %s", d/large, largeUnit)
	}
	return fmt.Sprintf("%d %s %d %s", d/large, largeUnit, rest, smallUnit)
}

// count is "1 caller" or "2 callers".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// is agrees with a number.
func is(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// have agrees with a number.
func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// percent is a share as a person reads it.
func percent(part, whole time.Duration) string {
	if whole <= 0 || part <= 0 {
		return "0 %"
	}
	share := 100 * part.Seconds() / whole.Seconds()
	if share < 1 {
		return "<1 %"
	}
	return fmt.Sprintf("%.0f %%", share)
}

// shown is text of the application's, or of a server's, made safe to show: it is valid, in one
// line, and nothing in it turns around what stands beside it or steers a terminal.
func shown(text string) string { return strings.Map(visible, strings.ToValidUTF8(text, "\uFFFD")) }

// shownLines is shown, of a text that may have several lines.
func shownLines(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return visible(r)
	}, strings.ToValidUTF8(text, "\uFFFD"))
}

func visible(r rune) rune {
	switch {
	case r == '\n' || r == '\t' || r == '\r' || r == '\u2028' || r == '\u2029':
		return ' '
	case unicode.IsControl(r), unicode.Is(unicode.Cf, r): // Cf has the marks of direction
		return '\uFFFD'
	}
	return r
}

// clip cuts a text to so many characters.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	runes := []rune(text)
	if len(runes) <= most {
		return text
	}
	return string(runes[:most-1]) + "…"
}
