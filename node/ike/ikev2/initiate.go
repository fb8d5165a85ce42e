package ikev2

import (
	"bytes"
	"net/netip"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/impair"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

const (
	nonceLen = 32
	// initRounds bounds how often COOKIE and INVALID_KE_PAYLOAD may send IKE_SA_INIT back (RFC 7296 2.6.1).
	initRounds = 6
	cookieMax  = 64 // RFC 7296 2.6
	// usualPayloads is room for those of a message of the handshake.
	usualPayloads = 16
)

// handshake is what IKE_SA_INIT and IKE_AUTH need until the SA is established.
type handshake struct {
	flow *ike.Flow // initiator: the flow of the first Child SA
	rule *ike.Rule

	request, response []byte // IKE_SA_INIT as it was on the wire: AUTH covers it
	ni, nr            []byte
	group             proposal.Group
	private           any
	public            []byte
	peerPublic        []byte
	cookie            []byte
	natSource         []byte // what NAT_DETECTION_SOURCE_IP says: the request must not change but for the cookie
	rounds            int
	tried             []proposal.Group
	hashes            []wire.HashAlgorithm // announced by the peer
	childless         bool                 // announced by the responder (RFC 6023 3)
	announced         *announced           // what the peer accepts (RFC 9593); nil: unknown
	peerPPK, mixed    bool                 // the peer knows of postquantum preshared keys; one is in the keys (RFC 8784)
	refusal           refusal              // unprotected error, remembered until the timer ends

	intermediate
	shared     sa.Secret // responder with a KEM: the secret was known when IKE_SA_INIT was answered
	transcript bool      // AUTH covers both messages of IKE_SA_INIT
	keyed      bool      // keys are derived
	agreeing   bool
	early      []early // messages that wait for the keys
	octets     int     // in early
	answer     wire.SA // responder's choice
	first      *childRequest
	id         wire.ID // own
}

type refusal struct {
	reason ike.Reason
	detail string
}

// early is an authenticated-to-be message that came before the keys were computed.
type early struct {
	local, remote netip.AddrPort
	datagram      []byte
}

// Initiate starts an IKE SA for a flow, authenticated by one entry of the rule's list.
func Initiate(host Host, now time.Time, cfg *ike.Config, flow ike.Flow, rule ike.Rule, auth spd.Auth) *SA {
	port := cfg.Port
	if port == 0 {
		port = Port
	}
	s := newSA(host, now, cfg, true, netip.AddrPortFrom(flow.Local, port), netip.AddrPortFrom(flow.Remote, port))
	s.auth = auth
	s.hs = &handshake{flow: &flow, rule: &rule, ni: host.Random(nonceLen)}
	if len(cfg.Offers) == 0 {
		s.end(ike.ReasonNoOffers, ike.FaultLocal, "the policy offers no algorithms for IKE SAs")
		return s
	}
	s.giveUp = now.Add(jobTimeout)
	s.claimsHome(&rule)
	s.trace("initiate to %s for rule %q, offer %v, authenticate by %s", s.remote, rule.ID, cfg.Offers, auth.Method)
	s.generate(cfg.Offers[0].Group)
	return s
}

// Port and NATPort are the ports of IKE (RFC 7296 2.23).
const (
	Port    = 500
	NATPort = 4500
)

func (s *SA) generate(group proposal.Group) {
	hs := s.hs
	hs.group = group
	hs.tried = append(hs.tried, group)
	s.do(ike.Generate{Group: group}, func(r ike.Result) {
		g, ok := r.(ike.Generated)
		if !ok || g.Err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, "generate a key pair: "+resultError(g.Err))
			return
		}
		hs.private, hs.public = g.Private, g.Public
		s.sendInit()
	})
}

func resultError(err error) string {
	if err == nil {
		return "the job gave a result of another kind"
	}
	return err.Error()
}

// sendInit sends IKE_SA_INIT, the first time or again with a cookie or another group.
func (s *SA) sendInit() {
	hs := s.hs
	payloads := make([]wire.Payload, 0, usualPayloads)
	if hs.cookie != nil { // RFC 7296 2.6: the first payload
		payloads = append(payloads, wire.Notify{Type: wire.NotifyCookie, Data: hs.cookie})
	}
	payloads = append(payloads,
		wire.SAFromIKE(s.cfg.Offers, 0),
		wire.KE{Group: hs.group, Data: hs.public},
		wire.Nonce{Data: hs.ni})
	payloads = append(payloads, s.initNotifies()...)
	payloads = append(payloads, s.offerPPK()...)
	payloads = append(payloads, s.intermediateSupport(s.cfg.Offers)...)
	payloads = append(payloads, s.transcriptSupport()...)
	m := wire.Message{Header: s.header(wire.IKESAInit, 0, false), Payloads: payloads}
	hs.request = wire.AppendMessage(nil, m)
	s.traceMessage(ike.TraceSent, m)
	s.giveUp = time.Time{} // the retransmission timer takes over
	s.win.next = 1
	s.transmit(wire.IKESAInit, 0, sealed{datagrams: [][]byte{hs.request}})
}

// initNotifies are the notifies of both IKE_SA_INIT messages.
func (s *SA) initNotifies() []wire.Payload {
	source := suite.NATHash(s.spii(), s.spir(), s.local)
	if s.cfg.ForceEncap { // a hash that cannot match looks like a NAT to the peer
		if s.hs.natSource == nil { // RFC 7296 2.6: with a cookie nothing else of the request changes
			s.hs.natSource = s.host.Random(len(source))
		}
		source = s.hs.natSource
	}
	return []wire.Payload{
		wire.Notify{Type: wire.NotifyNATDetectionSourceIP, Data: source},
		wire.Notify{Type: wire.NotifyNATDetectionDestinationIP, Data: suite.NATHash(s.spii(), s.spir(), s.remote)},
		wire.Notify{Type: wire.NotifyFragmentationSupported},
		wire.Notify{Type: wire.NotifySignatureHashAlgorithms, Data: wire.AppendHashAlgorithms(nil, suite.SupportedHashes())},
	}
}

// readInitNotifies takes what both IKE_SA_INIT messages announce.
func (s *SA) readInitNotifies(m wire.Message, local, remote netip.AddrPort) {
	_, s.fragmentation = wire.FindNotify(m.Payloads, wire.NotifyFragmentationSupported)
	if n, ok := wire.FindNotify(m.Payloads, wire.NotifySignatureHashAlgorithms); ok {
		if hashes, err := wire.ParseHashAlgorithms(n.Data); err == nil {
			s.hs.hashes = hashes
		}
	}
	_, s.hs.peerPPK = wire.FindNotify(m.Payloads, wire.NotifyUsePPK)
	s.detectNAT(m, local, remote)
}

// detectNAT compares the hashes of the peer with the addresses seen here (RFC 7296 2.23).
func (s *SA) detectNAT(m wire.Message, local, remote netip.AddrPort) {
	sources, sourceSeen := 0, false
	wantSource := suite.NATHash(m.Header.SPIi, m.Header.SPIr, remote)
	wantDestination := suite.NATHash(m.Header.SPIi, m.Header.SPIr, local)
	for _, p := range m.Payloads {
		n, ok := p.(wire.Notify)
		switch {
		case !ok:
		case n.Type == wire.NotifyNATDetectionSourceIP: // there may be several, one of them must match
			sources++
			sourceSeen = sourceSeen || bytes.Equal(n.Data, wantSource)
		case n.Type == wire.NotifyNATDetectionDestinationIP:
			s.natLocal = !bytes.Equal(n.Data, wantDestination)
		}
	}
	s.natTraversal = sources > 0
	s.natRemote = sources > 0 && !sourceSeen
	s.encap = s.natLocal || s.natRemote || sources > 0 && s.cfg.ForceEncap
}

// receiveInitResponse handles the unprotected answer to IKE_SA_INIT.
func (s *SA) receiveInitResponse(local, remote netip.AddrPort, datagram []byte, m wire.Message) {
	hs := s.hs
	if s.state != StateKeyExchange || s.win.pending == nil || hs.peerPublic != nil ||
		m.Header.MessageID != 0 || remote.Addr() != s.remote.Addr() {
		return
	}
	s.traceMessage(ike.TraceReceived, m)
	s.note(Answered{})
	offer, hasSA := wire.Find[wire.SA](m.Payloads, nil)
	ke, hasKE := wire.Find[wire.KE](m.Payloads, nil)
	nonce, hasNonce := wire.Find[wire.Nonce](m.Payloads, nil)
	if !hasSA || !hasKE || !hasNonce {
		s.initRefused(m)
		return
	}
	chosen, _, err := wire.AcceptIKE(s.cfg.Offers, offer, false)
	switch {
	case m.Header.SPIr == 0:
		s.refuseLater(ike.ReasonSyntax, "IKE_SA_INIT response without responder SPI")
		return
	case err != nil:
		s.refuseLater(ike.ReasonNotOffered, "the peer chose what was not offered: "+err.Error())
		return
	case !s.intermediateAgreed(chosen, m):
		s.refuseLater(ike.ReasonNoProposal, "the peer chose additional key exchanges and does not know IKE_INTERMEDIATE")
		return
	case s.lacksPPK(m): // RFC 8784 3; the answer may be forged, so that a better one is waited for
		s.refuseLater(ike.ReasonNoPPK, "the peer does not know of postquantum preshared keys, and the rule wants one")
		return
	case ke.Group != hs.group || chosen.Group != hs.group: // RFC 7296 3.4: KE must agree with the chosen transform
		s.refuseLater(ike.ReasonInvalidKE, "the peer answered with another key exchange method than it chose")
		return
	}
	if err := suite.CheckNonce(chosen.PRF, nonce.Data); err != nil {
		s.refuseLater(ike.ReasonSyntax, err.Error())
		return
	}
	whole, ok := transcriptAgreed(s.cfg.Transcript, m)
	if !ok {
		s.refuseLater(ike.ReasonNoProposal, errNoTranscript)
		return
	}
	hs.transcript = whole
	s.win.pending = nil
	s.peer = m.Header.SPIr
	s.suite = chosen
	s.local = local
	hs.response = slices.Clone(datagram)
	hs.nr = slices.Clone(nonce.Data)
	hs.peerPublic = slices.Clone(ke.Data)
	s.initial = Exchange{Ni: hs.ni, Nr: hs.nr}
	s.trace("the peer chose %s", chosen)
	s.readInitNotifies(m, local, remote)
	s.readAnnounced(m.Payloads)
	s.chooseEntry()
	_, hs.childless = wire.FindNotify(m.Payloads, wire.NotifyChildlessIKEv2Supported)
	s.giveUp = s.now.Add(jobTimeout)
	s.agree(func() { s.nextIntermediate() })
}

// initRefused handles a response without SA, KE and nonce. Nothing of it is authenticated: only COOKIE and
// INVALID_KE_PAYLOAD are followed, the rest is remembered until the timer ends.
func (s *SA) initRefused(m wire.Message) {
	hs := s.hs
	if n, ok := wire.FindNotify(m.Payloads, wire.NotifyCookie); ok {
		if len(n.Data) == 0 || len(n.Data) > cookieMax || hs.rounds >= initRounds {
			return
		}
		hs.rounds++
		hs.cookie = slices.Clone(n.Data)
		s.sendInit()
		return
	}
	if n, ok := wire.FindNotify(m.Payloads, wire.NotifyInvalidKEPayload); ok {
		if len(n.Data) != 2 {
			return
		}
		group := proposal.Group(uint16(n.Data[0])<<8 | uint16(n.Data[1]))
		offered := slices.ContainsFunc(s.cfg.Offers, func(o proposal.IKE) bool { return o.Group == group })
		if !offered && !impair.On(impair.UnofferedGroup) || slices.Contains(hs.tried, group) || hs.rounds >= initRounds {
			s.refuseLater(ike.ReasonInvalidKE, "the peer wants a key exchange method that was not offered")
			return
		}
		hs.rounds++
		s.win.pending = nil
		s.giveUp = s.now.Add(jobTimeout)
		s.generate(group)
		return
	}
	for _, p := range m.Payloads {
		if n, ok := p.(wire.Notify); ok && n.Type.IsError() {
			s.refuseLater(reasonOf(n.Type), "the peer answered IKE_SA_INIT with "+n.Type.String())
			return
		}
	}
}

// refuseLater remembers an error that anyone on the path can forge; it counts when no better answer comes.
func (s *SA) refuseLater(reason ike.Reason, detail string) {
	if s.hs.refusal.reason == ike.ReasonNone {
		s.hs.refusal = refusal{reason, detail}
		s.trace("remember refusal: %s", describe(reason, detail))
		s.note(RefusalSeen{Reason: reason, Detail: detail})
	}
}

// agree computes the shared secret and the keys, then goes on.
func (s *SA) agree(then func()) {
	hs := s.hs
	derive := func(shared sa.Secret) {
		keys, err := suite.DeriveIKE(s.suite, shared, hs.ni, hs.nr, s.spii(), s.spir())
		if err == nil {
			err = s.protect(keys)
		}
		shared.Wipe()
		if err != nil {
			s.end(ike.ReasonInternal, ike.FaultLocal, "derive the keys of the IKE SA: "+err.Error())
			return
		}
		hs.keyed = true
		s.beginIntermediate()
		then()
	}
	if hs.shared.Len() > 0 {
		hs.agreeing = false
		derive(hs.shared)
		return
	}
	s.do(ike.Agree{Group: hs.group, Private: hs.private, Peer: hs.peerPublic}, func(r ike.Result) {
		a, ok := r.(ike.Agreed)
		hs.private, hs.agreeing = nil, false
		if !ok || a.Err != nil {
			s.end(ike.ReasonInvalidKE, ike.FaultPeer, "compute the shared secret: "+resultError(a.Err))
			return
		}
		derive(a.Shared)
	})
}

// float moves to port 4500 when there is a NAT or encapsulation is wanted (RFC 7296 2.23), and when the SA may move: a
// NAT may be on its way later (RFC 4555 3.3).
func (s *SA) float() {
	if !s.encap && (s.cfg.Mobility == ike.MobilityOff || !s.natTraversal) {
		return
	}
	port := s.natPort()
	plain := s.cfg.Port
	if plain == 0 {
		plain = Port
	}
	if s.local.Port() == plain {
		s.local = netip.AddrPortFrom(s.local.Addr(), port)
		s.remote = netip.AddrPortFrom(s.remote.Addr(), port)
	}
}

// wantsTransport reports whether the rule makes transport mode Child SAs.
func wantsTransport(r *ike.Rule) bool { return r.Mode == sa.Transport }
