package engine

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// trap is a seed that panics once when it is armed: whoever draws from it has an error in its code.
type trap struct {
	*rand.ChaCha8
	armed bool
}

func (p *trap) Read(b []byte) (int, error) {
	if p.armed {
		p.armed = false
		panic("trap")
	}
	return p.ChaCha8.Read(b)
}

// TestPanicForgetsNoOther lets one of two SAs that are due at the same time panic: the other one must go on.
func TestPanicForgetsNoOther(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	own := netip.MustParseAddr("10.0.0.1")
	host := func(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }
	everybody := sa.Selector{From: netip.MustParseAddr("0.0.0.0"), To: netip.MustParseAddr("255.255.255.255"), PortTo: 65535}
	seed := &trap{ChaCha8: rand.NewChaCha8([32]byte{})}
	e := New(ike.Config{
		Rules: []ike.Rule{{
			ID: "r", Mode: sa.Transport, Pairs: []ike.Pair{{Local: host(own), Remote: everybody}},
			Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}}, Auth: []spd.Auth{{Method: spd.AuthPSK, Secret: "s"}},
		}},
		Offers:  []proposal.IKE{{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}},
		Secrets: map[string]sa.Secret{"s": sa.NewSecret([]byte("a preshared key of enough octets"))},
	}, seed)
	sends := func(actions []ike.Action) map[netip.Addr]int {
		n := make(map[netip.Addr]int)
		for _, a := range actions {
			if s, ok := a.(ike.Send); ok {
				n[s.Remote.Addr()]++
			}
		}
		return n
	}
	peers := []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}
	for _, p := range peers {
		for _, a := range e.Step(now, ike.Acquire{Flow: ike.Flow{Rule: "r", Local: own, Remote: p, LocalTS: host(own), RemoteTS: host(p)}}) {
			if j, ok := a.(ike.Job); ok {
				if n := sends(e.Step(now, ike.JobDone{ID: j.ID, Result: ike.Generated{Public: bytes.Repeat([]byte{1}, 32)}})); n[p] != 1 {
					t.Fatalf("no first message to %s: %v", p, n)
				}
			}
		}
	}
	now = now.Add(3 * time.Second) // both retransmit, and draw the next interval
	seed.armed = true
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("nobody panicked")
			}
		}()
		e.Step(now, ike.Timeout{})
	}()
	down := 0
	for _, a := range e.Abandon("trap") {
		if d, ok := a.(ike.Down); ok && d.Reason == ike.ReasonInternal {
			down++
		}
	}
	if err := e.CheckTables(); err != nil || down != 1 || len(e.Snapshot().Failures) == 0 {
		t.Errorf("%d SAs ended, failures %+v, tables: %v", down, e.Snapshot().Failures, err)
	}
	at := e.Deadline()
	if at.IsZero() || at.After(now.Add(time.Second)) {
		t.Fatalf("the next deadline is %s", at)
	}
	if n := sends(e.Step(at, ike.Timeout{})); n[peers[1]] != 1 {
		t.Errorf("the other SA sends %v, want its retransmission", n)
	}
}
