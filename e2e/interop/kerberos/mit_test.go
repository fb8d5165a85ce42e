package kerberos

import (
	"crypto/ecdsa"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/krb5"
	"github.com/bailiwick-net/bailiwick/node"
	nodekerberos "github.com/bailiwick-net/bailiwick/node/kerberos"
	"github.com/bailiwick-net/bailiwick/pki/kerberos"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

const (
	realm   = "BANK.EXAMPLE"
	service = "bailiwick/controller.bank.example"
)

// centre is a site with a realm of MIT Kerberos.
type centre struct {
	*site
	kdc *krb5.Server
}

func newCentre(t *testing.T, o krb5.Options) *centre {
	t.Helper()
	kdc := krb5.ForTest(t, o)
	s := &centre{&site{t: t, fleet: controllertest.New(t, controllertest.Bank), config: kdc.Config}, kdc}
	s.principal(service)
	s.start(service+"@"+realm, s.keys("controller.keytab", service), controller.RealmConfig{Name: realm, Accounts: "host"})
	return s
}

func (s *centre) principal(name string) {
	s.t.Helper()
	if err := s.kdc.AddPrincipal(s.t.Context(), name); err != nil {
		s.t.Fatal(err)
	}
}

func (s *centre) keys(file string, names ...string) string {
	s.t.Helper()
	path, err := s.kdc.Keytab(s.t.Context(), file, names...)
	if err != nil {
		s.t.Fatal(err)
	}
	return path
}

// machine makes the account of a machine and returns its keytab.
func (s *centre) machine(name string) string {
	s.t.Helper()
	principal := "host/" + name + ".bank.example"
	s.principal(principal)
	return s.keys(name+".keytab", principal)
}

// A machine with an account joins without anybody's doing, opens a session, renews, and joins again after it lost its key.
func TestMachineEnrolsWithItsAccount(t *testing.T) {
	for _, types := range []string{"aes256-cts-hmac-sha384-192:normal", "aes256-cts-hmac-sha1-96:normal", "aes128-cts-hmac-sha256-128:normal", "aes128-cts-hmac-sha1-96:normal"} {
		t.Run(strings.TrimSuffix(types, ":normal"), func(t *testing.T) {
			s := newCentre(t, krb5.Options{EncryptionTypes: types})
			keytab := s.machine("sql1")
			joined, err := s.join(keytab, "")
			if err != nil {
				t.Fatal(err)
			}
			if joined.Identity.DNSName() != "sql1.bank.example" {
				t.Errorf("joined as %v, want sql1.bank.example", joined.Identity)
			}
			n := s.fleet.Joined(joined.Key.(*ecdsa.PrivateKey), joined.RawChain(), joined.Trust)
			n.Connect(&nodev1.Hello{}).WantAssignment("none")
			if _, err := n.Renew(n.Identity); err != nil {
				t.Errorf("renewing: %v", err)
			}
			again, err := s.join(keytab, "")
			if err != nil {
				t.Fatalf("joining again with another key: %v", err)
			}
			if again.Identity != joined.Identity {
				t.Errorf("joined again as %v, want %v", again.Identity, joined.Identity)
			}
			_, err = n.Renew(n.Identity)
			s.wantRefusal(err, "revoked")
		})
	}
}

// What goes wrong says what to do, and issues nothing.
func TestAccountIsRefused(t *testing.T) {
	s := newCentre(t, krb5.Options{})
	sql1 := s.machine("sql1")
	t.Run("another machine's name", func(t *testing.T) {
		_, err := s.join(sql1, "files1.bank.example")
		s.wantRefusal(err, "files1.bank.example", "sql1.bank.example", "PermissionDenied")
	})
	t.Run("no machine of the directory", func(t *testing.T) {
		_, err := s.join(s.machine("stranger"), "")
		s.wantRefusal(err, "host/stranger.bank.example@BANK.EXAMPLE", "not that of one machine")
	})
	t.Run("account of a person", func(t *testing.T) {
		s.principal("sql1")
		account := nodekerberos.Settings{Keytab: s.keys("person.keytab", "sql1"), Config: s.config, Principal: "sql1@BANK.EXAMPLE"}
		_, err := node.JoinByKerberos(t.Context(), node.Config{StateDir: filepath.Join(t.TempDir(), "state")}, node.JoinAccount{
			Controller: s.fleet.Address(), Pin: s.pin, Name: "sql1.bank.example", Account: account})
		s.wantRefusal(err, "the form host")
	})
	t.Run("keytab that others can read", func(t *testing.T) {
		if err := os.Chmod(sql1, 0o640); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(sql1, 0o600)
		_, err := s.join(sql1, "")
		s.wantRefusal(err, "keytab", "0640")
	})
	t.Run("account that is not known any more", func(t *testing.T) {
		ws1 := s.machine("ws1")
		if err := s.kdc.Modify(t.Context(), "host/ws1.bank.example", "-allow_tix"); err != nil {
			t.Fatal(err)
		}
		_, err := s.join(ws1, "")
		s.wantRefusal(err, "log in to the realm BANK.EXAMPLE", "disabled or locked")
		if !errors.Is(err, nodekerberos.ErrTicket) {
			t.Errorf("error %v does not wrap ErrTicket", err)
		}
	})
	t.Run("keytab from before a change of the password", func(t *testing.T) {
		ws2 := s.machine("ws2")
		if err := s.kdc.ChangeKeys(t.Context(), "host/ws2.bank.example"); err != nil {
			t.Fatal(err)
		}
		_, err := s.join(ws2, "")
		s.wantRefusal(err, "make the keytab anew")
	})
	t.Run("controller's keytab from before a change of the password", func(t *testing.T) {
		if err := s.kdc.ChangeKeys(t.Context(), service); err != nil {
			t.Fatal(err)
		}
		_, err := s.join(sql1, "")
		s.wantRefusal(err, "key version 2", "make its keytab anew")
		// It is read again for each machine.
		s.keys("controller.keytab", service)
		if _, err := s.join(sql1, ""); err != nil {
			t.Errorf("with a new keytab: %v", err)
		}
	})
	t.Run("machine whose certificate was revoked", func(t *testing.T) {
		keytab := s.machine("files1")
		joined, err := s.join(keytab, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := adminv1.NewCertificateServiceClient(s.fleet.Conn()).RevokeCertificates(t.Context(), &adminv1.RevokeCertificatesRequest{
			Selector: &adminv1.CertificateSelector{By: &adminv1.CertificateSelector_Serial{Serial: joined.Leaf().SerialNumber.Text(16)}}, Reason: "keyCompromise"}); err != nil {
			t.Fatal(err)
		}
		_, err = s.join(keytab, "")
		s.wantRefusal(err, "was revoked (keyCompromise)", "token create")
		s.fleet.Node("files1") // with a token
		if _, err = s.join(keytab, ""); err != nil {
			t.Errorf("after somebody let it in again: %v", err)
		}
	})
	t.Run("service that the realm does not know", func(t *testing.T) {
		account, err := nodekerberos.Open(nodekerberos.Settings{Keytab: sql1, Config: s.config})
		if err != nil {
			t.Fatal(err)
		}
		_, err = account.Ticket(t.Context(), kerberos.Principal{Components: []string{"bailiwick", "elsewhere.bank.example"}, Realm: realm})
		s.wantRefusal(err, "does not know the controller's service")
	})
	if _, err := s.join(filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no keytab: %v, want it to say so", err)
	}
}
