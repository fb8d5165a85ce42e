package handmade

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// InitRequest makes an IKE_SA_INIT request. change may replace its payloads.
func (p *Peer) InitRequest(change ...func([]wire.Payload) []wire.Payload) []byte {
	payloads := []wire.Payload{
		wire.SAFromIKE([]proposal.IKE{p.cfg.Offer}, 0),
		wire.KE{Group: p.cfg.Offer.Group, Data: p.public},
		wire.Nonce{Data: p.Ni},
	}
	payloads = append(payloads, p.detection(p.SPIi, 0)...)
	payloads = append(payloads, p.Announce...)
	for _, c := range change {
		payloads = c(payloads)
	}
	h := p.header(wire.IKESAInit, 0, false)
	h.SPIr = 0
	return wire.AppendMessage(nil, wire.Message{Header: h, Payloads: payloads})
}

// detection are the hashes of the addresses (RFC 7296 2.23). On port 500 the peer does not speak of NAT, so that nobody
// moves away from there.
func (p *Peer) detection(spii, spir wire.SPI) []wire.Payload {
	if p.cfg.Local.Port() != 4500 {
		return nil
	}
	return []wire.Payload{
		wire.Notify{Type: wire.NotifyNATDetectionSourceIP, Data: suite.NATHash(spii, spir, p.cfg.Local)},
		wire.Notify{Type: wire.NotifyNATDetectionDestinationIP, Data: suite.NATHash(spii, spir, p.cfg.Remote)},
	}
}

// Init does IKE_SA_INIT as initiator and returns the response.
func (p *Peer) Init(change ...func([]wire.Payload) []wire.Payload) wire.Message {
	p.t.Helper()
	request := p.InitRequest(change...)
	p.Send(request)
	m, datagram := p.Expect("the response to IKE_SA_INIT")
	p.Accept(request, m, datagram)
	return m
}

// Accept takes the response to an IKE_SA_INIT request that was sent by hand.
func (p *Peer) Accept(request []byte, m wire.Message, datagram []byte) {
	p.t.Helper()
	ke, hasKE := wire.Find[wire.KE](m.Payloads, nil)
	nonce, hasNonce := wire.Find[wire.Nonce](m.Payloads, nil)
	if !m.Header.Response() || m.Header.Exchange != wire.IKESAInit || !hasKE || !hasNonce {
		p.t.Fatalf("IKE_SA_INIT is answered with %s", m)
	}
	p.request, p.response = request, datagram
	p.SPIr, p.Nr, p.next = m.Header.SPIr, slices.Clone(nonce.Data), 1
	p.derive(ke.Data)
}

// AuthRequest are the payloads of IKE_AUTH that authenticate the peer and ask for a Child SA between two networks.
func (p *Peer) AuthRequest(own, other netip.Prefix, spi sa.SPI) []wire.Payload {
	p.t.Helper()
	id := wire.ID{Type: wire.IDFQDN, Data: []byte(p.cfg.ID)}
	payloads := []wire.Payload{id, p.auth(p.request, p.Nr, p.Keys.PI, id)}
	return append(payloads, ChildRequest(own, other, spi)...)
}

func (p *Peer) auth(message, nonce []byte, skp sa.Secret, id wire.ID) wire.Auth {
	p.t.Helper()
	octets, err := suite.OctetsToSign(p.cfg.Offer.PRF, nonce, skp, id, message)
	if err != nil {
		p.t.Fatal(err)
	}
	data, err := suite.PSKAuth(p.cfg.Offer.PRF, p.secret(), octets)
	if err != nil {
		p.t.Fatal(err)
	}
	return wire.Auth{Method: wire.AuthSharedKey, Data: data}
}

// ESP is what the peer offers for Child SAs.
var esp = []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 256}}

// ChildRequest are the payloads that ask for a Child SA; the initiator's network comes first.
func ChildRequest(own, other netip.Prefix, spi sa.SPI) []wire.Payload {
	return []wire.Payload{wire.SAFromESP(esp, spi, false), Selectors(false, own), Selectors(true, other)}
}

// Selectors is a TS payload of networks.
func Selectors(responder bool, networks ...netip.Prefix) wire.TS {
	ts := wire.TS{Responder: responder}
	for _, n := range networks {
		from := n.Masked().Addr()
		to := from.AsSlice()
		for bit := n.Bits(); bit < from.BitLen(); bit++ {
			to[bit/8] |= 0x80 >> (bit % 8)
		}
		last, _ := netip.AddrFromSlice(to)
		ts.Selectors = append(ts.Selectors, sa.Selector{From: from, To: last, PortTo: 65535})
	}
	return ts
}

// Establish does IKE_SA_INIT and IKE_AUTH as initiator and returns what the response to the latter holds. The other side
// must prove its identity with the preshared key.
func (p *Peer) Establish(own, other netip.Prefix, spi sa.SPI) []wire.Payload {
	p.t.Helper()
	p.Init()
	answer := p.Request(wire.IKEAuth, p.AuthRequest(own, other, spi)...)
	id, hasID := wire.Find(answer, func(i wire.ID) bool { return i.Responder })
	auth, hasAuth := wire.Find[wire.Auth](answer, nil)
	if !hasID || !hasAuth {
		p.t.Fatalf("IKE_AUTH is answered with %s", wire.Message{Payloads: answer})
	}
	octets, err := suite.OctetsToSign(p.cfg.Offer.PRF, p.Ni, p.Keys.PR, id, p.response)
	if err == nil {
		err = suite.VerifyPSK(p.cfg.Offer.PRF, p.secret(), octets, auth.Data)
	}
	if err != nil {
		p.t.Fatalf("%s does not prove its identity: %v", id.Data, err)
	}
	return answer
}

// Child returns the inbound SPI of the other side in the answer to a request for a Child SA.
func Child(payloads []wire.Payload) (spi sa.SPI, ok bool) {
	answer, found := wire.Find[wire.SA](payloads, nil)
	if !found || len(answer.Proposals) != 1 || len(answer.Proposals[0].SPI) != 4 {
		return 0, false
	}
	return sa.SPI(binary.BigEndian.Uint32(answer.Proposals[0].SPI)), true
}

// AwaitInit waits for an IKE_SA_INIT request of the other side, which the peer has not answered yet.
func (p *Peer) AwaitInit() (wire.Message, []byte) {
	p.t.Helper()
	for {
		m, datagram := p.Expect("an IKE_SA_INIT request")
		if m.Header.Exchange == wire.IKESAInit && !m.Header.Response() {
			return m, datagram
		}
	}
}

// AnswerUnprotected answers an IKE_SA_INIT request with payloads, as a responder that keeps nothing.
func (p *Peer) AnswerUnprotected(m wire.Message, spir wire.SPI, payloads ...wire.Payload) []byte {
	h := wire.Header{SPIi: m.Header.SPIi, SPIr: spir, Exchange: wire.IKESAInit, Flags: wire.FlagResponse}
	d := wire.AppendMessage(nil, wire.Message{Header: h, Payloads: payloads})
	p.Send(d)
	return d
}

// InitAnswer are the payloads of a proper response to an IKE_SA_INIT request. The peer is responder from then on.
func (p *Peer) InitAnswer(m wire.Message) []wire.Payload {
	p.t.Helper()
	offered, _ := wire.Find[wire.SA](m.Payloads, nil)
	ke, _ := wire.Find[wire.KE](m.Payloads, nil)
	nonce, _ := wire.Find[wire.Nonce](m.Payloads, nil)
	chosen, number, ok := wire.ChooseIKE([]proposal.IKE{p.cfg.Offer}, offered)
	if !ok || ke.Group != chosen.Group {
		p.t.Fatalf("%s offers %+v with group %s, want %s", m, offered, ke.Group, p.cfg.Offer)
	}
	p.Initiator, p.SPIi, p.SPIr = false, m.Header.SPIi, wire.SPI(binary.BigEndian.Uint64(Random(8)))
	p.Ni, p.Nr, p.next = slices.Clone(nonce.Data), Random(32), 0
	payloads := []wire.Payload{wire.AnswerIKE(chosen, number, offered, 0), wire.KE{Group: chosen.Group, Data: p.public}, wire.Nonce{Data: p.Nr}}
	return append(append(payloads, p.detection(p.SPIi, p.SPIr)...), p.Announce...)
}

// Respond answers an IKE_SA_INIT request properly.
func (p *Peer) Respond(m wire.Message, datagram []byte, more ...wire.Payload) {
	p.t.Helper()
	payloads := append(p.InitAnswer(m), more...)
	p.request, p.response = slices.Clone(datagram), p.AnswerUnprotected(m, p.SPIr, payloads...)
	ke, _ := wire.Find[wire.KE](m.Payloads, nil)
	p.derive(ke.Data)
}

// AnswerAuth waits for IKE_AUTH and authenticates back; the Child SA that was asked for is made, and more is added to the
// answer.
func (p *Peer) AnswerAuth(spi sa.SPI, more ...wire.Payload) []wire.Payload {
	p.t.Helper()
	return p.Await(wire.IKEAuth, func(request []wire.Payload) []wire.Payload {
		id := wire.ID{Responder: true, Type: wire.IDFQDN, Data: []byte(p.cfg.ID)}
		answer := []wire.Payload{id, p.auth(p.response, p.Ni, p.Keys.PR, id)}
		return append(append(answer, p.AnswerChild(request, spi)...), more...)
	})
}

// AnswerChild are the payloads that agree to a request for a Child SA.
func (p *Peer) AnswerChild(request []wire.Payload, spi sa.SPI) []wire.Payload {
	p.t.Helper()
	offered, _ := wire.Find[wire.SA](request, nil)
	chosen, number, ok := wire.ChooseESP(esp, offered, false)
	if !ok {
		p.t.Fatalf("the Child SA is offered as %+v, want %s", offered, esp[0])
	}
	i, _ := wire.Find(request, func(t wire.TS) bool { return !t.Responder })
	r, _ := wire.Find(request, func(t wire.TS) bool { return t.Responder })
	return []wire.Payload{wire.AnswerESP(chosen, number, offered, spi), i, r}
}
