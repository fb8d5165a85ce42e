package ikesim

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// Vulnerabilities of other implementations of IKE in how they authenticate.

// withAuth gives a node another list of authentication.
func withAuth(n *Node, auth ...spd.Auth) {
	c := n.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].Auth = auth
	n.Config = c
	n.Do(ike.Reconfigure{Config: c})
}

// answers are the IKE_AUTH responses of a node, as its trace shows them.
func answers(w *World, node string) []string {
	var list []string
	for line := range strings.Lines(story(w)) {
		if i := strings.Index(line, "send IKE_AUTH response"); i >= 0 && strings.Contains(line, node) {
			list = append(list, strings.TrimSpace(line[i:]))
		}
	}
	return list
}

// CVE-2015-4171 (strongSwan): a side that has not accepted the other one yet tells who it is and proves it. Here the
// responder signs nothing, and shows neither its identity nor its certificate, before the initiator is accepted.
func TestCVE_2015_4171_NothingIsShownToStrangers(t *testing.T) {
	w := New(1, calm)
	w.Tracing = true
	a := w.Add("bad.example", addrA, config("bad.example", addrA, meshRule(addrA, certAuth)))
	b := w.Add("b.example", addrB, config("b.example", addrB, meshRule(addrB, certAuth)))
	signed := 0
	b.work = func(work ike.Work) ike.Result {
		if _, own := work.(ike.Sign); own {
			signed++
		}
		return b.toy(work)
	}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(2 * time.Second)
	got := answers(w, "b.example")
	if len(got) != 1 || got[0] != "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)" {
		t.Errorf("the stranger was told %q", got)
	}
	if signed != 0 {
		t.Errorf("the responder signed %d times for a stranger", signed)
	}
}

// Whatever is wrong with the initiator, it gets one and the same answer, and nothing is left of it: no oracle for which
// identities, keys and policies there are.
func TestOneAnswerToAllThatFails(t *testing.T) {
	unknown := pskAuth
	unknown.RemoteID = "fqdn:somebody.example"
	missing := pskAuth
	missing.Secret = "not there"
	for name, change := range map[string]func(a, b *Node){
		"unknown identity": func(a, b *Node) { withAuth(a, pskAuth); withAuth(b, unknown) },
		"wrong key": func(a, b *Node) {
			withAuth(b, pskAuth)
			c := a.Config
			c.Secrets = map[string]sa.Secret{"shared": sa.NewSecret([]byte("another preshared key of many octets"))}
			a.Config = c
			withAuth(a, pskAuth)
		},
		"a key that is not there":           func(a, b *Node) { withAuth(a, pskAuth); withAuth(b, missing) },
		"method that no rule allows":        func(a, b *Node) { withAuth(a, pskAuth); withAuth(b, certAuth) },
		"certificate where a key is wanted": func(a, b *Node) { withAuth(a, certAuth); withAuth(b, pskAuth) },
		"certificate of another": func(a, b *Node) {
			withAuth(a, certAuth)
			other := certAuth
			other.RemoteID = "fqdn:c.example"
			withAuth(b, other)
		},
		"denied": func(a, b *Node) {
			withAuth(a, certAuth)
			withAuth(b, certAuth)
			b.Denied = map[string]bool{"a.example": true}
		},
		"postquantum key wanted": func(a, b *Node) {
			withAuth(a, pskAuth)
			p := pskAuth
			p.PPK = "bank-ppk"
			c := b.Config
			c.Secrets = maps.Clone(c.Secrets)
			c.Secrets["bank-ppk"] = sa.NewSecret([]byte("0123456789abcdef0123456789abcdef"))
			b.Config = c
			withAuth(b, p)
		},
	} {
		w, a, b := pair(1, calm, certAuth, nil)
		change(a, b)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(5 * time.Second)
		got := answers(w, "b.example")
		if len(got) != 1 || got[0] != "send IKE_AUTH response 1 N(AUTHENTICATION_FAILED)" {
			t.Errorf("%s: answered %q", name, got)
		}
		if len(b.SADB) != 0 || len(b.Engine.Snapshot().SAs) != 0 || len(a.SADB) != 0 {
			t.Errorf("%s: something is left\n%s", name, story(w))
		}
		verify(t, w)
	}
}

// CVE-2024-2357 (libreswan): the state of a peer without a preshared key was kept, and its next message crashed the
// daemon. Here the same request gets the same answer for a while, and is then unknown.
func TestCVE_2024_2357_RefusedPeersMayRepeatThemselves(t *testing.T) {
	missing := pskAuth
	missing.Secret = "not there"
	w, a, b := pair(1, calm, pskAuth, nil)
	withAuth(b, missing)
	var request ike.Datagram
	w.Hold(func(from, _ *Node, exchange uint8, _ bool) bool { return from == a && exchange == uint8(wire.IKEAuth) })
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(500 * time.Millisecond)
	if len(w.held) == 0 {
		t.Fatal("no IKE_AUTH request was made")
	}
	request = w.held[0].ev.(ike.Datagram)
	w.DropHeld()
	a.Off = true
	for range 5 {
		b.Do(request)
		w.Run(time.Second)
	}
	got := answers(w, "b.example")
	if len(got) != 1 || len(b.Engine.Snapshot().SAs) != 0 || count(w, "b.example", "retransmit IKE_AUTH response") != 4 {
		t.Errorf("answered %q\n%s", got, story(w))
	}
	w.Run(10 * time.Minute)
	b.Do(request)
	if got := answers(w, "b.example"); len(got) != 2 || got[1] != "send IKE_AUTH response 1 N(INVALID_IKE_SPI)" {
		t.Errorf("long after the SA is gone the answers are %q", got)
	}
	verify(t, w)
}

// CVE-2023-26463 (strongSwan): a verification that had not finished left "trusted" behind. A verdict that says nothing
// accepts nobody.
func TestCVE_2023_26463_NobodyIsAcceptedByDefault(t *testing.T) {
	for name, result := range map[string]ike.Result{"nothing": nil, "empty verdict": ike.Verified{}, "another kind": ike.Signed{Method: 14}} {
		w, a, b := pair(1, calm, certAuth, nil)
		b.work = func(work ike.Work) ike.Result {
			if _, about := work.(ike.Verify); about {
				return result
			}
			return b.toy(work)
		}
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(5 * time.Second)
		if len(a.SADB)+len(b.SADB) != 0 || b.Ups != 0 {
			t.Errorf("%s: the peer was accepted\n%s", name, story(w))
		}
	}
}

// With many preshared keys in one rule, that of the peer is found by its identity.
func TestOneOfManyPresharedKeys(t *testing.T) {
	const keys = 500
	var list []spd.Auth
	secrets := map[string]sa.Secret{}
	for i := range keys {
		name := fmt.Sprintf("peer%d.example", i)
		list = append(list, spd.Auth{Method: spd.AuthPSK, Secret: name, RemoteID: "fqdn:" + name})
		secrets[name] = sa.NewSecret(fmt.Appendf(nil, "the preshared key of %s, of enough octets", name))
	}
	w := New(1, calm)
	w.Tracing = true
	gateway := config("gateway.example", addrB, meshRule(addrB, pskAuth))
	gateway.Rules[0].Auth, gateway.Secrets = list, secrets
	b := w.Add("gateway.example", addrB, gateway)
	for n, i := range []int{0, 250, keys - 1} {
		name := fmt.Sprintf("peer%d.example", i)
		addr := netip.AddrFrom4([4]byte{10, 0, 9, byte(n + 1)})
		c := config(name, addr, meshRule(addr, pskAuth))
		c.Secrets = map[string]sa.Secret{"shared": secrets[name]}
		a := w.Add(name, addr, c)
		a.Do(ike.Acquire{Flow: flow(addr, addrB)})
		w.Run(2 * time.Second)
		if sasWith(b, name) != 1 || len(a.SADB) != 1 {
			t.Errorf("%s did not get in\n%s", name, story(w))
		}
	}
	verify(t, w)
}

// BenchmarkPresharedKeys makes one IKE SA with a gateway that has that many preshared keys in one rule. The work of the
// jobs is a toy's, so that the rest stands out.
func BenchmarkPresharedKeys(b *testing.B) {
	for _, keys := range []int{1, 500} {
		b.Run(fmt.Sprint(keys), func(b *testing.B) {
			var list []spd.Auth
			secrets := map[string]sa.Secret{}
			for i := range keys {
				name := fmt.Sprintf("peer%d.example", i)
				list = append(list, spd.Auth{Method: spd.AuthPSK, Secret: name, RemoteID: "fqdn:" + name})
				secrets[name] = sa.NewSecret(fmt.Appendf(nil, "the preshared key of %s, of enough octets", name))
			}
			last := fmt.Sprintf("peer%d.example", keys-1)
			w := New(1, calm)
			w.unchecked = true
			gateway := config("gateway.example", addrB, meshRule(addrB, pskAuth))
			gateway.Rules[0].Auth, gateway.Secrets, gateway.Untraced = list, secrets, true
			g := w.Add("gateway.example", addrB, gateway)
			c := config(last, addrA, meshRule(addrA, pskAuth))
			c.Secrets, c.Untraced = map[string]sa.Secret{"shared": secrets[last]}, true
			a := w.Add(last, addrA, c)
			for b.Loop() {
				a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
				w.Run(100 * time.Millisecond)
				if len(g.SADB) != 1 {
					b.Fatal("no association")
				}
				for _, s := range a.Engine.Snapshot().SAs {
					a.Do(ike.Close{IKE: ike.IKESPI(s.SPI)})
				}
				w.Run(time.Second)
			}
		})
	}
}
