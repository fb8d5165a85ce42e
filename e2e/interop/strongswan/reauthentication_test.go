package strongswan

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// reauthenticate lets strongSwan make its IKE SA anew, with certificates or keys checked again.
func (p *pair) reauthenticate() {
	p.t.Helper()
	if _, err := p.charon.Swanctl(p.ctx, "--rekey", "--reauth", "--ike", connName); err != nil {
		p.t.Fatal(err)
	}
}

// TestReauthentication lets strongSwan authenticate again: the new IKE SA before the old one ends, or after it. A
// connection lives through either.
func TestReauthentication(t *testing.T) {
	t.Parallel()
	shows(t, 38)
	for _, way := range []struct{ name, makeBeforeBreak string }{{"make-before-break", "yes"}, {"break-before-make", "no"}} {
		for _, initiator := range []side{fromNode, fromPeer} {
			t.Run(way.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(partner(usualIKE, usualESP, option("make_before_break", way.makeBeforeBreak)))
				p.startNode(policy{})
				capture := p.capture()
				p.bringUp(initiator)
				stop := p.stream(fromNode)
				before := p.oursNow()
				p.reauthenticate()
				if way.makeBeforeBreak == "yes" {
					p.settled(localapi.Associations{IKE: before.IKE, Children: before.Children})
				} else { // in the gap traffic makes the node begin as well: both may, as in TestSimultaneousInitiation
					p.until("both ends have new associations only", func() (bool, error) {
						ours := p.oursNow()
						theirs, err := p.charon.SAs(p.ctx)
						old := slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool { return s.SPI == before.IKE[0].SPI })
						return !old && len(ours.Children) > 0 && len(ours.IKE) == len(theirs), err
					})
				}
				stop()
				p.talk(fromPeer)
				w := p.sentNothingClear(capture)
				if way.makeBeforeBreak == "yes" && w.clear != 0 {
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
			p := newPair(t)
			p.startPeer(partner(usualIKE, usualESP, connection("dpd_delay", "1s"), child("dpd_action", action),
				option("retransmit_tries", "1"), option("retransmit_timeout", "0.5")))
			p.startNode(policy{})
			p.bringUp(fromNode)
			capture := p.capture()
			before := p.oursNow()
			if err := p.process.Kill(); err != nil {
				t.Fatal(err)
			}
			p.until("strongSwan has given the old IKE SA up", func() (bool, error) {
				theirs, err := p.charon.SAs(p.ctx)
				for _, s := range theirs {
					if s.InitiatorSPI == before.IKE[0].SPI && s.State == "ESTABLISHED" {
						return false, err
					}
				}
				return true, err
			})
			p.restartNode()
			switch action {
			case "clear":
				p.talk(fromNode)
			case "restart":
				p.until("strongSwan has begun again", func() (bool, error) {
					// It gives up after a few tries of its own.
					return p.charon.Initiate(p.ctx, netName) == nil && len(p.oursNow().Children) > 0, nil
				})
				p.talk(fromNode)
			case "trap": // its user space ESP drops what it traps and tells nobody: the node begins
				p.talk(fromNode)
				p.talk(fromPeer)
			}
			p.nothingClear(capture)
		})
	}
}

// TestIdlePeer lets strongSwan end a Child SA that nobody uses. Traffic brings a new one, in the same IKE SA.
func TestIdlePeer(t *testing.T) {
	t.Parallel()
	shows(t, 42)
	for _, from := range []side{fromNode, fromPeer} {
		t.Run(from.String(), func(t *testing.T) {
			p := newPair(t)
			p.startPeer(partner(usualIKE, usualESP, child("inactivity", "1s")))
			p.startNode(policy{})
			capture := p.capture()
			p.bringUp(from)
			before := p.oursNow()
			p.until("the node has no child", func() (bool, error) { return len(p.oursNow().Children) == 0, nil })
			p.talk(fromNode)
			if after := p.oursNow(); len(after.IKE) != 1 || after.IKE[0].SPI != before.IKE[0].SPI {
				t.Errorf("the node has %+v, want the IKE SA that it had", after.IKE)
			}
			p.sentNothingClear(capture)
		})
	}
}

// TestLivenessUnderTraffic has strongSwan ask for signs of life after a second of silence, while packets flow: the node's
// ESP is sign enough (RFC 7296 2.4). When the packets end, it asks and is answered.
func TestLivenessUnderTraffic(t *testing.T) {
	shows(t, 41)
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP, connection("dpd_delay", "1s")))
	p.startNode(policy{})
	p.bringUp(fromNode)
	stop := p.stream(fromNode)
	<-time.After(3 * time.Second)
	asked, err := p.charon.Logged("sending DPD request")
	if stop(); err != nil || asked {
		t.Errorf("strongSwan asked %t (%v) while packets flowed", asked, err)
	}
	p.until("strongSwan asks", func() (bool, error) { return p.charon.Logged("sending DPD request") })
	p.agree(fromNode)
}

// TestStartAndTrap lets strongSwan begin by itself, when its configuration is loaded, or when a packet asks; and load it
// again under traffic.
func TestStartAndTrap(t *testing.T) {
	t.Parallel()
	shows(t, 44)
	t.Run("start", func(t *testing.T) {
		p := newPair(t)
		p.startNode(policy{})
		capture := p.capture()
		p.startPeer(partner(usualIKE, usualESP, child("start_action", "start")))
		p.until("both have a child", func() (bool, error) {
			theirs, err := p.charon.SAs(p.ctx)
			return err == nil && len(theirs) == 1 && len(installed(theirs[0])) == 1 && len(p.oursNow().Children) == 1, err
		})
		p.talk(fromNode)
		p.protected(capture)
		p.agree(fromPeer)
	})
	t.Run("trap", func(t *testing.T) {
		p := newPair(t)
		p.startNode(policy{})
		capture := p.capture()
		p.startPeer(partner(usualIKE, usualESP, child("start_action", "trap")))
		if ours := p.oursNow(); len(ours.IKE) != 0 {
			t.Errorf("before any packet the node has %+v", ours.IKE)
		}
		// strongSwan's user space ESP drops what it traps and tells nobody: the node's packet asks.
		p.talk(fromNode)
		p.talk(fromPeer)
		p.protected(capture)
		p.agree(fromNode)
	})
	t.Run("reload", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP, child("start_action", "trap")))
		p.startNode(policy{})
		capture := p.capture()
		p.bringUp(fromNode)
		before := p.oursNow()
		stop := p.stream(fromNode)
		if err := p.charon.Reload(p.ctx); err != nil {
			t.Fatal(err)
		}
		stop()
		if after := p.oursNow(); after.IKE[0].SPI != before.IKE[0].SPI || after.Children[0].In != before.Children[0].In {
			t.Errorf("after the same configuration was loaded again the node has %+v, had %+v", after, before)
		}
		p.protected(capture)
	})
}
