package kernel

import (
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestTransport protects what the two ends say to each other, without a tunnel around it, over either family.
func TestTransport(t *testing.T) {
	shows(t, 48)
	for _, c := range []struct {
		name   string
		policy pair.Policy
		esp    string
	}{
		{"psk", pair.Policy{}, "aes256gcm16-esn-noesn"},
		{"certificates", pair.Policy{Authenticate: pair.ByCertificate}, "aes256gcm16-esn-noesn"},
		{"cbc", pair.Policy{ESP: "ESP[AES-256,SHA256]"}, "aes256-sha256-esn-noesn"},
		{"chacha", pair.Policy{ESP: "ESP[CHACHA20-POLY1305]"}, "chacha20poly1305-noesn"},
		{"ipv6", pair.Policy{V6: true}, "aes256gcm16-esn-noesn"},
		{"udp", pair.Policy{UDP: true}, "aes256gcm16-esn-noesn"},
		{"ipv6-udp", pair.Policy{V6: true, UDP: true}, "aes256gcm16-esn-noesn"},
	} {
		for _, initiator := range pair.Sides {
			if c.policy.V6 && initiator == pair.FromPeer {
				continue // the guest does not always send its first message on port 4500 over IPv6
			}
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				policy := c.policy
				policy.Transport = true
				var change []func(*charon.Config)
				if policy.Authenticate == pair.ByCertificate {
					ca := catest.New(t)
					p.Join(ca)
					change = append(change, pair.Certified(t, ca, ca, pair.PeerName))
				}
				p.StartPeer(pair.Partner(policy, "", c.esp, change...))
				p.StartNode(policy)
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				p.Ping(56, 3000)
				w := p.Protected(capture)
				theirs, ours := p.Agree(initiator)
				if theirs.Children[0].Mode != "TRANSPORT" || ours.Children[0].Mode != "transport" ||
					theirs.Children[0].Encapsulated != policy.UDP || (w.Encap != 0) != policy.UDP || (w.ESP != 0) == policy.UDP {
					t.Errorf("strongSwan says %+v, the node says %+v, on the wire %+v; want transport mode, in UDP: %t", theirs.Children[0], ours.Children[0], w, policy.UDP)
				}
			})
		}
	}
}
