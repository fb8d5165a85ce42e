package interop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/driver"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// These tests run the IKE driver alone, on plain UDP sockets and with a datapath that only records, against Debian's
// charon in another namespace.

var (
	ownAddr  = netip.MustParseAddr("10.9.0.1")
	peerAddr = netip.MustParseAddr("10.9.0.2")
	ownNet   = netip.MustParsePrefix("10.1.0.0/24")
	peerNet  = netip.MustParsePrefix("10.2.0.0/24")
)

// udp carries IKE over two plain sockets.
type udp struct {
	sockets   map[uint16]*net.UDPConn
	datagrams chan ike.Datagram
}

func newUDP(t *testing.T, h *lab.Host, at netip.Addr) *udp {
	t.Helper()
	u := &udp{sockets: make(map[uint16]*net.UDPConn), datagrams: make(chan ike.Datagram, 256)}
	err := h.Do(func() error {
		for _, port := range []uint16{500, 4500} {
			c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, port)))
			if err != nil {
				return err
			}
			u.sockets[port] = c
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for port, c := range u.sockets {
		t.Cleanup(func() { _ = c.Close() })
		go func() {
			buffer := make([]byte, 65536)
			for {
				n, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return
				}
				b := slices.Clone(buffer[:n])
				if port == 4500 {
					if len(b) < 4 || string(b[:4]) != "\x00\x00\x00\x00" { // ESP or a keepalive
						continue
					}
					b = b[4:]
				}
				from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
				u.datagrams <- ike.Datagram{Local: netip.AddrPortFrom(at, port), Remote: from, Bytes: b}
			}
		}()
	}
	return u
}

func (u *udp) Datagrams() <-chan ike.Datagram { return u.datagrams }

func (u *udp) WriteIKE(local, remote netip.AddrPort, b []byte) error {
	if local.Port() == 4500 {
		b = append([]byte{0, 0, 0, 0}, b...)
	}
	_, err := u.sockets[local.Port()].WriteToUDPAddrPort(b, remote)
	return err
}

func (u *udp) WriteKeepalive(local, remote netip.AddrPort) error {
	_, err := u.sockets[local.Port()].WriteToUDPAddrPort([]byte{0xff}, remote)
	return err
}

// recorder is a datapath that remembers.
type recorder struct {
	events chan ike.Event
	mu     struct {
		sync.Mutex
		children map[sa.SPI]sa.Child
		current  []sa.SPI
		refused  []ike.Flow
		trace    []string
		failing  string // the step that the datapath refuses
	}
}

func newRecorder() *recorder {
	r := &recorder{events: make(chan ike.Event, 16)}
	r.mu.children = make(map[sa.SPI]sa.Child)
	return r
}

// errNoRoom is what a datapath says that takes no more.
var errNoRoom = errors.New("no room for another SA")

// fail lets a step be refused from now on; "" lets all succeed.
func (r *recorder) fail(step string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.failing = step
}

func (r *recorder) refuses(step string) error {
	if r.mu.failing == step {
		return errNoRoom
	}
	return nil
}

func (r *recorder) InstallIn(c sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuses("inbound"); err != nil {
		return err
	}
	r.mu.children[c.In.SPI] = c
	return nil
}

func (r *recorder) InstallOut(sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refuses("outbound")
}

func (r *recorder) SwitchOut(c sa.Child) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.refuses("switch"); err != nil {
		return err
	}
	r.mu.current = append(r.mu.current, c.In.SPI)
	return nil
}

func (r *recorder) Move(sa.SPI, netip.AddrPort, netip.AddrPort, bool) error { return nil }

func (r *recorder) Remove(in sa.SPI) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.mu.children, in)
	return nil
}

func (r *recorder) Fallback(ike.Flow, time.Duration) error { return nil }

func (r *recorder) Refuse(f ike.Flow) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.refused = append(r.mu.refused, f)
	return nil
}

func (r *recorder) observe(a ike.Action) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch a := a.(type) {
	case ike.Trace:
		r.mu.trace = append(r.mu.trace, a.String())
	case ike.Down:
		r.mu.trace = append(r.mu.trace, fmt.Sprintf("down %s %s", a.Reason, a.Detail))
	case ike.Refuse:
		r.mu.trace = append(r.mu.trace, fmt.Sprintf("refuse %s %s", a.Reason, a.Detail))
	}
}

func (r *recorder) only() (sa.Child, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.mu.children) != 1 {
		return sa.Child{}, false
	}
	for _, c := range r.mu.children {
		return c, slices.Contains(r.mu.current, c.In.SPI)
	}
	return sa.Child{}, false
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.children)
}

// credentials are made for one test.
type credentials struct {
	key    crypto.Signer
	bundle trust.Bundle
}

func (c credentials) Signer() crypto.Signer { return c.key }
func (c credentials) Trust() trust.Bundle   { return c.bundle }

// authority makes certificates.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Lab CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
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
	return &authority{t, key, cert}
}

func (a *authority) issue(name string, serial int64) (*ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:           x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{trust.IPsecIKE.OID()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, der
}

// peers is one driver and one charon on a wire.
type peers struct {
	t      *testing.T
	dir    string
	charon *lab.Host
	driver *driver.Driver
	record *recorder
	config ike.Config
	stop   context.CancelFunc
	ended  chan error
}

const charonConf = `charon-systemd {
  load = random nonce openssl aes des sha1 sha2 hmac kdf gcm chapoly curve25519 pem pkcs1 pkcs8 pubkey x509 constraints revocation vici kernel-libipsec kernel-netlink socket-default updown drbg
  delete_rekeyed_delay = 1
  retransmit_tries = 4
  retransmit_timeout = 1
%[2]s
  filelog {
    main {
      path = %[1]s/charon.log
      default = 1
      ike = 2
      flush_line = yes
    }
  }
  plugins {
    vici {
      socket = unix://%[1]s/vici.sock
    }
  }
}
swanctl {
  load = pem pkcs1 pkcs8 x509 pubkey openssl random vici
}
`

const swanctlConf = `connections {
  lab {
    version = 2
    local_addrs = 10.9.0.2
    remote_addrs = 10.9.0.1
    proposals = %[2]s
    local {
      auth = %[1]s
      id = host2.lab
    }
    remote {
      auth = %[1]s
      id = host1.lab
    }
    children {
      lab {
        local_ts = 10.2.0.0/24
        remote_ts = 10.1.0.0/24
        esp_proposals = %[3]s
        mode = tunnel
      }
    }
  }
}
secrets {
  ike-1 {
    id-1 = host1.lab
    id-2 = host2.lab
    secret = "correct horse battery staple"
  }
}
`

// setup is what differs between tests.
type setup struct {
	cert   bool
	ike    string // charon's proposals
	esp    string
	charon string // more of its configuration
	change func(c *ike.Config)
}

func start(t *testing.T, s setup) *peers {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	l, err := lab.New("bwike-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	own, err := l.Host("a")
	must(err)
	charon, err := l.Host("b")
	must(err)
	must(l.Link(
		lab.End{Host: own, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(ownAddr, 24)}},
		lab.End{Host: charon, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(peerAddr, 24)}},
	))
	must(charon.AddAddress("eth0", netip.PrefixFrom(peerNet.Addr().Next(), 24)))
	dir := t.TempDir()
	for _, d := range []string{"x509", "x509ca", "private", "x509ocsp", "x509aa", "x509ac", "x509crl", "pubkey", "rsa", "ecdsa", "bliss", "pkcs8", "pkcs12"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	ca := newAuthority(t)
	ownKey, ownCert := ca.issue("host1.lab", 2)
	peerKey, peerCert := ca.issue("host2.lab", 3)
	keyDER, err := x509.MarshalECPrivateKey(peerKey)
	must(err)
	write := func(name, kind string, der []byte) {
		must(os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	}
	write("private/host2.pem", "EC PRIVATE KEY", keyDER)
	write("x509/host2.pem", "CERTIFICATE", peerCert)
	write("x509ca/ca.pem", "CERTIFICATE", ca.cert.Raw)
	if s.ike == "" {
		s.ike = "aes256-sha256-x25519"
	}
	if s.esp == "" {
		s.esp = "aes256gcm16-x25519"
	}
	must(os.WriteFile(filepath.Join(dir, "strongswan.conf"), fmt.Appendf(nil, charonConf, dir, s.charon), 0o600))
	method := "psk"
	if s.cert {
		method = "pubkey\n      certs = host2.pem"
	}
	text := strings.Replace(fmt.Sprintf(swanctlConf, method, s.ike, s.esp), "certs = host2.pem\n      id = host1", "id = host1", 1)
	must(os.WriteFile(filepath.Join(dir, "swanctl.conf"), []byte(text), 0o600))
	cmd := charon.Command("/usr/sbin/charon-systemd")
	cmd.Env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(dir, "strongswan.conf"))
	process, err := charon.Start(cmd)
	must(err)
	t.Cleanup(func() { _ = process.Stop(3 * time.Second) })
	p := &peers{t: t, dir: dir, charon: charon, record: newRecorder()}
	p.eventually("charon's socket", func() bool {
		_, err := os.Stat(filepath.Join(dir, "vici.sock"))
		return err == nil
	})
	p.swanctl("--load-all", "--file", filepath.Join(dir, "swanctl.conf"))

	bundle, err := trust.NewBundle(1, []*x509.Certificate{ca.cert}, nil)
	must(err)
	spki := sha1.Sum(ca.cert.RawSubjectPublicKeyInfo) // RFC 7296 3.7
	p.config = ike.Config{
		Offers: []proposal.IKE{
			{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384},
			{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519},
		},
		Local:       ike.Identity{Type: byte(wire.IDFQDN), Data: []byte("host1.lab")},
		Chain:       [][]byte{ownCert},
		Authorities: [][]byte{spki[:]},
		Secrets:     map[string]sa.Secret{"lab": sa.NewSecret([]byte("correct horse battery staple"))},
	}
	auth := []spd.Auth{{Method: spd.AuthPSK, Secret: "lab", RemoteID: "fqdn:host2.lab"}}
	if s.cert {
		auth = []spd.Auth{{Method: spd.AuthCertificate}}
	}
	p.config.Rules = []ike.Rule{{
		ID: "net", Mode: sa.Tunnel, Tunnel: peerAddr, Pairs: []ike.Pair{{Local: network(ownNet), Remote: network(peerNet)}},
		Offers: []proposal.ESP{{Encryption: proposal.EncrAESGCM16, KeyBits: 256}}, Auth: auth, PFS: true,
	}}
	if s.change != nil {
		s.change(&p.config)
	}
	p.driver, err = driver.New(driver.Config{
		IKE: p.config, Transport: newUDP(t, own, ownAddr), SADB: p.record, Gate: p.record, Events: p.record.events,
		Jobs: driver.NewJobs(credentials{ownKey, bundle}), Observe: p.record.observe, Log: hclog.NewNullLogger(),
	})
	must(err)
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
			log, _ := os.ReadFile(filepath.Join(dir, "charon.log"))
			p.record.mu.Lock()
			defer p.record.mu.Unlock()
			t.Logf("driver:\n%s\ncharon:\n%s", strings.Join(p.record.mu.trace, "\n"), log)
		}
	})
	return p
}

func network(p netip.Prefix) sa.Selector {
	to := p.Addr().As4()
	to[3] = 255
	return sa.Selector{From: p.Addr(), To: netip.AddrFrom4(to), PortTo: 65535}
}

func (p *peers) swanctl(args ...string) string {
	p.t.Helper()
	out, err := p.trySwanctl(args...)
	if err != nil {
		p.t.Fatalf("swanctl %v: %v\n%s", args, err, out)
	}
	return out
}

func (p *peers) trySwanctl(args ...string) (string, error) {
	cmd := []string{"env", "STRONGSWAN_CONF=" + filepath.Join(p.dir, "strongswan.conf"), "SWANCTL_DIR=" + p.dir, "swanctl"}
	cmd = append(cmd, args...)
	return p.charon.Run(append(cmd, "--uri", "unix://"+filepath.Join(p.dir, "vici.sock"))...)
}

// eventually polls until done, ten seconds at most.
func (p *peers) eventually(what string, done func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited in vain for %s", what)
		}
		<-tick.C
	}
}

func (p *peers) snapshot() engine.Snapshot {
	p.t.Helper()
	v, err := p.driver.Snapshot(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func (p *peers) acquire() {
	p.record.events <- ike.Acquire{Flow: ike.Flow{
		Rule: "net", Local: ownAddr, Remote: peerAddr, LocalTS: network(ownNet), RemoteTS: network(peerNet),
	}}
}

// up waits for one Child SA in use here, that charon has as well.
func (p *peers) up() sa.Child {
	p.t.Helper()
	var c sa.Child
	p.eventually("a Child SA in use on both sides", func() bool {
		var ok bool
		c, ok = p.record.only()
		if !ok {
			return false
		}
		list := p.swanctl("--list-sas", "--raw")
		return strings.Contains(list, "spi-in="+c.Out.SPI.String()) && strings.Contains(list, "spi-out="+c.In.SPI.String()) &&
			strings.Count(list, "spi-in=") == 1 && strings.Count(list, "initiator-spi=") == 1
	})
	return c
}

func TestCharonIKE(t *testing.T) {
	interop.Shows(t, "interop", 1, 31, 32)
	for name, s := range map[string]setup{
		"psk":  {},
		"cert": {cert: true, ike: "aes256gcm16-prfsha384-ecp384", esp: "aes256gcm16-ecp384"},
	} {
		t.Run(name+"/own", func(t *testing.T) {
			p := start(t, s)
			p.acquire()
			p.lifecycle()
		})
		t.Run(name+"/charon", func(t *testing.T) {
			p := start(t, s)
			p.swanctl("--initiate", "--child", "lab", "--timeout", "10")
			p.lifecycle()
		})
	}
}

// lifecycle rekeys everything from both sides, then deletes.
func (p *peers) lifecycle() {
	p.t.Helper()
	c := p.up()
	if !c.Encap || c.Remote.Port() != 4500 {
		p.t.Errorf("charon's user space ESP wants encapsulation, the Child SA is %v to %v, encapsulated %v", c.Local, c.Remote, c.Encap)
	}
	changed := func(what string, before sa.Child) sa.Child {
		p.t.Helper()
		p.eventually(what, func() bool {
			now, ok := p.record.only()
			return ok && now.In.SPI != before.In.SPI
		})
		return p.up()
	}
	p.record.events <- ike.ChildExpiring{SPI: c.In.SPI, Limit: ike.LimitSoft}
	c = changed("the own rekey of the Child SA", c)
	p.swanctl("--rekey", "--child", "lab")
	c = changed("charon's rekey of the Child SA", c)
	old := p.snapshot().SAs[0].SPI
	if err := p.driver.Rekey(p.t.Context(), ike.IKESPI(old), 0); err != nil {
		p.t.Fatal(err)
	}
	moved := func(what string) {
		p.t.Helper()
		p.eventually(what, func() bool {
			v := p.snapshot()
			return len(v.SAs) == 1 && v.SAs[0].SPI != old && len(v.SAs[0].Children) == 1
		})
		old = p.snapshot().SAs[0].SPI
		p.up()
	}
	moved("the own rekey of the IKE SA")
	p.swanctl("--rekey", "--ike", "lab")
	moved("charon's rekey of the IKE SA")
	p.record.events <- ike.ChildExpiring{SPI: c.In.SPI, Limit: ike.LimitSoft}
	changed("a rekey of the Child SA after those of the IKE SA", c)
	p.stop()
	if err := <-p.ended; err != nil {
		p.t.Errorf("the driver ended with %v", err)
	}
	if n := p.record.count(); n != 0 {
		p.t.Errorf("%d Child SAs are left after the end", n)
	}
	p.eventually("charon to forget the IKE SA", func() bool {
		return p.swanctl("--list-sas", "--raw") == "" || !strings.Contains(p.swanctl("--list-sas", "--raw"), "initiator-spi=")
	})
}
