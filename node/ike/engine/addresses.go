package engine

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
)

// Addresses are this machine's own addresses (ikev2.Host).
func (e *Engine) Addresses() []netip.Addr { return e.addresses }

// addressesChanged lets every SA follow the own addresses, or end with the one that it is bound to.
func (e *Engine) addressesChanged(ev ike.AddressesChanged) {
	e.addresses = slices.Clone(ev.Addresses)
	if e.stopping {
		return
	}
	for _, x := range e.table.order.all() {
		if x.gone {
			continue
		}
		_, remote := x.sa.Addresses()
		e.run(x, func(s *ikev2.SA) { s.AddressesChanged(e.now, ev.Sources[remote.Addr()]) })
	}
}
