package ikev2

import (
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// selection is what a request for a Child SA is narrowed to (RFC 7296 2.9).
type selection struct {
	rule          *ike.Rule
	isDefault     bool
	mode          sa.Mode
	local, remote []sa.Selector // installed
	// told and toldRemote go on the wire; behind a NAT they hold the addresses that the peer knows (RFC 7296 2.23.1).
	told, toldRemote []sa.Selector
}

// contains reports whether every packet of b is one of a. OPAQUE ports (65535 to 0) are contained in every port.
func contains(a, b sa.Selector) bool {
	x, ok := intersect(a, b)
	return ok && x == b
}

// intersect is the selector of what both contain.
func intersect(a, b sa.Selector) (sa.Selector, bool) {
	if a.From.BitLen() != b.From.BitLen() {
		return sa.Selector{}, false
	}
	x := b
	switch {
	case a.Protocol == b.Protocol || a.Protocol == 0:
	case b.Protocol == 0:
		x.Protocol = a.Protocol
	default:
		return sa.Selector{}, false
	}
	if x.From.Less(a.From) {
		x.From = a.From
	}
	if a.To.Less(x.To) {
		x.To = a.To
	}
	if x.To.Less(x.From) {
		return sa.Selector{}, false
	}
	anyPort := func(s sa.Selector) bool { return s.PortFrom == 0 && s.PortTo == 65535 }
	opaque := func(s sa.Selector) bool { return s.PortFrom > s.PortTo }
	switch {
	case anyPort(a):
	case opaque(a) && opaque(b):
	case opaque(a), opaque(b):
		return sa.Selector{}, false
	default:
		x.PortFrom, x.PortTo = max(a.PortFrom, b.PortFrom), min(a.PortTo, b.PortTo)
		if x.PortTo < x.PortFrom {
			return sa.Selector{}, false
		}
	}
	return x, true
}

// within narrows a list to one selector and drops what others of the list contain already.
func within(list []sa.Selector, bound sa.Selector) []sa.Selector {
	var out []sa.Selector
	for _, s := range list {
		x, ok := intersect(bound, s)
		if !ok || slices.ContainsFunc(out, func(o sa.Selector) bool { return contains(o, x) }) {
			continue
		}
		out = slices.DeleteFunc(out, func(o sa.Selector) bool { return contains(x, o) })
		out = append(out, x)
	}
	return out
}

// covers reports whether bound contains every selector of the list.
func covers(bound sa.Selector, list []sa.Selector) bool {
	for _, s := range list {
		if !contains(bound, s) {
			return false
		}
	}
	return len(list) > 0
}

// hostOf limits a selector to one address.
func hostOf(a netip.Addr) sa.Selector {
	return sa.Selector{From: a, To: a, PortFrom: 0, PortTo: 65535}
}

// single reports whether the list asks for exactly one address, and which.
func single(list []sa.Selector) (netip.Addr, bool) {
	if len(list) == 0 {
		return netip.Addr{}, false
	}
	a := list[0].From
	for _, s := range list {
		if s.From != a || s.To != a {
			return netip.Addr{}, false
		}
	}
	return a, true
}

func readdress(list []sa.Selector, a netip.Addr) []sa.Selector {
	out := slices.Clone(list)
	for i := range out {
		out[i].From, out[i].To = a, a
	}
	return out
}

// narrow finds the rule that decides about a request and narrows the request to it: the first rule that covers the
// request whole, else the first that covers the packet it was made for, else the first that covers a part. Where no rule
// does, the default response narrows to the two hosts.
//
// A request is narrowed before authentication and again after it; a long policy need not be searched twice for that.
func (s *SA) narrow(want *childRequest) (selection, bool) {
	n := &want.narrowed
	if n.cfg != s.cfg || n.local != s.local || n.remote != s.remote {
		*n = narrowing{cfg: s.cfg, local: s.local, remote: s.remote}
		n.selection, n.found = s.search(want)
	}
	return n.selection, n.found
}

// narrowing is what a request was narrowed to, under a configuration and between two addresses.
type narrowing struct {
	cfg           *ike.Config
	local, remote netip.AddrPort
	selection     selection
	found         bool
}

func (s *SA) search(want *childRequest) (selection, bool) {
	local, remote := want.local, want.remote
	var told, toldRemote netip.Addr
	if want.transport && (s.natLocal || s.natRemote) {
		// RFC 7296 2.23.1: the peer names the addresses that it sees; the hosts behind the NAT are meant.
		l, okL := single(local)
		r, okR := single(remote)
		if !okL || !okR {
			return selection{}, false
		}
		told, toldRemote = l, r
		local, remote = readdress(local, s.local.Addr()), readdress(remote, s.remote.Addr())
	}
	finish := func(x selection) (selection, bool) {
		x.told, x.toldRemote = x.local, x.remote
		if told.IsValid() {
			x.told, x.toldRemote = readdress(x.local, told), readdress(x.remote, toldRemote)
		}
		return x, len(x.local) > 0 && len(x.remote) > 0
	}
	if c := want.rekeys; c != nil {
		// RFC 7296 2.8: the selectors SHOULD NOT differ from the old ones; what both have in common is installed.
		if (c.Mode == sa.Transport) != want.transport || c.rule == nil {
			return selection{}, false
		}
		x := selection{rule: c.rule, isDefault: c.DefaultResponse, mode: c.Mode}
		for _, b := range c.LocalTS {
			x.local = append(x.local, within(local, b)...)
		}
		for _, b := range c.RemoteTS {
			x.remote = append(x.remote, within(remote, b)...)
		}
		return finish(x)
	}
	pick := func(r *ike.Rule, p ike.Pair) (selection, bool) {
		x := selection{rule: r, mode: r.Mode, local: within(local, p.Local), remote: within(remote, p.Remote)}
		if r.Mode == sa.Transport {
			x.local = within(x.local, hostOf(s.local.Addr()))
			x.remote = within(x.remote, hostOf(s.remote.Addr()))
		} else if r.Tunnel.IsValid() && !s.expects(r.Tunnel) {
			return selection{}, false
		}
		return finish(x)
	}
	tests := []func(p ike.Pair) bool{
		func(p ike.Pair) bool { return covers(p.Local, local) && covers(p.Remote, remote) },
		func(p ike.Pair) bool {
			return len(local) > 1 && len(remote) > 1 && contains(p.Local, local[0]) && contains(p.Remote, remote[0])
		},
		func(ike.Pair) bool { return true },
	}
	modes := []bool{want.transport}
	if want.transport { // transport mode may be declined: tunnel mode is what remains (RFC 7296 1.3.1)
		modes = append(modes, false)
	}
	for _, transport := range modes {
		for _, test := range tests {
			for i := range s.cfg.Rules {
				r := &s.cfg.Rules[i]
				if wantsTransport(r) != transport {
					continue
				}
				for _, p := range r.Pairs {
					if !test(p) {
						continue
					}
					if x, ok := pick(r, p); ok {
						return x, true
					}
				}
			}
		}
	}
	if d := s.cfg.DefaultResponse; d != nil && want.transport {
		x := selection{rule: d, isDefault: true, mode: sa.Transport}
		x.local = within(local, hostOf(s.local.Addr()))
		x.remote = within(remote, hostOf(s.remote.Addr()))
		return finish(x)
	}
	return selection{}, false
}

// peerAuth is by which entries a peer may authenticate whose request no rule covers: those of every rule about its
// address, else those of the default response. The IKE SA can then be used for something that a rule covers.
func peerAuth(cfg *ike.Config, remote netip.Addr) []spd.Auth {
	var list []spd.Auth
	add := func(entries []spd.Auth) {
		for _, e := range entries {
			if !slices.Contains(list, e) {
				list = append(list, e)
			}
		}
	}
	for i := range cfg.Rules {
		r := &cfg.Rules[i]
		about := r.Mode == sa.Tunnel && r.Tunnel == remote
		for _, p := range r.Pairs {
			about = about || r.Mode == sa.Transport && contains(p.Remote, sa.Selector{
				Protocol: p.Remote.Protocol, From: remote, To: remote, PortFrom: p.Remote.PortFrom, PortTo: p.Remote.PortTo,
			})
		}
		if about {
			add(r.Auth)
		}
	}
	if cfg.DefaultResponse != nil {
		add(cfg.DefaultResponse.Auth)
	}
	return list
}
