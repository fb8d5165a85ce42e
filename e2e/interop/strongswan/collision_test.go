package strongswan

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/localapi"
)

// delay lets strongSwan hold its messages of one exchange back: what it sends, or what it receives, requests, responses
// or both. That makes collisions happen, and in a known order, on a network without any delay.
func delay(direction, exchange string, requests, responses bool) func(*charon.Config) {
	word := map[bool]string{true: "yes", false: "no"}
	return func(c *charon.Config) {
		c.Options[direction+"_delay"] = "700"
		c.Options[direction+"_delay_type"] = exchange
		c.Options[direction+"_delay_request"] = word[requests]
		c.Options[direction+"_delay_response"] = word[responses]
	}
}

const (
	saInit        = "34"
	authenticate  = "35"
	createChild   = "36"
	informational = "37"
)

// delays are the orders in which the messages of two rekeys can cross (RFC 7296 2.8.1). The side whose messages take
// longer begins, so that the other one begins before they arrive.
var delays = []struct {
	name    string
	peer    func(*charon.Config)
	first   pair.Side
	crosses bool // the node sees the other's request before the response to its own, and tells so
}{
	// Here strongSwan sleeps with its IKE SA in its hands. Of its threads, the one with the node's request comes next, or, on
	// a busy machine, the one with the node's response: then its rekey is over before it knows of the node's.
	{"peer-sends-late", delay("send", createChild, true, true), pair.FromPeer, true},
	{"peer-asks-late", delay("send", createChild, true, false), pair.FromPeer, false},
	{"peer-hears-late", delay("receive", createChild, true, true), pair.FromNode, true},
	{"peer-is-asked-late", delay("receive", createChild, true, false), pair.FromNode, false},
}

// both lets the sides act one after the other, without waiting for what comes of it.
func (p peers) both(first pair.Side, node, peer func() error) {
	p.T.Helper()
	acts := []func() error{node, peer}
	for _, act := range []func() error{acts[first], acts[1-first]} {
		if err := act(); err != nil {
			p.T.Fatal(err)
		}
	}
}

// settled waits until both ends have one IKE SA with one Child SA, the same on both, and nothing of old. Of a collision the
// node may have one more IKE SA for a while: the redundant one, when strongSwan was told of the end of the old SA before
// it read the answer that made it, so that it never knew.
func (p peers) settled(old localapi.Associations) {
	p.T.Helper()
	p.Until("both ends have one IKE SA with one child", func() (bool, error) {
		ours := p.Ours()
		theirs, err := p.Charon.SAs(p.Ctx)
		theirs = slices.DeleteFunc(theirs, func(s charon.SA) bool { return s.State != "ESTABLISHED" })
		if err != nil || len(ours.IKE) > 2 || len(ours.Children) != 1 || len(theirs) != 1 {
			return false, err
		}
		children := pair.Installed(theirs[0])
		if len(children) != 1 || ours.Children[0].In != children[0].Out || ours.Children[0].Out != children[0].In || !ours.Children[0].Current {
			return false, nil
		}
		same := slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool {
			return s.State == "established" && (s.SPI == theirs[0].InitiatorSPI || s.SPI == theirs[0].ResponderSPI)
		})
		return same && !slices.ContainsFunc(old.Children, func(c localapi.Child) bool { return c.In == ours.Children[0].In }) &&
			!slices.ContainsFunc(old.IKE, func(s localapi.IKE) bool {
				return slices.ContainsFunc(ours.IKE, func(o localapi.IKE) bool { return o.SPI == s.SPI })
			}), nil
	})
}

// rekeys lets both sides rekey at once, with every order of the messages, under a connection that must not notice. asks
// are how either side is told to, settled waits for what is to come of it.
func rekeys(t *testing.T, asks func(p peers, before localapi.Associations) (node, peer func() error), settled func(p peers, before localapi.Associations)) {
	for _, d := range delays {
		t.Run(d.name, func(t *testing.T) {
			p, capture := established(t, pair.FromNode, pair.Policy{}, d.peer)
			stop := p.Stream(pair.FromNode)
			before := p.Ours()
			node, peer := asks(p, before)
			p.both(d.first, node, peer)
			settled(p, before)
			stop()
			p.Talk(pair.FromPeer)
			p.Protected(capture)
			if d.crosses && !p.NodeTold("rekey collision") {
				t.Error("the node saw no collision")
			}
		})
	}
}

// TestSimultaneousChildRekey rekeys the Child SA from both sides at once.
func TestSimultaneousChildRekey(t *testing.T) {
	t.Parallel()
	shows(t, 34)
	rekeys(t, func(p peers, before localapi.Associations) (node, peer func() error) {
		return func() error { return p.Client.Rekey(p.Ctx, localapi.Rekey{Child: before.Children[0].In}) },
			func() error { return p.Charon.RekeyChild(p.Ctx, pair.NetName) }
	}, func(p peers, before localapi.Associations) {
		p.Until("the node has heard of its own rekey", func() (bool, error) { return p.NodeTold("received CREATE_CHILD_SA response"), nil })
		p.settled(localapi.Associations{Children: before.Children})
		if ours := p.Ours(); ours.IKE[0].SPI != before.IKE[0].SPI {
			p.T.Errorf("the IKE SA was %s, now it is %s", before.IKE[0].SPI, ours.IKE[0].SPI)
		}
	})
}

// TestSimultaneousIKERekey does the same with the IKE SA; the Child SA goes with the one that stays.
func TestSimultaneousIKERekey(t *testing.T) {
	t.Parallel()
	shows(t, 35)
	rekeys(t, func(p peers, before localapi.Associations) (node, peer func() error) {
		return func() error { return p.Client.Rekey(p.Ctx, localapi.Rekey{IKE: before.IKE[0].SPI}) },
			func() error { return p.Charon.RekeyIKE(p.Ctx, pair.ConnName) }
	}, func(p peers, before localapi.Associations) {
		p.settled(localapi.Associations{IKE: before.IKE})
	})
}

// TestSimultaneousInitiation lets both sides begin at once. Two IKE SAs come of it. The one with the lowest of the four
// nonces is redundant, and its initiator closes it: the node does; strongSwan does not know that rule and keeps its own.
func TestSimultaneousInitiation(t *testing.T) {
	t.Parallel()
	shows(t, 37)
	for _, d := range []struct {
		name string
		peer func(*charon.Config)
	}{
		{"late", delay("send", saInit, true, true)},
		{"late-requests", delay("send", saInit, true, false)},
		{"late-authentication", delay("send", authenticate, true, true)},
	} {
		t.Run(d.name, func(t *testing.T) {
			p := ready(t, pair.Policy{}, d.peer)
			capture := p.Capture()
			result := make(chan error, 1)
			go func() { result <- p.Charon.Initiate(p.Ctx, pair.NetName) }()
			p.Until("strongSwan begins", func() (bool, error) { return p.Charon.Logged("initiating IKE_SA") })
			p.Talk(pair.FromNode)
			t.Logf("strongSwan's own: %v", <-result)
			redundant, initiator := lowestNonce(t, capture)
			p.Until("both ends have the same, and nothing that is redundant by the node", func() (bool, error) {
				ours := p.Ours()
				theirs, err := p.Charon.SAs(p.Ctx)
				theirs = slices.DeleteFunc(theirs, func(s charon.SA) bool { return s.State != "ESTABLISHED" })
				if err != nil || len(ours.IKE) != len(theirs) || len(ours.Children) != len(theirs) || len(theirs) == 0 {
					return false, err
				}
				if slices.ContainsFunc(ours.IKE, func(s localapi.IKE) bool { return s.SPI == redundant && initiator == pair.FromNode }) {
					return false, nil
				}
				for _, s := range theirs {
					if !slices.ContainsFunc(ours.IKE, func(o localapi.IKE) bool { return o.SPI == s.InitiatorSPI || o.SPI == s.ResponderSPI }) {
						return false, nil
					}
				}
				return true, nil
			})
			p.Talk(pair.FromPeer)
			p.Talk(pair.FromNode)
			p.SentNothingClear(capture)
		})
	}
}

// lowestNonce finds the IKE_SA_INIT exchange with the lowest nonce: the node's SPI in it, and who initiated it.
func lowestNonce(t *testing.T, capture *lab.Capture) (own string, initiator pair.Side) {
	t.Helper()
	type exchange struct {
		spi       wire.SPI
		initiator pair.Side
		nonce     []byte
	}
	found := map[wire.SPI]*exchange{}
	const headers = 14 + 20 + 8
	for _, f := range capture.Frames() {
		if len(f.Data) < headers || f.Data[14+9] != unix.IPPROTO_UDP {
			continue
		}
		octets := bytes.TrimPrefix(f.Data[headers:], make([]byte, 4))
		m, err := wire.ParseMessage(octets, wire.LimitBeforeAuth)
		nonce, ok := wire.Find[wire.Nonce](m.Payloads, nil)
		if err != nil || !ok || m.Header.Exchange != wire.IKESAInit {
			continue
		}
		x := found[m.Header.SPIi]
		if x == nil {
			x = &exchange{nonce: nonce.Data}
			found[m.Header.SPIi] = x
		}
		if bytes.Compare(nonce.Data, x.nonce) < 0 {
			x.nonce = nonce.Data
		}
		if byNode := f.Outgoing != m.Header.Response(); byNode {
			x.initiator, x.spi = pair.FromNode, m.Header.SPIi
		} else if x.initiator = pair.FromPeer; m.Header.Response() {
			x.spi = m.Header.SPIr
		}
	}
	var lowest *exchange
	for _, x := range found {
		if lowest == nil || bytes.Compare(x.nonce, lowest.nonce) < 0 {
			lowest = x
		}
	}
	if len(found) < 2 {
		t.Fatalf("%d IKE_SA_INIT exchanges, want both sides to begin", len(found))
	}
	return lowest.spi.String(), lowest.initiator
}

// TestCrossingDeletes ends the IKE SA from both sides at once: both deletes are answered, nobody waits for the other.
func TestCrossingDeletes(t *testing.T) {
	t.Parallel()
	shows(t, 36)
	for _, d := range []struct {
		name  string
		peer  func(*charon.Config)
		first pair.Side
	}{
		{"peer-sends-late", delay("send", informational, true, true), pair.FromPeer},
		{"peer-asks-late", delay("send", informational, true, false), pair.FromPeer},
		{"peer-hears-late", delay("receive", informational, true, true), pair.FromNode},
	} {
		t.Run(d.name, func(t *testing.T) {
			p := ready(t, pair.Policy{}, d.peer)
			p.BringUp(pair.FromNode)
			start, result := time.Now(), make(chan error, 1)
			p.both(d.first, func() error { return p.Process.Signal(unix.SIGTERM) }, func() error {
				go func() { result <- p.Charon.TerminateIKE(p.Ctx, pair.ConnName) }()
				p.Until("strongSwan deletes", func() (bool, error) { return p.Charon.Logged("sending DELETE for IKE_SA") })
				return nil
			})
			if err := p.Process.Stop(20 * time.Second); err != nil {
				t.Errorf("the node ended with %v", err)
			}
			if err := <-result; err != nil {
				t.Errorf("strongSwan waits for an answer: %v", err)
			}
			t.Logf("both ended after %s", time.Since(start).Round(10*time.Millisecond))
			theirs, err := p.Charon.SAs(p.Ctx)
			if err != nil || len(theirs) != 0 {
				t.Errorf("strongSwan has %v (%v), want nothing", theirs, err)
			}
		})
	}
}

// TestCrossingChildDeletes ends the Child SA that a rekey of the node has replaced from both sides at once: strongSwan, held
// to hear the node's delete late, is told to end it as well. Both deletes are answered, neither answer deletes once more
// (RFC 7296 1.4.1), and the new Child SA stays.
func TestCrossingChildDeletes(t *testing.T) {
	t.Parallel()
	shows(t, 36)
	for _, d := range []struct {
		name string
		peer func(*charon.Config)
	}{
		{"peer-hears-late", delay("receive", informational, true, true)},
		{"peer-is-asked-late", delay("receive", informational, true, false)},
	} {
		t.Run(d.name, func(t *testing.T) {
			p, capture := established(t, pair.FromNode, pair.Policy{}, d.peer)
			stop := p.Stream(pair.FromNode)
			before := p.Ours()
			if err := p.Client.Rekey(p.Ctx, localapi.Rekey{Child: before.Children[0].In}); err != nil {
				t.Fatal(err)
			}
			p.Until("the node deletes", func() (bool, error) { return len(p.told("send", "request", "D(ESP)")) > 0, nil })
			if _, err := p.Charon.Swanctl(p.Ctx, "--terminate", "--child-id", "1", "--timeout", "10"); err != nil {
				t.Fatal(err)
			}
			p.settled(localapi.Associations{Children: before.Children})
			stop()
			p.Talk(pair.FromPeer)
			p.Protected(capture)
			own, theirs := p.told("send", "request", "D(ESP)"), p.told("received", "request", "D(ESP)")
			answered, answers := p.told("received", "response", ""), p.told("send", "response", "")
			if len(own) != 1 || len(theirs) != 1 || len(answered) != 1 || len(answers) == 0 ||
				own[0] > theirs[0] || theirs[0] > answered[0] || theirs[0] > answers[len(answers)-1] {
				t.Errorf("deletes did not cross: %q", p.NodeTrace())
			}
		})
	}
}

// told are the places in the node's trace of INFORMATIONAL messages of a direction and kind with exactly these payloads.
func (p peers) told(direction, kind, payloads string) []int {
	p.T.Helper()
	message := regexp.MustCompile("^" + direction + " INFORMATIONAL " + kind + ` \d+` + regexp.QuoteMeta(strings.TrimRight(" "+payloads, " ")) + "$")
	var places []int
	for i, line := range p.NodeTrace() {
		if message.MatchString(line) {
			places = append(places, i)
		}
	}
	return places
}
