package strongswan

import (
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

const (
	usualIKE = "aes256gcm16-prfsha384-ecp384"
	usualESP = "aes256gcm16"
)

// oursNow returns the current associations of the node.
func (p *pair) oursNow() localapi.Associations {
	p.t.Helper()
	a, err := p.client.Associations(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// rekeyChild rekeys the one Child SA from a side and waits until both ends have only the new one.
func (p *pair) rekeyChild(by side) {
	p.t.Helper()
	before := p.oursNow().Children[0].In
	var err error
	if by == fromNode {
		err = p.client.Rekey(p.ctx, localapi.Rekey{Child: before})
	} else {
		err = p.charon.RekeyChild(p.ctx, netName)
	}
	if err != nil {
		p.t.Fatalf("rekey the child from the %s: %v", by, err)
	}
	p.until("both ends have the new child only", func() (bool, error) {
		ours := p.oursNow()
		theirs, err := p.charon.SAs(p.ctx)
		if err != nil || len(ours.Children) != 1 || len(theirs) != 1 {
			return false, err
		}
		children := installed(theirs[0])
		return len(children) == 1 && ours.Children[0].In != before && ours.Children[0].In == children[0].Out, nil
	})
}

func installed(s charon.SA) []charon.ChildSA {
	return slices.DeleteFunc(slices.Clone(s.Children), func(c charon.ChildSA) bool { return c.State != "INSTALLED" })
}

// rekeyIKE does the same with the IKE SA; its child moves to the new one.
func (p *pair) rekeyIKE(by side) {
	p.t.Helper()
	before := p.oursNow().IKE[0].SPI
	var err error
	if by == fromNode {
		err = p.client.Rekey(p.ctx, localapi.Rekey{IKE: before})
	} else {
		err = p.charon.RekeyIKE(p.ctx, connName)
	}
	if err != nil {
		p.t.Fatalf("rekey the IKE SA from the %s: %v", by, err)
	}
	p.until("both ends have the new IKE SA only", func() (bool, error) {
		ours := p.oursNow()
		theirs, err := p.charon.SAs(p.ctx)
		if err != nil || len(ours.IKE) != 1 || len(theirs) != 1 {
			return false, err
		}
		own := []string{theirs[0].InitiatorSPI, theirs[0].ResponderSPI}
		return ours.IKE[0].SPI != before && slices.Contains(own, ours.IKE[0].SPI) && len(theirs[0].Children) == 1, nil
	})
}

// TestRekey rekeys child and IKE SA from either side, under a TCP connection that lives through all of it.
func TestRekey(t *testing.T) {
	t.Parallel()
	shows(t, 31, 32)
	for _, initiator := range []side{fromNode, fromPeer} {
		for _, by := range []side{fromNode, fromPeer} {
			t.Run("by-"+initiator.String()+"/rekeyed-by-"+by.String(), func(t *testing.T) {
				p := newPair(t)
				p.startPeer(partner(usualIKE, usualESP))
				p.startNode(policy{})
				capture := p.capture()
				p.bringUp(initiator)
				stop := p.stream(fromNode)
				p.rekeyChild(by)
				p.rekeyIKE(by)
				p.rekeyChild(by)
				p.rekeyIKE(1 - by)
				stop()
				p.protected(capture)
				p.agree(1 - by)
			})
		}
	}
}

// stream keeps a TCP connection busy until the returned function is called, which requires that every message was
// answered. The first one is answered when stream returns, so that whatever the test does next meets traffic.
func (p *pair) stream(from side) (stop func() int) {
	p.t.Helper()
	conn, err := p.dial(from, 10*time.Second)
	if err != nil {
		p.t.Fatalf("connect from the %s: %v", from, err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	if err := roundTrip(conn, marker, 15*time.Second); err != nil {
		p.t.Fatalf("the first message from the %s: %v", from, err)
	}
	ended, result := make(chan struct{}), make(chan error, 1)
	messages := 1
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				result <- nil
				return
			case <-tick.C:
			}
			if err := roundTrip(conn, marker, 15*time.Second); err != nil {
				result <- err
				return
			}
			messages++
		}
	}()
	return func() int {
		p.t.Helper()
		close(ended)
		if err := <-result; err != nil {
			p.t.Errorf("the TCP connection from the %s was lost after %d messages: %v", from, messages, err)
		}
		return messages
	}
}

// TestDelete ends associations from either side; the other side hears of it, nothing goes in clear, and new traffic
// brings new ones.
func TestDelete(t *testing.T) {
	t.Parallel()
	t.Run("child-by-peer", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP))
		p.startNode(policy{})
		capture := p.capture()
		p.bringUp(fromNode)
		before := p.oursNow()
		if err := p.charon.TerminateChild(p.ctx, netName); err != nil {
			t.Fatal(err)
		}
		p.until("the node has not the old child", func() (bool, error) {
			return !slices.ContainsFunc(p.oursNow().Children, func(c localapi.Child) bool { return c.In == before.Children[0].In }), nil
		})
		p.talk(fromNode)
		if _, ours := p.agree(fromNode); ours.IKE[0].SPI != before.IKE[0].SPI {
			t.Errorf("the IKE SA went with its child: it was %s, now it is %s", before.IKE[0].SPI, ours.IKE[0].SPI)
		}
		p.sentNothingClear(capture)
	})
	t.Run("ike-by-peer", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP))
		p.startNode(policy{})
		capture := p.capture()
		p.bringUp(fromPeer)
		p.talk(fromNode)
		before := p.oursNow()
		if err := p.charon.TerminateIKE(p.ctx, connName); err != nil {
			t.Fatal(err)
		}
		// The last packets of the exchange may ask for new associations at once.
		p.until("the node has none of the old associations", func() (bool, error) {
			ours := p.oursNow()
			return !slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool { return s.SPI == before.IKE[0].SPI }) &&
				!slices.ContainsFunc(ours.Children, func(c localapi.Child) bool { return c.In == before.Children[0].In }), nil
		})
		p.talk(fromNode)
		p.agree(fromNode)
		p.sentNothingClear(capture)
	})
	t.Run("ike-by-node", func(t *testing.T) {
		p := newPair(t)
		p.startPeer(partner(usualIKE, usualESP))
		p.startNode(policy{})
		capture := p.capture()
		p.bringUp(fromNode)
		if err := p.process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.until("strongSwan has no association", func() (bool, error) {
			theirs, err := p.charon.SAs(p.ctx)
			return len(theirs) == 0, err
		})
		p.logged("received DELETE for IKE_SA")
		if err := p.process.Wait(); err != nil {
			t.Errorf("the node ended with %v", err)
		}
		// What must be protected stays blocked without the daemon.
		if err := p.exchange(fromNode, time.Second); err == nil {
			t.Error("an exchange succeeds without the daemon")
		}
		p.restartNode()
		p.talk(fromNode)
		p.sentNothingClear(capture)
	})
}

// sentNothingClear requires that the node sent nothing of the inner networks in clear.
func (p *pair) sentNothingClear(capture *lab.Capture) traffic {
	p.t.Helper()
	frames, err := capture.Stop()
	if err != nil {
		p.t.Fatal(err)
	}
	w := look(frames)
	if w.sent != 0 || w.esp == 0 {
		p.t.Errorf("on the wire: %+v, want ESP and nothing in clear from the node", w)
	}
	return w
}

// TestPeerProbesLiveness lets strongSwan ask whether the node is there (RFC 7296 2.4).
func TestPeerProbesLiveness(t *testing.T) {
	shows(t, 40)
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP, connection("dpd_delay", "1s")))
	p.startNode(policy{})
	p.bringUp(fromNode)
	p.until("strongSwan has probed the node and heard it", func() (bool, error) {
		asked, err1 := p.charon.Logged("sending DPD request")
		heard, err2 := p.charon.Logged("parsed INFORMATIONAL response")
		return asked && heard, errors.Join(err1, err2)
	})
	p.agree(fromNode)
}

// TestPeerRestarts kills strongSwan: the node does not know. When it is back and negotiates again, its INITIAL_CONTACT
// replaces what the node still has (RFC 7296 2.4), and traffic flows.
func TestPeerRestarts(t *testing.T) {
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP, child("start_action", "start")))
	p.startNode(policy{})
	capture := p.capture()
	if err := p.charon.Initiate(p.ctx, netName); err != nil {
		t.Logf("initiate: %v", err)
	}
	p.talk(fromNode)
	before := p.oursNow()
	if err := p.charon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.exchange(fromNode, 500*time.Millisecond); err == nil {
		t.Error("an exchange succeeds with a peer that is dead")
	}
	if err := p.charon.Restart(p.ctx); err != nil {
		t.Fatal(err)
	}
	p.talk(fromNode)
	p.talk(fromPeer)
	p.until("the node has forgotten the old associations", func() (bool, error) {
		after := p.oursNow()
		return len(after.IKE) == 1 && len(after.Children) == 1 && after.IKE[0].SPI != before.IKE[0].SPI, nil
	})
	p.sentNothingClear(capture)
}

// TestNodeRestarts kills the node: strongSwan does not know. Traffic from the node brings new associations.
func TestNodeRestarts(t *testing.T) {
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP))
	p.startNode(policy{})
	capture := p.capture()
	p.bringUp(fromPeer)
	p.talk(fromNode)
	if err := p.process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.exchange(fromNode, 500*time.Millisecond); err == nil {
		t.Error("an exchange succeeds without the daemon")
	}
	p.restartNode()
	p.talk(fromNode)
	p.talk(fromPeer)
	p.agree(fromNode)
	p.sentNothingClear(capture)
}

// TestPeerForgets kills strongSwan and starts it again without any memory, and without anything to initiate. The node
// finds out by its own liveness check and makes new associations for its traffic (RFC 7296 2.4).
func TestPeerForgets(t *testing.T) {
	shows(t, 40)
	p := newPair(t)
	p.startPeer(partner(usualIKE, usualESP))
	p.startNode(policy{})
	capture := p.capture()
	p.bringUp(fromNode)
	before := p.oursNow()
	if err := p.charon.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := p.charon.Restart(p.ctx); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for p.exchange(fromNode, 2*time.Second) != nil {
		if p.ctx.Err() != nil {
			t.Fatalf("no traffic %s after the peer came back", time.Since(start))
		}
	}
	t.Logf("traffic is back after %s", time.Since(start).Round(time.Second))
	if after := p.oursNow(); len(after.IKE) != 1 || after.IKE[0].SPI == before.IKE[0].SPI {
		t.Errorf("the node has %+v, want one new IKE SA", after.IKE)
	}
	p.sentNothingClear(capture)
}
