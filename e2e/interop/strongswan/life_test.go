package strongswan

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// TestRekey rekeys child and IKE SA from either side, under a TCP connection that lives through all of it.
func TestRekey(t *testing.T) {
	t.Parallel()
	shows(t, 31, 32)
	for _, initiator := range pair.Sides {
		for _, by := range pair.Sides {
			t.Run("by-"+initiator.String()+"/rekeyed-by-"+by.String(), func(t *testing.T) {
				p, capture := established(t, initiator, pair.Policy{})
				stop := p.Stream(pair.FromNode)
				p.RekeyChild(by)
				p.RekeyIKE(by)
				p.RekeyChild(by)
				p.RekeyIKE(by.Other())
				stop()
				p.Protected(capture)
				p.Agree(by.Other())
			})
		}
	}
}

// TestDelete ends associations from either side; the other side hears of it, nothing goes in clear, and new traffic
// brings new ones.
func TestDelete(t *testing.T) {
	t.Parallel()
	t.Run("child-by-peer", func(t *testing.T) {
		p, capture := established(t, pair.FromNode, pair.Policy{})
		before := p.Ours()
		if err := p.Charon.TerminateChild(p.Ctx, pair.NetName); err != nil {
			t.Fatal(err)
		}
		p.Until("the node has not the old child", func() (bool, error) {
			return !slices.ContainsFunc(p.Ours().Children, func(c localapi.Child) bool { return c.In == before.Children[0].In }), nil
		})
		p.Talk(pair.FromNode)
		if _, ours := p.Agree(pair.FromNode); ours.IKE[0].SPI != before.IKE[0].SPI {
			t.Errorf("the IKE SA went with its child: it was %s, now it is %s", before.IKE[0].SPI, ours.IKE[0].SPI)
		}
		p.SentNothingClear(capture)
	})
	t.Run("ike-by-peer", func(t *testing.T) {
		p, capture := established(t, pair.FromPeer, pair.Policy{})
		p.Talk(pair.FromNode)
		before := p.Ours()
		if err := p.Charon.TerminateIKE(p.Ctx, pair.ConnName); err != nil {
			t.Fatal(err)
		}
		// The last packets of the exchange may ask for new associations at once.
		p.Until("the node has none of the old associations", func() (bool, error) {
			ours := p.Ours()
			return !slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool { return s.SPI == before.IKE[0].SPI }) &&
				!slices.ContainsFunc(ours.Children, func(c localapi.Child) bool { return c.In == before.Children[0].In }), nil
		})
		p.Talk(pair.FromNode)
		p.Agree(pair.FromNode)
		p.SentNothingClear(capture)
	})
	t.Run("ike-by-node", func(t *testing.T) {
		p, capture := established(t, pair.FromNode, pair.Policy{})
		if err := p.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.Until("strongSwan has no association", func() (bool, error) {
			theirs, err := p.Charon.SAs(p.Ctx)
			return len(theirs) == 0, err
		})
		p.Logged("received DELETE for IKE_SA")
		if err := p.Process.Wait(); err != nil {
			t.Errorf("the node ended with %v", err)
		}
		// What must be protected stays blocked without the daemon.
		p.Silent(pair.FromNode)
		p.RestartNode()
		p.Talk(pair.FromNode)
		p.SentNothingClear(capture)
	})
}

// TestPeerProbesLiveness lets strongSwan ask whether the node is there (RFC 7296 2.4).
func TestPeerProbesLiveness(t *testing.T) {
	shows(t, 40)
	p := ready(t, pair.Policy{}, pair.Connection("dpd_delay", "1s"))
	p.BringUp(pair.FromNode)
	p.Until("strongSwan has probed the node and heard it", func() (bool, error) {
		asked, err1 := p.Charon.Logged("sending DPD request")
		heard, err2 := p.Charon.Logged("parsed INFORMATIONAL response")
		return asked && heard, errors.Join(err1, err2)
	})
	p.Agree(pair.FromNode)
}

// TestPeerRestarts kills strongSwan: the node does not know. When it is back and negotiates again, its INITIAL_CONTACT
// replaces what the node still has (RFC 7296 2.4), and traffic flows.
func TestPeerRestarts(t *testing.T) {
	p := ready(t, pair.Policy{}, pair.Child("start_action", "start"))
	capture := p.Capture()
	if err := p.Charon.Initiate(p.Ctx, pair.NetName); err != nil {
		t.Logf("initiate: %v", err)
	}
	p.Talk(pair.FromNode)
	before := p.Ours()
	if err := p.Charon.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Silent(pair.FromNode)
	if err := p.Charon.Restart(p.Ctx); err != nil {
		t.Fatal(err)
	}
	p.Talk(pair.FromNode)
	p.Talk(pair.FromPeer)
	p.Until("the node has forgotten the old associations", func() (bool, error) {
		after := p.Ours()
		return len(after.IKE) == 1 && len(after.Children) == 1 && after.IKE[0].SPI != before.IKE[0].SPI, nil
	})
	p.SentNothingClear(capture)
}

// TestNodeRestarts kills the node: strongSwan does not know. Traffic from the node brings new associations.
func TestNodeRestarts(t *testing.T) {
	p, capture := established(t, pair.FromPeer, pair.Policy{})
	p.Talk(pair.FromNode)
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Silent(pair.FromNode)
	p.RestartNode()
	p.Talk(pair.FromNode)
	p.Talk(pair.FromPeer)
	p.Agree(pair.FromNode)
	p.SentNothingClear(capture)
}

// TestPeerForgets kills strongSwan and starts it again without any memory, and without anything to initiate. The node
// finds out by its own liveness check and makes new associations for its traffic (RFC 7296 2.4).
func TestPeerForgets(t *testing.T) {
	shows(t, 40)
	p, capture := established(t, pair.FromNode, pair.Policy{})
	before := p.Ours()
	if err := p.Charon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.Charon.Restart(p.Ctx); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for p.Exchange(pair.FromNode, 2*time.Second) != nil {
		if p.Ctx.Err() != nil {
			t.Fatalf("no traffic %s after the peer came back", time.Since(start))
		}
	}
	t.Logf("traffic is back after %s", time.Since(start).Round(time.Second))
	if after := p.Ours(); len(after.IKE) != 1 || after.IKE[0].SPI == before.IKE[0].SPI {
		t.Errorf("the node has %+v, want one new IKE SA", after.IKE)
	}
	p.SentNothingClear(capture)
}
