package kernel

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/pki/catest"
)

// TestMesh has three hosts that protect whatever they say to each other: two nodes, by one rule for the whole network, and
// a strongSwan that waits for packets to anybody. Nobody is named anywhere; who needs a partner asks for it, whoever that
// is, and either host begins.
func TestMesh(t *testing.T) {
	shows(t, 47)
	const secondName = "second.bank.example"
	secondOuter := netip.MustParseAddr("10.9.0.3")
	p := newPair(t)
	second := pair.Beside(p, prefix, shared.bridge, secondOuter)
	ca := catest.New(t)
	policy := pair.Policy{Transport: true, Remote: "10.9.0.0/24", Authenticate: "{method: certificate}"}
	config := pair.Partner(policy, "", "", pair.Certified(t, ca, ca, pair.PeerName), pair.Connection("remote_addrs", "%any"), pair.Child("start_action", "trap"))
	config.Connections[0].RemoteID = "%any"
	p.Join(ca)
	second.JoinWith(pair.Machine(t, ca, secondName), ca.Bundle())
	p.StartPeer(config)
	p.StartNode(policy)
	second.StartNode(policy)
	second.Path = pair.Path{Node: secondOuter, Peer: pair.PeerOuter}
	captures := p.Capture()
	others := second.Capture()
	p.Talk(pair.FromPeer)      // strongSwan asks
	second.Talk(pair.FromNode) // the second node asks strongSwan
	second.Talk(pair.FromPeer) // and is reached by it
	p.Path.Peer = secondOuter  // the first node asks the second
	p.Talk(pair.FromNode)
	theirs, err := p.Charon.SAs(p.Ctx)
	if err != nil {
		t.Fatal(err)
	}
	var partners []string
	for _, s := range theirs {
		partners = append(partners, s.RemoteID)
		if children := pair.Installed(s); len(children) != 1 || children[0].Mode != "TRANSPORT" {
			t.Errorf("strongSwan has %+v with %s, want one child of transport mode", children, s.RemoteID)
		}
	}
	slices.Sort(partners)
	if !slices.Equal(partners, []string{pair.NodeName, secondName}) {
		t.Errorf("strongSwan has IKE SAs with %q, want one with either node", partners)
	}
	for _, node := range []struct {
		at   *pair.Pair
		want []string
	}{{p, []string{pair.PeerName, secondName}}, {second, []string{pair.NodeName, pair.PeerName}}} {
		var peers []string
		for _, s := range node.at.Ours().IKE {
			peers = append(peers, s.Peer)
		}
		slices.Sort(peers)
		if !slices.Equal(peers, node.want) {
			t.Errorf("a node has IKE SAs with %q, want one with each of %q", peers, node.want)
		}
	}
	p.Protected(captures)
	second.Protected(others)
}
