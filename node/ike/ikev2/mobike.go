package ikev2

import (
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// MOBIKE (RFC 4555): an IKE SA and its Child SAs outlive the addresses that they were made between. The side that made
// the first IKE SA decides about the path: it moves the IKE SA and tells the other one (UPDATE_SA_ADDRESSES). The other
// one tells which addresses it has, and proves before it sends traffic to a new address that the peer receives there
// (COOKIE2). What merely seems to come from elsewhere moves nothing.
//
// Only tunnel mode moves (RFC 4555 1.3): the selectors of transport mode are the addresses themselves. Such Child SAs are
// deleted, and made anew through the IKE SA that has moved.

const (
	// limitAdditional bounds the addresses that either side tells or remembers.
	limitAdditional = 8
	// rotateAfter is how many transmissions one path gets before the next one is tried (RFC 4555 3.10).
	rotateAfter = 3
	cookie2Len  = 16 // RFC 4555 4.2.5: 8 to 64 octets
	// probeEvery bounds the questions that ESP from an unexpected address causes.
	probeEvery = 2 * time.Second
)

// mobility is what an SA knows of the paths between the two sides. A rekeyed SA inherits it.
type mobility struct {
	mobile bool       // both sides support MOBIKE
	home   netip.Addr // of the peer when it authenticated, or that it has left before: where rules expect it
	// claimed is the home of a peer that is not authenticated yet and that no rule expects where it is.
	claimed   netip.Addr
	claimedBy []spd.Auth   // the entries that let it claim that
	others    []netip.Addr // further ones of the peer, as it told last
	told      []netip.Addr // own ones that the peer was told last
	// mapping is how the peer saw this side when it answered last, as NAT_DETECTION_DESTINATION_IP: it changes with the
	// mapping of a NAT in between.
	mapping []byte
	mapped  time.Time // when this side asked for that last
	left    bool      // the peer has left its home
	astray  bool      // the outstanding request takes a path that the peer was not told of
	// refusedPaths counts the paths that the peer refused one after the other.
	refusedPaths int
	moves        uint // relocations so far
	probed       time.Time
}

// Home is the address of the peer when it authenticated.
func (s *SA) Home() netip.Addr { return s.home }

// leads reports whether this side decides about the path (RFC 4555 2.1: whoever made the first of all IKE SAs).
func (s *SA) leads() bool { return s.mobile && s.origin.Initiator }

// offerMobility are the payloads of the IKE_AUTH request.
func (s *SA) offerMobility() []wire.Payload {
	if s.cfg.Mobility == ike.MobilityOff {
		return nil
	}
	return []wire.Payload{wire.Notify{Type: wire.NotifyMOBIKESupported}}
}

// answerMobility are the payloads of the IKE_AUTH response. The addresses help the initiator when a path fails.
func (s *SA) answerMobility() []wire.Payload {
	if !s.mobile {
		return nil
	}
	s.told = s.additional()
	payloads := []wire.Payload{wire.Notify{Type: wire.NotifyMOBIKESupported}}
	if len(s.told) > 0 {
		payloads = append(payloads, additionalPayloads(s.told)...)
	}
	return payloads
}

// learnMobility reads what the peer says in IKE_AUTH, after it was authenticated.
func (s *SA) learnMobility(payloads []wire.Payload) {
	_, supported := wire.FindNotify(payloads, wire.NotifyMOBIKESupported)
	s.mobile = supported && s.cfg.Mobility != ike.MobilityOff
	s.mapped = s.now
	s.settleHome()
	if s.mobile {
		s.readAdditional(payloads)
	}
}

// additional are the own addresses that the peer does not see in the messages themselves.
func (s *SA) additional() []netip.Addr {
	var list []netip.Addr
	for _, a := range s.host.Addresses() {
		if a != s.local.Addr() && reachable(a) && !s.inside(a) && len(list) < limitAdditional {
			list = append(list, a)
		}
	}
	return list
}

// inside reports whether an own address belongs to what a tunnel to the peer protects: no path begins there.
func (s *SA) inside(a netip.Addr) bool {
	return s.protects(a, s.local.Addr(), func(p ike.Pair) sa.Selector { return p.Local })
}

// behind reports whether an address that the peer tells belongs to what a tunnel to it protects: no path ends there. Else
// messages about the tunnel would go where only the tunnel may lead.
func (s *SA) behind(a netip.Addr) bool {
	return s.protects(a, s.remote.Addr(), func(p ike.Pair) sa.Selector { return p.Remote })
}

// protects reports whether a tunnel to the peer holds an address on one side, and not the outer address of that side.
func (s *SA) protects(a, outer netip.Addr, side func(ike.Pair) sa.Selector) bool {
	for i := range s.cfg.Rules {
		r := &s.cfg.Rules[i]
		if r.Mode != sa.Tunnel || !s.expects(r.Tunnel) {
			continue
		}
		for _, p := range r.Pairs {
			if within := []sa.Selector{side(p)}; bound(within, a) && !bound(within, outer) {
				return true
			}
		}
	}
	return false
}

// reachable reports whether a peer on another link may send to an address.
func reachable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func additionalPayloads(list []netip.Addr) []wire.Payload {
	if len(list) == 0 {
		return []wire.Payload{wire.Notify{Type: wire.NotifyNoAdditionalAddresses}}
	}
	var payloads []wire.Payload
	for _, a := range list {
		t := wire.NotifyAdditionalIP4Address
		if a.Is6() {
			t = wire.NotifyAdditionalIP6Address
		}
		payloads = append(payloads, wire.Notify{Type: t, Data: a.AsSlice()})
	}
	return payloads
}

// readAdditional takes the peer's list of addresses, which replaces the one before (RFC 4555 3.6). It reports whether
// there was one.
func (s *SA) readAdditional(payloads []wire.Payload) bool {
	var list []netip.Addr
	told := false
	for _, p := range payloads {
		n, ok := p.(wire.Notify)
		if !ok {
			continue
		}
		size := 0
		switch n.Type {
		case wire.NotifyAdditionalIP4Address:
			size = 4
		case wire.NotifyAdditionalIP6Address:
			size = 16
		case wire.NotifyNoAdditionalAddresses:
		default:
			continue
		}
		told = true
		if a, ok := netip.AddrFromSlice(n.Data); ok && len(n.Data) == size && reachable(a) && !a.Is4In6() &&
			len(list) < limitAdditional && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	if told {
		s.others = list
	}
	return told
}

// AddressesChanged adapts the SA to the own addresses. source is the one that the kernel sends from to the peer, where it
// has one.
func (s *SA) AddressesChanged(now time.Time, source netip.Addr) {
	s.now = now
	own := s.host.Addresses()
	present := slices.Contains(own, s.local.Addr())
	switch {
	case s.state == StateClosed:
		return
	case s.state == StateRekeyed:
		if !present && source.IsValid() && source.BitLen() == s.remote.Addr().BitLen() {
			s.relocate(netip.AddrPortFrom(source, s.local.Port()), s.remote)
		}
		return
	case !s.state.established():
		if !present && s.hs != nil {
			s.end(ike.ReasonAddressChanged, ike.FaultLocal, "this machine has lost the address "+s.local.Addr().String())
		}
		return
	case present:
		s.announceAddresses()
	case source.IsValid() && source.BitLen() == s.remote.Addr().BitLen():
		s.lostAddress(netip.AddrPortFrom(source, s.local.Port()), s.remote)
	default:
		// The peer cannot be reached where it is. It may have another address; else an address here comes back.
		if local, remote, ok := s.nextPath(); ok && s.leads() {
			s.lostAddress(local, remote)
		}
	}
	s.advance()
}

// lostAddress goes on from another own address, as far as the peer follows.
func (s *SA) lostAddress(local, remote netip.AddrPort) {
	sameRemote := remote == s.remote
	s.relocate(local, remote)
	switch {
	case s.leads():
		if sameRemote {
			s.moveChildren()
		}
		s.wantUpdate()
	case s.mobile: // the peer decides, when it hears where this side is now
		s.moveChildren()
		s.told = nil
		s.enqueue(&tellAddresses{}, timeZero)
	case s.natLocal: // to the peer the NAT has changed its mapping: it follows any message (RFC 7296 2.23)
		s.moveChildren()
		s.enqueue(&liveness{}, timeZero)
	default: // said from the new address, so that the peer need not find out by itself
		s.closeIKE(ike.ReasonAddressChanged)
	}
}

// relocate sends the messages of the IKE SA on another path from now on. An outstanding request is repeated there at once
// (RFC 4555 3.5).
func (s *SA) relocate(local, remote netip.AddrPort) {
	s.trace("move from %s - %s to %s - %s", s.local, s.remote, local, remote)
	s.local, s.remote = local, remote
	s.mapping = nil
	s.moves++
	if p := s.win.pending; p != nil {
		p.tries, p.at = 1, s.now.Add(s.interval(0))
		s.sendAll(s.local, s.remote, p.datagrams)
	}
}

// moveChildren lets the Child SAs follow the IKE SA.
func (s *SA) moveChildren() {
	for _, c := range slices.Clone(s.children) {
		switch {
		case c.gone:
		case s.displaced(c):
			s.closeChild(c, ike.ReasonAddressChanged)
		case c.Local != s.local || c.Remote != s.remote || c.Encap != s.encap:
			c.Local, c.Remote, c.Encap = s.local, s.remote, s.encap
			s.host.Emit(ike.Move{SPI: c.In.SPI, Local: c.Local, Remote: c.Remote, Encap: c.Encap})
		}
	}
}

// bound reports whether selectors of transport mode are about an address.
func bound(list []sa.Selector, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(s sa.Selector) bool {
		return s.From.BitLen() == a.BitLen() && !a.Less(s.From) && !s.To.Less(a)
	})
}

// nextPath is the path after the present one in the list of all pairs of addresses of one family.
func (s *SA) nextPath() (local, remote netip.AddrPort, ok bool) {
	type path struct{ local, remote netip.AddrPort }
	now := path{s.local, s.remote}
	var paths []path
	at := -1
	own := s.host.Addresses()
	if !slices.Contains(own, s.local.Addr()) && len(own) == 0 {
		own = []netip.Addr{s.local.Addr()}
	}
	peer := append([]netip.Addr{s.remote.Addr()}, s.others...)
	if !s.left {
		peer = append(peer, s.home)
	}
	for _, r := range peer {
		if r != s.remote.Addr() && s.behind(r) {
			continue
		}
		port := s.remote.Port()
		if r != s.remote.Addr() && s.local.Port() == s.natPort() {
			port = s.natPort()
		}
		for _, l := range own {
			if l.BitLen() != r.BitLen() || l != s.local.Addr() && (!reachable(l) || s.inside(l)) {
				continue
			}
			p := path{netip.AddrPortFrom(l, s.local.Port()), netip.AddrPortFrom(r, port)}
			if slices.Contains(paths, p) {
				continue
			}
			if p == now {
				at = len(paths)
			}
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 || len(paths) == 1 && at == 0 {
		return netip.AddrPort{}, netip.AddrPort{}, false
	}
	next := paths[(at+1)%len(paths)]
	return next.local, next.remote, true
}

// rotate tries another path for a request that gets no answer. Nothing but the request moves before the answer.
func (s *SA) rotate() {
	if !s.leads() || s.state != StateEstablished {
		return
	}
	if local, remote, ok := s.nextPath(); ok {
		s.trace("no answer: try %s - %s", local, remote)
		s.local, s.remote, s.astray = local, remote, true
	}
}

// arrived notes by which path a response came.
func (s *SA) arrived(local, remote netip.AddrPort) {
	if s.astray {
		s.local, s.remote, s.astray, s.mapping = local, remote, false, nil
		s.wantUpdate()
	}
}

// natPayloads are the NAT_DETECTION notifies for a message on a path.
func (s *SA) natPayloads(local, remote netip.AddrPort) []wire.Payload {
	source := suite.NATHash(s.spii(), s.spir(), local)
	if s.cfg.ForceEncap { // as in IKE_SA_INIT
		source = s.host.Random(len(source))
	}
	return []wire.Payload{
		wire.Notify{Type: wire.NotifyNATDetectionSourceIP, Data: source},
		wire.Notify{Type: wire.NotifyNATDetectionDestinationIP, Data: suite.NATHash(s.spii(), s.spir(), remote)},
	}
}

// readNAT finds out what is between the two sides, where a message tells.
func (s *SA) readNAT(m message, local, remote netip.AddrPort) {
	if _, ok := wire.FindNotify(m.payloads, wire.NotifyNATDetectionSourceIP); ok {
		s.detectNAT(wire.Message{Header: m.header, Payloads: m.payloads}, local, remote)
	}
}

// asksMapping reports whether a question of this side has to find out how the peer sees it (RFC 4555 3.8).
func (s *SA) asksMapping() bool {
	return s.leads() && s.natLocal && s.cfg.Mobility != ike.MobilityWithoutNAT
}

// natPort is the port of IKE behind a NAT.
func (s *SA) natPort() uint16 {
	if s.cfg.NATPort != 0 {
		return s.cfg.NATPort
	}
	return NATPort
}

// noNATs is the data of NO_NATS_ALLOWED: both addresses, then both ports, of the sender first (RFC 4555 4.2.6).
func noNATs(source, destination netip.AddrPort) []byte {
	b := append(source.Addr().AsSlice(), destination.Addr().AsSlice()...)
	return append(b, byte(source.Port()>>8), byte(source.Port()), byte(destination.Port()>>8), byte(destination.Port()))
}
