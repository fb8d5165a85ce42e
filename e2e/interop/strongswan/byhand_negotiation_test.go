package strongswan

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// TestCookiesByHand asks for an SA under load: the cookie is given, must come back as it was, from the same address and
// for the same SPI and nonce, and is ignored where nobody asked for it (RFC 7296 2.6).
func TestCookiesByHand(t *testing.T) {
	t.Parallel()
	shows(t, 23)
	with := func(cookie []byte) func([]wire.Payload) []wire.Payload {
		return func(p []wire.Payload) []wire.Payload {
			return append([]wire.Payload{wire.Notify{Type: wire.NotifyCookie, Data: cookie}}, p...)
		}
	}
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		peer.Init(with([]byte("nobody asked for this")))
		answer := peer.Request(wire.IKEAuth, peer.AuthRequest(x.local, x.remote, ownSPI)...)
		if _, ok := handmade.Child(answer); !ok {
			t.Fatalf("after an unsolicited cookie IKE_AUTH is answered with %s", wire.Message{Payloads: answer})
		}
		for range 4 { // half-open ones, until it is too much
			peer.Reset()
			peer.Init()
		}
		peer.Reset()
		cookieOf := func(what string, change ...func([]wire.Payload) []wire.Payload) []byte {
			t.Helper()
			peer.Send(peer.InitRequest(change...))
			m, _ := peer.Expect("the answer to " + what)
			n, ok := wire.FindNotify(m.Payloads, wire.NotifyCookie)
			if !ok || len(m.Payloads) != 1 || m.Header.SPIr != 0 || len(n.Data) == 0 || len(n.Data) > 64 {
				t.Fatalf("%s is answered with %s, SPIr %s, want a cookie alone", what, m, m.Header.SPIr)
			}
			return n.Data
		}
		cookie := cookieOf("a request under load")
		mangled := slices.Clone(cookie)
		mangled[len(mangled)-1] ^= 1
		again := cookieOf("a mangled cookie", with(mangled))
		if bytes.Equal(again, mangled) {
			t.Error("the mangled cookie comes back as it is")
		}
		if x.isNode { // the same for another SPI is worth nothing
			spi := peer.SPIi
			peer.SPIi ^= 1
			cookieOf("the cookie of another SPI", with(cookie))
			peer.SPIi = spi
		}
		peer.Init(with(cookie))
		answer = peer.Request(wire.IKEAuth, peer.AuthRequest(x.local, x.remote, ownSPI+1)...)
		if _, ok := handmade.Child(answer); !ok {
			t.Errorf("with the cookie IKE_AUTH is answered with %s", wire.Message{Payloads: answer})
		}
		peer.Alive()
	}, pair.Option("cookie_threshold", "4"), pair.Option("cookie_threshold_ip", "4"), pair.Option("block_threshold", "50"))
	t.Run("initiator", func(t *testing.T) {
		x, peer, m, first := asked(t)
		// Neither an empty cookie nor one that is too long is one (RFC 7296 2.6): the request is repeated as it was.
		for _, bad := range [][]byte{{}, handmade.Random(65)} {
			peer.AnswerUnprotected(m, 0, wire.Notify{Type: wire.NotifyCookie, Data: bad})
		}
		m = unchanged(t, peer, first)
		cookie := handmade.Random(64)
		peer.AnswerUnprotected(m, 0, wire.Notify{Type: wire.NotifyCookie, Data: cookie})
		m, datagram := peer.AwaitInit()
		n, ok := m.Payloads[0].(wire.Notify)
		if !ok || n.Type != wire.NotifyCookie || !bytes.Equal(n.Data, cookie) {
			t.Fatalf("the cookie does not come back as the first payload: %s", m)
		}
		// Apart from the cookie nothing may change (RFC 7296 2.6): what follows the 8 + 64 octets is the request.
		if !bytes.Equal(datagram[wire.HeaderLen+72:], first[wire.HeaderLen:]) || !bytes.Equal(datagram[:16], first[:16]) {
			t.Error("with the cookie the request changed")
		}
		x.completes(peer, m, datagram)
	})
}

// TestInvalidKEByHand answers the node with groups that it did not offer, and rekeys its IKE SA with one that it does not
// take (RFC 7296 1.2, 2.18).
func TestInvalidKEByHand(t *testing.T) {
	t.Parallel()
	shows(t, 22)
	t.Run("initiator", func(t *testing.T) {
		x, peer, m, first := asked(t)
		// Nobody but an attacker asks for what was not offered, or for what was tried: no key exchange is made with it.
		for _, group := range []byte{2, 14, 20} {
			peer.AnswerUnprotected(m, 0, wire.Notify{Type: wire.NotifyInvalidKEPayload, Data: []byte{0, group}})
		}
		m = unchanged(t, peer, first)
		x.Fails(pair.PeerOuter, ike.ReasonInvalidKE)
		x.completes(peer, m, first)
	})
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		x.establish(peer)
		for _, group := range []proposal.Group{proposal.GroupX25519, proposal.GroupECP384} {
			private, public, err := suite.NewKeyExchange(group)
			if err != nil {
				t.Fatal(err)
			}
			ni := handmade.Random(32)
			spi := wire.SPI(0x1122334455667788)
			answer := peer.Request(wire.CreateChildSA, wire.SAFromIKE([]proposal.IKE{gcm256}, spi), wire.Nonce{Data: ni}, wire.KE{Group: group, Data: public})
			if group != gcm256.Group {
				n, ok := wire.FindNotify(answer, wire.NotifyInvalidKEPayload)
				if !ok || !bytes.Equal(n.Data, []byte{0, byte(gcm256.Group)}) {
					t.Fatalf("a rekey with another group is answered with %s, data %x", wire.Message{Payloads: answer}, n.Data)
				}
				peer.Alive()
				continue
			}
			ke, _ := wire.Find[wire.KE](answer, nil)
			nonce, _ := wire.Find[wire.Nonce](answer, nil)
			offered, _ := wire.Find[wire.SA](answer, nil)
			_, spir, err := wire.AcceptIKE([]proposal.IKE{gcm256}, offered, true)
			if err != nil {
				t.Fatalf("the rekey is answered with %s: %v", wire.Message{Payloads: answer}, err)
			}
			shared, err := suite.Agree(private, ke.Data)
			if err != nil {
				t.Fatal(err)
			}
			keys, err := suite.RekeyIKE(gcm256, gcm256.PRF, peer.Keys.D, shared, ni, nonce.Data, spi, spir)
			if err != nil {
				t.Fatal(err)
			}
			peer.Request(wire.Informational, wire.Delete{Protocol: wire.ProtocolIKE})
			peer.Continue(spi, spir, keys)
			peer.Alive()
		}
	})
}

// TestProposalsByHand offers what is no proposal: transforms twice, missing, of unknown algorithms, for another protocol.
// Nothing of it is chosen; what is good beside it is (RFC 7296 3.3).
func TestProposalsByHand(t *testing.T) {
	shows(t, 24)
	good := wire.SAFromIKE([]proposal.IKE{gcm256}, 0).Proposals[0]
	change := func(f func(p *wire.Proposal)) wire.Proposal {
		p := good
		p.Transforms = slices.Clone(good.Transforms)
		f(&p)
		return p
	}
	without := func(kind wire.TransformType) wire.Proposal {
		return change(func(p *wire.Proposal) {
			p.Transforms = slices.DeleteFunc(p.Transforms, func(t wire.Transform) bool { return t.Type == kind })
		})
	}
	bad := map[string]wire.Proposal{
		"no-encryption":   without(wire.TransformEncryption),
		"no-prf":          without(wire.TransformPRF),
		"no-key-exchange": without(wire.TransformGroup),
		"no-key-length": change(func(p *wire.Proposal) {
			for i := range p.Transforms {
				p.Transforms[i].KeyBits = 0
			}
		}),
		"unknown-attribute": change(func(p *wire.Proposal) {
			p.Transforms[0].Other = []wire.Attribute{{Type: 99, Fixed: true, Value: []byte{0, 1}}}
		}),
		"unknown-type": change(func(p *wire.Proposal) { p.Transforms = append(p.Transforms, wire.Transform{Type: 77, ID: 1}) }),
		"des":          change(func(p *wire.Proposal) { p.Transforms[0] = wire.Transform{Type: wire.TransformEncryption, ID: 2} }),
		"esp":          change(func(p *wire.Proposal) { p.Protocol, p.SPI = wire.ProtocolESP, []byte{1, 2, 3, 4} }),
	}
	x := againstNode(t, pair.Policy{})
	peer := handmade.New(t, x.config)
	offer := func(proposals ...wire.Proposal) func([]wire.Payload) []wire.Payload {
		for i := range proposals {
			proposals[i].Number = uint8(i + 1)
		}
		return func(p []wire.Payload) []wire.Payload { p[0] = wire.SA{Proposals: proposals}; return p }
	}
	for name, p := range bad {
		peer.Reset()
		m, _ := peer.Ask("the proposal "+name, peer.InitRequest(offer(p)))
		if _, ok := wire.FindNotify(m.Payloads, wire.NotifyNoProposalChosen); !ok || len(m.Payloads) != 1 || m.Header.SPIr != 0 {
			t.Errorf("proposal %s is answered with %s, want NO_PROPOSAL_CHOSEN alone", name, m)
		}
	}
	x.Fails(pair.PeerOuter, ike.ReasonNoProposal)
	// All of them, then a good one with its transforms twice: that one is chosen, each transform once.
	list := []wire.Proposal{}
	for _, p := range bad {
		list = append(list, p)
	}
	twice := change(func(p *wire.Proposal) { p.Transforms = append(p.Transforms, p.Transforms...) })
	peer.Reset()
	m := peer.Init(offer(append(list, twice)...))
	chosen, _ := wire.Find[wire.SA](m.Payloads, nil)
	if len(chosen.Proposals) != 1 || int(chosen.Proposals[0].Number) != len(list)+1 || len(chosen.Proposals[0].Transforms) != len(good.Transforms) {
		t.Errorf("chosen is %+v, want proposal %d with each transform once", chosen, len(list)+1)
	}
	// The Child SA alone is refused; the IKE SA stands and makes a good one.
	request := peer.AuthRequest(x.local, x.remote, ownSPI)
	i := slices.IndexFunc(request, func(p wire.Payload) bool { return p.PayloadType() == wire.TypeSA })
	esp := request[i].(wire.SA)
	broken := esp.Proposals[0]
	broken.Transforms = slices.DeleteFunc(slices.Clone(broken.Transforms), func(t wire.Transform) bool { return t.Type == wire.TransformEncryption })
	request[i] = wire.SA{Proposals: []wire.Proposal{broken}}
	answer := peer.Request(wire.IKEAuth, request...)
	_, authenticated := wire.Find[wire.Auth](answer, nil)
	if _, ok := wire.FindNotify(answer, wire.NotifyNoProposalChosen); !ok || !authenticated {
		t.Errorf("ESP without encryption is answered with %s, want NO_PROPOSAL_CHOSEN in an IKE SA that stands", wire.Message{Payloads: answer})
	}
	answer = peer.Request(wire.CreateChildSA, append(handmade.ChildRequest(x.local, x.remote, ownSPI), wire.Nonce{Data: handmade.Random(32)})...)
	if _, ok := handmade.Child(answer); !ok {
		t.Errorf("the good Child SA is answered with %s", wire.Message{Payloads: answer})
	}
}

// TestRekeySelectors rekeys a Child SA with selectors that are wider than before, as Windows does, then narrower, then
// others. What is in use never grows (RFC 7296 2.8, 2.9.2).
func TestRekeySelectors(t *testing.T) {
	t.Parallel()
	shows(t, 33)
	targets(t, func(t *testing.T, x *target) {
		peer := handmade.New(t, x.config)
		x.establish(peer)
		old := sa.SPI(ownSPI)
		rekey := func(spi sa.SPI, own, other netip.Prefix) []wire.Payload {
			request := []wire.Payload{wire.Notify{Type: wire.NotifyRekeySA, Protocol: wire.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, uint32(old))}, wire.Nonce{Data: handmade.Random(32)}}
			return peer.Request(wire.CreateChildSA, append(request, handmade.ChildRequest(own, other, spi)...)...)
		}
		everything := netip.MustParsePrefix("0.0.0.0/0")
		answer := rekey(ownSPI+1, everything, everything)
		if _, ok := handmade.Child(answer); !ok {
			t.Fatalf("a rekey for everything is answered with %s", wire.Message{Payloads: answer})
		}
		x.same(t, answer, x.local, x.remote)
		peer.Request(wire.Informational, wire.Delete{Protocol: wire.ProtocolESP, SPIs: []sa.SPI{old}})
		old++
		half := netip.PrefixFrom(x.local.Addr(), 25)
		answer = rekey(ownSPI+2, half, x.remote)
		x.same(t, answer, half, x.remote)
		peer.Request(wire.Informational, wire.Delete{Protocol: wire.ProtocolESP, SPIs: []sa.SPI{old}})
		old++
		answer = rekey(ownSPI+3, otherNet, x.remote)
		if _, ok := wire.FindNotify(answer, wire.NotifyTSUnacceptable); !ok {
			t.Errorf("a rekey for another network is answered with %s", wire.Message{Payloads: answer})
		}
		peer.Alive()
		if x.isNode {
			children := x.Ours().Children
			if len(children) != 1 || !slices.Equal(children[0].RemoteTS, []string{half.String()}) {
				t.Errorf("the node has %+v, want one child to %s", children, half)
			}
		}
	})
}

// same requires the selectors of an answer.
func (x *target) same(t *testing.T, answer []wire.Payload, own, other netip.Prefix) {
	t.Helper()
	for _, want := range []wire.TS{handmade.Selectors(false, own), handmade.Selectors(true, other)} {
		got, _ := wire.Find(answer, func(ts wire.TS) bool { return ts.Responder == want.Responder })
		if !slices.Equal(got.Selectors, want.Selectors) {
			t.Errorf("the answer is for %v, want %v", got.Selectors, want.Selectors)
		}
	}
}

// TestRedirect sends the node elsewhere at every point where a gateway may (RFC 5685). It never announced that it would
// go: in clear such a message would be a gift to whoever is on the path.
func TestRedirect(t *testing.T) {
	t.Parallel()
	shows(t, 54)
	gateway := wire.Notify{Type: wire.NotifyRedirect, Data: append([]byte{1, 4}, 10, 9, 0, 99)} // an IPv4 address
	t.Run("initiator", func(t *testing.T) {
		x, peer, m, first := asked(t)
		if _, ok := wire.FindNotify(m.Payloads, wire.NotifyRedirectSupported); ok {
			t.Error("the node announces that it can be redirected")
		}
		peer.AnswerUnprotected(m, 0, gateway)
		peer.Respond(unchanged(t, peer, first), first)
		peer.AnswerAuth(ownSPI, gateway)
		if answer := peer.Request(wire.Informational, gateway); len(answer) != 0 {
			t.Errorf("a redirect is answered with %s", wire.Message{Payloads: answer})
		}
		peer.Alive()
		if ours := x.Ours(); len(ours.IKE) != 1 || len(ours.Children) != 1 || ours.IKE[0].Remote != x.config.Local.String() {
			t.Errorf("the node has %+v, want one IKE SA with the peer that it had", ours)
		}
	})
	t.Run("responder", func(t *testing.T) {
		x := againstNode(t, pair.Policy{})
		peer := handmade.New(t, x.config)
		peer.Announce = []wire.Payload{wire.Notify{Type: wire.NotifyRedirectSupported}}
		if m := peer.Init(); slices.ContainsFunc(m.Payloads, func(p wire.Payload) bool {
			n, ok := p.(wire.Notify)
			return ok && n.Type == wire.NotifyRedirect
		}) {
			t.Errorf("the node redirects: %s", m)
		}
	})
}

// TestConfigurationByHand asks the node for an address (RFC 7296 3.15): it has none to give, ignores the payload and makes
// the Child SA that its policy knows.
func TestConfigurationByHand(t *testing.T) {
	shows(t, 55)
	x := againstNode(t, pair.Policy{})
	peer := handmade.New(t, x.config)
	peer.Init()
	request := append(peer.AuthRequest(x.local, x.remote, ownSPI), wire.Config{Type: wire.ConfigRequest, Attributes: []wire.ConfigAttribute{{Type: 1}, {Type: 3}}})
	answer := peer.Request(wire.IKEAuth, request...)
	if _, ok := handmade.Child(answer); !ok {
		t.Fatalf("IKE_AUTH with a configuration request is answered with %s", wire.Message{Payloads: answer})
	}
	if _, ok := wire.Find[wire.Config](answer, nil); ok {
		t.Error("the node answers a configuration request")
	}
	if answer := peer.Request(wire.Informational, wire.Config{Type: wire.ConfigSet, Attributes: []wire.ConfigAttribute{{Type: 1, Value: []byte{10, 1, 0, 9}}}}); len(answer) != 0 {
		t.Errorf("a configuration that the peer sets is answered with %s", wire.Message{Payloads: answer})
	}
	peer.Alive()
}
