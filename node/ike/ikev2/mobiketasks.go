package ikev2

import (
	"bytes"
	"crypto/subtle"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

// updateAddresses tells the peer the path that this side has chosen (RFC 4555 3.5).
type updateAddresses struct{ local, remote netip.AddrPort }

func (*updateAddresses) rank() int { return rankUpdate }

// wantUpdate queues one update, unless one waits already.
func (s *SA) wantUpdate() {
	for _, q := range s.queue {
		if _, ok := q.task.(*updateAddresses); ok {
			return
		}
	}
	s.enqueue(&updateAddresses{}, timeZero)
}

func (t *updateAddresses) begin(s *SA) bool {
	if !s.leads() || s.state != StateEstablished {
		return false
	}
	t.local, t.remote, s.mapped = s.local, s.remote, s.now
	payloads := []wire.Payload{wire.Notify{Type: wire.NotifyUpdateSAAddresses}}
	if s.cfg.Mobility == ike.MobilityWithoutNAT {
		payloads = append(payloads, wire.Notify{Type: wire.NotifyNoNATsAllowed, Data: noNATs(s.local, s.remote)})
	} else {
		payloads = append(payloads, s.natPayloads(s.local, s.remote)...)
	}
	s.request(wire.Informational, payloads...)
	return true
}

func (t *updateAddresses) finish(s *SA, m message) {
	s.done(t)
	if s.closing() || s.state != StateEstablished {
		return
	}
	for _, refused := range []wire.NotifyType{wire.NotifyUnacceptableAddresses, wire.NotifyUnexpectedNATDetected} {
		if _, ok := wire.FindNotify(m.payloads, refused); !ok {
			continue
		}
		s.trace("the peer refuses %s - %s with %s", t.local, t.remote, refused)
		local, remote, ok := s.nextPath()
		if s.refusedPaths++; !ok || s.refusedPaths > limitAdditional {
			s.closeIKE(ike.ReasonAddressChanged)
			return
		}
		s.relocate(local, remote)
		s.wantUpdate()
		return
	}
	if s.local != t.local || s.remote != t.remote { // moved on while the peer answered
		s.wantUpdate()
		return
	}
	s.refusedPaths = 0
	s.readNAT(m, s.local, s.remote)
	s.noteMapping(m.payloads)
	s.moveChildren()
}

// tellAddresses tells the peer, who decides about the path, which addresses this side has (RFC 4555 3.6).
type tellAddresses struct{}

func (*tellAddresses) rank() int { return rankUpdate }

// announceAddresses queues that when there is something new to tell.
func (s *SA) announceAddresses() {
	if s.mobile && !s.origin.Initiator && !slices.Equal(s.told, s.additional()) {
		s.enqueue(&tellAddresses{}, timeZero)
	}
}

func (t *tellAddresses) begin(s *SA) bool {
	if s.state != StateEstablished {
		return false
	}
	s.told = s.additional()
	s.request(wire.Informational, additionalPayloads(s.told)...)
	return true
}

func (t *tellAddresses) finish(s *SA, _ message) { s.done(t) }

// routability asks for proof that the peer receives at the address that it has given (RFC 4555 3.7): whoever is
// authenticated could else direct its traffic at somebody else.
type routability struct {
	local, remote netip.AddrPort
	cookie        []byte
}

func (*routability) rank() int { return rankUpdate }

func (t *routability) begin(s *SA) bool {
	if s.state != StateEstablished {
		return false
	}
	t.local, t.remote, t.cookie = s.local, s.remote, s.host.Random(cookie2Len)
	s.request(wire.Informational, wire.Notify{Type: wire.NotifyCookie2, Data: t.cookie})
	return true
}

func (t *routability) finish(s *SA, m message) {
	s.done(t)
	n, _ := wire.FindNotify(m.payloads, wire.NotifyCookie2)
	switch {
	case s.closing() || s.state != StateEstablished:
	case subtle.ConstantTimeCompare(n.Data, t.cookie) != 1:
		// RFC 4555 3.7: the answer is not what only a receiver at the new address could give.
		s.trace("the peer did not return the cookie")
		s.closeIKE(ike.ReasonPeerRefused)
	case s.local != t.local || s.remote != t.remote:
		s.enqueue(&routability{}, timeZero)
	default:
		s.moveChildren()
	}
}

// mobilityAnswer handles what an INFORMATIONAL request says about addresses. reply goes into the response; then, when not
// nil, is to be called after it was sent.
func (s *SA) mobilityAnswer(v *serving, m message) (reply []wire.Payload, then func()) {
	if !s.mobile {
		return nil, nil
	}
	if n, ok := wire.FindNotify(m.payloads, wire.NotifyCookie2); ok {
		reply = append(reply, wire.Notify{Type: wire.NotifyCookie2, Data: bytes.Clone(n.Data)})
	}
	_, update := wire.FindNotify(m.payloads, wire.NotifyUpdateSAAddresses)
	update = update && !s.origin.Initiator // RFC 4555 3.5: only the initiator decides
	if update {
		if refusal := s.refusePath(v, m.payloads); refusal != 0 {
			s.trace("refuse to move to %s: %s", v.remote, refusal)
			return append(reply, wire.Notify{Type: refusal}), nil
		}
	}
	_, asks := wire.FindNotify(m.payloads, wire.NotifyNATDetectionSourceIP)
	if asks { // RFC 4555 3.8
		reply = append(reply, s.natPayloads(v.local, v.remote)...)
	}
	told := s.readAdditional(m.payloads)
	switch {
	case update:
		return reply, func() { s.peerUpdated(v, m) }
	case s.leads() && told:
		return reply, func() { s.peerHas(v) }
	case s.leads() && asks && s.natLocal:
		return reply, func() { s.checkMapping(m.payloads) }
	}
	return reply, nil
}

// refusePath tells why the peer may not move to where a request came from; 0 when it may.
func (s *SA) refusePath(v *serving, payloads []wire.Payload) wire.NotifyType {
	if n, ok := wire.FindNotify(payloads, wire.NotifyNoNATsAllowed); ok && !bytes.Equal(n.Data, noNATs(v.remote, v.local)) {
		return wire.NotifyUnexpectedNATDetected
	}
	a := v.remote.Addr()
	switch {
	case a == s.remote.Addr() && v.remote.Port() != 0:
		return 0
	case !reachable(a) || v.remote.Port() == 0 || slices.Contains(s.host.Addresses(), a):
		return wire.NotifyUnacceptableAddresses
	}
	return 0
}

// peerUpdated follows the peer that decides about the path.
func (s *SA) peerUpdated(v *serving, m message) {
	if s.state != StateEstablished || s.closing() {
		return
	}
	elsewhere := v.remote.Addr() != s.remote.Addr()
	s.readNAT(m, v.local, v.remote)
	if s.local != v.local || s.remote != v.remote {
		s.relocate(v.local, v.remote)
	}
	if elsewhere {
		s.enqueue(&routability{}, timeZero)
		return
	}
	s.moveChildren()
}

// peerHas follows a peer that has told its addresses and is no longer where it was: what it sent the list from is one of
// them. Nothing but messages goes there before it has answered from there.
func (s *SA) peerHas(v *serving) {
	if s.state != StateEstablished || s.closing() || v.remote.Addr() == s.remote.Addr() || slices.Contains(s.others, s.remote.Addr()) ||
		!reachable(v.remote.Addr()) {
		return
	}
	s.left = s.left || s.remote.Addr() == s.home
	s.relocate(v.local, v.remote)
	s.wantUpdate()
}

// noteMapping remembers how the peer sees this side.
func (s *SA) noteMapping(payloads []wire.Payload) {
	if n, ok := wire.FindNotify(payloads, wire.NotifyNATDetectionDestinationIP); ok {
		s.mapping = bytes.Clone(n.Data)
	}
}

// checkMapping tells the peer the path anew when a NAT has changed its mapping (RFC 4555 3.8).
func (s *SA) checkMapping(payloads []wire.Payload) {
	n, ok := wire.FindNotify(payloads, wire.NotifyNATDetectionDestinationIP)
	if !ok || !s.leads() || !s.natLocal || bytes.Equal(n.Data, s.mapping) {
		return
	}
	s.trace("the NAT has changed its mapping, or it was not known")
	s.mapping = bytes.Clone(n.Data)
	s.wantUpdate()
}

// probe asks a peer behind a NAT, at the address that its ESP comes from, whether it has noticed that its mapping has
// changed.
type probe struct{ to netip.AddrPort }

func (*probe) rank() int { return rankLiveness }

func (t *probe) begin(s *SA) bool {
	if s.state != StateEstablished || t.to == s.remote {
		return false
	}
	s.request(wire.Informational, s.natPayloads(s.local, t.to)...)
	if s.win.pending != nil { // once there; if it is not the peer, the next ones go where the peer was last
		s.sendAll(s.local, t.to, s.win.pending.datagrams)
	}
	return true
}

func (t *probe) finish(s *SA, _ message) { s.done(t) }

// strayed handles authenticated ESP from an address that the peer has not told.
func (s *SA) strayed(remote netip.AddrPort) {
	if s.origin.Initiator || !s.natRemote || remote == s.remote || remote.Port() == 0 || s.now.Sub(s.probed) < probeEvery || s.state != StateEstablished {
		return
	}
	s.probed = s.now
	s.enqueue(&probe{remote}, timeZero)
	s.advance()
}

// handOverPath lets the successor of a rekeyed SA be where this one has moved since the successor was made, and tell or
// prove what this one has not finished.
func (s *SA) handOverPath(next *SA) {
	if s.moves > next.moves {
		next.others, next.left = s.others, s.left
		if next.local != s.local || next.remote != s.remote {
			next.relocate(s.local, s.remote)
		}
		next.moves = s.moves
	}
	for _, t := range s.tasks() {
		switch t.(type) {
		case *updateAddresses:
			next.wantUpdate()
		case *tellAddresses:
			next.enqueue(&tellAddresses{}, timeZero)
		case *routability:
			next.enqueue(&routability{}, timeZero)
		}
	}
}
