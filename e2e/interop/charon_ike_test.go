package interop_test

import (
	"context"
	"crypto"
	"crypto/sha1"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/driver"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// These tests run the IKE driver alone, on plain UDP sockets and with a datapath that only records, against Debian's
// charon in another namespace.

// credentials are made for one test.
type credentials struct {
	key    crypto.Signer
	bundle trust.Bundle
	denied *atomic.Pointer[trust.Denials]
}

func (c credentials) Signer() crypto.Signer { return c.key }
func (c credentials) Trust() trust.Bundle   { return c.bundle }

// Denials are always fresh.
func (c credentials) Denials() (trust.Denials, time.Time) { return *c.denied.Load(), time.Now() }

// peers is one driver and one charon on a wire.
type peers struct {
	*pair.Pair
	driver *driver.Driver
	record *recorder
	own    ike.Config
	ca     *catest.CA
	theirs charon.Certificate // what charon shows, with certificates
	denied atomic.Pointer[trust.Denials]
	stop   context.CancelFunc
	ended  chan error
}

// setup is what differs between tests.
type setup struct {
	cert     bool
	ike, esp string // charon's proposals
	change   []func(*charon.Config)
}

func start(t *testing.T, s setup) *peers {
	t.Helper()
	ca := catest.New(t)
	p := &peers{Pair: pair.WithHost(t, "bwike-"), record: newRecorder(), ca: ca, theirs: pair.Machine(t, ca, pair.PeerName)}
	p.denied.Store(new(trust.Denials))
	config := pair.Partner(pair.Policy{}, s.ike, s.esp, s.change...)
	auth := spd.Auth{Method: spd.AuthPSK, Secret: pair.PSKName, RemoteID: "fqdn:" + pair.PeerName}
	if s.cert {
		pair.Authenticated(p.theirs, ca, pair.PeerName)(&config)
		auth = spd.Auth{Method: spd.AuthCertificate}
	}
	p.StartPeer(config)
	cert := pair.Machine(t, ca, pair.NodeName)
	spki := sha1.Sum(ca.Authority.Root.RawSubjectPublicKeyInfo) // RFC 7296 3.7
	p.own = ike.Config{
		Offers: []proposal.IKE{
			{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384},
			{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		},
		Local:       ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(pair.NodeName)},
		Chain:       cert.Chain,
		Authorities: [][]byte{spki[:]},
		Secrets:     map[string]sa.Secret{pair.PSKName: sa.NewSecret(pair.PSK)},
		Rules: []ike.Rule{{
			ID: "net", Mode: sa.Tunnel, Tunnel: pair.PeerOuter, Pairs: []ike.Pair{{Local: network(pair.NodeNet), Remote: network(pair.PeerNet)}},
			Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 256}}, Auth: []spd.Auth{auth}, PFS: true,
		}},
	}
	var err error
	p.driver, err = driver.New(driver.Config{
		IKE: p.own, Transport: newUDP(t, p.Node, pair.NodeOuter), SADB: p.record, Gate: p.record, Events: p.record.events,
		Jobs: driver.NewJobs(credentials{cert.Key, ca.Bundle(), &p.denied}), Observe: p.record.observe, Log: hclog.NewNullLogger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.stop, p.ended = cancel, make(chan error, 1)
	go func() { p.ended <- p.driver.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-p.driver.Done():
		case <-time.After(10 * time.Second):
			t.Error("the driver does not end")
		}
		if t.Failed() {
			p.record.mu.Lock()
			defer p.record.mu.Unlock()
			t.Logf("driver:\n%s", strings.Join(p.record.mu.trace, "\n"))
		}
	})
	return p
}

func network(p netip.Prefix) sa.Selector {
	to := p.Addr().As4()
	to[3] = 255
	return sa.Selector{From: p.Addr(), To: netip.AddrFrom4(to), PortTo: 65535}
}

// ask lets a side begin: ours by a packet, charon by command, which may fail.
func (p *peers) ask(by pair.Side) {
	if by == pair.FromPeer {
		_ = p.Charon.Initiate(p.Ctx, pair.NetName)
		return
	}
	p.record.events <- ike.Acquire{Flow: ike.Flow{
		Rule: "net", Local: pair.NodeOuter, Remote: pair.PeerOuter, LocalTS: network(pair.NodeNet), RemoteTS: network(pair.PeerNet),
	}}
}

func (p *peers) snapshot() engine.Snapshot {
	p.T.Helper()
	v, err := p.driver.Snapshot(p.T.Context())
	if err != nil {
		p.T.Fatal(err)
	}
	return v
}

// up waits for one Child SA in use here, that charon has as well.
func (p *peers) up() sa.Child {
	p.T.Helper()
	var c sa.Child
	p.Until("a Child SA is in use on both sides", func() (bool, error) {
		var ok bool
		c, ok = p.record.only()
		if !ok {
			return false, nil
		}
		theirs, err := p.Charon.SAs(p.Ctx)
		if err != nil || len(theirs) != 1 {
			return false, err
		}
		children := pair.Installed(theirs[0])
		return len(children) == 1 && children[0].In == c.Out.SPI.String() && children[0].Out == c.In.SPI.String(), nil
	})
	return c
}

func TestCharonIKE(t *testing.T) {
	interop.Shows(t, "interop", 1, 31, 32)
	for name, s := range map[string]setup{
		"psk":  {ike: "aes256-sha256-x25519", esp: "aes256gcm16-x25519"},
		"cert": {cert: true, ike: "aes256gcm16-prfsha384-ecp384", esp: "aes256gcm16-ecp384"},
	} {
		for _, initiator := range pair.Sides {
			t.Run(name+"/"+initiator.String(), func(t *testing.T) {
				p := start(t, s)
				p.ask(initiator)
				p.lifecycle()
			})
		}
	}
}

// lifecycle rekeys everything from both sides, then deletes.
func (p *peers) lifecycle() {
	p.T.Helper()
	c := p.up()
	if !c.Encap || c.Remote.Port() != 4500 {
		p.T.Errorf("charon's user space ESP wants encapsulation, the Child SA is %v to %v, encapsulated %v", c.Local, c.Remote, c.Encap)
	}
	done := func(err error) {
		p.T.Helper()
		if err != nil {
			p.T.Fatal(err)
		}
	}
	changed := func(what string, before sa.Child) sa.Child {
		p.T.Helper()
		p.Until(what+" is done", func() (bool, error) {
			now, ok := p.record.only()
			return ok && now.In.SPI != before.In.SPI, nil
		})
		return p.up()
	}
	p.record.events <- ike.ChildExpiring{SPI: c.In.SPI, Limit: ike.LimitSoft}
	c = changed("the own rekey of the Child SA", c)
	done(p.Charon.RekeyChild(p.Ctx, pair.NetName))
	c = changed("charon's rekey of the Child SA", c)
	old := p.snapshot().SAs[0].SPI
	moved := func(what string) {
		p.T.Helper()
		p.Until(what+" is done", func() (bool, error) {
			v := p.snapshot()
			return len(v.SAs) == 1 && v.SAs[0].SPI != old && len(v.SAs[0].Children) == 1, nil
		})
		old = p.snapshot().SAs[0].SPI
		p.up()
	}
	done(p.driver.Rekey(p.Ctx, ike.IKESPI(old), 0))
	moved("the own rekey of the IKE SA")
	done(p.Charon.RekeyIKE(p.Ctx, pair.ConnName))
	moved("charon's rekey of the IKE SA")
	p.record.events <- ike.ChildExpiring{SPI: c.In.SPI, Limit: ike.LimitSoft}
	changed("a rekey of the Child SA after those of the IKE SA", c)
	p.stop()
	if err := <-p.ended; err != nil {
		p.T.Errorf("the driver ended with %v", err)
	}
	if n := p.record.count(); n != 0 {
		p.T.Errorf("%d Child SAs are left after the end", n)
	}
	p.Until("charon has forgotten the IKE SA", func() (bool, error) {
		theirs, err := p.Charon.SAs(p.Ctx)
		return len(theirs) == 0, err
	})
}

// TestRevokedPeer revokes charon while both talk. It is refused as soon as it authenticates again; what it still has is
// cut when the node is told to judge its peers again, which the node's agent does with the news.
func TestRevokedPeer(t *testing.T) {
	interop.Shows(t, "interop", 39)
	for _, makeBeforeBreak := range []string{"yes", "no"} {
		t.Run("make-before-break-"+makeBeforeBreak, func(t *testing.T) {
			p := start(t, setup{cert: true, change: []func(*charon.Config){pair.Option("make_before_break", makeBeforeBreak)}})
			p.ask(pair.FromPeer)
			p.up()
			denied := pair.Denials(t, p.ca, p.theirs)
			p.denied.Store(&denied)
			if _, err := p.Charon.Swanctl(p.Ctx, "--rekey", "--reauth", "--ike", pair.ConnName); err != nil {
				t.Fatal(err)
			}
			p.Logged("received AUTHENTICATION_FAILED notify error")
			p.Until("the driver has told why", func() (bool, error) { return p.record.told(string(ike.ReasonCertRevoked)), nil })
			if err := p.driver.Recheck(p.Ctx); err != nil {
				t.Fatal(err)
			}
			p.Until("neither side has a Child SA", func() (bool, error) {
				theirs, err := p.Charon.SAs(p.Ctx)
				return p.record.count() == 0 && !slices.ContainsFunc(theirs, func(s charon.SA) bool { return len(pair.Installed(s)) > 0 }), err
			})
		})
	}
}
