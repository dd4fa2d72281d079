package statement

import (
	"slices"
	"strings"
)

// sets is the effect of a SET.
func (t tokens) sets(g Grammar) Effect {
	if len(t) == mostTokens { // there may be more
		return Effect{Act: Unclear}
	}
	if g == MySQL {
		return t.setsMySQL()
	}
	return t.setsPostgreSQL()
}

// changed is the effect of a SET of these, which are put back if undone is set.
func changed(undone bool, names ...string) Effect {
	act := Sets
	switch {
	case len(names) == 0:
		return Effect{}
	case undone:
		act = Undoes
	}
	return Effect{Act: act, Kind: Setting, Name: strings.Join(names, ",")}
}

func (t tokens) setsPostgreSQL() Effect {
	i := 1
	if t.word(1) == "SESSION" && t.word(2) != "AUTHORIZATION" {
		i++
	}
	last := t.word(len(t) - 1)
	undone := last == "DEFAULT"
	switch t.word(i) {
	case "LOCAL", "TRANSACTION", "CONSTRAINTS":
		return Effect{}
	case "CHARACTERISTICS":
		return changed(false, "transaction")
	case "SESSION":
		return changed(undone, "session authorization")
	case "ROLE":
		return changed(last == "NONE", "role")
	case "TIME":
		return changed(undone || last == "LOCAL", "timezone")
	case "NAMES":
		return changed(undone || i+1 == len(t), "client_encoding")
	case "SCHEMA":
		return changed(false, "search_path")
	}
	if to := t.word(i + 1); to != "=" && to != "TO" {
		return Effect{Act: Unclear}
	}
	return changed(undone, t.name(i))
}

func (t tokens) setsMySQL() Effect {
	switch t.word(1) {
	case "TRANSACTION":
		return Effect{}
	case "DEFAULT": // the role of an account
		return Effect{Ends: Committed}
	case "STATEMENT", "RESOURCE":
		return Effect{Act: Unclear}
	case "NAMES", "CHARACTER", "CHARSET":
		return changed(t.word(len(t)-1) == "DEFAULT", "names")
	case "ROLE":
		return changed(t.word(2) == "DEFAULT", "role")
	}
	var names []string
	undone, autocommit := true, false
	for _, one := range t[1:].assignments() {
		name, value, certain := one.assigns()
		if !certain {
			return Effect{Act: Unclear}
		}
		if name == "" {
			continue
		}
		autocommit = autocommit || name == "autocommit"
		names = append(names, name)
		undone = undone && (value == "DEFAULT" || name == "autocommit" && (value == "1" || value == "ON" || value == "TRUE"))
	}
	e := changed(undone, names...)
	if autocommit {
		e.Ends = Committed
	}
	return e
}

// assignments are what is between the commas.
func (t tokens) assignments() (all []tokens) {
	depth, from := 0, 0
	for i, token := range t {
		switch token {
		case "(":
			depth++
		case ")":
			depth--
		case ",":
			if depth == 0 {
				all = append(all, t[from:i])
				from = i + 1
			}
		}
	}
	return append(all, t[from:])
}

// assigns is the setting of the session that an assignment changes, in lower case, and the
// value, in upper case; empty: it changes none, but a variable or what all sessions have.
func (t tokens) assigns() (name, value string, certain bool) {
	scope := ""
	switch t.word(0) {
	case "GLOBAL", "PERSIST", "PERSIST_ONLY", "SESSION", "LOCAL":
		scope, t = t.word(0), t[1:]
	}
	if t.word(0) == "@" && len(t) > 1 { // @@session.a
		t = slices.Clone(t[1:])
		t[0] = strings.TrimPrefix(t[0], "@")
		if before, behind, found := strings.Cut(t[0], "."); found {
			scope, t[0] = upperWord(before), behind
		}
	}
	name = t.name(0)
	if scope != "" && t.word(0) == "TRANSACTION" && scope != "GLOBAL" {
		return "transaction", "", true
	}
	t = t[min(1, len(t)):]
	if t.word(0) == ":" {
		t = t[1:]
	}
	if t.word(0) != "=" || name == "" {
		return "", "", scope == "GLOBAL" // SET GLOBAL TRANSACTION
	}
	switch {
	case strings.HasPrefix(name, "@"), scope == "GLOBAL", strings.HasPrefix(scope, "PERSIST"):
		return "", "", true
	case len(t) == 2:
		value = t.word(1)
	}
	return name, value, true
}
