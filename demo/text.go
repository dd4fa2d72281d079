package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// This file is how things are put into words and lines.

// lineWidth is the longest line of what is wrapped.
const lineWidth = 80

// wrap breaks a text into lines, each behind indent. A text that fits, and one
// with line breaks of its own, keeps its spaces.
func wrap(text, indent string) string {
	if utf8.RuneCountInString(indent+text) <= lineWidth {
		return strings.TrimRight(indent+text, " ")
	}
	var lines []string
	line := indent
	for _, word := range strings.Fields(text) {
		if line != indent && utf8.RuneCountInString(line+word) > lineWidth {
			lines = append(lines, strings.TrimRight(line, " "))
			line = indent
		}
		line += word + " "
	}
	return strings.Join(append(lines, strings.TrimRight(line, " ")), "\n")
}

// printList prints texts under a title, if there are any.
func printList(w io.Writer, title string, texts []string) {
	if len(texts) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	for _, text := range texts {
		fmt.Fprintln(w, wrap("- "+text, "  "))
	}
}

// plural is a number of things.
func plural[N int | int64 | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// seconds is a duration as people say it.
func seconds(d time.Duration) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", d.Seconds()), "0"), ".") + " s"
}

// ms is a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond)) }

// tally counts equal texts. It keeps no more than some: what is wrong a
// thousand times in a thousand words still fits on a screen.
type tally struct {
	texts map[string]int // each with how often
	more  int            // those that were not kept
	total int
}

const tallied = 12

func (t *tally) add(text string) {
	t.total++
	if t.texts == nil {
		t.texts = map[string]int{}
	}
	if t.texts[text] == 0 && len(t.texts) == tallied {
		t.more++
		return
	}
	t.texts[text]++
}

func (t *tally) list() []string {
	var list []string
	for _, text := range sortedKeys(t.texts) {
		list = append(list, fmt.Sprintf("%d × %s", t.texts[text], text))
	}
	if t.more > 0 {
		list = append(list, fmt.Sprintf("and %d others", t.more))
	}
	return list
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
