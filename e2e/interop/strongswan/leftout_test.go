package strongswan

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// ends changes the sections of both ends of strongSwan's connection.
func ends(local, remote map[string]string) func(*charon.Config) {
	return func(c *charon.Config) {
		c.Connections[0].LocalSettings, c.Connections[0].RemoteSettings = local, remote
	}
}

// sections adds text to strongSwan's connection, and to its configuration.
func sections(connection, config string) func(*charon.Config) {
	return func(c *charon.Config) { c.Connections[0].Sections, c.Sections = connection, config }
}

// load loads further plugins.
func load(plugins string) func(*charon.Config) {
	return func(c *charon.Config) { c.Load += " " + plugins }
}

// TestAuthenticationLeftOut meets peers that authenticate in ways that the node does not have: EAP, several rounds, raw
// keys. They are refused, and both sides know why; nothing is made and nothing goes in clear.
func TestAuthenticationLeftOut(t *testing.T) {
	t.Parallel()
	shows(t, 18, 20, 21)
	secret := "secrets {\n  eap-peer {\n    id = " + pair.PeerName + "\n    secret = \"an EAP password\"\n  }\n  eap-node {\n    id = " + pair.NodeName + "\n    secret = \"an EAP password\"\n  }\n}\n"
	for _, c := range []struct {
		name   string
		policy pair.Policy
		peer   func(*testing.T, peers) charon.Config
		from   pair.Side
		reason ike.Reason
		logged string // what strongSwan says
	}{
		{
			name: "eap-client", from: pair.FromPeer, reason: ike.ReasonAuthFailed, logged: "received AUTHENTICATION_FAILED notify error",
			peer: func(*testing.T, peers) charon.Config {
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, load("eap-identity eap-md5"), sections("", secret), ends(map[string]string{"auth": "eap-md5"}, nil))
			},
		},
		{
			name: "eap-server", from: pair.FromNode, reason: ike.ReasonAuthRefused, logged: "constraint requires EAP_MD5",
			peer: func(*testing.T, peers) charon.Config {
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, load("eap-identity eap-md5"), sections("", secret), ends(nil, map[string]string{"auth": "eap-md5"}))
			},
		},
		{
			name: "second-round-of-the-node", from: pair.FromNode, reason: ike.ReasonAuthRefused, logged: "AUTH_FAILED",
			peer: func(*testing.T, peers) charon.Config {
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, sections("remote-2 {\n auth = psk\n id = user@bank.example\n}", ""))
			},
		},
		{
			name: "raw-key", from: pair.FromPeer, reason: ike.ReasonCertInvalid, logged: "received AUTHENTICATION_FAILED notify error",
			policy: pair.Policy{Authenticate: pair.ByCertificate},
			peer: func(t *testing.T, p peers) charon.Config {
				p.Join(catest.New(t))
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, rawKey(t))
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t)
			p.StartPeer(c.peer(t, p))
			p.StartNode(c.policy)
			p.Quiet()
			p.Refused(c.from)
			p.Fails(pair.PeerOuter, c.reason)
			p.Logged(c.logged)
			if ours := p.Ours(); len(ours.Children) != 0 {
				t.Errorf("the node has %+v, want no child", ours)
			}
		})
	}
}

// rawKey lets strongSwan authenticate with a key without certificate (RFC 7670).
func rawKey(t *testing.T) func(*charon.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *charon.Config) {
		c.Files = map[string][]byte{
			"pubkey/peer.pem":  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
			"private/peer.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		}
		c.Connections[0].LocalSettings = map[string]string{"auth": "pubkey", "pubkeys": "peer.pem"}
		c.Connections[0].RemoteSettings = map[string]string{"auth": "pubkey"}
	}
}

// TestVirtualAddress meets a strongSwan that asks for an address, and one that would give one (RFC 7296 3.15).
func TestVirtualAddress(t *testing.T) {
	t.Parallel()
	shows(t, 55)
	t.Run("peer-asks", func(t *testing.T) {
		p := ready(t, pair.Policy{}, pair.Connection("vips", "0.0.0.0"))
		p.Quiet()
		if err := p.Charon.Initiate(p.Ctx, pair.NetName); err != nil {
			t.Fatal(err)
		}
		p.Logged("CPRQ(ADDR")
		p.Talk(pair.FromNode)
		p.Talk(pair.FromPeer)
		theirs, _ := p.Agree(pair.FromPeer)
		if got := theirs.Children[0].LocalTS; len(got) != 1 || got[0] != pair.PeerNet.String() {
			t.Errorf("strongSwan's side is %v, want %s", got, pair.PeerNet)
		}
	})
	t.Run("peer-gives", func(t *testing.T) {
		p := ready(t, pair.Policy{}, pair.Connection("pools", "lan"), sections("", "pools {\n lan {\n addrs = 10.66.0.0/24\n }\n}\n"))
		p.BringUp(pair.FromNode)
		p.Talk(pair.FromPeer)
		out, err := p.Node.Run("ip", "-o", "addr")
		if err != nil || strings.Contains(out, "10.66.") {
			t.Errorf("the node has addresses %s (%v), want none of the peer's", out, err)
		}
		p.Agree(pair.FromNode)
	})
}

// TestIKEv1 meets peers that speak the version before. They get no answer but that there is none, once a second at the
// most; the node makes no state of it, counts it, and goes on with a peer that speaks IKEv2.
func TestIKEv1(t *testing.T) {
	t.Parallel()
	shows(t, 58, 59, 60)
	for name, settings := range map[string]map[string]string{
		"main": {}, "aggressive": {"aggressive": "yes"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			change := []func(*charon.Config){pair.Connection("version", "1"), pair.Connection("keyingtries", "1"), pair.Option("retransmit_tries", "1"), pair.Option("retransmit_timeout", "0.5"), pair.Option("i_dont_care_about_security_and_use_aggressive_mode_psk", "yes")}
			for k, v := range settings {
				change = append(change, pair.Connection(k, v))
			}
			config := partner("aes256-sha256-modp2048", "aes256-sha256", change...)
			second := partner(pair.UsualPeerIKE, pair.UsualPeerESP).Connections[0]
			second.Name, second.Children[0].Name = "second", "second"
			config.Connections = append(config.Connections, second)
			p.StartPeer(config)
			p.StartNode(pair.Policy{})
			p.Quiet()
			p.Refused(pair.FromPeer)
			if n := p.counter("ike_dropped_version"); n == 0 {
				t.Error("the node has not counted IKEv1")
			}
			if ours := p.Ours(); len(ours.IKE) != 0 {
				t.Errorf("the node has %+v of IKEv1", ours.IKE)
			}
			// The same peer may speak IKEv2 beside it, and the node's own negotiation never speaks anything else.
			if err := p.Charon.Initiate(p.Ctx, "second"); err != nil {
				t.Fatal(err)
			}
			p.Talk(pair.FromNode)
			p.Talk(pair.FromPeer)
		})
	}
}

// TestIKEv1ByHand sends messages of IKEv1 that belong to nothing: every exchange, and deletes of what does not exist.
func TestIKEv1ByHand(t *testing.T) {
	shows(t, 59)
	x := againstNode(t, pair.Policy{})
	peer := handmade.New(t, x.config)
	x.establish(peer)
	before := x.counter("ike_dropped_version")
	const main, aggressive, informational, quick = 2, 4, 5, 32
	exchanges := []wire.ExchangeType{main, aggressive, informational, quick}
	const hash, notification, deletion = 8, 11, 12
	for _, exchange := range exchanges {
		for _, spir := range []wire.SPI{0, peer.SPIr} {
			h := wire.Header{SPIi: peer.SPIi, SPIr: spir, Version: 0x10, Exchange: exchange, MessageID: 0x01020304}
			peer.Send(wire.AppendMessage(nil, wire.Message{Header: h, Payloads: []wire.Payload{
				wire.Unknown{Type: hash, Body: handmade.Random(32)},
				wire.Unknown{Type: deletion, Body: append([]byte{0, 0, 0, 1, 1, 16, 0, 1}, handmade.Random(16)...)},
				wire.Unknown{Type: notification, Body: []byte{0, 0, 0, 1, 1, 0, 0, 7}},
			}}))
		}
	}
	peer.Alive() // and nothing else was said
	x.counted("ike_dropped_version", before, uint64(2*len(exchanges)))
	if ours := x.Ours(); len(ours.IKE) != 1 || len(ours.Children) != 1 {
		t.Errorf("the node has %+v, want what it had", ours)
	}
}

// TestSecondRound meets a peer that would authenticate twice (RFC 4739). The node does not announce that it can take that:
// the peer's first round decides, and ANOTHER_AUTH_FOLLOWS of one that does not care is not an agreement to anything.
func TestSecondRound(t *testing.T) {
	t.Parallel()
	shows(t, 20)
	t.Run("strongswan", func(t *testing.T) {
		p := ready(t, pair.Policy{}, sections("local-2 {\n auth = psk\n id = user@bank.example\n}", ""))
		if err := p.Charon.Initiate(p.Ctx, pair.NetName); err != nil {
			t.Fatal(err)
		}
		p.Talk(pair.FromNode)
		if _, ours := p.Agree(pair.FromPeer); ours.IKE[0].Peer != pair.PeerName {
			t.Errorf("the node talks with %q, want the identity of the first round", ours.IKE[0].Peer)
		}
	})
	t.Run("by-hand", func(t *testing.T) {
		x := againstNode(t, pair.Policy{})
		peer := handmade.New(t, x.config)
		m := peer.Init()
		if _, ok := wire.FindNotify(m.Payloads, wire.NotifyMultipleAuthSupported); ok {
			t.Error("the node announces several rounds of authentication")
		}
		request := append(peer.AuthRequest(x.local, x.remote, ownSPI), wire.Notify{Type: wire.NotifyMultipleAuthSupported}, wire.Notify{Type: wire.NotifyAnotherAuthFollows})
		if answer := peer.Request(wire.IKEAuth, request...); len(answer) == 0 {
			t.Error("IKE_AUTH is answered with nothing")
		}
		// A second identity in an established SA is not an exchange of it: dropped.
		peer.Send(peer.Seal(wire.IKEAuth, 2, false, wire.ID{Type: wire.IDFQDN, Data: []byte("user")}))
		peer.Alive()
	})
}
