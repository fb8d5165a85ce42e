package strongswan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// reauthenticate lets strongSwan make its IKE SA anew, with certificates or keys checked again.
func (p peers) reauthenticate() {
	p.T.Helper()
	if _, err := p.Charon.Swanctl(p.Ctx, "--rekey", "--reauth", "--ike", pair.ConnName); err != nil {
		p.T.Fatal(err)
	}
}

// TestReauthentication lets strongSwan authenticate again: the new IKE SA before the old one ends, or after it. A
// connection lives through either.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	shows(t, 38)
	for _, way := range []struct{ name, makeBeforeBreak string }{{"make-before-break", "yes"}, {"break-before-make", "no"}} {
		for _, initiator := range pair.Sides {
			t.Run(way.name+"/"+initiator.String(), func(t *testing.T) {
				p, capture := established(t, initiator, pair.Policy{}, pair.Option("make_before_break", way.makeBeforeBreak))
				stop := p.Stream(pair.FromNode)
				before := p.Ours()
				p.reauthenticate()
				if way.makeBeforeBreak == "yes" {
					p.settled(localapi.Associations{IKE: before.IKE, Children: before.Children})
				} else { // in the gap traffic makes the node begin as well: both may, as in TestSimultaneousInitiation
					p.Until("both ends have new associations only", func() (bool, error) {
						ours := p.Ours()
						theirs, err := p.Charon.SAs(p.Ctx)
						old := slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool { return s.SPI == before.IKE[0].SPI })
						return !old && len(ours.Children) > 0 && len(ours.IKE) == len(theirs), err
					})
				}
				stop()
				p.Talk(pair.FromPeer)
				w := p.SentNothingClear(capture)
				if way.makeBeforeBreak == "yes" && w.Clear != 0 {
					t.Errorf("on the wire: %+v, want nothing in clear", w)
				}
			})
		}
	}
}

// TestPeerReactsToSilence kills the node without a word. strongSwan finds out and does what its configuration says: it
// forgets, begins again, or waits for traffic. The node is there for each of them when it is back (RFC 7296 2.4).
func TestPeerReactsToSilence(t *testing.T) {
	t.Parallel()
	shows(t, 40)
	for _, action := range []string{"clear", "restart", "trap"} {
		t.Run(action, func(t *testing.T) {
			p := ready(t, pair.Policy{}, pair.Connection("dpd_delay", "1s"), pair.Child("dpd_action", action),
				pair.Option("retransmit_tries", "1"), pair.Option("retransmit_timeout", "0.5"))
			p.BringUp(pair.FromNode)
			p.Quiet()
			before := p.Ours()
			if err := p.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.Until("strongSwan has given the old IKE SA up", func() (bool, error) {
				theirs, err := p.Charon.SAs(p.Ctx)
				for _, s := range theirs {
					if s.InitiatorSPI == before.IKE[0].SPI && s.State == "ESTABLISHED" {
						return false, err
					}
				}
				return true, err
			})
			p.RestartNode()
			switch action {
			case "clear":
				p.Talk(pair.FromNode)
			case "restart":
				p.Until("strongSwan has begun again", func() (bool, error) {
					// It gives up after a few tries of its own.
					return p.Charon.Initiate(p.Ctx, pair.NetName) == nil && len(p.Ours().Children) > 0, nil
				})
				p.Talk(pair.FromNode)
			case "trap": // its user space ESP drops what it traps and tells nobody: the node begins
				p.Talk(pair.FromNode)
				p.Talk(pair.FromPeer)
			}
		})
	}
}

// TestIdlePeer lets strongSwan end a Child SA that nobody uses. Traffic brings a new one, in the same IKE SA.
func TestIdlePeer(t *testing.T) {
	t.Parallel()
	shows(t, 42)
	for _, from := range pair.Sides {
		t.Run(from.String(), func(t *testing.T) {
			p, capture := established(t, from, pair.Policy{}, pair.Child("inactivity", "1s"))
			before := p.Ours()
			p.Until("the node has no child", func() (bool, error) { return len(p.Ours().Children) == 0, nil })
			p.Talk(pair.FromNode)
			if after := p.Ours(); len(after.IKE) != 1 || after.IKE[0].SPI != before.IKE[0].SPI {
				t.Errorf("the node has %+v, want the IKE SA that it had", after.IKE)
			}
			p.SentNothingClear(capture)
		})
	}
}

// TestLivenessUnderTraffic has strongSwan ask for signs of life after two seconds of silence, while packets flow: the node's
// ESP is sign enough (RFC 7296 2.4). When the packets end, it asks and is answered.
func TestLivenessUnderTraffic(t *testing.T) {
	shows(t, 41)
	p := ready(t, pair.Policy{}, pair.Connection("dpd_delay", "2s"))
	p.BringUp(pair.FromNode)
	stop := p.Stream(pair.FromNode)
	asked := func() int {
		log, err := p.Charon.Log()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(log, "sending DPD request")
	}
	before := asked() // it may have been silent before the stream began
	<-time.After(5 * time.Second)
	while := asked()
	if stop(); while != before {
		t.Errorf("strongSwan asked %d times while packets flowed", while-before)
	}
	p.Until("strongSwan asks", func() (bool, error) { return asked() > while, nil })
	p.Agree(pair.FromNode)
}

// TestStartAndTrap lets strongSwan begin by itself, when its configuration is loaded, or when a packet asks; and load it
// again under traffic.
func TestStartAndTrap(t *testing.T) {
	t.Parallel()
	shows(t, 44)
	t.Run("start", func(t *testing.T) {
		p := newPair(t)
		p.StartNode(pair.Policy{})
		capture := p.Capture()
		p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Child("start_action", "start")))
		p.Until("both have a child", func() (bool, error) {
			theirs, err := p.Charon.SAs(p.Ctx)
			return err == nil && len(theirs) == 1 && len(pair.Installed(theirs[0])) == 1 && len(p.Ours().Children) == 1, err
		})
		p.Talk(pair.FromNode)
		p.Protected(capture)
		p.Agree(pair.FromPeer)
	})
	t.Run("trap", func(t *testing.T) {
		p := newPair(t)
		p.StartNode(pair.Policy{})
		capture := p.Capture()
		p.StartPeer(partner(pair.UsualPeerIKE, pair.UsualPeerESP, pair.Child("start_action", "trap")))
		if ours := p.Ours(); len(ours.IKE) != 0 {
			t.Errorf("before any packet the node has %+v", ours.IKE)
		}
		// strongSwan's user space ESP drops what it traps and tells nobody: the node's packet asks.
		p.Talk(pair.FromNode)
		p.Talk(pair.FromPeer)
		p.Protected(capture)
		p.Agree(pair.FromNode)
	})
	t.Run("reload", func(t *testing.T) {
		p, capture := established(t, pair.FromNode, pair.Policy{}, pair.Child("start_action", "trap"))
		before := p.Ours()
		stop := p.Stream(pair.FromNode)
		if err := p.Charon.Reload(p.Ctx); err != nil {
			t.Fatal(err)
		}
		stop()
		if after := p.Ours(); after.IKE[0].SPI != before.IKE[0].SPI || after.Children[0].In != before.Children[0].In {
			t.Errorf("after the same configuration was loaded again the node has %+v, had %+v", after, before)
		}
		p.Protected(capture)
	})
}
