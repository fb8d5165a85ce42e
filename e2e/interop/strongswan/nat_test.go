package strongswan

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
)

// withNAT is newPair with one end behind a NAT.
func withNAT(t *testing.T, behind pair.Side) peers {
	t.Helper()
	t.Parallel()
	return peers{pair.WithNAT(t, "bwio-", behind)}
}

// TestNAT puts a NAT before either end. Either side begins, the outer one by a port that the NAT forwards; both see where
// the NAT is, ESP goes in UDP, and Child SA and IKE SA are rekeyed by both under a connection (RFC 7296 2.23, RFC 3948).
func TestNAT(t *testing.T) {
	t.Parallel()
	shows(t, 52)
	for _, behind := range pair.Sides {
		for _, initiator := range pair.Sides {
			t.Run(behind.String()+"-behind/"+initiator.String(), func(t *testing.T) {
				p := withNAT(t, behind)
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Connection("local_addrs", "%any")))
				p.StartNode(pair.Policy{})
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				_, ours := p.Agree(initiator)
				hidden := behind == pair.FromNode
				if at := netip.MustParseAddrPort(ours.IKE[0].Local).Addr(); (at == pair.Hidden) != hidden || !p.NodeTold(fmt.Sprintf("NAT here %t, NAT there true", hidden)) {
					t.Errorf("the node has its IKE SA at %s, want the NAT at the %s", at, behind)
				}
				p.Logged(map[pair.Side]string{pair.FromNode: "remote host is behind NAT", pair.FromPeer: "local host is behind NAT"}[behind])
				stop := p.Stream(pair.FromNode)
				p.RekeyChild(initiator)
				p.RekeyIKE(initiator.Other())
				p.RekeyChild(initiator.Other())
				stop()
				if w := p.Protected(capture); w.Encap == 0 || w.ESP != 0 {
					t.Errorf("on the wire: %+v, want ESP in UDP only", w)
				}
			})
		}
	}
}

// TestNATRebinds has a NAT forget its mappings and choose other ports under a connection. The end behind it hears nothing
// any more, asks whether the other one is there, learns from the answer how it is seen now, and says so (RFC 4555 3.8):
// the connection goes on.
func TestNATRebinds(t *testing.T) {
	t.Parallel()
	shows(t, 52)
	for _, behind := range pair.Sides {
		t.Run(behind.String(), func(t *testing.T) {
			p := withNAT(t, behind)
			probes := map[pair.Side]string{pair.FromNode: "1h", pair.FromPeer: "1s"}[behind]
			p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Connection("local_addrs", "%any"), pair.Connection("dpd_delay", probes)))
			p.StartNode(pair.Policy{})
			capture := p.Capture()
			p.BringUp(behind)
			if behind == pair.FromPeer {
				p.Logged("sending DPD request") // it must have learnt once how it is seen, to see that change
			}
			before := p.Ours().IKE[0].SPI
			conn, err := p.Dial(behind, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			p.Rebind()
			// The node asks after half a minute without an answer.
			if err := lab.RoundTrip(conn, pair.Marker, time.Now().Add(90*time.Second)); err != nil {
				t.Fatalf("the connection is lost with the mapping: %v", err)
			}
			p.Talk(pair.FromNode)
			p.Talk(pair.FromPeer)
			if ours := p.Ours(); len(ours.IKE) != 1 || ours.IKE[0].SPI != before {
				t.Errorf("the node has %+v, want the IKE SA %s that it had", ours.IKE, before)
			}
			p.SentNothingClear(capture)
		})
	}
}

// keepalives are the NAT keepalives that the node sent (RFC 3948 2.3).
func keepalives(frames []lab.Frame) int {
	n := 0
	for _, f := range frames {
		const headers = 14 + 20 + 8
		if f.Outgoing && len(f.Data) > headers && f.Data[14+9] == unix.IPPROTO_UDP && f.Data[headers] == 0xff && f.Data[headers-3] == 9 {
			n++
		}
	}
	return n
}

// TestNATKeepalive leaves a tunnel idle that begins behind a NAT: the node keeps the mapping alive (RFC 3948 2.3), so that
// the peer finds it afterwards.
func TestNATKeepalive(t *testing.T) {
	shows(t, 52)
	p := withNAT(t, pair.FromNode)
	p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP))
	p.StartNode(pair.Policy{})
	p.BringUp(pair.FromNode)
	capture := p.Capture()
	p.Until("the node has kept its mapping alive", func() (bool, error) { return keepalives(capture.Frames()) > 0, nil })
	p.Talk(pair.FromPeer)
	p.SentNothingClear(capture)
}

// TestNATWithRawESP meets a strongSwan that needs ESP in UDP only where there is a NAT, and the node likewise: with a NAT
// ESP goes in UDP, without in packets of its own.
func TestNATWithRawESP(t *testing.T) {
	t.Parallel()
	shows(t, 52)
	for _, initiator := range pair.Sides {
		for _, nat := range []bool{false, true} {
			t.Run(map[bool]string{false: "none/", true: "peer-behind/"}[nat]+initiator.String(), func(t *testing.T) {
				strongSwan61 := newer(t)
				var p peers
				if nat {
					p = withNAT(t, pair.FromPeer)
				} else {
					p = newPair(t)
				}
				p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, strongSwan61, pair.Plugin("kernel-libipsec.raw_esp", "yes"), pair.Connection("local_addrs", "%any")))
				p.Pair.StartNode(pair.Policy{})
				capture := p.Capture()
				p.BringUp(initiator)
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
				if w := p.Protected(capture); (w.Encap > 0) != nat || (w.ESP > 0) == nat {
					t.Errorf("on the wire: %+v, want ESP in UDP: %t", w, nat)
				}
				p.Agree(initiator)
			})
		}
	}
}
