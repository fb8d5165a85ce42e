package ikesim

import (
	"net/netip"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

// natBox is a NAT between one node and all others: it gives each inside port a port of its outside address.
type natBox struct {
	outside netip.Addr
	ports   map[uint16]uint16 // inside -> outside
	next    uint16
}

// Hide puts a NAT with this outside address before a node. Others reach the node there, once it has sent something.
func (n *Node) Hide(outside netip.Addr) {
	n.nat = &natBox{outside: outside, ports: make(map[uint16]uint16), next: 20000}
}

// Reach is the address under which others know the node.
func (n *Node) Reach() netip.Addr {
	if n.nat != nil {
		return n.nat.outside
	}
	return n.Addr
}

func (b *natBox) outsideOf(inside netip.AddrPort) netip.AddrPort {
	port, ok := b.ports[inside.Port()]
	if !ok {
		b.next++
		port = b.next
		b.ports[inside.Port()] = port
	}
	return netip.AddrPortFrom(b.outside, port)
}

// Rebind makes the NAT forget its mappings: what the node sends next comes from other ports, and what is sent to the old
// ones is lost. move tells the peers' datapaths, which see authentic ESP from the new port.
func (n *Node) Rebind(move bool) {
	if n.nat == nil {
		return
	}
	w := n.world
	w.logf("%s is mapped anew", n.Name)
	w.disturbed = true
	clear(n.nat.ports)
	if !move {
		return
	}
	for _, m := range w.Nodes {
		if m == n {
			continue
		}
		for _, spi := range m.order {
			if i := m.SADB[spi]; i != nil && i.Child.Encap && w.at(i.Child.Remote.Addr()) == n {
				if own := n.SADB[i.Child.Out.SPI]; own != nil {
					from := n.nat.outsideOf(own.Child.Local)
					w.schedule(w.Faults.Delay, &event{to: m, ev: ike.PeerMoved{SPI: spi, Remote: from}})
				}
			}
		}
	}
}

// route finds who gets what is sent to an address, and which of his own it is there.
func (w *World) route(to netip.AddrPort) (*Node, netip.AddrPort) {
	for _, n := range w.Nodes {
		if n.nat == nil || n.nat.outside != to.Addr() {
			continue
		}
		for inside, outside := range n.nat.ports {
			if outside == to.Port() {
				return n, netip.AddrPortFrom(n.Addr, inside)
			}
		}
		return nil, to
	}
	n := w.at(to.Addr())
	if n != nil && n.nat != nil { // an inside address is not reached from outside
		return nil, to
	}
	return n, to
}
