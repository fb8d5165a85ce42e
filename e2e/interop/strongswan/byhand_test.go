package strongswan

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/handmade"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// gcm256 is what the node and strongSwan agree on unless a test says otherwise.
var gcm256 = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384}

// target is one implementation that a handmade peer speaks to. What is asserted of the node is asserted of strongSwan
// too wherever a test says nothing else: a claim that the reference does not meet would be a wrong claim.
type target struct {
	peers
	isNode bool
	// local and remote are the networks of the handmade peer and of the target.
	local, remote netip.Prefix
	config        handmade.Config
}

// targets runs a test against the node and against strongSwan, each in a network of its own.
func targets(t *testing.T, test func(t *testing.T, x *target), change ...func(*charon.Config)) {
	t.Run("node", func(t *testing.T) { test(t, againstNode(t, pair.Policy{})) })
	t.Run("strongswan", func(t *testing.T) {
		p := newPair(t)
		p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, change...))
		x := &target{peers: p, local: pair.NodeNet, remote: pair.PeerNet}
		// It carries ESP in UDP only, so that everything moves to port 4500: then it may begin there as well.
		x.config = handmade.Config{
			Host: p.Node, Local: netip.AddrPortFrom(pair.NodeOuter, 4500), Remote: netip.AddrPortFrom(pair.PeerOuter, 4500),
			Offer: gcm256, PSK: pair.PSK, ID: pair.NodeName, PeerID: pair.PeerName,
		}
		test(t, x)
	})
}

// againstNode starts a node whose peer is handmade.
func againstNode(t *testing.T, rules pair.Policy) *target {
	t.Helper()
	p := newPair(t)
	p.StartNode(rules)
	return &target{peers: p, isNode: true, local: pair.PeerNet, remote: pair.NodeNet, config: handmade.Config{
		Host: p.Peer, Local: netip.AddrPortFrom(pair.PeerOuter, 500), Remote: netip.AddrPortFrom(pair.NodeOuter, 500),
		Offer: gcm256, PSK: pair.PSK, ID: pair.PeerName, PeerID: pair.NodeName,
	}}
}

// establish brings an IKE SA with a Child SA up.
func (x *target) establish(peer *handmade.Peer) []wire.Payload {
	x.T.Helper()
	answer := peer.Establish(x.local, x.remote, ownSPI)
	if _, ok := handmade.Child(answer); !ok {
		x.T.Fatalf("no Child SA in %s", wire.Message{Payloads: answer})
	}
	return answer
}

// ownSPI is the inbound SPI of a handmade peer.
const ownSPI = 0xc0ffee01

// counter returns a counter of the node.
func (p peers) counter(name string) uint64 {
	p.T.Helper()
	s, err := p.Client.Status(p.Ctx)
	if err != nil {
		p.T.Fatal(err)
	}
	return s.Counters[name]
}

// counted requires that the node has counted at least so many more than before. Its loop takes datagrams in their order,
// so that what came before the answer to a later one has been counted.
func (x *target) counted(name string, before, more uint64) {
	x.T.Helper()
	if !x.isNode {
		return
	}
	if now := x.counter(name); now < before+more {
		x.T.Errorf("counter %s is %d, was %d, want %d more", name, now, before, more)
	}
}

// asked starts a node that traffic has asked for an association, and returns its first message to the handmade peer.
func asked(t *testing.T) (x *target, peer *handmade.Peer, m wire.Message, datagram []byte) {
	t.Helper()
	x = againstNode(t, pair.Policy{})
	x.Quiet()
	peer = handmade.New(t, x.config)
	x.asksTheNode()
	m, datagram = peer.AwaitInit()
	return x, peer, m, datagram
}

// unchanged awaits the node's first message again, which must be as it was.
func unchanged(t *testing.T, peer *handmade.Peer, first []byte) wire.Message {
	t.Helper()
	m, again := peer.AwaitInit()
	if !bytes.Equal(first, again) {
		t.Errorf("the request is repeated as %s, differently", m)
	}
	return m
}

// completes answers the node's first message and the one after it, so that it has a Child SA.
func (x *target) completes(peer *handmade.Peer, m wire.Message, datagram []byte) {
	x.T.Helper()
	peer.Respond(m, datagram)
	peer.AnswerAuth(ownSPI)
	x.Until("the node has the child", func() (bool, error) { return len(x.Ours().Children) == 1, nil })
}

// asksTheNode lets traffic ask the node for an association, in the background.
func (p peers) asksTheNode() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.Exchange(pair.FromNode, 30*time.Second)
	}()
	p.T.Cleanup(func() { <-done })
}
