package userspace

import (
	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// outer is what the outer header takes from the packet inside.
type outer struct{ class, hops uint8 }

// outerOf returns what the outer header of a packet takes over: in transport mode it is the header of the packet itself
// (RFC 4303 3.1.1), in tunnel mode DSCP and ECN are copied (RFC 6040 4.1) and the hop limit is the machine's own (RFC 4301
// 5.1.2).
func (a *association) outerOf(pkt []byte, info *packet.Info) outer {
	o := outer{class: info.TrafficClass}
	if a.child.Mode == sa.Transport {
		o.hops = packet.HopLimit(pkt)
	}
	return o
}
