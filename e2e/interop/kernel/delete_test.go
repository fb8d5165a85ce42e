package kernel

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// TestDelete ends associations of transport mode from either side: the other side hears of it, the guest's kernel keeps
// none of the SAs, the node sends nothing in clear although the same addresses are in reach, and new traffic brings new
// SAs.
func TestDelete(t *testing.T) {
	shows(t, 48)
	policy := pair.Policy{Transport: true}
	start := func(t *testing.T, initiator pair.Side) (*pair.Pair, *lab.Capture, localapi.Associations) {
		t.Helper()
		p := newPair(t)
		p.StartPeer(pair.Partner(policy, "", ""))
		p.StartNode(policy)
		capture := p.Capture()
		p.BringUp(initiator)
		p.Talk(pair.FromNode)
		return p, capture, p.Ours()
	}
	t.Run("child-by-peer", func(t *testing.T) {
		p, capture, before := start(t, pair.FromNode)
		if err := p.Charon.TerminateChild(p.Ctx, pair.NetName); err != nil {
			t.Fatal(err)
		}
		gone(p, before.Children[0])
		p.Talk(pair.FromNode)
		if _, ours := p.Agree(pair.FromNode); ours.IKE[0].SPI != before.IKE[0].SPI {
			t.Errorf("the IKE SA went with its child: it was %s, now it is %s", before.IKE[0].SPI, ours.IKE[0].SPI)
		}
		p.SentNothingClear(capture)
	})
	t.Run("ike-by-peer", func(t *testing.T) {
		p, capture, before := start(t, pair.FromPeer)
		if err := p.Charon.TerminateIKE(p.Ctx, pair.ConnName); err != nil {
			t.Fatal(err)
		}
		gone(p, before.Children[0])
		p.Talk(pair.FromNode)
		p.Agree(pair.FromNode)
		p.SentNothingClear(capture)
	})
	t.Run("ike-by-node", func(t *testing.T) {
		p, capture, before := start(t, pair.FromNode)
		if err := p.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.Process.Wait(); err != nil {
			t.Errorf("the node ended with %v", err)
		}
		p.Logged("received DELETE for IKE_SA")
		goneFromGuest(p, before.Children[0])
		// What must be protected stays blocked without the daemon.
		p.Silent(pair.FromNode)
		p.RestartNode()
		p.Talk(pair.FromNode)
		p.Agree(pair.FromNode)
		p.SentNothingClear(capture)
	})
}

// gone waits until neither end has a Child SA. The last packets of an exchange may ask for a new one at once.
func gone(p *pair.Pair, child localapi.Child) {
	p.T.Helper()
	p.Until("the node has not the old child", func() (bool, error) {
		return !slices.ContainsFunc(p.Ours().Children, func(c localapi.Child) bool { return c.In == child.In }), nil
	})
	goneFromGuest(p, child)
}

func goneFromGuest(p *pair.Pair, child localapi.Child) {
	p.T.Helper()
	p.Until("the guest's kernel has not the old SAs", func() (bool, error) {
		states := guestStates(p)
		return states[child.In] == "" && states[child.Out] == "", nil
	})
}
