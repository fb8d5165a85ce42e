package spd

import (
	"net/netip"
	"slices"
)

// Pair is one pair of traffic selectors that a rule covers, seen from this machine.
type Pair struct{ Local, Remote Selector }

// Negotiable is a rule as negotiations see it: outbound filters of one rule that stand together in the order of weight.
type Negotiable struct {
	Rule  *Rule // not to be modified
	Pairs []Pair
}

// Negotiables returns the rules that negotiate in the order of weight; one whose filters do not stand together appears
// once for each run of them. They must not be modified.
func (s Set) Negotiables() []Negotiable { return s.negotiables }

func (s Set) findNegotiables() []Negotiable {
	var out []Negotiable
	filters := s.ByAddress()
	for i := range filters {
		f := &filters[i]
		if f.Exempt != "" || f.Direction != Out {
			continue
		}
		rule, ok := s.rules[f.RuleID]
		if !ok || rule.Action.Action != ActionNegotiate {
			continue
		}
		pair := Pair{
			Local:  selector(f.Protocol, f.Source, f.SourcePort),
			Remote: selector(f.Protocol, f.Destination, f.DestinationPort),
		}
		if last := len(out) - 1; last >= 0 && out[last].Rule.ID == rule.ID {
			out[last].Pairs = append(out[last].Pairs, pair)
			continue
		}
		out = append(out, Negotiable{Rule: rule, Pairs: []Pair{pair}})
	}
	return out
}

// Request is what a peer asks to protect, seen from here, and between which addresses.
type Request struct {
	Transport     bool // transport mode; otherwise tunnel mode
	Local, Remote []Selector
	// Here and There are the addresses of the IKE SA.
	Here, There netip.Addr
}

// Candidate is a rule that may answer a request.
type Candidate struct {
	Transport bool
	Tunnel    netip.Addr // remote endpoint in tunnel mode
	Pairs     []Pair
	Auth      []Auth
	// Unexpected tells that the peer of the request is not the one that the tunnel of the rule leads to.
	Unexpected bool
}

// Narrowed is what a request is narrowed to.
type Narrowed struct {
	Index         int // of the candidate
	Transport     bool
	Local, Remote []Selector // neither is empty
}

// Narrow finds the rule that decides about a request, of n candidates in the order of weight, and narrows the request to
// it (RFC 7296 2.9): the first rule that covers the request whole, else the first that covers the packet it was made
// for, else the first that covers a part. Transport mode may be declined: where no rule of transport mode covers any of
// it, tunnel mode is what remains (RFC 7296 1.3.1). The default response is not among the candidates; see NarrowDefault.
func Narrow(request Request, n int, candidate func(i int) Candidate) (Narrowed, bool) {
	local, remote := request.Local, request.Remote
	tests := []func(p *Pair) bool{
		func(p *Pair) bool { return p.Local.Covers(local) && p.Remote.Covers(remote) },
		func(p *Pair) bool {
			return len(local) > 1 && len(remote) > 1 && p.Local.Contains(local[0]) && p.Remote.Contains(remote[0])
		},
		func(*Pair) bool { return true },
	}
	modes := []bool{request.Transport}
	if request.Transport {
		modes = append(modes, false)
	}
	for _, transport := range modes {
		for _, test := range tests {
			for i := range n {
				c := candidate(i)
				if c.Transport != transport {
					continue
				}
				for k := range c.Pairs {
					if !test(&c.Pairs[k]) {
						continue
					}
					if x, ok := c.narrow(request, &c.Pairs[k]); ok {
						x.Index = i
						return x, true
					}
				}
			}
		}
	}
	return Narrowed{}, false
}

func (c Candidate) narrow(request Request, p *Pair) (Narrowed, bool) {
	x := Narrowed{Transport: c.Transport, Local: p.Local.Within(request.Local), Remote: p.Remote.Within(request.Remote)}
	if c.Transport {
		x.Local = HostSelector(request.Here).Within(x.Local)
		x.Remote = HostSelector(request.There).Within(x.Remote)
	} else if c.Unexpected {
		return Narrowed{}, false
	}
	return x, len(x.Local) > 0 && len(x.Remote) > 0
}

// NarrowDefault narrows a request to the two hosts, as the default response does. It answers transport mode only.
func NarrowDefault(request Request) (Narrowed, bool) {
	if !request.Transport {
		return Narrowed{}, false
	}
	x := Narrowed{
		Transport: true,
		Local:     HostSelector(request.Here).Within(request.Local), Remote: HostSelector(request.There).Within(request.Remote),
	}
	return x, len(x.Local) > 0 && len(x.Remote) > 0
}

// PeerAuth is by which entries a peer at an address may authenticate before it asks for anything: those of every one of
// n rules about the address, each once, then those of the default response. The IKE SA can then be used for something
// that a rule covers.
func PeerAuth(there netip.Addr, n int, candidate func(i int) Candidate, response []Auth) []Auth {
	var list []Auth
	add := func(entries []Auth) {
		for _, e := range entries {
			if !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	for i := range n {
		if c := candidate(i); c.about(there) {
			add(c.Auth)
		}
	}
	add(response)
	return list
}

// about reports whether the rule is about an address.
func (c Candidate) about(there netip.Addr) bool {
	if !c.Transport {
		return c.Tunnel == there
	}
	return slices.ContainsFunc(c.Pairs, func(p Pair) bool {
		return p.Remote.Contains(Selector{
			Protocol: p.Remote.Protocol, From: there, To: there, PortFrom: p.Remote.PortFrom, PortTo: p.Remote.PortTo,
		})
	})
}
