package driver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// cable joins transports by address.
type cable struct{ ends map[netip.Addr]*end }

// end is one transport.
type end struct {
	cable     *cable
	datagrams chan ike.Datagram
}

func (c *cable) plug(a netip.Addr) *end {
	e := &end{c, make(chan ike.Datagram, 64)}
	c.ends[a] = e
	return e
}

func (e *end) Datagrams() <-chan ike.Datagram { return e.datagrams }

func (e *end) WriteIKE(local, remote netip.AddrPort, b []byte) error {
	to, ok := e.cable.ends[remote.Addr()]
	if !ok {
		return errors.New("no route to host")
	}
	select {
	case to.datagrams <- ike.Datagram{Local: remote, Remote: local, Bytes: b}:
	default: // a full socket buffer drops
	}
	return nil
}

func (e *end) WriteKeepalive(netip.AddrPort, netip.AddrPort) error { return nil }

// datapath remembers.
type datapath struct {
	events chan ike.Event
	mu     struct {
		sync.Mutex
		log      []string
		children map[sa.SPI]sa.Child
		refuse   bool
		actions  []ike.Action
	}
}

func newDatapath() *datapath {
	d := &datapath{events: make(chan ike.Event, 16)}
	d.mu.children = make(map[sa.SPI]sa.Child)
	return d
}

func (d *datapath) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.log = append(d.mu.log, what)
}

func (d *datapath) InstallIn(c sa.Child) error {
	d.note("in")
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.refuse {
		return errors.New("no room")
	}
	d.mu.children[c.In.SPI] = c
	return nil
}
func (d *datapath) InstallOut(sa.Child) error { d.note("out"); return nil }
func (d *datapath) SwitchOut(sa.Child) error  { d.note("switch"); return nil }
func (d *datapath) Remove(in sa.SPI) error {
	d.note("remove")
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.children, in)
	return nil
}
func (d *datapath) Move(sa.SPI, netip.AddrPort, netip.AddrPort, bool) error {
	d.note("move")
	return nil
}
func (d *datapath) Fallback(ike.Flow, time.Duration) error { d.note("fallback"); return nil }
func (d *datapath) Refuse(ike.Flow) error                  { d.note("refuse"); return nil }

func (d *datapath) observe(a ike.Action) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.actions = append(d.mu.actions, a)
}

func (d *datapath) story() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.mu.log, " ")
}

func (d *datapath) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.children)
}

// fleet is a CA with its bundle.
type fleet struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	bundle trust.Bundle
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := trust.NewBundle(1, []*x509.Certificate{cert}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t, key, cert, bundle}
}

// member is a machine of the fleet.
type member struct {
	key    crypto.Signer
	bundle trust.Bundle
	chain  [][]byte
}

func (m member) Signer() crypto.Signer { return m.key }
func (m member) Trust() trust.Bundle   { return m.bundle }

func (f *fleet) join(name string, notAfter time.Time) member {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name)) + 1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{trust.IPsecIKE.OID()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, f.cert, key.Public(), f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return member{key, f.bundle, [][]byte{der}}
}

var (
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
)

func host(a netip.Addr) sa.Selector { return sa.Selector{From: a, To: a, PortTo: 65535} }

// node is a driver with all that it needs.
type node struct {
	*Driver
	dp   *datapath
	stop context.CancelFunc
	end  chan error
}

func start(t *testing.T, c *cable, name string, own, peer netip.Addr, m member, change func(*ike.Config, *Config)) *node {
	t.Helper()
	dp := newDatapath()
	cfg := Config{
		IKE: ike.Config{
			Rules: []ike.Rule{{
				ID: "r", Mode: sa.Transport, Pairs: []ike.Pair{{Local: host(own), Remote: host(peer)}},
				Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 128}},
				Auth:   []spd.Auth{{Method: spd.AuthCertificate}}, PFS: true,
			}},
			Offers: []proposal.IKE{{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}},
			Local:  ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(name)}, Chain: m.chain,
		},
		Transport: c.plug(own), SADB: dp, Gate: dp, Events: dp.events, Jobs: NewJobs(m), Observe: dp.observe,
	}
	if change != nil {
		change(&cfg.IKE, &cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := &node{d, dp, cancel, make(chan error, 1)}
	go func() { n.end <- d.Run(ctx) }()
	return n
}

func (n *node) acquire(own, peer netip.Addr) {
	n.dp.events <- ike.Acquire{Flow: ike.Flow{Rule: "r", Local: own, Remote: peer, LocalTS: host(own), RemoteTS: host(peer)}}
}

func (n *node) finish(t *testing.T) {
	t.Helper()
	n.stop()
	if err := <-n.end; err != nil {
		t.Errorf("Run ended with %v", err)
	}
}

func TestCertificatesAndOrderOfActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), nil)
		b := start(t, c, "b.example", addrB, addrA, f.join("b.example", time.Now().Add(time.Hour)), nil)
		a.acquire(addrA, addrB)
		<-time.After(time.Second)
		synctest.Wait()
		if a.dp.story() != "in out switch" || b.dp.story() != "in out switch" {
			t.Fatalf("a did %q, b did %q", a.dp.story(), b.dp.story())
		}
		// Inbound is installed before the message leaves that tells the SPI.
		installed := false
		for _, x := range b.dp.mu.actions {
			switch x := x.(type) {
			case ike.InstallIn:
				installed = true
			case ike.Send:
				if x.Local.Addr() == addrB && wire.ExchangeType(x.Bytes[18]) == wire.IKEAuth && !installed {
					t.Error("IKE_AUTH was answered before the inbound half was installed")
				}
			}
		}
		v, err := a.Snapshot(t.Context())
		if err != nil || len(v.SAs) != 1 || !strings.Contains(v.SAs[0].Peer, "b.example") || v.SAs[0].Auth != "certificate" || len(v.SAs[0].Children) != 1 {
			t.Fatalf("snapshot %+v, %v", v, err)
		}
		if k := v.SAs[0].Children[0].In.Encryption.Len(); k != 0 {
			t.Errorf("a snapshot holds a key of %d octets", k)
		}
		if err := b.Rekey(t.Context(), ike.IKESPI(v.SAs[0].PeerSPI), 0); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		a.finish(t)
		synctest.Wait()
		if a.dp.count() != 0 || b.dp.count() != 0 {
			t.Error("a clean stop leaves Child SAs")
		}
		// After the end the last snapshot stays, and commands say so.
		if v, err := a.Snapshot(t.Context()); err != nil || v.Counters["ike_rekeyed"] != 1 {
			t.Errorf("snapshot after the end: %+v, %v", v.Counters, err)
		}
		if err := a.Reconfigure(t.Context(), ike.Config{}); !errors.Is(err, ErrStopped) {
			t.Errorf("Reconfigure after the end gives %v", err)
		}
		b.finish(t)
	})
}

func TestRefusedCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		peer   func(f *fleet) member
		name   string
		reason ike.Reason
	}{
		"expired":        {func(f *fleet) member { return f.join("b.example", time.Now().Add(-time.Minute)) }, "b.example", ike.ReasonCertExpired},
		"another's name": {func(f *fleet) member { return f.join("c.example", time.Now().Add(time.Hour)) }, "b.example", ike.ReasonIDMismatch},
		"foreign": {func(f *fleet) member {
			m := newFleet(f.t).join("b.example", time.Now().Add(time.Hour))
			m.bundle = f.bundle
			return m
		}, "b.example", ike.ReasonUnknownIssuer},
		"another's key": {func(f *fleet) member {
			m := f.join("b.example", time.Now().Add(time.Hour))
			m.key = f.join("b.example", time.Now().Add(time.Hour)).key
			return m
		}, "b.example", ike.ReasonAuthFailed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				w := &cable{make(map[netip.Addr]*end)}
				a := start(t, w, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), nil)
				b := start(t, w, c.name, addrB, addrA, c.peer(f), nil)
				a.acquire(addrA, addrB)
				<-time.After(3 * time.Second)
				synctest.Wait()
				v, err := a.Snapshot(t.Context())
				if err != nil || len(v.Failures) != 1 || v.Failures[0].Reason != c.reason || v.Failures[0].Fault != ike.FaultPeer {
					t.Errorf("failures %+v, %v; want %s", v.Failures, err, c.reason)
				}
				if detail := v.Failures[0].Detail; name == "foreign" && (!strings.Contains(detail, "its certificates are of [") || !strings.Contains(detail, "this machine trusts [")) {
					t.Errorf("the failure tells %q, want both lists of CAs", detail)
				}
				if a.dp.story() != "refuse" {
					t.Errorf("a did %q", a.dp.story())
				}
				a.finish(t)
				b.finish(t)
			})
		})
	}
}

func TestSlowJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		modp := func(i *ike.Config, _ *Config) { i.Offers[0].Group = proposal.GroupMODP2048 }
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), modp)
		b := start(t, c, "b.example", addrB, addrA, f.join("b.example", time.Now().Add(time.Hour)), modp)
		a.acquire(addrA, addrB)
		<-time.After(time.Second)
		synctest.Wait()
		if a.dp.count() != 1 || b.dp.count() != 1 {
			t.Errorf("a holds %d Child SAs, b %d", a.dp.count(), b.dp.count())
		}
		a.finish(t)
		b.finish(t)
	})
}

func TestDatapathRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), nil)
		b := start(t, c, "b.example", addrB, addrA, f.join("b.example", time.Now().Add(time.Hour)), nil)
		b.dp.mu.refuse = true
		a.acquire(addrA, addrB)
		<-time.After(5 * time.Second)
		synctest.Wait()
		if a.dp.count() != 0 {
			t.Error("a keeps a Child SA that b could not install")
		}
		a.finish(t)
		b.finish(t)
	})
}

func TestMessagesThatCannotBeSentAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), nil)
		a.acquire(addrA, addrB) // nobody has that address
		<-time.After(2 * time.Second)
		synctest.Wait()
		v, err := a.Snapshot(t.Context())
		if err != nil || v.Counters["send_failed"] != 2 {
			t.Errorf("%d messages were not sent, want the first and its repetition: %v", v.Counters["send_failed"], err)
		}
		a.finish(t)
	})
}

// trap panics when its key is asked for.
type trap struct{}

func (trap) Signer() crypto.Signer { panic("trap") }

func TestPanicOfAJobIsAFailure(t *testing.T) {
	j := NewJobsWith(trap{}, nil)
	if s, ok := j.run(time.Now(), ike.Sign{}).(ike.Signed); !ok || s.Err == nil {
		t.Errorf("a panic while signing gives %+v", s)
	}
	if v, ok := j.run(time.Now(), ike.Verify{}).(ike.Verified); !ok || v.Reason != ike.ReasonInternal {
		t.Errorf("a panic while verifying gives %+v", v)
	}
}

// poison ends with a panic when the engine draws from it after it is armed.
type poison struct{ armed bool }

func (p *poison) Read(b []byte) (int, error) {
	if p.armed {
		p.armed = false
		panic("poisoned seed")
	}
	return rand.Read(b)
}

func TestPanicEndsOneSA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		seed := &poison{}
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), func(_ *ike.Config, d *Config) { d.Seed = seed })
		b := start(t, c, "b.example", addrB, addrA, f.join("b.example", time.Now().Add(time.Hour)), nil)
		a.acquire(addrA, addrB)
		<-time.After(time.Second)
		synctest.Wait()
		v, err := a.Snapshot(t.Context())
		if err != nil || len(v.SAs) != 1 {
			t.Fatalf("snapshot %+v, %v", v, err)
		}
		seed.armed = true
		if err := a.Rekey(t.Context(), 0, v.SAs[0].Children[0].In.SPI); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v, _ := a.Snapshot(t.Context()); len(v.SAs) != 0 || a.dp.count() != 0 {
			t.Fatalf("the SA survived a panic in it: %+v", v)
		}
		// The next one works.
		a.acquire(addrA, addrB)
		<-time.After(2 * time.Second)
		synctest.Wait()
		if a.dp.count() != 1 {
			t.Error("no new association after the panic")
		}
		a.finish(t)
		b.finish(t)
	})
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := New(Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("an empty configuration gives %v", err)
	}
}

func TestRunEndsWithItsTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		c := &cable{make(map[netip.Addr]*end)}
		a := start(t, c, "a.example", addrA, addrB, f.join("a.example", time.Now().Add(time.Hour)), nil)
		close(c.ends[addrA].datagrams)
		if err := <-a.end; !errors.Is(err, ErrStopped) {
			t.Errorf("Run ended with %v", err)
		}
		a.stop()
	})
}
