package ikesim

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// ppkSide is what one side has of postquantum preshared keys.
type ppkSide struct {
	want string // "", "optional", "required"
	key  string // "": the secret is not there
}

func (p ppkSide) apply(n *Node) {
	c := n.Config
	c.Secrets = maps.Clone(c.Secrets)
	if p.key != "" {
		c.Secrets["bank-ppk"] = sa.NewSecret([]byte(p.key))
	}
	for i := range c.Rules {
		c.Rules[i].Auth = append([]spd.Auth(nil), c.Rules[i].Auth...)
		if p.want != "" {
			c.Rules[i].Auth[0].PPK, c.Rules[i].Auth[0].PPKOptional = "bank-ppk", p.want == "optional"
		}
	}
	n.Config = c
	n.Do(ike.Reconfigure{Config: c})
}

// The table of RFC 8784 3: with a key on both sides it is used, without on one side only where both can do without.
func TestPostquantumPresharedKeys(t *testing.T) {
	const key, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	for _, auth := range []spd.Auth{pskAuth, certAuth} {
		for _, c := range []struct {
			initiator, responder ppkSide
			up, mixed            bool
		}{
			{ppkSide{"required", key}, ppkSide{"required", key}, true, true},
			{ppkSide{"optional", key}, ppkSide{"required", key}, true, true},
			{ppkSide{"required", key}, ppkSide{"optional", key}, true, true},
			{ppkSide{"optional", key}, ppkSide{"optional", key}, true, true},
			{ppkSide{"optional", key}, ppkSide{"", ""}, true, false},
			{ppkSide{"", ""}, ppkSide{"optional", key}, true, false},
			{ppkSide{"optional", ""}, ppkSide{"optional", key}, true, false},
			{ppkSide{"optional", key}, ppkSide{"optional", ""}, true, false},
			{ppkSide{"required", key}, ppkSide{"", ""}, false, false},
			{ppkSide{"", ""}, ppkSide{"required", key}, false, false},
			{ppkSide{"required", ""}, ppkSide{"required", key}, false, false},
			{ppkSide{"required", key}, ppkSide{"required", ""}, false, false},
			{ppkSide{"required", key}, ppkSide{"optional", ""}, false, false},
			{ppkSide{"required", key}, ppkSide{"required", other}, false, false},
			// Another key under the same name is an error of the administrator, not a peer without the key.
			{ppkSide{"optional", key}, ppkSide{"optional", other}, false, false},
		} {
			w, a, b := pair(1, calm, auth, nil)
			c.initiator.apply(a)
			c.responder.apply(b)
			a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
			w.Run(10 * time.Second)
			up := len(a.SADB) == 1 && len(b.SADB) == 1
			mixed := strings.Count(story(w), "the keys hold the postquantum preshared key") == 2
			if up != c.up || mixed != c.mixed {
				t.Errorf("%s, initiator %+v, responder %+v: up %v, mixed %v, want %v and %v\n%s", auth.Method, c.initiator, c.responder, up, mixed, c.up, c.mixed, story(w))
				continue
			}
			if !up {
				if len(a.SADB)+len(b.SADB) != 0 {
					t.Errorf("%s, %+v, %+v: something is left", auth.Method, c.initiator, c.responder)
				}
				continue
			}
			// The keys go on from there: both rekeys work, and both sides have the same.
			for _, s := range a.Engine.Snapshot().SAs {
				a.Do(ike.Rekey{IKE: ike.IKESPI(s.SPI)})
			}
			w.Run(2 * time.Second)
			for spi := range b.SADB {
				b.Do(ike.Rekey{Child: spi})
			}
			w.Run(2 * time.Second)
			mirrored(t, w, a, b, 1)
		}
	}
}

// A policy that begins to want the key closes what was made without it.
func TestPPKBecomesRequired(t *testing.T) {
	w, a, b := pair(1, calm, certAuth, nil)
	a.Do(ike.Acquire{Flow: flow(addrA, addrB)})
	w.Run(2 * time.Second)
	ppkSide{"required", "0123456789abcdef0123456789abcdef"}.apply(a)
	w.Run(2 * time.Second)
	if len(a.SADB)+len(b.SADB) != 0 {
		t.Errorf("an association without the postquantum preshared key is left\n%s", story(w))
	}
}
