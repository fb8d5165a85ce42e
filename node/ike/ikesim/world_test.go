package ikesim

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var (
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
	addrC = netip.MustParseAddr("10.0.0.3")

	ikeOffer = proposal.IKE{
		Encryption: proposal.EncrAESGCM16, KeyBits: 256, Integrity: proposal.IntegNone, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519,
	}
	espOffer = proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128}
	pskAuth  = spd.Auth{Method: spd.AuthPSK, Secret: "shared"}
	certAuth = spd.Auth{Method: spd.AuthCertificate}
)

func everything() sa.Selector {
	return sa.Selector{From: netip.MustParseAddr("0.0.0.0"), To: netip.MustParseAddr("255.255.255.255"), PortTo: 65535}
}

func host(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }

// meshRule is transport mode between this machine and everybody.
func meshRule(own netip.Addr, auth spd.Auth) ike.Rule {
	return ike.Rule{
		ID: "mesh", Mode: sa.Transport, Pairs: []ike.Pair{{Local: host(own), Remote: everything()}},
		Offers: []proposal.ESP{espOffer}, Auth: []spd.Auth{auth},
	}
}

func config(name string, own netip.Addr, rules ...ike.Rule) ike.Config {
	return ike.Config{
		Rules: rules, Offers: []proposal.IKE{ikeOffer},
		Local:   ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(name)},
		Chain:   [][]byte{[]byte("certificate of " + name)},
		Secrets: map[string]sa.Secret{"shared": sa.NewSecret([]byte("a preshared key of enough octets"))},
	}
}

func flow(from, to netip.Addr) ike.Flow {
	return ike.Flow{Rule: "mesh", Local: from, Remote: to, LocalTS: host(from), RemoteTS: host(to)}
}

// pair is a world of two nodes with the same rule.
func pair(seed uint64, f Faults, auth spd.Auth, change func(r *ike.Rule)) (w *World, a, b *Node) {
	w = New(seed, f)
	w.Tracing = true
	rules := func(own netip.Addr) ike.Rule {
		r := meshRule(own, auth)
		if change != nil {
			change(&r)
		}
		return r
	}
	a = w.Add("a.example", addrA, config("a.example", addrA, rules(addrA)))
	b = w.Add("b.example", addrB, config("b.example", addrB, rules(addrB)))
	return w, a, b
}

// verify fails the test with the whole story when an invariant is broken.
func verify(t *testing.T, w *World) {
	t.Helper()
	if len(w.Broken) > 0 {
		t.Fatalf("seed %d: %s\n%s", w.seed, strings.Join(w.Broken, "\n"), story(w))
	}
}

func story(w *World) string { return strings.Join(w.Trace, "\n") }

func mirrored(t *testing.T, w *World, a, b *Node, children int) {
	t.Helper()
	w.CheckRest()
	verify(t, w)
	if len(a.SADB) != children || len(b.SADB) != children {
		t.Fatalf("seed %d: want %d Child SAs on both sides, have %d and %d\n%s", w.seed, children, len(a.SADB), len(b.SADB), story(w))
	}
}

func TestEstablish(t *testing.T) {
	for _, auth := range []spd.Auth{pskAuth, certAuth} {
		w, a, b := pair(1, Faults{Delay: 5 * time.Millisecond}, auth, nil)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2 * time.Second)
		mirrored(t, w, a, b, 1)
		if a.Ups != 1 || b.Ups != 1 {
			t.Errorf("want one Up on each side, have %d and %d", a.Ups, b.Ups)
		}
		for _, i := range a.SADB {
			if i.Child.Mode != sa.Transport || i.Child.Rule != "mesh" || !i.Child.Suite.ESN || fmt.Sprint(i.Child.LocalTS) != fmt.Sprint([]sa.Selector{host(addrA)}) {
				t.Errorf("the Child SA is not the one of the rule: %+v", i.Child)
			}
		}
	}
}
