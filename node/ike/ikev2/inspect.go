package ikev2

import (
	"iter"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Each are the live Child SAs in the order of their making, as the SA holds them: callers read, and keep nothing.
func (s *SA) Each() iter.Seq[*sa.Child] {
	return func(yield func(*sa.Child) bool) {
		for _, c := range s.children {
			if !c.gone && !yield(&c.Child) {
				return
			}
		}
	}
}
