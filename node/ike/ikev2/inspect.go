package ikev2

import (
	"iter"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
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

// Expected is the own SPI of the IKE SA that a rekey under way is about to make: the peer may have it already. 0 is none.
func (s *SA) Expected() wire.SPI {
	if t, ok := s.current.(*rekeyIKE); ok && t.sent {
		return t.own
	}
	return 0
}
