package driver

import (
	"crypto"
	"crypto/x509"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// informed is a machine of a fleet that hears whom not to believe.
type informed struct {
	member
	mu    *sync.Mutex
	set   *trust.Denials
	heard *time.Time
}

func (i informed) Denials() (trust.Denials, time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return *i.set, *i.heard
}

func (i informed) hear(t *testing.T, revoked trust.Revocations, machines ...pki.UUID) {
	t.Helper()
	set, err := trust.NewDenials(machines, revoked)
	if err != nil {
		t.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	*i.set, *i.heard = set, time.Now()
}

// machine joins the fleet of a real CA.
func machine(t *testing.T, ca *catest.CA, name string) informed {
	t.Helper()
	cert := ca.Machine(t, catest.Identity(t, name))
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatal("the key does not sign")
	}
	return informed{member{key, ca.Bundle(), cert.Certificate}, new(sync.Mutex), new(trust.Denials), new(time.Time)}
}

// serialOf names the certificate of a machine.
func serialOf(t *testing.T, m informed) trust.Serial {
	t.Helper()
	leaf, err := x509.ParseCertificate(m.chain[0])
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(m.chain[1])
	if err != nil {
		t.Fatal(err)
	}
	key, err := pki.KeyIDOf(issuer.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := trust.NewSerial(key, leaf.SerialNumber)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A peer that is revoked, or whose account is disabled, loses its SAs as soon as the node hears of it, by the level that
// the policy sets, and gets none back.
func TestDeniedAndRevokedPeersAreCut(t *testing.T) {
	const nameA, nameB = "a.bank.example", "b.bank.example"
	for _, c := range []struct {
		name  string
		level spd.Revocation
		hear  func(t *testing.T, a, b informed)
		want  ike.Reason // none: nothing happens
	}{
		{"account disabled", spd.RevocationKnown, func(t *testing.T, a, _ informed) {
			a.hear(t, trust.Revocations{}, catest.Identity(t, nameB).UUID())
		}, ike.ReasonPeerDenied},
		{"certificate revoked", spd.RevocationKnown, func(t *testing.T, a, b informed) {
			r, err := trust.NewRevocations(1, []trust.Serial{serialOf(t, b)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			a.hear(t, r)
		}, ike.ReasonCertRevoked},
		{"key revoked", spd.RevocationStrict, func(t *testing.T, a, b informed) {
			key, err := pki.KeyIDOf(b.key.Public())
			if err != nil {
				t.Fatal(err)
			}
			r, err := trust.NewRevocations(1, nil, []pki.KeyID{key})
			if err != nil {
				t.Fatal(err)
			}
			a.hear(t, r)
		}, ike.ReasonCertRevoked},
		{"another machine disabled", spd.RevocationStrict, func(t *testing.T, a, _ informed) {
			a.hear(t, trust.Revocations{}, catest.Identity(t, "c.bank.example").UUID())
		}, ike.ReasonNone},
		{"disabled, but the policy does not ask", spd.RevocationOff, func(t *testing.T, a, _ informed) {
			a.hear(t, trust.Revocations{}, catest.Identity(t, nameB).UUID())
		}, ike.ReasonNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := catest.NewAt(t, time.Now)
				ma, mb := machine(t, ca, nameA), machine(t, ca, nameB)
				ma.hear(t, trust.Revocations{})
				w := &cable{make(map[netip.Addr]*end)}
				level := func(cfg *ike.Config, d *Config) { cfg.Revocation, d.Jobs = c.level, NewJobs(ma) }
				a := start(t, w, nameA, addrA, addrB, ma.member, level)
				b := start(t, w, nameB, addrB, addrA, mb.member, nil)
				a.acquire(addrA, addrB)
				<-time.After(time.Second)
				if a.dp.count() != 1 || b.dp.count() != 1 {
					t.Fatalf("%d and %d Child SAs, want one each", a.dp.count(), b.dp.count())
				}
				c.hear(t, ma, mb)
				if err := a.Recheck(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // no time passes
				if cut := a.dp.count() == 0; cut != (c.want != ike.ReasonNone) {
					t.Fatalf("%d Child SAs are left, want the peer cut: %v", a.dp.count(), c.want != ike.ReasonNone)
				}
				b.acquire(addrB, addrA)
				<-time.After(5 * time.Second)
				v, err := a.Snapshot(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if c.want != ike.ReasonNone && (a.dp.count() != 0 || len(v.Failures) == 0 || v.Failures[len(v.Failures)-1].Reason != c.want) {
					t.Errorf("%d Child SAs, failures %+v; want none for %s", a.dp.count(), v.Failures, c.want)
				}
				a.finish(t)
				b.finish(t)
			})
		})
	}
}

// With the strict level a machine that has not heard for a day accepts nobody, and one that has never heard neither.
func TestStrictLevelWantsNews(t *testing.T) {
	for name, c := range map[string]struct {
		age   time.Duration // of the news; negative: never
		level spd.Revocation
		ok    bool
	}{
		"never, strict": {-1, spd.RevocationStrict, false}, "a minute, strict": {time.Minute, spd.RevocationStrict, true},
		"two days, strict": {48 * time.Hour, spd.RevocationStrict, false},
		"never, known":     {-1, spd.RevocationKnown, true}, "two days, known": {48 * time.Hour, spd.RevocationKnown, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			ca := catest.NewAt(t, time.Now)
			ma, mb := machine(t, ca, "a.bank.example"), machine(t, ca, "b.bank.example")
			if c.age >= 0 {
				*ma.heard = time.Now().Add(-c.age)
			}
			id := catest.Identity(t, "b.bank.example").IKEID()
			v := BundleVerifier{Credentials: ma}.RejudgePeer(time.Now(), ike.Rejudge{
				IDType: id.Type, ID: id.Data, Chain: mb.chain, Revocation: c.level,
			})
			want := ike.ReasonStandingUnknown
			if c.ok {
				want = ike.ReasonNone
			}
			if v.Reason != want {
				t.Errorf("%s: %s (%s), want %q", name, v.Reason, v.Detail, want)
			}
			if c.ok && v.NotAfter.IsZero() {
				t.Errorf("%s: the verdict does not tell how long it counts", name)
			}
		})
	}
}
