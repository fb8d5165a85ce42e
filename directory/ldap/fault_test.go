package ldap

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// faultStep is from one octet with a fault to the next: "make faults" takes every one.
var faultStep = flag.Int("ldap.faultstep", 61, "octets from one fault of the line to the next in TestFaultAtEveryOctet")

// A fault is what a line does to the octets of a server from one position on, once.
type fault int

const (
	cut      fault = iota // the line ends
	stall                 // nothing comes any more, and nobody says so
	truncate              // some octets are lost, what follows comes
	reorder               // some octets come behind those that follow them
	replay                // what came last comes again
)

func (f fault) String() string {
	return [...]string{"cut", "stall", "truncate", "reorder", "replay"}[f]
}

// run is how many octets a fault takes hold of.
const run = 8

// A line counts the octets of all connections of a server together.
type line struct {
	fault fault
	at    int // position of the fault, -1 for none

	mu   sync.Mutex
	sent int
	done bool
}

type faultyConn struct {
	net.Conn
	line    *line
	last    []byte // sent before
	held    []byte // to come later
	lose    int
	stalled chan struct{}
	once    sync.Once
}

func (l *line) wrap(c net.Conn) net.Conn {
	return &faultyConn{Conn: c, line: l, stalled: make(chan struct{})}
}

func (c *faultyConn) Close() error {
	c.once.Do(func() { close(c.stalled) })
	return c.Conn.Close()
}

// Write passes octets on up to the fault, and then what the fault leaves of them.
func (c *faultyConn) Write(b []byte) (int, error) {
	l := c.line
	l.mu.Lock()
	begin, before := false, len(b)
	if l.at >= 0 && !l.done && l.sent+len(b) > l.at {
		begin, before, l.done = true, l.at-l.sent, true
	}
	l.sent += len(b)
	l.mu.Unlock()
	if err := c.pass(b[:before]); err != nil || !begin {
		return len(b), err
	}
	switch rest := b[before:]; l.fault {
	case cut:
		c.Conn.Close()
		return 0, net.ErrClosed
	case stall:
		<-c.stalled
		return 0, net.ErrClosed
	case truncate:
		c.lose = run
		return len(b), c.pass(rest)
	case reorder:
		n := min(run, len(rest))
		c.held = slices.Clone(rest[:n])
		return len(b), c.pass(rest[n:])
	default:
		again := slices.Clone(c.last)
		if _, err := c.Conn.Write(again); err != nil {
			return 0, err
		}
		return len(b), c.pass(rest)
	}
}

func (c *faultyConn) pass(b []byte) error {
	lost := min(c.lose, len(b))
	c.lose -= lost
	b = b[lost:]
	if len(b) == 0 {
		return nil
	}
	if c.held != nil {
		n := min(run, len(b))
		b = slices.Concat(b[:n], c.held, b[n:])
		c.held = nil
	}
	c.last = append(c.last, b...)
	c.last = c.last[max(0, len(c.last)-run):]
	_, err := c.Conn.Write(b)
	return err
}

// faultModes are the ways of reading, over a line whose octets anybody sees, and over one where TLS protects them. What
// changes octets is tried on the latter alone: without it nothing of LDAP would notice, which is why only a loopback
// address can be read so.
var faultModes = []struct {
	name   string
	faults []fault
	tls    bool
	edit   func(*Config)
}{
	{"synchronized", []fault{cut, stall}, false, func(*Config) {}},
	{"polled", []fault{cut, stall}, false, func(c *Config) { c.PollOnly = true }},
	{"synchronized over TLS", []fault{truncate, reorder, replay}, true, func(*Config) {}},
	{"polled over TLS", []fault{truncate, reorder, replay}, true, func(c *Config) { c.PollOnly = true }},
}

// TestFaultAtEveryOctet lets a source follow a server through three states, with a fault of the line at every octet that
// the server sends: whatever comes of it is a state that the server had, none after a later one, and the last in the end.
func TestFaultAtEveryOctet(t *testing.T) {
	server, ca := faultTLS(t)
	for _, mode := range faultModes {
		t.Run(mode.name, func(t *testing.T) {
			t.Parallel()
			edit := func(c *Config) {
				mode.edit(c)
				if mode.tls {
					c.URL, c.CAFile, c.AllowClear = "ldaps://127.0.0.1", ca, false
				}
			}
			config := server
			if !mode.tls {
				config = nil
			}
			total := faultStory(t, &line{at: -1}, config, edit).sent
			if total < 1500 {
				t.Fatalf("the story takes %d octets only", total)
			}
			noticed, stories := 0, 0
			for _, f := range mode.faults {
				for at := int(f); at < total; at += *faultStep {
					stories++
					l := &line{fault: f, at: at}
					if result := faultStory(t, l, config, edit); result.failed {
						noticed++
					}
					if t.Failed() {
						t.Fatalf("%v at octet %d of %d", f, at, total)
					}
				}
			}
			if noticed < stories/2 {
				t.Errorf("%d of %d faults were noticed", noticed, stories)
			}
			t.Logf("%d octets, %d stories, in %d of which the source told of an error", total, stories, noticed)
		})
	}
}

type faultResult struct {
	sent   int
	failed bool // the source told of an error
}

// faultStory runs one story in a bubble, in which waiting takes no time.
func faultStory(t *testing.T, l *line, config *tls.Config, edit func(*Config)) (result faultResult) {
	synctest.Test(t, func(t *testing.T) {
		a := newActor(t, small)
		a.wrap, a.tls = l.wrap, config
		s := a.reader(t, edit)
		defer a.close()
		defer s.Close()
		had := []directory.Digest{a.tree(t).Digest()}
		latest := 0
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		see := func() {
			for {
				snap, err := s.Next(ctx)
				if err != nil {
					if ctx.Err() != nil {
						t.Fatalf("the source does not come to state %d; status %+v", len(had)-1, s.Status())
					}
					var e *Error
					if !errors.As(err, &e) {
						t.Errorf("error %v is no *Error", err)
					}
					result.failed = true
					if st := s.Status(); st.Machines != 0 && !slices.Contains(had, st.Digest) {
						t.Errorf("after %v the status is %+v", err, st)
					}
					continue
				}
				i := slices.Index(had, snap.Digest())
				if i < latest {
					t.Errorf("snapshot %v is state %d after %d: %v", snap.Digest().Short(), i, latest, slices.Collect(snap.Machines()))
					return
				}
				if latest = i; i == len(had)-1 {
					return
				}
			}
		}
		see()
		for _, change := range faultChanges {
			a.change(change)
			had = append(had, a.tree(t).Digest())
			see()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		result.sent = l.sent
	})
	return result
}

var faultChanges = []func(find func(string) *actorEntry){
	func(find func(string) *actorEntry) {
		find("cn=m1,ou=A,dc=bank,dc=example").DN = "cn=m1,ou=B,dc=bank,dc=example"
	},
	func(find func(string) *actorEntry) { find("cn=m2,ou=A,dc=bank,dc=example").gone = true },
}

// faultTLS makes a server's configuration whose handshake always has the same length, and the file that verifies it.
func faultTLS(t *testing.T) (*tls.Config, string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // where bubbles begin
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "actor"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(240 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, SessionTicketsDisabled: true,
	}, file
}
