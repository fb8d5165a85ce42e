package ikesim

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Where the nodes of a plan are, what lies before them, and what their packets do there.

// The addresses that OpMove gives.
const (
	moveHome     = iota
	moveAway     // another instead
	moveHomeBoth // another as well
	moveAwayBoth // the same, and packets leave from the other one
	movePlaces
)

// owns tells whether the node has an address.
func (n *Node) owns(a netip.Addr) bool { return n.Addr == a || slices.Contains(n.Others, a) }

// move gives a node of the plan other addresses.
func (w *World) move(n *Node, where int) {
	home, away := n.plan.Addr, n.plan.Away
	list := [...][]netip.Addr{{home}, {away}, {home, away}, {away, home}}[where%movePlaces]
	if n.Addr == list[0] && len(n.Others) == len(list)-1 {
		return
	}
	w.logf("%s has %v", n.Name, list)
	w.disturbed, w.moved = true, true
	n.Addr, n.Others = list[0], list[1:]
	n.policy = policy{}
	n.tellAddresses()
	n.Do(ike.Reconfigure{Config: n.placed(n.Config)})
}

// placed is a configuration with the rules of transport mode about the addresses that the node has.
func (n *Node) placed(c ike.Config) ike.Config {
	if n.plan == nil {
		return c
	}
	each(&c, func(r *ike.Rule) {
		if r.Mode == sa.Transport && r.ID != "" {
			*r = aboutAll(*r, append([]netip.Addr{n.Addr}, n.Others...)...)
		}
	})
	return c
}

// tellAddresses tells the engine of a node of a plan which addresses it has, and from which one it sends to whom.
func (n *Node) tellAddresses() {
	ev := ike.AddressesChanged{Addresses: append([]netip.Addr{n.Addr}, n.Others...), Sources: make(map[netip.Addr]netip.Addr)}
	for _, o := range n.world.plan.Nodes {
		for _, remote := range []netip.Addr{o.Addr, o.Away, o.Outside} {
			ev.Sources[remote] = n.Addr
		}
	}
	n.Do(ev)
}

// hide puts a NAT before a node of the plan, or takes it away.
func (w *World) hide(n *Node, on bool) {
	if on == (n.nat != nil) {
		return
	}
	w.disturbed, w.moved = true, true
	if n.nat = nil; on {
		n.Hide(n.plan.Outside)
	}
	w.logf("%s is behind a NAT: %v", n.Name, on)
}

// settle puts a node where its plan has it, if it does not roam.
func (w *World) settle(n *Node) {
	if n.plan.Roams {
		return
	}
	w.hide(n, n.plan.NAT)
	w.move(n, moveHome)
}

// knownAs is the node of the plan with one of these addresses, whether it is there or not.
func (w *World) knownAs(a netip.Addr) bool {
	return w.plan != nil && slices.ContainsFunc(w.plan.Nodes, func(n NodePlan) bool { return n.Addr == a || n.Away == a || n.Outside == a })
}

// flow is what a asks for when it wants to reach b.
func (w *World) flow(a, b *Node) ike.Flow {
	if w.plan == nil || w.plan.Kind != KindGateways {
		return between(a, b)
	}
	from, to := a.plan.Network, b.plan.Network
	return ike.Flow{
		Rule: "to " + b.Name, Local: a.Addr, Remote: b.plan.known(), LocalTS: from, RemoteTS: to,
		Packet: spd.Packet{Source: from.From.Next(), Destination: to.From.Next(), Protocol: 1, ICMPType: 8},
	}
}

// canReach tells whether a can begin with b: it knows where b is, both can agree, and b believes it where it is. a is
// believed away from home where rules name it, because only then it roams.
func (w *World) canReach(a, b *Node) bool {
	switch {
	case b.nat != nil: // who is behind a NAT must come by himself
		return false
	case w.plan == nil:
		return true
	case len(a.plan.Config.Rules) == 0 || !agree(a.plan, b.plan):
		return false
	case w.plan.Kind == KindGateways:
		return b.Addr == b.plan.known()
	}
	return true
}

// peerOf is the other side of an association: whoever was authenticated, wherever it is now.
func (w *World) peerOf(c *sa.Child) *Node {
	for _, n := range w.Nodes {
		if w.plan != nil && n.Name == c.Peer {
			return n
		}
	}
	return w.at(c.Remote.Addr())
}

// packet is ESP on its way. It is the event of the datapath that finds no SA for it, until it arrives and finds one.
type packet struct {
	ike.UnknownESP
}

// traffic lets a node send one packet through each of its Child SAs.
func (w *World) traffic(n *Node) {
	for _, spi := range n.live() {
		i := n.SADB[spi]
		c := &i.Child
		if !i.Out || i.Switched == 0 || !n.owns(c.Local.Addr()) || n.Cut || w.rand.Float64() < w.Faults.Loss {
			continue
		}
		source, to, target := c.Local, w.at(c.Remote.Addr()), c.Remote
		if c.Encap {
			if n.nat != nil {
				source = n.nat.outsideOf(source)
			}
			to, target = w.route(target)
		} else if n.nat != nil || to == nil || to.nat != nil { // no NAT knows what to do with it
			continue
		}
		if to == nil {
			continue
		}
		if !c.Encap {
			source, target = netip.AddrPortFrom(source.Addr(), 0), netip.AddrPortFrom(target.Addr(), 0)
		}
		p := packet{ike.UnknownESP{SPI: c.Out.SPI, Local: target, Remote: source, Octets: 100}}
		w.schedule(w.Faults.Delay, &event{to: to, ev: p})
	}
}

// arrives tells whether it still happens: what is on the wire finds a machine that has started anew, but none that has
// another address or is cut off; what belongs to a machine ends with it.
func (e *event) arrives() bool {
	switch ev := e.ev.(type) {
	case ike.Datagram:
		return !e.to.Cut && (e.to.plan == nil || e.to.owns(ev.Local.Addr()))
	case packet:
		return !e.to.Cut && e.to.owns(ev.Local.Addr())
	}
	return e.epoch == e.to.epoch
}

// arrives gives the engine what the datapath makes of ESP.
func (n *Node) arrives(p packet) {
	i := n.SADB[p.SPI]
	if i == nil || i.Failed {
		n.Do(p.UnknownESP)
		return
	}
	if i.Child.Encap && p.Remote.Port() != 0 && p.Remote != i.Child.Remote {
		n.Do(ike.PeerMoved{SPI: p.SPI, Remote: p.Remote})
	}
	n.Do(ike.Heard{SPI: p.SPI})
}

// checkPlan: I6, what is installed is what the plan allows: with the peer that the rule names, within its selectors, with
// the postquantum preshared key that either side wants, and by the default response only where there is one.
func (w *World) checkPlan(n *Node, c *sa.Child) {
	if w.plan == nil {
		return
	}
	peer := w.peerOf(c)
	switch {
	case peer == nil || peer.plan == nil:
	case !agree(n.plan, peer.plan):
		w.broken("I6 %s: Child SA %s with %s, although one side wants a postquantum preshared key that not both have", n.Name, c.In.SPI, peer.Name)
	case w.plan.Kind == KindGateways && c.Rule != "to "+peer.Name:
		w.broken("I6 %s: Child SA %s of rule %q is with %s", n.Name, c.In.SPI, c.Rule, peer.Name)
	case w.plan.Kind == KindGateways && (c.Mode != sa.Tunnel || !inside(c.LocalTS, n.plan.Network) || !inside(c.RemoteTS, peer.plan.Network)):
		w.broken("I6 %s: Child SA %s carries %v to %v", n.Name, c.In.SPI, c.LocalTS, c.RemoteTS)
	}
	if c.DefaultResponse != (n.plan.Config.DefaultResponse != nil) {
		w.broken("I6 %s: Child SA %s is of the default response: %v", n.Name, c.In.SPI, c.DefaultResponse)
	}
}

func inside(list []sa.Selector, network sa.Selector) bool {
	return !slices.ContainsFunc(list, func(s sa.Selector) bool { return s.From.Less(network.From) || network.To.Less(s.To) })
}
