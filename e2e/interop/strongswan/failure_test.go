package strongswan

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestFailures makes both ends disagree in one respect each. Nothing may flow, and the node must say why.
func TestFailures(t *testing.T) {
	t.Parallel()
	shows(t, 2, 24, 46)
	for _, c := range []struct {
		name   string
		policy pair.Policy
		peer   func(*testing.T, peers) charon.Config
		// reasons that are right with the node as initiator, and as responder
		initiator, responder []ike.Reason
	}{
		{
			name: "preshared-key", policy: pair.Policy{Key: []byte("not the key that the peer has")},
			peer:      func(*testing.T, peers) charon.Config { return partner(pair.UsualPeerIKE, pair.UsualPeerESP) },
			initiator: []ike.Reason{ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonAuthFailed},
		},
		{
			name: "ike-proposal", policy: pair.Policy{IKE: "AES-GCM-256-SHA384-x25519"},
			peer: func(*testing.T, peers) charon.Config { return partner("aes128-sha256-modp2048", pair.UsualPeerESP) },
			// An unprotected refusal ends nothing: the node tries on, and says so at once.
			initiator: []ike.Reason{ike.ReasonNoProposal}, responder: []ike.Reason{ike.ReasonNoProposal},
		},
		{
			name: "esp-proposal", policy: pair.Policy{ESP: "ESP[AES-256,SHA256]"},
			peer:      func(*testing.T, peers) charon.Config { return partner(pair.UsualPeerIKE, "aes128gcm16") },
			initiator: []ike.Reason{ike.ReasonNoProposal}, responder: []ike.Reason{ike.ReasonNoProposal},
		},
		{
			name: "selectors",
			peer: func(*testing.T, peers) charon.Config {
				c := partner(pair.UsualPeerIKE, pair.UsualPeerESP)
				c.Connections[0].Children[0].LocalTS = otherNet
				return c
			},
			initiator: []ike.Reason{ike.ReasonTSUnacceptable}, responder: []ike.Reason{ike.ReasonTSUnacceptable, ike.ReasonNoPolicy},
		},
		{
			name:   "identity-of-the-peer",
			policy: pair.Policy{Authenticate: `{method: psk, secretRef: ` + pair.PSKName + `, localID: "fqdn:` + pair.NodeName + `", remoteID: "fqdn:another.bank.example"}`},
			peer: func(*testing.T, peers) charon.Config {
				c := partner(pair.UsualPeerIKE, pair.UsualPeerESP)
				// It accepts whatever identity the node expects of it, and answers with its own.
				c.Secrets[0].IDs = nil
				return c
			},
			initiator: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused},
		},
		{
			name: "foreign-certificate", policy: pair.Policy{Authenticate: pair.ByCertificate},
			peer: func(t *testing.T, p peers) charon.Config {
				ca := catest.New(t)
				p.Join(ca)
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Certified(t, catest.New(t), ca, pair.PeerName))
			},
			initiator: []ike.Reason{ike.ReasonUnknownIssuer}, responder: []ike.Reason{ike.ReasonUnknownIssuer},
		},
		{
			name: "certificate-of-another-machine", policy: pair.Policy{Authenticate: pair.ByCertificate},
			peer: func(t *testing.T, p peers) charon.Config {
				ca := catest.New(t)
				p.Join(ca)
				// The certificate is genuine, but not that of the machine that the rule names.
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Certified(t, ca, ca, "mallory.bank.example"))
			},
			initiator: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonIDMismatch},
		},
		{
			name: "peer-distrusts-us", policy: pair.Policy{Authenticate: pair.ByCertificate},
			peer: func(t *testing.T, p peers) charon.Config {
				ca := catest.New(t)
				p.Join(ca)
				return partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Certified(t, ca, catest.New(t), pair.PeerName))
			},
			initiator: []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}, responder: []ike.Reason{ike.ReasonAuthRefused},
		},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.StartPeer(c.peer(t, p))
				p.StartNode(c.policy)
				capture := p.Capture()
				want := c.responder
				if initiator == pair.FromNode {
					want = c.initiator
				}
				p.Refused(initiator)
				p.Silent(pair.FromPeer)
				if want != nil {
					p.Fails(pair.PeerOuter, want...)
				}
				if children := p.Ours().Children; len(children) != 0 {
					t.Errorf("the node has %+v, want no child", children)
				}
				frames, err := capture.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if w := pair.Look(frames); w.ClearSent != 0 || w.ESP+w.Encap != 0 {
					t.Errorf("on the wire: %+v, want nothing in clear from the node and no ESP", w)
				}
			})
		}
	}
}
