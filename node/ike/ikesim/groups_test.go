package ikesim

import (
	"slices"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
)

const tellers = "CN=Tellers,DC=bank,DC=example"

// guardedPair is two nodes, of which b accepts only members of a group.
func guardedPair(t *testing.T, member bool) (w *World, a, b *Node) {
	t.Helper()
	w, a, b = pair(1, calm, certAuth, nil)
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].PeerGroups = []string{"CN=Auditors,DC=bank,DC=example", tellers}
	if member {
		b.Groups = map[string][]string{"a.example": {tellers}}
	}
	b.Do(ike.Reconfigure{Config: c})
	return w, a, b
}

func lastFailure(n *Node) ike.Reason {
	f := n.Engine.Snapshot().Failures
	if len(f) == 0 {
		return ike.ReasonNone
	}
	return f[len(f)-1].Reason
}

func TestMembersOfAGroupAreAccepted(t *testing.T) {
	for _, name := range []string{"the member begins", "the member answers"} {
		w, a, b := guardedPair(t, true)
		if name == "the member begins" {
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		} else {
			b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		}
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
		// It stays so through rekeys of both kinds, and while nothing changes for it.
		a.rekeyIKE()
		w.Run(time.Second)
		b.rekeyChild()
		w.Run(time.Second)
		b.Do(ike.Recheck{})
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
		verify(t, w)
	}
}

// Who is in no group of the rule gets no Child SA of it, whoever begins; the IKE SA stays for what other rules allow.
func TestOthersAreNotAccepted(t *testing.T) {
	w, a, b := guardedPair(t, false)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if len(a.SADB)+len(b.SADB) != 0 || sasWith(b, "a.example") != 1 || lastFailure(b) != ike.ReasonPeerNotInGroup {
		t.Errorf("want no Child SA, an IKE SA and %s, have %d, %d and %s\n%s", ike.ReasonPeerNotInGroup, len(a.SADB)+len(b.SADB),
			sasWith(b, "a.example"), lastFailure(b), story(w))
	}
	// With an IKE SA that this begins, and through the one that is there then.
	w, a, b = guardedPair(t, false)
	for n := range 2 {
		b.Do(ike.Acquire{Flow: flow(addrB, addrA)})
		w.Run(5 * time.Second)
		refused := results[ike.Refuse](b)
		if len(a.SADB)+len(b.SADB) != 0 || len(refused) != n+1 || refused[n].Reason != ike.ReasonPeerNotInGroup {
			t.Errorf("want a refusal for %s, have %+v and %d Child SAs\n%s", ike.ReasonPeerNotInGroup, refused, len(a.SADB)+len(b.SADB), story(w))
		}
	}
	verify(t, w)
}

// A preshared key says nothing about the directory: its owner is in no group.
func TestPresharedKeysAreInNoGroup(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	c := b.Config
	c.Rules = slices.Clone(c.Rules)
	c.Rules[0].PeerGroups = []string{tellers}
	b.Groups = map[string][]string{"a.example": {tellers}}
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	if len(a.SADB)+len(b.SADB) != 0 {
		t.Errorf("a peer with a preshared key passes for a member\n%s", story(w))
	}
}

// Who leaves the group is cut off at once, also in the middle of a rekey and when it does not answer; who joins it gets in.
func TestMembersThatLeaveAreCutOff(t *testing.T) {
	for _, rekey := range []bool{false, true} {
		for _, silent := range []bool{false, true} {
			w, a, b := guardedPair(t, true)
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(time.Second)
			mirrored(t, w, a, b, 1)
			if rekey {
				b.rekeyIKE()
				a.rekeyChild()
				w.Run(7 * time.Millisecond)
			}
			a.Off = silent
			b.Groups = nil
			b.Do(ike.Recheck{})
			w.Run(100 * time.Millisecond)
			if len(b.SADB) != 0 {
				t.Fatalf("rekey %v, silent %v: who left has %d Child SAs\n%s", rekey, silent, len(b.SADB), story(w))
			}
			if silent {
				continue
			}
			w.Run(10 * time.Second)
			if len(a.SADB) != 0 {
				t.Fatalf("rekey %v: who left was not told: %d Child SAs\n%s", rekey, len(a.SADB), story(w))
			}
			b.Groups = map[string][]string{"a.example": {tellers}}
			b.Do(ike.Recheck{})
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(10 * time.Second)
			mirrored(t, w, a, b, 1)
			verify(t, w)
		}
	}
}

// A policy that names another group asks anew who is in it.
func TestAnotherGroupInThePolicy(t *testing.T) {
	w, a, b := guardedPair(t, true)
	b.Groups["a.example"] = []string{tellers, "CN=Guests"}
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(time.Second)
	for _, step := range []struct {
		group string
		want  int
	}{{"CN=Managers", 0}, {"CN=Guests", 1}} {
		c := b.Config
		c.Rules = slices.Clone(c.Rules)
		c.Rules[0].PeerGroups = []string{step.group}
		b.Do(ike.Reconfigure{Config: c})
		w.Run(10 * time.Second)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(10 * time.Second)
		mirrored(t, w, a, b, step.want)
	}
}
