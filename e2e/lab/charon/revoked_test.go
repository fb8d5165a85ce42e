package charon

import (
	"context"
	"crypto"
	"crypto/tls"
	"encoding/pem"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// strongSwan takes our list: it lets a machine in that is not on it, having looked, and refuses one that is.
func TestRefusesWhomOurListNames(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	l := labtest.New(t, "bwio-crl-")
	var ends [2]lab.End
	for i, name := range []string{"a", "b"} {
		host, err := l.Host(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := host.AddAddress("lo", netip.PrefixFrom(inner[i].Addr().Next(), 32)); err != nil {
			t.Fatal(err)
		}
		ends[i] = lab.End{Host: host, Device: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(outer[i], 24)}}
	}
	if err := l.Link(ends[0], ends[1]); err != nil {
		t.Fatal(err)
	}
	ca := catest.New(t)
	names := [2]string{"a.bank.example", "b.bank.example"}
	certificates := [2]tls.Certificate{ca.Machine(t, catest.Identity(t, names[0])), ca.Machine(t, catest.Identity(t, names[1]))}
	list := func(number uint64, entries ...revocation.Entry) []byte {
		der, err := ca.SignCRL(revocation.List{Number: number, ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour), Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	}
	var daemons [2]*Daemon
	for i := range daemons {
		dir, err := os.MkdirTemp("", "charon")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		key, ok := certificates[i].PrivateKey.(crypto.Signer)
		if !ok {
			t.Fatal("the key does not sign")
		}
		config := Config{
			Host: ends[i].Host, Dir: dir, Authorities: [][]byte{ca.Root().Raw},
			Certificates: []Certificate{{Name: "own", Chain: certificates[i].Certificate, Key: key}},
			Connections: []Connection{{
				Name: "peer", Local: outer[i], Remote: outer[1-i], Auth: AuthCertificate, LocalID: names[i], RemoteID: names[1-i], Certificate: "own",
				Proposals: []string{"aes256gcm16-prfsha384-ecp384"},
				Children:  []Child{{Name: "net", LocalTS: inner[i], RemoteTS: inner[1-i], Proposals: []string{"aes128gcm16"}}},
			}},
		}
		if i == 0 {
			config.Files = map[string][]byte{"x509crl/fleet.pem": list(1)}
		}
		if daemons[i], err = Start(ctx, config); err != nil {
			t.Fatal(err)
		}
	}
	a, b := daemons[0], daemons[1]
	if err := a.Initiate(ctx, "net"); err != nil {
		text, _ := a.Log()
		t.Fatalf("with a list that names nobody: %v\n%s", err, text)
	}
	if ok, err := a.Logged("certificate status is good"); err != nil || !ok {
		t.Errorf("the list was not looked at: %v", err)
	}
	if err := a.TerminateIKE(ctx, "peer"); err != nil {
		t.Fatal(err)
	}
	revoked := revocation.Entry{Serial: certificates[1].Leaf.SerialNumber, At: time.Now().Add(-time.Minute), Reason: revocation.KeyCompromise}
	if err := os.WriteFile(a.config.path("x509crl/fleet.pem"), list(2, revoked), 0o600); err != nil {
		t.Fatal(err)
	}
	// A daemon that runs keeps the list that it has until that ends.
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := a.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := a.Initiate(ctx, "net"); err == nil {
		t.Error("the revoked machine was let in")
	}
	text, err := a.Log()
	if err != nil || !strings.Contains(text, "certificate was revoked on") || !strings.Contains(text, "key compromise") {
		t.Errorf("the log does not say that the certificate was revoked: %v\n%s", err, text)
	}
	if sas, err := b.SAs(ctx); err != nil || len(sas) != 0 {
		t.Errorf("the revoked machine has %v, %v", sas, err)
	}
}
