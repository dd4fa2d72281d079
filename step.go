package sqllease

import "sync/atomic"

// step counts the steps of reading rows: it is odd while a row is being read. One
// goroutine writes it, twice a row, and a store that others are sure to see at once costs
// more than all else that a row costs here. So this is a plain store, which the processor
// lets others see some nanoseconds later, in order after those before it or not. Whoever
// reads it may depend on that no more than this: what was stored ten milliseconds ago is
// seen. A word is never seen in parts.
type step uint64

// advance goes on by one. It is for the one goroutine that may.
//
//go:norace
func (s *step) advance() { *s++ }

// back takes back the last advance, of a row that is not read so. It is for the same.
//
//go:norace
func (s *step) back() { *s-- }

// load is how far it is, as far as can be seen.
func (s *step) load() uint64 { return atomic.LoadUint64((*uint64)(s)) }
