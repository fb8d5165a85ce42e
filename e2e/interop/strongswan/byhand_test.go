package strongswan

import (
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// gcm256 is what the node and strongSwan agree on unless a test says otherwise.
var gcm256 = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384}

// target is one implementation that a handmade peer speaks to. What is asserted of the node is asserted of strongSwan
// too wherever a test says nothing else: a claim that the reference does not meet would be a wrong claim.
type target struct {
	*pair
	isNode bool
	// local and remote are the networks of the handmade peer and of the target.
	local, remote netip.Prefix
	config        handmade.Config
}

// targets runs a test against the node and against strongSwan, each in a network of its own.
func targets(t *testing.T, test func(t *testing.T, x *target), change ...func(*charon.Config)) {
	t.Run("node", func(t *testing.T) { test(t, againstNode(t, policy{})) })
	t.Run("strongswan", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP, change...))
		x := &target{pair: p, local: nodeNet, remote: peerNet}
		// It carries ESP in UDP only, so that everything moves to port 4500: then it may begin there as well.
		x.config = handmade.Config{
			Host: p.node, Local: netip.AddrPortFrom(nodeOuter, 4500), Remote: netip.AddrPortFrom(peerOuter, 4500),
			Offer: gcm256, PSK: psk, ID: nodeName, PeerID: peerName,
		}
		test(t, x)
	})
}

// againstNode starts a node whose peer is handmade.
func againstNode(t *testing.T, rules policy) *target {
	t.Helper()
	p := newPair(t)
	p.startNode(rules)
	return &target{pair: p, isNode: true, local: peerNet, remote: nodeNet, config: handmade.Config{
		Host: p.peer, Local: netip.AddrPortFrom(peerOuter, 500), Remote: netip.AddrPortFrom(nodeOuter, 500),
		Offer: gcm256, PSK: psk, ID: peerName, PeerID: nodeName,
	}}
}

// establish brings an IKE SA with a Child SA up.
func (x *target) establish(peer *handmade.Peer) []wire.Payload {
	x.t.Helper()
	answer := peer.Establish(x.local, x.remote, ownSPI)
	if _, ok := handmade.Child(answer); !ok {
		x.t.Fatalf("no Child SA in %s", wire.Message{Payloads: answer})
	}
	return answer
}

// ownSPI is the inbound SPI of a handmade peer.
const ownSPI = 0xc0ffee01

// counter returns a counter of the node.
func (p *pair) counter(name string) uint64 {
	p.t.Helper()
	s, err := p.client.Status(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return s.Counters[name]
}

// counted requires that the node has counted at least so many more than before. Its loop takes datagrams in their order,
// so that what came before the answer to a later one has been counted.
func (x *target) counted(name string, before, more uint64) {
	x.t.Helper()
	if !x.isNode {
		return
	}
	if now := x.counter(name); now < before+more {
		x.t.Errorf("counter %s is %d, was %d, want %d more", name, now, before, more)
	}
}

// asksTheNode lets traffic ask the node for an association, in the background.
func (p *pair) asksTheNode() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.exchange(fromNode, 30*time.Second)
	}()
	p.t.Cleanup(func() { <-done })
}

// silent requires that the node sends nothing of the inner networks in clear, whatever the test does.
func (p *pair) silent() {
	p.t.Helper()
	capture := p.capture()
	p.t.Cleanup(func() { p.nothingClear(capture) })
}

// nothingClear is sentNothingClear without ESP.
func (p *pair) nothingClear(capture *lab.Capture) {
	p.t.Helper()
	frames, err := capture.Stop()
	if err != nil {
		p.t.Fatal(err)
	}
	if w := look(frames); w.sent != 0 {
		p.t.Errorf("on the wire: %+v, want nothing in clear from the node", w)
	}
}
