package main

import (
	"fmt"
	"math"
	"strconv"
)

// two is a figure of two digits: what is measured in time repeats to within a few percent.
func two(v float64) string {
	if v <= 0 {
		return "0"
	}
	digits := 1 - int(math.Floor(math.Log10(v)))
	rounded := math.Round(v*math.Pow10(digits)) / math.Pow10(digits)
	digits = 1 - int(math.Floor(math.Log10(rounded)+1e-9)) // 9.96 is 10, not 10.0
	return strconv.FormatFloat(rounded, 'f', max(digits, 0), 64)
}

// waited is a wait in milliseconds, with one decimal at most.
func waited(ms float64) string {
	switch {
	case ms < 0.05:
		return "< 0.1"
	case ms < 9.95:
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", ms)
}

// whole is a number of allocations.
func whole(v float64) string { return strconv.FormatFloat(v, 'f', 0, 64) }

// inWords is a time of less than two microseconds as a sentence says it.
func inWords(micros float64) string {
	words := []string{"no time", "a quarter of a microsecond", "half a microsecond", "three quarters of a microsecond", "a microsecond"}
	quarters := int(math.Round(micros * 4))
	if quarters >= len(words) {
		return two(micros) + " microseconds"
	}
	return words[max(quarters, 0)]
}

// allocations are so many, in words.
func allocations(n float64) string {
	switch {
	case n <= 0:
		return "no allocation"
	case n == 1:
		return "one allocation"
	}
	return whole(n) + " allocations"
}
