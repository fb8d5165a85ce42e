package kernel

import (
	"regexp"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
)

// TestExtendedSequenceNumbers negotiates them, and their absence, as the peer wants it (RFC 4303 2.2.1). The high-order
// half is part of what the ICV covers, so that packets pass only where both ends count alike. It stays so when either side
// rekeys under a connection.
func TestExtendedSequenceNumbers(t *testing.T) {
	shows(t, 50)
	for _, c := range []struct {
		name string
		esp  string
		ours string // the policy's offer
		want bool
	}{
		{"gcm", "aes256gcm16-esn", "", true},
		{"cbc", "aes256-sha256-esn", "ESP[AES-256,SHA256]", true},
		{"without", "aes256gcm16-noesn", "", false},
	} {
		for _, initiator := range pair.Sides {
			t.Run(c.name+"/"+initiator.String(), func(t *testing.T) {
				p := newPair(t)
				policy := pair.Policy{Transport: true, ESP: c.ours}
				p.StartPeer(pair.Partner(policy, "", c.esp))
				p.StartNode(policy)
				capture := p.Capture()
				p.BringUp(initiator)
				stop := p.Stream(pair.FromNode)
				p.Agree(initiator)
				counts(p, c.want)
				for _, side := range pair.Sides {
					p.RekeyChild(side)
					p.Talk(pair.FromPeer)
					p.Agree(initiator)
					counts(p, c.want)
				}
				stop()
				p.Protected(capture)
			})
		}
	}
}

// counts requires that the guest's kernel has both SAs of the only child, that they count in 64 bits or do not, and that
// packets passed in each.
func counts(p *pair.Pair, extended bool) {
	p.T.Helper()
	child := p.Ours().Children[0]
	p.Until("packets pass in both SAs", func() (bool, error) {
		now := p.Ours().Children
		return len(now) == 1 && now[0].In == child.In && now[0].InPackets > 0 && now[0].OutPackets > 0, nil
	})
	states := guestStates(p)
	for _, spi := range []string{child.In, child.Out} {
		state, ok := states[spi]
		if !ok {
			p.T.Errorf("the guest's kernel has no SA %s, but %v", spi, states)
			continue
		}
		if esn.MatchString(state) != extended || strings.Contains(state, "anti-replay esn context") != extended {
			p.T.Errorf("the guest's kernel has SA %s, want extended sequence numbers: %t\n%s", spi, extended, state)
		}
	}
}

var (
	esn = regexp.MustCompile(`(?m)^\s*replay-window .*flag .*\besn\b`)
	spi = regexp.MustCompile(`(?m)^\s+proto esp spi 0x([0-9a-f]{8}) `)
)

// guestStates are the ESP SAs of the guest's kernel, as ip(8) prints them, by SPI.
func guestStates(p *pair.Pair) map[string]string {
	p.T.Helper()
	states := map[string]string{}
	for state := range strings.SplitSeq("\n"+p.InGuest("ip", "xfrm", "state"), "\nsrc ") {
		if m := spi.FindStringSubmatch(state); m != nil {
			states[m[1]] = state
		}
	}
	return states
}
