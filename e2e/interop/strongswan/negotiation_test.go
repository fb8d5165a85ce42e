package strongswan

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// TestOtherGroup starts with a group that the responder does not take, so that it asks for another one with
// INVALID_KE_PAYLOAD (RFC 7296 1.2).
func TestOtherGroup(t *testing.T) {
	t.Parallel()
	shows(t, 22)
	for _, c := range []struct {
		initiator             pair.Side
		peerIKE, ike, logging string
	}{
		{pair.FromNode, pair.UsualPeerIKE, "AES-GCM-256-SHA384-x25519 AES-GCM-256-SHA384-ecp384", "N(INVAL_KE)"},
		{pair.FromPeer, "aes256gcm16-prfsha384-x25519-ecp384", "AES-GCM-256-SHA384-ecp384", "didn't accept DH group CURVE_25519"},
	} {
		t.Run(c.initiator.String(), func(t *testing.T) {
			p := newPair(t)
			p.StartPeer(partner(c.peerIKE, pair.UsualPeerESP))
			p.StartNode(pair.Policy{IKE: c.ike})
			p.BringUp(c.initiator)
			p.Logged(c.logging)
			if theirs, _ := p.Agree(c.initiator); theirs.Group != "ECP_384" {
				t.Errorf("the group is %s, want ECP_384", theirs.Group)
			}
		})
	}
}

// TestCookie floods either end with IKE_SA_INIT requests, so that it demands a cookie of the other one (RFC 7296 2.6).
func TestCookie(t *testing.T) {
	t.Parallel()
	shows(t, 23)
	t.Run("node", func(t *testing.T) {
		p := ready(t, pair.Policy{}, pair.Option("cookie_threshold", "5"), pair.Option("cookie_threshold_ip", "5"))
		request := p.firstRequest(pair.FromNode)
		p.flood(p.Node, pair.PeerOuter, request, 20)
		p.RestartNode()
		p.Talk(pair.FromNode)
		p.Logged("N(COOKIE)")
	})
	t.Run("peer", func(t *testing.T) {
		p := newPair(t)
		// strongSwan's own limits of half-open SAs do not matter: it initiates.
		p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP))
		p.StartNode(pair.Policy{})
		request := p.firstRequest(pair.FromPeer)
		p.flood(p.Peer, pair.NodeOuter, request, 400)
		if err := p.Charon.TerminateIKE(p.Ctx, pair.ConnName); err != nil {
			t.Fatal(err)
		}
		if err := p.Charon.Initiate(p.Ctx, pair.NetName); err != nil {
			t.Fatal(err)
		}
		p.Logged("N(COOKIE)")
		p.Talk(pair.FromPeer)
	})
}

// firstRequest brings the associations up from a side and returns its IKE_SA_INIT request, as it was on the wire.
func (p peers) firstRequest(from pair.Side) []byte {
	p.T.Helper()
	capture := p.Capture()
	p.BringUp(from)
	frames, err := capture.Stop()
	if err != nil {
		p.T.Fatal(err)
	}
	const headers, exchange = 14 + 20 + 8, 18
	for _, f := range frames {
		if len(f.Data) > headers+exchange && f.Data[14+9] == unix.IPPROTO_UDP && f.Data[headers+exchange] == 34 && f.Outgoing == (from == pair.FromNode) {
			return f.Data[headers:]
		}
	}
	p.T.Fatalf("no IKE_SA_INIT request of the %s among %d frames", from, len(frames))
	return nil
}

// flood sends the request with as many different SPIs, whose answers nobody reads.
func (p peers) flood(host *lab.Host, target netip.Addr, request []byte, count int) {
	p.T.Helper()
	var conn net.Conn
	err := host.Do(func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{Port: 5000}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 500)))
		return err
	})
	if err != nil {
		p.T.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 2048)
	for i := range count {
		forged := slices.Clone(request)
		binary.BigEndian.PutUint64(forged, uint64(i)+1)
		if _, err := conn.Write(forged); err != nil {
			p.T.Fatal(err)
		}
		// The answer tells that the request was looked at; it paces the flood.
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			p.T.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			p.T.Fatalf("request %d of the flood is not answered: %v", i+1, err)
		}
	}
}

// TestForwardSecrecy negotiates a key exchange for the Child SA's rekey, and rekeys it from either side.
func TestForwardSecrecy(t *testing.T) {
	t.Parallel()
	shows(t, 31)
	for _, by := range pair.Sides {
		t.Run(by.String(), func(t *testing.T) {
			p := newPair(t)
			p.StartPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp256"))
			p.StartNode(pair.Policy{ESP: "ESP[AES-GCM-256]-ecp256", PFS: true})
			p.BringUp(pair.FromNode)
			p.RekeyChild(by)
			p.Talk(pair.FromPeer)
			p.Logged("ECP_256")
			p.Agree(pair.FromNode)
		})
	}
}

// TestNarrowing lets strongSwan have less than the node asks for (RFC 7296 2.9).
func TestNarrowing(t *testing.T) {
	t.Parallel()
	shows(t, 46)
	for _, initiator := range pair.Sides {
		t.Run(initiator.String(), func(t *testing.T) {
			p := newPair(t)
			p.StartPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16"))
			p.StartNode(pair.Policy{Remote: "10.2.0.0/16"})
			theirs, ours := p.Carries(initiator)
			if got := theirs.Children[0].LocalTS[0]; got != pair.PeerNet.String() {
				t.Errorf("strongSwan has its side as %s, want %s", got, pair.PeerNet)
			}
			if got := ours.Children[0].RemoteTS; len(got) != 1 || got[0] != pair.PeerNet.String() {
				t.Errorf("the node has the peer's side as %v, want %s", got, pair.PeerNet)
			}
		})
	}
}
