package ikesim

import (
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

func TestFallback(t *testing.T) {
	wait := func(r *ike.Rule) { r.Fallback = spd.Fallback{Mode: spd.FallbackWait, TTL: time.Minute} }
	t.Run("a silent peer gets clear traffic after the delay", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, wait)
		b.Off = true
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2900 * time.Millisecond)
		if len(a.Results) != 0 {
			t.Fatalf("there is a result before the delay: %v", a.Results)
		}
		w.Run(200 * time.Millisecond)
		f := results[ike.Fallback](a)
		if len(f) != 1 || f[0].TTL != time.Minute || f[0].Flow.Rule != "mesh" {
			t.Fatalf("want one Fallback for a minute, have %+v", a.Results)
		}
		// Another flow to the same silent peer does not wait again.
		other := flow(addrA, addrB)
		other.LocalTS.Protocol, other.RemoteTS.Protocol = 6, 6
		a.Do(ike.Acquire{Flow: other})
		w.Run(time.Millisecond)
		if len(results[ike.Fallback](a)) != 2 {
			t.Fatal("a second flow to a peer known to be silent waits")
		}
		// The attempt goes on quietly: the peer appears, and associations are made.
		b.Off = false
		w.Run(40 * time.Second)
		if len(a.SADB) == 0 || len(results[ike.Refuse](a)) != 0 {
			t.Fatalf("no association although the peer is there now\n%s", story(w))
		}
		verify(t, w)
	})
	t.Run("clear traffic that has ended is granted again while the peer stays silent", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, func(r *ike.Rule) {
			r.Fallback = spd.Fallback{Mode: spd.FallbackWait, TTL: 20 * time.Second}
		})
		b.Off = true
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(24 * time.Second)
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Second)
		if n := len(results[ike.Fallback](a)); n != 2 {
			t.Fatalf("want Fallback twice, have %d", n)
		}
	})
	t.Run("a peer that answered and refuses gets none", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, wait)
		c := b.Config
		c.Offers = []proposal.IKE{{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA512, Group: proposal.GroupECP384}}
		b.Do(ike.Reconfigure{Config: c})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(5 * time.Minute)
		r := results[ike.Refuse](a)
		if len(results[ike.Fallback](a)) != 0 || len(r) != 1 || r[0].Reason != ike.ReasonNoProposal {
			t.Fatalf("want Refuse for %s and no Fallback, have %+v", ike.ReasonNoProposal, a.Results)
		}
	})
	t.Run("a peer whose policy negotiates nothing is silent", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, wait)
		b.Do(ike.Reconfigure{})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(time.Minute)
		if len(results[ike.Fallback](a)) != 1 || len(results[ike.Refuse](a)) != 0 {
			t.Fatalf("want Fallback alone, have %+v\n%s", a.Results, story(w))
		}
	})
	t.Run("an authentication that fails gets none", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, wait)
		c := b.Config
		c.Secrets = map[string]sa.Secret{"shared": sa.NewSecret([]byte("another preshared key entirely"))}
		b.Do(ike.Reconfigure{Config: c})
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(30 * time.Second)
		r := results[ike.Refuse](a)
		if len(results[ike.Fallback](a)) != 0 || len(r) != 1 || r[0].Reason != ike.ReasonAuthRefused {
			t.Fatalf("want Refuse for %s and no Fallback, have %+v\n%s", ike.ReasonAuthRefused, a.Results, story(w))
		}
		if len(a.SADB)+len(b.SADB) != 0 || a.Ups+b.Ups != 0 {
			t.Error("something is up although the preshared keys differ")
		}
	})
	t.Run("without fallback silence is refused", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, nil)
		b.Off = true
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2 * time.Minute)
		r := results[ike.Refuse](a)
		if len(results[ike.Fallback](a)) != 0 || len(r) != 1 || r[0].Reason != ike.ReasonTimeout {
			t.Fatalf("want Refuse for %s, have %+v", ike.ReasonTimeout, a.Results)
		}
		if n := count(w, "a.example", "retransmit IKE_SA_INIT"); n != 6 {
			t.Errorf("want seven transmissions, have %d", n+1)
		}
	})
	t.Run("discover clears at once, but never again once secured", func(t *testing.T) {
		w, a, b := pair(1, calm, pskAuth, func(r *ike.Rule) { r.Fallback = spd.Fallback{Mode: spd.FallbackDiscover} })
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		if len(results[ike.Fallback](a)) != 1 {
			t.Fatal("discovery does not clear the first packets")
		}
		w.Run(time.Second)
		mirrored(t, w, a, b, 1)
		a.deleteIKE()
		w.Run(time.Second)
		b.Off = true
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(2 * time.Minute)
		if len(results[ike.Fallback](a)) != 1 {
			t.Error("a flow that was secured went back to clear traffic")
		}
		if len(results[ike.Refuse](a)) != 1 {
			t.Error("a flow that was secured and has no peer any more is not refused")
		}
	})
}

func TestBackoff(t *testing.T) {
	w, a, b := pair(1, calm, pskAuth, nil)
	c := b.Config
	c.Secrets = nil
	b.Do(ike.Reconfigure{Config: c})
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(100 * time.Millisecond)
	if len(results[ike.Refuse](a)) != 1 {
		t.Fatalf("the first attempt is not over\n%s", story(w))
	}
	for range 10 {
		a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
		w.Run(50 * time.Millisecond)
	}
	if n := count(w, "a.example", "initiate to"); n != 1 {
		t.Errorf("a flow that asks again at once was tried %d times", n)
	}
	w.Run(2 * time.Second)
	if n := count(w, "a.example", "initiate to"); n != 2 {
		t.Errorf("want the second attempt after one to two seconds, have %d attempts", n)
	}
}
