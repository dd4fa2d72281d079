package drawing

import "strings"

// The widest of the fonts that a reader may have decides how much room a text
// takes. bolder is what bold letters take of it.
const bolder = 1.1

// textWidth is the room that a text takes, at most.
func textWidth(text string, size float64) (w float64) {
	for _, r := range text {
		w += letterWidth(r) * size
	}
	return w
}

// letterWidth is that of a letter of size 1.
func letterWidth(r rune) float64 {
	switch {
	case strings.ContainsRune(" .,:;'|!ijl", r):
		return 0.34
	case strings.ContainsRune("frt/()[]-", r):
		return 0.42
	case strings.ContainsRune("mwMW%@…", r):
		return 0.98
	case 'A' <= r && r <= 'Z':
		return 0.7
	case '0' <= r && r <= '9':
		return 0.64
	default:
		return 0.62
	}
}

// wrap breaks a text into lines that are no wider than that.
func wrap(text string, size, most float64) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		longer := strings.TrimSpace(line + " " + word)
		if line != "" && textWidth(longer, size) > most {
			lines = append(lines, line)
			longer = word
		}
		line = longer
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}
