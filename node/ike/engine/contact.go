package engine

import (
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
)

// firstContact ends what the peer had before it started anew (RFC 7296 2.4). What came up meanwhile is not meant.
func (e *Engine) firstContact(x, y *entry) bool {
	if !y.sa.Origin().Established.Before(x.sa.Created()) {
		return false
	}
	e.run(y, func(s *ikev2.SA) { s.Drop(e.now, ike.ReasonInitialContact, "the peer has started anew") })
	return true
}

// startedElsewhere does the same where the peer has not started anew at the address that the other SA leads to, although
// the same rules expect it at one: it had moved before, or has been elsewhere since. Both SAs have that home, so that
// neither is of a peer with several addresses, who would have an SA for each.
func (e *Engine) startedElsewhere(x *entry) {
	local, remote := x.sa.Addresses()
	for _, y := range slices.Clone(e.table.byPeer[x.sa.Home()]) {
		otherLocal, otherRemote := y.sa.Addresses()
		if y == x || y.gone || y.retiring || !y.sa.Usable() || y.sa.Peer() != x.sa.Peer() || y.sa.Auth() != x.sa.Auth() ||
			y.sa.Home() != x.sa.Home() || otherLocal.Addr() != local.Addr() || otherRemote.Addr() == remote.Addr() {
			continue
		}
		e.firstContact(x, y)
	}
}
