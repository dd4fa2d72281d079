package livepage

import (
	"math/bits"
	"strings"
	"sync"

	"github.com/sqllease/sqllease"
)

// sites remembers the places of stacks: to look one up takes microseconds, and a step has
// thousands of them.
type sites struct {
	mu    sync.Mutex
	known map[stackKey]site // guarded by mu
}

// stackKey tells stacks apart.
type stackKey struct {
	hash   uint64
	frames int
}

// mostSites bounds the memory: an application has fewer.
const mostSites = 4096

// of is the place of a stack.
func (s *sites) of(stack sqllease.Stack) site {
	key := stackKey{frames: len(stack)}
	for _, pc := range stack {
		key.hash = bits.RotateLeft64((key.hash^uint64(pc))*0x9E3779B97F4A7C15, 29)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, known := s.known[key]; known {
		return at
	}
	if s.known == nil || len(s.known) >= mostSites {
		s.known = map[stackKey]site{}
	}
	at := siteOf(stack.Site())
	s.known[key] = at
	return at
}

// siteOf takes "dir/file.go:42 pkg.Func" apart.
func siteOf(text string) site {
	if text == "" {
		return site{Place: "database/sql", Function: "a goroutine of database/sql, or started with one of its methods"}
	}
	at, function := text, ""
	if colon := strings.LastIndex(text, ".go:"); colon >= 0 {
		if space := strings.IndexByte(text[colon:], ' '); space >= 0 {
			at, function = text[:colon+space], text[colon+space+1:]
		}
	}
	return site{shown(at), shown(function)}
}
