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
			x.local = append(x.local, b.Within(local)...)
		}
		for _, b := range c.RemoteTS {
			x.remote = append(x.remote, b.Within(remote)...)
		}
		return finish(x)
	}
	request := spd.Request{Transport: want.transport, Local: local, Remote: remote, Here: s.local.Addr(), There: s.remote.Addr()}
	rule := func(i int) spd.Candidate {
		c := candidate(&s.cfg.Rules[i])
		c.Unexpected = c.Tunnel.IsValid() && !s.expects(c.Tunnel)
		return c
	}
	if n, ok := spd.Narrow(request, len(s.cfg.Rules), rule); ok {
		r := &s.cfg.Rules[n.Index]
		return finish(selection{rule: r, mode: r.Mode, local: n.Local, remote: n.Remote})
	}
	if d := s.cfg.DefaultResponse; d != nil {
		if n, ok := spd.NarrowDefault(request); ok {
			return finish(selection{rule: d, isDefault: true, mode: sa.Transport, local: n.Local, remote: n.Remote})
		}
	}
	return selection{}, false
}

// peerAuth is by which entries a peer may authenticate whose request no rule covers: those of every rule about its
// address, else those of the default response. The IKE SA can then be used for something that a rule covers.
func peerAuth(cfg *ike.Config, remote netip.Addr) []spd.Auth {
	var response []spd.Auth
	if cfg.DefaultResponse != nil {
		response = cfg.DefaultResponse.Auth
	}
	return spd.PeerAuth(remote, len(cfg.Rules), func(i int) spd.Candidate { return candidate(&cfg.Rules[i]) }, response)
}

// candidate is a rule as policies narrow to it.
func candidate(r *ike.Rule) spd.Candidate {
	return spd.Candidate{Transport: wantsTransport(r), Tunnel: r.Tunnel, Pairs: r.Pairs, Auth: r.Auth}
}
