package strongswan

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// logged requires that strongSwan's log tells of something.
func (p *pair) logged(text string) {
	p.t.Helper()
	if ok, err := p.charon.Logged(text); err != nil || !ok {
		p.t.Errorf("strongSwan's log does not say %q (%v)", text, err)
	}
}

// TestOtherGroup starts with a group that the responder does not take, so that it asks for another one with
// INVALID_KE_PAYLOAD (RFC 7296 1.2).
func TestOtherGroup(t *testing.T) {
	t.Parallel()
	shows(t, 22)
	t.Run("node", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16"))
		p.startNode(policy{ike: "AES-GCM-256-SHA384-x25519 AES-GCM-256-SHA384-ecp384"})
		p.bringUp(fromNode)
		p.logged("N(INVAL_KE)")
		if theirs, _ := p.agree(fromNode); theirs.Group != "ECP_384" {
			t.Errorf("the group is %s, want ECP_384", theirs.Group)
		}
	})
	t.Run("peer", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner("aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16"))
		p.startNode(policy{ike: "AES-GCM-256-SHA384-ecp384"})
		p.bringUp(fromPeer)
		p.logged("didn't accept DH group CURVE_25519")
		if theirs, _ := p.agree(fromPeer); theirs.Group != "ECP_384" {
			t.Errorf("the group is %s, want ECP_384", theirs.Group)
		}
	})
}

// TestCookie floods either end with IKE_SA_INIT requests, so that it demands a cookie of the other one (RFC 7296 2.6).
func TestCookie(t *testing.T) {
	t.Parallel()
	shows(t, 23)
	t.Run("node", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP, option("cookie_threshold", "5"), option("cookie_threshold_ip", "5")))
		p.startNode(policy{})
		request := p.firstRequest(fromNode)
		p.flood(p.node, peerOuter, request, 20)
		p.restartNode()
		p.talk(fromNode)
		p.logged("N(COOKIE)")
	})
	t.Run("peer", func(t *testing.T) {
		p := newPair(t)
		// strongSwan's own limits of half-open SAs do not matter: it initiates.
		p.startPeer(partner(usualIKE, usualESP))
		p.startNode(policy{})
		request := p.firstRequest(fromPeer)
		p.flood(p.peer, nodeOuter, request, 400)
		if err := p.charon.TerminateIKE(p.ctx, connName); err != nil {
			t.Fatal(err)
		}
		if err := p.charon.Initiate(p.ctx, netName); err != nil {
			t.Fatal(err)
		}
		p.logged("N(COOKIE)")
		p.talk(fromPeer)
	})
}

// firstRequest brings the associations up from a side and returns its IKE_SA_INIT request, as it was on the wire.
func (p *pair) firstRequest(from side) []byte {
	p.t.Helper()
	capture := p.capture()
	p.bringUp(from)
	frames, err := capture.Stop()
	if err != nil {
		p.t.Fatal(err)
	}
	const headers, exchange = 14 + 20 + 8, 18
	for _, f := range frames {
		if len(f.Data) > headers+exchange && f.Data[14+9] == unix.IPPROTO_UDP && f.Data[headers+exchange] == 34 && f.Outgoing == (from == fromNode) {
			return f.Data[headers:]
		}
	}
	p.t.Fatalf("no IKE_SA_INIT request of the %s among %d frames", from, len(frames))
	return nil
}

// flood sends the request with as many different SPIs, whose answers nobody reads.
func (p *pair) flood(host *lab.Host, target netip.Addr, request []byte, count int) {
	p.t.Helper()
	var conn net.Conn
	err := host.Do(func() (err error) {
		conn, err = net.DialUDP("udp4", &net.UDPAddr{Port: 5000}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(target, 500)))
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 2048)
	for i := range count {
		forged := slices.Clone(request)
		binary.BigEndian.PutUint64(forged, uint64(i)+1)
		if _, err := conn.Write(forged); err != nil {
			p.t.Fatal(err)
		}
		// The answer tells that the request was looked at; it paces the flood.
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			p.t.Fatalf("request %d of the flood is not answered: %v", i+1, err)
		}
	}
}

// TestForwardSecrecy negotiates a key exchange for the Child SA's rekey, and rekeys it from either side.
func TestForwardSecrecy(t *testing.T) {
	t.Parallel()
	shows(t, 31)
	for _, by := range []side{fromNode, fromPeer} {
		t.Run(by.String(), func(t *testing.T) {
			p := newPair(t)
			p.startPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16-ecp256"))
			p.startNode(policy{esp: "ESP[AES-GCM-256]-ecp256", pfs: true})
			p.bringUp(fromNode)
			p.rekeyChild(by)
			p.talk(fromPeer)
			p.logged("ECP_256")
			p.agree(fromNode)
		})
	}
}

// TestNarrowing lets strongSwan have less than the node asks for (RFC 7296 2.9).
func TestNarrowing(t *testing.T) {
	t.Parallel()
	shows(t, 46)
	for _, initiator := range []side{fromNode, fromPeer} {
		t.Run(initiator.String(), func(t *testing.T) {
			p := newPair(t)
			p.startPeer(partner("aes256gcm16-prfsha384-ecp384", "aes256gcm16"))
			p.startNode(policy{remote: "10.2.0.0/16"})
			p.bringUp(initiator)
			p.talk(fromNode)
			p.talk(fromPeer)
			theirs, ours := p.agree(initiator)
			if got := theirs.Children[0].LocalTS[0]; got != peerNet.String() {
				t.Errorf("strongSwan has its side as %s, want %s", got, peerNet)
			}
			if got := ours.Children[0].RemoteTS; len(got) != 1 || got[0] != peerNet.String() {
				t.Errorf("the node has the peer's side as %v, want %s", got, peerNet)
			}
		})
	}
}
