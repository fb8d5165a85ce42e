package steering

import (
	"github.com/bailiwick-net/bailiwick/policies/spd"
	"github.com/google/nftables/expr"
)

// With Params.Kernel the kernel's own IPsec seals and opens, and there is no TUN: what the policy wants protected passes
// where a policy of XFRM has found an SA for it, and waits in a queue of the kernel where none has. Without a process that
// reads the queue, it is dropped.

// Of linux/netfilter/nf_tables.h, what x/sys does not name.
const (
	rtXFRM      = 4  // NFT_RT_XFRM
	metaSecpath = 25 // NFT_META_SECPATH
)

// CounterHeld counts what waits in the kernel until a negotiation ends; CounterFresh what came through SAs of which the
// outbound half was not used yet.
const (
	CounterHeld  = "held"
	CounterFresh = "fresh"
)

// Secured is true for packets for which XFRM has found an SA, or with Not for all others.
type Secured struct{ Not bool }

// Opened is true for packets that came out of an SA of the kernel.
type Opened struct{}

func (m Secured) text() string {
	if m.Not {
		return "rt ipsec missing"
	}
	return "rt ipsec exists"
}

func (m Opened) text() string { return "meta secpath exists" }

func (m Secured) expressions() []expr.Any {
	value := byte(1)
	if m.Not {
		value = 0
	}
	return []expr.Any{&expr.Rt{Key: rtXFRM, Register: register}, equal([]byte{value})}
}

func (m Opened) expressions() []expr.Any {
	return []expr.Any{&expr.Meta{Key: metaSecpath, Register: register}, equal([]byte{1})}
}

// protect ends the way of what is to be protected.
func (c *compiler) protect() []Rule {
	if !c.params.Kernel {
		return []Rule{{Mark: c.params.Protect, Mask: c.params.Mask, Verdict: Accept, Comment: CounterProtect}}
	}
	return []Rule{
		{Matches: []Match{Secured{}}, Verdict: Accept, Comment: CounterProtect},
		{Verdict: Queue, Number: c.params.Queue, Comment: CounterHeld},
	}
}

// opened are the rules for what came in protected. The kernel asks its policies about them where they are delivered.
func (c *compiler) opened() []Rule {
	if !c.params.Kernel {
		return []Rule{{Matches: []Match{Interface{Name: c.params.Device}}, Verdict: Accept, Comment: CounterFromTunnel}}
	}
	return []Rule{
		// The peer uses the SA, so the outbound half may be used (RFC 7296 2.8), and is before there is an answer.
		{Matches: []Match{Opened{}, c.marked(c.params.Fresh)}, Verdict: Queue, Number: c.params.Queue + 1, Comment: CounterFresh},
		{Matches: []Match{Opened{}, c.marked(c.params.Tunnel)}, Verdict: Accept, Comment: CounterFromTunnel},
	}
}

// forwarded begins the way of what a gateway forwards.
func (c *compiler) forwarded() []Rule {
	through := Rule{Matches: []Match{Interface{Out: true, Name: c.params.Device}}, Verdict: Accept, Comment: CounterProtect}
	if c.params.Kernel {
		through.Matches = []Match{Secured{}}
	}
	return append(c.opened(), through)
}

// unsteered is where that goes which is forwarded, and to be protected, but is not on the way to an SA.
func (c *compiler) unsteered(f *spd.Specific) string {
	if c.params.Kernel && f.Tunnel {
		return chainProtect
	}
	return chainUnsteered
}

// guard drops what lost its way: socket bound to a device, link-local destination, policy routing changed by others, no
// TUN, or an SA that went as the packet was let go.
func (c *compiler) guard() []Rule {
	lost := Rule{Matches: []Match{c.marked(c.params.Protect)}, Verdict: Drop, Comment: CounterGuard}
	if !c.params.Kernel {
		lost.Matches = append(lost.Matches, Interface{Out: true, Not: true, Name: c.params.Device})
		return []Rule{lost}
	}
	lost.Matches = append(lost.Matches, Secured{Not: true})
	return []Rule{lost, {Matches: []Match{Secured{}}, Verdict: Accept}}
}
