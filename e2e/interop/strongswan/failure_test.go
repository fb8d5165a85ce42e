package strongswan

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/localapi"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestFailures makes both ends disagree in one respect each. Nothing may flow, and the node must say why.
func TestFailures(t *testing.T) {
	t.Parallel()
	shows(t, 2, 24, 46)
	for _, c := range []struct {
		name   string
		policy policy
		peer   func(*testing.T, *pair) charon.Config
		// reasons that are right with the node as initiator, and as responder
		initiator, responder []ike.Reason
	}{
		{
			name: "preshared-key", policy: policy{key: []byte("not the key that the peer has")},
			peer:      func(*testing.T, *pair) charon.Config { return partner(usualIKE, usualESP) },
			initiator: []ike.Reason{ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonAuthFailed},
		},
		{
			name: "ike-proposal", policy: policy{ike: "AES-GCM-256-SHA384-x25519"},
			peer: func(*testing.T, *pair) charon.Config { return partner("aes128-sha256-modp2048", usualESP) },
			// An unprotected refusal ends nothing: the node tries on, and says so at once.
			initiator: []ike.Reason{ike.ReasonNoProposal}, responder: []ike.Reason{ike.ReasonNoProposal},
		},
		{
			name: "esp-proposal", policy: policy{esp: "ESP[AES-256,SHA256]"},
			peer:      func(*testing.T, *pair) charon.Config { return partner(usualIKE, "aes128gcm16") },
			initiator: []ike.Reason{ike.ReasonNoProposal}, responder: []ike.Reason{ike.ReasonNoProposal},
		},
		{
			name: "selectors",
			peer: func(*testing.T, *pair) charon.Config {
				c := partner(usualIKE, usualESP)
				c.Connections[0].Children[0].LocalTS = otherNet
				return c
			},
			initiator: []ike.Reason{ike.ReasonTSUnacceptable}, responder: []ike.Reason{ike.ReasonTSUnacceptable, ike.ReasonNoPolicy},
		},
		{
			name:   "identity-of-the-peer",
			policy: policy{authenticate: `{method: psk, secretRef: ` + pskName + `, localID: "fqdn:` + nodeName + `", remoteID: "fqdn:another.bank.example"}`},
			peer: func(*testing.T, *pair) charon.Config {
				c := partner(usualIKE, usualESP)
				// It accepts whatever identity the node expects of it, and answers with its own.
				c.Secrets[0].IDs = nil
				return c
			},
			initiator: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused},
		},
		{
			name: "foreign-certificate", policy: policy{authenticate: byCertificate},
			peer: func(t *testing.T, p *pair) charon.Config {
				ca := catest.New(t)
				p.join(ca)
				return partner(usualIKE, usualESP, certified(t, catest.New(t), ca, peerName))
			},
			initiator: []ike.Reason{ike.ReasonUnknownIssuer}, responder: []ike.Reason{ike.ReasonUnknownIssuer},
		},
		{
			name: "certificate-of-another-machine", policy: policy{authenticate: byCertificate},
			peer: func(t *testing.T, p *pair) charon.Config {
				ca := catest.New(t)
				p.join(ca)
				// The certificate is genuine, but not that of the machine that the rule names.
				return partner(usualIKE, usualESP, certified(t, ca, ca, "mallory.bank.example"))
			},
			initiator: []ike.Reason{ike.ReasonIDMismatch, ike.ReasonAuthRefused}, responder: []ike.Reason{ike.ReasonIDMismatch},
		},
		{
			name: "peer-distrusts-us", policy: policy{authenticate: byCertificate},
			peer: func(t *testing.T, p *pair) charon.Config {
				ca := catest.New(t)
				p.join(ca)
				return partner(usualIKE, usualESP, certified(t, ca, catest.New(t), peerName))
			},
			initiator: []ike.Reason{ike.ReasonAuthRefused, ike.ReasonPeerRefused}, responder: []ike.Reason{ike.ReasonAuthRefused},
		},
	} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(c.peer(t, p))
				p.startNode(c.policy)
				capture := p.capture()
				want := c.responder
				if initiator == fromNode {
					want = c.initiator
					if err := p.exchange(fromNode, time.Second); err == nil {
						t.Error("an exchange from the node succeeds")
					}
				} else if err := p.charon.Initiate(p.ctx, netName); err == nil {
					t.Error("strongSwan says that it has the child")
				}
				if err := p.exchange(fromPeer, time.Second); err == nil {
					t.Error("an exchange from the peer succeeds")
				}
				if want != nil {
					p.fails(want)
				}
				if children := p.oursNow().Children; len(children) != 0 {
					t.Errorf("the node has %+v, want no child", children)
				}
				frames, err := capture.Stop()
				if err != nil {
					t.Fatal(err)
				}
				if w := look(frames); w.sent != 0 || w.esp != 0 {
					t.Errorf("on the wire: %+v, want nothing in clear from the node and no ESP", w)
				}
			})
		}
	}
}

// fails requires that the node tells of failures, all of them for one of the reasons.
func (p *pair) fails(want []ike.Reason) {
	p.t.Helper()
	var failures []localapi.Failure
	p.until("the node tells of the failure", func() (bool, error) {
		s, err := p.client.Status(p.ctx)
		failures = s.Failures
		return len(failures) > 0, err
	})
	for _, f := range failures {
		if !slices.Contains(want, ike.Reason(f.Reason)) || f.Detail == "" || f.Remote != peerOuter.String() {
			p.t.Errorf("the node says %+v, want one of %v about %s with a detail", f, want, peerOuter)
		}
	}
}
