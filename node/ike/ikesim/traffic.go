package ikesim

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikev2"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// I6: the policy as the spd package understands it judges what the engine does with packets.

// policy is the Set that a node's rules stand for; made when it is needed.
type policy struct {
	set   spd.Set
	known bool
}

// judge looks up a packet from this node, as the datapath would.
func (n *Node) judge(p spd.Packet) (spd.Match, bool) {
	if !n.policy.known {
		n.policy = policy{known: true}
		if set, err := spd.Expand(policyOf(&n.Config), spd.Facts{Addresses: append([]netip.Addr{n.Addr}, n.Others...)}); err != nil {
			n.world.broken("I6 %s: its rules are no policy: %v", n.Name, err)
		} else {
			n.policy.set = set
		}
	}
	m := n.policy.set.Lookup(spd.Out, p)
	return m, m.Rule != nil
}

// policyOf writes the rules of a configuration as the policy that they come from. Only what these worlds use is covered:
// rules between this machine and everybody.
func policyOf(c *ike.Config) spd.Policy {
	p := spd.Policy{Name: "world", KeyExchange: spd.KeyExchange{Offers: c.Offers, Lifetime: c.IKELifetime}}
	for _, r := range c.Rules {
		if r.Mode != sa.Transport {
			continue
		}
		p.Rules = append(p.Rules, spd.Rule{
			ID: r.ID, Name: r.ID, Auth: r.Auth,
			Filters: []spd.Filter{{ID: r.ID, Source: spd.Address{Kind: spd.AddressMe}, Destination: spd.Address{Kind: spd.AddressAny}, Mirrored: true}},
			Action: spd.FilterAction{
				Name: r.ID, Action: spd.ActionNegotiate, Fallback: r.Fallback, Offers: r.Offers, PFS: r.PFS, Lifetime: r.Lifetime,
			},
		})
	}
	return p
}

// checkSelectors: I6, what is installed protects packets as their rule says.
func (w *World) checkSelectors(n *Node, c *sa.Child) {
	if !w.reoffered {
		w.checkPlan(n, c)
	}
	if c.Mode != sa.Transport || c.DefaultResponse || len(n.Config.Rules) == 0 || w.reoffered || !w.oracle {
		return
	}
	for _, l := range c.LocalTS {
		for _, r := range c.RemoteTS {
			p := spd.Packet{Source: l.From, Destination: r.From, Protocol: l.Protocol, SourcePort: l.PortFrom, DestinationPort: r.PortFrom}
			m, ok := n.judge(p)
			switch {
			case !ok:
				w.broken("I6 %s: Child SA %s is for packets that no rule protects", n.Name, c.In.SPI)
			case m.Rule.ID != c.Rule:
				w.broken("I6 %s: Child SA %s of rule %q is for packets of rule %q", n.Name, c.In.SPI, c.Rule, m.Rule.ID)
			case !offers(m.Rule, c):
				w.broken("I6 %s: Child SA %s protects packets of rule %q with %v", n.Name, c.In.SPI, m.Rule.ID, c.Suite)
			}
		}
	}
}

func offers(r *spd.Rule, c *sa.Child) bool {
	for _, o := range r.Action.Offers {
		o.Group, o.Additional, o.ESN = c.Suite.Group, c.Suite.Additional, c.Suite.ESN
		if o == c.Suite {
			return true
		}
	}
	return false
}

// checkFallback: I6, clear traffic is granted only where the rule allows it: in the way that it says, and never to a peer
// with whom there is an SA.
func (w *World) checkFallback(n *Node, f ike.Fallback) {
	if !w.oracle {
		return
	}
	p := f.Flow.Packet
	if !p.Source.IsValid() {
		p = spd.Packet{Source: f.Flow.LocalTS.From, Destination: f.Flow.RemoteTS.From, Protocol: f.Flow.LocalTS.Protocol}
	}
	m, ok := n.judge(p)
	switch {
	case !ok:
		return
	case m.Rule.Action.Fallback.Mode == spd.FallbackNone:
		w.broken("I6 %s: rule %q allows no clear traffic, and grants it", n.Name, m.Rule.ID)
	case f.TTL <= 0:
		w.broken("I6 %s: clear traffic of rule %q is granted for ever", n.Name, m.Rule.ID)
	}
	if m.Rule.Action.Fallback.Mode != spd.FallbackWait {
		return
	}
	for s := range n.Engine.SAs() {
		_, remote := s.Addresses()
		if remote.Addr() == f.Flow.Remote && s.Usable() && slices.Contains(m.Rule.Auth, s.Auth()) {
			w.broken("I6 %s: clear traffic to %s is granted, with whom there is an IKE SA", n.Name, f.Flow.Remote)
		}
	}
}

// connected tells why packets from a to b are not protected now; "" when they are.
func (w *World) connected(a, b *Node) string {
	var best *Installed
	for _, spi := range a.order {
		i := a.SADB[spi]
		if i != nil && i.Out && i.Switched > 0 && !i.Failed && (best == nil || i.Switched > best.Switched) && ikev2.CoversFlow(i.Child, w.flow(a, b)) {
			best = i
		}
	}
	if best == nil {
		return fmt.Sprintf("%s has no Child SA with %s", a.Name, b.Name)
	}
	if p := b.SADB[best.Child.Out.SPI]; p == nil || p.Failed {
		return fmt.Sprintf("%s sends to %s on %s, which is not there", a.Name, b.Name, best.Child.Out.SPI)
	}
	return ""
}

// between is the flow of everything from one node to another.
func between(a, b *Node) ike.Flow {
	return ike.Flow{
		Rule: "mesh", Local: a.Addr, Remote: b.Reach(), LocalTS: allOf(a.Addr), RemoteTS: allOf(b.Reach()),
		Packet: spd.Packet{Source: a.Addr, Destination: b.Reach()},
	}
}

func allOf(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }
